//! A server that is there and answers nothing: all its processes are stopped.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_session::{Engine, Error, ErrorClass, Result, Session, Strategy};

use super::db::{Conn, NAME, Registry, server};
use crate::servers::wait_at_most;

const THREADS: usize = 32;
const TIME_OUT: Duration = Duration::from_secs(2);
/// The time-out, less and more a tenth, and what a machine that is busy may take on top.
const EARLIEST: Duration = Duration::from_millis(1800);
const LATEST: Duration = Duration::from_millis(2200 + 1000);
const SOON: Duration = Duration::from_secs(1);

fn registry(url: &str, max_size: usize, strategy: Strategy) -> Registry {
    let engine = Engine::<Conn>::builder(url)
        .max_size(max_size)
        .strategy(strategy)
        .connection_timeout(TIME_OUT)
        // One that lay idle is asked first whether it lives.
        .ping_after(Duration::ZERO)
        .build()
        .unwrap();
    Registry::new(engine)
}

fn ask(registry: &Registry) -> Result<()> {
    registry.transaction(|session| session.with_connection(|conn| conn.batch_execute("SELECT 1")))
}

/// Every thread's answer and how long it took, while the server is silent; fails if one gets none.
fn ask_in_the_dark(registry: &Registry) -> Vec<(Duration, Result<()>)> {
    let (give, take) = mpsc::channel();
    for _ in 0..THREADS {
        let (give, registry) = (give.clone(), registry.clone());
        // Not joined: one that hangs is to fail the test, not to stop it.
        std::thread::spawn(move || {
            let started = Instant::now();
            let answer = ask(&registry);
            give.send((started.elapsed(), answer)).unwrap();
        });
    }
    drop(give);
    let started = Instant::now();
    let mut answers = Vec::new();
    while answers.len() < THREADS {
        let left = (3 * TIME_OUT).saturating_sub(started.elapsed());
        match take.recv_timeout(left) {
            Ok(answer) => answers.push(answer),
            Err(_) => panic!("{} of {THREADS} threads have no answer", THREADS - answers.len()),
        }
    }
    answers
}

#[test]
fn a_silent_server_costs_each_thread_its_connection_time_out_and_is_used_again_at_once() {
    let server = server();
    let url = server.new_database();
    for (strategy, max_size) in
        [(Strategy::Shared, THREADS), (Strategy::Shared, 4), (Strategy::PerThread, THREADS), (Strategy::None, THREADS)]
    {
        let registry = registry(&url, max_size, strategy);
        // Takes the connection that the engine was tried with, so that the threads need new ones.
        let holder = Session::new(registry.engine());
        holder.batch_execute("SELECT 1").unwrap();
        let stopped = server.stop();
        let answers = ask_in_the_dark(&registry);
        for (took, answer) in &answers {
            let class = answer.as_ref().map_err(Error::class);
            assert_eq!(class, Err(ErrorClass::Unavailable), "{answer:?}");
            assert!((EARLIEST..LATEST).contains(took), "{strategy:?}: {took:?}, {answer:?}");
        }
        stopped.cont();
        // The only connection that was there: those that serve from now on are new.
        holder.invalidate().unwrap();
        let soon = wait_at_most(SOON, "the server is used again", || ask(&registry).is_ok());
        let slowest = answers.iter().map(|(took, _)| *took).max().unwrap();
        println!("{NAME}, {strategy:?} of {max_size}: no answer for {slowest:?} at most; used again {soon:?} later");
        assert!(registry.engine().connections_in_use().is_empty());
    }
}

#[test]
fn connections_that_lie_idle_keep_nobody_longer_than_new_ones_when_the_server_falls_silent() {
    const IDLE: usize = 4;
    let server = server();
    let url = server.new_database();
    for strategy in [Strategy::Shared, Strategy::Single] {
        let registry = registry(&url, IDLE, strategy);
        let at_once = if strategy == Strategy::Single { 1 } else { IDLE };
        let sessions: Vec<_> = (0..at_once).map(|_| Session::new(registry.engine())).collect();
        sessions.iter().for_each(|session| session.batch_execute("SELECT 1").unwrap());
        drop(sessions.into_iter().map(|session| session.rollback().unwrap()).collect::<Vec<_>>());
        assert_eq!(registry.engine().idle(), at_once);
        let stopped = server.stop();
        for (took, answer) in ask_in_the_dark(&registry) {
            let class = answer.as_ref().map_err(Error::class);
            assert_eq!(class, Err(ErrorClass::Unavailable), "{answer:?}");
            assert!((EARLIEST..LATEST).contains(&took), "{strategy:?}: {took:?}, {answer:?}");
        }
        stopped.cont();
        let soon = wait_at_most(SOON, "the server is used again", || ask(&registry).is_ok());
        println!("{NAME}, {strategy:?}: {at_once} idle; used again {soon:?} later");
        assert!(registry.engine().connections_in_use().is_empty());
    }
}

#[test]
fn a_thread_that_ends_with_an_open_session_does_not_wait_for_a_silent_server() {
    let server = server();
    let url = server.new_database();
    for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::Single, Strategy::None] {
        let registry = registry(&url, 4, strategy);
        let (ready, is_ready) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let of_thread = registry.clone();
        let thread = std::thread::spawn(move || {
            let session = of_thread.current().unwrap();
            session.with_connection(|conn| conn.batch_execute("SELECT 1")).unwrap();
            ready.send(()).unwrap();
            let _ = may_go.recv();
            // And no `remove()`.
        });
        is_ready.recv_timeout(10 * TIME_OUT).unwrap();
        let stopped = server.stop();
        go.send(()).unwrap();
        // `is_finished` would already be true while the thread's own values, the session among them, are destroyed.
        let (give, take) = mpsc::channel();
        let started = Instant::now();
        std::thread::spawn(move || give.send(thread.join()));
        take.recv_timeout(SOON).expect("the thread ends").unwrap();
        let took = started.elapsed();
        assert!(registry.engine().connections_in_use().is_empty());
        println!("{NAME}, {strategy:?}: the thread ended within {took:?}");
        stopped.cont();
        ask(&registry).unwrap();
    }
}
