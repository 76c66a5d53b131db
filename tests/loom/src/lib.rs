//! The executor's queue and completion cell, compiled from the crate's own files with loom's locks in the place of the
//! standard library's: loom runs each model below in every order that its threads can take.
#![cfg(test)]
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

#[path = "../../../src/executor/answer.rs"]
mod answer;
#[path = "../../../src/executor/queue.rs"]
mod queue;

/// What the two files are built on here.
mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
}

mod cell;
mod line;
