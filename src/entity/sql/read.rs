//! Rows out of a statement.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::{Error as DieselError, QueryResult};

use crate::backend::{Kind, SessionConnection};

/// Runs a query and reads its rows.
pub(super) fn rows<C, Q, U>(conn: &mut C, query: Q) -> QueryResult<Vec<U>>
where
    C: LoadConnection<DefaultLoadingMode>,
    Q: Query + QueryFragment<C::Backend> + QueryId,
    C::Backend: QueryMetadata<Q::SqlType>,
    U: FromSqlRow<Q::SqlType, C::Backend>,
{
    let rows = LoadConnection::<DefaultLoadingMode>::load(conn, query)?;
    rows.map(|row| U::build_from_row(&row?).map_err(DieselError::DeserializationError)).collect()
}

/// Runs a query that gives one row at most.
pub(super) fn first<C, Q, U>(conn: &mut C, query: Q) -> QueryResult<Option<U>>
where
    C: SessionConnection,
    Q: Query + QueryFragment<C::Backend> + QueryId,
    C::Backend: QueryMetadata<Q::SqlType>,
    U: FromSqlRow<Q::SqlType, C::Backend>,
{
    let kind = conn.kind();
    let mut rows = LoadConnection::<DefaultLoadingMode>::load(conn, query)?;
    let Some(row) = rows.next() else { return Ok(None) };
    let row = U::build_from_row(&row?).map_err(DieselError::DeserializationError)?;
    // To ask SQLite whether there is another costs as much as the row.
    if kind != Kind::Sqlite {
        rows.for_each(drop);
    }
    Ok(Some(row))
}
