//! The queue of a lane: first come, first served, with a bound on how many wait inside it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The number of a job in its lane: lower ones came earlier and are served first.
pub(crate) type Ticket = u64;

pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    work: Condvar,
}

struct State<J> {
    /// By their tickets: whatever is cancelled is found, and taken out, without a look at the rest.
    entries: BTreeMap<Ticket, Waiting<J>>,
    next: Ticket,
    places: usize,
    /// How many threads wait for work: to wake nobody costs a system call.
    sleepers: usize,
    phase: Phase,
}

struct Waiting<J> {
    job: J,
    times: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// Nothing new is taken; what is in goes on.
    Draining,
    /// Nothing is served any more.
    Closed,
}

/// A job in the queue.
pub(crate) struct Entry<J> {
    pub(crate) ticket: Ticket,
    pub(crate) job: J,
    pub(crate) times: Times,
}

/// What an entry waits for, and how long it may.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// Not served before.
    pub(crate) not_before: Option<Instant>,
    /// Not served after.
    pub(crate) deadline: Option<Instant>,
    /// Until when it may stand outside the queue's places.
    pub(crate) room_until: Option<Instant>,
}

/// How a submission ended.
pub(crate) enum Pushed<J> {
    In(Ticket),
    /// Every place is taken.
    Full(J, usize),
    /// The queue takes nothing any more.
    Closed(J),
}

/// What a wait for the next job ended with.
pub(crate) enum Next<J> {
    Entry(Entry<J>),
    /// Nothing came in time.
    Late,
    /// Nothing will come any more.
    End,
}

/// Why an entry was taken out unserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Deadline,
    Room,
}

impl<J> Queue<J> {
    pub(crate) fn new(places: usize) -> Self {
        let entries = BTreeMap::new();
        let state = State { entries, next: 0, places, sleepers: 0, phase: Phase::Open };
        Self { state: Mutex::new(state), work: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job. `may_stand`: also where every place is taken; it then stands behind them.
    pub(crate) fn push(&self, job: J, times: Times, may_stand: bool) -> Pushed<J> {
        let mut state = self.state();
        if state.phase != Phase::Open {
            return Pushed::Closed(job);
        }
        let queued = state.entries.len();
        // A place is only needed by what nobody is about to serve; who waits for its next attempt keeps no thread.
        let is_full = queued >= state.places + state.sleepers && !state.has_a_thread_to_spare();
        if is_full && !may_stand {
            return Pushed::Full(job, queued);
        }
        let ticket = state.next;
        state.next += 1;
        state.entries.insert(ticket, Waiting { job, times });
        self.wake(state);
        Pushed::In(ticket)
    }

    /// Puts a job back, before all that came later. It comes back where the queue is closed.
    pub(crate) fn push_again(&self, entry: Entry<J>) -> Result<(), J> {
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Err(entry.job);
        }
        let Entry { ticket, job, times } = entry;
        state.entries.insert(ticket, Waiting { job, times });
        self.wake(state);
        Ok(())
    }

    fn wake(&self, state: MutexGuard<'_, State<J>>) {
        let sleepers = state.sleepers;
        drop(state);
        if sleepers > 0 {
            self.work.notify_one();
        }
    }

    /// The next job; blocks until there is one. `None` at the end.
    pub(crate) fn next(&self) -> Option<Entry<J>> {
        match self.next_by(None) {
            Next::Entry(entry) => Some(entry),
            Next::Late | Next::End => None,
        }
    }

    /// As [`next`](Self::next), but blocks no longer than until then. What is there then is served all the same.
    pub(crate) fn next_until(&self, until: Instant) -> Next<J> {
        self.next_by(Some(until))
    }

    fn next_by(&self, until: Option<Instant>) -> Next<J> {
        let mut state = self.state();
        loop {
            if state.phase == Phase::Closed {
                return Next::End;
            }
            let due = match state.due(Instant::now) {
                Due::Now(ticket) => {
                    let entry = state.take(ticket);
                    // This thread may have been the one that watched for the time of another.
                    if !state.entries.is_empty() {
                        self.wake(state);
                    }
                    return entry.map_or(Next::End, Next::Entry);
                }
                Due::At(at) => Some(at),
                Due::Never if state.phase == Phase::Draining => return Next::End,
                Due::Never => None,
            };
            if until.is_some_and(|until| until <= Instant::now()) {
                return Next::Late;
            }
            state.sleepers += 1;
            state = match [due, until].into_iter().flatten().min() {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.sleepers -= 1;
        }
    }

    /// The next job, if it is there now and fits.
    pub(crate) fn next_now(&self, fits: impl FnOnce(&J) -> bool) -> Option<Entry<J>> {
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return None;
        }
        match state.due(Instant::now) {
            Due::Now(ticket) if fits(&state.entries.get(&ticket)?.job) => state.take(ticket),
            _ => None,
        }
    }

    /// Takes a job out, if it is in and may go.
    pub(crate) fn remove(&self, ticket: Ticket, may_go: impl FnOnce(&J) -> bool) -> Option<J> {
        let mut state = self.state();
        if !may_go(&state.entries.get(&ticket)?.job) {
            return None;
        }
        state.take(ticket).map(|entry| entry.job)
    }

    /// Takes out what has waited too long; says when to look again.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<(J, Expired)>, Option<Instant>) {
        let mut state = self.state();
        let places = state.places;
        let mut late = Vec::new();
        let mut next = None;
        // What is taken out makes room for what stands behind it.
        let mut position = 0;
        for (ticket, Waiting { times, .. }) in &state.entries {
            let room_until = times.room_until.filter(|_| position >= places);
            let why = if times.deadline.is_some_and(|at| at <= now) {
                Some(Expired::Deadline)
            } else {
                room_until.filter(|at| *at <= now).map(|_| Expired::Room)
            };
            match why {
                Some(why) => late.push((*ticket, why)),
                None => {
                    next = [next, times.deadline, room_until].into_iter().flatten().min();
                    position += 1;
                }
            }
        }
        let expired = late.into_iter().filter_map(|(ticket, why)| Some((state.take(ticket)?.job, why))).collect();
        (expired, next)
    }

    pub(crate) fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Takes nothing new from now on; [`next`](Self::next) ends when nothing is left.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        state.phase = state.phase.max(Phase::Draining);
        drop(state);
        self.work.notify_all();
    }

    /// Serves nothing from now on; gives what was left.
    pub(crate) fn close(&self) -> Vec<J> {
        let mut state = self.state();
        state.phase = Phase::Closed;
        let left = std::mem::take(&mut state.entries);
        drop(state);
        self.work.notify_all();
        left.into_values().map(|entry| entry.job).collect()
    }
}

/// When there is something to serve.
enum Due {
    Now(Ticket),
    At(Instant),
    Never,
}

impl<J> State<J> {
    fn take(&mut self, ticket: Ticket) -> Option<Entry<J>> {
        self.entries.remove(&ticket).map(|Waiting { job, times }| Entry { ticket, job, times })
    }

    /// Whether more threads wait for work than there are jobs that wait for nothing but a thread.
    fn has_a_thread_to_spare(&self) -> bool {
        if self.sleepers == 0 {
            return false;
        }
        let now = Instant::now();
        let is_ready = |entry: &&Waiting<J>| entry.times.not_before.is_none_or(|at| at <= now);
        self.entries.values().filter(is_ready).count() < self.sleepers
    }

    fn due(&self, now: impl Fn() -> Instant) -> Due {
        let mut first = None;
        for (ticket, entry) in &self.entries {
            match entry.times.not_before {
                None => return Due::Now(*ticket),
                Some(at) if at <= now() => return Due::Now(*ticket),
                Some(at) => first = [first, Some(at)].into_iter().flatten().min(),
            }
        }
        first.map_or(Due::Never, Due::At)
    }
}
