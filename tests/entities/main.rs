//! The unit of work, on every backend that is switched on. `promises.rs` lists the files; each is written once.
#![allow(
    dead_code,
    missing_docs,
    clippy::print_stdout,
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod models;
mod schema;
mod shape_tables;
mod shapes;
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_memory {
    pub(crate) mod db {
        pub(crate) use crate::schema::SQLITE as SCHEMA;
        pub(crate) use crate::support::sqlite_memory::{Conn, Database, Registry, Session};
        pub(crate) const CONCURRENT: bool = false;
    }
    #[path = "promises.rs"]
    mod promises;
}

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite_file {
    pub(crate) mod db {
        pub(crate) use crate::schema::SQLITE as SCHEMA;
        pub(crate) use crate::support::sqlite_file::{Conn, Database, Registry, Session};
        pub(crate) const CONCURRENT: bool = true;
    }
    #[path = "promises.rs"]
    mod promises;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    pub(crate) mod db {
        pub(crate) use crate::schema::POSTGRES as SCHEMA;
        pub(crate) use crate::support::postgres::{Conn, Database, Registry, Session};
        pub(crate) const CONCURRENT: bool = true;
    }
    #[path = "promises.rs"]
    mod promises;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    pub(crate) mod db {
        pub(crate) use crate::schema::MYSQL as SCHEMA;
        pub(crate) use crate::support::mysql::{Conn, Database, Registry, Session};
        pub(crate) const CONCURRENT: bool = true;
    }
    #[path = "promises.rs"]
    mod promises;
}
