//! How an engine is asked for.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::Instrumentation;
use diesel::result::QueryResult;

use super::connect::{ConnectionHook, Connector, Manager, redact};
use super::store::{Shared, Store, Strategy};
use super::turnstile::{Turnstiles, What};
use super::{COMMITS_TO_PRUNE, Engine, Gate, Inner};
use crate::backend::{ConnectionSettings, GateRule, JournalMode, SessionConnection, Synchronous};
use crate::error::{Error, Result};
use crate::fork::Origin;
use crate::options::{BeginMode, IsolationLevel};
use crate::testing::FaultPlan;

/// What a database error of a statement does to its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StatementErrors {
    /// It fails the innermost savepoint or the transaction, which then has to be rolled back: the same on every
    /// database, so that what passes on SQLite passes on PostgreSQL. The default (as Django's ORM).
    #[default]
    Portable,
    /// What the database itself does: MySQL and SQLite go on, PostgreSQL can't.
    Native,
}

/// As good as never, and still a length of time that can be added to a moment.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long the shared pool rests at most before it tries again to connect, so that it serves soon after an outage. r2d2
/// rests for longer each time, up to half of its time-out (r2d2 0.8.10), which has no other use here: those who wait bring
/// their own.
const RECONNECT: Duration = Duration::from_millis(500);

/// Builds an [`Engine`]. Every method has a default; only the URL is needed.
#[must_use = "an engine exists only after `build()`"]
pub struct EngineBuilder<C: SessionConnection> {
    url: String,
    max_size: usize,
    min_idle: usize,
    reserve: usize,
    connection_timeout: Duration,
    idle_timeout: Option<Duration>,
    max_lifetime: Option<Duration>,
    ping_after: Duration,
    strategy: Strategy,
    statement_errors: StatementErrors,
    settings: ConnectionSettings,
    setup: Option<ConnectionHook<C>>,
    reset: Option<ConnectionHook<C>>,
    instrumentation: Option<fn() -> Box<dyn Instrumentation>>,
    faults: Option<FaultPlan>,
    sandbox: bool,
}

impl<C: SessionConnection> fmt::Debug for EngineBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("url", &redact(&self.url))
            .field("max_size", &self.max_size)
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}

impl<C: SessionConnection> EngineBuilder<C> {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            max_size: 10,
            min_idle: 0,
            reserve: 0,
            connection_timeout: Duration::from_secs(30),
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(1800)),
            ping_after: Duration::from_millis(500),
            strategy: Strategy::Shared,
            statement_errors: StatementErrors::Portable,
            settings: ConnectionSettings::default(),
            setup: None,
            reset: None,
            instrumentation: None,
            faults: None,
            sandbox: false,
        }
    }

    /// How many connections may be in use at once; 10 by default. In memory (SQLite) sessions take turns whatever it is.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// How many idle connections the shared pool keeps ready; 0 by default: they are opened when needed. In memory
    /// (SQLite), where one is in use at a time, it is 0 whatever is asked for.
    pub fn min_idle(mut self, min_idle: usize) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// How many of `max_size` only a thread that holds one already may take; 0 by default. With code that opens a second
    /// session inside a first, this keeps threads from starving each other.
    pub fn reserve(mut self, reserve: usize) -> Self {
        self.reserve = reserve;
        self
    }

    /// How long a transaction waits at most for the write gate, a free connection and a new connection, all together; 30 s
    /// by default.
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout.min(LONGEST);
        self
    }

    /// After how long the shared pool closes an idle connection; 10 minutes by default, `None` for never. On SQLite the
    /// connection that was used last stays.
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// After how long the shared pool replaces a connection; 30 minutes by default, `None` for never. On SQLite the
    /// connection that was used last stays until it is used again.
    pub fn max_lifetime(mut self, lifetime: Option<Duration>) -> Self {
        self.max_lifetime = lifetime;
        self
    }

    /// A connection that was idle for longer is pinged before it is used, one round trip; 500 ms by default. One that met
    /// an error is always pinged.
    pub fn ping_after(mut self, idle: Duration) -> Self {
        self.ping_after = idle;
        self
    }

    /// Where connections lie between transactions.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// What a statement's error does to its transaction.
    pub fn statement_errors(mut self, errors: StatementErrors) -> Self {
        self.statement_errors = errors;
        self
    }

    /// The isolation level of transactions that ask for none; the server's default otherwise.
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.settings.isolation = Some(level);
        self
    }

    /// Runs on each new connection, after the engine's own settings, and again before the next user of a connection that
    /// somebody had bare (`with_connection`, `batch_execute`, `sql_query`), where session settings are put back first. An
    /// error closes the connection.
    pub fn setup(mut self, setup: impl Fn(&mut C) -> QueryResult<()> + Send + Sync + 'static) -> Self {
        self.setup = Some(Arc::new(setup));
        self
    }

    /// Runs on a connection whose last user had it bare, before its next user gets it, after the settings were put back
    /// and [`setup`](Self::setup) ran again: the place to undo what else there may be. An error closes the connection. Put
    /// back are
    ///
    /// - on SQLite the settings named here; temporary tables, views and triggers are dropped, attached databases detached;
    /// - on PostgreSQL everything that `DISCARD ALL` does, except for prepared statements;
    /// - on MySQL and MariaDB the default database, autocommit, isolation level and access mode, `sql_mode`,
    ///   `foreign_key_checks`, `unique_checks`, time zone, character sets and time-outs; `LOCK TABLES` and `GET_LOCK` end.
    ///   Temporary tables, which the server does not list, other variables and the role stay.
    ///
    /// Until that next user comes, locks of the session's (`LOCK TABLES`, `pg_advisory_lock`) are held.
    pub fn reset(mut self, reset: impl Fn(&mut C) -> QueryResult<()> + Send + Sync + 'static) -> Self {
        self.reset = Some(Arc::new(reset));
        self
    }

    /// The Diesel instrumentation of each new connection, instead of Diesel's process-wide default.
    pub fn instrumentation(mut self, make: fn() -> Box<dyn Instrumentation>) -> Self {
        self.instrumentation = Some(make);
        self
    }

    /// Finds out what became of a commit whose connection died before the answer came, instead of
    /// [`Error::CommitUnknown`]; off by default. A writing commit takes one round trip more, on PostgreSQL every commit of a transaction that was not begun to
    /// read.
    ///
    /// PostgreSQL: the transaction's number is asked for before COMMIT, and its fate (`pg_xact_status`) on a new
    /// connection to the same server and timeline; not on databases that only speak PostgreSQL's protocol. After a crash of
    /// the server a number that reads as committed may have been given to another transaction: then, and after somebody has
    /// reset the statistics of its background writer meanwhile, it stays [`Error::CommitUnknown`]. Elsewhere: a
    /// marker row of the transaction in the table `diesel_session_commits` (`id CHAR(36) PRIMARY KEY`, made by `build` if
    /// it is missing, on MySQL in the database that the connection is in after its set-up and with `ENGINE = InnoDB`; rows
    /// older than a day are deleted), and an INSERT of the same key on a new connection, which waits for a
    /// commit that is still under way. Where neither tells in time (the server stays away, another one answers) it
    /// stays [`Error::CommitUnknown`]: in time is within the connection time-out and before the unit's own deadline
    /// ([`TransactionOptions::timeout`](crate::TransactionOptions::timeout)), but for at least a second, so that a commit that
    /// met its deadline can still be found out. A transaction that only loaded with
    /// Diesel's query builder has no marker row, also where a function that it called in a SELECT wrote something: send such a
    /// SELECT as text (`diesel::sql_query`). PostgreSQL is asked by every transaction that was not begun to read, and knows.
    pub fn verify_commits(mut self, on: bool) -> Self {
        self.settings.verify_commits = on;
        self
    }

    /// The server ends a connection that holds a transaction open and sends nothing for so long: for threads that hang.
    /// PostgreSQL's `idle_in_transaction_session_timeout`, MariaDB's `idle_transaction_timeout` (whole seconds), one round
    /// trip for each new connection. Refused by [`build`](Self::build) on SQLite and MySQL, which have none.
    pub fn idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_in_transaction = Some(timeout);
        self
    }

    /// Lets go wrong what the plan says: for tests.
    pub fn faults(mut self, plan: &FaultPlan) -> Self {
        self.faults = Some(plan.clone());
        self
    }

    /// For tests: everything happens in one transaction on one connection, begun at the first use and rolled back when the
    /// engine is dropped or [closed](Engine::close_all). For the code that is tested nothing changes: a session's begin is a
    /// savepoint in that transaction, its commit keeps it (`Ok`, hooks run, [`Outcome::Committed`](crate::Outcome)), its
    /// rollback goes back to it, and later sessions see what was committed. Much cheaper than a database for each test, and
    /// tests on one database server don't see each other.
    ///
    /// Each commit checks what a real one would: on PostgreSQL the deferred constraints (`SET CONSTRAINTS ALL IMMEDIATE`, in
    /// a savepoint that is undone, and so is what a deferred trigger writes), on SQLite the foreign keys (`PRAGMA
    /// foreign_key_check`, which reads every table that has some). Begin and commit take a round trip or two more.
    ///
    /// What ends the transaction around everything (a raw COMMIT, DDL on MySQL, a deadlock there, a lost connection) fails
    /// the session that did it as always, and every later one with [`Error::Configuration`].
    ///
    /// Not as without it: threads take turns on the one connection, so a second session inside an open one (also
    /// [`Propagation::RequiresNew`](crate::Propagation::RequiresNew)) is refused with [`Error::WouldStarve`] or
    /// [`Error::WouldDeadlock`]; isolation levels, time-outs of the database, [`verify_commits`](Self::verify_commits),
    /// [`reset`](Self::reset), and on servers the refusal of raw writes in read-only sessions have no effect; sequences and
    /// the time of the transaction (`now()` on PostgreSQL) go on as in one transaction; what raw code changed with `SET`
    /// stays. Migrations go first, on an engine without a sandbox.
    ///
    /// # Examples
    /// ```
    /// use diesel::sqlite::SqliteConnection;
    /// use diesel_session::{Engine, ScopedSession};
    ///
    /// # fn main() -> diesel_session::Result<()> {
    /// # let folder = std::env::temp_dir().join(format!("ds-doc-sandbox-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// # let url = folder.join("app.db").to_str().unwrap().to_owned();
    /// # ScopedSession::<SqliteConnection>::new(Engine::new(&url)?).transaction(|session| session.batch_execute("CREATE TABLE notes (text TEXT)"))?;
    /// let registry = ScopedSession::<SqliteConnection>::new(Engine::builder(&url).sandbox().build()?);
    /// // The code that is tested commits…
    /// registry.transaction(|session| session.batch_execute("INSERT INTO notes VALUES ('one')"))?;
    /// // …and nothing of it stays.
    /// drop(registry);
    /// # let registry = ScopedSession::<SqliteConnection>::new(Engine::new(&url)?);
    /// # let notes = registry.read(|session| session.load::<i64>(diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM notes")))?;
    /// # assert_eq!(notes, [0]);
    /// # drop(registry);
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok(()) }
    /// ```
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }

    /// SQLite: the journal mode of a file; WAL by default. With a rollback journal a reader that is open for longer than the
    /// busy time-out makes a writer's COMMIT fail with "database is locked". Elsewhere ignored, like the four below.
    pub fn journal_mode(mut self, mode: JournalMode) -> Self {
        self.settings.journal_mode = mode;
        self
    }

    /// SQLite: how far a commit waits for the disk; FULL by default.
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.settings.synchronous = synchronous;
        self
    }

    /// SQLite: how long to wait for *other processes* that hold the file's lock; 5 s by default. Threads of this process
    /// wait at the write gate instead, for the connection time-out.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        // SQLite keeps it as an `int` of milliseconds, and takes more for 0.
        self.settings.busy_timeout = timeout.min(Duration::from_millis(i32::MAX as u64));
        self
    }

    /// SQLite: whether foreign keys are enforced; on by default.
    pub fn foreign_keys(mut self, on: bool) -> Self {
        self.settings.foreign_keys = on;
        self
    }

    /// SQLite: how transactions that may write begin; IMMEDIATE by default.
    pub fn begin_mode(mut self, mode: BeginMode) -> Self {
        self.settings.begin_mode = mode;
        self
    }

    /// Opens a first connection, to try the URL and the set-up, and makes the engine.
    ///
    /// # Errors
    /// [`Error::Configuration`] for options that can't work, also with what is in the database; [`Error::Connect`] if the
    /// URL is bad, the server does not answer within the connection time-out, or the set-up fails;
    /// [`Error::ForkDetected`] in a forked child whose parent had an engine: for the shared pool (another [`Strategy`]
    /// works there), and for a SQLite file that the parent had open.
    pub fn build(mut self) -> Result<Engine<C>> {
        self.check()?;
        if self.sandbox {
            self.strategy = Strategy::Single;
            self.reserve = 0;
            self.max_lifetime = None;
            self.settings.verify_commits = false;
        }
        if self.strategy == Strategy::Shared {
            crate::fork::check_pools()?;
        }
        let url = C::prepare_url(&self.url)?;
        let memory = url.memory;
        let connector = Arc::new(Connector {
            shown_url: redact(&self.url),
            url,
            settings: self.settings,
            setup: self.setup,
            reset: self.reset,
            instrumentation: self.instrumentation,
            faults: self.faults,
            sandbox: self.sandbox.then(Arc::default),
            ping_after: self.ping_after,
            max_lifetime: self.max_lifetime,
            spare: Mutex::new(None),
            closed: AtomicBool::new(false),
        });
        let mut first = connector.open_within(self.connection_timeout)?;
        let kind = first.conn.kind();
        C::check_settings(&connector.settings, &first.state)?;
        if connector.settings.verify_commits {
            let super::Slot { conn, state, .. } = &mut *first;
            if !conn.make_witness_table(state).map_err(|error| connector.refused(&error))? {
                return Err(Error::Configuration(
                    "verify_commits() needs marker rows that are rolled back with their transaction, and the table diesel_session_commits belongs to a storage engine without transactions: `ALTER TABLE diesel_session_commits ENGINE = InnoDB`".into(),
                ));
            }
            conn.prune_witnesses(state).map_err(|error| connector.refused(&error))?;
        }
        let (gate_rule, key) = first.conn.gate(&connector.url).map_err(|error| connector.refused(&error))?;
        let gate = if gate_rule == GateRule::Never { None } else { Some(Gate::of(key)?) };
        let anchor = if memory {
            Some(Mutex::new(first))
        } else {
            if let Ok(mut spare) = connector.spare.lock() {
                *spare = Some(first);
            }
            None
        };
        let max_size = if self.strategy == Strategy::Single { 1 } else { self.max_size };
        let turnstiles =
            gate.as_ref().map_or_else(|| Arc::new(Turnstiles::default()), |gate| Arc::clone(&gate.turnstiles));
        let connections = turnstiles.add(What::Connection, max_size, self.reserve);
        let store = match self.strategy {
            Strategy::Shared => {
                // Where sessions take turns one connection serves them all; a second would be opened behind the back of an open
                // transaction, and find the database locked.
                let at_once = if gate_rule == GateRule::All { 1 } else { max_size };
                let max = u32::try_from(at_once).unwrap_or(u32::MAX);
                let pool = r2d2::Pool::builder()
                    .max_size(max)
                    .min_idle(Some(u32::try_from(self.min_idle).unwrap_or(max).min(max)))
                    .connection_timeout(self.connection_timeout.min(2 * RECONNECT))
                    .idle_timeout(self.idle_timeout)
                    .max_lifetime(self.max_lifetime)
                    .test_on_check_out(false)
                    .build_unchecked(Manager(Arc::clone(&connector)));
                // A pool that keeps some ready counts them itself.
                Store::Shared(Shared::new(pool, !C::is_remote() && self.min_idle == 0))
            }
            Strategy::PerThread => Store::PerThread(Mutex::default()),
            Strategy::Single => Store::Single(Mutex::default()),
            Strategy::None => Store::None,
        };
        Ok(Engine {
            inner: Arc::new(Inner {
                origin: Origin::here(),
                connector,
                store,
                kind,
                turnstiles,
                connections,
                gate_rule,
                gate,
                max_size,
                patience: self.connection_timeout,
                native_errors: self.statement_errors == StatementErrors::Native && !C::errors_abort_transactions(),
                commits_to_prune: AtomicU64::new(COMMITS_TO_PRUNE),
                keeps_threads: self.strategy == Strategy::PerThread,
                anchor,
            }),
        })
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: &'static str| Err(Error::Configuration(message.into()));
        if self.max_size == 0 {
            return refuse("max_size(0) leaves no connection to work with: at least 1");
        }
        if self.reserve >= self.max_size {
            return refuse("reserve(n) has to leave a connection for first sessions: less than max_size");
        }
        if self.min_idle > self.max_size {
            return refuse("min_idle(n) can't be more than max_size");
        }
        if self.connection_timeout.is_zero() {
            return refuse("connection_timeout(0) leaves no time to connect");
        }
        if self.idle_timeout.is_some_and(|timeout| timeout.is_zero())
            || self.max_lifetime.is_some_and(|lifetime| lifetime.is_zero())
        {
            return refuse("idle_timeout and max_lifetime are at least a moment long: use `None` for never");
        }
        Ok(())
    }
}
