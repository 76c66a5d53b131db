//! No room, no time: 503 with `Retry-After`, and the database is left alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use diesel_session::{Error, Executor, TransactionOptions};

use super::db::{Database, Session, insert, stored, texts};
use super::{Held, ask, narrow, text};

/// How long a connection is waited for: by those that get none, and by those that have to get one on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

/// An error type that takes everything for a bad request.
#[derive(Debug)]
struct Mine(String);

impl From<Error> for Mine {
    fn from(error: Error) -> Self {
        let name = format!("{error:?}");
        Self(name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned())
    }
}

impl IntoResponse for Mine {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, format!("mine: {}", self.0)).into_response()
    }
}

fn write(text: String) -> Result<StatusCode, Mine> {
    insert(&Session::current()?, &text)?;
    Ok(StatusCode::CREATED)
}

async fn assert_told(response: Response, body: &str) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert_eq!(response.headers()["retry-after"], "1", "{body}");
    assert_eq!(text(response).await, body);
}

#[tokio::test]
async fn a_full_queue_is_503_and_touches_no_database() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let counting = |text: String| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        write(text)
    };
    let database = Database::new();
    let executor = narrow(&database, 1);
    let router: Router = Router::new().route("/", post(executor.handler(counting)));
    let held = Held::new(&executor);
    let waits = executor.run(|session| insert(session, "waits"));
    let before = executor.registry().inspect().counters;
    assert_told(ask(&router, Method::POST, "/", "refused").await, "mine: QueueFull").await;
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    assert_eq!(format!("{:?}", executor.registry().inspect().counters), format!("{before:?}"));
    assert_eq!(executor.inspect().lanes[0].refused, 1);
    held.end();
    waits.await.unwrap();
    assert_eq!(super::post(&router, "/", "taken").await, StatusCode::CREATED);
    assert_eq!(stored(executor.registry()), ["taken", "waits"]);
}

#[tokio::test]
async fn a_deadline_that_is_past_before_the_start_is_503() {
    let database = Database::new();
    let executor = narrow(&database, 10);
    let options = TransactionOptions::new().timeout(Duration::from_millis(20));
    let router: Router = Router::new().route("/", post(executor.handler(write).options(options)));
    let held = Held::new(&executor);
    assert_told(ask(&router, Method::POST, "/", "late").await, "mine: DeadlineExceeded").await;
    held.end();
    assert!(stored(executor.registry()).is_empty());
}

#[tokio::test]
async fn an_executor_that_is_shut_down_is_503() {
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new().route("/", post(executor.handler(write)));
    executor.shutdown(Duration::from_secs(20)).unwrap();
    assert_told(ask(&router, Method::POST, "/", "late").await, "mine: ShutDown").await;
    assert!(stored(executor.registry()).is_empty());
}

#[tokio::test]
async fn no_connection_in_time_is_503_whatever_the_function_makes_of_it() {
    /// Its own error says nothing of the session's.
    fn hides_it() -> Result<String, Mine> {
        let session = Session::current()?;
        session.batch_execute("SELECT 1").map_err(|_| Mine("in its own words".into()))?;
        Ok(texts(&session).join(","))
    }
    /// Tried something, and then found another thing to be wrong.
    fn gets_over_it() -> Result<String, Mine> {
        let _ = Session::current()?.batch_execute("SELECT 1");
        Ok("without the database".into())
    }

    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1).connection_timeout(PATIENCE));
    let executor = Executor::builder(registry).threads(1).readers(0).build().unwrap();
    let router: Router = Router::new()
        .route("/", post(executor.handler(write)))
        .route("/read", get(executor.read_handler(hides_it)))
        .route("/over", get(executor.read_handler(gets_over_it)));
    let session = Session::new(executor.registry().engine());
    insert(&session, "holds the connection").unwrap();
    let refused = ask(&router, Method::POST, "/", "refused").await;
    // On SQLite the gate is before the pool.
    let what = if cfg!(feature = "sqlite") { "mine: GateTimeout" } else { "mine: PoolTimeout" };
    assert_told(refused, what).await;
    assert_told(ask(&router, Method::GET, "/read", "").await, "mine: in its own words").await;
    let over = ask(&router, Method::GET, "/over", "").await;
    assert_eq!((over.status(), text(over).await.as_str()), (StatusCode::OK, "without the database"));
    session.rollback().unwrap();
    drop(session);
    assert_eq!(super::post(&router, "/", "later").await, StatusCode::CREATED);
    assert_eq!(stored(executor.registry()), ["later"]);
}

#[tokio::test]
async fn what_was_got_over_does_not_count() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1).connection_timeout(PATIENCE));
    let executor = Executor::builder(registry.clone()).threads(1).readers(0).build().unwrap();
    let (held, holds) = mpsc::channel();
    let (give, given) = mpsc::channel::<()>();
    let (back, is_back) = mpsc::channel();
    let holder = std::thread::spawn(move || {
        let session = Session::new(registry.engine());
        texts(&session);
        held.send(()).unwrap();
        given.recv().unwrap();
        session.rollback().unwrap();
        back.send(()).unwrap();
    });
    holds.recv().unwrap();
    let ends = Arc::new(Mutex::new((give, is_back)));
    let tries_again = move || -> Result<(), Mine> {
        let session = Session::current()?;
        session.batch_execute("SELECT 1").unwrap_err();
        let ends = ends.lock().unwrap();
        ends.0.send(()).unwrap();
        ends.1.recv().unwrap();
        session.batch_execute("SELECT 1")?;
        Err(Mine("something else".into()))
    };
    let router: Router = Router::new().route("/", get(executor.read_handler(tries_again)));
    let response = ask(&router, Method::GET, "/", "").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(!response.headers().contains_key("retry-after"));
    holder.join().unwrap();
}

#[tokio::test]
async fn another_error_keeps_the_functions_own_status() {
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new().route("/", post(executor.handler(write)));
    assert_eq!(super::post(&router, "/", "twice").await, StatusCode::CREATED);
    let second = ask(&router, Method::POST, "/", "twice").await;
    assert_eq!(second.status(), StatusCode::BAD_REQUEST);
    assert!(!second.headers().contains_key("retry-after"));
}
