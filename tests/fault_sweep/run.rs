//! One unit of work with something of everything, run in three ways, and what must be true after it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{EngineBuilder, Error, Outcome, Result, RetryPolicy, SessionState, TransactionOptions};

use super::db::{Conn, Database, Registry, Session, insert};
use super::open_transactions;
use crate::support::notes;

pub(super) const FAULTS: [Fault; 8] = [
    Fault::SerializationFailure,
    Fault::Deadlock,
    Fault::LockTimeout,
    Fault::Unknown,
    Fault::CloseBefore,
    Fault::CloseAfter,
    Fault::PanicBefore,
    Fault::PanicAfter,
];

/// What the driver's planned panic says.
const PANIC: &str = "a planned fault";

/// Who ends the transaction, and what happens to errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `registry.transaction`; errors are handed on.
    Closure,
    /// `current`, `commit`, `remove`; errors and panics are swallowed, and it goes on to commit.
    ByHand,
    /// `registry.transaction_with(retry)`; errors are handed on.
    Retried,
}

pub(super) const WAYS: [Way; 3] = [Way::Closure, Way::ByHand, Way::Retried];

/// What the work was told about its rows.
#[derive(Debug, Default)]
struct Told {
    /// Rows whose statement answered `Ok`, in a frame that was kept.
    rows: Vec<String>,
    /// Statements of the transaction itself that did not answer `Ok` once it was open.
    failures: usize,
}

#[derive(Debug, Default)]
struct Heard {
    committed: usize,
    rolled_back: usize,
    completed: Vec<Outcome>,
}

/// A database, an engine on it with a plan, and an eye of its own on the database.
pub(super) struct Stage {
    pub(super) registry: Registry,
    pub(super) faults: FaultPlan,
    eye: RefCell<Conn>,
    rounds: RefCell<usize>,
    _database: Database,
}

impl Stage {
    pub(super) fn new(change: impl FnOnce(EngineBuilder<Conn>) -> EngineBuilder<Conn>) -> Self {
        let database = super::database();
        let faults = FaultPlan::new();
        let registry = database.registry_with(|builder| change(builder.max_size(2)).faults(&faults));
        let eye = RefCell::new(Conn::establish(&database.url).unwrap());
        Self { registry, faults, eye, rounds: RefCell::default(), _database: database }
    }

    /// What is stored, seen without the engine.
    pub(super) fn stored(&self) -> Vec<String> {
        let mut rows: Vec<String> = notes::table.select(notes::text).load(&mut *self.eye.borrow_mut()).unwrap();
        rows.sort();
        rows
    }

    /// Empties the table, without the engine.
    pub(super) fn clear(&self) {
        diesel::delete(notes::table).execute(&mut *self.eye.borrow_mut()).unwrap();
    }

    /// Runs the work with these faults and asserts everything that must be true; gives the calls of the work.
    pub(super) fn run(&self, way: Way, plan: &[(usize, Fault)]) -> Vec<Call> {
        let text = format!("{way:?} with {plan:?} on {}", super::db::NAME);
        self.faults.reset();
        for (k, fault) in plan {
            self.faults.at(*k, *fault);
        }
        let heard = Rc::new(RefCell::new(Heard::default()));
        let told = Rc::new(RefCell::new(Told::default()));
        let answer = catch_unwind(AssertUnwindSafe(|| self.work(way, &heard, &told)));
        let calls = self.faults.calls();
        self.faults.reset();
        let stored = self.stored();
        let told = told.borrow();
        let heard = heard.borrow();
        let is_none = stored.is_empty();
        let text = format!("{text}: {answer:?}, stored {stored:?}, {told:?}, {heard:?}, {calls:?}");
        let outcome = match &answer {
            Ok(Ok(())) => {
                assert_eq!(stored, told.rows, "{text}");
                assert_eq!(told.failures, 0, "Ok after a statement that failed: {text}");
                if way != Way::ByHand {
                    assert_eq!(stored.len(), 6, "{text}");
                }
                Outcome::Committed
            }
            Ok(Err(Error::CommitUnknown { .. })) => {
                assert!(is_none || stored == told.rows, "in parts: {text}");
                Outcome::Unknown
            }
            Ok(Err(_)) => {
                assert!(is_none, "an error, and rows are stored: {text}");
                Outcome::RolledBack
            }
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
                assert!(said.starts_with(PANIC), "{text}");
                // Out of a statement of the user's, or a closure with the bare connection; nothing else may panic.
                let from_a_statement = plan.iter().any(|(k, fault)| {
                    matches!(fault, Fault::PanicBefore | Fault::PanicAfter)
                        && calls.get(*k - 1) == Some(&Call::Statement)
                });
                assert!(from_a_statement, "{text}");
                assert!(is_none, "{text}");
                Outcome::RolledBack
            }
        };
        // The work that failed before it could register a hook has none to run.
        if !heard.completed.is_empty() || outcome == Outcome::Committed {
            assert_eq!(heard.completed, [outcome], "{text}");
        }
        assert_eq!(heard.committed, usize::from(outcome == Outcome::Committed), "{text}");
        assert!(heard.rolled_back <= usize::from(outcome == Outcome::RolledBack), "{text}");
        self.is_usable(&text);
        calls
    }

    fn work(&self, way: Way, heard: &Rc<RefCell<Heard>>, told: &Rc<RefCell<Told>>) -> Result<()> {
        match way {
            Way::Closure => self.registry.transaction(|session| strictly(session, heard, told)),
            Way::Retried => {
                let policy = RetryPolicy::new(3).backoff(Duration::from_micros(100), Duration::from_millis(1));
                self.registry.transaction_with(TransactionOptions::new().retry(policy), |session| {
                    told.replace(Told::default());
                    strictly(session, heard, told)
                })
            }
            Way::ByHand => {
                let session = self.registry.current()?;
                session.begin()?;
                carelessly(&session, heard, told);
                let committed = session.commit().map(drop);
                assert_eq!(session.state(), SessionState::Idle);
                self.registry.remove();
                committed
            }
        }
    }

    /// Nothing is held, nothing is open, and the next unit of work on this thread is stored.
    fn is_usable(&self, text: &str) {
        let engine = self.registry.engine();
        assert!(engine.connections_in_use().is_empty(), "{text}");
        assert!(engine.write_gate().is_empty(), "{text}");
        assert_eq!(engine.waiting(), 0, "{text}");
        assert!(!self.registry.has(), "{text}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while open_transactions(&mut self.eye.borrow_mut()) > 0 {
            assert!(Instant::now() < deadline, "a transaction is open on the server: {text}");
            std::thread::yield_now();
        }
        self.clear();
        let round = {
            let mut rounds = self.rounds.borrow_mut();
            *rounds += 1;
            format!("after {rounds}")
        };
        let next = self.registry.transaction(|session| insert(session, &round));
        assert!(matches!(next, Ok(1)), "{next:?} after {text}");
        assert_eq!(self.stored(), [round], "{text}");
        self.clear();
    }
}

fn register(session: &Session, heard: &Rc<RefCell<Heard>>) -> Result<()> {
    let ear = Rc::clone(heard);
    session.on_commit(move || ear.borrow_mut().committed += 1)?;
    let ear = Rc::clone(heard);
    session.on_rollback(move || ear.borrow_mut().rolled_back += 1)?;
    let ear = Rc::clone(heard);
    session.on_completion(move |outcome| ear.borrow_mut().completed.push(outcome))
}

fn insert_raw(conn: &mut Conn, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values((notes::text.eq(text), notes::n.eq(0))).execute(conn)
}

fn by_text(session: &Session, text: &str) -> Result<usize> {
    session.execute(diesel::sql_query(format!("INSERT INTO notes (text, n) VALUES ('{text}', 0)")))
}

fn strictly(session: &Session, heard: &Rc<RefCell<Heard>>, told: &Rc<RefCell<Told>>) -> Result<()> {
    register(session, heard)?;
    for row in ["1", "2", "3"] {
        insert(session, row)?;
    }
    let savepoint = session.begin_nested()?;
    let refused = insert(session, "1");
    savepoint.rollback()?;
    match refused {
        Err(error) if error.is_unique_violation() => {}
        other => drop(other?),
    }
    let savepoint = session.begin_nested()?;
    insert(session, "4")?;
    savepoint.commit()?;
    session.with_connection(|conn| insert_raw(conn, "5"))?;
    by_text(session, "6")?;
    told.borrow_mut().rows = ["1", "2", "3", "4", "5", "6"].map(str::to_owned).to_vec();
    Ok(())
}

/// The same by code that swallows every error and every panic.
fn carelessly(session: &Session, heard: &Rc<RefCell<Heard>>, told: &Rc<RefCell<Told>>) {
    let swallowed = |f: &dyn Fn() -> Result<usize>| matches!(catch_unwind(AssertUnwindSafe(f)), Ok(Ok(_)));
    let keep = |row: &str, ok: bool| {
        let mut told = told.borrow_mut();
        if ok {
            told.rows.push(row.to_owned());
        } else if session.state() != SessionState::Idle {
            // One that could not even begin failed alone: the next begins.
            told.failures += 1;
        }
    };
    register(session, heard).unwrap();
    for row in ["1", "2", "3"] {
        keep(row, swallowed(&|| insert(session, row)));
    }
    // What was not set is not there to go back to: the statement then is the transaction's own, and fails it.
    let savepoint = session.begin_nested();
    let _ = swallowed(&|| insert(session, "1"));
    if let Ok(savepoint) = savepoint {
        let _ = savepoint.rollback();
    }
    let savepoint = session.begin_nested();
    let ok = swallowed(&|| insert(session, "4"));
    // With a savepoint that did not go well, it is rolled back alone.
    if savepoint.map_or(true, |savepoint| savepoint.commit().is_ok()) {
        keep("4", ok);
    }
    let ok = swallowed(&|| session.with_connection(|conn| insert_raw(conn, "5")));
    // The error of a closure is its own affair where the database goes on.
    if ok || session.state() != SessionState::Active {
        keep("5", ok);
    }
    keep("6", swallowed(&|| by_text(session, "6")));
}
