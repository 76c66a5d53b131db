//! Rows out of a statement.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::{Error as DieselError, QueryResult};

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
