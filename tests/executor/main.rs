//! The executor, on every backend that is switched on. `promises.rs` lists the files; each is written once.
//!
//! SQLite (in memory and in a file) needs nothing. `--features postgres` and `--features mysql` need a server
//! (`TEST_POSTGRES_URL`, `TEST_MYSQL_URL`) and fail without one.
#![allow(clippy::duplicate_mod, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_memory {
    pub(crate) use crate::support::sqlite_memory as db;
    #[path = "promises.rs"]
    mod promises;
}

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_file {
    pub(crate) use crate::support::sqlite_file as db;
    #[path = "promises.rs"]
    mod promises;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    pub(crate) use crate::support::postgres as db;
    #[path = "promises.rs"]
    mod promises;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    pub(crate) use crate::support::mysql as db;
    #[path = "promises.rs"]
    mod promises;
}
