//! What holds on every backend, in memory too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};

use diesel::prelude::*;
use diesel_session::Error;

use super::OWN;
use super::db::{Conn, Database, Session};
use crate::in_time;
use crate::written::{Folder, Programmed};

type Backend = <Conn as Connection>::Backend;

diesel::table! {
    users (id) {
        id -> Integer,
        nickname -> Text,
        full_name -> Text,
        email -> Text,
        version -> Integer,
    }
}

#[test]
fn the_users_migrations_run_once_and_sessions_see_their_table() {
    let database = Database::new();
    let engine = database.builder().build().unwrap();
    let names = ["2026-01-01-000000_create_users", "2026-01-02-000000_create_posts"];
    assert_eq!(engine.pending_migrations(OWN).unwrap(), names);
    assert_eq!(engine.run_migrations(OWN).unwrap(), ["20260101000000", "20260102000000"]);
    assert!(engine.pending_migrations(OWN).unwrap().is_empty());
    assert!(engine.run_migrations(OWN).unwrap().is_empty());

    for nickname in ["ann", "bob"] {
        let session = Session::new(&engine);
        let row = (users::nickname.eq(nickname), users::full_name.eq("A name"), users::email.eq("a@b.c"));
        session.execute(diesel::insert_into(users::table).values(row)).unwrap();
        session.commit().unwrap();
    }
    let session = Session::new(&engine);
    let stored: Vec<(String, i32)> =
        session.load(users::table.select((users::nickname, users::version)).order(users::nickname)).unwrap();
    assert_eq!(stored, [("ann".to_owned(), 1), ("bob".to_owned(), 1)]);
}

#[test]
fn a_migration_that_comes_later_is_the_only_one_that_is_pending() {
    let database = Database::new();
    let engine = database.builder().build().unwrap();
    let folder = Folder::new().with("2026-01-01-000000_one", "CREATE TABLE one (id INTEGER)");
    assert_eq!(engine.run_migrations(folder.source()).unwrap(), ["20260101000000"]);
    let folder = folder.with("2026-01-02-000000_two", "CREATE TABLE two (id INTEGER)");
    assert_eq!(engine.pending_migrations(folder.source()).unwrap(), ["2026-01-02-000000_two"]);
    assert_eq!(engine.run_migrations(folder.source()).unwrap(), ["20260102000000"]);
    assert!(engine.run_migrations(folder.source()).unwrap().is_empty());
}

#[test]
fn threads_of_one_engine_that_start_at_once_apply_each_migration_once() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 5;
    for round in 0..ROUNDS {
        let database = Database::new();
        let engine = database.builder().build().unwrap();
        let barrier = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (engine, barrier) = (engine.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    engine.run_migrations(OWN)
                })
            })
            .collect();
        let applied: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap().unwrap()).collect();
        assert_eq!(applied, ["20260101000000", "20260102000000"], "round {round}");
    }
}

#[test]
fn a_migration_that_fails_is_named_and_a_corrected_one_runs_after_it() {
    let database = Database::new();
    let engine = database.builder().build().unwrap();
    let folder = Folder::new()
        .with("2026-01-01-000000_one", "CREATE TABLE one (id INTEGER)")
        .with("2026-01-02-000000_two", "CREATE TABEL two (id INTEGER)");
    let error = engine.run_migrations(folder.source()).unwrap_err();
    assert!(matches!(error, Error::Migration(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("migration failed: "), "{message}");
    assert!(message.contains("2026-01-02-000000_two") && message.contains("TABEL"), "{message}");
    assert_eq!(engine.pending_migrations(folder.source()).unwrap(), ["2026-01-02-000000_two"]);

    let folder = folder.with("2026-01-02-000000_two", "CREATE TABLE two (id INTEGER)");
    let source = folder.source();
    assert_eq!(in_time(move || engine.run_migrations(source)).unwrap(), ["20260102000000"]);
}

#[test]
fn a_migration_that_panics_gives_the_lock_back() {
    let database = Database::new();
    let engine = database.builder().build().unwrap();
    let panics = Programmed::<Backend>::new("1", |_| panic!("on purpose, in a migration"));
    assert!(catch_unwind(AssertUnwindSafe(|| engine.run_migrations(panics))).is_err());

    let works = Programmed::<Backend>::new("1", |conn| Ok(conn.batch_execute("CREATE TABLE one (id INTEGER)")?));
    assert_eq!(in_time(move || engine.run_migrations(works)).unwrap(), ["1"]);
}
