//! Deadlines: what bounds a unit of work, and that the next user of its connection notices nothing of it.
#![allow(clippy::duplicate_mod, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod commands;

#[cfg(feature = "sqlite")]
#[path = "."]
mod sqlite {
    pub(crate) use crate::support::sqlite_file as db;
    #[path = "sqlite.rs"]
    mod own;
    #[path = "promises.rs"]
    mod promises;
    #[path = "settings_sqlite.rs"]
    mod settings;
}

#[cfg(feature = "postgres")]
#[path = "."]
mod postgres {
    pub(crate) use crate::support::postgres as db;
    #[path = "promises.rs"]
    mod promises;
    #[path = "servers.rs"]
    mod servers;
    #[path = "settings_postgres.rs"]
    mod settings;
}

#[cfg(feature = "mysql")]
#[path = "."]
mod mysql {
    pub(crate) use crate::support::mysql as db;
    #[path = "promises.rs"]
    mod promises;
    #[path = "servers.rs"]
    mod servers;
    #[path = "settings_mysql.rs"]
    mod settings;
}
