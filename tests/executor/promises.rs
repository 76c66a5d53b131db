//! What an executor promises, whatever the database.

pub(crate) use super::db;

mod async_sessions;
mod jobs;
mod runtimes;
mod waiting;
