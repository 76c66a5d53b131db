//! For those who come from elsewhere, a page each: documentation only. Every example on these pages runs as a test.

/// For those who know Diesel.
#[doc = include_str!("../docs/guide/from_diesel.md")]
pub mod from_diesel {}

/// For those who know SQLAlchemy.
#[doc = include_str!("../docs/guide/from_sqlalchemy.md")]
pub mod from_sqlalchemy {}
