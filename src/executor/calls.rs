//! The calls of an `AsyncSession`, on their way to the thread that bears it.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::answer::Answer;
use super::handle::JobHandle;
use super::job::{Header, Job, once, with_session};
use super::lane::Spot;
use super::queue::{Next, Pushed, Queue, Ticket, Times};
use super::waits::{Seat, Target, Waiting, Waits};
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::fork::Origin;
use crate::place::Place;
use crate::session::Session;
use crate::unit::UnitOptions;

/// What a call does to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Work,
    Commit,
    RollBack,
}

/// A closure for the session, with the way of its answer back.
pub(super) struct Call {
    pub(super) job: Job,
    pub(super) does: Does,
}

/// Between an `AsyncSession` and the thread that bears it.
pub(crate) struct Calls {
    queue: Queue<Call>,
    origin: Origin,
    waits: Arc<Waits>,
    /// The thread that serves them.
    bearer: Option<Seat>,
    /// Why none are taken any more, if the `AsyncSession` itself does not know.
    over: OnceLock<Error>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("bearer", &self.bearer).field("over", &self.over).finish_non_exhaustive()
    }
}

impl Calls {
    pub(super) fn new(origin: Origin, waits: Arc<Waits>, bearer: Option<Seat>) -> Self {
        // Whoever awaits each call before the next has one in it; nobody needs a bound.
        Self { queue: Queue::new(0), origin, waits, bearer, over: OnceLock::new() }
    }

    /// Sends a closure.
    pub(super) fn send<C, T, E>(
        self: &Arc<Self>,
        does: Does,
        place: Place,
        f: impl FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    ) -> JobHandle<T, E>
    where
        C: SessionConnection,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if let Err(error) = self.origin.check() {
            return JobHandle::refused(error);
        }
        let answer = Arc::new(Answer::new());
        let header = Header::new(UnitOptions::default(), false, place);
        let job = Job::new(header, &answer, with_session(once(f)));
        match self.queue.push(Call { job, does }, Times::default(), true) {
            Pushed::In(ticket) => {
                // An end that was asked for comes, whether or not somebody waits for its answer.
                let ticket = (does == Does::Work).then_some(ticket);
                JobHandle::new(answer, Spot::Call(Arc::clone(self), ticket))
            }
            Pushed::Full(call, _) | Pushed::Closed(call) => {
                call.job.answer(Some(self.reason()));
                JobHandle::answered(answer)
            }
        }
    }

    /// No more will be sent: those that were are served, then comes the end.
    pub(super) fn drain(&self) {
        // Its lock may be held by a thread that does not exist in a forked child.
        if !self.origin.is_elsewhere() {
            self.queue.drain();
        }
    }

    /// The next call, unless there is none until then.
    pub(super) fn next_until(&self, until: Instant) -> Next<Call> {
        self.queue.next_until(until)
    }

    /// Refuses, for this reason, what is there and what will be sent.
    pub(super) fn end(&self, reason: Error) {
        let _ = self.over.set(reason);
        for call in self.queue.close() {
            call.job.answer(Some(self.reason()));
        }
    }

    fn reason(&self) -> Error {
        self.over.get().cloned().unwrap_or(Error::ShutDown)
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }

    pub(super) fn cancel(&self, ticket: Ticket) -> bool {
        if self.is_elsewhere() {
            return false;
        }
        let Some(call) = self.queue.remove(ticket, |_| true) else { return false };
        call.job.answer(Some(Error::JobCancelled));
        true
    }

    pub(super) fn begin_wait(&self, sign: impl FnOnce() -> Arc<AtomicBool>) -> Result<Option<Waiting>> {
        self.origin.check()?;
        match self.bearer {
            Some(seat) => self.waits.begin(Target::Seat(seat), sign),
            None => Ok(None),
        }
    }
}
