//! Rows by their keys.

use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::expression::{Expression, QueryMetadata, Selectable};
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

use crate::backend::{Kind, SessionConnection};
use crate::entity::{Entity, LockStrength, LockWait, RowLock};

use super::kept::{Kept, Named, Purpose};
use super::read::{first, rows};
use super::text::{key_names, largest, padded, push_in, push_names, push_table};
use super::{BindKey, Columns, Row};

/// The row of this key.
///
/// # Errors
/// What the database answered.
pub fn load_by_key<C, T>(conn: &mut C, key: &T::Key) -> QueryResult<Option<T>>
where
    C: SessionConnection,
    T: Row + BindKey<C::Backend> + Selectable<C::Backend> + FromSqlRow<SqlTypeOf<T::SelectExpression>, C::Backend>,
    T::SelectExpression: QueryFragment<C::Backend>,
    C::Backend: QueryMetadata<SqlTypeOf<T::SelectExpression>>,
{
    let select = Select::<T, T, _, true>::new(conn.kind(), std::slice::from_ref(key), T::KEY, "");
    first(conn, Named(select))
}

/// The rows of these keys, in any order.
///
/// # Errors
/// What the database answered.
pub fn load_by_keys<C, T>(conn: &mut C, keys: &[T::Key], lock: Option<RowLock>) -> QueryResult<Vec<T>>
where
    C: SessionConnection,
    T: Row + BindKey<C::Backend> + Selectable<C::Backend> + FromSqlRow<SqlTypeOf<T::SelectExpression>, C::Backend>,
    T::SelectExpression: QueryFragment<C::Backend>,
    C::Backend: QueryMetadata<SqlTypeOf<T::SelectExpression>>,
{
    let kind = conn.kind();
    if let ([key], None) = (keys, lock) {
        return Ok(load_by_key(conn, key)?.into_iter().collect());
    }
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(largest(T::KEY.len())) {
        let lock = lock.map_or("", |lock| lock_clause(kind, lock));
        let select = Select::<T, T, _, false>::new(kind, keys, T::KEY, lock);
        found.append(&mut if lock.is_empty() {
            let size = padded(keys.len());
            rows(conn, Kept::new::<T, C::Backend>(select, Purpose::SelectByKeys, 0, size, true)?)?
        } else {
            rows(conn, select)?
        });
    }
    Ok(found)
}

/// How each database spells the lock.
fn lock_clause(kind: Kind, lock: RowLock) -> &'static str {
    use LockStrength::{KeyShare, NoKeyUpdate, Share, Update};
    use LockWait::{NoWait, SkipLocked, Wait};
    match (kind, lock.strength, lock.wait) {
        (Kind::Sqlite, ..) => "",
        (Kind::Postgres, Update, Wait) | (Kind::Mysql, Update | NoKeyUpdate, Wait) => " FOR UPDATE",
        (Kind::Postgres, Update, NoWait) | (Kind::Mysql, Update | NoKeyUpdate, NoWait) => " FOR UPDATE NOWAIT",
        (Kind::Postgres, Update, SkipLocked) | (Kind::Mysql, Update | NoKeyUpdate, SkipLocked) => {
            " FOR UPDATE SKIP LOCKED"
        }
        (Kind::Postgres, NoKeyUpdate, Wait) => " FOR NO KEY UPDATE",
        (Kind::Postgres, NoKeyUpdate, NoWait) => " FOR NO KEY UPDATE NOWAIT",
        (Kind::Postgres, NoKeyUpdate, SkipLocked) => " FOR NO KEY UPDATE SKIP LOCKED",
        (Kind::Postgres, Share, Wait) => " FOR SHARE",
        (Kind::Postgres, Share, NoWait) => " FOR SHARE NOWAIT",
        (Kind::Postgres, Share, SkipLocked) => " FOR SHARE SKIP LOCKED",
        (Kind::Postgres, KeyShare, Wait) => " FOR KEY SHARE",
        (Kind::Postgres, KeyShare, NoWait) => " FOR KEY SHARE NOWAIT",
        (Kind::Postgres, KeyShare, SkipLocked) => " FOR KEY SHARE SKIP LOCKED",
        (Kind::Mysql, Share | KeyShare, Wait) => " LOCK IN SHARE MODE",
        // MySQL 8 takes these words only after FOR SHARE, which MariaDB does not know; each reads its own comment
        // (MariaDB docs, "Comment Syntax").
        (Kind::Mysql, Share | KeyShare, NoWait) => " /*!80001 FOR SHARE NOWAIT */ /*M! LOCK IN SHARE MODE NOWAIT */",
        (Kind::Mysql, Share | KeyShare, SkipLocked) => {
            " /*!80001 FOR SHARE SKIP LOCKED */ /*M! LOCK IN SHARE MODE SKIP LOCKED */"
        }
    }
}

/// `SELECT … FROM t WHERE columns IN (keys of P)`. `ONE`: by the key of the table itself, one of them and without a lock,
/// which the statement cache finds without its text.
pub(super) struct Select<'a, T: Selectable<DB>, P: Entity, DB: Backend, const ONE: bool> {
    kind: Kind,
    selection: T::SelectExpression,
    keys: &'a [P::Key],
    /// The columns of `T` that the keys are compared with.
    columns: &'static [usize],
    /// What follows.
    suffix: &'static str,
    /// Whether the rows are ordered by their own key.
    pub(super) ordered: bool,
    backend: PhantomData<DB>,
}

impl<'a, T: Selectable<DB>, P: Entity, DB: Backend, const ONE: bool> Select<'a, T, P, DB, ONE> {
    pub(super) fn new(kind: Kind, keys: &'a [P::Key], columns: &'static [usize], suffix: &'static str) -> Self {
        let selection = T::construct_selection();
        Self { kind, selection, keys, columns, suffix, ordered: false, backend: PhantomData }
    }
}

/// Names the SELECT of one row by its key.
pub(super) struct OneByKey<T>(PhantomData<T>);

impl<T: Selectable<DB> + 'static, P: Entity, DB: Backend, const ONE: bool> QueryId for Select<'_, T, P, DB, ONE> {
    type QueryId = OneByKey<T>;
    const HAS_STATIC_QUERY_ID: bool = ONE;
}

impl<T: Selectable<DB>, P: Entity, DB: Backend, const ONE: bool> Query for Select<'_, T, P, DB, ONE> {
    type SqlType = <T::SelectExpression as Expression>::SqlType;
}

impl<T, P, DB, const ONE: bool> QueryFragment<DB> for Select<'_, T, P, DB, ONE>
where
    T: Row + Selectable<DB>,
    T::SelectExpression: QueryFragment<DB>,
    P: BindKey<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if ONE && out.bind_collector().is_some() {
            // Nothing else of it is asked for, for each execution, but what a selection written by hand may bind.
            self.selection.walk_ast(out.reborrow())?;
            for part in 0..self.columns.len() {
                P::bind_key(&self.keys[0], part, out.reborrow())?;
            }
            return Ok(());
        }
        if self.kind == Kind::Mysql && !self.suffix.is_empty() {
            // A SELECT that fails after its first packet, as one that waits for a lock does, leaves a statement behind
            // whose next execution waits for ever (libmariadb with diesel 2.3.14).
            out.unsafe_to_cache_prepared();
        }
        out.push_sql("SELECT ");
        self.selection.walk_ast(out.reborrow())?;
        out.push_sql(" FROM ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" WHERE ");
        let names = self.columns.iter().map(|&column| <T as Columns>::name(column));
        push_in::<P, DB>(&mut out, self.kind, names, self.keys, padded(self.keys.len()))?;
        if self.ordered {
            out.push_sql(" ORDER BY ");
            push_names(&mut out, key_names::<T>())?;
        }
        out.push_sql(self.suffix);
        Ok(())
    }
}
