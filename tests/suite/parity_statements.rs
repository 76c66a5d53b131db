//! What listeners hear of statements and what they can do about them, as SQLAlchemy's statement hooks have it.
#![allow(clippy::type_complexity)]

use std::cell::RefCell;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{
    Error, OptionalExt, Result, SessionListener, SessionOptions, SessionState, StatementInfo, StatementKind,
};

use super::db::{self, Conn, Database, Registry, Session, insert, stored, texts};
use super::notes;

/// Writes down the kind of every statement, and refuses those of the kinds named.
#[derive(Clone, Default)]
struct Kinds {
    heard: Rc<RefCell<Vec<StatementKind>>>,
    refused: Rc<RefCell<Vec<StatementKind>>>,
}

impl SessionListener<Conn> for Kinds {
    fn before_statement(&self, _: &Session, statement: &StatementInfo) -> Result<()> {
        assert!(!statement.place().file().is_empty());
        self.heard.borrow_mut().push(statement.kind());
        if self.refused.borrow().contains(&statement.kind()) { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

type Run = fn(&Session) -> Result<()>;

// parity: ORMExecuteTest::test_select_flags
#[test]
fn a_query_is_told_as_a_select_by_whatever_method_it_is_run() {
    let runs: [Run; 7] = [
        |s| s.load::<String>(notes::table.select(notes::text)).map(drop),
        |s| s.get_results::<String>(notes::table.filter(notes::id.eq(7)).select(notes::text)).map(drop),
        |s| s.get_result::<i64>(notes::table.count()).map(drop),
        |s| s.first::<String, _>(notes::table.select(notes::text)).optional().map(drop),
        |s| s.load::<String>(notes::table.select(notes::text).into_boxed()).map(drop),
        |s| s.load::<i32>(diesel::select(1.into_sql::<diesel::sql_types::Integer>())).map(drop),
        |s| {
            s.with_rows(notes::table.select(notes::text), |rows| {
                rows.map(|text: QueryResult<String>| text).try_for_each(|text| text.map(drop))
            })
        },
    ];
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let kinds = Kinds::default();
    session.listen(kinds.clone());
    for (n, run) in runs.into_iter().enumerate() {
        run(&session).unwrap();
        assert_eq!(kinds.heard.take(), [StatementKind::Select], "{n}");
    }
}

type Returns<C> = fn(&diesel_session::Session<C>) -> Result<Vec<String>>;

/// An insert, an update and a delete that give rows back; none where Diesel has no RETURNING as it is built here.
trait Returning: diesel_session::SessionConnection {
    fn statements() -> Vec<Returns<Self>>;
}

#[cfg(feature = "sqlite")]
impl Returning for diesel::sqlite::SqliteConnection {
    fn statements() -> Vec<Returns<Self>> {
        Vec::new()
    }
}

#[cfg(feature = "mysql")]
impl Returning for diesel::mysql::MysqlConnection {
    fn statements() -> Vec<Returns<Self>> {
        Vec::new()
    }
}

#[cfg(feature = "postgres")]
impl Returning for diesel::pg::PgConnection {
    fn statements() -> Vec<Returns<Self>> {
        vec![
            |session| {
                let rows = diesel::insert_into(notes::table).values((notes::text.eq("a"), notes::n.eq(0)));
                session.get_results(rows.returning(notes::text))
            },
            |session| session.get_results(diesel::update(notes::table).set(notes::text.eq("b")).returning(notes::text)),
            |session| session.get_results(diesel::delete(notes::table).returning(notes::text)),
        ]
    }
}

const WRITES: [(StatementKind, Run); 3] = [
    (StatementKind::Insert, |session| insert(session, "a").map(drop)),
    (StatementKind::Update, |session| session.execute(diesel::update(notes::table).set(notes::text.eq("b"))).map(drop)),
    (StatementKind::Delete, |session| session.execute(diesel::delete(notes::table)).map(drop)),
];

// parity: ORMExecuteTest::test_update_delete_flags
#[test]
fn writes_are_told_by_their_kind_with_and_without_rows_given_back() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let kinds = Kinds::default();
    session.listen(kinds.clone());
    for (kind, run) in WRITES {
        assert!(kind.is_write());
        run(&session).unwrap();
        assert_eq!(kinds.heard.take(), [kind]);
    }
    let rows = [["a"].as_slice(), &["b"], &["b"]];
    for ((statement, (kind, _)), rows) in Conn::statements().into_iter().zip(WRITES).zip(rows) {
        assert_eq!(statement(&session).unwrap(), rows, "{kind:?}");
        assert_eq!(kinds.heard.take(), [kind]);
    }
    let others: [(StatementKind, Run); 3] = [
        (StatementKind::Raw, |session| session.execute(diesel::sql_query("DELETE FROM notes")).map(drop)),
        (StatementKind::Raw, |session| session.batch_execute("DELETE FROM notes")),
        (StatementKind::Connection, |session| session.with_connection(|_| Ok(()))),
    ];
    for (kind, run) in others {
        assert!(!kind.is_write());
        run(&session).unwrap();
        assert_eq!(kinds.heard.take(), [kind]);
    }
}

#[test]
fn a_refused_statement_is_not_sent_and_fails_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let kinds = Kinds::default();
    session.listen(kinds.clone());
    for (kind, run) in WRITES {
        kinds.refused.replace(vec![kind]);
        assert!(matches!(run(&session), Err(Error::ReadOnly)), "{kind:?}");
        assert_eq!((session.state(), session.in_transaction()), (SessionState::Idle, false));
    }
    insert(&session, "a").unwrap();
    for (kind, run) in WRITES {
        kinds.refused.replace(vec![kind]);
        assert!(matches!(run(&session), Err(Error::ReadOnly)), "{kind:?}");
        assert_eq!(session.state(), SessionState::Active, "{kind:?}");
    }
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

// parity: ORMExecuteTest::test_cache_option
#[test]
fn a_statement_is_always_sent_and_a_cache_stands_in_front_of_the_session() {
    #[derive(Debug, Default)]
    struct Cache(RefCell<Option<Vec<String>>>);
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    let kinds = Kinds::default();
    session.listen(kinds.clone());
    session.info().insert(Cache::default());
    let cached = |session: &Session| {
        let cache = session.info().get::<Cache>().unwrap();
        cache.0.borrow_mut().get_or_insert_with(|| texts(session)).clone()
    };
    assert_eq!((texts(&session), texts(&session)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_eq!(kinds.heard.take().len(), 2);
    assert_eq!((cached(&session), cached(&session)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_eq!(kinds.heard.take().len(), 1);
}

/// Adds its number to the list in the session's `info`; the one with a statement runs it, the one that refuses does.
struct Link {
    number: usize,
    reads: bool,
    refuses: bool,
}

#[derive(Default)]
struct Chain(RefCell<Vec<usize>>);

impl SessionListener<Conn> for Link {
    fn before_statement(&self, session: &Session, _: &StatementInfo) -> Result<()> {
        session.info().get::<Chain>().unwrap().0.borrow_mut().push(self.number);
        if self.reads {
            texts(session);
        }
        if self.refuses { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

fn chain(registry: &Registry, reads: Option<usize>, refuses: Option<usize>) -> Session {
    let session = Session::with_options(registry.engine(), SessionOptions::new()).unwrap();
    session.info().insert(Chain::default());
    for number in 1..=4 {
        session.listen(Link { number, reads: reads == Some(number), refuses: refuses == Some(number) });
    }
    session
}

fn asked(session: &Session) -> Vec<usize> {
    session.info().get::<Chain>().unwrap().0.take()
}

// parity: ORMExecuteTest::test_chained_events_one
#[test]
fn every_listener_is_asked_in_order_and_what_they_leave_adds_up() {
    let database = Database::new();
    let registry = database.registry();
    let session = chain(&registry, None, None);
    texts(&session);
    assert_eq!(asked(&session), [1, 2, 3, 4]);
}

// parity: ORMExecuteTest::test_chained_events_two
#[test]
fn a_listeners_own_statement_asks_nobody_and_the_first_refusal_is_the_answer() {
    let database = Database::new();
    let registry = database.registry();
    for number in 1..=4 {
        let session = chain(&registry, Some(number), None);
        texts(&session);
        assert_eq!(asked(&session), [1, 2, 3, 4], "{number} reads");
        drop(session);
        let session = chain(&registry, None, Some(number));
        assert!(matches!(insert(&session, "refused"), Err(Error::ReadOnly)));
        assert_eq!(asked(&session), (1..=number).collect::<Vec<_>>(), "{number} refuses");
        assert_eq!(session.state(), SessionState::Idle);
    }
    assert!(stored(&registry).is_empty());
}

// parity: SessionEventsTest::test_on_bulk_update_hook
// parity: SessionEventsTest::test_on_bulk_delete_hook
#[test]
fn writes_to_many_rows_are_told_before_they_are_sent_and_their_count_is_the_answer() {
    let writes: [(StatementKind, fn(&Session) -> Result<usize>); 2] = [
        (StatementKind::Update, |session| session.execute(diesel::update(notes::table).set(notes::n.eq(notes::n + 1)))),
        (StatementKind::Delete, |session| session.execute(diesel::delete(notes::table))),
    ];
    let database = Database::new();
    let registry = database.registry();
    for rows in [0, 3] {
        for (kind, write) in writes {
            let session = Session::new(registry.engine());
            for n in 0..rows {
                insert(&session, &n.to_string()).unwrap();
            }
            let kinds = Kinds::default();
            session.listen(kinds.clone());
            assert_eq!(write(&session).unwrap(), rows, "{kind:?}, {}", db::NAME);
            assert_eq!(kinds.heard.take(), [kind]);
            assert!(session.in_transaction());
            session.rollback().unwrap();
        }
    }
}
