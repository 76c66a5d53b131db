//! A job as an executor runs it: one attempt, and what is to become of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::ScopedSession;
use super::extent::{end_well, options_of};
use super::local::{self, Pushed};
use crate::backend::SessionConnection;
use crate::error::{Cause, Error, Result};
use crate::panics::{quietly, text_of};
use crate::place::Place;
use crate::session::Session;
use crate::session::core::{Core, Deadline, Finisher, Whence};
use crate::session::hooks::Outcome;
use crate::unit::{Attempt, UnitOptions};

/// What an attempt of a job is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) options: UnitOptions,
    /// Whether the options were asked for; else they are as the registry's sessions have them.
    pub(crate) asked: bool,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) attempt: Option<Attempt>,
    /// The line that submitted the job.
    pub(crate) place: Place,
}

/// How an attempt ended.
pub(crate) enum End {
    /// The job has ended; with this error instead of its own answer.
    Over(Option<Error>),
    /// It is to be run again, after so long. Where that can't be any more it has ended, with this error instead of its own
    /// answer, which may be an `Ok` that was never committed.
    Again(Duration, Option<Error>),
}

/// Runs a job's closure and ends its transaction, or its part of one; gives the error that stands for the closure's own
/// answer. Panics of the user's go no further.
fn turn<C: SessionConnection>(core: &Rc<Core<C>>, place: Place, f: impl FnOnce(&Session<C>) -> bool) -> Option<Error> {
    let said = catch_unwind(AssertUnwindSafe(|| f(&Session::of(Rc::clone(core)))));
    core.set_finisher(None);
    let instead = match said {
        Ok(true) => match catch_unwind(AssertUnwindSafe(|| end_well(core, true, place))) {
            Ok(ended) => ended.err(),
            Err(panic) => Some(core.after_a_panic_at_its_end(place, text_of(panic))),
        },
        Ok(false) => {
            // Asks the policy, which is code of the user's.
            quietly(|| core.decide_after_error());
            None
        }
        Err(panic) => Some(Error::JobPanicked { at: place, message: text_of(panic) }),
    };
    // Rolls back what did not end well.
    quietly(|| drop(core.close(place)));
    instead
}

impl<C: SessionConnection> ScopedSession<C> {
    /// One attempt of a job, in a fresh session. `f` says whether the closure returned `Ok`.
    pub(crate) fn attempt(&self, ask: &Ask, f: impl FnOnce(&Session<C>) -> bool) -> End {
        let end = self.attempt_in(ask, f).unwrap_or_else(|error| End::Over(Some(error)));
        quietly(local::end_what_was_left);
        end
    }

    fn attempt_in(&self, ask: &Ask, f: impl FnOnce(&Session<C>) -> bool) -> Result<End> {
        self.clear_leaks(ask.place)?;
        let core = self.prepared(ask, None)?;
        let pushed = Pushed::new(self.inner.id, Rc::clone(&core))?;
        let instead = turn(&core, ask.place, f);
        let again = core.again_after();
        // What is left can only drop, and its transaction has ended.
        quietly(move || drop(pushed));
        quietly(move || drop(core));
        Ok(match again {
            Some(pause) => End::Again(pause, instead),
            None => End::Over(instead),
        })
    }

    /// The session of an attempt; `outer`: whose transaction it shares.
    fn prepared(&self, ask: &Ask, outer: Option<&Rc<Core<C>>>) -> Result<Rc<Core<C>>> {
        let core = self.inner.make_in(options_of(&ask.options, ask.asked), ask.place, outer)?;
        core.set_finisher(Some(Finisher { place: ask.place, owns: true }));
        if let (Some(attempt), Some(policy)) = (ask.attempt, ask.options.retry) {
            core.begin_attempt(attempt, policy);
        }
        core.set_deadline(ask.deadline);
        Ok(core)
    }

    /// A transaction for several jobs to share; nothing is sent for it yet.
    pub(crate) fn shared(&self, place: Place) -> Result<Rc<Core<C>>> {
        self.inner.engine.origin().check()?;
        let template = self.inner.template().options.clone().for_an_extent();
        Ok(Core::new(Some(self.inner.engine.clone()), template, None, None, place, Whence::Engine))
    }

    /// Whether a transaction that jobs share gives what a job with options of its own has: that of a registry which was told
    /// to make others does not.
    pub(crate) fn shares_plainly(&self) -> bool {
        let transaction = self.inner.template().options.transaction.in_a_transaction();
        UnitOptions::from(transaction).may_share()
    }

    /// One attempt of a job in a transaction that it shares: ended as far as it can be before that is.
    pub(crate) fn attempt_member(
        &self,
        ask: &Ask,
        outer: &Rc<Core<C>>,
        f: impl FnOnce(&Session<C>) -> bool,
    ) -> Result<Member<C>> {
        let place = ask.place;
        self.clear_leaks(place)?;
        let core = self.prepared(ask, Some(outer))?;
        let pushed = Pushed::new(self.inner.id, Rc::clone(&core))?;
        let instead = turn(&core, place, f);
        quietly(move || drop(pushed));
        quietly(local::end_what_was_left);
        Ok(Member { registry: self.clone(), core, instead })
    }
}

/// A job in a shared transaction that has had its turn.
pub(crate) struct Member<C: SessionConnection> {
    registry: ScopedSession<C>,
    core: Rc<Core<C>>,
    /// The error that stands for the closure's own answer.
    instead: Option<Error>,
}

impl<C: SessionConnection> Member<C> {
    /// Whether its own part was undone.
    pub(crate) fn is_undone(&self) -> bool {
        self.core.suspended() == Some(Outcome::RolledBack)
    }

    /// Whether its work had no savepoint, and everything has to be undone with it.
    pub(crate) fn is_whole(&self) -> bool {
        self.core.was_whole()
    }

    /// How long it waited for the transaction to begin.
    pub(crate) fn waited(&self) -> Duration {
        self.core.waited()
    }

    /// What ended the shared transaction, if it noticed such a thing.
    pub(crate) fn lost(&self) -> Option<Cause> {
        self.core.lost()
    }

    /// Runs the hooks; gives what becomes of the job. `fate`: what became of the shared transaction; `is_only`: that it
    /// was shared with nobody.
    pub(crate) fn conclude(self, fate: &Fate, is_only: bool) -> End {
        let own = self.core.suspended();
        let outcome = match (fate, own) {
            (_, None) | (Fate::Stored, Some(Outcome::Committed)) => Outcome::Committed,
            (Fate::Unknown(_), Some(Outcome::Committed)) => Outcome::Unknown,
            _ => Outcome::RolledBack,
        };
        let error = match fate {
            Fate::Stored => None,
            // What it said itself is the better answer.
            Fate::Lost(_) | Fate::Unknown(_) if is_only && own != Some(Outcome::Committed) => None,
            Fate::Lost(cause) if is_only => Some(Error::RolledBack { cause: cause.clone() }),
            Fate::Lost(cause) => Some(Error::BatchRolledBack { cause: cause.clone() }),
            Fate::Unknown(cause) => Some(Error::CommitUnknown { cause: cause.clone() }),
        };
        if let Some(error) = &error {
            quietly(|| self.core.decide_again(error));
        }
        // On the stack, so that hooks find a session that is in its hooks.
        let pushed = Pushed::new(self.registry.inner.id, Rc::clone(&self.core));
        let Self { core, instead, .. } = self;
        quietly(|| drop(core.conclude(outcome)));
        quietly(move || drop(pushed));
        quietly(local::end_what_was_left);
        let again = core.again_after();
        quietly(move || drop(core));
        match again {
            Some(pause) => End::Again(pause, error.or(instead)),
            None => End::Over(error.or(instead)),
        }
    }
}

/// What became of a shared transaction.
pub(crate) enum Fate {
    Stored,
    /// Nothing of it is stored.
    Lost(Cause),
    /// Nobody knows.
    Unknown(Cause),
}
