//! Write skew under SERIALIZABLE: what each transaction read holds when it commits.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Error, IsolationLevel, RetryPolicy, TransactionOptions};

use super::db::{self, Database};
use crate::support::notes;
use crate::tools::{Figures, alone, length};

const THREADS: usize = 8;
const ROWS: i32 = 4;

#[test]
fn a_storm_of_serialization_failures_keeps_what_no_single_row_can() {
    let _alone = alone();
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(THREADS));
    registry
        .transaction(|session| {
            (1..=ROWS).try_for_each(|id| {
                let row = (notes::id.eq(id), notes::text.eq(id.to_string()), notes::n.eq(1));
                session.execute(diesel::insert_into(notes::table).values(row)).map(drop)
            })
        })
        .unwrap();
    let options = TransactionOptions::new()
        .isolation(IsolationLevel::Serializable)
        .timeout(Duration::from_secs(10))
        .retry(RetryPolicy::new(1000).backoff(Duration::from_millis(2), Duration::from_millis(100)));
    let start = Barrier::new(THREADS);
    let mut figures = Figures::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (registry, start) = (&registry, &start);
                scope.spawn(move || {
                    let mut seen = Figures::default();
                    let id = i32::try_from(thread).unwrap() % ROWS + 1;
                    start.wait();
                    let end = Instant::now() + length(4);
                    while Instant::now() < end {
                        let begun = Instant::now();
                        // On call are those whose n is 1. One may leave while another stays, and comes back otherwise.
                        let result = registry.transaction_with(options, |session| {
                            let on_call: Vec<i32> =
                                session.load(notes::table.filter(notes::n.eq(1)).select(notes::id))?;
                            assert!(!on_call.is_empty(), "somebody is on call, whoever looks");
                            let n = i32::from(!on_call.contains(&id) || on_call.len() == 1);
                            session.execute(diesel::update(notes::table.find(id)).set(notes::n.eq(n)))?;
                            Ok::<_, Error>(session.attempt().map_or(0, |attempt| attempt.number()))
                        });
                        seen.waits.push(begun.elapsed());
                        match result {
                            Ok(attempts) => *seen.attempts.entry(attempts).or_default() += 1,
                            Err(error) => *seen.failed.entry(format!("{:?}", error.class())).or_default() += 1,
                        }
                    }
                    seen
                })
            })
            .collect();
        for thread in threads {
            figures.add(thread.join().unwrap());
        }
    });
    figures.print(&format!("serializable storm on {}", db::NAME));
    let on_call: i64 =
        registry.read(|session| session.get_result(notes::table.filter(notes::n.eq(1)).count())).unwrap();
    assert!(on_call >= 1);
    assert!(figures.attempts.keys().any(|attempts| *attempts > 1), "there were conflicts");
    assert!(figures.failures() * 1000 <= figures.done(), "{figures:?}");
}
