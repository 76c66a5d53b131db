//! A job is a whole unit of work: what its ways to end leave in the database.

use std::sync::mpsc;
use std::time::Duration;

use diesel_session::{Error, Executor, Result, RetryPolicy, TransactionOptions};

use super::db::{Conn, Database, Session, insert, stored, texts};

fn executor(database: &Database) -> Executor<Conn> {
    Executor::builder(database.registry()).threads(1).build().unwrap()
}

#[test]
fn ok_commits_and_err_and_panic_roll_back_and_the_thread_goes_on() {
    let database = Database::new();
    let executor = executor(&database);
    assert_eq!(executor.run(|session| insert(session, "ok")).wait().unwrap(), 1);
    let failed = executor.run(|session| -> Result<()> {
        insert(session, "err")?;
        Err(Error::ReadOnly)
    });
    assert!(matches!(failed.wait(), Err(Error::ReadOnly)));
    let panicked = executor.run(|session| -> Result<()> {
        insert(session, "panic")?;
        panic!("a text")
    });
    match panicked.wait() {
        Err(Error::JobPanicked { at, message }) => {
            assert!(at.file().ends_with("jobs.rs"), "{at}");
            assert_eq!(message, "a text");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(executor.run(|session| insert(session, "after")).wait().unwrap(), 1);
    assert_eq!(stored(executor.registry()), ["after", "ok"]);
    let report = executor.inspect();
    assert_eq!((report.lanes[0].succeeded, report.lanes[0].failed), (2, 2), "{report}");
}

#[test]
fn the_current_session_in_a_job_is_the_jobs_own() {
    let database = Database::new();
    let executor = executor(&database);
    let same = executor.run(|session| -> Result<_> {
        let current = Session::current()?;
        Ok((current == *session, current.in_transaction()))
    });
    assert_eq!(same.wait().unwrap(), (true, true));
}

#[test]
fn reads_see_what_was_committed_and_cannot_write() {
    let database = Database::new();
    let executor = executor(&database);
    executor.run(|session| insert(session, "a")).wait().unwrap();
    assert_eq!(executor.run_read(|session| -> Result<_> { Ok(texts(session)) }).wait().unwrap(), ["a"]);
    let refused = executor.run_read(|session| insert(session, "b")).wait();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(stored(executor.registry()), ["a"]);
}

#[test]
fn one_thread_serves_in_the_order_of_submission() {
    let database = Database::new();
    let executor = executor(&database);
    let handles: Vec<_> = (0..50).map(|n| executor.run(move |session| insert(session, &format!("{n:02}")))).collect();
    for handle in handles {
        handle.wait().unwrap();
    }
    let expected: Vec<_> = (0..50).map(|n| format!("{n:02}")).collect();
    assert_eq!(stored(executor.registry()), expected);
}

#[test]
fn a_job_that_is_run_again_lets_others_by_and_keeps_its_key() {
    let database = Database::new();
    let executor = executor(&database);
    let (keys, seen) = mpsc::channel();
    let mut runs = 0;
    let options = TransactionOptions::new()
        .retry(RetryPolicy::new(3).backoff(Duration::from_millis(20), Duration::from_millis(20)).also(|_| true));
    let again = executor.run_with(options, move |session| -> Result<u32> {
        runs += 1;
        keys.send(session.attempt().map(|attempt| (attempt.number(), attempt.key()))).unwrap();
        insert(session, &format!("run {runs}"))?;
        if runs < 3 {
            // There already.
            insert(session, &format!("run {runs}"))?;
        }
        Ok(runs)
    });
    let other = executor.run(|session| insert(session, "other"));
    other.wait().unwrap();
    assert_eq!(again.wait().unwrap(), 3);
    let seen: Vec<_> = seen.iter().flatten().collect();
    assert_eq!(seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(seen.iter().all(|(_, key)| *key == seen[0].1));
    assert_eq!(stored(executor.registry()), ["other", "run 3"]);
    assert_eq!(executor.inspect().lanes[0].retried, 2);
}

#[test]
fn hooks_run_before_the_answer() {
    let database = Database::new();
    let executor = executor(&database);
    let (said, heard) = mpsc::channel();
    executor
        .run(move |session| -> Result<()> {
            insert(session, "a")?;
            session.on_commit(move || said.send("hook").unwrap())
        })
        .wait()
        .unwrap();
    assert_eq!(heard.try_recv(), Ok("hook"));
}
