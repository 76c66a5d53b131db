//! How long a storm lasts, one storm at a time, and its figures.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// `short` seconds, or a minute.
pub fn length(short: u64) -> Duration {
    let is_long = std::env::var_os("DIESEL_SESSION_LONG").is_some_and(|value| value == "1");
    Duration::from_secs(if is_long { 60 } else { short })
}

/// Two storms at once would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads of a storm saw.
#[derive(Debug, Default)]
pub struct Figures {
    pub waits: Vec<Duration>,
    /// How many jobs took so many attempts.
    pub attempts: BTreeMap<u32, u64>,
    pub failed: BTreeMap<String, u64>,
}

impl Figures {
    pub fn add(&mut self, other: Self) {
        self.waits.extend(other.waits);
        for (attempts, jobs) in other.attempts {
            *self.attempts.entry(attempts).or_default() += jobs;
        }
        for (error, jobs) in other.failed {
            *self.failed.entry(error).or_default() += jobs;
        }
    }

    pub fn done(&self) -> u64 {
        self.attempts.values().sum()
    }

    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Prints them; gives the longest wait.
    pub fn print(&mut self, name: &str) -> Duration {
        self.waits.sort_unstable();
        let at = |part: usize| self.waits.get(self.waits.len() * part / 1000).copied().unwrap_or_default();
        let longest = self.waits.last().copied().unwrap_or_default();
        println!(
            "{name}: {} done, {} failed {:?}; median {:?}, p99 {:?}, p99.9 {:?}, longest {longest:?}; by attempts {:?}",
            self.done(),
            self.failures(),
            self.failed,
            at(500),
            at(990),
            at(999),
            self.attempts,
        );
        longest
    }
}
