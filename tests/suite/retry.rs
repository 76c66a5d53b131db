//! A unit of work with a retry policy: what is run again, and what is not.

use std::cell::Cell;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{Error, Kind, Result, RetryPolicy, TransactionOptions, UnitOptions, read_only};

use super::db::{self, Database, Registry, Session, insert, stored};
use super::notes;
use super::tools::{answer, kind, nothing_in_use};

/// Waits that nobody notices.
pub(crate) fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy::new(attempts).backoff(Duration::from_millis(1), Duration::from_millis(2))
}

pub(crate) fn retry(attempts: u32) -> UnitOptions {
    TransactionOptions::new().retry(policy(attempts))
}

/// A registry whose connections fail as the plan says.
pub(crate) fn faulty(database: &Database) -> (Registry, FaultPlan) {
    let plan = FaultPlan::new();
    let registry = database.registry_with(|builder| builder.faults(&plan).max_size(1));
    plan.reset();
    (registry, plan)
}

pub(crate) fn clear(registry: &Registry) {
    registry.transaction(|session| session.execute(diesel::delete(notes::table))).unwrap();
}

/// The closure's own error: it does not say what the session answered.
#[derive(Debug)]
pub(crate) struct Opaque;

impl From<Error> for Opaque {
    fn from(_: Error) -> Self {
        Self
    }
}

/// Runs `body` and gives the answer's name and how many attempts there were.
pub(crate) fn run(
    registry: &Registry,
    options: impl Into<UnitOptions>,
    mut body: impl FnMut(&Session) -> Result<()>,
) -> (String, u32) {
    let mut attempts = 0;
    let result = registry.transaction_with(options, |session| {
        attempts += 1;
        assert_eq!(session.attempt().unwrap().number(), attempts);
        body(session)
    });
    assert!(!registry.has());
    nothing_in_use(registry);
    (answer(&result), attempts)
}

pub(crate) fn inserts(session: &Session) -> Result<()> {
    insert(session, "row").map(drop)
}

#[test]
fn an_error_is_run_again_by_its_class_wherever_in_the_work_it_happens() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let is_sqlite = kind() == Kind::Sqlite;
    // SQLite says BUSY to both.
    let faults = [
        (Fault::SerializationFailure, true),
        (Fault::Deadlock, true),
        (Fault::LockTimeout, is_sqlite),
        (Fault::Unknown, false),
        (Fault::CloseBefore, true),
        (Fault::CloseAfter, true),
    ];
    type Body = fn(&Session) -> Result<()>;
    let places: [(&str, Call, Body); 5] = [
        ("in a statement", Call::Statement, inserts),
        ("in a savepoint", Call::Statement, |session| session.nested(inserts)),
        ("at a savepoint", Call::Savepoint, |session| session.nested(inserts)),
        ("at a release", Call::Release, |session| session.nested(inserts)),
        ("swallowed", Call::Statement, |session| {
            let _ = inserts(session);
            Ok(())
        }),
    ];
    for (fault, is_due) in faults {
        for (place, call, body) in places {
            // A release that fails leaves a transaction that nobody can go on with; of an unknown error it is final too.
            plan.on(call, fault);
            let (answer, attempts) = run(&registry, retry(5), body);
            let case = format!("{fault:?} {place} on {}: {answer}", db::NAME);
            if is_due {
                assert_eq!((answer.as_str(), attempts), ("Ok", 2), "{case}");
                assert_eq!(stored(&registry), ["row"], "{case}");
            } else {
                assert_eq!(attempts, 1, "{case}");
                assert_ne!(answer, "Ok", "{case}");
                assert!(stored(&registry).is_empty(), "{case}");
            }
            assert_eq!(plan.happened(), 1, "{case}");
            plan.reset();
            clear(&registry);
        }
        // The closure's error type hides it, the session does not.
        plan.on(Call::Statement, fault);
        let attempts = Cell::new(0);
        let result = registry.transaction_with(retry(5), |session| -> Result<(), Opaque> {
            attempts.set(attempts.get() + 1);
            Ok(inserts(session)?)
        });
        assert_eq!((result.is_ok(), attempts.get()), (is_due, 1 + u32::from(is_due)), "{fault:?} on {}", db::NAME);
        plan.reset();
        clear(&registry);
    }
}

#[test]
fn at_begin_nothing_was_sent_so_another_attempt_is_as_good_as_the_first() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    for (fault, is_due) in [(Fault::SerializationFailure, true), (Fault::Deadlock, true), (Fault::Unknown, false)] {
        plan.on(Call::Begin, fault);
        let (answer, attempts) = run(&registry, retry(5), inserts);
        assert_eq!((answer == "Ok", attempts), (is_due, 1 + u32::from(is_due)), "{fault:?} on {}: {answer}", db::NAME);
        plan.reset();
        clear(&registry);
    }
    // A server's connection that died while it lay idle is replaced within the attempt.
    let replaced = u32::from(db::REMOTE);
    plan.on(Call::Begin, Fault::CloseBefore);
    assert_eq!(run(&registry, retry(5), inserts), ("Ok".to_owned(), 2 - replaced));
    clear(&registry);
    // When the new one dies too, the attempt is over.
    plan.on(Call::Begin, Fault::CloseBefore);
    plan.on_nth(Call::Begin, 2, Fault::CloseBefore);
    assert_eq!(run(&registry, retry(5), inserts), ("Ok".to_owned(), 3 - replaced));
    assert_eq!(stored(&registry), ["row"]);
}

/// Enough to connect on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

#[test]
fn a_connection_or_gate_that_is_not_to_be_had_in_time_is_asked_for_again_after_a_while() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1).connection_timeout(PATIENCE));
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
    let started = Instant::now();
    let (answer, attempts) = run_elsewhere(&registry, retry(2));
    assert!(["PoolTimeout", "GateTimeout"].contains(&answer.as_str()), "{answer}");
    assert_eq!(attempts, 2);
    // Twice the patience, and at least 50 ms between, whatever the policy says.
    assert!(started.elapsed() >= PATIENCE * 2 + Duration::from_millis(50), "{:?}", started.elapsed());
    let mut let_go = Some(let_go);
    let registry_again = registry.clone();
    let mut attempts = 0;
    registry
        .transaction_with(retry(1000), |session| {
            attempts += 1;
            let result = insert(session, "row");
            if let (Err(_), Some(let_go)) = (&result, let_go.take()) {
                let_go.send(()).unwrap();
            }
            result
        })
        .unwrap();
    holder.join().unwrap().unwrap();
    assert!(attempts >= 2);
    assert_eq!(stored(&registry_again), ["held", "row"]);
}

/// As [`run`], where another thread holds a connection.
pub(crate) fn run_elsewhere(registry: &Registry, options: impl Into<UnitOptions>) -> (String, u32) {
    let mut attempts = 0;
    let result = registry.transaction_with(options, |session| {
        attempts += 1;
        insert(session, "row").map(drop)
    });
    (answer(&result), attempts)
}

#[test]
fn at_commit_what_the_database_undid_is_run_again_and_what_nobody_knows_is_not() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    for fault in [Fault::SerializationFailure, Fault::Deadlock] {
        plan.on(Call::Commit, fault);
        assert_eq!(run(&registry, retry(5), inserts), ("Ok".to_owned(), 2), "{fault:?} on {}", db::NAME);
        assert_eq!(stored(&registry), ["row"]);
        clear(&registry);
    }
    plan.on(Call::Commit, Fault::Unknown);
    let (answer, attempts) = run(&registry, retry(5), inserts);
    assert_eq!(attempts, 1, "{answer}");
    // On MySQL an error that is not known may follow a commit in its binary log.
    assert_eq!(answer, if kind() == Kind::Mysql { "CommitUnknown" } else { "RolledBack" });
    clear(&registry);
    for (fault, rows) in [(Fault::CloseBefore, &[][..]), (Fault::CloseAfter, &["row"][..])] {
        plan.on(Call::Commit, fault);
        assert_eq!(run(&registry, retry(5), inserts), ("CommitUnknown".to_owned(), 1), "{fault:?} on {}", db::NAME);
        assert_eq!(stored(&registry), rows, "{fault:?} on {}", db::NAME);
        clear(&registry);
    }
}

#[test]
fn a_commit_that_is_verified_is_run_again_where_it_was_not_stored_and_only_there() {
    let database = Database::new();
    let plan = FaultPlan::new();
    let registry = database.registry_with(|builder| builder.faults(&plan).verify_commits(true));
    for (fault, expected) in [(Fault::CloseBefore, 2), (Fault::CloseAfter, 1)] {
        plan.on(Call::Commit, fault);
        assert_eq!(run(&registry, retry(5), inserts), ("Ok".to_owned(), expected), "{fault:?} on {}", db::NAME);
        assert_eq!(stored(&registry), ["row"], "{fault:?} on {}", db::NAME);
        clear(&registry);
    }
    // What is noted before COMMIT can fail too, and then nothing was committed. SQLite notes it in the transaction as well.
    for fault in [Fault::SerializationFailure, Fault::CloseBefore] {
        plan.on(Call::Witness, fault);
        assert_eq!(run(&registry, retry(5), inserts), ("Ok".to_owned(), 2), "{fault:?} on {}", db::NAME);
        assert_eq!(stored(&registry), ["row"], "{fault:?} on {}", db::NAME);
        clear(&registry);
    }
}

#[test]
fn violations_and_usage_errors_are_final_and_violations_are_not_if_the_policy_says_so() {
    let database = Database::new();
    let registry = database.registry();
    let violates = |session: &Session| {
        insert(session, "row")?;
        insert(session, "row").map(drop)
    };
    assert_eq!(run(&registry, retry(5), violates), ("Statement".to_owned(), 1));
    assert_eq!(run(&registry, retry(5), |session| session.commit().map(drop)), ("NotOwner".to_owned(), 1));
    let everything = TransactionOptions::new().retry(policy(3).also(|_| true));
    assert_eq!(run(&registry, everything, violates), ("Statement".to_owned(), 3));
    // Swallowed, it comes with the commit that could not be.
    let unique = TransactionOptions::new().retry(policy(3).also(Error::is_unique_violation));
    let swallows = |session: &Session| {
        let _ = violates(session);
        Ok(())
    };
    assert_eq!(run(&registry, unique, swallows), ("RolledBack".to_owned(), 3));
    // Not asked about what the caller has to put right.
    let read = read_only().retry(policy(3).also(|error| panic!("asked about {error}")));
    assert_eq!(run(&registry, read, inserts), ("ReadOnly".to_owned(), 1));
    assert!(stored(&registry).is_empty());
}

#[test]
fn what_may_be_stored_already_is_never_done_twice() {
    let database = Database::new();
    let everything = TransactionOptions::new().retry(policy(5).also(|_| true));
    for verified in [false, true] {
        let registry = database.registry_with(|builder| builder.verify_commits(verified));
        clear(&registry);
        // Committed by raw code, and then an error.
        let commits = |session: &Session| {
            insert(session, "row")?;
            session.with_connection(|conn| {
                conn.batch_execute("COMMIT")?;
                conn.batch_execute("INSERT INTO notes (text, n) VALUES ('row', 0)")
            })
        };
        let (_, attempts) = run(&registry, everything, commits);
        assert_eq!(attempts, 1, "{}", db::NAME);
        assert_eq!(stored(&registry), ["row"]);
        clear(&registry);
        // Committed by raw code, and then an error of the closure's own.
        let attempts = Cell::new(0);
        let result = registry.transaction_with(everything, |session| -> Result<(), Opaque> {
            attempts.set(attempts.get() + 1);
            insert(session, &format!("row {}", attempts.get()))?;
            let _ = session.with_connection(|conn| conn.batch_execute("COMMIT"));
            Err(Opaque)
        });
        assert!(result.is_err());
        assert_eq!(attempts.get(), 1, "{}", db::NAME);
        assert_eq!(stored(&registry), ["row 1"]);
        // And swallowed.
        let swallows = |session: &Session| {
            insert(session, "swallowed")?;
            let _ = session.with_connection(|conn| conn.batch_execute("COMMIT"));
            Ok(())
        };
        assert_eq!(run(&registry, everything, swallows), ("ImplicitCommit".to_owned(), 1));
        assert_eq!(stored(&registry), ["row 1", "swallowed"]);
    }
}

#[test]
fn an_error_after_which_a_statement_went_well_is_the_closures_to_answer_for() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    let everything = TransactionOptions::new().retry(policy(5).also(|_| true));
    for goes_on in [true, false] {
        plan.on(Call::Statement, Fault::LockTimeout);
        let attempts = Cell::new(0);
        let result = registry.transaction_with(everything, |session| -> Result<(), Opaque> {
            attempts.set(attempts.get() + 1);
            let _ = session.nested(inserts);
            if goes_on {
                insert(session, "other")?;
            }
            Err(Opaque)
        });
        assert!(result.is_err());
        assert_eq!(attempts.get(), if goes_on { 1 } else { 2 }, "{}", db::NAME);
        plan.reset();
    }
    // Handled, and the work went well without it.
    plan.on(Call::Statement, Fault::LockTimeout);
    let handles = |session: &Session| {
        assert!(session.nested(inserts).is_err());
        insert(session, "other").map(drop)
    };
    assert_eq!(run(&registry, everything, handles), ("Ok".to_owned(), 1));
    assert_eq!(stored(&registry), ["other"]);
}

#[test]
fn a_connection_that_dies_at_the_end_of_a_savepoint_is_the_reason_whatever_failed_before() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    for call in [Call::RollbackTo, Call::Release] {
        plan.on(call, Fault::CloseBefore);
        let body = |session: &Session| {
            insert(session, "row")?;
            if call == Call::Release {
                return session.nested(|session| insert(session, "other").map(drop));
            }
            match session.nested(|session| insert(session, "row")) {
                Err(error) if error.is_unique_violation() => insert(session, "other").map(drop),
                other => other.map(drop),
            }
        };
        assert_eq!(run(&registry, retry(5), body), ("Ok".to_owned(), 2), "{call:?} on {}", db::NAME);
        assert_eq!(stored(&registry), ["other", "row"], "{call:?} on {}", db::NAME);
        clear(&registry);
        plan.reset();
    }
}

#[test]
fn a_shut_down_is_final() {
    let database = Database::new();
    let (registry, plan) = faulty(&database);
    plan.on(Call::Statement, Fault::SerializationFailure);
    let (answer, attempts) = run(&registry, retry(50), |session| {
        let result = inserts(session);
        registry.engine().close_all();
        result
    });
    assert_eq!((answer.as_str(), attempts), ("ShutDown", 2));
    let registry = database.registry();
    registry.shutdown(Duration::from_secs(5)).unwrap();
    let mut attempts = 0;
    let result = registry.transaction_with(retry(50), |session| {
        attempts += 1;
        inserts(session)
    });
    assert_eq!(super::tools::answer(&result), "ShutDown");
    assert!(attempts <= 1);
}
