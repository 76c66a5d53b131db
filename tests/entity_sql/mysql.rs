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
