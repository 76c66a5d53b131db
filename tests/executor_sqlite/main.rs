//! The executor on a SQLite file: batches that share a COMMIT, what loses them, and what is left when things go wrong.
//!
//! Seconds; minutes and more with `DIESEL_SESSION_LONG=1`.
#![cfg(feature = "sqlite")]
#![allow(
    missing_docs,
    clippy::duplicate_mod,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../support/bank.rs"]
mod bank;
#[path = "../support/killed.rs"]
mod killed;
#[path = "../support/lock_holder.rs"]
mod lock_holder;
#[path = "../support/mod.rs"]
mod support;

mod db {
    pub(crate) use crate::support::sqlite_file::{Conn, Database, Registry, Session};
    pub(crate) const CREATE_JOBS: &str = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, number BIGINT NOT NULL)";
}

mod batches;
mod foreign_writer;
mod increments;
mod kills;
mod kinds;
mod lost;
mod panics;
mod random;
mod soak;
mod tools;
