//! Where connections lie between transactions: in a pool, with their thread, alone, or nowhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use diesel::result::QueryResult;

use super::connect::{Connector, Manager, within};
use super::slot::Slot;
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::inspect::Holders;

/// Where an engine keeps its connections between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// A pool that all threads share (r2d2): few connections serve many threads. The default.
    #[default]
    Shared,
    /// One connection a thread, kept for that thread: no hand-over between threads, as many connections as threads
    /// (at most `max_size`: beyond that, an idle thread's connection is closed for one that needs it).
    PerThread,
    /// One connection for everybody, one after the other.
    Single,
    /// A new connection for each transaction, closed after it.
    None,
}

/// How long a thread that waits for a new connection goes without looking whether the engine was closed.
const LOOK_UP: Duration = Duration::from_millis(50);

/// A connection on loan.
pub(crate) enum Held<C: SessionConnection> {
    Pooled(r2d2::PooledConnection<Manager<C>>),
    Own(Box<Slot<C>>),
}

impl<C: SessionConnection> Held<C> {
    pub(crate) fn slot(&mut self) -> &mut Slot<C> {
        match self {
            Self::Pooled(pooled) => pooled,
            Self::Own(slot) => slot,
        }
    }
}

pub(crate) enum Store<C: SessionConnection> {
    Shared(Shared<C>),
    PerThread(Mutex<Kept<C>>),
    Single(Mutex<Option<Box<Slot<C>>>>),
    None,
}

/// The connections of [`Strategy::Shared`]: r2d2's pool and, where connections are local, the one that came back last.
///
/// Through the pool and back costs a tenth of a short SQLite transaction. The one kept here is at work again before
/// those in the pool, and only they grow old.
pub(crate) struct Shared<C: SessionConnection> {
    last: Mutex<Option<r2d2::PooledConnection<Manager<C>>>>,
    keeps_last: bool,
    /// How many threads wait for the pool; what comes back then goes there.
    waiting: AtomicUsize,
    pool: RwLock<Option<r2d2::Pool<Manager<C>>>>,
}

impl<C: SessionConnection> Shared<C> {
    /// `keeps_last`: whether the pool may miss one of its connections.
    pub(crate) fn new(pool: r2d2::Pool<Manager<C>>, keeps_last: bool) -> Self {
        Self { last: Mutex::new(None), keeps_last, waiting: AtomicUsize::new(0), pool: RwLock::new(Some(pool)) }
    }

    fn last(&self) -> Option<r2d2::PooledConnection<Manager<C>>> {
        if self.keeps_last { self.last.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None }
    }

    fn take(
        &self,
        connector: &Connector<C>,
        started: Instant,
        patience: Duration,
    ) -> Result<r2d2::PooledConnection<Manager<C>>> {
        if let Some(last) = self.last() {
            return Ok(last);
        }
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        let open = pool.as_ref().ok_or(Error::ShutDown)?;
        if let Some(pooled) = open.try_get() {
            return Ok(pooled);
        }
        // Without the lock: `close` must not have to wait for a server that does not answer.
        let waited_for = open.clone();
        drop(pool);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // One may have come back before this thread counted as waiting.
        let taken = match self.last() {
            Some(last) => Ok(last),
            None => wait_for_new(&waited_for, connector, started, patience),
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    fn give_back(&self, mut pooled: r2d2::PooledConnection<Manager<C>>) {
        let mut surplus = None;
        if self.keeps_last && pooled.is_clean() {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            // Asked under the lock, under which a waiting thread looks once more.
            if self.waiting.load(Ordering::SeqCst) == 0 {
                surplus = last.replace(pooled);
            } else {
                surplus = Some(pooled);
            }
        }
        // r2d2 takes it back by itself, and asks `has_broken`.
        drop(surplus);
    }

    fn close(&self) {
        let pool = self.pool.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut last) = self.last() {
            last.broken = true;
        }
        if let Some(pool) = pool {
            while pool.state().idle_connections > 0 {
                if let Some(mut idle) = pool.try_get() {
                    idle.broken = true;
                }
            }
        }
    }

    fn idle(&self) -> usize {
        let kept = usize::from(self.last.lock().unwrap_or_else(PoisonError::into_inner).is_some());
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        pool.as_ref().map_or(0, |pool| pool.state().idle_connections as usize) + kept
    }
}

/// The connections of [`Strategy::PerThread`].
pub(crate) struct Kept<C: SessionConnection> {
    idle: HashMap<ThreadId, Box<Slot<C>>>,
    /// How many are open: idle, on loan or being opened.
    open: usize,
}

impl<C: SessionConnection> Default for Kept<C> {
    fn default() -> Self {
        Self { idle: HashMap::new(), open: 0 }
    }
}

impl<C: SessionConnection> Kept<C> {
    /// Counts one more; gives one to close where that would be too many. The caller has a permit, so not all are on loan.
    fn make_room(&mut self, max_size: usize) -> Option<Box<Slot<C>>> {
        let thread = if self.open >= max_size { self.idle.keys().next().copied() } else { None };
        let evicted = thread.and_then(|thread| self.idle.remove(&thread));
        if evicted.is_none() {
            self.open += 1;
        }
        evicted
    }
}

impl<C: SessionConnection> Store<C> {
    /// A connection, fresh or kept, checked. The caller has a permit, so none of the `max_size` is missing.
    pub(crate) fn take(
        &self,
        connector: &Arc<Connector<C>>,
        started: Instant,
        patience: Duration,
        max_size: usize,
        wary: bool,
    ) -> Result<Held<C>> {
        loop {
            let mut held = match self {
                Self::Shared(shared) => Held::Pooled(shared.take(connector, started, patience)?),
                Self::PerThread(kept) => {
                    let (own, evicted) = {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        match kept.idle.remove(&std::thread::current().id()) {
                            Some(own) => (Some(own), None),
                            None => (None, kept.make_room(max_size)),
                        }
                    };
                    // Closed outside the lock: it may wait for a server.
                    drop(evicted);
                    Held::Own(match own {
                        Some(slot) => slot,
                        None => {
                            connector.open_within(remaining(started, patience)).inspect_err(|_| self.count_closed(1))?
                        }
                    })
                }
                Self::Single(kept) => {
                    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
                    Held::Own(match kept {
                        Some(slot) => slot,
                        None => connector.open_within(remaining(started, patience))?,
                    })
                }
                Self::None => Held::Own(connector.open_within(remaining(started, patience))?),
            };
            let is_doubtful = connector.doubts(held.slot(), started, wary);
            let checked = if is_doubtful && C::is_remote() {
                let checker = Arc::clone(connector);
                let is_pooled = matches!(held, Held::Pooled(_));
                // A server that is silent would keep this thread, and the connection, for as long as it likes.
                let answer = within(remaining(started, patience), move || {
                    let checked = check(&checker, &mut held, is_doubtful);
                    (held, checked)
                });
                let (back, checked) = answer.map_err(|silence| {
                    self.count_closed(usize::from(!is_pooled));
                    connector.refused(&silence)
                })?;
                held = back;
                checked
            } else {
                check(connector, &mut held, is_doubtful)
            };
            match checked {
                Ok(()) => return Ok(held),
                Err(error) => {
                    self.give_back(held);
                    if started.elapsed() >= patience {
                        return Err(connector.refused(&error));
                    }
                }
            }
        }
    }

    /// Puts a connection back where it belongs, or closes it.
    pub(crate) fn give_back(&self, held: Held<C>) {
        let mut slot = match held {
            Held::Pooled(pooled) => {
                if let Self::Shared(shared) = self {
                    shared.give_back(pooled);
                }
                return;
            }
            Held::Own(slot) => slot,
        };
        if !slot.is_clean() {
            drop(slot);
            return self.count_closed(1);
        }
        let surplus = match self {
            Self::PerThread(kept) => {
                let thread = std::thread::current().id();
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let surplus = kept.idle.insert(thread, slot);
                kept.open -= usize::from(surplus.is_some());
                surplus
            }
            Self::Single(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).replace(slot),
            Self::Shared(_) | Self::None => Some(slot),
        };
        drop(surplus);
    }

    /// Closes the connection that is kept for this thread.
    pub(crate) fn forget_thread(&self) {
        if let Self::PerThread(kept) = self {
            let own = kept.lock().unwrap_or_else(PoisonError::into_inner).idle.remove(&std::thread::current().id());
            self.count_closed(usize::from(own.is_some()));
        }
    }

    fn count_closed(&self, n: usize) {
        if let Self::PerThread(kept) = self {
            kept.lock().unwrap_or_else(PoisonError::into_inner).open -= n;
        }
    }

    /// Closes every idle connection, of every thread; those on loan close when they come back.
    pub(crate) fn close(&self) {
        match self {
            Self::Shared(shared) => shared.close(),
            Self::PerThread(kept) => {
                let all = std::mem::take(&mut kept.lock().unwrap_or_else(PoisonError::into_inner).idle);
                self.count_closed(all.len());
            }
            Self::Single(kept) => {
                let one = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
                drop(one);
            }
            Self::None => {}
        }
    }

    pub(crate) fn idle(&self) -> usize {
        match self {
            Self::Shared(shared) => shared.idle(),
            Self::PerThread(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).idle.len(),
            Self::Single(kept) => usize::from(kept.lock().unwrap_or_else(PoisonError::into_inner).is_some()),
            Self::None => 0,
        }
    }
}

/// Gets a connection ready for its next user; one that failed is not to be used again.
fn check<C: SessionConnection>(connector: &Connector<C>, held: &mut Held<C>, is_doubtful: bool) -> QueryResult<()> {
    let slot = held.slot();
    connector.check(slot, is_doubtful).inspect_err(|_| slot.broken = true)
}

fn remaining(started: Instant, patience: Duration) -> Duration {
    patience.saturating_sub(started.elapsed())
}

fn wait_for_new<C: SessionConnection>(
    pool: &r2d2::Pool<Manager<C>>,
    connector: &Connector<C>,
    started: Instant,
    patience: Duration,
) -> Result<r2d2::PooledConnection<Manager<C>>> {
    loop {
        // In turns: r2d2 goes on trying to connect when the engine has been closed.
        let error = match pool.get_timeout(remaining(started, patience).min(LOOK_UP)) {
            Ok(pooled) => return Ok(pooled),
            Err(error) => error,
        };
        if connector.is_closed() {
            return Err(Error::ShutDown);
        }
        if started.elapsed() >= patience {
            let last_error = Some(error.to_string());
            return Err(Error::PoolTimeout { waited: started.elapsed(), last_error, holders: Holders::default() });
        }
    }
}
