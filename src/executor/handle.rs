//! The caller's end of a job.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::answer::{Answer, Got};
use super::lane::Spot;
use crate::error::{Error, Result};

/// A job's answer, when it is there: a future, on any runtime, or [`wait`](JobHandle::wait) without one.
///
/// The job is submitted when the handle is made; polling only waits. An `Ok` or an `Err` comes after the transaction
/// has ended: `Ok` means committed. (Calls of an [`AsyncSession`](crate::AsyncSession) are answered when their closure has
/// ended; only `commit()` stores.)
///
/// **Dropped** before the job began, the handle cancels it: the closure is dropped, unrun. Dropped later, the job goes on to
/// its end, and commits. [`detach`](JobHandle::detach) says that nobody waits and lets it run in any case.
#[must_use = "dropping the handle of a job that has not begun cancels it: wait for it, or `detach()` it"]
pub struct JobHandle<T, E = Error> {
    answer: Arc<Answer<Result<T, E>>>,
    /// Where the job waits; none where it was answered without waiting.
    spot: Option<Spot>,
}

impl<T, E> fmt::Debug for JobHandle<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl<T, E: From<Error>> JobHandle<T, E> {
    pub(super) fn new(answer: Arc<Answer<Result<T, E>>>, spot: Spot) -> Self {
        Self { answer, spot: Some(spot) }
    }

    /// Of a job that was answered without waiting.
    pub(super) fn answered(answer: Arc<Answer<Result<T, E>>>) -> Self {
        Self { answer, spot: None }
    }

    /// Of a job that was not taken.
    pub(super) fn refused(error: Error) -> Self {
        let answer = Answer::new();
        answer.give(Err(E::from(error)));
        Self::answered(Arc::new(answer))
    }

    /// Blocks this thread until the job has ended. For threads outside a runtime.
    ///
    /// # Errors
    /// The job's own; what its commit answered; [`Error::JobPanicked`]; [`Error::JobCancelled`]; what refused it before it
    /// began: [`Error::QueueFull`], [`Error::DeadlineExceeded`], [`Error::LockedOutside`], [`Error::ShutDown`];
    /// [`Error::BatchRolledBack`] under group commit. [`Error::WouldHang`] on one of the executor's own threads where every
    /// thread that could serve it would then be waiting: the job is then cancelled, but one that has begun goes on to its
    /// end, and may commit.
    ///
    /// Not looked at are waits across executors, and what the waiting thread holds: on SQLite, in a transaction that has
    /// written, waiting for a job that writes too ends with the job's [`Error::GateTimeout`], which names this thread.
    pub fn wait(self) -> Result<T, E> {
        match self.wait_until(None) {
            Ok(result) => result,
            // Without an end there is no late.
            Err(_) => Err(Error::AnswerTaken.into()),
        }
    }

    /// As [`wait`](Self::wait), but not for longer than `timeout`: then the handle is back, and the job as it was.
    ///
    /// # Errors
    /// The handle, on a time-out.
    pub fn wait_timeout(self, timeout: Duration) -> std::result::Result<Result<T, E>, Self> {
        // Further away than the clock reaches is never.
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(self, until: Option<Instant>) -> std::result::Result<Result<T, E>, Self> {
        let waiting = match self.spot.as_ref().filter(|_| !self.answer.is_given()) {
            None => None,
            Some(spot) => match spot.begin_wait(|| self.answer.sign()) {
                Ok(waiting) => waiting,
                // It came meanwhile.
                Err(_) if self.answer.is_given() => None,
                Err(error) => return Ok(Err(error.into())),
            },
        };
        let waited = self.answer.wait(until);
        drop(waiting);
        match waited {
            Some(got) => Ok(result_of(got)),
            None => Err(self),
        }
    }
}

impl<T, E> JobHandle<T, E> {
    /// Takes the job back if it has not begun: its answer is then [`Error::JobCancelled`]. Says whether it did; what has begun
    /// goes on to its end.
    pub fn cancel(&self) -> bool {
        self.spot.as_ref().is_some_and(Spot::cancel)
    }

    /// Whether the answer is there.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.answer.is_given()
    }

    /// Lets the job run though nobody waits for its answer.
    pub fn detach(mut self) {
        self.spot = None;
    }
}

/// On a database thread of its own executor, where only a nested `block_on` would poll it, it is answered with
/// [`Error::WouldHang`] if no other thread is left to serve it. Of several jobs that block so at once nobody knows:
/// [`wait`](JobHandle::wait) there.
impl<T, E: From<Error>> Future for JobHandle<T, E> {
    type Output = Result<T, E>;

    /// Polled again after its answer: [`Error::AnswerTaken`].
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.answer.poll(context) {
            Poll::Ready(got) => Poll::Ready(result_of(got)),
            Poll::Pending => match self.spot.as_ref().map(|spot| spot.check_poll(|| self.answer.sign())) {
                Some(Err(error)) if !self.answer.is_given() => Poll::Ready(Err(error.into())),
                _ => Poll::Pending,
            },
        }
    }
}

fn result_of<T, E: From<Error>>(got: Got<Result<T, E>>) -> Result<T, E> {
    match got {
        Got::Given(result) => result,
        Got::Taken => Err(Error::AnswerTaken.into()),
        Got::Abandoned => Err(Error::ShutDown.into()),
    }
}

impl<T, E> Drop for JobHandle<T, E> {
    fn drop(&mut self) {
        if let Some(spot) = self.spot.take()
            && !spot.is_elsewhere()
            && !self.answer.is_given()
        {
            spot.cancel();
        }
    }
}
