//! The statements that entities are stored by, on each backend that is switched on: `promises.rs` everywhere, `servers.rs`
//! where several connections are needed, and a file for what each alone has. `models.rs` says by hand what the derives expand to.
#![allow(clippy::duplicate_mod, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod support;

#[cfg(feature = "sqlite")]
#[path = "entity_sql"]
mod sqlite {
    pub(crate) use crate::support::sqlite_file as db;
    #[path = "models.rs"]
    mod models;
    #[path = "promises.rs"]
    mod promises;
    #[path = "sqlite.rs"]
    mod sqlite_only;
}

#[cfg(feature = "postgres")]
#[path = "entity_sql"]
mod postgres {
    pub(crate) use crate::support::postgres as db;
    #[path = "models.rs"]
    mod models;
    #[path = "postgres.rs"]
    mod postgres_only;
    #[path = "promises.rs"]
    mod promises;
    #[path = "servers.rs"]
    mod servers;
}

#[cfg(feature = "mysql")]
#[path = "entity_sql"]
mod mysql {
    pub(crate) use crate::support::mysql as db;
    #[path = "models.rs"]
    mod models;
    #[path = "mysql.rs"]
    mod mysql_only;
    #[path = "promises.rs"]
    mod promises;
    #[path = "servers.rs"]
    mod servers;
}
