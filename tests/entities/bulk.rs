//! Many rows past the map.

use diesel::prelude::*;
use diesel_session::{Bulk, Error};

use super::models::*;
use super::schema::users;
use super::tools::Fixture;

fn many(n: usize) -> impl Iterator<Item = NewUser> {
    (0..n).map(|n| user(&format!("user {n}")))
}

#[test]
fn rows_go_in_by_chunks_and_progress_is_told() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let mut seen = Vec::new();
    let bulk = Bulk::new().chunk_size(100).progress(|progress| seen.push((progress.rows, progress.written)));
    assert_eq!(session.bulk_insert(many(250), bulk).unwrap(), 250);
    assert_eq!(seen, [(100, 100), (200, 200), (250, 250)]);
    session.commit().unwrap();
    assert_eq!(fixture.users().len(), 250);
}

#[test]
fn a_refused_row_is_named_and_nothing_of_the_call_stays() {
    for bad in [0, 1, 99, 100, 157, 249] {
        let fixture = Fixture::new().with_users(&["taken"]);
        let session = fixture.session();
        session.add(user("before")).unwrap();
        let rows = many(250).enumerate().map(|(n, row)| if n == bad { user("taken") } else { row });
        let error = session.bulk_insert(rows, Bulk::new().chunk_size(100)).unwrap_err();
        assert!(matches!(&error, Error::Bulk { row, .. } if *row == bad), "{bad}: {error}");
        assert!(error.is_unique_violation());
        session.commit().unwrap();
        assert_eq!(fixture.nicknames(), ["before", "taken"]);
    }
}

#[test]
fn updates_raise_the_version_and_name_the_row_that_is_not_as_it_was() {
    let fixture = Fixture::new().with_users(&["ann", "bob", "eve"]);
    let mut rows = fixture.users();
    for row in &mut rows {
        row.balance = 7;
        row.nickname.push('!');
    }
    let session = fixture.session();
    assert_eq!(session.bulk_update(rows.clone(), Bulk::new().columns(&["balance"])).unwrap(), 3);
    session.commit().unwrap();
    let now = fixture.users();
    assert!(now.iter().all(|user| user.balance == 7 && user.version == 2 && !user.nickname.ends_with('!')));
    // These are of the old version.
    let error = session.bulk_update(rows, Bulk::new()).unwrap_err();
    assert!(error.is_stale_data() && matches!(error, Error::Bulk { row: 0, .. }), "{error}");
    let mut rows = now;
    rows[2].version = 1;
    let error = session.bulk_update(rows, Bulk::new()).unwrap_err();
    assert!(matches!(error, Error::Bulk { row: 2, .. }), "{error}");
    session.commit().unwrap();
    assert!(fixture.users().iter().all(|user| user.version == 2));
    let error = session.bulk_update(fixture.users(), Bulk::new().columns(&["nick"])).unwrap_err();
    assert!(matches!(error, Error::Configuration(_)), "{error}");
}

#[test]
fn deletes_by_key_and_what_is_tracked_is_stale_afterwards() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let ann = session.get_one::<User>(ids[0]).unwrap();
    assert_eq!(session.bulk_delete::<User>([ids[0], -1], Bulk::new()).unwrap(), 1);
    assert!(ann.is_stale());
    assert_eq!(session.get::<User>(ids[0]).unwrap(), None);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["bob"]);
}

#[test]
fn an_editor_with_an_old_version_is_told_of_a_bulk_update() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let old = fixture.users();
    let session = fixture.session();
    session.bulk_update(old.clone(), Bulk::new()).unwrap();
    session.commit().unwrap();
    let error = session.merge_existing(User { balance: 3, ..old[0].clone() }).unwrap_err();
    assert!(error.is_stale_data(), "{error}");
    assert_eq!(session.get_result::<i64>(users::table.select(users::balance)).unwrap(), 0);
}
