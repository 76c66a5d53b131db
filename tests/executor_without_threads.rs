//! The last thread of an executor dies and the system gives no other: nobody waits for ever. In a process of its own, whose
//! memory it takes away.
#![cfg(all(feature = "sqlite", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Error, Executor, Result, ScopedSession};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
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
fn what_waits_for_threads_that_are_gone_is_refused_and_what_comes_later_too() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:").unwrap());
    let executor = Executor::builder(registry).threads(1).async_sessions(0).build().unwrap();
    empty(&executor).wait().unwrap();
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
    let limit = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(1 << 20), ..limit }).unwrap();
    drop(end);
    let told = waits.wait_timeout(Duration::from_secs(60));
    setrlimit(Resource::As, limit).unwrap();
    assert!(matches!(told, Ok(Err(Error::ShutDown))), "{told:?}");
    let later = empty(&executor).wait_timeout(Duration::from_secs(60));
    assert!(matches!(later, Ok(Err(Error::ShutDown))), "{later:?}");
    executor.shutdown(Duration::from_secs(60)).unwrap();
}
