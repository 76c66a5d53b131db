//! User code that panics wherever an executor runs some: no abort, the right rows, an answer to everybody, and a thread that
//! goes on.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use diesel_session::testing::{Call, Fault};
use diesel_session::{Error, JobHandle, RetryPolicy, SessionListener, TransactionInfo, TransactionOptions};

use crate::db::{Conn, Session};
use crate::kinds::insert;
use crate::tools::{Held, PATIENCE, Stand, answer, unhurried};

/// Panics when it is dropped, unless its thread already does.
#[derive(Debug, Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// A payload whose drop panics, with a payload whose drop panics.
struct Payload(u32);

impl Drop for Payload {
    fn drop(&mut self) {
        if self.0 > 0 && !std::thread::panicking() {
            panic_any(Self(self.0 - 1));
        }
    }
}

/// With and without group commit.
fn stands() -> [Stand; 2] {
    [Stand::with(|executor| executor), Stand::with(|executor| executor.group_commit(unhurried()))]
}

/// What a job of this kind is told, and whether its row is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Stored,
    Undone,
}

/// Runs a job between two that do no harm: in their batch, first alone and then in the middle.
#[track_caller]
fn check<T: Send + 'static>(
    name: &str,
    expected: Expected,
    job: impl Fn(&Session) -> Result<T, Error> + Clone + Send + 'static,
) {
    for stand in stands() {
        let well = |number: i64| stand.executor.run(move |session| insert(session, number));
        let badly = |number: i64| {
            let job = job.clone();
            stand.executor.run(move |session| {
                insert(session, number)?;
                job(session)
            })
        };
        let is_told = |handle: JobHandle<T>| {
            let told = answer(handle);
            let is_ok = told.is_ok();
            let error = told.as_ref().err().map(ToString::to_string);
            // The value may be one whose drop panics.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(told)));
            assert_eq!(is_ok, expected == Expected::Stored, "{name}: {error:?}");
        };
        answer(well(1)).unwrap();
        is_told(badly(2));
        let (before, bad, after) = stand.queued(|| (well(10), badly(11), well(12)));
        answer(before).unwrap();
        is_told(bad);
        answer(after).unwrap();
        let (first, after) = stand.queued(|| (badly(20), well(21)));
        is_told(first);
        answer(after).unwrap();
        let expected: &[i64] =
            if expected == Expected::Stored { &[1, 2, 10, 11, 12, 20, 21] } else { &[1, 10, 12, 21] };
        assert_eq!(stand.stored(), expected, "{name}");
        stand.check_serves();
    }
}

#[test]
fn a_closure_that_panics_is_rolled_back() {
    check("panic", Expected::Undone, |_| -> Result<(), Error> { panic!("text") });
    check("panic in nested", Expected::Undone, |session| session.nested(|_| -> Result<(), Error> { panic!("text") }));
    check("panic with the connection", Expected::Undone, |session| {
        session.with_connection(|_| -> diesel::QueryResult<()> { panic!("text") })
    });
    check("a local whose drop panics", Expected::Undone, |_| {
        let _bomb = Bomb;
        Ok(())
    });
}

#[test]
fn a_panic_whose_payload_panics_when_dropped_is_no_more_than_a_panic() {
    check("payload", Expected::Undone, |_| -> Result<(), Error> { panic_any(Payload(3)) });
    check("payload of a hook", Expected::Stored, |session| session.on_commit(|| -> () { panic_any(Payload(3)) }));
    check("payload with the connection", Expected::Undone, |session| {
        session.with_connection(|_| -> diesel::QueryResult<()> { panic_any(Payload(3)) })
    });
}

struct Panics(&'static str);

impl SessionListener<Conn> for Panics {
    fn before_commit(&self, _: &Session) -> Result<(), Error> {
        assert!(self.0 != "before_commit", "in before_commit");
        Ok(())
    }

    fn after_commit(&self, _: &TransactionInfo) {
        assert!(self.0 != "after_commit", "in after_commit");
    }

    fn after_rollback(&self, _: &TransactionInfo) {
        assert!(self.0 != "after_rollback", "in after_rollback");
    }

    fn after_transaction_end(&self, _: &TransactionInfo) {
        assert!(self.0 != "after_transaction_end", "in after_transaction_end");
    }
}

#[test]
fn a_listener_that_panics_before_the_commit_stops_it_and_afterwards_does_not() {
    check("before_commit", Expected::Undone, |session| {
        session.listen(Panics("before_commit"));
        Ok(())
    });
    for event in ["after_commit", "after_transaction_end"] {
        check(event, Expected::Stored, move |session| {
            session.listen(Panics(event));
            Ok(())
        });
    }
    for event in ["after_rollback", "after_transaction_end"] {
        check(event, Expected::Undone, move |session| -> Result<(), Error> {
            session.listen(Panics(event));
            Err(Error::ReadOnly)
        });
    }
}

#[test]
fn a_hook_that_panics_changes_nothing_about_the_answer_and_is_counted() {
    check("on_commit", Expected::Stored, |session| session.on_commit(|| -> () { panic!("in a hook") }));
    check("on_rollback", Expected::Undone, |session| -> Result<(), Error> {
        session.on_rollback(|| -> () { panic!("in a hook") })?;
        Err(Error::ReadOnly)
    });
    check("a hook that is not run and panics when dropped", Expected::Stored, |session| {
        let bomb = Bomb;
        session.on_rollback(move || drop(bomb.clone()))
    });
    for stand in stands() {
        answer(stand.executor.run(|session| session.on_commit(|| -> () { panic!("in a hook") }))).unwrap();
        assert_eq!(stand.registry().inspect().counters.hook_errors, 1);
    }
}

/// Uses the session that it finds when it is dropped, also while its thread panics.
struct WritesWhenDropped;

impl Drop for WritesWhenDropped {
    fn drop(&mut self) {
        let written = Session::current().and_then(|session| {
            session.on_commit(|| ())?;
            session.nested(|session| insert(session, -1))
        });
        let _ = written.and_then(|_| Session::current().and_then(|session| insert(&session, -2)));
        let _ = catch_unwind(|| panic!("and a panic of its own"));
    }
}

#[test]
fn what_is_written_by_a_destructor_during_a_panic_is_rolled_back_with_the_rest() {
    check("drop while it panics", Expected::Undone, |_| -> Result<(), Error> {
        let _writes = WritesWhenDropped;
        panic!("text")
    });
}

#[test]
fn an_answer_that_panics_when_dropped_harms_nobody() {
    check("the answer", Expected::Stored, |_| Ok(Bomb));
    for stand in stands() {
        stand.executor.run(|session| insert(session, 1).map(|_| Bomb)).detach();
        let (begun, begins) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let dropped = stand.executor.run(move |session| {
            begun.send(()).unwrap();
            let _ = gone.recv_timeout(PATIENCE);
            insert(session, 2).map(|_| Bomb)
        });
        begins.recv_timeout(PATIENCE).unwrap();
        drop(dropped);
        drop(go);
        stand.check_serves();
        assert_eq!(stand.stored(), [1, 2]);
    }
}

#[test]
fn what_a_job_leaves_in_its_session_may_panic_when_dropped() {
    check("info", Expected::Stored, |session| {
        session.info().insert(Bomb);
        Ok(())
    });
    check("info of one that fails", Expected::Undone, |session| -> Result<(), Error> {
        session.info().insert(Bomb);
        Err(Error::ReadOnly)
    });
}

/// An error type whose conversion panics the first time.
#[derive(Debug)]
struct Touchy;

static CONVERSIONS: AtomicUsize = AtomicUsize::new(0);

impl From<Error> for Touchy {
    fn from(_: Error) -> Self {
        // Of each job: the thread's, then the caller's.
        assert!(CONVERSIONS.fetch_add(1, Ordering::SeqCst) % 2 == 1, "in From<Error>");
        Self
    }
}

#[test]
fn an_error_type_whose_conversion_panics_leaves_nobody_waiting() {
    for stand in stands() {
        CONVERSIONS.store(0, Ordering::SeqCst);
        let panics = || stand.executor.run(|_| -> Result<(), Touchy> { panic!("text") });
        assert!(matches!(answer(panics()), Err(Touchy)));
        let removes = || {
            stand.executor.run(|session| -> Result<(), Touchy> {
                insert(session, 1).map_err(|_| Touchy)?;
                Session::remove();
                Ok(())
            })
        };
        assert!(matches!(answer(removes()), Err(Touchy)));
        let (one, other) = stand.queued(|| (panics(), removes()));
        // Each is answered, whoever's conversion panicked.
        for handle in [one, other] {
            let told = catch_unwind(AssertUnwindSafe(|| answer(handle)));
            assert!(matches!(told, Err(_) | Ok(Err(Touchy))), "{told:?}");
        }
        let held = Held::new(&stand.executor);
        let cancelled = stand.executor.run(|_| -> Result<(), Touchy> { Ok(()) });
        assert!(cancelled.cancel());
        let told = catch_unwind(AssertUnwindSafe(|| answer(cancelled)));
        assert!(matches!(told, Err(_) | Ok(Err(Touchy))), "{told:?}");
        held.end();
        assert!(stand.stored().is_empty());
        stand.check_serves();
    }
}

#[test]
fn closures_that_panic_when_dropped_may_be_cancelled_refused_or_late() {
    for stand in stands() {
        let bomb = || {
            let bomb = Bomb;
            move |session: &Session| -> Result<usize, Error> {
                let _kept = &bomb;
                insert(session, 1)
            }
        };
        let held = Held::new(&stand.executor);
        let (cancelled, dropped) = (stand.executor.run(bomb()), stand.executor.run(bomb()));
        assert!(cancelled.cancel());
        assert!(matches!(answer(cancelled), Err(Error::JobCancelled)));
        drop(dropped);
        let late = stand.executor.run_with(TransactionOptions::new().timeout(Duration::from_millis(10)), bomb());
        assert!(matches!(answer(late), Err(Error::DeadlineExceeded { .. })));
        held.end();
        // Dropped by the run itself: that is a panic of the job.
        assert!(matches!(answer(stand.executor.run(bomb())), Err(Error::JobPanicked { .. })));
        // Kept for another run, and dropped after the answer.
        let kept = stand.executor.run_with(TransactionOptions::new().retry(RetryPolicy::new(2)), bomb());
        assert!(answer(kept).is_ok());
        stand.check_serves();
        let held = Held::new(&stand.executor);
        let refused = stand.executor.run(bomb());
        let executor = stand.executor.clone();
        assert!(matches!(executor.shutdown(Duration::ZERO), Err(Error::NotDrained { refused: 1, .. })));
        assert!(matches!(answer(refused), Err(Error::ShutDown)));
        held.end();
        executor.shutdown(PATIENCE).unwrap();
        assert_eq!(stand.stored(), [1]);
    }
}

#[test]
fn an_error_that_panics_when_dropped_between_two_attempts_ends_the_job() {
    #[derive(Debug)]
    struct Explosive(#[allow(dead_code, reason = "dropped")] Option<Bomb>);
    impl From<Error> for Explosive {
        fn from(_: Error) -> Self {
            Self(None)
        }
    }
    for stand in stands() {
        stand.faults.on(Call::Statement, Fault::LockTimeout);
        let policy = RetryPolicy::new(3).backoff(Duration::ZERO, Duration::ZERO);
        let again = stand.executor.run_with(TransactionOptions::new().retry(policy), |session| {
            insert(session, 1).map_err(|_| Explosive(Some(Bomb)))
        });
        assert!(answer(again).is_err());
        stand.check_serves();
        assert!(stand.stored().is_empty());
    }
}

/// Panics when it is woken.
struct PanicsAwake(AtomicBool);

impl Wake for PanicsAwake {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        panic!("woken");
    }
}

#[test]
fn a_future_dropped_in_the_middle_of_its_job_lets_it_end_and_a_waker_may_panic() {
    for stand in stands() {
        let job = |number: i64| {
            let (begun, begins) = mpsc::channel();
            let (go, gone) = mpsc::channel::<()>();
            let handle = stand.executor.run(move |session| {
                begun.send(()).unwrap();
                let _ = gone.recv_timeout(PATIENCE);
                insert(session, number)
            });
            begins.recv_timeout(PATIENCE).unwrap();
            (handle, go)
        };
        let (handle, go) = job(1);
        {
            let mut future = pin!(handle);
            assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(go);
        let (handle, go) = job(2);
        let woken = Arc::new(PanicsAwake(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut future = pin!(handle);
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(go);
        let started = Instant::now();
        while !woken.0.load(Ordering::SeqCst) {
            assert!(started.elapsed() < PATIENCE, "never woken");
            std::thread::yield_now();
        }
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        stand.check_serves();
        assert_eq!(stand.stored(), [1, 2]);
    }
}

#[test]
fn a_retry_policy_that_panics_ends_its_own_job_alone_with_what_that_said() {
    for stand in stands() {
        let policy = RetryPolicy::new(3).also(|_| panic!("asked"));
        let badly = |number: i64, statement: &'static str| {
            stand.executor.run_with(TransactionOptions::new().retry(policy), move |session| {
                insert(session, number)?;
                session.batch_execute(statement)
            })
        };
        let well = |number: i64| stand.executor.run(move |session| insert(session, number));
        answer(well(1)).unwrap();
        answer(badly(2, "SELECT 1")).unwrap();
        let (before, bad, after) =
            stand.queued(|| (well(10), badly(11, "INSERT INTO keys VALUES ('taken')"), well(12)));
        answer(before).unwrap();
        let told = answer(bad);
        assert!(matches!(told, Err(Error::Statement(_))), "{told:?}");
        answer(after).unwrap();
        assert_eq!(stand.stored(), [1, 2, 10, 12]);
        let work = stand.work();
        assert_eq!(work.submitted, work.succeeded + work.failed);
        // What loses the transaction is told to all, and the policies are asked about that too.
        let handles = stand.queued(|| {
            let culprit = badly(20, "INSERT OR ROLLBACK INTO keys VALUES ('taken')");
            [badly(21, "SELECT 1"), culprit, badly(22, "SELECT 1")]
        });
        for handle in handles {
            let told = answer(handle);
            assert!(!matches!(told, Err(Error::ShutDown)), "{told:?}");
        }
        stand.check_serves();
    }
}
