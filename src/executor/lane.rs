//! A lane: the threads that do one kind of work, and their queue.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use super::calls::Calls;
use super::job::{Header, Job};
use super::queue::{Queue, Ticket};
use super::waits::{Seat, Target, Waiting, Waits};
use crate::engine::LockClock;
use crate::error::{Error, Result};
use crate::fork::Origin;
use crate::inspect::{Holder, Holders};
use crate::place::Place;
use crate::session::core::Deadline;

/// What the threads of a lane do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Whatever `run` submits.
    Work,
    /// Whatever `run_read` submits.
    Read,
    /// Each bears one `AsyncSession` after the other.
    Bear,
}

impl Duty {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Read => "read",
            Self::Bear => "async",
        }
    }
}

pub(crate) struct Lane {
    pub(crate) duty: Duty,
    /// Its number in the executor.
    pub(crate) index: usize,
    pub(crate) threads: usize,
    pub(crate) queue: Queue<Job>,
    pub(crate) counts: Counts,
    pub(crate) waits: Arc<Waits>,
    pub(crate) origin: Origin,
    /// What shows that the thread that writes waits for a writer outside.
    lock: Option<Arc<LockClock>>,
    /// How many of its threads have died with nobody to take their place.
    vacant: AtomicUsize,
    /// What each thread does now.
    running: Mutex<Vec<Running>>,
}

struct Running {
    thread: Thread,
    place: Place,
    since: Instant,
}

/// What happened in a lane so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) submitted: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) transactions: AtomicU64,
    pub(crate) lost_batches: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("duty", &self.duty).field("threads", &self.threads).finish_non_exhaustive()
    }
}

thread_local! {
    /// The executor that this thread works for, and its seat there.
    static MINE: Cell<Option<(u64, Seat)>> = const { Cell::new(None) };
    /// Whether this thread is sending an answer, and so in code of whoever waits for it.
    static SENDING: Cell<bool> = const { Cell::new(false) };
}

/// This thread sends an answer until this is dropped.
pub(super) struct Sending {
    before: bool,
}

impl Sending {
    pub(super) fn start() -> Self {
        Self { before: SENDING.try_with(|sending| sending.replace(true)).unwrap_or(true) }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = SENDING.try_with(|sending| sending.set(self.before));
    }
}

/// Names this thread as one of a lane's.
pub(crate) fn enlist(executor: u64, seat: Seat) {
    MINE.set(Some((executor, seat)));
}

/// This thread's seat in this executor.
pub(crate) fn mine(executor: u64) -> Option<Seat> {
    // A thread that is ending works for nobody.
    MINE.try_with(Cell::get).ok().flatten().filter(|mine| mine.0 == executor).map(|mine| mine.1)
}

impl Lane {
    pub(crate) fn new(
        duty: Duty,
        index: usize,
        threads: usize,
        places: usize,
        waits: &Arc<Waits>,
        lock: Option<Arc<LockClock>>,
    ) -> Self {
        Self {
            duty,
            index,
            threads,
            queue: Queue::new(places),
            counts: Counts::default(),
            waits: Arc::clone(waits),
            origin: Origin::here(),
            lock,
            vacant: AtomicUsize::new(0),
            running: Mutex::default(),
        }
    }

    /// Why a job is refused that was not begun before its deadline.
    pub(crate) fn too_late(&self, header: &Header, deadline: Deadline) -> Error {
        let (timeout, at) = (deadline.timeout, header.place);
        match self
            .lock
            .as_ref()
            .filter(|_| self.duty == Duty::Work)
            .and_then(|lock| lock.waited_after(header.submitted))
        {
            Some(waited) => Error::LockedOutside { timeout, waited, at },
            None => Error::DeadlineExceeded { timeout, at },
        }
    }

    /// Shows what this thread does until the answer is dropped.
    pub(crate) fn show(&self, place: Place) -> Shown<'_> {
        let running = Running { thread: std::thread::current(), place, since: Instant::now() };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(running);
        Shown(self)
    }

    /// Whom jobs run on now.
    pub(crate) fn running(&self) -> Holders {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .iter()
            .map(|running| Holder::new(running.thread.id(), running.thread.name(), running.place, running.since))
            .collect()
    }

    /// A thread has died with nobody to take its place: without any left, what waits and what comes is refused.
    pub(crate) fn vacate(&self) {
        if self.vacant.fetch_add(1, Ordering::AcqRel) + 1 >= self.threads {
            for job in self.queue.close() {
                self.refuse(job, Error::ShutDown);
            }
        }
    }

    /// Answers a job that will not be run, or not again.
    pub(crate) fn refuse(&self, mut job: Job, error: Error) {
        if job.header.has_begun {
            count(&self.counts.failed);
            // What its last attempt said.
            let instead = job.instead.take();
            job.answer(instead.map(|error| *error));
        } else {
            count(&self.counts.refused);
            job.answer(Some(error));
        }
    }

    fn cancel(&self, ticket: Ticket) -> bool {
        // Its lock may be held by a thread that does not exist here.
        if self.origin.is_elsewhere() {
            return false;
        }
        let Some(job) = self.queue.remove(ticket, |job| !job.header.has_begun) else { return false };
        count(&self.counts.cancelled);
        job.answer(Some(Error::JobCancelled));
        true
    }
}

/// Takes this thread off the table of those that run.
pub(crate) struct Shown<'a>(&'a Lane);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let me = std::thread::current().id();
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = running.iter().rposition(|running| running.thread.id() == me) {
            running.swap_remove(position);
        }
    }
}

/// Where what a handle waits for stands.
#[derive(Debug)]
pub(crate) enum Spot {
    /// In a lane, as a job.
    Job(Arc<Lane>, Ticket),
    /// Among the calls of an `AsyncSession`; without a ticket where it can't be taken back.
    Call(Arc<Calls>, Option<Ticket>),
}

impl Spot {
    /// Whether it is in another process, before a fork: its locks may be held by threads that don't exist here.
    pub(crate) fn is_elsewhere(&self) -> bool {
        match self {
            Self::Job(lane, _) => lane.origin.is_elsewhere(),
            Self::Call(calls, _) => calls.is_elsewhere(),
        }
    }

    pub(crate) fn cancel(&self) -> bool {
        match self {
            Self::Job(lane, ticket) => lane.cancel(*ticket),
            Self::Call(calls, ticket) => ticket.is_some_and(|ticket| calls.cancel(ticket)),
        }
    }

    /// Before this thread waits; refused where the wait would never end. `sign`: turns true when the answer is there.
    pub(crate) fn begin_wait(&self, sign: impl FnOnce() -> Arc<AtomicBool>) -> Result<Option<Waiting>> {
        match self {
            Self::Job(lane, _) => {
                lane.origin.check()?;
                lane.waits.begin(Target::Lane(lane.index), sign)
            }
            Self::Call(calls, _) => calls.begin_wait(sign),
        }
    }

    /// Whether this thread, if it waited, would wait for ever.
    pub(crate) fn check_poll(&self, sign: impl FnOnce() -> Arc<AtomicBool>) -> Result<()> {
        // A waker that polls on the spot: nobody blocks.
        if SENDING.try_with(Cell::get).unwrap_or(true) {
            return Ok(());
        }
        self.begin_wait(sign).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::executor::answer::{Answer, Got};
    use crate::executor::job::Header;
    use crate::executor::queue::{Pushed, Times};
    use crate::unit::UnitOptions;

    #[test]
    fn without_a_thread_left_what_waits_and_what_comes_is_refused() {
        let lane = Lane::new(Duty::Work, 0, 2, 10, &Waits::new(1, vec![2]), None);
        let header = Header::new(UnitOptions::default(), false, std::panic::Location::caller());
        let answer = Arc::new(Answer::<Result<()>>::new());
        let job = || Job::new(header, &answer, |_| Ok(()));
        assert!(matches!(lane.queue.push(job(), Times::default(), false), Pushed::In(_)));
        lane.vacate();
        assert!(answer.wait(Some(Instant::now() + Duration::from_millis(1))).is_none());
        lane.vacate();
        assert!(matches!(answer.wait(None), Some(Got::Given(Err(Error::ShutDown)))));
        assert!(matches!(lane.queue.push(job(), Times::default(), false), Pushed::Closed(_)));
    }
}
