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
        self.decide(Operation::Nest)?;
        // What waits belongs to the frame around it.
        self.flush(place)?;
        if self.decide(Operation::Nest)? == Action::Begin {
            self.begin_now(place, 0)?;
        }
        let n = self.savepoints() + 1;
        if self.is_bounded.get() {
            self.keep_time(place)?;
        }
        let sent = self.lend(place, |slot| slot.savepoint(n))?;
        sent.map_err(|error| self.own_statement_failed(error, place))?;
        let serial = self.frames.borrow_mut().push(place);
        if let Some(unit) = self.known_unit() {
            unit.begin_nested();
        }
        self.refresh();
        let info = self.transaction_info(n);
        let _ = self.ask_listeners(|listener, session| {
            listener.after_transaction_create(session, &info);
            Ok(())
        });
        if let Err(error) = self.after_begin(n) {
            self.roll_back_to(serial);
            return Err(error);
        }
        Ok(serial)
    }

    /// Ends a savepoint by its guard's `commit`.
    pub(crate) fn release(&self, serial: u64, place: Place) -> Result<()> {
        self.origin.check()?;
        self.settle_savepoints();
        let position = self.frames.borrow().position(serial);
        let Some(position) = position else { return Err(Error::SavepointGone) };
        if self.has(Situation::Lost) {
            // The guard is spent, so its frame goes too: nothing is sent for it.
            self.roll_back_to(serial);
            return Err(Error::TransactionLost { cause: self.lost_cause() });
        }
        if self.is_held() {
            self.orphan(serial);
            return Err(self.refuse(self.held_by()));
        }
        let inner = self.frames.borrow().savepoints.get(position + 1).and_then(|frame| frame.place);
        if let Some(at) = inner {
            self.roll_back_to(serial);
            return Err(Error::SavepointOpen { at });
        }
        let mut doom = self.frames.borrow().savepoints.get(position).and_then(|frame| frame.doom().cloned());
        if doom.is_none()
            && let Err(error) = self.flush(place)
        {
            doom = Some(self.doom_by(error, place));
        }
        if let Some(cause) = doom {
            self.roll_back_to(serial);
            return Err(Error::RolledBack { cause });
        }
        let n = position + 1;
        if let Err(error) = self.lend(place, |slot| slot.release(n))? {
            // Our own savepoint is unknown to the server: the transaction it was in is gone.
            let cause = Cause::statement(Failure::new::<C>(error, place));
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
        if let Some(unit) = self.known_unit() {
            unit.release();
        }
        self.refresh();
        let info = self.transaction_info(n);
        self.tell_over(|listener| listener.after_release(&info));
        self.tell_over(|listener| listener.after_transaction_end(&info));
        self.settle();
        Ok(())
    }

    /// What refuses an end while the session is held.
    fn held_by(&self) -> Refusal {
        if self.has(Situation::Lent) {
            Refusal::InUse
        } else if self.has(Situation::Flushing) {
            Refusal::Reentrant
        } else {
            Refusal::InHook
        }
    }

    /// Marks a savepoint for rollback at the next chance.
    pub(crate) fn orphan(&self, serial: u64) {
        if let Ok(mut frames) = self.frames.try_borrow_mut() {
            frames.orphan(serial);
        }
    }

    /// Rolls back to a savepoint, ends it and all inside it.
    pub(crate) fn roll_back_to(&self, serial: u64) -> Vec<HookError> {
        if self.is_elsewhere() {
            return Vec::new();
        }
        let position = self.frames.borrow().position(serial);
        let Some(position) = position else { return Vec::new() };
        let n = position + 1;
        let lost = self.has(Situation::Lost);
        if !lost {
            let sent = self.lend(self.made_at, |slot| slot.rollback_to(n));
            if let Ok(Err(error)) = sent {
                self.lose(Cause::statement(Failure::new::<C>(error, self.made_at)));
            }
        }
        self.forget_told();
        let ended = self.frames.borrow_mut().savepoints.split_off(position);
        self.undo_entities(n);
        self.refresh();
        for depth in (n..n + ended.len()).rev() {
            let info = self.transaction_info(depth);
            self.tell_over(|listener| listener.after_rollback(&info));
            self.tell_over(|listener| listener.after_transaction_end(&info));
            self.tell_soft_rollback(&info);
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
        if self.is_held() {
            return;
        }
        if let Some(place) = self.close_at_return.take() {
            self.close(place);
        }
    }

    /// Rolls back savepoints whose guards died where nothing could be sent.
    pub(super) fn settle_savepoints(&self) {
        if !self.has(Situation::SavepointOpen) || self.is_held() {
            return;
        }
        let orphan = self.frames.borrow_mut().orphaned();
        if let Some(serial) = orphan {
            self.roll_back_to(serial);
        }
    }
}
