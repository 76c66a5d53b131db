//! The session: at most one connection, one transaction at a time.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use crate::backend::SessionConnection;
use crate::engine::Engine;
use crate::error::{Cause, Error, Reason, Result};
use crate::info::Info;
use crate::inspect::SessionState;
use crate::options::{SessionOptions, TransactionOptions};
use crate::place::Place;
use crate::unit::Attempt;

mod bulk;
pub(crate) mod core;
mod entities;
pub(crate) mod events;
mod first;
mod frames;
pub(crate) mod hooks;
pub(crate) mod join;
mod many;
mod query;
mod relations;
pub(crate) mod savepoint;
mod state;
pub(crate) mod table;

pub use bulk::{Bulk, Progress};
pub use events::{SessionListener, StatementInfo, StatementKind, TransactionInfo, Transition};
pub use hooks::{HookError, HookResult, Outcome, Report};
pub use join::JoinMode;
pub use query::SessionQueryDsl;
pub use savepoint::Savepoint;

use self::core::{Core, Whence};
use hooks::Hook;
use state::Situation;

/// A session: at most one connection, one transaction at a time.
///
/// A cheap handle (`Clone`), `!Send` and `!Sync`: sharing one between threads does not compile. Nothing is sent until
/// the first statement, which takes a connection and begins; [`commit`](Session::commit) and
/// [`rollback`](Session::rollback) end the transaction and give the connection back; the next statement begins anew. A
/// session that is dropped with an open transaction rolls back. Nothing ever commits in a `Drop`.
///
/// # What happens when
///
/// | the session is… | statement | `commit()` | `rollback()` | `close()`, `remove()` |
/// |---|---|---|---|---|
/// | idle | begins | `Ok`, nothing sent; `on_commit` hooks run | nothing sent; hooks dropped | closes |
/// | active | runs | COMMIT | ROLLBACK | rolls back |
/// | failed (a statement's database error) | `PendingRollback` | rolls back, `Err(RolledBack)`, idle | idle | rolls back |
/// | rollback-only | runs | rolls back, `Err(RolledBack)`, idle | idle | rolls back |
/// | lost (the server ended the transaction) | `TransactionLost` | rolls back, `Err(RolledBack)` or `Err(ImplicitCommit)`, idle | idle | rolls back |
/// | lent (`with_connection`, a row loop) | `InUse` | `InUse` | `InUse` | at the end of the call |
/// | inside its end hooks | `InHook` | `InHook` | `InHook` | at the end of the hooks |
/// | with an open savepoint guard | runs | `SavepointOpen` | ROLLBACK of all | rolls back |
/// | owned by a closure (`transaction`, `job`) | runs | `NotOwner` | `NotOwner` | rolls back; the closure's `Ok` becomes `Err(RolledBack)` |
/// | autocommit | runs alone | `Ok` | `Ok` | closes |
/// | closed | `SessionClosed` | `SessionClosed` | `Ok` | `Ok` |
///
/// # Examples
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Engine, Session};
///
/// diesel::table! { notes (id) { id -> Integer, text -> Text, } }
///
/// # fn main() -> diesel_session::Result<()> {
/// let engine = Engine::<SqliteConnection>::new(":memory:")?;
/// let session = Session::new(&engine);
/// session.batch_execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
/// session.execute(diesel::insert_into(notes::table).values(notes::text.eq("first")))?;
/// session.commit()?;
///
/// let texts: Vec<String> = session.load(notes::table.select(notes::text))?;
/// assert_eq!(texts, ["first"]);
/// # Ok(()) }
/// ```
pub struct Session<C: SessionConnection> {
    core: Rc<Core<C>>,
}

impl<C: SessionConnection> Clone for Session<C> {
    fn clone(&self) -> Self {
        Self { core: Rc::clone(&self.core) }
    }
}

impl<C: SessionConnection> PartialEq for Session<C> {
    /// Two handles are equal when they are handles of one session.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.core, &other.core)
    }
}

impl<C: SessionConnection> Eq for Session<C> {}

impl<C: SessionConnection> fmt::Debug for Session<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.core.id)
            .field("state", &self.core.state())
            .field("savepoints", &self.core.savepoints())
            .finish_non_exhaustive()
    }
}

impl<C: SessionConnection> Session<C> {
    pub(crate) fn of(core: Rc<Core<C>>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Rc<Core<C>> {
        &self.core
    }

    /// A session of its own, outside any registry.
    #[track_caller]
    #[must_use]
    pub fn new(engine: &Engine<C>) -> Self {
        let core =
            Core::new(Some(engine.clone()), SessionOptions::new(), None, None, Location::caller(), Whence::Engine);
        Self::of(core)
    }

    /// A session of its own with other options.
    ///
    /// # Errors
    /// [`Error::Configuration`] for options that contradict each other.
    #[track_caller]
    pub fn with_options(engine: &Engine<C>, options: impl Into<SessionOptions>) -> Result<Self> {
        let options = options.into();
        options.transaction.check::<C>()?;
        Ok(Self::of(Core::new(Some(engine.clone()), options, None, None, Location::caller(), Whence::Engine)))
    }

    /// A session on a connection that somebody else made, perhaps with a transaction open on it.
    /// [`into_connection`](Session::into_connection) gives it back, with the settings that it had. On MariaDB a transaction
    /// that Diesel does not count (begun in text) is refused; on MySQL, which does not tell, beginning another commits it.
    #[track_caller]
    #[must_use]
    pub fn join(connection: C, mode: JoinMode) -> Self {
        let joined = Whence::Joined(connection, mode);
        Self::of(Core::new(None, SessionOptions::new(), None, None, Location::caller(), joined))
    }

    /// Closes a [joined](Session::join) session as [`close`](Session::close) does and gives its connection back. `None`
    /// for sessions that take theirs from an engine, and in a process forked since, where the connection is the parent's.
    #[track_caller]
    #[must_use]
    pub fn into_connection(self) -> Option<C> {
        self.core.close(Location::caller());
        self.core.take_joined_connection()
    }

    // ---- what it is ----

    /// The session's number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.core.state()
    }

    /// Whether statements are accepted: `false` only while a failed or lost transaction waits for its rollback, and after
    /// the end.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state(), SessionState::Idle | SessionState::Active | SessionState::RollbackOnly)
    }

    /// Whether a transaction was begun: by `begin`, by a statement, by a hook, or by the closure that owns the session
    /// (`transaction`, `read`, `job`); also if nothing was sent for it yet.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        let owned = self.core.has(Situation::Owned) && !self.core.has(Situation::Closed);
        owned || self.core.begun_at().is_some()
    }

    /// Whether a savepoint is open.
    #[must_use]
    pub fn in_nested_transaction(&self) -> bool {
        self.core.savepoints() > 0
    }

    /// Whether it was closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.has(Situation::Closed)
    }

    /// The options of the transaction that is open or will be begun next.
    #[must_use]
    pub fn transaction_options(&self) -> TransactionOptions {
        self.core.options()
    }

    /// Which attempt this is, in a unit of work with a [`RetryPolicy`](crate::RetryPolicy); `None` in any other.
    #[must_use]
    pub fn attempt(&self) -> Option<Attempt> {
        self.core.attempt()
    }

    /// Values of the user's that travel with the session.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.core.info
    }

    /// The line that made the session.
    #[must_use]
    pub fn made_at(&self) -> Place {
        self.core.made_at
    }

    // ---- the transaction ----

    /// Begins a transaction with the session's own options. Nothing is sent: BEGIN goes out before the first statement.
    /// Only needed to say so early, or with [`autobegin(false)`](SessionOptions::autobegin).
    ///
    /// # Errors
    /// [`Error::AlreadyBegun`] if one is begun, by whatever call.
    #[track_caller]
    pub fn begin(&self) -> Result<()> {
        self.core.begin_with(self.core.options(), Location::caller())
    }

    /// Begins a transaction with other options, for this transaction only. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::AlreadyBegun`] once a statement was sent: too late. [`Error::Configuration`] for options that contradict
    /// each other.
    #[track_caller]
    pub fn begin_with(&self, options: TransactionOptions) -> Result<()> {
        self.core.begin_with(options, Location::caller())
    }

    /// Commits: one round trip, none if nothing was sent. Then the connection goes back, the session is idle, and the
    /// `on_commit` hooks run; their errors are in the report and never make a failure of a stored commit.
    ///
    /// It always ends the transaction, except for usage errors, which change nothing.
    ///
    /// # Errors
    /// [`Error::RolledBack`]: nothing is stored. [`Error::CommitUnknown`]: the connection died during COMMIT and nobody
    /// knows. [`Error::ImplicitCommit`]: somebody else's statement had ended the transaction. Usage errors as in the
    /// table above.
    #[track_caller]
    pub fn commit(&self) -> Result<Report> {
        self.core.commit(Location::caller())
    }

    /// Rolls back to the root, savepoints included: one round trip, none if nothing was sent. If the connection is dead
    /// the server has rolled back already, and this is `Ok` too. The errors of `on_rollback` hooks are in the report.
    ///
    /// # Errors
    /// Usage errors as in the table above.
    pub fn rollback(&self) -> Result<Report> {
        self.core.rollback()
    }

    /// From now on the innermost open frame can only be rolled back: `commit` will do that and say so. Inside
    /// `registry.transaction(|session| …)` this is how to roll back and still return `Ok` with a value.
    ///
    /// # Errors
    /// [`Error::SessionClosed`]; [`Error::InHook`] where the transaction is over; [`Error::NoTransaction`] in autocommit
    /// mode.
    #[track_caller]
    pub fn set_rollback_only(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> Result<()> {
        self.core.set_rollback_only(Reason::Requested(reason.into()), Location::caller())
    }

    /// Sets a savepoint, beginning first if need be. One round trip.
    ///
    /// # Errors
    /// [`Error::NoTransaction`] in autocommit mode; else as any statement.
    #[track_caller]
    pub fn begin_nested(&self) -> Result<Savepoint<C>> {
        let serial = self.core.begin_nested(Location::caller())?;
        Ok(Savepoint::new(Rc::clone(&self.core), serial))
    }

    /// Tries something that may fail: runs `f` in a savepoint, keeps it on `Ok`, undoes it on `Err` or panic. The
    /// transaction around it goes on either way.
    ///
    /// # Errors
    /// What `f` returned; [`Error::RolledBack`] if `f` swallowed a database error and returned `Ok`.
    #[track_caller]
    pub fn nested<T, E: From<Error>>(&self, f: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        self.nested_at(Location::caller(), f)
    }

    pub(crate) fn nested_at<T, E: From<Error>>(
        &self,
        place: Place,
        f: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let serial = self.core.begin_nested(place)?;
        let savepoint = Savepoint::new(Rc::clone(&self.core), serial);
        let value = f(self);
        match value {
            Ok(value) => {
                if let (Some(at), true) = (self.core.closed_at(), self.is_closed()) {
                    return Err(Error::RolledBack { cause: Cause::new(Reason::Removed, at) }.into());
                }
                savepoint.commit()?;
                Ok(value)
            }
            Err(error) => {
                savepoint.rollback()?;
                Err(error)
            }
        }
    }

    /// Rolls back, gives the connection back and closes this session for good: every handle then answers
    /// [`Error::SessionClosed`]. Inside a call that holds the session it happens when that call ends.
    #[track_caller]
    pub fn close(&self) {
        self.core.close(Location::caller());
    }

    /// As [`rollback`](Session::rollback), but the connection is closed instead of going back to the pool.
    ///
    /// # Errors
    /// As [`rollback`](Session::rollback).
    pub fn invalidate(&self) -> Result<()> {
        self.core.invalidate()
    }

    // ---- hooks and listeners ----

    /// Runs `f` once the transaction is stored, after the connection went back. Registered in a savepoint that is rolled
    /// back, it is dropped (as Django's `on_commit`); on an idle session the next `commit` runs it, also one that sends
    /// nothing; in autocommit mode it runs at once. Inside hooks the session answers [`Error::InHook`]: use
    /// [`ScopedSession::transaction`](crate::ScopedSession::transaction) there, which has a session of its own.
    ///
    /// `f` may return `()` or a `Result`; its error or panic is in the report of [`commit`](Session::commit).
    ///
    /// # Errors
    /// [`Error::SessionClosed`]; [`Error::AutobeginDisabled`] before `begin` where that is needed;
    /// [`Error::Configuration`] for more than 1 000 hooks in a transaction.
    #[track_caller]
    pub fn on_commit<R: HookResult>(&self, f: impl FnOnce() -> R + 'static) -> Result<()> {
        let place = Location::caller();
        self.core.add_hook(Hook::on_commit(place, f), place).map(drop)
    }

    /// Runs `f` when the frame that it is registered in was rolled back: a savepoint right after `ROLLBACK TO`, a transaction
    /// after the connection went back.
    ///
    /// # Errors
    /// As [`on_commit`](Session::on_commit).
    #[track_caller]
    pub fn on_rollback<R: HookResult>(&self, f: impl FnOnce() -> R + 'static) -> Result<()> {
        let place = Location::caller();
        self.core.add_hook(Hook::on_rollback(place, f), place).map(drop)
    }

    /// Runs `f` when the frame that it is registered in has ended, whatever way; the only hook that also runs when nobody
    /// knows ([`Outcome::Unknown`]).
    ///
    /// # Errors
    /// As [`on_commit`](Session::on_commit).
    #[track_caller]
    pub fn on_completion<R: HookResult>(&self, f: impl FnOnce(Outcome) -> R + 'static) -> Result<()> {
        let place = Location::caller();
        self.core.add_hook(Hook::on_completion(place, f), place).map(drop)
    }

    /// Tells `listener` what this session does, after the registry's own listeners.
    pub fn listen(&self, listener: impl SessionListener<C> + 'static) {
        self.core.listen(Rc::new(listener));
    }
}
