//! How often the crate and Diesel allocate: nothing where a session or an object is only looked up, and a known number of
//! times in everyday work. SQLite's own memory is not counted.
//!
//! Without libtest: the allocator counts the process, in which nothing else may run.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::alloc::System;
use std::hint::black_box;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Bulk, Engine, Result, ScopedSession};
use models::{Person, new_note, people, person};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "budgets/models.rs"]
mod models;
#[path = "budgets/schema.rs"]
mod schema;

type Registry = ScopedSession<SqliteConnection>;
type Session = diesel_session::Session<SqliteConnection>;

/// What counts the allocations of some work.
type Count = fn(&Registry) -> usize;

/// Allocations of one call, exactly: a change that makes them fewer lowers the number, too.
const CALLS: [(&str, usize, Count); 5] = [
    ("Session::current() of a session that is there", 0, current),
    ("get() of an object that is known and clean", 0, get),
    ("read() of an object", 0, read),
    ("W2, a request that reads a row", 10, request_to_read),
    ("W1, a request that changes a row", 22, request),
];

/// Allocations of one row among many, at most.
const ROWS: [(&str, f64, Count); 2] = [
    ("W3, a new row whose key is known afterwards", 2.2, insert),
    ("W4, a row that is loaded, changed and written", 10.1, change),
];

const TIMES: usize = 1_000;
const MANY: i32 = 10_000;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations, reallocations included.
fn count<R>(f: impl FnOnce() -> R) -> usize {
    let region = Region::new(ALLOCATOR);
    let result = f();
    let change = region.change();
    drop(result);
    change.allocations + change.reallocations
}

/// Of so many calls, after as many that made everything ready.
fn steady(mut f: impl FnMut()) -> usize {
    (0..TIMES).for_each(|_| f());
    count(|| (0..TIMES).for_each(|_| f()))
}

fn current(registry: &Registry) -> usize {
    registry.enter(|| {
        let _session = Session::current().unwrap();
        let allocations = steady(|| drop(black_box(Session::current())));
        Session::remove();
        allocations
    })
}

fn get(registry: &Registry) -> usize {
    let session = Session::new(registry.engine());
    let _person = session.get_one::<Person>(7).unwrap();
    steady(|| drop(black_box(session.get::<Person>(7).unwrap())))
}

fn read(registry: &Registry) -> usize {
    let session = Session::new(registry.engine());
    let person = session.get_one::<Person>(7).unwrap();
    steady(|| drop(black_box(person.read().unwrap())))
}

fn request_to_read(registry: &Registry) -> usize {
    steady(|| {
        let born: Result<i32> = registry.read(|session| Ok(session.get_one::<Person>(7)?.read()?.born));
        black_box(born.unwrap());
    })
}

fn request(registry: &Registry) -> usize {
    steady(|| {
        let changed: Result<()> = registry.transaction(|session| {
            session.get_one::<Person>(7)?.write()?.visits += 1;
            Ok(())
        });
        changed.unwrap();
    })
}

fn insert(registry: &Registry) -> usize {
    let insert = || {
        let notes: Vec<_> = (0..MANY).map(new_note).collect();
        count(|| {
            let added: Result<_> = registry.transaction(|session| {
                let added = session.add_all(notes)?;
                session.flush()?;
                Ok(added)
            });
            added.unwrap()
        })
    };
    insert();
    insert()
}

fn change(registry: &Registry) -> usize {
    let change = || {
        count(|| {
            let changed: Result<()> = registry.transaction(|session| {
                for person in session.load_tracked(people::table.select(Person::as_select()))? {
                    person.write()?.visits += 1;
                }
                Ok(())
            });
            changed.unwrap();
        })
    };
    change();
    change()
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("test.db").to_str().unwrap().to_owned();
    SqliteConnection::establish(&url).unwrap().batch_execute(schema::SQLITE).unwrap();
    let registry = Registry::new(Engine::new(&url).unwrap());
    registry.transaction(|session| session.bulk_insert((1..=MANY).map(|id| person(id, 0)), Bulk::new())).unwrap();
    let mut over = Vec::new();
    let mut show = |name: &str, found: f64, budget: f64, is_kept: bool| {
        println!("{name:<48} {found:>8.2} of {budget}");
        if !is_kept {
            over.push(name.to_owned());
        }
    };
    for (name, budget, allocations) in CALLS {
        let found = allocations(&registry);
        show(name, found as f64 / TIMES as f64, budget as f64, found == TIMES * budget);
    }
    for (name, budget, allocations) in ROWS {
        let found = allocations(&registry) as f64 / f64::from(MANY);
        show(name, found, budget, found <= budget);
    }
    assert!(over.is_empty(), "not the allocations that are pinned at the top of this file: {}", over.join("; "));
}
