//! Attacks on the unit of work with tables of their own, on SQLite: collations, cascades, hooks, types that panic, faults.
//! Each was a way to break it.
#![cfg(all(feature = "sqlite", not(any(feature = "postgres", feature = "mysql"))))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::deserialize::{FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::serialize::{Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel_session::testing::{Fault, FaultPlan};
use diesel_session::{
    Engine, Entity, EntityHooks, Error, ObjectState, Record, RecordHooks, Result, RetryPolicy, ScopedSession, Session,
    TransactionOptions,
};

diesel::table! { cities (code) { code -> Text, name -> Text, } }
diesel::table! { streets (id) { id -> Integer, city -> Text, name -> Text, } }
diesel::table! { houses (id) { id -> Integer, street_id -> Integer, } }
diesel::table! { lodgers (id) { id -> Integer, house_id -> Integer, name -> Text, } }
diesel::table! { notes (id) { id -> Integer, text -> Text, written -> Integer, } }
diesel::table! { logs (id) { id -> Integer, text -> Text, } }

const SCHEMA: &str = "
CREATE TABLE cities (code TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, name TEXT NOT NULL);
CREATE TABLE streets (id INTEGER PRIMARY KEY NOT NULL, city TEXT NOT NULL COLLATE NOCASE REFERENCES cities (code), name TEXT NOT NULL);
CREATE TABLE houses (id INTEGER PRIMARY KEY NOT NULL, street_id INTEGER NOT NULL REFERENCES streets (id) ON DELETE CASCADE);
CREATE TABLE lodgers (id INTEGER PRIMARY KEY NOT NULL, house_id INTEGER NOT NULL REFERENCES houses (id) ON DELETE CASCADE, name TEXT NOT NULL);
CREATE TABLE notes (id INTEGER PRIMARY KEY NOT NULL, text TEXT NOT NULL, written INTEGER NOT NULL DEFAULT 0);
CREATE TABLE logs (id INTEGER PRIMARY KEY NOT NULL, text TEXT NOT NULL);";

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = cities, primary_key(code))]
struct City {
    code: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record)]
#[diesel(table_name = streets, belongs_to(City, foreign_key = city))]
struct Street {
    id: i32,
    city: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record)]
#[diesel(table_name = houses, belongs_to(Street))]
struct House {
    id: i32,
    street_id: i32,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record)]
#[diesel(table_name = lodgers, belongs_to(House))]
struct Lodger {
    id: i32,
    house_id: i32,
    name: String,
}

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn hear(what: &str) {
    HEARD.with_borrow_mut(|heard| heard.push(what.into()));
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[entity(hooks)]
struct Note {
    id: i32,
    text: String,
    written: i32,
}

impl EntityHooks<SqliteConnection> for Note {
    fn before_update(&mut self, _: &mut SqliteConnection) -> Result<()> {
        hear("before update");
        Ok(())
    }
    fn after_update(&self, _: &mut SqliteConnection) -> Result<()> {
        hear("after update");
        Ok(())
    }
    fn before_delete(&self, _: &mut SqliteConnection) -> Result<()> {
        hear("before delete");
        Ok(())
    }
    fn after_delete(&self, _: &mut SqliteConnection) -> Result<()> {
        hear("after delete");
        Ok(())
    }
}

impl RecordHooks<SqliteConnection> for Note {
    fn before_insert(&mut self, _: &mut SqliteConnection) -> Result<()> {
        hear("before insert");
        Ok(())
    }
    fn after_insert(_: &Note, _: &mut SqliteConnection) -> Result<()> {
        hear("after insert");
        Ok(())
    }
}

/// Counts in another table what is logged.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[entity(hooks)]
#[diesel(table_name = logs)]
struct Log {
    id: i32,
    text: String,
}

impl EntityHooks<SqliteConnection> for Log {}

impl RecordHooks<SqliteConnection> for Log {
    fn after_insert(_: &Log, connection: &mut SqliteConnection) -> Result<()> {
        diesel::update(notes::table).set(notes::written.eq(notes::written + 1)).execute(connection).unwrap();
        Ok(())
    }
}

fn engine() -> Engine<SqliteConnection> {
    let engine = Engine::<SqliteConnection>::builder(":memory:").build().unwrap();
    prepare(&engine);
    engine
}

fn prepare(engine: &Engine<SqliteConnection>) {
    Session::with_options(engine, diesel_session::autocommit()).unwrap().batch_execute(SCHEMA).unwrap();
}

fn town(session: &Session<SqliteConnection>) {
    session.add(City { code: "DE".into(), name: "x".into() }).unwrap();
    session.flush().unwrap();
    session.execute(diesel::sql_query("INSERT INTO streets VALUES (1, 'de', 'Main')")).unwrap();
    session.commit().unwrap();
}

/// A hook's SQL is raw SQL through the session (rule 7), and the map goes on with what it knew: a lost update.
#[test]
fn what_a_hook_writes_is_not_overwritten_by_what_the_map_knew() {
    let session = Session::new(&engine());
    let note = session.add(Note { id: 1, text: "n".into(), written: 0 }).unwrap();
    session.flush().unwrap();
    session.add(Log { id: 1, text: "l".into() }).unwrap();
    session.flush().unwrap();
    note.write().unwrap().written += 10;
    session.commit().unwrap();
    assert_eq!(session.get_result::<i32>(notes::table.select(notes::written)).unwrap(), 11);
}

/// `after_insert` is left out, and no other hook tells that the row was written.
#[test]
fn a_record_that_takes_the_place_of_a_row_has_its_hooks() {
    let session = Session::new(&engine());
    let note = session.add(Note { id: 1, text: "n".into(), written: 0 }).unwrap();
    session.commit().unwrap();
    HEARD.take();
    session.delete(&note).unwrap();
    session.add(Note { id: 1, text: "m".into(), written: 0 }).unwrap();
    session.commit().unwrap();
    let heard = HEARD.take();
    let is_paired = |what: &str| heard.contains(&format!("before {what}")) == heard.contains(&format!("after {what}"));
    assert!(["insert", "update", "delete"].into_iter().all(is_paired), "{heard:?}");
}

type Sqlite3 = Session<SqliteConnection>;

mod ends;
mod faults;
mod keys;
mod listeners;
mod values;
