//! Extents: regions of code with a session of their own, most of which also end its transaction.

use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::ScopedSession;
use super::local::{self, Pushed};
use crate::backend::SessionConnection;
use crate::error::{Cause, Error, Reason, Result};
use crate::options::{SessionOptions, TransactionOptions, read_only};
use crate::place::Place;
use crate::session::Session;
use crate::session::core::{Core, Finisher};

impl<C: SessionConnection> ScopedSession<C> {
    /// Runs `f` with a fresh session, rolls back what is open at its end, and puts the outer session back. Nothing is
    /// committed unless `f` does it.
    ///
    /// # Errors
    /// [`Error::ThreadExiting`] while the thread's own destructors run.
    #[track_caller]
    pub fn scope<R>(&self, f: impl FnOnce(&Session<C>) -> R) -> Result<R> {
        let place = Location::caller();
        let pushed = self.fresh(|options| options, None, place)?;
        let result = catch_unwind(AssertUnwindSafe(|| f(&Session::of(Rc::clone(pushed.core())))));
        pushed.core().close(place);
        drop(pushed);
        Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// A unit of work: commits on `Ok`, rolls back on `Err` or panic, and removes the session in any case.
    ///
    /// Inside another extent that will commit (`transaction`, `job`, `request`) it joins that one: the outer commits. If
    /// the inner fails, the frame that it joined can only be rolled back, even if the outer code swallows the error. An
    /// idle session of this thread is taken over. Inside a hook it has a session of its own.
    ///
    /// # Errors
    /// What `f` returned; what [`Session::commit`] answers; [`Error::AlreadyBegun`] inside a transaction that nobody
    /// would commit.
    ///
    /// # Examples
    /// ```
    /// # use diesel::sqlite::SqliteConnection;
    /// # use diesel_session::{Engine, Result, ScopedSession};
    /// # fn main() -> Result<()> {
    /// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
    /// registry.transaction(|session| session.batch_execute("CREATE TABLE notes (text TEXT)"))?;
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn transaction<T, E: From<Error>>(&self, f: impl FnOnce(&Session<C>) -> Result<T, E>) -> Result<T, E> {
        self.transaction_at(None, Location::caller(), f)
    }

    /// As [`transaction`](ScopedSession::transaction), with options of its own.
    ///
    /// # Errors
    /// Also [`Error::IncompatibleOptions`] if it would join a transaction that does not give what `options` ask for.
    #[track_caller]
    pub fn transaction_with<T, E: From<Error>>(
        &self,
        options: TransactionOptions,
        f: impl FnOnce(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction_at(Some(options), Location::caller(), f)
    }

    fn transaction_at<T, E: From<Error>>(
        &self,
        options: Option<TransactionOptions>,
        place: Place,
        f: impl FnOnce(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(found) = local::top::<C>(self.inner.id)?.filter(|found| found.core.is_available()) {
            let core = found.core;
            if core.finisher().is_some() {
                return join(&core, options, place, f);
            }
            if let Some(at) = core.begun_at() {
                return Err(Error::AlreadyBegun { at }.into());
            }
            if !found.extent {
                // What an autocommit session sends could not be rolled back on `Err`.
                let own = core.options();
                if let Some(options) = options.or(own.is_autocommit().then(|| own.in_a_transaction())) {
                    core.begin_with(options, place)?;
                }
                core.set_finisher(Some(Finisher { place, owns: true }));
                return finish(Pushed::adopt(core), place, f);
            }
        }
        let change = |session: SessionOptions| match options {
            Some(options) => session.autobegin(true).transaction(options),
            None => session.for_an_extent(),
        };
        let pushed = self.fresh(change, Some(Finisher { place, owns: true }), place)?;
        finish(pushed, place, f)
    }

    /// A read-only unit of work: on SQLite it takes no write lock and waits for nobody, on PostgreSQL it sees one snapshot.
    /// Inside an open transaction it reads there, and so sees that transaction's own writes; it is then as writable as that
    /// transaction is.
    ///
    /// # Errors
    /// What `f` returned; [`Error::ReadOnly`] for a write in a session of its own.
    #[track_caller]
    pub fn read<T, E: From<Error>>(&self, f: impl FnOnce(&Session<C>) -> Result<T, E>) -> Result<T, E> {
        let place = Location::caller();
        if let Some(found) = local::top::<C>(self.inner.id)?.filter(|found| found.core.is_available())
            && found.core.begun_at().is_some()
        {
            return f(&Session::of(found.core));
        }
        let change = |options: SessionOptions| options.autobegin(true).transaction(read_only());
        let pushed = self.fresh(change, Some(Finisher { place, owns: true }), place)?;
        finish(pushed, place, f)
    }

    /// A job boundary, for threads that run one job after another: as [`transaction`](ScopedSession::transaction) on a
    /// fresh session. A session that the job before left behind is rolled back first, and the line that began it is logged
    /// and counted ([`Counters::leaks`](crate::Counters::leaks)).
    ///
    /// # Errors
    /// As [`transaction`](ScopedSession::transaction).
    #[track_caller]
    pub fn job<T, E: From<Error>>(&self, f: impl FnOnce(&Session<C>) -> Result<T, E>) -> Result<T, E> {
        let place = Location::caller();
        self.clear_leaks(place)?;
        let pushed = self.fresh(SessionOptions::for_an_extent, Some(Finisher { place, owns: true }), place)?;
        finish(pushed, place, f)
    }

    /// A request: as [`job`](ScopedSession::job), but the code inside may also commit and roll back itself, as often as it
    /// likes; what is open when `f` returns is committed on `Ok` and rolled back on `Err` or panic. For layers around
    /// handlers that use `Session::current()`.
    ///
    /// # Errors
    /// As [`transaction`](ScopedSession::transaction).
    #[track_caller]
    pub fn request<T, E: From<Error>>(
        &self,
        options: TransactionOptions,
        f: impl FnOnce(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        let place = Location::caller();
        self.clear_leaks(place)?;
        let change = |session: SessionOptions| session.autobegin(true).transaction(options);
        let pushed = self.fresh(change, Some(Finisher { place, owns: false }), place)?;
        finish(pushed, place, f)
    }

    pub(super) fn fresh(
        &self,
        change: impl FnOnce(SessionOptions) -> SessionOptions,
        finisher: Option<Finisher>,
        place: Place,
    ) -> Result<Pushed<C>> {
        let core = self.inner.make(change, place)?;
        core.set_finisher(finisher);
        Pushed::new(self.inner.id, core)
    }

    /// Ends what the job before left on this thread.
    fn clear_leaks(&self, place: Place) -> Result<()> {
        while let Some(found) = local::top::<C>(self.inner.id)? {
            // One that is held further up the stack was not left behind by anybody.
            if found.extent || found.core.is_held() {
                break;
            }
            let core = found.core;
            if let Some(begun_at) = core.begun_at() {
                self.inner.table.leaked();
                tracing::error!(
                    session = core.id,
                    made_at = %core.made_at,
                    begun_at = %begun_at,
                    found_at = %place,
                    "a job left its session open: rolled back"
                );
            }
            core.close(place);
            local::pull(&core);
        }
        Ok(())
    }
}

fn join<C: SessionConnection, T, E: From<Error>>(
    core: &Rc<Core<C>>,
    options: Option<TransactionOptions>,
    place: Place,
    f: impl FnOnce(&Session<C>) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(wanted) = options
        && let Err(wanted) = core.options().offers(&wanted)
    {
        let at = core.begun_at().unwrap_or(core.made_at);
        return Err(Error::IncompatibleOptions { wanted, at }.into());
    }
    let frame = core.join();
    let result = catch_unwind(AssertUnwindSafe(|| f(&Session::of(Rc::clone(core)))));
    let failed = match &result {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some(Reason::Joined),
        Err(_) => Some(Reason::Panicked),
    };
    core.leave(frame, failed, place);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `f` and ends its session's transaction accordingly; the session is closed and off the stack afterwards.
fn finish<C: SessionConnection, T, E: From<Error>>(
    pushed: Pushed<C>,
    place: Place,
    f: impl FnOnce(&Session<C>) -> Result<T, E>,
) -> Result<T, E> {
    let core = Rc::clone(pushed.core());
    let result = catch_unwind(AssertUnwindSafe(|| f(&Session::of(Rc::clone(&core)))));
    core.set_finisher(None);
    let result = match result {
        Ok(Ok(value)) => end_well(&core, place).map(|()| value).map_err(E::from),
        Ok(Err(error)) => Err(error),
        Err(panic) => {
            core.close(place);
            drop(pushed);
            resume_unwind(panic)
        }
    };
    // After a commit there is nothing left to roll back, and this sends nothing.
    core.close(place);
    drop(pushed);
    result
}

fn end_well<C: SessionConnection>(core: &Rc<Core<C>>, place: Place) -> Result<()> {
    if let Some(at) = core.closed_at() {
        return Err(Error::RolledBack { cause: Cause::new(Reason::Removed, at) });
    }
    if core.is_quietly_rollback_only() {
        return Ok(());
    }
    core.commit(place).map(drop)
}
