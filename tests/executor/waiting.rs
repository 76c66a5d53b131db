//! Waiting: in the queue, for an answer, for the end.

use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use diesel_session::{Error, Executor, Result, RetryPolicy, TransactionOptions, WhenFull};

use super::db::{Conn, Database, insert, stored};

/// A job that runs until it is let go.
struct Held {
    go: mpsc::Sender<()>,
    handle: diesel_session::JobHandle<(), Error>,
}

impl Held {
    fn new(executor: &Executor<Conn>) -> Self {
        let (go, gone) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        let handle = executor.run(move |_| {
            begun.send(()).unwrap();
            let _ = gone.recv();
            Ok(())
        });
        begins.recv().unwrap();
        Self { go, handle }
    }

    fn end(self) {
        drop(self.go);
        self.handle.wait().unwrap();
    }
}

fn executor(database: &Database) -> Executor<Conn> {
    Executor::builder(database.registry()).threads(1).queue(2).build().unwrap()
}

#[test]
fn a_full_queue_refuses_at_once_or_lets_wait_as_it_was_told() {
    let database = Database::new();
    let refusing = executor(&database);
    let held = Held::new(&refusing);
    let queued: Vec<_> = ["in 1", "in 2"].map(|text| refusing.run(move |session| insert(session, text))).into();
    let refused = refusing.run(|session| insert(session, "out")).wait();
    assert!(matches!(refused, Err(Error::QueueFull { queued: 2, .. })), "{refused:?}");
    held.end();
    for handle in queued {
        handle.wait().unwrap();
    }
    assert_eq!(stored(refusing.registry()), ["in 1", "in 2"]);

    let patient = Executor::builder(refusing.registry().clone())
        .threads(1)
        .queue(0)
        .when_full(WhenFull::WaitFor(Duration::from_millis(30)))
        .build()
        .unwrap();
    let held = Held::new(&patient);
    let late = patient.run(|session| insert(session, "late"));
    assert!(matches!(late.wait(), Err(Error::QueueFull { .. })), "though its thread is busy");
    let patiently = patient.run(|session| insert(session, "patient"));
    held.end();
    patiently.wait().unwrap();
    assert_eq!(stored(patient.registry()), ["in 1", "in 2", "patient"]);
}

#[test]
fn a_job_past_its_deadline_is_refused_though_every_thread_is_busy() {
    let database = Database::new();
    let executor = executor(&database);
    let held = Held::new(&executor);
    let options = TransactionOptions::new().timeout(Duration::from_millis(20));
    let late = executor.run_with(options, |session| insert(session, "late")).wait();
    assert!(matches!(late, Err(Error::DeadlineExceeded { .. })), "{late:?}");
    held.end();
    assert!(stored(executor.registry()).is_empty());
}

#[test]
fn a_handle_dropped_or_cancelled_before_the_start_takes_the_job_with_it_and_detach_does_not() {
    let database = Database::new();
    let executor = executor(&database);
    let held = Held::new(&executor);
    let (kept, gone) = mpsc::channel::<()>();
    let dropped = executor.run(move |session| {
        let _kept = &kept;
        insert(session, "dropped")
    });
    drop(dropped);
    assert_eq!(gone.recv(), Err(mpsc::RecvError), "the closure is gone with its handle");
    let cancelled = executor.run(|session| insert(session, "cancelled"));
    assert!(cancelled.cancel());
    assert!(matches!(cancelled.wait(), Err(Error::JobCancelled)));
    executor.run(|session| insert(session, "detached")).detach();
    held.end();
    let began = Held::new(&executor);
    assert!(!began.handle.cancel(), "what has begun goes on");
    began.end();
    assert_eq!(stored(executor.registry()), ["detached"]);
    assert_eq!(executor.inspect().lanes[0].cancelled, 2);
}

#[test]
fn many_jobs_cancelled_in_scattered_order_leave_the_others_in_theirs() {
    const JOBS: usize = 20_000;
    let database = Database::new();
    let executor = Executor::builder(database.registry()).threads(1).queue(JOBS).build().unwrap();
    let held = Held::new(&executor);
    let (ran, runs) = mpsc::channel();
    let handles: Vec<_> = (0..JOBS)
        .map(|n| {
            let ran = ran.clone();
            executor.run(move |_| -> Result<()> {
                ran.send(n).unwrap();
                Ok(())
            })
        })
        .collect();
    drop(ran);
    // A step that meets each once.
    for n in (0..JOBS).map(|n| n * 7_919 % JOBS).filter(|n| n % 100 != 0) {
        assert!(handles[n].cancel(), "{n}");
    }
    assert_eq!(executor.inspect().queued(), JOBS / 100);
    held.end();
    let served: Vec<_> = runs.iter().collect();
    assert_eq!(served, (0..JOBS).step_by(100).collect::<Vec<_>>());
}

#[test]
fn a_handle_dropped_after_the_start_lets_the_job_commit() {
    let database = Database::new();
    let executor = executor(&database);
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let handle = executor.run(move |session| {
        begun.send(()).unwrap();
        let _ = gone.recv();
        insert(session, "on")
    });
    begins.recv().unwrap();
    drop(handle);
    drop(go);
    executor.shutdown(Duration::from_secs(20)).unwrap();
    assert_eq!(stored(executor.registry()), ["on"]);
}

#[test]
fn waiting_in_a_job_for_one_that_no_thread_is_left_for_is_refused() {
    for threads in [1_usize, 4] {
        let database = Database::new();
        let registry = database.registry_with(|builder| builder.max_size(5));
        let executor = Executor::builder(registry).threads(threads).readers(0).build().unwrap();
        let all_in = Arc::new(Barrier::new(threads));
        let parents: Vec<_> = (0..threads)
            .map(|_| {
                let (inner, all_in) = (executor.clone(), Arc::clone(&all_in));
                executor.run(move |_| -> Result<()> {
                    all_in.wait();
                    inner.run(|_| -> Result<()> { Ok(()) }).wait()
                })
            })
            .collect();
        let started = Instant::now();
        let answers: Vec<_> = parents.into_iter().map(diesel_session::JobHandle::wait).collect();
        assert!(started.elapsed() < Duration::from_secs(20));
        let refused = answers.iter().filter(|answer| matches!(answer, Err(Error::WouldHang))).count();
        assert_eq!(refused, 1, "{threads} threads: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), threads - 1);
    }
}

#[test]
fn shutdown_drains_and_names_what_it_could_not_wait_for() {
    let database = Database::new();
    let executor = executor(&database);
    let held = Held::new(&executor);
    let queued = executor.run(|session| insert(session, "queued"));
    let error = executor.shutdown(Duration::from_millis(20)).unwrap_err();
    match &error {
        Error::NotDrained { refused: 1, running, .. } => assert_eq!(running.len(), 1, "{error}"),
        other => panic!("{other}"),
    }
    assert!(matches!(queued.wait(), Err(Error::ShutDown)));
    assert!(matches!(executor.run(|session| insert(session, "late")).wait(), Err(Error::ShutDown)));
    held.end();
    executor.shutdown(Duration::from_secs(20)).unwrap();
    assert!(stored(executor.registry()).is_empty());
}

#[test]
fn dropping_the_executor_refuses_the_queue_and_waits_for_nobody() {
    let database = Database::new();
    let registry = database.registry();
    let executor = Executor::builder(registry.clone()).threads(1).build().unwrap();
    let held = Held::new(&executor);
    let queued = executor.run(|session| insert(session, "queued"));
    drop(executor);
    assert!(matches!(queued.wait(), Err(Error::ShutDown)));
    held.end();
    assert!(stored(&registry).is_empty());
}

/// Between an answer and the moment at which who waited for it wakes, its thread is as good as free.
#[test]
fn who_has_its_answer_and_has_not_woken_yet_is_not_counted_among_those_that_wait() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(5));
    let executor = Executor::builder(registry).threads(2).readers(0).async_sessions(0).build().unwrap();
    for round in 0..500 {
        let both = Arc::new(Barrier::new(2));
        let (handles, handed) = mpsc::channel::<diesel_session::JobHandle<(), Error>>();
        let here = Arc::clone(&both);
        let waits = executor.run(move |_| -> Result<()> {
            here.wait();
            handed.recv().unwrap().wait()
        });
        let (end, ended) = mpsc::channel::<()>();
        let awaited = executor.run(move |_| -> Result<()> {
            both.wait();
            let _ = ended.recv();
            Ok(())
        });
        handles.send(awaited).unwrap();
        let inner = executor.clone();
        // Begins on the thread that has just given the answer.
        let next = executor.run(move |_| -> Result<()> { inner.run(|_| -> Result<()> { Ok(()) }).wait() });
        drop(end);
        waits.wait().unwrap();
        let answer = next.wait();
        assert!(answer.is_ok(), "round {round}: {answer:?}");
    }
}

/// Fails its first attempt, and comes again only after minutes.
fn comes_again_late(executor: &Executor<Conn>) -> diesel_session::JobHandle<usize> {
    let pause = Duration::from_secs(600);
    let policy = RetryPolicy::new(2).backoff(pause, pause).also(|_| true);
    let submit = || {
        executor.run_with(TransactionOptions::new().retry(policy), |session| {
            insert(session, "twice")?;
            insert(session, "twice")
        })
    };
    let started = Instant::now();
    let mut handle = submit();
    // Without places it is refused until the thread has come to the queue.
    while handle.is_finished() && started.elapsed() < Duration::from_secs(20) {
        handle = submit();
    }
    while executor.inspect().lanes[0].retried == 0 || executor.inspect().queued() == 0 {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    handle
}

#[test]
fn a_job_that_waits_for_its_next_attempt_takes_no_place_from_one_that_a_thread_is_free_for() {
    let database = Database::new();
    let executor = Executor::builder(database.registry()).threads(1).queue(0).build().unwrap();
    let late = comes_again_late(&executor);
    let started = Instant::now();
    loop {
        match executor.run(|session| insert(session, "now")).wait() {
            Ok(_) => break,
            // Its thread is still on its way back to the queue.
            Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
        }
    }
    assert_eq!(stored(executor.registry()), ["now"]);
    drop(late);
}

#[test]
fn a_job_that_waits_for_its_next_attempt_is_told_at_the_shutdown_what_its_last_one_was() {
    let database = Database::new();
    let executor = executor(&database);
    let late = comes_again_late(&executor);
    assert!(matches!(executor.shutdown(Duration::ZERO), Err(Error::NotDrained { .. })));
    let told = late.wait();
    assert!(matches!(told, Err(Error::Statement(_))), "{told:?}");
    let work = &executor.inspect().lanes[0];
    assert_eq!((work.submitted, work.failed), (1, 1));
}
