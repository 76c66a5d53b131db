//! How an executor is made.

use std::fmt;
use std::sync::Arc;

use super::batch::GroupCommit;
use super::lane::Duty;
use super::shell::{Shell, WhenFull};
use super::worker::Worker;
use super::{Executor, Owner};
use crate::backend::{GateRule, Kind, SessionConnection, Synchronous};
use crate::error::{Error, Result};
use crate::scope::ScopedSession;

/// How many jobs wait at most, unless the builder is told otherwise.
const PLACES: usize = 1_000;
/// How many threads read on SQLite.
const READERS: usize = 4;

/// How an [`Executor`] is made; see [`Executor::builder`].
#[must_use = "nothing happens until `build()`"]
pub struct ExecutorBuilder<C: SessionConnection> {
    registry: ScopedSession<C>,
    threads: Option<usize>,
    readers: Option<usize>,
    places: usize,
    when_full: WhenFull,
    group: Option<GroupCommit>,
}

impl<C: SessionConnection> fmt::Debug for ExecutorBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorBuilder")
            .field("threads", &self.threads)
            .field("readers", &self.readers)
            .field("queue", &self.places)
            .field("when_full", &self.when_full)
            .field("group_commit", &self.group)
            .finish_non_exhaustive()
    }
}

impl<C: SessionConnection> ExecutorBuilder<C> {
    pub(super) fn new(registry: ScopedSession<C>) -> Self {
        let (places, when_full) = (PLACES, WhenFull::default());
        Self { registry, threads: None, readers: None, places, when_full, group: None }
    }

    /// How many threads run what [`run`](Executor::run) submits. Default: 1 on SQLite, which lets one write at a time; on
    /// the servers as many as the engine has connections. `threads(1)` runs everything in the order of submission.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// How many threads more run what [`run_read`](Executor::run_read) submits. With 0 reads go with the rest. Default: on a
    /// SQLite file up to 4, as the engine's connections allow; 0 for data in memory, where sessions take turns anyway, and on
    /// the servers.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = Some(readers);
        self
    }

    /// How many jobs may wait, for each of the two kinds of threads. Default: 1 000.
    pub fn queue(mut self, places: usize) -> Self {
        self.places = places;
        self
    }

    /// What happens to a job beyond that. Default: [`WhenFull::Refuse`].
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// SQLite: jobs that wait together run in one transaction and share its COMMIT, which waits for the disk once for all.
    /// Off unless asked for.
    ///
    /// Each job after the first has a savepoint, so its `Err` or panic undoes its own work alone. **No job is answered, `Ok`
    /// or `Err`, and no hook runs, before the COMMIT is durable**; a job sees what those before it in the batch wrote, so its
    /// `Err` may rest on that too. Where the shared transaction is lost (a deferred constraint at COMMIT, a full disk,
    /// `RAISE(ROLLBACK)`, somebody's raw ROLLBACK) every job of it is answered with [`Error::BatchRolledBack`], or, where a
    /// raw COMMIT may have stored a part, with [`Error::CommitUnknown`]; those that have a
    /// [retry policy](crate::TransactionOptions::retry) are run again, each alone, and as many jobs as were in the batch are
    /// run alone after it.
    ///
    /// Reads, and jobs that ask for options of their own other than a time-out, are always alone.
    pub fn group_commit(mut self, group: GroupCommit) -> Self {
        self.group = Some(group);
        self
    }

    /// Starts the threads. No connection is opened yet.
    ///
    /// # Errors
    /// [`Error::Configuration`]: no threads, more threads than the engine has connections, group commit on a server or on
    /// more than one thread, or the system gave no thread. [`Error::ForkDetected`].
    pub fn build(self) -> Result<Executor<C>> {
        let engine = self.registry.engine();
        engine.origin().check()?;
        let is_sqlite = engine.kind() == Kind::Sqlite;
        let (threads, readers) = self.sizes(is_sqlite)?;
        if self.group.is_some() && (!is_sqlite || threads != 1) {
            return Err(Error::Configuration(
                "group_commit is for the one thread that writes to SQLite: drop it on a server, and use threads(1)"
                    .into(),
            ));
        }
        let lanes = [(Duty::Work, threads), (Duty::Read, readers)];
        let shell = Shell::new(&lanes, self.places, self.when_full, engine.origin().clone());
        let is_lax = is_sqlite && !matches!(engine.settings().synchronous, Synchronous::Full | Synchronous::Extra);
        let groups = self.group.is_some();
        let inner = Arc::new(Owner { shell, registry: self.registry, is_lax, groups });
        for lane in &inner.shell.lanes {
            for number in 0..lane.threads {
                let worker = Worker {
                    shell: Arc::clone(&inner.shell),
                    lane: Arc::clone(lane),
                    registry: inner.registry.clone(),
                    number,
                    group: self.group.filter(|_| lane.duty == Duty::Work),
                };
                worker.start()?;
            }
        }
        Ok(Executor { inner })
    }

    /// How many threads work, and how many read.
    fn sizes(&self, is_sqlite: bool) -> Result<(usize, usize)> {
        let engine = self.registry.engine();
        let connections = engine.max_size();
        let is_file = is_sqlite && engine.gate_rule() == GateRule::Writers;
        let threads = self.threads.unwrap_or(if is_sqlite { 1 } else { connections });
        let room = connections.saturating_sub(threads);
        let readers = self.readers.unwrap_or(if is_file { READERS.min(room) } else { 0 });
        if threads == 0 {
            return Err(Error::Configuration("threads(0): an executor needs a thread".into()));
        }
        if threads + readers > connections {
            return Err(Error::Configuration(
                format!("{threads} threads and {readers} for reads are more than the engine's {connections} connections: raise `max_size` or use fewer").into(),
            ));
        }
        Ok((threads, readers))
    }
}
