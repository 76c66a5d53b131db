//! Rows that are there: from the identity map, or read.

use std::panic::Location;
use std::rc::Rc;

use diesel::dsl::Limit;
use diesel::query_builder::AsQuery;
use diesel::query_dsl::methods::{LimitDsl, LoadQuery};
use diesel::result::Error as DieselError;

use crate::backend::SessionConnection;
use crate::entity::{Entity, Persist, RowLock};
use crate::error::{Error, Failure, Result};
use crate::place::Place;
use crate::session::Session;
use crate::session::first::First;
use crate::session::query::kind_of;
use crate::unit_of_work::{AnyNode, Node, ObjectState, Table, TableUnit, Tracked};

impl<C: SessionConnection> Session<C> {
    /// The entity with this key: from the identity map, without I/O, if it is there and not stale; else one SELECT, before
    /// which whatever waits is flushed. `None` if there is no such row.
    ///
    /// # Errors
    /// As [`load`](Session::load) and [`flush`](Session::flush).
    #[track_caller]
    pub fn get<T: Entity>(&self, key: impl Into<T::Key>) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        self.get_at(&key.into(), Location::caller())
    }

    /// [`get`](Session::get) for a row that must be there.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if it is not; else as [`get`](Session::get).
    #[track_caller]
    pub fn get_one<T: Entity>(&self, key: impl Into<T::Key>) -> Result<Tracked<T>>
    where
        C: Persist<T>,
    {
        let place = Location::caller();
        let not_found = || Error::Statement(Failure::new::<C>(DieselError::NotFound, place));
        self.get_at(&key.into(), place)?.ok_or_else(not_found)
    }

    pub(super) fn get_at<T: Entity>(&self, key: &T::Key, place: Place) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.may_read()?;
        let table = core.unit().table::<T>();
        if let Some(node) = table.get(key)
            && !node.is_stale()
        {
            return Ok(Some(Tracked::of(node)));
        }
        core.unit().looked_up(place, std::any::type_name::<T>());
        if core.unit().wants_a_look() {
            core.autoflush(place)?;
        }
        let row = core.entity_query(place, |conn| conn.load_by_key(key))?;
        self.fetched(&table, key, row)
    }

    /// The row with this key, read and locked until the transaction ends; always one SELECT, before which whatever waits is
    /// flushed. With [`skip_locked`](RowLock::skip_locked) a row that somebody else holds is a `None`.
    ///
    /// # Errors
    /// [`Error::NoTransaction`] in autocommit mode, where a lock would end at once; else as [`get`](Session::get).
    #[track_caller]
    pub fn get_for_update<T: Entity>(&self, key: impl Into<T::Key>, lock: RowLock) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        self.core().may_lock()?;
        self.fetch(&key.into(), Some(lock), Location::caller())
    }

    /// Reads a row by its key, whatever is known of it.
    pub(super) fn fetch<T: Entity>(
        &self,
        key: &T::Key,
        lock: Option<RowLock>,
        place: Place,
    ) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.autoflush(place)?;
        let row = core.entity_query(place, |conn| conn.load_by_keys(std::slice::from_ref(key), lock))?.pop();
        if row.is_none() && lock.is_some_and(RowLock::skips) {
            return Ok(None);
        }
        self.fetched(&core.unit().table::<T>(), key, row)
    }

    /// Takes over what the database holds of a row.
    fn fetched<T: Entity>(&self, table: &TableUnit<T, C>, key: &T::Key, row: Option<T>) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        match row {
            Some(row) => self.intern_in(table, row).map(Some),
            None => {
                if let Some(node) = table.get(key) {
                    self.evict(&node);
                }
                Ok(None)
            }
        }
    }

    /// The entities with these keys, in their order; keys without a row are left out. Those that are in the identity map and
    /// not stale cost nothing, the others one SELECT together.
    ///
    /// # Errors
    /// As [`get`](Session::get).
    #[track_caller]
    pub fn get_many<T: Entity, K: Into<T::Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let place = Location::caller();
        let core = self.core();
        core.may_read()?;
        let keys: Vec<T::Key> = keys.into_iter().map(Into::into).collect();
        self.many_at(&keys, place)
    }

    /// Every row of a query, tracked: the query's rows are whole `T`s (`User::as_select()`). A row that is in the identity
    /// map already is the same handle; a clean entity takes the new values, one with changes of its own keeps them. Entities
    /// that nobody holds leave the map by themselves, so a long loop does not grow.
    ///
    /// **[`load`](Session::load) gives plain structs, which nobody tracks**: what is changed in those is never saved.
    ///
    /// # Errors
    /// As [`load`](Session::load) and [`flush`](Session::flush); [`Error::StaleData`] where an entity with changes has
    /// another version in the database.
    #[track_caller]
    pub fn load_tracked<'q, T: Entity>(&self, query: impl LoadQuery<'q, C, T>) -> Result<Vec<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let place = Location::caller();
        let kind = kind_of(&query);
        let rows: Vec<T> = self.core().run(kind, place, |conn| query.internal_load(conn)?.collect())?;
        let table = self.core().unit().table::<T>();
        table.expect_more(rows.len());
        rows.into_iter().map(|row| self.intern_in(&table, row)).collect()
    }

    /// The first row of a query, tracked: [`load_tracked`](Session::load_tracked) with `LIMIT 1`, for rows that are found by
    /// something else than their key.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is none ([`optional`](crate::OptionalExt::optional) makes it a `None`); else as
    /// [`load_tracked`](Session::load_tracked).
    #[track_caller]
    pub fn first_tracked<'q, T: Entity, Q>(&self, query: Q) -> Result<Tracked<T>>
    where
        Q: AsQuery,
        Q::Query: LimitDsl,
        First<Q::Query, Limit<Q::Query>>: LoadQuery<'q, C, T>,
        C: Persist<T>,
    {
        let row = self.first_at(query, Location::caller())?;
        self.intern(row)
    }

    pub(in crate::session) fn intern<T: Entity>(&self, row: T) -> Result<Tracked<T>>
    where
        C: Persist<T>,
    {
        self.intern_in(&self.core().unit().table::<T>(), row)
    }

    fn intern_in<T: Entity>(&self, table: &TableUnit<T, C>, row: T) -> Result<Tracked<T>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        let (node, is_new) = core.noted(table.intern(row))?;
        if core.is_autocommit() {
            // Every statement was a transaction of its own.
            node.make_stale();
        }
        if is_new {
            core.tell_transition(&node, ObjectState::Transient, ObjectState::Persistent);
        }
        Ok(Tracked::of(node))
    }

    pub(super) fn evict<T: Entity>(&self, node: &Rc<Node<T>>)
    where
        C: Persist<T>,
    {
        let core = self.core();
        let from = AnyNode::state(&**node);
        core.unit().unlist(&node.erased());
        core.unit().table::<T>().remove(node);
        node.detach();
        core.tell_transition(node, from, ObjectState::Detached);
    }

    /// Reads an entity's row anew, over changes that were not written: they are lost. One SELECT.
    ///
    /// # Errors
    /// [`Error::RowGone`] if there is no such row any more; [`Error::WriteGuardAlive`] while a guard of it lives;
    /// [`Error::ForeignHandle`], [`Error::Detached`], [`Error::NotPersistent`] if it is not tracked.
    #[track_caller]
    pub fn refresh<T: Entity>(&self, tracked: &Tracked<T>) -> Result<()>
    where
        C: Persist<T>,
    {
        self.refresh_at(tracked, None, Location::caller())
    }

    /// [`refresh`](Session::refresh) with a lock on the row until the transaction ends.
    ///
    /// # Errors
    /// As [`refresh`](Session::refresh); [`Error::NoTransaction`] in autocommit mode.
    #[track_caller]
    pub fn refresh_for_update<T: Entity>(&self, tracked: &Tracked<T>, lock: RowLock) -> Result<()>
    where
        C: Persist<T>,
    {
        self.core().may_lock()?;
        self.refresh_at(tracked, Some(lock), Location::caller())
    }

    pub(super) fn refresh_at<T: Entity>(&self, tracked: &Tracked<T>, lock: Option<RowLock>, place: Place) -> Result<()>
    where
        C: Persist<T>,
    {
        let core = self.core();
        // A session that can't read keeps the changes.
        core.may_read()?;
        self.expire(tracked)?;
        core.autoflush(place)?;
        // The flush may have deleted it; a rollback can still bring it back, so it is not forgotten.
        self.persistent(tracked.node())?;
        core.unit().table::<T>().reload(core, vec![tracked.node().erased()], lock, place)?;
        if core.is_autocommit() {
            tracked.node().make_stale();
        }
        Ok(())
    }

    /// Reads every stale entity that somebody holds anew: one SELECT a table. What is gone is detached.
    ///
    /// # Errors
    /// As [`load`](Session::load) and [`flush`](Session::flush).
    #[track_caller]
    pub fn refresh_all(&self) -> Result<()> {
        let place = Location::caller();
        let core = self.core();
        core.may_read()?;
        core.autoflush(place)?;
        let Some(unit) = core.known_unit() else { return Ok(()) };
        for table in unit.tables() {
            let stale = table.stale();
            if stale.is_empty() {
                continue;
            }
            match table.reload(core, stale, None, place) {
                Err(Error::RowGone { .. }) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Forgets an entity's changes that were not written, and makes it stale: `get` and [`write`](Tracked::write) read it
    /// anew. No I/O.
    ///
    /// # Errors
    /// [`Error::ForeignHandle`], [`Error::Detached`], [`Error::NotPersistent`] if it is not tracked, [`Error::Pending`] if it
    /// has no row yet; [`Error::WriteGuardAlive`] while a guard of it lives.
    pub fn expire<T: Entity>(&self, tracked: &Tracked<T>) -> Result<()>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.may_forget()?;
        let node = self.persistent(self.own(tracked)?)?;
        if let Some(error) = node.guard() {
            return Err(error);
        }
        if node.is_dirty() {
            core.unit().undirty(&node.erased());
            node.drop_changes();
        }
        node.make_stale();
        Ok(())
    }

    /// [`expire`](Session::expire) for every entity: changes that were not written are lost.
    ///
    /// # Errors
    /// [`Error::WriteGuardAlive`] while a guard lives; [`Error::Reentrant`] inside a flush.
    pub fn expire_all(&self) -> Result<()> {
        let core = self.core();
        core.may_forget()?;
        let Some(unit) = core.known_unit() else { return Ok(()) };
        if let Some(error) = unit.guard() {
            return Err(error);
        }
        unit.expire_all();
        Ok(())
    }

    pub(in crate::session) fn many_at<T: Entity>(&self, keys: &[T::Key], place: Place) -> Result<Vec<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        let table = core.unit().table::<T>();
        let mut missing: Vec<T::Key> =
            keys.iter().filter(|key| table.get(key).is_none_or(|node| node.is_stale())).cloned().collect();
        missing.sort_unstable();
        missing.dedup();
        // Held until they are given out, because the map does not hold them.
        let mut read = std::collections::HashMap::new();
        if !missing.is_empty() {
            core.autoflush(place)?;
            for row in core.entity_query(place, |conn| conn.load_by_keys(&missing, None))? {
                let key = row.key();
                read.insert(key, self.intern(row)?);
            }
            for key in missing.iter().filter(|key| !read.contains_key(*key)) {
                if let Some(node) = table.get(key) {
                    self.evict(&node);
                }
            }
        }
        let known = |key: &T::Key| read.get(key).cloned().or_else(|| table.get(key).map(Tracked::of));
        Ok(keys.iter().filter_map(known).collect())
    }
}
