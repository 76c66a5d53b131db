//! What MySQL or MariaDB shows.

use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::db::{Conn, Database};

/// The server's threads: the same numbers are the same connections.
pub(crate) fn connected(database: &Database) -> Vec<i64> {
    let mut admin = Conn::establish(&database.admin_url).unwrap();
    let question = format!(
        "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = '{}' ORDER BY 1",
        database.name
    );
    diesel::dsl::sql::<BigInt>(&question).load(&mut admin).unwrap()
}

/// The server keeps no count of trouble for one database: the same threads are what it shows.
pub(crate) fn had_no_trouble(database: &Database) {
    assert!(!connected(database).is_empty());
}
