//! For tests of code that uses sessions: a database of its own for each test, commits that are undone, hooks that are
//! looked at instead of run, and faults on purpose.
//!
//! * [`TestDatabase`]: a fresh, migrated database, dropped with its value.
//! * [`EngineBuilder::sandbox`](crate::EngineBuilder::sandbox): the code's own commits happen in a transaction around
//!   everything, which is rolled back with the engine: much cheaper than a database for each test.
//! * [`capture_hooks`]: `on_commit` hooks and the like, collected instead of run.
//! * [`FaultPlan`]: the k-th call of the driver fails, closes the connection or panics.

mod capture;
mod database;
mod faults;

pub(crate) use capture::kept;
pub use capture::{CapturedHooks, capture_hooks};
#[doc(hidden)]
pub use database::MadeDatabase;
pub use database::TestDatabase;
pub use faults::{Call, Fault, FaultPlan};
