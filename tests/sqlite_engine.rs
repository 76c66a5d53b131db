//! What the engine promises about SQLite alone: its settings, its files and its databases in memory.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, EngineBuilder, Error, JournalMode, ScopedSession, Strategy, Synchronous, read_only};

type Session = diesel_session::Session<SqliteConnection>;
type Registry = ScopedSession<SqliteConnection>;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    value: String,
}

fn setting(session: &Session, pragma: &str) -> i64 {
    let column = if pragma == "busy_timeout" { "timeout" } else { pragma };
    let query = diesel::sql_query(format!("SELECT {column} AS value FROM pragma_{pragma}"));
    session.get_result::<Setting>(query).unwrap().value
}

fn journal_mode(session: &Session) -> String {
    session
        .get_result::<Name>(diesel::sql_query("SELECT journal_mode AS value FROM pragma_journal_mode"))
        .unwrap()
        .value
}

fn builder(file: &Path) -> EngineBuilder<SqliteConnection> {
    Engine::builder(file.to_str().unwrap())
}

/// `journal_mode`, `synchronous`, `busy_timeout`, `foreign_keys` of `n` connections that are open at once.
fn settings_of_all(engine: &Engine<SqliteConnection>, n: usize) -> Vec<(String, i64, i64, i64)> {
    let open = Barrier::new(n);
    std::thread::scope(|threads| {
        let threads: Vec<_> = (0..n)
            .map(|_| {
                threads.spawn(|| {
                    let session = Session::with_options(engine, read_only()).unwrap();
                    session.batch_execute("SELECT 1").unwrap();
                    open.wait();
                    let found = (
                        journal_mode(&session),
                        setting(&session, "synchronous"),
                        setting(&session, "busy_timeout"),
                        setting(&session, "foreign_keys"),
                    );
                    session.commit().unwrap();
                    found
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_connection_has_the_durable_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::None] {
        let engine = builder(&file).max_size(4).strategy(strategy).build().unwrap();
        for found in settings_of_all(&engine, 4) {
            assert_eq!(found, ("wal".to_owned(), 2, 5_000, 1), "{strategy:?}");
        }
    }
}

#[test]
fn every_connection_has_the_settings_that_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let engine = builder(&folder.path().join("test.db"))
        .max_size(4)
        .journal_mode(JournalMode::Truncate)
        .synchronous(Synchronous::Extra)
        .busy_timeout(Duration::from_millis(1234))
        .foreign_keys(false)
        .build()
        .unwrap();
    for found in settings_of_all(&engine, 4) {
        assert_eq!(found, ("truncate".to_owned(), 3, 1234, 0));
    }
    let engine = builder(&folder.path().join("longest.db")).busy_timeout(Duration::MAX).build().unwrap();
    let found = settings_of_all(&engine, 1);
    assert!(found[0].2 > 1_000_000, "a time-out without end became {} ms", found[0].2);
}

#[test]
fn what_one_user_does_to_a_connection_never_reaches_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let engine = builder(&folder.path().join("test.db")).max_size(1).build().unwrap();
    let registry = Registry::new(engine.clone());
    registry.transaction(|session| session.batch_execute("CREATE TABLE notes (text TEXT NOT NULL)")).unwrap();
    let untouched = settings_of_all(&engine, 1);
    registry
        .transaction(|session| {
            session.batch_execute("PRAGMA busy_timeout = 1; PRAGMA query_only = 1")?;
            session.with_connection(|conn| conn.batch_execute("PRAGMA query_only = 1"))
        })
        .unwrap();
    let session = Session::with_options(&engine, diesel_session::autocommit()).unwrap();
    session.batch_execute("PRAGMA foreign_keys = 0; PRAGMA synchronous = OFF; PRAGMA query_only = 1").unwrap();
    assert_eq!(settings_of_all(&engine, 1), untouched);
    // A reader's connection, then a writer's, then a reader's again: each has what it asked for.
    for _ in 0..3 {
        registry
            .read(|session| {
                session.batch_execute("SELECT count(*) FROM notes")?;
                let refused = session.batch_execute("INSERT INTO notes VALUES ('by a reader')");
                assert!(refused.is_err());
                Ok::<_, Error>(())
            })
            .unwrap_err();
        registry.transaction(|session| session.batch_execute("INSERT INTO notes VALUES ('a')")).unwrap();
    }
    let count: i64 =
        Session::new(&engine).get_result(diesel::dsl::sql::<BigInt>("SELECT count(*) FROM notes")).unwrap();
    assert_eq!(count, 3);
}

#[test]
fn a_file_that_cannot_be_written_can_be_read_and_says_so_to_writers() {
    for mode in [JournalMode::Wal, JournalMode::Delete] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.db");
        let writable = builder(&file).journal_mode(mode).build().unwrap();
        let session = Session::new(&writable);
        session.batch_execute("CREATE TABLE notes (text TEXT NOT NULL); INSERT INTO notes VALUES ('a')").unwrap();
        session.commit().unwrap();
        drop((session, writable));
        let engine = Engine::<SqliteConnection>::new(format!("file:{}?mode=ro", file.display())).unwrap();
        let registry = Registry::new(engine);
        let count = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM notes");
        assert_eq!(registry.read(|session| session.get_result::<i64>(count)).unwrap(), 1);
        let error =
            registry.transaction(|session| session.batch_execute("INSERT INTO notes VALUES ('b')")).unwrap_err();
        assert!(error.to_string().contains("readonly"), "{error}");
        assert!(!error.is_retryable());
        assert!(registry.engine().write_gate().is_empty() && registry.engine().connections_in_use().is_empty());
        // The error of the writer leaves the readers alone.
        let count = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM notes");
        assert_eq!(registry.read(|session| session.get_result::<i64>(count)).unwrap(), 1);
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing").join("test.db");
    match builder(&file).build() {
        Err(Error::Connect { url, .. }) => assert_eq!(url, file.to_str().unwrap()),
        other => panic!("{other:?}"),
    }
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is no database, it is a text that is longer than the header of one, or so one hopes")
        .unwrap();
    assert!(matches!(builder(&text).build(), Err(Error::Connect { .. })));
}

#[test]
fn urls_that_would_surprise_are_refused() {
    for url in ["file::memory:?cache=shared", "file:name?mode=memory&cache=shared", "sqlite::memory:"] {
        let refused = Engine::<SqliteConnection>::new(url);
        assert!(matches!(refused, Err(Error::Configuration(_))), "{url}: {refused:?}");
    }
}

#[test]
fn every_way_to_write_memory_gives_one_database_to_all_threads() {
    for url in [":memory:", "", "file::memory:"] {
        for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::Single, Strategy::None] {
            let engine = Engine::<SqliteConnection>::builder(url).max_size(4).strategy(strategy).build().unwrap();
            let registry = Registry::new(engine);
            registry
                .transaction(|session| session.batch_execute("CREATE TABLE counters (n INTEGER NOT NULL)"))
                .unwrap();
            let start = Arc::new(Barrier::new(64));
            let threads: Vec<_> = (0..64)
                .map(|n| {
                    let (registry, start) = (registry.clone(), Arc::clone(&start));
                    std::thread::spawn(move || -> Result<(), Error> {
                        start.wait();
                        for _ in 0..3 {
                            registry.transaction(|session| {
                                session.batch_execute(&format!("INSERT INTO counters VALUES ({n})"))
                            })?;
                            let own = format!("SELECT count(*) FROM counters WHERE n = {n}");
                            registry.read(|session| session.get_result::<i64>(diesel::dsl::sql::<BigInt>(&own)))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
            let count = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM counters");
            let count = registry.read(|session| session.get_result::<i64>(count)).unwrap();
            assert_eq!(count, 64 * 3, "{url} {strategy:?}");
        }
    }
}

#[test]
fn data_in_memory_lives_as_long_as_the_engine_and_no_longer() {
    let engine = Engine::<SqliteConnection>::builder(":memory:")
        .max_size(2)
        .strategy(Strategy::None)
        .max_lifetime(Some(Duration::from_nanos(1)))
        .build()
        .unwrap();
    let session = Session::new(&engine);
    session.batch_execute("CREATE TABLE notes (text TEXT NOT NULL)").unwrap();
    session.commit().unwrap();
    assert_eq!(engine.idle(), 0, "no connection of the pool is left");
    session.batch_execute("INSERT INTO notes VALUES ('a')").unwrap();
    session.invalidate().unwrap();
    session.batch_execute("INSERT INTO notes VALUES ('b')").unwrap();
    session.commit().unwrap();
    let other = Engine::<SqliteConnection>::new(":memory:").unwrap();
    assert!(Session::new(&other).batch_execute("SELECT * FROM notes").is_err(), "two engines share one database");
    let count = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM notes");
    assert_eq!(session.get_result::<i64>(count).unwrap(), 1);
    session.commit().unwrap();
}
