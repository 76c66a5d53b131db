//! How often MySQL or MariaDB itself says that its connection prepared a statement.

use diesel::prelude::*;
use diesel::sql_types::Text;

use super::work::{Stage, all};

#[derive(QueryableByName)]
struct Status {
    #[diesel(sql_type = Text)]
    #[diesel(column_name = "Value")]
    value: String,
}

/// Includes this question.
fn prepares(stage: &Stage) -> usize {
    let ask = || diesel::sql_query("SHOW SESSION STATUS LIKE 'Com_stmt_prepare'");
    let status: Status = stage.registry.transaction(|session| session.get_result(ask())).unwrap();
    status.value.parse().unwrap()
}

/// `2 INSERT, 1 UPDATE` are three.
fn number(kinds: &str) -> usize {
    kinds.split(", ").filter_map(|kind| kind.split(' ').next()?.parse::<usize>().ok()).sum()
}

#[test]
fn the_server_prepares_only_what_is_not_kept_in_a_work_that_comes_again() {
    for work in all() {
        let stage = Stage::new(work.people);
        work.get_ready(&stage.registry);
        prepares(&stage);
        let before = prepares(&stage);
        (work.run)(&stage.registry);
        assert_eq!(prepares(&stage) - before - 1, number(work.cost.anew), "{}", work.name);
    }
}
