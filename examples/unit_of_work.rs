//! The unit of work: objects that a session tracks, and the statements that it makes of what happened to them. Everything
//! that is sent to the database is printed, indented, where it happens.
//!
//! `cargo run --example unit_of_work`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, reason = "it reports to its reader")]

use std::error::Error;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::prelude::*;
use diesel_session::{
    Bulk, Engine, Entity, Record, Result as SessionResult, RetryPolicy, ScopedSession, Tracked, TransactionOptions,
    autocommit,
};

mod support;
use support::check;

type Registry = ScopedSession<SqliteConnection>;
type Session = diesel_session::Session<SqliteConnection>;

diesel::table! {
    authors (id) {
        id -> Integer,
        name -> Text,
        fee -> Integer,
        version -> Integer,
    }
}

diesel::table! {
    books (id) {
        id -> Integer,
        author_id -> Integer,
        title -> Text,
    }
}

const TABLES: &str = "
    CREATE TABLE authors (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, fee INTEGER NOT NULL,
        version INTEGER NOT NULL DEFAULT 1);
    CREATE TABLE books (id INTEGER PRIMARY KEY NOT NULL, author_id INTEGER NOT NULL REFERENCES authors (id),
        title TEXT NOT NULL);";

/// A row of `authors`. Each update counts the version up, and fails where another one was faster.
#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = authors)]
struct Author {
    id: i32,
    name: String,
    fee: i32,
    #[entity(version)]
    version: i32,
}

/// An author who has no row yet, and so no id: the database makes it.
#[derive(Debug, Insertable, Record)]
#[diesel(table_name = authors)]
#[entity(of = Author, generated(id, version))]
struct NewAuthor {
    name: String,
    fee: i32,
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = books, belongs_to(Author))]
struct Book {
    id: i32,
    author_id: i32,
    title: String,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = books)]
#[entity(of = Book, generated(id))]
struct NewBook {
    author_id: i32,
    title: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::<SqliteConnection>::builder(":memory:").instrumentation(|| Box::new(Printer)).build()?;
    println!("The connection is set up, and the tables are made.");
    Session::with_options(&engine, autocommit())?.batch_execute(TABLES)?;
    let registry = Registry::new(engine);

    let ann = registry.transaction(added_with_parents)?;
    registry.transaction(|session| the_same_row_is_the_same_object(session, ann))?;
    registry.transaction(|session| what_was_changed_is_written(session, ann))?;
    registry.transaction(|session| a_savepoint_puts_objects_back(session, ann))?;
    an_optimistic_lock_and_a_retry(&registry, ann)?;
    registry.read(children_of_all_in_one_query)?;
    registry.transaction(many_rows)
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn added_with_parents(session: &Session) -> Outcome<i32> {
    println!("\nTwo authors and three books are added; nobody has an id yet.");
    let ann = session.add(NewAuthor { name: "Ann".into(), fee: 100 })?;
    let bob = session.add(NewAuthor { name: "Bob".into(), fee: 80 })?;
    // Made in the flush, when the author has an id.
    let by = |title: &'static str| move |author: &Author| NewBook { author_id: author.id, title: title.into() };
    session.add_with(&ann, by("On sessions"))?;
    session.add_with(&ann, by("On transactions"))?;
    session.add_with(&bob, by("On locks"))?;
    check("a pending author has no id that could be misused", ann.key().is_none())?;

    println!("The flush sends the INSERTs, authors first.");
    session.flush()?;
    let book: Vec<i32> = session.load(books::table.select(books::author_id).filter(books::title.eq("On locks")))?;
    check("and each book has its author's id", book == [bob.id()?])?;
    Ok(ann.id()?)
}

fn the_same_row_is_the_same_object(session: &Session, ann: i32) -> Outcome {
    println!("\nAnn is read by her key, then found by her name.");
    let by_key = session.get_one::<Author>(ann)?;
    let named: Tracked<Author> =
        session.first_tracked(authors::table.filter(authors::name.eq("Ann")).select(Author::as_select()))?;
    check("the same row is the same object", by_key == named)?;
    println!("And once more by her key: that asks nobody.");
    check("the identity map knows her", session.get_one::<Author>(ann)? == by_key)
}

fn what_was_changed_is_written(session: &Session, ann: i32) -> Outcome {
    println!("\nAnn's fee goes up.");
    let ann = session.get_one::<Author>(ann)?;
    ann.write()?.fee += 20;
    check("the object has it at once", ann.read()?.fee == 120 && session.is_modified(&ann))?;
    println!("The flush writes the column that differs, if the version still is the one that was read.");
    session.flush()?;
    check("the object has the new version", ann.read()?.version == 2)
}

fn a_savepoint_puts_objects_back(session: &Session, ann: i32) -> Outcome {
    println!("\nIn a savepoint Ann takes Bob's name, which is taken.");
    let ann = session.get_one::<Author>(ann)?;
    let renamed = session.nested(|session| {
        ann.write()?.name = "Bob".into();
        session.flush()
    });
    check("the database refuses", renamed.is_err_and(|error| error.is_unique_violation()))?;
    check("the object is what it was before the savepoint", ann.read()?.name == "Ann")?;
    println!("The transaction goes on.");
    ann.write()?.name = "Anna".into();
    Ok(())
}

/// Somebody read Ann earlier, as a form or a cache does, and works with that.
fn an_optimistic_lock_and_a_retry(registry: &Registry, ann: i32) -> Outcome {
    println!("\nAnn is read for a form; meanwhile her fee is changed by somebody else.");
    let in_form = registry.read(|session| session.get_one::<Author>(ann)?.into_value())?;
    registry.transaction(|session| session.get_one::<Author>(ann)?.update(|ann| ann.fee = 150))?;

    println!("The form's author is merged: her version is no longer the row's, and the retry policy tries again.");
    let options = TransactionOptions::new().retry(RetryPolicy::new(3));
    let attempts = registry.transaction_with(options, |session| -> SessionResult<u32> {
        let attempt = session.attempt().map_or(1, |attempt| attempt.number());
        // Read here so that it is known, and read once: the identity map knows what somebody holds.
        let row = session.get_one::<Author>(ann)?;
        // What the first attempt starts from is known to be old by the second.
        let start = if attempt == 1 { in_form.clone() } else { row.read()?.clone() };
        let raised = Author { fee: start.fee + 10, ..start };
        session.merge_existing(raised)?;
        Ok(attempt)
    })?;
    let fee: i32 = registry.read(|session| session.get_result(authors::table.find(ann).select(authors::fee)))?;
    check("the second attempt was stored, on top of the other change", attempts == 2 && fee == 160)
}

fn children_of_all_in_one_query(session: &Session) -> Outcome {
    println!("\nThe books of all authors are one query, however many authors there are.");
    let authors = session.load_tracked(authors::table.select(Author::as_select()).order(authors::id))?;
    let books = session.related::<Book, _>(&authors)?;
    for (author, books) in authors.iter().zip(&books) {
        let titles = books.iter().map(|book| Ok(book.read()?.title.clone())).collect::<SessionResult<Vec<_>>>()?;
        println!("{}: {}", author.read()?.name, titles.join(", "));
    }
    check("Anna has two, Bob has one", books.iter().map(Vec::len).eq([2, 1]))
}

fn many_rows(session: &Session) -> Outcome {
    println!("\n2500 authors go past the identity map, 1000 at a time.");
    let authors = (0..2500).map(|n| NewAuthor { name: format!("Author {n}"), fee: 10 });
    let progress = Bulk::new().progress(|progress| println!("{} rows so far", progress.rows));
    check("all of them are there", session.bulk_insert(authors, progress)? == 2500)
}

/// Prints what is sent, without the values.
struct Printer;

impl Instrumentation for Printer {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        const WIDTH: usize = 110;
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let text = text.split(" -- binds:").next().unwrap_or_default().trim();
            // The crate's own care for the connection.
            if ["PRAGMA", "SELECT 'DROP", "SELECT coalesce"].iter().any(|own| text.starts_with(own)) {
                return;
            }
            match text.char_indices().nth(WIDTH) {
                Some((end, _)) => println!("      {} …", &text[..end]),
                None => println!("      {text}"),
            }
        }
    }
}
