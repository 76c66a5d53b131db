//! Savepoints and rollbacks put entities back.

use diesel_session::{Error, ObjectState};

use super::models::*;
use super::tools::Fixture;

#[test]
fn a_rolled_back_savepoint_puts_back_what_was_added_changed_and_deleted_in_it() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let (ann, bob) = (session.get_one::<User>(ids[0]).unwrap(), session.get_one::<User>(ids[1]).unwrap());
    ann.write().unwrap().balance = 1;
    let savepoint = session.begin_nested().unwrap();
    ann.write().unwrap().balance = 2;
    session.delete(&bob).unwrap();
    let eve = session.add(user("eve")).unwrap();
    session.flush().unwrap();
    assert_eq!(bob.state(), ObjectState::Deleted);
    savepoint.rollback().unwrap();
    assert_eq!(ann.read().unwrap().balance, 1);
    assert_eq!(ann.read().unwrap().version, 2);
    assert_eq!(bob.state(), ObjectState::Persistent);
    assert_eq!(eve.state(), ObjectState::Transient);
    assert_eq!(session.get_one::<User>(ids[1]).unwrap(), bob);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann", "bob"]);
    assert_eq!(fixture.users()[0].balance, 1);
}

#[test]
fn a_released_savepoint_is_undone_with_the_one_around_it() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let outer = session.begin_nested().unwrap();
    let inner = session.begin_nested().unwrap();
    ann.write().unwrap().balance = 2;
    inner.commit().unwrap();
    assert_eq!(ann.read().unwrap().balance, 2);
    outer.rollback().unwrap();
    assert_eq!(ann.read().unwrap().balance, 0);
    session.commit().unwrap();
}

#[test]
fn keys_that_change_and_are_used_again_come_back_to_who_had_them() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let de = session.add(country("DE", "Germany")).unwrap();
    session.commit().unwrap();
    let savepoint = session.begin_nested().unwrap();
    de.write().unwrap().code = "GE".into();
    session.flush().unwrap();
    assert_eq!(session.get::<Country>("GE").unwrap(), Some(de.clone()));
    let other = session.add(country("DE", "another")).unwrap();
    session.flush().unwrap();
    assert_eq!(session.get::<Country>("DE").unwrap(), Some(other.clone()));
    savepoint.rollback().unwrap();
    assert_eq!(session.get::<Country>("DE").unwrap(), Some(de.clone()));
    assert_eq!(session.get::<Country>("GE").unwrap(), None);
    assert_eq!(de.key().as_deref(), Some("DE"));
    assert_eq!(other.state(), ObjectState::Transient);
}

#[test]
fn a_record_takes_the_place_of_a_row_that_is_deleted_in_the_same_flush() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let old = session.add(country("DE", "Germany")).unwrap();
    session.commit().unwrap();
    session.delete(&old).unwrap();
    let new = session.add(country("DE", "Deutschland")).unwrap();
    session.flush().unwrap();
    assert_eq!((old.state(), new.state()), (ObjectState::Deleted, ObjectState::Persistent));
    session.rollback().unwrap();
    assert_eq!((old.state(), new.state()), (ObjectState::Persistent, ObjectState::Transient));
    assert_eq!(session.get::<Country>("DE").unwrap(), Some(old));
}

#[test]
fn a_failed_flush_leaves_everything_waiting_until_the_rollback() {
    let fixture = Fixture::new().with_users(&["taken"]);
    let session = fixture.session();
    let taken = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let good: Vec<_> = ["a", "b"].map(|name| session.add(user(name)).unwrap()).into();
    let bad = session.add(user("taken")).unwrap();
    let post = session
        .add_with(&good[0], move |user| NewPost { user_id: user.id, parent_id: None, title: "t".into() })
        .unwrap();
    taken.write().unwrap().balance = 4;
    let error = session.flush().unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
    assert_eq!(session.new_entities::<User>(), [good[0].clone(), good[1].clone(), bad.clone()]);
    assert_eq!(session.new_entities::<Post>(), std::slice::from_ref(&post));
    assert_eq!(session.dirty_entities::<User>(), std::slice::from_ref(&taken));
    assert_eq!(taken.read().unwrap().balance, 4);
    assert!(matches!(session.flush(), Err(Error::PendingRollback { .. })));
    assert!(matches!(session.add(user("c")), Err(Error::PendingRollback { .. })));
    session.rollback().unwrap();
    assert!(!session.has_changes());
    assert!(good.iter().chain([&bad]).all(|user| user.state() == ObjectState::Transient));
    assert_eq!(taken.read().unwrap().balance, 0);
    assert_eq!(good[0].into_new::<NewUser>().unwrap(), user("a"));
}

#[test]
fn a_commit_whose_flush_fails_stores_nothing_and_the_next_unit_of_work_goes_on() {
    let fixture = Fixture::new().with_users(&["taken"]);
    let session = fixture.session();
    session.add(user("a")).unwrap();
    session.add(user("taken")).unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }) && error.is_unique_violation(), "{error}");
    assert_eq!(fixture.nicknames(), ["taken"]);
    session.add(user("b")).unwrap();
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["b", "taken"]);
}

#[test]
fn what_is_added_before_a_savepoint_survives_its_rollback() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let tried = session.nested(|session| {
        session.add(user("bob"))?;
        session.flush()?;
        session.execute(diesel::sql_query("INSERT INTO users (nickname) VALUES ('ann')"))?;
        Ok::<_, Error>(())
    });
    assert!(tried.unwrap_err().is_unique_violation());
    assert_eq!(ann.state(), ObjectState::Persistent);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

#[test]
fn rows_of_one_table_that_refer_to_each_other_are_deleted_in_their_order() {
    let fixture = Fixture::new();
    let session = fixture.session();
    for (id, next_id) in [(1, None), (2, Some(1)), (3, Some(2))] {
        session.add(Ring { id, next_id }).unwrap();
    }
    session.commit().unwrap();
    // A ring: one of them has to let go first.
    session.get_one::<Ring>(1).unwrap().write().unwrap().next_id = Some(3);
    session.commit().unwrap();
    for ring in session.get_many::<Ring, _>([1, 2, 3]).unwrap() {
        session.delete(&ring).unwrap();
    }
    session.commit().unwrap();
    assert_eq!(session.get_result::<i64>(diesel::QueryDsl::count(super::schema::rings::table)).unwrap(), 0);
}

#[test]
fn parents_that_are_deleted_with_their_children_go_last() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let post =
        session.add_with(&ann, move |ann| NewPost { user_id: ann.id, parent_id: None, title: "t".into() }).unwrap();
    session.commit().unwrap();
    session.delete(&ann).unwrap();
    session.delete(&post).unwrap();
    session.commit().unwrap();
    assert!(fixture.users().is_empty());
}

#[test]
fn rows_that_refer_to_each_other_are_inserted_and_then_connected() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let one = session.add(Ring { id: 1, next_id: None }).unwrap();
    let two = session.add_with(&one, |one| Ring { id: 2, next_id: Some(one.id) }).unwrap();
    session.connect(&one, &two, |one, two| one.next_id = Some(two.id)).unwrap();
    session.commit().unwrap();
    assert_eq!(one.read().unwrap().next_id, Some(2));
    let stored = fixture.registry.read(|session| session.get_one::<Ring>(1)?.read().map(|ring| ring.next_id)).unwrap();
    assert_eq!(stored, Some(2));
    // Undone together.
    let three = session.add(Ring { id: 3, next_id: None }).unwrap();
    session.connect(&two, &three, |two, three| two.next_id = Some(three.id)).unwrap();
    session.rollback().unwrap();
    session.commit().unwrap();
    assert_eq!(two.read().unwrap().next_id, Some(1));
}
