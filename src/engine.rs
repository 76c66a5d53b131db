//! Where connections come from: the URL, the pool, the set-up of each connection and, on SQLite, the write gate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::backend::{ConnectionSettings, GateKey, GateRule, Kind, Phase, SessionConnection, Verdict, Witness};
use crate::error::{Error, ErrorClass, Result};
use crate::fork::Origin;
use crate::inspect::Holders;
use crate::options::TransactionOptions;
use crate::place::Place;

mod builder;
mod connect;
mod lock_clock;
mod sandbox;
mod slot;
mod store;
mod turnstile;
mod watch;

pub use builder::{EngineBuilder, StatementErrors};
pub use store::Strategy;

pub(crate) use connect::redact;
pub(crate) use lock_clock::{Beginning, LockClock};

use connect::Connector;
use slot::Slot;
use store::{Held, Store};
use turnstile::{Name, Permit, Request, Turnstiles, What};

/// After so many verified commits old marker rows are forgotten.
const COMMITS_TO_PRUNE: u64 = 10_000;
/// How long to wait before a server that does not answer is asked again.
const VERIFY_AGAIN: Duration = Duration::from_millis(50);
/// A commit that was sent in time is asked about for so long, however little is left of its deadline.
const VERIFY_AT_LEAST: Duration = Duration::from_secs(1);

/// Where connections come from. Cheap to clone, `Send + Sync`; make one for each database at start-up.
///
/// # Examples
/// ```
/// use diesel::sqlite::SqliteConnection;
/// use diesel_session::Engine;
///
/// # fn main() -> diesel_session::Result<()> {
/// let engine = Engine::<SqliteConnection>::builder(":memory:").max_size(8).build()?;
/// assert_eq!(engine.max_size(), 8);
/// # Ok(()) }
/// ```
pub struct Engine<C: SessionConnection> {
    inner: Arc<Inner<C>>,
}

impl<C: SessionConnection> Clone for Engine<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: SessionConnection> fmt::Debug for Engine<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("url", &self.inner.connector.shown_url)
            .field("max_size", &self.inner.max_size)
            .finish_non_exhaustive()
    }
}

struct Inner<C: SessionConnection> {
    origin: Origin,
    connector: Arc<Connector<C>>,
    store: Store<C>,
    kind: Kind,
    turnstiles: Arc<Turnstiles>,
    connections: Name,
    gate_rule: GateRule,
    gate: Option<Arc<Gate>>,
    max_size: usize,
    patience: Duration,
    native_errors: bool,
    /// How many verified commits are left until old marker rows are forgotten.
    commits_to_prune: AtomicU64,
    keeps_threads: bool,
    /// SQLite in memory: the data lives as long as one connection does.
    anchor: Option<Mutex<Box<Slot<C>>>>,
}

impl<C: SessionConnection> Drop for Inner<C> {
    fn drop(&mut self) {
        if self.origin.is_elsewhere() {
            // Forgotten, not closed: they are the parent's.
            std::mem::forget(std::mem::replace(&mut self.store, Store::None));
            std::mem::forget(self.anchor.take());
            std::mem::forget(Arc::clone(&self.connector));
            // So that `Gate::of` goes on knowing that the file is open here.
            std::mem::forget(self.gate.clone());
            return;
        }
        self.turnstiles.forget(self.connections);
    }
}

/// The write gate of one database file, shared by every engine of this process that opened it.
struct Gate {
    origin: Origin,
    turnstiles: Arc<Turnstiles>,
    name: Name,
    /// Made for the first executor: only jobs wait where nobody sees what for.
    lock: OnceLock<Arc<LockClock>>,
}

static GATES: Mutex<Option<HashMap<GateKey, Weak<Gate>>>> = Mutex::new(None);

impl Gate {
    fn new() -> Arc<Self> {
        let turnstiles = Arc::new(Turnstiles::default());
        let name = turnstiles.add(What::Gate, 1, 0);
        Arc::new(Self { origin: Origin::here(), turnstiles, name, lock: OnceLock::new() })
    }

    /// The gate of this file. Refused where the file was open before a fork: SQLite keeps one record of a file's locks for the
    /// whole process, and in the child it names locks that only the parent has.
    fn of(key: Option<GateKey>) -> Result<Arc<Self>> {
        let Some(key) = key else { return Ok(Self::new()) };
        let mut gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
        let gates = gates.get_or_insert_default();
        if let Some(gate) = gates.get(&key).and_then(Weak::upgrade) {
            return gate.origin.check().map(|()| gate);
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Self::new();
        gates.insert(key, Arc::downgrade(&gate));
        Ok(gate)
    }
}

/// A connection on loan for one transaction, with the right to hold it.
pub(crate) struct Lease<C: SessionConnection> {
    engine: Engine<C>,
    gate: Option<Permit>,
    connection: Option<Permit>,
    held: Option<Held<C>>,
}

/// Gives the rights back when the connection has gone, also if closing it panicked.
struct Rights<'a, C: SessionConnection> {
    engine: &'a Inner<C>,
    gate: Option<Permit>,
    connection: Option<Permit>,
}

impl<C: SessionConnection> Drop for Rights<'_, C> {
    fn drop(&mut self) {
        if let Some(permit) = self.connection.take() {
            self.engine.turnstiles.give_back(permit);
        }
        if let (Some(permit), Some(gate)) = (self.gate.take(), &self.engine.gate) {
            gate.turnstiles.give_back(permit);
        }
    }
}

impl<C: SessionConnection> Lease<C> {
    pub(crate) fn slot(&mut self) -> Option<&mut Slot<C>> {
        self.held.as_mut().map(Held::slot)
    }

    /// Before BEGIN is sent, until the answer is dropped: with the gate, it waits for nobody but a writer outside.
    pub(crate) fn beginning(&self) -> Option<Beginning> {
        let gate = self.engine.inner.gate.as_ref().filter(|_| self.gate.is_some())?;
        gate.lock.get().map(LockClock::start)
    }
}

impl<C: SessionConnection> Drop for Lease<C> {
    fn drop(&mut self) {
        let engine = &*self.engine.inner;
        if engine.origin.is_elsewhere() {
            std::mem::forget(self.held.take());
            return;
        }
        let _rights = Rights { engine, gate: self.gate.take(), connection: self.connection.take() };
        if let Some(mut held) = self.held.take() {
            let slot = held.slot();
            // Of a local one it is enough to know when it was lent, unless it is newer than that.
            if C::is_remote() || slot.born >= slot.last_used {
                slot.last_used = Instant::now();
            }
            let connector = &engine.connector;
            let is_too_old = connector
                .max_lifetime
                .is_some_and(|lifetime| slot.last_used.saturating_duration_since(slot.born) >= lifetime);
            // A thread whose destructors have come this far asks for no connection again: kept for it, nobody would close it.
            let is_orphan = engine.keeps_threads && AT_THREAD_END.try_with(|_| ()).is_err();
            if is_too_old || is_orphan || connector.is_closed() {
                slot.broken = true;
            }
            engine.store.give_back(held);
            // Closed in between: `close` may have looked before the connection was back.
            if connector.is_closed() {
                engine.store.close();
            }
        }
    }
}

pub(crate) use slot::Slot as ConnectionSlot;

impl<C: SessionConnection> Engine<C> {
    /// Starts an engine for a URL: a file or `:memory:` for SQLite, `postgres://…`, `mysql://…`.
    pub fn builder(url: impl Into<String>) -> EngineBuilder<C> {
        EngineBuilder::new(url.into())
    }

    /// An engine with every default.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    pub fn new(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).build()
    }

    /// How many connections may be in use at once.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.inner.max_size
    }

    /// How many connections lie idle now.
    #[must_use]
    pub fn idle(&self) -> usize {
        if self.is_elsewhere() { 0 } else { self.inner.store.idle() }
    }

    /// Who holds connections now.
    #[must_use]
    pub fn connections_in_use(&self) -> Holders {
        if self.is_elsewhere() { Holders::default() } else { self.inner.turnstiles.holders(self.inner.connections) }
    }

    /// Who holds the write gate now (SQLite; empty elsewhere).
    #[must_use]
    pub fn write_gate(&self) -> Holders {
        let gate = self.inner.gate.as_ref().filter(|_| !self.is_elsewhere());
        gate.map(|gate| gate.turnstiles.holders(gate.name)).unwrap_or_default()
    }

    /// How many threads wait for a connection or for the write gate.
    #[must_use]
    pub fn waiting(&self) -> usize {
        if self.is_elsewhere() {
            return 0;
        }
        let gate = self.inner.gate.as_ref().map_or(0, |gate| gate.turnstiles.waiting(gate.name));
        self.inner.turnstiles.waiting(self.inner.connections) + gate
    }

    /// Which database this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// Closes every idle connection, of every thread, and refuses new ones ([`Error::ShutDown`]). A connection in use
    /// closes when its transaction ends. Data in memory (SQLite) lives on until the engine's last clone is dropped.
    ///
    /// In a process forked since the engine was made this does nothing: the connections are the parent's.
    pub fn close_all(&self) {
        if self.is_elsewhere() {
            return;
        }
        self.inner.connector.close();
        self.inner.store.close();
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// Whether the engine was made in another process, before a fork.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.inner.origin.is_elsewhere()
    }

    pub(crate) fn settings(&self) -> &ConnectionSettings {
        &self.inner.connector.settings
    }

    /// Whether transactions that may write wait for each other, and those that only read don't.
    pub(crate) fn writers_take_turns(&self) -> bool {
        self.inner.gate_rule == GateRule::Writers
    }

    /// Who waits for the write gate.
    pub(crate) fn gate_rule(&self) -> GateRule {
        self.inner.gate_rule
    }

    pub(crate) fn verifies_commits(&self) -> bool {
        self.settings().verify_commits
    }

    /// Finds out, on a connection of its own, what became of a commit; asks until the connection time-out is over or the
    /// unit's deadline, `until`, has come.
    pub(crate) fn verify(&self, witness: &Witness, until: Option<Instant>) -> Verdict {
        let inner = &*self.inner;
        let now = Instant::now();
        let left = until.map(|until| until.saturating_duration_since(now).max(VERIFY_AT_LEAST));
        let deadline = now + left.map_or(inner.patience, |left| left.min(inner.patience));
        loop {
            let connector = Arc::clone(&inner.connector);
            let witness = witness.clone();
            // On a thread of its own: a server that falls silent keeps nobody, and a panic of the user's instrumentation ends
            // there.
            let asked = connect::within(deadline.saturating_duration_since(Instant::now()), move || {
                let mut slot = connector.open()?;
                Ok::<_, Error>(slot.conn.verify(&witness, &slot.state, deadline))
            });
            let (error, is_passing) = match asked {
                Ok(Ok(Ok(verdict))) => return verdict,
                Ok(Ok(Err(error))) => (inner.connector.refused(&error), passes(C::classify(&error, Phase::Statement))),
                // A server that has just died needs a while.
                Ok(Err(error)) => (error, true),
                Err(silence) => (inner.connector.refused(&silence), false),
            };
            if !is_passing || Instant::now() + VERIFY_AGAIN >= deadline {
                tracing::warn!(error = error.for_the_log(), "the outcome of a commit could not be found out");
                return Verdict::Unknown;
            }
            tracing::debug!(error = error.for_the_log(), "the outcome of a commit is not known yet");
            std::thread::sleep(VERIFY_AGAIN);
        }
    }

    /// Counts a verified commit; whether it is time to forget old marker rows.
    pub(crate) fn is_time_to_prune(&self) -> bool {
        self.inner.commits_to_prune.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(if left == 0 { COMMITS_TO_PRUNE } else { left - 1 })
        }) == Ok(0)
    }

    pub(crate) fn native_errors(&self) -> bool {
        self.inner.native_errors
    }

    /// Takes the gate if the transaction needs it, then a connection; waits at most `patience`, and the connection time-out, in all. `wary`:
    /// trusts no connection that lay idle, however short.
    pub(crate) fn lease(
        &self,
        options: &TransactionOptions,
        place: Place,
        started: Instant,
        patience: Duration,
        wary: bool,
    ) -> Result<Lease<C>> {
        let inner = &*self.inner;
        inner.origin.check()?;
        let patience = patience.min(inner.patience);
        if inner.connector.is_closed() {
            return Err(Error::ShutDown);
        }
        let sandbox = inner.connector.sandbox.as_deref();
        if let Some(sandbox) = sandbox {
            sandbox.admit()?;
        }
        let request = Request { name: inner.connections, place, started, patience };
        let needs_gate = match inner.gate_rule {
            GateRule::Never => false,
            // The transaction around all others may write.
            GateRule::Writers if sandbox.is_some() => true,
            GateRule::Writers => !options.read_only && options.begin_mode != Some(crate::options::BeginMode::Deferred),
            GateRule::All => true,
        };
        let thread = std::thread::current();
        let mut lease = Lease { engine: self.clone(), gate: None, connection: None, held: None };
        if let (Some(gate), true) = (&inner.gate, needs_gate) {
            lease.gate = Some(gate.turnstiles.pass(Request { name: gate.name, ..request }, thread.clone())?);
        }
        lease.connection = Some(inner.turnstiles.pass(request, thread)?);
        // Closed, or lost, while this thread waited.
        if inner.connector.is_closed() {
            return Err(Error::ShutDown);
        }
        if let Some(sandbox) = sandbox {
            sandbox.admit()?;
        }
        let mut held = inner.store.take(&inner.connector, started, patience, inner.max_size, wary)?;
        held.slot().last_used = started;
        lease.held = Some(held);
        if inner.keeps_threads {
            self.forget_thread_at_its_end();
        }
        Ok(lease)
    }

    /// What shows how long a write transaction has been waiting for SQLite's own lock.
    pub(crate) fn lock_clock(&self) -> Option<Arc<LockClock>> {
        self.inner.gate.as_ref().map(|gate| Arc::clone(gate.lock.get_or_init(LockClock::new)))
    }

    /// Lends a connection of its own, outside the pool, and on SQLite the gate with it: for migrations.
    pub(crate) fn with_own_connection<R>(
        &self,
        place: Place,
        patience: Duration,
        f: impl FnOnce(&mut C) -> Result<R>,
    ) -> Result<R> {
        let inner = &*self.inner;
        inner.origin.check()?;
        if inner.connector.is_closed() {
            return Err(Error::ShutDown);
        }
        let mut rights = Rights { engine: inner, gate: None, connection: None };
        if let Some(gate) = &inner.gate {
            let request = Request { name: gate.name, place, started: Instant::now(), patience };
            rights.gate = Some(gate.turnstiles.pass(request, std::thread::current())?);
        }
        let mut slot = inner.connector.open_within(inner.patience)?;
        f(&mut slot.conn)
    }

    pub(crate) fn url(&self) -> &crate::backend::PreparedUrl {
        &self.inner.connector.url
    }

    /// Makes sure that this thread's own connection closes with it.
    fn forget_thread_at_its_end(&self) {
        let inner = Arc::downgrade(&self.inner);
        let _ = AT_THREAD_END.try_with(|at_end| {
            if let Ok(mut engines) = at_end.0.try_borrow_mut() {
                let key = Arc::as_ptr(&self.inner) as usize;
                if !engines.iter().any(|(known, _)| *known == key) {
                    engines.push((
                        key,
                        Box::new(move || {
                            if let Some(inner) = inner.upgrade().filter(|inner| !inner.origin.is_elsewhere()) {
                                inner.store.forget_thread();
                            }
                        }),
                    ));
                }
            }
        });
    }
}

/// Whether a question that failed so may be answered when it is asked again.
fn passes(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Retryable | ErrorClass::Connection | ErrorClass::Unavailable)
}

/// Runs when its thread ends. Nothing in it may panic: that would abort the process.
struct AtThreadEnd(RefCell<Vec<(EngineId, Forget)>>);

/// Closes what an engine keeps for this thread.
type Forget = Box<dyn Fn()>;

/// An engine's address, as long as it lives.
type EngineId = usize;

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        for (_, forget) in self.0.get_mut().drain(..) {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(forget));
        }
    }
}

thread_local! {
    static AT_THREAD_END: AtThreadEnd = const { AtThreadEnd(RefCell::new(Vec::new())) };
}
