//! The attempts of a unit of work with a retry policy: each begins anew, only the last leaves a trace, and only a whole unit
//! of work has any.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel_session::testing::{Call, Fault};
use diesel_session::{
    Error, Outcome, Propagation, Result, RetryPolicy, SessionListener, TransactionInfo, TransactionOptions, autocommit,
};

use super::db::{Conn, Database, Registry, Session, insert, stored};
use super::retry::{clear, faulty, inserts, policy, retry, run, run_elsewhere};
use super::tools::{answer, name_of, nothing_in_use};

#[test]
fn every_attempt_has_a_fresh_session_and_the_unit_one_key() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let mut keys = Vec::new();
    for _ in 0..2 {
        plan.on_nth(Call::Statement, 1, Fault::SerializationFailure);
        plan.on_nth(Call::Statement, 2, Fault::SerializationFailure);
        let mut seen = Vec::new();
        registry
            .transaction_with(retry(5), |session| {
                let attempt = session.attempt().unwrap();
                assert!(session.info().get::<u32>().is_none(), "nothing is carried over");
                session.info().insert(attempt.number());
                assert_eq!(registry.current()?, *session);
                // What joins is part of the attempt, what does not is not.
                registry.transaction(|joined| {
                    assert_eq!(joined.attempt(), session.attempt());
                    Ok::<_, Error>(())
                })?;
                registry.transaction_with(TransactionOptions::new().propagation(Propagation::RequiresNew), |own| {
                    assert_eq!(own.attempt(), None);
                    Ok::<_, Error>(())
                })?;
                seen.push((session.clone(), attempt));
                insert(session, "row")?;
                Err::<(), _>(Error::NoTransaction)
            })
            .unwrap_err();
        assert_eq!(seen.iter().map(|(_, attempt)| attempt.number()).collect::<Vec<_>>(), [1, 2, 3]);
        let mut ids: Vec<_> = seen.iter().map(|(session, _)| session.id()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert!(seen.iter().all(|(session, attempt)| session.is_closed() && attempt.key() == seen[0].1.key()));
        keys.push(seen[0].1.key());
    }
    assert!(keys[0] < keys[1], "another unit, another key, and later ones sort later");
    assert_eq!(keys[0].to_string().len(), 36);
    assert!(stored(&registry).is_empty());
    registry.scope(|session| assert_eq!(session.attempt(), None)).unwrap();
}

#[test]
fn between_attempts_it_holds_neither_connection_nor_gate() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    plan.on(Call::Statement, Fault::SerializationFailure);
    let long = RetryPolicy::new(2).backoff(Duration::from_secs(2), Duration::from_secs(2));
    let (failed, has_failed) = mpsc::channel();
    let other_done = Arc::new(AtomicBool::new(false));
    let other = registry.spawn({
        let (registry, other_done) = (registry.clone(), Arc::clone(&other_done));
        move || {
            has_failed.recv().unwrap();
            // With a pool of one this ends only when the first has let go.
            registry.transaction(|session| insert(session, "other")).unwrap();
            nothing_in_use(&registry);
            other_done.store(true, Ordering::SeqCst);
        }
    });
    let seen = registry
        .transaction_with(TransactionOptions::new().retry(long), |session| {
            let seen = other_done.load(Ordering::SeqCst);
            insert(session, "row").inspect_err(|_| failed.send(()).unwrap())?;
            Ok::<_, Error>(seen)
        })
        .unwrap();
    assert!(seen, "the other thread worked while this one slept");
    other.join().unwrap();
    assert_eq!(stored(&registry), ["other", "row"]);
}

type Log = Rc<RefCell<Vec<String>>>;

fn watch(session: &Session, log: &Log, name: &str) {
    let noter = |what: &str| {
        let (log, text) = (Rc::clone(log), format!("{name} {what}"));
        move || log.borrow_mut().push(text)
    };
    session.on_commit(noter("committed")).unwrap();
    session.on_rollback(noter("rolled back")).unwrap();
    let (log, name) = (Rc::clone(log), name.to_owned());
    session.on_completion(move |outcome: Outcome| log.borrow_mut().push(format!("{name} {outcome:?}"))).unwrap();
}

fn number(session: &Session) -> String {
    session.attempt().map_or_else(String::new, |attempt| attempt.number().to_string())
}

#[test]
fn hooks_run_once_for_the_last_attempt_and_never_for_those_before() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let log = Log::default();
    let body = |session: &Session| {
        watch(session, &log, &number(session));
        inserts(session)
    };
    plan.on_nth(Call::Statement, 1, Fault::SerializationFailure);
    plan.on_nth(Call::Statement, 2, Fault::CloseBefore);
    assert_eq!(run(&registry, retry(5), body), ("Ok".to_owned(), 3));
    assert_eq!(log.take(), ["3 committed", "3 Committed"]);
    clear(&registry);
    plan.on(Call::Commit, Fault::SerializationFailure);
    assert_eq!(run(&registry, retry(5), body), ("Ok".to_owned(), 2));
    assert_eq!(log.take(), ["2 committed", "2 Committed"]);
    clear(&registry);
    // When the attempts run out, the last one rolled back for good.
    plan.on_nth(Call::Statement, 1, Fault::SerializationFailure);
    plan.on_nth(Call::Statement, 2, Fault::SerializationFailure);
    assert_eq!(run(&registry, retry(2), body), ("Statement".to_owned(), 2));
    assert_eq!(log.take(), ["2 rolled back", "2 RolledBack"]);
    plan.on(Call::Commit, Fault::CloseBefore);
    assert_eq!(run(&registry, retry(5), body), ("CommitUnknown".to_owned(), 1));
    assert_eq!(log.take(), ["1 Unknown"]);
    // Those of a savepoint belong to it, and run when it is rolled back.
    plan.on_nth(Call::Statement, 1, Fault::Unknown);
    plan.on_nth(Call::Statement, 2, Fault::CloseBefore);
    let nested = |session: &Session| {
        let undone: Result<()> = session.nested(|session| {
            watch(session, &log, &format!("savepoint of {}", number(session)));
            if session.attempt().unwrap().number() == 1 { inserts(session) } else { Err(Error::NoTransaction) }
        });
        assert!(undone.is_err());
        body(session)
    };
    assert_eq!(run(&registry, retry(5), nested), ("Ok".to_owned(), 2));
    let expected = [
        "savepoint of 1 rolled back",
        "savepoint of 1 RolledBack",
        "savepoint of 2 rolled back",
        "savepoint of 2 RolledBack",
        "2 committed",
        "2 Committed",
    ];
    assert_eq!(log.take(), expected);
}

#[test]
fn what_a_dropped_hook_had_captured_may_panic_when_it_goes() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            // Text that a plain panic would print.
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    plan.on(Call::Statement, Fault::SerializationFailure);
    let body = |session: &Session| {
        if session.attempt().unwrap().number() == 1 {
            for _ in 0..2 {
                let bomb = Bomb;
                session.on_commit(move || drop(bomb))?;
            }
        }
        inserts(session)
    };
    assert_eq!(run(&registry, retry(5), body), ("Ok".to_owned(), 2));
    assert_eq!(stored(&registry), ["row"]);
}

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    committed: AtomicUsize,
    rolled_back: AtomicUsize,
}

struct Listener(Arc<Counts>);

impl SessionListener<Conn> for Listener {
    fn after_begin(&self, _: &Session, _: &TransactionInfo) -> Result<()> {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn after_commit(&self, _: &TransactionInfo) {
        self.0.committed.fetch_add(1, Ordering::Relaxed);
    }

    fn after_rollback(&self, _: &TransactionInfo) {
        self.0.rolled_back.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn listeners_hear_every_attempt() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let counts = Arc::new(Counts::default());
    registry.listen(Listener(Arc::clone(&counts)));
    plan.on_nth(Call::Statement, 1, Fault::SerializationFailure);
    plan.on_nth(Call::Statement, 2, Fault::SerializationFailure);
    assert_eq!(run(&registry, retry(5), inserts), ("Ok".to_owned(), 3));
    let heard = [&counts.begun, &counts.committed, &counts.rolled_back].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(heard, [3, 1, 2]);
}

#[test]
fn a_panic_goes_through_at_once() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let log = Log::default();
    let mut attempts = 0;
    let caught = catch_unwind(AssertUnwindSafe(|| {
        registry.transaction_with(retry(5), |session| -> Result<()> {
            attempts += 1;
            watch(session, &log, &number(session));
            plan.on(Call::Statement, Fault::SerializationFailure);
            let _ = inserts(session);
            std::panic::resume_unwind(Box::new("in the closure"));
        })
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the closure"));
    assert_eq!(attempts, 1);
    assert_eq!(log.take(), ["1 rolled back", "1 RolledBack"]);
    for fault in [Fault::PanicBefore, Fault::PanicAfter] {
        plan.on(Call::Statement, fault);
        let mut attempts = 0;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            registry.transaction_with(retry(5), |session| {
                attempts += 1;
                inserts(session)
            })
        }));
        assert!(caught.is_err());
        assert_eq!(attempts, 1);
        assert!(!registry.has());
        nothing_in_use(&registry);
    }
    assert!(stored(&registry).is_empty());
}

#[test]
fn the_last_attempts_answer_is_the_units_and_no_attempts_are_one() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    for (asked, made) in [(0, 1), (1, 1), (3, 3)] {
        for n in 1..=made {
            plan.on_nth(Call::Statement, n, Fault::SerializationFailure);
        }
        let mut attempts = 0;
        let result = registry.transaction_with(retry(asked), |session| {
            attempts += 1;
            inserts(session).map_err(|error| format!("attempt {attempts}: {}", name_of(&error)).into())
        });
        let Err(Said(text)) = result else { panic!("{result:?}") };
        assert_eq!(text, format!("attempt {made}: Statement"));
        plan.reset();
    }
    assert!(stored(&registry).is_empty());
}

#[derive(Debug)]
struct Said(String);

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<Error> for Said {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

#[test]
fn no_attempt_begins_after_the_deadline() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let log = Log::default();
    let in_time = |first: Duration, timeout: Duration| {
        TransactionOptions::new().timeout(timeout).retry(RetryPolicy::new(100).backoff(first, first))
    };
    // The pause would last longer than what is left: no use in waiting.
    for first in [Duration::from_secs(100), Duration::MAX] {
        plan.on(Call::Statement, Fault::SerializationFailure);
        let started = Instant::now();
        let body = |session: &Session| {
            watch(session, &log, &number(session));
            inserts(session)
        };
        let (answer, attempts) = run(&registry, in_time(first, Duration::from_secs(20)), body);
        assert_eq!((answer.as_str(), attempts), ("Statement", 1));
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(log.take(), ["1 rolled back", "1 RolledBack"]);
    }
    // All attempts together: each fails at once, and the last one is begun before the end.
    let timeout = Duration::from_secs(1);
    let started = Instant::now();
    let latest = Cell::new(Duration::ZERO);
    let (answer, attempts) = run(&registry, in_time(Duration::from_millis(20), timeout), |session| {
        latest.set(started.elapsed());
        plan.on(Call::Statement, Fault::SerializationFailure);
        inserts(session)
    });
    assert!(["Statement", "DeadlineExceeded"].contains(&answer.as_str()), "{answer}");
    assert!(attempts > 1 && attempts < 100, "{attempts}");
    // A thread may oversleep on a busy machine, but a hundred attempts would take two seconds of sleep alone.
    assert!(latest.get() < timeout + Duration::from_secs(5), "{latest:?}");
}

#[test]
fn a_wait_for_a_connection_that_took_all_the_time_is_the_last() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let (let_go, told) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    let holder = registry.spawn({
        let registry = registry.clone();
        move || {
            registry.transaction(|session| {
                insert(session, "held")?;
                holds.send(()).unwrap();
                told.recv().unwrap();
                Ok::<_, Error>(())
            })
        }
    });
    held.recv().unwrap();
    let bounded = TransactionOptions::new().timeout(Duration::from_millis(200));
    let (answer, attempts) = run_elsewhere(&registry, bounded.retry(policy(100)));
    assert!(["PoolTimeout", "GateTimeout"].contains(&answer.as_str()), "{answer}");
    assert_eq!(attempts, 1);
    // The closure that goes on after it has no new clock either.
    let result = registry.transaction_with(bounded, |session| {
        assert!(insert(session, "row").is_err());
        insert(session, "row")
    });
    assert_eq!(super::tools::answer(&result), "DeadlineExceeded");
    let_go.send(()).unwrap();
    holder.join().unwrap().unwrap();
}

#[test]
fn only_a_whole_unit_of_work_is_run_again() {
    let database = Database::new();
    let registry = database.registry();
    let refused = |registry: &Registry| {
        for propagation in
            [Propagation::Required, Propagation::Nested, Propagation::RequiresNew, Propagation::Mandatory]
        {
            let options = retry(3).propagation(propagation);
            let result = registry.transaction_with(options, |_| -> Result<()> { unreachable!("must not run") });
            let error = result.unwrap_err();
            let Error::RetryInside { at } = error else { panic!("{propagation:?}: {error}") };
            assert_eq!(at.file(), file!());
        }
    };
    registry
        .transaction(|session| {
            refused(&registry);
            session.batch_execute("INSERT INTO notes (text, n) VALUES ('row', 0)")?;
            refused(&registry);
            session.nested(|_| {
                refused(&registry);
                Ok::<_, Error>(())
            })
        })
        .unwrap();
    registry
        .request(TransactionOptions::new(), |_| {
            refused(&registry);
            Ok::<_, Error>(())
        })
        .unwrap();
    registry
        .read(|_| {
            refused(&registry);
            Ok::<_, Error>(())
        })
        .unwrap();
    registry
        .scope(|session| {
            session.batch_execute("SELECT 1").unwrap();
            refused(&registry);
        })
        .unwrap();
    let bare = registry.current().unwrap();
    bare.batch_execute("SELECT 1").unwrap();
    refused(&registry);
    assert_eq!(registry.current().unwrap(), bare, "a refusal changes nothing");
    bare.rollback().unwrap();
    // With nothing open there is nothing that it must be part of.
    let mandatory = retry(3).propagation(Propagation::Mandatory);
    let result = registry.transaction_with(mandatory, |_| -> Result<()> { unreachable!("must not run") });
    assert_eq!(answer(&result), "NoOpenTransaction");
    assert_eq!(registry.current().unwrap(), bare, "a refusal changes nothing");
    registry.remove();
    assert_eq!(stored(&registry), ["row"]);
}

#[test]
fn without_a_transaction_nothing_is_run_again() {
    let database = Database::new();
    let registry = database.registry();
    for options in [retry(3).propagation(Propagation::Never), autocommit().retry(policy(3))] {
        let result = registry.transaction_with(options, |_| -> Result<()> { unreachable!("must not run") });
        assert_eq!(answer(&result), "Configuration");
    }
}

#[test]
fn an_idle_session_is_taken_over_and_a_scope_around_is_not() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let bare = registry.current().unwrap();
    bare.info().insert(7_u32);
    plan.on(Call::Statement, Fault::SerializationFailure);
    assert_eq!(
        run(&registry, retry(3), |session| {
            assert!(bare.is_closed());
            assert!(session.info().get::<u32>().is_none());
            inserts(session)
        }),
        ("Ok".to_owned(), 2)
    );
    clear(&registry);
    let own = registry.current().unwrap();
    plan.on(Call::Statement, Fault::SerializationFailure);
    let options = retry(3).propagation(Propagation::RequiresNew);
    registry.transaction_with(options, inserts).unwrap();
    assert_eq!(registry.current().unwrap(), own, "one that asks for its own leaves it alone");
    registry.remove();
    clear(&registry);
    registry
        .scope(|outer| {
            plan.on(Call::Statement, Fault::SerializationFailure);
            registry
                .transaction_with(retry(3), |session| {
                    assert_ne!(session, outer);
                    inserts(session)
                })
                .unwrap();
            assert_eq!(registry.current().unwrap(), *outer);
            assert!(!outer.in_transaction());
        })
        .unwrap();
    assert_eq!(stored(&registry), ["row"]);
}

#[test]
fn in_a_hook_it_is_the_outermost_with_a_pool_of_one() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let attempts = Rc::new(Cell::new(0));
    registry
        .transaction(|session| {
            insert(session, "first")?;
            let (registry, plan, attempts) = (registry.clone(), plan.clone(), Rc::clone(&attempts));
            session
                .on_commit(move || {
                    plan.on(Call::Statement, Fault::SerializationFailure);
                    registry.transaction_with(retry(3), |session| {
                        attempts.set(attempts.get() + 1);
                        insert(session, "second").map(drop)
                    })
                })
                .map(drop)
        })
        .unwrap();
    assert_eq!(attempts.get(), 2);
    assert_eq!(stored(&registry), ["first", "second"]);
    nothing_in_use(&registry);
}

#[test]
fn a_session_that_the_closure_removed_is_not_run_again() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let log = Log::default();
    plan.on(Call::Statement, Fault::SerializationFailure);
    let (answer, attempts) = run(&registry, retry(3), |session| {
        watch(session, &log, &number(session));
        let result = inserts(session);
        registry.remove();
        result
    });
    assert_eq!((answer.as_str(), attempts), ("Statement", 1));
    assert_eq!(log.take(), ["1 rolled back", "1 RolledBack"]);
}
