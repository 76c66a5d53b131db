//! What an executor promises, whatever the database.

pub(crate) use super::db;
pub(crate) use crate::support::notes;

mod jobs;
mod waiting;
