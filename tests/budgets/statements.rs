//! Which statements go out, from the first time on.

use super::work::{Stage, all, read, read_alone, request};
use crate::recorder::seen;

const SELECT: &str = "SELECT people.id, people.name, people.email, people.city, people.born, people.visits \
                      FROM people WHERE id = ?";
const UPDATE: &str = "UPDATE people SET visits = ? WHERE id = ?";

#[test]
fn a_request_that_changes_a_column_sends_begin_select_update_of_that_column_and_commit() {
    let stage = Stage::new(10);
    for _ in 0..2 {
        let seen = seen(|| request(&stage.registry));
        assert_eq!(seen.texts(), [super::BUDGET.begin, SELECT, UPDATE, "COMMIT"]);
    }
}

#[test]
fn a_request_that_reads_a_row_sends_begin_select_and_commit() {
    let stage = Stage::new(10);
    read(&stage.registry);
    for _ in 0..2 {
        let seen = seen(|| read(&stage.registry));
        assert_eq!(seen.texts(), [super::BUDGET.begin_to_read, SELECT, "COMMIT"]);
    }
}

#[test]
fn an_autocommit_session_that_reads_a_row_sends_the_select_alone() {
    let stage = Stage::new(10);
    for _ in 0..2 {
        let seen = seen(|| read_alone(&stage.registry));
        assert_eq!(seen.texts(), [SELECT]);
    }
}

#[test]
fn a_connection_is_told_that_it_only_reads_where_it_wrote_before_and_the_other_way_round() {
    let stage = Stage::new(10);
    let budget = super::BUDGET;
    for _ in 0..2 {
        let to_read = seen(|| read(&stage.registry));
        assert_eq!(to_read.texts(), [budget.turned_to_read, &[budget.begin_to_read, SELECT, "COMMIT"]].concat());
        let to_write = seen(|| request(&stage.registry));
        assert_eq!(to_write.texts(), [budget.turned_to_write, &[budget.begin, SELECT, UPDATE, "COMMIT"]].concat());
    }
}

#[test]
fn every_work_sends_as_many_statements_of_each_kind_as_its_budget_says() {
    for work in all() {
        let stage = Stage::new(work.people);
        work.get_ready(&stage.registry);
        let seen = seen(|| (work.run)(&stage.registry));
        assert_eq!(seen.kinds(), work.cost.sent, "{}", work.name);
    }
}
