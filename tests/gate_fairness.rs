//! The write gate under load: nobody starves, and readers don't pay for it. Measured, so one test at a time; each is
//! given three chances, because a machine that is busy with something else says nothing about the gate.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Error, ScopedSession, Synchronous};

type Registry = ScopedSession<SqliteConnection>;

diesel::table! {
    counters (id) {
        id -> Integer,
        n -> Integer,
    }
}

const THREADS: usize = 8;

static ALONE: Mutex<()> = Mutex::new(());

fn registry(folder: &tempfile::TempDir) -> (Registry, String) {
    let file = folder.path().join("test.db").to_str().unwrap().to_owned();
    // How long the disk takes to sync is not what is measured here.
    let builder = Engine::<SqliteConnection>::builder(file.clone()).max_size(THREADS).synchronous(Synchronous::Normal);
    let engine = builder.build().unwrap();
    let registry = Registry::new(engine);
    registry
        .transaction(|session| {
            session.batch_execute("CREATE TABLE counters (id INTEGER PRIMARY KEY NOT NULL, n INTEGER NOT NULL)")?;
            for id in 0..10_000 {
                session
                    .execute(diesel::insert_into(counters::table).values((counters::id.eq(id), counters::n.eq(0))))?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
    (registry, file)
}

/// Tries three times; the last failure counts.
fn one_of_three(mut attempt: impl FnMut() -> Result<(), String>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failures = Vec::new();
    for _ in 0..3 {
        match attempt() {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("{}", failures.join("\n"));
}

#[test]
fn eight_threads_that_read_and_write_one_file_all_get_their_turn() {
    one_of_three(|| {
        let folder = tempfile::tempdir().unwrap();
        let (registry, _) = registry(&folder);
        let (start, stop) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
        let served: Vec<(i32, Duration)> = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (registry, start, stop) = (&registry, &start, &stop);
                    threads.spawn(move || {
                        let id = i32::try_from(thread).unwrap();
                        let (mut served, mut worst) = (0, Duration::ZERO);
                        start.wait();
                        while !stop.load(Ordering::Relaxed) {
                            registry
                                .transaction(|session| {
                                    let asked = Instant::now();
                                    let n: i32 = session.get_result(counters::table.find(id).select(counters::n))?;
                                    worst = worst.max(asked.elapsed());
                                    session.execute(diesel::update(counters::table.find(id)).set(counters::n.eq(n + 1)))
                                })
                                .expect("no busy error, no time-out");
                            served += 1;
                        }
                        (served, worst)
                    })
                })
                .collect();
            start.wait();
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(3) {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let stored: Vec<i32> = registry
            .read(|session| {
                session.load(counters::table.filter(counters::n.gt(0)).select(counters::n).order(counters::id))
            })
            .unwrap();
        assert_eq!(stored, served.iter().map(|(served, _)| *served).collect::<Vec<_>>(), "an update was lost");
        let worst = served.iter().map(|(_, worst)| *worst).max().unwrap();
        let least = stored.iter().min().unwrap() * i32::try_from(THREADS).unwrap() * 2;

        if worst < Duration::from_millis(100) && least >= stored.iter().sum() {
            Ok(())
        } else {
            Err(format!("worst wait {worst:?}, served {stored:?}"))
        }
    });
}

/// How often `THREADS` threads get through `work` in `time`.
fn rounds(time: Duration, work: &(dyn Fn(usize, &AtomicBool) -> u64 + Sync)) -> u64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let stop = &stop;
                threads.spawn(move || work(thread, stop))
            })
            .collect();
        let started = Instant::now();
        while started.elapsed() < time {
            std::thread::park_timeout(time.saturating_sub(started.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn eight_reading_sessions_keep_up_with_plain_begin_on_bare_connections() {
    one_of_three(|| {
        let folder = tempfile::tempdir().unwrap();
        let (registry, file) = registry(&folder);
        let bare: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut conn = SqliteConnection::establish(&file).unwrap();
                conn.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
                Mutex::new(conn)
            })
            .collect();
        // Enough for SQLite to do that a build without optimisation says something about the gate.
        let query = || counters::table.select(diesel::dsl::sum(counters::n));
        let check = |sum: Option<i64>| assert_eq!(sum, Some(0));
        let through_bare = |thread: usize, stop: &AtomicBool| {
            let mut conn = bare[thread].lock().unwrap();
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                conn.batch_execute("BEGIN").unwrap();
                check(query().get_result(&mut *conn).unwrap());
                conn.batch_execute("COMMIT").unwrap();
                rounds += 1;
            }
            rounds
        };
        let through_sessions = |_: usize, stop: &AtomicBool| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                registry.read(|session| session.get_result(query()).map(check)).unwrap();
                rounds += 1;
            }
            rounds
        };
        let slice = Duration::from_millis(250);
        rounds(slice, &through_bare);
        rounds(slice, &through_sessions);
        let (mut plain, mut sessions) = (0, 0);
        for _ in 0..4 {
            plain += rounds(slice, &through_bare);
            sessions += rounds(slice, &through_sessions);
        }
        if sessions * 10 >= plain * 8 { Ok(()) } else { Err(format!("{sessions} against {plain}")) }
    });
}
