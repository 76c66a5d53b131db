//! A bank and its books: transfers whose total never changes, and a list of what each job was told.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::prelude::*;
use diesel_session::{Error, ErrorClass, autocommit};

use super::db::{CREATE_JOBS, Registry, Session};

diesel::table! {
    accounts (id) {
        id -> Integer,
        balance -> BigInt,
    }
}

diesel::table! {
    jobs (id) {
        id -> BigInt,
        // Not unique in the database: a job that is stored twice shows.
        number -> BigInt,
    }
}

pub const ACCOUNTS: i32 = 10;
pub const TOTAL: i64 = 10_000;

/// What a job was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// `Ok`.
    Stored,
    /// `CommitUnknown`.
    Unknown,
    /// Any other error of the session's.
    Failed(ErrorClass),
    /// The job's own error, which rolls back.
    Refused,
}

/// Why a job rolls back.
#[derive(Debug)]
pub enum Refusal {
    Own,
    Session(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

pub fn create(registry: &Registry) {
    // MySQL commits what creates a table, whatever the transaction says.
    let session = Session::with_options(registry.engine(), autocommit()).unwrap();
    session.batch_execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance BIGINT NOT NULL)").unwrap();
    session.batch_execute(CREATE_JOBS).unwrap();
    registry
        .transaction(|session| {
            for id in 0..ACCOUNTS {
                let balance = TOTAL / i64::from(ACCOUNTS);
                session.execute(
                    diesel::insert_into(accounts::table).values((accounts::id.eq(id), accounts::balance.eq(balance))),
                )?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
}

/// One job: a transfer between two accounts and the job's own number, in one transaction. Each tenth ends with an error of
/// its own.
pub fn work(registry: &Registry, number: i64) -> (Answer, Option<Error>) {
    answer(registry.transaction(|session| in_session(session, number)))
}

/// The same, in a transaction that somebody else ends.
pub fn in_session(session: &Session, number: i64) -> Result<(), Refusal> {
    transfer(session, number)?;
    session.execute(diesel::insert_into(jobs::table).values(jobs::number.eq(number)))?;
    if number % 10 == 0 { Err(Refusal::Own) } else { Ok(()) }
}

/// What a job was told, in a word.
pub fn answer(done: Result<(), Refusal>) -> (Answer, Option<Error>) {
    match done {
        Ok(()) => (Answer::Stored, None),
        Err(Refusal::Own) => (Answer::Refused, None),
        Err(Refusal::Session(error @ Error::CommitUnknown { .. })) => (Answer::Unknown, Some(error)),
        Err(Refusal::Session(error)) => (Answer::Failed(error.class()), Some(error)),
    }
}

fn transfer(session: &Session, number: i64) -> Result<(), Error> {
    let amount = number % 7 + 1;
    // In the order of their keys, so that two jobs don't wait for each other.
    let (one, other) = (fastrand::i32(0..ACCOUNTS - 1), ACCOUNTS - 1);
    for (account, change) in [(one, amount), (fastrand::i32(one + 1..=other), -amount)] {
        session.execute(
            diesel::update(accounts::table.find(account)).set(accounts::balance.eq(accounts::balance + change)),
        )?;
    }
    Ok(())
}

/// What all accounts have together, from one SELECT: one snapshot.
pub fn total(session: &Session) -> Result<i64, Error> {
    let balances: Vec<i64> = session.load(accounts::table.select(accounts::balance))?;
    Ok(balances.iter().sum())
}

/// The keys and numbers that are stored, from the number `first` on.
pub fn stored(session: &Session, first: i64) -> Result<Vec<(i64, i64)>, Error> {
    session.load(jobs::table.filter(jobs::number.ge(first)).order(jobs::id).select((jobs::id, jobs::number)))
}

/// The books against the database.
#[derive(Debug, Default)]
pub struct Audit {
    pub lost: BTreeSet<i64>,
    pub stored_in_spite_of_an_error: BTreeSet<i64>,
    /// The keys of the rows of each number that is there more than once.
    pub doubled: BTreeMap<i64, Vec<i64>>,
    /// Errors that say something else than that the database could not be had, or may be asked again.
    pub misjudged: BTreeMap<i64, ErrorClass>,
    pub unknown_stored: usize,
    answers: BTreeMap<String, usize>,
}

impl Audit {
    pub fn new(stored: &[(i64, i64)], answers: &[(i64, Answer)]) -> Self {
        let mut audit = Self::default();
        let mut rows = BTreeMap::<i64, Vec<i64>>::new();
        for (id, number) in stored {
            rows.entry(*number).or_default().push(*id);
        }
        for (number, answer) in answers {
            *audit.answers.entry(format!("{answer:?}")).or_default() += 1;
            if let Answer::Failed(class) = *answer
                && !matches!(class, ErrorClass::Connection | ErrorClass::Retryable | ErrorClass::Unavailable)
            {
                audit.misjudged.insert(*number, class);
            }
            match (answer, rows.contains_key(number)) {
                (Answer::Stored, false) => drop(audit.lost.insert(*number)),
                (Answer::Unknown, true) => audit.unknown_stored += 1,
                (Answer::Failed(_) | Answer::Refused, true) => {
                    audit.stored_in_spite_of_an_error.insert(*number);
                }
                _ => {}
            }
        }
        rows.retain(|_, ids| ids.len() > 1);
        audit.doubled = rows;
        audit
    }

    /// Fails the test unless every answer was true.
    #[track_caller]
    pub fn check(&self) {
        assert!(self.lost.is_empty(), "acknowledged and lost: {self:?}");
        assert!(self.stored_in_spite_of_an_error.is_empty(), "refused and stored: {self:?}");
        assert!(self.doubled.is_empty(), "stored twice: {self:?}");
        assert!(self.misjudged.is_empty(), "an outage that was taken for something else: {self:?}");
    }
}

impl std::fmt::Display for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "lost {}, stored in spite of an error {}, doubled {}; unknown and stored {}; answers {:?}",
            self.lost.len(),
            self.stored_in_spite_of_an_error.len(),
            self.doubled.len(),
            self.unknown_stored,
            self.answers
        )
    }
}

/// Ends the load when it is dropped, also by a test that fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whether the tests are to take their time.
pub fn long() -> bool {
    std::env::var_os("DIESEL_SESSION_LONG").is_some_and(|value| value == "1")
}
