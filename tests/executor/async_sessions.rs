//! A session across several awaits: one transaction, which ends with its owner or with its lease.

use std::cell::Cell;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use diesel_session::{
    AsyncSession, Error, ErrorClass, Executor, ExecutorBuilder, LaneReport, Reason, Result, SessionListener,
    TransactionOptions, autocommit, read_only,
};

use super::db::{CONCURRENT, Conn, Database, REMOTE, Session, insert, stored, texts};
use super::runtimes::block_on;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(120);
/// Time enough between two calls of a test, on a busy machine.
const SHORT: Duration = Duration::from_millis(500);

fn with(database: &Database, change: impl FnOnce(ExecutorBuilder<Conn>) -> ExecutorBuilder<Conn>) -> Executor<Conn> {
    let builder = Executor::builder(database.registry()).async_sessions(1).async_writers(true);
    change(builder.async_lease(LONG).async_writer_lease(LONG)).build().unwrap()
}

fn patient(database: &Database) -> Executor<Conn> {
    with(database, |builder| builder)
}

fn impatient(database: &Database) -> Executor<Conn> {
    with(database, |builder| builder.async_lease(SHORT).async_writer_lease(SHORT))
}

fn lane(executor: &Executor<Conn>) -> LaneReport {
    executor.inspect().lanes.into_iter().find(|lane| lane.duty == "async").unwrap()
}

/// What others see in the database, when that is possible now.
fn seen(executor: &Executor<Conn>) -> Vec<String> {
    executor.run_read(|session| -> Result<_> { Ok(texts(session)) }).wait().unwrap()
}

/// Ends the executor, which waits for its sessions, and looks at what they left.
fn leaves_nothing_open(executor: &Executor<Conn>) {
    executor.shutdown(LONG).unwrap();
    assert_eq!(executor.inspect().running(), 0);
    let report = executor.registry().inspect();
    assert!(report.sessions.is_empty(), "{report}");
}

#[test]
fn several_awaits_commit_together() {
    let database = Database::new();
    let executor = patient(&database);
    block_on(async {
        let session = executor.session().await.unwrap();
        assert_eq!(session.run(|session| insert(session, "a")).await.unwrap(), 1);
        session.run(|session| insert(session, "b")).await.unwrap();
        assert_eq!(session.run(|session| -> Result<_> { Ok(texts(session)) }).await.unwrap(), ["a", "b"]);
        if CONCURRENT {
            assert!(seen(&executor).is_empty(), "nothing is stored before the commit");
        }
        assert_eq!(lane(&executor).running.len(), 1);
        session.commit().await.unwrap();
    });
    let lane = lane(&executor);
    assert_eq!((lane.running.len(), lane.succeeded, lane.failed), (0, 1, 0), "the answer comes after the end");
    assert_eq!(stored(executor.registry()), ["a", "b"]);
    leaves_nothing_open(&executor);
}

#[test]
fn the_current_session_in_its_closures_is_it_on_one_thread() {
    let database = Database::new();
    let executor = patient(&database);
    let session = executor.session().wait().unwrap();
    let look = |session: &Session| -> Result<_> {
        let current = Session::current()?;
        Ok((current == *session, current.id(), std::thread::current().id()))
    };
    let (is_it, id, thread) = session.run(look).wait().unwrap();
    assert!(is_it);
    assert_eq!(session.run(look).wait().unwrap(), (true, id, thread));
    assert_ne!(thread, std::thread::current().id());
}

#[test]
fn a_rollback_and_a_drop_store_nothing_and_close_everything() {
    let database = Database::new();
    let executor = patient(&database);
    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "rolled back")).wait().unwrap();
    session.rollback().wait().unwrap();
    assert_eq!(lane(&executor).running.len(), 0);
    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "dropped")).wait().unwrap();
    drop(session);
    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "kept")).wait().unwrap();
    session.commit().wait().unwrap();
    assert_eq!(stored(executor.registry()), ["kept"]);
    assert_eq!((lane(&executor).succeeded, lane(&executor).failed), (1, 2));
    leaves_nothing_open(&executor);
}

#[test]
fn a_drop_waits_for_no_closure() {
    let database = Database::new();
    let executor = patient(&database);
    let session = executor.session().wait().unwrap();
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let running = session.run(move |session| -> Result<usize> {
        begun.send(()).unwrap();
        let _ = gone.recv();
        insert(session, "running")
    });
    begins.recv().unwrap();
    drop(session);
    assert!(!running.is_finished());
    drop(go);
    assert_eq!(running.wait().unwrap(), 1, "what began goes on to its end");
    leaves_nothing_open(&executor);
    assert!(stored(executor.registry()).is_empty());
}

/// Polls what is awaited once where the test wants to stop, says so, and never ends.
async fn step<F: Future + Unpin>(left: &Cell<usize>, has_stopped: &Cell<bool>, mut awaited: F) -> F::Output {
    if left.get() == 0 {
        let _ = Pin::new(&mut awaited).poll(&mut Context::from_waker(Waker::noop()));
        has_stopped.set(true);
        pending::<()>().await;
    }
    left.set(left.get() - 1);
    awaited.await
}

#[test]
fn a_future_dropped_at_any_await_leaves_nothing_open() {
    for stop in 0..4 {
        let database = Database::new();
        let executor = patient(&database);
        let (left, has_stopped) = (Cell::new(stop), Cell::new(false));
        let mut work = Box::pin(async {
            let session = step(&left, &has_stopped, executor.session()).await.unwrap();
            step(&left, &has_stopped, session.run(|session| insert(session, "a"))).await.unwrap();
            step(&left, &has_stopped, session.run(|session| insert(session, "b"))).await.unwrap();
            step(&left, &has_stopped, session.commit()).await.unwrap();
        });
        let (woken, wakes) = mpsc::channel();
        let waker = super::runtimes::waker(move || {
            let _ = woken.send(());
        });
        while work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() && !has_stopped.get() {
            wakes.recv().unwrap();
        }
        drop(work);
        leaves_nothing_open(&executor);
        // A commit that was asked for goes on; before that nothing is stored.
        let expected: &[&str] = if stop == 3 { &["a", "b"] } else { &[] };
        assert_eq!(stored(executor.registry()), expected, "dropped at await number {stop}");
    }
}

#[test]
fn an_idle_one_is_rolled_back_when_its_lease_ends_and_says_so() {
    let database = Database::new();
    let executor = impatient(&database);
    let idle = executor.session().wait().unwrap();
    let line = line!() + 1;
    idle.run(|session| insert(session, "idle")).wait().unwrap();
    // Its thread and, on SQLite, the gate are needed by another.
    let next = executor.session().wait().unwrap();
    next.run(|session| insert(session, "next")).wait().unwrap();
    next.commit().wait().unwrap();
    let late = idle.run(|session| insert(session, "late")).wait().unwrap_err();
    match &late {
        Error::LeaseExpired { at, idle } => assert_eq!((at.line(), *idle), (line, SHORT), "{late}"),
        other => panic!("{other}"),
    }
    assert_eq!(late.class(), ErrorClass::Unavailable);
    assert!(matches!(idle.commit().wait(), Err(Error::LeaseExpired { .. })));
    assert_eq!(stored(executor.registry()), ["next"]);

    let line = line!() + 1;
    let untaken = executor.session();
    drop(executor.session().wait().unwrap());
    let late = untaken.wait().unwrap().rollback().wait();
    assert!(matches!(late, Err(Error::LeaseExpired { at, .. }) if at.line() == line), "{late:?}");
    leaves_nothing_open(&executor);
}

#[test]
fn the_lease_does_not_run_inside_a_closure() {
    let database = Database::new();
    let executor = with(&database, |builder| builder.async_lease(SHORT / 2).async_writer_lease(SHORT / 2));
    let session = executor.session().wait().unwrap();
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let long = session.run(move |session| -> Result<usize> {
        begun.send(()).unwrap();
        let _ = gone.recv_timeout(SHORT);
        insert(session, "long")
    });
    begins.recv().unwrap();
    // Waits behind it, so that the session is at no time idle.
    let commit = session.commit();
    assert_eq!(long.wait().unwrap(), 1);
    commit.wait().unwrap();
    drop(go);
    assert_eq!(stored(executor.registry()), ["long"]);
}

#[test]
fn who_holds_one_and_awaits_a_job_of_the_same_executor_gets_its_answer() {
    let database = Database::new();
    let executor = impatient(&database);
    block_on(async {
        let session = executor.session().await.unwrap();
        session.run(|session| insert(session, "held")).await.unwrap();
        // On SQLite it waits at the write gate until the lease ends.
        executor.run(|session| insert(session, "job")).await.unwrap();
        let after = session.run(|session| insert(session, "after")).await;
        match after {
            Err(Error::LeaseExpired { .. }) => {}
            Ok(_) if REMOTE => {}
            other => panic!("{other:?}"),
        }
    });
    leaves_nothing_open(&executor);
    assert_eq!(stored(executor.registry()), ["job"]);
}

#[test]
fn one_more_than_there_are_threads_waits_for_a_thread() {
    let database = Database::new();
    let executor = with(&database, |builder| builder.async_sessions(2));
    let first = executor.session().wait().unwrap();
    let second = executor.session().wait().unwrap();
    let third = executor.session();
    let report = lane(&executor);
    assert_eq!((report.threads, report.running.len(), report.queued), (2, 2, 1), "{report:?}");
    assert!(!third.is_finished());
    let fourth = executor.session();
    assert!(fourth.cancel());
    drop(second);
    let third = third.wait().unwrap();
    third.rollback().wait().unwrap();
    first.run(|session| insert(session, "first")).wait().unwrap();
    first.commit().wait().unwrap();
    let jobs_go_on = executor.run(|session| insert(session, "job"));
    jobs_go_on.wait().unwrap();
    assert_eq!(stored(executor.registry()), ["first", "job"]);
}

#[test]
fn a_panic_answers_its_call_and_dooms_the_transaction() {
    let database = Database::new();
    let executor = patient(&database);
    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "before")).wait().unwrap();
    let panicked = session.run(|session| -> Result<()> {
        insert(session, "in it")?;
        panic!("a text")
    });
    match panicked.wait() {
        Err(Error::JobPanicked { at, message }) => {
            assert!(at.file().ends_with("async_sessions.rs"), "{at}");
            assert_eq!(message, "a text");
        }
        other => panic!("{other:?}"),
    }
    let seen = session.run(|session| -> Result<_> { Ok(texts(session)) }).wait();
    assert_eq!(seen.unwrap(), ["before", "in it"], "the session goes on");
    let error = session.commit().wait().unwrap_err();
    assert!(matches!(&error, Error::RolledBack { cause } if matches!(cause.reason(), Reason::Panicked)), "{error}");
    assert!(stored(executor.registry()).is_empty());
    leaves_nothing_open(&executor);
}

#[test]
fn commit_and_rollback_inside_are_refused_with_the_line_that_asked_for_it() {
    let database = Database::new();
    let executor = patient(&database);
    let line = line!() + 1;
    let session = executor.session().wait().unwrap();
    let refused = session.run(|session| -> Result<_> {
        insert(session, "a")?;
        Ok((session.commit().unwrap_err(), session.rollback().unwrap_err()))
    });
    let (commit, rollback) = refused.wait().unwrap();
    assert!(matches!(commit, Error::NotOwner { at } if at.line() == line), "{commit}");
    assert!(matches!(rollback, Error::NotOwner { at } if at.line() == line), "{rollback}");
    session.commit().wait().unwrap();
    assert_eq!(stored(executor.registry()), ["a"]);
}

#[test]
fn a_failed_statement_dooms_the_transaction_and_an_err_alone_does_not() {
    let database = Database::new();
    let executor = patient(&database);
    let session = executor.session().wait().unwrap();
    let said: Result<()> = session
        .run(|session| {
            insert(session, "kept")?;
            Err(Error::NoScope)
        })
        .wait();
    assert!(matches!(said, Err(Error::NoScope)));
    session.commit().wait().unwrap();
    assert_eq!(stored(executor.registry()), ["kept"]);

    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "lost")).wait().unwrap();
    let failed = session.run(|session| insert(session, "kept")).wait().unwrap_err();
    assert!(failed.is_unique_violation(), "{failed}");
    let refused = session.run(|session| insert(session, "more")).wait();
    assert!(matches!(refused, Err(Error::PendingRollback { .. })), "{refused:?}");
    let error = session.commit().wait().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }) && error.is_unique_violation(), "{error}");
    assert_eq!(stored(executor.registry()), ["kept"]);

    let session = executor.session().wait().unwrap();
    session
        .run(|session| -> Result<()> {
            insert(session, "removed")?;
            session.close();
            Ok(())
        })
        .wait()
        .unwrap();
    let error = session.commit().wait().unwrap_err();
    assert!(matches!(&error, Error::RolledBack { cause } if matches!(cause.reason(), Reason::Removed)), "{error}");
    assert_eq!(stored(executor.registry()), ["kept"]);
    leaves_nothing_open(&executor);
}

#[test]
fn a_call_whose_handle_is_dropped_before_it_began_does_not_run_and_a_commit_does() {
    let database = Database::new();
    let executor = patient(&database);
    let session = executor.session().wait().unwrap();
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let running = session.run(move |session| -> Result<usize> {
        begun.send(()).unwrap();
        let _ = gone.recv();
        insert(session, "begun")
    });
    begins.recv().unwrap();
    assert!(!running.cancel(), "it has begun");
    drop(running);
    let (kept, dropped) = mpsc::channel::<()>();
    drop(session.run(move |session| {
        let _kept = &kept;
        insert(session, "dropped")
    }));
    assert_eq!(dropped.recv(), Err(mpsc::RecvError), "the closure is gone with its handle");
    session.run(|session| insert(session, "detached")).detach();
    let commit = session.commit();
    assert!(!commit.cancel());
    drop(commit);
    drop(go);
    leaves_nothing_open(&executor);
    assert_eq!(stored(executor.registry()), ["begun", "detached"]);
}

#[test]
fn what_it_can_not_be_is_refused_with_what_to_do() {
    let database = Database::new();
    let refused = |asked: std::result::Result<AsyncSession<Conn>, Error>| {
        let error = asked.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Usage, "{error}");
        error.to_string()
    };
    let without = with(&database, |builder| builder.async_sessions(0));
    assert!(refused(without.session().wait()).contains("async_sessions(n)"));
    let executor = with(&database, |builder| builder.async_writers(false));
    assert!(refused(executor.session_with(autocommit()).wait()).contains("autocommit()"));
    if REMOTE {
        drop(executor.session().wait().unwrap());
    } else {
        assert!(refused(executor.session().wait()).contains("async_writers(true)"));
    }
    let reader = executor.session_with(read_only()).wait().unwrap();
    assert!(reader.run(|session| -> Result<_> { Ok(texts(session)) }).wait().unwrap().is_empty());
    reader.run(|session| insert(session, "a")).wait().unwrap_err();
    drop(reader);
    let none = Executor::builder(database.registry()).async_lease(Duration::ZERO).build();
    assert!(matches!(none, Err(Error::Configuration(_))));
    let many = Executor::builder(database.registry()).threads(1).async_sessions(10).build();
    assert!(matches!(many, Err(Error::Configuration(_))), "the engine has ten connections");
}

#[test]
fn by_default_there_are_as_many_as_the_connections_allow() {
    let sizes = |max_size: usize| {
        let database = Database::new();
        let registry = database.registry_with(|builder| builder.max_size(max_size));
        let report = Executor::new(registry).unwrap().inspect();
        let threads: usize = report.lanes.iter().map(|lane| lane.threads).sum();
        assert!(threads <= max_size, "{report}");
        report.lanes.iter().filter(|lane| lane.duty == "async").map(|lane| lane.threads).sum::<usize>()
    };
    assert_eq!([1, 3, 10, 40].map(sizes), [0, 0, 2, 4]);
}

#[test]
fn a_time_out_bounds_the_whole_though_the_lease_is_long() {
    let database = Database::new();
    let executor = patient(&database);
    let idle = executor.session_with(TransactionOptions::new().timeout(SHORT)).wait().unwrap();
    idle.run(|session| insert(session, "idle")).wait().unwrap();
    let next = executor.session().wait().unwrap();
    let late = idle.run(|session| insert(session, "late")).wait();
    assert!(matches!(late, Err(Error::DeadlineExceeded { timeout, .. }) if timeout == SHORT), "{late:?}");
    drop(next);

    let held = executor.session().wait().unwrap();
    let waiting = executor.session_with(TransactionOptions::new().timeout(Duration::from_millis(20))).wait();
    assert!(matches!(waiting, Err(Error::DeadlineExceeded { .. })), "it bounds the wait for a thread too");
    drop(held);
    leaves_nothing_open(&executor);
    assert!(stored(executor.registry()).is_empty());
}

#[test]
fn waiting_that_could_never_end_is_refused() {
    let database = Database::new();
    let executor = with(&database, |builder| builder.threads(1).readers(0).async_sessions(3));
    // A closure waits for a call of its own session.
    let session = Arc::new(executor.session().wait().unwrap());
    let same = Arc::downgrade(&session);
    let own = session.run(move |_| -> Result<()> {
        let session = same.upgrade().unwrap();
        session.run(|_| -> Result<()> { Ok(()) }).wait()
    });
    assert!(matches!(own.wait(), Err(Error::WouldHang)));
    // The only thread for jobs waits for a closure that waits for a job.
    let inner = executor.clone();
    let outer = executor.run(move |_| -> Result<Vec<bool>> {
        let hung = |result: &Result<bool>| matches!(result, Err(Error::WouldHang));
        let closure = session.run(move |_| -> Result<bool> {
            let job = inner.run(|_| -> Result<()> { Ok(()) }).wait();
            Ok(matches!(job, Err(Error::WouldHang)))
        });
        let waited = closure.wait();
        Ok(vec![hung(&waited), waited.unwrap_or(false)])
    });
    let hung = outer.wait().unwrap();
    assert_eq!(hung.iter().filter(|hung| **hung).count(), 1, "one of the two is told: {hung:?}");
    // The only thread for sessions waits for another session.
    let single = patient(&database);
    let inner = single.clone();
    let session = single.session().wait().unwrap();
    let another = session.run(move |_| inner.session().wait().map(drop)).wait();
    assert!(matches!(another, Err(Error::WouldHang)), "{another:?}");
    // From a closure, a job that has a thread to run on is waited for.
    let inner = executor.clone();
    let session = executor.session().wait().unwrap();
    let waited = session.run(move |_| inner.run(|_| -> Result<u8> { Ok(1) }).wait());
    assert_eq!(waited.wait().unwrap(), 1);
}

#[test]
fn shutdown_waits_for_them_names_them_and_takes_no_more() {
    let database = Database::new();
    let executor = patient(&database);
    let line = line!() + 1;
    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "a")).wait().unwrap();
    match executor.shutdown(Duration::from_millis(20)) {
        Err(Error::NotDrained { refused: 0, running, .. }) => {
            let place = format!("async_sessions.rs:{line}:");
            assert!(running.len() == 1 && running.to_string().contains(&place), "{running}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(executor.session().wait(), Err(Error::ShutDown)));
    session.run(|session| insert(session, "b")).wait().unwrap();
    session.commit().wait().unwrap();
    leaves_nothing_open(&executor);
    assert_eq!(stored(executor.registry()), ["a", "b"]);
}

#[test]
fn the_executor_dropped_an_open_one_goes_on_to_its_own_end() {
    let database = Database::new();
    let executor = patient(&database);
    let registry = executor.registry().clone();
    let session = executor.session().wait().unwrap();
    let queued = executor.session();
    drop(executor);
    assert!(matches!(queued.wait(), Err(Error::ShutDown)));
    session.run(|session| insert(session, "a")).wait().unwrap();
    session.commit().wait().unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn hooks_run_before_the_answer_of_the_commit() {
    let database = Database::new();
    let executor = patient(&database);
    let (said, heard) = mpsc::channel();
    let session = executor.session().wait().unwrap();
    let hooked = session.run(move |session| -> Result<()> {
        insert(session, "a")?;
        session.on_commit(move || said.send("hook").unwrap())?;
        session.on_commit(|| Err::<(), _>(Error::NoScope))
    });
    hooked.wait().unwrap();
    let report = session.commit().wait().unwrap();
    assert_eq!(heard.try_recv(), Ok("hook"));
    assert_eq!(report.hook_errors().len(), 1);
}

/// Counts what it is asked before commits.
struct Count(Arc<AtomicUsize>);

impl SessionListener<Conn> for Count {
    fn before_commit(&self, _: &Session) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn listeners_hear_of_one_commit_or_of_none() {
    let database = Database::new();
    let executor = patient(&database);
    let asked = Arc::new(AtomicUsize::new(0));
    executor.registry().listen(Count(Arc::clone(&asked)));
    for (end, text) in [(AsyncSession::rollback as fn(_) -> _, "undone"), (AsyncSession::commit, "kept")] {
        let session = executor.session().wait().unwrap();
        session.run(move |session| insert(session, text)).wait().unwrap();
        end(session).wait().unwrap();
    }
    drop(executor.session().wait().unwrap());
    executor.shutdown(LONG).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
