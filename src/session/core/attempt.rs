//! The session's part in running a unit of work again, and in telling its caller to come later: it remembers what it
//! answered, because the closure's own error type does not say.

use std::time::Duration;

use super::Core;
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::session::state::Situation;
use crate::unit::{Attempt, RetryPolicy};

impl<C: SessionConnection> Core<C> {
    pub(crate) fn begin_attempt(&self, attempt: Attempt, policy: RetryPolicy) {
        self.attempt.set(Some((attempt, policy)));
    }

    pub(crate) fn attempt(&self) -> Option<Attempt> {
        self.attempt.get().map(|(attempt, _)| attempt)
    }

    /// Remembers an error that the session hands out, until a later statement goes well.
    pub(super) fn note(&self, error: &Error) {
        if self.attempt.get().is_some() || error.is_overload() {
            self.trouble.replace(Some(error.clone()));
            self.is_troubled.set(true);
        }
    }

    /// Remembers the error of an answer that no statement made.
    pub(crate) fn noted<T>(&self, answer: Result<T>) -> Result<T> {
        answer.inspect_err(|error| self.note(error))
    }

    pub(crate) fn went_well(&self) {
        if self.is_troubled.replace(false) {
            self.trouble.take();
        }
    }

    /// Whether the last thing it answered was that there is no room or no time.
    #[cfg(feature = "axum")]
    pub(crate) fn met_overload(&self) -> bool {
        self.trouble.borrow().as_ref().is_some_and(Error::is_overload)
    }

    /// The attempt failed with this error: decides whether there will be another, before its hooks could run.
    pub(super) fn decide_about(&self, error: &Error) {
        let Some((attempt, policy)) = self.attempt.get() else { return };
        let Some(pause) = policy.pause(error, attempt.number) else { return };
        if self.left().is_some_and(|left| left <= pause) {
            return;
        }
        tracing::debug!(
            session = self.id,
            attempt = attempt.number,
            ?pause,
            error = error.for_the_log(),
            "the unit of work is run again"
        );
        self.again_after.set(Some(pause));
    }

    /// What the attempt's work was part of failed with this error.
    pub(crate) fn decide_again(&self, error: &Error) {
        self.again_after.set(None);
        self.decide_about(error);
    }

    /// The closure returned an error of its own: decides by what the session answered last, and by what it knows of the
    /// transaction.
    pub(crate) fn decide_after_error(&self) {
        // Removed inside the closure it has ended already, with its hooks; and what may be stored is not done twice.
        if self.attempt.get().is_none() || self.has(Situation::Closed) || self.is_in_doubt() {
            return;
        }
        let trouble = self.trouble.take().or_else(|| {
            let is_doomed = self.has(Situation::Lost) || self.has(Situation::Failed);
            is_doomed.then(|| Error::RolledBack { cause: self.doom() })
        });
        if let Some(error) = trouble {
            self.decide_about(&error);
        }
    }

    /// Whether something else than the session ended the transaction, and may have committed it.
    fn is_in_doubt(&self) -> bool {
        self.has(Situation::Lost) && self.doom().leaves_doubt()
    }

    /// After how long the unit of work is to be run again.
    pub(crate) fn again_after(&self) -> Option<Duration> {
        self.again_after.get()
    }
}
