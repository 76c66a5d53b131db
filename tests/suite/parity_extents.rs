//! Blocks that end a transaction, as SQLAlchemy's context managers have it.

use diesel_session::{Error, Result, SessionState};

use super::db::{Database, Session, insert, stored, texts};

/// Code of the user's that fails for a reason of its own.
#[derive(Debug)]
enum Failure {
    Session(Error),
    Forced,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

/// A row without a text, which no database takes.
fn insert_null(session: &Session) -> Result<usize> {
    session.execute(diesel::sql_query("INSERT INTO notes (text, n) VALUES (NULL, 0)"))
}

// parity: ContextManagerPlusFutureTest::test_contextmanager_nested_rollback
#[test]
fn a_nested_block_that_fails_is_undone_and_the_next_one_works() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let error = session.nested(insert_null).unwrap_err();
    assert!(matches!(error, Error::Statement(_)), "{error}");
    assert!(!session.in_nested_transaction());
    session.nested(|session| insert(session, "u1")).unwrap();
    assert_eq!(texts(&session), ["u1"]);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["u1"]);
}

// parity: ContextManagerPlusFutureTest::test_contextmanager_commit
#[test]
fn a_block_commits_at_its_end() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    registry.transaction(|session| insert(session, "u1")).unwrap();
    session.rollback().unwrap();
    assert_eq!(stored(&registry), ["u1"]);
}

// parity: ContextManagerPlusFutureTest::test_contextmanager_rollback
#[test]
fn a_block_that_fails_is_rolled_back_and_the_next_one_works() {
    let database = Database::new();
    let registry = database.registry();
    let error = registry.transaction(insert_null).unwrap_err();
    assert!(matches!(error, Error::Statement(_)), "{error}");
    assert!(stored(&registry).is_empty());
    registry.transaction(|session| insert(session, "u1")).unwrap();
    assert_eq!(stored(&registry), ["u1"]);
}

// parity: ContextManagerPlusFutureTest::test_explicit_begin
#[test]
fn an_explicit_begin_lasts_until_the_end_and_no_longer() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .scope(|session| {
            session.begin().unwrap();
            assert!(session.in_transaction());
            session.with_connection(|_| Ok(())).unwrap();
            session.commit().unwrap();
            assert!(!session.in_transaction());
        })
        .unwrap();
    registry
        .transaction(|session| -> Result<()> {
            assert!(session.in_transaction());
            session.with_connection(|_| Ok(()))
        })
        .unwrap();
    assert!(!registry.has());
}

// parity: ContextManagerPlusFutureTest::test_no_double_begin_explicit
#[test]
fn a_second_begin_is_refused_and_the_first_goes_on() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .scope(|session| {
            session.begin().unwrap();
            assert!(matches!(session.begin(), Err(Error::AlreadyBegun { .. })));
            insert(session, "a").unwrap();
            session.commit().unwrap();
        })
        .unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

// parity: ContextManagerPlusFutureTest::test_rollback_is_global
#[test]
fn a_rollback_inside_a_savepoint_ends_the_root() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    session.begin().unwrap();
    insert(&session, "n1").unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "n2").unwrap();
    insert(&session, "n3").unwrap();
    assert_eq!(texts(&session).len(), 3);
    session.rollback().unwrap();
    assert!(!session.in_transaction() && !session.in_nested_transaction());
    assert!(texts(&session).is_empty());
    drop(savepoint);
    assert!(session.in_transaction(), "the dead guard ended nothing");
    session.commit().unwrap();
    assert!(!session.in_transaction());
}

// parity: ContextManagerPlusFutureTest::test_session_as_ctx_manager_one
#[test]
fn leaving_a_session_without_commit_rolls_back() {
    let database = Database::new();
    let registry = database.registry();
    let check = |session: &Session| {
        assert!(!session.in_transaction());
        insert(session, "user1").unwrap();
        assert_eq!(texts(session), ["user1"]);
        assert!(session.in_transaction());
    };
    let leaked = registry
        .scope(|session| {
            check(session);
            session.clone()
        })
        .unwrap();
    assert!(!leaked.in_transaction() && leaked.is_closed());
    assert!(stored(&registry).is_empty());
    {
        let session = Session::new(registry.engine());
        check(&session);
    }
    assert!(stored(&registry).is_empty());
    check(&registry.current().unwrap());
    registry.remove();
    assert!(stored(&registry).is_empty());
}

/// What is done in the block, whether it fails there or after it, and what is stored then. Run with a session that the
/// thread had before the block, and with one that the block makes.
fn block(existing: bool, fails_inside: bool, fails_after: bool) -> Vec<String> {
    let database = Database::new();
    let registry = database.registry();
    let before = existing.then(|| registry.current().unwrap());
    let outcome = (|| -> Result<(), Failure> {
        registry.transaction(|session| {
            assert!(before.as_ref().is_none_or(|before| before == session));
            insert(session, "user1")?;
            assert_eq!(texts(session), ["user1"]);
            if fails_inside { Err(Failure::Forced) } else { Ok(()) }
        })?;
        if fails_after { Err(Failure::Forced) } else { Ok(()) }
    })();
    match outcome {
        Ok(()) => assert!(!fails_inside && !fails_after),
        Err(Failure::Forced) => assert!(fails_inside || fails_after),
        Err(Failure::Session(error)) => panic!("{error}"),
    }
    assert!(!registry.has());
    stored(&registry)
}

// parity: ContextManagerPlusFutureTest::test_begin_context_manager
// parity: ContextManagerPlusFutureTest::test_sessionmaker_begin_context_manager
#[test]
fn a_block_that_ends_well_is_committed() {
    for existing in [true, false] {
        assert_eq!(block(existing, false, false), ["user1"], "existing session: {existing}");
    }
}

// parity: ContextManagerPlusFutureTest::test_begin_context_manager_rollback_trans
// parity: ContextManagerPlusFutureTest::test_sessionmaker_begin_context_manager_rollback_trans
#[test]
fn a_failure_inside_the_block_rolls_it_back() {
    for existing in [true, false] {
        assert!(block(existing, true, false).is_empty(), "existing session: {existing}");
    }
}

// parity: ContextManagerPlusFutureTest::test_begin_context_manager_rollback_outer
// parity: ContextManagerPlusFutureTest::test_sessionmaker_begin_context_manager_rollback_outer
#[test]
fn a_failure_after_the_block_comes_too_late_to_undo_it() {
    for existing in [true, false] {
        assert_eq!(block(existing, false, true), ["user1"], "existing session: {existing}");
    }
}

// parity: ContextManagerPlusFutureTest::test_interrupt_ctxmanager
#[test]
fn a_block_can_not_be_ended_from_inside_and_goes_on() {
    for rollback in [true, false] {
        for second in ["none", "execute", "begin"] {
            for nested in [true, false] {
                let case = format!("rollback {rollback}, then {second}, nested {nested}");
                let database = Database::new();
                let registry = database.registry();
                registry
                    .transaction(|session| -> Result<()> {
                        let savepoint = if nested { Some(session.begin_nested()?) } else { None };
                        insert(session, "10")?;
                        let ended = match (savepoint, rollback) {
                            (Some(savepoint), true) => savepoint.rollback(),
                            (Some(savepoint), false) => savepoint.commit(),
                            (None, true) => session.rollback(),
                            (None, false) => session.commit(),
                        };
                        match ended {
                            Ok(_) => assert!(nested, "{case}"),
                            Err(error) => {
                                assert!(!nested && matches!(error, Error::NotOwner { .. }), "{case}: {error}");
                            }
                        }
                        assert_eq!(session.state(), SessionState::Active);
                        match second {
                            "execute" => drop(insert(session, "12")?),
                            "begin" if nested => drop(session.begin_nested()?.commit()?),
                            "begin" => assert!(matches!(session.begin(), Err(Error::AlreadyBegun { .. })), "{case}"),
                            _ => {}
                        }
                        insert(session, "14").map(drop)
                    })
                    .unwrap();
                let first = !(nested && rollback);
                let expected: Vec<&str> = [("10", first), ("12", second == "execute"), ("14", true)]
                    .into_iter()
                    .filter_map(|(text, there)| there.then_some(text))
                    .collect();
                assert_eq!(stored(&registry), expected, "{case}");
            }
        }
    }
}

// parity: ContextManagerPlusFutureTest::test_rollback_exception_in_ctxmanager_error_message
#[test]
fn after_a_failure_in_a_block_every_use_and_the_end_name_it() {
    for swallowed in [false, true] {
        let database = Database::new();
        let registry = database.registry();
        let mut first = String::new();
        let outcome = registry.transaction(|session| {
            insert(session, "lost")?;
            let error = insert_null(session).unwrap_err();
            first = error.failure().unwrap().to_string();
            let next = session.with_connection(|_| Ok(())).unwrap_err();
            assert!(matches!(next, Error::PendingRollback { .. }));
            assert!(next.to_string().contains(&first), "{next}");
            if swallowed { Ok(()) } else { Err(error) }
        });
        let error = outcome.unwrap_err();
        assert_eq!(matches!(error, Error::RolledBack { .. }), swallowed, "{error}");
        assert!(error.to_string().contains(&first), "{error}");
        assert!(stored(&registry).is_empty());
    }
}
