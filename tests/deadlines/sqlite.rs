//! What SQLite can't keep, and what only SQLite has: the write gate, and other processes' locks.

use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel_session::{Engine, Error, ErrorClass, TransactionOptions};

use super::db::{Conn, Database, Registry, Session, insert};

const SHORT: Duration = Duration::from_millis(300);
const BOUND: Duration = Duration::from_secs(4);

#[track_caller]
fn is_refused<T>(result: Result<T, Error>) {
    let Err(error @ Error::Configuration(_)) = result else { panic!("not refused") };
    assert!(error.to_string().contains("SQLite"), "{error}");
}

#[test]
fn a_statement_time_out_is_refused() {
    let options = TransactionOptions::new().statement_timeout(SHORT);
    let database = Database::new();
    let registry = database.registry();
    is_refused(Session::new(registry.engine()).begin_with(options));
    is_refused(Session::with_options(registry.engine(), options));
    is_refused(registry.current_with(options));
    is_refused(registry.configure(|session| session.transaction(options)));
    is_refused(registry.transaction_with(options, |_| Ok::<_, Error>(())));
    is_refused(registry.request(options, |_| Ok::<_, Error>(())));
    registry.enter(|| is_refused(Session::current_with(options)));
}

#[test]
fn a_time_out_for_idle_transactions_is_refused() {
    is_refused(Engine::<Conn>::builder(":memory:").idle_in_transaction_timeout(SHORT).build());
    let database = Database::new();
    is_refused(database.builder().idle_in_transaction_timeout(SHORT).build());
}

#[test]
fn a_deadline_bounds_the_wait_for_the_gate() {
    let database = Database::new();
    let registry = database.registry();
    let (held, is_held) = std::sync::mpsc::channel();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let other = registry.clone();
    let holder = std::thread::spawn(move || {
        other.transaction(|session| {
            insert(session, "holder")?;
            held.send(()).unwrap();
            let _ = is_over.recv();
            Ok::<_, Error>(())
        })
    });
    is_held.recv().unwrap();
    let started = Instant::now();
    let options = TransactionOptions::new().timeout(SHORT);
    let error = registry.transaction_with(options, |session| insert(session, "waits")).unwrap_err();
    assert!(matches!(error, Error::GateTimeout { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(started.elapsed() >= SHORT && started.elapsed() < BOUND);
    drop(over);
    holder.join().unwrap().unwrap();
}

/// As another process would, which knows nothing of the gate.
fn with_a_foreign_lock(database: &Database, f: impl FnOnce()) {
    let mut foreign = Conn::establish(&database.url).unwrap();
    foreign.batch_execute("BEGIN IMMEDIATE").unwrap();
    f();
    foreign.batch_execute("ROLLBACK").unwrap();
}

fn waits(registry: &Registry, options: TransactionOptions) -> Duration {
    let started = Instant::now();
    let error = registry.transaction_with(options, |session| insert(session, "waits")).unwrap_err();
    assert!(error.to_string().contains("database is locked"), "{error}");
    started.elapsed()
}

#[test]
fn a_deadline_bounds_the_wait_for_another_process() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.busy_timeout(Duration::from_secs(30)));
    with_a_foreign_lock(&database, || {
        for options in [TransactionOptions::new().timeout(SHORT), TransactionOptions::new().lock_timeout(SHORT)] {
            let waited = waits(&registry, options);
            assert!(waited >= SHORT / 2 && waited < BOUND, "{waited:?}");
        }
    });
    registry.transaction(|session| insert(session, "free")).unwrap();
}
