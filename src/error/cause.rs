//! Why a transaction failed or was rolled back.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Error, ErrorClass, Failure};
use crate::place::Place;

/// Why a transaction failed or was rolled back: what happened first, and where.
#[derive(Debug, Clone)]
pub struct Cause {
    reason: Reason,
    place: Place,
    leaves_doubt: bool,
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
    /// Code with the bare connection said `Ok` although a statement of it had failed the transaction (PostgreSQL).
    Swallowed,
    /// Code with the bare connection said `Ok` and left a transaction or savepoint of its own open: what was in it is undone.
    LeftOpen,
    /// The unit of work ran past its deadline.
    Deadline,
    /// A hook or listener refused, or a flush found that rows were not as the session knew them.
    Refused(Arc<Error>),
}

impl Cause {
    pub(crate) fn new(reason: Reason, place: Place) -> Self {
        Self { reason, place, leaves_doubt: false }
    }

    pub(crate) fn statement(failure: Failure) -> Self {
        Self { place: failure.place(), reason: Reason::Statement(failure), leaves_doubt: false }
    }

    /// The transaction ended in code that may have committed first.
    pub(crate) fn in_doubt(mut self) -> Self {
        self.leaves_doubt = true;
        self
    }

    /// Whether something of the transaction may be stored all the same, because a statement that the session did not send
    /// ended it.
    #[must_use]
    pub fn leaves_doubt(&self) -> bool {
        self.leaves_doubt
    }

    pub(super) fn class(&self) -> Option<ErrorClass> {
        match &self.reason {
            Reason::Statement(failure) => Some(failure.class()),
            Reason::Refused(error) => Some(error.class()),
            _ => None,
        }
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
            Reason::Swallowed => f.write_str("a statement failed in code that did not say so")?,
            Reason::LeftOpen => f.write_str(
                "code with the bare connection left a transaction of its own open, and what was in it was undone",
            )?,
            Reason::Deadline => f.write_str("the unit of work ran past its deadline")?,
            Reason::Refused(error) => write!(f, "a listener refused: {error}")?,
        }
        write!(f, " (at {})", self.place)
    }
}
