//! What a lost batch tells its jobs: never `Ok` for what is not stored.

use diesel_session::Error;

use crate::kinds::{FAULTY, HARMLESS, Kind, LOSING, Submitted, warm_up};
use crate::tools::Stand;

const JOBS: i64 = 5;
const FIRST: i64 = 10;

/// A batch of five, one of another kind at this position.
fn batch(stand: &Stand, kind: Kind, position: i64, is_retried: bool) -> Submitted {
    let mut submitted = Submitted::new();
    stand.queued(|| {
        for job in 0..JOBS {
            let kind = if job == position { kind } else { Kind::Ok };
            submitted.submit(stand, kind, FIRST + job, is_retried);
        }
    });
    submitted
}

#[test]
fn whatever_loses_a_batch_at_whatever_position_only_what_is_stored_was_told_ok() {
    for kind in LOSING {
        for position in 0..JOBS {
            let stand = Stand::new();
            warm_up(&stand);
            let told = batch(&stand, kind, position, false).check(&stand);
            let said = format!("{kind:?} at {position}: {told:#?}");
            let before = told.iter().take(usize::try_from(position).unwrap());
            for told in before {
                let error = told.answer.as_ref().expect_err(&said);
                match error {
                    Error::CommitUnknown { .. } => assert!(kind.leaves_doubt(), "{said}"),
                    Error::BatchRolledBack { .. } => assert!(error.is_retryable(), "{said}"),
                    _ => panic!("{said}"),
                }
            }
            let lost = stand.work().lost_batches;
            assert!(position == 0 || lost == 1, "{lost} lost: {said}");
        }
    }
}

#[test]
fn whatever_becomes_of_the_savepoints_in_a_batch_only_what_is_stored_was_told_ok() {
    for kind in FAULTY {
        for position in 0..JOBS {
            for is_retried in [false, true] {
                let stand = Stand::new();
                warm_up(&stand);
                batch(&stand, kind, position, is_retried).check(&stand);
            }
        }
    }
}

#[test]
fn jobs_with_a_retry_policy_are_run_again_alone_after_a_lost_batch_and_stored() {
    for kind in LOSING {
        if kind.leaves_doubt() {
            continue;
        }
        for position in 0..JOBS {
            let stand = Stand::new();
            warm_up(&stand);
            let told = batch(&stand, kind, position, true).check(&stand);
            for told in &told {
                assert!(told.kind == kind || told.answer.is_ok(), "{kind:?} at {position}: {told:?}");
            }
        }
    }
}

#[test]
fn a_raw_commit_in_a_batch_leaves_the_jobs_before_it_in_doubt_and_never_acknowledged() {
    for position in 1..JOBS {
        let stand = Stand::new();
        warm_up(&stand);
        let told = batch(&stand, Kind::RawCommit, position, true).check(&stand);
        for told in told.iter().take(usize::try_from(position).unwrap()) {
            assert!(matches!(told.answer, Err(Error::CommitUnknown { .. })), "{told:?}");
        }
    }
}

#[test]
fn what_fails_alone_at_whatever_position_undoes_nobody_elses_work() {
    for kind in HARMLESS {
        for position in 0..JOBS {
            for is_retried in [false, true] {
                let stand = Stand::new();
                warm_up(&stand);
                let told = batch(&stand, kind, position, is_retried).check(&stand);
                for told in &told {
                    let is_ok = told.kind.ends_well() || told.kind == Kind::RollbackOnly;
                    assert_eq!(told.answer.is_ok(), is_ok, "{kind:?} at {position}: {told:?}");
                }
                assert_eq!(stand.work().lost_batches, 0);
            }
        }
    }
}

#[test]
fn after_a_lost_batch_as_many_jobs_run_alone_and_then_they_share_again() {
    let stand = Stand::new();
    warm_up(&stand);
    let lost = batch(&stand, Kind::DeferredKey, 2, false);
    assert!(lost.check(&stand).iter().all(|told| matches!(told.answer, Err(Error::BatchRolledBack { .. }))));
    // Two of the five were the check that the thread serves, and the job that holds it.
    for expected in [3 + 1, 1] {
        let (transactions, told) = stand.transactions_of(|| {
            let mut submitted = Submitted::new();
            stand.queued(|| {
                for job in 0..JOBS {
                    submitted.submit(&stand, Kind::Ok, FIRST + job, false);
                }
            });
            submitted.check(&stand)
        });
        assert!(told.iter().all(|told| told.answer.is_ok()), "{told:?}");
        // The one that held the thread, and the check at the end.
        assert_eq!(transactions - 2, expected);
        stand.registry().transaction(|session| session.batch_execute("DELETE FROM jobs")).unwrap();
    }
}

#[test]
fn a_duplicate_pair_in_a_batch_whose_commit_fails_is_told_that_the_batch_was_rolled_back() {
    let stand = Stand::new();
    warm_up(&stand);
    let mut submitted = Submitted::new();
    let take = || stand.executor.run(|session| session.batch_execute("INSERT INTO keys VALUES ('wanted')"));
    let free = crate::tools::answer(stand.executor.run(|session| session.batch_execute("SELECT 1")));
    free.unwrap();
    crate::tools::answer(take()).unwrap();
    crate::tools::answer(stand.executor.run(|session| session.batch_execute("DELETE FROM keys WHERE k = 'wanted'")))
        .unwrap();
    let pair = stand.queued(|| {
        let pair = [take(), take()];
        submitted.submit(&stand, Kind::DeferredKey, FIRST, false);
        pair
    });
    for handle in pair {
        // The second one's own error rested on what the first had written, which is not stored.
        let answer = crate::tools::answer(handle);
        assert!(matches!(answer, Err(Error::BatchRolledBack { .. })), "{answer:?}");
    }
    submitted.check(&stand);
}
