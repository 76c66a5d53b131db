//! Marker rows share the fate of their transaction, wherever the transaction was led to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::testing::{Call, Fault};
use diesel_session::{Engine, Error};

use super::db::{Conn, insert};
use super::run::Stage;

#[test]
fn a_session_whose_default_engine_has_no_transactions_is_verified_all_the_same() {
    let stage = Stage::new(|builder| {
        builder.verify_commits(true).setup(|conn| conn.batch_execute("SET SESSION default_storage_engine = MyISAM"))
    });
    stage.faults.on(Call::Commit, Fault::CloseBefore);
    let answer = stage.registry.transaction(|session| insert(session, "row"));
    assert!(matches!(answer, Err(Error::RolledBack { .. })), "{answer:?}");
    assert!(stage.stored().is_empty());
}

#[test]
fn a_marker_table_without_transactions_is_refused() {
    let database = super::database();
    let mut admin = Conn::establish(&database.url).unwrap();
    admin.batch_execute("CREATE TABLE diesel_session_commits (id CHAR(36) PRIMARY KEY) ENGINE = MyISAM").unwrap();
    let build = || Engine::<Conn>::builder(&database.url).verify_commits(true).build();
    let Err(error) = build() else { panic!("it was built") };
    assert!(matches!(error, Error::Configuration(_)), "{error}");
    // It says what to do, and that helps.
    let text = error.to_string();
    let (_, advice) = text.split_once('`').unwrap();
    let (advice, _) = advice.split_once('`').unwrap();
    admin.batch_execute(advice).unwrap();
    build().unwrap();
}

#[test]
fn a_transaction_that_uses_another_database_is_looked_for_where_it_left_its_marker() {
    let other = super::database();
    // There is a table of that name too.
    other.registry_with(|builder| builder.verify_commits(true));
    let stage = Stage::new(|builder| builder.verify_commits(true));
    for (fault, is_stored) in [(Fault::CloseBefore, false), (Fault::CloseAfter, true)] {
        stage.faults.on(Call::Commit, fault);
        let answer = stage.registry.transaction(|session| {
            insert(session, "row")?;
            session.batch_execute(&format!("USE {}", other.name))
        });
        match answer {
            Ok(()) => assert!(is_stored),
            Err(Error::RolledBack { .. }) => assert!(!is_stored),
            other => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(stage.stored().len(), usize::from(is_stored));
        stage.clear();
    }
}

/// A set-up that chooses among databases: one has no right to answer for another.
#[test]
fn markers_are_in_the_database_that_the_set_up_chose() {
    let other = super::database();
    let url = other.url.rsplit_once('/').unwrap().0.to_owned();
    let name = other.name.clone();
    let faults = diesel_session::testing::FaultPlan::new();
    drop(other.registry());
    let engine = Engine::<Conn>::builder(format!("{url}/"))
        .verify_commits(true)
        .faults(&faults)
        .setup(move |conn| conn.batch_execute(&format!("USE {name}")))
        .build()
        .unwrap();
    let session = diesel_session::Session::new(&engine);
    insert(&session, "row").unwrap();
    faults.on(Call::Commit, Fault::CloseAfter);
    session.commit().unwrap();
}

/// Asking again would not bring it back.
#[test]
fn a_marker_table_that_is_gone_answers_at_once() {
    let is_gone = Arc::new(AtomicBool::new(false));
    let goes = Arc::clone(&is_gone);
    let stage = Stage::new(|builder| {
        builder.verify_commits(true).connection_timeout(Duration::from_secs(60)).setup(move |conn| {
            if goes.load(Ordering::SeqCst) { conn.batch_execute("DROP TABLE diesel_session_commits") } else { Ok(()) }
        })
    });
    stage.registry.transaction(|session| insert(session, "row")).unwrap();
    // For the connection that asks.
    is_gone.store(true, Ordering::SeqCst);
    stage.faults.on(Call::Commit, Fault::CloseAfter);
    let started = Instant::now();
    let answer = stage.registry.transaction(|session| insert(session, "another"));
    assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "asked for {:?}", started.elapsed());
}
