//! What a forked child may do to its parent's sessions: nothing.
//!
//! Without libtest: a child has only the thread that forked, and leaves by returning from `main` like any program. A child
//! tells by its exit status whether its own checks held; the parent checks the rest.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]
#![cfg_attr(not(unix), allow(unused))]

#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
mod children;

#[cfg(all(unix, feature = "sqlite"))]
#[path = "."]
mod sqlite {
    #[path = "server_sqlite.rs"]
    pub(crate) mod server_view;

    pub(crate) use crate::support::sqlite_file as db;
    #[path = "promises.rs"]
    pub(crate) mod promises;
}

#[cfg(all(unix, feature = "postgres"))]
#[path = "."]
mod postgres {
    #[path = "server_postgres.rs"]
    pub(crate) mod server_view;

    pub(crate) use crate::support::postgres as db;
    #[path = "promises.rs"]
    pub(crate) mod promises;
}

#[cfg(all(unix, feature = "mysql"))]
#[path = "."]
mod mysql {
    #[path = "server_mysql.rs"]
    pub(crate) mod server_view;

    pub(crate) use crate::support::mysql as db;
    #[path = "promises.rs"]
    pub(crate) mod promises;
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    let all: &[&[(&str, children::Promise)]] = &[
        #[cfg(feature = "sqlite")]
        sqlite::promises::ALL,
        #[cfg(feature = "postgres")]
        postgres::promises::ALL,
        #[cfg(feature = "mysql")]
        mysql::promises::ALL,
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, promise) in all.iter().copied().flatten() {
        if !wanted.is_empty() && !wanted.iter().any(|text| name.contains(text)) {
            continue;
        }
        // A child leaves here, with the destructors of its thread still to run.
        if let Some(status) = promise() {
            return status;
        }
        println!("test {name} ... ok");
    }
    std::process::ExitCode::SUCCESS
}
