//! The thin layer between async axum and synchronous handlers: one request, one blocking thread, one session.
//!
//! Which thread runs what:
//! - tokio's worker threads read the request and write the response. They never touch a session.
//! - A blocking thread runs the handler, the COMMIT or ROLLBACK after it, and makes the response. It does all of that in
//!   one go, so the session, which belongs to a thread, never moves.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequest;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use diesel_session::{TransactionOptions, read_only};
use tokio::sync::Semaphore;

use crate::database::Registry;
use crate::error::{Result, ServiceError};

#[derive(Clone)]
pub(crate) struct Layer {
    registry: Registry,
    /// As many places as there are blocking threads. tokio's own queue in front of them has no bound and no time-out, so
    /// requests queue here instead, where waiting costs no thread.
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Layer {
    pub(crate) fn new(registry: Registry, threads: usize, patience: Duration) -> Self {
        Self { registry, places: Arc::new(Semaphore::new(threads)), patience }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Makes an axum handler of a synchronous function. `I` is what the function takes from the request, several things
    /// as a tuple; `M` is axum's mark for whether that includes the body.
    pub(crate) fn handler<M, I, O>(
        &self,
        function: fn(I) -> Result<O>,
    ) -> impl Handler<(M, Method, I), ()> + use<M, I, O>
    where
        M: Send + 'static,
        I: FromRequest<(), M> + Send + 'static,
        O: IntoResponse + 'static,
    {
        let layer = self.clone();
        move |method: Method, input: I| async move { layer.run(&method, move || function(input)).await }
    }

    async fn run<O: IntoResponse>(
        self,
        method: &Method,
        function: impl FnOnce() -> Result<O> + Send + 'static,
    ) -> Response {
        // Reads take no write lock and wait for no writer; on PostgreSQL they see one snapshot.
        let options = if method.is_safe() { read_only() } else { TransactionOptions::new() };
        let Ok(Ok(place)) = tokio::time::timeout(self.patience, self.places.acquire_owned()).await else {
            return ServiceError::Busy.into_response();
        };
        let registry = self.registry;
        // From here on the work goes to its end even if the client hangs up and axum drops this future.
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            // A job boundary: a session that an earlier job left open on this thread is rolled back first. Then `function`
            // runs in a fresh one, which is committed on `Ok`, rolled back on `Err` or panic, and removed in any case.
            // If COMMIT fails, its error takes the place of the function's answer.
            registry.request(options, |_session| function()).into_response()
        });
        work.await.unwrap_or_else(|_panic| ServiceError::Panicked.into_response())
    }
}
