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
use crate::session::core::{Core, Deadline, Finisher};
use crate::unit::{Attempt, Propagation, RetryPolicy, UnitKey, UnitOptions};

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
        self.unit(&UnitOptions::default(), false, Location::caller(), f)
    }

    /// As [`transaction`](ScopedSession::transaction), with options of its own: isolation and the like, a
    /// [time-out](TransactionOptions::timeout), how it meets an open transaction ([`Propagation`]), whether it must be
    /// [the outermost](TransactionOptions::durable), and whether it is [run again](TransactionOptions::retry) when the
    /// database says that another try may go well.
    ///
    /// # Errors
    /// Also [`Error::IncompatibleOptions`] if it would join a transaction that does not give what `options` ask for;
    /// [`Error::NoOpenTransaction`], [`Error::TransactionForbidden`], [`Error::NotOutermost`] as the options say;
    /// [`Error::RetryInside`] for a retry policy inside an open transaction; [`Error::DeadlineExceeded`] past its time-out.
    #[track_caller]
    pub fn transaction_with<T, E: From<Error>>(
        &self,
        options: impl Into<UnitOptions>,
        f: impl FnMut(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.unit_with(&options.into(), Location::caller(), f)
    }

    /// A unit of work whose options were asked for, run again where they say so.
    pub(super) fn unit_with<T, E: From<Error>>(
        &self,
        options: &UnitOptions,
        place: Place,
        mut f: impl FnMut(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = options.transaction;
        let is_alone = options.propagation == Propagation::Never;
        // Without a transaction, what asks something of one is a contradiction.
        if is_alone { transaction.autocommit() } else { transaction }.check::<C>()?;
        match options.retry {
            Some(policy) => self.attempts(options, policy, place, f),
            None => self.unit(options, true, place, &mut f),
        }
    }

    /// One unit of work. `asked`: its options were asked for; else a session that is taken over keeps its own.
    pub(super) fn unit<T, E: From<Error>>(
        &self,
        options: &UnitOptions,
        asked: bool,
        place: Place,
        f: impl FnOnce(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        let found = local::top::<C>(self.inner.id)?.filter(|found| found.core.is_available());
        let open = found.as_ref().filter(|found| is_open(&found.core));
        if let Some(found) = open {
            let core = &found.core;
            let at = core.begun_at().unwrap_or(core.made_at);
            match options.propagation {
                Propagation::Never => return Err(Error::TransactionForbidden { at }.into()),
                Propagation::RequiresNew => {
                    // What went wrong before has been dealt with: the outer code goes on.
                    core.went_well();
                    return self.own(options, asked, core.deadline(), place, f);
                }
                _ if options.durable => return Err(Error::NotOutermost { at }.into()),
                Propagation::Mandatory => return join(core, asked.then_some(options), place, f),
                // Nobody would commit what joins a bare transaction.
                _ if core.finisher().is_none() => return Err(Error::AlreadyBegun { at }.into()),
                Propagation::Required => return join(core, asked.then_some(options), place, f),
                Propagation::Nested => return nest(core, asked.then_some(options), place, f),
            }
        }
        match (options.propagation, found) {
            (Propagation::Mandatory, _) => Err(Error::NoOpenTransaction.into()),
            (Propagation::Never, _) => {
                let change =
                    |session: SessionOptions| session.autobegin(true).transaction(options.transaction.autocommit());
                let pushed = self.fresh(change, Some(Finisher { place, owns: true }), place)?;
                finish(pushed, place, f)
            }
            (Propagation::Required | Propagation::Nested, Some(found)) if !found.extent => {
                let core = found.core;
                let own = core.options();
                if asked {
                    core.begin_with(options.transaction, place)?;
                } else if own.is_autocommit() {
                    // What an autocommit session sends could not be rolled back on `Err`.
                    core.begin_with(own.in_a_transaction(), place)?;
                }
                core.set_finisher(Some(Finisher { place, owns: true }));
                finish(Pushed::adopt(core), place, f)
            }
            _ => self.own(options, asked, None, place, f),
        }
    }

    /// A unit of work in a session of its own; `around` is the deadline of the one that it runs inside.
    fn own<T, E: From<Error>>(
        &self,
        options: &UnitOptions,
        asked: bool,
        around: Option<Deadline>,
        place: Place,
        f: impl FnOnce(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        let pushed = self.fresh(options_of(options, asked), Some(Finisher { place, owns: true }), place)?;
        let core = pushed.core();
        let own = core.options().timeout.and_then(Deadline::after);
        core.set_deadline(Deadline::sooner(own, around));
        finish(pushed, place, f)
    }

    /// A unit of work that is run again where its policy says so.
    fn attempts<T, E: From<Error>>(
        &self,
        options: &UnitOptions,
        policy: RetryPolicy,
        place: Place,
        mut f: impl FnMut(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        if options.propagation == Propagation::Never || options.transaction.is_autocommit() {
            return Err(Error::Configuration(
                "without a transaction every statement is stored at once, and another attempt would store it again: run it without retry()".into(),
            )
            .into());
        }
        if let Some(found) = local::top::<C>(self.inner.id)?.filter(|found| found.core.is_available()) {
            if is_open(&found.core) {
                return Err(Error::RetryInside { at: found.core.begun_at().unwrap_or(found.core.made_at) }.into());
            }
            if !found.extent && matches!(options.propagation, Propagation::Required | Propagation::Nested) {
                // Idle, and taken over like by `transaction`: but every attempt has a session of its own.
                found.core.close(place);
                local::pull(&found.core);
            }
        }
        if options.propagation == Propagation::Mandatory {
            return Err(Error::NoOpenTransaction.into());
        }
        let key = UnitKey::new();
        let deadline = options.transaction.timeout.and_then(Deadline::after);
        let mut number = 1;
        loop {
            let pushed = self.fresh(options_of(options, true), Some(Finisher { place, owns: true }), place)?;
            let core = Rc::clone(pushed.core());
            core.begin_attempt(Attempt { number, key }, policy);
            core.set_deadline(deadline);
            let result = finish(pushed, place, &mut f);
            match core.again_after() {
                Some(pause) if result.is_err() => std::thread::sleep(pause),
                _ => return result,
            }
            number += 1;
        }
    }

    /// A read-only unit of work: on SQLite it takes no write lock and waits for nobody, on PostgreSQL it sees one snapshot.
    /// Inside an open transaction it reads there, and so sees that transaction's own writes; it is then as writable as that
    /// transaction is.
    ///
    /// # Errors
    /// What `f` returned; [`Error::ReadOnly`] for a write in a session of its own.
    #[track_caller]
    pub fn read<T, E: From<Error>>(&self, f: impl FnOnce(&Session<C>) -> Result<T, E>) -> Result<T, E> {
        self.read_at(Location::caller(), f)
    }

    pub(super) fn read_at<T, E: From<Error>>(
        &self,
        place: Place,
        f: impl FnOnce(&Session<C>) -> Result<T, E>,
    ) -> Result<T, E> {
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
    /// handlers that use `Session::current()`. A [`timeout`](TransactionOptions::timeout) bounds each of its transactions.
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
    pub(super) fn clear_leaks(&self, place: Place) -> Result<()> {
        self.inner.engine.origin().check()?;
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

/// Whether a unit of work would be part of this session's transaction: begun, or owned by somebody who will end it. An
/// autocommit session has none.
fn is_open<C: SessionConnection>(core: &Core<C>) -> bool {
    let is_owned = core.finisher().is_some() || core.begun_at().is_some();
    is_owned && !core.options().is_autocommit()
}

/// The options of a fresh session for a unit of work.
pub(super) fn options_of(options: &UnitOptions, asked: bool) -> impl FnOnce(SessionOptions) -> SessionOptions + use<> {
    let transaction = asked.then_some(options.transaction);
    move |session: SessionOptions| match transaction {
        Some(transaction) => session.autobegin(true).transaction(transaction),
        None => session.for_an_extent(),
    }
}

/// Whether the open transaction gives what one that joins it asks for.
fn check_offer<C: SessionConnection>(core: &Core<C>, options: &UnitOptions) -> Result<()> {
    core.offered().offers(&options.transaction).map_err(|wanted| {
        let at = core.begun_at().unwrap_or(core.made_at);
        Error::IncompatibleOptions { wanted, at }
    })
}

/// The deadline around a joined unit of work is back when that ends.
struct Narrowed<'a, C: SessionConnection> {
    core: &'a Core<C>,
    before: Option<Deadline>,
}

impl<'a, C: SessionConnection> Narrowed<'a, C> {
    /// Nothing to do where the deadline around it comes first.
    fn new(core: &'a Core<C>, options: &UnitOptions) -> Option<Self> {
        let own = Deadline::after(options.transaction.timeout?)?;
        let before = core.deadline();
        if before.is_some_and(|before| before.at <= own.at) {
            return None;
        }
        core.change_deadline(Some(own));
        Some(Self { core, before })
    }
}

impl<C: SessionConnection> Drop for Narrowed<'_, C> {
    fn drop(&mut self) {
        // None any more: the transaction ended meanwhile, and its deadline with it.
        if self.core.deadline().is_some() {
            self.core.change_deadline(self.before);
        }
    }
}

fn join<C: SessionConnection, T, E: From<Error>>(
    core: &Rc<Core<C>>,
    asked: Option<&UnitOptions>,
    place: Place,
    f: impl FnOnce(&Session<C>) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(options) = asked {
        check_offer(core, options)?;
    }
    let frame = core.join();
    let _deadline = asked.and_then(|options| Narrowed::new(core, options));
    let result = catch_unwind(AssertUnwindSafe(|| f(&Session::of(Rc::clone(core)))));
    let failed = match &result {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some(Reason::Joined),
        Err(_) => Some(Reason::Panicked),
    };
    core.leave(frame, failed, place);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// A unit of work in a savepoint: it can fail alone.
fn nest<C: SessionConnection, T, E: From<Error>>(
    core: &Rc<Core<C>>,
    asked: Option<&UnitOptions>,
    place: Place,
    f: impl FnOnce(&Session<C>) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(options) = asked {
        check_offer(core, options)?;
    }
    let _deadline = asked.and_then(|options| Narrowed::new(core, options));
    let frame = core.join();
    let session = Session::of(Rc::clone(core));
    let result = catch_unwind(AssertUnwindSafe(|| session.nested_at(place, f)));
    // What failed is undone with the savepoint.
    core.leave(frame, None, place);
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
    let owns = core.finisher().is_some_and(|finisher| finisher.owns);
    core.set_finisher(None);
    let result = match result {
        Ok(Ok(value)) => end_well(&core, owns, place).map(|()| value).map_err(E::from),
        Ok(Err(error)) => {
            core.decide_after_error();
            Err(error)
        }
        Err(panic) => {
            core.close(place);
            drop(pushed);
            resume_unwind(panic)
        }
    };
    // After a commit there is nothing left to roll back, and this sends nothing.
    core.close(place);
    drop(pushed);
    Core::rest(core);
    result
}

/// `owns`: only the extent could end the transaction, so what was removed was its work.
pub(super) fn end_well<C: SessionConnection>(core: &Rc<Core<C>>, owns: bool, place: Place) -> Result<()> {
    core.check_origin()?;
    if let Some(at) = core.closed_at() {
        if !owns && !core.was_closed_on_work() {
            return Ok(());
        }
        return Err(Error::RolledBack { cause: Cause::new(Reason::Removed, at) });
    }
    if core.is_quietly_rollback_only() {
        return Ok(());
    }
    core.commit(place).map(drop)
}
