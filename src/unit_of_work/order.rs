//! The order of a flush: which tables come first, and which rows.

use std::collections::HashMap;

use super::table::Doomed;
use crate::entity::{ColumnSet, TableId};

/// Rows of `child` are made of rows of `parent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) parent: TableId,
    pub(crate) child: TableId,
}

/// Puts tables in an order in which each comes after those that it depends on. Tables that depend on each other are one
/// group. Among tables that don't care the order is that of `tables`.
pub(crate) fn groups(tables: &[TableId], links: &[Link]) -> Vec<Vec<TableId>> {
    let mut search = Search { links, tables, number: HashMap::new(), stack: Vec::new(), groups: Vec::new() };
    for table in tables {
        if !search.number.contains_key(table) {
            search.visit(*table);
        }
    }
    search.groups
}

/// Tarjan's search for strongly connected components, which come out parents first.
struct Search<'a> {
    tables: &'a [TableId],
    links: &'a [Link],
    /// The order of discovery; the largest number once its group is complete.
    number: HashMap<TableId, usize>,
    stack: Vec<TableId>,
    groups: Vec<Vec<TableId>>,
}

impl Search<'_> {
    fn visit(&mut self, table: TableId) -> usize {
        let own = self.number.len();
        self.number.insert(table, own);
        self.stack.push(table);
        let mut lowest = own;
        let parents = self.links.iter().filter(|link| link.child == table).map(|link| link.parent);
        for parent in parents.filter(|parent| self.tables.contains(parent)).collect::<Vec<_>>() {
            let reached = match self.number.get(&parent) {
                Some(number) => *number,
                None => self.visit(parent),
            };
            lowest = lowest.min(reached);
        }
        if lowest == own {
            let start = self.stack.iter().position(|other| *other == table).unwrap_or(0);
            let mut group = self.stack.split_off(start);
            for table in &group {
                self.number.insert(*table, usize::MAX);
            }
            let place = |table: &TableId| self.tables.iter().position(|other| other == table);
            group.sort_by_key(place);
            self.groups.push(group);
        }
        lowest
    }
}

/// Rows to delete of one group, as (table, row) numbers: in layers, each of which refers to none of a later one. What a ring
/// of rows makes impossible comes first as cuts: columns to be set to NULL.
pub(crate) struct Deletes {
    pub(crate) cuts: Vec<(usize, usize, ColumnSet)>,
    pub(crate) layers: Vec<Vec<(usize, usize)>>,
}

pub(crate) fn deletes(tables: &[(TableId, Vec<Doomed>)]) -> Deletes {
    let rows: Vec<(usize, usize)> =
        tables.iter().enumerate().flat_map(|(table, (_, rows))| (0..rows.len()).map(move |row| (table, row))).collect();
    let number: HashMap<(TableId, u64), usize> =
        rows.iter().enumerate().map(|(n, (table, row))| ((tables[*table].0, tables[*table].1[*row].key), n)).collect();
    // Who each row refers to, by which column.
    let refers: Vec<Vec<(usize, Option<usize>)>> = rows
        .iter()
        .enumerate()
        .map(|(n, (table, row))| {
            let references = tables[*table].1[*row].references.iter();
            let found = references
                .filter_map(|reference| Some((*number.get(&(reference.table, reference.key))?, reference.nullable)));
            found.filter(|(other, _)| *other != n).collect()
        })
        .collect();
    let mut referred = vec![0_usize; rows.len()];
    for (other, _) in refers.iter().flatten() {
        referred[*other] += 1;
    }
    let mut gone = vec![false; rows.len()];
    let mut deletes = Deletes { cuts: Vec::new(), layers: Vec::new() };
    let mut left = rows.len();
    while left > 0 {
        let mut layer: Vec<usize> = (0..rows.len()).filter(|n| !gone[*n] && referred[*n] == 0).collect();
        if layer.is_empty() {
            // A ring: the references that may be NULL are cut, and whatever then is left is for the database to judge.
            let mut was_cut = false;
            for n in (0..rows.len()).filter(|n| !gone[*n]) {
                let columns: ColumnSet = refers[n].iter().filter(|(o, _)| !gone[*o]).filter_map(|(_, c)| *c).collect();
                if !columns.is_empty() && deletes.cuts.iter().all(|(t, r, _)| (*t, *r) != rows[n]) {
                    deletes.cuts.push((rows[n].0, rows[n].1, columns));
                    for (other, _) in refers[n].iter().filter(|(other, column)| column.is_some() && !gone[*other]) {
                        referred[*other] -= 1;
                    }
                    was_cut = true;
                }
            }
            if was_cut {
                continue;
            }
            layer = (0..rows.len()).filter(|n| !gone[*n]).collect();
        }
        let cut: Vec<_> = deletes.cuts.iter().map(|(table, row, _)| (*table, *row)).collect();
        for n in &layer {
            gone[*n] = true;
            left -= 1;
            let was_cut = cut.contains(&rows[*n]);
            for (other, column) in &refers[*n] {
                if !(was_cut && column.is_some()) {
                    referred[*other] = referred[*other].saturating_sub(1);
                }
            }
        }
        deletes.layers.push(layer.into_iter().map(|n| rows[n]).collect());
    }
    deletes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Reference;

    struct A;
    struct B;
    struct D;

    fn doomed(key: u64, references: &[(TableId, u64, Option<usize>)]) -> Doomed {
        let references =
            references.iter().map(|(table, key, nullable)| Reference { table: *table, key: *key, nullable: *nullable });
        Doomed { key, references: references.collect() }
    }

    #[test]
    fn parents_come_before_children_and_rings_are_one_group() {
        let (a, b, d) = (TableId::of::<A>(), TableId::of::<B>(), TableId::of::<D>());
        let link = |parent, child| Link { parent, child };
        assert_eq!(groups(&[a, b, d], &[link(b, a), link(d, b)]), [[d], [b], [a]]);
        assert_eq!(groups(&[a, b, d], &[]), [[a], [b], [d]]);
        assert_eq!(groups(&[a, b, d], &[link(a, b), link(b, a), link(b, d)]), [vec![a, b], vec![d]]);
        assert_eq!(groups(&[a, b], &[link(a, a), link(b, a)]), [[b], [a]]);
    }

    #[test]
    fn rows_that_refer_to_others_are_deleted_before_them() {
        let a = TableId::of::<A>();
        let chain = vec![doomed(1, &[]), doomed(2, &[(a, 1, None)]), doomed(3, &[(a, 2, None)])];
        let order = deletes(&[(a, chain)]);
        assert_eq!(order.layers, [[(0, 2)], [(0, 1)], [(0, 0)]]);
        assert!(order.cuts.is_empty());
    }

    #[test]
    fn a_ring_is_cut_where_it_may_be_null() {
        let (a, b) = (TableId::of::<A>(), TableId::of::<B>());
        let ring = [(a, vec![doomed(1, &[(b, 1, Some(4))])]), (b, vec![doomed(1, &[(a, 1, None)])])];
        let order = deletes(&ring);
        assert_eq!(order.cuts, [(0, 0, ColumnSet::of(4))]);
        assert_eq!(order.layers, [[(1, 0)], [(0, 0)]]);
    }
}
