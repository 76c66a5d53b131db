//! SQLAlchemy's `test_unitofworkv2.py`: what is read after an update, and what is not.

use diesel::prelude::*;
use diesel_session::Bulk;

use super::recorder::{Stage, sent, texts, written};
use super::shape_tables::*;
use super::shapes::*;

// parity: EagerDefaultsTest::test_server_update_defaults_nonpresent
// parity: EagerDefaultsSettingTest::test_eager_default_setting_updates
#[test]
fn what_the_database_changes_in_an_update_shows_after_a_refresh() {
    let stage = Stage::new();
    let session = stage.session();
    let price = session.add(NewPrice { net: 5 }).unwrap();
    session.flush().unwrap();
    assert_eq!(price.read().unwrap().gross, Some(10));
    price.write().unwrap().net = 6;
    assert_eq!(sent(|| session.flush().unwrap()), ["UPDATE prices net"]);
    assert_eq!(price.read().unwrap().gross, Some(10));
    assert_eq!(sent(|| session.refresh(&price).unwrap()), ["SELECT prices"]);
    assert_eq!(price.read().unwrap().gross, Some(12));
    // A change of an old value of another column overwrites nothing.
    price.write().unwrap().net = 7;
    session.commit().unwrap();
    price.write().unwrap().net = 8;
    assert_eq!(price.read().unwrap().gross, Some(14));
    session.commit().unwrap();
    assert_eq!(stage.stored::<Option<i32>>(prices::table.select(prices::gross)), [Some(16)]);
}

// parity: EagerDefaultsTest::test_update_defaults_present_as_expr
// parity: EagerDefaultsTest::test_clientsql_update_defaults_nonpresent
#[test]
fn expressions_are_applied_and_all_that_they_changed_is_read_back() {
    let stage = Stage::new();
    let session = stage.session();
    let price = session.add(NewPrice { net: 5 }).unwrap();
    session.flush().unwrap();
    let steps = sent(|| session.apply(&price, prices::net.eq(prices::net + 1)).unwrap());
    assert_eq!(steps, ["UPDATE prices net", "SELECT prices"]);
    assert_eq!(*price.read().unwrap(), Price { id: price.id().unwrap(), net: 6, gross: Some(12) });
}

// parity: EagerDefaultsTest::test_update_defaults_bulk_update
#[test]
fn a_bulk_update_reads_nothing_back_and_writes_the_columns_that_it_was_told() {
    let stage = Stage::new();
    let session = stage.session();
    let prices = session.add_all((1..=4).map(|net| NewPrice { net })).unwrap();
    session.flush().unwrap();
    let rows: Vec<_> = prices.iter().map(|price| Price { net: 50, ..(*price.read().unwrap()).clone() }).collect();
    let steps = sent(|| session.bulk_update(rows, Bulk::new().columns(&["net"])).unwrap());
    assert_eq!(steps, ["UPDATE prices net"]);
    assert_eq!(prices[0].read().unwrap().gross, Some(2));
    assert!(prices[0].is_stale());
}

// parity: EagerDefaultsTest::test_update_dont_fetch_nondefaults
#[test]
fn a_stale_row_is_read_once_before_it_is_changed_and_not_after() {
    let stage = Stage::new();
    let session = stage.session();
    let one = session.add(gadget("one")).unwrap();
    session.flush().unwrap();
    session.expire(&one).unwrap();
    let steps = sent(|| {
        one.write().unwrap().label = "two".into();
        session.flush().unwrap();
        assert_eq!(one.read().unwrap().note, None);
    });
    assert_eq!(steps, ["SELECT gadgets", "UPDATE gadgets label"]);
}

// parity: TypeWoBoolTest::test_update_against_none
// parity: TypeWoBoolTest::test_update_against_something_else
// parity: TypeWoBoolTest::test_no_update_no_change
#[test]
fn values_of_the_programs_own_types_are_compared_by_their_equality() {
    let stage = Stage::new();
    let session = stage.session();
    let json = |text: &str| Some(Json(serde_json::from_str(text).unwrap()));
    let row = session.add(Shade { shade: Tone::Grey, note: None, other: None }).unwrap();
    session.commit().unwrap();
    let steps = [
        (None, false),
        (json("{\"a\": 1, \"b\": 2}"), true),
        (json("{\"b\": 2, \"a\": 1}"), false),
        (json("{\"a\": 2}"), true),
        (None, true),
    ];
    for (note, is_written) in steps {
        session.refresh(&row).unwrap();
        row.write().unwrap().note = note.clone();
        let expected = ["UPDATE shades note"];
        assert_eq!(written(|| session.flush().unwrap()), expected[..usize::from(is_written)], "{note:?}");
        assert_eq!(row.read().unwrap().note, note);
    }
    assert!(texts(|| session.flush().unwrap()).is_empty());
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(shades::table.filter(shades::note.is_null()).count()), [1]);
}
