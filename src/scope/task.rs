//! Carrying a registry into other threads, and a session into a task.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use super::ScopedSession;
use super::ambient::Frame;
use super::local::{self, Pushed};
use crate::backend::SessionConnection;
use crate::error::Result;
use crate::session::core::Core;

/// Removes this thread's session when the closure ends, also by a panic.
struct RemoveAtEnd<'a, C: SessionConnection>(&'a ScopedSession<C>);

impl<C: SessionConnection> Drop for RemoveAtEnd<'_, C> {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl<C: SessionConnection> ScopedSession<C> {
    /// Starts a thread on which `Session::current()` finds this registry. What the closure leaves open is rolled back
    /// before the thread ends.
    pub fn spawn<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        std::thread::spawn(self.wrap(f))
    }

    /// Carries this registry into a closure that another thread will run: a pool's, rayon's, `spawn_blocking`'s. What the
    /// closure leaves open is rolled back when it ends. Where it runs in the middle of an extent of this registry, as on a
    /// pool's thread that works while it waits, it has a session of its own.
    #[track_caller]
    pub fn wrap<T, F: FnOnce() -> T + Send>(&self, f: F) -> impl FnOnce() -> T + Send + use<C, T, F> {
        let registry = self.clone();
        let place = Location::caller();
        move || {
            let is_inside =
                local::top::<C>(registry.inner.id).is_ok_and(|found| found.is_some_and(|found| found.extent));
            let _own = is_inside.then(|| registry.fresh(|options| options, None, place));
            let _remove = RemoveAtEnd(&registry);
            registry.enter(f)
        }
    }

    /// Gives a future a session of its own, the current one whenever the future is polled: for single-threaded runtimes,
    /// where many tasks share a thread. The session is made at the first use and closed when the future is done; a future
    /// that is dropped before that discards its connection without waiting for the server.
    pub fn future<F: Future>(&self, future: F) -> ScopedFuture<C, F> {
        ScopedFuture { registry: self.clone(), frame: None, core: None, future: Box::pin(future) }
    }
}

/// A future with a session of its own; see [`ScopedSession::future`].
#[must_use = "a future does nothing until it is polled"]
pub struct ScopedFuture<C: SessionConnection, F> {
    registry: ScopedSession<C>,
    frame: Option<Rc<Frame>>,
    core: Option<Rc<Core<C>>>,
    future: Pin<Box<F>>,
}

impl<C: SessionConnection, F> std::fmt::Debug for ScopedFuture<C, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScopedFuture").field("session", &self.core.as_ref().map(|core| core.id)).finish_non_exhaustive()
    }
}

impl<C: SessionConnection, F: Future> Future for ScopedFuture<C, F> {
    type Output = Result<F::Output>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let core = match &this.core {
            Some(core) => Rc::clone(core),
            None => match this.registry.inner.make(|options| options, Location::caller()) {
                Ok(core) => Rc::clone(this.core.insert(core)),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        let frame = Rc::clone(this.frame.get_or_insert_with(|| Frame::new(this.registry.inner.clone())));
        let future = this.future.as_mut();
        frame.enter(|| {
            let pushed = match Pushed::new(this.registry.inner.id, Rc::clone(&core)) {
                Ok(pushed) => pushed,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let poll = future.poll(cx).map(Ok);
            if poll.is_ready() {
                // On the stack until its hooks have run, so that they find it in its hooks instead of another task's.
                core.close(core.made_at);
            }
            drop(pushed);
            poll
        })
    }
}

impl<C: SessionConnection, F> Drop for ScopedFuture<C, F> {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            core.abandon();
        }
    }
}
