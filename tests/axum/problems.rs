//! The ready-made error type, and the status of an error.

use std::fmt::{Debug, Write};
use std::sync::Mutex;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use diesel::prelude::*;
use diesel_session::axum::{Problem, status_of};
use diesel_session::{Error, Executor, Result, RetryPolicy, TransactionOptions};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::db::{Conn, Database, Session, insert};
use super::support::notes;
use super::{ask, text};

/// Runs statements that fail; gives the error.
fn failed(executor: &Executor<Conn>, f: impl FnOnce(&Session) -> Result<()> + Send + 'static) -> Error {
    executor.run(f).wait().unwrap_err()
}

#[test]
fn each_kind_of_error_has_its_status() {
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let ddl = "CREATE TABLE parts (note INTEGER NOT NULL, FOREIGN KEY (note) REFERENCES notes (id))";
    let session = Session::with_options(executor.registry().engine(), diesel_session::autocommit()).unwrap();
    session.batch_execute(ddl).unwrap();
    drop(session);
    executor.run(|session| insert(session, "twice")).wait().unwrap();

    let unique = failed(&executor, |session| insert(session, "twice").map(drop));
    assert_eq!(status_of(&unique), StatusCode::CONFLICT, "{unique}");
    let foreign = failed(&executor, |session| {
        session.execute(diesel::sql_query("INSERT INTO parts (note) VALUES (77)")).map(drop)
    });
    assert_eq!(status_of(&foreign), StatusCode::CONFLICT, "{foreign}");
    let swallowed = failed(&executor, |session| {
        let _ = insert(session, "twice");
        Ok(())
    });
    assert_eq!(status_of(&swallowed), StatusCode::CONFLICT, "the first cause counts: {swallowed}");
    let missing =
        failed(&executor, |session| session.first::<i32, _>(notes::table.find(77).select(notes::n)).map(drop));
    assert_eq!(status_of(&missing), StatusCode::NOT_FOUND, "{missing}");
    let nonsense = failed(&executor, |session| session.batch_execute("this is not SQL"));
    assert_eq!(status_of(&nonsense), StatusCode::INTERNAL_SERVER_ERROR, "{nonsense}");

    let stale = Error::StaleData { table: "notes", expected: 1, matched: 0, keys: vec!["1".into()] };
    let gone = Error::RowGone { table: "notes", key: "1".into() };
    let full = Error::QueueFull { queued: 1, waited: std::time::Duration::ZERO };
    for (error, status) in [(stale, 409), (gone, 409), (full, 503), (Error::ShutDown, 503), (Error::ReadOnly, 500)] {
        assert_eq!(status_of(&error).as_u16(), status, "{error}");
        let response = Problem::from(error).into_response();
        assert_eq!(
            (response.status().as_u16(), response.headers().contains_key("retry-after")),
            (status, status == 503)
        );
    }
}

/// Keeps every word that is logged.
struct Log;

static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Words;

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(LOGGED.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Words);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn failing_in_a_hook() -> Result<()> {
    Session::registry()?.transaction(|session| session.batch_execute("SELECT canary FROM canary"))
}

#[tokio::test]
async fn a_problem_gives_away_no_word_of_the_database_neither_to_the_client_nor_to_the_log() {
    fn raw(sql: String) -> Result<StatusCode, Problem> {
        Session::current()?.execute(diesel::sql_query(sql))?;
        Ok(StatusCode::OK)
    }
    fn panics() -> Result<(), Problem> {
        panic!("canary")
    }

    tracing::subscriber::set_global_default(Log).unwrap();
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router =
        Router::new().route("/", post(executor.handler(raw))).route("/panic", post(executor.handler(panics)));
    let row = "INSERT INTO notes (text, n) VALUES ('canary', 1)";
    assert_eq!(super::post(&router, "/", row).await, StatusCode::OK);
    for (path, body, status) in [
        ("/", row, StatusCode::CONFLICT),
        ("/", "SELECT canary FROM canary", StatusCode::INTERNAL_SERVER_ERROR),
        ("/", "canary", StatusCode::INTERNAL_SERVER_ERROR),
        ("/panic", "", StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let response = ask(&router, Method::POST, path, body).await;
        assert_eq!(response.status(), status, "{body}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let text = text(response).await;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["status"], status.as_u16());
        assert!(!text.contains("canary"), "{text}");
    }
    // Nor does what is told of an attempt that failed, or of a hook.
    let policy = RetryPolicy::new(2).also(|_| true);
    let again = executor.run_with(TransactionOptions::new().retry(policy), |session| {
        session.batch_execute("SELECT canary FROM canary")
    });
    again.wait().unwrap_err();
    let hooked = executor.run(|session| -> Result<_> {
        session.on_commit(failing_in_a_hook)?;
        session.batch_execute("SELECT 1")
    });
    hooked.wait().unwrap();
    let logged = LOGGED.lock().unwrap();
    assert!(logged.contains("run again") && logged.contains("a hook failed"), "{logged}");
    assert!(logged.contains("statement at tests/axum/problems.rs"), "where it was is logged: {logged}");
    assert!(!logged.contains("canary"), "{logged}");
}
