//! SQLAlchemy's `test_versioning.py`: rows with a version.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, RowLock, Tracked};

use super::db::{CONCURRENT, Session};
use super::models::*;
use super::recorder::{Stage, behind_the_back, is_sqlite, sent, texts, written};
use super::schema::users;
use super::shape_tables::*;
use super::shapes::*;

fn docs_of(stage: &Stage) -> Vec<(String, i32)> {
    stage.stored(docs::table.select((docs::title, docs::version)).order(docs::id))
}

fn add_docs(session: &Session, count: i32) -> Vec<Tracked<Doc>> {
    let docs = (1..=count).map(|id| session.add(doc(id, "title")).unwrap()).collect();
    session.commit().unwrap();
    docs
}

fn assert_stale<T: std::fmt::Debug>(result: diesel_session::Result<T>, table: &str, key: &str) {
    match result.unwrap_err() {
        Error::StaleData { table: found, keys, .. } => assert_eq!((found, &keys[..]), (table, &[key.to_owned()][..])),
        other => panic!("{other}"),
    }
}

// parity: NullVersionIdTest::test_null_version_id_update
#[test]
fn a_version_is_never_null_for_the_program_whatever_the_column_holds() {
    let stage = Stage::new();
    stage.store(|session| session.add(Partial { a: 1, b: None, note: "note".into() }).unwrap());
    let session = stage.session();
    let error = session.get::<WholePartial>(1).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("null"), "{error}");
    assert!(session.tracked::<WholePartial>().is_empty());
}

// parity: VersioningTest::test_basic
// parity: VersioningTest::test_notsane_warning
#[test]
fn a_row_that_somebody_else_has_changed_is_neither_updated_nor_deleted() {
    let stage = Stage::new();
    let session = stage.session();
    let docs = add_docs(&session, 2);
    docs[0].write().unwrap().title = "mine".into();
    let update = texts(|| session.commit().unwrap()).into_iter().find(|text| text.starts_with("UPDATE")).unwrap();
    assert!(update.split_once(" WHERE ").unwrap().1.contains("version"), "{update}");
    assert_eq!(docs_of(&stage)[0], ("mine".into(), 2));
    docs[0].write().unwrap().title = "mine again".into();
    behind_the_back(&session, "UPDATE docs SET title = 'theirs', version = 3 WHERE id = 1");
    assert_stale(session.flush(), "docs", "1");
    session.rollback().unwrap();
    session.refresh_all().unwrap();
    session.delete(&docs[1]).unwrap();
    behind_the_back(&session, "UPDATE docs SET version = 7 WHERE id = 2");
    assert_stale(session.flush(), "docs", "2");
    session.rollback().unwrap();
    assert_eq!(docs_of(&stage), [("mine".into(), 2), ("title".into(), 1)]);
}

// parity: VersioningTest::test_multiple_updates
// parity: VersioningTest::test_update_multi_missing_broken_multi_rowcount
#[test]
fn of_many_rows_each_version_is_checked_and_raised() {
    let stage = Stage::new();
    let session = stage.session();
    let docs = add_docs(&session, 5);
    let change = |title: &str| docs.iter().for_each(|doc| doc.write().unwrap().title = title.into());
    change("two");
    session.commit().unwrap();
    assert_eq!(docs_of(&stage), vec![("two".to_owned(), 2); 5]);
    change("three");
    behind_the_back(&session, "UPDATE docs SET version = 9 WHERE id = 3");
    assert_stale(session.flush(), "docs", "3");
    session.rollback().unwrap();
    assert_eq!(docs_of(&stage), vec![("two".to_owned(), 2); 5]);
}

// parity: VersioningTest::test_update_delete_no_plain_rowcount
#[test]
fn there_is_no_database_whose_counts_are_not_checked() {
    let stage = Stage::new();
    let session = stage.session();
    let docs = add_docs(&session, 1);
    for is_delete in [false, true] {
        match is_delete {
            true => session.delete(&docs[0]).unwrap(),
            false => docs[0].write().unwrap().title = "mine".into(),
        }
        behind_the_back(&session, "DELETE FROM docs");
        assert_stale(session.flush(), "docs", "1");
        session.rollback().unwrap();
    }
}

// parity: VersioningTest::test_bump_version
// parity: ManualVersionTest::test_update
// parity: ManualVersionTest::test_update_version_conditional
#[test]
fn a_version_that_the_program_sets_is_not_written_the_next_one_is() {
    let stage = Stage::new();
    let session = stage.session();
    let docs = add_docs(&session, 1);
    docs[0].write().unwrap().version = 42;
    assert!(written(|| session.flush().unwrap()).is_empty());
    assert_eq!(docs[0].read().unwrap().version, 1);
    *docs[0].write().unwrap() = Doc { version: 42, ..doc(1, "changed") };
    session.flush().unwrap();
    assert_eq!(docs[0].read().unwrap().version, 2);
    session.delete(&docs[0]).unwrap();
    session.rollback().unwrap();
    assert_eq!(docs_of(&stage), [("title".into(), 1)]);
    // A program that counts itself has a plain column, and compares by itself.
    let manual = session.get_one::<ManualDoc>(1).unwrap();
    manual.write().unwrap().version = 42;
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE docs version"]);
    assert_eq!(docs_of(&stage), [("title".into(), 42)]);
}

// parity: ManualVersionTest::test_insert
#[test]
fn a_row_may_begin_with_any_version() {
    let stage = Stage::new();
    let session = stage.session();
    let seven = session.add(Doc { version: 7, ..doc(1, "seven") }).unwrap();
    session.commit().unwrap();
    assert_eq!(docs_of(&stage), [("seven".into(), 7)]);
    seven.write().unwrap().title = "eight".into();
    session.commit().unwrap();
    assert_eq!(docs_of(&stage), [("eight".into(), 8)]);
}

// parity: VersioningTest::test_versioncheck
#[test]
fn a_locking_read_shows_the_new_version_of_a_clean_row_and_refuses_a_changed_one() {
    let stage = Stage::new();
    let session = stage.session();
    let doc = add_docs(&session, 1).remove(0);
    session.refresh(&doc).unwrap();
    behind_the_back(&session, "UPDATE docs SET version = 2, title = 'theirs'");
    let locked = session.get_for_update::<Doc>(1, RowLock::update()).unwrap().unwrap();
    assert_eq!(locked, doc);
    assert_eq!((doc.read().unwrap().version, doc.read().unwrap().title.as_str()), (2, "theirs"));
    doc.write().unwrap().title = "mine".into();
    behind_the_back(&session, "UPDATE docs SET version = 3");
    let read = session.no_autoflush(|| session.get_for_update::<Doc>(1, RowLock::update()));
    assert_stale(read, "docs", "1");
    // A refresh gives the change up.
    session.refresh_for_update(&doc, RowLock::update()).unwrap();
    assert_eq!((doc.read().unwrap().version, doc.read().unwrap().title.as_str()), (3, "theirs"));
    session.commit().unwrap();
    assert_eq!(docs_of(&stage), [("theirs".into(), 3)]);
}

// parity: VersioningTest::test_versioncheck_not_versioned
// parity: VersioningTest::test_noversioncheck
#[test]
fn rows_without_a_version_are_locked_too() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(Person { username: "ann".into(), fullname: "Ann".into() }).unwrap();
    session.commit().unwrap();
    let statements = texts(|| assert_eq!(session.get_for_update("ann", RowLock::update()).unwrap().unwrap(), ann));
    assert!(is_sqlite() || statements.iter().any(|text| text.contains("FOR UPDATE")), "{statements:?}");
    behind_the_back(&session, "UPDATE people SET fullname = 'Anna'");
    session.refresh_for_update(&ann, RowLock::share()).unwrap();
    assert_eq!(ann.read().unwrap().fullname, "Anna");
}

// parity: VersioningTest::test_versioncheck_for_update
#[test]
fn a_lock_that_does_not_wait_is_refused_while_somebody_else_has_the_row() {
    if is_sqlite() || !CONCURRENT {
        // A session that writes has the whole file: there the other one would wait for that.
        return;
    }
    let stage = Stage::new();
    let (one, other) = (stage.session(), stage.session());
    let doc = add_docs(&one, 1).remove(0);
    one.get_for_update::<Doc>(1, RowLock::update()).unwrap();
    let theirs = other.get_one::<Doc>(1).unwrap();
    assert!(matches!(other.refresh_for_update(&theirs, RowLock::update().no_wait()), Err(Error::Statement(_))));
    other.rollback().unwrap();
    one.commit().unwrap();
    other.refresh_for_update(&theirs, RowLock::update().no_wait()).unwrap();
    assert_eq!(theirs.read().unwrap().version, doc.read().unwrap().version);
}

// parity: VersioningTest::test_merge_no_version
#[test]
fn a_merge_goes_on_from_the_rows_version_and_changes_without_one_are_applied() {
    let stage = Stage::new();
    let session = stage.session();
    let known = add_docs(&session, 1).remove(0);
    session.merge(doc(1, "merged")).unwrap();
    session.commit().unwrap();
    assert_eq!(docs_of(&stage), [("merged".into(), 2)]);
    session.apply(&known, docs::title.eq("applied")).unwrap();
    assert_eq!(known.read().unwrap().version, 3);
    session.commit().unwrap();
    assert_eq!(docs_of(&stage), [("applied".into(), 3)]);
}

// parity: VersioningTest::test_merge_incorrect_version
// parity: VersioningTest::test_merge_incorrect_version_not_in_session
#[test]
fn a_merge_of_another_version_is_refused_whether_the_row_is_tracked_or_not() {
    for is_tracked in [true, false] {
        let stage = Stage::new();
        let session = stage.session();
        let docs = add_docs(&session, 1);
        if !is_tracked {
            session.expunge_all().unwrap();
        }
        assert_stale(session.merge(Doc { version: 0, ..doc(1, "merged") }), "docs", "1");
        assert!(!session.has_changes());
        drop(docs);
    }
}

// parity: ColumnTypeTest::test_update
#[test]
fn a_key_of_the_programs_own_type_and_a_version_find_a_row_together() {
    let stage = Stage::new();
    let session = stage.session();
    let grey = session.add(ToneDoc { tone: Tone::Grey, note: "one".into(), version: 1 }).unwrap();
    session.commit().unwrap();
    grey.write().unwrap().note = "two".into();
    session.commit().unwrap();
    assert_eq!(stage.stored::<(String, i32)>(tones::table.select((tones::note, tones::version))), [("two".into(), 2)]);
    grey.write().unwrap().note = "three".into();
    behind_the_back(&session, "UPDATE tones SET version = 5");
    assert_stale(session.flush(), "tones", "Grey");
}

// parity: RowSwitchTest::test_row_switch
// parity: RowSwitchTest::test_child_row_switch
// parity: AlternateGeneratorTest::test_child_row_switch_one
#[test]
fn a_row_that_takes_the_place_of_another_goes_on_from_its_version() {
    let stage = Stage::new();
    let session = stage.session();
    let [parent, child] = [doc(1, "parent"), Doc { parent_id: Some(1), ..doc(2, "child") }];
    let [parent, child] = [parent, child].map(|doc| session.add(doc).unwrap());
    session.commit().unwrap();
    session.delete(&child).unwrap();
    let new = session.add(Doc { parent_id: Some(1), ..doc(2, "new child") }).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE docs parent_id title version"]);
    assert_eq!(new.read().unwrap().version, 2);
    // It is checked against the version of the row that goes.
    session.refresh_all().unwrap();
    session.delete(&new).unwrap();
    session.add(doc(2, "third")).unwrap();
    behind_the_back(&session, "UPDATE docs SET version = 8 WHERE id = 2");
    assert_stale(session.flush(), "docs", "2");
    session.rollback().unwrap();
    assert_eq!(docs_of(&stage), [("parent".into(), 1), ("new child".into(), 2)]);
    drop(parent);
}

// parity: ServerVersioningTest::test_insert_col
// parity: ServerVersioningTest::test_insert_col_eager_defaults
// parity: ServerVersioningTest::test_delete_col
// parity: ServerVersioningTest::test_update_col
// parity: ServerVersioningTest::test_update_col_eager_defaults
#[test]
fn a_version_that_the_database_began_is_read_back_and_then_counted() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    session.flush().unwrap();
    assert_eq!(ann.read().unwrap().version, 1);
    ann.write().unwrap().balance = 1;
    assert_eq!(sent(|| session.flush().unwrap()), ["UPDATE users balance version"]);
    assert_eq!(ann.read().unwrap().version, 2);
    session.delete(&ann).unwrap();
    let delete = texts(|| session.commit().unwrap()).into_iter().find(|text| text.starts_with("DELETE")).unwrap();
    assert!(delete.contains("version"), "{delete}");
    assert_eq!(ann.state(), ObjectState::Detached);
    assert_eq!(stage.stored::<i64>(users::table.count()), [0]);
}

// parity: VersioningMappedSelectTest::test_explicit_assign_from_expired
#[test]
fn a_stale_row_is_changed_from_the_version_that_it_has_now() {
    let stage = Stage::new();
    let session = stage.session();
    let doc = add_docs(&session, 1).remove(0);
    stage.store(|other| other.execute(diesel::update(docs::table).set(docs::version.eq(5))).unwrap());
    assert!(doc.is_stale());
    let steps = sent(|| {
        doc.write().unwrap().title = "changed".into();
        session.commit().unwrap()
    });
    assert_eq!(steps, ["SELECT docs", "UPDATE docs title version"]);
    assert_eq!(docs_of(&stage), [("changed".into(), 6)]);
}
