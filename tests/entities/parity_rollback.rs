//! What savepoints and failed flushes leave of entities, as SQLAlchemy's tests of transactions have it.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState};

use super::models::*;
use super::parity_tools::{by_name, countries, post, titles};
use super::schema::users;
use super::tools::Fixture;

// parity: SessionTransactionTest::test_nested_accounting_new_items_removed
#[test]
fn what_a_released_savepoint_added_leaves_with_the_outer_rollback() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let savepoint = session.begin_nested().unwrap();
    let ann = session.add(user("ann")).unwrap();
    savepoint.commit().unwrap();
    assert!(session.contains(&ann));
    session.rollback().unwrap();
    assert!(!session.contains(&ann));
    assert_eq!(ann.into_new::<NewUser>().unwrap(), user("ann"));
    assert!(fixture.users().is_empty());
}

// parity: SessionTransactionTest::test_nested_accounting_deleted_items_restored
#[test]
fn what_a_released_savepoint_deleted_comes_back_with_the_outer_rollback() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let savepoint = session.begin_nested().unwrap();
    session.delete(&ann).unwrap();
    savepoint.commit().unwrap();
    assert!(!session.contains(&ann));
    session.rollback().unwrap();
    assert!(session.contains(&ann));
    assert_eq!(session.get_one::<User>(ann.id().unwrap()).unwrap(), ann);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: SessionTransactionTest::test_dirty_state_transferred_deep_nesting
#[test]
fn a_change_in_a_released_savepoint_is_undone_with_the_savepoint_around_it() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let outer = session.begin_nested().unwrap();
    let inner = session.begin_nested().unwrap();
    ann.write().unwrap().nickname = "anna".into();
    session.flush().unwrap();
    inner.commit().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "anna");
    assert!(!ann.is_stale());
    outer.rollback().unwrap();
    assert!(ann.is_stale());
    assert_eq!(ann.read().unwrap().nickname, "ann");
    session.refresh(&ann).unwrap();
    assert_eq!(ann.read().unwrap().nickname, "ann");
}

// parity: SavepointTest::test_savepoint_rollback
#[test]
fn a_savepoint_begins_with_a_flush_and_its_rollback_goes_back_to_that() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let bob = session.add(user("bob")).unwrap();
    let savepoint = session.begin_nested().unwrap();
    assert_eq!(ann.state(), ObjectState::Persistent);
    let added = session.add_all([user("cid"), user("dora")]).unwrap();
    ann.write().unwrap().nickname = "anna".into();
    bob.write().unwrap().nickname = "bobby".into();
    let names = || session.load::<String>(users::table.select(users::nickname).order(users::nickname)).unwrap();
    assert_eq!(names(), ["anna", "bobby", "cid", "dora"]);
    savepoint.rollback().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(bob.read().unwrap().nickname, "bob");
    assert!(added.iter().all(|user| user.state() == ObjectState::Transient));
    assert_eq!(names(), ["ann", "bob"]);
    session.commit().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(fixture.nicknames(), ["ann", "bob"]);
}

// parity: SavepointTest::test_savepoint_rollback_collections
// parity: SavepointTest::test_savepoint_commit_collections
#[test]
fn the_children_of_a_parent_are_those_of_the_savepoints_end() {
    for release in [false, true] {
        let fixture = Fixture::new().with_users(&["ann"]);
        let session = fixture.session();
        let ann = by_name(&session, "ann");
        let id = ann.id().unwrap();
        let first = session.add(post(id, "first")).unwrap();
        let savepoint = session.begin_nested().unwrap();
        session.add_with(&ann, |ann| post(ann.id, "second")).unwrap();
        ann.write().unwrap().nickname = "anna".into();
        first.write().unwrap().title = "FIRST".into();
        assert_eq!(titles(&session, &ann), ["FIRST", "second"]);
        let (name, expected) = if release {
            savepoint.commit().unwrap();
            ("anna", ["FIRST", "second"].as_slice())
        } else {
            savepoint.rollback().unwrap();
            ("ann", ["first"].as_slice())
        };
        assert_eq!(ann.read().unwrap().nickname, name);
        assert_eq!(titles(&session, &ann), expected);
        session.commit().unwrap();
        assert_eq!(titles(&session, &ann), expected);
        session.commit().unwrap();
        assert_eq!(fixture.posts().len(), expected.len());
        assert_eq!(fixture.nicknames(), [name]);
    }
}

// parity: SavepointTest::test_update_deleted_on_rollback
#[test]
fn a_savepoints_rollback_takes_the_mark_for_deletion_off() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let (ann, bob) = (by_name(&session, "ann"), by_name(&session, "bob"));
    let savepoint = session.begin_nested().unwrap();
    session.delete(&ann).unwrap();
    session.flush().unwrap();
    session.delete(&bob).unwrap();
    assert_eq!(session.deleted_entities::<User>(), std::slice::from_ref(&bob));
    savepoint.rollback().unwrap();
    assert!(session.deleted_entities::<User>().is_empty());
    assert!(session.contains(&ann) && session.contains(&bob));
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann", "bob"]);
}

// parity: RollbackRecoverTest::test_pk_violation_with_savepoint
#[test]
fn a_violated_key_in_a_savepoint_costs_only_the_savepoint() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let first = session.add(post(ann.id().unwrap(), "first")).unwrap();
    let germany = session.add(country("de", "Germany")).unwrap();
    session.commit().unwrap();
    ann.write().unwrap().nickname = "anna".into();
    first.write().unwrap().title = "FIRST".into();

    let savepoint = session.begin_nested().unwrap();
    let bob = session.add(user("bob")).unwrap();
    let his = session.add_with(&bob, |bob| post(bob.id, "his")).unwrap();
    let double = session.add(country("de", "Deutschland")).unwrap();
    assert!(session.flush().unwrap_err().is_unique_violation());
    let refused = session.load::<String>(users::table.select(users::nickname));
    assert!(matches!(refused, Err(Error::PendingRollback { .. })));
    savepoint.rollback().unwrap();

    assert!(!session.contains(&bob) && !session.contains(&his) && !session.contains(&double));
    assert!(session.contains(&ann) && session.contains(&first) && session.contains(&germany));
    assert_eq!(ann.read().unwrap().nickname, "anna");
    assert_eq!(double.into_new::<Country>().unwrap().name, "Deutschland");
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anna"]);
    assert_eq!(fixture.posts()[0].title, "FIRST");
    assert_eq!(countries(&fixture), [country("de", "Germany")]);
}

// parity: NaturalPKRollbackTest::test_rollback_recover
#[test]
fn after_a_row_took_anothers_place_and_a_flush_failed_a_rollback_puts_all_back() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let before = session.add_all([country("aa", "A"), country("bb", "B"), country("cc", "C")]).unwrap();
    session.commit().unwrap();
    session.delete(&before[1]).unwrap();
    let other = session.add(country("bb", "other B")).unwrap();
    session.flush().unwrap();
    assert_eq!(session.get_one::<Country>("bb".to_owned()).unwrap(), other);
    let double = session.add(country("cc", "other C")).unwrap();
    assert!(session.flush().unwrap_err().is_unique_violation());
    // Until the rollback it waits as it did.
    assert_eq!(session.new_entities::<Country>(), std::slice::from_ref(&double));
    assert!(session.deleted_entities::<Country>().is_empty());
    session.rollback().unwrap();
    assert!(session.new_entities::<Country>().is_empty());
    assert!(session.deleted_entities::<Country>().is_empty());
    assert!(!session.contains(&double) && !session.contains(&other));
    assert!(before.iter().all(|country| session.contains(country)));
    assert_eq!(session.get_one::<Country>("bb".to_owned()).unwrap(), before[1]);
    assert_eq!(before[1].read().unwrap().name, "B");
    session.commit().unwrap();
    assert_eq!(countries(&fixture), [country("aa", "A"), country("bb", "B"), country("cc", "C")]);
}

// parity: NaturalPKRollbackTest::test_key_replaced_by_update_nested
#[test]
fn an_entity_that_got_another_key_in_a_savepoint_leaves_with_the_rollback() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let first = session.add(country("aa", "A")).unwrap();
    session.commit().unwrap();
    let savepoint = session.begin_nested().unwrap();
    let second = session.add(country("bb", "B")).unwrap();
    session.flush().unwrap();
    second.write().unwrap().code = "cc".into();
    savepoint.commit().unwrap();
    assert_eq!(session.get_one::<Country>("cc".to_owned()).unwrap(), second);
    session.rollback().unwrap();
    assert!(session.contains(&first) && !session.contains(&second));
    first.write().unwrap().code = "ee".into();
    session.commit().unwrap();
    assert_eq!(countries(&fixture), [country("ee", "A")]);
}

// parity: NaturalPKRollbackTest::test_multiple_key_replaced_by_update
#[test]
fn an_entity_that_got_keys_twice_has_its_first_one_after_the_rollback() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let all = session.add_all([country("aa", "A"), country("bb", "B"), country("cc", "C")]).unwrap();
    session.commit().unwrap();
    session.delete_all(&all[..2]).unwrap();
    session.flush().unwrap();
    for code in ["aa", "bb"] {
        all[2].write().unwrap().code = code.into();
        session.flush().unwrap();
        assert_eq!(session.get_one::<Country>(code.to_owned()).unwrap(), all[2]);
        assert_eq!(session.get::<Country>("cc".to_owned()).unwrap(), None);
    }
    session.rollback().unwrap();
    for (country, code) in all.iter().zip(["aa", "bb", "cc"]) {
        assert!(session.contains(country));
        assert_eq!(country.key().unwrap(), code);
        assert_eq!(session.get_one::<Country>(code.to_owned()).unwrap(), *country);
    }
    session.commit().unwrap();
    assert_eq!(countries(&fixture).len(), 3);
}
