//! Changes of a row that need not be loaded.

use std::hash::{DefaultHasher, Hasher};

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, QueryBuilder, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use crate::backend::SessionConnection;
use crate::entity::ColumnSet;

use super::kept::{Kept, Purpose, is_kept};
use super::text::{key_names, push_table, refuse};
use super::{BindKey, Columns, Row};

/// `UPDATE … SET changes` for the row with this key and, where there is one, this version, which is raised; gives how
/// many rows were found. Changes that change nothing are not sent and count as found: Diesel would refuse them as an empty changeset.
///
/// # Errors
/// What the database answered.
pub fn apply<C, T>(
    conn: &mut C,
    key: &T::Key,
    version: Option<i64>,
    changes: &dyn QueryFragment<C::Backend>,
) -> QueryResult<usize>
where
    C: SessionConnection,
    C::Backend: Default,
    <C::Backend as Backend>::QueryBuilder: Default,
    T: Row + BindKey<C::Backend>,
    i64: ToSql<BigInt, C::Backend>,
{
    let backend = C::Backend::default();
    if changes.is_noop(&backend)? {
        return Ok(1);
    }
    let mut text = <C::Backend as Backend>::QueryBuilder::default();
    changes.to_sql(&mut text, &backend)?;
    let text = text.finish();
    if let Some(key) = key_names::<T>().find(|name| sets(&text, name)) {
        return Err(refuse(format!("a changeset can't change `{key}`, of the key of {}: use `write()`", T::TABLE)));
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    let kept =
        changes.is_safe_to_cache_prepared(&backend)? && is_kept::<T>(Purpose::Apply, u128::from(hasher.finish()));
    Apply::<T, _> { key, version, changes, kept }.execute(conn)
}

/// Whether the column stands to the left of an assignment.
fn sets(text: &str, column: &str) -> bool {
    ['"', '`'].iter().any(|quote| {
        let assignment = format!("{quote}{column}{quote} = ");
        text.starts_with(&assignment) || text.contains(&format!(", {assignment}"))
    })
}

/// Sets these columns to NULL in the row with this key; gives how many rows were found.
///
/// # Errors
/// What the database answered.
pub fn set_null<C, T>(conn: &mut C, key: &T::Key, columns: ColumnSet) -> QueryResult<usize>
where
    C: SessionConnection,
    T: Row + BindKey<C::Backend>,
{
    if columns.is_empty() {
        return Ok(1);
    }
    let statement = SetNull::<T> { key, columns };
    Kept::new::<T, C::Backend>(statement, Purpose::SetNull, columns.bits(), 1, true)?.execute(conn)
}

/// ` WHERE a = ? AND b = ?`
fn push_where<'b, T, DB>(out: &mut AstPass<'_, 'b, DB>, key: &'b T::Key) -> QueryResult<()>
where
    T: Row + BindKey<DB>,
    DB: Backend,
{
    for (part, name) in key_names::<T>().enumerate() {
        out.push_sql(if part > 0 { " AND " } else { " WHERE " });
        out.push_identifier(name)?;
        out.push_sql(" = ");
        T::bind_key(key, part, out.reborrow())?;
    }
    Ok(())
}

struct Apply<'a, T: Row, DB: Backend> {
    key: &'a T::Key,
    version: Option<i64>,
    changes: &'a dyn QueryFragment<DB>,
    kept: bool,
}

impl<T: Row, DB: Backend> QueryId for Apply<'_, T, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<C, T: Row, DB: Backend> RunQueryDsl<C> for Apply<'_, T, DB> {}

impl<T, DB> QueryFragment<DB> for Apply<'_, T, DB>
where
    T: Row + BindKey<DB>,
    DB: Backend,
    i64: ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if !self.kept {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql("UPDATE ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" SET ");
        self.changes.walk_ast(out.reborrow())?;
        if let Some(version) = T::version_column() {
            let version = <T as Columns>::name(version);
            out.push_sql(", ");
            out.push_identifier(version)?;
            out.push_sql(" = ");
            out.push_identifier(version)?;
            out.push_sql(" + 1");
        }
        push_where::<T, DB>(&mut out, self.key)?;
        if let (Some(column), Some(version)) = (T::version_column(), &self.version) {
            out.push_sql(" AND ");
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(" = ");
            out.push_bind_param::<BigInt, i64>(version)?;
        }
        Ok(())
    }
}

struct SetNull<'a, T: Row> {
    key: &'a T::Key,
    columns: ColumnSet,
}

impl<T: Row> QueryId for SetNull<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T, DB> QueryFragment<DB> for SetNull<'_, T>
where
    T: Row + BindKey<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("UPDATE ");
        push_table::<T, DB>(&mut out)?;
        for (i, column) in self.columns.iter().enumerate() {
            out.push_sql(if i > 0 { ", " } else { " SET " });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(" = NULL");
        }
        push_where::<T, DB>(&mut out, self.key)
    }
}
