//! Keys that only MySQL has.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::entity::sql;
use diesel_session::{Entity, Record};

use super::db::Conn;
use super::models::connect;

diesel::table! {
    use diesel::sql_types::{BigInt, Text, Unsigned};
    stars (id) { id -> Unsigned<BigInt>, name -> Text, }
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = stars, check_for_backend(diesel::mysql::Mysql))]
struct Star {
    id: u64,
    name: String,
}

#[derive(Insertable, Record)]
#[diesel(table_name = stars, check_for_backend(diesel::mysql::Mysql))]
#[entity(of = Star, generated(id))]
struct NewStar {
    name: String,
}

#[test]
fn keys_beyond_i64_come_back() {
    const FIRST: u64 = i64::MAX as u64 - 2;
    let (_database, mut conn) = connect();
    conn.batch_execute(&format!(
        "CREATE TABLE stars (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20) NOT NULL) AUTO_INCREMENT = {FIRST}"
    ))
    .unwrap();
    let new: Vec<_> = (0..6).map(|i| NewStar { name: format!("star {i}") }).collect();
    let refs: Vec<_> = new.iter().collect();
    conn.begin_test_transaction().unwrap();
    let made = sql::insert::<Conn, NewStar>(&mut conn, &refs).unwrap();
    assert_eq!(made.into_iter().map(|(id,)| id).collect::<Vec<_>>(), (FIRST..FIRST + 6).collect::<Vec<_>>());
}

diesel::table! { pebbles (id) { id -> Integer, name -> Text, } }

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = pebbles)]
struct Pebble {
    id: i32,
    name: String,
}

#[derive(Insertable, Record)]
#[diesel(table_name = pebbles)]
#[entity(of = Pebble, generated(id))]
struct NewPebble {
    name: String,
}

/// What the counter would give is known without a look at the rows; that it gave it is not.
#[test]
fn keys_that_a_trigger_gives_to_some_rows_are_not_guessed() {
    let new: Vec<_> = (0..5).map(|i| NewPebble { name: format!("pebble {i}") }).collect();
    let refs: Vec<_> = new.iter().collect();
    for step in [1, 3] {
        let (_database, mut conn) = connect();
        conn.batch_execute(&format!(
            "SET SESSION auto_increment_increment = {step}, auto_increment_offset = 1;
             CREATE TABLE pebbles (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20) NOT NULL)"
        ))
        .unwrap();
        let made = sql::insert::<Conn, NewPebble>(&mut conn, &refs).unwrap();
        assert_eq!(
            made.into_iter().map(|(id,)| id).collect::<Vec<_>>(),
            (0..5).map(|n| 1 + n * step).collect::<Vec<_>>()
        );
        // Just ahead of the counter, far ahead of it, behind it.
        for own in [1 + 2 * step, 1000, -7] {
            conn.batch_execute(&format!(
                "TRUNCATE pebbles; DROP TRIGGER IF EXISTS own_ids; CREATE TRIGGER own_ids BEFORE INSERT ON pebbles FOR EACH ROW
                 SET NEW.id = IF(NEW.name = 'pebble 2', {own}, NEW.id)"
            ))
            .unwrap();
            let error = sql::insert::<Conn, NewPebble>(&mut conn, &refs[1..]).unwrap_err();
            assert!(error.to_string().contains("does a trigger"), "{step}, {own}: {error}");
        }
    }
}

#[test]
fn a_step_that_a_trigger_changes_is_followed() {
    let new: Vec<_> = (0..5).map(|i| NewPebble { name: format!("pebble {i}") }).collect();
    let refs: Vec<_> = new.iter().collect();
    for (before, after) in [(3, 1), (1, 3)] {
        let (_database, mut conn) = connect();
        conn.batch_execute(&format!(
            "SET SESSION auto_increment_increment = {before}, auto_increment_offset = 1;
             CREATE TABLE pebbles (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20) NOT NULL);
             CREATE TRIGGER stepping BEFORE INSERT ON pebbles FOR EACH ROW SET SESSION auto_increment_increment = {after}"
        ))
        .unwrap();
        let made = sql::insert::<Conn, NewPebble>(&mut conn, &refs).unwrap();
        let made: Vec<_> = made
            .into_iter()
            .zip(new.iter().map(|pebble| pebble.name.clone()))
            .map(|((id,), name)| (id, name))
            .collect();
        let stored: Vec<(i32, String)> = pebbles::table.order(pebbles::id).load(&mut conn).unwrap();
        assert_eq!(made, stored, "from {before} to {after}");
    }
}
