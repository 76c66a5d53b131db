//! The files of the suite, compiled once for each backend; `db` is the backend.

pub(crate) use super::db;
pub(crate) use crate::support::notes;

mod extents;
mod registry;
mod transaction;
