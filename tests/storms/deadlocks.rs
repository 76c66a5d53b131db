//! Rows updated in any order by everybody: every deadlock is run again, and nothing is counted twice.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Result, RetryPolicy, TransactionOptions};

use super::db::{self, Database, Session};
use crate::support::notes;
use crate::tools::{Figures, alone, length};

const THREADS: usize = 16;
const ROWS: i32 = 4;
const EACH: Duration = Duration::from_secs(30);

fn sum(session: &Session) -> Result<i64> {
    session.get_result(notes::table.select(diesel::dsl::sum(notes::n).assume_not_null()))
}

#[test]
fn a_storm_of_deadlocks_loses_no_job_and_counts_none_twice() {
    let _alone = alone();
    let database = Database::new();
    // PostgreSQL looks for a deadlock after a second, and in that second everybody waits: a queue of 16 for 4 rows then
    // outlives every deadline (PostgreSQL docs, "Lock Management"). InnoDB looks at once.
    let registry = database.registry_with(|builder| {
        builder
            .max_size(THREADS)
            .setup(|conn| if db::ERRORS_ABORT { conn.batch_execute("SET deadlock_timeout = '10ms'") } else { Ok(()) })
    });
    registry
        .transaction(|session| {
            (1..=ROWS).try_for_each(|id| {
                let row = (notes::id.eq(id), notes::text.eq(id.to_string()), notes::n.eq(0));
                session.execute(diesel::insert_into(notes::table).values(row)).map(drop)
            })
        })
        .unwrap();
    let options = TransactionOptions::new().timeout(EACH).retry(RetryPolicy::new(1000));
    let (start, hooks) = (Barrier::new(THREADS), AtomicU64::new(0));
    let mut figures = Figures::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Figures::default();
                    let committed = Rc::new(Cell::new(0));
                    start.wait();
                    let end = Instant::now() + length(4);
                    while Instant::now() < end {
                        let begun = Instant::now();
                        let mut order: Vec<_> = (1..=ROWS).collect();
                        shuffle(&mut order);
                        let result = registry.transaction_with(options, |session| {
                            let committed = Rc::clone(&committed);
                            session.on_commit(move || committed.set(committed.get() + 1))?;
                            for id in &order {
                                let row = notes::table.find(id);
                                session.execute(diesel::update(row).set(notes::n.eq(notes::n + 1)))?;
                            }
                            Ok::<_, diesel_session::Error>(session.attempt().map_or(0, |attempt| attempt.number()))
                        });
                        seen.waits.push(begun.elapsed());
                        match result {
                            Ok(attempts) => *seen.attempts.entry(attempts).or_default() += 1,
                            Err(error) => *seen.failed.entry(format!("{:?}", error.class())).or_default() += 1,
                        }
                    }
                    hooks.fetch_add(committed.get(), Ordering::Relaxed);
                    seen
                })
            })
            .collect();
        for thread in threads {
            figures.add(thread.join().unwrap());
        }
    });
    figures.print(&format!("deadlock storm on {}", db::NAME));
    let done = figures.done();
    assert_eq!(registry.transaction(sum).unwrap(), i64::try_from(done).unwrap() * i64::from(ROWS));
    assert_eq!(hooks.load(Ordering::Relaxed), done, "a hook for each job that was stored, and for no other attempt");
    assert!(figures.attempts.keys().any(|attempts| *attempts > 1), "there were deadlocks");
    assert!(figures.failures() * 1000 <= done, "{} of {done} failed", figures.failures());
    assert!(registry.engine().connections_in_use().is_empty());
}

/// Any order.
fn shuffle(order: &mut [i32]) {
    use std::hash::{BuildHasher, Hasher, RandomState};
    for i in (1..order.len()).rev() {
        let any = RandomState::new().build_hasher().finish();
        order.swap(i, usize::try_from(any % (i as u64 + 1)).unwrap());
    }
}
