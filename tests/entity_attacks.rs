//! Attacks on the unit of work with tables of their own, on SQLite: collations, cascades, hooks, types that panic, leaks, faults.
//! Each was a way to break it.
#![cfg(all(feature = "sqlite", not(any(feature = "postgres", feature = "mysql"))))]
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::System;
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
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

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

// ---- types with a mind of their own ----

#[derive(Debug, Clone, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
struct Picky(String);

impl ToSql<Text, Sqlite> for Picky {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> diesel::serialize::Result {
        <str as ToSql<Text, Sqlite>>::to_sql(&self.0, out)
    }
}

impl FromSql<Text, Sqlite> for Picky {
    fn from_sql(bytes: <Sqlite as diesel::backend::Backend>::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        <String as FromSql<Text, Sqlite>>::from_sql(bytes).map(Self)
    }
}

impl PartialEq for Picky {
    fn eq(&self, other: &Self) -> bool {
        assert!(self.0 != "boom" && other.0 != "boom", "boom");
        self.0 == other.0
    }
}

thread_local! {
    static AT_DROP: RefCell<Option<Session<SqliteConnection>>> = const { RefCell::new(None) };
    static DROPS: Cell<u32> = const { Cell::new(0) };
}

impl Drop for Picky {
    fn drop(&mut self) {
        if self.0 == "asks" {
            AT_DROP.with_borrow(|session| {
                if let Some(session) = session {
                    DROPS.set(DROPS.get() + 1);
                    let _ = session.has_changes();
                    let _ = session.tracked::<PickyNote>().len();
                    let _ = session.new_entities::<PickyNote>().len();
                    let _ = session.dirty_entities::<PickyNote>().len();
                    let _ = session.flush();
                }
            });
        }
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = logs)]
struct PickyNote {
    id: i32,
    text: Picky,
}

/// The value is taken out while user code compares it; a panic there, and the row has none any more.
#[test]
fn a_comparison_that_panics_does_not_take_the_value_away() {
    let session = Session::new(&engine());
    let note = session.add(PickyNote { id: 1, text: Picky("a".into()) }).unwrap();
    session.flush().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| note.write().unwrap().text.0 = "boom".into()));
    assert!(panicked.is_err());
    assert_eq!(note.read().map(|note| note.text.0.clone()).map_err(|error| error.to_string()), Ok("a".into()));
    note.write().unwrap().text.0 = "b".into();
    session.commit().unwrap();
}

/// `expunge_all` clears lists while they are borrowed; the last owner of a value is one of them. Other ends hold.
#[test]
fn values_may_use_the_session_when_they_are_dropped() {
    let mut panicked = Vec::new();
    for end in 0..6 {
        let session = Session::new(&engine());
        let note = session.add(PickyNote { id: 1, text: Picky("a".into()) }).unwrap();
        session.commit().unwrap();
        AT_DROP.set(Some(session.clone()));
        note.write().unwrap().text.0 = "asks".into();
        drop(note);
        let ended = catch_unwind(AssertUnwindSafe(|| match end {
            0 => session.rollback().map(drop),
            1 => session.flush(),
            2 => session.expunge_all(),
            3 => session.expire_all(),
            4 => session.remove_for_test(),
            _ => session.commit().map(drop),
        }));
        AT_DROP.set(None);
        if ended.is_err() {
            panicked.push(["rollback", "flush", "expunge_all", "expire_all", "close", "commit"][end]);
        }
    }
    assert!(panicked.is_empty(), "{panicked:?}");
    assert!(DROPS.get() > 0);
}

trait Close {
    fn remove_for_test(&self) -> Result<()>;
}

impl Close for Session<SqliteConnection> {
    fn remove_for_test(&self) -> Result<()> {
        self.close();
        Ok(())
    }
}

// ---- growth ----

/// Rule 32, "memory follows live handles, not rows written": a frame notes a live node again at each read.
#[test]
fn a_savepoint_that_reads_the_same_rows_again_and_again_does_not_grow() {
    let session = Session::new(&engine());
    town(&session);
    let savepoint = session.begin_nested().unwrap();
    let city = session.get_one::<City>("DE").unwrap();
    let region = Region::new(ALLOCATOR);
    for _ in 0..100_000 {
        session.refresh(&city).unwrap();
    }
    let change = region.change();
    let grown = change.bytes_allocated as isize - change.bytes_deallocated as isize;
    assert!(grown < 500_000, "{grown} bytes for one entity");
    savepoint.rollback().unwrap();
}

/// The same by savepoints that are released, each of which changes one row.
#[test]
fn a_transaction_with_many_savepoints_does_not_grow_with_them() {
    let session = Session::new(&engine());
    town(&session);
    let city = session.get_one::<City>("DE").unwrap();
    let region = Region::new(ALLOCATOR);
    for n in 0..20_000 {
        session
            .nested(|session| {
                city.write()?.name = if n % 2 == 0 { "a" } else { "b" }.into();
                session.flush()
            })
            .unwrap();
    }
    let change = region.change();
    let grown = change.bytes_allocated as isize - change.bytes_deallocated as isize;
    assert!(grown < 200_000, "{grown} bytes for one entity");
    session.rollback().unwrap();
}

// ---- faults ----

/// Each call of the driver fails once in each way; the unit of work is run again where that is safe. Stored is all of it
/// once, or nothing; what handles say agrees.
#[test]
fn whatever_fails_in_a_flush_nothing_is_doubled_or_half_stored() {
    let faults = [
        Fault::SerializationFailure,
        Fault::Deadlock,
        Fault::LockTimeout,
        Fault::Unknown,
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::PanicBefore,
        Fault::PanicAfter,
    ];
    for fault in faults {
        for k in 1..40 {
            let file = tempfile::tempdir().unwrap();
            let path = file.path().join("db");
            let plan = FaultPlan::new();
            let engine = Engine::<SqliteConnection>::builder(path.to_str().unwrap()).faults(&plan).build().unwrap();
            prepare(&engine);
            let registry = ScopedSession::new(engine);
            registry
                .transaction(|session| {
                    session.add(City { code: "OLD".into(), name: "o".into() })?;
                    session.add(City { code: "CHG".into(), name: "c".into() }).map(drop)
                })
                .unwrap();
            plan.reset();
            plan.at(k, fault);
            let options = TransactionOptions::new().retry(RetryPolicy::new(3));
            let kept = RefCell::new(Vec::new());
            let said = catch_unwind(AssertUnwindSafe(|| {
                registry.transaction_with(options, |session| {
                    kept.take();
                    let new = session.add(City { code: "NEW".into(), name: "n".into() })?;
                    let street =
                        session.add_with(&new, |new| Street { id: 1, city: new.code.clone(), name: "s".into() })?;
                    session.get_one::<City>("CHG")?.write()?.name = "changed".into();
                    let old = session.get_one::<City>("OLD")?;
                    session.delete(&old)?;
                    let inner = session.nested(|session| session.add(House { id: 1, street_id: street.id()? }))?;
                    kept.borrow_mut().push((new, old, street.clone(), inner));
                    Ok::<_, Error>(())
                })
            }));
            let calls = plan.calls().len();
            registry.remove();
            plan.reset();
            let (mut cities, streets, houses): (Vec<(String, String)>, i64, i64) = registry
                .read(|session| {
                    Ok::<_, Error>((
                        session.load(cities::table)?,
                        session.get_result(streets::table.count())?,
                        session.get_result(houses::table.count())?,
                    ))
                })
                .unwrap();
            cities.sort();
            let text = format!("{cities:?} {streets} {houses}");
            let done = "[(\"CHG\", \"changed\"), (\"NEW\", \"n\")] 1 1";
            let undone = "[(\"CHG\", \"c\"), (\"OLD\", \"o\")] 0 0";
            let what = format!("{fault:?} at {k}: {said:?}");
            match &said {
                Ok(Ok(())) => assert_eq!(text, done, "{what}"),
                Ok(Err(Error::CommitUnknown { .. })) | Err(_) => {
                    assert!(text == done || text == undone, "{what}: {text}");
                }
                Ok(Err(_)) => assert_eq!(text, undone, "{what}"),
            }
            for (new, old, street, house) in kept.take() {
                let states = (new.state(), old.state(), street.state(), house.state());
                let gone = ObjectState::Detached;
                if text == done {
                    assert_eq!(states, (gone, gone, gone, gone), "{what}");
                } else if !matches!(said, Ok(Err(Error::CommitUnknown { .. }))) {
                    assert_ne!(new.state(), ObjectState::Persistent, "{what}");
                    assert_ne!(new.state(), ObjectState::Detached, "{what}: a row that never was {states:?}");
                }
            }
            if k > calls {
                break;
            }
        }
    }
}

// ---- more ----

diesel::table! { areas (code) { code -> Text, name -> Text, } }
diesel::table! { plots (area, number) { area -> Text, number -> Integer, size -> Integer, } }

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = areas, primary_key(code))]
struct Area {
    code: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record)]
#[diesel(table_name = plots, primary_key(area, number), belongs_to(Area, foreign_key = area))]
struct Plot {
    area: String,
    number: i32,
    size: i32,
}

fn land() -> Session<SqliteConnection> {
    let engine = engine();
    Session::with_options(&engine, diesel_session::autocommit())
        .unwrap()
        .batch_execute(
            "CREATE TABLE areas (code TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
             CREATE TABLE plots (area TEXT NOT NULL REFERENCES areas (code) ON UPDATE CASCADE ON DELETE CASCADE, number INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (area, number))",
        )
        .unwrap();
    let session = Session::new(&engine);
    session.add(Area { code: "A".into(), name: "a".into() }).unwrap();
    session.add(Plot { area: "A".into(), number: 1, size: 1 }).unwrap();
    session.commit().unwrap();
    session
}

/// "`None` where the foreign key is NULL": the parent is in the map, under the key that the child refers to.
#[test]
fn a_parent_that_is_to_have_another_key_is_found() {
    let session = land();
    let (area, plot) = (
        session.get_one::<Area>("A").unwrap(),
        session.load_tracked(plots::table.select(Plot::as_select())).unwrap().remove(0),
    );
    area.write().unwrap().code = "B".into();
    assert_eq!(session.parents::<Area, _>(&[plot]).unwrap(), [Some(area)]);
}

/// Panics in user code fail the flush; the session goes on after a rollback, and nothing of it is stored.
#[test]
fn a_panic_in_a_closure_that_makes_a_record_leaves_a_session_that_works() {
    let session = Session::new(&engine());
    let city = session.add(City { code: "DE".into(), name: "x".into() }).unwrap();
    let street = session.add_with(&city, |_| -> Street { panic!("no street") }).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| session.flush())).is_err());
    assert!(matches!(session.flush(), Err(Error::PendingRollback { .. })));
    assert!(session.commit().is_err());
    assert_eq!((city.state(), street.state()), (ObjectState::Transient, ObjectState::Transient));
    assert_eq!(city.into_new::<City>().unwrap().code, "DE");
    assert!(!session.has_changes());
    session.add(City { code: "FR".into(), name: "x".into() }).unwrap();
    session.commit().unwrap();
    assert_eq!(session.load::<String>(cities::table.select(cities::code)).unwrap(), ["FR"]);
}

thread_local! {
    static BOOM: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug, PartialEq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
struct Fragile(String);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!BOOM.get(), "boom");
        Self(self.0.clone())
    }
}

impl ToSql<Text, Sqlite> for Fragile {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> diesel::serialize::Result {
        <str as ToSql<Text, Sqlite>>::to_sql(&self.0, out)
    }
}

impl FromSql<Text, Sqlite> for Fragile {
    fn from_sql(bytes: <Sqlite as diesel::backend::Backend>::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        <String as FromSql<Text, Sqlite>>::from_sql(bytes).map(Self)
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = logs)]
struct FragileNote {
    id: i32,
    text: Fragile,
}

/// `write` opens its guard before it clones the value; a clone that panics leaves a guard that nobody holds, and
/// until a rollback, which loses everything, nothing can be flushed or committed.
#[test]
fn a_clone_that_panics_leaves_values_as_they_are() {
    let session = Session::new(&engine());
    let note = session.add(FragileNote { id: 1, text: Fragile("a".into()) }).unwrap();
    session.commit().unwrap();
    BOOM.set(true);
    let panicked = catch_unwind(AssertUnwindSafe(|| note.write().map(drop)));
    BOOM.set(false);
    assert!(panicked.is_err());
    assert_eq!(note.read().unwrap().text.0, "a");
    note.write().unwrap().text.0 = "b".into();
    session.commit().unwrap();
    assert_eq!(session.load::<String>(logs::table.select(logs::text)).unwrap(), ["b"]);
}

// ---- listeners ----

type Sqlite3 = Session<SqliteConnection>;

/// What a listener does, and what the reached call told it.
type Act = std::rc::Rc<dyn Fn(&Sqlite3, &str)>;

/// Does something with the session at one of its calls.
#[derive(Clone)]
struct At {
    call: &'static str,
    act: Act,
    session: std::rc::Rc<RefCell<Option<Sqlite3>>>,
}

impl At {
    fn reached(&self, call: &str, detail: &str) {
        let session = self.session.borrow().clone();
        if let (true, Some(session)) = (self.call == call, session) {
            (self.act)(&session, detail);
        }
    }
}

impl diesel_session::SessionListener<SqliteConnection> for At {
    fn before_flush(&self, _: &Sqlite3) -> Result<()> {
        self.reached("before_flush", "");
        Ok(())
    }
    fn after_flush(&self, _: &Sqlite3) {
        self.reached("after_flush", "");
    }
    fn after_flush_postexec(&self, _: &Sqlite3) {
        self.reached("after_flush_postexec", "");
    }
    fn before_commit(&self, _: &Sqlite3) -> Result<()> {
        self.reached("before_commit", "");
        Ok(())
    }
    fn transition(&self, transition: &diesel_session::Transition) {
        self.reached("transition", &format!("{:?} {:?}", transition.from(), transition.to()));
    }
}

/// A listener that closes the session: what commit says is what is stored.
#[test]
fn a_listener_that_closes_the_session_makes_no_commit_lie() {
    for call in ["before_flush", "after_flush", "after_flush_postexec", "before_commit", "transition"] {
        for n in 0..4 {
            let engine = engine();
            let session = Session::new(&engine);
            let times = Cell::new(0);
            let act = move |session: &Sqlite3, _: &str| {
                if times.replace(times.get() + 1) == n {
                    session.close();
                }
            };
            let at = At { call, act: std::rc::Rc::new(act), session: std::rc::Rc::new(Some(session.clone()).into()) };
            session.listen(at.clone());
            let said = catch_unwind(AssertUnwindSafe(|| {
                let city = session.add(City { code: "DE".into(), name: "x".into() })?;
                session.flush()?;
                city.write()?.name = "y".into();
                session.commit()
            }));
            at.session.take();
            session.close();
            drop(session);
            let other = Session::new(&engine);
            let stored: Vec<String> = other.load(cities::table.select(cities::name)).unwrap();
            let said = said.unwrap_or_else(|_| panic!("{call} {n}: a panic"));
            assert_eq!(said.is_ok(), stored == ["y"], "{call} {n}: {said:?}, stored {stored:?}");
        }
    }
}

/// What a listener adds when it hears of a transition, and is told Ok, is stored by the next commit that says Ok.
#[test]
fn what_a_listener_adds_in_a_transition_is_not_lost() {
    let mut lost = Vec::new();
    for wanted in [
        "Transient Pending",
        "Pending Persistent",
        "Pending Transient",
        "Persistent Transient",
        "Persistent Deleted",
        "Deleted Detached",
        "Deleted Persistent",
    ] {
        let session = Session::new(&engine());
        town(&session);
        let added = std::rc::Rc::new(Cell::new(0));
        let count = std::rc::Rc::clone(&added);
        let act = move |session: &Sqlite3, what: &str| {
            if what == wanted && count.get() == 0 && session.add(City { code: "NEW".into(), name: "n".into() }).is_ok()
            {
                count.set(1);
            }
        };
        let at = At {
            call: "transition",
            act: std::rc::Rc::new(act),
            session: std::rc::Rc::new(Some(session.clone()).into()),
        };
        session.listen(at.clone());
        let run = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
            if wanted == "Pending Transient" || wanted == "Persistent Transient" {
                session.add(City { code: "X".into(), name: "x".into() })?;
                if wanted == "Persistent Transient" {
                    session.flush()?;
                }
                session.rollback()?;
            } else if wanted.contains("Deleted") {
                let gone = session.add(City { code: "X".into(), name: "x".into() })?;
                session.commit()?;
                session.delete(&gone)?;
                session.flush()?;
                if wanted == "Deleted Persistent" {
                    session.rollback()?;
                }
            } else {
                session.add(City { code: "X".into(), name: "x".into() })?;
                session.flush()?;
            }
            session.commit()?;
            session.commit()?;
            Ok(())
        }));
        at.session.take();
        let is_stored = session.load::<String>(cities::table.select(cities::code)).unwrap().contains(&"NEW".to_owned());
        if run.is_err() || (added.get() == 1 && matches!(run, Ok(Ok(()))) && !is_stored) {
            lost.push(format!("{wanted}: {run:?}, told Ok, stored {is_stored}"));
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

/// An act with its name.
type Named = (&'static str, fn(&Sqlite3));

/// A listener that flushes, commits or rolls back when it hears of a transition panics nowhere and doubles nothing.
#[test]
fn a_listener_that_uses_the_session_in_a_transition_panics_nowhere() {
    let acts: [Named; 6] = [
        ("flush", |session| drop(session.flush())),
        ("commit", |session| drop(session.commit())),
        ("rollback", |session| drop(session.rollback())),
        ("expunge_all", |session| drop(session.expunge_all())),
        ("refresh_all", |session| drop(session.refresh_all())),
        ("nested", |session| drop(session.nested(|session| session.refresh_all()))),
    ];
    for (name, act) in acts {
        for n in 0..8 {
            let engine = engine();
            let session = Session::new(&engine);
            let times = Cell::new(0);
            let act = move |session: &Sqlite3, _: &str| {
                if times.replace(times.get() + 1) == n {
                    act(session);
                }
            };
            let at = At {
                call: "transition",
                act: std::rc::Rc::new(act),
                session: std::rc::Rc::new(Some(session.clone()).into()),
            };
            session.listen(at.clone());
            let said = catch_unwind(AssertUnwindSafe(|| {
                let one = session.add(City { code: "A".into(), name: "x".into() })?;
                session.add(City { code: "B".into(), name: "x".into() })?;
                session.flush()?;
                session.delete(&one)?;
                session.add(City { code: "C".into(), name: "x".into() })?;
                session.commit()
            }));
            at.session.take();
            session.close();
            drop(session);
            let other = Session::new(&engine);
            let mut stored: Vec<String> = other.load(cities::table.select(cities::code)).unwrap();
            stored.sort();
            assert!(said.is_ok(), "{name} at transition {n}: a panic");
            let is_ok = said.as_ref().is_ok_and(Result::is_ok);
            if is_ok && name != "rollback" && name != "expunge_all" {
                assert_eq!(stored, ["B", "C"], "{name} at transition {n}");
            }
        }
    }
}

// ---- triggers, destructors ----

/// Severity A (rule 7): the same with a trigger on the row itself.
#[test]
fn what_a_trigger_changes_in_the_row_that_is_written_is_not_overwritten() {
    let engine = engine();
    Session::with_options(&engine, diesel_session::autocommit())
        .unwrap()
        .batch_execute(
            "CREATE TRIGGER counts AFTER UPDATE OF text ON notes BEGIN UPDATE notes SET written = written + 1 WHERE id = NEW.id; END",
        )
        .unwrap();
    let session = Session::new(&engine);
    let note = session.add(Note { id: 1, text: "n".into(), written: 0 }).unwrap();
    session.flush().unwrap();
    note.write().unwrap().text = "m".into();
    session.flush().unwrap();
    note.write().unwrap().written += 10;
    session.commit().unwrap();
    assert_eq!(session.get_result::<i32>(notes::table.select(notes::written)).unwrap(), 11);
}

struct Farewell<'a>(&'a Sqlite3, diesel_session::Tracked<City>);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.1.update(|city| city.name = "left in a panic".into()).unwrap();
        self.0.commit().unwrap();
    }
}

/// A guard that is made and ends well while the thread unwinds is thrown away, and `update` and `commit` say Ok.
#[test]
fn a_change_that_a_destructor_makes_while_the_thread_unwinds_is_written() {
    let session = Session::new(&engine());
    town(&session);
    let city = session.get_one::<City>("DE").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _farewell = Farewell(&session, city.clone());
        panic!("on the way out");
    }));
    assert!(panicked.is_err());
    assert_eq!(session.load::<String>(cities::table.select(cities::name)).unwrap(), ["left in a panic"]);
}
