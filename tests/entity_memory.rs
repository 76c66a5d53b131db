//! What tracking takes: bytes an entity, and that a long loop does not grow.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::System;
use std::mem::size_of;
use std::sync::{Mutex, MutexGuard, PoisonError};

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use diesel_session::{Bulk, Engine, Entity, Record, Session};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

diesel::table! {
    points (id) {
        id -> Integer,
        x -> BigInt,
        y -> BigInt,
    }
}

/// Without strings: all of it is in the struct.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = points)]
struct Point {
    id: i32,
    x: i64,
    y: i64,
}

fn session(rows: i32) -> Session<SqliteConnection> {
    let session = Session::new(&Engine::new(":memory:").unwrap());
    session
        .batch_execute("CREATE TABLE points (id INTEGER PRIMARY KEY NOT NULL, x BIGINT NOT NULL, y BIGINT NOT NULL)")
        .unwrap();
    session.bulk_insert((0..rows).map(|id| Point { id, x: 1, y: 2 }), Bulk::new()).unwrap();
    session.commit().unwrap();
    session
}

/// The bytes that `f` leaves allocated.
fn left_by<R>(f: impl FnOnce() -> R) -> (R, isize) {
    let region = Region::new(ALLOCATOR);
    let result = f();
    let change = region.change();
    (result, change.bytes_allocated as isize - change.bytes_deallocated as isize)
}

/// One after the other: they count the process's bytes.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rule 32, "memory follows live handles, not rows written": a frame notes a live node again at each read.
#[test]
fn a_savepoint_that_reads_the_same_rows_again_and_again_does_not_grow() {
    let _turn = turn();
    let session = session(1);
    let savepoint = session.begin_nested().unwrap();
    let point = session.get_one::<Point>(0).unwrap();
    let ((), grown) = left_by(|| {
        for _ in 0..100_000 {
            session.refresh(&point).unwrap();
        }
    });
    assert!(grown < 500_000, "{grown} bytes for one entity");
    savepoint.rollback().unwrap();
}

/// The same by savepoints that are released, each of which changes one row.
#[test]
fn a_transaction_with_many_savepoints_does_not_grow_with_them() {
    let _turn = turn();
    let session = session(1);
    let point = session.get_one::<Point>(0).unwrap();
    let ((), grown) = left_by(|| {
        for n in 0..20_000 {
            session
                .nested(|session| {
                    point.write()?.x = n;
                    session.flush()
                })
                .unwrap();
        }
    });
    assert!(grown < 200_000, "{grown} bytes for one entity");
    session.rollback().unwrap();
}

/// The same by new rows, which the frame notes without a look at those before.
#[test]
fn a_transaction_that_adds_rows_does_not_grow_with_those_that_nobody_holds() {
    let _turn = turn();
    let session = session(0);
    let add = |flush: i32| {
        session.add_all((0..1_000).map(|n| Point { id: flush * 1_000 + n, x: 1, y: 2 })).unwrap();
        session.flush().unwrap();
    };
    (0..20).for_each(add);
    let ((), grown) = left_by(|| (20..320).for_each(add));
    assert!(grown < 500_000, "{grown} bytes for rows that nobody holds");
    session.rollback().unwrap();
}

#[test]
fn a_clean_entity_takes_at_most_a_hundred_bytes_and_a_long_loop_none() {
    let _turn = turn();
    const ROWS: i32 = 100_000;
    let session = session(ROWS);
    let all = || points::table.select(Point::as_select()).order(points::id);
    // What the first query prepares.
    session.load_tracked(all().filter(points::id.lt(10))).unwrap();
    let (tracked, bytes) = left_by(|| session.load_tracked(all()).unwrap());
    let handles = tracked.capacity() * size_of::<diesel_session::Tracked<Point>>();
    let own = tracked.len() * size_of::<Point>();
    let beyond = (bytes - handles as isize - own as isize) as f64 / f64::from(ROWS);
    println!("{beyond:.1} bytes a clean entity beyond the struct's own {}", size_of::<Point>());
    assert!(beyond <= 100.0, "{beyond}");

    // Changed, they keep their old value until they are written.
    let ((), bytes) = left_by(|| tracked.iter().for_each(|point| point.write().unwrap().x += 1));
    println!("{:.1} bytes more while it is changed", bytes as f64 / f64::from(ROWS));
    session.flush().unwrap();
    session.rollback().unwrap();
    drop(tracked);

    let rows =
        if std::env::var_os("DIESEL_SESSION_LONG").is_some_and(|value| value == "1") { 10_000_000 } else { 1_000_000 };
    let chunk = |n: i32| {
        let first = n % (ROWS / 1_000) * 1_000;
        session.load_tracked(all().filter(points::id.ge(first).and(points::id.lt(first + 1_000)))).unwrap().len()
    };
    // What a chunk needs is there after the first ones.
    (0..200).for_each(|n| assert_eq!(chunk(n), 1_000));
    let (seen, bytes) = left_by(|| (0..rows / 1_000).map(chunk).sum::<usize>());
    println!("{bytes} bytes left after a loop over {seen} rows in one transaction");
    assert_eq!(seen, rows as usize);
    assert!(bytes < 64 * 1024, "{bytes}");

    // The same with changes that are flushed, in one transaction: what nobody holds is forgotten.
    let change = |n: i32| {
        let first = n % (ROWS / 1_000) * 1_000;
        let chunk = session.load_tracked(all().filter(points::id.ge(first).and(points::id.lt(first + 1_000)))).unwrap();
        chunk.iter().for_each(|point| point.write().unwrap().y += 1);
        session.flush().unwrap();
    };
    (0..20).for_each(change);
    let ((), bytes) = left_by(|| (0..ROWS / 1_000).for_each(change));
    println!("{bytes} bytes left after {ROWS} changes in one transaction");
    assert!(bytes < 256 * 1024, "{bytes}");
}
