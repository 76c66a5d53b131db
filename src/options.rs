//! What a transaction or a session is asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{ConnectionSettings, Kind, Limits, SessionConnection};
use crate::error::{Error, Result};
use crate::info::Info;

/// The isolation level of a transaction. What two reads of one session see is what the level gives, until commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// `READ UNCOMMITTED`; PostgreSQL gives `READ COMMITTED`.
    ReadUncommitted,
    /// `READ COMMITTED`: PostgreSQL's default.
    ReadCommitted,
    /// `REPEATABLE READ`: InnoDB's default; one snapshot on PostgreSQL.
    RepeatableRead,
    /// `SERIALIZABLE`. SQLite gives this always.
    Serializable,
}

impl IsolationLevel {
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "READ UNCOMMITTED",
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// How SQLite begins a transaction (SQLite docs, "BEGIN TRANSACTION").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BeginMode {
    /// Locks when the first statement needs it: a read that later writes fails at once if somebody wrote in between.
    Deferred,
    /// Takes the write lock at once: the default of sessions that may write.
    Immediate,
    /// Takes the write lock and, outside WAL mode, keeps readers out.
    Exclusive,
}

/// What one transaction is asked for. The default is the engine's isolation level, read-write.
///
/// # Examples
/// ```
/// use diesel_session::{IsolationLevel, TransactionOptions};
///
/// let report = TransactionOptions::new().read_only().isolation(IsolationLevel::Serializable);
/// assert!(report.is_read_only());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    pub(crate) isolation: Option<IsolationLevel>,
    pub(crate) read_only: bool,
    pub(crate) deferrable: bool,
    pub(crate) begin_mode: Option<BeginMode>,
    pub(crate) autocommit: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) statement_timeout: Option<Duration>,
    pub(crate) lock_timeout: Option<Duration>,
}

impl TransactionOptions {
    /// The engine's defaults: read-write.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            isolation: None,
            read_only: false,
            deferrable: false,
            begin_mode: None,
            autocommit: false,
            timeout: None,
            statement_timeout: None,
            lock_timeout: None,
        }
    }

    /// Asks for an isolation level. SQLite is always serializable and ignores it.
    #[must_use]
    pub const fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = Some(level);
        self
    }

    /// Only reads. On SQLite such a transaction takes no write lock (and `query_only` refuses writes); on PostgreSQL it
    /// runs at REPEATABLE READ unless another level is asked for, so that it sees one snapshot.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// PostgreSQL: with `SERIALIZABLE READ ONLY`, waits for a snapshot that can't fail. Elsewhere ignored.
    #[must_use]
    pub const fn deferrable(mut self) -> Self {
        self.deferrable = true;
        self
    }

    /// SQLite: how to begin. Elsewhere ignored.
    #[must_use]
    pub const fn begin_mode(mut self, mode: BeginMode) -> Self {
        self.begin_mode = Some(mode);
        self
    }

    /// No BEGIN at all: every statement is its own transaction, one round trip. Savepoints are refused.
    #[must_use]
    pub const fn autocommit(mut self) -> Self {
        self.autocommit = true;
        self
    }

    /// How long the whole unit of work may take, from its beginning to its commit; with
    /// [`retry`](Self::retry), all attempts together. It bounds the wait for the write gate, a connection, locks and
    /// statements (statements not on SQLite, which can't be interrupted through Diesel); past it every statement answers
    /// [`Error::DeadlineExceeded`], and a commit rolls back.
    ///
    /// PostgreSQL: `SET LOCAL statement_timeout` and `lock_timeout` in BEGIN's round trip, and again (one round trip) when a
    /// fifth of what was left has passed. MariaDB: `max_statement_time` and `innodb_lock_wait_timeout`, one round trip
    /// where they change; MySQL: `max_execution_time`, for SELECT only. SQLite: the busy time-out.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long one statement may run. Refused on SQLite, which can't be interrupted through Diesel.
    #[must_use]
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = Some(timeout);
        self
    }

    /// How long a statement may wait for one lock: PostgreSQL's `lock_timeout`, MySQL's and MariaDB's
    /// `innodb_lock_wait_timeout` (whole seconds), SQLite's busy time-out.
    #[must_use]
    pub const fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// What the database is to be told when so much time is left.
    pub(crate) fn limits(&self, left: Option<Duration>) -> Limits {
        Limits { statement: self.statement_timeout, lock: self.lock_timeout, left }
    }

    /// The same, in a transaction.
    pub(crate) const fn in_a_transaction(mut self) -> Self {
        self.autocommit = false;
        self
    }

    /// Whether writes are refused.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether every statement is its own transaction.
    #[must_use]
    pub const fn is_autocommit(&self) -> bool {
        self.autocommit
    }

    /// Whether a transaction begun with `self` gives what `wanted` asks for (rule: joining never weakens).
    pub(crate) fn offers(&self, wanted: &Self) -> Result<(), &'static str> {
        if wanted.autocommit != self.autocommit {
            return Err("the same autocommit mode");
        }
        if self.read_only && !wanted.read_only {
            return Err("writes");
        }
        if wanted.deferrable && !self.deferrable {
            return Err("DEFERRABLE");
        }
        if wanted.begin_mode.is_some_and(|wants| self.begin_mode.is_none_or(|has| has < wants)) {
            return Err("SQLite's lock of that begin mode");
        }
        if wanted.statement_timeout.is_some() && wanted.statement_timeout != self.statement_timeout {
            return Err("the statement time-out that was asked for");
        }
        if wanted.lock_timeout.is_some() && wanted.lock_timeout != self.lock_timeout {
            return Err("the lock time-out that was asked for");
        }
        match (self.isolation, wanted.isolation) {
            (_, None) => Ok(()),
            (Some(has), Some(wants)) if has >= wants => Ok(()),
            _ => Err("the isolation level that was asked for"),
        }
    }

    /// With what the engine gives where nothing was asked for, and what it need not be asked for.
    pub(crate) fn on(mut self, kind: Kind, settings: &ConnectionSettings) -> Self {
        self.isolation = self.isolation.or(settings.isolation);
        if kind == Kind::Sqlite {
            self.isolation = Some(IsolationLevel::Serializable);
            if !self.read_only {
                self.begin_mode = self.begin_mode.or(Some(settings.begin_mode));
            }
        } else {
            self.begin_mode = Some(BeginMode::Exclusive);
        }
        self.deferrable |= kind != Kind::Postgres;
        self
    }

    pub(crate) fn check<C: SessionConnection>(&self) -> Result<()> {
        let has_transaction_option = self.isolation.is_some()
            || self.deferrable
            || self.begin_mode.is_some()
            || self.timeout.is_some()
            || self.statement_timeout.is_some()
            || self.lock_timeout.is_some();
        if self.autocommit && has_transaction_option {
            return Err(Error::Configuration(
                "autocommit() begins no transaction, so isolation, deferrable, begin_mode and time-outs can't apply: drop one of them".into(),
            ));
        }
        C::check(self)?;
        if self.read_only && matches!(self.begin_mode, Some(BeginMode::Immediate | BeginMode::Exclusive)) {
            return Err(Error::Configuration(
                "a read-only transaction can't take SQLite's write lock: drop begin_mode() or read_only()".into(),
            ));
        }
        Ok(())
    }
}

/// A read-only transaction: `current_with(read_only())`.
#[must_use]
pub const fn read_only() -> TransactionOptions {
    TransactionOptions::new().read_only()
}

/// No transaction, every statement by itself: `current_with(autocommit())`.
#[must_use]
pub const fn autocommit() -> TransactionOptions {
    TransactionOptions::new().autocommit()
}

type Fill = Arc<dyn Fn(&Info) + Send + Sync>;

/// How a session is made: the options of its transactions, whether it begins by itself, and what its
/// [`info`](crate::Session::info) starts with.
#[derive(Clone)]
pub struct SessionOptions {
    pub(crate) transaction: TransactionOptions,
    pub(crate) autobegin: bool,
    /// Which of the two above were asked for, not left at their defaults.
    given: Given,
    fill: Vec<Fill>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Given {
    transaction: bool,
    autobegin: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { transaction: TransactionOptions::new(), autobegin: true, given: Given::default(), fill: Vec::new() }
    }
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("transaction", &self.transaction)
            .field("autobegin", &self.autobegin)
            .finish_non_exhaustive()
    }
}

impl SessionOptions {
    /// Read-write, begins by itself.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The options of every transaction that the session begins by itself.
    #[must_use]
    pub fn transaction(mut self, options: TransactionOptions) -> Self {
        self.transaction = options;
        self.given.transaction = true;
        self
    }

    /// With `false`, statements before [`begin`](crate::Session::begin) are refused (SQLAlchemy's `autobegin=False`).
    #[must_use]
    pub fn autobegin(mut self, autobegin: bool) -> Self {
        self.autobegin = autobegin;
        self.given.autobegin = true;
        self
    }

    /// A value that every session's [`info`](crate::Session::info) starts with; each session gets its own copy.
    #[must_use]
    pub fn info<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.fill.push(Arc::new(move |info| {
            info.insert(value.clone());
        }));
        self
    }

    /// `other` where it says something, `self` elsewhere.
    /// For an extent, which begins by itself and can only roll back what is in a transaction.
    pub(crate) fn for_an_extent(mut self) -> Self {
        self.autobegin = true;
        self.transaction = self.transaction.in_a_transaction();
        self
    }

    pub(crate) fn overridden_by(mut self, other: Self) -> Self {
        if other.given.transaction {
            self = self.transaction(other.transaction);
        }
        if other.given.autobegin {
            self = self.autobegin(other.autobegin);
        }
        self.fill.extend(other.fill);
        self
    }

    pub(crate) fn fill(&self, info: &Info) {
        for fill in &self.fill {
            fill(info);
        }
    }
}

impl From<TransactionOptions> for SessionOptions {
    fn from(options: TransactionOptions) -> Self {
        Self::new().transaction(options)
    }
}
