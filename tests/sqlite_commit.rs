//! With a rollback journal COMMIT waits for readers; a COMMIT that met one is sent again, the work is not done again.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_session::{Engine, Error, JournalMode, ScopedSession, TransactionOptions};

type Registry = ScopedSession<SqliteConnection>;

static COMMITS: AtomicUsize = AtomicUsize::new(0);

struct CountCommits;

impl Instrumentation for CountCommits {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event
            && query.to_string().starts_with("COMMIT")
        {
            COMMITS.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn registry(url: &str, busy_timeout: Duration) -> Registry {
    let engine = Engine::<SqliteConnection>::builder(url)
        .journal_mode(JournalMode::Delete)
        .busy_timeout(busy_timeout)
        .instrumentation(|| Box::new(CountCommits))
        .build()
        .unwrap();
    let registry = Registry::new(engine);
    registry.transaction(|session| session.batch_execute("CREATE TABLE t (n INTEGER NOT NULL)")).unwrap();
    registry
}

fn count(conn: &mut SqliteConnection) -> i64 {
    diesel::dsl::sql::<BigInt>("SELECT count(*) FROM t").get_result(conn).unwrap()
}

/// A reader whose lock the next COMMIT meets.
fn reader(url: &str) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(url).unwrap();
    conn.batch_execute("BEGIN; SELECT count(*) FROM t").unwrap();
    assert_eq!(count(&mut conn), 0);
    conn
}

#[test]
fn a_commit_that_meets_a_reader_is_sent_again_and_the_work_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("test.db").to_str().unwrap().to_owned();

    // A reader that goes.
    let patient = registry(&url, Duration::from_secs(60));
    let mut reading = reader(&url);
    COMMITS.store(0, Ordering::SeqCst);
    let leaving = std::thread::spawn(move || {
        while COMMITS.load(Ordering::SeqCst) < 5 {
            std::thread::yield_now();
        }
        reading.batch_execute("COMMIT").unwrap();
        reading
    });
    let mut runs = 0;
    patient
        .transaction(|session| {
            runs += 1;
            // SQLite's own patience ends at once.
            session.batch_execute("PRAGMA busy_timeout = 0; INSERT INTO t VALUES (1)")
        })
        .unwrap();
    assert_eq!(runs, 1);
    let mut conn = leaving.join().unwrap();
    assert_eq!(count(&mut conn), 1);
    conn.batch_execute("DELETE FROM t").unwrap();
    drop(conn);

    // A reader that stays: the busy time-out bounds it, SQLite's own waiting and ours together.
    let hasty = registry_at(&url, Duration::from_millis(600));
    let staying = reader(&url);
    let started = Instant::now();
    let refused = hasty.transaction(|session| session.batch_execute("INSERT INTO t VALUES (2)")).unwrap_err();
    let waited = started.elapsed();
    assert!(matches!(refused, Error::RolledBack { .. }), "{refused}");
    assert!(refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("database is locked"), "{refused}");
    assert!(waited >= Duration::from_millis(590) && waited < Duration::from_millis(1100), "{waited:?}");

    // So does the deadline of the unit of work.
    let started = Instant::now();
    let options = TransactionOptions::new().timeout(Duration::from_millis(100));
    let refused = patient.transaction_with(options, |session| session.batch_execute("INSERT INTO t VALUES (3)"));
    assert!(refused.is_err());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());

    drop(staying);
    hasty.transaction(|session| session.batch_execute("INSERT INTO t VALUES (4)")).unwrap();
    assert_eq!(count(&mut SqliteConnection::establish(&url).unwrap()), 1);
}

/// A second engine on a database that has the table.
fn registry_at(url: &str, busy_timeout: Duration) -> Registry {
    let builder = Engine::<SqliteConnection>::builder(url).journal_mode(JournalMode::Delete);
    Registry::new(builder.busy_timeout(busy_timeout).build().unwrap())
}
