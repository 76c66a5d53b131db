//! A session that shares its transaction with others, one after the other: a savepoint of its own, and an end that waits for
//! that of the transaction.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Connection, Core};
use crate::backend::{SessionConnection, Truth};
use crate::engine::ConnectionSlot;
use crate::error::{Cause, Error, Failure, Result};
use crate::place::Place;
use crate::session::hooks::{HookError, Outcome};
use crate::session::join::{Joined, ROOT};
use crate::session::state::Situation;

/// A session's part in a transaction that it shares.
pub(super) struct Share<C: SessionConnection> {
    /// The session that bears the transaction and has the connection between the turns.
    outer: Rc<Core<C>>,
    /// How this session's own part ended.
    suspended: Cell<Option<Outcome>>,
    /// Whether the whole has ended too.
    is_concluding: Cell<bool>,
    /// Whether this session had no savepoint, because there was nothing before it.
    was_whole: Cell<bool>,
    /// How long it waited for the transaction to begin.
    waited: Cell<Duration>,
}

impl<C: SessionConnection> Share<C> {
    pub(super) fn new(outer: Rc<Core<C>>) -> Self {
        Self {
            outer,
            suspended: Cell::new(None),
            is_concluding: Cell::new(false),
            was_whole: Cell::new(false),
            waited: Cell::default(),
        }
    }

    pub(super) fn give_back(&self, connection: Option<Connection<C>>) {
        *self.outer.connection.borrow_mut() = connection;
    }
}

impl<C: SessionConnection> Core<C> {
    /// Begins in the shared transaction, which the first that does begins.
    pub(super) fn begin_in(&self, share: &Share<C>, place: Place) -> Result<()> {
        let outer = &share.outer;
        let is_first = !outer.has(Situation::Active);
        if is_first {
            // Its wait is this session's; the COMMIT is not.
            outer.set_deadline(self.deadline());
            let started = Instant::now();
            let begun = outer.begin_now(place, 0);
            share.waited.set(started.elapsed());
            outer.set_deadline(None);
            begun?;
            outer.wrote.set(true);
        }
        if self.has(Situation::Closed) {
            // By a listener that heard of the beginning.
            return Err(Error::SessionClosed { at: self.closed_at.get().unwrap_or(place) });
        }
        let Some(mut connection) = outer.connection.borrow_mut().take() else { return Err(Error::ShutDown) };
        self.limits();
        let set = match connection.slot() {
            Some(slot) if !is_first => slot.savepoint(ROOT),
            _ => Ok(()),
        };
        if let Err(error) = set {
            let failure = Failure::new::<C>(error, place);
            share.give_back(Some(connection));
            outer.lose(Cause::statement(failure.clone()));
            return Err(Error::Statement(failure));
        }
        self.joined.set(if is_first { Joined::Whole } else { Joined::Savepoint });
        share.was_whole.set(is_first);
        *self.connection.borrow_mut() = Some(connection);
        Ok(())
    }

    /// Whether this end is that of its own part only: the hooks wait for that of the whole.
    pub(super) fn is_suspended_at(&self, outcome: Outcome) -> bool {
        let Some(share) = self.share.as_ref().filter(|share| !share.is_concluding.get()) else { return false };
        // A BEGIN that failed, say: it has no part in the transaction, and may go on and try again.
        if outcome == Outcome::RolledBack && !self.has(Situation::Active) && self.frames.borrow().hooks() == 0 {
            return false;
        }
        share.suspended.set(Some(outcome));
        self.give_connection_back();
        self.closed_at.set(Some(self.closed_at.get().unwrap_or(self.made_at)));
        self.set(Situation::Closed, true);
        true
    }

    /// How its own part of a shared transaction ended; `None` if it had none.
    pub(crate) fn suspended(&self) -> Option<Outcome> {
        self.share.as_ref().and_then(|share| share.suspended.get())
    }

    pub(crate) fn was_whole(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.was_whole.get())
    }

    /// How long it waited for a transaction to share.
    pub(crate) fn waited(&self) -> Duration {
        self.share.as_ref().map_or(Duration::ZERO, |share| share.waited.get())
    }

    /// What ended the transaction, as far as this session noticed.
    pub(crate) fn lost(&self) -> Option<Cause> {
        self.lost.borrow().clone()
    }

    /// The shared transaction has ended, and this session with it.
    pub(crate) fn conclude(&self, outcome: Outcome) -> Vec<HookError> {
        let Some(share) = &self.share else { return Vec::new() };
        share.is_concluding.set(true);
        let errors = if self.is_pristine() { Vec::new() } else { self.finish(outcome) };
        self.close_entities();
        self.depart();
        errors
    }

    /// Whether a transaction that others share is still there, after one of them has failed.
    pub(crate) fn still_bears(&self, place: Place) -> bool {
        if self.has(Situation::Lost) {
            return false;
        }
        // Not begun yet, so there is nothing to lose.
        if !self.has(Situation::Active) {
            return true;
        }
        let truth = self.lend(place, ConnectionSlot::truth);
        matches!(truth, Ok(Truth::Open))
    }
}
