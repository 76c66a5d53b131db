//! MySQL and MariaDB: keys counted from `LAST_INSERT_ID()` on, where the server promises that they are.

use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use crate::backend::SessionConnection;
use crate::entity::sql::kept::Form;
use crate::entity::sql::read::rows as read;
use crate::entity::sql::text::{ONE_BY_ONE, batches, key_names, push_names, push_table, refuse};
use crate::entity::sql::{Bind, NewRow};
use crate::entity::{ColumnSet, Entity};

use super::statement::{Rows, push_read_back};
use super::{Key, ReadBack, in_order, only_the_keys, width};

/// Several rows in a statement where their keys are then consecutive: in the lock modes 0 and 1 of InnoDB (MySQL docs,
/// "AUTO_INCREMENT Handling in InnoDB"). One by one in mode 2.
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
    let kind = conn.kind();
    let counting = if rows.len() > 1 { read::<C, _, (i64, i64)>(conn, Counting)? } else { Vec::new() };
    let (lock_mode, step) = counting.first().copied().unwrap_or((CONSECUTIVE, 1));
    let width = if (0..=CONSECUTIVE).contains(&lock_mode) { width(kind, given) } else { ONE_BY_ONE };
    let mut generated = Vec::with_capacity(rows.len());
    for rows in batches(kind, rows, width, usize::MAX) {
        Rows::new(kind, rows, given, Form::Counted).execute(conn)?;
        let more = rows.len() as i64 - 1;
        if only_the_keys::<N>(&[1]).is_some() {
            let (first, step) = first::<C, N>(conn, more, step)?;
            generated.append(&mut counted_from::<N>(rows.len(), first, step)?);
        } else {
            let stored = read(conn, Block::<N, true> { more, record: PhantomData })?;
            generated.append(&mut in_order::<N>(rows.len(), stored)?);
        }
    }
    Ok(generated)
}

/// The first key of the block that was inserted last, 0 if a row of it is missing, and how far apart its keys are. `step`: what
/// that was before, which a trigger may have changed.
fn first<C, N>(conn: &mut C, more: i64, step: i64) -> QueryResult<(i64, i64)>
where
    C: SessionConnection,
    N: NewRow,
    (i64, i64): FromSqlRow<(BigInt, BigInt), C::Backend>,
    i64: ToSql<BigInt, C::Backend>,
    C::Backend: QueryMetadata<(BigInt, BigInt)>,
{
    let found = |rows: Vec<(i64, i64)>| rows.first().copied().unwrap_or_default();
    if more == 0 || step == 1 {
        // Without MOD, which would take half as long again: there are no others between them.
        let (first, step) = found(read(conn, First(Block::<N, false> { more, record: PhantomData }))?);
        if more == 0 || step == 1 {
            return Ok((first, step));
        }
    }
    Ok(found(read(conn, First(Block::<N, true> { more, record: PhantomData }))?))
}

/// The keys of a block from its first one on, of which it is known that no row is missing.
fn counted_from<N: NewRow>(sent: usize, first: i64, step: i64) -> QueryResult<Vec<N::Generated>> {
    let not_consecutive = || {
        refuse(format!(
            "the keys of {sent} rows of {} are not those that AUTO_INCREMENT gives one after the other: does a trigger \
             give them? Then give the keys in the records, or insert the rows one by one",
            N::Entity::TABLE
        ))
    };
    if first <= 0 || step <= 0 {
        return Err(not_consecutive());
    }
    let keys: Vec<i64> = (0..sent as i64).map(|n| first + step * n).collect();
    only_the_keys::<N>(&keys).ok_or_else(not_consecutive)
}

/// InnoDB's lock mode in which, as in 0, the keys of one INSERT are consecutive.
const CONSECUTIVE: i64 = 1;

/// The lock mode, and how far apart generated keys are.
struct Counting;

impl QueryId for Counting {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Counting {
    type SqlType = (BigInt, BigInt);
}

impl<DB: Backend> QueryFragment<DB> for Counting {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT CAST(@@innodb_autoinc_lock_mode AS SIGNED), CAST(@@auto_increment_increment AS SIGNED)");
        Ok(())
    }
}

/// The rows of the last INSERT, which gave its first one the key `LAST_INSERT_ID()`. `APART`: their keys need not be
/// neighbours; a remainder then keeps out what connections with other offsets, as in a Galera cluster, put between.
struct Block<N, const APART: bool> {
    /// How many rows follow the first.
    more: i64,
    record: PhantomData<N>,
}

impl<N: 'static, const APART: bool> QueryId for Block<N, APART> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<N: NewRow, const APART: bool> Query for Block<N, APART> {
    type SqlType = ReadBack<N>;
}

impl<N, DB, const APART: bool> QueryFragment<DB> for Block<N, APART>
where
    N: NewRow,
    DB: Backend,
    i64: ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT ");
        push_read_back::<N, DB>(&mut out)?;
        self.push_from(&mut out)?;
        out.push_sql(" ORDER BY ");
        push_names(&mut out, key::<N>())
    }
}

impl<N: NewRow, const APART: bool> Block<N, APART> {
    fn push_from<'b, DB: Backend>(&'b self, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        i64: ToSql<BigInt, DB>,
    {
        out.push_sql(" FROM ");
        push_table::<N::Entity, DB>(out)?;
        out.push_sql(" WHERE ");
        push_names(out, key::<N>())?;
        out.push_sql(" BETWEEN LAST_INSERT_ID() AND LAST_INSERT_ID() + ");
        out.push_bind_param::<BigInt, i64>(&self.more)?;
        if APART {
            out.push_sql(" * @@auto_increment_increment AND MOD(");
            push_names(out, key::<N>())?;
            out.push_sql(", @@auto_increment_increment) = MOD(LAST_INSERT_ID(), @@auto_increment_increment)");
        }
        Ok(())
    }
}

fn key<N: NewRow>() -> impl Iterator<Item = &'static str> {
    key_names::<N::Entity>().take(1)
}

/// The first key of a block, 0 if a row of it is missing; and how far apart the keys are now.
struct First<N, const APART: bool>(Block<N, APART>);

impl<N: 'static, const APART: bool> QueryId for First<N, APART> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<N, const APART: bool> Query for First<N, APART> {
    type SqlType = (BigInt, BigInt);
}

impl<N, DB, const APART: bool> QueryFragment<DB> for First<N, APART>
where
    N: NewRow,
    DB: Backend,
    i64: ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT CAST(IF(COUNT(*) = ");
        out.push_bind_param::<BigInt, i64>(&self.0.more)?;
        out.push_sql(" + 1, LAST_INSERT_ID(), 0) AS SIGNED), CAST(@@auto_increment_increment AS SIGNED)");
        self.0.push_from(&mut out)
    }
}
