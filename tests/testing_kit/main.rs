//! What `diesel_session::testing` gives to tests: databases of their own, sandboxes, hooks that are looked at.
//!
//! SQLite needs nothing. `--features postgres` and `--features mysql` need a server (`TEST_POSTGRES_URL`,
//! `TEST_MYSQL_URL`) and fail without one.
#![allow(missing_docs, clippy::duplicate_mod, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

macro_rules! backend {
    ($name:ident, $migrations:literal, $server:expr $(, $also:ident)*) => {
        #[path = "."]
        mod $name {
            pub(crate) use crate::support::$name as db;
            pub(crate) const MIGRATIONS: diesel_migrations::EmbeddedMigrations =
                diesel_migrations::embed_migrations!($migrations);
            /// Where test databases are made.
            pub(crate) fn server() -> String {
                $server
            }
            mod databases;
            mod hooks;
            mod sandbox;
            $(mod $also;)*
        }
    };
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[cfg(feature = "sqlite")]
backend!(sqlite_memory, "migrations/sqlite", ":memory:".to_owned(), sandbox_sqlite);
#[cfg(feature = "sqlite")]
backend!(sqlite_file, "migrations/sqlite", String::new(), databases_sqlite, sandbox_sqlite);
#[cfg(feature = "postgres")]
backend!(
    postgres,
    "migrations/postgres",
    crate::variable("TEST_POSTGRES_URL", "postgres://root@127.0.0.1:5432/postgres"),
    databases_postgres,
    sandbox_postgres
);
#[cfg(feature = "mysql")]
backend!(
    mysql,
    "migrations/mysql",
    crate::variable("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/mysql"),
    sandbox_mysql
);
