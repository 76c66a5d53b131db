//! The thin layer between async axum and synchronous handlers: one request, one job of the executor, one session.
//!
//! Which thread runs what:
//! - tokio's worker threads read the request and write the response. They never touch a session.
//! - A database thread runs the handler, makes the response, and runs the COMMIT or ROLLBACK after it. It does all of that
//!   in one go, so the session, which belongs to a thread, never moves.
//!
//! The crate's feature `axum` has this ready-made, with handlers of many parameters: `executor.handler(function)`; the
//! example `axum_routes` shows it. The service needs no feature but its database.

use axum::extract::FromRequest;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::IntoResponse;

use crate::database::{Database, Session};
use crate::error::Result;

/// Makes an axum handler of a synchronous function. `I` is what the function takes from the request, several things as a
/// tuple; `M` is axum's mark for whether that includes the body.
pub(crate) fn handler<M, I, O>(
    database: &Database,
    function: fn(I) -> Result<O>,
) -> impl Handler<(M, Method, I), ()> + use<M, I, O>
where
    M: Send + 'static,
    I: FromRequest<(), M> + Send + 'static,
    O: IntoResponse + 'static,
{
    let database = database.clone();
    move |method: Method, input: I| async move {
        let job = move |_: &Session| function(input).map(IntoResponse::into_response);
        // Reads take no write lock and wait for no writer; on PostgreSQL they see one snapshot.
        let job = if method.is_safe() { database.run_read(job) } else { database.run(job) };
        // The answer comes after the commit; if that fails, its error takes the place of the function's answer. If the
        // client hangs up, axum drops this future: a job that has not begun is then cancelled, one that has goes on.
        job.await
    }
}
