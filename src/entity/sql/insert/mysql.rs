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
    let in_blocks = rows.len() > 1 && read::<C, _, i64>(conn, LockMode)?.iter().all(|mode| [0, 1].contains(mode));
    let width = if in_blocks { width(kind, given) } else { ONE_BY_ONE };
    let mut generated = Vec::with_capacity(rows.len());
    for rows in batches(kind, rows, width, usize::MAX) {
        Rows::new(kind, rows, given, Form::Counted).execute(conn)?;
        let more = rows.len() as i64 - 1;
        if only_the_keys::<N>(&[1]).is_some() {
            let ends: Vec<(i64, i64)> = read(conn, Ends::<N>(Block { more, record: PhantomData }))?;
            generated.append(&mut between::<N>(rows.len(), ends.first().copied())?);
        } else {
            let stored = read(conn, Block::<N> { more, record: PhantomData })?;
            generated.append(&mut in_order::<N>(rows.len(), stored)?);
        }
    }
    Ok(generated)
}

/// The keys of a block between its first and its last one, of which it is known that no row is missing.
fn between<N: NewRow>(sent: usize, ends: Option<(i64, i64)>) -> QueryResult<Vec<N::Generated>> {
    let not_consecutive = || {
        refuse(format!(
            "the keys of {sent} rows of {} are not those that AUTO_INCREMENT gives one after the other: does a trigger \
             give them? Then give the keys in the records, or insert the rows one by one",
            N::Entity::TABLE
        ))
    };
    let (first, last) = ends.filter(|(first, _)| *first > 0).ok_or_else(not_consecutive)?;
    let more = sent as i64 - 1;
    let step = if more > 0 { (last - first) / more } else { 0 };
    if first + step * more != last || (more > 0 && step <= 0) {
        return Err(not_consecutive());
    }
    let keys: Vec<i64> = (0..sent as i64).map(|n| first + step * n).collect();
    only_the_keys::<N>(&keys).ok_or_else(not_consecutive)
}

/// `innodb_autoinc_lock_mode`
struct LockMode;

impl QueryId for LockMode {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for LockMode {
    type SqlType = BigInt;
}

impl<DB: Backend> QueryFragment<DB> for LockMode {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT CAST(@@innodb_autoinc_lock_mode AS SIGNED)");
        Ok(())
    }
}

/// The rows of the last INSERT, which gave its first one the key `LAST_INSERT_ID()`. The remainder keeps out what
/// connections with other offsets, as in a Galera cluster, put between.
struct Block<N> {
    /// How many rows follow the first.
    more: i64,
    record: PhantomData<N>,
}

impl<N: 'static> QueryId for Block<N> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<N: NewRow> Query for Block<N> {
    type SqlType = ReadBack<N>;
}

impl<N, DB> QueryFragment<DB> for Block<N>
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

impl<N: NewRow> Block<N> {
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
        out.push_sql(" * @@auto_increment_increment AND MOD(");
        push_names(out, key::<N>())?;
        out.push_sql(", @@auto_increment_increment) = MOD(LAST_INSERT_ID(), @@auto_increment_increment)");
        Ok(())
    }
}

fn key<N: NewRow>() -> impl Iterator<Item = &'static str> {
    key_names::<N::Entity>().take(1)
}

/// The first and the last key of a block, where nothing else was generated; 0 for the first if a row is missing.
struct Ends<N>(Block<N>);

impl<N: 'static> QueryId for Ends<N> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<N> Query for Ends<N> {
    type SqlType = (BigInt, BigInt);
}

impl<N, DB> QueryFragment<DB> for Ends<N>
where
    N: NewRow,
    DB: Backend,
    i64: ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT CAST(IF(COUNT(*) = ");
        out.push_bind_param::<BigInt, i64>(&self.0.more)?;
        out.push_sql(" + 1, MIN(");
        push_names(&mut out, key::<N>())?;
        out.push_sql("), 0) AS SIGNED), CAST(COALESCE(MAX(");
        push_names(&mut out, key::<N>())?;
        out.push_sql("), 0) AS SIGNED)");
        self.0.push_from(&mut out)
    }
}
