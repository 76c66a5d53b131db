//! A counter that many threads read, add to and write: with the gate nobody is told that the database is locked.

use std::sync::Barrier;
use std::time::Instant;

use diesel::prelude::*;
use diesel_session::Error;

use super::db::{Database, insert};
use crate::support::notes;
use crate::tools::{Figures, alone, length};

#[test]
fn a_counter_in_a_file_is_exact_and_the_file_is_never_busy() {
    let _alone = alone();
    for threads in [8, 64] {
        let database = Database::new();
        let registry = database.registry_with(|builder| builder.max_size(threads));
        registry.transaction(|session| insert(session, "counter")).unwrap();
        let start = Barrier::new(threads);
        let mut figures = Figures::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut seen = Figures::default();
                        start.wait();
                        let end = Instant::now() + length(3);
                        while Instant::now() < end {
                            let begun = Instant::now();
                            let row = notes::table.filter(notes::text.eq("counter"));
                            let result = registry.transaction(|session| {
                                let n: i32 = session.get_result(row.select(notes::n))?;
                                // Begun and read: from here on the gate is this thread's.
                                seen.waits.push(begun.elapsed());
                                session.execute(diesel::update(row).set(notes::n.eq(n + 1)))?;
                                Ok::<_, Error>(())
                            });
                            match result {
                                Ok(()) => *seen.attempts.entry(1).or_default() += 1,
                                Err(error) => *seen.failed.entry(error.to_string()).or_default() += 1,
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
        figures.print(&format!("read-modify-write on a SQLite file, {threads} threads"));
        assert_eq!(figures.failures(), 0, "{:?}", figures.failed);
        let counted: i32 = registry.read(|session| session.get_result(notes::table.select(notes::n))).unwrap();
        assert_eq!(u64::try_from(counted).unwrap(), figures.done());
    }
}
