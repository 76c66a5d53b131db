//! Async handlers with one session across their awaits, which the layer ends.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use diesel_session::axum::{Problem, RequestSession, SessionLayer};
use diesel_session::{Error, Executor, LaneReport, Result};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::db::{Conn, Database, Session, insert, stored, texts};
use super::{ask, request, text};

const LONG: Duration = Duration::from_secs(600);

type InRequest = RequestSession<Conn>;

/// With two threads for sessions across awaits, which may write. No lease ends in a test.
fn executor(database: &Database) -> Executor<Conn> {
    let builder = Executor::builder(database.registry()).threads(1).readers(0).async_sessions(2).async_writers(true);
    builder.async_lease(LONG).async_writer_lease(LONG).build().unwrap()
}

fn sessions(executor: &Executor<Conn>) -> LaneReport {
    executor.inspect().lanes.into_iter().find(|lane| lane.duty == "async").unwrap()
}

async fn write(session: InRequest, text: String) -> Result<StatusCode, Problem> {
    session.run(move |session| insert(session, &text)).await?;
    Ok(StatusCode::CREATED)
}

#[tokio::test]
async fn a_good_answer_is_committed_before_it_is_there_and_another_rolled_back() {
    async fn write_and_answer(session: InRequest, status: String) -> Result<StatusCode, Problem> {
        let text = status.clone();
        session.run(move |session| insert(session, &text)).await?;
        tokio::task::yield_now().await;
        Ok(StatusCode::from_bytes(status.as_bytes()).unwrap())
    }

    let database = Database::new();
    let executor = executor(&database);
    let router: Router = Router::new().route("/", post(write_and_answer)).layer(SessionLayer::new(executor.clone()));
    for status in ["103", "200", "303", "404", "500"] {
        assert_eq!(super::post(&router, "/", status).await.as_str(), status);
        let are_there = stored(executor.registry()).contains(&status.to_owned());
        assert_eq!(are_there, ("200".."400").contains(&status), "{status}");
    }
    let sessions = sessions(&executor);
    assert_eq!((sessions.running.len(), sessions.succeeded, sessions.failed), (0, 2, 3));
}

#[tokio::test]
async fn a_request_has_one_session_and_none_if_it_does_not_use_it() {
    async fn unused(_: InRequest) -> &'static str {
        "unused"
    }
    async fn both(one: InRequest, other: InRequest) -> Result<String, Problem> {
        let id = |session: &Session| -> Result<_> { Ok((session.id(), Session::current()? == *session)) };
        let (a, b) = tokio::join!(one.run(id), other.run(id));
        Ok((a? == b?).to_string())
    }

    let database = Database::new();
    let executor = executor(&database);
    let router: Router = Router::new()
        .route("/unused", get(unused))
        .route("/both", get(both))
        .layer(SessionLayer::new(executor.clone()));
    assert_eq!(text(ask(&router, Method::GET, "/unused", "").await).await, "unused");
    assert_eq!(sessions(&executor).submitted, 0);
    assert_eq!(text(ask(&router, Method::GET, "/both", "").await).await, "true");
    assert_eq!(sessions(&executor).submitted, 1);
}

#[tokio::test]
async fn get_and_head_only_read() {
    async fn list(session: InRequest) -> Result<String, Problem> {
        session.run(|session| Ok(texts(session).join(","))).await
    }

    let database = Database::new();
    let executor = executor(&database);
    let router: Router = Router::new()
        .route("/", get(list).post(write))
        .route("/bad", get(write))
        .layer(SessionLayer::new(executor.clone()));
    assert_eq!(super::post(&router, "/", "a").await, StatusCode::CREATED);
    assert_eq!(text(ask(&router, Method::GET, "/", "").await).await, "a");
    assert_eq!(ask(&router, Method::HEAD, "/", "").await.status(), StatusCode::OK);
    assert!(ask(&router, Method::GET, "/bad", "b").await.status().is_server_error());
    assert_eq!(stored(executor.registry()), ["a"]);
}

#[tokio::test]
async fn the_commits_error_is_the_answer_in_the_layers_own_words() {
    struct Mine(Error);

    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Self(error)
        }
    }

    impl IntoResponse for Mine {
        fn into_response(self) -> Response {
            (diesel_session::axum::status_of(&self.0), "in my words").into_response()
        }
    }

    /// Nothing is sent before the commit's flush.
    async fn create(session: InRequest, text: String) -> Result<StatusCode, Problem> {
        session.run(move |session| super::ends::create_later(session, text)).await?;
        Ok(StatusCode::CREATED)
    }

    let database = Database::new();
    let executor = executor(&database);
    let layer = SessionLayer::new(executor.clone()).errors::<Mine>();
    let router: Router = Router::new().route("/", post(create)).layer(layer);
    let (a, b) = tokio::join!(ask(&router, Method::POST, "/", "one"), ask(&router, Method::POST, "/", "one"));
    let (good, bad) = if a.status() == StatusCode::CREATED { (a, b) } else { (b, a) };
    assert_eq!((good.status(), bad.status()), (StatusCode::CREATED, StatusCode::CONFLICT));
    assert_eq!(text(bad).await, "in my words");
    assert_eq!(stored(executor.registry()), ["one"]);
}

#[tokio::test]
async fn a_panic_and_a_client_that_goes_away_roll_back_whoever_still_has_the_session() {
    let database = Database::new();
    let executor = executor(&database);
    let (written, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits) = (Arc::clone(&written), Arc::clone(&never));
    let hang = move |session: InRequest| async move {
        session.run(|session| insert(session, "gone")).await?;
        let kept = session.clone();
        let forever = Arc::clone(&waits);
        tokio::spawn(async move {
            forever.notified().await;
            drop(kept);
        });
        says.notify_one();
        waits.notified().await;
        Ok::<_, Problem>(())
    };
    let panics = |session: InRequest| async move {
        let inserted: Result<usize> = session.run(|session| insert(session, "panic")).await;
        panic!("after {inserted:?}");
        #[allow(unreachable_code, reason = "it gives the type")]
        ""
    };
    let router: Router = Router::new()
        .route("/hang", post(hang))
        .route("/panic", post(panics))
        .layer(SessionLayer::new(executor.clone()));

    let asked = tokio::spawn(router.clone().oneshot(request(Method::POST, "/panic", "")));
    assert!(asked.await.unwrap_err().is_panic());
    let mut hanging = Box::pin(router.clone().oneshot(request(Method::POST, "/hang", "")));
    tokio::select! {
        biased;
        _ = &mut hanging => panic!("it has an answer"),
        () = written.notified() => {}
    }
    assert!(hanging.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(hanging);
    // Waits for both threads to be rid of their sessions.
    executor.shutdown(Duration::from_secs(20)).unwrap();
    let sessions = sessions(&executor);
    assert_eq!((sessions.succeeded, sessions.failed), (0, 2));
    assert!(stored(executor.registry()).is_empty());
    never.notify_waiters();
}

#[tokio::test]
async fn without_a_layer_it_is_500_and_without_a_session_503() {
    let database = Database::new();
    let executor = executor(&database);
    let bare: Router = Router::new().route("/", post(write));
    assert_eq!(super::post(&bare, "/", "a").await, StatusCode::INTERNAL_SERVER_ERROR);

    async fn takes_it_for_a_bad_request(session: InRequest) -> StatusCode {
        let inserted: Result<usize> = session.run(|session| insert(session, "a")).await;
        if inserted.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
    }

    let layer = SessionLayer::new(executor.clone());
    let layered: Router = Router::new().route("/", post(takes_it_for_a_bad_request)).layer(layer);
    executor.shutdown(Duration::from_secs(20)).unwrap();
    let refused = ask(&layered, Method::POST, "/", "a").await;
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    assert!(stored(executor.registry()).is_empty());
}

#[tokio::test]
async fn who_waits_for_the_session_gets_it_though_another_who_waited_went_away() {
    let database = Database::new();
    let executor = executor(&database);
    let taken = (executor.session().await.unwrap(), executor.session().await.unwrap());
    let waiting = Arc::new(Notify::new());
    let waits = Arc::clone(&waiting);
    let handler = move |session: InRequest| async move {
        let stays = session.run(|session| insert(session, "stays"));
        let mut leaves = Box::pin(session.run(|session| insert(session, "leaves")));
        // The second asks last, and goes.
        let comes_and_goes = async {
            assert!(leaves.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(leaves);
            waits.notify_one();
        };
        tokio::join!(stays, comes_and_goes).0?;
        Ok::<_, Problem>(())
    };
    let router: Router = Router::new().route("/", post(handler)).layer(SessionLayer::new(executor.clone()));
    // A task of its own, which wakes nobody else.
    let frees = tokio::spawn(async move {
        waiting.notified().await;
        drop(taken);
    });
    assert_eq!(super::post(&router, "/", "").await, StatusCode::OK);
    frees.await.unwrap();
    assert_eq!(stored(executor.registry()), ["stays"]);
}

#[tokio::test]
async fn after_the_answer_the_session_is_closed() {
    let database = Database::new();
    let executor = executor(&database);
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
    let keeps = move |session: InRequest| async move {
        tell.lock().unwrap().take().unwrap().send(session.clone()).unwrap();
        session.run(|session| insert(session, "in time")).await?;
        Ok::<_, Problem>(())
    };
    let router: Router = Router::new().route("/", post(keeps)).layer(SessionLayer::new(executor.clone()));
    assert_eq!(super::post(&router, "/", "").await, StatusCode::OK);
    let kept = told.await.unwrap();
    let late: Result<usize> = kept.run(|session| insert(session, "late")).await;
    assert!(matches!(late, Err(Error::SessionClosed { .. })), "{late:?}");
    assert_eq!(stored(executor.registry()), ["in time"]);
}
