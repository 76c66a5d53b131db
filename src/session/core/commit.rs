//! COMMIT, and what its answer means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Core;
use crate::backend::{JournalMode, Phase, SessionConnection, Truth, Verdict, Witness};
use crate::engine::{ConnectionSlot, Engine};
use crate::error::{Cause, Error, ErrorClass, Failure, Reason, Result};
use crate::place::Place;
use crate::session::hooks::{Outcome, Report};
use crate::session::join::Joined;
use crate::session::state::{Action, Operation, Situation};
use crate::unit_of_work::UnitOfWork;

/// How long to wait before a COMMIT that met a lock is sent again.
const COMMIT_AGAIN: Duration = Duration::from_millis(2);

/// A listener that changes something after each flush does not go on for ever (as SQLAlchemy's).
const FLUSHES_AT_MOST: usize = 100;

impl<C: SessionConnection> Core<C> {
    pub(crate) fn commit(&self, place: Place) -> Result<Report> {
        self.settle_savepoints();
        let mut action = self.decide(Operation::Commit)?;
        self.refuse_guards(action)?;
        if matches!(action, Action::EndIdle | Action::Commit) && self.watched.get() {
            self.create(place);
            if let Err(error) = self.ask_listeners(|listener, session| listener.before_commit(session)) {
                let cause = Cause::new(Reason::Refused(Arc::new(error)), place);
                return Err(self.rolled_back(Error::RolledBack { cause }));
            }
            // A listener may have used the session.
            action = self.decide(Operation::Commit)?;
        }
        let mut flushes = 0;
        while matches!(action, Action::EndIdle | Action::Commit) && self.known_unit().is_some_and(UnitOfWork::has_work)
        {
            if flushes == FLUSHES_AT_MOST {
                let cause = Cause::new(Reason::Refused(Arc::new(Error::EndlessFlush)), place);
                return Err(self.rolled_back(Error::RolledBack { cause }));
            }
            flushes += 1;
            if let Err(error) = self.flush(place) {
                let is_refused = error.class() == ErrorClass::Usage && !self.has(Situation::Failed);
                if is_refused {
                    return Err(error);
                }
                let cause = self.doom_by(error, place);
                return Err(self.rolled_back(Error::RolledBack { cause }));
            }
            action = self.decide(Operation::Commit)?;
        }
        if action == Action::Commit && self.is_bounded.get() && self.in_time(place).is_err() {
            action = Action::Rollback;
        }
        match action {
            Action::Commit => self.commit_now(place),
            Action::Rollback => {
                let cause = self.doom();
                let error = if self.has(Situation::Lost) && cause.leaves_doubt() {
                    Error::ImplicitCommit { cause }
                } else {
                    Error::RolledBack { cause }
                };
                Err(self.rolled_back(error))
            }
            _ => Ok(Report::new(self.finish(Outcome::Committed))),
        }
    }

    /// Rolls back; gives the error that says so.
    fn rolled_back(&self, error: Error) -> Error {
        self.decide_about(&error);
        self.roll_back_everything();
        error
    }

    fn commit_now(&self, place: Place) -> Result<Report> {
        let witness = match self.witness(place) {
            Ok(witness) => witness,
            Err(cause) => return Err(self.rolled_back(Error::RolledBack { cause })),
        };
        if self.joined.get() == Joined::RollbackOnly && self.lend(place, ConnectionSlot::truth)? == Truth::Aborted {
            // Nothing of it will be stored; its owner ends it.
            let error = Error::RolledBack { cause: Cause::new(Reason::Swallowed, place) };
            self.decide_about(&error);
            self.finish(Outcome::RolledBack);
            return Err(error);
        }
        let again_until = self.commits_again_until();
        loop {
            let Err(error) = self.lend(place, |slot| self.joined.get().commit(slot))? else { break };
            let failure = Failure::of_commit::<C>(error, place);
            let truth = self.lend(place, |slot| slot.truth_after(failure.error())).unwrap_or(Truth::Broken);
            let failure =
                if self.lives_after(&failure) { failure.of_a_live_connection::<C>(Phase::Commit) } else { failure };
            if truth == Truth::Open
                && failure.class() == ErrorClass::Retryable
                && again_until.is_some_and(|until| Instant::now() + COMMIT_AGAIN < until)
            {
                std::thread::sleep(COMMIT_AGAIN);
                continue;
            }
            return self.commit_failed(failure, truth, witness.as_ref());
        }
        if witness.is_some() && self.engine.as_ref().is_some_and(Engine::is_time_to_prune) {
            // The commit stands, whatever comes of this.
            let _ = self.lend(place, ConnectionSlot::prune_witnesses);
        }
        Ok(Report::new(self.finish(Outcome::Committed)))
    }

    /// Until when a COMMIT that meets a lock is sent again. With a rollback journal SQLite's COMMIT waits for readers; its
    /// BUSY leaves the transaction open, so it is the COMMIT that has to be repeated, not the work (SQLite docs, "BEGIN
    /// TRANSACTION"). With a write-ahead log it waits for nobody.
    fn commits_again_until(&self) -> Option<Instant> {
        let settings = self.engine.as_ref()?.settings();
        if C::is_remote() || settings.journal_mode == JournalMode::Wal {
            return None;
        }
        let until = Instant::now().checked_add(settings.busy_timeout)?;
        Some(self.deadline().map_or(until, |deadline| until.min(deadline.at)))
    }

    /// Notes what the outcome can be found out by, where that was asked for and something was written.
    fn witness(&self, place: Place) -> Result<Option<Witness>, Cause> {
        // A SELECT may call a function that writes.
        let wanted = (self.wrote.get() || C::knows_what_wrote())
            && !self.current.get().read_only
            && matches!(self.joined.get(), Joined::No)
            && self.engine.as_ref().is_some_and(Engine::verifies_commits);
        if !wanted {
            return Ok(None);
        }
        let asked = self.lend(place, |slot| {
            slot.witness().map_err(|error| {
                let truth = slot.truth_after(&error);
                (error, truth)
            })
        });
        match asked {
            Ok(Ok(witness)) => Ok(witness),
            Ok(Err((error, truth))) => {
                self.statement_failed(Failure::new::<C>(error, place), Some(truth));
                Err(self.doom())
            }
            Err(error) => Err(Cause::new(Reason::Refused(Arc::new(error)), place)),
        }
    }

    /// COMMIT answered with an error: find out what that means, and end the transaction in any case.
    fn commit_failed(&self, failure: Failure, truth: Truth, witness: Option<&Witness>) -> Result<Report> {
        if failure.class() != ErrorClass::Ambiguous && truth != Truth::Broken {
            return Err(self.rolled_back(Error::RolledBack { cause: Cause::statement(failure) }));
        }
        // Whatever the text says: the answer never came.
        self.discard_connection();
        let verdict = if self.current.get().read_only && !self.wrote.get() {
            // Nothing was written, so nothing is in doubt.
            Verdict::RolledBack
        } else {
            match (witness, &self.engine) {
                (Some(witness), Some(engine)) => {
                    // A SQLite connection that is still open may hold the lock that the answer waits for.
                    self.give_connection_back();
                    engine.verify(witness, self.deadline().map(|deadline| deadline.at))
                }
                _ => Verdict::Unknown,
            }
        };
        tracing::warn!(session = self.id, at = %failure.place(), ?verdict, "the connection died during COMMIT");
        match verdict {
            Verdict::Committed => Ok(Report::new(self.finish(Outcome::Committed))),
            Verdict::RolledBack => {
                let cause = Cause::statement(failure.by_a_dead_connection());
                Err(self.rolled_back(Error::RolledBack { cause }))
            }
            Verdict::Unknown => {
                self.finish(Outcome::Unknown);
                Err(Error::CommitUnknown { cause: Cause::statement(failure) })
            }
        }
    }
}
