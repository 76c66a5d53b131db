//! A connection that is gone at COMMIT: nobody knows, unless it is found out.

use std::time::Duration;

use diesel_session::testing::{Call, Fault};
use diesel_session::{Error, ErrorClass, RetryPolicy, TransactionOptions};

use super::db::insert;
use super::run::Stage;

const LOST: [Fault; 2] = [Fault::CloseBefore, Fault::CloseAfter];

fn rounds() -> usize {
    if crate::long() { 10_000 } else { 150 }
}

#[test]
fn a_connection_that_is_gone_at_commit_leaves_the_commit_unknown() {
    let stage = Stage::new(|builder| builder);
    for round in 0..rounds() {
        let fault = LOST[round % 2];
        stage.faults.on(Call::Commit, fault);
        let answer = stage.registry.transaction(|session| insert(session, "row"));
        assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
        assert_eq!(answer.unwrap_err().class(), ErrorClass::Ambiguous);
        let stored = usize::from(fault == Fault::CloseAfter);
        assert_eq!(stage.stored().len(), stored);
        stage.clear();
    }
}

#[test]
fn a_verified_commit_answers_what_became_of_it() {
    let stage = Stage::new(|builder| builder.verify_commits(true));
    for round in 0..rounds() {
        let fault = LOST[round % 2];
        stage.faults.on(Call::Commit, fault);
        let answer = stage.registry.transaction(|session| insert(session, "row"));
        if fault == Fault::CloseAfter {
            assert!(matches!(answer, Ok(1)), "{answer:?}");
            assert_eq!(stage.stored(), ["row"]);
        } else {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::RolledBack { .. }), "{error}");
            assert_eq!(error.class(), ErrorClass::Connection);
            assert!(stage.stored().is_empty());
        }
        stage.clear();
    }
}

#[test]
fn a_verified_commit_that_is_run_again_is_stored_once() {
    let stage = Stage::new(|builder| builder.verify_commits(true));
    let policy = RetryPolicy::new(4).backoff(Duration::from_micros(50), Duration::from_millis(1));
    let options = TransactionOptions::new().retry(policy);
    for round in 0..rounds() {
        // Lost once, twice or three times before it goes well; in every mixture.
        for n in 0..round % 3 + 1 {
            stage.faults.on_nth(Call::Commit, n + 1, LOST[(round >> n) % 2]);
        }
        let mut attempts = 0;
        let answer = stage.registry.transaction_with(options, |session| {
            attempts += 1;
            insert(session, &format!("attempt {attempts}"))
        });
        stage.faults.reset();
        assert!(matches!(answer, Ok(1)), "{answer:?}");
        assert_eq!(stage.stored(), [format!("attempt {attempts}")]);
        stage.clear();
    }
}
