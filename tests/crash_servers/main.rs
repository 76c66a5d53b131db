//! A server that is killed with SIGKILL under load, again and again: what was acknowledged is there, what was refused is
//! not, nothing is there twice.
//!
//! Each server is a private one (`support/servers.rs`). Twice each; 20 times with `DIESEL_SESSION_LONG=1`.
#![cfg(any(feature = "postgres", feature = "mysql"))]
#![allow(
    missing_docs,
    clippy::duplicate_mod,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    #[path = "../support/bank.rs"]
    mod bank;
    pub(crate) mod db {
        pub(crate) use crate::servers::postgres as server;
        pub(crate) use crate::support::postgres::{Conn, NAME, Registry, Session};
        pub(crate) const CREATE_JOBS: &str = "CREATE TABLE jobs (id BIGSERIAL PRIMARY KEY, number BIGINT NOT NULL)";
    }
    #[path = "kills.rs"]
    mod kills;
    #[path = "numbers.rs"]
    mod numbers;
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
    }
    #[path = "kills.rs"]
    mod kills;
}
