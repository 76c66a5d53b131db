//! What all statements share: names, lists of binds, and how many rows go into one statement.

use diesel::backend::Backend;
use diesel::query_builder::AstPass;
use diesel::result::{Error as DieselError, QueryResult};

use crate::backend::Kind;
use crate::entity::{ColumnSet, Entity};

use super::{Bind, BindKey, Row};

/// A statement has one of these numbers of rows or keys, so that there are few texts and each is prepared once. Above 256
/// nothing is gained, and from 1000 on MariaDB turns an IN list into a subquery (`in_predicate_conversion_threshold`).
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// Far below the limits (SQLite 32766, PostgreSQL and MySQL 65535); more than this in one statement is not faster.
const BINDS: usize = 4096;

/// The width of rows that go one by one.
pub(super) const ONE_BY_ONE: usize = BINDS + 1;

/// The most rows of `width` binds that are sent in one statement.
pub(super) fn largest(width: usize) -> usize {
    SIZES.into_iter().find(|size| size * width <= BINDS).unwrap_or(1)
}

/// The largest size that `left` rows of `width` binds fill.
pub(super) fn filled(left: usize, width: usize) -> usize {
    SIZES.into_iter().find(|&size| size <= left && size * width <= BINDS).unwrap_or(1)
}

/// The smallest size that has room for `keys`, which are no more than [`largest`].
pub(super) fn padded(keys: usize) -> usize {
    SIZES.into_iter().rev().find(|&size| size >= keys).unwrap_or(keys)
}

/// Splits rows of `width` binds into statements that are filled.
pub(super) fn statements<R>(rows: &[R], width: usize) -> impl Iterator<Item = &[R]> {
    split(rows, move |left| filled(left, width))
}

/// The same for rows that are written: to a server a statement takes many more, because each is a round trip.
const fn full_batches(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::Sqlite => &[256],
        _ => &[2048, 1024, 512, 256],
    }
}

/// The binds of such a statement.
const BATCH_BINDS: usize = 4 * BINDS;

/// Splits rows of `width` binds into as few statements as do, of at most `most` rows. To a server what is left over goes in one
/// statement of just its size: to prepare that costs less than the round trips of several. SQLite has none to save.
pub(super) fn batches<R>(kind: Kind, rows: &[R], width: usize, most: usize) -> impl Iterator<Item = &[R]> {
    let fits = move |size: &usize| *size <= most && size * width <= BATCH_BINDS;
    let full = full_batches(kind).iter().copied().find(fits).unwrap_or_else(|| largest(width));
    split(rows, move |left| match left {
        left if left >= full => full,
        left if kind != Kind::Sqlite && width <= BINDS => left,
        left => filled(left, width),
    })
}

/// Up to so many rows every number comes again.
const FEW: usize = 8;

/// Whether a batch of so many rows comes again and again, so that its statement is worth keeping prepared.
pub(super) fn comes_again(rows: usize) -> bool {
    rows <= FEW || SIZES.contains(&rows) || full_batches(Kind::Postgres).contains(&rows)
}

fn split<R>(mut rows: &[R], size: impl Fn(usize) -> usize) -> impl Iterator<Item = &[R]> {
    std::iter::from_fn(move || {
        let (now, later) = rows.split_at(size(rows.len()).min(rows.len()));
        rows = later;
        (!now.is_empty()).then_some(now)
    })
}

impl ColumnSet {
    /// The set as a number.
    pub(super) const fn bits(self) -> u128 {
        self.0
    }
}

/// The table, with its schema if its name has one.
pub(super) fn push_table<T: Entity, DB: Backend>(out: &mut AstPass<'_, '_, DB>) -> QueryResult<()> {
    // Each statement comes through here at least twice, and only the first time for its text.
    let (schema, table) = const { in_schema(T::TABLE) };
    if let Some(schema) = schema {
        out.push_identifier(schema)?;
        out.push_sql(".");
    }
    out.push_identifier(table)
}

/// The schema and the table of a name.
const fn in_schema(name: &str) -> (Option<&str>, &str) {
    let bytes = name.as_bytes();
    let mut dot = 0;
    while dot < bytes.len() {
        if bytes[dot] == b'.' {
            let (schema, table) = name.split_at(dot);
            return (Some(schema), table.split_at(1).1);
        }
        dot += 1;
    }
    (None, name)
}

/// The table as SQLite's own tables spell it: a string.
pub(super) fn push_string<T: Entity, DB: Backend>(out: &mut AstPass<'_, '_, DB>) {
    let (_, table) = const { in_schema(T::TABLE) };
    out.push_sql(&format!("'{}' COLLATE NOCASE", table.replace('\'', "''")));
}

/// The schema, with a dot, in front of one of SQLite's own tables.
pub(super) fn push_schema<T: Entity, DB: Backend>(out: &mut AstPass<'_, '_, DB>) -> QueryResult<()> {
    let (schema, _) = const { in_schema(T::TABLE) };
    // A bare name of a system table means the main database's.
    out.push_identifier(schema.unwrap_or("main"))?;
    out.push_sql(".");
    Ok(())
}

/// Names with commas between them.
pub(super) fn push_names<DB: Backend>(
    out: &mut AstPass<'_, '_, DB>,
    names: impl IntoIterator<Item = &'static str>,
) -> QueryResult<()> {
    for (i, name) in names.into_iter().enumerate() {
        if i > 0 {
            out.push_sql(", ");
        }
        out.push_identifier(name)?;
    }
    Ok(())
}

/// The names of the key's columns.
pub(super) fn key_names<T: Row>() -> impl Iterator<Item = &'static str> + Clone {
    T::KEY.iter().map(|&column| <T as super::Columns>::name(column))
}

/// `(a, b) IN ((?, ?), …)` for `size` keys, the last of them repeated until there are so many.
pub(super) fn push_in<'b, T, DB>(
    out: &mut AstPass<'_, 'b, DB>,
    kind: Kind,
    names: impl Iterator<Item = &'static str> + Clone,
    keys: &'b [T::Key],
    size: usize,
) -> QueryResult<()>
where
    T: BindKey<DB>,
    DB: Backend,
{
    let width = names.clone().count();
    let bind = |out: &mut AstPass<'_, 'b, DB>, key: &'b T::Key| {
        for part in 0..width {
            if part > 0 {
                out.push_sql(", ");
            }
            T::bind_key(key, part, out.reborrow())?;
        }
        QueryResult::Ok(())
    };
    let Some(last) = keys.last() else { return Ok(()) };
    let padded = keys.iter().chain(std::iter::repeat(last)).take(size);
    if width == 1 {
        push_names(out, names)?;
        if size == 1 {
            out.push_sql(" = ");
            return bind(out, last);
        }
        out.push_sql(" IN (");
        for (i, key) in padded.enumerate() {
            out.push_sql(if i > 0 { ", " } else { "" });
            bind(out, key)?;
        }
    } else {
        out.push_sql("(");
        push_names(out, names)?;
        // SQLite knew lists of row values only as a subquery for long.
        out.push_sql(if kind == Kind::Sqlite { ") IN (VALUES " } else { ") IN (" });
        for (i, key) in padded.enumerate() {
            out.push_sql(if i > 0 { ", (" } else { "(" });
            bind(out, key)?;
            out.push_sql(")");
        }
    }
    out.push_sql(")");
    Ok(())
}

/// `a = ? AND b = ?` for the key, and the version if there is one, that a row has.
pub(super) fn push_found<'b, T, DB, B>(
    out: &mut AstPass<'_, 'b, DB>,
    row: &'b B,
    version: Option<usize>,
) -> QueryResult<()>
where
    T: Row,
    DB: Backend,
    B: Bind<DB>,
{
    for (i, column) in T::KEY.iter().copied().chain(version).enumerate() {
        if i > 0 {
            out.push_sql(" AND ");
        }
        out.push_identifier(<T as super::Columns>::name(column))?;
        out.push_sql(" = ");
        row.bind(column, out.reborrow())?;
    }
    Ok(())
}

/// The error for what can't be done for certain.
pub(super) fn refuse(message: String) -> DieselError {
    DieselError::QueryBuilderError(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_statement_has_too_many_binds_and_none_is_left_out() {
        for width in 1..=128 {
            for rows in [0, 1, 2, 3, 4, 5, 255, 256, 257, 1000] {
                let all: Vec<_> = (0..rows).collect();
                let split: Vec<_> = statements(&all, width).collect();
                assert!(split.iter().all(|rows| rows.len() * width <= BINDS && SIZES.contains(&rows.len())));
                assert_eq!(split.concat(), all);
            }
            assert!(largest(width) * width <= BINDS);
            for rows in [0, 1, 5, 31, 32, 255, 2047, 2048, 2049, 10_000] {
                let all: Vec<_> = (0..rows).collect();
                let split: Vec<_> = batches(Kind::Sqlite, &all, width, usize::MAX).collect();
                assert!(split.iter().all(|rows| rows.len() * width <= BATCH_BINDS));
                assert_eq!(split.concat(), all);
            }
        }
        assert_eq!(batches(Kind::Postgres, &[0; 10_000], 3, usize::MAX).count(), 5);
        assert_eq!(batches(Kind::Mysql, &[0; 10_000], 3, 1024).count(), 10);
        assert_eq!([1, 2, 4, 5, 64, 65, 256].map(padded), [1, 4, 4, 16, 64, 256, 256]);
    }
}
