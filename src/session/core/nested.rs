//! Savepoints.

use super::Core;
use crate::backend::SessionConnection;
use crate::error::{Cause, Error, Failure, Result};
use crate::place::Place;
use crate::session::hooks::{Hook, HookError, Outcome};
use crate::session::state::{Action, Operation, Refusal, Situation};

impl<C: SessionConnection> Core<C> {
    pub(crate) fn begin_nested(&self, place: Place) -> Result<u64> {
        self.settle_savepoints();
        if self.decide(Operation::Nest)? == Action::Begin {
            self.begin_now(place, 0)?;
        }
        let n = self.savepoints() + 1;
        let sent = self.lend(place, |slot| slot.conn.savepoint(n, &slot.state))?;
        if let Err(error) = sent {
            let truth = self.lend(place, |slot| slot.conn.truth_after(&error))?;
            return Err(self.statement_failed(Failure::new(error, place), Some(truth)));
        }
        let serial = self.frames.borrow_mut().push(place);
        self.refresh();
        let info = self.transaction_info(n);
        self.tell_with_session(|listener, session| listener.after_transaction_create(session, &info));
        if let Err(error) = self.after_begin(n, place) {
            self.roll_back_to(serial);
            return Err(error);
        }
        Ok(serial)
    }

    /// Ends a savepoint by its guard's `commit`.
    pub(crate) fn release(&self, serial: u64, place: Place) -> Result<()> {
        self.settle_savepoints();
        let position = self.frames.borrow().position(serial);
        let Some(position) = position else { return Err(Error::SavepointGone) };
        if self.has(Situation::Lost) {
            // The guard is spent, so its frame goes too: nothing is sent for it.
            self.roll_back_to(serial);
            return Err(Error::TransactionLost { cause: self.lost_cause() });
        }
        if self.has(Situation::Lent) || self.has(Situation::InHook) {
            self.orphan(serial);
            return Err(self.refuse(if self.has(Situation::Lent) { Refusal::InUse } else { Refusal::InHook }));
        }
        let inner = self.frames.borrow().savepoints.get(position + 1).and_then(|frame| frame.place);
        if let Some(at) = inner {
            self.roll_back_to(serial);
            return Err(Error::SavepointOpen { at });
        }
        let doom = self.frames.borrow().savepoints.get(position).and_then(|frame| frame.doom().cloned());
        if let Some(cause) = doom {
            self.roll_back_to(serial);
            return Err(Error::RolledBack { cause });
        }
        let n = position + 1;
        if let Err(error) = self.lend(place, |slot| slot.conn.release(n, &slot.state))? {
            // Our own savepoint is unknown to the server: the transaction it was in is gone.
            let cause = Cause::statement(Failure::new(error, place));
            self.lose(cause.clone());
            self.roll_back_to(serial);
            return Err(Error::TransactionLost { cause });
        }
        {
            let mut frames = self.frames.borrow_mut();
            if let Some(frame) = frames.savepoints.pop() {
                frames.innermost().hooks.extend(frame.hooks);
            }
        }
        self.refresh();
        let info = self.transaction_info(n);
        self.tell_over(|listener| listener.after_release(&info));
        self.tell_over(|listener| listener.after_transaction_end(&info));
        self.settle();
        Ok(())
    }

    /// Marks a savepoint for rollback at the next chance.
    pub(crate) fn orphan(&self, serial: u64) {
        if let Ok(mut frames) = self.frames.try_borrow_mut()
            && let Some(frame) = frames.savepoints.iter_mut().find(|frame| frame.serial == serial)
        {
            frame.orphaned = true;
        }
    }

    /// Rolls back to a savepoint, ends it and all inside it.
    pub(crate) fn roll_back_to(&self, serial: u64) -> Vec<HookError> {
        let position = self.frames.borrow().position(serial);
        let Some(position) = position else { return Vec::new() };
        let n = position + 1;
        let lost = self.has(Situation::Lost);
        if !lost {
            let sent = self.lend(self.made_at, |slot| slot.conn.rollback_to(n, &slot.state));
            if let Ok(Err(error)) = sent {
                self.lose(Cause::statement(Failure::new(error, self.made_at)));
            }
        }
        let ended = self.frames.borrow_mut().savepoints.split_off(position);
        self.refresh();
        for depth in (n..n + ended.len()).rev() {
            let info = self.transaction_info(depth);
            self.tell_over(|listener| listener.after_rollback(&info));
            self.tell_over(|listener| listener.after_transaction_end(&info));
            self.tell_with_session(|listener, session| listener.after_soft_rollback(session, &info));
        }
        self.settle();
        let hooks: Vec<Hook> = ended.into_iter().flat_map(|frame| frame.hooks).collect();
        if lost || self.has(Situation::Lost) {
            // The whole transaction is gone: these hooks run with the root's.
            self.frames.borrow_mut().root.hooks.extend(hooks);
            return Vec::new();
        }
        self.run_hooks(hooks, Outcome::RolledBack)
    }

    /// What a finished lending or hook run left to be done.
    pub(super) fn settle(&self) {
        if self.has(Situation::Lent) || self.has(Situation::InHook) {
            return;
        }
        if let Some(place) = self.close_at_return.take() {
            self.close(place);
        }
    }

    /// Rolls back savepoints whose guards died where nothing could be sent.
    pub(super) fn settle_savepoints(&self) {
        if !self.has(Situation::SavepointOpen) || self.has(Situation::Lent) || self.has(Situation::InHook) {
            return;
        }
        let orphan = self.frames.borrow().savepoints.iter().find(|frame| frame.orphaned).map(|frame| frame.serial);
        if let Some(serial) = orphan {
            self.roll_back_to(serial);
        }
    }
}
