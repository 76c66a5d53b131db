//! MariaDB's time-outs, in milliseconds.

use diesel::sql_types::BigInt;

use super::db::Session;

/// What bounds statements and locks, as the connection has it now.
pub(crate) fn limits(session: &Session) -> Vec<i64> {
    ["max_statement_time", "innodb_lock_wait_timeout"]
        .into_iter()
        .map(|name| {
            let ask = format!("SELECT CAST(@@{name} * 1000 AS SIGNED)");
            session.get_result(diesel::dsl::sql::<BigInt>(&ask)).unwrap()
        })
        .collect()
}

/// The least that a limit can be told exactly: InnoDB waits for whole seconds.
pub(crate) const STEP: i64 = 1000;
pub(crate) const SET: &str = "SET SESSION max_statement_time";
pub(crate) const CHANGE: &str = "SET SESSION max_statement_time = 7, SESSION innodb_lock_wait_timeout = 8";
/// `setup`'s own, and how that reads.
pub(crate) const SETUP: &str = "SET SESSION max_statement_time = 43, SESSION innodb_lock_wait_timeout = 32";
pub(crate) const SETUP_READS: &[i64] = &[43_000, 32_000];

pub(crate) const SLEEP: &str = "SELECT SLEEP(20)";
