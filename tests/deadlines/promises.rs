//! Run on each database.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_session::{Error, ErrorClass, Propagation, Reason, Result, RetryPolicy, SessionState, TransactionOptions};

use super::db::{Conn, Database, NAME, Session, insert, stored, texts};
use super::settings::{CHANGE, SET, SETUP, SETUP_READS, STEP, limits};
use crate::commands::{recorder, sent};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
/// More than any wait that a deadline of [`SHORT`] bounds, on a busy machine.
const BOUND: Duration = Duration::from_secs(8);

fn timeout(timeout: Duration) -> TransactionOptions {
    TransactionOptions::new().timeout(timeout)
}

/// Until the deadline of a unit of work that began before this call has passed.
fn pass(timeout: Duration) {
    let started = Instant::now();
    while started.elapsed() <= timeout {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn is_over<T>(result: Result<T>) {
    match result {
        Err(error @ Error::DeadlineExceeded { .. }) => assert_eq!(error.class(), ErrorClass::Unavailable),
        Err(error) => panic!("{NAME}: {error}"),
        Ok(_) => panic!("{NAME}: in time"),
    }
}

#[test]
fn past_the_deadline_nothing_is_sent_and_commit_rolls_back() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.instrumentation(recorder));
    let session = Session::new(registry.engine());
    session.begin_with(timeout(SHORT)).unwrap();
    insert(&session, "too late").unwrap();
    pass(SHORT);
    sent();
    is_over(insert(&session, "later"));
    is_over(session.with_connection(|_| Ok(())));
    is_over(session.begin_nested().map(drop));
    assert_eq!(sent(), [""; 0]);
    assert_eq!(session.state(), SessionState::RollbackOnly);
    let Err(error @ Error::RolledBack { .. }) = session.commit() else { panic!("{NAME}: committed") };
    assert!(matches!(error.cause().unwrap().reason(), Reason::Deadline), "{error}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(!error.is_retryable());
    // The next transaction has no deadline.
    insert(&session, "in time").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["in time"]);
}

#[test]
fn a_commit_past_the_deadline_rolls_back_though_no_statement_came_late() {
    let database = Database::new();
    let registry = database.registry();
    let result = registry.transaction_with(timeout(SHORT), |session| {
        insert(session, "too late")?;
        pass(SHORT);
        Ok(())
    });
    let Err(error @ Error::RolledBack { .. }) = result else { panic!("{NAME}: {result:?}") };
    assert!(matches!(error.cause().unwrap().reason(), Reason::Deadline), "{error}");
    assert_eq!(stored(&registry), [""; 0]);
}

#[test]
fn a_deadline_bounds_the_wait_for_a_connection() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let engine = registry.engine().clone();
    std::thread::scope(|scope| {
        let (held, is_held) = std::sync::mpsc::channel();
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        let engine = &engine;
        scope.spawn(move || {
            let session = Session::with_options(engine, diesel_session::read_only()).unwrap();
            texts(&session);
            held.send(()).unwrap();
            let _ = is_over.recv();
        });
        is_held.recv().unwrap();
        let started = Instant::now();
        let error = registry
            .transaction_with(timeout(SHORT).read_only(), |session| session.begin_nested().map(drop))
            .unwrap_err();
        assert!(matches!(error, Error::PoolTimeout { .. }), "{NAME}: {error}");
        assert!(started.elapsed() >= SHORT && started.elapsed() < BOUND);
        drop(over);
    });
}

#[test]
fn limits_end_with_the_transaction() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let own = registry.read(|session| Ok::<_, Error>(limits(session))).unwrap();
    let asked = TransactionOptions::new().timeout(LONG / 10).lock_timeout(SHORT);
    registry
        .transaction_with(asked, |session| {
            let (now, lock) = (limits(session), i64::try_from(SHORT.as_millis()).unwrap());
            assert_eq!(now.last(), Some(&((lock + STEP - 1) / STEP * STEP)), "{NAME}");
            assert!(now.iter().zip(&own).all(|(now, own)| now != own), "{NAME}: {now:?} {own:?}");
            insert(session, "limited").map(drop)
        })
        .unwrap();
    assert_eq!(registry.read(|session| Ok::<_, Error>(limits(session))).unwrap(), own);
    // Also where it failed, and where it ran out of time.
    let _ = registry.transaction_with(asked, |session| insert(session, "limited").map(drop));
    let _ = registry.transaction_with(timeout(SHORT), |session| {
        texts(session);
        pass(SHORT);
        insert(session, "too late").map(drop)
    });
    let session = Session::with_options(registry.engine(), diesel_session::autocommit()).unwrap();
    assert_eq!(limits(&session), own, "{NAME}");
}

#[test]
fn what_the_bare_connection_was_told_ends_with_the_transaction() {
    for unit in [TransactionOptions::new(), timeout(LONG)] {
        let database = Database::new();
        let registry = database.registry_with(|builder| builder.max_size(1));
        let own = registry.read(|session| Ok::<_, Error>(limits(session))).unwrap();
        registry
            .transaction_with(unit, |session| {
                session.with_connection(|conn| conn.batch_execute(CHANGE))?;
                assert_ne!(limits(session), own);
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(registry.read(|session| Ok::<_, Error>(limits(session))).unwrap(), own, "{NAME}");
    }
}

#[test]
fn what_setup_asked_for_survives_limits_and_the_bare_connection() {
    let database = Database::new();
    let registry =
        database.registry_with(|builder| builder.max_size(1).setup(|conn: &mut Conn| conn.batch_execute(SETUP)));
    let now = || registry.transaction(|session| Ok::<_, Error>(limits(session))).unwrap();
    assert_eq!(now(), SETUP_READS);
    let limited = || {
        let asked = timeout(LONG).lock_timeout(SHORT);
        let told = registry.transaction_with(asked, |session| Ok::<_, Error>(limits(session))).unwrap();
        assert_ne!(told, SETUP_READS);
    };
    limited();
    assert_eq!(now(), SETUP_READS, "{NAME}: after limits");
    registry.transaction(|session| session.with_connection(|conn| conn.batch_execute(CHANGE))).unwrap();
    assert_eq!(now(), SETUP_READS, "{NAME}: after raw use");
    limited();
    assert_eq!(now(), SETUP_READS, "{NAME}: after both");
    // A deadline that is further away lengthens nothing.
    let far = timeout(Duration::from_secs(3600));
    let told = registry.transaction_with(far, |session| Ok::<_, Error>(limits(session))).unwrap();
    assert_eq!(told, SETUP_READS, "{NAME}");
}

#[test]
fn a_long_unit_of_work_is_told_the_time_again_each_time_that_a_fifth_has_passed() {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.instrumentation(recorder));
    let (mut statements, mut told) = (0, 0);
    let started = Instant::now();
    let result = registry.transaction_with(timeout(TIMEOUT), |session| {
        sent();
        loop {
            session.execute(diesel::delete(crate::support::notes::table))?;
            std::thread::sleep(Duration::from_millis(2));
            let sent = sent();
            statements += sent.iter().filter(|query| query.contains("DELETE")).count();
            told += sent.iter().filter(|query| query.contains(SET) && !query.contains("BEGIN")).count();
        }
        #[allow(unreachable_code)]
        Ok(())
    });
    is_over(result);
    assert!(started.elapsed() < TIMEOUT * 5 / 4 + Duration::from_secs(1), "{NAME}: {:?}", started.elapsed());
    // 1500 ms shrink by fifths to the millisecond in some thirty steps.
    assert!((1..=40).contains(&told), "{NAME}: {told} of {statements}");
    if statements > 100 {
        assert!(told < statements / 2, "{NAME}: {told} of {statements}");
    }
}

#[test]
fn a_unit_of_work_of_its_own_inherits_the_deadline_around_it() {
    let database = Database::new();
    let registry = database.registry();
    let options = TransactionOptions::new().propagation(Propagation::RequiresNew);
    let result = registry.transaction_with(timeout(SHORT), |_| {
        registry.transaction_with(options, |session| {
            texts(session);
            pass(SHORT);
            insert(session, "too late").map(drop)
        })
    });
    is_over(result);
    // Its own comes first where it is sooner.
    let own = timeout(SHORT).propagation(Propagation::RequiresNew);
    registry
        .transaction_with(timeout(LONG), |_| {
            is_over(registry.transaction_with(own, |session| {
                texts(session);
                pass(SHORT);
                insert(session, "too late").map(drop)
            }));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(stored(&registry), [""; 0]);
}

#[test]
fn a_joined_unit_of_work_narrows_the_deadline_and_gives_it_back() {
    for around in [None, Some(LONG)] {
        let database = Database::new();
        let registry = database.registry();
        let outer = around.map_or(TransactionOptions::new(), timeout);
        registry
            .transaction_with(outer, |session| {
                insert(session, "outer")?;
                let before = limits(session);
                registry.transaction_with(timeout(LONG / 10), |inner| {
                    insert(inner, "joined")?;
                    let now = limits(inner);
                    assert!(now.iter().all(|limit| *limit <= 2000 && *limit > 0), "{NAME}: {now:?}");
                    Ok::<_, Error>(())
                })?;
                let after = limits(session);
                match around {
                    None => assert_eq!(after, before, "{NAME}"),
                    Some(_) => assert!(after.iter().all(|limit| *limit > 2000), "{NAME}: {before:?} {after:?}"),
                }
                // One with more time than there is gets no more.
                registry.transaction_with(timeout(LONG * 10), |inner| {
                    if around.is_some() {
                        assert!(limits(inner).iter().all(|limit| *limit <= 20_000), "{NAME}");
                    }
                    Ok::<_, Error>(())
                })
            })
            .unwrap();
        assert_eq!(stored(&registry), ["joined", "outer"]);
    }
}

#[test]
fn a_joined_unit_of_work_that_begins_the_transaction_gives_its_limits_back() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.setup(|conn: &mut Conn| conn.batch_execute(SETUP)));
    registry
        .transaction(|session| {
            registry.transaction_with(timeout(LONG / 10), |inner| insert(inner, "joined"))?;
            assert_eq!(limits(session), SETUP_READS, "{NAME}");
            Ok::<_, Error>(())
        })
        .unwrap();
}

#[test]
fn a_joined_unit_of_work_past_its_deadline_fails_the_transaction_and_a_nested_one_only_itself() {
    let database = Database::new();
    let registry = database.registry();
    let late = |propagation: Propagation| {
        registry.transaction_with(timeout(LONG), |session| {
            insert(session, "outer")?;
            let result = registry.transaction_with(timeout(SHORT).propagation(propagation), |inner| {
                insert(inner, "inner")?;
                pass(SHORT);
                is_over(insert(inner, "too late"));
                Ok(())
            });
            match propagation {
                Propagation::Nested => assert!(matches!(result, Err(Error::RolledBack { .. })), "{NAME}: {result:?}"),
                _ => result?,
            }
            Ok::<_, Error>(())
        })
    };
    let Err(error) = late(Propagation::Required) else { panic!("{NAME}: committed") };
    assert!(matches!(error.cause().unwrap().reason(), Reason::Deadline), "{error}");
    assert_eq!(stored(&registry), [""; 0]);
    late(Propagation::Nested).unwrap();
    assert_eq!(stored(&registry), ["outer"]);
}

#[test]
fn after_a_savepoint_was_rolled_back_the_limit_still_holds() {
    let database = Database::new();
    let registry = database.registry();
    for around in [None, Some(LONG)] {
        let outer = around.map_or(TransactionOptions::new(), timeout);
        registry
            .transaction_with(outer, |session| {
                texts(session);
                let before = limits(session);
                let savepoint = session.begin_nested()?;
                registry.transaction_with(timeout(LONG / 10), |inner| Ok::<_, Error>(texts(inner)))?;
                savepoint.rollback()?;
                let after = limits(session);
                match around {
                    None => assert_eq!(after, before, "{NAME}"),
                    Some(_) => {
                        assert!(after.iter().all(|limit| *limit > 2000 && *limit <= 20_000), "{NAME}: {after:?}");
                    }
                }
                // Set inside a savepoint that is rolled back.
                registry.transaction_with(timeout(LONG / 10), |inner| {
                    texts(inner);
                    let _ = inner.nested(|_| Err::<(), _>(Error::NoScope));
                    let now = limits(inner);
                    assert!(now.iter().all(|limit| *limit <= 2000 && *limit > 0), "{NAME}: {now:?}");
                    Ok::<_, Error>(())
                })
            })
            .unwrap();
    }
}

#[test]
fn running_again_stops_at_the_deadline() {
    let database = Database::new();
    let registry = database.registry();
    let started = Instant::now();
    let mut attempts = 0;
    let policy =
        RetryPolicy::new(1_000_000).backoff(Duration::from_millis(50), Duration::from_millis(50)).also(|_| true);
    let result = registry.transaction_with(timeout(SHORT * 2).retry(policy), |session| {
        attempts += 1;
        session.batch_execute("SELECT nonsense FROM nowhere")
    });
    // The last error, or that there was no time for another attempt.
    let error = result.unwrap_err();
    let ended = matches!(error, Error::Statement(_)) || error.class() == ErrorClass::Unavailable;
    assert!(ended, "{NAME}: {error}");
    assert!(attempts > 1 && started.elapsed() < BOUND, "{NAME}: {attempts}");
}

#[test]
fn time_outs_need_a_transaction() {
    let database = Database::new();
    let session = Session::new(database.registry().engine());
    for options in
        [timeout(LONG), TransactionOptions::new().lock_timeout(LONG), TransactionOptions::new().statement_timeout(LONG)]
    {
        let refused = session.begin_with(options.autocommit());
        assert!(matches!(refused, Err(Error::Configuration(_))), "{NAME}: {refused:?}");
    }
}
