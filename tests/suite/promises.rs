//! The files of the suite, compiled once for each backend; `db` is the backend.

pub(crate) use super::db;
pub(crate) use crate::support::notes;

mod engine;
mod extents;
mod model;
mod registry;
mod scoped_future;
mod shutdown;
mod threads;
mod transaction;
mod waiting;
