//! What is known of a row, and when it is read anew.

use std::time::Duration;

use diesel::prelude::*;
use diesel_session::{Bulk, Error, ObjectState, RetryPolicy, TransactionOptions, autocommit};

use super::db::{CONCURRENT, Session};
use super::models::*;
use super::schema::users;
use super::tools::{Fixture, only, recorded};

#[test]
fn a_hit_in_the_map_is_no_round_trip_and_a_stale_one_is_one() {
    let fixture = Fixture::watched().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let ann = session.get_one::<User>(id).unwrap();
    let (again, sent) = recorded(|| session.get_one::<User>(id).unwrap());
    assert_eq!((again, sent.len()), (ann.clone(), 0));
    session.commit().unwrap();
    assert!(ann.is_stale());
    let (again, sent) = recorded(|| session.get_one::<User>(id).unwrap());
    assert_eq!((again, only(&sent, &["SELECT"]).len()), (ann.clone(), 1));
    assert!(!ann.is_stale());
}

#[test]
fn two_sessions_that_add_in_turn_lose_nothing() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let (one, other) = (fixture.session(), fixture.session());
    let mine = one.get_one::<User>(id).unwrap();
    one.commit().unwrap();
    let theirs = other.get_one::<User>(id).unwrap();
    other.commit().unwrap();
    for _ in 0..50 {
        mine.write().unwrap().balance += 10;
        one.commit().unwrap();
        theirs.write().unwrap().balance += 10;
        other.commit().unwrap();
    }
    assert_eq!(fixture.users()[0].balance, 1_000);
}

#[test]
fn a_versioned_row_that_somebody_changed_is_stale_data_and_nothing_is_overwritten() {
    if !CONCURRENT {
        return;
    }
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let users: Vec<_> = ids.iter().map(|id| session.get_one::<User>(*id).unwrap()).collect();
    session.commit().unwrap();
    // Read in a transaction of its own, so that the change of the other is not waited for.
    let values: Vec<User> = users.iter().map(|user| user.read().unwrap().clone()).collect();
    let other = fixture.session();
    other.get_one::<User>(ids[1]).unwrap().write().unwrap().balance = 7;
    other.commit().unwrap();
    let error = session.merge_existing(User { balance: 5, ..values[1].clone() }).unwrap_err();
    assert!(error.is_stale_data(), "{error}");
    session.rollback().unwrap();
    assert_eq!(fixture.users()[1].balance, 7);
}

#[test]
fn every_way_past_the_map_makes_what_it_holds_stale() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let ann = session.get_one::<User>(id).unwrap();
    let ways: [&dyn Fn(i64); 4] = [
        &|n| {
            session.execute(diesel::update(users::table.find(id)).set(users::balance.eq(n))).unwrap();
        },
        &|n| {
            session.execute(diesel::sql_query(format!("UPDATE users SET balance = {n}"))).unwrap();
        },
        &|n| session.batch_execute(&format!("UPDATE users SET balance = {n}")).unwrap(),
        &|n| {
            session
                .with_connection(|conn| diesel::update(users::table.find(id)).set(users::balance.eq(n)).execute(conn))
                .map(drop)
                .unwrap();
        },
    ];
    for (n, way) in ways.iter().enumerate() {
        let n = n as i64 + 1;
        // What waits goes first.
        ann.write().unwrap().email = Some(format!("{n}"));
        way(n);
        assert!(ann.is_stale());
        assert_eq!(session.get_one::<User>(id).unwrap().read().unwrap().balance, n);
        way(10 * n);
        ann.write().unwrap().balance += 1;
        session.flush().unwrap();
        assert_eq!(ann.read().unwrap().balance, 10 * n + 1);
        assert_eq!(ann.read().unwrap().email, Some(format!("{n}")));
        way(20 * n);
        let loaded = session.load_tracked(users::table.select(User::as_select())).unwrap();
        assert_eq!(loaded[0].read().unwrap().balance, 20 * n);
    }
    session.commit().unwrap();
}

#[test]
fn a_unit_of_work_that_met_an_old_version_is_run_again() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let known = fixture.users();
    fixture
        .registry
        .transaction(|session| session.get_one::<User>(known[0].id)?.update(|ann| ann.balance = 5))
        .unwrap();
    type Work = fn(&Session, User) -> diesel_session::Result<()>;
    let ways: [Work; 2] = [
        |session, ann| session.merge_existing(ann).map(drop),
        |session, ann| session.bulk_update([ann], Bulk::new()).map(drop),
    ];
    let policy = RetryPolicy::new(3).backoff(Duration::from_millis(1), Duration::from_millis(2));
    for work in ways {
        let options = TransactionOptions::new().retry(policy.also(Error::is_stale_data));
        let balance = fixture.registry.transaction_with(options, |session| -> diesel_session::Result<i64> {
            let is_first = session.attempt().is_some_and(|attempt| attempt.number() == 1);
            let start = if is_first { known[0].clone() } else { session.get_one::<User>(known[0].id)?.into_value()? };
            let balance = start.balance + 10;
            work(session, User { balance, ..start })?;
            Ok(balance)
        });
        assert_eq!(balance.unwrap(), fixture.users()[0].balance);
    }
    assert_eq!(fixture.users()[0].balance, 25);
}

#[test]
fn a_row_that_is_gone_is_told_and_its_handle_detached() {
    let fixture = Fixture::new().with_users(&["ann", "bob", "eve"]);
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let handles: Vec<_> = ids.iter().map(|id| session.get_one::<User>(*id).unwrap()).collect();
    session.execute(diesel::delete(users::table)).unwrap();
    assert_eq!(session.get::<User>(ids[0]).unwrap(), None);
    assert_eq!(handles[0].state(), ObjectState::Detached);
    assert!(matches!(handles[1].write(), Err(Error::RowGone { .. })));
    assert_eq!(handles[1].state(), ObjectState::Detached);
    assert!(matches!(session.refresh(&handles[2]), Err(Error::RowGone { .. })));
    assert_eq!(handles[2].read().unwrap().nickname, "eve");
    session.commit().unwrap();
}

#[test]
fn without_a_transaction_every_look_asks_the_database() {
    let fixture = Fixture::watched().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = Session::with_options(fixture.registry.engine(), autocommit()).unwrap();
    let ann = session.get_one::<User>(id).unwrap();
    let (again, sent) = recorded(|| session.get_one::<User>(id).unwrap());
    assert_eq!((again, only(&sent, &["SELECT"]).len()), (ann, 1));
}

#[test]
fn what_waits_is_flushed_before_queries_except_where_that_is_off() {
    let fixture = Fixture::new();
    let session = fixture.session();
    session.add(user("ann")).unwrap();
    let count = || session.get_result::<i64>(users::table.count()).unwrap();
    assert_eq!(session.no_autoflush(count), 0);
    assert!(session.has_changes());
    assert_eq!(count(), 1);
    assert!(!session.has_changes());
}

#[test]
fn a_changeset_is_written_at_once_and_seen_by_the_handle() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    ann.write().unwrap().balance = 3;
    session.apply(&ann, (users::email.eq("ann@example.org"), users::nickname.eq("anna"))).unwrap();
    let now = ann.read().unwrap();
    assert_eq!((now.balance, now.email.as_deref(), &*now.nickname), (3, Some("ann@example.org"), "anna"));
    session.rollback().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(ann.read().unwrap().email, None);
}

#[test]
fn get_or_add_gives_one_row_whoever_was_first() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let one = session.get_or_add::<Country>("DE", || country("DE", "Germany")).unwrap();
    let again = session.get_or_add::<Country>("DE", || country("DE", "another")).unwrap();
    assert_eq!(one, again);
    session.commit().unwrap();
    assert_eq!(one.read().unwrap().name, "Germany");
}

#[test]
fn many_keys_are_one_query_and_come_in_their_order() {
    let fixture = Fixture::watched().with_users(&["ann", "bob", "eve"]);
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let bob = session.get_one::<User>(ids[1]).unwrap();
    let (found, sent) = recorded(|| session.get_many::<User, _>([ids[2], ids[1], -5, ids[0], ids[2]]).unwrap());
    let names: Vec<_> = found.iter().map(|user| user.read().unwrap().nickname.clone()).collect();
    assert_eq!(names, ["eve", "bob", "ann", "eve"]);
    assert_eq!(found[1], bob);
    assert_eq!(found[0], found[3]);
    assert_eq!(only(&sent, &["SELECT"]).len(), 1);
}

#[test]
fn a_locked_row_is_read_whatever_is_known_of_it() {
    let fixture = Fixture::watched().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let ann = session.get_one::<User>(id).unwrap();
    ann.write().unwrap().balance = 4;
    let (locked, sent) =
        recorded(|| session.get_for_update::<User>(id, diesel_session::RowLock::update()).unwrap().unwrap());
    assert_eq!(locked, ann);
    assert_eq!(only(&sent, &["SELECT"]).len(), 1);
    assert_eq!(ann.read().unwrap().balance, 4);
    session.commit().unwrap();
}

#[test]
fn the_rows_that_were_not_as_they_were_known_are_named() {
    let names: Vec<String> = (0..10).map(|n| format!("user {n}")).collect();
    let fixture = Fixture::new().with_users(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let users = session.get_many::<User, _>(ids.clone()).unwrap();
    for user in &users {
        user.write().unwrap().balance = 1;
    }
    // Somebody changes one and deletes another, as a trigger might.
    session.no_autoflush(|| {
        session.execute(diesel::update(users::table.find(ids[3])).set(users::version.eq(7))).unwrap();
        session.execute(diesel::delete(users::table.find(ids[6]))).unwrap();
    });
    match session.flush().unwrap_err() {
        Error::StaleData { table, expected, matched, keys } => {
            assert_eq!((table, expected, matched), ("users", 10, 8));
            assert_eq!(keys, [ids[3].to_string(), ids[6].to_string()]);
        }
        other => panic!("{other}"),
    }
    assert_eq!(session.dirty_entities::<User>().len(), 10);
    session.rollback().unwrap();
    assert!(fixture.users().iter().all(|user| user.balance == 0));
    // Deletes are counted as well.
    session.delete(&users[0]).unwrap();
    session.no_autoflush(|| session.execute(diesel::delete(users::table.find(ids[0]))).unwrap());
    assert!(session.commit().unwrap_err().is_stale_data());
    assert_eq!(fixture.users().len(), 10);
}

#[test]
fn rows_that_may_have_gone_with_a_deleted_one_are_read_anew() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let bob = session.add(user("bob")).unwrap();
    let group = session.add_with(&bob, |bob| NewGroup { name: "g".into(), owner_id: Some(bob.id) }).unwrap();
    session.flush().unwrap();
    assert!(!group.is_stale());
    // Nothing refers to what only changes.
    bob.write().unwrap().balance = 3;
    session.flush().unwrap();
    assert!(!group.is_stale());
    session.delete(&ann).unwrap();
    session.flush().unwrap();
    assert!(group.is_stale() && !bob.is_stale());
}
