//! When a session begins and when it does not, as SQLAlchemy's session tests have it.
#![allow(clippy::type_complexity)]

use diesel::prelude::*;
use diesel_session::{Error, Result, SessionOptions};

use super::db::{Database, Session, insert, stored, texts};
use super::notes;

// parity: TransScopingTest::test_autobegin_execute
#[test]
fn the_first_statement_begins_and_every_end_leads_back_to_no_transaction() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    assert!(!session.in_transaction());
    let ends: [(&str, fn(&Session)); 3] = [
        ("commit", |session| drop(session.commit().unwrap())),
        ("rollback", |session| drop(session.rollback().unwrap())),
        ("close", |session| session.close()),
    ];
    for (name, end) in ends {
        texts(&session);
        assert!(session.in_transaction(), "before {name}");
        end(&session);
        assert!(!session.in_transaction(), "after {name}");
    }
    assert!(session.is_closed());
}

// parity: TransScopingTest::test_no_autobegin
#[test]
fn without_autobegin_nothing_works_before_begin_and_nothing_after_the_end() {
    type Use = fn(&Session) -> Result<()>;
    let uses: [(&str, Use); 9] = [
        ("load", |session| session.load::<String>(notes::table.select(notes::text)).map(drop)),
        ("get_results", |session| session.get_results::<String>(notes::table.select(notes::text)).map(drop)),
        ("first", |session| session.first::<i64, _>(notes::table.count()).map(drop)),
        ("get_result", |session| session.get_result::<i64>(notes::table.count()).map(drop)),
        ("execute", |session| session.execute(diesel::delete(notes::table)).map(drop)),
        ("batch_execute", |session| session.batch_execute("DELETE FROM notes")),
        ("with_rows", |session| {
            session.with_rows(notes::table.select(notes::text), |rows| {
                rows.map(|text: QueryResult<String>| text).try_for_each(|text| text.map(drop))
            })
        }),
        ("with_connection", |session| session.with_connection(|_| Ok(()))),
        ("begin_nested", |session| session.begin_nested().map(drop)),
    ];
    let registering: [(&str, Use); 3] = [
        ("on_commit", |session| session.on_commit(|| ())),
        ("on_rollback", |session| session.on_rollback(|| ())),
        ("on_completion", |session| session.on_completion(|_| ())),
    ];
    let ends: [(&str, Option<Use>); 4] = [
        ("nothing", None),
        ("commit", Some(|session| session.commit().map(drop))),
        ("rollback", Some(|session: &Session| session.rollback().map(drop))),
        (
            "close",
            Some(|session| {
                session.close();
                Ok(())
            }),
        ),
    ];
    let database = Database::new();
    let registry = database.registry();
    for (used, use_it) in uses.into_iter().chain(registering) {
        for (ended, end) in ends {
            let session = Session::with_options(registry.engine(), SessionOptions::new().autobegin(false)).unwrap();
            if let Some(end) = end {
                session.begin().unwrap();
                assert!(session.in_transaction());
                texts(&session);
                end(&session).unwrap();
                assert!(!session.in_transaction(), "{ended}");
            }
            let error = use_it(&session).unwrap_err();
            if ended == "close" {
                assert!(matches!(error, Error::SessionClosed { .. }), "{used} after {ended}: {error}");
                continue;
            }
            assert!(matches!(error, Error::AutobeginDisabled), "{used} after {ended}: {error}");
            assert!(!session.in_transaction());
            session.begin().unwrap();
            use_it(&session).unwrap();
            assert!(session.in_transaction(), "{used}");
            if let Some(end) = end {
                end(&session).unwrap();
                assert!(!session.in_transaction(), "{ended}");
            }
        }
    }
}

#[test]
fn a_closure_that_owns_the_session_has_begun_for_it() {
    let database = Database::new();
    let registry = database.registry();
    registry.configure(|options| options.autobegin(false)).unwrap();
    let session = registry.current().unwrap();
    assert!(matches!(insert(&session, "a"), Err(Error::AutobeginDisabled)));
    registry
        .transaction(|inside| {
            assert_eq!(*inside, session);
            assert!(inside.in_transaction());
            insert(inside, "a")
        })
        .unwrap();
    assert!(!session.in_transaction());
    assert_eq!(stored(&registry), ["a"]);
}

// parity: TransScopingTest::test_autobegin_begin_method
#[test]
fn beginning_twice_is_refused_and_says_where_the_first_was() {
    let database = Database::new();
    let registry = database.registry();
    let begins: [(&str, fn(&Session)); 4] = [
        ("begin", |session| session.begin().unwrap()),
        ("a statement", |session| session.first::<i64, _>(notes::table.count()).map(drop).unwrap()),
        ("a hook", |session| session.on_commit(|| ()).unwrap()),
        ("a savepoint", |session| drop(session.begin_nested().unwrap().commit().unwrap())),
    ];
    for (name, begin) in begins {
        let session = Session::new(registry.engine());
        begin(&session);
        match session.begin().unwrap_err() {
            Error::AlreadyBegun { at } => assert!(at.file().ends_with("parity_autobegin.rs"), "{name}"),
            other => panic!("{name}: {other}"),
        }
        assert!(session.in_transaction());
        insert(&session, name).unwrap();
        session.commit().unwrap();
    }
    assert_eq!(stored(&registry).len(), begins.len());
}
