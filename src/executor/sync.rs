//! What the queue and the completion cell are built on. The model checker compiles those two files with its own.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
