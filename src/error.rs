//! What can go wrong, with its cause, its place and what to do about it.

mod logged;

use std::borrow::Cow;

use std::sync::Arc;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::inspect::Holders;
use crate::place::Place;

mod cause;
mod class;
mod failure;

pub use cause::{Cause, Reason};
pub use class::ErrorClass;
pub use failure::Failure;

/// The result of everything that a session does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a session, a registry or an engine can answer.
///
/// Each message says what happened, where, and what to do. [`class`](Error::class) sorts them by what the caller can
/// do; errors of class [`Usage`](ErrorClass::Usage) are refused before anything is sent and change nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Diesel or the database answered a statement with an error.
    #[error("{0}{hint}", hint = statement_hint(.0))]
    Statement(Failure),

    /// The transaction failed earlier and has to be rolled back first.
    #[error(
        "the transaction failed and has to be rolled back before it can be used again: call `rollback()`, or try what may fail inside `session.nested(|s| …)`; first cause: {cause}"
    )]
    PendingRollback {
        /// What failed it.
        cause: Cause,
    },

    /// The transaction was rolled back instead of committed: nothing of it is stored.
    #[error("rolled back, nothing was stored: {cause}")]
    RolledBack {
        /// Why.
        cause: Cause,
    },

    /// The transaction no longer exists on the server; nothing more was sent.
    #[error("the transaction is gone on the server{}: {cause}; call `rollback()` and start again", doubt(.cause))]
    TransactionLost {
        /// What ended it.
        cause: Cause,
    },

    /// A statement that the session did not send ended the transaction: what came before it may be stored.
    #[error("the transaction was ended before commit, what was written before that may be stored: {cause}")]
    ImplicitCommit {
        /// What ended it.
        cause: Cause,
    },

    /// The connection died during COMMIT: the work may or may not be stored.
    #[error("nobody knows whether the commit took effect, check before doing the work again: {cause}")]
    CommitUnknown {
        /// What the client saw.
        cause: Cause,
    },

    /// The session handle was closed by `remove()`, `close()` or the end of its extent.
    #[error("this session was closed at {at}: ask `Session::current()` for the one that is open now")]
    SessionClosed {
        /// Where it was closed.
        at: Place,
    },

    /// The connection is lent to a closure or row loop further up the stack.
    #[error(
        "the session's connection is in use at {at}: use the connection that the closure was given, or wait until it returns"
    )]
    InUse {
        /// Where it was lent.
        at: Place,
    },

    /// The session is running its end hooks or listeners; its transaction is over.
    #[error("the session is running its hooks: use `registry.transaction(|session| …)` for database work in a hook")]
    InHook,

    /// A savepoint guard is alive: it ends first.
    #[error("the savepoint begun at {at} is still open: commit or roll back its guard first")]
    SavepointOpen {
        /// Where the innermost open savepoint began.
        at: Place,
    },

    /// The savepoint ended together with the transaction around it.
    #[error("the savepoint is gone: the transaction around it ended first")]
    SavepointGone,

    /// The session was used from inside its own flush: by an entity's hook, or by the closure that makes a record.
    #[error(
        "the session is flushing: use the connection that the hook was given, or the parents that the closure was given"
    )]
    Reentrant,

    /// The entity waits for its INSERT and has no row yet.
    #[error(
        "this {entity} waits for its insert and has no row yet: `flush()` first, or ask for its `id()`, which does"
    )]
    Pending {
        /// The type of the entity.
        entity: &'static str,
    },

    /// The entity's insert was rolled back, or it was expunged before: there is no row.
    #[error(
        "this {entity} is no row: its insert was rolled back, or it was expunged before; `into_new()` gives the record back"
    )]
    NotPersistent {
        /// The type of the entity.
        entity: &'static str,
    },

    /// `into_new` on an entity that is not transient, or for another type of record.
    #[error("this {entity} has no record of that type to give back: only one whose insert was rolled back has, once")]
    NotTransient {
        /// The type of the entity.
        entity: &'static str,
    },

    /// The entity is not its session's any more, so it can't be changed; what it showed last can still be read.
    #[error(
        "this {entity} is not tracked any more, because it was deleted or expunged or its session is closed: get it anew from the current session"
    )]
    Detached {
        /// The type of the entity.
        entity: &'static str,
    },

    /// The entity belongs to another session.
    #[error(
        "this {entity} belongs to session {session}, and a session takes only its own: get it by its key, or `merge` its value"
    )]
    ForeignHandle {
        /// The type of the entity.
        entity: &'static str,
        /// The number of the session that it belongs to.
        session: u64,
    },

    /// A write guard is alive, whose change would be lost or late.
    #[error(
        "a write guard of {entity} is alive, opened at {at}: let it go out of scope first (`x.write()?.field = value` ends with the statement, as does `x.update(|x| …)`)"
    )]
    WriteGuardAlive {
        /// The type of the entity.
        entity: &'static str,
        /// Where it was opened.
        at: Place,
    },

    /// The closure that was to make a record failed before.
    #[error("the record of a {entity} was not made, because its closure failed: roll back, and add it again")]
    RecordSpent {
        /// The type of the entity.
        entity: &'static str,
    },

    /// Each flush of a commit left something to flush, a hundred times.
    #[error("every flush of the commit left something to flush: does a listener change something after each?")]
    EndlessFlush,

    /// The entity's row was deleted meanwhile.
    #[error("the row of table {table} with key {key} is gone")]
    RowGone {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },

    /// Rows were not what the session knew: changed or deleted by somebody else. Nothing of the flush is stored once it is
    /// rolled back.
    #[error("table {table}: {expected} row(s) were to be written and {matched} were as the session knew them; changed or deleted meanwhile: {}", keys.join(", "))]
    StaleData {
        /// The table.
        table: &'static str,
        /// How many rows were to be written.
        expected: usize,
        /// How many were found.
        matched: usize,
        /// The keys of those that were not, as far as they can be told.
        keys: Vec<String>,
    },

    /// A row of a bulk call could not be written: nothing of the call is stored, and the transaction goes on.
    #[error("row {row} of the input (from 0): {source}")]
    Bulk {
        /// Which row of the input, from 0.
        row: usize,
        /// What was wrong with it. `NotFound`: it is not there, or not in its version.
        source: Arc<Error>,
    },

    /// A closure owns the transaction and ends it itself.
    #[error(
        "the transaction begun at {at} is committed or rolled back by the closure or the `AsyncSession` that owns it: return `Ok` or `Err` (`commit()` or `rollback()` of an `AsyncSession`), or use `set_rollback_only(reason)`"
    )]
    NotOwner {
        /// Where the owning closure was entered.
        at: Place,
    },

    /// A transaction is already begun; its options can't change any more.
    #[error(
        "a transaction is already begun, at {at}: commit or roll it back first (for `transaction()`: nobody would commit what it joins, so wrap the whole unit of work in `registry.transaction(|session| …)` or finish the open one)"
    )]
    AlreadyBegun {
        /// Where it began.
        at: Place,
    },

    /// The open transaction does not give what the joining one asks for.
    #[error("the open transaction (begun at {at}) does not offer {wanted}")]
    IncompatibleOptions {
        /// What was asked for and isn't there.
        wanted: &'static str,
        /// Where the open one began.
        at: Place,
    },

    /// A statement that writes, in a read-only session.
    #[error("the session is read-only: open it without `read_only()` to write")]
    ReadOnly,

    /// Savepoints and the like need a transaction; the session is in autocommit mode.
    #[error("the session is in autocommit mode and has no transaction: begin it without `autocommit()`")]
    NoTransaction,

    /// The session was made with `autobegin(false)` and nothing was begun.
    #[error("autobegin is off for this session: call `begin()` first")]
    AutobeginDisabled,

    /// `current_with` was called where a session exists already.
    #[error("this thread already has a session, made at {at}: new options can't apply to it; `remove()` it first")]
    AlreadyPresent {
        /// Where the existing one was made.
        at: Place,
    },

    /// A process-wide registry is installed already.
    #[error("a registry for this connection type is already installed: use `registry.enter(|| …)` for a second one")]
    AlreadyInstalled,

    /// No registry is entered on this thread and none is installed.
    #[error(
        "no registry for {connection}: call `ScopedSession::new(engine).install()` at start-up, or `registry.enter(|| …)` around this code"
    )]
    NoRegistry {
        /// The connection type that was asked for.
        connection: &'static str,
    },

    /// `#[transactional]` without a connection type, on a thread that entered no registry, while registries of several
    /// connection types are installed.
    #[error(
        "registries of several connection types are installed ({}), and none is entered here: name the connection, as in `#[transactional(SqliteConnection)]`, or call `registry.enter(|| …)` around this code",
        installed.join(", ")
    )]
    AmbiguousRegistry {
        /// The connection types of the installed registries.
        installed: Vec<&'static str>,
    },

    /// The registry is strict and no extent is open.
    #[error("the registry is strict: open `scope`, `transaction`, `read`, `job` or `request` around this code")]
    NoScope,

    /// The thread is ending and its sessions are gone.
    #[error("the thread is ending: its sessions are closed")]
    ThreadExiting,

    /// The engine, session or connection was made in another process, before a `fork`. Nothing of the parent's was touched.
    #[error(
        "made before a fork, in another process: its connections stay that process's own; make the engine after the fork, or start the child with `exec`"
    )]
    ForkDetected,

    /// The registry or engine was shut down.
    #[error("shut down: no new transactions")]
    ShutDown,

    /// `shutdown` ran out of time; the table names who is still open.
    #[error("{} session(s) still open after {waited:?}:\n{holders}", holders.len())]
    ShutdownTimeout {
        /// How long it waited.
        waited: Duration,
        /// Who is open: thread, place, age.
        holders: Holders,
    },

    /// The unit of work ran past its [`timeout`](crate::TransactionOptions::timeout): nothing more is sent, and what was is
    /// rolled back.
    #[error(
        "the unit of work ran past its deadline of {timeout:?} (at {at}): it is rolled back; give it more time, or less to do"
    )]
    DeadlineExceeded {
        /// What was asked for.
        timeout: Duration,
        /// What came too late.
        at: Place,
    },

    /// `Propagation::Mandatory` outside any transaction.
    #[error(
        "this unit of work must be part of a transaction, and none is open: call it inside `registry.transaction(|session| …)`"
    )]
    NoOpenTransaction,

    /// `Propagation::Never` inside a transaction.
    #[error("this unit of work must not be part of a transaction, and one is open, begun at {at}")]
    TransactionForbidden {
        /// Where the open one began.
        at: Place,
    },

    /// A durable unit of work inside another one.
    #[error(
        "a durable unit of work must be the outermost one: the transaction begun at {at} would decide whether it is stored"
    )]
    NotOutermost {
        /// Where the open one began.
        at: Place,
    },

    /// A unit of work with a retry policy inside an open transaction.
    #[error(
        "only a whole unit of work can be run again, not a part of the transaction begun at {at}: put the retry policy on the outermost one"
    )]
    RetryInside {
        /// Where the open one began.
        at: Place,
    },

    /// No connection became free in time.
    #[error("no connection within {waited:?}{}; connections are held by:\n{holders}", connection_error(.last_error.as_deref()))]
    PoolTimeout {
        /// How long it waited.
        waited: Duration,
        /// The pool's last connection error, if there was one.
        last_error: Option<String>,
        /// Who holds the connections: thread, place, age.
        holders: Holders,
    },

    /// The file's write gate did not open in time.
    #[error("the write gate did not open within {waited:?}; it is held by:\n{holders}")]
    GateTimeout {
        /// How long it waited.
        waited: Duration,
        /// Who holds it: thread, place, age.
        holders: Holders,
    },

    /// Every connection is held by threads that wait for one: waiting would never end.
    #[error(
        "waiting for a connection at {wanted_at} would never end: this thread holds one since {held_at} and every holder waits too; finish the outer session first, use `session.nested(|s| …)`, or raise `max_size` / `reserve`"
    )]
    WouldStarve {
        /// Where this thread took the connection that it holds (or another member of the ring took its own).
        held_at: Place,
        /// Where it wanted another.
        wanted_at: Place,
    },

    /// The write gate is held by this thread, or by one that waits for it: waiting would never end.
    #[error(
        "waiting for the write gate at {wanted_at} would never end: it is held since {held_at}; use `session.nested(|s| …)`, an `on_commit` hook, or a read-only session"
    )]
    WouldDeadlock {
        /// Where the gate was taken.
        held_at: Place,
        /// Where it was wanted again.
        wanted_at: Place,
    },

    /// Every place in the executor's queue is taken: the job was not begun, and the database not touched.
    #[error(
        "the executor's queue is full ({queued} job(s), waited {waited:?}), and the job was not begun: try again later, or raise `queue` or `threads`"
    )]
    QueueFull {
        /// How many jobs are in it.
        queued: usize,
        /// How long the job stood behind them.
        waited: Duration,
    },

    /// The job was not begun before its deadline, because the thread that writes was waiting for SQLite's lock. Threads of this
    /// process wait at the write gate instead, so it was an external writer who held it.
    #[error(
        "the job was not begun within {timeout:?} (submitted at {at}): the thread that writes waited {waited:?} for the file's lock, which an external writer held (another process, or a connection that is not this engine's); give it more time, or keep the other's transactions short"
    )]
    LockedOutside {
        /// What was asked for.
        timeout: Duration,
        /// How long the thread had waited for the lock by then, or had before it gave up.
        waited: Duration,
        /// Where it was submitted.
        at: Place,
    },

    /// The job was cancelled before it began.
    #[error("the job was cancelled before it began")]
    JobCancelled,

    /// The job panicked: its transaction is rolled back, and its thread goes on.
    #[error("the job submitted at {at} panicked, and is rolled back: {message}")]
    JobPanicked {
        /// Where it was submitted.
        at: Place,
        /// The panic's text.
        message: String,
    },

    /// The job shared its transaction with others (group commit), and one of them lost it: nothing of it is stored.
    #[error(
        "the transaction that this job shared with others was lost, nothing of it was stored: run it again, or submit it with a retry policy; {cause}"
    )]
    BatchRolledBack {
        /// What lost it.
        cause: Cause,
    },

    /// One of the executor's own threads would wait for a job that no thread is left to run.
    #[error(
        "waiting for this job on a database thread of its own executor would never end: return from the job first, do the work in this job, or give the executor another thread"
    )]
    WouldHang,

    /// The [`AsyncSession`](crate::AsyncSession) was idle for longer than its lease, and is rolled back.
    #[error(
        "this AsyncSession, last used at {at}, was idle for {idle:?}, the whole of its lease: it is rolled back, and its thread serves others; do what takes long before it is asked for or inside its closures, or give it a longer lease (`async_lease`, `async_writer_lease`)"
    )]
    LeaseExpired {
        /// Where it was used last, or asked for if it never was.
        at: Place,
        /// For how long it was idle.
        idle: Duration,
    },

    /// The answer was taken before.
    #[error("the answer of this job was taken before: a job has one answer")]
    AnswerTaken,

    /// The executor's `shutdown` ran out of time.
    #[error("{refused} job(s) were refused after {waited:?}, and {} still run(s):\n{running}", running.len())]
    NotDrained {
        /// How long it waited.
        waited: Duration,
        /// How many jobs had not begun. Each was answered with [`Error::ShutDown`].
        refused: usize,
        /// The jobs that still run: thread, place, age.
        running: Holders,
    },

    /// An executor for this connection type is installed already.
    #[error("an executor for this connection type is already installed: use that one, `Executor::installed()`")]
    ExecutorInstalled,

    /// Several executors are installed, and the function does not say which one it means.
    #[error("several executors are installed: name the connection, as in `#[on_database_thread(SqliteConnection)]`")]
    AmbiguousExecutor,

    /// No executor is installed.
    #[error("no executor: call `Executor::builder(registry).build()?.install()` at start-up")]
    NoExecutor,

    /// A connection could not be opened or set up.
    #[error("could not connect to {url}: {message}")]
    Connect {
        /// The URL without its password.
        url: String,
        /// What the driver said.
        message: String,
    },

    /// An option that can't work.
    #[error("{0}")]
    Configuration(Cow<'static, str>),

    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(String),
}

fn statement_hint(failure: &Failure) -> &'static str {
    // Threads of this process wait at the gate instead.
    if failure.class() == ErrorClass::Retryable && is_sqlite_busy(failure.error()) {
        return "; an external writer (another process, or a connection that is not this engine's) holds the file's lock: wait longer (`busy_timeout`), or run the unit of work again (`retry`)";
    }
    let is_violation = failure.class() == ErrorClass::Statement;
    if is_violation && !matches!(failure.error(), DieselError::NotFound) {
        "; to try something that may fail and go on, wrap it in `session.nested(|s| …)`"
    } else {
        ""
    }
}

fn is_sqlite_busy(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) if info.message() == "database is locked")
}

fn doubt(cause: &Cause) -> &'static str {
    if cause.leaves_doubt() { ", and what was written before that may be stored" } else { "" }
}

fn connection_error(error: Option<&str>) -> String {
    error.map(|error| format!(" (last connection error: {error})")).unwrap_or_default()
}

impl Error {
    /// Whether the whole unit of work may be run again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.class() == ErrorClass::Retryable
    }

    /// The failed statement behind this error: its own, or the first cause of a failed transaction.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Statement(failure) => Some(failure),
            Self::Bulk { source, .. } => source.failure(),
            _ => self.cause().and_then(Cause::failure),
        }
    }

    /// The first cause, for errors about a transaction.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::PendingRollback { cause }
            | Self::RolledBack { cause }
            | Self::TransactionLost { cause }
            | Self::ImplicitCommit { cause }
            | Self::CommitUnknown { cause }
            | Self::BatchRolledBack { cause } => Some(cause),
            _ => None,
        }
    }

    /// Whether a unique constraint was violated, here or as the first cause.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self.failure().and_then(Failure::kind), Some(DatabaseErrorKind::UniqueViolation))
    }

    /// Whether a foreign key was violated, here or as the first cause.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        matches!(self.failure().and_then(Failure::kind), Some(DatabaseErrorKind::ForeignKeyViolation))
    }

    /// Whether rows were changed or deleted by somebody else since the session read them ([`Error::StaleData`]), here or as the
    /// first cause.
    #[must_use]
    pub fn is_stale_data(&self) -> bool {
        match (self, self.cause().map(Cause::reason)) {
            (Self::StaleData { .. }, _) => true,
            // A row that is not as it was read.
            (Self::Bulk { source, .. }, _) => source.is_stale_data() || source.is_not_found(),
            (_, Some(Reason::Refused(error))) => error.is_stale_data(),
            _ => false,
        }
    }

    /// Whether a query that must give a row gave none.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Statement(failure) if matches!(failure.error(), DieselError::NotFound))
    }
}

/// `optional()` for this crate's results: "no such row" becomes `None`.
pub trait OptionalExt<T> {
    /// `Ok(None)` where the query gave no row.
    ///
    /// # Errors
    /// Every other error as it was.
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExt<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
