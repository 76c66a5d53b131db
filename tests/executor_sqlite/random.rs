//! Batches of any jobs in any order: what is stored is what was acknowledged.

use proptest::prelude::*;

use crate::kinds::{FAULTY, HARMLESS, Kind, LOSING, Submitted, warm_up};
use crate::tools::Stand;

fn any_kind() -> impl Strategy<Value = Kind> {
    // Mostly batches that hold for a while.
    prop_oneof![
        4 => Just(Kind::Ok),
        3 => prop::sample::select(HARMLESS.to_vec()),
        1 => prop::sample::select([LOSING.as_slice(), FAULTY.as_slice()].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if crate::bank::long() { 2_000 } else { 48 }, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_is_what_was_acknowledged(
        batches in prop::collection::vec(prop::collection::vec((any_kind(), any::<bool>()), 1..9), 1..4)
    ) {
        let stand = Stand::new();
        warm_up(&stand);
        let mut number = 100;
        for batch in batches {
            let mut submitted = Submitted::new();
            stand.queued(|| {
                for (kind, is_retried) in &batch {
                    number += 1;
                    submitted.submit(&stand, *kind, number, *is_retried);
                }
            });
            submitted.check(&stand);
        }
    }
}
