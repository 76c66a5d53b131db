//! Deleted rows.

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;

use crate::backend::{Kind, SessionConnection};

use super::kept::{Kept, Purpose};
use super::text::{ONE_BY_ONE, key_names, largest, padded, push_found, push_in, push_names, push_table, statements};
use super::{Bind, BindKey, Columns, Row};

/// Deletes the rows; gives how many were found, by key and, where there is one, version.
///
/// # Errors
/// What the database answered.
pub fn delete<C, T>(conn: &mut C, rows: &[&T]) -> QueryResult<usize>
where
    C: SessionConnection,
    T: Row + BindKey<C::Backend>,
    for<'a> T::Bound<'a>: Bind<C::Backend>,
{
    let Some(version) = T::version_column() else {
        let keys: Vec<_> = rows.iter().map(|row| row.key()).collect();
        return delete_by_keys::<C, T>(conn, &keys);
    };
    // SQLite has no round trips to spare, and would read the table for a list of row values that no index covers.
    let width = if conn.kind() == Kind::Sqlite { ONE_BY_ONE } else { T::KEY.len() + 1 };
    let mut found = 0;
    for rows in statements(rows, width) {
        let delete = Delete::<T> { rows: rows.iter().map(|row| row.bound()).collect(), version };
        found += Kept::new::<T, C::Backend>(delete, Purpose::Delete, 0, rows.len(), true)?.execute(conn)?;
    }
    Ok(found)
}

/// Deletes by keys alone; gives how many rows were found.
///
/// # Errors
/// What the database answered.
pub fn delete_by_keys<C, T>(conn: &mut C, keys: &[T::Key]) -> QueryResult<usize>
where
    C: SessionConnection,
    T: Row + BindKey<C::Backend>,
{
    let kind = conn.kind();
    let mut found = 0;
    for keys in keys.chunks(largest(T::KEY.len())) {
        let delete = DeleteByKeys::<T> { kind, keys };
        let size = padded(keys.len());
        found += Kept::new::<T, C::Backend>(delete, Purpose::DeleteByKeys, 0, size, true)?.execute(conn)?;
    }
    Ok(found)
}

/// `DELETE FROM t WHERE k = ? AND version = ?`, or `(k, version) IN (…)`.
struct Delete<'a, T: Columns> {
    rows: Vec<T::Bound<'a>>,
    version: usize,
}

impl<T: Columns> QueryId for Delete<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<'a, T, DB> QueryFragment<DB> for Delete<'a, T>
where
    T: Row,
    T::Bound<'a>: Bind<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("DELETE FROM ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" WHERE ");
        if let [row] = self.rows.as_slice() {
            return push_found::<T, DB, _>(&mut out, row, Some(self.version));
        }
        let columns = || T::KEY.iter().copied().chain([self.version]);
        out.push_sql("(");
        push_names(&mut out, columns().map(<T as Columns>::name))?;
        out.push_sql(") IN (");
        for (i, row) in self.rows.iter().enumerate() {
            out.push_sql(if i > 0 { ", (" } else { "(" });
            for (i, column) in columns().enumerate() {
                out.push_sql(if i > 0 { ", " } else { "" });
                row.bind(column, out.reborrow())?;
            }
            out.push_sql(")");
        }
        out.push_sql(")");
        Ok(())
    }
}

/// `DELETE FROM t WHERE k IN (…)`
struct DeleteByKeys<'a, T: Row> {
    kind: Kind,
    keys: &'a [T::Key],
}

impl<T: Row> QueryId for DeleteByKeys<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T, DB> QueryFragment<DB> for DeleteByKeys<'_, T>
where
    T: Row + BindKey<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("DELETE FROM ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" WHERE ");
        push_in::<T, DB>(&mut out, self.kind, key_names::<T>(), self.keys, padded(self.keys.len()))
    }
}
