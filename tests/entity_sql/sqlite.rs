//! Keys that SQLite would choose otherwise.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::entity::sql;
use diesel_session::{Change, ColumnSet};

use super::db::Conn;
use super::models::*;

fn insert(conn: &mut Conn, n: usize) -> Vec<i32> {
    let rows = vec![NewUser { nickname: "n".into(), email: None }; n];
    let rows: Vec<_> = rows.iter().collect();
    sql::insert::<Conn, NewUser>(conn, &rows).unwrap().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn keys_that_autoincrement_gave_before_are_not_given_again() {
    let (_database, mut conn) = connect();
    conn.begin_test_transaction().unwrap();
    assert_eq!(insert(&mut conn, 3), [1, 2, 3]);
    conn.batch_execute("DELETE FROM users").unwrap();
    assert_eq!(insert(&mut conn, 3), [4, 5, 6]);
    conn.batch_execute("DELETE FROM users; INSERT INTO users (nickname) VALUES ('x')").unwrap();
    assert_eq!(insert(&mut conn, 1), [8]);
}

#[test]
fn a_trigger_that_inserts_too_confuses_nothing() {
    let (_database, mut conn) = connect();
    conn.batch_execute(
        "CREATE TRIGGER twice AFTER INSERT ON users WHEN NEW.email IS NULL BEGIN
           INSERT INTO users (nickname, email) VALUES (NEW.nickname || ' twin', 'x'); END",
    )
    .unwrap();
    conn.begin_test_transaction().unwrap();
    assert_eq!(insert(&mut conn, 3), [1, 3, 5]);
}

#[test]
fn at_the_end_of_the_numbers_sqlite_looks_for_gaps() {
    let (_database, mut conn) = connect();
    conn.batch_execute(&format!("INSERT INTO readings (id, good) VALUES ({}, 1)", i64::MAX - 1)).unwrap();
    conn.begin_test_transaction().unwrap();
    let row = NewReading { user_id: None, at: None, good: true, value: None, note: None };
    let ids = sql::insert::<Conn, NewReading>(&mut conn, &[&row, &row, &row]).unwrap();
    assert_eq!(ids[0].0, i64::MAX);
    assert_eq!(readings::table.count().get_result::<i64>(&mut conn).unwrap(), 4);
}

/// What `change` makes of 20 users, each version raised, is stored by an UPDATE for all of them as by one for each.
fn as_one_by_one(ddl: &str, change: impl Fn(Vec<User>) -> Vec<(User, User)>) {
    let stored = |width: usize| {
        let (_database, mut conn) = connect();
        let records: Vec<_> = (0..20).map(|i| NewUser { nickname: format!("user {i}"), email: None }).collect();
        let refs: Vec<_> = records.iter().collect();
        conn.batch_execute(ddl).unwrap();
        conn.begin_test_transaction().unwrap();
        sql::insert::<Conn, NewUser>(&mut conn, &refs).unwrap();
        let all = users::table.order(users::id).select(User::as_select());
        let changed = change(all.load(&mut conn).unwrap());
        let changes: Vec<_> = changed.iter().map(|(old, new)| Change { old, new }).collect();
        let columns = ColumnSet::of(1) | ColumnSet::of(3);
        let found: usize =
            changes.chunks(width).map(|rows| sql::update::<Conn, User>(&mut conn, rows, columns).unwrap()).sum();
        (found, all.load(&mut conn).unwrap())
    };
    assert_eq!(stored(usize::MAX), stored(1));
}

fn raised(user: User, nickname: String) -> (User, User) {
    let new = User { nickname, version: user.version + 1, ..user.clone() };
    (user, new)
}

/// Each takes the name of the next, the last that of the first; beginning with the last, which finds its new name taken.
fn handed_back(users: Vec<User>) -> Vec<(User, User)> {
    let mut names: Vec<_> = users.iter().map(|user| user.nickname.clone()).collect();
    names.rotate_left(1);
    users.into_iter().zip(names).rev().map(|(user, name)| raised(user, name)).collect()
}

fn renamed(users: Vec<User>) -> Vec<(User, User)> {
    users.into_iter().map(|user| raised(user, "new".into())).collect()
}

#[test]
fn a_version_that_a_trigger_raises_is_not_found() {
    let raises = "AFTER UPDATE OF nickname ON users WHEN NEW.id = 1 BEGIN
           UPDATE users SET version = version + 1 WHERE id = 12; END";
    as_one_by_one(&format!("CREATE TRIGGER raising {raises}"), renamed);
    as_one_by_one(&format!("CREATE TEMP TRIGGER raising {raises}"), renamed);
}

#[test]
fn constraints_that_do_not_just_refuse_meet_the_rows_in_their_order() {
    for what in ["IGNORE", "REPLACE"] {
        for spelt in ["ON CONFLICT", "on conflict"] {
            as_one_by_one(
                &format!(
                    "PRAGMA case_sensitive_like = ON; DROP TABLE users; CREATE TABLE Users (id INTEGER PRIMARY KEY NOT NULL,
                     nickname TEXT NOT NULL UNIQUE {spelt} {what}, email TEXT, version INTEGER NOT NULL DEFAULT 1)"
                ),
                handed_back,
            );
        }
    }
}

#[test]
fn a_row_that_is_named_twice_is_found_once() {
    as_one_by_one("", |users| {
        users.into_iter().flat_map(|user| [raised(user.clone(), "one".into()), raised(user, "other".into())]).collect()
    });
}
