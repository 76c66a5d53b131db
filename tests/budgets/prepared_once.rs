//! Statements are prepared once for each connection.

use super::work::{Stage, all};
use crate::recorder::seen;

#[test]
fn a_work_that_comes_again_prepares_nothing_again() {
    for work in all() {
        let stage = Stage::new(work.people);
        work.get_ready(&stage.registry);
        for run in ["third", "fourth"] {
            let seen = seen(|| (work.run)(&stage.registry));
            assert!(seen.prepared.is_empty(), "{}, {run} run: {:?}", work.name, seen.prepared);
            assert_eq!(seen.anew(), work.cost.anew, "{}, {run} run: sent without being kept", work.name);
        }
    }
}

/// SQLite plans a statement anew when a bound LIMIT gets another value, and nobody sees it from outside
/// (`sqlite3ExprIsInteger`, 3.51).
#[test]
fn no_work_binds_a_limit() {
    let stage = Stage::new(10);
    for work in all() {
        let seen = seen(|| (work.run)(&stage.registry));
        assert!(!seen.texts().iter().any(|text| text.contains("LIMIT ?")), "{}", work.name);
    }
}
