//! What can go wrong, with its cause, its place and what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::inspect::Holders;
use crate::place::Place;

/// The result of everything that a session does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of Diesel or of the database, with the place of the statement that met it.
///
/// Cheap to clone: a transaction that fails keeps its first failure and hands it out again.
#[derive(Debug, Clone)]
pub struct Failure {
    error: Arc<DieselError>,
    place: Place,
}

impl Failure {
    pub(crate) fn new(error: DieselError, place: Place) -> Self {
        Self { error: Arc::new(error), place }
    }

    /// Diesel's own error.
    #[must_use]
    pub fn error(&self) -> &DieselError {
        &self.error
    }

    /// Where the statement stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The kind of database error, if it came from the database.
    #[must_use]
    pub fn kind(&self) -> Option<&DatabaseErrorKind> {
        match &*self.error {
            DieselError::DatabaseError(kind, _) => Some(kind),
            _ => None,
        }
    }

    /// Whether it is the error itself that ended the transaction, on every database that ends one for it.
    pub(crate) fn ends_transactions(&self) -> bool {
        self.is_closed_connection() || matches!(self.kind(), Some(DatabaseErrorKind::SerializationFailure))
    }

    pub(crate) fn is_closed_connection(&self) -> bool {
        match &*self.error {
            DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
            | DieselError::BrokenTransactionManager => true,
            // A violation's message may quote a value, and the value may say anything.
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) => is_lost_connection_text(info.message()),
            DieselError::RollbackErrorOnCommit { commit_error, .. } => match &**commit_error {
                DieselError::DatabaseError(_, info) => is_lost_connection_text(info.message()),
                _ => true,
            },
            _ => false,
        }
    }
}

/// What the client libraries say when the server is gone. Diesel maps PostgreSQL's to `ClosedConnection`; MySQL's
/// 2006 and 2013 arrive as `Unknown` with libmysqlclient's or libmariadb's text (seen with diesel 2.3.14).
fn is_lost_connection_text(message: &str) -> bool {
    let texts =
        ["MySQL server has gone away", "Server has gone away", "Lost connection to", "server closed the connection"];
    message.lines().any(|line| texts.iter().any(|text| line.starts_with(text)))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (statement at {})", self.error, self.place)
    }
}

/// Why a transaction failed or was rolled back: what happened first, and where.
#[derive(Debug, Clone)]
pub struct Cause {
    reason: Reason,
    place: Place,
}

/// The kinds of [`Cause`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reason {
    /// The database or Diesel refused a statement.
    Statement(Failure),
    /// [`Session::set_rollback_only`](crate::Session::set_rollback_only) asked for it.
    Requested(Cow<'static, str>),
    /// A `transaction` that had joined this one returned an error or panicked.
    Joined,
    /// [`Session::remove`](crate::Session::remove) or [`close`](crate::Session::close) was called inside the closure
    /// that owns the transaction.
    Removed,
    /// User code panicked while it held the session's connection.
    Panicked,
    /// A statement that this crate did not send (a raw `COMMIT` or `ROLLBACK`, or DDL that commits implicitly) ended the transaction.
    EndedOutside,
    /// A hook or listener refused.
    Refused(Arc<Error>),
}

impl Cause {
    pub(crate) fn new(reason: Reason, place: Place) -> Self {
        Self { reason, place }
    }

    pub(crate) fn statement(failure: Failure) -> Self {
        Self { place: failure.place, reason: Reason::Statement(failure) }
    }

    /// What happened.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Where it happened.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The statement's error, if a statement was the cause.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.reason {
            Reason::Statement(failure) => Some(failure),
            Reason::Refused(error) => error.failure(),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Statement(failure) => return failure.fmt(f),
            Reason::Requested(reason) => write!(f, "rollback was asked for: {reason}")?,
            Reason::Joined => f.write_str("a transaction that had joined this one failed")?,
            Reason::Removed => f.write_str("the session was removed inside the closure that owns it")?,
            Reason::Panicked => f.write_str("code that held the session's connection panicked")?,
            Reason::EndedOutside => {
                f.write_str("the transaction was ended by a statement that the session did not send")?;
            }
            Reason::Refused(error) => write!(f, "a listener refused: {error}")?,
        }
        write!(f, " (at {})", self.place)
    }
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The whole unit of work may be run again: nothing of it was stored.
    Retryable,
    /// One statement failed; the transaction can go on once its frame is rolled back.
    Statement,
    /// The connection is gone and the transaction with it, before COMMIT: nothing was stored.
    Connection,
    /// Nobody knows whether the COMMIT took effect.
    Ambiguous,
    /// The database, the pool or the write gate could not be had in time.
    Unavailable,
    /// The call does not fit the session's state. Nothing was sent and nothing changed.
    Usage,
    /// Anything else. Never retried.
    Fatal,
}

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
    #[error("the transaction is gone on the server: {cause}; call `rollback()` and start again")]
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

    /// A closure owns the transaction and ends it itself.
    #[error(
        "the transaction begun at {at} is committed or rolled back by the closure that owns it: return `Ok` or `Err`, or use `set_rollback_only(reason)`"
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

    /// The registry is strict and no extent is open.
    #[error("the registry is strict: open `scope`, `transaction`, `read`, `job` or `request` around this code")]
    NoScope,

    /// The thread is ending and its sessions are gone.
    #[error("the thread is ending: its sessions are closed")]
    ThreadExiting,

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
    let is_violation = statement_class(failure) == ErrorClass::Statement;
    if is_violation && !matches!(failure.error(), DieselError::NotFound) {
        "; to try something that may fail and go on, wrap it in `session.nested(|s| …)`"
    } else {
        ""
    }
}

fn connection_error(error: Option<&str>) -> String {
    error.map(|error| format!(" (last connection error: {error})")).unwrap_or_default()
}

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Statement(failure) => statement_class(failure),
            Self::RolledBack { cause } | Self::TransactionLost { cause } => {
                match cause.failure().map(statement_class) {
                    Some(class @ (ErrorClass::Retryable | ErrorClass::Connection)) => class,
                    _ => ErrorClass::Fatal,
                }
            }
            Self::CommitUnknown { .. } | Self::ImplicitCommit { .. } => ErrorClass::Ambiguous,
            Self::ShutDown
            | Self::ShutdownTimeout { .. }
            | Self::PoolTimeout { .. }
            | Self::GateTimeout { .. }
            | Self::Connect { .. } => ErrorClass::Unavailable,
            Self::Migration(_) => ErrorClass::Fatal,
            _ => ErrorClass::Usage,
        }
    }

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
            | Self::CommitUnknown { cause } => Some(cause),
            _ => None,
        }
    }

    /// Whether a unique constraint was violated, here or as the first cause.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self.failure().and_then(Failure::kind), Some(DatabaseErrorKind::UniqueViolation))
    }

    /// Whether a query that must give a row gave none.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Statement(failure) if matches!(failure.error(), DieselError::NotFound))
    }
}

fn statement_class(failure: &Failure) -> ErrorClass {
    if failure.is_closed_connection() {
        return ErrorClass::Connection;
    }
    match failure.error() {
        DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => ErrorClass::Retryable,
        // SQLite's BUSY has no kind of its own in diesel 2.3.14.
        DieselError::DatabaseError(_, info) if info.message() == "database is locked" => ErrorClass::Retryable,
        DieselError::DatabaseError(
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::RestrictViolation
            | DatabaseErrorKind::ExclusionViolation,
            _,
        )
        | DieselError::NotFound => ErrorClass::Statement,
        _ => ErrorClass::Fatal,
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
