//! Every fault at every call.

use diesel_session::testing::{Call, Fault};
use diesel_session::{Error, StatementErrors, Strategy};

use super::db::insert;
use super::run::{FAULTS, Stage, WAYS};

fn sweep(stage: &Stage) {
    for way in WAYS {
        let calls = stage.run(way, &[]);
        assert!(calls.len() >= 15, "{calls:?}");
        for k in 1..=calls.len() {
            for fault in FAULTS {
                stage.run(way, &[(k, fault)]);
            }
        }
    }
}

#[test]
fn every_fault_at_every_call_leaves_the_database_as_the_answer_says() {
    sweep(&Stage::new(|builder| builder));
}

#[test]
fn every_fault_at_every_call_leaves_the_database_as_the_answer_says_where_commits_are_verified() {
    sweep(&Stage::new(|builder| builder.verify_commits(true)));
}

#[test]
fn every_fault_at_every_call_leaves_the_database_as_the_answer_says_on_connections_of_their_own() {
    sweep(&Stage::new(|builder| builder.strategy(Strategy::None)));
}

#[test]
fn a_driver_that_panics_on_the_sessions_own_account_commits_nothing_more() {
    for errors in [StatementErrors::Portable, StatementErrors::Native] {
        let stage = Stage::new(|builder| builder.statement_errors(errors));
        for fault in [Fault::PanicBefore, Fault::PanicAfter] {
            for call in [Call::Control, Call::Savepoint] {
                let session = stage.registry.current().unwrap();
                insert(&session, "row").unwrap();
                stage.faults.on(call, fault);
                if call == Call::Savepoint {
                    session.begin_nested().unwrap_err();
                } else {
                    session.batch_execute("SELECT 1").unwrap_err();
                }
                let error = session.commit().unwrap_err();
                assert!(matches!(error, Error::RolledBack { .. }), "{call:?} {fault:?}: {error}");
                stage.registry.remove();
                assert!(stage.stored().is_empty());
            }
        }
    }
}
