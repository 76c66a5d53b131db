//! Waiting for a connection or for the write gate: rings are broken at once, everything else is waited for.

use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use diesel_session::{Error, Result, TransactionOptions, read_only};

use super::db::{self, Database, Registry, Session, insert, stored};

/// Far below every time-out of these tests, far above what a ring takes to be found.
const AT_ONCE: Duration = Duration::from_secs(5);

fn session_with(registry: &Registry, options: TransactionOptions) -> Session {
    Session::with_options(registry.engine(), options).unwrap()
}

/// A session that waits for the pool only, where the database lets sessions work side by side.
fn reader(registry: &Registry) -> Session {
    session_with(registry, read_only())
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_nested_session_on_one_thread_works_or_is_refused_at_once() {
    let writing = TransactionOptions::new();
    for (outer_options, inner_options) in
        [(writing, writing), (writing, read_only()), (read_only(), writing), (read_only(), read_only())]
    {
        let database = Database::new();
        let registry = database.registry();
        let started = Instant::now();
        let outer = session_with(&registry, outer_options);
        let held = line!() + 1;
        outer.batch_execute("SELECT 1").unwrap();
        let inner = session_with(&registry, inner_options);
        let wanted = line!() + 1;
        let answer = inner.batch_execute("SELECT 1");
        let both_write = !outer_options.is_read_only() && !inner_options.is_read_only();
        if db::REMOTE || (db::CONCURRENT && !both_write) {
            answer.unwrap();
            inner.commit().unwrap();
        } else {
            match answer {
                Err(Error::WouldDeadlock { held_at, wanted_at }) => {
                    assert_eq!((held_at.line(), wanted_at.line()), (held, wanted));
                    assert_eq!(held_at.file(), file!());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(started.elapsed() < AT_ONCE);
        // The refusal changed nothing for the outer one, and the inner one works afterwards.
        outer.batch_execute("SELECT 1").unwrap();
        outer.commit().unwrap();
        inner.rollback().unwrap();
        inner.batch_execute("SELECT 1").unwrap();
        inner.commit().unwrap();
        assert!(registry.engine().connections_in_use().is_empty());
        assert!(registry.engine().write_gate().is_empty());
        assert_eq!(registry.engine().waiting(), 0);
    }
}

#[test]
fn a_second_connection_from_a_pool_of_one_is_refused_at_once() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let outer = reader(&registry);
    let held = line!() + 1;
    outer.batch_execute("SELECT 1").unwrap();
    let started = Instant::now();
    for _ in 0..3 {
        let inner = reader(&registry);
        match inner.batch_execute("SELECT 1") {
            Err(Error::WouldStarve { held_at, wanted_at }) if db::CONCURRENT => {
                assert_eq!(held_at.line(), held);
                assert_ne!(held_at, wanted_at);
            }
            Err(Error::WouldDeadlock { held_at, .. }) if !db::CONCURRENT => assert_eq!(held_at.line(), held),
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() < AT_ONCE);
    outer.commit().unwrap();
    registry.transaction(|session| insert(session, "a")).unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

/// A thread that takes a session, waits for `all`, and then wants a second one.
fn takes_two(registry: &Registry, all: &Arc<Barrier>) -> JoinHandle<Result<()>> {
    let all = Arc::clone(all);
    registry.spawn({
        let registry = registry.clone();
        move || {
            let first = reader(&registry);
            first.batch_execute("SELECT 1").unwrap();
            all.wait();
            let second = reader(&registry);
            second.batch_execute("SELECT 1")?;
            second.commit()?;
            first.commit().map(drop)
        }
    })
}

#[test]
fn a_ring_of_threads_that_wait_for_each_other_is_broken_at_once_by_one_error() {
    // In memory one session at a time can begin at all, so the ring is a thread and itself.
    let threads = if db::CONCURRENT { 4 } else { 1 };
    for _ in 0..10 {
        let database = Database::new();
        let registry = database.registry_with(|builder| builder.max_size(threads));
        let all = Arc::new(Barrier::new(threads));
        let started = Instant::now();
        let ring: Vec<_> = (0..threads).map(|_| takes_two(&registry, &all)).collect();
        let answers: Vec<_> = ring.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(started.elapsed() < AT_ONCE);
        let errors: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert_eq!(errors.len(), 1, "{answers:?}");
        assert!(
            matches!(errors[0], Error::WouldStarve { .. })
                || (!db::CONCURRENT && matches!(errors[0], Error::WouldDeadlock { .. })),
            "{errors:?}"
        );
        assert!(registry.engine().connections_in_use().is_empty());
        assert_eq!(registry.engine().waiting(), 0);
    }
}

#[test]
fn there_is_no_false_alarm_while_one_holder_can_still_run() {
    let threads = if db::CONCURRENT { 4 } else { 1 };
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(threads));
    // One more holder, which waits for a word of ours instead of a second connection.
    let (let_go, told) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    let runnable = registry.spawn({
        let registry = registry.clone();
        move || {
            let session = reader(&registry);
            session.batch_execute("SELECT 1").unwrap();
            holds.send(()).unwrap();
            told.recv().unwrap();
            session.commit().unwrap();
        }
    });
    held.recv().unwrap();
    let all = Arc::new(Barrier::new(threads.max(2) - 1));
    let waiting = if db::CONCURRENT {
        (0..threads - 1).map(|_| takes_two(&registry, &all)).collect::<Vec<_>>()
    } else {
        let registry = registry.clone();
        vec![registry.clone().spawn(move || {
            let session = reader(&registry);
            session.batch_execute("SELECT 1")?;
            session.commit().map(drop)
        })]
    };
    let engine = registry.engine().clone();
    wait_until("every thread waits", || engine.waiting() == waiting.len());
    let_go.send(()).unwrap();
    for thread in waiting {
        thread.join().unwrap().unwrap();
    }
    runnable.join().unwrap();
    assert!(registry.engine().connections_in_use().is_empty());
}

#[test]
fn a_reserve_lets_second_sessions_through() {
    let database = Database::new();
    for reserve in [1, 3] {
        let registry = database.registry_with(|builder| builder.max_size(4).reserve(reserve));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                registry.spawn({
                    let registry = registry.clone();
                    move || -> Result<()> {
                        for _ in 0..10 {
                            let first = reader(&registry);
                            first.batch_execute("SELECT 1")?;
                            // In memory a second session has to wait for the end of the first.
                            if !db::CONCURRENT {
                                first.commit()?;
                            }
                            let second = reader(&registry);
                            second.batch_execute("SELECT 1")?;
                            second.commit()?;
                            first.commit()?;
                        }
                        Ok(())
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert!(registry.engine().connections_in_use().is_empty());
    }
}

#[test]
fn a_time_out_names_every_holder_with_its_thread_and_line() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1).connection_timeout(Duration::from_millis(200)));
    let (let_go, told) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    let holder = std::thread::Builder::new()
        .name("the-holder".into())
        .spawn({
            let registry = registry.clone();
            move || {
                let session = reader(&registry);
                let line = line!() + 1;
                session.batch_execute("SELECT 1").unwrap();
                holds.send(line).unwrap();
                told.recv().unwrap();
                session.commit().unwrap();
            }
        })
        .unwrap();
    let line = held.recv().unwrap();
    let started = Instant::now();
    let error = reader(&registry).batch_execute("SELECT 1").unwrap_err();
    assert!(started.elapsed() < AT_ONCE);
    let text = error.to_string();
    let (waited, holders) = match error {
        Error::PoolTimeout { waited, holders, .. } if db::CONCURRENT => (waited, holders),
        Error::GateTimeout { waited, holders } if !db::CONCURRENT => (waited, holders),
        other => panic!("{other:?}"),
    };
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    assert_eq!(holders.len(), 1);
    assert!(text.contains("the-holder") && text.contains(&format!("waiting.rs:{line}:")), "{text}");
    assert_eq!(registry.engine().waiting(), 0);
    let_go.send(()).unwrap();
    holder.join().unwrap();
    // The one that lost its patience took nothing with it.
    registry.transaction(|session| insert(session, "a")).unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_time_out_without_end_is_no_panic() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1).connection_timeout(Duration::MAX));
    let (let_go, told) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    let holder = registry.spawn({
        let registry = registry.clone();
        move || {
            let session = reader(&registry);
            session.batch_execute("SELECT 1").unwrap();
            holds.send(()).unwrap();
            told.recv().unwrap();
            session.commit().unwrap();
        }
    });
    held.recv().unwrap();
    let waiter = registry.spawn({
        let registry = registry.clone();
        move || registry.transaction(|session| insert(session, "a"))
    });
    let engine = registry.engine().clone();
    wait_until("the second waits", || engine.waiting() == 1);
    let_go.send(()).unwrap();
    holder.join().unwrap();
    waiter.join().unwrap().unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_panic_of_the_holder_lets_the_next_one_through() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    for n in 0..10 {
        let panicked = registry.spawn(move || {
            let session = Session::current().unwrap();
            insert(&session, "lost").unwrap();
            panic!("holding everything, {n}");
        });
        let through = registry.spawn(move || {
            let session = Session::current().unwrap();
            insert(&session, &format!("kept {n}")).unwrap();
            session.commit().map(drop)
        });
        assert!(panicked.join().is_err());
        through.join().unwrap().unwrap();
    }
    assert_eq!(stored(&registry).len(), 10);
}
