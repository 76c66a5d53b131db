//! A pool that all threads share, and a connection kept for each thread, beside each other on the same work.
//!
//! *The pool* (`Strategy::Shared`, the default) is for servers: many threads, few connections, each held for one
//! transaction and then anybody's. A server database counts connections, and each costs memory there; a pool of a dozen
//! serves hundreds of threads that mostly do something else.
//!
//! *One connection a thread* (`Strategy::PerThread`) is for a fixed, small number of threads that work on the database
//! most of the time: no hand-over between threads, and what a connection has cached (prepared statements, SQLite's pages)
//! is always that thread's own. It costs a connection for each thread, also while the thread does something else.
//!
//! The program is the same: the engine's builder says which. And with both, `shutdown` closes every connection, also
//! those that are kept for other threads.
//!
//! `cargo run --release --example pool_or_thread`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, reason = "it reports to its reader")]

use std::error::Error;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Error as SessionError, ScopedSession, Session, Strategy};

mod support;
use support::{Conn, Database, check};

diesel::table! {
    example_counters (id) {
        id -> Integer,
        n -> Integer,
    }
}

const THREADS: i32 = 8;
const POOL: usize = 2;
const ROUNDS: i32 = 60;
const READS_A_ROUND: i32 = 4;
const COLUMNS: &str = "id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL";

/// A thread's work: rounds of some reads and a write, each a transaction.
fn work(registry: &ScopedSession<Conn>, id: i32) -> diesel_session::Result<()> {
    use example_counters::dsl;
    for _ in 0..ROUNDS {
        for _ in 0..READS_A_ROUND {
            registry.read(|session| session.get_result::<i32>(dsl::example_counters.find(id).select(dsl::n)))?;
        }
        registry.transaction(|session| {
            session.execute(diesel::update(dsl::example_counters.find(id)).set(dsl::n.eq(dsl::n + 1)))
        })?;
    }
    Ok(())
}

struct Measured {
    took: Duration,
    idle: usize,
}

fn measure(strategy: Strategy, name: &str) -> Result<Measured, Box<dyn Error>> {
    let database = Database::open()?;
    let connections = if strategy == Strategy::Shared { POOL } else { THREADS as usize };
    let engine = database
        .engine(name, "example_counters", COLUMNS, |builder| builder.strategy(strategy).max_size(connections))?;
    let registry = ScopedSession::new(engine);
    registry.transaction(|session| {
        for id in 0..THREADS {
            let row = (example_counters::id.eq(id), example_counters::n.eq(0));
            session.execute(diesel::insert_into(example_counters::table).values(row))?;
        }
        Ok::<_, SessionError>(())
    })?;

    // The threads stay alive until after the shutdown, so that it has connections of living threads to reach.
    let done = Arc::new(Barrier::new(THREADS as usize + 1));
    let shut_down = Arc::new(Barrier::new(THREADS as usize + 1));
    let started = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|id| {
            let (registry, done, shut_down) = (registry.clone(), Arc::clone(&done), Arc::clone(&shut_down));
            std::thread::spawn(move || {
                let worked = work(&registry, id);
                done.wait();
                shut_down.wait();
                (worked, registry.read(|session| session.get_result::<i64>(example_counters::table.count())))
            })
        })
        .collect();
    done.wait();
    let took = started.elapsed();
    let stored: Vec<i32> =
        registry.read(|session| session.load(example_counters::table.select(example_counters::n)))?;
    let idle = registry.engine().idle();
    let ended = registry.shutdown(Duration::from_secs(10));
    let left = registry.engine().idle();
    let is_let_go = database.is_let_go(name);
    shut_down.wait();

    ended?;
    let mut refused = 0;
    for thread in threads {
        let (worked, after) = thread.join().map_err(|_| "a thread panicked")?;
        worked?;
        refused += i32::from(matches!(after, Err(SessionError::ShutDown)));
    }
    check(&format!("{name}: every write is stored"), stored == vec![ROUNDS; THREADS as usize])?;
    check(&format!("{name}: after shutdown no thread's connection is left"), left == 0 && is_let_go)?;
    check(&format!("{name}: and every thread's new work is refused"), refused == THREADS)?;
    Ok(Measured { took, idle })
}

/// `close_all` is the engine's half of `shutdown`: it waits for nobody, and reaches connections in use when they end.
fn close_all_lets_work_end() -> Result<(), Box<dyn Error>> {
    let database = Database::open()?;
    let engine =
        database.engine("closing", "example_counters", COLUMNS, |builder| builder.strategy(Strategy::PerThread))?;
    let session = Session::new(&engine);
    let row = (example_counters::id.eq(1), example_counters::n.eq(1));
    session.execute(diesel::insert_into(example_counters::table).values(row))?;
    engine.close_all();
    check("close_all: a transaction that is open may still be committed", session.commit().is_ok())?;
    check("close_all: its connection closes then", engine.idle() == 0 && database.is_let_go("closing"))?;
    let count: Result<i64, _> = session.get_result(example_counters::table.count());
    check("close_all: and nothing new begins", matches!(count, Err(SessionError::ShutDown)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = measure(Strategy::Shared, "shared pool")?;
    let own = measure(Strategy::PerThread, "one a thread")?;
    close_all_lets_work_end()?;

    println!();
    println!("{:<14} {:>8} {:>12} {:>10} {:>16}", "strategy", "threads", "connections", "time", "transactions/s");
    for (name, measured) in [("shared pool", &pool), ("one a thread", &own)] {
        let transactions = THREADS * ROUNDS * (READS_A_ROUND + 1);
        let time = format!("{:.1?}", measured.took);
        let rate = f64::from(transactions) / measured.took.as_secs_f64();
        println!("{name:<14} {THREADS:>8} {:>12} {time:>10} {rate:>16.0}", measured.idle);
    }
    println!();
    check("the pool served all threads with few connections", (1..=POOL).contains(&pool.idle))?;
    check("the other kept one for each thread", own.idle == THREADS as usize)
}
