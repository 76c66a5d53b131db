//! What takes the place of an installed executor that was shut down.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Error, Executor, Result, ScopedSession, on_database_thread};

type Session = diesel_session::Session<SqliteConnection>;

#[on_database_thread]
fn ask() -> Result<()> {
    Session::current()?.batch_execute("SELECT 1")
}

// The only test of its process: what is installed is the process's.
#[test]
fn an_executor_is_installed_until_it_is_shut_down() {
    let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:").unwrap());
    let first = Executor::new(registry.clone()).unwrap();
    first.clone().install().unwrap();
    ask().wait().unwrap();
    let second = Executor::new(registry).unwrap();
    assert!(matches!(second.clone().install(), Err(Error::ExecutorInstalled)));

    first.shutdown(Duration::from_secs(10)).unwrap();
    assert!(matches!(ask().wait(), Err(Error::ShutDown)), "nothing has taken its place yet");
    second.install().unwrap();
    ask().wait().unwrap();
    assert!(Executor::<SqliteConnection>::installed().is_some_and(|installed| installed.inspect().running() == 0));
}
