//! Ever more threads, each with one short transaction after the other, on a pool of eight connections.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::figures::{Report, Rounds};
use crate::store::{Fallible, Item, POOL, Registry, Store};

const THREADS: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000];
/// How long the threads begin new transactions.
const TURN: Duration = Duration::from_millis(800);
const QUICK_TURN: Duration = Duration::from_millis(50);
const ROUNDS: usize = 3;

type Transaction = fn(&Registry, i32) -> diesel_session::Result<()>;

/// What came of a turn.
struct Turn {
    done: u32,
    took: Duration,
    longest: Duration,
}

pub(crate) fn measure(report: &mut Report, quick: bool) -> Fallible {
    let threads = if quick { &THREADS[..7] } else { &THREADS };
    let rounds = if quick { 1 } else { ROUNDS };
    let turn = if quick { QUICK_TURN } else { TURN };
    let rows = *threads.last().unwrap_or(&1);
    let (mut rates, mut waits) = (Rounds::new("threads", "thousand/s"), Rounds::new("wait", "ms"));
    for _ in 0..rounds {
        for (series, transaction, writes) in [("read", read as Transaction, 0), ("read and change", change, 1)] {
            for &threads in threads {
                let store = Store::with_rows(rows)?;
                let came = race(&store, threads, turn, transaction)?;
                store.check(rows, writes * i64::from(came.done))?;
                rates.note(series, threads, f64::from(came.done) / came.took.as_secs_f64() / 1e3);
                waits.note(series, threads, came.longest.as_secs_f64() * 1e3);
            }
        }
    }
    report.curve(&format!("thousands of transactions a second through {POOL} connections"), rates.figures());
    report.curve("milliseconds of the slowest transaction of a turn, from call to answer", waits.figures());
    Ok(())
}

fn read(registry: &Registry, key: i32) -> diesel_session::Result<()> {
    registry.read(|session| session.get_one::<Item>(key).map(drop))
}

fn change(registry: &Registry, key: i32) -> diesel_session::Result<()> {
    registry.transaction(|session| session.get_one::<Item>(key)?.update(|item| item.amount += 1))
}

/// Lets all threads work at once, each on a row of its own; any error ends the measurement.
fn race(store: &Store, threads: u32, turn: Duration, transaction: Transaction) -> Fallible<Turn> {
    // When all began. It opens by itself if not all threads can be made; a barrier would then keep the others for ever.
    let start = RwLock::new(Instant::now());
    let work = |key: i32| {
        let started = *start.read().unwrap_or_else(PoisonError::into_inner);
        let (mut done, mut longest) = (0, Duration::ZERO);
        let mut before = Instant::now();
        // At least once, however late its first turn comes.
        loop {
            transaction(store.registry(), key).map_err(|error| format!("thread {key} of {threads}: {error}"))?;
            done += 1;
            let now = Instant::now();
            longest = longest.max(now - before);
            before = now;
            if now - started >= turn {
                return Ok::<_, String>((now - started, done, longest));
            }
        }
    };
    let work = &work;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let mut held = start.write().unwrap_or_else(PoisonError::into_inner);
        let keys = 1..=i32::try_from(threads).unwrap_or(i32::MAX);
        let running: Vec<_> = keys.map(|key| scope.spawn(move || work(key))).collect();
        *held = Instant::now();
        drop(held);
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut came = Vec::new();
    for answer in answers {
        came.push(answer.map_err(|_| "a thread panicked")??);
    }
    Ok(Turn {
        done: came.iter().map(|(_, done, _)| *done).sum(),
        took: came.iter().map(|(took, ..)| *took).max().unwrap_or(turn),
        longest: came.iter().map(|(.., longest)| *longest).max().unwrap_or_default(),
    })
}
