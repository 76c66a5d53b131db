//! Changed, taken over, deleted, let go.

use std::panic::Location;

use diesel::query_builder::{AsChangeset, QueryFragment};

use diesel::result::Error as DieselError;

use crate::backend::SessionConnection;
use crate::entity::{Entity, Insert, Persist, Record};
use crate::error::{Error, Failure, Result};
use crate::session::Session;
use crate::unit_of_work::{Make, ObjectState, Tracked};

impl<C: SessionConnection> Session<C> {
    /// Takes over the values of a detached or foreign `value`: onto the entity with its key, which is read if need be, or as a
    /// new pending one if there is no such row. The next flush writes the columns that differ.
    ///
    /// # Errors
    /// [`Error::StaleData`] if `value` has another version than the row; else as [`get`](Session::get) and
    /// [`write`](Tracked::write).
    #[track_caller]
    pub fn merge<T: Record<Entity = T> + Entity>(&self, value: T) -> Result<Tracked<T>>
    where
        C: Insert<T> + Persist<T>,
    {
        let place = Location::caller();
        self.core().may_change(place)?;
        match self.get_at(&value.key(), place)? {
            Some(tracked) => self.take_over(tracked, value),
            None => self.add_at(Make::Ready(value), 0, place),
        }
    }

    /// [`merge`](Session::merge) for a row that must be there.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if it is not; else as [`merge`](Session::merge).
    #[track_caller]
    pub fn merge_existing<T: Entity>(&self, value: T) -> Result<Tracked<T>>
    where
        C: Persist<T>,
    {
        let place = Location::caller();
        self.core().may_change(place)?;
        let not_found = || Error::Statement(Failure::new::<C>(DieselError::NotFound, place));
        let tracked = self.get_at(&value.key(), place)?.ok_or_else(not_found)?;
        self.take_over(tracked, value)
    }

    /// Writes Diesel's `AsChangeset` to the row of an entity, at once: for handlers that get what to change as a struct of
    /// `Option`s. Whatever waits is flushed first; one UPDATE, and one SELECT for the entity's new values (one more before it
    /// where the entity is stale). It can't change the key.
    ///
    /// # Errors
    /// [`Error::StaleData`] if the row has another version than the entity; [`Error::RowGone`] if there is none any more; else as
    /// [`execute`](Session::execute).
    #[track_caller]
    pub fn apply<T, U>(&self, tracked: &Tracked<T>, changes: U) -> Result<()>
    where
        T: Entity,
        C: Persist<T>,
        U: AsChangeset,
        U::Changeset: QueryFragment<C::Backend>,
    {
        let place = Location::caller();
        let node = self.own(tracked)?;
        self.core().may_change(place)?;
        self.core().flush_now(place)?;
        let core = self.core();
        if self.persistent(node)?.is_stale() {
            core.unit().reload(core, node.erased(), place)?;
        }
        let Some((key, version)) = node.look(|row| (row.key(), row.version())) else { return Ok(()) };
        let changeset = changes.as_changeset();
        let matched = core.entity_statement(place, |conn| conn.apply(&key, version, &changeset))?;
        if matched == 0 {
            let key_text = format!("{key:?}");
            // Gone, or there in another version?
            core.unit().reload(core, node.erased(), place)?;
            return Err(Error::StaleData { table: T::TABLE, expected: 1, matched, keys: vec![key_text] });
        }
        core.unit().make_others_stale::<T>();
        if node.remember(core.unit().level()) {
            core.unit().touch(&node.erased());
        }
        core.unit().reload(core, node.erased(), place)
    }

    /// Marks an entity to be deleted by the next flush; a pending one is expunged. No I/O.
    ///
    /// # Errors
    /// [`Error::ForeignHandle`], [`Error::Detached`], [`Error::NotPersistent`]; [`Error::WriteGuardAlive`] while a guard
    /// of it lives; [`Error::ReadOnly`], [`Error::NoTransaction`] where the session can't write.
    #[track_caller]
    pub fn delete<T: Entity>(&self, tracked: &Tracked<T>) -> Result<()>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.may_change(Location::caller())?;
        let node = self.own(tracked)?;
        if tracked.state() == ObjectState::Pending {
            return self.expunge(tracked);
        }
        self.persistent(node)?;
        if let Some(error) = node.guard() {
            return Err(error);
        }
        if !node.is_marked() {
            if node.remember(core.unit().level()) {
                core.unit().touch(&node.erased());
            }
            node.set_marked(true);
            core.unit().mark(node.erased());
        }
        Ok(())
    }

    /// Takes back a [`delete`](Session::delete) that was not flushed.
    ///
    /// # Errors
    /// As [`delete`](Session::delete).
    #[track_caller]
    pub fn undelete<T: Entity>(&self, tracked: &Tracked<T>) -> Result<()>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.may_change(Location::caller())?;
        let node = self.persistent(self.own(tracked)?)?;
        node.set_marked(false);
        core.unit().unmark(&node.erased());
        Ok(())
    }

    /// Forgets an entity, its unwritten changes too: a pending one is transient then, any other detached, for good: a rollback
    /// does not bring it back. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::ForeignHandle`]; [`Error::Detached`], [`Error::NotPersistent`] if it is not tracked;
    /// [`Error::WriteGuardAlive`] while a guard of it lives.
    pub fn expunge<T: Entity>(&self, tracked: &Tracked<T>) -> Result<()>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.may_forget()?;
        let node = self.own(tracked)?;
        if let Some(error) = node.guard() {
            return Err(error);
        }
        match tracked.state() {
            ObjectState::Pending => {
                core.unit().unlist_pending(&node.erased());
                core.tell_transition(node, ObjectState::Pending, ObjectState::Transient);
            }
            ObjectState::Persistent | ObjectState::Deleted => self.evict(node),
            _ => drop(self.persistent(node)?),
        }
        Ok(())
    }

    /// Forgets every entity: pending ones are transient then, all others detached. Nothing is sent; the transaction goes on.
    ///
    /// # Errors
    /// [`Error::Reentrant`] inside a flush.
    pub fn expunge_all(&self) -> Result<()> {
        let core = self.core();
        core.may_forget()?;
        if let Some(unit) = core.known_unit() {
            let mut changes = core.changes();
            unit.expunge_all(&mut changes);
            core.tell_transitions(changes);
        }
        Ok(())
    }

    #[track_caller]
    pub(in crate::session) fn take_over<T: Entity>(&self, tracked: Tracked<T>, value: T) -> Result<Tracked<T>> {
        let known = tracked.row()?.version();
        if value.version() != known {
            let keys = vec![format!("{:?}", value.key())];
            return self.core().noted(Err(Error::StaleData { table: T::TABLE, expected: 1, matched: 0, keys }));
        }
        *tracked.write()? = value;
        Ok(tracked)
    }
}
