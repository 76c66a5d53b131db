//! What an executor is doing, and what it has done.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lane::Lane;
use super::shell::Shell;
use crate::inspect::Holders;

/// The state of an executor: a struct, a text (`Display`) and, with the feature `serde`, JSON. For sessions and connections
/// see [`ScopedSession::inspect`](crate::ScopedSession::inspect).
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExecutorReport {
    /// Each kind of threads.
    pub lanes: Vec<LaneReport>,
    /// Whether jobs share a COMMIT.
    pub group_commit: bool,
    /// Whether what was answered `Ok` survives a power failure. `false` on SQLite with `synchronous` below FULL; on the
    /// servers it is theirs to say, and this is `true`.
    pub is_durable: bool,
}

/// One kind of an executor's threads, and their queue.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LaneReport {
    /// What they do: `work`, `read` or `async`.
    pub duty: &'static str,
    /// How many there are.
    pub threads: usize,
    /// How many jobs wait.
    pub queued: usize,
    /// The jobs that run: thread, the line that submitted it, age.
    pub running: Holders,
    /// How many were submitted.
    pub submitted: u64,
    /// How many returned `Ok` and are committed.
    pub succeeded: u64,
    /// How many were rolled back, or nobody knows.
    pub failed: u64,
    /// How many were cancelled before they began.
    pub cancelled: u64,
    /// How many were refused before they began: the queue was full, the deadline past, or the executor shut down.
    pub refused: u64,
    /// How many attempts were followed by another.
    pub retried: u64,
    /// How many transactions there were; with group commit fewer than jobs.
    pub transactions: u64,
    /// How many shared transactions were lost.
    pub lost_batches: u64,
}

impl ExecutorReport {
    pub(super) fn new(shell: &Shell, group_commit: bool, is_lax: bool) -> Self {
        let lanes = if shell.origin.is_elsewhere() {
            Vec::new()
        } else {
            shell.lanes.iter().filter(|lane| lane.threads > 0).map(|lane| LaneReport::new(lane)).collect()
        };
        Self { lanes, group_commit, is_durable: !is_lax }
    }

    /// How many jobs wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queued).sum()
    }

    /// How many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lanes.iter().map(|lane| lane.running.len()).sum()
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// None in practice: every part of the report has a JSON form.
    #[cfg(feature = "serde")]
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl LaneReport {
    fn new(lane: &Lane) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &lane.counts;
        Self {
            duty: lane.duty.label(),
            threads: lane.threads,
            queued: lane.queue.len(),
            running: lane.running(),
            submitted: read(&counts.submitted),
            succeeded: read(&counts.succeeded),
            failed: read(&counts.failed),
            cancelled: read(&counts.cancelled),
            refused: read(&counts.refused),
            retried: read(&counts.retried),
            transactions: read(&counts.transactions),
            lost_batches: read(&counts.lost_batches),
        }
    }
}

impl fmt::Display for ExecutorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lane in &self.lanes {
            writeln!(
                f,
                "{}: {} thread(s), {} queued, {} running; {} submitted, {} succeeded, {} failed, {} cancelled, {} refused, {} run again, in {} transaction(s)",
                lane.duty,
                lane.threads,
                lane.queued,
                lane.running.len(),
                lane.submitted,
                lane.succeeded,
                lane.failed,
                lane.cancelled,
                lane.refused,
                lane.retried,
                lane.transactions
            )?;
            if !lane.running.is_empty() {
                writeln!(f, "{}", lane.running)?;
            }
            if lane.lost_batches > 0 {
                writeln!(f, "  {} shared transaction(s) lost", lane.lost_batches)?;
            }
        }
        if self.group_commit {
            write!(f, "group commit; ")?;
        }
        f.write_str(if self.is_durable { "durable" } else { "not durable: `synchronous` is below FULL" })
    }
}
