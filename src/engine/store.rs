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

pub(crate) enum Store<C: SessionConnection> {
    Shared(RwLock<Option<r2d2::Pool<Manager<C>>>>),
    PerThread(Mutex<HashMap<ThreadId, Box<Slot<C>>>>),
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
    ) -> Result<Held<C>> {
        loop {
            let mut held = match self {
                Self::Shared(pool) => {
                    let pool = pool.read().unwrap_or_else(PoisonError::into_inner);
                    let pool = pool.as_ref().ok_or(Error::ShutDown)?;
                    match pool.try_get() {
                        Some(pooled) => Held::Pooled(pooled),
                        None => Held::Pooled(wait_for_new(pool, started, patience)?),
                    }
                }
                Self::PerThread(kept) => {
                    let own = {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        let own = kept.remove(&std::thread::current().id());
                        if own.is_none() && kept.len() >= max_size {
                            let idle = kept.keys().next().copied();
                            let evicted = idle.and_then(|thread| kept.remove(&thread));
                            drop(kept);
                            drop(evicted);
                        }
                        own
                    };
                    Held::Own(match own {
                        Some(slot) => slot,
                        None => connector.open_within(remaining(started, patience))?,
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
            let slot = held.slot();
            match connector.check(slot, started) {
                Ok(()) => return Ok(held),
                Err(error) => {
                    slot.broken = true;
                    drop(held);
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
        if !slot.is_clean() {
            return;
        }
        let surplus = match self {
            Self::PerThread(kept) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).insert(std::thread::current().id(), slot)
            }
            Self::Single(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).replace(slot),
            Self::Shared(_) | Self::None => Some(slot),
        };
        drop(surplus);
    }

    /// Closes the connection that is kept for this thread.
    pub(crate) fn forget_thread(&self) {
        if let Self::PerThread(kept) = self {
            let own = kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&std::thread::current().id());
            drop(own);
        }
    }

    /// Closes every idle connection, of every thread; those on loan close when they come back.
    pub(crate) fn close(&self) {
        match self {
            Self::Shared(pool) => {
                let pool = pool.write().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(pool) = pool {
                    while let Some(mut idle) = pool.try_get() {
                        idle.broken = true;
                    }
                }
            }
            Self::PerThread(kept) => {
                let all = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
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
            Self::PerThread(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).len(),
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
