//! The flush: everything that waits becomes statements, in an order that the database's keys allow.

use std::collections::HashSet;
use std::rc::Rc;

use super::changes::Changes;
use super::node::AnyNode;
use super::order::{self, Link};
use super::table::{Keys, Table, Wrote};
use super::{Records, UnitOfWork, nth};
use crate::backend::SessionConnection;
use crate::entity::TableId;
use crate::error::{Error, Result};
use crate::place::Place;
use crate::session::core::Core;

impl<C: SessionConnection> UnitOfWork<C> {
    /// Sends everything that waits: for each table changes, then new rows; then deletes, in reverse. Nodes stay as they are
    /// until [`settle`](Self::settle).
    pub(crate) fn send(&self, core: &Core<C>, place: Place) -> Result<()> {
        let mut dirty = by_table(self, &self.dirty.borrow());
        let marked = by_table(self, &self.marked.borrow());
        let records: Vec<_> = self.records.borrow().iter().filter(|records| !records.is_empty()).cloned().collect();
        refuse_twins(&dirty)?;
        for (table, nodes) in &marked {
            table.expect_deletes(nodes.clone());
        }
        for (table, _) in marked.iter().filter(|(table, _)| records.iter().any(|new| new.table() == table.table())) {
            table.check_deletes(core, place)?;
        }
        if let ([(table, nodes)], [], []) = (dirty.as_mut_slice(), marked.as_slice(), records.as_slice()) {
            // Nothing to put in order.
            return table.update(core, std::mem::take(nodes), place);
        }
        let groups = self.groups(&dirty, &marked, &records);
        for group in &groups {
            let own = dirty.extract_if(.., |(table, _)| group.contains(&table.table())).collect();
            let (mut now, mut later) = around_inserts(own, group, &records);
            update(core, group, &mut now, place)?;
            insert(core, group, &records, place)?;
            update(core, group, &mut later, place)?;
        }
        if !marked.is_empty() {
            for group in groups.iter().rev() {
                delete(core, group, &marked, place)?;
            }
        }
        Ok(())
    }

    fn groups(&self, dirty: &Nodes<C>, marked: &Nodes<C>, records: &[Rc<dyn Records<C>>]) -> Vec<Vec<TableId>> {
        let tables = dirty.iter().chain(marked).map(|(table, _)| table.table());
        let mut ids: Vec<TableId> = Vec::new();
        for id in tables.chain(records.iter().map(|records| records.table())) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if ids.len() <= 1 {
            return vec![ids];
        }
        // Also by way of tables that have nothing to write.
        let mut links = self.links.borrow().clone();
        let known = self.tables.borrow().clone();
        for table in &known {
            links.extend(table.depends_on().into_iter().map(|parent| Link { parent, child: table.table() }));
        }
        order::groups(&ids, &links)
    }

    /// The flush was good.
    pub(crate) fn settle(&self, changes: &mut Changes) {
        let written = (self.dirty.take(), self.marked.take());
        drop(written);
        self.links.borrow_mut().clear();
        self.stale_by(&self.tables.borrow());
        let mut n = 0;
        while let Some(table) = nth(&self.tables, n) {
            table.settle(changes);
            n += 1;
        }
        n = 0;
        let mut pending = 0;
        while let Some(records) = nth(&self.records, n) {
            records.settle(self, changes);
            pending += records.len();
            n += 1;
        }
        self.pending.set(pending);
    }

    /// Entities that the flush has changed without writing them are stale: others of the same table, and where keys changed or
    /// went, those that the database may have changed with them (`ON DELETE`, `ON UPDATE`).
    fn stale_by(&self, tables: &[Rc<dyn Table<C>>]) {
        if tables.len() < 2 && !tables.iter().any(|table| table.depends_on().contains(&table.table())) {
            return;
        }
        let mut keys_of: Vec<TableId> = Vec::new();
        for table in tables {
            let wrote = table.wrote();
            if wrote == Wrote::Nothing {
                continue;
            }
            if wrote == Wrote::Keys && !keys_of.contains(&table.table()) {
                keys_of.push(table.table());
            }
            let is_other = |other: &&Rc<dyn Table<C>>| other.entity() != table.entity();
            for other in tables.iter().filter(is_other).filter(|other| other.table() == table.table()) {
                other.make_stale();
            }
        }
        // What the database deletes with a row may have rows of its own that refer to it.
        let mut next = 0;
        while let Some(id) = keys_of.get(next).copied() {
            next += 1;
            for table in tables.iter().filter(|table| table.depends_on().contains(&id)) {
                table.make_stale();
                if !keys_of.contains(&table.table()) {
                    keys_of.push(table.table());
                }
            }
        }
    }

    /// The flush failed: everything waits as before.
    pub(crate) fn revert(&self) {
        for table in self.tables() {
            table.revert();
        }
        let records = self.records.borrow().clone();
        for records in records {
            records.revert();
        }
    }
}

/// Two entities that stand for one row can't both be written: the second would undo the first, from values that it read before.
fn refuse_twins<C: SessionConnection>(dirty: &Nodes<C>) -> Result<()> {
    for (n, (table, nodes)) in dirty.iter().enumerate() {
        for (_, others) in dirty.iter().skip(n + 1).filter(|(other, _)| other.table() == table.table()) {
            let keys: HashSet<u64> = nodes.iter().filter_map(|node| node.key_hash()).collect();
            let twin = others.iter().find(|other| other.key_hash().is_some_and(|key| keys.contains(&key)));
            if let (Some(twin), Some(node)) = (twin, nodes.first()) {
                return Err(Error::Configuration(
                    format!(
                        "{} and {} were both changed for one row of {}: flush between the two changes",
                        node.entity_name(),
                        twin.entity_name(),
                        node.table_name()
                    )
                    .into(),
                ));
            }
        }
    }
    Ok(())
}

type Nodes<C> = Vec<(Rc<dyn Table<C>>, Vec<Rc<dyn AnyNode>>)>;

fn by_table<C: SessionConnection>(unit: &UnitOfWork<C>, nodes: &[Rc<dyn AnyNode>]) -> Nodes<C> {
    let mut tables: Nodes<C> = Vec::new();
    for node in nodes {
        let entity = node.entity();
        match tables.iter_mut().find(|(table, _)| table.entity() == entity) {
            Some((_, nodes)) => nodes.push(Rc::clone(node)),
            None => {
                if let Some(table) = unit.table_of(entity) {
                    tables.push((table, vec![Rc::clone(node)]));
                }
            }
        }
    }
    tables
}

/// Changed rows that are to refer to new ones of their own group, which has no order among its tables, come after those;
/// all others before.
fn around_inserts<C: SessionConnection>(
    mut nodes: Nodes<C>,
    group: &[TableId],
    records: &[Rc<dyn Records<C>>],
) -> (Nodes<C>, Nodes<C>) {
    let is_ring = |table: &Rc<dyn Table<C>>| table.depends_on().iter().any(|parent| group.contains(parent));
    if !nodes.iter().any(|(table, _)| is_ring(table)) {
        return (nodes, Vec::new());
    }
    let own = records.iter().filter(|records| group.contains(&records.table()));
    let keys: Keys = own.flat_map(|records| records.given_keys()).collect();
    let mut later = Vec::new();
    if !keys.is_empty() {
        for (table, nodes) in &mut nodes {
            let (waiting, others) = table.referring(std::mem::take(nodes), &keys);
            *nodes = others;
            later.push((Rc::clone(table), waiting));
        }
    }
    (nodes, later)
}

fn update<C: SessionConnection>(core: &Core<C>, group: &[TableId], nodes: &mut Nodes<C>, place: Place) -> Result<()> {
    for id in group {
        for (table, nodes) in nodes.iter_mut().filter(|(table, nodes)| table.table() == *id && !nodes.is_empty()) {
            table.update(core, std::mem::take(nodes), place)?;
        }
    }
    Ok(())
}

/// New rows of a group, level by level: within one, parents are made before the records that are made of them.
fn insert<C: SessionConnection>(
    core: &Core<C>,
    group: &[TableId],
    records: &[Rc<dyn Records<C>>],
    place: Place,
) -> Result<()> {
    let own: Vec<_> = records.iter().filter(|records| group.contains(&records.table())).collect();
    let mut levels: Vec<u32> = own.iter().flat_map(|records| records.levels()).collect();
    levels.sort_unstable();
    levels.dedup();
    for level in levels {
        for id in group {
            for records in own.iter().filter(|records| records.table() == *id) {
                records.insert(core, level, place)?;
            }
        }
    }
    Ok(())
}

fn delete<C: SessionConnection>(core: &Core<C>, group: &[TableId], marked: &Nodes<C>, place: Place) -> Result<()> {
    let tables: Vec<_> = marked.iter().map(|(table, _)| table).filter(|table| group.contains(&table.table())).collect();
    let refers_to_itself = |table: &Rc<dyn Table<C>>| table.depends_on().contains(&table.table());
    if let [table] = tables.as_slice()
        && !refers_to_itself(table)
    {
        return table.delete(core, None, place);
    }
    let rows: Vec<_> = tables.iter().map(|table| (table.table(), table.deletes())).collect();
    let order = order::deletes(&rows);
    for (table, row, columns) in order.cuts {
        tables[table].cut(core, row, columns, place)?;
    }
    for layer in order.layers {
        for (number, table) in tables.iter().enumerate() {
            let rows: Vec<_> = layer.iter().filter(|(table, _)| *table == number).map(|(_, row)| *row).collect();
            if !rows.is_empty() {
                table.delete(core, Some(&rows), place)?;
            }
        }
    }
    Ok(())
}
