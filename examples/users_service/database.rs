//! Which database this build talks to, chosen by cargo feature: SQLite, else PostgreSQL, else MySQL or MariaDB.

use std::time::Duration;

use diesel_session::{Engine, Executor, Result, ScopedSession, WhenFull};

pub(crate) use chosen::{Connection, DEFAULT_URL, NAME};

/// A session on the chosen database: handlers say `Session::current()`.
pub(crate) type Session = diesel_session::Session<Connection>;
/// The registry that gives each thread its session.
pub(crate) type Registry = ScopedSession<Connection>;
/// The database threads, which requests are jobs of.
pub(crate) type Database = Executor<Connection>;

#[cfg(feature = "sqlite")]
mod chosen {
    pub(crate) type Connection = diesel::sqlite::SqliteConnection;
    pub(crate) const NAME: &str = "SQLite";
    pub(crate) const DEFAULT_URL: Option<&str> = Some("users.db");
    pub(super) const MIGRATIONS: diesel_migrations::EmbeddedMigrations =
        diesel_migrations::embed_migrations!("migrations/sqlite");
}

#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
mod chosen {
    pub(crate) type Connection = diesel::pg::PgConnection;
    pub(crate) const NAME: &str = "PostgreSQL";
    pub(crate) const DEFAULT_URL: Option<&str> = None;
    pub(super) const MIGRATIONS: diesel_migrations::EmbeddedMigrations =
        diesel_migrations::embed_migrations!("migrations/postgres");
}

#[cfg(all(feature = "mysql", not(any(feature = "sqlite", feature = "postgres"))))]
mod chosen {
    pub(crate) type Connection = diesel::mysql::MysqlConnection;
    pub(crate) const NAME: &str = "MySQL/MariaDB";
    pub(crate) const DEFAULT_URL: Option<&str> = None;
    pub(super) const MIGRATIONS: diesel_migrations::EmbeddedMigrations =
        diesel_migrations::embed_migrations!("migrations/mysql");
}

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("users_service needs a database: turn on the feature `sqlite`, `postgres` or `mysql`");

/// Connects, brings the schema up to date, and starts the database threads: on SQLite one that writes and some that read,
/// elsewhere one for each connection. `patience` is how long a request waits for one of them, and there once more for the
/// write gate and a connection, before it is answered with 503.
pub(crate) fn open(url: &str, pool_size: usize, patience: Duration) -> Result<Database> {
    let engine = Engine::<Connection>::builder(url).max_size(pool_size).connection_timeout(patience).build()?;
    engine.run_migrations(chosen::MIGRATIONS)?;
    // No places: whoever finds no thread free stands behind them, and not for longer than that.
    let builder = Executor::builder(Registry::new(engine)).queue(0).when_full(WhenFull::WaitFor(patience));
    // No request waits for anything else while its transaction is open.
    builder.async_sessions(0).build()
}
