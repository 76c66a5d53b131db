//! Many threads against few rows: what a retry policy, the ring breaker and the write gate make of it. A few seconds each;
//! with `DIESEL_SESSION_LONG=1` a minute each. One storm at a time; the figures are printed (`--nocapture`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::duplicate_mod,
    missing_docs,
    unreachable_pub
)]

#[path = "support/mod.rs"]
mod support;

#[path = "storms/tools.rs"]
mod tools;

#[cfg(feature = "postgres")]
#[path = "storms"]
mod postgres {
    use crate::support::postgres as db;
    #[path = "deadlocks.rs"]
    mod deadlocks;
    #[path = "skew.rs"]
    mod skew;
    #[path = "starvation.rs"]
    mod starvation;
}

#[cfg(feature = "mysql")]
#[path = "storms"]
mod mysql {
    use crate::support::mysql as db;
    #[path = "deadlocks.rs"]
    mod deadlocks;
    #[path = "starvation.rs"]
    mod starvation;
}

#[cfg(feature = "sqlite")]
#[path = "storms"]
mod sqlite {
    use crate::support::sqlite_file as db;
    #[path = "counter.rs"]
    mod counter;
    #[path = "starvation.rs"]
    mod starvation;
}
