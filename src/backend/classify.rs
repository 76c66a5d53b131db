//! What the caller can do about an error of the database: by Diesel's kind and, where Diesel has no kind for it, by the
//! text. A text that is not known is fatal: nothing is run again by mistake.
//!
//! Diesel 2.3.14 shows neither SQLSTATE nor error number, so each database has a table of its own English texts. A server
//! that speaks another language gives texts that no table knows.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::Phase;
use crate::error::ErrorClass;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "mysql")]
pub(crate) use mysql::classify as mysql;
#[cfg(feature = "postgres")]
pub(crate) use postgres::classify as postgres;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::classify as sqlite;

/// The error behind a failed COMMIT whose ROLLBACK failed too.
fn first(error: &DieselError) -> &DieselError {
    match error {
        DieselError::RollbackErrorOnCommit { commit_error, .. } => first(commit_error),
        other => other,
    }
}

/// The class of an error as far as Diesel's kind decides it on every database; `None` where the text has to.
fn by_kind(error: &DieselError) -> Option<ErrorClass> {
    match error {
        DieselError::NotFound => Some(ErrorClass::Statement),
        DieselError::BrokenTransactionManager => Some(ErrorClass::Connection),
        DieselError::DatabaseError(kind, _) => match kind {
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::RestrictViolation
            | DatabaseErrorKind::ExclusionViolation => Some(ErrorClass::Statement),
            DatabaseErrorKind::SerializationFailure => Some(ErrorClass::Retryable),
            DatabaseErrorKind::ClosedConnection => Some(ErrorClass::Connection),
            _ => None,
        },
        _ => Some(ErrorClass::Fatal),
    }
}

/// How a known message reads. Messages quote names and values, and these may say anything, on several lines: only the
/// very beginning is the database's own, and the whole where it has no parameters.
enum Text {
    /// The whole message; libpq ends its own with a line break.
    Is(&'static str),
    /// The beginning, up to the first parameter.
    Begins(&'static str),
    /// What stands around the only parameter.
    #[cfg(feature = "mysql")]
    Around(&'static str, &'static str),
}

impl Text {
    fn fits(&self, message: &str) -> bool {
        match self {
            Self::Is(text) => message.trim_end() == *text,
            Self::Begins(text) => message.starts_with(text),
            #[cfg(feature = "mysql")]
            Self::Around(before, after) => message.strip_prefix(before).is_some_and(|rest| rest.ends_with(after)),
        }
    }
}

/// Texts of one class.
type Known = (ErrorClass, &'static [Text]);

/// The class of the text; `None` where no table knows it.
fn by_text(error: &DieselError, known: &[Known]) -> Option<ErrorClass> {
    let DieselError::DatabaseError(_, info) = error else { return None };
    let found = known.iter().find(|(_, texts)| texts.iter().any(|text| text.fits(info.message())));
    found.map(|(class, _)| *class)
}

/// A connection that died during COMMIT says nothing about the transaction.
fn in_phase(class: ErrorClass, phase: Phase) -> ErrorClass {
    match (class, phase) {
        (ErrorClass::Connection, Phase::Commit) => ErrorClass::Ambiguous,
        (class, _) => class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginnings that a table knows.
    pub(super) fn beginnings(known: &[Known]) -> impl Iterator<Item = &'static str> {
        known.iter().flat_map(|(_, texts)| texts.iter()).map(|text| match text {
            Text::Is(text) | Text::Begins(text) => *text,
            #[cfg(feature = "mysql")]
            Text::Around(before, _) => *before,
        })
    }

    pub(super) fn unknown(message: &str) -> DieselError {
        of_kind(DatabaseErrorKind::Unknown, message)
    }

    pub(super) fn of_kind(kind: DatabaseErrorKind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    /// No known text counts but at the beginning of the message, whatever stands before it.
    pub(super) fn only_the_beginning_counts(known: &[Known], classify: fn(&DieselError, Phase) -> ErrorClass) {
        for text in beginnings(known) {
            for before in ["a", "\"", "\n", " ", "x\n", "x\r\n", "FATAL:  x\n", "relation \"x\" does not exist\n"] {
                let message = format!("{before}{text}");
                assert_eq!(classify(&unknown(&message), Phase::Statement), ErrorClass::Fatal, "{message}");
            }
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_failed_commit_whose_rollback_failed_too_has_the_class_of_the_commit() {
        let both = |kind| DieselError::RollbackErrorOnCommit {
            rollback_error: Box::new(of_kind(DatabaseErrorKind::UniqueViolation, "")),
            commit_error: Box::new(of_kind(kind, "")),
        };
        assert_eq!(postgres(&both(DatabaseErrorKind::ClosedConnection), Phase::Commit), ErrorClass::Ambiguous);
        assert_eq!(postgres(&both(DatabaseErrorKind::SerializationFailure), Phase::Commit), ErrorClass::Retryable);
    }
}
