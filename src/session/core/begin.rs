//! From idle to active: the logical transaction, then BEGIN on a connection.

use std::time::Instant;

use super::{Connection, Core};
use crate::backend::SessionConnection;
use crate::error::{Error, ErrorClass, Failure, Result};
use crate::options::TransactionOptions;
use crate::place::Place;
use crate::session::hooks::Outcome;
use crate::session::join::Joined;
use crate::session::state::{Action, Operation, Situation};
use crate::session::table::SessionTable;
use crate::unit_of_work::UnitOfWork;

impl<C: SessionConnection> Core<C> {
    /// Makes the logical transaction, which nothing has been sent for.
    pub(super) fn create(&self, place: Place) {
        if self.created.get().is_none() {
            self.created.set(Some(place));
            self.start_clock();
            let info = self.transaction_info(0);
            let _ = self.ask_listeners(|listener, session| {
                listener.after_transaction_create(session, &info);
                Ok(())
            });
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
        options.check::<C>()?;
        self.current.set(options);
        self.set(Situation::Autocommit, options.autocommit);
        self.create(place);
        Ok(())
    }

    /// Makes the logical transaction where the session may do that by itself, or an extent has begun one.
    pub(super) fn autobegin(&self, place: Place) -> Result<()> {
        if !self.options.autobegin && self.created.get().is_none() && self.finisher.get().is_none() {
            return Err(Error::AutobeginDisabled);
        }
        self.create(place);
        Ok(())
    }

    /// Begins for a number of statements at this place: one, or none for a savepoint.
    pub(super) fn begin_now(&self, place: Place, statements: u64) -> Result<()> {
        let was_begun = self.created.get().is_some();
        self.autobegin(place)?;
        if self.has(Situation::Active) {
            // A listener of the creation has already used the session, and perhaps worn its transaction out.
            self.decide(Operation::Statement)?;
            if statements > 0 {
                self.show_statement(place);
            }
            return Ok(());
        }
        let started = Instant::now();
        let begun = self.in_time(place).and_then(|()| self.begin_in_table(place, started));
        if let Err(error) = begun {
            self.note(&error);
            let is_marked = self.has(Situation::RollbackOnly)
                || self.joins.get() > 0
                || self.known_unit().is_some_and(UnitOfWork::has_work);
            if !was_begun && !is_marked && self.savepoints() == 0 && self.frames.borrow().hooks() == 0 {
                // Begun by nothing but this statement, which sent nothing: as if it had not been. The unit of work that it
                // is part of goes on, and its clock with it.
                let deadline = self.has(Situation::Owned).then(|| self.deadline()).flatten();
                self.finish(Outcome::RolledBack);
                self.set_deadline(deadline);
            }
            return Err(error);
        }
        self.situations.set(self.situations.get().with(Situation::Idle, false).with(Situation::Active, true));
        if let Some(desk) = &self.desk {
            desk.entry.begun(place, started, statements);
        }
        tracing::trace!(session = self.id, at = %place, "begin");
        self.after_begin(0)
    }

    pub(super) fn begin_in_table(&self, place: Place, started: Instant) -> Result<()> {
        let Some(table) = self.table() else { return self.begin_on_connection(place, started) };
        table.admit()?;
        let not_begun = EndInTable(table);
        self.begin_on_connection(place, started)?;
        std::mem::forget(not_begun);
        Ok(())
    }

    pub(super) fn begin_on_connection(&self, place: Place, started: Instant) -> Result<()> {
        if let Some(share) = &self.share {
            return self.begin_in(share, place);
        }
        let options = self.current.get();
        let Some(engine) = &self.engine else {
            let limits = self.limits();
            let mut connection = self.connection.borrow_mut();
            let slot =
                connection.as_mut().and_then(Connection::slot).ok_or(Error::SessionClosed { at: self.made_at })?;
            let joined = Joined::begin(slot, self.join_mode, &options, limits)
                .map_err(|error| Error::Statement(Failure::new::<C>(error, place)))?;
            self.joined.set(joined);
            return Ok(());
        };
        // Every kept connection may have died while it lay idle, as after a restart of the server.
        let mut dead_at_most = engine.max_size();
        loop {
            let wary = dead_at_most < engine.max_size();
            let mut lease = engine.lease(&options, place, started, self.patience(), wary)?;
            let limits = self.limits();
            let beginning = lease.beginning();
            let Some(slot) = lease.slot() else { return Err(Error::ShutDown) };
            let begun = slot.begin(&options, engine.settings(), limits);
            drop(beginning);
            let Err(error) = begun else {
                *self.connection.borrow_mut() = Some(Connection::Leased(lease));
                return Ok(());
            };
            let failure = Failure::new::<C>(error, place);
            let is_dead = failure.class() == ErrorClass::Connection;
            slot.suspect = true;
            slot.broken |= is_dead || !slot.is_on_the_ground();
            drop(lease);
            // Nothing was sent on it but BEGIN, so another one may try; a file that can't be used is no better on another.
            if is_dead && C::is_remote() && dead_at_most > 0 {
                dead_at_most -= 1;
                continue;
            }
            return Err(Error::Statement(failure));
        }
    }

    /// Tells the listeners that BEGIN or SAVEPOINT was sent; their error undoes it.
    pub(super) fn after_begin(&self, depth: usize) -> Result<()> {
        if !self.watched.get() {
            return Ok(());
        }
        let info = self.transaction_info(depth);
        let told = self.ask_listeners(|listener, session| listener.after_begin(session, &info));
        self.origin.check()?;
        if told.is_err() && depth == 0 {
            self.roll_back_everything();
        }
        told
    }
}

/// Takes a transaction off the table, unless forgotten.
struct EndInTable<'a>(&'a SessionTable);

impl Drop for EndInTable<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}
