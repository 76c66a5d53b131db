//! Extents: what commits, what rolls back, what joins what, and what is left behind.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use diesel_session::{Error, IsolationLevel, Outcome, Reason, Result, SessionState, TransactionOptions, read_only};

use super::db::{self, Database, Registry, Session, insert, stored, texts};

type Log = Rc<RefCell<Vec<&'static str>>>;

fn log_into(log: &Log, entry: &'static str) -> impl FnOnce() + 'static {
    let log = Rc::clone(log);
    move || log.borrow_mut().push(entry)
}

/// Nothing of this thread or of the pool is left.
#[track_caller]
fn assert_clean(registry: &Registry) {
    assert!(!registry.has());
    let report = registry.inspect();
    assert!(report.sessions.is_empty(), "{report}");
    assert!(report.connections.is_empty() && report.write_gate.is_empty(), "{report}");
    assert_eq!(report.waiting, 0);
}

fn line_of(error: &Error) -> u32 {
    error.cause().unwrap_or_else(|| panic!("an error with a cause, not {error}")).place().line()
}

#[test]
fn transaction_commits_on_ok_and_removes_its_session() {
    let database = Database::new();
    let registry = database.registry();
    let kept = registry
        .transaction(|session| {
            insert(session, "a")?;
            assert!(registry.current()? == *session);
            Ok::<_, Error>(session.clone())
        })
        .unwrap();
    assert!(kept.is_closed());
    assert_clean(&registry);
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn every_extent_rolls_back_on_err_and_on_panic_and_leaves_nothing_behind() {
    let database = Database::new();
    let registry = database.registry();
    type Body<'a> = &'a dyn Fn(&Session) -> Result<()>;
    type Extent<'a> = &'a dyn Fn(Body<'_>) -> Result<()>;
    let extents: [(&str, Extent<'_>); 5] = [
        ("scope", &|f| registry.scope(|session| f(session))?),
        ("transaction", &|f| registry.transaction(f)),
        ("transaction_with", &|f| registry.transaction_with(TransactionOptions::new(), f)),
        ("job", &|f| registry.job(f)),
        ("request", &|f| registry.request(TransactionOptions::new(), f)),
    ];
    for (name, extent) in extents {
        let failed = extent(&|session| {
            insert(session, "a")?;
            Err(Error::Configuration("the closure's own error".into()))
        });
        assert!(matches!(failed, Err(Error::Configuration(_))), "{name}");
        assert_clean(&registry);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            extent(&|session| {
                insert(session, "b")?;
                let _savepoint = session.begin_nested()?;
                insert(session, "c")?;
                panic!("in {name}");
            })
        }));
        assert_eq!(*panicked.unwrap_err().downcast::<String>().unwrap(), format!("in {name}"));
        assert_clean(&registry);
        let lent = catch_unwind(AssertUnwindSafe(|| {
            extent(&|session| session.with_connection(|_| panic!("while the connection is lent, in {name}")))
        }));
        assert!(lent.is_err());
        assert_clean(&registry);
        assert!(stored(&registry).is_empty(), "{name}");
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        registry.read(|session| {
            texts(session);
            if texts(session).is_empty() {
                panic!("in read");
            }
            Ok::<_, Error>(())
        })
    }));
    assert!(panicked.is_err());
    assert_clean(&registry);
}

#[test]
fn transaction_on_a_bare_open_session_is_refused_and_changes_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "a").unwrap();
    let refused = registry.transaction(|_| -> Result<()> { panic!("must not run") });
    assert!(matches!(refused, Err(Error::AlreadyBegun { .. })), "{refused:?}");
    assert_eq!(session.state(), SessionState::Active);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a"]);
    // A hook is work too: the logical transaction has begun, and the place says where.
    let line = line!() + 1;
    session.on_commit(|| ()).unwrap();
    match registry.transaction(|_| Ok::<_, Error>(())) {
        Err(Error::AlreadyBegun { at }) => assert_eq!(at.line(), line),
        other => panic!("{other:?}"),
    }
    session.rollback().unwrap();
    // `scope` does not commit, so it is nothing to join either.
    registry
        .scope(|session| {
            session.begin().unwrap();
            assert!(matches!(registry.transaction(|_| Ok::<_, Error>(())), Err(Error::AlreadyBegun { .. })));
        })
        .unwrap();
    registry.remove();
    assert_clean(&registry);
}

#[test]
fn transaction_takes_an_idle_bare_session_over_and_removes_it() {
    let database = Database::new();
    let registry = database.registry();
    let bare = registry.current().unwrap();
    registry
        .transaction(|session| {
            assert!(*session == bare);
            insert(session, "a").map(drop)
        })
        .unwrap();
    assert!(bare.is_closed());
    assert_clean(&registry);
    let bare = registry.current().unwrap();
    registry
        .transaction_with(read_only(), |session| {
            assert!(*session == bare);
            assert!(matches!(insert(session, "b"), Err(Error::ReadOnly)));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_clean(&registry);
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_taken_over_session_that_is_removed_gives_no_other_session_in_its_extent() {
    let database = Database::new();
    let registry = database.registry();
    registry.current().unwrap();
    let result = registry.transaction(|session| {
        insert(session, "a")?;
        registry.remove();
        assert!(matches!(registry.current(), Err(Error::SessionClosed { .. })));
        Ok::<_, Error>(())
    });
    assert!(matches!(result, Err(Error::RolledBack { .. })));
    assert_clean(&registry);
    assert!(stored(&registry).is_empty());
}

#[test]
fn an_inner_transaction_joins_every_extent_that_will_commit_and_neither_commits_nor_removes() {
    let database = Database::new();
    let registry = database.registry();
    let log = Log::default();
    let body = |outer: &Session| -> Result<()> {
        insert(outer, "outer")?;
        registry.transaction(|inner| {
            assert!(*inner == *outer);
            insert(inner, "inner")?;
            inner.on_commit(log_into(&log, "committed"))
        })?;
        assert!(log.borrow().is_empty(), "the inner one committed");
        assert_eq!(outer.state(), SessionState::Active);
        assert_eq!(texts(outer), ["inner", "outer"]);
        registry.transaction(|inner| inner.batch_execute("DELETE FROM notes WHERE text = 'outer'"))
    };
    registry.transaction(body).unwrap();
    assert_eq!(*log.borrow(), ["committed"]);
    assert_eq!(stored(&registry), ["inner"]);
    for run in [1, 2] {
        registry.transaction(|session| session.batch_execute("DELETE FROM notes")).unwrap();
        log.borrow_mut().clear();
        if run == 1 {
            registry.job(body).unwrap();
        } else {
            registry.request(TransactionOptions::new(), body).unwrap();
        }
        assert_eq!(*log.borrow(), ["committed"]);
        assert_eq!(stored(&registry), ["inner"]);
        assert_clean(&registry);
    }
}

#[test]
fn a_swallowed_inner_failure_makes_the_outer_commit_an_error_with_the_first_place() {
    let database = Database::new();
    let registry = database.registry();
    let mut first_line = 0;
    let result = registry.transaction(|session| {
        insert(session, "a")?;
        first_line = line!() + 1;
        let _ = registry.transaction(|_| Err::<(), _>(Error::Configuration("first".into())));
        assert_eq!(session.state(), SessionState::RollbackOnly);
        insert(session, "b")?;
        let _ = registry.transaction(|_| Err::<(), _>(Error::Configuration("second".into())));
        Ok::<_, Error>("a value that must not get out")
    });
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::RolledBack { cause } if matches!(cause.reason(), Reason::Joined)), "{error}");
    assert_eq!(line_of(&error), first_line);
    assert_clean(&registry);
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_swallowed_database_error_makes_the_outer_commit_an_error_with_its_cause() {
    let database = Database::new();
    let registry = database.registry();
    let error = registry
        .transaction(|session| {
            insert(session, "a")?;
            let inner = registry.transaction(|session| insert(session, "a"));
            assert!(inner.unwrap_err().is_unique_violation());
            assert!(matches!(insert(session, "b"), Err(Error::PendingRollback { .. })));
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(error.is_unique_violation());
    assert!(stored(&registry).is_empty());
}

#[test]
fn an_inner_failure_inside_a_savepoint_dooms_the_savepoint_only() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|session| {
            insert(session, "outer")?;
            let nested = session.nested(|session| {
                insert(session, "nested")?;
                let _ = registry.transaction(|inner| {
                    insert(inner, "inner")?;
                    Err::<(), _>(Error::Configuration("swallowed".into()))
                });
                Ok::<_, Error>(())
            });
            assert!(matches!(nested, Err(Error::RolledBack { .. })), "{nested:?}");
            assert_eq!(session.state(), SessionState::Active);
            insert(session, "after").map(drop)
        })
        .unwrap();
    assert_eq!(stored(&registry), ["after", "outer"]);
}

#[test]
fn an_inner_panic_that_is_caught_dooms_the_outer_transaction() {
    let database = Database::new();
    let registry = database.registry();
    let error = registry
        .transaction(|session| {
            insert(session, "a")?;
            let caught = catch_unwind(AssertUnwindSafe(|| {
                registry.transaction(|_| -> Result<()> { panic!("inside the joined one") })
            }));
            assert!(caught.is_err());
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(matches!(&error, Error::RolledBack { cause } if matches!(cause.reason(), Reason::Panicked)), "{error}");
    assert_clean(&registry);
    assert!(stored(&registry).is_empty());
}

#[test]
fn joining_never_weakens_what_was_asked_for() {
    let database = Database::new();
    let registry = database.registry();
    let serializable = TransactionOptions::new().isolation(IsolationLevel::Serializable);
    registry
        .transaction(|session| {
            insert(session, "a")?;
            let joined = registry.transaction_with(serializable, |_| Ok::<_, Error>(()));
            // SQLite gives that always.
            let is_given = db::NAME.starts_with("sqlite");
            assert_eq!(matches!(joined, Err(Error::IncompatibleOptions { .. })), !is_given, "{joined:?}");
            assert_eq!(joined.is_ok(), is_given);
            assert_eq!(session.state(), SessionState::Active, "a refusal dooms nothing");
            registry.transaction_with(read_only(), |inner| {
                assert_eq!(texts(inner), ["a"]);
                Ok::<_, Error>(())
            })
        })
        .unwrap();
    registry
        .transaction_with(serializable, |session| {
            insert(session, "b")?;
            registry.transaction_with(serializable, |_| Ok::<_, Error>(()))?;
            let weaker = TransactionOptions::new().isolation(IsolationLevel::ReadCommitted);
            registry.transaction_with(weaker, |inner| insert(inner, "c").map(drop))
        })
        .unwrap();
    registry
        .read(|session| {
            texts(session);
            let refused = registry.transaction_with(TransactionOptions::new(), |_| Ok::<_, Error>(()));
            assert!(matches!(refused, Err(Error::IncompatibleOptions { .. })), "{refused:?}");
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(stored(&registry), ["a", "b", "c"]);
}

#[test]
fn a_closure_that_owns_the_transaction_ends_it_and_nobody_else() {
    let database = Database::new();
    let registry = database.registry();
    let body = |session: &Session| -> Result<()> {
        insert(session, db::NAME)?;
        assert!(matches!(session.commit(), Err(Error::NotOwner { at }) if at.file() == file!()));
        assert!(matches!(session.rollback(), Err(Error::NotOwner { .. })));
        assert!(matches!(session.invalidate(), Err(Error::NotOwner { .. })));
        assert_eq!(session.state(), SessionState::Active);
        Ok(())
    };
    registry.transaction(body).unwrap();
    assert_eq!(stored(&registry), [db::NAME]);
    registry.transaction(|session| session.batch_execute("DELETE FROM notes")).unwrap();
    registry.job(body).unwrap();
    assert_eq!(stored(&registry), [db::NAME]);
    registry
        .read(|session| {
            texts(session);
            assert!(matches!(session.commit(), Err(Error::NotOwner { .. })));
            Ok::<_, Error>(())
        })
        .unwrap();
}

#[test]
fn remove_inside_the_closure_turns_its_ok_into_rolled_back() {
    let database = Database::new();
    let registry = database.registry();
    let line = Rc::new(RefCell::new(0));
    let body = |session: &Session| -> Result<()> {
        insert(session, "a")?;
        *line.borrow_mut() = line!() + 1;
        registry.remove();
        assert!(matches!(insert(session, "b"), Err(Error::SessionClosed { .. })));
        assert!(matches!(registry.current(), Err(Error::SessionClosed { .. })));
        Ok(())
    };
    for run in 0..3 {
        let error = match run {
            0 => registry.transaction(body),
            1 => registry.job(body),
            _ => registry.request(TransactionOptions::new(), body),
        }
        .unwrap_err();
        assert!(matches!(&error, Error::RolledBack { cause } if matches!(cause.reason(), Reason::Removed)), "{error}");
        assert_eq!(line_of(&error), *line.borrow());
        assert_clean(&registry);
        assert!(stored(&registry).is_empty());
    }
    let failed = registry.transaction(|_| {
        registry.remove();
        Err::<(), _>(Error::Configuration("the closure's own error".into()))
    });
    assert!(matches!(failed, Err(Error::Configuration(_))));
}

#[test]
fn set_rollback_only_rolls_back_and_still_returns_the_value() {
    let database = Database::new();
    let registry = database.registry();
    let log = Log::default();
    let value = registry
        .transaction(|session| {
            insert(session, "a")?;
            session.on_commit(log_into(&log, "committed"))?;
            session.on_rollback(log_into(&log, "rolled back"))?;
            session.set_rollback_only("only a try")?;
            insert(session, "b")?;
            Ok::<_, Error>(texts(session).len())
        })
        .unwrap();
    assert_eq!(value, 2);
    assert_eq!(*log.borrow(), ["rolled back"]);
    assert_clean(&registry);
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_rollback_that_a_joined_transaction_asked_for_is_news_to_the_outer_one() {
    let database = Database::new();
    let registry = database.registry();
    let error = registry
        .transaction(|session| {
            insert(session, "a")?;
            registry.transaction(|inner| inner.set_rollback_only("the inner one says so"))
        })
        .unwrap_err();
    assert!(matches!(&error, Error::RolledBack { cause } if matches!(cause.reason(), Reason::Requested(_))), "{error}");
    // Also when the outer code asks for the rollback of a savepoint of its own.
    let error = registry
        .transaction(|session| {
            insert(session, "a")?;
            registry.transaction(|inner| inner.set_rollback_only("the inner one says so"))?;
            let undone = session.nested(|session| session.set_rollback_only("only the savepoint"));
            assert!(matches!(undone, Err(Error::RolledBack { .. })));
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }));
    assert!(stored(&registry).is_empty());
}

#[test]
fn the_code_in_a_request_may_end_transactions_itself_and_the_rest_is_the_layers() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .request(TransactionOptions::new(), |session| {
            insert(session, "first")?;
            session.commit()?;
            insert(session, "undone")?;
            session.rollback()?;
            insert(session, "last").map(drop)
        })
        .unwrap();
    assert_eq!(stored(&registry), ["first", "last"]);
    let failed = registry.request(TransactionOptions::new(), |session| {
        insert(session, "kept")?;
        session.commit()?;
        insert(session, "dropped")?;
        Err::<(), _>(Error::Configuration("late".into()))
    });
    assert!(failed.is_err());
    assert_eq!(stored(&registry), ["first", "kept", "last"]);
    let refused = registry.request(read_only(), |session| insert(session, "x"));
    assert!(matches!(refused, Err(Error::ReadOnly)));
    // What fails only at the layer's commit is the layer's answer.
    let error = registry
        .request(TransactionOptions::new(), |session| {
            let _ = insert(session, "kept");
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(error.is_unique_violation() && matches!(error, Error::RolledBack { .. }));
    assert_clean(&registry);
}

#[test]
fn read_only_reads_and_inside_a_transaction_reads_there() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|session| {
            insert(session, "a")?;
            registry.read(|inner| {
                assert!(*inner == *session);
                assert_eq!(texts(inner), ["a"]);
                Ok::<_, Error>(())
            })
        })
        .unwrap();
    let bare = registry.current().unwrap();
    registry
        .read(|session| {
            assert!(*session != bare);
            assert_eq!(texts(session), ["a"]);
            assert!(matches!(insert(session, "b"), Err(Error::ReadOnly)));
            assert!(matches!(session.commit(), Err(Error::NotOwner { .. })));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert!(!bare.is_closed());
    registry.remove();
    assert_clean(&registry);
}

#[test]
fn a_job_rolls_back_what_the_job_before_left_and_counts_it() {
    let database = Database::new();
    let registry = database.registry();
    let leaked = registry.current().unwrap();
    insert(&leaked, "leaked").unwrap();
    registry
        .job(|session| {
            assert!(leaked.is_closed());
            insert(session, "job").map(drop)
        })
        .unwrap();
    assert_eq!(registry.inspect().counters.leaks, 1);
    assert_clean(&registry);
    let leaked = registry.current().unwrap();
    insert(&leaked, "leaked").unwrap();
    registry.request(TransactionOptions::new(), |session| insert(session, "request")).unwrap();
    assert_eq!(registry.inspect().counters.leaks, 2);
    // One that had begun nothing is no leak.
    let idle = registry.current().unwrap();
    registry.job(|_| Ok::<_, Error>(())).unwrap();
    assert!(idle.is_closed());
    assert_eq!(registry.inspect().counters.leaks, 2);
    assert_clean(&registry);
    assert_eq!(stored(&registry), ["job", "request"]);
}

#[test]
fn scope_nests_around_a_session_left_open_and_transaction_refuses() {
    let database = Database::new();
    let registry = database.registry();
    let open = registry.current().unwrap();
    insert(&open, "a").unwrap();
    registry
        .scope(|inner| {
            assert!(*inner != open);
            assert_eq!(open.state(), SessionState::Active);
        })
        .unwrap();
    assert!(registry.current().unwrap() == open);
    assert!(matches!(registry.transaction(|_| Ok::<_, Error>(())), Err(Error::AlreadyBegun { .. })));
    assert_eq!(registry.inspect().counters.leaks, 0);
    open.commit().unwrap();
    registry.remove();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_job_inside_an_extent_or_a_held_session_ends_nothing_around_it() {
    let database = Database::new();
    let registry = database.registry();
    let job = || {
        registry.job(|session| {
            assert!(registry.current()? == *session);
            Ok::<_, Error>(())
        })
    };
    registry
        .transaction(|session| {
            insert(session, "plain")?;
            job()?;
            assert!(registry.current()? == *session);
            Ok::<_, Error>(())
        })
        .unwrap();
    registry.current().unwrap();
    registry
        .transaction(|session| {
            insert(session, "taken over")?;
            job()?;
            assert!(registry.current()? == *session);
            Ok::<_, Error>(())
        })
        .unwrap();
    let bare = registry.current().unwrap();
    bare.with_connection(|_| {
        job().unwrap();
        Ok(())
    })
    .unwrap();
    assert!(!bare.is_closed());
    bare.commit().unwrap();
    assert_eq!(registry.inspect().counters.leaks, 0);
    registry.remove();
    assert_clean(&registry);
    assert_eq!(stored(&registry), ["plain", "taken over"]);
}

#[test]
fn a_hook_works_in_a_transaction_of_its_own_with_a_pool_of_one() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let hook = |name: &'static str| {
        let registry = registry.clone();
        move || -> Result<()> {
            assert!(matches!(registry.current(), Err(Error::InHook)));
            registry.transaction(|session| insert(session, name))?;
            registry.job(|session| {
                assert!(registry.current()? == *session);
                session.batch_execute("UPDATE notes SET n = n + 1")
            })?;
            assert!(matches!(registry.current(), Err(Error::InHook)));
            Ok(())
        }
    };
    registry
        .transaction(|session| {
            insert(session, "work")?;
            session.on_commit(hook("in a hook of a transaction"))
        })
        .unwrap();
    let bare = registry.current().unwrap();
    insert(&bare, "bare work").unwrap();
    bare.on_commit(hook("in a hook of a bare session")).unwrap();
    let report = bare.commit().unwrap();
    assert!(report.hook_errors().is_empty(), "{:?}", report.hook_errors());
    assert!(!bare.is_closed(), "a job in a hook ended the session that runs the hook");
    assert!(registry.current().unwrap() == bare);
    insert(&bare, "rolled back").unwrap();
    bare.on_rollback(hook("in a rollback hook")).unwrap();
    bare.rollback().unwrap();
    registry.remove();
    assert_eq!(registry.inspect().counters.hook_errors, 0);
    assert_clean(&registry);
    let expected =
        ["bare work", "in a hook of a bare session", "in a hook of a transaction", "in a rollback hook", "work"];
    assert_eq!(stored(&registry), expected);
}

#[test]
fn hooks_of_an_extent_run_at_its_end_whatever_way_it_ends() {
    let database = Database::new();
    let registry = database.registry();
    let log = Log::default();
    let register = |session: &Session| -> Result<()> {
        insert(session, "a")?;
        session.on_commit(log_into(&log, "commit"))?;
        session.on_rollback(log_into(&log, "rollback"))?;
        let log = Rc::clone(&log);
        session.on_completion(move |outcome| {
            log.borrow_mut().push(if outcome == Outcome::Committed {
                "completed: commit"
            } else {
                "completed: rollback"
            });
        })
    };
    let undo = ["rollback", "completed: rollback"];
    let _ = registry.transaction(|session| {
        register(session)?;
        Err::<(), _>(Error::Configuration("no".into()))
    });
    assert_eq!(log.take(), undo);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        registry.job(|session| -> Result<()> {
            register(session)?;
            panic!("in a job with hooks");
        })
    }));
    assert_eq!(log.take(), undo);
    let _ = registry.transaction(|session| {
        register(session)?;
        registry.remove();
        Ok::<_, Error>(())
    });
    assert_eq!(log.take(), undo);
    registry.scope(|session| register(session).unwrap()).unwrap();
    assert_eq!(log.take(), undo);
    registry.transaction(register).unwrap();
    assert_eq!(log.take(), ["commit", "completed: commit"]);
    assert_clean(&registry);
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_hook_that_panics_or_fails_never_makes_a_failure_of_a_stored_commit() {
    let database = Database::new();
    let registry = database.registry();
    let log = Log::default();
    registry
        .transaction(|session| {
            insert(session, "a")?;
            session.on_commit(|| -> () { panic!("a hook's panic") })?;
            session.on_commit(|| Err::<(), _>("a hook's error"))?;
            session.on_commit(log_into(&log, "the next one runs"))
        })
        .unwrap();
    assert_eq!(*log.borrow(), ["the next one runs"]);
    assert_eq!(registry.inspect().counters.hook_errors, 2);
    assert_clean(&registry);
    assert_eq!(stored(&registry), ["a"]);
}
