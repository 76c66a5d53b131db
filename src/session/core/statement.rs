//! Sending statements, and finding out what a failed or raw one did to the transaction.

use std::time::{Duration, Instant};

use diesel::result::{Error as DieselError, QueryResult};

use super::{Connection, Core};
use crate::backend::{Limits, Phase, SessionConnection, Truth};
use crate::engine::{ConnectionSlot, Engine};
use crate::error::{Cause, Error, ErrorClass, Failure, Reason, Result};
use crate::options::TransactionOptions;
use crate::place::Place;
use crate::session::events::{StatementInfo, StatementKind};
use crate::session::state::{Action, Operation, Situation, Situations};
use crate::unit_of_work::UnitOfWork;

impl<C: SessionConnection> Core<C> {
    /// Lends the connection to `f` and makes sure that nobody else gets at it meanwhile.
    pub(super) fn lend<R>(&self, place: Place, f: impl FnOnce(&mut ConnectionSlot<C>) -> R) -> Result<R> {
        self.origin.check()?;
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
        let road = match kind {
            StatementKind::Select => Road::Query,
            StatementKind::Raw => Road::Statement,
            _ => Road::Typed,
        };
        self.send(place, road, f)
    }

    /// Whether a statement may be sent now, and everything that comes before it.
    pub(super) fn admit(&self, kind: StatementKind, place: Place) -> Result<()> {
        self.origin.check()?;
        let unit = self.known_unit();
        if kind != StatementKind::Select {
            self.wrote.set(true);
        }
        let wants_a_look = unit.is_some_and(|unit| unit.wants_a_look() && unit.quiet.get() == 0);
        let is_plain = !wants_a_look && !self.watched.get() && !self.current.get().read_only && !self.is_bounded.get();
        // It may change any row.
        let changed = unit.filter(|_| kind != StatementKind::Select).map(UnitOfWork::owner);
        if self.situations.get() == Situations::READY && is_plain {
            if let Some(owner) = changed {
                owner.next_epoch();
            }
            self.show_statement(place);
            return Ok(());
        }
        self.settle_savepoints();
        let mut action = self.decide(Operation::Statement)?;
        if self.current.get().read_only && kind.is_write() {
            return Err(Error::ReadOnly);
        }
        if wants_a_look {
            self.flush(place)?;
            action = self.decide(Operation::Statement)?;
        }
        if let Some(owner) = changed {
            owner.next_epoch();
        }
        if self.watched.get() {
            self.tell_statement(&StatementInfo::new(kind, place))?;
            // A listener may have used the session.
            action = self.decide(Operation::Statement)?;
        }
        if self.is_bounded.get() {
            self.keep_time(place)?;
        }
        match action {
            Action::Begin => {
                self.begin_now(place, 1)?;
                // So may one that heard of the beginning.
                if self.watched.get() {
                    self.decide(Operation::Statement)?;
                }
            }
            _ => self.show_statement(place),
        }
        Ok(())
    }

    /// After text that may end the transaction or change a setting the connection is asked.
    pub(super) fn send<R>(&self, place: Place, road: Road, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        if self.has(Situation::Autocommit) {
            return self.send_alone(place, road, f);
        }
        let raw = road.is_raw();
        if raw {
            self.mark(place)?;
        }
        let (result, truth, may_have_committed) = self.lend(place, |slot| {
            let result = if raw { slot.raw(f) } else { slot.statement(f) };
            // The user's code may have forked.
            if (raw || result.is_err()) && self.is_elsewhere() {
                return (result, None, false);
            }
            let may_have_committed = raw && slot.may_have_committed();
            let truth = match &result {
                // What was set first is missed now if the text ended the transaction.
                _ if raw => Some(slot.truth_since_mark()),
                Err(error @ (DieselError::DatabaseError(..) | DieselError::BrokenTransactionManager)) => {
                    Some(slot.truth_after(error))
                }
                _ => None,
            };
            slot.suspect |= is_the_databases(&result);
            // What was refused before it was sent harms nothing.
            let truth = truth.filter(|truth| result.is_ok() || *truth != Truth::Open || is_the_databases(&result));
            (result, truth, may_have_committed)
        })?;
        self.origin.check()?;
        match result {
            Ok(value) => {
                self.went_well();
                self.believe(truth, may_have_committed, place).map(|()| value)
            }
            Err(error) => Err(self.failed_on(may_have_committed, Failure::new::<C>(error, place), truth)),
        }
    }

    /// Sets what raw use must leave in place.
    fn mark(&self, place: Place) -> Result<()> {
        let marked = self.lend(place, ConnectionSlot::mark)?;
        marked.map_err(|error| self.own_statement_failed(error, place))
    }

    /// A statement of the session's own failed: a savepoint, a time-out.
    pub(super) fn own_statement_failed(&self, error: DieselError, place: Place) -> Error {
        let truth = self.lend(place, |slot| slot.truth_after(&error)).unwrap_or(Truth::Broken);
        self.statement_failed(Failure::new::<C>(error, place), Some(truth))
    }

    /// Raw use of the connection said `Ok`; draws the consequences of what the connection itself says.
    pub(super) fn believe(&self, truth: Option<Truth>, may_have_committed: bool, place: Place) -> Result<()> {
        match truth {
            None | Some(Truth::Open) => Ok(()),
            Some(Truth::Aborted) if !may_have_committed => {
                self.fail(Cause::new(Reason::Swallowed, place));
                Err(Error::PendingRollback { cause: self.doom() })
            }
            // An aborted transaction does not say whether it is the one that was begun.
            Some(Truth::Ended | Truth::Broken | Truth::Aborted) => {
                let cause = Cause::new(Reason::EndedOutside, place);
                self.lose(if may_have_committed { cause.in_doubt() } else { cause });
                Err(Error::TransactionLost { cause: self.lost_cause() })
            }
        }
    }

    /// One statement, one connection, no transaction.
    pub(super) fn send_alone<R>(
        &self,
        place: Place,
        road: Road,
        f: impl FnOnce(&mut C) -> QueryResult<R>,
    ) -> Result<R> {
        let raw = road.is_raw();
        let Some(engine) = &self.engine else {
            return self
                .lend(place, |slot| slot.statement(f))?
                .map_err(|error| Error::Statement(Failure::new::<C>(error, place)));
        };
        let options = self.current.get();
        if let Some(table) = self.table() {
            table.admit()?;
        }
        let _end = EndOfStatement(self);
        let lease = engine.lease(&options, place, Instant::now(), Duration::MAX, false)?;
        *self.connection.borrow_mut() = Some(Connection::Leased(lease));
        let sent = self.lend(place, |slot| {
            // A server can't be told to refuse the writes of one statement, but those of a transaction.
            let prepared = if raw && options.read_only && C::is_remote() {
                slot.begin(&TransactionOptions::new().read_only(), engine.settings(), Limits::default())
            } else {
                slot.prepare_autocommit(&options, engine.settings(), Limits::default())
            };
            let result = prepared.and_then(|()| if raw { slot.raw(f) } else { slot.statement(f) });
            if self.is_elsewhere() {
                return Alone { result, lives: false, is_harmful: false, was_open: false };
            }
            let is_harmful = raw && slot.may_have_committed();
            let lives = result.as_ref().is_err_and(|error| slot.lives_after(error));
            slot.suspect |= is_the_databases(&result);
            // What raw code may have left open does not reach the next user.
            match slot.end_autocommit(result.is_ok(), raw, is_harmful && !options.read_only) {
                Ok(was_open) => Alone { result, lives, is_harmful, was_open },
                Err(error) => {
                    slot.broken = true;
                    // In a sandbox it was this that stored it.
                    let result = if slot.is_sandboxed() { result.and(Err(error)) } else { result };
                    Alone { result, lives, is_harmful, was_open: false }
                }
            }
        })?;
        self.origin.check()?;
        match sent.result {
            Ok(_) if sent.was_open => Err(Error::RolledBack { cause: Cause::new(Reason::LeftOpen, place) }),
            Ok(value) => Ok(value),
            Err(error) => {
                let failure = Failure::new::<C>(error, place);
                let failure = if sent.lives { failure.of_a_live_connection::<C>(Phase::Statement) } else { failure };
                if options.read_only || road == Road::Query {
                    return Err(Error::Statement(failure));
                }
                // Each statement is its own COMMIT: what is not known of a COMMIT is not known of these.
                let has_many = sent.is_harmful || matches!(road, Road::Statements | Road::Closure);
                let failure = failure.in_autocommit(has_many);
                Err(match failure.class() {
                    ErrorClass::Ambiguous => Error::CommitUnknown { cause: Cause::statement(failure) },
                    _ => Error::Statement(failure),
                })
            }
        }
    }

    /// Draws the consequences of a failed statement of the session's own for its frame and transaction.
    pub(super) fn statement_failed(&self, failure: Failure, truth: Option<Truth>) -> Error {
        self.failed_on(false, failure, truth)
    }

    #[cold]
    fn failed_on(&self, may_have_committed: bool, failure: Failure, truth: Option<Truth>) -> Error {
        let failure = if self.lives_after(&failure) {
            failure.of_a_live_connection::<C>(Phase::Statement)
        } else if truth == Some(Truth::Broken) {
            failure.by_a_dead_connection()
        } else {
            failure
        };
        let failure = if truth == Some(Truth::Ended) { failure.beyond_its_statement() } else { failure };
        let is_dead = failure.class() == ErrorClass::Connection;
        let is_broken = is_dead || truth == Some(Truth::Broken);
        // An aborted transaction does not say whether it is the one that was begun (PostgreSQL).
        let is_another = may_have_committed && truth == Some(Truth::Aborted);
        if is_broken || is_another || truth == Some(Truth::Ended) {
            let cause = Cause::statement(failure.clone());
            // The error need not be what ended it: a COMMIT may have gone before.
            self.lose(if may_have_committed { cause.in_doubt() } else { cause });
            if is_broken {
                self.discard_connection();
            }
            if may_have_committed {
                let error = Error::TransactionLost { cause: self.lost_cause() };
                self.note(&error);
                return error;
            }
        } else if truth.is_some() && (truth == Some(Truth::Aborted) || !self.native_errors()) {
            self.fail(Cause::statement(failure.clone()));
        }
        let error = Error::Statement(failure);
        self.note(&error);
        error
    }

    /// Whether the connection answers after a failure that reads as if it had died.
    pub(super) fn lives_after(&self, failure: &Failure) -> bool {
        matches!(failure.class(), ErrorClass::Connection | ErrorClass::Ambiguous)
            && self.lend(failure.place(), |slot| slot.lives_after(failure.error())).unwrap_or(false)
    }

    pub(super) fn native_errors(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::native_errors)
    }

    /// Whether what ran last with the bare connection may have committed.
    fn may_have_committed(&self) -> bool {
        let mut connection = self.connection.borrow_mut();
        connection.as_mut().and_then(Connection::slot).is_some_and(|slot| slot.touched && slot.may_have_committed())
    }

    pub(super) fn discard_connection(&self) {
        if let Some(slot) = self.connection.borrow_mut().as_mut().and_then(Connection::slot) {
            slot.broken = true;
        }
    }

    pub(super) fn fail(&self, cause: Cause) {
        self.frames.borrow_mut().innermost().failure.get_or_insert(cause);
        self.refresh();
    }

    pub(super) fn lose(&self, cause: Cause) {
        self.note(&Error::TransactionLost { cause: cause.clone() });
        self.lost.borrow_mut().get_or_insert(cause);
        self.refresh();
    }

    /// Lends the bare connection to the user's code, and looks afterwards at what it did to the transaction.
    ///
    /// A database error in text fails the frame even where the database itself would go on; in a closure the database's own
    /// rules hold.
    pub(crate) fn run_raw<R>(&self, road: Road, place: Place, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
        let is_closure = road == Road::Closure;
        self.admit(if is_closure { StatementKind::Connection } else { StatementKind::Raw }, place)?;
        if self.has(Situation::Autocommit) {
            return self.send(place, road, f);
        }
        self.mark(place)?;
        let (result, truth, may_have_committed, was_open) = self.lend(place, |slot| {
            let before = crate::backend::depth(&mut slot.conn);
            let result = slot.raw(f);
            if self.is_elsewhere() {
                return (result, Truth::Open, false, false);
            }
            let may_have_committed = slot.may_have_committed();
            let left_open = before.and_then(|before| crate::backend::unwind_to(&mut slot.conn, before));
            slot.suspect |= is_the_databases(&result);
            (result, slot.truth_since_mark(), may_have_committed, left_open.is_ok_and(|was_open| was_open))
        })?;
        self.origin.check()?;
        match (result, truth) {
            (Err(error), Truth::Open) => {
                let truth = (!is_closure && matches!(error, DieselError::DatabaseError(..))).then_some(Truth::Open);
                Err(self.failed_on(may_have_committed, Failure::new::<C>(error, place), truth))
            }
            (Err(error), truth) => {
                Err(self.failed_on(may_have_committed, Failure::new::<C>(error, place), Some(truth)))
            }
            // What the closure left open was undone, and it believes that it is not.
            (Ok(_), Truth::Open) if was_open => {
                self.fail(Cause::new(Reason::LeftOpen, place));
                Err(Error::PendingRollback { cause: self.doom() })
            }
            (Ok(value), truth) => {
                self.went_well();
                self.believe(Some(truth), may_have_committed, place).map(|()| value)
            }
        }
    }
}

/// What came of a statement without a transaction.
struct Alone<R> {
    result: QueryResult<R>,
    /// Whether the connection answers after an error that reads as if it had died.
    lives: bool,
    is_harmful: bool,
    was_open: bool,
}

/// Whether the database said no, and not Diesel.
fn is_the_databases<R>(result: &QueryResult<R>) -> bool {
    matches!(result, Err(DieselError::DatabaseError(..) | DieselError::BrokenTransactionManager))
}

/// How a statement reached the database: what the session knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// A SELECT of Diesel's query builder.
    Query,
    /// Another statement of the query builder.
    Typed,
    /// One statement of text.
    Statement,
    /// Several statements of text.
    Statements,
    /// A closure of the user's with the bare connection.
    Closure,
}

impl Road {
    pub(crate) fn of_text(text: &str) -> Self {
        let has_more = text.trim_end().trim_end_matches(';').contains(';');
        if has_more { Self::Statements } else { Self::Statement }
    }

    /// Whether the text may do anything, also to the transaction and the connection.
    fn is_raw(self) -> bool {
        !matches!(self, Self::Query | Self::Typed)
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
            let cause = Cause::new(Reason::Panicked, self.place);
            if self.core.may_have_committed() {
                self.core.discard_connection();
                self.core.lose(cause.in_doubt());
            } else {
                self.core.fail(cause);
            }
        } else if !self.returned {
            // A BEGIN in raw text may be open, which MySQL would commit at the next user's BEGIN.
            self.core.discard_connection();
        }
        if self.outer.is_none() && self.core.close_at_return.get().is_some() {
            self.core.settle();
        }
    }
}
