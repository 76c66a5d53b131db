//! Which of an executor's own threads wait for its jobs: a wait that could never end is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lane;
use crate::error::{Error, Result};

/// The waits of an executor's threads.
#[derive(Debug)]
pub(crate) struct Waits {
    executor: u64,
    /// For each lane its number of threads.
    threads: Vec<usize>,
    /// For each wait the lane of the thread that waits, and the lane of the job that it waits for.
    open: Mutex<Vec<(usize, usize)>>,
}

impl Waits {
    pub(crate) fn new(executor: u64, threads: Vec<usize>) -> Arc<Self> {
        Arc::new(Self { executor, threads, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Vec<(usize, usize)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this thread waits for a job in that lane; nothing to note for a thread that is not one of the executor's.
    pub(crate) fn begin(self: &Arc<Self>, job: usize) -> Result<Option<Waiting>> {
        let Some(mine) = lane::mine(self.executor) else { return Ok(None) };
        let mut open = self.open();
        open.push((mine, job));
        if self.is_stuck(&open, job) {
            open.pop();
            return Err(Error::WouldHang);
        }
        Ok(Some(Waiting { waits: Arc::clone(self), wait: (mine, job) }))
    }

    /// Whether no thread of the lane could ever serve a job again: each waits for a lane of which that is true.
    fn is_stuck(&self, open: &[(usize, usize)], lane: usize) -> bool {
        let mut stuck = vec![true; self.threads.len()];
        loop {
            let before = stuck.clone();
            for (lane, is_stuck) in stuck.iter_mut().enumerate() {
                let hopeless = open.iter().filter(|(from, to)| *from == lane && before[*to]).count();
                *is_stuck = hopeless >= self.threads[lane];
            }
            if stuck == before {
                return stuck.get(lane).copied().unwrap_or(false);
            }
        }
    }
}

/// A wait that goes on.
#[derive(Debug)]
pub(crate) struct Waiting {
    waits: Arc<Waits>,
    wait: (usize, usize),
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut open = self.waits.open();
        if let Some(position) = open.iter().position(|wait| *wait == self.wait) {
            open.swap_remove(position);
        }
    }
}
