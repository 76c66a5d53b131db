//! The session itself: its connection, its frames and the way from one state to the next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use diesel::result::{Error as DieselError, QueryResult};

use super::Session;
use super::events::{SessionListener, StatementInfo, StatementKind, TransactionInfo};
use super::frames::Frames;
use super::hooks::{Committed, Hook, HookError, Outcome};
use super::join::{JoinMode, Joined};
use super::state::{Action, Operation, Refusal, Situation, Situations};
use super::table::{Desk, SessionTable};
use crate::backend::{SessionConnection, Truth};
use crate::engine::{ConnectionSlot, Engine, Lease, truth_after};
use crate::error::{Cause, Error, Failure, Reason, Result};
use crate::info::Info;
use crate::inspect::SessionState;
use crate::options::{SessionOptions, TransactionOptions};
use crate::place::Place;

/// Hooks registered by hooks run too, up to this many in one ending.
const HOOKS_AT_MOST: usize = 1_000;

static NEXT_IDS: AtomicU64 = AtomicU64::new(1);
/// A thread takes so many numbers at once.
const IDS: u64 = 64;

thread_local! {
    /// The next number of this thread, and where its numbers end.
    static IDS_LEFT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn next_id() -> u64 {
    IDS_LEFT.with(|left| {
        let (next, end) = left.get();
        let (next, end) = if next < end {
            (next, end)
        } else {
            let next = NEXT_IDS.fetch_add(IDS, Ordering::Relaxed);
            (next, next + IDS)
        };
        left.set((next + 1, end));
        next
    })
}

/// The connection of a session, while it has one.
pub(crate) enum Connection<C: SessionConnection> {
    Leased(Lease<C>),
    Joined(Box<ConnectionSlot<C>>),
}

impl<C: SessionConnection> Connection<C> {
    fn slot(&mut self) -> Option<&mut ConnectionSlot<C>> {
        match self {
            Self::Leased(lease) => lease.slot(),
            Self::Joined(slot) => Some(slot),
        }
    }
}

/// Who ends the transaction: the extent that was opened for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finisher {
    pub(crate) place: Place,
    /// Whether only the extent may commit or roll back (`transaction`, `job`), or the code in it too (`request`).
    pub(crate) owns: bool,
}

/// The listeners of a registry; none while nobody listens.
pub(crate) type Listeners<C> = Option<Arc<[Arc<dyn SessionListener<C> + Send + Sync>]>>;

pub(crate) struct Core<C: SessionConnection> {
    pub(crate) id: u64,
    engine: Option<Engine<C>>,
    join_mode: JoinMode,
    options: SessionOptions,
    pub(crate) made_at: Place,
    situations: Cell<Situations>,
    connection: RefCell<Option<Connection<C>>>,
    /// The options of the transaction that is open or will be.
    current: Cell<TransactionOptions>,
    /// Begun logically: by `begin`, by the first statement, or by a hook.
    created: Cell<Option<Place>>,
    joined: Cell<Joined>,
    frames: RefCell<Frames>,
    lost: RefCell<Option<Cause>>,
    finisher: Cell<Option<Finisher>>,
    /// How many `transaction` calls have joined the open one.
    joins: Cell<usize>,
    /// Lost in raw code that may have committed first.
    part_stored: Cell<bool>,
    /// Whether the rollback was asked for by the code of the extent itself.
    quiet: Cell<bool>,
    held_at: Cell<Option<Place>>,
    closed_at: Cell<Option<Place>>,
    close_at_return: Cell<Option<Place>>,
    hook_queue: RefCell<Option<VecDeque<Hook>>>,
    listeners: RefCell<Vec<Rc<dyn SessionListener<C>>>>,
    shared_listeners: Listeners<C>,
    watched: Cell<bool>,
    asking: Cell<bool>,
    me: Weak<Self>,
    /// Where other threads see it; none outside a registry.
    desk: Option<Desk>,
    pub(crate) info: Info,
}

impl<C: SessionConnection> Core<C> {
    pub(crate) fn new(
        engine: Option<Engine<C>>,
        options: SessionOptions,
        table: Option<&Arc<SessionTable>>,
        shared_listeners: Listeners<C>,
        place: Place,
        joined: Option<(C, JoinMode)>,
    ) -> Rc<Self> {
        let id = next_id();
        let desk = table.map(|table| Desk::take(table, id, place));
        let info = Info::default();
        options.fill(&info);
        let (connection, join_mode) = match joined {
            Some((conn, mode)) => (Some(Connection::Joined(Box::new(ConnectionSlot::new(conn)))), mode),
            None => (None, JoinMode::default()),
        };
        Rc::new_cyclic(|me| Self {
            id,
            engine,
            join_mode,
            made_at: place,
            situations: Cell::new(Situations::IDLE.with(Situation::Autocommit, options.transaction.autocommit)),
            connection: RefCell::new(connection),
            current: Cell::new(options.transaction),
            options,
            created: Cell::new(None),
            joined: Cell::new(Joined::No),
            frames: RefCell::default(),
            lost: RefCell::default(),
            finisher: Cell::new(None),
            joins: Cell::new(0),
            part_stored: Cell::new(false),
            quiet: Cell::new(false),
            held_at: Cell::new(None),
            closed_at: Cell::new(None),
            close_at_return: Cell::new(None),
            hook_queue: RefCell::default(),
            listeners: RefCell::default(),
            watched: Cell::new(shared_listeners.is_some()),
            shared_listeners,
            asking: Cell::new(false),
            me: Weak::clone(me),
            desk,
            info,
        })
    }

    // ---- what it is doing ----

    pub(crate) fn has(&self, situation: Situation) -> bool {
        self.situations.get().has(situation)
    }

    fn table(&self) -> Option<&SessionTable> {
        self.desk.as_ref().map(Desk::table)
    }

    fn show(&self, state: SessionState) {
        if let Some(desk) = &self.desk {
            desk.entry.is(state);
        }
    }

    fn show_statement(&self, place: Place) {
        if let Some(desk) = &self.desk {
            desk.entry.statement(place);
        }
    }

    fn set(&self, situation: Situation, on: bool) {
        self.situations.set(self.situations.get().with(situation, on));
    }

    /// Running its end hooks, perhaps those of its own closing.
    pub(crate) fn is_in_hook(&self) -> bool {
        self.has(Situation::InHook)
    }

    /// Open for use by code that asks for the current session.
    pub(crate) fn is_available(&self) -> bool {
        !self.has(Situation::Closed) && !self.has(Situation::InHook)
    }

    /// In the middle of a call of its own: lent, or in its hooks.
    pub(crate) fn is_held(&self) -> bool {
        self.has(Situation::Lent) || self.has(Situation::InHook)
    }

    pub(crate) fn state(&self) -> SessionState {
        let situations = self.situations.get();
        if situations.has(Situation::Closed) {
            SessionState::Closed
        } else if situations.has(Situation::Lost) {
            SessionState::Lost
        } else if situations.has(Situation::Failed) {
            SessionState::Failed
        } else if situations.has(Situation::RollbackOnly) {
            SessionState::RollbackOnly
        } else if situations.has(Situation::Active) {
            SessionState::Active
        } else {
            SessionState::Idle
        }
    }

    pub(crate) fn begun_at(&self) -> Option<Place> {
        self.created.get()
    }

    pub(crate) fn options(&self) -> TransactionOptions {
        self.current.get()
    }

    pub(crate) fn finisher(&self) -> Option<Finisher> {
        self.finisher.get()
    }

    pub(crate) fn set_finisher(&self, finisher: Option<Finisher>) {
        self.finisher.set(finisher);
        self.set(Situation::Owned, finisher.is_some_and(|finisher| finisher.owns));
    }

    pub(crate) fn savepoints(&self) -> usize {
        self.frames.borrow().savepoints.len()
    }

    fn decide(&self, operation: Operation) -> Result<Action> {
        self.situations.get().decide(operation).map_err(|refusal| self.refuse(refusal))
    }

    #[cold]
    fn refuse(&self, refusal: Refusal) -> Error {
        let here = self.made_at;
        match refusal {
            Refusal::SessionClosed => Error::SessionClosed { at: self.closed_at.get().unwrap_or(here) },
            Refusal::InHook => Error::InHook,
            Refusal::InUse => Error::InUse { at: self.held_at.get().unwrap_or(here) },
            Refusal::NoTransaction => Error::NoTransaction,
            Refusal::NotOwner => Error::NotOwner { at: self.finisher.get().map_or(here, |finisher| finisher.place) },
            Refusal::SavepointOpen => {
                Error::SavepointOpen { at: self.frames.borrow_mut().innermost().place.unwrap_or(here) }
            }
            Refusal::TransactionLost => Error::TransactionLost { cause: self.lost_cause() },
            Refusal::PendingRollback => Error::PendingRollback { cause: self.doom() },
        }
    }

    fn lost_cause(&self) -> Cause {
        self.lost.borrow().clone().unwrap_or_else(|| Cause::new(Reason::EndedOutside, self.made_at))
    }

    /// Why the transaction can't be committed.
    fn doom(&self) -> Cause {
        if let Some(lost) = &*self.lost.borrow() {
            return lost.clone();
        }
        self.frames.borrow().doom().cloned().unwrap_or_else(|| Cause::new(Reason::EndedOutside, self.made_at))
    }

    /// Brings the flags in line with the frames.
    fn refresh(&self) {
        let mut frames = self.frames.borrow_mut();
        let has_savepoint = !frames.savepoints.is_empty();
        let root_doomed = frames.root.rollback_only.is_some();
        let innermost = frames.innermost();
        let failed = innermost.failure.is_some();
        let doomed = root_doomed || innermost.rollback_only.is_some();
        drop(frames);
        let situations = self
            .situations
            .get()
            .with(Situation::SavepointOpen, has_savepoint)
            .with(Situation::Failed, failed)
            .with(Situation::RollbackOnly, doomed)
            .with(Situation::Lost, self.lost.borrow().is_some());
        self.situations.set(situations);
        self.show(self.state());
    }

    // ---- listeners ----

    pub(crate) fn listen(&self, listener: Rc<dyn SessionListener<C>>) {
        self.listeners.borrow_mut().push(listener);
        self.watched.set(true);
    }

    fn each_listener(&self, mut tell: impl FnMut(&dyn SessionListener<C>) -> Result<()>) -> Result<()> {
        if !self.watched.get() {
            return Ok(());
        }
        for listener in self.shared_listeners.iter().flat_map(|listeners| listeners.iter()) {
            tell(&**listener)?;
        }
        let own = self.listeners.borrow().clone();
        own.iter().try_for_each(|listener| tell(&**listener))
    }

    fn tell(&self, mut tell: impl FnMut(&dyn SessionListener<C>)) {
        let _ = self.each_listener(|listener| {
            tell(listener);
            Ok(())
        });
    }

    /// Tells that something is over: it can't be used any more, so a handle that a listener kept answers `InHook`.
    fn tell_over(&self, tell: impl FnMut(&dyn SessionListener<C>)) {
        if self.watched.get() {
            let _in_hook = InHook::start(self);
            self.tell(tell);
        }
    }

    fn tell_with_session(&self, mut tell: impl FnMut(&dyn SessionListener<C>, &Session<C>)) {
        if self.watched.get()
            && let Some(session) = self.handle()
        {
            self.tell(|listener| tell(listener, &session));
        }
    }

    /// Asks the listeners about a statement; statements of their own are not asked about again.
    fn tell_statement(&self, statement: &StatementInfo) -> Result<()> {
        if self.asking.replace(true) {
            return Ok(());
        }
        let answer = match self.handle() {
            Some(session) => self.each_listener(|listener| listener.before_statement(&session, statement)),
            None => Ok(()),
        };
        self.asking.set(false);
        answer
    }

    fn transaction_info(&self, depth: usize) -> TransactionInfo {
        TransactionInfo::new(self.id, depth)
    }

    // ---- beginning ----

    /// Makes the logical transaction, which nothing has been sent for.
    fn create(&self, place: Place) {
        if self.created.get().is_none() {
            self.created.set(Some(place));
            let info = self.transaction_info(0);
            self.tell_with_session(|listener, session| listener.after_transaction_create(session, &info));
        }
    }

    /// `begin_with`: options for the transaction that the next statement will begin.
    pub(crate) fn begin_with(&self, options: TransactionOptions, place: Place) -> Result<()> {
        self.decide(Operation::Statement).or_else(|error| match error {
            // An autocommit session may begin a transaction.
            Error::NoTransaction => Ok(Action::Begin),
            other => Err(other),
        })?;
        if let Some(at) = self.created.get() {
            return Err(Error::AlreadyBegun { at });
        }
        options.check()?;
        self.current.set(options);
        self.set(Situation::Autocommit, options.autocommit);
        self.create(place);
        Ok(())
    }

    /// Makes the logical transaction where the session may do that by itself, or an extent has begun one.
    fn autobegin(&self, place: Place) -> Result<()> {
        if !self.options.autobegin && self.created.get().is_none() && self.finisher.get().is_none() {
            return Err(Error::AutobeginDisabled);
        }
        self.create(place);
        Ok(())
    }

    /// Begins for a number of statements at this place: one, or none for a savepoint.
    fn begin_now(&self, place: Place, statements: u64) -> Result<()> {
        let was_begun = self.created.get().is_some();
        self.autobegin(place)?;
        if self.has(Situation::Active) {
            // A listener of the creation has already used the session.
            if statements > 0 {
                self.show_statement(place);
            }
            return Ok(());
        }
        let started = Instant::now();
        if let Err(error) = self.begin_in_table(place, started) {
            if !was_begun && self.savepoints() == 0 && self.frames.borrow().hooks() == 0 {
                // Begun by nothing but this statement, which sent nothing: as if it had not been.
                self.finish(Outcome::RolledBack);
            }
            return Err(error);
        }
        self.situations.set(self.situations.get().with(Situation::Idle, false).with(Situation::Active, true));
        if let Some(desk) = &self.desk {
            desk.entry.begun(place, started, statements);
        }
        self.after_begin(0, place)
    }

    fn begin_in_table(&self, place: Place, started: Instant) -> Result<()> {
        let Some(table) = self.table() else { return self.begin_on_connection(place, started) };
        table.admit()?;
        self.begin_on_connection(place, started).inspect_err(|_| table.ended())
    }

    fn begin_on_connection(&self, place: Place, started: Instant) -> Result<()> {
        let options = self.current.get();
        let Some(engine) = &self.engine else {
            let mut connection = self.connection.borrow_mut();
            let slot =
                connection.as_mut().and_then(Connection::slot).ok_or(Error::SessionClosed { at: self.made_at })?;
            let joined = Joined::begin(slot, self.join_mode, &options)
                .map_err(|error| Error::Statement(Failure::new(error, place)))?;
            self.joined.set(joined);
            return Ok(());
        };
        // Every kept connection may have died while it lay idle, as after a restart of the server.
        let mut dead_at_most = engine.max_size();
        loop {
            let mut lease = engine.lease(&options, place, started, dead_at_most < engine.max_size())?;
            let Some(slot) = lease.slot() else { return Err(Error::ShutDown) };
            let Err(error) = slot.conn.begin(&options, engine.settings(), &mut slot.state) else {
                *self.connection.borrow_mut() = Some(Connection::Leased(lease));
                return Ok(());
            };
            let failure = Failure::new(error, place);
            slot.suspect = true;
            slot.broken = failure.is_closed_connection() || slot.conn.truth() != Truth::Ended;
            drop(lease);
            // Nothing was sent on it but BEGIN, so another one may try.
            if failure.is_closed_connection() && dead_at_most > 0 {
                dead_at_most -= 1;
                continue;
            }
            return Err(Error::Statement(failure));
        }
    }

    /// Tells the listeners that BEGIN or SAVEPOINT was sent; their error undoes it.
    fn after_begin(&self, depth: usize, place: Place) -> Result<()> {
        if !self.watched.get() {
            return Ok(());
        }
        let info = self.transaction_info(depth);
        let told =
            self.lend(place, |slot| self.each_listener(|listener| listener.after_begin(&mut slot.conn, &info)))?;
        if told.is_err() && depth == 0 {
            self.roll_back_everything();
        }
        told
    }

    // ---- statements ----

    /// Lends the connection to `f` and makes sure that nobody else gets at it meanwhile.
    fn lend<R>(&self, place: Place, f: impl FnOnce(&mut ConnectionSlot<C>) -> R) -> Result<R> {
        let mut lending = Lending::start(self, place);
        let result = {
            let mut connection = self.connection.borrow_mut();
            connection.as_mut().and_then(Connection::slot).map(f)
        };
        lending.returned = true;
        drop(lending);
        result.ok_or(Error::SessionClosed { at: self.closed_at.get().unwrap_or(self.made_at) })
    }

    /// Runs a statement, beginning first where that is due.
    pub(crate) fn run<R>(
        &self,
        kind: impl FnOnce() -> StatementKind,
        place: Place,
        f: impl FnOnce(&mut C) -> QueryResult<R>,
    ) -> Result<R> {
        let kind = kind();
        self.admit(kind, place)?;
        self.send(place, kind == StatementKind::Raw, f)
    }

    /// Whether a statement may be sent now, and everything that comes before it.
    fn admit(&self, kind: StatementKind, place: Place) -> Result<()> {
        if self.situations.get() == Situations::READY && !self.watched.get() && !self.current.get().read_only {
            self.show_statement(place);
            return Ok(());
        }
        self.settle_savepoints();
        let action = self.decide(Operation::Statement)?;
        if self.current.get().read_only && kind.is_write() {
            return Err(Error::ReadOnly);
        }
        if self.watched.get() {
            self.tell_statement(&StatementInfo::new(kind, place))?;
        }
        match action {
            // A listener may have begun meanwhile.
            Action::Begin if !self.has(Situation::Active) => self.begin_now(place, 1)?,
            _ => self.show_statement(place),
        }
        Ok(())
    }

    /// `raw`: text that may end the transaction or change a setting; afterwards the connection is asked.
    fn send<R>(&self, place: Place, raw: bool, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        if self.has(Situation::Autocommit) {
            return self.send_alone(place, raw, f);
        }
        let (result, truth) = self.lend(place, |slot| {
            slot.touched |= raw;
            let result = f(&mut slot.conn);
            let truth = match &result {
                Err(error @ (DieselError::DatabaseError(..) | DieselError::BrokenTransactionManager)) => {
                    slot.suspect = true;
                    Some(slot.conn.truth_after(error))
                }
                Ok(_) if raw => Some(slot.conn.truth()),
                _ => None,
            };
            (result, truth)
        })?;
        match result {
            Ok(value) => self.believe(truth, place).map(|()| value),
            Err(error) => Err(self.statement_failed(Failure::new(error, place), truth)),
        }
    }

    /// Raw use of the connection said `Ok`; draws the consequences of what the connection itself says.
    fn believe(&self, truth: Option<Truth>, place: Place) -> Result<()> {
        match truth {
            None | Some(Truth::Open) => Ok(()),
            Some(Truth::Aborted) => {
                self.fail(Cause::new(Reason::EndedOutside, place));
                Err(Error::PendingRollback { cause: self.doom() })
            }
            Some(Truth::Ended | Truth::Broken) => {
                self.lose(Cause::new(Reason::EndedOutside, place));
                Err(Error::TransactionLost { cause: self.lost_cause() })
            }
        }
    }

    /// One statement, one connection, no transaction.
    fn send_alone<R>(&self, place: Place, raw: bool, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        let Some(engine) = &self.engine else {
            return self
                .lend(place, |slot| f(&mut slot.conn))?
                .map_err(|error| Error::Statement(Failure::new(error, place)));
        };
        let options = self.current.get();
        if let Some(table) = self.table() {
            table.admit()?;
        }
        let _end = EndOfStatement(self);
        let lease = engine.lease(&options, place, Instant::now(), false)?;
        *self.connection.borrow_mut() = Some(Connection::Leased(lease));
        let result = self.lend(place, |slot| {
            slot.touched |= raw;
            let result = slot.conn.prepare_autocommit(&options, &mut slot.state).and_then(|()| f(&mut slot.conn));
            if let Err(DieselError::DatabaseError(..) | DieselError::BrokenTransactionManager) = &result {
                slot.suspect = true;
            }
            // What raw code may have left open does not reach the next user. Diesel does not count a BEGIN of text.
            let unwound = crate::backend::unwind_to(&mut slot.conn, 0);
            let ended = if raw { slot.conn.rollback(&slot.state) } else { Ok(()) };
            if unwound.is_err() || ended.is_err() {
                slot.broken = true;
            }
            result
        });
        result?.map_err(|error| Error::Statement(Failure::new(error, place)))
    }

    /// Draws the consequences of a failed statement for its frame and transaction.
    #[cold]
    fn statement_failed(&self, failure: Failure, truth: Option<Truth>) -> Error {
        let gone = failure.is_closed_connection() || matches!(truth, Some(Truth::Ended | Truth::Broken));
        if gone {
            self.lose(Cause::statement(failure.clone()));
            if failure.is_closed_connection() || truth == Some(Truth::Broken) {
                self.discard_connection();
            }
        } else if truth.is_some() && (truth == Some(Truth::Aborted) || !self.native_errors()) {
            self.fail(Cause::statement(failure.clone()));
        }
        Error::Statement(failure)
    }

    fn native_errors(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::native_errors)
    }

    fn discard_connection(&self) {
        if let Some(slot) = self.connection.borrow_mut().as_mut().and_then(Connection::slot) {
            slot.broken = true;
        }
    }

    fn fail(&self, cause: Cause) {
        self.frames.borrow_mut().innermost().failure.get_or_insert(cause);
        self.refresh();
    }

    fn lose(&self, cause: Cause) {
        self.lost.borrow_mut().get_or_insert(cause);
        self.refresh();
    }

    /// Lends the bare connection to the user's code, and looks afterwards at what it did to the transaction.
    ///
    /// `strict`: a database error fails the frame even where the database itself would go on.
    pub(crate) fn run_raw<R>(
        &self,
        kind: StatementKind,
        place: Place,
        strict: bool,
        f: impl FnOnce(&mut C) -> QueryResult<R>,
    ) -> Result<R> {
        self.admit(kind, place)?;
        if self.has(Situation::Autocommit) {
            return self.send(place, true, f);
        }
        let (result, truth) = self.lend(place, |slot| {
            let before = crate::backend::depth(&mut slot.conn);
            slot.touched = true;
            let result = f(&mut slot.conn);
            let left_open = before.and_then(|before| crate::backend::unwind_to(&mut slot.conn, before));
            if let Ok(true) = left_open {
                tracing::warn!(at = %place, "a transaction left open on the bare connection was rolled back");
            }
            let truth = match &result {
                Err(error @ DieselError::DatabaseError(..)) => {
                    slot.suspect = true;
                    slot.conn.truth_after(error)
                }
                _ => slot.conn.truth(),
            };
            (result, truth)
        })?;
        match (result, truth) {
            (Err(error), Truth::Open) => {
                let truth = (strict && matches!(error, DieselError::DatabaseError(..))).then_some(Truth::Open);
                Err(self.statement_failed(Failure::new(error, place), truth))
            }
            (Err(error), truth) => {
                let failure = Failure::new(error, place);
                // The error need not be what ended it: a COMMIT may have gone before.
                self.part_stored.set(truth == Truth::Ended && !failure.ends_transactions());
                Err(self.statement_failed(failure, Some(truth)))
            }
            (Ok(value), truth) => self.believe(Some(truth), place).map(|()| value),
        }
    }

    // ---- savepoints ----

    pub(crate) fn begin_nested(&self, place: Place) -> Result<u64> {
        self.settle_savepoints();
        if self.decide(Operation::Nest)? == Action::Begin {
            self.begin_now(place, 0)?;
        }
        let n = self.savepoints() + 1;
        let sent = self.lend(place, |slot| slot.conn.savepoint(n, &slot.state))?;
        if let Err(error) = sent {
            let truth = self.lend(place, |slot| slot.conn.truth_after(&error))?;
            return Err(self.statement_failed(Failure::new(error, place), Some(truth)));
        }
        let serial = self.frames.borrow_mut().push(place);
        self.refresh();
        let info = self.transaction_info(n);
        self.tell_with_session(|listener, session| listener.after_transaction_create(session, &info));
        if let Err(error) = self.after_begin(n, place) {
            self.roll_back_to(serial);
            return Err(error);
        }
        Ok(serial)
    }

    /// Ends a savepoint by its guard's `commit`.
    pub(crate) fn release(&self, serial: u64, place: Place) -> Result<()> {
        self.settle_savepoints();
        let position = self.frames.borrow().position(serial);
        let Some(position) = position else { return Err(Error::SavepointGone) };
        if self.has(Situation::Lost) {
            // The guard is spent, so its frame goes too: nothing is sent for it.
            self.roll_back_to(serial);
            return Err(Error::TransactionLost { cause: self.lost_cause() });
        }
        if self.has(Situation::Lent) || self.has(Situation::InHook) {
            self.orphan(serial);
            return Err(self.refuse(if self.has(Situation::Lent) { Refusal::InUse } else { Refusal::InHook }));
        }
        let inner = self.frames.borrow().savepoints.get(position + 1).and_then(|frame| frame.place);
        if let Some(at) = inner {
            self.roll_back_to(serial);
            return Err(Error::SavepointOpen { at });
        }
        let doom = self.frames.borrow().savepoints.get(position).and_then(|frame| frame.doom().cloned());
        if let Some(cause) = doom {
            self.roll_back_to(serial);
            return Err(Error::RolledBack { cause });
        }
        let n = position + 1;
        if let Err(error) = self.lend(place, |slot| slot.conn.release(n, &slot.state))? {
            // Our own savepoint is unknown to the server: the transaction it was in is gone.
            let cause = Cause::statement(Failure::new(error, place));
            self.lose(cause.clone());
            self.roll_back_to(serial);
            return Err(Error::TransactionLost { cause });
        }
        {
            let mut frames = self.frames.borrow_mut();
            if let Some(frame) = frames.savepoints.pop() {
                frames.innermost().hooks.extend(frame.hooks);
            }
        }
        self.refresh();
        let info = self.transaction_info(n);
        self.tell_over(|listener| listener.after_release(&info));
        self.tell_over(|listener| listener.after_transaction_end(&info));
        self.settle();
        Ok(())
    }

    /// Marks a savepoint for rollback at the next chance.
    pub(crate) fn orphan(&self, serial: u64) {
        if let Ok(mut frames) = self.frames.try_borrow_mut()
            && let Some(frame) = frames.savepoints.iter_mut().find(|frame| frame.serial == serial)
        {
            frame.orphaned = true;
        }
    }

    /// Rolls back to a savepoint, ends it and all inside it.
    pub(crate) fn roll_back_to(&self, serial: u64) -> Vec<HookError> {
        let position = self.frames.borrow().position(serial);
        let Some(position) = position else { return Vec::new() };
        let n = position + 1;
        let lost = self.has(Situation::Lost);
        if !lost {
            let sent = self.lend(self.made_at, |slot| slot.conn.rollback_to(n, &slot.state));
            if let Ok(Err(error)) = sent {
                self.lose(Cause::statement(Failure::new(error, self.made_at)));
            }
        }
        let ended = self.frames.borrow_mut().savepoints.split_off(position);
        self.refresh();
        for depth in (n..n + ended.len()).rev() {
            let info = self.transaction_info(depth);
            self.tell_over(|listener| listener.after_rollback(&info));
            self.tell_over(|listener| listener.after_transaction_end(&info));
            self.tell_with_session(|listener, session| listener.after_soft_rollback(session, &info));
        }
        self.settle();
        let hooks: Vec<Hook> = ended.into_iter().flat_map(|frame| frame.hooks).collect();
        if lost || self.has(Situation::Lost) {
            // The whole transaction is gone: these hooks run with the root's.
            self.frames.borrow_mut().root.hooks.extend(hooks);
            return Vec::new();
        }
        self.run_hooks(hooks, Outcome::RolledBack)
    }

    /// What a finished lending or hook run left to be done.
    fn settle(&self) {
        if self.has(Situation::Lent) || self.has(Situation::InHook) {
            return;
        }
        if let Some(place) = self.close_at_return.take() {
            self.close(place);
        }
    }

    /// Rolls back savepoints whose guards died where nothing could be sent.
    fn settle_savepoints(&self) {
        if !self.has(Situation::SavepointOpen) || self.has(Situation::Lent) || self.has(Situation::InHook) {
            return;
        }
        let orphan = self.frames.borrow().savepoints.iter().find(|frame| frame.orphaned).map(|frame| frame.serial);
        if let Some(serial) = orphan {
            self.roll_back_to(serial);
        }
    }

    // ---- ending ----

    pub(crate) fn commit(&self, place: Place) -> Result<Committed> {
        self.settle_savepoints();
        let mut action = self.decide(Operation::Commit)?;
        if matches!(action, Action::EndIdle | Action::Commit) && self.watched.get() {
            self.create(place);
            let Some(session) = self.handle() else { return Err(self.refuse(Refusal::SessionClosed)) };
            if let Err(error) = self.each_listener(|listener| listener.before_commit(&session)) {
                let cause = Cause::new(Reason::Refused(Arc::new(error)), place);
                self.roll_back_everything();
                return Err(Error::RolledBack { cause });
            }
            // A listener may have used the session.
            action = self.decide(Operation::Commit)?;
        }
        match action {
            Action::Commit => match self.lend(place, |slot| self.joined.get().commit(slot))? {
                Ok(()) => Ok(Committed::new(self.finish(Outcome::Committed))),
                Err(error) => Err(self.commit_failed(&Failure::new(error, place))),
            },
            Action::Rollback => {
                let cause = self.doom();
                let ended_outside = self.has(Situation::Lost)
                    && (self.part_stored.get() || matches!(cause.reason(), Reason::EndedOutside));
                self.roll_back_everything();
                Err(if ended_outside { Error::ImplicitCommit { cause } } else { Error::RolledBack { cause } })
            }
            _ => Ok(Committed::new(self.finish(Outcome::Committed))),
        }
    }

    /// COMMIT answered with an error: find out what that means, and end the transaction in any case.
    fn commit_failed(&self, failure: &Failure) -> Error {
        let cause = Cause::statement(failure.clone());
        let truth = self.lend(failure.place(), truth_after).unwrap_or(Truth::Broken);
        if failure.is_closed_connection() || truth == Truth::Broken {
            self.discard_connection();
            self.finish(Outcome::Unknown);
            return Error::CommitUnknown { cause };
        }
        self.roll_back_everything();
        Error::RolledBack { cause }
    }

    pub(crate) fn rollback(&self) -> Result<Vec<HookError>> {
        match self.decide(Operation::Rollback)? {
            Action::Rollback | Action::EndIdle => Ok(self.roll_back_everything()),
            _ => Ok(Vec::new()),
        }
    }

    pub(crate) fn invalidate(&self) -> Result<()> {
        let action = self.decide(Operation::Rollback)?;
        if action == Action::Rollback {
            self.discard_connection();
        }
        if matches!(action, Action::Rollback | Action::EndIdle) {
            self.roll_back_everything();
        }
        Ok(())
    }

    /// ROLLBACK, whatever state the transaction is in, and back to idle.
    fn roll_back_everything(&self) -> Vec<HookError> {
        self.end_with_rollback(Joined::roll_back)
    }

    fn end_with_rollback(
        &self,
        roll_back: impl FnOnce(Joined, &mut ConnectionSlot<C>, usize) -> QueryResult<()>,
    ) -> Vec<HookError> {
        if self.has(Situation::Active) {
            let joined = self.joined.get();
            let savepoints = self.savepoints();
            let rolled_back = self.lend(self.made_at, |slot| {
                if !slot.broken && roll_back(joined, slot, savepoints).is_err() {
                    // The server rolls back when the connection closes.
                    slot.broken = true;
                }
            });
            if rolled_back.is_err() {
                tracing::debug!(session = self.id, "rolled back without a connection");
            }
        }
        self.finish(Outcome::RolledBack)
    }

    /// The transaction is over: connection back, state idle, then listeners and hooks.
    fn finish(&self, outcome: Outcome) -> Vec<HookError> {
        let was_active = self.has(Situation::Active);
        let frames = self.frames.borrow_mut().end();
        let depth = frames.as_ref().map_or(0, |frames| frames.savepoints.len());
        self.give_connection_back();
        let created = self.created.take();
        self.lost.take();
        self.joins.set(0);
        self.part_stored.set(false);
        self.quiet.set(false);
        let options = self.options.transaction;
        self.current.set(options);
        let situations = self.situations.get();
        let mut after = Situations::IDLE.with(Situation::Autocommit, options.autocommit);
        for kept in [Situation::Closed, Situation::InHook, Situation::Lent, Situation::Owned] {
            after = after.with(kept, situations.has(kept));
        }
        self.situations.set(after);
        self.show(SessionState::Idle);
        if was_active && let Some(table) = self.table() {
            table.ended();
        }
        if created.is_some() && self.watched.get() {
            self.tell_end(outcome, was_active, depth);
        }
        let errors = match frames {
            Some(frames) => self.run_hooks(frames.into_hooks(), outcome),
            None => Vec::new(),
        };
        self.settle();
        errors
    }

    fn tell_end(&self, outcome: Outcome, was_active: bool, depth: usize) {
        for level in (0..=depth).rev() {
            let info = self.transaction_info(level);
            match outcome {
                Outcome::Committed => self.tell_over(|listener| listener.after_commit(&info)),
                Outcome::RolledBack if was_active => self.tell_over(|listener| listener.after_rollback(&info)),
                _ => {}
            }
            self.tell_over(|listener| listener.after_transaction_end(&info));
            if outcome == Outcome::RolledBack {
                self.tell_with_session(|listener, session| listener.after_soft_rollback(session, &info));
            }
        }
    }

    fn give_connection_back(&self) {
        let mut connection = self.connection.borrow_mut();
        if matches!(&*connection, Some(Connection::Leased(_))) {
            let lease = connection.take();
            drop(connection);
            drop(lease);
        }
        self.joined.set(Joined::No);
    }

    // ---- hooks ----

    pub(crate) fn add_hook(&self, hook: Hook, place: Place) -> Result<Vec<HookError>> {
        if self.has(Situation::Closed) {
            return Err(self.refuse(Refusal::SessionClosed));
        }
        let too_many = || {
            Err(Error::Configuration(
                "a transaction takes at most 1000 hooks: collect the work and register one".into(),
            ))
        };
        if let Some(queue) = &mut *self.hook_queue.borrow_mut() {
            if queue.len() >= HOOKS_AT_MOST {
                return too_many();
            }
            queue.push_back(hook);
            return Ok(Vec::new());
        }
        if self.has(Situation::Autocommit) {
            return Ok(self.run_hooks(vec![hook], Outcome::Committed));
        }
        self.autobegin(place)?;
        let mut frames = self.frames.borrow_mut();
        if frames.hooks() >= HOOKS_AT_MOST {
            return too_many();
        }
        frames.innermost().hooks.push(hook);
        Ok(Vec::new())
    }

    fn run_hooks(&self, hooks: Vec<Hook>, outcome: Outcome) -> Vec<HookError> {
        if hooks.is_empty() {
            return Vec::new();
        }
        let outer = self.hook_queue.borrow_mut().replace(hooks.into());
        let was_in_hook = self.has(Situation::InHook);
        self.set(Situation::InHook, true);
        let mut errors = Vec::new();
        let mut ran = 0;
        loop {
            let next = self.hook_queue.borrow_mut().as_mut().and_then(VecDeque::pop_front);
            let Some(hook) = next else { break };
            if !hook.is_due(outcome) {
                continue;
            }
            ran += 1;
            // Past the limit they are reported instead of run; the last ones had no chance to register more.
            let error = if ran > HOOKS_AT_MOST { Some(hook.not_run()) } else { hook.run(outcome) };
            if let Some(error) = error {
                tracing::error!(session = self.id, error = %error, "a hook failed");
                if let Some(table) = self.table() {
                    table.hook_failed();
                }
                errors.push(error);
            }
        }
        *self.hook_queue.borrow_mut() = outer;
        self.set(Situation::InHook, was_in_hook);
        if !was_in_hook {
            self.settle();
        }
        errors
    }

    // ---- rollback only, joining ----

    pub(crate) fn set_rollback_only(&self, reason: Reason, place: Place) -> Result<()> {
        for (situation, refusal) in [
            (Situation::Closed, Refusal::SessionClosed),
            // The transaction is over; the mark would hit the next one.
            (Situation::InHook, Refusal::InHook),
            // What was sent is stored.
            (Situation::Autocommit, Refusal::NoTransaction),
        ] {
            if self.has(situation) {
                return Err(self.refuse(refusal));
            }
        }
        self.created.set(self.created.get().or(Some(place)));
        {
            let mut frames = self.frames.borrow_mut();
            // Asked for in a savepoint or by a joined transaction, it is news to the extent's own code.
            self.quiet.set(self.quiet.get() || (frames.savepoints.is_empty() && self.joins.get() == 0));
            frames.innermost().rollback_only.get_or_insert(Cause::new(reason, place));
        }
        self.refresh();
        Ok(())
    }

    /// Whether the only reason to roll back is that the extent's own code asked for it.
    pub(crate) fn is_quietly_rollback_only(&self) -> bool {
        let frames = self.frames.borrow();
        self.quiet.get()
            && self.lost.borrow().is_none()
            && frames.root.failure.is_none()
            && frames.root.rollback_only.as_ref().is_some_and(|cause| matches!(cause.reason(), Reason::Requested(_)))
    }

    /// A `transaction` joins: gives the serial of the frame that it will mark if it fails.
    pub(crate) fn join(&self) -> u64 {
        self.joins.set(self.joins.get() + 1);
        self.set(Situation::Owned, true);
        self.frames.borrow_mut().innermost().serial
    }

    /// A joined `transaction` ended; if it failed, the frame that it joined can only be rolled back.
    pub(crate) fn leave(&self, serial: u64, failed: Option<Reason>, place: Place) {
        self.joins.set(self.joins.get().saturating_sub(1));
        let owned = self.joins.get() > 0 || self.finisher.get().is_some_and(|finisher| finisher.owns);
        self.set(Situation::Owned, owned);
        let Some(reason) = failed else { return };
        if let Some(frame) = self.frames.borrow_mut().by_serial(serial) {
            frame.rollback_only.get_or_insert(Cause::new(reason, place));
        }
        self.refresh();
    }

    // ---- closing ----

    /// Rolls back, gives the connection back and closes every handle. What holds the session now finishes first.
    pub(crate) fn close(&self, place: Place) -> Vec<HookError> {
        match self.situations.get().decide(Operation::Close) {
            Ok(Action::Defer) => {
                self.close_at_return.set(Some(place));
                Vec::new()
            }
            _ if self.has(Situation::Closed) => Vec::new(),
            _ => {
                self.closed_at.set(Some(place));
                self.set(Situation::Closed, true);
                let errors = if self.is_pristine() { Vec::new() } else { self.end_with_rollback(Joined::close) };
                self.depart();
                errors
            }
        }
    }

    pub(crate) fn has_closed(&self) -> bool {
        self.has(Situation::Closed)
    }

    /// The thread ended without `remove()`.
    pub(crate) fn abandon_with_thread(&self) {
        if !self.has(Situation::Closed) {
            if let Some(table) = self.table() {
                table.ended_with_its_thread();
            }
            self.abandon();
        }
    }

    /// Whether nothing was begun since the last end, not even by a hook: then there is nothing to end.
    fn is_pristine(&self) -> bool {
        self.created.get().is_none() && !self.has(Situation::Active)
    }

    fn depart(&self) {
        self.show(SessionState::Closed);
    }

    pub(crate) fn closed_at(&self) -> Option<Place> {
        self.closed_at.get().or(self.close_at_return.get())
    }

    /// The end without a goodbye: a dropped session, a dead thread. Never waits for a network, never commits, never panics.
    pub(crate) fn abandon(&self) {
        if self.has(Situation::Closed) {
            return;
        }
        self.closed_at.set(Some(self.made_at));
        self.set(Situation::Closed, true);
        let was_active = self.has(Situation::Active);
        if was_active {
            tracing::warn!(session = self.id, made_at = %self.made_at, "a session with an open transaction was dropped: rolled back");
        }
        if let Ok(mut connection) = self.connection.try_borrow_mut() {
            if let Some(slot) = connection.as_mut().and_then(Connection::slot) {
                let joined = self.joined.get();
                if was_active && (C::is_remote() || joined.close(slot, 0).is_err()) {
                    slot.broken = true;
                }
            }
            let connection = connection.take();
            drop(connection);
        }
        if let Some(table) = self.table()
            && was_active
        {
            table.ended();
        }
        self.depart();
        // Hooks are dropped, not run: what they captured goes with them.
        let frames = self.frames.try_borrow_mut().map(|mut frames| std::mem::take(&mut *frames));
        drop(frames);
    }

    pub(crate) fn take_joined_connection(&self) -> Option<C> {
        match self.connection.try_borrow_mut().ok()?.take() {
            Some(Connection::Joined(slot)) => Some(slot.conn),
            _ => None,
        }
    }

    /// A handle for listeners; none while the last handle is being dropped.
    fn handle(&self) -> Option<Session<C>> {
        self.me.upgrade().map(Session::of)
    }
}

impl<C: SessionConnection> Drop for Core<C> {
    fn drop(&mut self) {
        self.abandon();
        if let Some(desk) = self.desk.take() {
            desk.leave();
        }
    }
}

/// Gives the connection back when a statement without a transaction ends, also by a panic.
struct EndOfStatement<'a, C: SessionConnection>(&'a Core<C>);

impl<C: SessionConnection> Drop for EndOfStatement<'_, C> {
    fn drop(&mut self) {
        self.0.give_connection_back();
        if let Some(table) = self.0.table() {
            table.ended();
        }
    }
}

/// Listeners hear of something that is over; ends with the call, whatever way that ends.
struct InHook<'a, C: SessionConnection> {
    core: &'a Core<C>,
    outer: bool,
}

impl<'a, C: SessionConnection> InHook<'a, C> {
    fn start(core: &'a Core<C>) -> Self {
        let outer = core.has(Situation::InHook);
        core.set(Situation::InHook, true);
        Self { core, outer }
    }
}

impl<C: SessionConnection> Drop for InHook<'_, C> {
    fn drop(&mut self) {
        self.core.set(Situation::InHook, self.outer);
    }
}

/// The connection is lent; ends with the call, whatever way that ends.
struct Lending<'a, C: SessionConnection> {
    core: &'a Core<C>,
    place: Place,
    outer: Option<Place>,
    returned: bool,
}

impl<'a, C: SessionConnection> Lending<'a, C> {
    fn start(core: &'a Core<C>, place: Place) -> Self {
        let outer = core.held_at.replace(Some(place));
        core.set(Situation::Lent, true);
        Self { core, place, outer, returned: false }
    }
}

impl<C: SessionConnection> Drop for Lending<'_, C> {
    fn drop(&mut self) {
        self.core.held_at.set(self.outer);
        self.core.set(Situation::Lent, self.outer.is_some());
        // Without a transaction there is nothing that could be undone.
        if !self.returned && !self.core.has(Situation::Autocommit) {
            self.core.fail(Cause::new(Reason::Panicked, self.place));
        }
        if self.outer.is_none() && self.core.close_at_return.get().is_some() {
            self.core.settle();
        }
    }
}
