//! What a database thread does for an `AsyncSession`: bears its session, and serves its calls until it ends.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::async_session::AsyncSession;
use super::calls::{Call, Calls, Does};
use super::job::{Header, Job, Work};
use super::lane::{Lane, mine};
use super::queue::Next;
use super::waits::Waits;
use crate::backend::{GateRule, SessionConnection};
use crate::error::{Error, Reason, Result};
use crate::fork::Origin;
use crate::panics::text_of;
use crate::place::Place;
use crate::session::Session;

/// For how long an `AsyncSession` may be idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leases {
    pub(super) usual: Duration,
    /// Of one that keeps others waiting.
    pub(super) at_the_gate: Duration,
    pub(super) gate_rule: GateRule,
}

impl Leases {
    fn of(&self, is_read_only: bool) -> Duration {
        match self.gate_rule {
            GateRule::Never => self.usual,
            GateRule::Writers if is_read_only => self.usual,
            GateRule::Writers | GateRule::All => self.at_the_gate,
        }
    }
}

/// The answer to who asked for the session.
type Asked<C> = Arc<Answer<Result<AsyncSession<C>>>>;

/// The job of a thread that bears an `AsyncSession`.
struct Bearing<C: SessionConnection> {
    executor: u64,
    origin: Origin,
    waits: Arc<Waits>,
    leases: Leases,
    place: Place,
    answer: Option<Asked<C>>,
    calls: Option<Arc<Calls>>,
    /// The call that ended the transaction: its answer goes out when the session is closed.
    last: Option<Job>,
}

pub(super) fn job<C: SessionConnection>(
    executor: u64,
    lane: &Lane,
    leases: Leases,
    header: Header,
    answer: &Asked<C>,
) -> Job {
    let (origin, waits) = (lane.origin.clone(), Arc::clone(&lane.waits));
    let (answer, place) = (Some(Arc::clone(answer)), header.place);
    Job::of(header, Bearing { executor, origin, waits, leases, place, answer, calls: None, last: None })
}

/// Why the serving ended.
enum End {
    /// By this call, which is yet to be run.
    Asked(Call),
    /// The `AsyncSession` was dropped.
    Dropped,
    /// Nothing came in time.
    Late(Error),
}

impl<C: SessionConnection> Work for Bearing<C> {
    /// Whether the transaction was committed.
    fn run(&mut self, session: &dyn Any) -> bool {
        let (Some(session), Some(answer)) = (session.downcast_ref::<Session<C>>(), self.answer.take()) else {
            return false;
        };
        let bearer = mine(self.executor);
        let calls = Arc::new(Calls::new(self.origin.clone(), Arc::clone(&self.waits), bearer));
        self.calls = Some(Arc::clone(&calls));
        hand_out(answer, AsyncSession::new(Arc::clone(&calls)));
        match self.serve(session, &calls) {
            End::Asked(Call { job, does }) => {
                let is_ok = self.last.insert(job).run(session);
                is_ok && does == Does::Commit
            }
            End::Dropped => false,
            End::Late(error) => {
                tracing::warn!(session = session.id(), %error, "an AsyncSession was left idle: rolled back");
                // Before anybody hears of it.
                session.core().close(self.place);
                calls.end(error);
                false
            }
        }
    }

    fn answer(&mut self, instead: Option<Error>) {
        let refused = instead.clone().unwrap_or(Error::ShutDown);
        if let Some(answer) = self.answer.take() {
            answer.give(Err(refused.clone()));
        }
        if let Some(last) = self.last.take() {
            last.answer(instead);
        }
        if let Some(calls) = self.calls.take() {
            calls.end(refused);
        }
    }
}

impl<C: SessionConnection> Bearing<C> {
    fn serve(&self, session: &Session<C>, calls: &Calls) -> End {
        let core = session.core();
        let lease = self.leases.of(core.options().is_read_only());
        let mut last_used = self.place;
        loop {
            let idle_since = Instant::now();
            let deadline = core.deadline();
            // Further away than the clock reaches is never; nobody is idle for a century.
            let lease_ends = idle_since.checked_add(lease).unwrap_or(idle_since + CENTURY);
            let until = deadline.map_or(lease_ends, |deadline| deadline.at.min(lease_ends));
            match calls.next_until(until) {
                Next::Entry(entry) if entry.job.does != Does::Work => return End::Asked(entry.job),
                Next::Entry(entry) => {
                    last_used = entry.job.job.header.place;
                    serve_one(session, entry.job.job);
                }
                Next::End => return End::Dropped,
                Next::Late => {
                    return End::Late(match deadline.filter(|deadline| deadline.at < lease_ends) {
                        Some(deadline) => Error::DeadlineExceeded { timeout: deadline.timeout, at: last_used },
                        None => Error::LeaseExpired { at: last_used, idle: lease },
                    });
                }
            }
        }
    }
}

pub(super) const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Gives the session to who asked for it. Dropped if nobody takes it, which ends it.
fn hand_out<C: SessionConnection>(answer: Asked<C>, session: AsyncSession<C>) {
    // Wakes a task, which is code of the user's.
    let given = catch_unwind(AssertUnwindSafe(move || drop(answer.give(Ok(session)))));
    if let Err(panic) = given {
        tracing::error!(panic = text_of(panic), "the answer of a job panicked");
    }
}

/// One closure, in the open transaction.
fn serve_one<C: SessionConnection>(session: &Session<C>, mut job: Job) {
    let place = job.header.place;
    let core = session.core();
    let frame = core.join();
    let panic = catch_unwind(AssertUnwindSafe(|| job.run(session))).err();
    core.leave(frame, panic.as_ref().map(|_| Reason::Panicked), place);
    job.answer(panic.map(|panic| Error::JobPanicked { at: place, message: text_of(panic) }));
}

impl<C: SessionConnection> Drop for Bearing<C> {
    /// Whatever becomes of the thread, nobody waits for ever.
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer.abandon();
        }
        if let Some(calls) = self.calls.take() {
            calls.end(Error::ShutDown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_keeps_nobody_waiting_has_the_long_lease() {
        let (usual, at_the_gate) = (Duration::from_secs(2), Duration::from_secs(1));
        let of = |gate_rule| {
            let leases = Leases { usual, at_the_gate, gate_rule };
            (leases.of(true), leases.of(false))
        };
        assert_eq!(of(GateRule::Never), (usual, usual));
        assert_eq!(of(GateRule::Writers), (usual, at_the_gate));
        assert_eq!(of(GateRule::All), (at_the_gate, at_the_gate));
    }
}
