//! Keys that SQLite would choose otherwise.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::entity::sql;

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
