//! Bare Diesel and a session behind one face, so that the steps of a situation are written once.
#![allow(dead_code)]

use std::cell::RefCell;
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::Error as DieselError;
use diesel_session::{EngineBuilder, Error};

use super::db::{CREATE_NOTES, Conn, Database, Registry, Session};
use crate::support::notes;
use crate::table::{Answers, Row, Shown, Side};

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

/// What the contender's answers let one expect in the database.
#[derive(Default)]
struct Ledger {
    /// Written in the open transaction.
    open: Vec<String>,
    kept: Vec<String>,
    undone: Vec<String>,
}

impl Ledger {
    /// A frame that began when `from` texts were written is undone.
    fn undo(&mut self, from: usize) {
        let from = from.min(self.open.len());
        self.undone.extend(self.open.drain(from..));
    }

    fn ended<T, E: Shown>(&mut self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.kept.append(&mut self.open),
            Err(error) if error.says_that_nothing_is_stored() => self.undo(0),
            Err(_) => self.open.clear(),
        }
    }

    fn holds(&self, stored: &[(String, i32)]) -> bool {
        let is_stored = |text: &String| stored.iter().any(|(row, _)| row == text);
        self.kept.iter().all(is_stored) && !self.undone.iter().any(is_stored)
    }
}

fn wrote<E>(text: &str, result: Result<usize, E>) -> Result<usize, E> {
    if result.is_ok() {
        LEDGER.with_borrow_mut(|ledger| ledger.open.push(text.to_owned()));
    }
    result
}

/// Runs a whole transaction and remembers what its answer promises.
fn whole<T, E: Shown>(f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let result = f();
    LEDGER.with_borrow_mut(|ledger| ledger.ended(&result));
    result
}

/// Runs a savepoint and remembers what its answer promises.
fn part<T, E>(f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let from = LEDGER.with_borrow(|ledger| ledger.open.len());
    let result = f();
    if result.is_err() {
        LEDGER.with_borrow_mut(|ledger| ledger.undo(from));
    }
    result
}

/// What a unit of work does, whoever runs it.
pub(super) trait Work: Sized {
    type Error: Shown;

    fn insert(&mut self, text: &str) -> Result<usize, Self::Error>;
    fn set(&mut self, id: i32, n: i32) -> Result<usize, Self::Error>;
    fn count(&mut self) -> Result<i64, Self::Error>;
    fn number(&mut self, sql: &str) -> Result<i64, Self::Error>;
    /// One statement that Diesel does not build.
    fn query(&mut self, sql: &str) -> Result<usize, Self::Error>;
    /// A batch of text.
    fn text(&mut self, sql: &str) -> Result<(), Self::Error>;
    fn nested(&mut self, f: impl FnOnce(&mut Self) -> Result<(), Self::Error>) -> Result<(), Self::Error>;
}

impl Work for Conn {
    type Error = DieselError;

    fn insert(&mut self, text: &str) -> QueryResult<usize> {
        wrote(text, insert_by_other(self, text))
    }

    fn set(&mut self, id: i32, n: i32) -> QueryResult<usize> {
        diesel::update(notes::table.find(id)).set(notes::n.eq(n)).execute(self)
    }

    fn count(&mut self) -> QueryResult<i64> {
        notes::table.count().get_result(self)
    }

    fn number(&mut self, sql: &str) -> QueryResult<i64> {
        diesel::dsl::sql::<diesel::sql_types::BigInt>(sql).get_result(self)
    }

    fn query(&mut self, sql: &str) -> QueryResult<usize> {
        diesel::sql_query(sql).execute(self)
    }

    fn text(&mut self, sql: &str) -> QueryResult<()> {
        self.batch_execute(sql)
    }

    fn nested(&mut self, f: impl FnOnce(&mut Self) -> QueryResult<()>) -> QueryResult<()> {
        part(|| self.transaction(f))
    }
}

/// An insert that is not the contender's.
pub(super) fn insert_by_other(conn: &mut Conn, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values((notes::text.eq(text), notes::n.eq(0))).execute(conn)
}

impl Work for Session {
    type Error = Error;

    fn insert(&mut self, text: &str) -> Result<usize, Error> {
        wrote(text, self.execute(diesel::insert_into(notes::table).values((notes::text.eq(text), notes::n.eq(0)))))
    }

    fn set(&mut self, id: i32, n: i32) -> Result<usize, Error> {
        self.execute(diesel::update(notes::table.find(id)).set(notes::n.eq(n)))
    }

    fn count(&mut self) -> Result<i64, Error> {
        self.get_result(notes::table.count())
    }

    fn number(&mut self, sql: &str) -> Result<i64, Error> {
        self.get_result(diesel::dsl::sql::<diesel::sql_types::BigInt>(sql))
    }

    fn query(&mut self, sql: &str) -> Result<usize, Error> {
        self.execute(diesel::sql_query(sql))
    }

    fn text(&mut self, sql: &str) -> Result<(), Error> {
        self.batch_execute(sql)
    }

    fn nested(&mut self, f: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        part(|| Session::nested(self, |session| f(&mut session.clone())))
    }
}

/// Who begins and ends the transaction.
pub(super) trait Contender {
    type Error: Shown;
    type Work: Work<Error = Self::Error>;

    fn transaction(&mut self, f: impl FnOnce(&mut Self::Work) -> Result<(), Self::Error>) -> Result<(), Self::Error>;
}

/// Diesel and nothing else: `conn.transaction(|conn| …)`.
pub(super) struct Bare(Conn);

impl Contender for Bare {
    type Error = DieselError;
    type Work = Conn;

    fn transaction(&mut self, f: impl FnOnce(&mut Conn) -> QueryResult<()>) -> QueryResult<()> {
        whole(|| self.0.transaction(f))
    }
}

/// This crate: `registry.transaction(|session| …)`.
pub(super) struct Ours(pub(super) Registry);

impl Contender for Ours {
    type Error = Error;
    type Work = Session;

    fn transaction(&mut self, f: impl FnOnce(&mut Session) -> Result<(), Error>) -> Result<(), Error> {
        whole(|| self.0.transaction(|session| f(&mut session.clone())))
    }
}

/// What a situation starts from.
#[derive(Clone, Copy)]
pub(super) struct Stage {
    /// Run once, after the table was made.
    pub(super) prepare: &'static str,
    /// Run on each of the contender's connections.
    pub(super) setup: &'static str,
    /// How the session's engine differs from its defaults.
    pub(super) engine: fn(EngineBuilder<Conn>) -> EngineBuilder<Conn>,
}

pub(super) const PLAIN: Stage = Stage { prepare: "", setup: "", engine: |builder| builder };

/// One run of a situation: its database, and the answers so far.
pub(super) struct Run {
    pub(super) database: Database,
    answers: Answers,
}

impl Run {
    fn new(stage: Stage) -> Self {
        LEDGER.with_borrow_mut(|ledger| *ledger = Ledger::default());
        let run = Self { database: Database::new(), answers: Answers::default() };
        let mut conn = run.other();
        for sql in [CREATE_NOTES, stage.prepare] {
            execute_all(&mut conn, sql);
        }
        run
    }

    /// A connection of somebody else's.
    pub(super) fn other(&self) -> Conn {
        Conn::establish(&self.database.url).unwrap()
    }

    pub(super) fn note<T, E: Shown>(&self, what: &str, result: Result<T, E>) -> Result<T, E> {
        self.answers.note(what, result)
    }

    /// For answers that the code under test does not look at.
    pub(super) fn swallow<T, E: Shown>(&self, what: &str, result: Result<T, E>) {
        drop(self.note(what, result));
    }

    fn end(self) -> Side {
        let mut conn = self.other();
        let rows: Vec<(String, i32)> =
            notes::table.select((notes::text, notes::n)).order(notes::text).load(&mut conn).unwrap();
        let holds = LEDGER.with_borrow(|ledger| ledger.holds(&rows));
        let rows = rows.iter().map(|(text, n)| if *n == 0 { format!("`{text}`") } else { format!("`{text}`={n}") });
        let stored = rows.collect::<Vec<_>>().join(", ");
        Side {
            answers: self.answers.take(),
            holds,
            stored: if stored.is_empty() { "nothing".to_owned() } else { stored },
        }
    }
}

fn execute_all(conn: &mut Conn, sql: &str) {
    if !sql.is_empty() {
        conn.batch_execute(sql).unwrap();
    }
}

/// Runs a situation with each of them, on a database of its own.
pub(super) fn row(
    title: &'static str,
    source: (&'static str, &'static str),
    stage: Stage,
    bare: impl FnOnce(&mut Bare, &Run),
    ours: impl FnOnce(&mut Ours, &Run),
) -> Row {
    let run = Run::new(stage);
    let mut conn = run.other();
    execute_all(&mut conn, stage.setup);
    let mut contender = Bare(conn);
    bare(&mut contender, &run);
    drop(contender);
    let diesel = run.end();

    let run = Run::new(stage);
    let builder = run
        .database
        .builder()
        .setup(move |conn| if stage.setup.is_empty() { Ok(()) } else { conn.batch_execute(stage.setup) });
    let mut contender = Ours(Registry::new((stage.engine)(builder).build().unwrap()));
    ours(&mut contender, &run);
    contender.0.remove();
    drop(contender);
    let session = run.end();
    Row { title, source, diesel, session }
}

/// Waits for something that somebody else does.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

// ---- situations that every database has ----

pub(super) fn swallowed_error<C: Contender>(contender: &mut C, run: &Run) {
    let ended = contender.transaction(|work| {
        work.insert("first")?;
        run.swallow("same INSERT again", work.insert("first"));
        Ok(())
    });
    run.swallow("transaction", ended);
}

pub(super) fn error_in_a_savepoint<C: Contender>(contender: &mut C, run: &Run) {
    let ended = contender.transaction(|work| {
        work.insert("first")?;
        run.swallow("savepoint", work.nested(|work| work.insert("first").map(drop)));
        work.insert("then").map(drop)
    });
    run.swallow("transaction", ended);
}

pub(super) fn text_in_the_middle<C: Contender>(sql: &'static str) -> impl Fn(&mut C, &Run) {
    move |contender, run| {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            run.note(&format!("`{sql}`"), work.text(sql))?;
            run.note("INSERT", work.insert("after"))?;
            // Something goes wrong, and all is to be undone.
            work.insert("after").map(drop)
        });
        run.swallow("transaction that fails at its end", ended);
    }
}

pub(super) fn begin_by_text_bare(_: &mut Bare, run: &Run) {
    let mut conn = run.other();
    run.swallow("`BEGIN`", conn.text("BEGIN"));
    run.swallow("INSERT", conn.insert("outer"));
    run.swallow("inner transaction", part(|| conn.transaction(|conn| conn.insert("inner"))));
    run.swallow("`ROLLBACK`", conn.text("ROLLBACK"));
    LEDGER.with_borrow_mut(|ledger| ledger.undo(0));
}

pub(super) fn begin_by_text_ours(ours: &mut Ours, run: &Run) {
    let mut session = ours.0.current().unwrap();
    run.swallow("`BEGIN`", session.text("BEGIN"));
    run.swallow("INSERT", session.insert("outer"));
    run.swallow("savepoint", Work::nested(&mut session, |session| session.insert("inner").map(drop)));
    run.swallow("`ROLLBACK`", session.text("ROLLBACK"));
    run.swallow("commit", whole(|| session.commit()));
}

pub(super) fn constraint_at_commit<C: Contender>(contender: &mut C, run: &Run) {
    let ended = contender.transaction(|work| {
        work.insert("parent")?;
        run.note("INSERT of an orphan", work.text("INSERT INTO children VALUES (4711)"))
    });
    run.swallow("transaction", ended);
}

// ---- situations of servers ----

/// The rows 1 and 2 of the situations that change some.
pub(super) const TWO_ROWS: &str = "INSERT INTO notes (text, n) VALUES ('one', 0), ('two', 0)";

pub(super) fn killed_while_idle<C: Contender>(contender: &mut C, run: &Run, kill: impl Fn(&Run, i64), id: &str) {
    let mut connection = 0;
    contender
        .transaction(|work| {
            connection = work.number(id)?;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{}", error.shown()));
    kill(run, connection);
    for what in ["transaction", "next transaction"] {
        let ended = contender.transaction(|work| work.insert(what).map(drop));
        run.swallow(what, ended);
    }
}

pub(super) fn killed_in_the_middle<C: Contender>(contender: &mut C, run: &Run, kill: impl Fn(&Run, i64), id: &str) {
    let ended = contender.transaction(|work| {
        work.insert("before")?;
        kill(run, work.number(id)?);
        run.swallow("INSERT", work.insert("after"));
        run.swallow("INSERT", work.insert("after that"));
        Ok(())
    });
    run.swallow("transaction", ended);
}

pub(super) fn killed_before_commit<C: Contender>(contender: &mut C, run: &Run, kill: impl Fn(&Run, i64), id: &str) {
    let ended = contender.transaction(|work| {
        run.note("INSERT", work.insert("row"))?;
        kill(run, work.number(id)?);
        Ok(())
    });
    run.swallow("transaction", ended);
}

// ---- connections of a pool ----

pub(super) const IS_BROKEN: (&str, &str) =
    ("`is_broken`", "https://docs.rs/diesel/2.3.14/diesel/r2d2/trait.R2D2Connection.html#method.is_broken");
pub(super) const TRANSACTION_MANAGER: (&str, &str) =
    ("`TransactionManager`", "https://docs.rs/diesel/2.3.14/diesel/connection/trait.TransactionManager.html");

pub(super) fn returned_open_bare(_: &mut Bare, run: &Run) {
    let pool = pool_of_one(run);
    let mut conn = pool.get().unwrap();
    AnsiTransactionManager::begin_transaction(&mut *conn).unwrap();
    run.note("INSERT", conn.insert("left")).unwrap();
    drop(conn);
    nobody_ended_it();
    run.swallow("next user", whole(|| pool.get().unwrap().transaction(|conn| conn.insert("next"))));
}

pub(super) fn returned_open_ours(ours: &mut Ours, run: &Run) {
    let mut session = ours.0.current().unwrap();
    run.note("INSERT", session.insert("left")).unwrap();
    drop(session);
    ours.0.remove();
    nobody_ended_it();
    run.swallow("next user", ours.transaction(|session| session.insert("next").map(drop)));
}

/// What a connection that goes back had open is nobody's any more, and to be stored by nobody.
fn nobody_ended_it() {
    LEDGER.with_borrow_mut(|ledger| ledger.undo(0));
}

/// Open by text, which Diesel does not count.
pub(super) fn returned_open_by_text_bare(_: &mut Bare, run: &Run) {
    let pool = pool_of_one(run);
    let mut conn = pool.get().unwrap();
    run.note("`BEGIN`", conn.text("BEGIN")).unwrap();
    run.note("INSERT", conn.insert("left")).unwrap();
    drop(conn);
    nobody_ended_it();
    run.swallow("next user", whole(|| pool.get().unwrap().transaction(|conn| conn.insert("next"))));
}

pub(super) fn returned_open_by_text_ours(ours: &mut Ours, run: &Run) {
    let session = ours.0.current_with(diesel_session::autocommit()).unwrap();
    let lent = session.with_connection(|conn| {
        conn.text("BEGIN")?;
        conn.insert("left")
    });
    run.swallow("`BEGIN` and INSERT on the lent connection", lent);
    drop(session);
    ours.0.remove();
    nobody_ended_it();
    run.swallow("next user", ours.transaction(|session| session.insert("next").map(drop)));
}

/// Two begins, one commit.
pub(super) fn savepoint_left_open_bare(_: &mut Bare, run: &Run) {
    let pool = pool_of_one(run);
    let mut conn = pool.get().unwrap();
    for text in ["outer", "inner"] {
        AnsiTransactionManager::begin_transaction(&mut *conn).unwrap();
        conn.insert(text).unwrap();
    }
    run.swallow("commit", whole(|| AnsiTransactionManager::commit_transaction(&mut *conn)));
}

pub(super) fn savepoint_left_open_ours(ours: &mut Ours, run: &Run) {
    let mut session = ours.0.current().unwrap();
    session.insert("outer").unwrap();
    let savepoint = session.begin_nested().unwrap();
    session.insert("inner").unwrap();
    run.swallow("commit", whole(|| session.commit()));
    drop(savepoint);
}

fn pool_of_one(run: &Run) -> Pool<ConnectionManager<Conn>> {
    Pool::builder().max_size(1).build(ConnectionManager::new(&run.database.url)).unwrap()
}
