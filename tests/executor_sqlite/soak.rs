//! Jobs of all sorts for a while, under group commit: at the end the books add up and nothing is held.
//!
//! Two seconds; 30 minutes with `DIESEL_SESSION_LONG=1`, or as many as `DIESEL_SESSION_SOAK_MINUTES` says.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Error, Executor, GroupCommit, LaneReport, RetryPolicy, TransactionOptions};

use crate::bank::{self, jobs};
use crate::db::{Conn, Database, Registry, Session};
use crate::kinds::insert;
use crate::tools::{PATIENCE, answer, check_nothing_held};

const SUBMITTERS: usize = 16;
/// Of each job.
const HOOKS: u64 = 2;
const QUARTERS: usize = 4;

fn how_long() -> Duration {
    let minutes = std::env::var("DIESEL_SESSION_SOAK_MINUTES").ok().map(|minutes| minutes.parse().unwrap());
    match (minutes, bank::long()) {
        (Some(minutes), _) => Duration::from_secs(minutes) * 60,
        (None, true) => Duration::from_secs(30 * 60),
        (None, false) => Duration::from_secs(2),
    }
}

/// How long jobs took, in steps of about 4 %, however many there were.
struct Times([u64; 512]);

impl Times {
    fn new() -> Self {
        Self([0; 512])
    }

    fn add(&mut self, took: Duration) {
        let step = (took.as_secs_f64() * 1e6).max(1.0).log2() * 16.0;
        self.0[(step as usize).min(511)] += 1;
    }

    fn p99(&self) -> Duration {
        let all: u64 = self.0.iter().sum();
        let mut left = all - all / 100;
        let step = self.0.iter().position(|count| {
            left = left.saturating_sub(*count);
            left == 0
        });
        Duration::from_secs_f64((step.unwrap_or(0) as f64 / 16.0).exp2() / 1e6)
    }
}

struct Soak {
    executor: Executor<Conn>,
    next: AtomicI64,
    hooks: Arc<AtomicU64>,
    told_ok: AtomicU64,
    started: Instant,
    long: Duration,
    times: Mutex<Vec<Times>>,
}

impl Soak {
    /// What every job begins with: its row, unless it only reads, and its hooks.
    fn job(&self, only_reads: bool) -> impl Fn(&Session) -> Result<(), Error> + Send + 'static {
        let (number, hooks) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::clone(&self.hooks));
        move |session| {
            for _ in 0..HOOKS {
                let hooks = Arc::clone(&hooks);
                session.on_commit(move || {
                    hooks.fetch_add(1, Ordering::Relaxed);
                })?;
            }
            if only_reads {
                session.get_result::<Option<i64>>(jobs::table.select(diesel::dsl::max(jobs::id))).map(drop)
            } else {
                insert(session, number).map(drop)
            }
        }
    }

    fn told(&self, told: &Result<(), Error>, since: Instant) {
        if told.is_ok() {
            self.told_ok.fetch_add(1, Ordering::Relaxed);
        }
        let quarter = self.started.elapsed().as_secs_f64() / self.long.as_secs_f64() * QUARTERS as f64;
        let mut times = self.times.lock().unwrap();
        times[(quarter as usize).min(QUARTERS - 1)].add(since.elapsed());
    }

    fn submit_one(&self) {
        let since = Instant::now();
        let job = self.job(false);
        let told = match fastrand::u32(0..100) {
            0..10 => {
                let told = answer(self.executor.run(move |session| -> Result<(), Error> {
                    job(session)?;
                    Err(Error::ReadOnly)
                }));
                assert!(told.is_err());
                told
            }
            10..15 => {
                let told = answer(self.executor.run(move |session| -> Result<(), Error> {
                    job(session)?;
                    panic!("as planned")
                }));
                assert!(matches!(told, Err(Error::JobPanicked { .. })), "{told:?}");
                told
            }
            15..25 => {
                let mut runs = 0;
                let policy = RetryPolicy::new(3).backoff(Duration::ZERO, Duration::from_millis(2)).also(|_| true);
                let told = answer(self.executor.run_with(TransactionOptions::new().retry(policy), move |session| {
                    runs += 1;
                    job(session)?;
                    if runs == 1 { session.batch_execute("this is not SQL") } else { Ok(()) }
                }));
                assert!(told.is_ok(), "{told:?}");
                told
            }
            25..35 => {
                let job = self.job(true);
                let told = answer(self.executor.run_read(job));
                assert!(told.is_ok(), "{told:?}");
                told
            }
            35..40 => {
                let handle = self.executor.run(job);
                handle.cancel();
                let told = answer(handle);
                assert!(matches!(told, Ok(()) | Err(Error::JobCancelled)), "{told:?}");
                told
            }
            40..45 => return drop(self.executor.run(job)),
            45..48 => return self.executor.run(job).detach(),
            48..55 => {
                let options = TransactionOptions::new().timeout(Duration::from_micros(fastrand::u64(0..2_000)));
                let told = answer(self.executor.run_with(options, job));
                let is_late = |error: &Error| {
                    matches!(
                        error,
                        Error::DeadlineExceeded { .. }
                            | Error::RolledBack { .. }
                            | Error::GateTimeout { .. }
                            | Error::PoolTimeout { .. }
                    )
                };
                assert!(told.as_ref().err().is_none_or(is_late), "{told:?}");
                told
            }
            _ => {
                let told = answer(self.executor.run(job));
                assert!(told.is_ok(), "{told:?}");
                told
            }
        };
        self.told(&told, since);
    }
}

fn adds_up(lane: &LaneReport) -> bool {
    lane.submitted == lane.succeeded + lane.failed + lane.cancelled + lane.refused && lane.queued == 0
}

#[test]
fn after_jobs_of_all_sorts_the_books_add_up_and_nothing_is_held() {
    let database = Database::new();
    let registry = Registry::new(database.builder().build().unwrap());
    bank::create(&registry);
    let executor = Executor::builder(registry.clone()).group_commit(GroupCommit::new()).build().unwrap();
    let soak = Soak {
        executor: executor.clone(),
        next: AtomicI64::new(1),
        hooks: Arc::default(),
        told_ok: AtomicU64::new(0),
        started: Instant::now(),
        long: how_long(),
        times: Mutex::new((0..QUARTERS).map(|_| Times::new()).collect()),
    };
    std::thread::scope(|threads| {
        for _ in 0..SUBMITTERS {
            threads.spawn(|| {
                while soak.started.elapsed() < soak.long {
                    soak.submit_one();
                }
            });
        }
    });
    executor.shutdown(PATIENCE).unwrap();
    let report = executor.inspect();
    println!("{report}\n{} told `Ok`", soak.told_ok.load(Ordering::Relaxed));
    for lane in &report.lanes {
        assert!(adds_up(lane), "{report}");
    }
    let succeeded: u64 = report.lanes.iter().map(|lane| lane.succeeded).sum();
    assert!(soak.told_ok.load(Ordering::Relaxed) <= succeeded, "{report}");
    assert_eq!(soak.hooks.load(Ordering::Relaxed), HOOKS * succeeded, "{report}");
    let work = crate::tools::work_of(&report);
    let rows: i64 = registry.read(|session| session.get_result(jobs::table.count())).unwrap();
    assert_eq!(u64::try_from(rows).unwrap(), work.succeeded, "a row for each job that wrote and was committed");
    assert_eq!(work.lost_batches, 0, "{report}");
    assert!(work.transactions < work.succeeded, "nobody shared a commit: {report}");
    check_nothing_held(&registry, &executor);
    assert_eq!(registry.inspect().counters, diesel_session::Counters::default());
    let times = soak.times.lock().unwrap();
    println!("p99 of the first quarter {:?}, of the last {:?}", times[0].p99(), times[QUARTERS - 1].p99());
}
