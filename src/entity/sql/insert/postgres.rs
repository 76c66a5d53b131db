//! PostgreSQL: keys drawn from a sequence in the order of the rows.

use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use crate::backend::SessionConnection;
use crate::entity::ColumnSet;
use crate::entity::sql::kept::Form;
use crate::entity::sql::list::parts;
use crate::entity::sql::read::rows as read;
use crate::entity::sql::text::batches;
use crate::entity::sql::{Bind, NewRow};

use super::listed::Listed;
use super::statement::Rows;
use super::{Key, ReadBack, bound_for_lists, in_order, width};

/// `INSERT … SELECT … ORDER BY` draws the defaults after it has sorted (PostgreSQL docs, "INSERT", and SQLAlchemy's
/// `insertmanyvalues`, which relies on it too). The order is checked all the same: a sequence may count down.
pub(super) fn insert<C, N>(conn: &mut C, rows: &[&N], given: ColumnSet) -> QueryResult<Vec<N::Generated>>
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
    for rows in parts(kind, rows) {
        let bound = bound_for_lists(kind, rows);
        if let Some(insert) = Listed::<N, C::Backend>::new(conn, &bound, given, Form::Ordered)? {
            generated.append(&mut in_order::<N>(rows.len(), read(conn, insert)?)?);
            continue;
        }
        for rows in batches(kind, rows, width(kind, given), usize::MAX) {
            let form = if rows.len() == 1 { Form::Returning } else { Form::Ordered };
            let stored = Rows::new(kind, rows, given, form).read(conn)?;
            generated.append(&mut in_order::<N>(rows.len(), stored)?);
        }
    }
    Ok(generated)
}
