//! Routes that only the demo mounts: handlers that behave badly.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use diesel::prelude::*;
use diesel_session::read_only;

use crate::database::{Database, Registry, Session};
use crate::error::{Result, ServiceError};
use crate::layer::handler;
use crate::model::NewUser;
use crate::requests::Body;
use crate::schema::users;

pub(super) fn routes(database: &Database) -> Router {
    Router::new()
        .route("/demo/panic", post(handler(database, insert_and_panic)))
        .route("/demo/forget", post(forget).get(count).with_state(database.registry().clone()))
        .route("/demo/hold", get(handler(database, hold)).post(handler(database, hold)))
}

#[expect(clippy::panic, reason = "panicking is what it is for")]
fn insert_and_panic(Body(new): Body<NewUser>) -> Result<StatusCode> {
    Session::current()?.insert_now(new)?;
    panic!("a handler of the demo panics after its INSERT, as it was asked to");
}

/// Takes no part in the layer: asks the registry for a session on some blocking thread, inserts, and leaves it open. (On a
/// database thread it could not: a job's session ends with the job.)
async fn forget(State(registry): State<Registry>, Body(new): Body<NewUser>) -> axum::response::Response {
    let work = tokio::task::spawn_blocking(move || -> Result<StatusCode> {
        registry.current()?.insert_now(new)?;
        Ok(StatusCode::CREATED)
    });
    work.await.unwrap_or(Err(ServiceError::Panicked)).into_response()
}

/// Another one on blocking threads, which does it well: `request` is a job boundary. A session that an earlier request left
/// open on this thread is rolled back first.
async fn count(State(registry): State<Registry>) -> axum::response::Response {
    let work = tokio::task::spawn_blocking(move || -> Result<Json<i64>> {
        registry.request(read_only(), |session| Ok(Json(session.get_result(users::table.count())?)))
    });
    work.await.unwrap_or(Err(ServiceError::Panicked)).into_response()
}

/// Opens its transaction and keeps it until the demo lets go. A GET keeps a thread for reads, where there are such, a
/// POST one for writes.
fn hold((): ()) -> Result<StatusCode> {
    let session = Session::current()?;
    session.get_result::<i64>(users::table.count())?;
    HOLD.enter();
    Ok(StatusCode::NO_CONTENT)
}

/// Where handlers wait and how the demo knows that they do.
pub(super) static HOLD: Hold =
    Hold { state: Mutex::new(HoldState { inside: 0, is_open: false }), changed: Condvar::new() };

pub(super) struct Hold {
    state: Mutex<HoldState>,
    changed: Condvar,
}

struct HoldState {
    inside: usize,
    is_open: bool,
}

impl Hold {
    /// So long at most, so that a demo that failed does not leave anybody inside.
    const LONGEST: Duration = Duration::from_secs(30);

    fn enter(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.inside += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, Self::LONGEST, |state| !state.is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.inside -= 1;
        self.changed.notify_all();
    }

    /// Waits until `n` handlers are inside, runs `f`, and lets them go.
    pub(super) fn while_inside<T>(&self, n: usize, f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, Self::LONGEST, |state| state.inside < n);
        let inside = waited.unwrap_or_else(PoisonError::into_inner).0.inside;
        let result = if inside == n { f() } else { Err(format!("{inside} of {n} handlers hold their connection")) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_open = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, Self::LONGEST, |state| state.inside > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_open = false;
        result
    }
}
