//! The files of the suite, compiled once for each backend; `db` is the backend.

pub(crate) use super::db;
pub(crate) use crate::support::notes;

mod attempts;
mod corners;
mod engine;
mod extents;
mod honest_commit;
mod hooks;
mod join;
mod listeners;
mod lost;
mod model;
mod options;
mod parity_autobegin;
mod parity_blocks;
mod parity_events;
mod parity_extents;
mod parity_failures;
mod parity_join;
mod parity_scoping;
mod parity_session;
mod parity_statements;
mod parity_transaction;
mod propagation;
mod registry;
mod retry;
mod savepoints;
mod scoped_future;
mod shutdown;
mod state_table;
mod statements;
mod threads;
mod tools;
mod transaction;
mod unwinding;
mod waiting;
