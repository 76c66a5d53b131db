//! A process that is killed while it writes to a SQLite file: what it acknowledged is there, what it refused is not. And
//! a file that has no room left: no commit says `Ok` unless every row is there.
//!
//! 25 rounds; 500 with `DIESEL_SESSION_LONG=1`.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Engine, Error, JournalMode, StatementErrors};

use bank::{Answer, Audit, TOTAL};
use db::{Conn, Registry, Session};
use killed::{check_integrity, killed_child};
use support::sqlite_file::Database;

#[path = "support/bank.rs"]
mod bank;
#[path = "support/killed.rs"]
mod killed;
#[path = "support/mod.rs"]
mod support;

mod db {
    pub(crate) use crate::support::sqlite_file::{Conn, Registry, Session};
    pub(crate) const CREATE_JOBS: &str = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, number BIGINT NOT NULL)";
}

const ROUND: i64 = 1_000_000;
const CHILD_THREADS: usize = 2;

/// What the process to be killed runs, for ever. In the process that runs the tests it has nothing to do.
#[test]
fn child_process() {
    let Some((file, first)) = killed::orders() else { return };
    let next = AtomicI64::new(first);
    let registry = Registry::new(Engine::<Conn>::new(file).unwrap());
    std::thread::scope(|threads| {
        for _ in 0..CHILD_THREADS {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let (answer, error) = bank::work(&registry, number);
                    assert!(matches!(answer, Answer::Stored | Answer::Refused), "{error:?}");
                    killed::say(answer, number);
                }
            });
        }
    });
}

#[test]
fn what_a_killed_process_acknowledged_is_stored_once_and_what_it_refused_is_not() {
    let rounds = if bank::long() { 500 } else { 25 };
    let database = Database::new();
    bank::create(&Registry::new(database.builder().build().unwrap()));
    let mut answers = Vec::new();
    let mut interrupted = 0;
    for round in 1..=rounds {
        let of_this_round = killed_child("child_process", &database.url, round * ROUND, Duration::from_millis(100));
        interrupted += usize::from(!of_this_round.is_empty());
        let from = answers.len();
        answers.extend(of_this_round);
        // Now this process, now the next child is the first to find what was left behind.
        if round % 2 == 0 || round == rounds {
            let registry = Registry::new(database.builder().build().unwrap());
            let session = Session::new(registry.engine());
            check_integrity(&session);
            assert_eq!(bank::total(&session).unwrap(), TOTAL, "round {round}");
            let stored = bank::stored(&session, round * ROUND).unwrap();
            Audit::new(&stored, &answers[from..]).check();
            session.commit().unwrap();
        }
    }
    let registry = Registry::new(database.builder().build().unwrap());
    let session = Session::new(registry.engine());
    let audit = Audit::new(&bank::stored(&session, 0).unwrap(), &answers);
    println!("SQLite, {rounds} processes killed, {interrupted} of them at work: {audit}");
    audit.check();
    assert!(interrupted > 0, "no process was killed at work: the test tests nothing");
    session.commit().unwrap();
}

diesel::table! {
    blobs (id) {
        id -> BigInt,
        unit -> Integer,
        content -> Binary,
    }
}

const CREATE_BLOBS: &str =
    "CREATE TABLE IF NOT EXISTS blobs (id INTEGER PRIMARY KEY, unit INTEGER NOT NULL, content BLOB NOT NULL)";
/// More than a page.
const BLOB: usize = 6000;

fn insert_blob(session: &Session, unit: i32) -> Result<usize, Error> {
    insert_blobs(session, unit, 1)
}

/// So many rows by one statement.
fn insert_blobs(session: &Session, unit: i32, rows: usize) -> Result<usize, Error> {
    let row = || (blobs::unit.eq(unit), blobs::content.eq(vec![7; BLOB]));
    session.execute(diesel::insert_into(blobs::table).values((0..rows).map(|_| row()).collect::<Vec<_>>()))
}

fn blobs_of(session: &Session, unit: i32) -> i64 {
    session.get_result(blobs::table.filter(blobs::unit.eq(unit)).count()).unwrap()
}

/// What a transaction was told that went on after a row had found no room.
struct Told {
    inserted: i64,
    failures: usize,
    committed: bool,
}

/// Inserts until a statement fails and goes on regardless, as code does that swallows errors.
fn insert_regardless(registry: &Registry, unit: i32, rows: usize) -> Told {
    let mut told = Told { inserted: 0, failures: 0, committed: false };
    let result = registry.transaction(|session| {
        while told.failures < 3 {
            match insert_blobs(session, unit, rows) {
                Ok(inserted) => told.inserted += i64::try_from(inserted).unwrap(),
                Err(error) => {
                    if told.failures == 0 {
                        let message = error.to_string();
                        assert!(message.contains("is full") || message.contains("I/O error"), "{message}");
                    }
                    told.failures += 1;
                }
            }
            assert!(told.inserted < 10_000, "the file never was full");
        }
        Ok::<_, Error>(())
    });
    told.committed = result.is_ok();
    told
}

/// A commit that says `Ok` has stored every row that was accepted; any other nothing; the next one can work.
fn check_told(registry: &Registry, unit: i32, told: &Told) {
    let session = Session::new(registry.engine());
    let there = blobs_of(&session, unit);
    assert_eq!(there, if told.committed { told.inserted } else { 0 }, "committed: {}", told.committed);
    check_integrity(&session);
    session.rollback().unwrap();
    assert!(registry.engine().connections_in_use().is_empty() && registry.engine().write_gate().is_empty());
    registry.transaction(|session| session.execute(diesel::delete(blobs::table))).unwrap();
    registry.transaction(|session| insert_blob(session, -unit)).unwrap();
    assert_eq!(registry.read(|session| Ok::<_, Error>(blobs_of(session, -unit))).unwrap(), 1);
}

#[test]
fn a_transaction_that_finds_the_file_full_is_stored_whole_or_not_at_all() {
    let (mut committed, mut rolled_back) = (0, 0);
    for journal_mode in [JournalMode::Wal, JournalMode::Delete] {
        // With a small cache pages go to the file before the commit.
        for cache in [2, 2000] {
            // Where one row finds no room SQLite ends the transaction; of a statement with more rows it undoes the
            // statement and goes on (SQLite docs, "Response To Errors Within A Transaction"; seen with 3.53).
            for rows in [1, 2] {
                for errors in [StatementErrors::Portable, StatementErrors::Native] {
                    let database = Database::new();
                    let builder = database.builder().journal_mode(journal_mode).statement_errors(errors);
                    let settings = format!("PRAGMA max_page_count = 60; PRAGMA cache_size = {cache}");
                    let engine = builder.setup(move |conn| conn.batch_execute(&settings)).build().unwrap();
                    let registry = Registry::new(engine);
                    registry.transaction(|session| session.batch_execute(CREATE_BLOBS)).unwrap();
                    let told = insert_regardless(&registry, 1, rows);
                    assert!(told.inserted > 3);
                    assert!(errors == StatementErrors::Native || !told.committed, "a failed transaction said `Ok`");
                    check_told(&registry, 1, &told);
                    committed += usize::from(told.committed);
                    rolled_back += usize::from(!told.committed && errors == StatementErrors::Native);
                }
            }
        }
    }
    println!("SQLite full, errors as the database's own: {committed} committed, {rolled_back} rolled back");
    assert!(committed > 0 && rolled_back > 0, "only one of the two was seen: {committed}, {rolled_back}");
}

#[test]
fn a_savepoint_that_finds_the_file_full_leaves_a_transaction_that_knows_whether_it_lives() {
    for errors in [StatementErrors::Portable, StatementErrors::Native] {
        let database = Database::new();
        let builder = database.builder().statement_errors(errors);
        let engine = builder.setup(|conn| conn.batch_execute("PRAGMA max_page_count = 60")).build().unwrap();
        let registry = Registry::new(engine);
        registry.transaction(|session| session.batch_execute(CREATE_BLOBS)).unwrap();
        let committed = registry.transaction(|session| {
            insert_blob(session, 1)?;
            let tried: Result<(), Error> = session.nested(|session| {
                loop {
                    insert_blob(session, 1)?;
                }
            });
            assert!(tried.is_err());
            insert_blob(session, 1)
        });
        let told = Told { inserted: 2, failures: 1, committed: committed.is_ok() };
        check_told(&registry, 1, &told);
    }
}

const LIMITED: &str = "CRASH_CHILD_LIMITED_FILE";

/// What a process runs that may not write files beyond a size. It reports by its exit status.
#[test]
fn limited_child_process() {
    let Ok(file) = std::env::var(LIMITED) else { return };
    for (unit, journal_mode, cache, errors) in [
        (1, JournalMode::Wal, 2, StatementErrors::Portable),
        (2, JournalMode::Wal, 2000, StatementErrors::Portable),
        (3, JournalMode::Wal, 2, StatementErrors::Native),
        (4, JournalMode::Delete, 2, StatementErrors::Portable),
        (5, JournalMode::Delete, 2, StatementErrors::Native),
        (6, JournalMode::Delete, 2000, StatementErrors::Native),
    ] {
        let file = format!("{file}.{unit}");
        let builder = Engine::<Conn>::builder(file).journal_mode(journal_mode).statement_errors(errors);
        let setup = format!("PRAGMA cache_size = {cache}; PRAGMA wal_autocheckpoint = 1");
        let registry = Registry::new(builder.setup(move |conn| conn.batch_execute(&setup)).build().unwrap());
        registry.transaction(|session| session.batch_execute(CREATE_BLOBS)).unwrap();
        // More than may be written; how far it comes depends on the cache.
        let mut told = Told { inserted: 0, failures: 0, committed: false };
        let result = registry.transaction(|session| {
            for _ in 0..100 {
                match insert_blob(session, unit) {
                    Ok(_) => told.inserted += 1,
                    Err(_) => told.failures += 1,
                }
            }
            Ok::<_, Error>(())
        });
        told.committed = result.is_ok();
        let said = format!("{journal_mode:?}, cache {cache}, {errors:?}: {} failures, {result:?}\n", told.failures);
        std::io::stdout().write_all(said.as_bytes()).unwrap();
        assert!(!told.committed || told.failures > 0, "it was never refused room");
        check_told(&registry, unit, &told);
    }
}

#[test]
fn a_transaction_whose_writes_the_system_refuses_is_stored_whole_or_not_at_all() {
    let database = Database::new();
    // In blocks of 512 bytes. Without the trap the signal that comes with the refusal would end the process.
    let script = r#"trap "" XFSZ; ulimit -f 600; exec "$0" --exact limited_child_process --nocapture"#;
    let child = Command::new("sh")
        .args(["-c", script, std::env::current_exe().unwrap().to_str().unwrap()])
        .env(LIMITED, &database.url)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    println!("{said}");
    assert!(child.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}
