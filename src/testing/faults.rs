//! A plan of what goes wrong, and when: the k-th call of the driver fails, closes the connection or panics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// What the engine asks of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// A new connection.
    Connect,
    /// BEGIN.
    Begin,
    /// A statement of the user's, or a closure with the bare connection.
    Statement,
    /// SAVEPOINT.
    Savepoint,
    /// RELEASE SAVEPOINT.
    Release,
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo,
    /// What is noted before COMMIT so that its outcome can be found out.
    Witness,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// The look whether a connection that lay idle still lives.
    Ping,
    /// The savepoint around raw use, or a time-out that is set: what the session sends for itself.
    Control,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The database answers with a serialization failure (PostgreSQL 40001, MySQL 1213, SQLite "database is locked"), and
    /// what it does to the transaction then is done.
    SerializationFailure,
    /// The same with a deadlock (PostgreSQL 40P01, MySQL 1213, SQLite "database is locked").
    Deadlock,
    /// The same with a lock time-out (PostgreSQL 55P03, MySQL 1205, SQLite "database is locked").
    LockTimeout,
    /// The same with an error that nobody knows.
    Unknown,
    /// The connection is gone; the call never reached the database.
    CloseBefore,
    /// The database did what was asked; the connection is gone before the answer.
    CloseAfter,
    /// The driver panics instead of the call.
    PanicBefore,
    /// The driver panics after the call.
    PanicAfter,
}

impl Fault {
    /// The text that the driver panics with.
    pub(crate) const PANIC: &'static str = "a planned fault: the driver panics";

    pub(crate) fn closed() -> DieselError {
        DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection,
            Box::new("server closed the connection unexpectedly (a planned fault)".to_owned()),
        )
    }

    /// An answer of the database that no class of errors knows.
    pub(crate) const UNKNOWN: &'static str = "a planned fault";
}

#[derive(Debug)]
enum When {
    /// The n-th call from the start of the plan.
    Nth(usize),
    /// The n-th call of this sort from now on.
    Of(Call, usize),
}

#[derive(Debug, Default)]
struct Plan {
    calls: Vec<Call>,
    due: Vec<(When, Fault)>,
    happened: usize,
}

/// What goes wrong on the connections of one engine, and when. A cheap handle: the engine has one, the test another.
///
/// A call is one thing that the engine asks of Diesel: BEGIN, one statement or one closure with the bare connection, a
/// savepoint, COMMIT. A closed connection stays closed for every later call, and really closes when the session gives
/// it back.
///
/// # Examples
/// ```
/// use diesel::sqlite::SqliteConnection;
/// use diesel_session::testing::{Call, Fault, FaultPlan};
/// use diesel_session::{Engine, Error, ScopedSession};
///
/// # fn main() -> diesel_session::Result<()> {
/// let faults = FaultPlan::new();
/// let engine = Engine::<SqliteConnection>::builder(":memory:").faults(&faults).build()?;
/// let registry = ScopedSession::new(engine);
///
/// faults.on(Call::Commit, Fault::CloseAfter);
/// let answer = registry.transaction(|session| session.batch_execute("CREATE TABLE notes (text TEXT)"));
/// assert!(matches!(answer, Err(Error::CommitUnknown { .. })));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    plan: Arc<Mutex<Plan>>,
}

impl FaultPlan {
    /// A plan in which nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `fault` at the `k`-th call, counted from 1, since the plan was made or [reset](Self::reset).
    pub fn at(&self, k: usize, fault: Fault) {
        self.plan().due.push((When::Nth(k), fault));
    }

    /// `fault` at the next call of this sort.
    pub fn on(&self, call: Call, fault: Fault) {
        self.on_nth(call, 1, fault);
    }

    /// `fault` at the `n`-th call of this sort from now on, counted from 1.
    pub fn on_nth(&self, call: Call, n: usize, fault: Fault) {
        self.plan().due.push((When::Of(call, n), fault));
    }

    /// Forgets what was counted and what was planned.
    pub fn reset(&self) {
        *self.plan() = Plan::default();
    }

    /// The calls since the plan was made or reset.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.plan().calls.clone()
    }

    /// How many of the planned faults have happened.
    #[must_use]
    pub fn happened(&self) -> usize {
        self.plan().happened
    }

    /// Counts a call, and gives what is to go wrong with it.
    pub(crate) fn next(&self, call: Call) -> Option<Fault> {
        let mut plan = self.plan();
        plan.calls.push(call);
        let count = plan.calls.len();
        let mut due = None;
        plan.due.retain_mut(|(when, fault)| {
            let is_due = match when {
                When::Nth(k) => *k == count,
                When::Of(of, left) if *of == call => {
                    *left = left.saturating_sub(1);
                    *left == 0
                }
                When::Of(..) => false,
            };
            if is_due {
                due = Some(*fault);
            }
            !is_due
        });
        plan.happened += usize::from(due.is_some());
        due
    }
}
