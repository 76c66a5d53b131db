//! New rows, and what the database generated for them.
//!
//! No database promises an order of what INSERT … RETURNING gives. What is read back is matched by the key: one that the
//! record gives, or one that must come out in the order of the rows.

use std::any::{Any, TypeId};
use std::collections::HashMap;

use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Integer, SmallInt};

use crate::backend::{Kind, SessionConnection};
use crate::entity::{ColumnSet, Entity, Record};

use super::kept::Form;
use super::list::parts;
use super::read::rows as read;
use super::text::{ONE_BY_ONE, batches, key_names, largest, refuse};
use super::{Bind, BindKey, Columns, NewRow, Row};

use diesel::RunQueryDsl;
use listed::Listed;
use statement::Rows;

mod listed;
mod mysql;
mod postgres;
mod sqlite;
mod statement;

pub(super) type Key<N> = <<N as Record>::Entity as Entity>::Key;
pub(super) type KeySqlType<N> = <<N as Record>::Entity as Row>::KeySqlType;

/// The SQL type of what is read back: the key, then what was generated.
pub(super) type ReadBack<N> = (KeySqlType<N>, <N as NewRow>::GeneratedSqlType);

/// Inserts the rows and gives what the database generated for each, in the order of the rows.
///
/// # Errors
/// What the database answered; or what it generated can't be matched to the rows for certain.
pub fn insert<C, N>(conn: &mut C, rows: &[&N]) -> QueryResult<Vec<N::Generated>>
where
    C: SessionConnection,
    N: NewRow,
    N::Entity: BindKey<C::Backend>,
    for<'a> N::Bound<'a>: Bind<C::Backend>,
    KeySqlType<N>: 'static,
    (Key<N>, N::Generated): FromSqlRow<ReadBack<N>, C::Backend>,
    (i64, i64): FromSqlRow<(BigInt, BigInt), C::Backend>,
    i64: FromSqlRow<BigInt, C::Backend> + ToSql<BigInt, C::Backend>,
    C::Backend: QueryMetadata<ReadBack<N>> + QueryMetadata<(BigInt, BigInt)> + QueryMetadata<BigInt>,
{
    let kind = conn.kind();
    let mut generated = Vec::with_capacity(rows.len());
    for (given, rows) in runs(rows) {
        let mut of_run = if gives_key::<N>(given) {
            with_key(conn, rows, given)?
        } else {
            match (kind, has_integer_key::<N>()) {
                (Kind::Sqlite, true) => sqlite::insert(conn, rows, given)?,
                (Kind::Postgres, true) => postgres::insert(conn, rows, given)?,
                (Kind::Mysql, true) => mysql::insert(conn, rows, given)?,
                (Kind::Sqlite | Kind::Postgres, false) => one_by_one(conn, rows, given)?,
                (Kind::Mysql, false) => {
                    return Err(refuse(format!(
                        "MySQL can't tell the key that it generated for a row of {}, which is no single integer: give \
                         the key in the record",
                        N::Entity::TABLE
                    )));
                }
            }
        };
        generated.append(&mut of_run);
    }
    Ok(generated)
}

/// [`insert`] for a record of which the database generates nothing.
///
/// # Errors
/// What the database answered.
pub fn insert_given<C, N>(conn: &mut C, rows: &[&N]) -> QueryResult<Vec<()>>
where
    C: SessionConnection,
    N: NewRow<Generated = ()>,
    for<'a> N::Bound<'a>: Bind<C::Backend>,
    i64: ToSql<BigInt, C::Backend>,
{
    let count = insert_only(conn, rows)?;
    if count != rows.len() {
        return Err(counted::<N>(rows.len(), count));
    }
    Ok(vec![(); count])
}

/// Inserts the rows where nobody wants to know what was generated; gives how many.
///
/// # Errors
/// What the database answered.
pub fn insert_only<C, N>(conn: &mut C, rows: &[&N]) -> QueryResult<usize>
where
    C: SessionConnection,
    N: NewRow,
    for<'a> N::Bound<'a>: Bind<C::Backend>,
    i64: ToSql<BigInt, C::Backend>,
{
    let kind = conn.kind();
    let mut count = 0;
    for (given, rows) in runs(rows) {
        for rows in parts(kind, rows) {
            let bound = bound_for_lists(kind, rows);
            if let Some(insert) = Listed::<N, C::Backend>::new(conn, &bound, given, Form::Values)? {
                count += insert.execute(conn)?;
                continue;
            }
            for rows in batches(kind, rows, width(kind, given), usize::MAX) {
                count += Rows::new(kind, rows, given, Form::Values).execute(conn)?;
            }
        }
    }
    Ok(count)
}

/// The rows as they are bound, where there are lists to put them in.
fn bound_for_lists<'r, N: NewRow>(kind: Kind, rows: &[&'r N]) -> Vec<N::Bound<'r>> {
    if kind == Kind::Postgres { rows.iter().map(|row| row.bound()).collect() } else { Vec::new() }
}

/// Runs of rows that give the same columns.
fn runs<'r, 'n, N: NewRow>(rows: &'r [&'n N]) -> impl Iterator<Item = (ColumnSet, &'r [&'n N])> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let given = left.first()?.given();
        let same = left.iter().position(|row| row.given() != given).unwrap_or(left.len());
        let (run, later) = left.split_at(same);
        left = later;
        Some((given, run))
    })
}

/// How many binds a row has; rows without any go one by one where there is no form for several.
fn width(kind: Kind, given: ColumnSet) -> usize {
    if given.is_empty() && kind != Kind::Mysql { ONE_BY_ONE } else { given.len() }
}

fn gives_key<N: NewRow>(given: ColumnSet) -> bool {
    key_names::<N::Entity>().all(|key| given.iter().any(|column| <N as Columns>::name(column) == key))
}

/// Whether the key is one column of the types that databases count up.
fn has_integer_key<N: NewRow>() -> bool
where
    KeySqlType<N>: 'static,
{
    let key = TypeId::of::<KeySqlType<N>>();
    #[cfg(feature = "mysql")]
    {
        use diesel::sql_types::Unsigned;
        let unsigned =
            [TypeId::of::<Unsigned<SmallInt>>(), TypeId::of::<Unsigned<Integer>>(), TypeId::of::<Unsigned<BigInt>>()];
        if unsigned.contains(&key) {
            return true;
        }
    }
    [TypeId::of::<SmallInt>(), TypeId::of::<Integer>(), TypeId::of::<BigInt>()].contains(&key)
}

/// Rows that bring their keys: matched by them.
fn with_key<C, N>(conn: &mut C, rows: &[&N], given: ColumnSet) -> QueryResult<Vec<N::Generated>>
where
    C: SessionConnection,
    N: NewRow,
    N::Entity: BindKey<C::Backend>,
    for<'a> N::Bound<'a>: Bind<C::Backend>,
    (Key<N>, N::Generated): FromSqlRow<ReadBack<N>, C::Backend>,
    i64: ToSql<BigInt, C::Backend>,
    C::Backend: QueryMetadata<ReadBack<N>>,
{
    let kind = conn.kind();
    let missing = || refuse(format!("a record of {} gives its key's columns, but not its key", N::Entity::TABLE));
    let keys: Vec<Key<N>> = rows.iter().map(|row| row.given_key().ok_or_else(missing)).collect::<QueryResult<_>>()?;
    let mut stored = HashMap::with_capacity(rows.len());
    for rows in parts(kind, rows) {
        let bound = bound_for_lists(kind, rows);
        if let Some(insert) = Listed::<N, C::Backend>::new(conn, &bound, given, Form::Returning)? {
            stored.extend(read(conn, insert)?);
            continue;
        }
        for rows in batches(kind, rows, width(kind, given), usize::MAX) {
            if kind == Kind::Mysql {
                Rows::new(kind, rows, given, Form::Values).execute(conn)?;
            } else {
                stored.extend(Rows::new(kind, rows, given, Form::Returning).read(conn)?);
            }
        }
    }
    if kind == Kind::Mysql {
        for keys in keys.chunks(largest(N::Entity::KEY.len())) {
            stored.extend(read(conn, statement::Again::<N> { kind, keys })?);
        }
    }
    let unmatched = |key| {
        refuse(format!(
            "{} stored another key than the record's {key:?}, so that what it generated can't be matched: is it cut, \
             padded or changed by a trigger?",
            N::Entity::TABLE
        ))
    };
    keys.into_iter().map(|key| stored.remove(&key).ok_or_else(|| unmatched(key))).collect()
}

/// Rows whose keys come in an order that nothing is known of.
fn one_by_one<C, N>(conn: &mut C, rows: &[&N], given: ColumnSet) -> QueryResult<Vec<N::Generated>>
where
    C: SessionConnection,
    N: NewRow,
    for<'a> N::Bound<'a>: Bind<C::Backend>,
    (Key<N>, N::Generated): FromSqlRow<ReadBack<N>, C::Backend>,
    i64: ToSql<BigInt, C::Backend>,
    C::Backend: QueryMetadata<ReadBack<N>>,
{
    let kind = conn.kind();
    let mut generated = Vec::with_capacity(rows.len());
    for row in rows.chunks(1) {
        generated.append(&mut in_order::<N>(1, Rows::new(kind, row, given, Form::Returning).read(conn)?)?);
    }
    Ok(generated)
}

/// What was generated for `sent` rows whose keys were counted up in their order.
fn in_order<N: NewRow>(sent: usize, stored: Vec<(Key<N>, N::Generated)>) -> QueryResult<Vec<N::Generated>> {
    if stored.len() != sent {
        return Err(counted::<N>(sent, stored.len()));
    }
    if !stored.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err(refuse(format!(
            "the keys of {} don't count up, so that what was generated can't be matched to the rows: give the keys in \
             the records, or insert the rows one by one",
            N::Entity::TABLE
        )));
    }
    Ok(stored.into_iter().map(|(_, generated)| generated).collect())
}

/// What was generated, where that is nothing but the key and of one of the usual types: it need not be read back then. Keys of
/// `u64` may lie beyond what can be counted in `i64`.
fn only_the_keys<N: NewRow>(keys: &[i64]) -> Option<Vec<N::Generated>> {
    if !N::GENERATED.iter().copied().eq(key_names::<N::Entity>()) {
        return None;
    }
    typed::<i32, _>(keys).or_else(|| typed::<i64, _>(keys)).or_else(|| typed::<u32, _>(keys))
}

/// The keys as a list of `G`, if that is `K`, alone or as a tuple of one.
fn typed<K: TryFrom<i64> + 'static, G: 'static>(keys: &[i64]) -> Option<Vec<G>> {
    let made = || keys.iter().map(|key| K::try_from(*key).ok());
    let list: Box<dyn Any> = if TypeId::of::<G>() == TypeId::of::<K>() {
        Box::new(made().collect::<Option<Vec<K>>>()?)
    } else if TypeId::of::<G>() == TypeId::of::<(K,)>() {
        Box::new(made().map(|key| Some((key?,))).collect::<Option<Vec<(K,)>>>()?)
    } else {
        return None;
    };
    list.downcast().ok().map(|list| *list)
}

fn counted<N: NewRow>(sent: usize, stored: usize) -> diesel::result::Error {
    refuse(format!("{} rows were sent to {} and {stored} stored", sent, N::Entity::TABLE))
}
