//! Blocks that join each other, as SQLAlchemy's recipe for them has it.

use diesel_session::{Error, Result, SessionState};

use super::db::{Database, Registry, insert, stored, texts};

/// A failure that has nothing to do with the database.
#[derive(Debug)]
enum Failure {
    Session,
    Forced,
}

impl From<Error> for Failure {
    fn from(_: Error) -> Self {
        Self::Session
    }
}

// parity: SubtransactionRecipeTest::test_recipe_heavy_nesting
#[test]
fn blocks_join_each_other_with_savepoints_in_between() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|session| -> Result<()> {
            insert(session, "user1")?;
            registry.transaction(|session| -> Result<()> {
                let savepoint = session.begin_nested()?;
                insert(session, "user2")?;
                assert_eq!(texts(session).len(), 2);
                savepoint.rollback().map(drop)
            })?;
            registry.transaction(|session| -> Result<()> {
                assert_eq!(texts(session).len(), 1);
                insert(session, "user3").map(drop)
            })?;
            assert_eq!(texts(session).len(), 2);
            Ok(())
        })
        .unwrap();
    assert_eq!(stored(&registry), ["user1", "user3"]);
}

// parity: SubtransactionRecipeTest::test_recipe_commit_one
#[test]
fn the_outermost_block_commits() {
    let database = Database::new();
    let registry = database.registry();
    registry.transaction(|_| registry.transaction(|session| insert(session, "u1"))).unwrap();
    assert_eq!(stored(&registry), ["u1"]);
}

// parity: SubtransactionRecipeTest::test_recipe_subtransaction_on_noautocommit
#[test]
fn a_block_inside_a_bare_transaction_is_refused_because_nobody_would_commit_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    session.begin().unwrap();
    let refused = registry.transaction(|session| insert(session, "u1"));
    assert!(matches!(refused, Err(Error::AlreadyBegun { .. })));
    assert!(session.in_transaction() && !session.is_closed());
    insert(&session, "u2").unwrap();
    session.rollback().unwrap();
    assert!(texts(&session).is_empty());
    registry.remove();
}

// parity: SubtransactionRecipeTest::test_recipe_mixed_transaction_control
#[test]
fn begins_savepoints_and_blocks_mix_where_somebody_commits() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    session.begin().unwrap();
    let savepoint = session.begin_nested().unwrap();
    let refused = registry.transaction(|session| insert(session, "u1"));
    assert!(matches!(refused, Err(Error::AlreadyBegun { .. })));
    assert!(matches!(session.commit(), Err(Error::SavepointOpen { .. })));
    insert(&session, "u1").unwrap();
    savepoint.commit().unwrap();
    session.commit().unwrap();
    session.commit().unwrap();
    assert_eq!(texts(&session), ["u1"]);
    session.rollback().unwrap();
    registry.remove();

    let joined = |registry: &Registry| registry.transaction(|session| insert(session, "u2"));
    registry
        .transaction(|session| -> Result<()> {
            let savepoint = session.begin_nested()?;
            joined(&registry)?;
            savepoint.commit()?;
            assert!(session.in_transaction() && !session.in_nested_transaction());
            Ok(())
        })
        .unwrap();
    assert_eq!(stored(&registry), ["u1", "u2"]);
}

// parity: SubtransactionRecipeTest::test_recipe_error_on_using_inactive_session_commands
// parity: SubtransactionRecipeTest::test_recipe_multi_nesting
#[test]
fn an_inner_block_that_fails_dooms_the_outer_even_where_the_error_is_swallowed() {
    let database = Database::new();
    let registry = database.registry();
    for uses_it in [true, false] {
        let outcome = registry.transaction(|session| -> Result<()> {
            assert!(session.in_transaction());
            let inner = registry.transaction(|session| {
                assert!(session.in_transaction());
                if uses_it {
                    insert(session, "u1")?;
                }
                Err::<(), _>(Failure::Forced)
            });
            assert!(matches!(inner, Err(Failure::Forced)));
            assert!(session.in_transaction());
            assert_eq!(session.state(), SessionState::RollbackOnly);
            insert(session, "u2").map(drop)
        });
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        assert!(error.to_string().contains("joined"), "{error}");
        assert!(!registry.has());
    }
    assert!(stored(&registry).is_empty());

    let outcome = registry.transaction(|session| -> Result<()> {
        insert(session, "kept")?;
        let tried = session.nested(|_| {
            registry.transaction(|session| {
                insert(session, "undone")?;
                Err::<(), _>(Failure::Forced)
            })
        });
        assert!(matches!(tried, Err(Failure::Forced)));
        assert_eq!(session.state(), SessionState::Active);
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(stored(&registry), ["kept"]);
}

// parity: SubtransactionRecipeTest::test_recipe_deactive_status_check
#[test]
fn a_rollback_in_a_joined_block_is_refused_and_asked_for_in_another_way() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|session| -> Result<()> {
            registry.transaction(|session| -> Result<()> {
                insert(session, "a")?;
                assert!(matches!(session.rollback(), Err(Error::NotOwner { .. })));
                assert!(session.in_transaction());
                Ok(())
            })?;
            assert!(session.in_transaction());
            Ok(())
        })
        .unwrap();
    assert_eq!(stored(&registry), ["a"]);

    let outcome = registry.transaction(|session| -> Result<()> {
        insert(session, "b")?;
        session.set_rollback_only("not wanted")
    });
    outcome.unwrap();
    assert_eq!(stored(&registry), ["a"]);
    let session = registry.current().unwrap();
    assert!(!session.in_transaction());
    session.commit().unwrap();
    registry.remove();
}
