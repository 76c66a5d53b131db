//! Records that wait for their insert.

use std::any::TypeId;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::changes::{Change, Changes};
use super::node::{AnyNode, Node, Unfinished};
use super::table::{TableUnit, boxed};
use super::tracked::ObjectState;
use super::{IntoAny, UnitOfWork};
use crate::backend::SessionConnection;
use crate::entity::{ColumnSet, Entity, Insert, Persist, Record, TableId, hash_of};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::session::core::Core;

/// Where a record comes from.
pub(crate) enum Make<N> {
    Ready(N),
    /// Made when its parents have their keys.
    Later(Box<dyn FnOnce() -> Result<N>>),
}

/// Records of any type.
pub(crate) trait Records<C: SessionConnection>: IntoAny {
    fn record(&self) -> TypeId;
    fn table(&self) -> TableId;
    /// The levels on which there are rows to insert.
    fn levels(&self) -> Vec<u32>;
    /// Hashes of the keys that the records give.
    fn given_keys(&self) -> Vec<(TableId, u64)>;
    /// Inserts the rows of a level.
    fn insert(&self, core: &Core<C>, level: u32, place: Place) -> Result<()>;
    /// The flush was good: what was inserted is there.
    fn settle(&self, unit: &UnitOfWork<C>, changes: &mut Changes);
    /// The flush failed: what was inserted waits again.
    fn revert(&self);
    /// Rolled back: what waits is transient.
    fn cancel(&self, changes: &mut Changes);
    fn is_empty(&self) -> bool;
    fn len(&self) -> usize;
    /// Takes one out; says whether it was there.
    fn expunge(&self, node: &Rc<dyn AnyNode>) -> bool;
    fn nodes(&self) -> Vec<(u64, Rc<dyn AnyNode>)>;
}

struct Row<N: Record> {
    node: Rc<Node<N::Entity>>,
    order: u64,
    level: u32,
    state: State<N>,
}

enum State<N: Record> {
    Waiting(Make<N>),
    /// By the running flush.
    Inserted(Rc<N::Entity>),
    /// The closure that was to make it did not.
    Spent,
}

pub(crate) struct RecordUnit<N: Record, C> {
    table: Rc<TableUnit<N::Entity, C>>,
    rows: RefCell<Vec<Row<N>>>,
}

fn unfinish<N: Record>(entity: N::Entity) -> Unfinished {
    boxed(N::unfinish(entity))
}

impl<N: Record, C: Insert<N> + Persist<N::Entity>> RecordUnit<N, C> {
    pub(crate) fn new(table: Rc<TableUnit<N::Entity, C>>) -> Self {
        Self { table, rows: RefCell::default() }
    }

    /// So many records are about to come.
    pub(crate) fn reserve(&self, records: usize) {
        self.rows.borrow_mut().reserve(records);
    }

    pub(crate) fn push(&self, node: Rc<Node<N::Entity>>, make: Make<N>, level: u32, order: u64) {
        self.rows.borrow_mut().push(Row { node, order, level, state: State::Waiting(make) });
    }

    /// Makes the records of a level. User code runs here, so nothing is borrowed.
    fn make(&self, level: u32) -> Result<Vec<usize>> {
        let mut ready = Vec::new();
        let count = self.rows.borrow().len();
        for index in 0..count {
            let make = {
                let mut rows = self.rows.borrow_mut();
                let Some(row) = rows.get_mut(index).filter(|row| row.level == level) else { continue };
                match &mut row.state {
                    State::Waiting(Make::Ready(_)) => {
                        ready.push(index);
                        continue;
                    }
                    State::Waiting(Make::Later(_)) => std::mem::replace(&mut row.state, State::Spent),
                    State::Inserted(_) => continue,
                    State::Spent => return Err(Error::RecordSpent { entity: std::any::type_name::<N::Entity>() }),
                }
            };
            if let State::Waiting(Make::Later(make)) = make {
                let record = make()?;
                self.wait_again(index, record);
                ready.push(index);
            }
        }
        Ok(ready)
    }

    fn wait_again(&self, index: usize, record: N) {
        if let Some(row) = self.rows.borrow_mut().get_mut(index) {
            row.state = State::Waiting(Make::Ready(record));
        }
    }

    fn take_record(&self, index: usize) -> Option<N> {
        let mut rows = self.rows.borrow_mut();
        let row = rows.get_mut(index)?;
        match std::mem::replace(&mut row.state, State::Spent) {
            State::Waiting(Make::Ready(record)) => Some(record),
            other => {
                row.state = other;
                None
            }
        }
    }

    fn run_hooks(&self, core: &Core<C>, ready: &[usize], place: Place) -> Result<()> {
        for index in ready {
            let Some(mut record) = self.take_record(*index) else { continue };
            let result = core.entity_hook(place, |conn| conn.before_insert(&mut record));
            self.wait_again(*index, record);
            result?;
        }
        Ok(())
    }

    fn inserted(&self, index: usize, entity: Rc<N::Entity>) {
        if let Some(row) = self.rows.borrow_mut().get_mut(index) {
            row.node.stage(Some(Rc::clone(&entity)));
            row.state = State::Inserted(entity);
        }
    }

    fn insert_ready(&self, core: &Core<C>, ready: &[usize], place: Place) -> Result<()> {
        if ready.is_empty() {
            return Ok(());
        }
        let generated = {
            let rows = self.rows.borrow();
            let records: Vec<&N> = ready
                .iter()
                .filter_map(|index| match &rows.get(*index)?.state {
                    State::Waiting(Make::Ready(record)) => Some(record),
                    _ => None,
                })
                .collect();
            core.flushed(place, |conn| conn.insert(&records))?
        };
        if generated.len() != ready.len() {
            let (expected, matched) = (ready.len(), generated.len());
            return Err(Error::StaleData { table: N::Entity::TABLE, expected, matched, keys: Vec::new() });
        }
        for (index, generated) in ready.iter().zip(generated) {
            if let Some(record) = self.take_record(*index) {
                self.inserted(*index, Rc::new(record.finish(generated)));
            }
        }
        Ok(())
    }

    /// A record with the key of a row that this flush deletes takes its place: one UPDATE where it gives the whole row, else
    /// DELETE comes first.
    fn switch(&self, core: &Core<C>, index: usize, place: Place) -> Result<bool> {
        let (old, new) = {
            let rows = self.rows.borrow();
            let Some(Row { state: State::Waiting(Make::Ready(record)), .. }) = rows.get(index) else {
                return Ok(false);
            };
            let Some(old) = record.given_key().and_then(|key| self.table.take_doomed(&key)) else { return Ok(false) };
            (old, record.as_entity().cloned())
        };
        // All columns, also those that are as the session knows them: it may not know what the row holds now.
        let mut columns = ColumnSet::first(N::Entity::column_count()).without(N::Entity::key_columns());
        let (Some(mut new), Some(base), false) = (new, old.base(), columns.is_empty()) else {
            self.table.delete_nodes(core, vec![old], place)?;
            return Ok(false);
        };
        if let (Some(column), Some(version)) = (N::Entity::version_column(), base.version()) {
            new.set_version(version.wrapping_add(1));
            columns = columns.with(column, true);
        }
        let new = Rc::new(new);
        self.table.write(core, &[(base, Rc::clone(&new))], columns, place)?;
        self.table.was_deleted(old);
        self.inserted(index, new);
        Ok(true)
    }
}

impl<N: Record, C: Insert<N> + Persist<N::Entity>> Records<C> for RecordUnit<N, C> {
    fn record(&self) -> TypeId {
        TypeId::of::<N>()
    }

    fn table(&self) -> TableId {
        N::Entity::table()
    }

    fn levels(&self) -> Vec<u32> {
        let mut levels = Vec::new();
        for row in &*self.rows.borrow() {
            if levels.last() != Some(&row.level) {
                levels.push(row.level);
            }
        }
        levels.sort_unstable();
        levels.dedup();
        levels
    }

    fn given_keys(&self) -> Vec<(TableId, u64)> {
        let rows = self.rows.borrow();
        let given = rows.iter().filter_map(|row| match &row.state {
            State::Waiting(Make::Ready(record)) => record.given_key(),
            _ => None,
        });
        given.map(|key| (N::Entity::table(), hash_of(&key))).collect()
    }

    fn insert(&self, core: &Core<C>, level: u32, place: Place) -> Result<()> {
        let mut ready = self.make(level)?;
        if <C as Insert<N>>::HAS_HOOKS {
            self.run_hooks(core, &ready, place)?;
        }
        let all = if <C as Insert<N>>::HAS_HOOKS { ready.clone() } else { Vec::new() };
        if self.table.has_doomed() {
            let mut left = Vec::with_capacity(ready.len());
            for index in ready {
                if !self.switch(core, index, place)? {
                    left.push(index);
                }
            }
            ready = left;
        }
        self.insert_ready(core, &ready, place)?;
        for index in all {
            let entity = match self.rows.borrow().get(index) {
                Some(Row { state: State::Inserted(entity), .. }) => Rc::clone(entity),
                _ => continue,
            };
            core.entity_hook(place, |conn| <C as Insert<N>>::after_insert(conn, &entity))?;
        }
        Ok(())
    }

    fn settle(&self, unit: &UnitOfWork<C>, changes: &mut Changes) {
        let rows = self.rows.take();
        if rows.is_empty() {
            return;
        }
        let level = unit.level();
        let mut waiting = Vec::new();
        self.table.expect_more(rows.len());
        unit.expect_new(rows.len());
        for row in rows {
            if !matches!(row.state, State::Inserted(_)) {
                waiting.push(row);
                continue;
            }
            row.node.inserted(level, unfinish::<N>);
            let node: Weak<Node<N::Entity>> = Rc::downgrade(&row.node);
            unit.touch_new(node);
            self.table.put(&row.node, changes);
            changes.push(|| Change { node: row.node, from: ObjectState::Pending, to: ObjectState::Persistent });
        }
        let mut rows = self.rows.borrow_mut();
        waiting.append(&mut rows);
        *rows = waiting;
    }

    fn revert(&self) {
        for row in &mut *self.rows.borrow_mut() {
            match std::mem::replace(&mut row.state, State::Spent) {
                State::Inserted(entity) => {
                    row.node.stage(None);
                    row.state = State::Waiting(Make::Ready(N::unfinish(Rc::unwrap_or_clone(entity))));
                }
                other => row.state = other,
            }
        }
    }

    fn cancel(&self, changes: &mut Changes) {
        for row in self.rows.take() {
            let record = match row.state {
                State::Waiting(Make::Ready(record)) => Some(boxed(record)),
                _ => None,
            };
            row.node.cancel(record);
            changes.push(|| Change { node: row.node, from: ObjectState::Pending, to: ObjectState::Transient });
        }
    }

    fn is_empty(&self) -> bool {
        self.rows.borrow().is_empty()
    }

    fn len(&self) -> usize {
        self.rows.borrow().len()
    }

    fn expunge(&self, node: &Rc<dyn AnyNode>) -> bool {
        let row = {
            let mut rows = self.rows.borrow_mut();
            let position = rows.iter().position(|row| std::ptr::addr_eq(Rc::as_ptr(&row.node), Rc::as_ptr(node)));
            position.map(|position| rows.remove(position))
        };
        let Some(row) = row else { return false };
        row.node.cancel(match row.state {
            State::Waiting(Make::Ready(record)) => Some(boxed(record)),
            _ => None,
        });
        true
    }

    fn nodes(&self) -> Vec<(u64, Rc<dyn AnyNode>)> {
        self.rows.borrow().iter().map(|row| (row.order, row.node.erased())).collect()
    }
}
