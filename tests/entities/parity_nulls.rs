//! SQLAlchemy's `test_unitofworkv2.py`: NULL, a column's default, and a value that means nothing are three things.

use diesel::prelude::*;
use diesel_session::Bulk;

use super::recorder::Stage;
use super::shape_tables::*;
use super::shapes::*;

fn shade(shade: Tone, json: Option<serde_json::Value>) -> Shade {
    Shade { shade, note: json.clone().map(Json), other: json.map(Json) }
}

fn shades_of(stage: &Stage) -> Vec<(Option<String>, Option<String>)> {
    stage.stored(shades::table.select((shades::note, shades::other)).order(shades::shade))
}

/// Inserts by `add` or by `bulk_insert`.
fn insert(stage: &Stage, rows: Vec<Shade>, is_bulk: bool) {
    stage.store(|session| match is_bulk {
        true => assert_eq!(session.bulk_insert(rows, Bulk::new()).unwrap(), 2),
        false => drop(session.add_all(rows).unwrap()),
    });
}

// parity: NullEvaluatingTest::test_evalnull_nodefault_insert
// parity: NullEvaluatingTest::test_evalnull_nodefault_bulk_insert
// parity: NullEvaluatingTest::test_evalnull_default_insert
// parity: NullEvaluatingTest::test_evalnull_default_bulk_insert
// parity: NullEvaluatingTest::test_json_none_as_null
#[test]
fn a_null_of_json_is_a_value_with_and_without_a_default() {
    for is_bulk in [false, true] {
        let stage = Stage::new();
        let rows = vec![shade(Tone::Black, Some(serde_json::Value::Null)), shade(Tone::White, None)];
        insert(&stage, rows, is_bulk);
        assert_eq!(shades_of(&stage), [(Some("null".into()), Some("null".into())), (None, None)]);
        let session = stage.session();
        let row = session.get_one::<Shade>(Tone::Black).unwrap();
        assert_eq!(row.read().unwrap().note, Some(Json(serde_json::Value::Null)));
        row.write().unwrap().note = None;
        session.commit().unwrap();
        assert_eq!(shades_of(&stage)[0], (None, Some("null".into())));
    }
}

// parity: NullEvaluatingTest::test_no_evalnull_nodefault_insert
// parity: NullEvaluatingTest::test_no_evalnull_nodefault_bulk_insert
// parity: NullEvaluatingTest::test_no_evalnull_nodefault_insert_novalue
// parity: NullEvaluatingTest::test_evalnull_nodefault_insert_novalue
// parity: NullEvaluatingTest::test_evalnull_nodefault_bulk_insert_novalue
// parity: NullEvaluatingTest::test_builtin_evalnull_nodefault_insert
// parity: NullEvaluatingTest::test_builtin_evalnull_nodefault_insert_novalue
// parity: NullEvaluatingTest::test_builtin_evalnull_default_insert
// parity: NullEvaluatingTest::test_builtin_evalnull_default_bulk_insert
#[test]
fn none_is_null_also_where_the_column_has_a_default() {
    for is_bulk in [false, true] {
        let stage = Stage::new();
        insert(&stage, vec![shade(Tone::Black, None), shade(Tone::White, None)], is_bulk);
        assert_eq!(shades_of(&stage), [(None, None), (None, None)]);
        let records = vec![full_gadget("null", None), full_gadget("given", Some("given"))];
        stage.store(|session| match is_bulk {
            true => assert_eq!(session.bulk_insert(records, Bulk::new()).unwrap(), 2),
            false => drop(session.add_all(records).unwrap()),
        });
        let stored: Vec<(Option<String>, Option<String>)> =
            stage.stored(gadgets::table.select((gadgets::status, gadgets::note)).order(gadgets::id));
        assert_eq!(stored, [(None, None), (Some("given".into()), None)]);
    }
}

// parity: NullEvaluatingTest::test_evalnull_default_bulk_insert_novalue
// parity: NullEvaluatingTest::test_no_evalnull_default_insert
// parity: NullEvaluatingTest::test_no_evalnull_default_insert_novalue
// parity: NullEvaluatingTest::test_no_evalnull_default_bulk_insert_novalue
// parity: NullEvaluatingTest::test_builtin_evalnull_default_insert_novalue
// parity: NullEvaluatingTest::test_builtin_evalnull_default_bulk_insert_novalue
#[test]
fn a_column_that_is_left_out_has_its_default() {
    for is_bulk in [false, true] {
        let stage = Stage::new();
        let record = |size| SizedGadget { label: "label".into(), size, note: None, is_on: false };
        let records = vec![record(None), record(Some(9)), record(None)];
        stage.store(|session| match is_bulk {
            true => assert_eq!(session.bulk_insert(records, Bulk::new()).unwrap(), 3),
            false => {
                let made = session.add_all(records).unwrap();
                session.flush().unwrap();
                let known: Vec<_> = made.iter().map(|gadget| gadget.read().unwrap().size).collect();
                assert_eq!(known, [5, 9, 5]);
            }
        });
        let stored: Vec<(i32, Option<String>)> =
            stage.stored(gadgets::table.select((gadgets::size, gadgets::status)).order(gadgets::id));
        assert_eq!(stored, [(5, Some("new".into())), (9, Some("new".into())), (5, Some("new".into()))]);
    }
}
