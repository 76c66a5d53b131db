//! The layer that ends the session of a request.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::axum::extract::Request;
use ::axum::response::{IntoResponse, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::handler::{is_good, told};
use super::problem::Problem;
use super::session::{RequestSession, Slot, State};
use crate::backend::SessionConnection;
use crate::error::Error;
use crate::executor::Executor;
use crate::options::TransactionOptions;
use crate::place::Place;

/// A tower layer that gives each request one [`AsyncSession`](crate::AsyncSession), for async handlers that take
/// [`RequestSession`].
///
/// The session is asked for at its first use; a request that does not use it costs nothing. For `GET`, `HEAD` and the other
/// safe methods it only reads. When the inner service has answered, the layer ends it:
///
/// * A status below 400: **committed before the answer goes out**. If the commit fails, its error is the answer, by `E`.
/// * 400 or above, an informational status other than 101, an error of the inner service, a panic, a client that goes away:
///   rolled back.
///
/// The answer's body may still be under way when the session has ended, so a body that is made bit by bit can't use it.
///
/// **Where the whole unit of work fits into one function, [`Executor::handler`](crate::Executor::handler) is better**: an
/// `AsyncSession` holds a database thread and a connection while its handler waits for something else. On SQLite others wait
/// meanwhile, so one that may write has to be allowed
/// ([`async_writers`](crate::ExecutorBuilder::async_writers)); until then requests other than `GET` and the like get
/// [`Error::Configuration`] from it.
///
/// # Examples
/// ```no_run
/// use axum::Router;
/// use axum::routing::post;
/// use diesel::prelude::*;
/// use diesel_session::axum::{Problem, RequestSession, SessionLayer};
/// use diesel_session::{Engine, Executor, Result, ScopedSession};
///
/// diesel::table! { notes (id) { id -> Integer, text -> Text, } }
///
/// async fn translate(text: String) -> String {
///     // … asks another service …
///     text.to_uppercase()
/// }
///
/// async fn shout(session: RequestSession<SqliteConnection>) -> Result<&'static str, Problem> {
///     let text: String = session.run(|session| session.first(notes::table.select(notes::text))).await?;
///     let text = translate(text).await; // the transaction stays open
///     session
///         .run(move |session| -> Result<usize> {
///             session.execute(diesel::update(notes::table).set(notes::text.eq(text)))
///         })
///         .await?;
///     Ok("done") // committed before it is sent
/// }
///
/// # fn main() -> Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new("notes.db")?);
/// let executor = Executor::builder(registry).async_writers(true).build()?;
/// let app: Router = Router::new().route("/shout", post(shout)).layer(SessionLayer::new(executor));
/// # Ok(()) }
/// ```
pub struct SessionLayer<C: SessionConnection, E = Problem> {
    executor: Executor<C>,
    options: Option<TransactionOptions>,
    place: Place,
    error: PhantomData<fn() -> E>,
}

impl<C: SessionConnection> SessionLayer<C> {
    /// A layer whose sessions are this executor's. A commit's error is answered as a [`Problem`].
    #[track_caller]
    pub fn new(executor: Executor<C>) -> Self {
        Self { executor, options: None, place: Location::caller(), error: PhantomData }
    }
}

impl<C: SessionConnection, E> SessionLayer<C, E> {
    /// Answers a commit's error as this type does.
    #[must_use]
    pub fn errors<F: From<Error> + IntoResponse>(self) -> SessionLayer<C, F> {
        let Self { executor, options, place, error: _ } = self;
        SessionLayer { executor, options, place, error: PhantomData }
    }

    /// Options for each session; for `GET` and the like they are made read-only. The
    /// [time-out](TransactionOptions::timeout) runs from the first use.
    #[must_use]
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = Some(options);
        self
    }
}

impl<C: SessionConnection, E> Clone for SessionLayer<C, E> {
    fn clone(&self) -> Self {
        let Self { executor, options, place, error } = self;
        Self { executor: executor.clone(), options: *options, place, error: *error }
    }
}

impl<C: SessionConnection, E> fmt::Debug for SessionLayer<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<C: SessionConnection, E, S> Layer<S> for SessionLayer<C, E> {
    type Service = SessionService<C, S, E>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { layer: self.clone(), inner }
    }
}

/// What a [`SessionLayer`] makes of a service.
pub struct SessionService<C: SessionConnection, S, E = Problem> {
    layer: SessionLayer<C, E>,
    inner: S,
}

impl<C: SessionConnection, S: Clone, E> Clone for SessionService<C, S, E> {
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), inner: self.inner.clone() }
    }
}

impl<C: SessionConnection, S: fmt::Debug, E> fmt::Debug for SessionService<C, S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}

impl<C, S, E> Service<Request> for SessionService<C, S, E>
where
    C: SessionConnection,
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    E: From<Error> + IntoResponse + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let SessionLayer { executor, options, place, error: _ } = self.layer.clone();
        let options = match request.method().is_safe() {
            true => Some(options.unwrap_or_default().read_only()),
            false => options,
        };
        let slot = Slot::new(executor, options);
        request.extensions_mut().insert(RequestSession::new(&slot));
        let in_use = InUse(slot);
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            Ok(in_use.end::<E>(response, place).await)
        })
    }
}

/// The session of a request that is not answered yet: dropped, it is rolled back, whoever still has a handle.
struct InUse<C: SessionConnection>(Arc<Slot<C>>);

impl<C: SessionConnection> Drop for InUse<C> {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

impl<C: SessionConnection> InUse<C> {
    async fn end<E: From<Error> + IntoResponse>(self, response: Response, place: Place) -> Response {
        let is_good = is_good(&response);
        match self.0.close() {
            State::Open(session) if is_good => match session.commit_at(place).await {
                Ok(_) => response,
                Err(error) => {
                    let is_overload = error.is_overload();
                    told(E::from(error).into_response(), is_overload)
                }
            },
            State::Open(session) => {
                if let Err(error) = session.rollback().await {
                    tracing::debug!(error = error.for_the_log(), "the session of a request was rolled back before");
                }
                response
            }
            State::Refused(error) if !is_good => told(response, error.is_overload()),
            _ => response,
        }
    }
}
