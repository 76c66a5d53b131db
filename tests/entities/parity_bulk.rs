//! SQLAlchemy's `test_bulk.py`.

use diesel::prelude::*;
use diesel_session::Bulk;

use super::models::*;
use super::recorder::{Stage, count, is_mysql, texts, written};
use super::schema::users;
use super::shape_tables::gadgets;
use super::shapes::*;

fn versions(stage: &Stage) -> Vec<i32> {
    stage.stored(users::table.select(users::version).order(users::id))
}

fn four() -> [NewUser; 4] {
    ["ann", "bob", "cyd", "dee"].map(user)
}

// parity: BulkInsertUpdateVersionId::test_bulk_insert_via_save
// parity: BulkInsertUpdateVersionId::test_bulk_update_via_save
// parity: VersioningTest::test_bulk_insert
// parity: VersioningTest::test_bulk_update
#[test]
fn bulk_calls_begin_versions_and_raise_them() {
    let stage = Stage::new();
    stage.store(|session| session.bulk_insert(four(), Bulk::new()).unwrap());
    assert_eq!(versions(&stage), [1; 4]);
    let mut rows: Vec<User> = stage.stored(users::table.select(User::as_select()).order(users::id));
    rows.iter_mut().for_each(|row| row.balance = 5);
    let steps = written(|| {
        stage.store(|session| session.bulk_update(rows.clone(), Bulk::new().columns(&["balance"])).unwrap())
    });
    assert_eq!(steps, ["UPDATE users balance version"]);
    assert_eq!(versions(&stage), [2; 4]);
    // The versions in hand are old now.
    let session = stage.session();
    let error = session.bulk_update(rows, Bulk::new()).unwrap_err();
    assert!(error.is_stale_data() || error.is_not_found(), "{error}");
    session.commit().unwrap();
    assert_eq!(versions(&stage), [2; 4]);
}

// parity: BulkInsertUpdateTest::test_bulk_save_return_defaults
// parity: BulkInsertUpdateTest::test_bulk_insert
#[test]
fn a_bulk_insert_gives_a_count_and_added_rows_their_keys() {
    let stage = Stage::new();
    let session = stage.session();
    let statements = texts(|| assert_eq!(session.bulk_insert(four(), Bulk::new()).unwrap(), 4));
    let inserts: Vec<_> = statements.iter().filter(|text| text.starts_with("INSERT")).collect();
    assert_eq!(inserts.len(), 1);
    assert!(!inserts[0].contains("RETURNING") && !statements.iter().any(|text| text.starts_with("SELECT \"users")));
    assert!(session.tracked::<User>().is_empty());
    let added = session.add_all(["eve", "fay", "gus", "hal"].map(user)).unwrap();
    assert_eq!(count("INSERT", || session.flush().unwrap()), 1);
    assert!(added.iter().all(|user| user.key().is_some()));
    session.commit().unwrap();
    assert_eq!(versions(&stage), [1; 8]);
}

// parity: BulkInsertUpdateTest::test_bulk_save_mappings_preserve_order
#[test]
fn only_neighbours_of_one_shape_share_a_statement_so_that_rows_keep_their_order() {
    let stage = Stage::new();
    let sizes = [None, Some(2), None].map(|size| [size; 4]).concat();
    let records = sizes.iter().map(|size| SizedGadget { label: "l".into(), size: *size, note: None, is_on: false });
    let inserts = count("INSERT", || {
        stage.store(|session| session.bulk_insert(records.collect::<Vec<_>>(), Bulk::new()).unwrap())
    });
    assert_eq!(inserts, 3);
    let stored = stage.stored::<i32>(gadgets::table.select(gadgets::size).order(gadgets::id));
    assert_eq!(stored, sizes.iter().map(|size| size.unwrap_or(5)).collect::<Vec<_>>());
}

// parity: BulkInsertUpdateTest::test_bulk_save_updated_include_unchanged
#[test]
fn a_bulk_update_writes_every_column_of_every_row_unless_told_otherwise() {
    let stage = Stage::new();
    stage.store(|session| session.bulk_insert(four(), Bulk::new()).unwrap());
    let rows: Vec<User> = stage.stored(users::table.select(User::as_select()));
    let steps = written(|| stage.store(|session| session.bulk_update(rows, Bulk::new()).unwrap()));
    assert_eq!(steps, ["UPDATE users nickname email balance version"]);
}

// parity: BulkInsertUpdateTest::test_bulk_insert_render_nulls
#[test]
fn rows_with_and_without_nulls_go_in_one_statement() {
    let stage = Stage::new();
    let mut rows = four();
    rows[1].email = Some("bob@x".into());
    assert_eq!(count("INSERT", || stage.store(|session| session.bulk_insert(rows, Bulk::new()).unwrap())), 1);
    let stored = stage.stored::<Option<String>>(users::table.select(users::email).order(users::id));
    assert_eq!(stored, [None, Some("bob@x".into()), None, None]);
}

// parity: BulkIssue6793Test::test_issue_6793
#[test]
fn a_bulk_insert_and_a_flush_in_one_transaction_have_statements_of_their_own() {
    let stage = Stage::new();
    let session = stage.session();
    let bulk = texts(|| session.bulk_insert([user("ann")], Bulk::new()).unwrap());
    let bob = session.add(user("bob")).unwrap();
    let flush = texts(|| session.flush().unwrap());
    let reads_back =
        |texts: &[String]| texts.iter().any(|text| text.contains("RETURNING") || text.contains("LAST_INSERT_ID"));
    assert!(!reads_back(&bulk), "{bulk:?}");
    assert!(reads_back(&flush) || is_mysql(), "{flush:?}");
    assert!(bob.key().is_some());
    session.commit().unwrap();
    assert_eq!(stage.stored::<String>(users::table.select(users::nickname).order(users::nickname)), ["ann", "bob"]);
}
