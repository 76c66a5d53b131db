//! Marker rows: each writing transaction inserts a key of its own, so that another connection can find out whether it was
//! stored. Asked by INSERT: a SELECT would not see a commit that is still under way and say "not there"; the INSERT of
//! the same key waits for it.
//!
//! The table is always named with its database: a bare name leads elsewhere after `USE other`, or to a temporary table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::backend::Backend;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::query_dsl::methods::ExecuteDsl;
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Text};

use super::Witness;

/// The name of the table.
pub(crate) const TABLE: &str = "diesel_session_commits";

/// How long a marker row is kept: longer than anybody waits for the answer to a COMMIT.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Makes the table, where that has not been done; `options` are the database's own.
pub(crate) fn make<C: SimpleConnection>(conn: &mut C, table: &str, options: &str) -> QueryResult<()> {
    conn.batch_execute(&format!("CREATE TABLE IF NOT EXISTS {table} (id CHAR(36) NOT NULL PRIMARY KEY){options}"))
}

/// Forgets old rows.
pub(crate) fn prune<C: SimpleConnection>(conn: &mut C, table: &str) -> QueryResult<()> {
    // Keys begin with the time at which they were made, and sort by it (RFC 9562, UUID version 7).
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.saturating_sub(KEPT).as_millis()).unwrap_or(u64::MAX);
    let oldest = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    conn.batch_execute(&format!("DELETE FROM {table} WHERE id < '{oldest}'"))
}

/// Inserts a new key into the open transaction.
pub(crate) fn set<C>(conn: &mut C, table: &str, server: String) -> QueryResult<Witness>
where
    C: Connection,
    for<'a> Insert<'a>: ExecuteDsl<C>,
{
    let key = uuid::Uuid::now_v7().to_string();
    insert(conn, table, &key)?;
    Ok(Witness { key, server, table: table.to_owned() })
}

pub(crate) fn insert<C>(conn: &mut C, table: &str, key: &str) -> QueryResult<()>
where
    C: Connection,
    for<'a> Insert<'a>: ExecuteDsl<C>,
{
    Insert { table, key }.execute(conn).map(drop)
}

/// The INSERT of a key, which the statement cache knows by its text.
pub(crate) struct Insert<'a> {
    table: &'a str,
    key: &'a str,
}

impl QueryId for Insert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB> QueryFragment<DB> for Insert<'_>
where
    DB: Backend + HasSqlType<Text>,
    str: ToSql<Text, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("INSERT INTO ");
        out.push_sql(self.table);
        out.push_sql(" (id) VALUES (");
        out.push_bind_param::<Text, str>(self.key)?;
        out.push_sql(")");
        Ok(())
    }
}

impl<C> RunQueryDsl<C> for Insert<'_> {}
