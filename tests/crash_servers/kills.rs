//! Transfers on eight threads while the server is killed and started again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel_session::{Engine, Strategy};

use super::bank::{self, Answer, Audit, Stop, TOTAL};
use super::db::{Conn, NAME, Registry, Session, server};
use crate::servers::{wait_at_most, wait_until};

const THREADS: usize = 8;

/// How long an engine may take to serve again once the server accepts connections.
const SERVES_AGAIN: Duration = Duration::from_secs(5);
/// The same without load.
const SOON: Duration = Duration::from_millis(1500);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than the server takes to come back.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_was_acknowledged_survives_a_server_that_is_killed_under_load() {
    let kills = if bank::long() { 20 } else { 2 };
    let mut server = server();
    for (strategy, verify) in [(Strategy::Shared, false), (Strategy::PerThread, true)] {
        let engine = Engine::<Conn>::builder(server.new_database())
            .max_size(THREADS)
            .strategy(strategy)
            .connection_timeout(if verify { PATIENCE } else { CONNECTION_TIMEOUT })
            .verify_commits(verify)
            .build()
            .unwrap();
        let registry = Registry::new(engine);
        bank::create(&registry);

        let (stop, number, stored) = (AtomicBool::new(false), AtomicI64::new(1), AtomicUsize::new(0));
        // How often the server was started, and the last start after which a job that began later was stored.
        let (starts, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut slowest = Duration::ZERO;
        let answers: Vec<(i64, Answer)> = std::thread::scope(|threads| {
            let stopping = Stop(&stop);
            let workers: Vec<_> = (0..THREADS)
                .map(|_| {
                    threads.spawn(|| {
                        let mut answers = Vec::new();
                        while !stop.load(Ordering::SeqCst) {
                            let start = starts.load(Ordering::SeqCst);
                            let number = number.fetch_add(1, Ordering::SeqCst);
                            let (answer, _) = bank::work(&registry, number);
                            if answer == Answer::Stored {
                                stored.fetch_add(1, Ordering::SeqCst);
                                served.fetch_max(start, Ordering::SeqCst);
                            }
                            answers.push((number, answer));
                        }
                        answers
                    })
                })
                .collect();
            for kill in 1..=kills {
                let goal = stored.load(Ordering::SeqCst) + fastrand::usize(1..200);
                wait_until("jobs are stored", || stored.load(Ordering::SeqCst) >= goal);
                // Somewhere in the middle of whatever the threads are doing.
                std::thread::sleep(Duration::from_micros(fastrand::u64(0..5_000)));
                server.kill_9();
                server.restart();
                starts.store(kill, Ordering::SeqCst);
                let took = wait_at_most(SERVES_AGAIN, "a job is stored after the restart", || {
                    served.load(Ordering::SeqCst) == kill
                });
                slowest = slowest.max(took);
            }
            drop(stopping);
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });

        assert!(registry.engine().connections_in_use().is_empty());
        let session = Session::new(registry.engine());
        let audit = Audit::new(&bank::stored(&session, 0).unwrap(), &answers);
        println!(
            "{NAME}, {strategy:?}, verified: {verify}, killed {kills} times: {audit}; served again within {slowest:?}"
        );
        audit.check();
        // Asked once the server is back. PostgreSQL may have given a number again, and then nobody knows.
        assert!(
            !verify || NAME == "PostgreSQL" || !answers.iter().any(|(_, answer)| *answer == Answer::Unknown),
            "{audit}"
        );
        assert_eq!(bank::total(&session).unwrap(), TOTAL);
        session.commit().unwrap();
    }
}

#[test]
fn an_outage_is_over_for_the_engine_when_it_is_over_for_the_server_however_long_it_was() {
    let outage = Duration::from_secs(if bank::long() { 14 } else { 3 });
    let mut server = server();
    let registry = Registry::new(Engine::<Conn>::new(server.new_database()).unwrap());
    bank::create(&registry);
    server.kill_9();
    let served = AtomicUsize::new(0);
    let took = std::thread::scope(|threads| {
        threads.spawn(|| {
            let deadline = Instant::now() + 4 * outage;
            while Instant::now() < deadline && registry.read(bank::total).is_err() {}
            served.store(1, Ordering::SeqCst);
        });
        std::thread::sleep(outage);
        assert_eq!(served.load(Ordering::SeqCst), 0);
        server.restart();
        wait_at_most(SOON, "the engine serves", || served.load(Ordering::SeqCst) == 1)
    });
    assert_eq!(registry.read(bank::total).unwrap(), TOTAL);
    println!("{NAME}: served again {took:?} after an outage of {outage:?}");
}
