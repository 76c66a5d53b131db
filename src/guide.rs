//! A page each for those who come from elsewhere, and one on ways of working: documentation only. Every example on these
//! pages runs as a test.

/// For those who know Diesel.
#[doc = include_str!("../docs/guide/from_diesel.md")]
pub mod from_diesel {}

/// For those who know SQLAlchemy.
#[doc = include_str!("../docs/guide/from_sqlalchemy.md")]
pub mod from_sqlalchemy {}

/// Threads, pools, executors and async: which way fits where.
#[doc = include_str!("../docs/guide/ways_of_working.md")]
pub mod ways_of_working {}
