//! Where connections lie between transactions: in a pool, with their thread, alone, or nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::connect::{Connector, Manager, Slot};
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

/// The connections of threads: those that lie idle, and how many are on loan.
pub(crate) struct Kept<C> {
    idle: HashMap<ThreadId, Box<Slot<C>>>,
    on_loan: usize,
}

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self { idle: HashMap::new(), on_loan: 0 }
    }
}

pub(crate) enum Store<C: SessionConnection> {
    Shared(RwLock<Option<r2d2::Pool<Manager<C>>>>),
    PerThread(Mutex<Kept<C>>),
    Single(Mutex<Option<Box<Slot<C>>>>),
    None,
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
                Self::Shared(pool) => {
                    let pool = pool.read().unwrap_or_else(PoisonError::into_inner);
                    let open = pool.as_ref().ok_or(Error::ShutDown)?;
                    match open.try_get() {
                        Some(pooled) => Held::Pooled(pooled),
                        None => {
                            // Without the lock: `close` must not have to wait for a server that does not answer.
                            let waited_for = open.clone();
                            drop(pool);
                            Held::Pooled(wait_for_new(&waited_for, started, patience)?)
                        }
                    }
                }
                Self::PerThread(kept) => {
                    let (own, evicted) = {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        let own = kept.idle.remove(&std::thread::current().id());
                        let is_full = own.is_none() && kept.idle.len() + kept.on_loan >= max_size;
                        let idle = if is_full { kept.idle.keys().next().copied() } else { None };
                        let evicted = idle.and_then(|thread| kept.idle.remove(&thread));
                        kept.on_loan += 1;
                        (own, evicted)
                    };
                    drop(evicted);
                    let own = own.map_or_else(|| connector.open_within(remaining(started, patience)), Ok);
                    Held::Own(own.inspect_err(|_| self.one_less_on_loan())?)
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
            let slot = held.slot();
            match connector.check(slot, started, wary) {
                Ok(()) => return Ok(held),
                Err(error) => {
                    slot.broken = true;
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
            // r2d2 takes it back by itself, and asks `has_broken`.
            Held::Pooled(_) => return,
            Held::Own(slot) => slot,
        };
        let is_clean = slot.is_clean();
        if !is_clean {
            drop(slot);
            return self.one_less_on_loan();
        }
        let surplus = match self {
            Self::PerThread(kept) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.on_loan = kept.on_loan.saturating_sub(1);
                kept.idle.insert(std::thread::current().id(), slot)
            }
            Self::Single(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).replace(slot),
            Self::Shared(_) | Self::None => Some(slot),
        };
        drop(surplus);
    }

    /// One on loan was closed instead of coming back.
    fn one_less_on_loan(&self) {
        if let Self::PerThread(kept) = self {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.on_loan = kept.on_loan.saturating_sub(1);
        }
    }

    /// Closes the connection that is kept for this thread.
    pub(crate) fn forget_thread(&self) {
        if let Self::PerThread(kept) = self {
            let own = kept.lock().unwrap_or_else(PoisonError::into_inner).idle.remove(&std::thread::current().id());
            drop(own);
        }
    }

    /// Closes every idle connection, of every thread; those on loan close when they come back.
    pub(crate) fn close(&self) {
        match self {
            Self::Shared(pool) => {
                let pool = pool.write().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(pool) = pool {
                    while pool.state().idle_connections > 0 {
                        if let Some(mut idle) = pool.try_get() {
                            idle.broken = true;
                        }
                    }
                }
            }
            Self::PerThread(kept) => {
                let all = std::mem::take(&mut kept.lock().unwrap_or_else(PoisonError::into_inner).idle);
                drop(all);
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
            Self::Shared(pool) => {
                let pool = pool.read().unwrap_or_else(PoisonError::into_inner);
                pool.as_ref().map_or(0, |pool| pool.state().idle_connections as usize)
            }
            Self::PerThread(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).idle.len(),
            Self::Single(kept) => usize::from(kept.lock().unwrap_or_else(PoisonError::into_inner).is_some()),
            Self::None => 0,
        }
    }
}

fn remaining(started: Instant, patience: Duration) -> Duration {
    patience.saturating_sub(started.elapsed())
}

fn wait_for_new<C: SessionConnection>(
    pool: &r2d2::Pool<Manager<C>>,
    started: Instant,
    patience: Duration,
) -> Result<r2d2::PooledConnection<Manager<C>>> {
    pool.get_timeout(remaining(started, patience)).map_err(|error| Error::PoolTimeout {
        waited: started.elapsed(),
        last_error: Some(error.to_string()),
        holders: Holders::default(),
    })
}
