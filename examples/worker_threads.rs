//! An API that starts worker threads and gives each job a session of its own.
//!
//! A Diesel connection can't be shared between threads, and there are three classic answers to that:
//! - *A connection a worker.* As many connections as workers, also while they wait for work; a worker whose connection
//!   dies or is left in the middle of a transaction spoils every job after that.
//! - *One connection behind a lock.* Jobs take turns even where the database would let them run side by side, and a
//!   panic inside the lock leaves its transaction open for the next job.
//! - *One thread that owns the connection*, fed by a channel. The same turns, without the lock.
//!
//! Here a worker owns no connection. A job's session takes one at its first statement and gives it back at its end, so
//! the number of workers and the number of connections are two numbers; a job that fails or panics is rolled back, alone.
//!
//! `cargo run --example worker_threads`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, clippy::panic, reason = "it reports to its reader, and one of its jobs panics")]

use std::collections::HashSet;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::JoinHandle;

use diesel::prelude::*;
use diesel_session::{Error as SessionError, ScopedSession};

mod support;
use support::{Conn, Database, check};

type Session = diesel_session::Session<Conn>;

diesel::table! {
    example_accounts (id) {
        id -> Integer,
        balance -> Integer,
    }
}

/// Threads that run jobs, each job in a transaction of its own.
struct Workers {
    registry: ScopedSession<Conn>,
    queue: Sender<Task>,
    threads: Vec<JoinHandle<()>>,
}

type Task = Box<dyn FnOnce() + Send>;

/// What became of a job.
#[derive(Debug)]
enum Outcome<T> {
    Committed(T),
    RolledBack(JobError),
    Panicked,
}

/// A job's own errors beside the session's.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("account {0} has not enough")]
    NotEnough(i32),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Where a job's outcome arrives.
struct Ticket<T>(Receiver<Outcome<T>>);

impl<T> Ticket<T> {
    fn wait(self) -> Result<Outcome<T>, Box<dyn Error>> {
        Ok(self.0.recv()?)
    }
}

impl Workers {
    fn start(registry: &ScopedSession<Conn>, n: usize) -> Self {
        let (queue, tasks) = mpsc::channel::<Task>();
        let tasks = Arc::new(Mutex::new(tasks));
        let threads = (0..n)
            .map(|_| {
                let tasks = Arc::clone(&tasks);
                // On such a thread `Session::current()` finds the registry too.
                registry.spawn(move || {
                    while let Some(task) = next(&tasks) {
                        task();
                    }
                })
            })
            .collect();
        Self { registry: registry.clone(), queue, threads }
    }

    /// Hands in a job; it is committed if it returns `Ok`.
    fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Session) -> Result<T, JobError> + Send + 'static,
    ) -> Result<Ticket<T>, Box<dyn Error>> {
        let (give, take) = mpsc::channel();
        let registry = self.registry.clone();
        let task = move || {
            // `job` is a boundary: it also rolls back what code before it may have left open on this thread. A panic
            // goes through it, rolled back, and stops here, so that the thread lives on.
            let outcome = match catch_unwind(AssertUnwindSafe(|| registry.job(job))) {
                Ok(Ok(value)) => Outcome::Committed(value),
                Ok(Err(error)) => Outcome::RolledBack(error),
                Err(_) => Outcome::Panicked,
            };
            // Whoever handed the job in may not care.
            let _ = give.send(outcome);
        };
        self.queue.send(Box::new(task)).map_err(|_| "every worker has ended")?;
        Ok(Ticket(take))
    }

    /// Lets the workers finish what was handed in, and ends them.
    fn stop(self) -> Result<(), Box<dyn Error>> {
        drop(self.queue);
        for thread in self.threads {
            thread.join().map_err(|_| "a worker panicked outside a job")?;
        }
        Ok(())
    }
}

/// A function of its own, so that the queue is locked while waiting for a task and not while running it.
fn next(tasks: &Mutex<Receiver<Task>>) -> Option<Task> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn add(session: &Session, account: i32, amount: i32) -> diesel_session::Result<()> {
    use example_accounts::dsl;
    session
        .execute(diesel::update(dsl::example_accounts.find(account)).set(dsl::balance.eq(dsl::balance + amount)))
        .map(drop)
}

fn transfer(session: &Session, from: i32, to: i32, amount: i32) -> Result<(), JobError> {
    // The lower account first: two transfers in opposite directions then queue for a row instead of locking each other out.
    for account in [from.min(to), from.max(to)] {
        add(session, account, if account == from { -amount } else { amount })?;
    }
    let left: i32 = session
        .get_result(example_accounts::table.find(from).select(example_accounts::balance))
        .map_err(JobError::from)?;
    if left < 0 { Err(JobError::NotEnough(from)) } else { Ok(()) }
}

fn balances(session: &Session) -> diesel_session::Result<Vec<i32>> {
    session.load(example_accounts::table.select(example_accounts::balance).order(example_accounts::id))
}

fn main() -> Result<(), Box<dyn Error>> {
    const WORKERS: usize = 6;
    const ACCOUNTS: i32 = 4;
    const TRANSFERS: i32 = 120;

    let database = Database::open()?;
    // Fewer connections than workers, on purpose.
    let columns = "id INTEGER NOT NULL PRIMARY KEY, balance INTEGER NOT NULL";
    let engine = database.engine("bank", "example_accounts", columns, |builder| builder.max_size(3))?;
    let registry = ScopedSession::new(engine);
    registry.transaction(|session| {
        for id in 0..ACCOUNTS {
            session.execute(
                diesel::insert_into(example_accounts::table)
                    .values((example_accounts::id.eq(id), example_accounts::balance.eq(1_000))),
            )?;
        }
        Ok::<_, SessionError>(())
    })?;

    let workers = Workers::start(&registry, WORKERS);

    // As many jobs as workers meet at a barrier, so all of them run at the same time.
    let barrier = Arc::new(Barrier::new(WORKERS));
    let meeting: Vec<_> = (0..WORKERS)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            workers.submit(move |session| {
                barrier.wait();
                let current = Session::current()?;
                Ok((current == *session, session.id()))
            })
        })
        .collect::<Result<_, _>>()?;
    let mut sessions = HashSet::new();
    for ticket in meeting {
        if let Outcome::Committed((true, id)) = ticket.wait()? {
            sessions.insert(id);
        }
    }
    check("jobs that run at the same time have a session each, their thread's current one", sessions.len() == WORKERS)?;

    let good: Vec<_> = (0..TRANSFERS)
        .map(|n| workers.submit(move |session| transfer(session, n % ACCOUNTS, (n + 1) % ACCOUNTS, 5)))
        .collect::<Result<_, _>>()?;
    let too_much = workers.submit(|session| transfer(session, 0, 1, 1_000_000))?;
    let panics = workers.submit(|session| -> Result<(), JobError> {
        add(session, 0, -777)?;
        panic!("this job gives up half way, on purpose");
    })?;
    let broken = workers.submit(|session| {
        // The account exists: the database refuses, and the job passes that on.
        let row = (example_accounts::id.eq(0), example_accounts::balance.eq(0));
        Ok(session.execute(diesel::insert_into(example_accounts::table).values(row))?)
    })?;
    let after = workers.submit(|session| transfer(session, 3, 2, 1))?;

    let mut committed = 0;
    for ticket in good {
        committed += i32::from(matches!(ticket.wait()?, Outcome::Committed(())));
    }
    println!("{committed} of {TRANSFERS} transfers committed");
    check("every good job is committed", committed == TRANSFERS)?;
    check("a job that fails is told why", matches!(too_much.wait()?, Outcome::RolledBack(JobError::NotEnough(0))))?;
    check(
        "also when the database is what refuses",
        matches!(broken.wait()?, Outcome::RolledBack(JobError::Session(error)) if error.is_unique_violation()),
    )?;
    check("a job that panics harms nobody else", matches!(panics.wait()?, Outcome::Panicked))?;
    check("and its worker goes on", matches!(after.wait()?, Outcome::Committed(())))?;

    workers.stop()?;
    let balances = registry.read(balances)?;
    println!("balances: {balances:?}");
    // Each account gave and got as much in the good jobs; the last one moved 1 from account 3 to account 2.
    check("what is stored is what was committed, and nothing of the others", balances == [1_000, 1_000, 1_001, 999])?;
    check("no connection is held any more", registry.engine().connections_in_use().is_empty())
}
