//! What a request leaves in the database, and when its answer goes out.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use diesel::prelude::*;
use diesel_session::axum::Problem;
use diesel_session::{Entity, Executor, Record, Result};
use tower::ServiceExt;

use super::db::{Database, Session, insert, stored, texts};
use super::support::notes;
use super::{Held, ask, narrow, request, text};

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = notes)]
struct Note {
    id: i32,
    text: String,
    n: i32,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = notes)]
#[entity(of = Note, generated(id))]
struct NewNote {
    text: String,
    n: i32,
}

/// Nothing is sent before the commit's flush.
pub(super) fn create_later(session: &Session, text: String) -> Result<()> {
    session.add(NewNote { text, n: 0 }).map(drop)
}

fn write(text: String) -> Result<StatusCode, Problem> {
    insert(&Session::current()?, &text)?;
    Ok(StatusCode::CREATED)
}

fn list() -> Result<String, Problem> {
    Ok(texts(&Session::current()?).join(","))
}

#[tokio::test]
async fn what_was_answered_is_committed_before_the_answer_is_there() {
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new().route("/", get(executor.read_handler(list)).post(executor.handler(write)));
    let mut expected = Vec::new();
    for n in 0..20 {
        let name = format!("{n:02}");
        assert_eq!(super::post(&router, "/", &name).await, StatusCode::CREATED);
        expected.push(name);
        assert_eq!(stored(executor.registry()), expected, "another connection sees it");
        assert_eq!(text(ask(&router, Method::GET, "/", "").await).await, expected.join(","), "and the next request");
    }
    assert_eq!(executor.inspect().running(), 0);
}

#[tokio::test]
async fn an_answer_below_400_is_committed_and_every_other_and_every_err_is_rolled_back() {
    /// An error whose response looks like success.
    struct Elsewhere;

    impl From<diesel_session::Error> for Elsewhere {
        fn from(_: diesel_session::Error) -> Self {
            Self
        }
    }

    impl IntoResponse for Elsewhere {
        fn into_response(self) -> Response {
            Redirect::to("/elsewhere").into_response()
        }
    }

    fn insert_and_answer(status: String) -> Result<StatusCode, Problem> {
        insert(&Session::current()?, &status)?;
        Ok(StatusCode::from_bytes(status.as_bytes()).unwrap())
    }

    fn insert_and_fail() -> Result<(), Elsewhere> {
        insert(&Session::current()?, "err")?;
        Err(Elsewhere)
    }

    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new()
        .route("/", post(executor.handler(insert_and_answer)))
        .route("/err", post(executor.handler(insert_and_fail)));
    for status in ["100", "101", "103", "200", "204", "303", "399", "400", "404", "409", "500", "503"] {
        assert_eq!(super::post(&router, "/", status).await.as_str(), status);
    }
    assert_eq!(super::post(&router, "/err", "").await, StatusCode::SEE_OTHER);
    assert_eq!(stored(executor.registry()), ["101", "200", "204", "303", "399"]);
}

#[tokio::test]
async fn of_two_equal_creates_at_once_that_meet_at_the_commit_one_is_201_and_one_409() {
    fn create(text: String) -> Result<StatusCode, Problem> {
        create_later(&Session::current()?, text)?;
        Ok(StatusCode::CREATED)
    }

    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new().route("/", post(executor.handler(create)));
    for n in 0..10 {
        let name = format!("note {n}");
        let (a, b) = tokio::join!(super::post(&router, "/", &name), super::post(&router, "/", &name));
        let mut both = [a.as_u16(), b.as_u16()];
        both.sort_unstable();
        assert_eq!(both, [201, 409], "{name}");
    }
    assert_eq!(stored(executor.registry()).len(), 10);
}

/// MySQL has no deferred constraints.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[tokio::test]
async fn the_error_of_the_commit_itself_is_the_answer_in_the_handlers_own_words() {
    struct Mine(diesel_session::Error);

    impl From<diesel_session::Error> for Mine {
        fn from(error: diesel_session::Error) -> Self {
            Self(error)
        }
    }

    impl IntoResponse for Mine {
        fn into_response(self) -> Response {
            (diesel_session::axum::status_of(&self.0), "in my words").into_response()
        }
    }

    fn orphan() -> Result<StatusCode, Mine> {
        Session::current()?.batch_execute("INSERT INTO parts (note) VALUES (77)")?;
        Ok(StatusCode::CREATED)
    }

    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let ddl = "CREATE TABLE parts (note INTEGER NOT NULL REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)";
    executor.run(move |session| session.batch_execute(ddl)).await.unwrap();
    let router: Router = Router::new().route("/", post(executor.handler(orphan)));
    let response = ask(&router, Method::POST, "/", "").await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(text(response).await, "in my words");
    let parts = executor.run_read(|session| -> Result<i64> {
        session.get_result(diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT COUNT(*) FROM parts"))
    });
    assert_eq!(parts.await.unwrap(), 0);
}

#[tokio::test]
async fn a_panic_is_500_and_rolled_back_and_its_thread_goes_on() {
    fn insert_and_panic() -> Result<StatusCode, Problem> {
        insert(&Session::current()?, "panic")?;
        panic!("a canary")
    }

    let database = Database::new();
    let executor = narrow(&database, 10);
    let router: Router = Router::new()
        .route("/", post(executor.handler(write)))
        .route("/panic", post(executor.handler(insert_and_panic)));
    let response = ask(&router, Method::POST, "/panic", "").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!text(response).await.contains("canary"));
    assert_eq!(super::post(&router, "/", "after").await, StatusCode::CREATED);
    assert_eq!(stored(executor.registry()), ["after"]);
}

#[tokio::test]
async fn get_and_head_run_on_the_threads_for_reads_and_cannot_write() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(4));
    let executor = Executor::builder(registry).threads(1).readers(2).async_sessions(0).build().unwrap();
    let router: Router = Router::new()
        .route("/", get(executor.read_handler(list)).post(executor.handler(write)))
        .route("/bad", get(executor.read_handler(|| write("read".into()))));
    // The thread that writes is busy: who gets an answer was not there.
    let held = Held::new(&executor);
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(ask(&router, method, "/", "").await.status(), StatusCode::OK);
    }
    let refused = ask(&router, Method::GET, "/bad", "").await.status();
    assert!(refused.is_server_error(), "{refused}");
    held.end();
    let report = executor.inspect();
    let submitted: Vec<_> = report.lanes.iter().map(|lane| (lane.duty, lane.submitted)).collect();
    assert_eq!(submitted, [("work", 1), ("read", 3)]);
    assert!(stored(executor.registry()).is_empty());
}

#[tokio::test]
async fn a_client_that_goes_away_takes_back_what_has_not_begun_and_nothing_else() {
    let database = Database::new();
    let executor = narrow(&database, 10);
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let slow = move || -> Result<StatusCode, Problem> {
        begun.send(()).unwrap();
        let _ = gone.lock().unwrap().recv();
        write("begun".into())
    };
    let router: Router =
        Router::new().route("/", post(executor.handler(write))).route("/slow", post(executor.handler(slow)));

    let held = Held::new(&executor);
    let mut waiting = Box::pin(router.clone().oneshot(request(Method::POST, "/", "not begun")));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(executor.inspect().queued(), 1);
    drop(waiting);
    assert_eq!((executor.inspect().queued(), executor.inspect().lanes[0].cancelled), (0, 1));
    held.end();

    let mut running = Box::pin(router.clone().oneshot(request(Method::POST, "/slow", "")));
    assert!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    begins.recv().unwrap();
    drop(running);
    drop(go);
    executor.shutdown(Duration::from_secs(20)).unwrap();
    assert_eq!(stored(executor.registry()), ["begun"]);
}
