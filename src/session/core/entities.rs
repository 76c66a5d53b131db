//! The session's entities: flushes, and what each end does to them.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use diesel::result::{Error as DieselError, QueryResult};

use super::Core;
use super::statement::Road;
use crate::backend::SessionConnection;
use crate::entity::Entity;
use crate::error::{Cause, Error, Reason, Result};
use crate::place::Place;
use crate::session::events::{StatementKind, Transition};
use crate::session::hooks::Outcome;
use crate::session::state::{Action, Operation, Situation};
use crate::unit_of_work::{AnyNode, Change, Changes, Node, ObjectState, Ops, UnitOfWork};

impl<C: SessionConnection> Core<C> {
    pub(crate) fn unit(&self) -> &UnitOfWork<C> {
        self.unit.get_or_init(|| {
            let ops: Weak<dyn Ops> = Weak::clone(&self.me.borrow()) as Weak<dyn Ops>;
            let level = u32::try_from(self.savepoints()).unwrap_or(u32::MAX);
            match self.resting.take() {
                Some(mut unit) => {
                    unit.wake(self.id, ops, level);
                    unit
                }
                None => Box::new(UnitOfWork::new(self.id, ops, level)),
            }
        })
    }

    /// The unit of work, if there ever was an entity.
    #[inline]
    pub(crate) fn known_unit(&self) -> Option<&UnitOfWork<C>> {
        self.unit.get().map(|unit| &**unit)
    }

    /// Whether entities may be added, changed and deleted now.
    pub(crate) fn may_change(&self, place: Place) -> Result<()> {
        self.settle_savepoints();
        self.decide(Operation::Change)?;
        if self.current.get().read_only {
            return Err(Error::ReadOnly);
        }
        self.autobegin(place)
    }

    /// Whether entities may be read from memory: the session is open and not in the middle of something.
    pub(crate) fn may_read(&self) -> Result<()> {
        self.settle_savepoints();
        self.decide(Operation::Statement).map(drop)
    }

    /// Whether a lock would outlive its statement.
    pub(crate) fn may_lock(&self) -> Result<()> {
        match self.decide(Operation::Statement)? {
            Action::WithoutTransaction => Err(Error::NoTransaction),
            _ => Ok(()),
        }
    }

    /// Whether entities may be forgotten: also where the transaction failed.
    pub(crate) fn may_forget(&self) -> Result<()> {
        match self.decide(Operation::Change) {
            Err(Error::PendingRollback { .. } | Error::TransactionLost { .. } | Error::NoTransaction) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_autocommit(&self) -> bool {
        self.has(Situation::Autocommit)
    }

    /// Flushes because somebody asked for it: also where there is nothing to do, the session must be fit for it.
    pub(crate) fn flush_now(&self, place: Place) -> Result<()> {
        self.settle_savepoints();
        self.decide(Operation::Statement)?;
        self.flush(place)
    }

    /// Flushes before a query, unless that was switched off.
    pub(crate) fn autoflush(&self, place: Place) -> Result<()> {
        if self.known_unit().is_some_and(|unit| unit.quiet.get() > 0) { Ok(()) } else { self.flush_now(place) }
    }

    /// A statement for one entity, outside a flush: what it changes is known, so nothing else becomes stale.
    pub(crate) fn entity_statement<R>(&self, place: Place, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        let _quiet = Quiet::start(&self.unit().quiet);
        self.admit(StatementKind::Select, place)?;
        self.wrote.set(true);
        self.send(place, Road::Typed, f)
    }

    /// Writes what waits. Nothing is sent where nothing does.
    pub(crate) fn flush(&self, place: Place) -> Result<()> {
        let Some(unit) = self.known_unit() else { return Ok(()) };
        if let Some(error) = unit.guard() {
            return Err(error);
        }
        if !unit.has_work() {
            return Ok(());
        }
        let mut action = self.decide(Operation::Statement)?;
        if self.watched.get() {
            if unit.asking.get() {
                return Err(Error::Reentrant);
            }
            {
                // What they ask of the database does not flush.
                let _quiet = Quiet::start(&unit.quiet);
                let _asking = Asking::start(&unit.asking);
                self.ask_listeners(|listener, session| listener.before_flush(session))?;
            }
            if let Some(error) = unit.guard() {
                return Err(error);
            }
            action = self.decide(Operation::Statement)?;
        }
        self.wrote.set(true);
        if action == Action::Begin {
            self.begin_now(place, 1)?;
            self.decide(Operation::Statement)?;
        }
        let flushing = Flushing::start(self, place);
        let sent = unit.send(self, place);
        self.origin.check()?;
        if let Err(error) = sent {
            unit.revert();
            drop(flushing.well());
            if !self.has(Situation::Failed) && !self.has(Situation::Lost) {
                self.fail(Cause::new(Reason::Refused(Arc::new(error.clone())), place));
            }
            return Err(error);
        }
        if self.watched.get()
            && let Some(session) = self.handle()
        {
            self.tell(|listener| listener.after_flush(&session));
        }
        let mut changes = self.changes();
        unit.settle(&mut changes);
        drop(flushing.well());
        self.tell_transitions(changes);
        if self.watched.get() {
            self.ask_listeners(|listener, session| {
                listener.after_flush_postexec(session);
                Ok(())
            })?;
        }
        // Rows that refer to each other: the second half of the ring.
        if unit.make_connections()? { self.flush(place) } else { Ok(()) }
    }

    /// Why nothing of the frame can be stored, when its flush failed.
    pub(super) fn doom_by(&self, error: Error, place: Place) -> Cause {
        if self.has(Situation::Failed) || self.has(Situation::Lost) {
            self.doom()
        } else {
            Cause::new(Reason::Refused(Arc::new(error)), place)
        }
    }

    /// A commit that would write is refused while a guard holds a change back.
    pub(super) fn refuse_guards(&self, action: Action) -> Result<()> {
        match self.known_unit().and_then(UnitOfWork::guard) {
            Some(error) if matches!(action, Action::EndIdle | Action::Commit) => Err(error),
            _ => Ok(()),
        }
    }

    /// A statement of a running flush.
    pub(crate) fn flushed<R>(&self, place: Place, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        if self.is_bounded.get() {
            self.keep_time(place)?;
        }
        self.show_statement(place);
        self.send(place, Road::Typed, f)
    }

    /// Reads rows of entities by their keys; writes nothing first.
    pub(crate) fn entity_query<R>(&self, place: Place, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        let unit = self.unit();
        let _quiet = Quiet::start(&unit.quiet);
        self.run(|| StatementKind::Select, place, f)
    }

    /// Lends the connection to an entity's hook, in the middle of a flush.
    pub(crate) fn entity_hook(&self, place: Place, f: impl FnOnce(&mut C) -> Result<()>) -> Result<()> {
        let mut own_error = None;
        // It may change any row.
        self.unit().owner().next_epoch();
        let result = self.send(place, Road::Closure, |conn| {
            f(conn).map_err(|error| {
                own_error = Some(error);
                DieselError::RollbackTransaction
            })
        });
        match own_error {
            Some(error) => Err(error),
            None => result,
        }
    }

    /// Where changes go that listeners are told of, if there are any.
    pub(crate) fn changes(&self) -> Changes {
        Changes::new(self.watched.get())
    }

    pub(crate) fn tell_transitions(&self, changes: impl IntoIterator<Item = Change>) {
        if !self.watched.get() {
            return;
        }
        for change in changes {
            let transition = Transition::new(self.id, change);
            self.tell_over(|listener| listener.transition(&transition));
        }
    }

    pub(crate) fn tell_transition<T: Entity>(&self, node: &Rc<Node<T>>, from: ObjectState, to: ObjectState) {
        if self.watched.get() && from != to {
            self.tell_transitions([Change { node: node.erased(), from, to }]);
        }
    }

    /// The transaction is over.
    pub(super) fn end_entities(&self, outcome: Outcome) {
        let Some(unit) = self.known_unit() else { return };
        // Something of it may be stored all the same.
        let is_in_doubt = self.lost.borrow().as_ref().is_some_and(Cause::leaves_doubt);
        let outcome = if is_in_doubt { Outcome::Unknown } else { outcome };
        let mut changes = self.changes();
        match outcome {
            Outcome::Committed => unit.committed(&mut changes),
            Outcome::RolledBack => unit.rolled_back(&mut changes),
            // Nobody knows what is stored, so nothing that is known can be trusted.
            Outcome::Unknown => unit.forget(&mut changes),
        }
        self.tell_transitions(changes);
    }

    /// A savepoint was rolled back.
    pub(super) fn undo_entities(&self, n: usize) {
        if let (Some(unit), Ok(level)) = (self.known_unit(), u32::try_from(n)) {
            let mut changes = self.changes();
            unit.roll_back_to(level, &mut changes);
            self.tell_transitions(changes);
        }
    }

    pub(super) fn close_entities(&self) {
        if let Some(unit) = self.known_unit() {
            unit.close();
        }
    }
}

impl<C: SessionConnection> Ops for Core<C> {
    fn may_change(&self, place: Place) -> Result<()> {
        Self::may_change(self, place)
    }

    fn reload(&self, node: Rc<dyn AnyNode>, place: Place) -> Result<()> {
        self.unit().looked_up(place, node.entity_name());
        self.unit().reload(self, node, place)
    }

    fn flush(&self, place: Place) -> Result<()> {
        self.settle_savepoints();
        self.decide(Operation::Statement)?;
        if self.unit().quiet.get() > 0 {
            return Ok(());
        }
        Self::flush(self, place)
    }

    fn changed(&self, node: Rc<dyn AnyNode>) {
        self.unit().changed(node);
    }

    fn touch(&self, node: &Rc<dyn AnyNode>) {
        self.unit().touch(node);
    }
}

/// A flush is running; ends with the call, whatever way that ends.
struct Flushing<'a, C: SessionConnection> {
    core: &'a Core<C>,
    place: Place,
    went_well: bool,
}

impl<'a, C: SessionConnection> Flushing<'a, C> {
    fn start(core: &'a Core<C>, place: Place) -> Self {
        core.set(Situation::Flushing, true);
        Self { core, place, went_well: false }
    }

    fn well(mut self) -> Self {
        self.went_well = true;
        self
    }
}

impl<C: SessionConnection> Drop for Flushing<'_, C> {
    fn drop(&mut self) {
        self.core.set(Situation::Flushing, false);
        if !self.went_well {
            // A panic in a hook or in a closure that makes a record.
            if let Some(unit) = self.core.known_unit() {
                unit.revert();
            }
            self.core.fail(Cause::new(Reason::Panicked, self.place));
        }
        self.core.settle();
    }
}

/// Listeners are asked about a flush; ends with the call, whatever way that ends.
struct Asking<'a>(&'a Cell<bool>);

impl<'a> Asking<'a> {
    fn start(asking: &'a Cell<bool>) -> Self {
        asking.set(true);
        Self(asking)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Queries don't flush first; ends with the call, whatever way that ends.
pub(crate) struct Quiet<'a>(&'a Cell<usize>);

impl<'a> Quiet<'a> {
    pub(crate) fn start(quiet: &'a Cell<usize>) -> Self {
        quiet.set(quiet.get() + 1);
        Self(quiet)
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
