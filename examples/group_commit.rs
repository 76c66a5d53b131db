//! Many clients that each want a row stored durably, with one COMMIT for each and with shared ones.
//!
//! SQLite lets one transaction write at a time, and a durable COMMIT waits for the disk. An executor's thread does all the
//! writing, so nobody meets SQLite's lock; with group commit the jobs that wait together share one transaction. Nothing is
//! weaker for it: a job is answered when its row is on the disk, and one that fails undoes its own work alone.
//!
//! `cargo run --release --example group_commit [clients] [orders of each]`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, reason = "it reports to its reader")]

use std::error::Error;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Error as SessionError, Executor, GroupCommit, ScopedSession, Session, WhenFull};

mod support;
use support::{Conn, Database, check};

diesel::table! {
    example_orders (id) {
        id -> Integer,
        client -> Integer,
        item -> Integer,
    }
}

const COLUMNS: &str = "id INTEGER NOT NULL PRIMARY KEY, client INTEGER NOT NULL, item INTEGER NOT NULL";
/// Every so many-th item is sold out.
const SOLD_OUT: i32 = 10;

/// Why an order is not stored.
#[derive(Debug)]
enum Refusal {
    SoldOut,
    Database(SessionError),
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        Self::Database(error)
    }
}

/// One order. What it wrote before it is refused is undone.
fn order(session: &Session<Conn>, client: i32, item: i32) -> Result<(), Refusal> {
    let row = (example_orders::client.eq(client), example_orders::item.eq(item));
    session.execute(diesel::insert_into(example_orders::table).values(row))?;
    if item % SOLD_OUT == 0 { Err(Refusal::SoldOut) } else { Ok(()) }
}

/// A client: orders one item after the other, each when the one before is stored; says how many were, and the longest wait.
fn client(executor: &Executor<Conn>, client: i32, items: i32) -> Result<(usize, Duration), SessionError> {
    let (mut stored, mut longest) = (0, Duration::ZERO);
    for item in 1..=items {
        let asked = Instant::now();
        // In async code: `executor.run(…).await`.
        match executor.run(move |session| order(session, client, item)).wait() {
            Ok(()) => stored += 1,
            Err(Refusal::SoldOut) => {}
            Err(Refusal::Database(error)) => return Err(error),
        }
        longest = longest.max(asked.elapsed());
    }
    Ok((stored, longest))
}

fn measure(name: &str, group: Option<GroupCommit>, clients: i32, items: i32) -> Result<(), Box<dyn Error>> {
    let database = Database::open()?;
    let registry = ScopedSession::new(database.engine(name, "example_orders", COLUMNS, |builder| builder)?);
    let mut builder = Executor::builder(registry.clone()).when_full(WhenFull::Wait);
    if let Some(group) = group {
        builder = builder.group_commit(group);
    }
    let executor = builder.build()?;

    let started = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|number| {
            let executor = executor.clone();
            std::thread::spawn(move || client(&executor, number, items))
        })
        .collect();
    let (mut acknowledged, mut longest) = (0, Duration::ZERO);
    for client in clients {
        let (stored, waited) = client.join().map_err(|_| "a client panicked")??;
        acknowledged += stored;
        longest = longest.max(waited);
    }
    let took = started.elapsed();

    let report = executor.inspect();
    let transactions: u64 = report.lanes.iter().map(|lane| lane.transactions).sum();
    println!(
        "{name:<14} {:>8.0} orders a second, longest wait {:>6.1} ms, {transactions} transactions for {acknowledged} orders",
        acknowledged as f64 / took.as_secs_f64(),
        longest.as_secs_f64() * 1e3,
    );
    check(&format!("{name}: what was acknowledged survives a power failure"), report.is_durable)?;
    let rows: i64 = registry.read(|session| session.get_result(example_orders::table.count()))?;
    check(&format!("{name}: exactly the acknowledged orders are stored"), usize::try_from(rows)? == acknowledged)?;
    executor.shutdown(Duration::from_secs(10))?;
    registry.shutdown(Duration::from_secs(10))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<i32>());
    let clients = numbers.next().transpose()?.unwrap_or(16);
    let items = numbers.next().transpose()?.unwrap_or(50);
    println!("{clients} clients, {items} orders each");
    measure("one-by-one", None, clients, items)?;
    measure("group-commit", Some(GroupCommit::new()), clients, items)?;
    Ok(())
}
