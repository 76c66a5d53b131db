//! A connection and what is known about it. Everything that is asked of the driver goes through here.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use diesel::result::{Error as DieselError, QueryResult};

use super::sandbox::Sandbox;
use super::watch::Watch;
use crate::backend::{ConnectionSettings, Limits, Phase, SessionConnection, Truth, Witness};
use crate::error::ErrorClass;
use crate::options::TransactionOptions;
use crate::panics::panic_text;
use crate::testing::{Call, Fault, FaultPlan};

pub(crate) struct Slot<C: SessionConnection> {
    pub(crate) conn: C,
    pub(crate) state: C::State,
    /// Code outside the session had the bare connection: settings are applied anew before the next transaction.
    pub(crate) touched: bool,
    pub(crate) born: Instant,
    /// When it came back from its last use; where nothing can happen to it meanwhile (SQLite), when it was lent.
    pub(crate) last_used: Instant,
    /// A statement failed on it in a way that may be the connection's fault: ping before the next use.
    pub(crate) suspect: bool,
    /// Not to be used again.
    pub(crate) broken: bool,
    /// Closed by a planned fault.
    severed: bool,
    /// It is somebody else's, and a session was begun on it.
    is_joined: bool,
    faults: Option<FaultPlan>,
    sandboxed: Option<Sandboxed>,
    watch: Option<Watch>,
}

/// The connection's part in a sandbox.
struct Sandboxed {
    sandbox: Arc<Sandbox>,
    settings: ConnectionSettings,
    /// Whether the transaction around all others was begun.
    is_begun: bool,
}

/// The savepoint that stands for a session's transaction in a sandbox.
const ROOT: usize = 0;

impl<C: SessionConnection> Slot<C> {
    pub(crate) fn new(conn: C, faults: Option<FaultPlan>, watch: Option<Watch>) -> Self {
        let now = Instant::now();
        Self {
            conn,
            state: C::State::default(),
            touched: false,
            born: now,
            last_used: now,
            suspect: false,
            broken: false,
            severed: false,
            is_joined: false,
            faults,
            sandboxed: None,
            watch,
        }
    }

    /// From now on transactions are savepoints in one that is begun with the first of them.
    pub(crate) fn play_in(&mut self, sandbox: &Arc<Sandbox>, settings: &ConnectionSettings) {
        let (sandbox, settings) = (Arc::clone(sandbox), settings.clone());
        self.sandboxed = Some(Sandboxed { sandbox, settings, is_begun: false });
    }

    pub(crate) fn is_sandboxed(&self) -> bool {
        self.sandboxed.is_some()
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// Diesel's depth outside any transaction of a session's.
    pub(crate) fn ground(&self) -> u32 {
        self.sandboxed.as_ref().map_or(0, |sandboxed| u32::from(sandboxed.is_begun))
    }

    /// Whether a BEGIN that failed left nothing behind.
    pub(crate) fn is_on_the_ground(&mut self) -> bool {
        let expected = if self.ground() == 0 { Truth::Ended } else { Truth::Open };
        self.truth() == expected
    }

    /// Whether it can go back: no transaction open, nothing broken.
    pub(crate) fn is_clean(&mut self) -> bool {
        let ground = self.ground();
        let is_clean =
            !self.broken && !self.severed && crate::backend::depth(&mut self.conn).is_ok_and(|depth| depth == ground);
        if let (false, Some(sandboxed)) = (is_clean, &self.sandboxed)
            && sandboxed.is_begun
        {
            sandboxed.sandbox.lose();
        }
        is_clean
    }

    #[inline]
    fn call<R>(&mut self, call: Call, f: impl FnOnce(&mut C, &mut C::State) -> QueryResult<R>) -> QueryResult<R> {
        let Some(faults) = &self.faults else { return f(&mut self.conn, &mut self.state) };
        let due = faults.next(call);
        self.call_with(due, f)
    }

    /// A call of the session's own, whose answer it must have: a panic, as of the user's instrumentation, is an error after
    /// which nothing is known about the connection.
    #[inline]
    fn own_call<R>(&mut self, call: Call, f: impl FnOnce(&mut C, &mut C::State) -> QueryResult<R>) -> QueryResult<R> {
        match catch_unwind(AssertUnwindSafe(|| self.call(call, f))) {
            Ok(result) => result,
            Err(panic) => {
                self.broken = true;
                Err(DieselError::QueryBuilderError(format!("the driver panicked: {}", panic_text(&*panic)).into()))
            }
        }
    }

    #[cold]
    fn call_with<R>(
        &mut self,
        due: Option<Fault>,
        f: impl FnOnce(&mut C, &mut C::State) -> QueryResult<R>,
    ) -> QueryResult<R> {
        if self.severed {
            return Err(Fault::closed());
        }
        match due {
            None => f(&mut self.conn, &mut self.state),
            Some(Fault::CloseBefore) => {
                self.severed = true;
                Err(Fault::closed())
            }
            Some(Fault::CloseAfter) => {
                let _ = f(&mut self.conn, &mut self.state);
                self.severed = true;
                Err(Fault::closed())
            }
            Some(Fault::PanicBefore) => resume_unwind(Box::new(Fault::PANIC)),
            Some(Fault::PanicAfter) => {
                let _ = f(&mut self.conn, &mut self.state);
                resume_unwind(Box::new(Fault::PANIC))
            }
            Some(fault) => Err(self.conn.raise(fault)),
        }
    }

    /// Runs a statement, or a closure of the user's.
    #[inline]
    pub(crate) fn statement<R>(&mut self, f: impl FnOnce(&mut C) -> QueryResult<R>) -> QueryResult<R> {
        self.call(Call::Statement, |conn, _| f(conn))
    }

    /// Runs text or a closure of the user's and looks at what it sends; see [`Self::may_have_committed`].
    pub(crate) fn raw<R>(&mut self, f: impl FnOnce(&mut C) -> QueryResult<R>) -> QueryResult<R> {
        self.touched = true;
        if let Some(watch) = &self.watch {
            watch.start();
        }
        self.statement(f)
    }

    /// Whether what ran last with the bare connection may have committed. Of a connection that somebody else made nobody
    /// knows.
    pub(crate) fn may_have_committed(&self) -> bool {
        self.watch.as_ref().is_none_or(Watch::end)
    }

    pub(crate) fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
    ) -> QueryResult<()> {
        let Some(sandboxed) = &self.sandboxed else {
            return self.own_call(Call::Begin, |conn, state| conn.begin(options, settings, limits, state));
        };
        let is_begun = sandboxed.is_begun;
        let mut begins = is_begun;
        let result = self.own_call(Call::Begin, |conn, state| {
            if !is_begun {
                conn.begin(&TransactionOptions::new(), settings, Limits::default(), state)?;
                begins = true;
            }
            // Refuses writes where the database can do that at any time.
            conn.prepare_autocommit(options, settings, Limits::default(), state)?;
            conn.savepoint(ROOT, state)
        });
        if let Some(sandboxed) = &mut self.sandboxed {
            sandboxed.is_begun = begins;
        }
        result
    }

    pub(crate) fn prepare_autocommit(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
    ) -> QueryResult<()> {
        if self.is_sandboxed() {
            return self.begin(options, settings, limits);
        }
        self.own_call(Call::Control, |conn, state| conn.prepare_autocommit(options, settings, limits, state))
    }

    /// Ends a statement outside a transaction, which code with the bare connection may have begun one in.
    ///
    /// Says whether there was something to undo.
    pub(crate) fn end_autocommit(&mut self, went_well: bool, raw: bool, may_be_open: bool) -> QueryResult<bool> {
        let ground = self.ground();
        let is_open = may_be_open && !self.is_sandboxed() && self.conn.is_in_transaction(&self.state);
        let unwound = crate::backend::unwind_to(&mut self.conn, ground);
        let ended = match (self.is_sandboxed(), went_well) {
            (true, true) => self.commit(),
            (true, false) => self.rollback(),
            // Diesel does not count a BEGIN of text.
            (false, _) if raw => self.rollback(),
            (false, _) => Ok(()),
        };
        ended.and(unwound).map(|was_open| !self.is_sandboxed() && (was_open || is_open))
    }

    pub(crate) fn limit(&mut self, settings: &ConnectionSettings, limits: Limits) -> QueryResult<()> {
        if self.is_sandboxed() {
            return Ok(());
        }
        self.own_call(Call::Control, |conn, state| conn.limit(settings, limits, state))
    }

    pub(crate) fn savepoint(&mut self, n: usize) -> QueryResult<()> {
        self.own_call(Call::Savepoint, |conn, state| conn.savepoint(n, state))
    }

    pub(crate) fn release(&mut self, n: usize) -> QueryResult<()> {
        self.own_call(Call::Release, |conn, state| conn.release(n, state))
    }

    pub(crate) fn rollback_to(&mut self, n: usize) -> QueryResult<()> {
        self.own_call(Call::RollbackTo, |conn, state| conn.rollback_to(n, state))
    }

    /// Sets the mark that raw use must leave in place.
    pub(crate) fn mark(&mut self) -> QueryResult<()> {
        self.own_call(Call::Control, |conn, state| conn.mark(state))
    }

    /// The state of the transaction after raw use since the mark was set.
    pub(crate) fn truth_since_mark(&mut self) -> Truth {
        let mut truth = Truth::Broken;
        let asked = self.own_call(Call::Control, |conn, state| {
            truth = conn.truth_since_mark(state);
            Ok(())
        });
        if asked.is_ok() { truth } else { Truth::Broken }
    }

    pub(crate) fn commit(&mut self) -> QueryResult<()> {
        if let Some(sandboxed) = &self.sandboxed {
            let settings = sandboxed.settings.clone();
            return self.own_call(Call::Commit, |conn, state| {
                conn.check_constraints(&settings)?;
                conn.release(ROOT, state)
            });
        }
        let untroubled = !self.suspect && !self.touched;
        self.own_call(Call::Commit, |conn, state| conn.commit(untroubled, state))
    }

    /// As `commit`, where nobody knows what was sent on the connection before.
    pub(crate) fn commit_warily(&mut self) -> QueryResult<()> {
        self.own_call(Call::Commit, |conn, state| conn.commit(false, state))
    }

    /// Notes what the outcome of the commit can be found out by.
    pub(crate) fn witness(&mut self) -> QueryResult<Option<Witness>> {
        self.own_call(Call::Witness, |conn, state| conn.witness(state))
    }

    pub(crate) fn prune_witnesses(&mut self) -> QueryResult<()> {
        self.own_call(Call::Control, |conn, state| conn.prune_witnesses(state))
    }

    pub(crate) fn rollback(&mut self) -> QueryResult<()> {
        if self.is_sandboxed() {
            return self.own_call(Call::Rollback, |conn, state| conn.rollback_to(ROOT, state));
        }
        self.own_call(Call::Rollback, |conn, state| conn.rollback(state))
    }

    /// Learns about a connection that somebody else made.
    pub(crate) fn meet(&mut self) -> QueryResult<()> {
        self.is_joined = true;
        self.own_call(Call::Control, C::meet)
    }

    /// Puts back what was set on it for a transaction.
    pub(crate) fn put_back(&mut self) -> QueryResult<()> {
        self.own_call(Call::Control, C::put_back)
    }

    pub(crate) fn ping(&mut self) -> QueryResult<()> {
        self.own_call(Call::Ping, |conn, _| conn.ping())
    }

    /// Whether the connection answers after an error that reads as if it had died.
    pub(crate) fn lives_after(&mut self, error: &DieselError) -> bool {
        let reads_as_death = C::classify(error, Phase::Statement) == ErrorClass::Connection;
        if self.severed || self.broken || !reads_as_death || !C::is_remote() {
            return false;
        }
        let mut lives = false;
        let asked = self.own_call(Call::Ping, |conn, _| {
            lives = conn.lives_after(error);
            Ok(())
        });
        asked.is_ok() && lives
    }

    pub(crate) fn truth(&mut self) -> Truth {
        if self.severed || self.broken { Truth::Broken } else { self.conn.truth() }
    }

    pub(crate) fn truth_after(&mut self, error: &DieselError) -> Truth {
        if self.severed || self.broken { Truth::Broken } else { self.conn.truth_after(error, &self.state) }
    }
}
