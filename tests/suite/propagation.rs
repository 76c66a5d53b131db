//! How a unit of work meets an open transaction, and what a failed part of one does to the whole.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{
    BeginMode, Error, IsolationLevel, Kind, Propagation, Reason, Result, SessionState, TransactionOptions, UnitOptions,
    autocommit, read_only,
};

use super::db::{self, Database, Registry, Session, insert, stored};
use super::tools::{answer, kind, nothing_in_use};

/// Far below every time-out of these tests, far above what a refusal takes.
const AT_ONCE: Duration = Duration::from_secs(5);

const ALL: [Propagation; 5] =
    [Propagation::Required, Propagation::RequiresNew, Propagation::Nested, Propagation::Mandatory, Propagation::Never];

fn with(propagation: Propagation) -> UnitOptions {
    TransactionOptions::new().propagation(propagation)
}

/// A registry whose engine counts what it asks of the driver.
fn counted(database: &Database) -> (Registry, FaultPlan) {
    let plan = FaultPlan::new();
    (database.registry_with(|builder| builder.faults(&plan)), plan)
}

fn savepoints(plan: &FaultPlan) -> usize {
    plan.calls().iter().filter(|call| **call == Call::Savepoint).count()
}

/// What a unit of work with these options finds itself in, or why it does not run.
fn met(registry: &Registry, plan: &FaultPlan, options: UnitOptions) -> String {
    let around = registry.try_current();
    let before = savepoints(plan);
    let result = registry.transaction_with(options, |session| {
        assert_eq!(registry.current()?, *session, "the unit's session is the current one");
        let found = match (session.transaction_options().is_autocommit(), around.as_ref() == Some(session)) {
            (true, _) => "alone",
            (false, false) => "own",
            (false, true) if savepoints(plan) > before => "nested",
            (false, true) => "same",
        };
        if found != "alone" {
            // What a closure owns only that ends.
            assert_eq!(answer(&session.rollback()), "NotOwner", "{found}");
        }
        Ok::<_, Error>(found.to_owned())
    });
    let met = result.unwrap_or_else(|error| answer(&Err::<(), _>(error)));
    // Whatever the answer: what was current is current again, unless it was idle and taken over.
    let is_taken_over = met == "same" && around.as_ref().is_some_and(Session::is_closed);
    assert!(registry.try_current() == around || (is_taken_over && !registry.has()), "{met}");
    met
}

const FORBIDDEN: &str = "TransactionForbidden";
const NONE: &str = "NoOpenTransaction";
const INNER: &str = "NotOutermost";
const BEGUN: &str = "AlreadyBegun";
const LESS: &str = "IncompatibleOptions";

/// The answers to `ALL`, and those to a durable unit.
type Row = ([&'static str; 5], [&'static str; 5]);

const NOTHING_OPEN: Row = (["own", "own", "own", NONE, "alone"], ["own", "own", "own", NONE, "alone"]);
const IDLE: Row = (["same", "own", "same", NONE, "alone"], ["same", "own", "same", NONE, "alone"]);
const BARE: Row = ([BEGUN, "own", BEGUN, "same", FORBIDDEN], [INNER, "own", INNER, INNER, FORBIDDEN]);
const OWNED: Row = (["same", "own", "nested", "same", FORBIDDEN], [INNER, "own", INNER, INNER, FORBIDDEN]);
const READS: Row = ([LESS, "own", LESS, LESS, FORBIDDEN], [INNER, "own", INNER, INNER, FORBIDDEN]);

/// Asks what a unit of work meets.
type Ask = Rc<dyn Fn()>;

/// Asks for each kind of unit inside what `around` opens.
fn asks_for_each(name: &str, row: Row, transaction: TransactionOptions, around: impl Fn(&Registry, Ask)) {
    let database = Database::new();
    let (registry, plan) = counted(&database);
    for (propagation, (plain, durable)) in ALL.into_iter().zip(row.0.into_iter().zip(row.1)) {
        for is_durable in [false, true] {
            let options = transaction.propagation(propagation);
            let (options, expected) = if is_durable { (options.durable(), durable) } else { (options, plain) };
            let answers = Rc::new(RefCell::new(Vec::new()));
            let ask = {
                let (registry, plan, answers) = (registry.clone(), plan.clone(), Rc::clone(&answers));
                move || {
                    let answer = met(&registry, &plan, options);
                    answers.borrow_mut().push(answer);
                }
            };
            around(&registry, Rc::new(ask));
            assert_eq!(
                *answers.borrow(),
                [expected],
                "{propagation:?}, durable: {is_durable}, in {name} on {}",
                db::NAME
            );
            registry.remove();
            nothing_in_use(&registry);
        }
    }
}

fn sends(session: &Session) {
    session.batch_execute("SELECT 1").unwrap();
}

fn fine(f: impl FnOnce(&Session)) -> impl FnOnce(&Session) -> Result<()> {
    |session| {
        f(session);
        Ok(())
    }
}

fn in_a_transaction(registry: &Registry, f: impl FnOnce(&Session)) {
    registry.transaction(fine(f)).unwrap();
}

#[test]
fn each_kind_of_unit_where_no_transaction_is_open() {
    let new = TransactionOptions::new();
    asks_for_each("nothing", NOTHING_OPEN, new, |_, ask| ask());
    asks_for_each("an idle session", IDLE, new, |registry, ask| {
        registry.current().unwrap();
        ask();
    });
    asks_for_each("an idle autocommit session", IDLE, new, |registry, ask| {
        registry.current_with(autocommit()).unwrap();
        ask();
    });
    asks_for_each("an idle scope", NOTHING_OPEN, new, |registry, ask| registry.scope(|_| ask()).unwrap());
    asks_for_each("a unit without a transaction", NOTHING_OPEN, new, |registry, ask| {
        let alone = registry.transaction_with(with(Propagation::Never), |session| {
            sends(session);
            ask();
            Ok::<_, Error>(())
        });
        alone.unwrap();
    });
    asks_for_each("an autocommit request", NOTHING_OPEN, new, |registry, ask| {
        registry.request(autocommit(), fine(|_| ask())).unwrap();
    });
    asks_for_each("a hook", NOTHING_OPEN, new, |registry, ask| {
        in_a_transaction(registry, |session| {
            sends(session);
            session.on_commit(move || ask()).unwrap();
        });
    });
}

#[test]
fn each_kind_of_unit_where_a_transaction_is_open() {
    let new = TransactionOptions::new();
    asks_for_each("a session with statements sent", BARE, new, |registry, ask| {
        sends(&registry.current().unwrap());
        ask();
    });
    asks_for_each("a session that was begun", BARE, new, |registry, ask| {
        registry.current().unwrap().begin().unwrap();
        ask();
    });
    asks_for_each("a scope with statements sent", BARE, new, |registry, ask| {
        registry
            .scope(|session| {
                sends(session);
                ask();
            })
            .unwrap();
    });
    asks_for_each("a transaction", OWNED, new, |registry, ask| {
        in_a_transaction(registry, |session| {
            sends(session);
            ask();
        });
    });
    asks_for_each("a transaction with nothing sent", OWNED, new, |registry, ask| {
        in_a_transaction(registry, |_| ask());
    });
    asks_for_each("a savepoint", OWNED, new, |registry, ask| {
        in_a_transaction(registry, |session| session.nested(fine(|_| ask())).unwrap());
    });
    asks_for_each("a job", OWNED, new, |registry, ask| registry.job(fine(|_| ask())).unwrap());
    asks_for_each("a request", OWNED, new, |registry, ask| {
        registry.request(new, fine(|_| ask())).unwrap();
    });
    asks_for_each("a read-only extent", READS, new, |registry, ask| {
        registry.read(fine(|_| ask())).unwrap();
    });
    asks_for_each("a read-only extent, to read", OWNED, read_only(), |registry, ask| {
        registry.read(fine(|_| ask())).unwrap();
    });
}

#[test]
fn a_mandatory_unit_is_part_of_what_its_caller_commits() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    for is_kept in [false, true] {
        insert(&session, "callers").unwrap();
        registry.transaction_with(with(Propagation::Mandatory), |joined| insert(joined, "joined")).unwrap();
        assert!(session.in_transaction());
        if is_kept {
            session.commit().unwrap();
        } else {
            session.rollback().unwrap();
        }
    }
    assert_eq!(stored(&registry), ["callers", "joined"]);
    // It fails, and so does what it was part of.
    insert(&session, "other").unwrap();
    let failed = registry.transaction_with(with(Propagation::Mandatory), |_| Err::<(), _>(Error::NoTransaction));
    assert_eq!(answer(&failed), "NoTransaction");
    assert_eq!(answer(&session.commit()), "RolledBack");
    assert_eq!(stored(&registry), ["callers", "joined"]);
    registry.remove();
}

#[test]
fn a_unit_that_must_not_be_in_a_transaction_stores_every_statement_by_itself() {
    let database = Database::new();
    let registry = database.registry();
    let failed = registry.transaction_with(with(Propagation::Never), |session| {
        insert(session, "stays")?;
        assert_eq!(answer(&session.nested(|_| Ok::<_, Error>(()))), "NoTransaction");
        // A unit of work inside has a transaction, and an error undoes it.
        let inner = registry.transaction(|session| {
            insert(session, "goes")?;
            Err::<(), _>(Error::NoTransaction)
        });
        assert!(inner.is_err());
        registry.transaction(|session| insert(session, "stays too"))?;
        Err::<(), _>(Error::NoTransaction)
    });
    assert_eq!(answer(&failed), "NoTransaction");
    assert_eq!(stored(&registry), ["stays", "stays too"]);
    // What only a transaction can have can't be asked for.
    for options in [
        TransactionOptions::new().isolation(IsolationLevel::Serializable),
        TransactionOptions::new().timeout(Duration::from_secs(1)),
    ] {
        let never = options.propagation(Propagation::Never);
        let refused = registry.transaction_with(never, |_| -> Result<()> { unreachable!("must not run") });
        assert_eq!(answer(&refused), "Configuration");
    }
}

#[test]
fn a_unit_with_a_transaction_of_its_own_stands_and_falls_alone() {
    let database = Database::new();
    let registry = database.registry();
    // The outer one fails after the inner one has committed.
    let failed = registry.transaction(|outer| {
        // Where writers take turns, the outer one has to have sent nothing yet.
        if db::REMOTE {
            insert(outer, "outer")?;
        }
        registry.transaction_with(with(Propagation::RequiresNew), |own| insert(own, "own"))?;
        assert_eq!(registry.current()?, *outer);
        insert(outer, "undone")?;
        Err::<(), _>(Error::NoTransaction)
    });
    assert_eq!(answer(&failed), "NoTransaction");
    assert_eq!(stored(&registry), ["own"]);
    // The inner one fails, and nothing outside is marked.
    for panics in [false, true] {
        let text = format!("outer, panics: {panics}");
        registry
            .transaction(|outer| {
                let failed = catch_unwind(AssertUnwindSafe(|| {
                    registry.transaction_with(with(Propagation::RequiresNew), |own| {
                        insert(own, "undone")?;
                        if panics {
                            std::panic::resume_unwind(Box::new(()));
                        }
                        Err::<(), _>(Error::NoTransaction)
                    })
                }));
                assert_eq!(failed.is_err(), panics);
                assert_eq!(registry.current()?, *outer);
                assert_eq!(outer.state(), SessionState::Idle);
                insert(outer, &text)
            })
            .unwrap();
    }
    assert_eq!(stored(&registry), ["outer, panics: false", "outer, panics: true", "own"]);
}

#[test]
fn the_outer_one_is_current_again_if_the_inner_one_can_not_even_begin() {
    let database = Database::new();
    let (registry, plan) = counted(&database);
    for fault in [Fault::Unknown, Fault::PanicBefore] {
        registry
            .transaction(|outer| {
                plan.on(Call::Begin, fault);
                let failed = registry.transaction_with(with(Propagation::RequiresNew), |own| insert(own, "own"));
                assert_eq!(answer(&failed), "Statement");
                assert_eq!(registry.current()?, *outer);
                insert(outer, &format!("{fault:?}"))
            })
            .unwrap();
    }
    assert_eq!(stored(&registry), ["PanicBefore", "Unknown"]);
}

#[test]
fn a_second_transaction_that_could_never_begin_is_refused_at_once() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(if db::REMOTE { 1 } else { 4 }));
    let started = Instant::now();
    registry
        .transaction(|outer| {
            outer.batch_execute("INSERT INTO notes (text, n) VALUES ('outer', 0)")?;
            let refused =
                registry.transaction_with(with(Propagation::RequiresNew), |own| own.batch_execute("SELECT 1"));
            let error = refused.unwrap_err();
            let hints = error.to_string();
            match error {
                Error::WouldStarve { .. } if db::REMOTE => assert!(hints.contains("reserve"), "{hints}"),
                Error::WouldDeadlock { held_at, wanted_at } if !db::REMOTE => {
                    assert!(held_at.file() == file!() && wanted_at.file() == file!());
                    assert!(hints.contains("nested") && hints.contains("on_commit"), "{hints}");
                }
                other => panic!("{other:?} on {}", db::NAME),
            }
            assert_eq!(registry.current()?, *outer);
            insert(outer, "goes on")
        })
        .unwrap();
    // A reader outside keeps no writer waiting, but in memory there is one connection.
    let reading = registry.read(|outer| {
        sends(outer);
        registry.transaction_with(with(Propagation::RequiresNew), |own| insert(own, "own"))
    });
    let expected = match (db::REMOTE, db::CONCURRENT) {
        (true, _) => "WouldStarve",
        (false, true) => "Ok",
        (false, false) => "WouldDeadlock",
    };
    assert_eq!(answer(&reading), expected, "{}", db::NAME);
    assert!(started.elapsed() < AT_ONCE);
    nothing_in_use(&registry);
    assert!(stored(&registry).starts_with(&["goes on".to_owned(), "outer".to_owned()]));
}

#[test]
fn a_reserve_lets_the_second_transaction_of_a_thread_through() {
    if !db::CONCURRENT {
        assert_eq!(db::NAME, "sqlite in memory", "one connection is in use at a time there");
        return;
    }
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(2).reserve(1));
    let threads: Vec<_> = (0..6)
        .map(|n| {
            let registry = registry.clone();
            std::thread::spawn(move || {
                registry.read(|outer| {
                    outer.batch_execute("SELECT 1")?;
                    let options = with(Propagation::RequiresNew);
                    registry.transaction_with(options, |own| insert(own, &n.to_string()))
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(stored(&registry), ["0", "1", "2", "3", "4", "5"]);
}

/// The reason and the line of a transaction that was rolled back instead of committed.
fn rolled_back<T: std::fmt::Debug>(result: Result<T>) -> (Reason, u32, String) {
    let error = result.unwrap_err();
    let text = error.to_string();
    let Error::RolledBack { cause } = error else { panic!("{error:?}") };
    assert_eq!(cause.place().file(), file!());
    assert!(text.contains(&format!("propagation.rs:{}:", cause.place().line())), "{text}");
    (cause.reason().clone(), cause.place().line(), text)
}

#[test]
fn a_joined_unit_that_failed_marks_the_frame_that_it_joined_and_no_other() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|outer| {
            insert(outer, "outer")?;
            let nested = registry.transaction_with(with(Propagation::Nested), |nested| {
                insert(nested, "nested")?;
                let first = line!() + 1;
                let failed = registry.transaction_with(with(Propagation::Required), |inner| {
                    insert(inner, "inner")?;
                    Err::<(), _>(Error::NoTransaction)
                });
                assert_eq!(answer(&failed), "NoTransaction");
                assert_eq!(nested.state(), SessionState::RollbackOnly);
                // A second failure is not the first cause.
                assert!(registry.transaction(|_| Err::<(), _>(Error::InHook)).is_err());
                insert(nested, "more")?;
                Ok::<_, Error>(first)
            });
            let (reason, line, text) = rolled_back(nested);
            assert!(matches!(reason, Reason::Joined), "{text}");
            assert!(line > 0 && text.contains("joined"), "{text}");
            assert_eq!(outer.state(), SessionState::Active);
            insert(outer, "goes on")
        })
        .unwrap();
    assert_eq!(stored(&registry), ["goes on", "outer"]);
}

#[test]
fn a_joined_unit_that_failed_at_the_root_leaves_nothing_of_it() {
    let database = Database::new();
    let registry = database.registry();
    let mut first = 0;
    for sends_before in [false, true] {
        let result = registry.transaction(|outer| {
            if sends_before {
                insert(outer, "outer")?;
            }
            first = line!() + 1;
            let failed = registry.transaction(|_| Err::<(), _>(Error::NoTransaction));
            assert!(failed.is_err());
            let _ = registry.transaction(|_| Err::<(), _>(Error::InHook));
            insert(outer, "more").map(drop)
        });
        let (reason, line, _) = rolled_back(result);
        assert!(matches!(reason, Reason::Joined));
        assert_eq!(line, first, "the first cause");
    }
    // What failed in it by a statement says so itself.
    let mut statement = 0;
    let result = registry.transaction(|outer| {
        insert(outer, "row")?;
        statement = line!() + 1;
        let _ = registry.transaction(|inner| inner.batch_execute("INSERT INTO notes (text, n) VALUES ('row', 0)"));
        Ok::<_, Error>(())
    });
    let (reason, line, _) = rolled_back(result);
    assert!(matches!(reason, Reason::Statement(_)));
    assert_eq!(line, statement);
    // A panic that somebody caught.
    let result = registry.transaction(|outer| {
        insert(outer, "row")?;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            registry.transaction(|_| -> Result<()> { std::panic::resume_unwind(Box::new(())) })
        }));
        assert!(caught.is_err());
        Ok::<_, Error>(())
    });
    assert!(matches!(rolled_back(result).0, Reason::Panicked));
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_failed_begin_forgets_no_mark() {
    let database = Database::new();
    let (registry, plan) = counted(&database);
    // Marked by a joined unit before anything was sent.
    let result = registry.transaction(|outer| {
        assert!(registry.transaction(|_| Err::<(), _>(Error::NoTransaction)).is_err());
        plan.on(Call::Begin, Fault::Unknown);
        assert!(insert(outer, "row").is_err());
        insert(outer, "row").map(drop)
    });
    assert!(matches!(rolled_back(result).0, Reason::Joined));
    // Inside the joined unit, which then asks for a rollback: the outer code is to know.
    let result = registry.transaction(|outer| {
        registry.transaction(|inner| {
            plan.on(Call::Begin, Fault::Unknown);
            assert!(insert(inner, "row").is_err());
            inner.set_rollback_only("the inner one's wish")
        })?;
        insert(outer, "row").map(drop)
    });
    let (reason, _, text) = rolled_back(result);
    assert!(matches!(reason, Reason::Requested(_)) && text.contains("the inner one's wish"), "{text}");
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_rollback_asked_for_by_a_joined_unit_is_news_to_the_outer_one() {
    let database = Database::new();
    let registry = database.registry();
    let mut line = 0;
    let result = registry.transaction(|outer| {
        insert(outer, "outer")?;
        registry.transaction(|inner| {
            line = line!() + 1;
            inner.set_rollback_only("not today")
        })?;
        insert(outer, "more").map(drop)
    });
    let (reason, at, text) = rolled_back(result);
    assert!(matches!(reason, Reason::Requested(ref why) if why == "not today"), "{text}");
    assert_eq!(at, line);
    // Its own wish is none.
    registry
        .transaction(|outer| {
            insert(outer, "outer")?;
            outer.set_rollback_only("not today")
        })
        .unwrap();
    // In a savepoint it is the savepoint's.
    registry
        .transaction(|outer| {
            insert(outer, "stays")?;
            let nested = registry.transaction_with(with(Propagation::Nested), |nested| {
                insert(nested, "goes")?;
                nested.set_rollback_only("not this")
            });
            assert!(matches!(rolled_back(nested).0, Reason::Requested(_)));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(stored(&registry), ["stays"]);
}

#[test]
fn what_joins_gets_what_it_asks_for_or_does_not_run() {
    let database = Database::new();
    let registry = database.registry();
    let new = TransactionOptions::new;
    // SQLite is serializable always; what is only SQLite's, or PostgreSQL's, is nobody else's to refuse.
    let isolation = (kind() != Kind::Sqlite).then_some("isolation");
    let lock = (kind() == Kind::Sqlite).then_some("lock of that begin mode");
    let deferrable = (kind() == Kind::Postgres).then_some("DEFERRABLE");
    let deferred = new().begin_mode(BeginMode::Deferred);
    let second = Duration::from_secs(1);
    // The outer one's options, the inner one's, and what is missing.
    let pairs = [
        (new(), read_only(), None),
        (new(), autocommit(), Some("autocommit")),
        (new(), new().isolation(IsolationLevel::Serializable), isolation),
        (new().isolation(IsolationLevel::RepeatableRead), new().isolation(IsolationLevel::Serializable), isolation),
        (new(), new().begin_mode(BeginMode::Immediate), None),
        (deferred, new().begin_mode(BeginMode::Immediate), lock),
        (read_only(), read_only().deferrable(), deferrable),
        (new(), new().lock_timeout(second), Some("lock time-out")),
        (new().lock_timeout(second), new().lock_timeout(second), None),
        (new().isolation(IsolationLevel::Serializable), new().isolation(IsolationLevel::ReadCommitted), None),
        (read_only(), new(), Some("writes")),
        (read_only(), read_only(), None),
    ];
    for (outer, inner, missing) in pairs {
        for propagation in [Propagation::Required, Propagation::Nested, Propagation::Mandatory] {
            registry
                .transaction_with(outer, |session| {
                    let mut ran = false;
                    let joined = registry.transaction_with(inner.propagation(propagation), |_| {
                        ran = true;
                        Ok::<_, Error>(())
                    });
                    assert_eq!(ran, missing.is_none(), "{outer:?} {inner:?}");
                    match (joined, missing) {
                        (Ok(()), None) => {}
                        (Err(Error::IncompatibleOptions { wanted, .. }), Some(missing)) => {
                            assert!(wanted.contains(missing), "{wanted}");
                        }
                        other => panic!("{other:?}"),
                    }
                    assert_ne!(session.state(), SessionState::RollbackOnly, "a refusal changes nothing");
                    Ok::<_, Error>(())
                })
                .unwrap();
        }
    }
}

#[test]
fn a_savepoint_that_ran_out_of_time_fails_alone() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|outer| {
            insert(outer, "outer")?;
            let short = TransactionOptions::new().timeout(Duration::from_millis(20)).propagation(Propagation::Nested);
            let late = registry.transaction_with(short, |nested| {
                let started = Instant::now();
                while started.elapsed() < Duration::from_millis(25) {
                    std::thread::yield_now();
                }
                insert(nested, "late")
            });
            assert_eq!(answer(&late), "DeadlineExceeded");
            insert(outer, "goes on")
        })
        .unwrap();
    assert_eq!(stored(&registry), ["goes on", "outer"]);
}
