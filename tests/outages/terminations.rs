//! Connections that the server ends, one after the other, while eight threads transfer money.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Engine, Strategy};

use super::bank::{self, Answer, Audit, Stop, TOTAL};
use super::db::{Conn, NAME, Registry, Session, end_one, server};

const THREADS: usize = 8;
const INTERVAL: Duration = Duration::from_millis(200);
/// How soon the engine serves as before once nobody ends connections any more.
const RECOVERY: Duration = Duration::from_secs(5);

#[test]
fn connections_that_the_server_ends_cost_no_money_and_every_job_is_told_the_truth() {
    let length = Duration::from_secs(if bank::long() { 60 } else { 4 });
    let server = server();
    for (strategy, verify) in [(Strategy::Shared, false), (Strategy::Shared, true), (Strategy::PerThread, false)] {
        let url = server.new_database();
        let engine = Engine::<Conn>::builder(&*url)
            .max_size(THREADS + 1)
            .strategy(strategy)
            .verify_commits(verify)
            .build()
            .unwrap();
        let registry = Registry::new(engine);
        bank::create(&registry);
        let (stop, number) = (AtomicBool::new(false), AtomicI64::new(1));
        let (snapshots, mut ended, mut wrong) = (AtomicUsize::new(0), 0, None);
        let answers: Vec<(i64, Answer)> = std::thread::scope(|threads| {
            let stopping = Stop(&stop);
            let workers: Vec<_> = (0..THREADS)
                .map(|_| {
                    threads.spawn(|| {
                        let mut answers = Vec::new();
                        while !stop.load(Ordering::SeqCst) {
                            let number = number.fetch_add(1, Ordering::SeqCst);
                            answers.push((number, bank::work(&registry, number).0));
                        }
                        answers
                    })
                })
                .collect();
            // Gives the total that it saw where that was a wrong one.
            let reader = threads.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    if let Ok(total) = registry.read(bank::total) {
                        snapshots.fetch_add(1, Ordering::SeqCst);
                        if total != TOTAL {
                            return Some(total);
                        }
                    }
                }
                None
            });
            let mut admin = Conn::establish(&url).unwrap();
            let started = Instant::now();
            while started.elapsed() < length && !reader.is_finished() {
                std::thread::sleep(INTERVAL);
                end_one(&mut admin);
                ended += 1;
            }
            drop(stopping);
            wrong = reader.join().unwrap();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });

        let recovered = serves_as_before(&registry);
        let session = Session::new(registry.engine());
        let audit = Audit::new(&bank::stored(&session, 0).unwrap(), &answers);
        let snapshots = snapshots.into_inner();
        println!(
            "{NAME}, {strategy:?}, verified: {verify}, {ended} connections ended: {audit}; {snapshots} snapshots; all at work {recovered:?} later"
        );
        audit.check();
        // The server is there all the time, so it can always be asked.
        assert!(!verify || !answers.iter().any(|(_, answer)| *answer == Answer::Unknown), "{audit}");
        assert_eq!(bank::total(&session).unwrap(), TOTAL, "in the end; a snapshot said {wrong:?}");
        assert_eq!(wrong, None, "the total of a snapshot, of {snapshots}");
        assert!(ended > 0 && snapshots > 0);
        session.commit().unwrap();
    }
}

/// How long it takes until as many threads as there are connections are inside a transaction at once.
fn serves_as_before(registry: &Registry) -> Duration {
    assert!(registry.engine().connections_in_use().is_empty());
    let all = registry.engine().max_size();
    let (inside, give_up) = (AtomicUsize::new(0), AtomicBool::new(false));
    let started = Instant::now();
    std::thread::scope(|threads| {
        let workers: Vec<_> = (0..all)
            .map(|_| {
                threads.spawn(|| {
                    registry.transaction(|session| {
                        bank::total(session)?;
                        inside.fetch_add(1, Ordering::SeqCst);
                        while inside.load(Ordering::SeqCst) < all && !give_up.load(Ordering::SeqCst) {
                            std::thread::yield_now();
                        }
                        Ok::<_, diesel_session::Error>(())
                    })
                })
            })
            .collect();
        while inside.load(Ordering::SeqCst) < all && started.elapsed() < RECOVERY {
            std::thread::yield_now();
        }
        give_up.store(true, Ordering::SeqCst);
        for worker in workers {
            worker.join().unwrap().unwrap();
        }
    });
    let took = started.elapsed();
    assert_eq!(inside.into_inner(), all, "so many work at once within {RECOVERY:?}");
    assert!(registry.engine().connections_in_use().is_empty());
    took
}
