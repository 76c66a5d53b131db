//! The request's session, for handlers that await something in the middle of their unit of work.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use ::axum::extract::FromRequestParts;
use ::axum::http::request::Parts;

use super::problem::Problem;
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::executor::{AsyncSession, Executor, JobHandle};
use crate::options::TransactionOptions;
use crate::place::Place;
use crate::session::Session;

/// The request's [`AsyncSession`], in async handlers under a [`SessionLayer`](super::SessionLayer): an extractor.
///
/// Nothing is opened by extracting it: the session is asked for when the first [`run`](Self::run) is awaited, and the layer
/// commits it or rolls it back. Clones, and everything else that takes it from the same request, are the same session.
///
/// Where there is no layer the request is answered with 500.
pub struct RequestSession<C: SessionConnection> {
    slot: Arc<Slot<C>>,
}

impl<C: SessionConnection> Clone for RequestSession<C> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot) }
    }
}

impl<C: SessionConnection> fmt::Debug for RequestSession<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSession").finish_non_exhaustive()
    }
}

impl<C: SessionConnection> RequestSession<C> {
    pub(super) fn new(slot: &Arc<Slot<C>>) -> Self {
        Self { slot: Arc::clone(slot) }
    }

    /// As [`AsyncSession::run`], but sent when it is awaited; the first one waits for the session too.
    ///
    /// The answer can be the closure's own error, what [`AsyncSession::run`] answers, what refused the session (as
    /// [`Error::QueueFull`]: each later call then answers that too), or, once the request is answered,
    /// [`Error::SessionClosed`].
    #[track_caller]
    pub fn run<T, E, F>(&self, f: F) -> impl Future<Output = Result<T, E>> + Send + use<C, T, E, F>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        let place = Location::caller();
        let slot = Arc::clone(&self.slot);
        async move {
            poll_fn(|context| slot.poll_open(place, context)).await?;
            let sent = slot.send(place, f)?;
            sent.await
        }
    }
}

impl<C: SessionConnection, S: Send + Sync> FromRequestParts<S> for RequestSession<C> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let missing = || {
            Problem::from(Error::Configuration(
                "no SessionLayer for this connection type is around the route: add `.layer(SessionLayer::new(executor))`"
                    .into(),
            ))
        };
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// Where the request's session is, if it has one.
pub(super) struct Slot<C: SessionConnection> {
    executor: Executor<C>,
    options: Option<TransactionOptions>,
    state: Mutex<State<C>>,
    crowd: Arc<Crowd>,
}

pub(super) enum State<C: SessionConnection> {
    Unused,
    Asked(JobHandle<AsyncSession<C>>),
    Open(AsyncSession<C>),
    Refused(Error),
    /// The request is answered, or its client went away.
    Over,
}

impl<C: SessionConnection> Slot<C> {
    pub(super) fn new(executor: Executor<C>, options: Option<TransactionOptions>) -> Arc<Self> {
        Arc::new(Self { executor, options, state: Mutex::new(State::Unused), crowd: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the use of it.
    pub(super) fn close(&self) -> State<C> {
        std::mem::replace(&mut *self.state(), State::Over)
    }

    fn poll_open(&self, place: Place, context: &Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state();
        if let State::Unused = *state {
            let options = self.options.unwrap_or_default();
            *state = State::Asked(self.executor.ask_for(options, self.options.is_some(), place));
        }
        let asked = match &mut *state {
            State::Asked(asked) => asked,
            State::Refused(error) => return Poll::Ready(Err(error.clone())),
            State::Open(_) => return Poll::Ready(Ok(())),
            State::Unused | State::Over => return Poll::Ready(Err(Error::SessionClosed { at: place })),
        };
        self.crowd.join(context.waker());
        let all = Waker::from(Arc::clone(&self.crowd));
        match Pin::new(asked).poll(&mut Context::from_waker(&all)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(session)) => {
                *state = State::Open(session);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                *state = State::Refused(error.clone());
                Poll::Ready(Err(error))
            }
        }
    }

    fn send<T, E, F>(&self, place: Place, f: F) -> Result<JobHandle<T, E>>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        match &*self.state() {
            State::Open(session) => Ok(session.run_at(place, f)),
            _ => Err(Error::SessionClosed { at: place }),
        }
    }
}

/// All tasks that wait for one session: whoever polled last may be gone when it comes.
#[derive(Default)]
struct Crowd(Mutex<Vec<Waker>>);

impl Crowd {
    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, waker: &Waker) {
        let mut wakers = self.wakers();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Crowd {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.wakers());
        wakers.into_iter().for_each(Waker::wake);
    }
}
