//! What the file shows.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;

use super::db::{Conn, Database};

/// How many connections there are.
pub(crate) fn connected(database: &Database) -> Vec<i64> {
    vec![database.connections()]
}

/// Whether the file is sound and its lock free.
pub(crate) fn had_no_trouble(database: &Database) {
    let mut conn = Conn::establish(&database.url).unwrap();
    let check = diesel::dsl::sql::<Text>("PRAGMA integrity_check").get_result::<String>(&mut conn).unwrap();
    assert_eq!(check, "ok");
    conn.batch_execute("BEGIN IMMEDIATE; ROLLBACK").unwrap();
}
