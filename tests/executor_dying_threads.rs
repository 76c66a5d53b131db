//! A database thread dies of a log that panics, also where its death is told. In a process of its own, for the log is the
//! process's.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Executor, Result, ScopedSession};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static PANICS: AtomicBool = AtomicBool::new(false);

/// A log that panics: what a database thread dies of.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == &Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        assert!(!PANICS.load(Ordering::SeqCst), "logged");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

fn empty(executor: &Executor<SqliteConnection>) -> diesel_session::JobHandle<()> {
    executor.run(|_| -> Result<()> { Ok(()) })
}

#[test]
fn another_thread_takes_the_place_of_one_that_a_panicking_log_killed() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:").unwrap());
    let executor = Executor::builder(registry).threads(1).async_sessions(0).build().unwrap();
    let (begun, begins) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    // Its answer is for nobody, panics where it is dropped, and so does the log that is told.
    let last = executor.run(move |_| -> Result<Bomb> {
        begun.send(()).unwrap();
        let _ = ended.recv();
        Ok(Bomb)
    });
    begins.recv().unwrap();
    drop(last);
    let waits = empty(&executor);
    PANICS.store(true, Ordering::SeqCst);
    drop(end);
    waits.wait().unwrap();
    empty(&executor).wait().unwrap();
}
