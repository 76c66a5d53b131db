//! The tables in `docs/truth`: the same steps with bare Diesel and with a session, what each answers, and what the
//! database then holds. A table is compared with what was just measured; `UPDATE_TABLES=1` writes it anew.
#![allow(clippy::duplicate_mod, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "support/mod.rs"]
mod support;
#[path = "truth_table/table.rs"]
mod table;

#[cfg(feature = "mysql")]
#[path = "truth_table/mysql.rs"]
mod mysql;
#[cfg(feature = "postgres")]
#[path = "truth_table/postgres.rs"]
mod postgres;
#[cfg(feature = "sqlite")]
#[path = "truth_table/sqlite.rs"]
mod sqlite;
