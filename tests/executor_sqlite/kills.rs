//! `kill -9` under group commit: what the killed process acknowledged is stored once, what it refused is not.
//!
//! 40 rounds; 500 with `DIESEL_SESSION_LONG=1`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use diesel_session::{Engine, Executor, GroupCommit, JournalMode, Synchronous, WhenFull};

use crate::bank::{self, Answer, Audit, TOTAL};
use crate::db::{Conn, Database, Registry, Session};
use crate::killed::{self, check_integrity, killed_child};

const ROUND: i64 = 1_000_000;
const SUBMITTERS: usize = 24;

/// What the process to be killed runs, for ever. In the process that runs the tests it has nothing to do.
#[test]
fn child_process() {
    let Some((file, first)) = killed::orders() else { return };
    let engine = Engine::<Conn>::builder(file).journal_mode(JournalMode::Wal).synchronous(Synchronous::Full);
    let executor = Executor::builder(Registry::new(engine.build().unwrap()))
        .when_full(WhenFull::Wait)
        .group_commit(GroupCommit::new())
        .build()
        .unwrap();
    assert!(executor.inspect().is_durable);
    let next = AtomicI64::new(first);
    std::thread::scope(|threads| {
        for _ in 0..SUBMITTERS {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let handle = executor.run(move |session| bank::in_session(session, number));
                    let (answer, error) = bank::answer(handle.wait());
                    assert!(matches!(answer, Answer::Stored | Answer::Refused), "{error:?}");
                    killed::say(answer, number);
                }
            });
        }
    });
}

#[test]
fn what_a_killed_process_acknowledged_under_group_commit_is_stored_once_and_what_it_refused_is_not() {
    let rounds = if bank::long() { 500 } else { 40 };
    let database = Database::new();
    bank::create(&Registry::new(database.builder().build().unwrap()));
    let mut answers = Vec::new();
    let mut interrupted = 0;
    for round in 1..=rounds {
        let of_this_round =
            killed_child("kills::child_process", &database.url, round * ROUND, Duration::from_millis(150));
        interrupted += usize::from(!of_this_round.is_empty());
        let from = answers.len();
        answers.extend(of_this_round);
        let registry = Registry::new(database.builder().build().unwrap());
        let session = Session::new(registry.engine());
        check_integrity(&session);
        assert_eq!(bank::total(&session).unwrap(), TOTAL, "round {round}");
        Audit::new(&bank::stored(&session, round * ROUND).unwrap(), &answers[from..]).check();
        session.commit().unwrap();
    }
    let registry = Registry::new(database.builder().build().unwrap());
    let session = Session::new(registry.engine());
    let audit = Audit::new(&bank::stored(&session, 0).unwrap(), &answers);
    println!("group commit, {rounds} processes killed, {interrupted} of them at work: {audit}");
    audit.check();
    assert!(interrupted > 0, "no process was killed at work: the test tests nothing");
    session.commit().unwrap();
}
