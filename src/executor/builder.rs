//! How an executor is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::batch::GroupCommit;
use super::bearing::Leases;
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
/// How many threads bear `AsyncSession`s, and at most which part of the connections they take.
const BEARERS: usize = 4;
const PART_OF_BEARERS: usize = 4;
/// For how long an `AsyncSession` may be idle, and for how long if it keeps others waiting.
const LEASE: Duration = Duration::from_secs(5);
const LEASE_AT_THE_GATE: Duration = Duration::from_millis(500);

/// How an [`Executor`] is made; see [`Executor::builder`].
#[must_use = "nothing happens until `build()`"]
pub struct ExecutorBuilder<C: SessionConnection> {
    registry: ScopedSession<C>,
    threads: Option<usize>,
    readers: Option<usize>,
    bearers: Option<usize>,
    async_writers: bool,
    lease: Duration,
    lease_at_the_gate: Duration,
    places: usize,
    when_full: WhenFull,
    group: Option<GroupCommit>,
}

/// How many threads a lane has.
struct Sizes {
    threads: usize,
    readers: usize,
    bearers: usize,
}

impl<C: SessionConnection> fmt::Debug for ExecutorBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorBuilder")
            .field("threads", &self.threads)
            .field("readers", &self.readers)
            .field("async_sessions", &self.bearers)
            .field("async_writers", &self.async_writers)
            .field("queue", &self.places)
            .field("when_full", &self.when_full)
            .field("group_commit", &self.group)
            .finish_non_exhaustive()
    }
}

impl<C: SessionConnection> ExecutorBuilder<C> {
    pub(super) fn new(registry: ScopedSession<C>) -> Self {
        Self {
            registry,
            threads: None,
            readers: None,
            bearers: None,
            async_writers: false,
            lease: LEASE,
            lease_at_the_gate: LEASE_AT_THE_GATE,
            places: PLACES,
            when_full: WhenFull::default(),
            group: None,
        }
    }

    /// How many threads run what [`run`](Executor::run) submits. Default: 1 on SQLite, which lets one write at a time; on
    /// the servers as many as the engine has connections beside the other threads here. `threads(1)` runs everything in the order of submission.
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

    /// How many threads more bear an [`AsyncSession`](crate::AsyncSession) each, one after the other: so many may be open at
    /// once. With 0 they are refused. Default: up to 4, as the engine's connections allow, but no more than a quarter of
    /// them; so with the default `max_size` of 10 it is 2.
    pub fn async_sessions(mut self, sessions: usize) -> Self {
        self.bearers = Some(sessions);
        self
    }

    /// SQLite: whether an [`AsyncSession`](crate::AsyncSession) may write. From its first statement to its end, between its
    /// awaits too, every other writer of the file waits for it, and in memory every session. Default: no. Servers have no
    /// need of it.
    pub fn async_writers(mut self, allowed: bool) -> Self {
        self.async_writers = allowed;
        self
    }

    /// For how long an [`AsyncSession`](crate::AsyncSession) may be idle between its calls, before it is rolled back.
    /// Default: 5 s.
    pub fn async_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The same for those that keep others waiting: on a SQLite file those that may write, for data in memory all. Default:
    /// 500 ms.
    pub fn async_writer_lease(mut self, lease: Duration) -> Self {
        self.lease_at_the_gate = lease;
        self
    }

    /// How many jobs may wait, for each kind of threads. Default: 1 000. With 0 a job is taken only where a thread sleeps, and so
    /// is refused between two jobs too: let it wait a little, with [`WhenFull::WaitFor`].
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
    /// `RAISE(ROLLBACK)`) every job of it is answered with [`Error::BatchRolledBack`], or, where raw SQL ended it (a COMMIT or
    /// ROLLBACK in `with_connection`) and may have stored a part, with [`Error::CommitUnknown`]; those that have a
    /// [retry policy](crate::TransactionOptions::retry) are run again, each alone, and as many jobs as were in the batch are
    /// run alone after it.
    ///
    /// So a job must not wait for something that its caller does only when an earlier job is answered: both may be in one batch.
    ///
    /// Nor must it, before its own session's first statement, wait for another transaction that writes to the file, be it one
    /// in the job ([`Propagation::RequiresNew`](crate::Propagation::RequiresNew), a session of its own) or another
    /// thread's: alone that goes well, but behind another job of a batch the write lock is taken. Submit such a job with
    /// [`begin_mode`](crate::TransactionOptions::begin_mode), so that it is alone.
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
    /// more than one thread, a lease of no time, or the system gave no thread. [`Error::ForkDetected`].
    pub fn build(self) -> Result<Executor<C>> {
        let engine = self.registry.engine();
        engine.origin().check()?;
        let is_sqlite = engine.kind() == Kind::Sqlite;
        let sizes = self.sizes(is_sqlite)?;
        if self.group.is_some() && (!is_sqlite || sizes.threads != 1) {
            return Err(Error::Configuration(
                "group_commit is for the one thread that writes to SQLite: drop it on a server, and use threads(1)"
                    .into(),
            ));
        }
        if self.lease.is_zero() || self.lease_at_the_gate.is_zero() {
            return Err(Error::Configuration(
                "a lease of no time ends before the first call: to have no AsyncSessions, use async_sessions(0)".into(),
            ));
        }
        let lanes = [(Duty::Work, sizes.threads), (Duty::Read, sizes.readers), (Duty::Bear, sizes.bearers)];
        let shell =
            Shell::new(&lanes, self.places, self.when_full, engine.origin().clone(), engine.lock_clock().as_ref());
        let is_lax = is_sqlite && !matches!(engine.settings().synchronous, Synchronous::Full | Synchronous::Extra);
        let groups = self.group.is_some();
        let (usual, at_the_gate) = (self.lease, self.lease_at_the_gate);
        let leases = Leases { usual, at_the_gate, gate_rule: engine.gate_rule() };
        let async_writers = self.async_writers;
        let inner = Arc::new(Owner { shell, registry: self.registry, is_lax, groups, leases, async_writers });
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

    /// How many threads each lane has.
    fn sizes(&self, is_sqlite: bool) -> Result<Sizes> {
        let engine = self.registry.engine();
        let connections = engine.max_size();
        let is_file = is_sqlite && engine.gate_rule() == GateRule::Writers;
        let few = BEARERS.min(connections / PART_OF_BEARERS);
        let (threads, readers, bearers) = if is_sqlite {
            let threads = self.threads.unwrap_or(1);
            let room = connections.saturating_sub(threads + self.bearers.unwrap_or(0));
            let readers = self.readers.unwrap_or(if is_file { READERS.min(room) } else { 0 });
            (threads, readers, self.bearers.unwrap_or(few.min(room.saturating_sub(readers))))
        } else {
            let readers = self.readers.unwrap_or(0);
            let room = connections.saturating_sub(self.threads.unwrap_or(1) + readers);
            let bearers = self.bearers.unwrap_or(few.min(room));
            let rest = connections.saturating_sub(readers + bearers);
            // Never none: more than there is room for is told below.
            (self.threads.unwrap_or(rest.max(1)), readers, bearers)
        };
        if threads == 0 {
            return Err(Error::Configuration("threads(0): an executor needs a thread".into()));
        }
        if threads + readers + bearers > connections {
            return Err(Error::Configuration(
                format!("{threads} threads, {readers} for reads and {bearers} for AsyncSessions are more than the engine's {connections} connections: raise `max_size` or use fewer").into(),
            ));
        }
        Ok(Sizes { threads, readers, bearers })
    }
}
