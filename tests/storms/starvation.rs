//! Threads that hold one connection and ask for a second one: rings are broken at once, and with a reserve there are none.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use diesel_session::{Error, Propagation, Result, TransactionOptions, read_only};

use super::db::{self, Database, Registry};
use crate::tools::{Figures, alone, length};

const THREADS: usize = 16;
const CONNECTIONS: usize = 4;

/// What one thread saw: its figures, and how long the one that closed a ring had waited.
fn storm(registry: &Registry) -> (Figures, Vec<Duration>) {
    let start = Barrier::new(THREADS);
    let mut figures = (Figures::default(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut seen, mut broken) = (Figures::default(), Vec::new());
                    start.wait();
                    let end = Instant::now() + length(2);
                    while Instant::now() < end {
                        let begun = Instant::now();
                        let mut asked = None;
                        let result = both(registry, &mut asked);
                        seen.waits.push(begun.elapsed());
                        match result {
                            Ok(()) => *seen.attempts.entry(1).or_default() += 1,
                            Err(error) => {
                                assert!(matches!(error, Error::WouldStarve { .. }), "{error}");
                                broken.extend(asked);
                                *seen.failed.entry("WouldStarve".to_owned()).or_default() += 1;
                            }
                        }
                    }
                    (seen, broken)
                })
            })
            .collect();
        for thread in threads {
            let (seen, broken) = thread.join().unwrap();
            figures.0.add(seen);
            figures.1.extend(broken);
        }
    });
    assert!(registry.engine().connections_in_use().is_empty());
    assert_eq!(registry.engine().waiting(), 0);
    figures
}

/// A unit of work inside a unit of work, each with a connection of its own. `refused`: how long the refusal took.
fn both(registry: &Registry, refused: &mut Option<Duration>) -> Result<()> {
    // Both read, so that on SQLite it is connections they wait for, and not the write gate.
    registry.read(|outer| {
        outer.batch_execute("SELECT 1")?;
        let options = read_only().propagation(Propagation::RequiresNew);
        let asked = Instant::now();
        let result = registry.transaction_with(options, |own| own.batch_execute("SELECT 1"));
        if result.is_err() {
            *refused = Some(asked.elapsed());
        }
        result
    })
}

#[test]
fn rings_of_threads_that_ask_for_a_second_connection_are_broken_at_once() {
    let _alone = alone();
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(CONNECTIONS));
    let (mut figures, mut refusals) = storm(&registry);
    figures.print(&format!("starvation storm on {}", db::NAME));
    refusals.sort_unstable();
    println!("  refusals after: median {:?}, longest {:?}", refusals.get(refusals.len() / 2), refusals.last());
    // The one that closes the ring hears of it when it asks; a few in a thousand may have lost the processor just then.
    let most = refusals.get(refusals.len() * 999 / 1000);
    assert!(most.is_none_or(|most| *most < Duration::from_millis(100)), "{most:?}");
    assert!(refusals.last().is_none_or(|longest| *longest < Duration::from_secs(2)), "{:?}", refusals.last());
    assert!(figures.done() > 0);
    // Every connection is fit for use.
    registry.transaction_with(TransactionOptions::new(), |session| session.batch_execute("SELECT 1")).unwrap();
}

#[test]
fn with_a_reserve_every_second_connection_is_had() {
    let _alone = alone();
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(CONNECTIONS).reserve(1));
    let (mut figures, _) = storm(&registry);
    figures.print(&format!("starvation storm with a reserve on {}", db::NAME));
    assert_eq!(figures.failures(), 0);
    assert!(figures.done() >= THREADS as u64);
}
