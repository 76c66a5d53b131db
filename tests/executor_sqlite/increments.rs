//! Many threads that read a row and add one to it: nobody meets a lock, and the sum is right.
//!
//! One second each; 60 s with `DIESEL_SESSION_LONG=1`.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Error, Executor, GroupCommit};

use crate::bank;
use crate::db::{Conn, Database, Registry};
use crate::tools::{answer, check_nothing_held};

diesel::table! {
    counters (id) {
        id -> Integer,
        n -> BigInt,
    }
}

fn increment(executor: &Executor<Conn>) -> Result<(), Error> {
    answer(executor.run(|session| -> Result<(), Error> {
        let n: i64 = session.get_result(counters::table.find(1).select(counters::n))?;
        session.execute(diesel::update(counters::table.find(1)).set(counters::n.eq(n + 1)))?;
        Ok(())
    }))
}

/// Runs so many threads for so long; gives how long each increment took, in order.
fn increments(executor: &Executor<Conn>, threads: usize, long: Duration) -> Vec<Duration> {
    let started = Instant::now();
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut took = Vec::new();
                    while started.elapsed() < long {
                        let before = Instant::now();
                        increment(executor).unwrap_or_else(|error| panic!("nobody is to meet a lock: {error}"));
                        took.push(before.elapsed());
                    }
                    took
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    took.sort_unstable();
    took
}

#[test]
fn threads_that_read_and_add_one_meet_no_lock_and_lose_no_update() {
    let long = Duration::from_secs(if bank::long() { 60 } else { 1 });
    for group in [None, Some(GroupCommit::new())] {
        for threads in [8, 64] {
            let database = Database::new();
            // Nobody of this process waits for SQLite's lock, so nobody has to be patient.
            let registry = Registry::new(database.builder().busy_timeout(Duration::ZERO).build().unwrap());
            registry
                .transaction(|session| {
                    session.batch_execute(
                        "CREATE TABLE counters (id INTEGER PRIMARY KEY NOT NULL, n BIGINT NOT NULL); INSERT INTO counters VALUES (1, 0)",
                    )
                })
                .unwrap();
            let mut builder = Executor::builder(registry.clone());
            if let Some(group) = group {
                builder = builder.group_commit(group);
            }
            let executor = builder.build().unwrap();
            let took = increments(&executor, threads, long);
            let at = |part: usize| took[(took.len() - 1) * part / 1000];
            println!(
                "{threads} threads, group commit {}: {} increments, p50 {:?}, p99 {:?}, max {:?}, {} transactions",
                group.is_some(),
                took.len(),
                at(500),
                at(990),
                at(1000),
                executor.inspect().lanes[0].transactions,
            );
            let n: i64 =
                registry.read(|session| session.get_result(counters::table.find(1).select(counters::n))).unwrap();
            assert_eq!(usize::try_from(n).unwrap(), took.len(), "an update was lost or doubled");
            check_nothing_held(&registry, &executor);
        }
    }
}
