//! One store a thread: whoever asks on a thread gets that thread's store, as Storm hands one out to each thread and
//! SQLAlchemy's `scoped_session` a session. Nobody passes it around, and nobody gets another thread's.
//!
//! `cargo run --example store_per_thread`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]

use std::error::Error;

use diesel::prelude::*;
use diesel_session::{Error as SessionError, ScopedSession};

mod support;
use support::{Conn, Database, check};

type Store = diesel_session::Session<Conn>;

diesel::table! {
    example_notes (text) {
        text -> Text,
    }
}

const COLUMNS: &str = "text VARCHAR(64) NOT NULL PRIMARY KEY";

fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open()?;
    let engine = database.engine("main", "example_notes", COLUMNS, |builder| builder)?;
    let main = ScopedSession::new(engine);
    main.clone().install()?;

    the_same_store_on_the_same_thread()?;
    another_store_on_another_thread(&main)?;
    a_new_store_after_remove()?;
    named_stores(&database, &main)
}

/// A helper deep in a program: it takes no store as a parameter, it asks.
fn add_note(text: &str) -> diesel_session::Result<Store> {
    let store = Store::current()?;
    store.execute(diesel::insert_into(example_notes::table).values(example_notes::text.eq(text)))?;
    Ok(store)
}

fn notes(store: &Store) -> diesel_session::Result<Vec<String>> {
    store.load(example_notes::table.select(example_notes::text).order(example_notes::text))
}

fn the_same_store_on_the_same_thread() -> Result<(), Box<dyn Error>> {
    let mine = Store::current()?;
    let helpers = add_note("first")?;
    check("asking again on this thread gives the same store", mine == helpers)?;
    check("so the helper's note is in this thread's transaction", mine.in_transaction() && notes(&mine)? == ["first"])
}

fn another_store_on_another_thread(registry: &ScopedSession<Conn>) -> Result<(), Box<dyn Error>> {
    let mine = Store::current()?.id();
    // A thread that finds the installed registry too could as well come from `std::thread::spawn`; `spawn` carries any
    // registry over and cleans up after the closure.
    let look = || {
        let store = Store::current()?;
        // The file's write lock is this example's main thread's: a reader says so and need not wait.
        store.begin_with(diesel_session::read_only())?;
        Ok::<_, SessionError>((store.id(), notes(&store)?))
    };
    let (theirs, seen) = registry.spawn(look).join().map_err(|_| "the other thread panicked")??;
    check("another thread has another store", mine != theirs)?;
    check("which does not see what this one has not committed", seen.is_empty())?;

    Store::current()?.commit()?;
    let (_, seen) = registry.spawn(look).join().map_err(|_| "the other thread panicked")??;
    check("and sees it once it is committed", seen == ["first"])
}

fn a_new_store_after_remove() -> Result<(), Box<dyn Error>> {
    let old = add_note("forgotten")?;
    Store::remove();
    let new = Store::current()?;
    check("after remove() this thread gets a new store", old != new)?;
    check("the old one's open work was rolled back", notes(&new)? == ["first"])?;
    check("and the old handle is closed", matches!(notes(&old), Err(SessionError::SessionClosed { .. })))?;
    Store::remove();
    Ok(())
}

/// Storm names its stores, one for each database. Here a name is a variable: one registry for each database, also where
/// both have the same connection type.
fn named_stores(database: &Database, main: &ScopedSession<Conn>) -> Result<(), Box<dyn Error>> {
    diesel::table! {
        example_archive (text) {
            text -> Text,
        }
    }
    let archive = ScopedSession::new(database.engine("archive", "example_archive", COLUMNS, |builder| builder)?);

    let current = main.current()?;
    let archived = archive.current()?;
    check("two names on one thread are two stores", current != archived)?;
    check("and each name gives its own again", current == main.current()? && archived == archive.current()?)?;

    add_note("second")?;
    archived.execute(diesel::insert_into(example_archive::table).values(example_archive::text.eq("first")))?;
    archived.rollback()?;
    current.commit()?;
    let archived: i64 = archived.get_result(example_archive::table.count())?;
    check("each has a transaction of its own", archived == 0 && notes(&current)? == ["first", "second"])?;

    // `Store::current()` means the registry that is entered here, and the installed one outside.
    let inside = archive.enter(Store::current)?;
    check("enter() makes a name the current one for an extent", inside == archive.current()?)?;
    check("and the installed one is back after it", Store::current()? == current)?;

    archive.remove();
    main.remove();
    Ok(())
}
