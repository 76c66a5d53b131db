//! What needs several connections at once.

use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::entity::sql;
use diesel_session::{Kind, RowLock, SessionConnection};

use super::db::Conn;
use super::models::*;

fn records(of: &str, n: usize) -> Vec<NewUser> {
    (0..n).map(|i| NewUser { nickname: format!("{of} {i}"), email: Some(of.into()) }).collect()
}

/// Inserts in many transactions, each connection beside the other, and checks what came back against what is stored.
fn interleaved(prepare: &str) {
    let (database, mut conn) = connect();
    let start = Barrier::new(2);
    std::thread::scope(|threads| {
        for of in ["one", "other"] {
            let (url, start) = (&database.url, &start);
            threads.spawn(move || {
                let mut conn = Conn::establish(url).unwrap();
                if !prepare.is_empty() {
                    conn.batch_execute(prepare).unwrap();
                }
                start.wait();
                for round in 0..30 {
                    let records = records(&format!("{of} {round}"), 1 + round * 3);
                    let rows: Vec<_> = records.iter().collect();
                    let made = conn.transaction(|conn| sql::insert::<Conn, NewUser>(conn, &rows)).unwrap();
                    let ids: Vec<i32> = made.iter().map(|(id, _)| *id).collect();
                    let stored: Vec<(i32, String)> = users::table
                        .filter(users::id.eq_any(&ids))
                        .order(users::id)
                        .select((users::id, users::nickname))
                        .load(&mut conn)
                        .unwrap();
                    let expected: Vec<_> =
                        ids.iter().zip(&records).map(|(id, record)| (*id, record.nickname.clone())).collect();
                    assert_eq!(stored, expected);
                }
            });
        }
    });
    let expected: usize = (0..30).map(|round| 1 + round * 3).sum::<usize>() * 2;
    assert_eq!(users::table.count().get_result::<i64>(&mut conn).unwrap(), expected as i64);
}

#[test]
fn two_inserters_at_once_get_their_own_values_each() {
    interleaved("");
}

#[test]
fn other_steps_of_the_counter_are_followed() {
    let (_database, conn) = connect();
    if conn.kind() == Kind::Mysql {
        interleaved("SET SESSION auto_increment_increment = 3, auto_increment_offset = 2");
    } else {
        interleaved("ALTER SEQUENCE users_id_seq INCREMENT 3 CACHE 5");
    }
}

#[test]
fn a_counter_that_goes_down_is_refused() {
    let (_database, mut conn) = connect();
    if conn.kind() != Kind::Postgres {
        return;
    }
    conn.batch_execute("DROP TABLE users; CREATE SEQUENCE down INCREMENT -1; CREATE TABLE users (id INTEGER PRIMARY KEY DEFAULT nextval('down'), nickname TEXT NOT NULL, email TEXT, version INTEGER NOT NULL DEFAULT 1)").unwrap();
    let records = records("x", 4);
    let rows: Vec<_> = records.iter().collect();
    let error = conn.transaction(|conn| sql::insert::<Conn, NewUser>(conn, &rows)).unwrap_err();
    assert!(error.to_string().contains("don't count up"), "{error}");
    assert_eq!(users::table.count().get_result::<i64>(&mut conn).unwrap(), 0);
    assert_eq!(sql::insert::<Conn, NewUser>(&mut conn, &rows[..1]).unwrap().len(), 1);
}

#[test]
fn a_key_that_is_not_counted_up_is_not_guessed() {
    let (_database, mut conn) = connect();
    if conn.kind() != Kind::Mysql {
        return;
    }
    // The connection's LAST_INSERT_ID() is one of another table.
    let made = records("x", 2);
    let rows: Vec<_> = made.iter().collect();
    sql::insert::<Conn, NewUser>(&mut conn, &rows).unwrap();
    conn.batch_execute("ALTER TABLE users MODIFY id INTEGER NOT NULL DEFAULT (7)").unwrap();
    sql::insert::<Conn, NewUser>(&mut conn, &rows[..1]).unwrap_err();
}

#[test]
fn locks_hold_and_nobody_waits_who_does_not_want_to() {
    let (database, mut conn) = connect();
    let made = records("x", 2);
    let rows: Vec<_> = made.iter().collect();
    let ids: Vec<i32> = sql::insert::<Conn, NewUser>(&mut conn, &rows).unwrap().iter().map(|(id, _)| *id).collect();
    let mut other = Conn::establish(&database.url).unwrap();
    conn.begin_test_transaction().unwrap();
    sql::load_by_keys::<Conn, User>(&mut conn, &ids[..1], Some(RowLock::update())).unwrap();
    for lock in [RowLock::update(), RowLock::no_key_update(), RowLock::share(), RowLock::key_share()] {
        // Twice: what failed once must not be in the way of the next.
        for _ in 0..2 {
            let refused = other.transaction(|other| sql::load_by_keys::<Conn, User>(other, &ids, Some(lock.no_wait())));
            refused.unwrap_err();
        }
        let free = other.transaction(|other| sql::load_by_keys::<Conn, User>(other, &ids, Some(lock.skip_locked())));
        assert_eq!(free.unwrap().iter().map(|user| user.id).collect::<Vec<_>>(), ids[1..], "{lock:?}");
    }
}
