//! SQLAlchemy's `test_unitofwork.py` and `test_unitofworkv2.py`: what the database makes of an insert.

use diesel::prelude::*;

use super::recorder::{Stage, count, is_mysql, texts, written};
use super::shape_tables::*;
use super::shapes::*;
use diesel_session::{Bulk, ObjectState};

// parity: DefaultTest::test_insert
// parity: DefaultTest::test_eager_defaults
// parity: EagerDefaultsTest::test_server_insert_defaults_nonpresent
// parity: EagerDefaultsSettingTest::test_eager_default_setting_inserts
// parity: EagerDefaultsSettingTest::test_eager_default_setting_inserts_no_pks
#[test]
fn what_a_record_names_as_generated_comes_back_with_the_insert() {
    let stage = Stage::new();
    let session = stage.session();
    let one = session.add(gadget("one")).unwrap();
    let statements = texts(|| session.flush().unwrap());
    // Where an INSERT gives nothing back the row is asked for once.
    let insert = statements.iter().position(|text| text.starts_with("INSERT")).unwrap();
    assert_eq!(statements.len() - insert, if is_mysql() { 2 } else { 1 }, "{statements:?}");
    let known = one.read().unwrap();
    assert_eq!((known.status.as_deref(), known.size), (Some("new"), 5));
    let keyed = session.add(KeyedGadget { id: 77, label: "two".into(), note: None, is_on: true }).unwrap();
    let statements = texts(|| session.flush().unwrap());
    assert_eq!(statements.len(), if is_mysql() { 2 } else { 1 }, "{statements:?}");
    assert_eq!(keyed.read().unwrap().size, 5);
    let many = session.add_all(["a", "b", "c", "d"].map(gadget)).unwrap();
    assert_eq!(count("INSERT", || session.flush().unwrap()), 1);
    assert!(many.iter().all(|gadget| gadget.read().unwrap().size == 5));
    // Nothing is left to be read later.
    assert!(texts(|| assert!(many.iter().all(|gadget| !gadget.is_stale()))).is_empty());
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(gadgets::table.filter(gadgets::status.eq("new")).count()), [6]);
}

// parity: DefaultTest::test_insert_nopostfetch
// parity: EagerDefaultsTest::test_server_insert_defaults_present
#[test]
fn a_row_that_gives_every_column_is_inserted_and_nothing_read() {
    let stage = Stage::new();
    let session = stage.session();
    let row = |id| Gadget { id, label: "l".into(), status: Some("old".into()), size: 2, note: None, is_on: false };
    session.add_all((1..=4).map(row)).unwrap();
    let statements = texts(|| session.flush().unwrap());
    let inserts: Vec<_> = statements.iter().skip_while(|text| !text.starts_with("INSERT")).collect();
    assert_eq!(inserts.len(), 1, "{inserts:?}");
    assert!(!inserts[0].contains("RETURNING"));
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(gadgets::table.filter(gadgets::size.eq(2)).count()), [4]);
}

// parity: DefaultTest::test_update
#[test]
fn what_a_hook_changes_before_an_update_is_written_and_shown() {
    let stage = Stage::new();
    let id = stage.store(|session| session.add(gadget("one")).unwrap().id().unwrap());
    let session = stage.session();
    let one = session.get_one::<Noted>(id).unwrap();
    one.write().unwrap().label = "two".into();
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE gadgets label note"]);
    assert_eq!(one.read().unwrap().note.as_deref(), Some("updated"));
    session.commit().unwrap();
    assert_eq!(stage.stored::<Option<String>>(gadgets::table.select(gadgets::note)), [Some("updated".into())]);
}

// parity: DefaultTest::test_used_in_relationship
#[test]
fn a_child_may_refer_to_what_the_database_made_of_its_parent() {
    let stage = Stage::new();
    let session = stage.session();
    let badge = session.add(AnyBadge { code: None }).unwrap();
    let scan = session.add_with(&badge, |badge| NewScan { code: badge.code.clone() }).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["INSERT badges", "INSERT scans"]);
    assert_eq!(scan.read().unwrap().code, "first");
    assert_eq!(stage.stored::<String>(scans::table.select(scans::code)), ["first"]);
}

// parity: EagerDefaultsTest::test_insert_dont_fetch_nondefaults
#[test]
fn a_column_that_is_not_generated_is_null_and_not_asked_for() {
    let stage = Stage::new();
    let session = stage.session();
    let one = session.add(gadget("one")).unwrap();
    let statements = texts(|| session.flush().unwrap());
    let insert = statements.iter().find(|text| text.starts_with("INSERT")).unwrap();
    assert!(insert.matches("note").count() == 1, "{insert}");
    assert!(one.read().unwrap().note.is_none());
    session.commit().unwrap();
    assert_eq!(stage.stored::<Option<String>>(gadgets::table.select(gadgets::note)), [None]);
}

// parity: EagerDefaultsTest::test_server_insert_defaults_present_as_expr
// parity: EagerDefaultsTest::test_clientsql_insert_defaults_nonpresent
#[test]
fn a_default_that_is_an_expression_is_sent_as_a_statement_and_the_row_then_read() {
    let stage = Stage::new();
    let session = stage.session();
    let size = diesel::dsl::sql::<diesel::sql_types::Integer>("1 + 2");
    session
        .execute(diesel::insert_into(gadgets::table).values((
            gadgets::id.eq(9),
            gadgets::label.eq("nine"),
            gadgets::size.eq(size),
        )))
        .unwrap();
    let nine = session.get_one::<Gadget>(9).unwrap();
    assert_eq!((nine.read().unwrap().size, nine.read().unwrap().status.as_deref()), (3, Some("new")));
}

// parity: BatchInsertsTest::test_batch_interaction
#[test]
fn neighbours_that_give_the_same_columns_share_an_insert_and_all_keep_their_order() {
    let stage = Stage::new();
    let session = stage.session();
    let sizes = [None, Some(2), None].map(|size| [size; 4]).concat();
    let record = |size| SizedGadget { label: "label".into(), size, note: None, is_on: false };
    let made = session.add_all(sizes.iter().copied().map(record)).unwrap();
    assert_eq!(count("INSERT gadgets", || session.flush().unwrap()), 3);
    let keys: Vec<_> = made.iter().map(|gadget| gadget.key().unwrap()).collect();
    assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
    let known: Vec<_> = made.iter().map(|gadget| gadget.read().unwrap().size).collect();
    assert_eq!(known, sizes.iter().map(|size| size.unwrap_or(5)).collect::<Vec<_>>());
    session.commit().unwrap();
    assert_eq!(stage.stored::<i32>(gadgets::table.select(gadgets::size).order(gadgets::id)), known);
}

// parity: NoAttrEventInFlushTest::test_no_attr_events_flush
#[test]
fn values_that_the_database_made_are_no_change_of_the_program() {
    let stage = Stage::new();
    let session = stage.session();
    let one = session.add(gadget("one")).unwrap();
    session.flush().unwrap();
    assert_eq!(one.state(), ObjectState::Persistent);
    assert!(!session.has_changes() && !session.is_modified(&one));
    assert!(session.dirty_entities::<Gadget>().is_empty());
    assert!(texts(|| session.flush().unwrap()).is_empty());
}

// parity: ORMOnlyPrimaryKeyTest::test_a
// parity: ORMOnlyPrimaryKeyTest::test_b
// parity: ORMOnlyPrimaryKeyTest::test_c
// parity: ORMOnlyPrimaryKeyTest::test_d
#[test]
fn a_key_that_only_the_program_knows_as_one_is_a_key() {
    let stage = Stage::new();
    let session = stage.session();
    let given = session.add(Keyless { id: 4, text: "four".into() }).unwrap();
    let counted = session.add_all(["one", "two"].map(|text| NewTicket { text: text.into() })).unwrap();
    session.flush().unwrap();
    assert_eq!(session.get_one::<Keyless>(4).unwrap(), given);
    let ids: Vec<_> = counted.iter().map(|ticket| ticket.id().unwrap()).collect();
    assert!(ids[0] < ids[1]);
    assert_eq!(session.get_one::<Ticket>(ids[1]).unwrap(), counted[1]);
    counted[0].write().unwrap().text = "changed".into();
    session.delete(&given).unwrap();
    session.commit().unwrap();
    assert_eq!(stage.stored::<String>(tickets::table.select(tickets::text).order(tickets::id)), ["changed", "two"]);
    assert_eq!(stage.stored::<i64>(keyless::table.count()), [0]);
    let made = session.add(NewToken { note: "note".into() }).unwrap();
    let result = session.flush();
    if is_mysql() {
        // There only keys that are counted can be told.
        assert!(result.unwrap_err().to_string().contains("give the key in the record"));
    } else {
        result.unwrap();
        assert_eq!(made.key().as_deref(), Some("made"));
    }
}

// parity: BulkUDPostfetchTest::test_insert_w_fetch
// parity: BulkUDPostfetchTest::test_update_w_fetch
#[test]
fn bulk_calls_leave_columns_that_the_database_makes_alone() {
    let stage = Stage::new();
    let session = stage.session();
    let inserted = session.bulk_insert((1..=3).map(|net| NewPrice { net }), Bulk::new()).unwrap();
    assert_eq!(inserted, 3);
    let mut rows: Vec<Price> = session.load(prices::table.select(Price::as_select()).order(prices::id)).unwrap();
    for row in &mut rows {
        row.net += 10;
        row.gross = None;
    }
    let steps = written(|| session.bulk_update(rows, Bulk::new().columns(&["net"])).unwrap());
    assert_eq!(steps, ["UPDATE prices net"]);
    session.commit().unwrap();
    let stored = stage.stored::<Option<i32>>(prices::table.select(prices::gross).order(prices::id));
    assert_eq!(stored, [Some(22), Some(24), Some(26)]);
}
