//! A synchronous function as an axum handler: one request, one job, one transaction.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;

use ::axum::extract::Request;
use ::axum::handler::Handler;
use ::axum::http::{HeaderValue, StatusCode, header};
use ::axum::response::{IntoResponse, Response};
use tokio::runtime;

use super::function::UnitFunction;
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::options::{TransactionOptions, read_only};
use crate::place::Place;
use crate::session::Session;

/// How soon a client may try again after a 503, in seconds.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An axum handler that runs a synchronous function as a job of an executor: see
/// [`Executor::handler`](crate::Executor::handler) and the [module](crate::axum).
///
/// Goes wherever axum takes a handler: `get(…)`, `post(…)`, `any(…)`, `Handler::layer`, a fallback.
#[must_use = "it is given to a route: `post(executor.handler(function))`"]
pub struct UnitHandler<C: SessionConnection, F> {
    executor: Executor<C>,
    function: F,
    options: Option<TransactionOptions>,
    place: Place,
}

impl<C: SessionConnection, F: Clone> Clone for UnitHandler<C, F> {
    fn clone(&self) -> Self {
        let Self { executor, function, options, place } = self;
        Self { executor: executor.clone(), function: function.clone(), options: *options, place }
    }
}

impl<C: SessionConnection, F> fmt::Debug for UnitHandler<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitHandler")
            .field("options", &self.options)
            .field("made_at", self.place)
            .finish_non_exhaustive()
    }
}

impl<C: SessionConnection> Executor<C> {
    /// The function as an axum handler, each call a job of [`run`](Executor::run): see [`axum`](crate::axum). Reports name
    /// this line as the job's.
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    #[track_caller]
    pub fn handler<F>(&self, function: F) -> UnitHandler<C, F> {
        UnitHandler { executor: self.clone(), function, options: None, place: Location::caller() }
    }

    /// As [`handler`](Executor::handler), each call a job of [`run_read`](Executor::run_read), for routes that only read: a
    /// write in it is refused ([`Error::ReadOnly`]).
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    #[track_caller]
    pub fn read_handler<F>(&self, function: F) -> UnitHandler<C, F> {
        self.handler(function).options(read_only())
    }
}

impl<C: SessionConnection, F> UnitHandler<C, F> {
    /// Options for each transaction, in the place of all that were set before; read-only ones bring it to the threads for
    /// reads. The [time-out](TransactionOptions::timeout) runs from when the request has been read, so also while the job
    /// waits. Options that the database does not have are answered as errors of the function. With
    /// [`autocommit()`](crate::autocommit) every statement is stored at once, whatever is answered.
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = Some(options);
        self
    }
}

impl<C, F, M, S> Handler<M, S> for UnitHandler<C, F>
where
    C: SessionConnection,
    F: UnitFunction<M, S>,
    M: 'static,
    S: Send + Sync + 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, state: S) -> Self::Future {
        Box::pin(async move {
            let Self { executor, function, options, place } = self;
            let arguments = match F::extract(request, state).await {
                Ok(arguments) => arguments,
                Err(refused) => return refused,
            };
            // What makes a response may want the runtime that will send it: a WebSocket's task, the timer of Sse.
            let runtime = runtime::Handle::try_current().ok();
            let job = move |session: &Session<C>| {
                let _entered = runtime.as_ref().map(runtime::Handle::enter);
                answer(session, || function.call(arguments))
            };
            // From here on nothing of this future's is needed: dropped, it takes back a job that has not begun.
            match executor.run_at(options, place, job).await {
                Ok(response) => response,
                Err(Instead::Response(response)) => *response,
                Err(Instead::Error(error)) => {
                    let is_overload = error.is_overload();
                    told(F::Error::from(error).into_response(), is_overload)
                }
            }
        })
    }
}

/// What is answered though nothing is committed.
enum Instead {
    /// What the function made.
    Response(Box<Response>),
    /// The executor's error, or the commit's.
    Error(Error),
}

impl From<Error> for Instead {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Calls the function on the database thread. The response is made here, before the commit: its status decides.
fn answer<C, R, E>(session: &Session<C>, function: impl FnOnce() -> Result<R, E>) -> Result<Response, Instead>
where
    C: SessionConnection,
    R: IntoResponse,
    E: IntoResponse,
{
    let response = match function() {
        Ok(value) => value.into_response(),
        Err(error) => {
            let response = told(error.into_response(), session.core().met_overload());
            return Err(Instead::Response(Box::new(response)));
        }
    };
    if is_good(&response) { Ok(response) } else { Err(Instead::Response(Box::new(response))) }
}

/// Whether this answer says that what was asked for is done. Of the informational ones only 101 is an answer; of the others
/// the server makes a 500.
pub(super) fn is_good(response: &Response) -> bool {
    let status = response.status();
    status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// An error's response, which says when to come again where there was no room or no time.
pub(super) fn told(mut response: Response, is_overload: bool) -> Response {
    if is_overload {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(RETRY_AFTER);
    }
    response
}
