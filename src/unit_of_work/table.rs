//! One entity on one session: its identity map, and what a flush does to rows that exist.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::rc::Rc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::IntoAny;
use super::changed::{Batch, Batches, Changed, keys_handed_on};
use super::changes::{Change, Changes};
use super::identity::IdentityMap;
use super::node::{AnyNode, Node, Owner};
use super::tracked::ObjectState;
use crate::backend::SessionConnection;
use crate::entity::{self, ColumnSet, Entity, Persist, Reference, RowLock, TableId};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::session::core::Core;

/// A table of any entity.
pub(crate) trait Table<C: SessionConnection>: IntoAny {
    fn entity(&self) -> TypeId;
    fn table(&self) -> TableId;
    fn depends_on(&self) -> Vec<TableId>;
    /// Reads rows anew; one that is gone is `RowGone`, and its node detached.
    fn reload(&self, core: &Core<C>, nodes: Vec<Rc<dyn AnyNode>>, lock: Option<RowLock>, place: Place) -> Result<()>;
    /// Every live node that is clean, persistent and stale.
    fn stale(&self) -> Vec<Rc<dyn AnyNode>>;
    /// Writes what changed in these nodes.
    fn update(&self, core: &Core<C>, nodes: Vec<Rc<dyn AnyNode>>, place: Place) -> Result<()>;
    /// Takes these nodes as those that this flush deletes.
    fn expect_deletes(&self, nodes: Vec<Rc<dyn AnyNode>>);
    /// Makes sure that the rows to delete are there where that is not known, before new ones may get their keys (SQLite gives
    /// keys again).
    fn check_deletes(&self, core: &Core<C>, place: Place) -> Result<()>;
    /// The rows to delete, for an order among them.
    fn deletes(&self) -> Vec<Doomed>;
    /// Deletes some of them, or all.
    fn delete(&self, core: &Core<C>, rows: Option<&[usize]>, place: Place) -> Result<()>;
    /// Sets columns of a row that will be deleted to NULL, so that another one can go first.
    fn cut(&self, core: &Core<C>, row: usize, columns: ColumnSet, place: Place) -> Result<()>;
    /// What the running flush did to rows that were there.
    fn wrote(&self) -> Wrote;
    fn make_stale(&self);
    /// The nodes that are to refer to one of these keys, and the others.
    fn referring(&self, nodes: Vec<Rc<dyn AnyNode>>, keys: &Keys) -> (AnyNodes, AnyNodes);
    /// The flush was good: nodes become what was written.
    fn settle(&self, changes: &mut Changes);
    /// The flush failed: nodes stay what they are.
    fn revert(&self);
    /// Undoes what was done since `level` began to these nodes, which are in the order of their first touch.
    fn undo(&self, nodes: Vec<Rc<dyn AnyNode>>, level: u32, changes: &mut Changes);
    /// Detaches every node.
    fn forget(&self, changes: &mut Changes);
    /// Keeps no more memory than the next session may need.
    fn rest(&self);
}

/// What a flush did to rows that were there, as far as others of the map may show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrote {
    Nothing,
    Values,
    /// Keys that foreign keys refer to: the database may have changed or deleted the rows that do.
    Keys,
}

/// A row to delete, as far as an order among them needs to know it.
pub(crate) struct Doomed {
    pub(crate) key: u64,
    pub(crate) references: Vec<Reference>,
}

/// A changed row in a running flush.
struct Written<T: Entity> {
    node: Rc<Node<T>>,
    /// What the flush has made of it.
    value: Rc<T>,
    /// Whether it has another key now.
    has_moved: bool,
}

type AnyNodes = Vec<Rc<dyn AnyNode>>;

/// Hashes of keys, by their tables.
pub(crate) type Keys = HashSet<(TableId, u64)>;

pub(crate) struct TableUnit<T: Entity, C> {
    owner: Rc<Owner>,
    map: RefCell<IdentityMap<T>>,
    updated: RefCell<Vec<Written<T>>>,
    /// To delete in the running flush; those that a record takes the place of leave.
    doomed: RefCell<Vec<Rc<Node<T>>>>,
    deleted: RefCell<Vec<Rc<Node<T>>>>,
    connection: PhantomData<fn() -> C>,
}

fn typed<T: Entity>(nodes: Vec<Rc<dyn AnyNode>>) -> impl Iterator<Item = Rc<Node<T>>> {
    nodes.into_iter().filter_map(|node| Rc::downcast::<Node<T>>(node.into_any()).ok())
}

impl<T: Entity, C: Persist<T>> TableUnit<T, C> {
    pub(crate) fn new(owner: Rc<Owner>) -> Self {
        Self {
            owner,
            map: RefCell::default(),
            updated: RefCell::default(),
            doomed: RefCell::default(),
            deleted: RefCell::default(),
            connection: PhantomData,
        }
    }

    pub(crate) fn get(&self, key: &T::Key) -> Option<Rc<Node<T>>> {
        self.map.borrow().get(key)
    }

    pub(crate) fn live(&self) -> Vec<Rc<Node<T>>> {
        self.map.borrow().live().collect()
    }

    /// The node of a row that was read: a clean one takes the new values, a changed one keeps its own. Says whether it is new.
    pub(crate) fn intern(&self, value: T) -> Result<(Rc<Node<T>>, bool)> {
        #[cfg(debug_assertions)]
        debug_assert!(super::identity::check_hash(&value), "`hash_key` and the key's own hash differ");
        let known = self.map.borrow().of(&value);
        let is_new = known.is_none();
        let node = match known {
            Some(node) => {
                self.overwrite(&node, value)?;
                node
            }
            None => {
                let node = Node::loaded(Rc::clone(&self.owner), value);
                self.map.borrow_mut().insert_new(&node);
                node
            }
        };
        self.was_read(&node);
        Ok((node, is_new))
    }

    /// So many rows are about to come.
    pub(crate) fn expect_more(&self, rows: usize) {
        self.map.borrow_mut().reserve(rows);
    }

    /// What a savepoint showed is not what holds after its rollback.
    fn was_read(&self, node: &Rc<Node<T>>) {
        if self.owner.level() > 0
            && let Some(ops) = self.owner.ops()
        {
            ops.touch(&node.erased());
        }
    }

    fn overwrite(&self, node: &Rc<Node<T>>, value: T) -> Result<()> {
        if let Some(error) = node.guard() {
            // Its copy is of the values that would be replaced.
            return Err(error);
        }
        if !node.is_dirty() {
            node.loaded_again(value);
            return Ok(());
        }
        let known = node.base().and_then(|base| base.version());
        if known != value.version() {
            return Err(self.stale_data(1, 0, vec![format!("{:?}", value.key())]));
        }
        Ok(())
    }

    fn stale_data(&self, expected: usize, matched: usize, keys: Vec<String>) -> Error {
        Error::StaleData { table: T::TABLE, expected, matched, keys }
    }

    /// Sends changes of the same columns, and checks that every row was there in the version that the session knows.
    pub(crate) fn write(
        &self,
        core: &Core<C>,
        rows: &[(Rc<T>, Rc<T>)],
        columns: ColumnSet,
        place: Place,
    ) -> Result<()> {
        let changes: SmallVec<[_; 1]> =
            rows.iter().map(|(old, new)| entity::Change { old: &**old, new: &**new }).collect();
        let matched = core.flushed(place, |conn| conn.update(&changes, columns))?;
        if matched != rows.len() {
            return Err(self.name_stale(core, rows, matched, place));
        }
        Ok(())
    }

    /// Which rows are not there any more, or not as they were.
    fn name_stale(&self, core: &Core<C>, rows: &[(Rc<T>, Rc<T>)], matched: usize, place: Place) -> Error {
        let expected = rows.len();
        let keys: Vec<_> = rows.iter().flat_map(|(old, new)| [old.key(), new.key()]).collect();
        let there = core.flushed(place, |conn| conn.load_by_keys(&keys, None)).unwrap_or_default();
        let there: HashMap<T::Key, T> = there.into_iter().map(|row| (row.key(), row)).collect();
        // Of a version only those that were written have the next one, and with it what was written.
        let is_good = |old: &T, new: &T| {
            let is = |row: &T| there.get(&row.key()).is_some_and(|there| there.version() == row.version());
            let is_written = there.get(&new.key()).is_some_and(|there| there.diff(new).is_empty());
            if old.version().is_some() { is_written || (is(old) && expected > 1) } else { is(old) || is(new) }
        };
        let stale = rows.iter().filter(|(old, new)| !is_good(old, new)).map(|(old, _)| format!("{:?}", old.key()));
        self.stale_data(expected, matched, stale.collect())
    }

    /// The row that a record with this key would take the place of.
    pub(crate) fn take_doomed(&self, key: &T::Key) -> Option<Rc<Node<T>>> {
        let mut doomed = self.doomed.borrow_mut();
        let position = doomed.iter().position(|node| node.base().is_some_and(|base| base.has_key(key)))?;
        Some(doomed.swap_remove(position))
    }

    pub(crate) fn has_doomed(&self) -> bool {
        !self.doomed.borrow().is_empty()
    }

    pub(crate) fn was_deleted(&self, node: Rc<Node<T>>) {
        self.deleted.borrow_mut().push(node);
    }

    pub(crate) fn delete_nodes(&self, core: &Core<C>, nodes: Vec<Rc<Node<T>>>, place: Place) -> Result<()> {
        let mut rows: Vec<_> = nodes.iter().filter_map(|node| node.base()).collect();
        rows.sort_by_cached_key(|row| row.key());
        if C::HAS_HOOKS {
            rows.iter().try_for_each(|row| core.entity_hook(place, |conn| conn.before_delete(row)))?;
        }
        let borrowed: Vec<&T> = rows.iter().map(|row| &**row).collect();
        let matched = core.flushed(place, |conn| conn.delete(&borrowed))?;
        if matched != rows.len() {
            return Err(self.name_undeleted(core, &rows, matched, place));
        }
        if C::HAS_HOOKS {
            rows.iter().try_for_each(|row| core.entity_hook(place, |conn| conn.after_delete(row)))?;
        }
        self.deleted.borrow_mut().extend(nodes);
        Ok(())
    }

    /// Of rows that could not be deleted those in another version are still there; where none is, they were gone before.
    fn name_undeleted(&self, core: &Core<C>, rows: &[Rc<T>], matched: usize, place: Place) -> Error {
        let keys: Vec<_> = rows.iter().map(|row| row.key()).collect();
        let there = core.flushed(place, |conn| conn.load_by_keys(&keys, None)).unwrap_or_default();
        let mut stale: Vec<_> = there.iter().map(|row| format!("{:?}", row.key())).collect();
        if stale.is_empty() && rows.len() == 1 {
            stale.extend(keys.iter().map(|key| format!("{key:?}")));
        }
        self.stale_data(rows.len(), matched, stale)
    }

    /// Puts the node of a new row in; one with the same key, whose row must be gone, leaves.
    pub(crate) fn put(&self, node: &Rc<Node<T>>, changes: &mut Changes) {
        let before = self.map.borrow_mut().insert(node);
        if let Some(before) = before {
            before.detach();
            changes.push(|| Change { node: before, from: ObjectState::Persistent, to: ObjectState::Detached });
        }
    }

    pub(crate) fn remove(&self, node: &Rc<Node<T>>) {
        if let Some(base) = node.base() {
            self.map.borrow_mut().take_under(&base, node);
        }
    }

    fn batches(&self, core: &Core<C>, rows: Vec<Changed<T>>, place: Place) -> Result<SmallVec<[Batch<T>; 1]>> {
        let mut batches = Batches::default();
        let count = rows.len();
        // No user code of this session runs while they are out.
        let mut updated = self.updated.take();
        updated.reserve(count);
        for Changed { node, base, mut value, mut columns } in rows {
            if C::HAS_HOOKS && !columns.is_empty() {
                let mut changed = T::clone(&value);
                core.entity_hook(place, |conn| conn.before_update(&mut changed))?;
                columns = changed.diff(&base);
                value = Rc::new(changed);
            }
            // A version of one's own making is not written.
            if let Some(column) = T::version_column() {
                columns = columns.without(ColumnSet::of(column));
            }
            if columns.is_empty() {
                updated.push(Written { node, value: base, has_moved: false });
                continue;
            }
            if let (Some(column), Some(version)) = (T::version_column(), base.version()) {
                let mut next = T::clone(&value);
                next.set_version(version.wrapping_add(1));
                value = Rc::new(next);
                columns = columns.with(column, true);
            }
            let changes_key = columns.meets(T::key_columns());
            let has_moved = changes_key && base.key() != value.key();
            updated.push(Written { node, value: Rc::clone(&value), has_moved });
            batches.add(columns, changes_key, (base, value), count);
        }
        self.updated.replace(updated);
        Ok(batches.list)
    }
}

impl<T: Entity, C: Persist<T>> Table<C> for TableUnit<T, C> {
    fn entity(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn table(&self) -> TableId {
        T::table()
    }

    fn depends_on(&self) -> Vec<TableId> {
        T::depends_on()
    }

    fn reload(&self, core: &Core<C>, nodes: Vec<Rc<dyn AnyNode>>, lock: Option<RowLock>, place: Place) -> Result<()> {
        let nodes: Vec<_> = typed::<T>(nodes).collect();
        // The key that the row has in the database, not one that it is to have.
        let keys: Vec<_> = nodes.iter().filter_map(|node| node.base().map(|base| base.key())).collect();
        let rows = core.entity_query(place, |conn| conn.load_by_keys(&keys, lock))?;
        let mut rows: HashMap<T::Key, T> = rows.into_iter().map(|row| (row.key(), row)).collect();
        let mut gone = None;
        for (node, key) in nodes.iter().zip(keys) {
            match rows.remove(&key) {
                Some(row) => {
                    // A changed key is not the row's any more.
                    node.drop_changes();
                    node.loaded_again(row);
                    self.was_read(node);
                }
                None => {
                    core.unit().unlist(&node.erased());
                    self.remove(node);
                    let from = node.state();
                    node.detach();
                    core.tell_transitions([Change { node: node.erased(), from, to: ObjectState::Detached }]);
                    gone.get_or_insert_with(|| Error::RowGone { table: T::TABLE, key: format!("{key:?}") });
                }
            }
        }
        gone.map_or(Ok(()), Err)
    }

    fn stale(&self) -> Vec<Rc<dyn AnyNode>> {
        let map = self.map.borrow();
        map.live().filter(|node| node.is_stale()).map(|node| node.erased()).collect()
    }

    fn update(&self, core: &Core<C>, nodes: Vec<Rc<dyn AnyNode>>, place: Place) -> Result<()> {
        let unmarked = typed::<T>(nodes).filter(|node| !node.is_marked());
        let mut rows: Vec<_> = unmarked.filter_map(Changed::new).collect();
        // In the order of their keys, so that two sessions don't wait for each other.
        if rows.len() > 1 {
            rows.sort_by_cached_key(|row| row.base.key());
        }
        for batch in self.batches(core, keys_handed_on(rows), place)? {
            self.write(core, &batch.rows, batch.columns, place)?;
            if C::HAS_HOOKS {
                let mut written = batch.rows.iter();
                written.try_for_each(|(_, new)| core.entity_hook(place, |conn| conn.after_update(new)))?;
            }
        }
        Ok(())
    }

    fn expect_deletes(&self, nodes: Vec<Rc<dyn AnyNode>>) {
        *self.doomed.borrow_mut() = typed::<T>(nodes).collect();
    }

    fn check_deletes(&self, core: &Core<C>, place: Place) -> Result<()> {
        let doomed = self.doomed.borrow().clone();
        let unsure: Vec<_> = doomed.iter().filter(|node| node.is_stale()).filter_map(|node| node.base()).collect();
        if unsure.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = unsure.iter().map(|row| row.key()).collect();
        let there = core.flushed(place, |conn| conn.load_by_keys(&keys, None))?;
        let is_there = |row: &Rc<T>| there.iter().any(|there| there.has_key(&row.key()));
        let gone: Vec<_> = unsure.iter().filter(|row| !is_there(row)).map(|row| format!("{:?}", row.key())).collect();
        if gone.is_empty() { Ok(()) } else { Err(self.stale_data(unsure.len(), unsure.len() - gone.len(), gone)) }
    }

    fn deletes(&self) -> Vec<Doomed> {
        let doomed = self.doomed.borrow();
        let rows = doomed.iter().filter_map(|node| node.base());
        rows.map(|row| {
            let mut references = Vec::new();
            row.references(&mut |reference| references.push(reference));
            Doomed { key: entity::hash_of(&row.key()), references }
        })
        .collect()
    }

    fn delete(&self, core: &Core<C>, rows: Option<&[usize]>, place: Place) -> Result<()> {
        let nodes: Vec<_> = match rows {
            None => self.doomed.borrow().clone(),
            Some(rows) => {
                let doomed = self.doomed.borrow();
                rows.iter().filter_map(|row| doomed.get(*row).cloned()).collect()
            }
        };
        if nodes.is_empty() { Ok(()) } else { self.delete_nodes(core, nodes, place) }
    }

    fn cut(&self, core: &Core<C>, row: usize, columns: ColumnSet, place: Place) -> Result<()> {
        let key = self.doomed.borrow().get(row).and_then(|node| node.base()).map(|base| base.key());
        let Some(key) = key else { return Ok(()) };
        core.flushed(place, |conn| conn.set_null(&key, columns)).map(drop)
    }

    fn wrote(&self) -> Wrote {
        let updated = self.updated.borrow();
        if !self.deleted.borrow().is_empty() || updated.iter().any(|row| row.has_moved) {
            Wrote::Keys
        } else if updated.is_empty() {
            Wrote::Nothing
        } else {
            Wrote::Values
        }
    }

    fn make_stale(&self) {
        for node in self.map.borrow().live() {
            node.make_stale();
        }
    }

    fn referring(&self, nodes: Vec<Rc<dyn AnyNode>>, keys: &Keys) -> (AnyNodes, AnyNodes) {
        let refers = |node: &Rc<Node<T>>| {
            let mut found = false;
            node.look(|row| row.references(&mut |to| found |= keys.contains(&(to.table, to.key))));
            found
        };
        let (referring, others): (Vec<_>, Vec<_>) = typed::<T>(nodes).partition(refers);
        let erased = |nodes: Vec<Rc<Node<T>>>| nodes.iter().map(Node::erased).collect();
        (erased(referring), erased(others))
    }

    fn settle(&self, changes: &mut Changes) {
        let level = self.owner.level();
        let ops = self.owner.ops();
        let touch = |node: &Rc<Node<T>>| {
            if node.remember(level)
                && let Some(ops) = &ops
            {
                ops.touch(&node.erased());
            }
        };
        self.doomed.borrow_mut().clear();
        for node in self.deleted.take() {
            touch(&node);
            self.remove(&node);
            node.drop_changes();
            node.set_marked(false);
            node.set_state(ObjectState::Deleted);
            changes.push(|| Change { node, from: ObjectState::Persistent, to: ObjectState::Deleted });
        }
        // First every old key is given up, so that nobody is taken for the one who had a new key before.
        let mut moved = Vec::new();
        let mut updated = self.updated.take();
        for Written { node, value, has_moved } in updated.drain(..) {
            touch(&node);
            if has_moved {
                self.remove(&node);
                moved.push(Rc::clone(&node));
            }
            node.written(value);
        }
        updated.shrink_to(super::KEPT);
        self.updated.replace(updated);
        for node in moved {
            self.put(&node, changes);
        }
    }

    fn revert(&self) {
        self.doomed.borrow_mut().clear();
        self.deleted.borrow_mut().clear();
        self.updated.borrow_mut().clear();
    }

    fn undo(&self, nodes: Vec<Rc<dyn AnyNode>>, level: u32, changes: &mut Changes) {
        let nodes: Vec<_> = typed::<T>(nodes).collect();
        // First everything leaves, so that a key that was used twice is free for the one that had it before.
        for node in nodes.iter().filter(|node| node.state() == ObjectState::Persistent) {
            self.remove(node);
        }
        let mut back = HashSet::new();
        // In the order in which they were touched: who had a key first had it before the frame began, and who was read
        // under it later was another row.
        for node in nodes {
            let from = node.state();
            if from == ObjectState::Detached {
                continue;
            }
            node.undo(level);
            if node.state() == ObjectState::Persistent {
                let holder = node.key().and_then(|key| self.get(&key)).map(|holder| Rc::as_ptr(&holder));
                if holder.is_some_and(|holder| holder != Rc::as_ptr(&node) && back.contains(&holder)) {
                    node.detach();
                } else {
                    self.put(&node, changes);
                    back.insert(Rc::as_ptr(&node));
                }
            }
            let to = node.state();
            if from != to {
                changes.push(|| Change { node, from, to });
            }
        }
    }

    fn forget(&self, changes: &mut Changes) {
        let nodes = self.map.borrow_mut().drain();
        for node in nodes {
            let from = node.state();
            node.detach();
            changes.push(|| Change { node, from, to: ObjectState::Detached });
        }
    }

    fn rest(&self) {
        self.map.borrow_mut().rest();
    }
}

impl<T: Entity, C> std::fmt::Debug for TableUnit<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableUnit").field("table", &T::TABLE).finish_non_exhaustive()
    }
}

/// A value of any type, for records that go back to their makers.
pub(crate) fn boxed<N: 'static>(record: N) -> Box<dyn Any> {
    Box::new(record)
}
