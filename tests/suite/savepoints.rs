//! Savepoints: guards, the `nested` closure, and what a failure in one leaves of the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel_session::{Error, Reason, Result, SessionState};

use super::db::{self, Database, Session, insert, stored, texts};
use super::tools::{logged, name_of, nothing_in_use};

fn caught<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
    catch_unwind(AssertUnwindSafe(f))
}

#[test]
fn each_of_three_levels_is_kept_or_undone_by_itself() {
    let database = Database::new();
    let registry = database.registry();
    // The bits say which of the guards commit: the outermost is bit 0.
    for kept in 0..8_u8 {
        let session = registry.current().unwrap();
        let name = |level: usize| format!("{kept} level {level}");
        let end = |savepoint: diesel_session::Savepoint<db::Conn>, level: u8| {
            if kept & (1 << level) == 0 { savepoint.rollback() } else { savepoint.commit() }.unwrap();
        };
        let outer = session.begin_nested().unwrap();
        insert(&session, &name(0)).unwrap();
        let middle = session.begin_nested().unwrap();
        insert(&session, &name(1)).unwrap();
        let inner = session.begin_nested().unwrap();
        insert(&session, &name(2)).unwrap();
        assert!(session.in_nested_transaction());
        end(inner, 2);
        end(middle, 1);
        end(outer, 0);
        assert!(!session.in_nested_transaction());
        session.commit().unwrap();
        let expected: Vec<String> =
            (0..3).filter(|level| (0..=*level).all(|level| kept & (1 << level) != 0)).map(name).collect();
        let all: Vec<String> = stored(&registry).into_iter().filter(|text| text.starts_with(&name(0)[..2])).collect();
        assert_eq!(all, expected, "{kept:03b} on {}", db::NAME);
        registry.remove();
    }
    nothing_in_use(&registry);
}

#[test]
fn a_guard_that_commits_before_its_inner_ones_undoes_all_of_them() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    let outer = session.begin_nested().unwrap();
    insert(&session, "outer").unwrap();
    let inner = session.begin_nested().unwrap();
    insert(&session, "inner").unwrap();
    assert!(matches!(outer.commit(), Err(Error::SavepointOpen { .. })));
    assert!(matches!(inner.commit(), Err(Error::SavepointGone)));
    assert_eq!(texts(&session), ["root"]);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["root"]);
    registry.remove();
}

#[test]
fn an_outer_rollback_takes_the_inner_guards_with_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    let outer = session.begin_nested().unwrap();
    let inner = session.begin_nested().unwrap();
    insert(&session, "inner").unwrap();
    outer.rollback().unwrap();
    // A new savepoint takes the number of the one that is gone; the old guard does not touch it.
    let other = session.begin_nested().unwrap();
    insert(&session, "other").unwrap();
    inner.rollback().unwrap();
    other.commit().unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["other", "root"]);
    registry.remove();
}

#[test]
fn a_guard_outlives_its_transaction_without_harm() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let spent: Vec<_> = (0..3).map(|_| session.begin_nested().unwrap()).collect();
    session.rollback().unwrap();
    insert(&session, "next").unwrap();
    let current = session.begin_nested().unwrap();
    insert(&session, "next inner").unwrap();
    let mut spent = spent.into_iter();
    assert!(matches!(spent.next().unwrap().commit(), Err(Error::SavepointGone)));
    spent.next().unwrap().rollback().unwrap();
    drop(spent.next());
    current.commit().unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["next", "next inner"]);
    registry.remove();
}

#[test]
fn a_dropped_guard_rolls_back() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    {
        let _savepoint = session.begin_nested().unwrap();
        insert(&session, "dropped").unwrap();
    }
    assert!(!session.in_nested_transaction());
    assert_eq!(texts(&session), ["root"]);
    session.commit().unwrap();
    registry.remove();
}

#[test]
fn a_guard_dropped_by_a_panic_is_rolled_back_before_anything_else_is_done() {
    let database = Database::new();
    let registry = database.registry();
    let after: [fn(&Session); 4] = [
        |session| assert_eq!(insert(session, "after").unwrap(), 1),
        |_| {},
        |session| drop(session.begin_nested().unwrap().commit().unwrap()),
        |session| assert_eq!(texts(session), ["root"]),
    ];
    for (i, after) in after.into_iter().enumerate() {
        let session = registry.current().unwrap();
        insert(&session, "root").unwrap();
        let panicked = caught(|| {
            let _outer = session.begin_nested().unwrap();
            let _inner = session.begin_nested().unwrap();
            insert(&session, "undone").unwrap();
            panic!("with two guards alive");
        });
        assert!(panicked.is_err());
        after(&session);
        session.commit().unwrap();
        assert_eq!(stored(&registry).contains(&"after".to_owned()), i == 0);
        assert!(!stored(&registry).contains(&"undone".to_owned()));
        let delete = diesel::delete(super::notes::table);
        registry.remove();
        registry.transaction(|session| session.execute(delete)).unwrap();
    }
    nothing_in_use(&registry);
}

#[test]
fn an_outer_savepoint_commits_after_a_caught_panic_in_an_inner_one() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    session
        .nested(|session| {
            insert(session, "outer")?;
            let panicked = caught(|| {
                session.nested::<(), Error>(|session| {
                    insert(session, "inner")?;
                    panic!("in the inner one");
                })
            });
            assert!(panicked.is_err());
            Ok::<_, Error>(())
        })
        .unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["outer"]);
    registry.remove();
}

#[test]
fn a_guard_dropped_or_ended_while_the_connection_is_lent_is_rolled_back_when_it_returns() {
    let database = Database::new();
    let registry = database.registry();
    type End = fn(diesel_session::Savepoint<db::Conn>);
    let ends: [End; 3] = [
        drop,
        |savepoint| assert!(matches!(savepoint.commit(), Err(Error::InUse { .. }))),
        |savepoint| assert!(matches!(savepoint.rollback(), Err(Error::InUse { .. }))),
    ];
    for (i, end) in ends.into_iter().enumerate() {
        let session = registry.current().unwrap();
        insert(&session, &format!("root {i}")).unwrap();
        let savepoint = session.begin_nested().unwrap();
        insert(&session, "undone").unwrap();
        session
            .with_connection(|_| {
                end(savepoint);
                Ok(())
            })
            .unwrap();
        insert(&session, &format!("then {i}")).unwrap();
        session.commit().unwrap();
        registry.remove();
    }
    assert_eq!(stored(&registry), ["root 0", "root 1", "root 2", "then 0", "then 1", "then 2"]);
}

#[test]
fn a_swallowed_error_fails_its_savepoint_and_the_transaction_goes_on() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "undone").unwrap();
    assert!(insert(&session, "root").is_err());
    assert_eq!(session.state(), SessionState::Failed);
    assert!(matches!(session.begin_nested(), Err(Error::PendingRollback { .. })));
    let error = savepoint.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(error.is_unique_violation());
    assert_eq!(session.state(), SessionState::Active);
    insert(&session, "then").unwrap();
    // The same by the closure, three deep: the innermost frame alone is lost.
    let result: Result<()> = session.nested(|session| {
        insert(session, "outer")?;
        let inner: Result<()> = session.nested(|session| {
            let _ = insert(session, "root");
            Ok(())
        });
        assert_eq!(name_of(&inner.unwrap_err()), "RolledBack");
        Ok(())
    });
    result.unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["outer", "root", "then"]);
    registry.remove();
}

#[test]
fn a_savepoint_marked_rollback_only_takes_nothing_else_with_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    let result: Result<()> = session.nested(|session| {
        insert(session, "undone")?;
        session.set_rollback_only("not wanted")
    });
    let error = result.unwrap_err();
    assert!(matches!(error.cause().unwrap().reason(), Reason::Requested(reason) if reason == "not wanted"), "{error}");
    assert_eq!(session.state(), SessionState::Active);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["root"]);
    registry.remove();
}

#[test]
fn nested_keeps_on_ok_and_undoes_on_err_and_panic() {
    #[derive(Debug, PartialEq)]
    enum Own {
        Mine,
        Session,
    }
    impl From<Error> for Own {
        fn from(_: Error) -> Self {
            Self::Session
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let kept = session.nested(|session| insert(session, "kept").map(|_| 42));
    assert_eq!(kept.unwrap(), 42);
    let undone = session.nested(|session| {
        insert(session, "undone").map_err(Own::from)?;
        Err::<(), _>(Own::Mine)
    });
    assert_eq!(undone, Err(Own::Mine));
    let panicked = caught(|| {
        session.nested::<(), Error>(|session| {
            insert(session, "undone")?;
            panic!("in nested");
        })
    });
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"in nested"));
    // The closure ends the whole transaction: its savepoint is gone, and `nested` says so.
    let gone: Result<()> = session.nested(|session| session.rollback().map(drop));
    assert!(matches!(gone, Err(Error::SavepointGone)));
    insert(&session, "next").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["next"]);
    registry.remove();
}

#[test]
fn savepoints_of_diesels_own_nest_inside_ours_and_come_back_to_them() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    let savepoint = session.begin_nested().unwrap();
    session
        .with_connection(|conn| {
            use diesel::Connection;
            conn.transaction(|conn| conn.batch_execute("INSERT INTO notes (text, n) VALUES ('undone', 1)"))
        })
        .unwrap();
    // A panic inside Diesel's transaction leaves its savepoint open on the connection.
    let panicked = caught(|| {
        session.with_connection(|conn| {
            use diesel::Connection;
            conn.transaction::<(), diesel::result::Error, _>(|_| panic!("inside Diesel's transaction"))
        })
    });
    assert!(panicked.is_err());
    assert_eq!(session.state(), SessionState::Failed);
    savepoint.rollback().unwrap();
    assert_eq!(session.state(), SessionState::Active);
    session
        .with_connection(|conn| {
            use diesel::Connection;
            conn.transaction(|conn| conn.batch_execute("INSERT INTO notes (text, n) VALUES ('kept', 1)"))
        })
        .unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["kept", "root"], "{}", db::NAME);
    registry.remove();
    nothing_in_use(&registry);
}

#[test]
fn twenty_thousand_rolled_back_savepoints_leave_nothing_on_the_server() {
    let database = Database::new();
    let registry = database.registry_with(logged);
    let session = registry.current().unwrap();
    insert(&session, "root").unwrap();
    for _ in 0..19_998 {
        session.begin_nested().unwrap().rollback().unwrap();
    }
    let sent = super::tools::sent(|| {
        let savepoint = session.begin_nested().unwrap();
        savepoint.rollback().unwrap();
        drop(session.begin_nested().unwrap());
    });
    // The name never changes: each ROLLBACK TO is followed by its RELEASE.
    let sent = sent.join("; ").replace(" -- binds: []", "");
    let one = "SAVEPOINT ds_1; ROLLBACK TO SAVEPOINT ds_1; RELEASE SAVEPOINT ds_1";
    assert_eq!(sent, format!("{one}; {one}"), "{}", db::NAME);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["root"]);
    registry.remove();
}

#[test]
fn savepoints_nest_a_hundred_and_fifty_deep() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let mut guards = Vec::new();
    for level in 0..150 {
        guards.push(session.begin_nested().unwrap());
        insert(&session, &format!("{level:03}")).unwrap();
    }
    while let Some(guard) = guards.pop() {
        if guards.len() == 120 { guard.rollback() } else { guard.commit() }.unwrap();
    }
    session.commit().unwrap();
    let expected: Vec<String> = (0..120).map(|level| format!("{level:03}")).collect();
    assert_eq!(stored(&registry), expected, "{}", db::NAME);
    registry.remove();
}
