//! Back to idle, or closed: commit, rollback, and the ends that nobody asked for.

use std::sync::Arc;

use diesel::result::QueryResult;

use super::{Connection, Core};
use crate::backend::{SessionConnection, Truth};
use crate::engine::{ConnectionSlot, Engine, truth_after};
use crate::error::{Cause, Error, Failure, Reason, Result};
use crate::inspect::SessionState;
use crate::place::Place;
use crate::session::hooks::{HookError, Outcome, Report};
use crate::session::join::Joined;
use crate::session::state::{Action, Operation, Refusal, Situation, Situations};

impl<C: SessionConnection> Core<C> {
    pub(crate) fn commit(&self, place: Place) -> Result<Report> {
        self.settle_savepoints();
        let mut action = self.decide(Operation::Commit)?;
        if matches!(action, Action::EndIdle | Action::Commit) && self.watched.get() {
            self.create(place);
            let Some(session) = self.handle() else { return Err(self.refuse(Refusal::SessionClosed)) };
            if let Err(error) = self.each_listener(|listener| listener.before_commit(&session)) {
                let cause = Cause::new(Reason::Refused(Arc::new(error)), place);
                self.roll_back_everything();
                return Err(Error::RolledBack { cause });
            }
            // A listener may have used the session.
            action = self.decide(Operation::Commit)?;
        }
        match action {
            Action::Commit => match self.lend(place, |slot| self.joined.get().commit(slot))? {
                Ok(()) => Ok(Report::new(self.finish(Outcome::Committed))),
                Err(error) => Err(self.commit_failed(&Failure::new(error, place))),
            },
            Action::Rollback => {
                let cause = self.doom();
                let ended_outside = self.has(Situation::Lost)
                    && (self.part_stored.get() || matches!(cause.reason(), Reason::EndedOutside));
                self.roll_back_everything();
                Err(if ended_outside { Error::ImplicitCommit { cause } } else { Error::RolledBack { cause } })
            }
            _ => Ok(Report::new(self.finish(Outcome::Committed))),
        }
    }

    /// COMMIT answered with an error: find out what that means, and end the transaction in any case.
    pub(super) fn commit_failed(&self, failure: &Failure) -> Error {
        let cause = Cause::statement(failure.clone());
        let truth = self.lend(failure.place(), truth_after).unwrap_or(Truth::Broken);
        if failure.is_closed_connection() || truth == Truth::Broken {
            self.discard_connection();
            if self.current.get().read_only {
                // Nothing was written, so nothing is in doubt.
                self.finish(Outcome::RolledBack);
                return Error::RolledBack { cause };
            }
            self.finish(Outcome::Unknown);
            return Error::CommitUnknown { cause };
        }
        self.roll_back_everything();
        Error::RolledBack { cause }
    }

    pub(crate) fn rollback(&self) -> Result<Report> {
        match self.decide(Operation::Rollback)? {
            Action::Rollback | Action::EndIdle => Ok(Report::new(self.roll_back_everything())),
            _ => Ok(Report::default()),
        }
    }

    pub(crate) fn invalidate(&self) -> Result<()> {
        let action = self.decide(Operation::Rollback)?;
        if action == Action::Rollback {
            self.discard_connection();
        }
        if matches!(action, Action::Rollback | Action::EndIdle) {
            self.roll_back_everything();
        }
        Ok(())
    }

    /// ROLLBACK, whatever state the transaction is in, and back to idle.
    pub(super) fn roll_back_everything(&self) -> Vec<HookError> {
        self.end_with_rollback(Joined::roll_back)
    }

    pub(super) fn end_with_rollback(
        &self,
        roll_back: impl FnOnce(Joined, &mut ConnectionSlot<C>, usize) -> QueryResult<()>,
    ) -> Vec<HookError> {
        if self.has(Situation::Active) {
            let joined = self.joined.get();
            let savepoints = self.savepoints();
            let rolled_back = self.lend(self.made_at, |slot| {
                if !slot.broken && roll_back(joined, slot, savepoints).is_err() {
                    // The server rolls back when the connection closes.
                    slot.broken = true;
                }
            });
            if rolled_back.is_err() {
                tracing::debug!(session = self.id, "rolled back without a connection");
            }
        }
        self.finish(Outcome::RolledBack)
    }

    /// The transaction is over: connection back, state idle, then listeners and hooks.
    pub(super) fn finish(&self, outcome: Outcome) -> Vec<HookError> {
        let was_active = self.has(Situation::Active);
        let frames = self.frames.borrow_mut().end();
        let depth = frames.as_ref().map_or(0, |frames| frames.savepoints.len());
        self.give_connection_back();
        let created = self.created.take();
        if was_active {
            tracing::trace!(session = self.id, outcome = ?outcome, "end");
            self.notice_a_needless_gate(created);
        }
        self.lost.take();
        self.joins.set(0);
        self.part_stored.set(false);
        self.quiet.set(false);
        let options = self.options.transaction;
        self.current.set(options);
        let situations = self.situations.get();
        let mut after = Situations::IDLE.with(Situation::Autocommit, options.autocommit);
        for kept in [Situation::Closed, Situation::InHook, Situation::Lent, Situation::Owned] {
            after = after.with(kept, situations.has(kept));
        }
        self.situations.set(after);
        self.show(SessionState::Idle);
        if was_active && let Some(table) = self.table() {
            table.ended();
        }
        if created.is_some() && self.watched.get() {
            self.tell_end(outcome, was_active, depth);
        }
        let errors = match frames {
            Some(frames) => self.run_hooks(frames.into_hooks(), outcome),
            None => Vec::new(),
        };
        self.settle();
        errors
    }

    /// In debug builds, names a transaction that held SQLite's write gate and wrote nothing.
    fn notice_a_needless_gate(&self, begun_at: Option<Place>) {
        let wrote = self.wrote.replace(false);
        if !cfg!(debug_assertions) || wrote || self.current.get().read_only {
            return;
        }
        if let (Some(place), true) = (begun_at, self.engine.as_ref().is_some_and(Engine::writers_take_turns)) {
            tracing::debug!(
                session = self.id,
                begun_at = %place,
                "a transaction that only read kept writers waiting: use `registry.read(…)` or `read_only()`"
            );
        }
    }

    pub(super) fn tell_end(&self, outcome: Outcome, was_active: bool, depth: usize) {
        for level in (0..=depth).rev() {
            let info = self.transaction_info(level);
            match outcome {
                Outcome::Committed => self.tell_over(|listener| listener.after_commit(&info)),
                Outcome::RolledBack if was_active => self.tell_over(|listener| listener.after_rollback(&info)),
                _ => {}
            }
            self.tell_over(|listener| listener.after_transaction_end(&info));
            if outcome == Outcome::RolledBack {
                self.tell_with_session(|listener, session| listener.after_soft_rollback(session, &info));
            }
        }
    }

    pub(super) fn give_connection_back(&self) {
        let mut connection = self.connection.borrow_mut();
        if matches!(&*connection, Some(Connection::Leased(_))) {
            let lease = connection.take();
            drop(connection);
            drop(lease);
        }
        self.joined.set(Joined::No);
    }

    /// Rolls back, gives the connection back and closes every handle. What holds the session now finishes first.
    pub(crate) fn close(&self, place: Place) -> Vec<HookError> {
        match self.situations.get().decide(Operation::Close) {
            Ok(Action::Defer) => {
                self.close_at_return.set(Some(place));
                Vec::new()
            }
            _ if self.has(Situation::Closed) => Vec::new(),
            _ => {
                self.closed_at.set(Some(place));
                self.set(Situation::Closed, true);
                let errors = if self.is_pristine() { Vec::new() } else { self.end_with_rollback(Joined::close) };
                self.depart();
                errors
            }
        }
    }

    pub(crate) fn has_closed(&self) -> bool {
        self.has(Situation::Closed)
    }

    /// The thread ended without `remove()`.
    pub(crate) fn abandon_with_thread(&self) {
        if !self.has(Situation::Closed) {
            if let Some(table) = self.table() {
                table.ended_with_its_thread();
            }
            self.abandon();
        }
    }

    /// Whether nothing was begun since the last end, not even by a hook: then there is nothing to end.
    pub(super) fn is_pristine(&self) -> bool {
        self.created.get().is_none() && !self.has(Situation::Active)
    }

    pub(super) fn depart(&self) {
        self.show(SessionState::Closed);
    }

    pub(crate) fn closed_at(&self) -> Option<Place> {
        self.closed_at.get().or(self.close_at_return.get())
    }

    /// The end without a goodbye: a dropped session, a dead thread. Never waits for a network, never commits, never panics.
    pub(crate) fn abandon(&self) {
        if self.has(Situation::Closed) {
            return;
        }
        self.closed_at.set(Some(self.made_at));
        self.set(Situation::Closed, true);
        let was_active = self.has(Situation::Active);
        if was_active {
            tracing::warn!(session = self.id, made_at = %self.made_at, "a session with an open transaction was dropped: rolled back");
        }
        if let Ok(mut connection) = self.connection.try_borrow_mut() {
            if let Some(slot) = connection.as_mut().and_then(Connection::slot) {
                let joined = self.joined.get();
                if was_active && (C::is_remote() || joined.close(slot, 0).is_err()) {
                    slot.broken = true;
                }
            }
            let connection = connection.take();
            drop(connection);
        }
        if let Some(table) = self.table()
            && was_active
        {
            table.ended();
        }
        self.depart();
        // Hooks are dropped, not run: what they captured goes with them.
        let frames = self.frames.try_borrow_mut().map(|mut frames| std::mem::take(&mut *frames));
        drop(frames);
    }

    pub(crate) fn take_joined_connection(&self) -> Option<C> {
        match self.connection.try_borrow_mut().ok()?.take() {
            Some(Connection::Joined(slot)) => Some(slot.conn),
            _ => None,
        }
    }
}

impl<C: SessionConnection> Drop for Core<C> {
    fn drop(&mut self) {
        self.abandon();
        if let Some(desk) = self.desk.take() {
            desk.leave();
        }
    }
}
