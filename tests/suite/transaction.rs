//! A transaction: lazy, explicit, honest.

use diesel::prelude::*;
use diesel_session::{Error, SessionState};

use super::db::{self, Database, Session, insert, stored, texts};
use super::notes;

#[test]
fn nothing_is_sent_before_the_first_statement_and_commit_gives_the_connection_back() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    assert_eq!(session.state(), SessionState::Idle);
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    insert(&session, "a").unwrap();
    assert_eq!(session.state(), SessionState::Active);
    assert_eq!(registry.engine().connections_in_use().len(), 1);
    session.commit().unwrap();
    assert_eq!(session.state(), SessionState::Idle);
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    assert_eq!(stored(&registry), ["a"]);
    registry.remove();
}

#[test]
fn rollback_undoes_and_the_session_goes_on() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "a").unwrap();
    session.rollback().unwrap();
    insert(&session, "b").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["b"]);
    registry.remove();
}

#[test]
fn a_database_error_fails_the_frame_on_every_backend() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "a").unwrap();
    let error = insert(&session, "a").unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
    assert!(matches!(insert(&session, "b"), Err(Error::PendingRollback { .. })));
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(error.is_unique_violation());
    assert_eq!(session.state(), SessionState::Idle);
    assert!(stored(&registry).is_empty());
    insert(&session, "c").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["c"]);
    registry.remove();
}

#[test]
fn a_savepoint_takes_an_error_and_the_transaction_goes_on() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "a").unwrap();
    let failed = session.nested(|session| insert(session, "a"));
    assert!(failed.unwrap_err().is_unique_violation());
    insert(&session, "b").unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "c").unwrap();
    assert!(matches!(session.commit(), Err(Error::SavepointOpen { .. })));
    savepoint.commit().unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a", "b", "c"]);
    registry.remove();
}

#[test]
fn first_gives_the_first_row_with_and_without_a_limit_of_its_own() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    for text in ["b", "a", "c"] {
        insert(&session, text).unwrap();
    }
    let select = notes::table.select(notes::text).order(notes::text.desc());
    assert_eq!(session.first::<String, _>(select).unwrap(), "c");
    assert_eq!(session.first::<String, _>(select.limit(2)).unwrap(), "c");
    assert_eq!(session.first::<String, _>(select.into_boxed()).unwrap(), "c");
    assert!(session.first::<String, _>(select.filter(notes::text.eq("z"))).unwrap_err().is_not_found());
    session.commit().unwrap();
    registry.remove();
}

#[test]
fn diesels_own_transaction_nests_inside_a_lent_connection() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "a").unwrap();
    session
        .with_connection(|conn| {
            let _ = conn.transaction::<(), diesel::result::Error, _>(|conn| {
                diesel::insert_into(notes::table).values((notes::text.eq("x"), notes::n.eq(1))).execute(conn)?;
                Err(diesel::result::Error::RollbackTransaction)
            });
            conn.transaction(|conn| {
                diesel::insert_into(notes::table).values((notes::text.eq("b"), notes::n.eq(1))).execute(conn)
            })
        })
        .unwrap();
    assert_eq!(texts(&session), ["a", "b"]);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a", "b"], "{}", db::NAME);
    registry.remove();
}

#[test]
fn a_dropped_session_rolls_back() {
    let database = Database::new();
    let registry = database.registry();
    {
        let session = Session::new(registry.engine());
        insert(&session, "a").unwrap();
    }
    assert!(stored(&registry).is_empty());
    assert_eq!(registry.engine().connections_in_use().len(), 0);
}
