//! `Ok` from a commit means stored, an error means what it says, and the session is fit for its next unit of work.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Error, ErrorClass, Kind, Result, SessionState};

use super::db::{self, Database, Session, insert, stored, texts};
use super::notes;
use super::tools::{answer, connection_id, deadlock, goes_on, insert_or_rollback, kill, kind, name_of, nothing_in_use};

fn caught<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Statements of the session that leave its transaction unable to commit, and hide it.
fn swallow(session: &Session, way: usize) {
    let duplicate = "INSERT INTO notes (text, n) VALUES ('row', 0)";
    match way {
        0 => assert!(insert(session, "row").is_err()),
        1 => assert!(session.batch_execute(duplicate).is_err()),
        2 => assert!(session.execute(diesel::sql_query(duplicate)).is_err()),
        3 => assert!(
            session.get_result::<i32>(diesel::dsl::sql::<diesel::sql_types::Integer>("SELECT nothing")).is_err()
        ),
        4 => {
            let wrong = diesel::dsl::sql::<diesel::sql_types::Integer>("SELECT nothing");
            assert!(session.with_rows(wrong, |rows| rows.collect::<QueryResult<Vec<i32>>>()).is_err());
        }
        _ => {
            // A panic, swallowed.
            assert!(caught(|| session.with_connection::<()>(|_| panic!("in the closure"))).is_err());
        }
    }
}

#[test]
fn a_swallowed_error_never_commits() {
    let database = Database::new();
    let registry = database.registry();
    for way in 0..6 {
        let session = registry.current().unwrap();
        insert(&session, "row").unwrap();
        swallow(&session, way);
        assert_eq!(session.state(), SessionState::Failed, "way {way} on {}", db::NAME);
        let error = session.commit().unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "way {way} on {}: {error}", db::NAME);
        assert!(stored(&registry).is_empty(), "way {way} on {}", db::NAME);
        registry.remove();
        // The same under an owner that swallows it.
        let result: Result<()> = registry.transaction(|session| {
            insert(session, "row")?;
            swallow(session, way);
            Ok(())
        });
        assert_eq!(answer(&result), "RolledBack", "way {way} on {}", db::NAME);
        assert!(stored(&registry).is_empty());
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn an_error_swallowed_on_the_lent_connection_commits_only_what_the_database_can_commit() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    let lent = session.with_connection(|conn| {
        let duplicate = diesel::insert_into(notes::table).values((notes::text.eq("row"), notes::n.eq(0)));
        assert!(duplicate.execute(conn).is_err());
        Ok(())
    });
    if db::ERRORS_ABORT {
        assert_eq!(answer(&lent), "PendingRollback");
        assert_eq!(answer(&session.commit()), "RolledBack");
        goes_on(&registry, &session, &[]);
    } else {
        lent.unwrap();
        session.commit().unwrap();
        goes_on(&registry, &session, &["row"]);
    }
}

#[test]
fn an_error_undone_on_the_lent_connection_commits() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    session
        .with_connection(|conn| {
            conn.batch_execute("SAVEPOINT own")?;
            assert!(conn.batch_execute("INSERT INTO notes (text, n) VALUES ('row', 0)").is_err());
            conn.batch_execute("ROLLBACK TO SAVEPOINT own")
        })
        .unwrap();
    insert(&session, "then").unwrap();
    session.commit().unwrap();
    goes_on(&registry, &session, &["row", "then"]);
}

#[test]
fn a_constraint_that_fails_at_commit_stores_nothing() {
    if kind() == Kind::Mysql {
        // No deferred constraints there: it refuses at the statement instead.
        let database = Database::new();
        let registry = database.registry();
        let session = registry.current().unwrap();
        session
            .batch_execute("CREATE TABLE children (note INTEGER NOT NULL, FOREIGN KEY (note) REFERENCES notes (id)) ENGINE = InnoDB")
            .unwrap_or_else(|error| assert_eq!(name_of(&error), "TransactionLost"));
        session.rollback().unwrap();
        insert(&session, "row").unwrap();
        assert!(session.batch_execute("INSERT INTO children VALUES (4711)").is_err());
        assert_eq!(answer(&session.commit()), "RolledBack");
        goes_on(&registry, &session, &[]);
        return;
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    session
        .batch_execute(
            "CREATE TABLE children (note INTEGER NOT NULL REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)",
        )
        .unwrap();
    session.commit().unwrap();
    for nested in [false, true] {
        insert(&session, "row").unwrap();
        let orphan = |session: &Session| session.batch_execute("INSERT INTO children VALUES (4711)");
        if nested {
            session.nested(orphan).unwrap();
        } else {
            orphan(&session).unwrap();
        }
        let error = session.commit().unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        let kind = error.failure().and_then(diesel_session::Failure::kind);
        assert!(matches!(kind, Some(diesel::result::DatabaseErrorKind::ForeignKeyViolation)), "{error}");
        assert_eq!(session.state(), SessionState::Idle);
        assert!(stored(&registry).is_empty());
    }
    let owned: Result<()> = registry.scope(|_| ()).and_then(|()| {
        registry.transaction(|session| {
            insert(session, "row")?;
            session.batch_execute("INSERT INTO children VALUES (4711)")
        })
    });
    assert_eq!(answer(&owned), "RolledBack");
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_connection_that_dies_is_never_a_success() {
    let database = Database::new();
    let registry = database.registry();
    if !db::REMOTE {
        assert_eq!(kind(), Kind::Sqlite, "the database is in this process: there is no connection to lose");
        return;
    }
    // Before COMMIT is sent: nobody can tell that from one that died after it.
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    kill(&database, connection_id(&session));
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Ambiguous);
    assert_eq!(session.state(), SessionState::Idle);
    // In the middle: nothing was stored, and that is known.
    insert(&session, "row").unwrap();
    kill(&database, connection_id(&session));
    let error = insert(&session, "then").unwrap_err();
    assert_eq!(error.class(), ErrorClass::Connection, "{error}");
    assert_eq!(session.state(), SessionState::Lost);
    assert_eq!(answer(&insert(&session, "then")), "TransactionLost");
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Connection, "{error}");
    // In a savepoint, whose guard finds out.
    insert(&session, "row").unwrap();
    let savepoint = session.begin_nested().unwrap();
    kill(&database, connection_id(&session));
    assert_eq!(answer(&savepoint.commit()), "TransactionLost");
    assert_eq!(answer(&session.commit()), "RolledBack");
    // While it rolls back: the server has done that already.
    insert(&session, "row").unwrap();
    kill(&database, connection_id(&session));
    session.rollback().unwrap();
    // On the lent connection.
    insert(&session, "row").unwrap();
    kill(&database, connection_id(&session));
    let lent = session.with_connection(|conn| {
        let _ = conn.batch_execute("INSERT INTO notes (text, n) VALUES ('then', 0)");
        Ok(())
    });
    assert!(lent.is_err() || session.commit().is_err(), "{}", db::NAME);
    session.rollback().unwrap();
    goes_on(&registry, &session, &[]);
}

#[test]
fn connections_that_died_in_the_pool_cost_nobody_a_transaction() {
    if !db::REMOTE {
        assert_eq!(kind(), Kind::Sqlite, "the database is in this process: there is no connection to lose");
        return;
    }
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.ping_after(std::time::Duration::from_secs(3600)));
    for n in [1, 4] {
        let sessions: Vec<_> = (0..n).map(|_| Session::new(registry.engine())).collect();
        let ids: Vec<_> = sessions.iter().map(connection_id).collect();
        sessions.iter().for_each(|session| drop(session.rollback().unwrap()));
        assert!(registry.engine().idle() >= n);
        ids.into_iter().for_each(|id| kill(&database, id));
        // As after a restart of the server: every idle connection is dead, and none was pinged.
        let session = registry.current().unwrap();
        insert(&session, &format!("row {n}")).unwrap();
        session.commit().unwrap();
        registry.remove();
    }
    assert_eq!(stored(&registry), ["row 1", "row 4"]);
    nothing_in_use(&registry);
}

#[test]
fn a_transaction_that_the_database_ended_by_itself_is_noticed() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|session| {
            insert(session, "mine")?;
            insert(session, "theirs").map(drop)
        })
        .map_err(|error: Error| error)
        .unwrap();
    let session = registry.current().unwrap();
    let stays = ["mine", "theirs"];
    for nested in [false, true] {
        insert(&session, "row").unwrap();
        let savepoint = nested.then(|| session.begin_nested().unwrap());
        let error = match kind() {
            Kind::Sqlite => insert_or_rollback(&session, "row").unwrap_err(),
            Kind::Mysql => deadlock(&session, &registry).unwrap_err(),
            // PostgreSQL never ends a transaction by itself, it aborts it.
            _ => insert(&session, "row").unwrap_err(),
        };
        let expected = if kind() == Kind::Postgres { SessionState::Failed } else { SessionState::Lost };
        assert_eq!(session.state(), expected, "{error}");
        assert!(insert(&session, "after").is_err());
        drop(savepoint);
        let committed = session.commit();
        if nested && kind() == Kind::Postgres {
            // The failure was the savepoint's.
            committed.unwrap();
            session.execute(diesel::delete(notes::table.filter(notes::text.eq("row")))).unwrap();
            session.commit().unwrap();
        } else {
            assert_eq!(answer(&committed), "RolledBack", "{}", db::NAME);
        }
        assert_eq!(stored(&registry), stays, "{}", db::NAME);
    }
    goes_on(&registry, &session, &["mine", "theirs"]);
}

#[test]
fn the_database_refuses_the_commit_of_a_snapshot_that_no_longer_holds() {
    if kind() != Kind::Postgres {
        // SQLite takes turns and InnoDB locks: neither has a commit that fails for a conflict.
        assert!(kind() == Kind::Sqlite || kind() == Kind::Mysql);
        return;
    }
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.isolation(diesel_session::IsolationLevel::Serializable));
    let (a, b) = (Session::new(registry.engine()), Session::new(registry.engine()));
    assert!(texts(&a).is_empty() && texts(&b).is_empty());
    insert(&a, "a").unwrap();
    insert(&b, "b").unwrap();
    a.commit().unwrap();
    let error = b.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(error.is_retryable());
    goes_on(&registry, &b, &["a"]);
}

#[test]
fn a_commit_is_one_round_trip() {
    // Whatever it asks of the server on the way.
    let database = Database::new();
    let registry = database.registry_with(super::tools::logged);
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    let sent = super::tools::sent(|| drop(session.commit().unwrap()));
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].contains("COMMIT"), "{sent:?}");
    registry.remove();
}
