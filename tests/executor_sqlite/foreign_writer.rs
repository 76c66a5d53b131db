//! Another process writes to the file in a loop and holds its lock for up to two seconds.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use diesel_session::{Error, ErrorClass, Executor, GroupCommit, RetryPolicy, TransactionOptions, WhenFull};

use crate::bank::{self, Answer, Audit, TOTAL};
use crate::db::{Database, Registry, Session};
use crate::kinds::insert;
use crate::lock_holder::{self, Holder};
use crate::tools::{Held, answer, check_nothing_held};

const HOLDER: &str = "foreign_writer::lock_holder_process";

/// What the other process runs.
#[test]
fn lock_holder_process() {
    lock_holder::hold();
}

fn registry(database: &Database, busy_timeout: Duration) -> Registry {
    let registry = Registry::new(database.builder().busy_timeout(busy_timeout).build().unwrap());
    bank::create(&registry);
    registry
}

#[test]
fn jobs_with_a_deadline_outwait_another_process_and_none_is_lost_or_doubled() {
    let (longest, jobs) = if bank::long() { (2_000, 400) } else { (400, 200) };
    for is_grouped in [false, true] {
        let database = Database::new();
        // Shorter than the other process holds the lock: the job is run again until it gets it.
        let registry = registry(&database, Duration::from_millis(100));
        let mut builder = Executor::builder(registry.clone()).when_full(WhenFull::Wait);
        if is_grouped {
            builder = builder.group_commit(GroupCommit::new());
        }
        let executor = builder.build().unwrap();
        let holder = Holder::new(HOLDER, &database.url, Duration::from_millis(longest));
        let options = TransactionOptions::new().timeout(Duration::from_secs(100)).retry(RetryPolicy::new(10_000));
        let next = AtomicI64::new(1);
        let started = Instant::now();
        let answers: Vec<(i64, Answer)> = std::thread::scope(|threads| {
            let submitters: Vec<_> = (0..8)
                .map(|_| {
                    threads.spawn(|| {
                        let mut answers = Vec::new();
                        loop {
                            let number = next.fetch_add(1, Ordering::SeqCst);
                            if number > jobs {
                                return answers;
                            }
                            let job = executor.run_with(options, move |session| bank::in_session(session, number));
                            let (answer, error) = bank::answer(answer(job));
                            assert!(matches!(answer, Answer::Stored | Answer::Refused), "{error:?}");
                            answers.push((number, answer));
                            // Spread out, so that they meet the lock more than once.
                            std::thread::sleep(Duration::from_millis(fastrand::u64(0..50)));
                        }
                    })
                })
                .collect();
            submitters.into_iter().flat_map(|submitter| submitter.join().unwrap()).collect()
        });
        let took = started.elapsed();
        let of_holder = holder.end();
        let session = Session::new(registry.engine());
        let stored = bank::stored(&session, 0).unwrap();
        let audit = Audit::new(&stored, &answers);
        println!(
            "group commit {is_grouped}, {took:?}: {audit}; {} of the other's, {} run again",
            of_holder.len(),
            executor.inspect().lanes[0].retried
        );
        audit.check();
        assert_eq!(bank::total(&session).unwrap(), TOTAL);
        assert!(of_holder.iter().all(|number| stored.iter().any(|(_, stored)| stored == number)));
        session.commit().unwrap();
        drop(session);
        check_nothing_held(&registry, &executor);
    }
}

#[test]
fn past_its_deadline_a_job_says_that_another_process_holds_the_lock_and_is_not_stored() {
    const SHORT: Duration = Duration::from_millis(300);
    for is_grouped in [false, true] {
        for policy in [None, Some(RetryPolicy::new(1_000))] {
            let database = Database::new();
            let registry = registry(&database, Duration::from_secs(60));
            let mut builder = Executor::builder(registry.clone());
            if is_grouped {
                builder = builder.group_commit(GroupCommit::new());
            }
            let executor = builder.build().unwrap();
            let submit = |number: i64| {
                let options = TransactionOptions::new().timeout(SHORT);
                let options = policy.map_or_else(|| options.into(), |policy| options.retry(policy));
                executor.run_with(options, move |session| insert(session, number))
            };
            answer(submit(1)).unwrap();
            let holder = Holder::new(HOLDER, &database.url, Duration::from_secs(2));
            let started = Instant::now();
            let mut handles = (2..6).map(submit);
            let first = answer(handles.next().unwrap()).unwrap_err();
            assert!(first.is_retryable() && first.to_string().contains("external writer"), "{first}");
            // One waits for the lock, and those behind it for the thread.
            for handle in handles.collect::<Vec<_>>() {
                let error = answer(handle).unwrap_err();
                assert!(error.to_string().contains("external writer"), "{error}");
            }
            let waited = started.elapsed();
            assert!(waited >= SHORT / 2 && waited < Duration::from_secs(60), "{waited:?}");
            let of_holder = holder.end();
            answer(executor.run(|session| insert(session, 10))).unwrap();
            let session = Session::new(registry.engine());
            let stored: Vec<i64> = bank::stored(&session, 0).unwrap().into_iter().map(|(_, number)| number).collect();
            let own: Vec<i64> =
                stored.into_iter().filter(|number| *number < 1_000 && !of_holder.contains(number)).collect();
            assert_eq!(own, [1, 10]);
            session.commit().unwrap();
        }
    }
}

#[test]
fn a_job_that_is_late_behind_one_that_waits_for_another_process_is_told_so() {
    let database = Database::new();
    let registry = registry(&database, Duration::from_secs(60));
    let executor = Executor::builder(registry).build().unwrap();
    let late = |number: i64| {
        let options = TransactionOptions::new().timeout(Duration::from_millis(50));
        executor.run_with(options, move |session| insert(session, number))
    };
    let busy = Held::new(&executor);
    assert!(matches!(answer(late(1)), Err(Error::DeadlineExceeded { .. })), "nobody outside is to blame");
    busy.end();
    let holder = Holder::new(HOLDER, &database.url, Duration::from_secs(2));
    let patient = executor.run(|session| insert(session, 2));
    let told = answer(late(3));
    assert!(matches!(told, Err(Error::LockedOutside { .. })), "{told:?}");
    assert_eq!(told.unwrap_err().class(), ErrorClass::Unavailable);
    holder.end();
    answer(patient).unwrap();
}

#[test]
fn without_a_deadline_the_busy_time_out_bounds_the_wait_and_the_error_names_the_other_process() {
    let database = Database::new();
    let registry = registry(&database, Duration::from_millis(50));
    let executor = Executor::builder(registry).group_commit(GroupCommit::new()).build().unwrap();
    let holder = Holder::new(HOLDER, &database.url, Duration::from_secs(2));
    let error: Error = answer(executor.run(|session| insert(session, 1))).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("external writer"), "{error}");
    holder.end();
    answer(executor.run(|session| insert(session, 2))).unwrap();
}
