//! Sending statements, and finding out what a failed or raw one did to the transaction.

use std::time::Instant;

use diesel::result::{Error as DieselError, QueryResult};

use super::{Connection, Core};
use crate::backend::{SessionConnection, Truth};
use crate::engine::{ConnectionSlot, Engine};
use crate::error::{Cause, Error, Failure, Reason, Result};
use crate::options::TransactionOptions;
use crate::place::Place;
use crate::session::events::{StatementInfo, StatementKind};
use crate::session::state::{Action, Operation, Situation, Situations};

impl<C: SessionConnection> Core<C> {
    /// Lends the connection to `f` and makes sure that nobody else gets at it meanwhile.
    pub(super) fn lend<R>(&self, place: Place, f: impl FnOnce(&mut ConnectionSlot<C>) -> R) -> Result<R> {
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
    pub(super) fn admit(&self, kind: StatementKind, place: Place) -> Result<()> {
        if cfg!(debug_assertions) && kind != StatementKind::Select {
            self.wrote.set(true);
        }
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
    pub(super) fn send<R>(&self, place: Place, raw: bool, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
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
    pub(super) fn believe(&self, truth: Option<Truth>, place: Place) -> Result<()> {
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
    pub(super) fn send_alone<R>(&self, place: Place, raw: bool, f: impl FnOnce(&mut C) -> QueryResult<R>) -> Result<R> {
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
            // A server can't be told to refuse the writes of one statement, but those of a transaction.
            let prepared = if raw && options.read_only && C::is_remote() {
                slot.conn.begin(&TransactionOptions::new().read_only(), engine.settings(), &mut slot.state)
            } else {
                slot.conn.prepare_autocommit(&options, &mut slot.state)
            };
            let result = prepared.and_then(|()| f(&mut slot.conn));
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
    pub(super) fn statement_failed(&self, failure: Failure, truth: Option<Truth>) -> Error {
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

    pub(super) fn native_errors(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::native_errors)
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
            self.core.fail(Cause::new(Reason::Panicked, self.place));
        } else if !self.returned {
            // A BEGIN in raw text may be open, which MySQL would commit at the next user's BEGIN.
            self.core.discard_connection();
        }
        if self.outer.is_none() && self.core.close_at_return.get().is_some() {
            self.core.settle();
        }
    }
}
