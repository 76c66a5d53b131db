//! Many threads on one SQLite file, and many rolled-back savepoints in one transaction.
//!
//! `cargo bench --bench contention`: eight threads read a row and add one to it for three seconds, through bare Diesel
//! (BEGIN IMMEDIATE, SQLite's busy time-out) and through sessions (the write gate). The sum of the rows is checked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::process::ExitCode;

#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(not(feature = "sqlite"))]
fn main() -> ExitCode {
    println!("this benchmark needs the feature `sqlite`");
    ExitCode::SUCCESS
}

#[cfg(feature = "sqlite")]
fn main() -> ExitCode {
    let added_up = sqlite::threads();
    sqlite::savepoints();
    if added_up {
        ExitCode::SUCCESS
    } else {
        println!("the rows do not hold what the threads wrote");
        ExitCode::FAILURE
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;
    use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error as PoolError, Pool};
    use diesel_session::{Error, Synchronous};

    use crate::support::notes;
    use crate::support::sqlite_file::{Conn, Database, Registry, insert};

    const THREADS: usize = 8;
    const FOR: Duration = Duration::from_secs(3);
    const SAVEPOINTS: usize = 10_000;
    const SHOWN: usize = 2_000;

    #[derive(Debug)]
    struct SetUp(&'static str);

    impl CustomizeConnection<Conn, PoolError> for SetUp {
        fn on_acquire(&self, conn: &mut Conn) -> Result<(), PoolError> {
            conn.batch_execute(&format!(
                "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = 1; PRAGMA journal_mode = WAL; PRAGMA synchronous = {}",
                self.0
            ))
            .map_err(PoolError::QueryError)
        }
    }

    /// What one thread saw.
    #[derive(Debug, Default, Clone, Copy)]
    struct Seen {
        done: u32,
        failed: u32,
        longest: Duration,
    }

    /// Lets all threads work at once.
    fn race(work: impl Fn() -> bool + Sync) -> Vec<Seen> {
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            let thread = || {
                start.wait();
                let started = Instant::now();
                let mut seen = Seen::default();
                while started.elapsed() < FOR {
                    let before = Instant::now();
                    if work() {
                        seen.done += 1;
                    } else {
                        seen.failed += 1;
                    }
                    seen.longest = seen.longest.max(before.elapsed());
                }
                seen
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(thread)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn print(name: &str, seen: &[Seen]) -> u32 {
        let done: u32 = seen.iter().map(|seen| seen.done).sum();
        let mean = f64::from(done) / f64::from(u32::try_from(THREADS).unwrap());
        let least = seen.iter().map(|seen| seen.done).min().unwrap_or_default();
        println!(
            "{name:<40} {:>8.0} {:>10.1} ms {:>10.2} {:>8}",
            f64::from(done) / FOR.as_secs_f64(),
            seen.iter().map(|seen| seen.longest).max().unwrap_or_default().as_secs_f64() * 1e3,
            f64::from(least) / mean,
            seen.iter().map(|seen| seen.failed).sum::<u32>(),
        );
        done
    }

    fn database(synchronous: &str) -> (Database, Registry, Pool<ConnectionManager<Conn>>) {
        let database = Database::new();
        let level = if synchronous == "FULL" { Synchronous::Full } else { Synchronous::Normal };
        let registry = database.registry_with(|builder| builder.synchronous(level).max_size(THREADS));
        registry.transaction(|session| insert(session, "the row")).unwrap();
        let pool = Pool::builder()
            .max_size(u32::try_from(THREADS).unwrap())
            .test_on_check_out(false)
            .connection_customizer(Box::new(SetUp(if synchronous == "FULL" { "FULL" } else { "NORMAL" })))
            .build(ConnectionManager::new(&database.url))
            .unwrap();
        (database, registry, pool)
    }

    /// Whether the row holds what the threads added.
    pub(crate) fn threads() -> bool {
        println!(
            "{THREADS} threads, one file {:>27} {:>13} {:>10} {:>8}",
            "a second", "longest", "least/mean", "failed"
        );
        let mut added_up = true;
        for synchronous in ["NORMAL", "FULL"] {
            let (_database, registry, pool) = database(synchronous);
            let bare = race(|| {
                let mut conn = pool.get().unwrap();
                conn.immediate_transaction(|conn| {
                    let n: i32 = notes::table.find(1).select(notes::n).get_result(conn)?;
                    diesel::update(notes::table.find(1)).set(notes::n.eq(n + 1)).execute(conn)
                })
                .is_ok()
            });
            let sessions = race(|| {
                registry
                    .transaction(|session| {
                        let n: i32 = session.get_result(notes::table.find(1).select(notes::n))?;
                        session.execute(diesel::update(notes::table.find(1)).set(notes::n.eq(n + 1)))?;
                        Ok::<_, Error>(())
                    })
                    .is_ok()
            });
            let done = print(&format!("bare Diesel, {synchronous}"), &bare)
                + print(&format!("sessions, {synchronous}"), &sessions);
            let stored: i32 = notes::table.find(1).select(notes::n).get_result(&mut *pool.get().unwrap()).unwrap();
            added_up &= i64::from(stored) == i64::from(done);
        }
        added_up
    }

    /// Rolls back many savepoints in one transaction: the last must cost what the first did.
    pub(crate) fn savepoints() {
        println!("{SAVEPOINTS} rolled-back savepoints {:>24} {:>16}", "first 2000", "last 2000");
        let (_database, registry, pool) = database("NORMAL");
        let times = registry
            .transaction(|session| {
                timed(|| {
                    let savepoint = session.begin_nested()?;
                    insert(session, "x")?;
                    savepoint.rollback().map(drop)
                })
            })
            .unwrap();
        print_ends("sessions", &times);
        let mut conn = pool.get().unwrap();
        let times = conn
            .immediate_transaction(|conn| {
                timed(|| {
                    let rolled_back = conn.transaction(|conn| {
                        diesel::insert_into(notes::table)
                            .values((notes::text.eq("x"), notes::n.eq(0)))
                            .execute(conn)?;
                        Err::<(), _>(diesel::result::Error::RollbackTransaction)
                    });
                    match rolled_back {
                        Err(diesel::result::Error::RollbackTransaction) => Ok(()),
                        other => other,
                    }
                })
            })
            .unwrap();
        print_ends("bare Diesel", &times);
    }

    fn timed<E>(mut f: impl FnMut() -> Result<(), E>) -> Result<Vec<Duration>, E> {
        (0..SAVEPOINTS)
            .map(|_| {
                let started = Instant::now();
                f().map(|()| started.elapsed())
            })
            .collect()
    }

    fn print_ends(name: &str, times: &[Duration]) {
        let total = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() * 1e3;
        println!("{name:<40} {:>8.1} ms {:>13.1} ms", total(&times[..SHOWN]), total(&times[SAVEPOINTS - SHOWN..]));
    }
}
