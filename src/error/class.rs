//! What a caller can do about an error: the classes, and the class of each.

use super::{Error, Reason};

/// What a caller can do about an [`Error`].
///
/// Diesel shows a kind for some errors and the text for all, but neither SQLSTATE nor error number (diesel 2.3.14). So an
/// error is sorted by its kind and, where it has none, by the English text that the database gives with its code. A text
/// that is not known is [`Fatal`](Self::Fatal): that of a server with `lc_messages` in another language, of a trigger, of
/// a newer version. Only the beginning of a text counts, never a value that it quotes.
///
/// Triggers and functions can raise any text, and so say anything (RAISE, SIGNAL). That the connection is gone is not
/// believed of one that answers when it is asked again; the other texts are: `deadlock detected`, raised with whatever
/// code, is `Retryable`, and the unit of work is run again under a [`RetryPolicy`](crate::RetryPolicy).
///
/// | Class | SQLite | PostgreSQL | MySQL, MariaDB |
/// |---|---|---|---|
/// | `Retryable` | `BUSY`, `BUSY_SNAPSHOT`, `LOCKED`, `PROTOCOL` | 40001¹, 40P01 | 1213, 1020 |
/// | `Statement` | violations¹, `INTERRUPT` | violations¹ (class 23), 55P03, 57014 | violations (1062, 1452, 1048, 4025, 3819 …), 1205, 1317, 1969, 3024, 3572 |
/// | `Connection` | `IOERR`, `CANTOPEN` | a connection that the server closed¹ (57P01–57P03, 25P03 …), 08000¹, 08001¹, 08004¹, 08006¹, what libpq says about a dead one | 2006, 2013, 2027, 2055, 1053, 1927, 4031 |
/// | `Ambiguous`, of COMMIT only | `IOERR`, `CANTOPEN` | a dead connection¹, 40003 (CockroachDB) | a dead connection, 1180, and every error that is not known to mean "not stored" |
/// | `Unavailable` | – | 53300, 25006¹ (a standby) | 1040, 1203, 1047 (Galera), 1290 and 1836 (a read-only server) |
/// | `Fatal` | all others: `FULL`, `READONLY`, `CORRUPT`, `NOMEM` … | all others | all others, also 1792 |
///
/// ¹ By kind, in any language. A query that must give a row and gives none is `Statement` everywhere. An error that
/// SQLite or PostgreSQL answers to COMMIT, on a connection that lives, means that nothing was stored.
///
/// PostgreSQL gives 25006 to a standby's client and to a transaction that was itself begun to read: the class can't tell
/// them apart.
///
/// Sources: SQLite docs, "Result and Error Codes"; PostgreSQL docs, "PostgreSQL Error Codes"; MariaDB docs, "MariaDB
/// Error Codes"; MySQL docs, "Server Error Message Reference".
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

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Statement(failure) => failure.class(),
            Self::TransactionLost { cause } if cause.leaves_doubt() => ErrorClass::Ambiguous,
            Self::RolledBack { cause } if matches!(cause.reason(), Reason::Deadline) => ErrorClass::Unavailable,
            Self::RolledBack { cause } | Self::TransactionLost { cause } => match cause.class() {
                Some(class @ (ErrorClass::Retryable | ErrorClass::Connection | ErrorClass::Unavailable)) => class,
                _ => ErrorClass::Fatal,
            },
            Self::CommitUnknown { .. } | Self::ImplicitCommit { .. } => ErrorClass::Ambiguous,
            Self::ShutDown
            | Self::DeadlineExceeded { .. }
            | Self::ShutdownTimeout { .. }
            | Self::PoolTimeout { .. }
            | Self::GateTimeout { .. }
            | Self::QueueFull { .. }
            | Self::LockedOutside { .. }
            | Self::LeaseExpired { .. }
            | Self::NotDrained { .. }
            | Self::Connect { .. } => ErrorClass::Unavailable,
            Self::StaleData { .. } | Self::BatchRolledBack { .. } => ErrorClass::Retryable,
            Self::RowGone { .. } => ErrorClass::Statement,
            Self::Bulk { source, .. } => source.class(),
            Self::Migration(_) | Self::JobPanicked { .. } => ErrorClass::Fatal,
            _ => ErrorClass::Usage,
        }
    }

    /// Whether there was no room or no time for the work: it may be asked for again later.
    pub(crate) fn is_overload(&self) -> bool {
        match self {
            Self::QueueFull { .. }
            | Self::LockedOutside { .. }
            | Self::PoolTimeout { .. }
            | Self::GateTimeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::ShutDown
            | Self::Connect { .. } => true,
            Self::RolledBack { cause } => matches!(cause.reason(), Reason::Deadline),
            _ => false,
        }
    }
}
