//! What PostgreSQL itself says about its connection's prepared statements.

use diesel::sql_types::BigInt;

use super::work::{Stage, all};

fn prepared(stage: &Stage) -> i64 {
    let count = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM pg_prepared_statements");
    stage.registry.transaction(|session| session.get_result(count)).unwrap()
}

#[test]
fn the_server_keeps_no_more_statements_after_a_work_that_comes_again() {
    for work in all() {
        let stage = Stage::new(work.people);
        work.get_ready(&stage.registry);
        // The question itself is one.
        prepared(&stage);
        let before = prepared(&stage);
        (work.run)(&stage.registry);
        assert_eq!(prepared(&stage), before, "{}", work.name);
    }
}
