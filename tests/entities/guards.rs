//! Write guards, and what is refused while one lives.

use diesel::prelude::*;
use diesel_session::{Error, ErrorClass, ObjectState, Result};

use super::db::Session;
use super::models::*;
use super::schema::users;
use super::tools::Fixture;

type Try = fn(&Session) -> Result<()>;

fn all(session: &Session) -> Result<Vec<User>> {
    session.load(users::table.select(User::as_select()))
}

#[test]
fn what_would_flush_is_refused_while_a_guard_lives_and_nothing_is_lost() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let refused: [(&str, Try); 7] = [
        ("flush", |session| session.flush()),
        ("commit", |session| session.commit().map(drop)),
        ("a query", |session| all(session).map(drop)),
        ("begin_nested", |session| session.begin_nested().map(drop)),
        ("get of another", |session| session.get::<User>(-1).map(drop)),
        ("execute", |session| session.execute(diesel::delete(users::table.find(-1))).map(drop)),
        ("refresh_all", |session| session.refresh_all()),
    ];
    for (what, refused) in refused {
        let session = fixture.session();
        let ann = session.get_one::<User>(id).unwrap();
        let mut guard = ann.write().unwrap();
        guard.balance += 1;
        let error = refused(&session).unwrap_err();
        assert!(matches!(error, Error::WriteGuardAlive { .. }), "{what}: {error}");
        assert_eq!(error.class(), ErrorClass::Usage);
        // Of the entity itself there is no second one, and no refresh; a plain hit in the map is no I/O.
        assert!(matches!(ann.write(), Err(Error::WriteGuardAlive { .. })));
        assert!(matches!(session.refresh(&ann), Err(Error::WriteGuardAlive { .. })));
        assert!(matches!(session.delete(&ann), Err(Error::WriteGuardAlive { .. })));
        assert!(matches!(session.expunge(&ann), Err(Error::WriteGuardAlive { .. })));
        assert_eq!(session.get_one::<User>(id).unwrap(), ann);
        let before = ann.read().unwrap().balance;
        drop(guard);
        assert_eq!(ann.read().unwrap().balance, before + 1);
        session.commit().unwrap();
        assert_eq!(fixture.users()[0].balance, before + 1, "{what}");
    }
}

#[test]
fn a_rollback_throws_away_what_a_guard_holds() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let mut guard = ann.write().unwrap();
    guard.balance = 99;
    session.rollback().unwrap();
    drop(guard);
    assert_eq!(ann.read().unwrap().balance, 0);
    assert!(!session.has_changes());
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 0);
}

#[test]
fn a_leaked_guard_is_cleared_by_a_rollback() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    std::mem::forget(ann.write().unwrap());
    assert!(matches!(session.commit(), Err(Error::WriteGuardAlive { .. })));
    session.rollback().unwrap();
    ann.write().unwrap().balance = 3;
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 3);
}

#[test]
fn a_savepoint_that_is_rolled_back_takes_its_guards_with_it() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let savepoint = session.begin_nested().unwrap();
    let mut guard = ann.write().unwrap();
    guard.balance = 99;
    savepoint.rollback().unwrap();
    drop(guard);
    ann.write().unwrap().balance += 1;
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 1);
}

#[test]
fn a_closed_session_leaves_values_to_read_and_nothing_to_write() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let bob = session.add(user("bob")).unwrap();
    let mut guard = ann.write().unwrap();
    guard.balance = 99;
    session.close();
    drop(guard);
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(ann.state(), ObjectState::Detached);
    assert!(matches!(ann.write(), Err(Error::Detached { .. })));
    assert_eq!(bob.state(), ObjectState::Transient);
    assert_eq!(bob.into_new::<NewUser>().unwrap(), user("bob"));
    assert!(matches!(session.get::<User>(1), Err(Error::SessionClosed { .. })));
    assert_eq!(ann.into_value().unwrap().balance, 0);
}

#[test]
fn what_is_read_stays_as_it_was_read() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let before = ann.read().unwrap();
    ann.update(|ann| ann.balance = 5).unwrap();
    session.flush().unwrap();
    session.refresh(&ann).unwrap();
    session.rollback().unwrap();
    session.close();
    assert_eq!(before.balance, 0);
}

#[test]
fn a_session_takes_no_handles_of_another() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let one = fixture.session();
    let ann = one.get_one::<User>(fixture.users()[0].id).unwrap();
    one.commit().unwrap();
    let other = fixture.session();
    for error in [
        other.delete(&ann).unwrap_err(),
        other.refresh(&ann).unwrap_err(),
        other.expire(&ann).unwrap_err(),
        other.expunge(&ann).unwrap_err(),
        other.apply(&ann, users::balance.eq(3)).unwrap_err(),
        other.add_with(&ann, |ann| NewPost { user_id: ann.id, parent_id: None, title: "t".into() }).unwrap_err(),
    ] {
        assert!(matches!(error, Error::ForeignHandle { .. }), "{error}");
    }
    assert!(!other.contains(&ann));
    // By value it is welcome.
    let own = other.merge_existing(User::clone(&ann.read().unwrap())).unwrap();
    assert_ne!(own, ann);
}

#[test]
fn sessions_that_cannot_write_refuse_changes_at_once() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let reader = Session::with_options(fixture.registry.engine(), diesel_session::read_only()).unwrap();
    let ann = reader.get_one::<User>(id).unwrap();
    assert!(matches!(ann.write(), Err(Error::ReadOnly)));
    assert!(matches!(reader.add(user("bob")), Err(Error::ReadOnly)));
    assert!(matches!(reader.delete(&ann), Err(Error::ReadOnly)));
    reader.commit().unwrap();
    let single = Session::with_options(fixture.registry.engine(), diesel_session::autocommit()).unwrap();
    let ann = single.get_one::<User>(id).unwrap();
    assert!(matches!(ann.write(), Err(Error::NoTransaction)));
    assert!(matches!(single.add(user("bob")), Err(Error::NoTransaction)));
    assert!(matches!(single.get_for_update::<User>(id, diesel_session::RowLock::update()), Err(Error::NoTransaction)));
}
