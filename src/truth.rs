//! What Diesel answers, what a session answers, and what the database then holds: documentation only.
//!
//! Each row is one situation, run twice on a database of its own: with a bare Diesel connection and its
//! `conn.transaction(|conn| …)`, and with [`registry.transaction(|session| …)`](crate::ScopedSession::transaction). Where
//! a row says no more, the steps are the same code. Answers stand in the order in which they came, and behind each error of
//! a session stands its [class](crate::Error::class). `note`=7 is a row whose number was changed to 7; one without a number
//! was only inserted. ⚠ stands where the database does not hold what the answers say: something is missing after `Ok`, or
//! is there after an error that means a rollback.
//!
//! The tables are written by `UPDATE_TABLES=1 cargo test --features sqlite,postgres,mysql --test truth_table`. Without the
//! variable the test runs everything again and fails where an answer is no longer what stands here.
//!
#![doc = include_str!("../docs/truth/sqlite.md")]
//!
#![doc = include_str!("../docs/truth/postgres.md")]
//!
#![doc = include_str!("../docs/truth/mysql.md")]
