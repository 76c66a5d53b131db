//! Corners of the flush: keys that are handed on, and rows that wait for others.

use diesel::prelude::*;

use super::models::Ring;
use super::recorder::{Stage, written};
use super::schema::rings;
use super::shape_tables::*;
use super::shapes::*;

#[test]
fn keys_are_handed_on_in_order_also_where_some_rows_have_other_changes() {
    let stage = Stage::new();
    let session = stage.session();
    let slot = |status| Slot { code: 1, status, title: format!("was {status}") };
    let [one, two, three] = [1, 2, 3].map(|status| session.add(slot(status)).unwrap());
    session.commit().unwrap();
    one.write().unwrap().status = 9;
    *two.write().unwrap() = Slot { code: 1, status: 8, title: "changed".into() };
    three.write().unwrap().status = 2;
    session.commit().unwrap();
    let stored = stage.stored::<(i32, String)>(slots::table.select((slots::status, slots::title)).order(slots::status));
    assert_eq!(stored, [(2, "was 3".into()), (8, "changed".into()), (9, "was 1".into())]);
    assert_eq!(session.get_one::<Slot>((1, 2)).unwrap(), three);
}

#[test]
fn a_changed_row_that_refers_to_a_new_one_of_its_table_is_written_after_it() {
    let stage = Stage::new();
    let session = stage.session();
    let [one, two] = [1, 2].map(|id| session.add(Ring { id, next_id: None }).unwrap());
    session.commit().unwrap();
    one.write().unwrap().next_id = Some(5);
    two.write().unwrap().next_id = Some(1);
    session.add(Ring { id: 5, next_id: None }).unwrap();
    let steps = written(|| session.commit().unwrap());
    assert_eq!(steps, ["UPDATE rings next_id", "INSERT rings", "UPDATE rings next_id"]);
    let stored = stage.stored::<(i32, Option<i32>)>(rings::table.order(rings::id));
    assert_eq!(stored, [(1, Some(5)), (2, Some(1)), (5, None)]);
}
