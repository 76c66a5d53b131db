//! Servers that end connections, servers that fall silent, and another process that holds a file's lock: every unit of work
//! gets its answer, nothing is lost, and afterwards the engine serves as before.
//!
//! Each server is a private one (`support/servers.rs`). A few seconds; a minute and more with `DIESEL_SESSION_LONG=1`.
#![allow(
    missing_docs,
    clippy::duplicate_mod,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_file {
    #[path = "../support/bank.rs"]
    mod bank;
    pub(crate) mod db {
        pub(crate) use crate::support::sqlite_file::{Conn, Registry, Session};
        pub(crate) const CREATE_JOBS: &str = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, number BIGINT NOT NULL)";
    }
    #[path = "foreign_lock.rs"]
    mod foreign_lock;
    #[path = "../support/lock_holder.rs"]
    mod lock_holder;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    #[path = "../support/bank.rs"]
    mod bank;
    pub(crate) mod db {
        pub(crate) use crate::servers::postgres as server;
        pub(crate) use crate::support::postgres::{Conn, NAME, Registry, Session};
        pub(crate) const CREATE_JOBS: &str = "CREATE TABLE jobs (id BIGSERIAL PRIMARY KEY, number BIGINT NOT NULL)";

        /// Ends one of the server's other connections to this database.
        pub(crate) fn end_one(admin: &mut Conn) {
            use diesel::connection::SimpleConnection;
            let sql = "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS one";
            admin.batch_execute(sql).unwrap();
        }
    }
    #[path = "black_hole.rs"]
    mod black_hole;
    #[path = "terminations.rs"]
    mod terminations;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    #[path = "../support/bank.rs"]
    mod bank;
    pub(crate) mod db {
        pub(crate) use crate::servers::mariadb as server;
        pub(crate) use crate::support::mysql::{Conn, NAME, Registry, Session};
        pub(crate) const CREATE_JOBS: &str =
            "CREATE TABLE jobs (id BIGINT PRIMARY KEY AUTO_INCREMENT, number BIGINT NOT NULL) ENGINE = InnoDB";

        /// Ends one of the server's other connections to this database.
        pub(crate) fn end_one(admin: &mut Conn) {
            use diesel::connection::SimpleConnection;
            use diesel::prelude::*;
            let one = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                WHERE db = database() AND id <> connection_id() ORDER BY rand() LIMIT 1";
            let id: Option<i64> =
                diesel::dsl::sql::<diesel::sql_types::BigInt>(one).get_result(admin).optional().unwrap();
            if let Some(id) = id {
                // It may have gone by itself.
                let _ = admin.batch_execute(&format!("KILL {id}"));
            }
        }
    }
    #[path = "black_hole.rs"]
    mod black_hole;
    #[path = "terminations.rs"]
    mod terminations;
}
