//! Many threads, short threads and threads that end badly: each sees its own work, and nothing is lost.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use diesel::prelude::*;
use diesel_session::{Error, Result};

use super::db::{self, Database, Registry, Session, insert, stored};
use super::notes;

/// Every connection of the pool can still be had, all at once.
fn assert_the_whole_pool_is_there(registry: &Registry) {
    assert!(registry.inspect().sessions.is_empty(), "{}", registry.inspect());
    assert!(registry.engine().connections_in_use().is_empty());
    assert!(registry.engine().write_gate().is_empty());
    let at_once = if db::CONCURRENT { registry.engine().max_size() } else { 1 };
    let all_hold_one = Barrier::new(at_once);
    std::thread::scope(|threads| {
        for _ in 0..at_once {
            threads.spawn(|| {
                registry
                    .read(|session| {
                        session.batch_execute("SELECT 1")?;
                        all_hold_one.wait();
                        Ok::<_, Error>(())
                    })
                    .unwrap();
            });
        }
    });
    insert(&Session::new(registry.engine()), "and the write gate is free").unwrap();
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn sixty_four_threads_on_a_pool_of_four_each_see_only_their_own_writes() {
    const THREADS: i32 = 64;
    const ROUNDS: i32 = 4;
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(4));
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads: Vec<_> = (0..THREADS)
        .map(|id| {
            let start = Arc::clone(&start);
            registry.spawn(move || -> Result<()> {
                start.wait();
                for round in 0..ROUNDS {
                    let session = Session::current()?;
                    for row in 0..3 {
                        let text = format!("{id} {round} {row}");
                        let values = (notes::text.eq(text), notes::n.eq(id));
                        assert_eq!(session.execute(diesel::insert_into(notes::table).values(values))?, 1);
                    }
                    let own = notes::table.filter(notes::n.eq(id)).count();
                    let kept_before = i64::from((round + 1) / 2) * 3;
                    assert_eq!(session.get_result::<i64>(own)?, kept_before + 3);
                    // Nobody's unfinished work shows: committed is a whole number of rounds.
                    let others = notes::table.filter(notes::n.ne(id)).count();
                    assert_eq!(session.get_result::<i64>(others)? % 3, 0);
                    match (round % 2, id % 2) {
                        (0, _) => session.commit().map(drop)?,
                        (_, 0) => drop(session.rollback()?),
                        _ => Session::remove(),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    let mut expected: Vec<String> = (0..THREADS)
        .flat_map(|id| [0, 2].into_iter().flat_map(move |round| (0..3).map(move |row| format!("{id} {round} {row}"))))
        .collect();
    expected.sort();
    let mut found = stored(&registry);
    found.sort();
    assert_eq!(found, expected);
    assert_the_whole_pool_is_there(&registry);
}

/// Counts itself away when it is dropped, with the session that it lies in.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn short_threads_that_forget_remove_lose_no_connection_and_no_memory() {
    const BATCH: usize = 64;
    // A server's connection is discarded when its thread leaves a transaction open, so there it takes longer.
    let threads = if db::REMOTE { 2_000 } else { 100_000 };
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(4));
    let sessions = Arc::new(AtomicUsize::new(0));
    let mut warm = None;
    let mut started = 0;
    while started < threads {
        let batch: Vec<_> = (started..(started + BATCH).min(threads))
            .map(|n| {
                let (registry, sessions) = (registry.clone(), Arc::clone(&sessions));
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || {
                        let session = registry.current().unwrap();
                        sessions.fetch_add(1, Ordering::Relaxed);
                        session.info().insert(Counted(sessions));
                        if n % 100 == 0 {
                            insert(&session, "left open").unwrap();
                        }
                    })
                    .unwrap()
            })
            .collect();
        started += batch.len();
        for thread in batch {
            thread.join().unwrap();
        }
        if warm.is_none() && started >= threads / 10 {
            warm = Some(resident_bytes());
        }
    }
    assert_eq!(sessions.load(Ordering::Relaxed), 0, "sessions that outlived their threads");
    let report = registry.inspect();
    assert!(report.sessions.is_empty(), "{report}");
    assert_eq!(report.counters.thread_exits, threads as u64);
    // The rest of the suite runs in this process too, hence the margin: 100 000 sessions would be more.
    let grown = resident_bytes().saturating_sub(warm.unwrap());
    assert!(grown < 48 << 20, "{grown} bytes more after {threads} threads");
    assert_the_whole_pool_is_there(&registry);
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_thread_that_ends_with_an_open_transaction_rolls_back_and_runs_no_hooks() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let ran = Arc::new(AtomicUsize::new(0));
    std::thread::spawn({
        let (registry, ran) = (registry.clone(), Arc::clone(&ran));
        move || {
            let session = registry.current().unwrap();
            insert(&session, "a").unwrap();
            session
                .on_completion(move |_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
        }
    })
    .join()
    .unwrap();
    let report = registry.inspect();
    assert!(report.sessions.is_empty() && report.connections.is_empty() && report.write_gate.is_empty(), "{report}");
    assert_eq!(report.counters.thread_exits, 1);
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    assert!(stored(&registry).is_empty());
}

type Answers = Vec<(&'static str, Result<()>)>;

/// Uses the registry when its thread is being torn down.
struct Late {
    registry: Registry,
    kept: Option<Session>,
    tell: mpsc::Sender<Answers>,
}

impl Drop for Late {
    fn drop(&mut self) {
        let registry = &self.registry;
        let mut answers: Answers = vec![
            ("current", registry.current().map(drop)),
            ("current_with", registry.current_with(diesel_session::read_only()).map(drop)),
            ("Session::current", registry.enter(Session::current).map(drop)),
            ("scope", registry.scope(|_| ())),
            ("transaction", registry.transaction(|_| Ok(()))),
            ("read", registry.read(|_| Ok(()))),
            ("job", registry.job(|_| Ok(()))),
        ];
        assert!(registry.try_current().is_none());
        registry.remove();
        if let Some(kept) = self.kept.take() {
            answers.push(("kept", insert(&kept, "ghost").map(drop)));
        }
        self.tell.send(answers).unwrap();
    }
}

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_local_destructor_gets_an_error_instead_of_a_session() {
    let database = Database::new();
    let registry = database.registry();
    let (tell, told) = mpsc::channel();
    std::thread::spawn({
        let registry = registry.clone();
        move || {
            // Made before the registry's own, and so destroyed after it.
            LATE.with_borrow_mut(|late| *late = Some(Late { registry: registry.clone(), kept: None, tell }));
            let session = registry.current().unwrap();
            insert(&session, "a").unwrap();
            LATE.with_borrow_mut(|late| late.as_mut().unwrap().kept = Some(session));
        }
    })
    .join()
    .unwrap();
    for (call, answer) in told.recv().unwrap() {
        if call == "kept" {
            assert!(matches!(answer, Err(Error::SessionClosed { .. })), "{call}: {answer:?}");
        } else {
            assert!(matches!(answer, Err(Error::ThreadExiting)), "{call}: {answer:?}");
        }
    }
    assert!(registry.inspect().sessions.is_empty());
    assert!(registry.engine().connections_in_use().is_empty());
    assert!(stored(&registry).is_empty());
}

struct Early(Option<Registry>);

impl Drop for Early {
    fn drop(&mut self) {
        if let Some(registry) = &self.0 {
            let session = registry.current().unwrap();
            insert(&session, "begun by a destructor").unwrap();
        }
    }
}

thread_local! {
    static EARLY: RefCell<Early> = const { RefCell::new(Early(None)) };
}

#[test]
fn what_a_destructor_begins_before_the_registrys_own_ends_is_rolled_back_too() {
    let database = Database::new();
    let registry = database.registry();
    std::thread::spawn({
        let registry = registry.clone();
        move || {
            let session = registry.current().unwrap();
            insert(&session, "a").unwrap();
            registry.remove();
            EARLY.with_borrow_mut(|early| early.0 = Some(registry.clone()));
        }
    })
    .join()
    .unwrap();
    assert!(registry.inspect().sessions.is_empty());
    assert!(registry.engine().connections_in_use().is_empty());
    assert!(stored(&registry).is_empty());
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("from a value in a session");
    }
}

#[test]
fn a_value_that_panics_when_its_thread_ends_aborts_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let thread = std::thread::spawn({
        let registry = registry.clone();
        move || {
            let session = registry.current().unwrap();
            session.info().insert(PanicsWhenDropped);
            insert(&session, "a").unwrap();
            let captured = PanicsWhenDropped;
            session.on_commit(move || drop(captured)).unwrap();
        }
    });
    assert!(thread.join().is_ok());
    assert!(registry.inspect().sessions.is_empty());
    assert!(registry.engine().connections_in_use().is_empty());
    assert!(stored(&registry).is_empty());
}

const CHILD: &str = "DIESEL_SESSION_TEST_EXIT";
const EXIT_CODE: i32 = 77;

/// What the child process of the test below does instead of the test.
fn exit_inside(way: &str, url: &str) -> ! {
    let registry = Registry::new(diesel_session::Engine::<db::Conn>::new(url).unwrap());
    let setup = Session::with_options(registry.engine(), diesel_session::autocommit()).unwrap();
    setup.batch_execute(db::CREATE_NOTES).unwrap();
    let exit = || -> Result<()> { std::process::exit(EXIT_CODE) };
    match way {
        "transaction" => {
            let _ = registry.transaction(|session| {
                insert(session, "a")?;
                exit()
            });
        }
        "lent" => {
            let session = registry.current().unwrap();
            insert(&session, "a").unwrap();
            let _ = session.with_connection(|_| {
                let _ = exit();
                Ok(())
            });
        }
        "hook" => {
            let session = registry.current().unwrap();
            session.on_rollback(exit).unwrap();
            insert(&session, "a").unwrap();
            session.rollback().unwrap();
        }
        other => panic!("{other}"),
    }
    unreachable!("the process has ended");
}

#[test]
fn exit_inside_a_closure_ends_the_process_with_its_code_and_stores_nothing() {
    if let Ok(task) = std::env::var(CHILD) {
        let (way, url) = task.split_once(' ').unwrap();
        exit_inside(way, url);
    }
    let database = Database::new();
    let registry = database.registry();
    let name = format!("{}::exit_inside_a_closure_ends_the_process_with_its_code_and_stores_nothing", module_path!());
    let name = name.split_once("::").unwrap().1;
    for way in ["transaction", "lent", "hook"] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1", "--nocapture"])
            .env(CHILD, format!("{way} {}", database.url))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(EXIT_CODE), "{way}: {}\n{said}", child.status);
        assert!(!said.contains("panicked"), "{way}: {said}");
        assert!(stored(&registry).is_empty(), "{way}");
    }
}
