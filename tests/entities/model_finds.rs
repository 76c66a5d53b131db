//! What random steps have found, each as a short story of its own.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, SessionState};

use super::models::*;
use super::schema::{countries, users};
use super::tools::Fixture;

fn id_of_the_first(fixture: &Fixture) -> i32 {
    fixture.users()[0].id
}

#[test]
fn an_entity_that_its_refresh_deletes_comes_back_with_a_rollback() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(id_of_the_first(&fixture)).unwrap();
    session.delete(&ann).unwrap();
    assert!(matches!(session.refresh(&ann), Err(Error::Detached { .. })));
    assert_eq!(ann.state(), ObjectState::Deleted);
    session.rollback().unwrap();
    assert_eq!(ann.state(), ObjectState::Persistent);
}

#[test]
fn a_refresh_that_a_failed_session_refuses_loses_no_change() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(id_of_the_first(&fixture)).unwrap();
    ann.write().unwrap().balance = 7;
    session.add(user("ann")).unwrap();
    assert!(session.flush().unwrap_err().is_unique_violation());
    assert!(matches!(session.refresh(&ann), Err(Error::PendingRollback { .. })));
    assert_eq!(ann.read().unwrap().balance, 7);
    assert!(session.is_modified(&ann));
}

#[test]
fn a_raw_statement_that_is_refused_leaves_entities_as_fresh_as_they_were() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(id_of_the_first(&fixture)).unwrap();
    session.add(user("bob")).unwrap();
    assert!(session.flush().is_err());
    let raw = session.no_autoflush(|| session.execute(diesel::update(users::table).set(users::balance.eq(1))));
    assert!(matches!(raw, Err(Error::PendingRollback { .. })));
    assert!(!ann.is_stale());
    session.rollback().unwrap();
    assert!(ann.is_stale());
}

#[test]
fn an_entity_that_is_written_after_raw_sql_is_as_stale_as_before() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(id_of_the_first(&fixture)).unwrap();
    ann.write().unwrap().balance = 7;
    let email = diesel::update(users::table).set(users::email.eq("ann@example.org"));
    session.no_autoflush(|| session.execute(email)).unwrap();
    session.flush().unwrap();
    assert!(ann.is_stale());
    ann.write().unwrap().balance += 1;
    assert_eq!(ann.read().unwrap().email.as_deref(), Some("ann@example.org"));
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 8);
}

#[test]
fn a_marked_entity_whose_row_is_gone_is_not_deleted_again() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(id_of_the_first(&fixture)).unwrap();
    session.commit().unwrap();
    fixture.registry.transaction(|other| other.execute(diesel::delete(users::table)).map(drop)).unwrap();
    session.delete(&ann).unwrap();
    assert!(matches!(ann.update(|ann| ann.balance = 1), Err(Error::RowGone { .. })));
    assert!(session.deleted_entities::<User>().is_empty());
    session.commit().unwrap();
    assert_eq!(session.state(), SessionState::Idle);
}

#[test]
fn an_entity_that_is_to_have_another_key_is_found_under_the_one_of_its_row() {
    let fixture = Fixture::new();
    fixture.registry.transaction(|session| session.add(country("AA", "first")).map(drop)).unwrap();
    let session = fixture.session();
    let first = session.get_one::<Country>("AA").unwrap();
    first.write().unwrap().code = "BB".into();
    assert_eq!(session.get::<Country>("AA").unwrap(), Some(first.clone()));
    let all = session.no_autoflush(|| session.load_tracked(countries::table.select(Country::as_select()))).unwrap();
    assert_eq!(all, std::slice::from_ref(&first));
    assert_eq!(session.no_autoflush(|| session.get_many::<Country, _>(["AA"])).unwrap(), std::slice::from_ref(&first));
    assert_eq!(session.get::<Country>("BB").unwrap(), Some(first));
    assert_eq!(session.get::<Country>("AA").unwrap(), None);
}

#[test]
fn what_a_savepoint_read_anew_is_stale_after_its_rollback() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let all = session.load_tracked(users::table.select(User::as_select()).order(users::id)).unwrap();
    let savepoint = session.begin_nested().unwrap();
    session.execute(diesel::update(users::table).set(users::balance.eq(7))).unwrap();
    session.refresh(&all[0]).unwrap();
    all[1].update(|bob| assert_eq!(bob.balance, 7)).unwrap();
    savepoint.rollback().unwrap();
    assert!(all.iter().all(diesel_session::Tracked::is_stale));
    all[0].write().unwrap().balance += 1;
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 1);
}

#[test]
fn an_entity_that_was_changed_back_is_not_dirty() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(id_of_the_first(&fixture)).unwrap();
    ann.write().unwrap().balance = 7;
    assert_eq!(session.dirty_entities::<User>(), std::slice::from_ref(&ann));
    ann.write().unwrap().balance = 0;
    assert!(session.dirty_entities::<User>().is_empty());
    assert!(!session.is_modified(&ann));
}

#[test]
fn a_key_goes_back_to_the_entity_that_had_it_before_the_savepoint() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let first = session.insert_now(country("AA", "first")).unwrap();
    let savepoint = session.begin_nested().unwrap();
    session.delete(&first).unwrap();
    session.flush().unwrap();
    session.execute(diesel::insert_into(countries::table).values(country("AA", "raw"))).unwrap();
    let raw = session.get_one::<Country>("AA").unwrap();
    assert_ne!(raw, first);
    savepoint.rollback().unwrap();
    assert_eq!((first.state(), raw.state()), (ObjectState::Persistent, ObjectState::Detached));
    assert_eq!(session.get::<Country>("AA").unwrap(), Some(first));
}

#[test]
fn keys_that_are_handed_on_in_one_flush_evict_nobody() {
    let fixture = Fixture::new();
    fixture
        .registry
        .transaction(|session| session.add_all(["AA", "BB", "CC"].map(|code| country(code, code))).map(drop))
        .unwrap();
    let session = fixture.session();
    let all = ["AA", "BB", "CC"].map(|code| session.get_one::<Country>(code).unwrap());
    // In the order of their old keys the second one comes before the third, which is written with the first.
    for (country, code) in all.iter().zip(["ZZ", "CC", "DD"]) {
        country.write().unwrap().code = code.into();
    }
    all[1].write().unwrap().population = 7;
    session.commit().unwrap();
    assert!(all.iter().all(|country| country.state() == ObjectState::Persistent));
    assert_eq!(session.get::<Country>("DD").unwrap().as_ref(), Some(&all[2]));
    assert_eq!(session.get::<Country>("CC").unwrap().as_ref(), Some(&all[1]));
}

#[test]
fn what_takes_the_place_of_a_deleted_row_is_written_whatever_was_known_of_it() {
    let fixture = Fixture::new();
    fixture.registry.transaction(|session| session.add(country("AA", "first")).map(drop)).unwrap();
    let session = fixture.session();
    let first = session.get_one::<Country>("AA").unwrap();
    session.commit().unwrap();
    let rename = diesel::update(countries::table).set(countries::name.eq("elsewhere"));
    fixture.registry.transaction(|other| other.execute(rename).map(drop)).unwrap();
    session.delete(&first).unwrap();
    session.add(country("AA", "first")).unwrap();
    session.commit().unwrap();
    let names = fixture.registry.read(|session| session.load::<String>(countries::table.select(countries::name)));
    assert_eq!(names.unwrap(), ["first"]);
}

#[test]
fn what_takes_the_place_of_a_row_that_is_gone_is_not_taken_for_stored() {
    let fixture = Fixture::new();
    fixture.registry.transaction(|session| session.add(country("AA", "first")).map(drop)).unwrap();
    let session = fixture.session();
    let first = session.get_one::<Country>("AA").unwrap();
    session.commit().unwrap();
    fixture.registry.transaction(|other| other.execute(diesel::delete(countries::table)).map(drop)).unwrap();
    session.delete(&first).unwrap();
    session.add(country("AA", "first")).unwrap();
    assert!(session.flush().unwrap_err().is_stale_data());
}
