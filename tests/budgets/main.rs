//! What everyday work costs, to the statement and to the round trip, on every backend that is switched on: `budget.rs` is the
//! table of it. Nothing here looks at a clock.
//!
//! SQLite needs nothing. `--features postgres` and `--features mysql` need a server (`TEST_POSTGRES_URL`,
//! `TEST_MYSQL_URL`) and fail without one; what is pinned for MySQL is MariaDB's, from 10.6 on.
#![allow(missing_docs, clippy::duplicate_mod, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod budget;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "../support/door.rs"]
mod door;
mod models;
mod recorder;
mod schema;
#[path = "../support/mod.rs"]
mod support;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod wire;

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite {
    pub(crate) use crate::budget::SQLITE as BUDGET;
    pub(crate) use crate::schema::SQLITE as SCHEMA;
    pub(crate) use crate::support::sqlite_file as db;
    mod prepared_once;
    mod statements;
    mod work;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    pub(crate) use crate::budget::POSTGRES as BUDGET;
    pub(crate) use crate::schema::POSTGRES as SCHEMA;
    pub(crate) use crate::support::postgres as db;
    mod prepared_once;
    mod prepared_postgres;
    mod round_trips;
    mod statements;
    mod work;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    pub(crate) use crate::budget::MARIADB as BUDGET;
    pub(crate) use crate::schema::MYSQL as SCHEMA;
    pub(crate) use crate::support::mysql as db;
    mod prepared_mysql;
    mod prepared_once;
    mod round_trips;
    mod statements;
    mod work;
}
