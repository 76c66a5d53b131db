//! Shutdown: what is open may end, nothing new begins, and nothing is killed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel_session::{Error, ErrorClass, Result, TransactionOptions, autocommit, read_only};

use super::db::{self, Database, Registry, Session, insert};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

/// What is stored, read by an engine of its own where the data outlives the first.
fn stored_afterwards(database: &Database) -> Option<Vec<String>> {
    db::CONCURRENT.then(|| super::db::stored(&Registry::new(database.builder().build().unwrap())))
}

#[test]
fn nothing_begins_after_shutdown_and_every_road_says_so() {
    let database = Database::new();
    let registry = database.registry();
    let idle = registry.current().unwrap();
    registry.shutdown(LONG).unwrap();
    assert!(registry.is_shut_down());
    assert!(registry.current().unwrap() == idle, "sessions can still be found");
    assert!(matches!(insert(&idle, "a"), Err(Error::ShutDown)));
    assert!(matches!(idle.begin_nested(), Err(Error::ShutDown)));
    registry.remove();
    for answer in [
        registry.scope(|session| insert(session, "a").map(drop)).unwrap(),
        registry.transaction(|session| insert(session, "a").map(drop)),
        registry.read(|session| session.batch_execute("SELECT 1")),
        registry.job(|session| insert(session, "a").map(drop)),
        registry.request(TransactionOptions::new(), |session| insert(session, "a").map(drop)),
        Session::new(registry.engine()).batch_execute("SELECT 1"),
    ] {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::ShutDown), "{error}");
        assert_eq!(error.class(), ErrorClass::Unavailable);
    }
    registry.remove();
    let alone = registry.current_with(autocommit()).unwrap();
    assert!(matches!(insert(&alone, "a"), Err(Error::ShutDown)));
    registry.remove();
    registry.shutdown(Duration::ZERO).unwrap();
    assert!(registry.inspect().sessions.is_empty());
    assert_eq!(registry.engine().idle(), 0);
}

#[test]
fn a_transaction_that_is_open_may_go_on_and_commit_while_shutdown_waits() {
    let database = Database::new();
    let registry = database.registry();
    let (open, opened) = mpsc::channel();
    let worker = registry.spawn({
        let registry = registry.clone();
        move || -> Result<()> {
            registry.transaction(|session| {
                insert(session, "before")?;
                open.send(()).unwrap();
                wait_until("shutdown begins", || registry.is_shut_down());
                assert!(registry.current()? == *session);
                insert(session, "during")?;
                let savepoint = session.begin_nested()?;
                insert(session, "nested")?;
                savepoint.commit()?;
                // A transaction of its own is a new one.
                let refused = registry.scope(|inner| {
                    inner.begin_with(read_only()).unwrap();
                    inner.batch_execute("SELECT 1")
                })?;
                assert!(matches!(refused, Err(Error::ShutDown)), "{refused:?}");
                let refused = Session::with_options(registry.engine(), autocommit())?;
                drop(refused);
                registry.transaction(|joined| insert(joined, "joined").map(drop))
            })?;
            assert!(matches!(registry.transaction(|session| insert(session, "after").map(drop)), Err(Error::ShutDown)));
            Ok(())
        }
    });
    opened.recv().unwrap();
    registry.shutdown(LONG).unwrap();
    assert!(registry.inspect().open_transactions().next().is_none());
    worker.join().unwrap().unwrap();
    wait_until("the connections are closed", || database.connections() == 0);
    let stored = stored_afterwards(&database);
    assert!(stored.is_none_or(|texts| texts == ["before", "during", "joined", "nested"]));
}

#[test]
fn a_time_out_names_who_is_open_and_kills_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let (open, opened) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    let worker = std::thread::Builder::new()
        .name("the-slow-one".into())
        .spawn({
            let registry = registry.clone();
            move || -> Result<()> {
                let session = registry.current()?;
                session.begin()?;
                let line = line!() + 1;
                session.batch_execute("SELECT 1")?;
                insert(&session, "a")?;
                open.send(line).unwrap();
                told.recv().unwrap();
                insert(&session, "b")?;
                session.commit()?;
                registry.remove();
                Ok(())
            }
        })
        .unwrap();
    let line = opened.recv().unwrap();
    let error = registry.shutdown(SHORT).unwrap_err();
    let text = error.to_string();
    match &error {
        Error::ShutdownTimeout { waited, holders } => {
            assert!(*waited >= SHORT);
            assert_eq!(holders.len(), 1);
            assert!(holders.iter().all(|holder| holder.age() >= SHORT));
        }
        other => panic!("{other:?}"),
    }
    assert!(text.contains("the-slow-one") && text.contains(&format!("shutdown.rs:{line}:")), "{text}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(matches!(registry.shutdown(Duration::ZERO), Err(Error::ShutdownTimeout { .. })));
    go.send(()).unwrap();
    registry.shutdown(LONG).unwrap();
    worker.join().unwrap().unwrap();
    assert!(stored_afterwards(&database).is_none_or(|texts| texts == ["a", "b"]));
}

#[test]
fn shutdown_waits_for_a_connection_that_is_lent() {
    let database = Database::new();
    let registry = database.registry();
    let (open, opened) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    let worker = registry.spawn(move || -> Result<()> {
        let session = Session::current()?;
        insert(&session, "a")?;
        session.with_connection(|_| {
            open.send(()).unwrap();
            told.recv().unwrap();
            Ok(())
        })?;
        session.commit().map(drop)
    });
    opened.recv().unwrap();
    assert!(matches!(registry.shutdown(SHORT), Err(Error::ShutdownTimeout { .. })));
    assert_eq!(registry.engine().connections_in_use().len(), 1);
    go.send(()).unwrap();
    registry.shutdown(LONG).unwrap();
    worker.join().unwrap().unwrap();
    wait_until("the connections are closed", || database.connections() == 0);
    assert!(stored_afterwards(&database).is_none_or(|texts| texts == ["a"]));
}

#[test]
fn shutdown_waits_for_a_statement_of_an_autocommit_session() {
    let database = Database::new();
    let registry = database.registry();
    let (open, opened) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    let worker = registry.spawn(move || -> Result<()> {
        let session = Session::current_with(autocommit())?;
        session.with_connection(|_| {
            open.send(()).unwrap();
            told.recv().unwrap();
            Ok(())
        })?;
        assert!(matches!(session.batch_execute("SELECT 1"), Err(Error::ShutDown)));
        Ok(())
    });
    opened.recv().unwrap();
    assert!(matches!(registry.shutdown(SHORT), Err(Error::ShutdownTimeout { .. })));
    go.send(()).unwrap();
    registry.shutdown(LONG).unwrap();
    worker.join().unwrap().unwrap();
}

#[test]
fn a_shutdown_by_a_hook_ends_without_waiting_for_the_hook() {
    let database = Database::new();
    let registry = database.registry();
    let answer = Rc::new(RefCell::new(None));
    registry
        .transaction(|session| {
            insert(session, "a")?;
            let (registry, answer) = (registry.clone(), Rc::clone(&answer));
            session.on_commit(move || {
                // The transaction is over when hooks run, so nothing is open.
                *answer.borrow_mut() = Some(registry.shutdown(LONG));
                let late = registry.transaction(|session| insert(session, "late"));
                assert!(matches!(late, Err(Error::ShutDown)));
            })
        })
        .unwrap();
    answer.take().unwrap().unwrap();
    assert_eq!(registry.inspect().counters.hook_errors, 0);
    assert!(registry.inspect().sessions.is_empty());
    assert!(stored_afterwards(&database).is_none_or(|texts| texts == ["a"]));
}

#[test]
fn a_thread_that_waits_for_a_connection_is_not_open_and_gets_shut_down_or_its_turn() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let (open, opened) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    let holder = registry.spawn(move || -> Result<()> {
        let session = Session::current()?;
        insert(&session, "holder")?;
        open.send(()).unwrap();
        told.recv().unwrap();
        session.commit().map(drop)
    });
    opened.recv().unwrap();
    let waiter = registry.spawn(|| -> Result<()> {
        let session = Session::current()?;
        insert(&session, "waiter")?;
        session.commit().map(drop)
    });
    let engine = registry.engine().clone();
    wait_until("the second waits", || engine.waiting() == 1);
    assert!(matches!(registry.shutdown(SHORT), Err(Error::ShutdownTimeout { .. })));
    go.send(()).unwrap();
    registry.shutdown(LONG).unwrap();
    holder.join().unwrap().unwrap();
    // It had asked before the shutdown: it may have been served, but never half.
    match waiter.join().unwrap() {
        Ok(()) => assert!(stored_afterwards(&database).is_none_or(|texts| texts == ["holder", "waiter"])),
        Err(error) => {
            assert!(matches!(error, Error::ShutDown), "{error}");
            assert!(stored_afterwards(&database).is_none_or(|texts| texts == ["holder"]));
        }
    }
    assert_eq!(engine.waiting(), 0);
    assert!(engine.connections_in_use().is_empty());
}
