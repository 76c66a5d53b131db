//! Sets of columns.

use std::fmt;
use std::ops::BitOr;

/// A set of an entity's columns, by their numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ColumnSet(pub(super) u128);

impl ColumnSet {
    /// No column.
    pub const NONE: Self = Self(0);

    /// One column: 0 to 127, as many as Diesel's widest tables have.
    #[must_use]
    pub const fn of(column: usize) -> Self {
        Self(1 << column)
    }

    /// The first `n` columns.
    #[must_use]
    pub const fn first(n: usize) -> Self {
        if n >= 128 { Self(u128::MAX) } else { Self((1 << n) - 1) }
    }

    /// This set and a column, if `on`.
    #[must_use]
    pub const fn with(self, column: usize, on: bool) -> Self {
        if on { Self(self.0 | 1 << column) } else { self }
    }

    /// The same columns, numbered from `offset` on.
    #[must_use]
    pub const fn shifted(self, offset: usize) -> Self {
        Self(self.0 << offset)
    }

    /// Whether it has the column.
    #[must_use]
    pub const fn has(self, column: usize) -> bool {
        self.0 >> column & 1 == 1
    }

    /// Whether it has a column of `other`.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What is not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many it has.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The numbers, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let column = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (column < 128).then_some(column)
        })
    }
}

impl BitOr for ColumnSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<usize> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = usize>>(columns: I) -> Self {
        columns.into_iter().fold(Self::NONE, |set, column| set.with(column, true))
    }
}

impl fmt::Debug for ColumnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_columns_that_it_was_made_of() {
        let set = ColumnSet::of(0) | ColumnSet::of(127) | ColumnSet::of(64);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 127]);
        assert_eq!(set.len(), 3);
        assert_eq!(set.without(ColumnSet::of(64)).iter().collect::<Vec<_>>(), [0, 127]);
        assert_eq!(ColumnSet::first(128).len(), 128);
        assert_eq!(ColumnSet::first(3).shifted(2).iter().collect::<Vec<_>>(), [2, 3, 4]);
        assert!(ColumnSet::NONE.is_empty());
    }
}
