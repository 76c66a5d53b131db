//! Back to idle, or closed: rollback, and the ends that nobody asked for.

use diesel::result::QueryResult;

use super::{Connection, Core};
use crate::backend::SessionConnection;
use crate::engine::{ConnectionSlot, Engine};
use crate::error::{Cause, Error, Reason, Result};
use crate::inspect::SessionState;
use crate::place::Place;
use crate::session::hooks::{Hook, HookError, Outcome, Report};
use crate::session::join::Joined;
use crate::session::state::{Action, Operation, Situation, Situations};

impl<C: SessionConnection> Core<C> {
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
        if self.is_suspended_at(outcome) {
            return Vec::new();
        }
        let was_active = self.has(Situation::Active);
        let frames = self.frames.borrow_mut().end();
        let depth = frames.as_ref().map_or(0, |frames| frames.savepoints.len());
        self.give_connection_back();
        let created = self.created.take();
        if was_active {
            tracing::trace!(session = self.id, outcome = ?outcome, "end");
            self.notice_a_needless_gate(created);
        }
        self.end_entities(outcome);
        self.lost.take();
        self.joins.set(0);
        self.quiet.set(false);
        let options = self.options.transaction;
        self.current.set(options);
        self.set_deadline(None);
        let situations = self.situations.get();
        let mut after = Situations::IDLE.with(Situation::Autocommit, options.autocommit);
        for kept in [Situation::Closed, Situation::InHook, Situation::Flushing, Situation::Lent, Situation::Owned] {
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
        let mut errors = self.listener_errors.take();
        errors.extend(match frames {
            // Of an attempt that is run again nobody is to hear.
            Some(frames) if self.again_after.get().is_some() => {
                frames.into_hooks().into_iter().filter_map(Hook::discard).collect()
            }
            Some(frames) => self.run_hooks(frames.into_hooks(), outcome),
            None => Vec::new(),
        });
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
                self.tell_soft_rollback(&info);
            }
        }
    }

    pub(super) fn give_connection_back(&self) {
        let mut connection = self.connection.borrow_mut();
        if matches!(&*connection, Some(Connection::Leased(_))) {
            let lease = connection.take();
            drop(connection);
            match &self.share {
                Some(share) => share.give_back(lease),
                None => drop(lease),
            }
        }
        self.joined.set(Joined::No);
    }

    /// Rolls back, gives the connection back and closes every handle. What holds the session now finishes first.
    pub(crate) fn close(&self, place: Place) -> Vec<HookError> {
        if self.is_elsewhere() {
            self.forget(place);
            return Vec::new();
        }
        match self.situations.get().decide(Operation::Close) {
            Ok(Action::Defer) => {
                self.close_at_return.set(Some(place));
                Vec::new()
            }
            _ if self.has(Situation::Closed) => Vec::new(),
            _ => {
                self.closed_at.set(Some(place));
                self.closed_on_work.set(!self.is_pristine());
                self.set(Situation::Closed, true);
                let errors = if self.is_pristine() { Vec::new() } else { self.end_with_rollback(Joined::close) };
                self.close_entities();
                self.depart();
                errors
            }
        }
    }

    /// Code of the user's panicked while the transaction was ended, in a destructor or where nobody caught it: says what is
    /// known.
    pub(crate) fn after_a_panic_at_its_end(&self, place: Place, message: String) -> Error {
        if self.connection.try_borrow().is_ok_and(|connection| connection.is_some()) {
            // Not sent, so it will be rolled back.
            return Error::JobPanicked { at: place, message };
        }
        Error::CommitUnknown { cause: Cause::new(Reason::Panicked, place) }
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

    /// Whether there was something to roll back when it was closed, or will be when what holds it lets go.
    pub(crate) fn was_closed_on_work(&self) -> bool {
        self.closed_on_work.get() || !self.has(Situation::Closed)
    }

    pub(crate) fn closed_at(&self) -> Option<Place> {
        self.closed_at.get().or(self.close_at_return.get())
    }

    /// The end without a goodbye: a dropped session, a dead thread. Never waits for a network, never commits, never panics.
    pub(crate) fn abandon(&self) {
        // One that was closed has given its connection back, unless it was joined on it.
        if self.has(Situation::Closed) && self.engine.is_some() {
            return;
        }
        if self.is_elsewhere() {
            return self.forget(self.made_at);
        }
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
                if was_active && ((C::is_remote() && !slot.is_sandboxed()) || joined.close(slot, 0).is_err()) {
                    slot.broken = true;
                }
            }
            let connection = connection.take();
            drop(connection);
        }
        self.close_entities();
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

    /// The end in a forked child: nothing is sent and nothing closed, because the connection is the parent's.
    fn forget(&self, place: Place) {
        if !self.has(Situation::Closed) {
            self.closed_at.set(Some(place));
            self.set(Situation::Closed, true);
        }
        if let Ok(mut connection) = self.connection.try_borrow_mut() {
            std::mem::forget(connection.take());
        }
        self.close_entities();
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
