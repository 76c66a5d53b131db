//! Which of an executor's own threads wait for its jobs: a wait that could never end is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lane;
use crate::error::{Error, Result};

/// A thread of an executor: its lane, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) lane: usize,
    pub(crate) number: usize,
}

/// Who could end a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Any thread of the lane: it would serve the job.
    Lane(usize),
    /// Only this thread: it bears the `AsyncSession`.
    Seat(Seat),
}

#[derive(Debug, Clone)]
struct Wait {
    from: Seat,
    to: Target,
    /// Whether what it waits for is there: its thread goes on, though it may not have woken yet.
    is_over: Arc<AtomicBool>,
}

/// The waits of an executor's threads.
#[derive(Debug)]
pub(crate) struct Waits {
    executor: u64,
    /// For each lane its number of threads.
    threads: Vec<usize>,
    open: Mutex<Vec<Wait>>,
}

impl Waits {
    pub(crate) fn new(executor: u64, threads: Vec<usize>) -> Arc<Self> {
        Arc::new(Self { executor, threads, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Wait>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this thread waits; nothing to note for a thread that is not one of the executor's. `sign`: turns true when
    /// what it waits for is there.
    pub(crate) fn begin(
        self: &Arc<Self>,
        to: Target,
        sign: impl FnOnce() -> Arc<AtomicBool>,
    ) -> Result<Option<Waiting>> {
        let Some(from) = lane::mine(self.executor) else { return Ok(None) };
        let wait = Wait { from, to, is_over: sign() };
        let mut open = self.open();
        open.push(wait.clone());
        if self.is_stuck(&open, to) {
            open.pop();
            return Err(Error::WouldHang);
        }
        Ok(Some(Waiting { waits: Arc::clone(self), wait }))
    }

    /// Whether nobody could ever end a wait for this: each who could waits for something of which that is true.
    fn is_stuck(&self, open: &[Wait], target: Target) -> bool {
        let mut stuck: Vec<Wait> = open.iter().filter(|wait| !wait.is_over.load(Ordering::Acquire)).cloned().collect();
        loop {
            let before = stuck.clone();
            stuck.retain(|wait| self.is_hopeless(&before, wait.to));
            if stuck.len() == before.len() {
                return self.is_hopeless(&stuck, target);
            }
        }
    }

    /// Whether each who could end a wait for this is among those that are stuck.
    fn is_hopeless(&self, stuck: &[Wait], target: Target) -> bool {
        match target {
            Target::Lane(lane) => {
                let waiting = stuck.iter().filter(|wait| wait.from.lane == lane).count();
                self.threads.get(lane).is_none_or(|threads| waiting >= *threads)
            }
            Target::Seat(seat) => stuck.iter().any(|wait| wait.from == seat),
        }
    }
}

/// A wait that goes on.
#[derive(Debug)]
pub(crate) struct Waiting {
    waits: Arc<Waits>,
    wait: Wait,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut open = self.waits.open();
        if let Some(position) = open.iter().position(|wait| Arc::ptr_eq(&wait.is_over, &self.wait.is_over)) {
            open.swap_remove(position);
        }
    }
}
