//! What PostgreSQL shows.

use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::db::{Conn, Database};

fn ask(database: &Database, question: &str) -> Vec<i64> {
    let mut admin = Conn::establish(&database.admin_url).unwrap();
    let question = question.replace("{name}", &database.name);
    diesel::dsl::sql::<BigInt>(&question).load(&mut admin).unwrap()
}

/// The server's processes: the same numbers are the same connections.
pub(crate) fn connected(database: &Database) -> Vec<i64> {
    ask(database, "SELECT pid::bigint FROM pg_stat_activity WHERE datname = '{name}' ORDER BY 1")
}

/// Whether every session that ended said good-bye.
pub(crate) fn had_no_trouble(database: &Database) {
    let troubled = "SELECT sessions_abandoned + sessions_fatal + sessions_killed FROM pg_stat_database \
        WHERE datname = '{name}'";
    assert_eq!(ask(database, troubled), [0]);
}
