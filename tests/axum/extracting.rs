//! What a function takes from its request.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Json, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use diesel_session::Executor;
use diesel_session::axum::Problem;
use serde::Deserialize;

use super::db::{Database, Session, stored};
use super::{ask, text};

type Result<T> = std::result::Result<T, Problem>;

#[derive(Deserialize)]
struct Numbers {
    a: i32,
    b: i32,
}

/// Refuses everybody who is not ann.
struct Ann;

impl<S: Send + Sync> FromRequestParts<S> for Ann {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Self::Rejection> {
        if parts.headers.get("x-user").is_some_and(|user| user == "ann") {
            Ok(Self)
        } else {
            Err((StatusCode::IM_A_TEAPOT, "only for ann"))
        }
    }
}

#[tokio::test]
async fn functions_take_what_axum_handlers_take() {
    fn nothing() -> Result<&'static str> {
        Ok("nothing")
    }
    fn all(
        State(state): State<&'static str>,
        method: Method,
        Path(id): Path<i32>,
        Query(of): Query<Numbers>,
        Json(body): Json<Numbers>,
    ) -> Result<String> {
        Ok(format!("{state} {method} {id} {} {} {} {}", of.a, of.b, body.a, body.b))
    }
    #[allow(clippy::too_many_arguments, reason = "as many as there may be")]
    fn sixteen(
        _: Method,
        _: Uri,
        _: Method,
        _: Uri,
        _: Method,
        _: Uri,
        _: Method,
        _: Uri,
        _: Method,
        _: Uri,
        _: Method,
        _: Uri,
        _: Method,
        _: Uri,
        last_but_one: Method,
        body: Bytes,
    ) -> Result<String> {
        Ok(format!("{last_but_one} {}", body.len()))
    }

    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let word = "in a closure";
    let router: Router = Router::new()
        .route("/nothing", get(executor.handler(nothing)))
        .route("/all/{id}", post(executor.handler(all)))
        .route("/sixteen", post(executor.handler(sixteen)))
        .route("/closure", get(executor.handler(move || -> Result<&str> { Ok(word) })))
        .fallback(
            executor
                .handler(|uri: Uri| -> Result<(StatusCode, String)> { Ok((StatusCode::NOT_FOUND, uri.to_string())) }),
        )
        .with_state("the state");
    assert_eq!(text(ask(&router, Method::GET, "/nothing", "").await).await, "nothing");
    let all = ask(&router, Method::POST, "/all/7?a=1&b=2", r#"{"a": 3, "b": 4}"#).await;
    assert_eq!(text(all).await, "the state POST 7 1 2 3 4");
    assert_eq!(text(ask(&router, Method::POST, "/sixteen", "12345").await).await, "POST 5");
    assert_eq!(text(ask(&router, Method::GET, "/closure", "").await).await, word);
    assert_eq!(text(ask(&router, Method::GET, "/no/where", "").await).await, "/no/where");
}

#[tokio::test]
async fn what_an_extractor_refuses_is_answered_without_a_job() {
    fn taken(_: Ann, Path(id): Path<i32>, Json(body): Json<Numbers>) -> Result<String> {
        Ok(format!("{id} {} {}", body.a, body.b))
    }

    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new()
        .route("/ann/{id}", post(executor.handler(taken)))
        .route("/{id}", post(executor.handler(|Path(_): Path<i32>, Json(_): Json<Numbers>| -> Result<()> { Ok(()) })));
    let response = ask(&router, Method::POST, "/ann/1", r#"{"a": 1, "b": 2}"#).await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(text(response).await, "only for ann");
    for (path, body, status) in [
        ("/one", "{}", StatusCode::BAD_REQUEST),
        ("/1", "{", StatusCode::BAD_REQUEST),
        ("/1", "{}", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(super::post(&router, path, body).await, status, "{path} {body}");
    }
    assert_eq!(executor.inspect().lanes[0].submitted, 0);
}

#[tokio::test]
async fn the_current_session_in_a_function_is_its_requests_own() {
    fn look() -> Result<String> {
        let session = Session::current()?;
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        Ok(format!("{} {} {}", session.id(), session.in_transaction(), name.starts_with("database ")))
    }

    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new().route("/", get(executor.handler(look)));
    let first = text(ask(&router, Method::GET, "/", "").await).await;
    let second = text(ask(&router, Method::GET, "/", "").await).await;
    assert!(first.ends_with(" true true") && second.ends_with(" true true"), "{first}, {second}");
    assert_ne!(first, second, "each request has a session of its own");
    assert!(stored(executor.registry()).is_empty());
}

#[tokio::test]
async fn a_function_finds_the_runtime_of_its_request() {
    let (told, tells) = tokio::sync::oneshot::channel();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Some(told)));
    let later = move || -> Result<StatusCode> {
        let told = told.lock().unwrap().take().unwrap();
        // As a WebSocket's upgrade and the timer of server-sent events do.
        let timer = tokio::time::sleep(std::time::Duration::from_millis(1));
        tokio::spawn(async move {
            timer.await;
            told.send(()).unwrap();
        });
        Ok(StatusCode::ACCEPTED)
    };
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let router: Router = Router::new().route("/", get(executor.handler(later)));
    assert_eq!(ask(&router, Method::GET, "/", "").await.status(), StatusCode::ACCEPTED);
    tells.await.unwrap();
}
