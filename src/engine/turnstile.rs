//! Who may go on and who waits: the connections of an engine and the write gate of a database file.
//!
//! All that can wait for each other share one [`Turnstiles`] and its one mutex, so a ring of waiting threads is found
//! exactly: nobody can leave a queue or give something back while it is being looked at.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::inspect::{Holder, Holders};
use crate::place::Place;

/// A waiter older than this is served before anybody who comes later; younger ones may be overtaken, which costs them
/// little and saves a thread switch a transaction.
const BARGING: Duration = Duration::from_millis(5);

/// Names one turnstile among those that share a mutex.
pub(crate) type Name = u64;

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Gate,
    Connection,
}

#[derive(Debug)]
struct Ticket {
    id: u64,
    thread: Thread,
    place: Place,
    since: Instant,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    thread: Thread,
    place: Place,
    since: Instant,
    wake: Arc<Condvar>,
}

#[derive(Debug)]
struct Turnstile {
    name: Name,
    what: What,
    capacity: usize,
    /// Places that only a thread which already holds one may take.
    reserve: usize,
    holders: Vec<Ticket>,
    queue: VecDeque<Waiter>,
}

impl Turnstile {
    fn room_for(&self, thread: ThreadId) -> bool {
        let held = self.holders.len();
        held + self.reserve < self.capacity
            || (held < self.capacity
                && self.reserve > 0
                && self.holders.iter().any(|ticket| ticket.thread.id() == thread))
    }
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    turnstiles: Vec<Turnstile>,
}

impl State {
    fn get(&mut self, name: Name) -> Option<&mut Turnstile> {
        self.turnstiles.iter_mut().find(|turnstile| turnstile.name == name)
    }

    /// Whether `thread`, about to wait for `name`, would wait for ever: every thread that could end the wait waits itself.
    ///
    /// All waiting threads are assumed hopeless; one that waits for something that some thread outside this set holds
    /// is not; repeated until nothing changes.
    fn is_hopeless(&self, thread: ThreadId, name: Name) -> bool {
        let queues = || {
            self.turnstiles.iter().flat_map(|turnstile| turnstile.queue.iter().map(move |waiter| (turnstile, waiter)))
        };
        // Mostly somebody who holds it waits for nothing: then it is enough to see that, however many wait.
        let waits = |holder: &Ticket| queues().any(|(_, waiter)| waiter.thread.id() == holder.thread.id());
        let wanted = self.turnstiles.iter().find(|turnstile| turnstile.name == name);
        if wanted.is_some_and(|turnstile| turnstile.holders.iter().any(|holder| !waits(holder))) {
            return false;
        }
        let mut hopeless: Vec<ThreadId> = queues().map(|(_, waiter)| waiter.thread.id()).collect();
        loop {
            let before = hopeless.len();
            for (turnstile, waiter) in queues() {
                let waiter = waiter.thread.id();
                let somebody_runs = turnstile.holders.iter().any(|ticket| !hopeless.contains(&ticket.thread.id()));
                if somebody_runs || turnstile.room_for(waiter) {
                    hopeless.retain(|thread| *thread != waiter);
                }
            }
            if hopeless.len() == before {
                return hopeless.contains(&thread);
            }
        }
    }
}

/// A set of turnstiles whose holders can wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Turnstiles {
    state: Mutex<State>,
}

/// The right to go on. Whoever has it [gives it back](Turnstiles::give_back).
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    name: Name,
    id: u64,
}

/// What a thread asks a turnstile for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) name: Name,
    pub(crate) place: Place,
    pub(crate) started: Instant,
    pub(crate) patience: Duration,
}

impl Turnstiles {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a turnstile.
    pub(crate) fn add(&self, what: What, capacity: usize, reserve: usize) -> Name {
        let mut state = self.lock();
        state.next += 1;
        let name = state.next;
        state.turnstiles.push(Turnstile {
            name,
            what,
            capacity,
            reserve,
            holders: Vec::with_capacity(capacity.min(64)),
            queue: VecDeque::new(),
        });
        name
    }

    /// Forgets a turnstile that nobody can ask any more.
    pub(crate) fn forget(&self, name: Name) {
        self.lock().turnstiles.retain(|turnstile| turnstile.name != name);
    }

    /// Waits until there is room, at most until the request's patience ends.
    pub(crate) fn pass(&self, request: Request, thread: Thread) -> Result<Permit, Error> {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        let Some(turnstile) = state.get(request.name) else { return Err(Error::ShutDown) };
        let overdue = turnstile.queue.front().is_some_and(|waiter| waiter.since.elapsed() >= BARGING);
        if !overdue && turnstile.room_for(thread.id()) {
            turnstile.holders.push(Ticket { id, thread, place: request.place, since: request.started });
            return Ok(Permit { name: request.name, id });
        }
        self.wait(state, request, id, &thread)
    }

    #[cold]
    fn wait(
        &self,
        mut state: MutexGuard<'_, State>,
        request: Request,
        id: u64,
        thread: &Thread,
    ) -> Result<Permit, Error> {
        let wake = Arc::new(Condvar::new());
        let deadline = request.started + request.patience;
        let Some(turnstile) = state.get(request.name) else { return Err(Error::ShutDown) };
        let what = turnstile.what;
        turnstile.queue.push_back(Waiter {
            ticket: id,
            thread: thread.clone(),
            place: request.place,
            since: Instant::now(),
            wake: Arc::clone(&wake),
        });
        if state.is_hopeless(thread.id(), request.name) {
            let held_at = leave(&mut state, request.name, id)
                .and_then(|turnstile| {
                    let own = turnstile.holders.iter().find(|ticket| ticket.thread.id() == thread.id());
                    own.or_else(|| turnstile.holders.first()).map(|ticket| ticket.place)
                })
                .unwrap_or(request.place);
            self.invite(&mut state, request.name);
            return Err(match what {
                What::Gate => Error::WouldDeadlock { held_at, wanted_at: request.place },
                What::Connection => Error::WouldStarve { held_at, wanted_at: request.place },
            });
        }
        loop {
            let Some(turnstile) = state.get(request.name) else { return Err(Error::ShutDown) };
            // Given by the one before us, in our name.
            if turnstile.holders.iter().any(|ticket| ticket.id == id) {
                return Ok(Permit { name: request.name, id });
            }
            let is_first_in_line = turnstile
                .queue
                .iter()
                .find(|waiter| turnstile.room_for(waiter.thread.id()))
                .is_some_and(|waiter| waiter.ticket == id);
            if is_first_in_line && turnstile.room_for(thread.id()) {
                turnstile.queue.retain(|waiter| waiter.ticket != id);
                turnstile.holders.push(Ticket {
                    id,
                    thread: thread.clone(),
                    place: request.place,
                    since: Instant::now(),
                });
                self.invite(&mut state, request.name);
                return Ok(Permit { name: request.name, id });
            }
            let now = Instant::now();
            if now >= deadline {
                leave(&mut state, request.name, id);
                self.invite(&mut state, request.name);
                let holders = holders_of(&mut state, request.name);
                drop(state);
                let waited = request.started.elapsed();
                return Err(match what {
                    What::Gate => Error::GateTimeout { waited, holders },
                    What::Connection => Error::PoolTimeout { waited, last_error: None, holders },
                });
            }
            // Somebody else may have taken the place that this waiter was woken for, and left one that is not for everybody:
            // the invitation goes on to the first who may use it.
            if !is_first_in_line {
                self.invite(&mut state, request.name);
                if state
                    .get(request.name)
                    .is_some_and(|turnstile| turnstile.holders.iter().any(|ticket| ticket.id == id))
                {
                    continue;
                }
            }
            state = wake.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn give_back(&self, Permit { name, id }: Permit) {
        let mut state = self.lock();
        let Some(turnstile) = state.get(name) else { return };
        if let Some(position) = turnstile.holders.iter().position(|ticket| ticket.id == id) {
            turnstile.holders.swap_remove(position);
        }
        self.invite(&mut state, name);
    }

    /// Gives free places to waiters that are overdue, and wakes the first of the others so that it may try.
    #[inline]
    fn invite(&self, state: &mut State, name: Name) {
        let Some(turnstile) = state.get(name) else { return };
        while let Some(position) = turnstile.queue.iter().position(|waiter| turnstile.room_for(waiter.thread.id())) {
            if turnstile.queue[position].since.elapsed() < BARGING {
                turnstile.queue[position].wake.notify_one();
                return;
            }
            let Some(waiter) = turnstile.queue.remove(position) else { return };
            turnstile.holders.push(Ticket {
                id: waiter.ticket,
                thread: waiter.thread,
                place: waiter.place,
                since: Instant::now(),
            });
            waiter.wake.notify_one();
        }
    }

    /// Who holds `name` now.
    pub(crate) fn holders(&self, name: Name) -> Holders {
        holders_of(&mut self.lock(), name)
    }

    /// How many threads wait for `name`.
    pub(crate) fn waiting(&self, name: Name) -> usize {
        self.lock().get(name).map_or(0, |turnstile| turnstile.queue.len())
    }
}

fn leave(state: &mut State, name: Name, id: u64) -> Option<&mut Turnstile> {
    let turnstile = state.get(name)?;
    turnstile.queue.retain(|waiter| waiter.ticket != id);
    Some(turnstile)
}

fn holders_of(state: &mut State, name: Name) -> Holders {
    let Some(turnstile) = state.get(name) else { return Holders::default() };
    turnstile
        .holders
        .iter()
        .map(|ticket| Holder::new(ticket.thread.id(), ticket.thread.name(), ticket.place, ticket.since))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::panic::Location;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A permit that is given back when it is dropped.
    struct Held(Arc<Turnstiles>, Option<Permit>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.give_back(self.1.take().unwrap());
        }
    }

    fn pass(turnstiles: &Arc<Turnstiles>, request: Request) -> Result<Held, Error> {
        let permit = turnstiles.pass(request, std::thread::current())?;
        Ok(Held(Arc::clone(turnstiles), Some(permit)))
    }

    fn request(name: Name, patience: Duration) -> Request {
        Request { name, place: Location::caller(), started: Instant::now(), patience }
    }

    /// Numbers without a pattern that a queue could follow.
    fn next(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    fn assert_empty(turnstiles: &Turnstiles) {
        let state = turnstiles.lock();
        assert!(state.turnstiles.iter().all(|turnstile| turnstile.holders.is_empty() && turnstile.queue.is_empty()));
    }

    /// Holds for so many turns of the processor.
    fn hold(turns: u64) {
        for _ in 0..turns {
            std::thread::yield_now();
        }
    }

    #[test]
    fn no_wake_up_and_no_permit_is_lost_while_waiters_come_and_lose_their_patience() {
        const THREADS: usize = 16;
        for (capacity, reserve) in [(1, 0), (3, 0), (4, 2)] {
            let turnstiles = Arc::new(Turnstiles::default());
            let name = turnstiles.add(What::Connection, capacity, reserve);
            let (inside, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let start = Barrier::new(THREADS);
            std::thread::scope(|threads| {
                for thread in 0..THREADS {
                    let (turnstiles, inside, served, start) = (&turnstiles, &inside, &served, &start);
                    threads.spawn(move || {
                        let mut seed = 88_172_645_463_325_252 + thread as u64;
                        start.wait();
                        for _ in 0..400 {
                            // Every other thread has little patience; it gives up just when its turn comes.
                            let patient = thread % 2 == 0;
                            let micros = if patient { 60_000_000 } else { next(&mut seed) % 8_000 };
                            match pass(turnstiles, request(name, Duration::from_micros(micros))) {
                                Ok(permit) => {
                                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                                    assert!(now <= capacity - reserve, "{now} at once");
                                    hold(next(&mut seed) % 30);
                                    inside.fetch_sub(1, Ordering::SeqCst);
                                    served.fetch_add(1, Ordering::Relaxed);
                                    drop(permit);
                                }
                                Err(Error::PoolTimeout { .. }) if !patient => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    });
                }
            });
            assert!(served.load(Ordering::Relaxed) >= THREADS / 2 * 400);
            assert_empty(&turnstiles);
        }
    }

    #[test]
    fn threads_that_take_second_permits_are_told_or_served_and_never_left_waiting() {
        const THREADS: usize = 8;
        for reserve in [0, 1] {
            let turnstiles = Arc::new(Turnstiles::default());
            let gate = turnstiles.add(What::Gate, 1, 0);
            let connections = turnstiles.add(What::Connection, 4, reserve);
            let patience = Duration::from_secs(60);
            let refused = AtomicUsize::new(0);
            // On a loaded machine threads may run one after the other, and then nobody meets.
            for _ in 0..50 {
                std::thread::scope(|threads| {
                    for thread in 0..THREADS {
                        let (turnstiles, refused) = (&turnstiles, &refused);
                        threads.spawn(move || {
                            let mut seed = 2_463_534_242 + thread as u64;
                            for _ in 0..300 {
                                let mut held = Vec::new();
                                let wanted = match next(&mut seed) % 4 {
                                    0 => vec![gate, connections],
                                    1 => vec![connections, connections],
                                    2 => vec![gate, connections, connections],
                                    _ => vec![connections, gate, connections],
                                };
                                for name in wanted {
                                    match pass(turnstiles, request(name, patience)) {
                                        Ok(permit) => held.push(permit),
                                        Err(Error::WouldStarve { .. } | Error::WouldDeadlock { .. }) => {
                                            refused.fetch_add(1, Ordering::Relaxed);
                                            break;
                                        }
                                        Err(error) => panic!("{error}"),
                                    }
                                    hold(next(&mut seed) % 4);
                                }
                            }
                        });
                    }
                });
                if refused.load(Ordering::Relaxed) > 0 {
                    break;
                }
            }
            assert!(refused.load(Ordering::Relaxed) > 0, "no ring was ever closed: the test tests nothing");
            assert_empty(&turnstiles);
        }
    }

    #[test]
    fn one_who_waits_longer_than_the_barging_time_is_served_before_newcomers() {
        let turnstiles = Arc::new(Turnstiles::default());
        let name = turnstiles.add(What::Gate, 1, 0);
        let patience = Duration::from_secs(60);
        let held = pass(&turnstiles, request(name, patience)).unwrap();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            let (turnstiles, order) = (&turnstiles, &order);
            for n in 0..4 {
                threads.spawn(move || {
                    let permit = pass(turnstiles, request(name, patience)).unwrap();
                    order.lock().unwrap().push(n);
                    drop(permit);
                });
                while turnstiles.waiting(name) <= n {
                    std::thread::yield_now();
                }
            }
            let started = Instant::now();
            while started.elapsed() < 2 * BARGING {
                std::thread::yield_now();
            }
            drop(held);
            let late = pass(turnstiles, request(name, patience)).unwrap();
            order.lock().unwrap().push(99);
            drop(late);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 99]);
        assert_empty(&turnstiles);
    }
}
