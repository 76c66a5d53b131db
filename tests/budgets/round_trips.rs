//! How often a work waits for the server.

use super::work::{Stage, all};
use crate::wire::Wire;

#[test]
fn a_work_takes_as_many_round_trips_as_its_budget_says() {
    for work in all() {
        let mut wire = None;
        let stage = Stage::reached(work.people, |url| wire.insert(Wire::new(url)).url(url));
        let wire = wire.unwrap();
        work.get_ready(&stage.registry);
        for run in ["third", "fourth"] {
            let before = wire.turns();
            (work.run)(&stage.registry);
            assert_eq!(wire.turns() - before, work.cost.round_trips, "{}, {run} run", work.name);
        }
    }
}
