//! One connection a thread: how many there are, and when they close.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Barrier};

use diesel_session::{Error, Strategy};

mod support;
#[cfg(all(feature = "mysql", not(any(feature = "sqlite", feature = "postgres"))))]
use support::mysql as db;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
use support::postgres as db;
#[cfg(feature = "sqlite")]
use support::sqlite_file as db;

use db::{Database, Session, insert, texts};

#[test]
fn the_connections_kept_for_threads_are_never_more_than_max_size() {
    const THREADS: usize = 4;
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.strategy(Strategy::PerThread).max_size(THREADS));
    // This thread keeps one too, so it has to make room for one of the others'.
    registry.transaction(|session| insert(session, "main")).unwrap();
    let reading = Arc::new(Barrier::new(THREADS + 1));
    let counted = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (registry, reading, counted) = (registry.clone(), Arc::clone(&reading), Arc::clone(&counted));
            std::thread::spawn(move || {
                let seen = registry.read(|session| {
                    let seen = texts(session);
                    reading.wait();
                    counted.wait();
                    Ok::<_, Error>(seen)
                });
                assert_eq!(seen.unwrap(), ["main"]);
                reading.wait();
                counted.wait();
            })
        })
        .collect();
    reading.wait();
    let engine = registry.engine();
    let (in_use, idle) = (engine.connections_in_use().len(), engine.idle());
    counted.wait();
    reading.wait();
    let idle_after = engine.idle();
    counted.wait();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((in_use, idle), (THREADS, 0));
    assert_eq!(idle_after, THREADS);
}

#[test]
fn a_thread_that_ends_with_an_open_session_leaves_no_connection() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.strategy(Strategy::PerThread));
    // This thread's own, from making the table.
    let before = registry.engine().idle();
    for n in 0..3 {
        let registry = registry.clone();
        std::thread::spawn(move || {
            let session: Session = registry.current().unwrap();
            insert(&session, &n.to_string()).unwrap();
        })
        .join()
        .unwrap();
    }
    assert_eq!(registry.engine().idle(), before);
    assert_eq!(registry.engine().connections_in_use().len(), 0);
}
