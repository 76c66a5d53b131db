//! One session's life and its statements, as SQLAlchemy's session tests have them.
#![allow(clippy::type_complexity)]

use std::marker::PhantomData;

use diesel::prelude::*;
use diesel::query_builder::SqlQuery;
use diesel::query_dsl::methods::{ExecuteDsl, LoadQuery};
use diesel_session::{Error, JoinMode, Result, SessionOptions, SessionState, read_only};

use super::db::{self, Conn, Database, Registry, Session, insert, stored, texts};
use super::notes;

/// What a session that starts now sees. In memory sessions take turns, so there it can't look while another works.
fn seen_by_another(registry: &Registry) -> Vec<String> {
    let other = Session::with_options(registry.engine(), read_only()).unwrap();
    match other.load(notes::table.select(notes::text).order(notes::text)) {
        Err(Error::WouldDeadlock { .. }) if !db::CONCURRENT => Vec::new(),
        other => other.unwrap(),
    }
}

/// A connection that no engine made, with the `notes` table.
fn outside(database: &Database) -> Conn {
    use diesel::connection::SimpleConnection;
    let mut conn = Conn::establish(&database.url).unwrap();
    conn.batch_execute(db::CREATE_NOTES).unwrap();
    conn
}

fn count(conn: &mut Conn) -> i64 {
    notes::table.count().get_result(conn).unwrap()
}

/// Whether a type can be handed to `execute` or `load`: an inherent constant wins over the trait's.
struct Probe<Q>(PhantomData<Q>);

trait NotAStatement {
    const EXECUTES: bool = false;
    const LOADS: bool = false;
}

impl<Q> NotAStatement for Probe<Q> {}

impl<Q: RunQueryDsl<Conn> + ExecuteDsl<Conn>> Probe<Q> {
    const EXECUTES: bool = true;
}

struct LoadProbe<Q>(PhantomData<Q>);

impl<Q> NotAStatement for LoadProbe<Q> {}

impl<Q: LoadQuery<'static, Conn, Note>> LoadProbe<Q> {
    const LOADS: bool = true;
}

#[derive(QueryableByName, Debug, PartialEq)]
#[diesel(table_name = notes)]
struct Note {
    id: i32,
}

// parity: ExecutionTest::test_no_string_execute
#[test]
fn plain_text_is_no_statement_and_has_to_be_declared() {
    let executes = (Probe::<&str>::EXECUTES, Probe::<String>::EXECUTES, Probe::<SqlQuery>::EXECUTES);
    assert_eq!(executes, (false, false, true));
    let loads = (LoadProbe::<&str>::LOADS, LoadProbe::<String>::LOADS, LoadProbe::<SqlQuery>::LOADS);
    assert_eq!(loads, (false, false, true));

    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    assert_eq!(session.load::<Note>(diesel::sql_query("SELECT id FROM notes WHERE id = 7")).unwrap(), []);
}

// parity: TransScopingTest::test_no_close_on_flush
// parity: TransScopingTest::test_close
#[test]
fn a_connection_that_the_session_did_not_open_is_never_closed_by_it() {
    let database = Database::new();
    let mut conn = outside(&database);
    assert_eq!(count(&mut conn), 0);
    let session = Session::join(conn, JoinMode::default());
    insert(&session, "first").unwrap();
    assert_eq!(session.with_connection(|conn| Ok(count(conn))).unwrap(), 1);
    session.commit().unwrap();
    assert_eq!(session.with_connection(|conn| Ok(count(conn))).unwrap(), 1);
    session.close();
    let mut conn = session.into_connection().unwrap();
    assert_eq!(count(&mut conn), 1);
}

// parity: TransScopingTest::test_transaction
#[test]
fn work_is_seen_by_others_only_after_commit() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "x").unwrap();
    assert_eq!(texts(&session), ["x"]);
    assert!(seen_by_another(&registry).is_empty());
    session.commit().unwrap();
    assert_eq!(texts(&session), ["x"]);
    session.commit().unwrap();
    assert_eq!(seen_by_another(&registry), ["x"]);
}

// parity: SessionTransactionTest::test_transactions_isolated
#[test]
fn two_sessions_do_not_see_each_others_open_work() {
    let database = Database::new();
    let registry = database.registry();
    let writer = Session::new(registry.engine());
    insert(&writer, "a").unwrap();
    writer.nested(|session| insert(session, "b")).unwrap();
    assert!(seen_by_another(&registry).is_empty());
    writer.rollback().unwrap();
    assert!(seen_by_another(&registry).is_empty());
}

// parity: SessionStateTest::test_info
#[test]
fn info_starts_with_the_registrys_values_and_each_session_has_its_own_copy() {
    #[derive(Debug, Clone, PartialEq)]
    struct Global(bool);
    #[derive(Debug, Clone, PartialEq)]
    struct S1(i32);
    #[derive(Debug, Clone, PartialEq)]
    struct S2(bool);
    let values = |session: &Session| {
        let info = session.info();
        (info.get::<Global>().map(|v| v.0), info.get::<S1>().map(|v| v.0), info.get::<S2>().map(|v| v.0))
    };
    let database = Database::new();
    let registry = database.registry();
    assert_eq!(values(&Session::new(registry.engine())), (None, None, None));
    assert_eq!(values(&registry.current().unwrap()), (None, None, None));
    registry.remove();

    registry.configure(|options| options.info(Global(true)).info(S1(5))).unwrap();
    assert_eq!(values(&registry.current().unwrap()), (Some(true), Some(5), None));
    registry.remove();
    let own = SessionOptions::new().info(S1(6)).info(S2(true));
    let session = registry.current_with(own).unwrap();
    assert_eq!(values(&session), (Some(true), Some(6), Some(true)));
    session.info().insert(Global(false));
    session.info().insert(S1(7));
    assert_eq!(values(&session), (Some(false), Some(7), Some(true)));
    registry.remove();
    assert_eq!(values(&registry.current().unwrap()), (Some(true), Some(5), None));
    registry.remove();

    let other = Registry::new(registry.engine().clone());
    let session = other.current_with(SessionOptions::new().info(S1(8))).unwrap();
    assert_eq!(values(&session), (None, Some(8), None));
    other.remove();
}

// parity: SessionStateTest::test_active_flag_autobegin
// parity: SessionStateTest::test_active_flag_partial_rollback
#[test]
fn a_session_is_active_before_during_and_after_a_rollback_whole_or_in_part() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    assert!(session.is_active() && !session.in_transaction());
    session.begin().unwrap();
    assert!(session.is_active());
    session.rollback().unwrap();
    assert!(session.is_active());

    session.begin().unwrap();
    let savepoint = session.begin_nested().unwrap();
    assert!(session.is_active());
    savepoint.rollback().unwrap();
    assert!(session.is_active() && session.in_transaction());
    session.rollback().unwrap();
    assert!(session.is_active());
    session.rollback().unwrap();
    assert!(session.is_active());

    let outcome = registry.transaction(|session| -> Result<()> {
        let inner = registry.transaction(|_| -> Result<()> { Err(Error::ReadOnly) });
        assert!(matches!(inner, Err(Error::ReadOnly)));
        assert!(session.is_active());
        assert_eq!(session.state(), SessionState::RollbackOnly);
        Ok(())
    });
    assert!(matches!(outcome, Err(Error::RolledBack { .. })));
}

#[test]
fn a_failed_session_is_not_active_until_its_rollback() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    insert(&session, "a").unwrap_err();
    assert!(!session.is_active() && session.in_transaction());
    session.rollback().unwrap();
    assert!(session.is_active() && !session.in_transaction());
}

// parity: SessionStateTest::test_session_close_resets_only
#[test]
fn close_is_for_good_and_rollback_resets() {
    // Whether `close_resets_only` was given, which call, and whether the session can be used again: there and here.
    let variants = [
        (Some(true), "close", true, false),
        (Some(false), "close", false, false),
        (None, "close", true, false),
        (Some(true), "reset", true, true),
        (Some(false), "reset", true, true),
        (None, "reset", true, true),
    ];
    let database = Database::new();
    let registry = database.registry();
    for (setting, call, _there, here) in variants {
        let session = Session::new(registry.engine());
        insert(&session, "lost").unwrap();
        match call {
            "close" => session.close(),
            _ => drop(session.rollback().unwrap()),
        }
        assert_eq!(registry.engine().connections_in_use().len(), 0, "{setting:?} {call}");
        assert!(!session.in_transaction());
        let again = insert(&session, "again");
        assert_eq!(again.is_ok(), here, "{setting:?} {call}");
        if !here {
            let error = again.unwrap_err();
            assert!(matches!(error, Error::SessionClosed { .. }), "{error}");
            assert!(error.to_string().contains("parity_session.rs"), "{error}");
            session.close();
            session.rollback().unwrap();
        }
        session.close();
    }
    assert!(stored(&registry).is_empty());
}

// parity: NewStyleExecutionTest::test_dml_execute
#[test]
fn insert_update_and_delete_run_in_every_form() {
    #[derive(Insertable, AsChangeset)]
    #[diesel(table_name = notes)]
    struct Form {
        text: &'static str,
        n: i32,
    }
    type Run = fn(&Session) -> Result<usize>;
    let columns: [Run; 3] = [
        |s| {
            s.execute(diesel::insert_into(notes::table).values((notes::id.eq(12), notes::text.eq("a"), notes::n.eq(1))))
        },
        |s| s.execute(diesel::update(notes::table.find(12)).set(notes::text.eq("b"))),
        |s| s.execute(diesel::delete(notes::table.find(12))),
    ];
    let structs: [Run; 3] = [
        |s| s.execute(diesel::insert_into(notes::table).values(Form { text: "a", n: 1 })),
        |s| s.execute(diesel::update(notes::table.filter(notes::text.eq("a"))).set(Form { text: "b", n: 2 })),
        |s| s.execute(diesel::delete(notes::table.filter(notes::text.eq("b")))),
    ];
    let text: [Run; 3] = [
        |s| s.execute(diesel::sql_query("INSERT INTO notes (id, text, n) VALUES (12, 'a', 1)")),
        |s| s.execute(diesel::sql_query("UPDATE notes SET text = 'b' WHERE id = 12")),
        |s| s.execute(diesel::sql_query("DELETE FROM notes WHERE id = 12")),
    ];
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    for (form, [insert, update, delete]) in [("columns", columns), ("structs", structs), ("text", text)] {
        assert_eq!((update(&session).unwrap(), delete(&session).unwrap()), (0, 0), "{form}, no row");
        assert_eq!(insert(&session).unwrap(), 1, "{form}");
        assert_eq!(texts(&session), ["a"], "{form}");
        assert_eq!(update(&session).unwrap(), 1, "{form}");
        assert_eq!(texts(&session), ["b"], "{form}");
        assert_eq!(delete(&session).unwrap(), 1, "{form}");
        assert!(texts(&session).is_empty(), "{form}");
    }
    session.commit().unwrap();
}

// parity: NewStyleExecutionTest::test_unbuffered_result_session_is_closed
#[test]
fn a_session_whose_rows_are_being_read_can_not_be_ended_under_them() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    for text in ["a", "b", "c"] {
        insert(&session, text).unwrap();
    }
    let select = notes::table.select(notes::text).order(notes::text);
    let refused: [(&str, fn(&Session) -> Result<()>); 2] =
        [("commit", |session| session.commit().map(drop)), ("rollback", |session| session.rollback().map(drop))];
    for (name, end) in refused {
        let rows: Vec<String> = session
            .with_rows(select, |rows| {
                let first = rows.next().unwrap()?;
                assert!(matches!(end(&session), Err(Error::InUse { .. })), "{name}");
                std::iter::once(Ok(first)).chain(rows).collect()
            })
            .unwrap();
        assert_eq!(rows, ["a", "b", "c"], "{name}");
        assert_eq!(session.state(), SessionState::Active);
    }
    let rows: Vec<String> = session
        .with_rows(select, |rows| {
            let first = rows.next().unwrap()?;
            session.close();
            assert!(!session.is_closed());
            std::iter::once(Ok(first)).chain(rows).collect()
        })
        .unwrap();
    assert_eq!(rows, ["a", "b", "c"]);
    assert!(session.is_closed());
    assert!(stored(&registry).is_empty());
}

// parity: NewStyleExecutionTest::test_unbuffered_result_before_session_is_closed
#[test]
fn what_was_fetched_before_the_end_is_the_callers_own() {
    let fetches: [(&str, fn(&Session) -> Result<Vec<String>>); 2] = [
        ("all at once", |session| session.load(notes::table.select(notes::text))),
        ("row by row", |session| session.with_rows(notes::table.select(notes::text), |rows| rows.collect())),
    ];
    let ends: [(&str, fn(&Session)); 2] =
        [("close", |session| session.close()), ("rollback", |session| drop(session.rollback().unwrap()))];
    let database = Database::new();
    let registry = database.registry();
    for (fetched, fetch) in fetches {
        for (ended, end) in ends {
            let session = Session::new(registry.engine());
            insert(&session, "a").unwrap();
            let rows = fetch(&session).unwrap();
            end(&session);
            drop(session);
            assert_eq!(rows, ["a"], "{fetched}, then {ended}");
        }
    }
    assert!(stored(&registry).is_empty());
}
