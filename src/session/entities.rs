//! Entities on a session: add, get, change, delete, flush.

use std::panic::Location;
use std::rc::Rc;

use diesel::dsl::Limit;
use diesel::query_builder::{AsChangeset, AsQuery, QueryFragment};
use diesel::query_dsl::methods::{LimitDsl, LoadQuery};
use diesel::result::Error as DieselError;

use super::Session;
use super::core::Quiet;
use super::first::First;
use super::query::kind_of;
use crate::backend::SessionConnection;
use crate::entity::{Entity, Insert, Persist, Record, RowLock};
use crate::error::{Error, Failure, Result};
use crate::place::Place;
use crate::unit_of_work::{AnyNode, Make, Node, ObjectState, Parents, Table, Tracked, UnitOfWork};

impl<C: SessionConnection> Session<C> {
    // ---- new rows ----

    /// Adds a row that the next flush inserts: until then it is pending. No I/O.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoTransaction`] where the session can't write; else as [`flush`](Session::flush)
    /// where nothing is sent.
    #[track_caller]
    pub fn add<N: Record>(&self, record: N) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        self.add_at(Make::Ready(record), 0, Location::caller())
    }

    /// [`add`](Session::add) for many.
    ///
    /// # Errors
    /// As [`add`](Session::add).
    #[track_caller]
    pub fn add_all<N: Record>(&self, records: impl IntoIterator<Item = N>) -> Result<Vec<Tracked<N::Entity>>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let place = Location::caller();
        records.into_iter().map(|record| self.add_at(Make::Ready(record), 0, place)).collect()
    }

    /// Adds a row that is made of its parents: one handle or a tuple of them, which may themselves be pending. `make` runs in
    /// the flush, when they have their keys; it can't use the session ([`Error::Reentrant`]).
    ///
    /// # Errors
    /// As [`add`](Session::add); [`Error::ForeignHandle`] for a parent of another session.
    ///
    /// # Examples
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/models.rs"));
    /// # fn main() -> Result<()> {
    /// # let session = session()?;
    /// let bob = session.add(NewUser { nickname: "bob".into(), email: None })?;
    /// let post = session.add_with(&bob, |bob| NewPost { user_id: bob.id, title: "first".into() })?;
    /// session.flush()?; // INSERT users, INSERT posts
    /// assert_eq!(post.read()?.user_id, bob.id()?);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn add_with<P: Parents, N: Record>(
        &self,
        parents: P,
        make: impl FnOnce(P::Values<'_>) -> N + 'static,
    ) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let place = Location::caller();
        let mut level = 0;
        let mut tables = Vec::new();
        let mut foreign = None;
        parents.each(&mut |parent| {
            if parent.session != self.id() {
                foreign = Some(parent.session);
            }
            level = level.max(parent.level.map_or(0, |above| above + 1));
            tables.push(parent.table);
        });
        if let Some(session) = foreign {
            return Err(Error::ForeignHandle { entity: "parent", session });
        }
        let handles = parents.handles();
        let make = Make::Later(Box::new(move || P::with(&handles, make)));
        let added = self.add_at(make, level, place)?;
        self.core().unit().link(tables, N::Entity::table());
        Ok(added)
    }

    pub(super) fn add_at<N: Record>(&self, make: Make<N>, level: u32, place: Place) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let core = self.core();
        core.may_change(place)?;
        let node = core.unit().add(make, level);
        core.tell_transition(&node, ObjectState::Transient, ObjectState::Pending);
        Ok(Tracked::of(node))
    }

    /// Changes one entity by the key of another, where rows refer to each other in a ring and no order of inserts would do: the
    /// column that may be NULL is inserted as NULL, and the flush that inserts the rows sends the UPDATE that fills it (as
    /// SQLAlchemy's `post_update`). Where both are rows already it is a change like any other.
    ///
    /// # Errors
    /// As [`write`](Tracked::write); [`Error::ForeignHandle`] for an entity of another session.
    #[track_caller]
    pub fn connect<A: Entity, B: Entity>(
        &self,
        from: &Tracked<A>,
        to: &Tracked<B>,
        change: impl FnOnce(&mut A, &B) + 'static,
    ) -> Result<()> {
        self.core().may_change(Location::caller())?;
        self.own(from)?;
        self.own(to)?;
        if from.state() != ObjectState::Pending && to.state() != ObjectState::Pending {
            let to = to.row()?;
            return from.update(|from| change(from, &to));
        }
        let (from, to) = (from.clone(), to.clone());
        self.core().unit().connect(Box::new(move || {
            let to = to.row()?;
            from.update(|from| change(from, &to))
        }));
        Ok(())
    }

    /// Inserts a row at once, after whatever waits: one statement.
    ///
    /// # Errors
    /// As [`flush`](Session::flush).
    #[track_caller]
    pub fn insert_now<N: Record>(&self, record: N) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let place = Location::caller();
        let added = self.add_at(Make::Ready(record), 0, place)?;
        self.core().flush_now(place)?;
        Ok(added)
    }

    /// The row with this key; if there is none, one that `make` gives is inserted. Two sessions that do this at once
    /// get the same row: the INSERT runs in a savepoint, and if somebody was faster their row is read.
    ///
    /// # Errors
    /// As [`get`](Session::get) and [`flush`](Session::flush).
    #[track_caller]
    pub fn get_or_add<N: Record>(
        &self,
        key: impl Into<<N::Entity as Entity>::Key>,
        make: impl FnOnce() -> N,
    ) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let (key, place) = (key.into(), Location::caller());
        if let Some(found) = self.get_at(&key, place)? {
            return Ok(found);
        }
        let inserted: Result<_> = self.nested_at(place, |session| {
            let added = session.add_at(Make::Ready(make()), 0, place)?;
            session.core().flush_now(place)?;
            Ok(added)
        });
        match inserted {
            Err(error) if error.is_unique_violation() => {
                // On REPEATABLE READ the other's row is not in this snapshot: a locking read sees it (MySQL).
                self.fetch::<N::Entity>(&key, Some(RowLock::share()), place)?.ok_or(error)
            }
            other => other,
        }
    }

    // ---- rows that exist ----

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

    fn get_at<T: Entity>(&self, key: &T::Key, place: Place) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.may_read()?;
        if let Some(node) = core.unit().table::<T>().get(key)
            && !node.is_stale()
        {
            return Ok(Some(Tracked::of(node)));
        }
        core.unit().looked_up(place, std::any::type_name::<T>());
        self.fetch(key, None, place)
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
    fn fetch<T: Entity>(&self, key: &T::Key, lock: Option<RowLock>, place: Place) -> Result<Option<Tracked<T>>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        core.autoflush(place)?;
        let rows = core.entity_query(place, |conn| conn.load_by_keys(std::slice::from_ref(key), lock))?;
        match rows.into_iter().next() {
            Some(row) => self.intern(row).map(Some),
            None => {
                if lock.is_none_or(|lock| !lock.skips())
                    && let Some(node) = core.unit().table::<T>().get(key)
                {
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

    pub(super) fn many_at<T: Entity>(&self, keys: &[T::Key], place: Place) -> Result<Vec<Tracked<T>>>
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
        rows.into_iter().map(|row| self.intern(row)).collect()
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

    pub(super) fn intern<T: Entity>(&self, row: T) -> Result<Tracked<T>>
    where
        C: Persist<T>,
    {
        let core = self.core();
        let (node, change) = core.noted(core.unit().table::<T>().intern(row))?;
        if core.is_autocommit() {
            // Every statement was a transaction of its own.
            node.make_stale();
        }
        core.tell_transitions(change.into_iter().collect());
        Ok(Tracked::of(node))
    }

    fn evict<T: Entity>(&self, node: &Rc<Node<T>>)
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

    #[track_caller]
    pub(super) fn take_over<T: Entity>(&self, tracked: Tracked<T>, value: T) -> Result<Tracked<T>> {
        let known = tracked.row()?.version();
        if value.version() != known {
            let keys = vec![format!("{:?}", value.key())];
            return self.core().noted(Err(Error::StaleData { table: T::TABLE, expected: 1, matched: 0, keys }));
        }
        *tracked.write()? = value;
        Ok(tracked)
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
            let changes = unit.expunge_all();
            core.tell_transitions(changes);
        }
        Ok(())
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

    fn refresh_at<T: Entity>(&self, tracked: &Tracked<T>, lock: Option<RowLock>, place: Place) -> Result<()>
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

    // ---- the unit of work ----

    /// Writes everything that waits, in an order that the keys between tables allow: for each table first changed rows, then
    /// new ones, many in a statement; then deletes, the other way round. One statement for each table and kind of change and,
    /// of changed rows, set of columns; a few where there are more rows than one statement takes (on SQLite also where there
    /// are fewer than 32, which go in statements of 16, 4 and 1 rows that are kept prepared). Nothing where nothing waits. Every count of rows is checked.
    ///
    /// Queries through the session flush first, and so do `commit` and `begin_nested`.
    ///
    /// # Errors
    /// What the database answered. [`Error::StaleData`] where rows were not as the session knew them. Either fails the
    /// frame: `rollback()` undoes it, and until then everything that waited still does. [`Error::WriteGuardAlive`] while a
    /// guard lives: nothing is sent.
    #[track_caller]
    pub fn flush(&self) -> Result<()> {
        self.core().flush_now(Location::caller())
    }

    /// Runs `f`, in which queries don't flush first: for objects that are not whole yet. `commit`, `flush` and `begin_nested`
    /// do flush.
    pub fn no_autoflush<R>(&self, f: impl FnOnce() -> R) -> R {
        let _quiet = Quiet::start(&self.core().unit().quiet);
        f()
    }

    /// Whether the next flush would write something for this entity: it is pending, differs from its row, or is to be deleted.
    /// No I/O.
    #[must_use]
    pub fn is_modified<T: Entity>(&self, tracked: &Tracked<T>) -> bool {
        let node = tracked.node();
        self.contains(tracked) && (tracked.state() == ObjectState::Pending || node.is_marked() || differs(node))
    }

    /// Whether the entity is this session's: pending or persistent.
    #[must_use]
    pub fn contains<T: Entity>(&self, tracked: &Tracked<T>) -> bool {
        tracked.session_id() == self.id() && matches!(tracked.state(), ObjectState::Pending | ObjectState::Persistent)
    }

    /// The pending entities of this type, in the order of `add` (SQLAlchemy's `new`).
    #[must_use]
    pub fn new_entities<T: Entity>(&self) -> Vec<Tracked<T>> {
        typed(self.core().known_unit().map(UnitOfWork::new_nodes))
    }

    /// The entities of this type that differ from their rows (SQLAlchemy's `dirty`).
    #[must_use]
    pub fn dirty_entities<T: Entity>(&self) -> Vec<Tracked<T>> {
        let changed: Vec<Tracked<T>> = typed(self.core().known_unit().map(UnitOfWork::dirty_nodes));
        changed.into_iter().filter(|tracked| !tracked.node().is_marked() && differs(tracked.node())).collect()
    }

    /// The entities of this type that the next flush deletes (SQLAlchemy's `deleted`).
    #[must_use]
    pub fn deleted_entities<T: Entity>(&self) -> Vec<Tracked<T>> {
        typed(self.core().known_unit().map(UnitOfWork::marked_nodes))
    }

    /// Whether a flush would have anything to write.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.core().known_unit().is_some_and(UnitOfWork::has_work)
    }

    /// The entities of this type that are in the identity map because somebody holds them.
    #[must_use]
    pub fn tracked<T: Entity>(&self) -> Vec<Tracked<T>>
    where
        C: Persist<T>,
    {
        match self.core().known_unit() {
            Some(unit) => unit.table::<T>().live().into_iter().map(Tracked::of).collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn own<'a, T: Entity>(&self, tracked: &'a Tracked<T>) -> Result<&'a Rc<Node<T>>> {
        if tracked.session_id() == self.id() {
            Ok(tracked.node())
        } else {
            Err(Error::ForeignHandle { entity: std::any::type_name::<T>(), session: tracked.session_id() })
        }
    }

    fn persistent<'a, T: Entity>(&self, node: &'a Rc<Node<T>>) -> Result<&'a Rc<Node<T>>> {
        let entity = std::any::type_name::<T>();
        match AnyNode::state(&**node) {
            ObjectState::Persistent => Ok(node),
            ObjectState::Pending => Err(Error::Pending { entity }),
            ObjectState::Transient => Err(Error::NotPersistent { entity }),
            ObjectState::Deleted | ObjectState::Detached => Err(Error::Detached { entity }),
        }
    }
}

/// Whether the value is not the row's: one that was changed back is not.
fn differs<T: Entity>(node: &Node<T>) -> bool {
    node.base().zip(node.value()).is_some_and(|(base, value)| !value.diff(&base).is_empty())
}

fn typed<T: Entity>(nodes: Option<Vec<Rc<dyn AnyNode>>>) -> Vec<Tracked<T>> {
    let nodes = nodes.into_iter().flatten();
    nodes.filter_map(|node| Rc::downcast::<Node<T>>(node.into_any()).ok()).map(Tracked::of).collect()
}
