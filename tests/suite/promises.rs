//! The files of the suite, compiled once for each backend; `db` is the backend.

pub(crate) use super::db;
pub(crate) use crate::support::notes;

mod honest_commit;
mod hooks;
mod join;
mod options;
mod savepoints;
mod state_table;
mod statements;
mod tools;
mod transaction;
mod unwinding;
