//! Connections that are really cut around a COMMIT, by a proxy in front of the server.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::testing::FaultPlan;
use diesel_session::{
    Engine, EngineBuilder, Error, ErrorClass, RetryPolicy, ScopedSession, Session, TransactionOptions,
};

use super::db::{Conn, Database, Registry, insert};
use crate::proxy::{Cut, Proxy};
use crate::support::notes;

struct Line {
    registry: Registry,
    proxy: Proxy,
    database: Database,
}

impl Line {
    fn new(change: impl FnOnce(EngineBuilder<Conn>) -> EngineBuilder<Conn>) -> Self {
        let database = super::database();
        drop(database.registry());
        let proxy = Proxy::new(&database.url);
        let engine = change(Engine::builder(proxy.url(&database.url))).build().unwrap();
        Self { registry: ScopedSession::new(engine), proxy, database }
    }

    fn stored(&self) -> Vec<String> {
        let mut eye = Conn::establish(&self.database.url).unwrap();
        notes::table.select(notes::text).order(notes::text).load(&mut eye).unwrap()
    }

    fn clear(&self) {
        let mut eye = Conn::establish(&self.database.url).unwrap();
        diesel::delete(notes::table).execute(&mut eye).unwrap();
    }
}

const IN_FLIGHT: Duration = Duration::from_secs(2);

fn rounds() -> usize {
    if crate::long() { 500 } else { 20 }
}

#[test]
fn a_connection_that_is_cut_around_commit_leaves_the_commit_unknown() {
    let line = Line::new(|builder| builder);
    for round in 0..rounds() {
        let cut = [Cut::Before, Cut::After][round % 2];
        line.proxy.cut(cut);
        let answer = line.registry.transaction(|session| insert(session, "row"));
        assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{cut:?}: {answer:?}");
        assert_eq!(line.stored().len(), usize::from(cut == Cut::After));
        line.clear();
    }
    assert_eq!(line.proxy.cuts(), rounds());
}

#[test]
fn a_verified_commit_that_is_cut_answers_what_became_of_it() {
    let line = Line::new(|builder| builder.verify_commits(true));
    for round in 0..rounds() {
        let cut = [Cut::Before, Cut::After][round % 2];
        line.proxy.cut(cut);
        let answer = line.registry.transaction(|session| insert(session, "row"));
        if cut == Cut::After {
            assert!(matches!(answer, Ok(1)), "{answer:?}");
            assert_eq!(line.stored(), ["row"]);
        } else {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::RolledBack { .. }), "{error}");
            assert_eq!(error.class(), ErrorClass::Connection);
            assert!(line.stored().is_empty());
        }
        line.clear();
    }
    assert_eq!(line.proxy.cuts(), rounds());
}

#[test]
fn a_verified_commit_that_is_cut_and_run_again_is_stored_once() {
    let line = Line::new(|builder| builder.verify_commits(true));
    let options = TransactionOptions::new().retry(RetryPolicy::new(4));
    for round in 0..rounds() {
        let cut = [Cut::Before, Cut::After][round % 2];
        line.proxy.cut(cut);
        let mut attempts = 0;
        let answer = line.registry.transaction_with(options, |session| {
            attempts += 1;
            insert(session, &format!("attempt {attempts}"))
        });
        assert!(matches!(answer, Ok(1)), "{answer:?}");
        assert_eq!(attempts, if cut == Cut::After { 1 } else { 2 });
        assert_eq!(line.stored(), [format!("attempt {attempts}")]);
        line.clear();
    }
}

/// The client is cut, and its COMMIT reaches the server when it has been asking for long.
#[test]
fn the_fate_of_a_commit_that_is_still_on_its_way_is_waited_for() {
    let line = Line::new(|builder| builder.verify_commits(true));
    line.proxy.cut(Cut::Late(IN_FLIGHT));
    let started = Instant::now();
    let answer = line.registry.transaction(|session| insert(session, "row"));
    assert!(matches!(answer, Ok(1)), "{answer:?}");
    assert_eq!(line.proxy.cuts(), 1);
    assert!(started.elapsed() >= IN_FLIGHT, "answered before the server could know");
    assert_eq!(line.stored(), ["row"]);
}

/// Past the connection time-out nobody knows; nothing is said that may turn out wrong.
#[test]
fn the_fate_of_a_commit_that_is_on_its_way_for_too_long_stays_unknown() {
    let line = Line::new(|builder| builder.verify_commits(true).connection_timeout(IN_FLIGHT / 4));
    line.proxy.cut(Cut::Late(IN_FLIGHT));
    let answer = line.registry.transaction(|session| insert(session, "row"));
    assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while line.stored().is_empty() {
        assert!(Instant::now() < deadline, "the COMMIT never arrived");
        std::thread::yield_now();
    }
}

#[test]
fn the_deadline_of_the_unit_bounds_the_question_what_became_of_its_commit() {
    let line = Line::new(|builder| builder.verify_commits(true));
    line.proxy.cut(Cut::Late(2 * IN_FLIGHT));
    let options = TransactionOptions::new().timeout(IN_FLIGHT);
    let answer = line.registry.transaction_with(options, |session| insert(session, "row"));
    assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
}

/// What the server tells about itself, to know it by.
fn identity(database: &Database) -> String {
    let ask = if database.url.starts_with("postgres") {
        "SELECT system_identifier || '/' || timeline_id FROM pg_control_system(), pg_control_checkpoint()"
    } else {
        "SELECT concat(@@hostname, '/', @@port, '/', @@server_id)"
    };
    let mut eye = Conn::establish(&database.url).unwrap();
    diesel::dsl::sql::<diesel::sql_types::Text>(ask).get_result(&mut eye).unwrap()
}

/// As after a failover.
#[test]
fn another_server_is_not_asked_about_a_commit() {
    let line = Line::new(|builder| builder.verify_commits(true).connection_timeout(Duration::from_secs(5)));
    let own = identity(&line.database);
    let mut other = own.clone();
    let last = other.pop().unwrap();
    other.push(if last == '1' { '2' } else { '1' });
    for cut in [Cut::Before, Cut::After] {
        let session = line.registry.current().unwrap();
        insert(&session, "row").unwrap();
        line.proxy.cut(cut);
        // Before it is asked anew.
        line.proxy.forge(&own, &other);
        let answer = session.commit();
        assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
        line.proxy.forge(&other, &own);
        line.registry.remove();
        line.clear();
    }
    assert_eq!(line.proxy.cuts(), 2);
}

#[test]
fn a_server_that_stays_away_leaves_the_commit_unknown() {
    let database = super::database();
    drop(database.registry());
    let faults = FaultPlan::new();
    let engine = database
        .builder()
        .verify_commits(true)
        .connection_timeout(Duration::from_millis(300))
        .faults(&faults)
        .build()
        .unwrap();
    let session = Session::new(&engine);
    insert(&session, "row").unwrap();
    faults.on(diesel_session::testing::Call::Commit, diesel_session::testing::Fault::CloseAfter);
    for n in 1..100 {
        faults.on_nth(diesel_session::testing::Call::Connect, n, diesel_session::testing::Fault::Unknown);
    }
    let answer = session.commit();
    assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
}
