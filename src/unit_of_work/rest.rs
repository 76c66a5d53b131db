//! A unit of work between two sessions of a thread: what it knew is forgotten, its memory stays.

use std::any::TypeId;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::{Ops, RecordUnit, Records, Table, TableUnit, UnitOfWork};
use crate::backend::SessionConnection;
use crate::entity::{Entity, Insert, Persist, Record};

/// The tables and records of earlier sessions, empty. A session knows only those that it has used itself: their order is that
/// of its first uses.
pub(super) struct Resting<C: SessionConnection> {
    tables: RefCell<Vec<Rc<dyn Table<C>>>>,
    records: RefCell<Vec<Rc<dyn Records<C>>>>,
}

impl<C: SessionConnection> Default for Resting<C> {
    fn default() -> Self {
        Self { tables: RefCell::default(), records: RefCell::default() }
    }
}

impl<C: SessionConnection> Resting<C> {
    pub(super) fn table<T: Entity>(&self) -> Option<Rc<TableUnit<T, C>>>
    where
        C: Persist<T>,
    {
        let mut tables = self.tables.borrow_mut();
        let position = tables.iter().position(|table| table.entity() == TypeId::of::<T>())?;
        Rc::downcast(tables.swap_remove(position).into_any()).ok()
    }

    pub(super) fn records<N: Record>(&self) -> Option<Rc<RecordUnit<N, C>>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let mut records = self.records.borrow_mut();
        let position = records.iter().position(|records| records.record() == TypeId::of::<N>())?;
        Rc::downcast(records.swap_remove(position).into_any()).ok()
    }
}

impl<C: SessionConnection> UnitOfWork<C> {
    /// Lays down what was closed, unless a handle of its session is still held somewhere.
    pub(crate) fn rest(mut self: Box<Self>) -> Option<Box<Self>> {
        let Self { owner, tables, records, resting, .. } = &mut *self;
        let (tables, records) = (tables.get_mut(), records.get_mut());
        let (idle_tables, idle_records) = (resting.tables.get_mut(), resting.records.get_mut());
        // Each table has the owner, and each node: one that lives belongs to this session for ever.
        if Rc::strong_count(owner) != 1 + tables.len() + idle_tables.len() {
            return None;
        }
        for table in &*tables {
            table.rest();
        }
        idle_tables.append(tables);
        idle_records.append(records);
        let touched = self.touched.get_mut();
        touched.truncate(1);
        touched.iter_mut().for_each(super::Touched::rest);
        self.next_order.set(0);
        self.quiet.set(0);
        self.asking.set(false);
        Some(self)
    }

    /// Begins anew, as another session's.
    pub(crate) fn wake(&mut self, session: u64, ops: Weak<dyn Ops>, level: u32) {
        self.owner.pass_on(session, ops, level);
        self.touched.get_mut().resize_with(level as usize + 1, super::Touched::default);
    }
}
