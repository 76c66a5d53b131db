//! An error of Diesel or of the database.

use std::fmt;
use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::ErrorClass;
use crate::backend::{Phase, SessionConnection};
use crate::place::Place;

/// An error of Diesel or of the database, with the place of the statement that met it.
///
/// Cheap to clone: a transaction that fails keeps its first failure and hands it out again.
#[derive(Debug, Clone)]
pub struct Failure {
    error: Arc<DieselError>,
    place: Place,
    class: ErrorClass,
}

impl Failure {
    /// An error of a statement.
    pub(crate) fn new<C: SessionConnection>(error: DieselError, place: Place) -> Self {
        let class = C::classify(&error, Phase::Statement);
        Self { error: Arc::new(error), place, class }
    }

    /// The answer to a COMMIT.
    pub(crate) fn of_commit<C: SessionConnection>(error: DieselError, place: Place) -> Self {
        let class = C::classify(&error, Phase::Commit);
        Self { error: Arc::new(error), place, class }
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The transaction is over, so no savepoint saves it.
    pub(crate) fn beyond_its_statement(mut self) -> Self {
        if self.class == ErrorClass::Statement {
            self.class = ErrorClass::Fatal;
        }
        self
    }

    /// It met something that was stored by itself, statement by statement.
    pub(crate) fn in_autocommit(mut self, many: bool) -> Self {
        if self.class == ErrorClass::Connection || (many && self.class == ErrorClass::Retryable) {
            self.class = ErrorClass::Ambiguous;
        }
        self
    }

    /// The connection answered afterwards: the words were the server's own, as a trigger's, and say nothing that is known.
    pub(crate) fn of_a_live_connection<C: SessionConnection>(mut self, phase: Phase) -> Self {
        let unknown = DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(String::new()));
        self.class = C::classify(&unknown, phase);
        self
    }

    /// The connection turned out to be dead, whatever the error's text says.
    pub(crate) fn by_a_dead_connection(mut self) -> Self {
        // A panic of the driver is nobody's network.
        if !matches!(*self.error, DieselError::QueryBuilderError(_)) {
            self.class = ErrorClass::Connection;
        }
        self
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (statement at {})", self.error, self.place)
    }
}
