//! What wakes up when a job has waited too long, though every database thread is busy.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::lane::{Lane, count};
use super::queue::Expired;
use crate::error::Error;

/// A thread of an executor that refuses jobs past their time. Started with the first job that has one.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    runs: bool,
    is_over: bool,
}

impl Clock {
    /// Something is due then.
    pub(crate) fn set(self: &Arc<Self>, at: Instant, lanes: &[Arc<Lane>]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_over || state.next.is_some_and(|next| next <= at) {
            return;
        }
        state.next = Some(at);
        if state.runs {
            drop(state);
            self.changed.notify_one();
            return;
        }
        let lanes: Vec<Weak<Lane>> = lanes.iter().map(Arc::downgrade).collect();
        let clock = Arc::clone(self);
        let started = std::thread::Builder::new().name("database clock".into()).spawn(move || clock.run(&lanes));
        match started {
            Ok(_) => state.runs = true,
            // The database threads look at a job's deadline too, when they come to it.
            Err(error) => {
                state.next = None;
                tracing::error!(%error, "no thread for the clock of an executor");
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.changed.notify_one();
    }

    fn run(&self, lanes: &[Weak<Lane>]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_over {
            let now = Instant::now();
            match state.next {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now => {
                    state = self.changed.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    // What is set meanwhile counts too.
                    state.next = None;
                    drop(state);
                    let next = lanes.iter().filter_map(Weak::upgrade).filter_map(|lane| refuse_late(&lane, now)).min();
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.next = [state.next, next].into_iter().flatten().min();
                }
            }
        }
    }
}

/// Answers the jobs of a lane that have waited too long; says when to look again.
fn refuse_late(lane: &Lane, now: Instant) -> Option<Instant> {
    let (expired, next) = lane.queue.expire(now);
    for (job, why) in expired {
        count(&lane.counts.refused);
        let header = job.header;
        let error = match (why, header.deadline) {
            (Expired::Deadline, Some(deadline)) => lane.too_late(&header, deadline),
            _ => Error::QueueFull { queued: lane.queue.len(), waited: header.submitted.elapsed() },
        };
        job.answer(Some(error));
    }
    next
}
