//! What is promised on every database.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use diesel::connection::InstrumentationEvent;
use diesel::prelude::*;
use diesel_session::entity::sql;
use diesel_session::{Change, ColumnSet, Entity, Record, RowLock};

use super::db::Conn;
use super::models::*;

/// Around each size of a statement, and beyond the largest.
const BORDERS: [usize; 13] = [0, 1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 700];

fn new_users(n: usize) -> Vec<NewUser> {
    (0..n).map(|i| NewUser { nickname: format!("user {i}"), email: (i % 7 > 0).then(|| format!("{i}@x")) }).collect()
}

fn refs<T>(rows: &[T]) -> Vec<&T> {
    rows.iter().collect()
}

fn finish<N: Record>(records: Vec<N>, generated: Vec<N::Generated>) -> Vec<N::Entity> {
    assert_eq!(records.len(), generated.len());
    records.into_iter().zip(generated).map(|(record, generated)| record.finish(generated)).collect()
}

fn add_users(conn: &mut Conn, n: usize) -> Vec<User> {
    let records = new_users(n);
    let generated = sql::insert::<Conn, NewUser>(conn, &refs(&records)).unwrap();
    finish(records, generated)
}

fn all_users(conn: &mut Conn) -> Vec<User> {
    users::table.order(users::id).select(User::as_select()).load(conn).unwrap()
}

fn memberships_of(n: usize) -> Vec<Membership> {
    (0..n as i32).map(|i| Membership { user_id: i / 3, group_id: i % 3, role: format!("role {i}") }).collect()
}

#[test]
fn what_was_generated_for_a_row_comes_back_with_that_row() {
    let (_database, mut conn) = connect();
    conn.begin_test_transaction().unwrap();
    for n in BORDERS {
        let made = add_users(&mut conn, n);
        let keys: Vec<_> = made.iter().map(Entity::key).collect();
        let mut stored = sql::load_by_keys::<Conn, User>(&mut conn, &keys, None).unwrap();
        stored.sort_by_key(|user| user.id);
        assert!(keys.is_sorted_by(|one, next| one < next));
        assert_eq!(stored, made);
    }
}

#[test]
fn ten_thousand_rows_keep_their_generated_values() {
    let (_database, mut conn) = connect();
    conn.begin_test_transaction().unwrap();
    let records: Vec<_> = (0..10_000)
        .map(|i| NewReading {
            user_id: (i % 2 == 0).then_some(i),
            at: None,
            good: i % 3 == 0,
            value: Some(f64::from(i) / 8.0),
            note: None,
        })
        .collect();
    let generated = sql::insert::<Conn, NewReading>(&mut conn, &refs(&records)).unwrap();
    let made = finish(records, generated);
    let stored: Vec<Reading> =
        readings::table.order(readings::id).select(Reading::as_select()).load(&mut conn).unwrap();
    assert_eq!(stored, made);
}

#[test]
fn outside_a_transaction_too() {
    let (_database, mut conn) = connect();
    let made = add_users(&mut conn, 100);
    assert_eq!(all_users(&mut conn), made);
}

#[test]
fn rows_that_bring_their_keys_get_what_was_generated_for_them() {
    let (_database, mut conn) = connect();
    for n in BORDERS {
        let records: Vec<_> =
            (0..n).rev().map(|i| NewCountry { code: format!("{n}é{i}"), name: format!("c {i}") }).collect();
        let generated = sql::insert::<Conn, NewCountry>(&mut conn, &refs(&records)).unwrap();
        assert_eq!(generated, vec![(7,); n]);
    }
}

#[test]
fn rows_of_which_nothing_is_generated_are_only_inserted() {
    let (_database, mut conn) = connect();
    for n in BORDERS {
        let rows = memberships_of(n);
        assert_eq!(sql::insert_given::<Conn, Membership>(&mut conn, &refs(&rows)).unwrap().len(), n);
        let keys: Vec<_> = rows.iter().map(Entity::key).collect();
        let mut stored = sql::load_by_keys::<Conn, Membership>(&mut conn, &keys, None).unwrap();
        stored.sort_by_key(Entity::key);
        assert_eq!(stored, rows);
        assert_eq!(sql::delete_by_keys::<Conn, Membership>(&mut conn, &keys).unwrap(), n);
        let records = new_users(n);
        assert_eq!(sql::insert_only::<Conn, NewUser>(&mut conn, &refs(&records)).unwrap(), n);
    }
}

#[test]
fn updates_write_the_changed_columns_of_each_row() {
    let (_database, mut conn) = connect();
    for n in BORDERS {
        diesel::delete(users::table).execute(&mut conn).unwrap();
        let old = add_users(&mut conn, n);
        let mut new = old.clone();
        for (i, user) in new.iter_mut().enumerate() {
            user.email = (i % 5 > 0).then(|| format!("{i}@ü"));
            user.nickname = "not written".into();
            user.version += 1;
        }
        let rows: Vec<_> = old.iter().zip(&new).map(|(old, new)| Change { old, new }).collect();
        let columns = ColumnSet::of(2) | ColumnSet::of(3);
        assert_eq!(sql::update::<Conn, User>(&mut conn, &rows, columns).unwrap(), n);
        let written: Vec<_> =
            rows.iter().map(|row| User { nickname: row.old.nickname.clone(), ..row.new.clone() }).collect();
        assert_eq!(all_users(&mut conn), written);
        // The same again finds no row: the versions have moved on.
        assert_eq!(sql::update::<Conn, User>(&mut conn, &rows, columns).unwrap(), 0);
    }
}

#[test]
fn updates_that_change_nothing_count_as_found() {
    let (_database, mut conn) = connect();
    let made = add_users(&mut conn, 100);
    let rows: Vec<_> = made.iter().map(|user| Change { old: user, new: user }).collect();
    assert_eq!(sql::update::<Conn, User>(&mut conn, &rows, ColumnSet::of(1)).unwrap(), 100);
    assert_eq!(sql::update::<Conn, User>(&mut conn, &rows[..1], ColumnSet::of(1)).unwrap(), 1);
}

#[test]
fn all_types_come_through_an_update_of_many_rows() {
    let (_database, mut conn) = connect();
    let at = |i: i64| {
        chrono::DateTime::from_timestamp_micros(1_700_000_000_123_456 + i * 86_399_999_999).unwrap().naive_utc()
    };
    for n in [1, 4, 100] {
        let records = vec![NewReading { user_id: None, at: None, good: false, value: None, note: None }; n];
        let generated = sql::insert::<Conn, NewReading>(&mut conn, &refs(&records)).unwrap();
        let old = finish(records, generated);
        let all: ColumnSet = (1..6).collect();
        // NULL to value, value to value, value to NULL; with NULL in the first row and without.
        let mut before = old;
        for round in 0..4_i64 {
            let mut after = before.clone();
            for (i, row) in after.iter_mut().enumerate() {
                let some = (i as i64 + round) % 3 > 0 && round < 3;
                row.user_id = some.then_some(i as i32 - 50);
                row.at = some.then(|| at(i as i64));
                row.good = some;
                row.value = some.then_some(i as f64 / 3.0 - 1e100);
                row.note = some.then(|| format!("note {i} ü 🐘 '\\ {}", "x".repeat(i * 10)));
            }
            let rows: Vec<_> = before.iter().zip(&after).map(|(old, new)| Change { old, new }).collect();
            assert_eq!(sql::update::<Conn, Reading>(&mut conn, &rows, all).unwrap(), n);
            let keys: Vec<_> = after.iter().map(Entity::key).collect();
            let mut stored = sql::load_by_keys::<Conn, Reading>(&mut conn, &keys, None).unwrap();
            stored.sort_by_key(|row| row.id);
            assert_eq!(stored, after, "round {round} of {n}");
            before = after;
        }
    }
}

#[test]
fn text_keys_and_composite_keys_find_their_rows() {
    let (_database, mut conn) = connect();
    let old: Vec<_> =
        (0..100).map(|i| Country { code: format!("ç{i}"), name: format!("c {i}"), population: i }).collect();
    sql::insert_given::<Conn, Country>(&mut conn, &refs(&old)).unwrap();
    let new: Vec<_> =
        old.iter().map(|c| Country { name: format!("new {}", c.name), population: -1, ..c.clone() }).collect();
    let rows: Vec<_> = old.iter().zip(&new).map(|(old, new)| Change { old, new }).collect();
    assert_eq!(sql::update::<Conn, Country>(&mut conn, &rows, (1..3).collect()).unwrap(), 100);
    let mut stored: Vec<Country> = countries::table.select(Country::as_select()).load(&mut conn).unwrap();
    stored.sort_by_key(|country| {
        country.name.len() * 1000 + country.name[6..].trim_start_matches("c ").parse::<usize>().unwrap()
    });
    assert_eq!(stored, new);
    assert_eq!(sql::delete::<Conn, Country>(&mut conn, &refs(&new)).unwrap(), 100);

    let old = memberships_of(100);
    sql::insert_given::<Conn, Membership>(&mut conn, &refs(&old)).unwrap();
    let new: Vec<_> = old.iter().map(|m| Membership { role: "é".into(), ..m.clone() }).collect();
    let rows: Vec<_> = old.iter().zip(&new).map(|(old, new)| Change { old, new }).collect();
    assert_eq!(sql::update::<Conn, Membership>(&mut conn, &rows, ColumnSet::of(2)).unwrap(), 100);
    assert_eq!(sql::delete::<Conn, Membership>(&mut conn, &refs(&new)[..99]).unwrap(), 99);
    let left: Vec<Membership> = memberships::table.select(Membership::as_select()).load(&mut conn).unwrap();
    assert_eq!(left, new[99..]);
}

#[test]
fn a_key_can_be_handed_on_from_row_to_row() {
    let (_database, mut conn) = connect();
    let old = memberships_of(3);
    sql::insert_given::<Conn, Membership>(&mut conn, &refs(&old)).unwrap();
    // From the last to the first each takes a place that is free by then.
    let new: Vec<_> = old.iter().map(|m| Membership { group_id: m.group_id + 1, ..m.clone() }).collect();
    let rows: Vec<_> = old.iter().zip(&new).rev().map(|(old, new)| Change { old, new }).collect();
    assert_eq!(sql::update::<Conn, Membership>(&mut conn, &rows, ColumnSet::of(1)).unwrap(), 3);
    let stored: Vec<Membership> =
        memberships::table.order(memberships::group_id).select(Membership::as_select()).load(&mut conn).unwrap();
    assert_eq!(stored, new);
}

#[test]
fn deletes_count_what_was_found_with_its_version() {
    let (_database, mut conn) = connect();
    for n in BORDERS {
        let made = add_users(&mut conn, n);
        let stale: Vec<_> = made.iter().map(|user| User { version: 9, ..user.clone() }).collect();
        assert_eq!(sql::delete::<Conn, User>(&mut conn, &refs(&stale)).unwrap(), 0);
        assert_eq!(sql::delete::<Conn, User>(&mut conn, &refs(&made)).unwrap(), n);
        assert_eq!(sql::delete::<Conn, User>(&mut conn, &refs(&made)).unwrap(), 0);
        let keys: Vec<_> = add_users(&mut conn, n).iter().map(Entity::key).chain([-1, -2]).collect();
        assert_eq!(sql::delete_by_keys::<Conn, User>(&mut conn, &keys).unwrap(), n);
    }
}

#[test]
fn keys_without_rows_give_none() {
    let (_database, mut conn) = connect();
    let made = add_users(&mut conn, 1);
    assert_eq!(sql::load_by_keys::<Conn, User>(&mut conn, &[], None).unwrap(), []);
    assert_eq!(sql::load_by_keys::<Conn, User>(&mut conn, &[-1], None).unwrap(), []);
    assert_eq!(sql::load_by_keys::<Conn, User>(&mut conn, &[-1, made[0].id, -2], None).unwrap(), made);
}

#[test]
fn every_lock_is_understood() {
    let (_database, mut conn) = connect();
    let made = add_users(&mut conn, 1);
    conn.begin_test_transaction().unwrap();
    for lock in [RowLock::update(), RowLock::no_key_update(), RowLock::share(), RowLock::key_share()] {
        for lock in [lock, lock.no_wait(), lock.skip_locked()] {
            assert_eq!(sql::load_by_keys::<Conn, User>(&mut conn, &[made[0].id], Some(lock)).unwrap(), made);
        }
    }
}

#[derive(AsChangeset)]
#[diesel(table_name = users)]
struct Patch {
    nickname: Option<String>,
    email: Option<Option<String>>,
}

#[test]
fn changes_are_applied_to_a_row_that_is_not_loaded() {
    let (_database, mut conn) = connect();
    let made = add_users(&mut conn, 2);
    let apply = |conn: &mut Conn, id: i32, patch: Patch| {
        sql::apply::<Conn, User>(conn, &id, None, &diesel::query_builder::AsChangeset::as_changeset(patch)).unwrap()
    };
    let patch = || Patch { nickname: Some("ann".into()), email: Some(None) };
    assert_eq!(apply(&mut conn, made[1].id, patch()), 1);
    assert_eq!(apply(&mut conn, -1, patch()), 0);
    assert_eq!(
        apply(&mut conn, made[1].id, Patch { nickname: None, email: None }),
        1,
        "nothing to change, nothing sent"
    );
    let expected = [made[0].clone(), User { nickname: "ann".into(), email: None, version: 2, ..made[1] }];
    assert_eq!(all_users(&mut conn), expected);
    let reading = NewReading { user_id: Some(1), at: None, good: true, value: Some(1.0), note: None };
    let ids = sql::insert::<Conn, NewReading>(&mut conn, &[&reading, &reading]).unwrap();
    assert_eq!(sql::set_null::<Conn, Reading>(&mut conn, &ids[0].0, [1, 4].into_iter().collect()).unwrap(), 1);
    let stored: Vec<(Option<i32>, Option<f64>)> =
        readings::table.order(readings::id).select((readings::user_id, readings::value)).load(&mut conn).unwrap();
    assert_eq!(stored, [(None, None), (Some(1), Some(1.0))]);
}

#[test]
fn children_come_ordered_by_their_own_key() {
    let (_database, mut conn) = connect();
    let records: Vec<_> = (0..900)
        .map(|i| NewReading { user_id: (i % 10 > 0).then_some(i % 300), at: None, good: true, value: None, note: None })
        .collect();
    sql::insert_only::<Conn, NewReading>(&mut conn, &refs(&records)).unwrap();
    let some = sql::load_children::<Conn, Reading, User>(&mut conn, &[7, 11, 10], &[1]).unwrap();
    assert_eq!(some.len(), 6);
    assert!(some.is_sorted_by_key(|row| row.id) && some.iter().all(|row| [Some(7), Some(11)].contains(&row.user_id)));
    let all = sql::load_children::<Conn, Reading, User>(&mut conn, &(0..300).collect::<Vec<_>>(), &[1]).unwrap();
    assert_eq!(all.len(), 810);
    assert_eq!(all.iter().map(|row| row.id).collect::<HashSet<_>>().len(), 810);
}

#[test]
fn the_number_of_prepared_statements_stays_bounded() {
    let (_database, mut conn) = connect();
    conn.begin_test_transaction().unwrap();
    let prepared = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::new(Mutex::new(0));
    let (seen, count) = (prepared.clone(), sent.clone());
    conn.set_instrumentation(move |event: InstrumentationEvent<'_>| match event {
        InstrumentationEvent::CacheQuery { sql, .. } => seen.lock().unwrap().push(sql.to_owned()),
        InstrumentationEvent::StartQuery { .. } => *count.lock().unwrap() += 1,
        _ => {}
    });
    let round = |conn: &mut Conn| {
        for n in 0..150 {
            let old = add_users(conn, n);
            let new: Vec<_> = old.iter().map(|user| User { version: 2, ..user.clone() }).collect();
            let rows: Vec<_> = old.iter().zip(&new).map(|(old, new)| Change { old, new }).collect();
            sql::update::<Conn, User>(conn, &rows, ColumnSet::of(3)).unwrap();
            let keys: Vec<_> = new.iter().map(Entity::key).collect();
            sql::load_by_keys::<Conn, User>(conn, &keys, None).unwrap();
            sql::load_children::<Conn, Reading, User>(conn, &keys, &[1]).unwrap();
            sql::delete::<Conn, User>(conn, &refs(&new)).unwrap();
            sql::delete_by_keys::<Conn, User>(conn, &keys).unwrap();
        }
    };
    round(&mut conn);
    let once = prepared.lock().unwrap().len();
    assert!(once <= 40, "{once} statements: {:#?}", prepared.lock().unwrap());
    round(&mut conn);
    assert_eq!(prepared.lock().unwrap().len(), once, "the second time all are there");
    // Rows that give the same columns share statements.
    *sent.lock().unwrap() = 0;
    let records = vec![NewReading { user_id: None, at: None, good: true, value: None, note: None }; 149];
    let ids = sql::insert::<Conn, NewReading>(&mut conn, &refs(&records)).unwrap();
    let keys: Vec<_> = ids.iter().map(|id| id.0).collect();
    sql::load_by_keys::<Conn, Reading>(&mut conn, &keys, None).unwrap();
    sql::delete_by_keys::<Conn, Reading>(&mut conn, &keys).unwrap();
    let sent = *sent.lock().unwrap();
    assert!(sent <= 20, "{sent}");
}
