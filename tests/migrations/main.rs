//! Migrations run once, however many processes and threads start at the same time, and as Diesel runs them.
//!
//! SQLite needs nothing. `--features postgres` and `--features mysql` need a server (`TEST_POSTGRES_URL`,
//! `TEST_MYSQL_URL`) and fail without one.
#![allow(missing_docs, clippy::duplicate_mod, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod starters;
mod written;

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_memory {
    pub(crate) use crate::support::sqlite_memory as db;
    pub(crate) const OWN: diesel_migrations::EmbeddedMigrations =
        diesel_migrations::embed_migrations!("migrations/sqlite");
    #[path = "each.rs"]
    mod each;
}

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_file {
    pub(crate) use crate::sqlite_memory::OWN;
    pub(crate) use crate::support::sqlite_file as db;
    /// Each round is a new file, so each has the switch to the write-ahead log in it.
    pub(crate) const ROUNDS: usize = 12;
    #[path = "each.rs"]
    mod each;
    #[path = "processes.rs"]
    mod processes;
    #[path = "rebuild.rs"]
    mod rebuild;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    pub(crate) use crate::support::postgres as db;
    pub(crate) const OWN: diesel_migrations::EmbeddedMigrations =
        diesel_migrations::embed_migrations!("migrations/postgres");
    pub(crate) const ROUNDS: usize = 3;
    pub(crate) const END_OWN_CONNECTION: &str = "SELECT pg_terminate_backend(pg_backend_pid())";
    #[path = "concurrently.rs"]
    mod concurrently;
    #[path = "each.rs"]
    mod each;
    #[path = "processes.rs"]
    mod processes;
    #[path = "servers.rs"]
    mod servers;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    pub(crate) use crate::support::mysql as db;
    pub(crate) const OWN: diesel_migrations::EmbeddedMigrations =
        diesel_migrations::embed_migrations!("migrations/mysql");
    pub(crate) const ROUNDS: usize = 3;
    pub(crate) const END_OWN_CONNECTION: &str = "KILL CONNECTION_ID()";
    #[path = "each.rs"]
    mod each;
    #[path = "long_name.rs"]
    mod long_name;
    #[path = "processes.rs"]
    mod processes;
    #[path = "servers.rs"]
    mod servers;
}

/// How long a test waits for what must not wait for ever.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs `f` on a thread of its own and gives what it returned; fails the test if it does not return.
#[track_caller]
fn in_time<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (give, take) = std::sync::mpsc::channel();
    std::thread::spawn(move || give.send(f()));
    take.recv_timeout(PATIENCE).expect("it returns, in time and without a panic")
}
