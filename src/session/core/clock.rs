//! The deadline of a unit of work: what is left of it bounds every wait.

use std::time::{Duration, Instant};

use super::Core;
use crate::backend::{Limits, SessionConnection};
use crate::error::{Cause, Error, Reason, Result};
use crate::place::Place;
use crate::session::state::Situation;

/// When a unit of work has to be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// What was asked for.
    pub(crate) timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Option<Self> {
        // Further away than the clock reaches is never.
        Instant::now().checked_add(timeout).map(|at| Self { at, timeout })
    }

    /// The earlier of the two.
    pub(crate) fn sooner(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if one.at <= other.at { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

/// The server is told anew when what was left has shrunk to this part of what it was told.
const TELL_AGAIN: f64 = 0.8;

impl<C: SessionConnection> Core<C> {
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadline.get()
    }

    pub(crate) fn set_deadline(&self, deadline: Option<Deadline>) {
        self.deadline.set(deadline);
        self.is_bounded.set(deadline.is_some());
        self.told.set(None);
        self.told_anew.set(false);
    }

    /// Another deadline in the middle of a transaction: the database is told before the next statement, also where there is
    /// none any more.
    pub(crate) fn change_deadline(&self, deadline: Option<Deadline>) {
        self.deadline.set(deadline);
        self.told.set(None);
        self.is_bounded.set(true);
    }

    /// What was set in a savepoint is undone with it: the database is told again.
    pub(super) fn forget_told(&self) {
        self.told.set(None);
        if self.told_anew.get() {
            self.is_bounded.set(true);
        }
    }

    /// Starts the clock of a transaction that asks for one, unless it runs already.
    pub(super) fn start_clock(&self) {
        if let (Some(timeout), None) = (self.current.get().timeout, self.deadline.get()) {
            self.set_deadline(Deadline::after(timeout));
        }
    }

    /// What is left, if there is a deadline.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.get().map(|deadline| deadline.at.saturating_duration_since(Instant::now()))
    }

    /// What the database is told now.
    pub(super) fn limits(&self) -> Limits {
        let left = self.left();
        self.told.set(left);
        self.current.get().limits(left)
    }

    /// How long a wait for a connection may take, as far as the deadline has a say.
    pub(super) fn patience(&self) -> Duration {
        self.left().unwrap_or(Duration::MAX)
    }

    /// Past the deadline nothing is sent any more, and the transaction can only be rolled back.
    pub(super) fn in_time(&self, place: Place) -> Result<()> {
        let Some(deadline) = self.deadline.get() else { return Ok(()) };
        if Instant::now() < deadline.at {
            return Ok(());
        }
        if self.has(Situation::Active) {
            // Of the root it is found out anew when the savepoint has gone: its next statement or commit is late too.
            self.frames.borrow_mut().innermost().rollback_only.get_or_insert(Cause::new(Reason::Deadline, place));
            self.refresh();
        }
        Err(Error::DeadlineExceeded { timeout: deadline.timeout, at: place })
    }

    /// Before a statement: refuses it past the deadline, and tells the server what is left where it was told much more.
    pub(super) fn keep_time(&self, place: Place) -> Result<()> {
        self.in_time(place)?;
        let (Some(engine), true) = (&self.engine, self.has(Situation::Active)) else { return Ok(()) };
        if let (Some(told), Some(left)) = (self.told.get(), self.left())
            && left >= told.mul_f64(TELL_AGAIN)
        {
            return Ok(());
        }
        let limits = self.limits();
        let told = self.lend(place, |slot| slot.limit(engine.settings(), limits))?;
        self.told_anew.set(true);
        self.is_bounded.set(self.deadline.get().is_some());
        told.map_err(|error| self.own_statement_failed(error, place))
    }
}
