//! SQLite: a transaction that writes is alone with the file, so it can choose the keys itself.

use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::connection::TransactionManager;
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use crate::backend::SessionConnection;
use crate::entity::ColumnSet;
use crate::entity::sql::kept::Form;
use crate::entity::sql::read::rows as read;
use crate::entity::sql::text::{batches, key_names, push_names, push_schema, push_string, push_table};
use crate::entity::sql::{Bind, NewRow, Row};

use super::statement::Rows;
use super::{Key, ReadBack, counted, in_order, one_by_one, only_the_keys};

/// Several rows with the keys that SQLite would give them next; one by one where it might give others: outside a
/// transaction, where triggers may insert too, and at the end of the numbers, where it looks for gaps.
pub(super) fn insert<C, N>(conn: &mut C, rows: &[&N], given: ColumnSet) -> QueryResult<Vec<N::Generated>>
where
    C: SessionConnection,
    N: NewRow,
    for<'a> N::Bound<'a>: Bind<C::Backend>,
    (Key<N>, N::Generated): FromSqlRow<ReadBack<N>, C::Backend>,
    (i64, i64): FromSqlRow<(BigInt, BigInt), C::Backend>,
    i64: FromSqlRow<BigInt, C::Backend> + ToSql<BigInt, C::Backend>,
    C::Backend: QueryMetadata<ReadBack<N>> + QueryMetadata<(BigInt, BigInt)> + QueryMetadata<BigInt>,
{
    if rows.len() == 1 {
        return one_by_one(conn, rows, given);
    }
    let Some(first) = first_free::<C, N>(conn, rows.len())? else { return one_by_one(conn, rows, given) };
    let kind = conn.kind();
    let mut generated = Vec::with_capacity(rows.len());
    let mut next = first;
    for rows in batches(kind, rows, given.len() + 1, usize::MAX) {
        let ids: Vec<i64> = (next..).take(rows.len()).collect();
        next += rows.len() as i64;
        let known = only_the_keys::<N>(&ids);
        let form = if known.is_some() { Form::Keyed } else { Form::KeyedReturning };
        let insert = Rows::new(kind, rows, given, form).with_keys(ids);
        let mut of_rows = match known {
            Some(known) => {
                let count = insert.execute(conn)?;
                if count != rows.len() {
                    return Err(counted::<N>(rows.len(), count));
                }
                known
            }
            None => {
                let mut stored: Vec<(Key<N>, N::Generated)> = insert.read(conn)?;
                stored.sort_by(|(one, _), (other, _)| one.cmp(other));
                in_order::<N>(rows.len(), stored)?
            }
        };
        generated.append(&mut of_rows);
    }
    Ok(generated)
}

/// The first of `rows` keys that SQLite would give next, if that can be known.
fn first_free<C, N>(conn: &mut C, rows: usize) -> QueryResult<Option<i64>>
where
    C: SessionConnection,
    N: NewRow,
    (i64, i64): FromSqlRow<(BigInt, BigInt), C::Backend>,
    i64: FromSqlRow<BigInt, C::Backend>,
    C::Backend: QueryMetadata<(BigInt, BigInt)> + QueryMetadata<BigInt>,
{
    if C::TransactionManager::transaction_manager_status_mut(conn).transaction_depth()?.is_none() {
        return Ok(None);
    }
    let found: Vec<(i64, i64)> = read(conn, Highest::<N::Entity>(PhantomData))?;
    let Some(&(highest, sequences)) = found.first() else { return Ok(None) };
    let mut highest = highest.max(0);
    match sequences {
        0 => {}
        1 => {
            let remembered = read::<C, _, i64>(conn, Sequence::<N::Entity>(PhantomData))?;
            highest = remembered.into_iter().fold(highest, i64::max);
        }
        _ => return Ok(None),
    }
    Ok(i64::try_from(rows).ok().and_then(|rows| highest.checked_add(rows)).map(|_| highest + 1))
}

/// The highest key; and 1 if the database has tables with AUTOINCREMENT, or 2 and more if a trigger or a temporary table
/// makes it uncertain what an insert does.
struct Highest<T>(PhantomData<T>);

impl<T: 'static> QueryId for Highest<T> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<T> Query for Highest<T> {
    type SqlType = (BigInt, BigInt);
}

impl<T: Row, DB: Backend> QueryFragment<DB> for Highest<T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT COALESCE((SELECT max(");
        push_names(&mut out, key_names::<T>().take(1))?;
        out.push_sql(") FROM ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql("), 0), (SELECT count(*) FROM ");
        push_schema::<T, DB>(&mut out)?;
        out.push_sql("sqlite_master WHERE name = 'sqlite_sequence') + 2 * (SELECT count(*) FROM ");
        push_schema::<T, DB>(&mut out)?;
        out.push_sql("sqlite_master WHERE type IN ('trigger', 'view') AND tbl_name = ");
        push_string::<T, DB>(&mut out);
        out.push_sql(") + 2 * (SELECT count(*) FROM sqlite_temp_master WHERE tbl_name = ");
        push_string::<T, DB>(&mut out);
        out.push_sql(")");
        Ok(())
    }
}

/// What AUTOINCREMENT remembers of a table.
struct Sequence<T>(PhantomData<T>);

impl<T: 'static> QueryId for Sequence<T> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<T> Query for Sequence<T> {
    type SqlType = BigInt;
}

impl<T: Row, DB: Backend> QueryFragment<DB> for Sequence<T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT seq FROM ");
        push_schema::<T, DB>(&mut out)?;
        out.push_sql("sqlite_sequence WHERE name = ");
        push_string::<T, DB>(&mut out);
        Ok(())
    }
}
