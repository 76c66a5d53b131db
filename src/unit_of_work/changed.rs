//! Changed rows on their way to their UPDATEs: in which order, and which of them together.

use std::rc::Rc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::node::Node;
use crate::entity::{ColumnSet, Entity};

/// A changed row that waits for its UPDATE.
pub(super) struct Changed<T: Entity> {
    pub(super) node: Rc<Node<T>>,
    pub(super) base: Rc<T>,
    pub(super) value: Rc<T>,
    pub(super) columns: ColumnSet,
}

impl<T: Entity> Changed<T> {
    pub(super) fn new(node: Rc<Node<T>>) -> Option<Self> {
        let (base, value) = (node.base()?, node.value()?);
        let columns = value.diff(&base);
        Some(Self { node, base, value, columns })
    }

    fn has_moved(&self) -> bool {
        self.columns.meets(T::key_columns()) && self.base.key() != self.value.key()
    }
}

/// Puts a row that takes a key behind the one that gives it up.
pub(super) fn keys_handed_on<T: Entity>(rows: Vec<Changed<T>>) -> Vec<Changed<T>> {
    if rows.iter().filter(|row| row.has_moved()).nth(1).is_none() {
        return rows;
    }
    let moved = rows.iter().enumerate().filter(|(_, row)| row.has_moved());
    let changes: HashMap<T::Key, (usize, T::Key)> =
        moved.map(|(n, row)| (row.base.key(), (n, row.value.key()))).collect();
    let mut order = Vec::with_capacity(rows.len());
    let mut placed = vec![false; rows.len()];
    for first in 0..rows.len() {
        // Along the chain to the one whose new key nobody has; a ring ends where it began.
        let mut chain = Vec::new();
        let mut next = Some(first);
        while let Some(n) = next.filter(|n| !placed[*n]) {
            placed[n] = true;
            chain.push(n);
            let new = rows[n].has_moved().then(|| rows[n].value.key());
            next = new.and_then(|new| changes.get(&new)).map(|(n, _)| *n);
        }
        order.extend(chain.into_iter().rev());
    }
    let mut rows: Vec<_> = rows.into_iter().map(Some).collect();
    order.into_iter().filter_map(|n| rows[n].take()).collect()
}

/// Rows that a flush writes together.
pub(super) struct Batch<T> {
    pub(super) columns: ColumnSet,
    /// Whether the key is among them.
    changes_key: bool,
    /// Old and new.
    pub(super) rows: SmallVec<[(Rc<T>, Rc<T>); 1]>,
}

/// Changed rows by the columns that changed, in the order in which such a change came first.
pub(super) struct Batches<T> {
    pub(super) list: SmallVec<[Batch<T>; 1]>,
    /// Where rows of these columns go, once there are several.
    by_columns: HashMap<ColumnSet, usize>,
    /// Where the last row went: mostly the next one changes the same.
    last: Option<(ColumnSet, usize)>,
}

impl<T> Default for Batches<T> {
    fn default() -> Self {
        Self { list: SmallVec::new(), by_columns: HashMap::new(), last: None }
    }
}

impl<T> Batches<T> {
    /// `expected`: how many rows there are in all.
    pub(super) fn add(&mut self, columns: ColumnSet, changes_key: bool, row: (Rc<T>, Rc<T>), expected: usize) {
        let number = match self.last.filter(|(other, _)| *other == columns) {
            Some((_, number)) => number,
            None => self.number_of(columns, changes_key, expected),
        };
        self.last = Some((columns, number));
        if let Some(batch) = self.list.get_mut(number) {
            batch.rows.push(row);
        }
    }

    fn number_of(&mut self, columns: ColumnSet, changes_key: bool, expected: usize) -> usize {
        if let Some((first, number)) = self.last.filter(|_| self.by_columns.is_empty()) {
            self.by_columns.insert(first, number);
        }
        let known = self.by_columns.get(&columns).copied();
        known.unwrap_or_else(|| {
            if changes_key {
                // Keys are handed on in the order of the rows: none may join a batch that is sent before its neighbour's.
                let list = &self.list;
                self.by_columns.retain(|_, number| list.get(*number).is_none_or(|batch| !batch.changes_key));
            }
            let room = if self.list.is_empty() { expected } else { 0 };
            self.list.push(Batch { columns, changes_key, rows: SmallVec::with_capacity(room) });
            let number = self.list.len() - 1;
            if number > 0 {
                self.by_columns.insert(columns, number);
            }
            number
        })
    }
}
