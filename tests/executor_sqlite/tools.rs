//! A database with an executor on it, and ways to form a batch on purpose.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_session::testing::FaultPlan;
use diesel_session::{
    BeginMode, Error, Executor, ExecutorBuilder, ExecutorReport, GroupCommit, JobHandle, LaneReport, TransactionOptions,
};

use crate::bank;
use crate::db::{Conn, Database, Registry};

/// Long enough for any job here on a busy machine: who waits longer waits for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const CREATE: &str = "
    CREATE TABLE keys (k TEXT PRIMARY KEY NOT NULL);
    INSERT INTO keys VALUES ('taken');
    CREATE TABLE harsh_keys (k TEXT PRIMARY KEY ON CONFLICT ROLLBACK NOT NULL);
    INSERT INTO harsh_keys VALUES ('taken');
    CREATE TABLE traps (n INTEGER);
    CREATE TRIGGER trap BEFORE INSERT ON traps BEGIN SELECT RAISE(ROLLBACK, 'the trap'); END;
    CREATE TABLE parents (id INTEGER PRIMARY KEY NOT NULL);
    CREATE TABLE children (parent INTEGER NOT NULL REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE blobs (content BLOB NOT NULL);
";

/// Jobs join a batch however long they usually take: a busy machine forms the same batches as an idle one.
pub(crate) fn unhurried() -> GroupCommit {
    GroupCommit::new().max_delay(PATIENCE)
}

pub(crate) struct Stand {
    pub(crate) database: Database,
    pub(crate) executor: Executor<Conn>,
    pub(crate) faults: FaultPlan,
}

impl Stand {
    /// With unhurried group commit.
    pub(crate) fn new() -> Self {
        Self::with(|executor| executor.group_commit(unhurried()))
    }

    pub(crate) fn with(change: impl FnOnce(ExecutorBuilder<Conn>) -> ExecutorBuilder<Conn>) -> Self {
        let (database, faults) = (Database::new(), FaultPlan::new());
        let builder = database.builder().faults(&faults);
        let engine = builder.setup(|conn| SimpleConnection::batch_execute(conn, "PRAGMA max_page_count = 200"));
        let registry = Registry::new(engine.build().unwrap());
        bank::create(&registry);
        registry.transaction(|session| session.batch_execute(CREATE)).unwrap();
        faults.reset();
        let executor = change(Executor::builder(registry)).build().unwrap();
        Self { database, executor, faults }
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.executor.registry()
    }

    /// The lane that writes.
    pub(crate) fn work(&self) -> LaneReport {
        work_of(&self.executor.inspect())
    }

    /// Lets `submit` queue jobs while the thread is held, so that it finds them all there.
    pub(crate) fn queued<T>(&self, submit: impl FnOnce() -> T) -> T {
        let held = Held::new(&self.executor);
        let submitted = submit();
        held.end();
        submitted
    }

    /// How many transactions the jobs took that `f` waits for.
    pub(crate) fn transactions_of<T>(&self, f: impl FnOnce() -> T) -> (u64, T) {
        let before = self.work().transactions;
        let result = f();
        (self.work().transactions - before, result)
    }

    /// The numbers that are stored, seen by a connection that has nothing to do with the executor's.
    pub(crate) fn stored(&self) -> Vec<i64> {
        stored_in(&self.database.url)
    }

    /// Nothing is held any more, and the thread serves.
    #[track_caller]
    pub(crate) fn check_serves(&self) {
        self.faults.reset();
        answer(self.executor.run(|session| session.batch_execute("SELECT 1"))).unwrap();
        check_nothing_held(self.registry(), &self.executor);
    }
}

pub(crate) fn work_of(report: &ExecutorReport) -> LaneReport {
    report.lanes.iter().find(|lane| lane.duty == "work").unwrap().clone()
}

pub(crate) fn stored_in(file: &str) -> Vec<i64> {
    use diesel::prelude::*;
    let mut conn = Conn::establish(file).unwrap();
    // Whoever closes the file's last connection locks it for a moment.
    SimpleConnection::batch_execute(&mut conn, "PRAGMA busy_timeout = 60000").unwrap();
    bank::jobs::table.select(bank::jobs::number).order(bank::jobs::number).load(&mut conn).unwrap()
}

/// A job is answered before its thread has put everything away, so this looks until it has.
#[track_caller]
pub(crate) fn check_nothing_held(registry: &Registry, executor: &Executor<Conn>) {
    let started = Instant::now();
    loop {
        let (sessions, jobs) = (registry.inspect(), executor.inspect());
        let is_clear = sessions.sessions.is_empty()
            && sessions.connections.is_empty()
            && sessions.write_gate.is_empty()
            && sessions.waiting == 0
            && jobs.queued() == 0
            && jobs.running() == 0;
        if is_clear {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{sessions}\n{jobs}");
        std::thread::yield_now();
    }
}

/// The answer of a job; a test that hangs fails instead.
#[track_caller]
pub(crate) fn answer<T, E: From<Error>>(handle: JobHandle<T, E>) -> Result<T, E> {
    handle.wait_timeout(PATIENCE).unwrap_or_else(|handle| panic!("no answer: {handle:?}"))
}

/// A job that runs until it is let go, in no batch.
pub(crate) struct Held {
    go: mpsc::Sender<()>,
    handle: JobHandle<(), Error>,
}

impl Held {
    pub(crate) fn new(executor: &Executor<Conn>) -> Self {
        let (go, gone) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let handle = executor.run_with(TransactionOptions::new().begin_mode(BeginMode::Immediate), move |_| {
            begun.send(()).unwrap();
            let _ = gone.recv();
            Ok(())
        });
        begins.recv_timeout(PATIENCE).unwrap();
        Self { go, handle }
    }

    pub(crate) fn end(self) {
        drop(self.go);
        answer(self.handle).unwrap();
    }
}
