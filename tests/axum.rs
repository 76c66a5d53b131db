//! Synchronous functions as routes of axum, on the first of SQLite, PostgreSQL and MySQL that is switched on.
#![cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::needless_pass_by_value, reason = "handlers own what they take")]

mod support;

#[path = "axum/ends.rs"]
mod ends;
#[path = "axum/extracting.rs"]
mod extracting;
#[path = "axum/layer.rs"]
mod layer;
#[path = "axum/overload.rs"]
mod overload;
#[path = "axum/problems.rs"]
mod problems;

use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use diesel_session::{Error, Executor, JobHandle};
use tower::ServiceExt;

#[cfg(all(feature = "mysql", not(any(feature = "sqlite", feature = "postgres"))))]
use support::mysql as db;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
use support::postgres as db;
#[cfg(feature = "sqlite")]
use support::sqlite_file as db;

/// Longer than any answer takes.
const LONGEST_ANSWER: Duration = Duration::from_secs(20);

fn request(method: Method, path: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(Body::from(body.to_owned())).unwrap()
}

async fn ask(router: &Router, method: Method, path: &str, body: &str) -> Response {
    let answering = router.clone().oneshot(request(method, path, body));
    tokio::time::timeout(LONGEST_ANSWER, answering).await.expect("no answer comes").unwrap()
}

async fn post(router: &Router, path: &str, body: &str) -> StatusCode {
    ask(router, Method::POST, path, body).await.status()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

/// A job that keeps a thread of the executor busy until it is let go.
struct Held {
    go: mpsc::Sender<()>,
    handle: JobHandle<(), Error>,
}

impl Held {
    fn new(executor: &Executor<db::Conn>) -> Self {
        let (go, gone) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        let handle = executor.run(move |_| {
            begun.send(()).unwrap();
            let _ = gone.recv();
            Ok(())
        });
        begins.recv().unwrap();
        Self { go, handle }
    }

    fn end(self) {
        drop(self.go);
        self.handle.wait().unwrap();
    }
}

/// One thread for everything, and as many places behind it.
fn narrow(database: &db::Database, places: usize) -> Executor<db::Conn> {
    Executor::builder(database.registry()).threads(1).readers(0).queue(places).build().unwrap()
}
