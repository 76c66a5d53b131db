//! Marker rows share the fate of their transaction, whatever the connection has of its own.

use diesel::connection::SimpleConnection;
use diesel_session::Error;
use diesel_session::testing::{Call, Fault};

use super::db::insert;
use super::run::Stage;

/// A temporary table is found first, and each connection has its own.
#[test]
fn a_temporary_table_of_the_marker_tables_name_answers_for_nothing() {
    let stage = Stage::new(|builder| {
        builder
            .verify_commits(true)
            .setup(|conn| conn.batch_execute("CREATE TEMP TABLE diesel_session_commits (id TEXT PRIMARY KEY)"))
    });
    for (fault, is_stored) in [(Fault::CloseBefore, false), (Fault::CloseAfter, true)] {
        stage.faults.on(Call::Commit, fault);
        match stage.registry.transaction(|session| insert(session, "row")) {
            Ok(_) => assert!(is_stored),
            Err(Error::RolledBack { .. }) => assert!(!is_stored),
            other => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(stage.stored().len(), usize::from(is_stored));
        stage.clear();
    }
}
