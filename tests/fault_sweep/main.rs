//! Whatever goes wrong, wherever: a commit that says `Ok` is stored, one that says that nothing was stored is not, and the
//! next unit of work finds a usable engine.
//!
//! SQLite needs nothing. `--features postgres` and `--features mysql` need a server (`TEST_POSTGRES_URL`,
//! `TEST_MYSQL_URL`) and fail without one. `DIESEL_SESSION_LONG=1` runs the long form.
#![allow(missing_docs, clippy::duplicate_mod, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "../support/door.rs"]
mod door;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod proxy;

/// Whether the long form was asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("DIESEL_SESSION_LONG").is_some_and(|value| value == "1")
}

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_memory {
    pub(crate) use crate::support::sqlite_memory as db;
    /// In memory, under a name that a second connection can open.
    pub(crate) fn database() -> db::Database {
        db::Database { url: format!("file:/{}?vfs=memdb", crate::support::unique_name()) }
    }
    /// There is no server to ask. An open transaction would keep the next unit of work from writing.
    pub(crate) fn open_transactions(_: &mut db::Conn) -> i64 {
        0
    }
    mod commits;
    mod each;
    mod instrumentation;
    mod markers_sqlite;
    mod pairs;
    mod run;
}

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_file {
    pub(crate) use crate::sqlite_memory::open_transactions;
    pub(crate) use crate::support::sqlite_file as db;
    pub(crate) fn database() -> db::Database {
        db::Database::new()
    }
    mod commits;
    mod each;
    mod instrumentation;
    mod markers_sqlite;
    mod pairs;
    mod read_only_file;
    mod run;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    use diesel::prelude::*;

    pub(crate) use crate::support::postgres as db;
    pub(crate) fn database() -> db::Database {
        db::Database::new()
    }
    pub(crate) fn open_transactions(eye: &mut db::Conn) -> i64 {
        diesel::dsl::sql::<diesel::sql_types::BigInt>(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND xact_start IS NOT NULL AND backend_type = 'client backend'",
        )
        .get_result(eye)
        .unwrap()
    }
    mod commits;
    mod cuts;
    mod cuts_postgres;
    mod each;
    mod instrumentation;
    mod pairs;
    mod run;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    use diesel::prelude::*;

    pub(crate) use crate::support::mysql as db;
    pub(crate) fn database() -> db::Database {
        db::Database::new()
    }
    pub(crate) fn open_transactions(eye: &mut db::Conn) -> i64 {
        diesel::dsl::sql::<diesel::sql_types::BigInt>(
            "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist \
             ON trx_mysql_thread_id = processlist.id WHERE db = database() AND processlist.id <> connection_id()",
        )
        .get_result(eye)
        .unwrap()
    }
    mod commits;
    mod cuts;
    mod each;
    mod instrumentation;
    mod markers_mysql;
    mod pairs;
    mod rights;
    mod run;
}
