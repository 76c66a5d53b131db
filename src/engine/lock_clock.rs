//! How long whoever has a file's write gate has been waiting for SQLite's own lock: nobody but a writer outside the gate makes
//! him wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A BEGIN that takes longer than this waits for somebody.
const NOTICED: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct LockClock {
    made: Instant,
    /// When the BEGIN that runs was sent, in microseconds since then, from 1; 0 while none runs.
    since: AtomicU64,
    /// The last wait that was noticed: when it ended, and how long it was.
    last: Mutex<Option<(Instant, Duration)>>,
}

impl LockClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { made: Instant::now(), since: AtomicU64::new(0), last: Mutex::default() })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// BEGIN is about to be sent, and is over when the answer is dropped.
    pub(crate) fn start(self: &Arc<Self>) -> Beginning {
        self.since.store(self.now(), Ordering::Relaxed);
        Beginning(Arc::clone(self))
    }

    /// How long the BEGIN that runs has been waiting, if that is to be noticed.
    fn waits(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        let waited = Duration::from_micros(self.now().saturating_sub(since));
        (since > 0 && waited >= NOTICED).then_some(waited)
    }

    /// How long the newest wait was, or is so far, if it goes on or ended after this moment.
    pub(crate) fn waited_after(&self, moment: Instant) -> Option<Duration> {
        self.waits().or_else(|| {
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.filter(|(ended, _)| *ended > moment).map(|(_, waited)| waited)
        })
    }
}

/// A BEGIN that runs.
#[derive(Debug)]
pub(crate) struct Beginning(Arc<LockClock>);

impl Drop for Beginning {
    fn drop(&mut self) {
        let waited = self.0.waits();
        self.0.since.store(0, Ordering::Relaxed);
        if let Some(waited) = waited {
            *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), waited));
        }
    }
}
