//! What the files of the suite share: which database it is, a log of what was sent, and connections that die.

use std::cell::RefCell;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_session::{EngineBuilder, Error, Kind, Session as AnySession, SessionState};

use super::db::{self, Conn, Database, Registry, Session, insert, stored};
use super::notes;

/// Which database this copy of the suite runs on.
pub(crate) fn kind() -> Kind {
    match db::NAME {
        "PostgreSQL" => Kind::Postgres,
        "MySQL/MariaDB" => Kind::Mysql,
        _ => Kind::Sqlite,
    }
}

/// One of three texts, for the database at hand.
pub(crate) fn sql<'a>(sqlite: &'a str, postgres: &'a str, mysql: &'a str) -> &'a str {
    match kind() {
        Kind::Postgres => postgres,
        Kind::Mysql => mysql,
        _ => sqlite,
    }
}

/// One number of a query made of text.
pub(crate) fn number(session: &Session, query: &str) -> diesel_session::Result<i64> {
    session.get_result(diesel::dsl::sql::<BigInt>(query))
}

/// The error's name, without what it carries.
pub(crate) fn name_of(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// The name of the error, or `Ok`.
pub(crate) fn answer<T>(result: &diesel_session::Result<T>) -> String {
    result.as_ref().map_or_else(name_of, |_| "Ok".to_owned())
}

/// Nothing is left behind: the sessions of this thread are gone and no connection is in use.
pub(crate) fn nothing_in_use(registry: &Registry) {
    assert_eq!(registry.engine().connections_in_use().len(), 0, "{}", db::NAME);
    assert_eq!(registry.engine().write_gate().len(), 0, "{}", db::NAME);
}

/// The session's next unit of work goes well, and it alone is stored beside `before`.
pub(crate) fn goes_on(registry: &Registry, session: &Session, before: &[&str]) {
    assert_eq!(session.state(), SessionState::Idle);
    nothing_in_use(registry);
    insert(session, "~ next").unwrap();
    session.commit().unwrap();
    let mut expected = before.to_vec();
    expected.push("~ next");
    assert_eq!(stored(registry), expected, "{}", db::NAME);
    registry.remove();
    nothing_in_use(registry);
}

// ---- what was sent ----

thread_local! {
    static SENT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl Instrumentation for Log {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            SENT.with_borrow_mut(|sent| sent.push(query.to_string()));
        }
    }
}

/// Connections of this engine write down what they are asked to send.
pub(crate) fn logged(builder: EngineBuilder<Conn>) -> EngineBuilder<Conn> {
    builder.instrumentation(|| Box::new(Log))
}

/// What this thread has sent while `f` ran, on connections that are [`logged`].
pub(crate) fn sent(f: impl FnOnce()) -> Vec<String> {
    SENT.with_borrow_mut(Vec::clear);
    f();
    SENT.take()
}

// ---- connections that die, transactions that are lost ----

/// The server's number of the session's connection.
pub(crate) fn connection_id(session: &Session) -> i64 {
    number(session, sql("", "SELECT pg_backend_pid()::bigint", "SELECT CAST(connection_id() AS SIGNED)")).unwrap()
}

/// The server closes connection `id`; returns when it is gone.
pub(crate) fn kill(database: &Database, id: i64) {
    let engine = database.builder().build().unwrap();
    let session = AnySession::new(&engine);
    match kind() {
        Kind::Postgres => {
            let gone = format!("SELECT pg_terminate_backend({id}, 10000)::int::bigint");
            assert_eq!(number(&session, &gone).unwrap(), 1);
        }
        Kind::Mysql => {
            session.batch_execute(&format!("KILL {id}")).unwrap();
            let alive = format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id}");
            let started = std::time::Instant::now();
            while number(&session, &alive).unwrap() > 0 {
                assert!(started.elapsed().as_secs() < 10, "the connection did not die");
                std::thread::yield_now();
            }
        }
        _ => unreachable!("SQLite has no connection that somebody else could close"),
    }
    session.rollback().unwrap();
}

/// SQLite: a constraint that rolls the whole transaction back, in the middle of a statement of the session's own.
pub(crate) fn insert_or_rollback(session: &Session, text: &str) -> diesel_session::Result<usize> {
    session.execute(diesel::sql_query(format!("INSERT OR ROLLBACK INTO notes (text, n) VALUES ('{text}', 0)")))
}

/// MySQL/MariaDB: makes the session the victim of a deadlock (1213), and gives its answer. The rows `mine` and `theirs`
/// must be stored. InnoDB rolls back the transaction that changed less, so the other one changes more.
pub(crate) fn deadlock(session: &Session, registry: &Registry) -> diesel_session::Result<usize> {
    let set =
        |text: &'static str, n: i32| diesel::update(notes::table.filter(notes::text.eq(text))).set(notes::n.eq(n));
    // By the index: a scan of so small a table would lock more than the row and the gap before it.
    let lock =
        |text: &str| diesel::sql_query(format!("UPDATE notes FORCE INDEX (text) SET n = 3 WHERE text = '{text}'"));
    session.execute(lock("mine")).unwrap();
    let (locked, is_locked) = std::sync::mpsc::channel();
    let other = registry.clone();
    std::thread::scope(|scope| {
        let rival = scope.spawn(move || {
            let session = Session::new(other.engine());
            session.execute(lock("theirs")).unwrap();
            for i in 0..200 {
                insert(&session, &format!("weight {i}")).unwrap();
            }
            locked.send(()).unwrap();
            session.execute(lock("mine")).unwrap();
            session.rollback().unwrap();
        });
        is_locked.recv().unwrap();
        let result = session.execute(set("theirs", 1));
        rival.join().unwrap();
        result
    })
}
