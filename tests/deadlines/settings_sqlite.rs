//! SQLite's time-outs, in milliseconds.

use diesel::sql_types::BigInt;

use super::db::Session;

/// What waits for locks: the transaction's own limits, as the connection has them now.
pub(crate) fn limits(session: &Session) -> Vec<i64> {
    vec![session.get_result(diesel::dsl::sql::<BigInt>("PRAGMA busy_timeout")).unwrap()]
}

/// The least that a limit can be told exactly.
pub(crate) const STEP: i64 = 1;
pub(crate) const SET: &str = "PRAGMA busy_timeout";
pub(crate) const CHANGE: &str = "PRAGMA busy_timeout = 77";
/// `setup`'s own, and how that reads.
pub(crate) const SETUP: &str = "PRAGMA busy_timeout = 4321";
pub(crate) const SETUP_READS: &[i64] = &[4321];
