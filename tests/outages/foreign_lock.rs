//! Another process that writes to the same SQLite file, and takes its time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use diesel_session::ErrorClass;

use super::bank::{self, Answer, Audit, TOTAL};
use super::db::{Registry, Session};
use super::lock_holder::{self, Holder};
use crate::support::sqlite_file::Database;

const HOLDER: &str = "sqlite_file::foreign_lock::lock_holder_process";

/// What the other process runs.
#[test]
fn lock_holder_process() {
    lock_holder::hold();
}

#[test]
fn sessions_wait_for_another_process_up_to_the_busy_time_out_and_succeed() {
    let (longest, jobs) = if bank::long() { (2000, 400) } else { (300, 60) };
    let database = Database::new();
    let builder = database.builder().busy_timeout(Duration::from_secs(60)).connection_timeout(Duration::from_secs(120));
    let registry = Registry::new(builder.build().unwrap());
    bank::create(&registry);
    let holder = Holder::new(HOLDER, &database.url, Duration::from_millis(longest));
    let next = AtomicI64::new(1);
    let started = Instant::now();
    let answers: Vec<(i64, Answer)> = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                threads.spawn(|| {
                    let mut answers = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number > jobs {
                            return answers;
                        }
                        let (answer, error) = bank::work(&registry, number);
                        assert!(matches!(answer, Answer::Stored | Answer::Refused), "{error:?}");
                        answers.push((number, answer));
                        // Spread out, so that they meet the lock more than once.
                        std::thread::sleep(Duration::from_millis(fastrand::u64(0..100)));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let took = started.elapsed();
    let of_holder = holder.end();
    let session = Session::new(registry.engine());
    let stored = bank::stored(&session, 0).unwrap();
    let audit = Audit::new(&stored, &answers);
    println!("SQLite and another process, {took:?}: {audit}; {} of the other's", of_holder.len());
    audit.check();
    assert_eq!(bank::total(&session).unwrap(), TOTAL);
    // The one before the first that is read here was said while it started.
    assert!(of_holder.iter().all(|number| stored.iter().any(|(_, stored)| stored == number)));
    assert!(!of_holder.is_empty(), "the other process took the lock only once");
    session.commit().unwrap();
}

#[test]
fn a_shorter_busy_time_out_is_an_error_that_may_be_tried_again_and_loses_nothing() {
    let database = Database::new();
    let registry = Registry::new(database.builder().busy_timeout(Duration::from_millis(50)).build().unwrap());
    bank::create(&registry);
    let mut holder = Holder::new(HOLDER, &database.url, Duration::from_secs(2));
    let mut answers = Vec::new();
    for number in 1..=2 {
        // It is held for twenty times as long as the session waits.
        let (answer, error) = bank::work(&registry, number);
        assert_eq!(answer, Answer::Failed(ErrorClass::Retryable), "{error:?}");
        answers.push((number, answer));
        assert!(registry.engine().write_gate().is_empty() && registry.engine().connections_in_use().is_empty());
        // Readers don't wait for it.
        assert_eq!(registry.read(bank::total).unwrap(), TOTAL);
        holder.wait_for_lock();
    }
    // What was refused may be tried again until it is done.
    for number in 11..=13 {
        let mut tries = 0;
        loop {
            let (answer, _) = bank::work(&registry, number);
            if answer == Answer::Stored {
                answers.push((number, answer));
                break;
            }
            assert_eq!(answer, Answer::Failed(ErrorClass::Retryable));
            tries += 1;
            assert!(tries < 1000, "never served");
        }
    }
    holder.end();
    let session = Session::new(registry.engine());
    Audit::new(&bank::stored(&session, 0).unwrap(), &answers).check();
    assert_eq!(bank::total(&session).unwrap(), TOTAL);
    session.commit().unwrap();
}
