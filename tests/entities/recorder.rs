//! What a session sends: a recorder of the statements of a thread's connections, and a registry with tables of every shape.

use std::cell::RefCell;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_session::autocommit;

use super::db::{Conn, Database, Registry, SCHEMA, Session};
use super::shape_tables::ddl;

thread_local! {
    /// Tests have a thread each, and so have their connections.
    static SENT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Recorder;

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            SENT.with_borrow_mut(|sent| sent.push(query.to_string()));
        }
    }
}

fn recorder() -> Box<dyn Instrumentation> {
    Box::new(Recorder)
}

/// Every statement that `f` sends, as Diesel shows it.
pub(crate) fn texts<R>(f: impl FnOnce() -> R) -> Vec<String> {
    SENT.take();
    drop(f());
    SENT.take()
}

/// What `f` sends to the tables, in short and in order: `INSERT users`, `UPDATE users email version` with the columns that are
/// set, `DELETE users`, `SELECT users`. Neighbours that are the same count once: where one database takes many rows in a
/// statement, another takes them one by one. Questions for the next free key are left out.
pub(crate) fn sent<R>(f: impl FnOnce() -> R) -> Vec<String> {
    let mut steps: Vec<String> = texts(f).iter().filter_map(|text| step(text)).collect();
    steps.dedup();
    steps
}

/// As [`sent`], without what is only read.
pub(crate) fn written<R>(f: impl FnOnce() -> R) -> Vec<String> {
    let mut steps: Vec<_> = sent(f).into_iter().filter(|step| !step.starts_with("SELECT")).collect();
    steps.dedup();
    steps
}

/// How many of the statements that `f` sends begin with this.
pub(crate) fn count<R>(start: &str, f: impl FnOnce() -> R) -> usize {
    texts(f).iter().filter_map(|text| step(text)).filter(|step| step.starts_with(start)).count()
}

fn name(text: &str) -> String {
    let end = text.find([' ', '(']).unwrap_or(text.len());
    text[..end].trim_start_matches("t.").trim_matches(['"', '`']).to_owned()
}

fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_once(word).map(|(_, rest)| rest)
}

fn step(text: &str) -> Option<String> {
    let text = text.split(" -- binds:").next().unwrap_or_default();
    let (verb, rest) = text.split_once(' ')?;
    match verb {
        "INSERT" => Some(format!("INSERT {}", name(after(rest, "INTO ")?))),
        "DELETE" => Some(format!("DELETE {}", name(after(rest, "FROM ")?))),
        "UPDATE" => {
            let table = name(after(rest, "STRAIGHT_JOIN ").unwrap_or(rest));
            let set = after(rest, " SET ")?;
            let set = set.split(" WHERE ").next()?.split(" FROM (VALUES").next()?.split(" FROM unnest(").next()?;
            let columns: Vec<_> = set.split(", ").map(name).collect();
            Some(format!("UPDATE {table} {}", columns.join(" ")))
        }
        "SELECT"
            if rest.starts_with("COALESCE((SELECT max")
                || rest.starts_with("(SELECT count(*)")
                || rest.contains("LAST_INSERT_ID()") =>
        {
            None
        }
        "SELECT" => {
            after(rest, " FROM ").map(name).filter(|table| !table.is_empty()).map(|table| format!("SELECT {table}"))
        }
        _ => None,
    }
}

/// A registry with every table, whose statements are recorded.
pub(crate) struct Stage {
    pub(crate) registry: Registry,
    _database: Database,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let database = Database::new();
        let engine = database.builder().max_size(4).instrumentation(recorder).build().unwrap();
        let session = Session::with_options(&engine, autocommit()).unwrap();
        session.batch_execute(SCHEMA).unwrap();
        session.batch_execute(&ddl(SCHEMA)).unwrap();
        Self { registry: Registry::new(engine), _database: database }
    }

    pub(crate) fn session(&self) -> Session {
        Session::new(self.registry.engine())
    }

    /// What is stored, seen by a session of its own.
    pub(crate) fn stored<'q, T>(&self, query: impl diesel::query_dsl::methods::LoadQuery<'q, Conn, T>) -> Vec<T> {
        self.registry.read(|session| session.load(query)).unwrap()
    }

    /// Stores what `f` adds.
    pub(crate) fn store<R>(&self, f: impl FnOnce(&Session) -> R) -> R {
        let session = self.session();
        let result = f(&session);
        session.commit().unwrap();
        result
    }
}

/// Somebody else's change to rows that a session has in hand: through its own connection, where it flushes nothing first.
pub(crate) fn behind_the_back(session: &Session, sql: &str) {
    session.no_autoflush(|| session.execute(diesel::sql_query(sql.to_owned()))).unwrap();
}

/// MySQL or MariaDB.
pub(crate) fn is_mysql() -> bool {
    SCHEMA.contains("AUTO_INCREMENT")
}

pub(crate) fn is_postgres() -> bool {
    SCHEMA.contains("SERIAL")
}

pub(crate) fn is_sqlite() -> bool {
    !is_mysql() && !is_postgres()
}
