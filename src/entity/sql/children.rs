//! Rows by the keys of the rows that they refer to.

use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::expression::{QueryMetadata, Selectable};
use diesel::query_builder::QueryFragment;
use diesel::result::QueryResult;

use crate::backend::SessionConnection;
use crate::entity::ColumnSet;

use super::kept::{Kept, Purpose};
use super::read::rows;
use super::select::Select;
use super::text::{largest, padded};
use super::{BindKey, Row};

/// The rows whose columns `foreign_key` refer to any of these keys: ordered by their own key, for each
/// statement's worth of parents.
///
/// # Errors
/// What the database answered.
pub fn load_children<C, T, P>(conn: &mut C, keys: &[P::Key], foreign_key: &'static [usize]) -> QueryResult<Vec<T>>
where
    C: SessionConnection,
    P: BindKey<C::Backend>,
    T: Row + Selectable<C::Backend> + FromSqlRow<SqlTypeOf<T::SelectExpression>, C::Backend>,
    T::SelectExpression: QueryFragment<C::Backend>,
    C::Backend: QueryMetadata<SqlTypeOf<T::SelectExpression>>,
{
    let kind = conn.kind();
    let mut found = Vec::new();
    for keys in keys.chunks(largest(foreign_key.len())) {
        let mut select = Select::<T, P, _, false>::new(kind, keys, foreign_key, "");
        select.ordered = true;
        let columns: ColumnSet = foreign_key.iter().copied().collect();
        let size = padded(keys.len());
        let select = Kept::new::<T, C::Backend>(select, Purpose::SelectChildren, columns.bits(), size, true)?;
        found.append(&mut rows(conn, select)?);
    }
    Ok(found)
}
