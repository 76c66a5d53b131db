//! Who shares a COMMIT with whom.

use std::sync::mpsc;
use std::time::Duration;

use diesel_session::testing::{Call, Fault};
use diesel_session::{
    BeginMode, Error, GroupCommit, JobHandle, Propagation, RetryPolicy, TransactionOptions, read_only,
};

use crate::db::Session;
use crate::kinds::insert;
use crate::tools::{PATIENCE, Stand, answer, unhurried};

fn stand(group: GroupCommit) -> Stand {
    Stand::with(|executor| executor.readers(0).group_commit(group))
}

/// A quick job, always from this line.
fn quick(stand: &Stand, number: i64) -> JobHandle<usize> {
    stand.executor.run(move |session| insert(session, number))
}

/// How many transactions the jobs take that wait while the thread is held.
fn transactions(stand: &Stand, submit: impl FnOnce(&Stand) -> Vec<JobHandle<usize>>) -> u64 {
    let (transactions, ()) = stand.transactions_of(|| {
        for handle in stand.queued(|| submit(stand)) {
            answer(handle).unwrap();
        }
    });
    // The one that held the thread has a transaction too.
    transactions - 1
}

#[test]
fn jobs_that_wait_together_share_one_transaction_up_to_the_number_asked_for() {
    for (max_jobs, expected) in [(128, 1), (4, 3), (1, 10)] {
        let stand = stand(unhurried().max_jobs(max_jobs));
        answer(quick(&stand, 1)).unwrap();
        let shared = transactions(&stand, |stand| (10..20).map(|number| quick(stand, number)).collect());
        assert_eq!(shared, expected, "at most {max_jobs} jobs");
        assert_eq!(stand.stored(), [vec![1], (10..20).collect()].concat());
        stand.check_serves();
    }
}

#[test]
fn a_line_that_was_not_seen_before_does_not_join() {
    let stand = stand(unhurried());
    answer(quick(&stand, 1)).unwrap();
    let shared = transactions(&stand, |stand| {
        vec![quick(stand, 10), stand.executor.run(|session| insert(session, 11)), quick(stand, 12)]
    });
    assert_eq!(shared, 2, "the unknown one begins a batch of its own");
}

#[test]
fn reads_and_jobs_with_options_of_their_own_are_never_in_a_batch() {
    let stand = stand(unhurried());
    let immediately = |stand: &Stand, number| {
        let options = TransactionOptions::new().begin_mode(BeginMode::Immediate);
        stand.executor.run_with(options, move |session| insert(session, number))
    };
    let patiently = |stand: &Stand, number| {
        let options = TransactionOptions::new().lock_timeout(Duration::from_secs(60));
        stand.executor.run_with(options, move |session| insert(session, number))
    };
    let read = |stand: &Stand| stand.executor.run_read(|_| Ok(0));
    let in_time = |stand: &Stand, number| {
        stand.executor.run_with(TransactionOptions::new().timeout(PATIENCE), move |session| insert(session, number))
    };
    for handle in [quick(&stand, 1), immediately(&stand, 2), patiently(&stand, 3), read(&stand), in_time(&stand, 4)] {
        answer(handle).unwrap();
    }
    let with = |other: &dyn Fn(&Stand) -> JobHandle<usize>, number| {
        transactions(&stand, |stand| vec![quick(stand, number), other(stand), quick(stand, number + 1)])
    };
    assert_eq!(with(&|stand| quick(stand, 10), 11), 1);
    assert_eq!(with(&|stand| in_time(stand, 20), 21), 1, "a time-out alone keeps nobody out");
    assert_eq!(with(&|stand| immediately(stand, 30), 31), 3);
    assert_eq!(with(&|stand| patiently(stand, 40), 41), 3);
    assert_eq!(with(&read, 51), 3);
}

#[test]
fn a_job_that_is_run_again_is_alone_then() {
    let stand = stand(unhurried().max_jobs(2));
    let again = |stand: &Stand, number| {
        let policy = RetryPolicy::new(3).backoff(Duration::ZERO, Duration::ZERO);
        stand.executor.run_with(TransactionOptions::new().retry(policy), move |session| insert(session, number))
    };
    answer(quick(&stand, 1)).unwrap();
    answer(again(&stand, 2)).unwrap();
    let retried = |stand: &Stand| stand.work().retried;
    let all_at_once = transactions(&stand, |stand| vec![quick(stand, 10), again(stand, 11)]);
    assert_eq!((all_at_once, retried(&stand)), (1, 0));
    let shared = transactions(&stand, |stand| {
        stand.faults.on_nth(Call::Statement, 2, Fault::LockTimeout);
        vec![quick(stand, 20), again(stand, 21), quick(stand, 22)]
    });
    assert_eq!(retried(&stand), 1);
    assert_eq!(shared, 3, "it had a transaction of its own, though another job waited that could have joined");
    assert_eq!(stand.stored(), [1, 2, 10, 11, 20, 21, 22]);
}

#[test]
fn a_quick_job_is_answered_before_a_slow_one_that_came_later_ends() {
    let stand = stand(GroupCommit::new().max_delay(Duration::from_millis(500)));
    let slow = |stand: &Stand, gone: mpsc::Receiver<()>| {
        stand.executor.run(move |session| {
            let _ = gone.recv_timeout(PATIENCE);
            insert(session, 100)
        })
    };
    answer(quick(&stand, 1)).unwrap();
    // It takes longer than a batch may: from then on its line is known for that.
    let (go, gone) = mpsc::channel();
    let learnt = slow(&stand, gone);
    std::thread::sleep(Duration::from_millis(600));
    drop(go);
    answer(learnt).unwrap();
    let (go, gone) = mpsc::channel();
    let (before, held_up, after) = stand.queued(|| (quick(&stand, 10), slow(&stand, gone), quick(&stand, 11)));
    answer(before).unwrap();
    assert_eq!(stand.stored(), [1, 10, 100], "stored before it was answered, and the slow one still runs");
    assert!(!held_up.is_finished());
    drop(go);
    answer(held_up).unwrap();
    answer(after).unwrap();
}

#[test]
fn nothing_is_answered_and_no_hook_runs_before_the_commit_of_the_batch_is_durable() {
    let stand = stand(unhurried());
    let file = stand.database.url.clone();
    let (said, heard) = mpsc::channel();
    let counts = move |session: &Session, number: i64| -> Result<(), Error> {
        insert(session, number)?;
        let (said, file) = (said.clone(), file.clone());
        session.on_commit(move || said.send(crate::tools::stored_in(&file).len()).unwrap())
    };
    // Ends well, fails, panics or waits: by what it is given, so that each comes from a line that is known.
    let job = |number: i64, wait: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>| {
        let counts = counts.clone();
        stand.executor.run(move |session| -> Result<(), Error> {
            counts(session, number)?;
            if let Some((begun, gone)) = wait {
                begun.send(()).unwrap();
                let _ = gone.recv_timeout(PATIENCE);
            }
            match number % 10 {
                1 => Err(Error::ReadOnly),
                2 => panic!("job {number}"),
                _ => Ok(()),
            }
        })
    };
    answer(job(3, None)).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(1));
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let (early, last) = stand.queued(|| {
        let early = [13, 11, 12, 14].map(|number| job(number, None));
        (early, job(15, Some((begun, gone))))
    });
    begins.recv_timeout(PATIENCE).unwrap();
    // Four have ended, one still runs: nobody has heard anything, and nobody else sees a row.
    assert!(early.iter().all(|handle| !handle.is_finished()), "answered before the commit");
    assert_eq!(heard.try_recv(), Err(mpsc::TryRecvError::Empty), "a hook ran before the commit");
    assert_eq!(stand.stored(), [3]);
    drop(go);
    let answers = early.map(answer);
    assert_eq!(stand.stored(), [3, 13, 14, 15], "an answer was there and the rows were not");
    assert!(matches!(answers, [Ok(()), Err(Error::ReadOnly), Err(Error::JobPanicked { .. }), Ok(())]), "{answers:?}");
    answer(last).unwrap();
    // Each hook found everything there.
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn jobs_of_a_batch_see_what_those_before_them_wrote_and_have_sessions_of_their_own() {
    let stand = stand(unhurried());
    let job = |number: i64| {
        stand.executor.run(move |session| -> Result<_, Error> {
            insert(session, number)?;
            let current = Session::current()?;
            let count = session
                .get_result::<i64>(diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM jobs"))?;
            Ok((current == *session, session.id(), count))
        })
    };
    answer(job(1)).unwrap();
    let seen: Vec<_> =
        stand.queued(|| (10..15).map(job).collect::<Vec<_>>()).into_iter().map(|job| answer(job).unwrap()).collect();
    assert!(seen.iter().all(|(is_current, _, _)| *is_current));
    assert_eq!(seen.iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    let mut ids: Vec<_> = seen.iter().map(|(_, id, _)| *id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn a_job_that_lost_its_commit_is_not_told_ok_when_it_can_not_be_run_again_because_of_the_shutdown() {
    for is_grouped in [false, true] {
        let stand = Stand::with(|executor| if is_grouped { executor.group_commit(unhurried()) } else { executor });
        let (begun, begins) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let mut gone = Some(gone);
        stand.faults.on(Call::Commit, Fault::SerializationFailure);
        let job = stand.executor.run_with(TransactionOptions::new().retry(RetryPolicy::new(5)), move |session| {
            insert(session, 1)?;
            begun.send(()).unwrap();
            if let Some(gone) = gone.take() {
                let _ = gone.recv_timeout(PATIENCE);
            }
            Ok::<_, Error>(())
        });
        begins.recv_timeout(PATIENCE).unwrap();
        let Stand { database, executor, .. } = stand;
        // What is queued is refused from now on, also what would be queued again.
        drop(executor);
        drop(go);
        let told = answer(job);
        assert!(matches!(&told, Err(error) if error.is_retryable()), "{told:?}");
        assert_eq!(crate::tools::stored_in(&database.url), [0_i64; 0]);
    }
}

#[test]
fn a_hook_that_takes_its_time_is_seen_to_run_and_is_named_by_the_shutdown() {
    for stand in [Stand::new(), Stand::with(|executor| executor)] {
        let (end, ended) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let slow = stand.executor.run(move |session| -> Result<(), Error> {
            insert(session, 1)?;
            session.on_commit(move || {
                begun.send(()).unwrap();
                let _ = ended.recv();
            })?;
            Ok(())
        });
        begins.recv_timeout(PATIENCE).unwrap();
        assert_eq!(stand.executor.inspect().running(), 1);
        match stand.executor.shutdown(Duration::ZERO) {
            Err(Error::NotDrained { running, .. }) => assert_eq!(running.len(), 1),
            other => panic!("{other:?}"),
        }
        drop(end);
        answer(slow).unwrap();
    }
}

#[test]
fn a_job_with_options_of_its_own_has_them_though_the_registry_was_told_otherwise() {
    let stand = Stand::new();
    stand.registry().configure(|options| options.transaction(read_only())).unwrap();
    let retried = |number: i64| {
        let options = TransactionOptions::new().retry(RetryPolicy::new(2));
        stand.executor.run_with(options, move |session| insert(session, number))
    };
    answer(retried(1)).unwrap();
    let timed = |number: i64| {
        let options = TransactionOptions::new().timeout(PATIENCE);
        stand.executor.run_with(options, move |session| insert(session, number))
    };
    answer(timed(2)).unwrap();
    let reading = || stand.executor.run(|session| insert(session, 3));
    let (reads, retried, timed) = stand.queued(|| (reading(), retried(4), timed(5)));
    assert!(matches!(answer(reads), Err(Error::ReadOnly)));
    answer(retried).unwrap();
    answer(timed).unwrap();
    assert_eq!(stand.stored(), [1, 2, 4, 5]);
}

#[test]
fn a_job_that_opens_a_second_transaction_first_goes_well_where_it_asks_to_be_alone() {
    let stand = Stand::new();
    let registry = stand.registry().clone();
    let second = move |number: i64| {
        let registry = registry.clone();
        move |session: &Session| -> Result<usize, Error> {
            let options = TransactionOptions::new().propagation(Propagation::RequiresNew);
            registry.transaction_with(options, |session| insert(session, number))?;
            insert(session, number + 1)
        }
    };
    let well = |number: i64| stand.executor.run(move |session| insert(session, number));
    let alone = TransactionOptions::new().begin_mode(BeginMode::Immediate);
    answer(well(1)).unwrap();
    let (before, between, after) = stand.queued(|| (well(2), stand.executor.run_with(alone, second(10)), well(3)));
    for handle in [before, between, after] {
        answer(handle).unwrap();
    }
    assert_eq!(stand.stored(), [1, 2, 3, 10, 11]);
}
