//! Run on databases that are servers.

use std::time::{Duration, Instant};

use diesel_session::{Error, ErrorClass, Session, SessionState, TransactionOptions};

use super::db::{Database, NAME, insert, stored, texts};
use super::settings::{SLEEP, limits};

const SHORT: Duration = Duration::from_millis(300);
/// Row locks on MariaDB time out in whole seconds.
const BOUND: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_secs(1);

#[test]
fn a_running_statement_is_stopped() {
    let database = Database::new();
    let registry = database.registry();
    for options in [TransactionOptions::new().timeout(SHORT), TransactionOptions::new().statement_timeout(SHORT)] {
        let started = Instant::now();
        let result = registry.transaction_with(options, |session| session.batch_execute(SLEEP));
        assert!(started.elapsed() < BOUND, "{NAME}: {:?}", started.elapsed());
        assert!(matches!(result, Err(Error::Statement(_))), "{NAME}: {result:?}");
    }
}

#[test]
fn the_wait_for_a_row_is_bounded() {
    let database = Database::new();
    let registry = database.registry();
    registry.transaction(|session| insert(session, "row")).unwrap();
    let holder = Session::new(registry.engine());
    holder.execute(update()).unwrap();
    for options in [TransactionOptions::new().timeout(SHORT), TransactionOptions::new().lock_timeout(SHORT)] {
        let started = Instant::now();
        let result = registry.transaction_with(options, |session| session.execute(update()));
        assert!(started.elapsed() < BOUND, "{NAME}: {:?}", started.elapsed());
        assert!(matches!(result, Err(Error::Statement(_))), "{NAME}: {result:?}");
    }
    holder.commit().unwrap();
}

fn update() -> impl diesel::RunQueryDsl<super::db::Conn>
+ diesel::query_dsl::methods::ExecuteDsl<super::db::Conn>
+ diesel::query_builder::QueryFragment<<super::db::Conn as diesel::Connection>::Backend>
+ diesel::query_builder::QueryId {
    use crate::support::notes;
    use diesel::prelude::*;
    diesel::update(notes::table.filter(notes::text.eq("row"))).set(notes::n.eq(notes::n + 1))
}

#[test]
fn statement_and_lock_time_outs_are_told_as_asked() {
    let database = Database::new();
    let registry = database.registry();
    let options = TransactionOptions::new()
        .statement_timeout(Duration::from_secs(7))
        .lock_timeout(Duration::from_secs(3))
        .timeout(Duration::from_secs(60));
    let told = registry.transaction_with(options, |session| Ok::<_, Error>(limits(session))).unwrap();
    assert_eq!(told, [7000, 3000], "{NAME}");
}

#[test]
fn limits_too_long_for_the_server_are_told_as_its_longest() {
    let database = Database::new();
    let registry = database.registry();
    let forever = Duration::from_secs(1000 * 365 * 24 * 3600);
    let options = TransactionOptions::new().statement_timeout(forever).lock_timeout(forever).timeout(forever);
    let told = registry.transaction_with(options, |session| Ok::<_, Error>(limits(session))).unwrap();
    assert!(told.iter().all(|limit| *limit > 1_000_000_000), "{NAME}: {told:?}");
}

#[test]
fn the_server_ends_a_transaction_that_lies_idle() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1).idle_in_transaction_timeout(IDLE));
    let cut = |session: &Session<super::db::Conn>, text: &str| {
        insert(session, text).unwrap();
        let started = Instant::now();
        while database.connections() > 0 {
            assert!(started.elapsed() < Duration::from_secs(20), "{NAME}: not ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        let error = insert(session, "after the end").unwrap_err();
        assert_eq!(error.class(), ErrorClass::Connection, "{NAME}: {error}");
        assert_eq!(session.state(), SessionState::Lost);
        session.rollback().unwrap();
    };
    let session = Session::new(registry.engine());
    cut(&session, "idle");
    insert(&session, "next").unwrap();
    session.commit().unwrap();
    // Raw use, after which settings are put back, leaves it in force.
    session.batch_execute("SELECT 1").unwrap();
    session.commit().unwrap();
    assert_eq!(texts(&session), ["next"]);
    session.commit().unwrap();
    cut(&session, "idle again");
    assert_eq!(stored(&registry), ["next"]);
}
