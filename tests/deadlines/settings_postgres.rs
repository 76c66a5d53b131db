//! PostgreSQL's time-outs, in milliseconds.

use diesel::sql_types::BigInt;

use super::db::Session;

/// What bounds statements and locks, as the connection has it now.
pub(crate) fn limits(session: &Session) -> Vec<i64> {
    ["statement_timeout", "lock_timeout"]
        .into_iter()
        .map(|name| {
            let ask = format!("SELECT (extract(epoch FROM current_setting('{name}')::interval) * 1000)::bigint");
            session.get_result(diesel::dsl::sql::<BigInt>(&ask)).unwrap()
        })
        .collect()
}

/// The least that a limit can be told exactly.
pub(crate) const STEP: i64 = 1;
pub(crate) const SET: &str = "SET LOCAL";
pub(crate) const CHANGE: &str = "SET statement_timeout = 7777; SET lock_timeout = 7778";
/// `setup`'s own, and how that reads.
pub(crate) const SETUP: &str = "SET statement_timeout = 43210; SET lock_timeout = 3210";
pub(crate) const SETUP_READS: &[i64] = &[43210, 3210];

pub(crate) const SLEEP: &str = "SELECT pg_sleep(20)";
