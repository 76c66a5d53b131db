//! A session across several awaits.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

use super::Executor;
use super::bearing;
use super::calls::{Calls, Does};
use super::handle::JobHandle;
use super::job::Header;
use super::lane::Duty;
use crate::backend::{Kind, SessionConnection};
use crate::error::{Cause, Error, Reason, Result};
use crate::options::TransactionOptions;
use crate::place::Place;
use crate::session::{Report, Session};
use crate::unit::UnitOptions;

/// A session with one transaction, across several awaits: for a unit of work that has to wait for something else in its
/// middle. Asked for with [`Executor::session`] and [`session_with`](Executor::session_with).
///
/// It holds a database thread of its own kind ([`async_sessions`](crate::ExecutorBuilder::async_sessions)) and, from its
/// first statement on, a connection. **Where the whole unit of work fits into one closure, [`Executor::run`] is better**: it
/// holds nothing while it waits.
///
/// Each [`run`](Self::run) is a closure that this thread runs, in the order of the calls;
/// [`Session::current()`](Session::current) inside it is the session. [`commit`](Self::commit) and
/// [`rollback`](Self::rollback) end it. **Dropped, it is rolled back**, without blocking: a future that is dropped at any
/// await leaves nothing open.
///
/// **The lease**: between calls it may be idle for 5 s ([`async_lease`](crate::ExecutorBuilder::async_lease)), and for
/// 500 ms where it keeps others waiting ([`async_writer_lease`](crate::ExecutorBuilder::async_writer_lease)). Then it is
/// rolled back, its thread serves the next, and what is called later answers [`Error::LeaseExpired`]. Time inside a closure
/// does not count. A [`timeout`](TransactionOptions::timeout) bounds the whole, from the call that asks for the session.
///
/// Entities are of their thread: take their keys out of a closure, and get them anew in the next, from memory.
///
/// # Examples
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Engine, Executor, Result, ScopedSession};
///
/// diesel::table! { notes (id) { id -> Integer, text -> Text, } }
///
/// async fn translate(text: String) -> String {
///     // … asks another service …
///     text.to_uppercase()
/// }
///
/// async fn work(executor: &Executor<SqliteConnection>) -> Result<()> {
///     let session = executor.session().await?;
///     let text: String = session.run(|session| session.first(notes::table.select(notes::text))).await?;
///     let text = translate(text).await; // the transaction stays open
///     session
///         .run(move |session| -> Result<usize> {
///             session.execute(diesel::update(notes::table).set(notes::text.eq(text)))
///         })
///         .await?;
///     session.commit().await?;
///     Ok(())
/// }
///
/// # fn main() -> Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
/// // On SQLite others wait meanwhile, so it has to be allowed.
/// let executor = Executor::builder(registry).async_writers(true).build()?;
/// let made = executor.run(|session| -> Result<()> {
///     session.batch_execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL); INSERT INTO notes (text) VALUES ('first')")
/// });
/// made.wait()?;
/// let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap(); // or any other
/// runtime.block_on(work(&executor))?;
/// let texts = executor.run_read(|session| -> Result<Vec<String>> { session.load(notes::table.select(notes::text)) });
/// assert_eq!(texts.wait()?, ["FIRST"]);
/// # Ok(()) }
/// ```
#[must_use = "dropping an AsyncSession rolls it back"]
pub struct AsyncSession<C: SessionConnection> {
    calls: Arc<Calls>,
    connection: PhantomData<fn() -> C>,
}

impl<C: SessionConnection> fmt::Debug for AsyncSession<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncSession").finish_non_exhaustive()
    }
}

impl<C: SessionConnection> AsyncSession<C> {
    pub(super) fn new(calls: Arc<Calls>) -> Self {
        Self { calls, connection: PhantomData }
    }

    /// Runs a closure in the open transaction. It is sent now; awaiting the handle only waits for its answer.
    ///
    /// An `Ok` is not stored before [`commit`](Self::commit), and an `Err` rolls nothing back by itself: the transaction is
    /// as the session's statements left it, so after a statement's database error it can only be rolled back (see
    /// [`Session`]). After a panic too: then the handle answers [`Error::JobPanicked`]. `commit` and `rollback` of the
    /// session inside are refused ([`Error::NotOwner`]).
    ///
    /// On SQLite a closure of a session that has written must not wait for a job that writes: that one waits at the write
    /// gate until its time-out, and the lease does not run meanwhile.
    ///
    /// The handle dropped before the closure began takes it back, as [`JobHandle`] says; what was sent later runs all the
    /// same.
    ///
    /// The answer can be the closure's own error or, where it was not run, [`Error::LeaseExpired`],
    /// [`Error::DeadlineExceeded`] for a session that was idle past its time-out, or [`Error::ForkDetected`].
    #[track_caller]
    pub fn run<T, E, F>(&self, f: F) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        self.run_at(Location::caller(), f)
    }

    pub(crate) fn run_at<T, E, F>(&self, place: Place, f: F) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        self.calls.send(Does::Work, place, f)
    }

    /// Commits, after what was sent before: one round trip, none if nothing was sent to the database. It begins now, and
    /// goes on to its end even if the handle is dropped; to know how it ended, await it.
    ///
    /// The answer comes when the connection is back and the hooks have run. `Ok` means stored; errors are those of
    /// [`Session::commit`], [`Error::LeaseExpired`] and the like, as with [`run`](Self::run).
    #[track_caller]
    pub fn commit(self) -> JobHandle<Report> {
        self.commit_at(Location::caller())
    }

    pub(crate) fn commit_at(self, place: Place) -> JobHandle<Report> {
        self.calls.send(Does::Commit, place, move |session: &Session<C>| commit(session, place))
    }

    /// Rolls back, after what was sent before: one round trip, none if nothing was sent to the database. It begins now,
    /// whatever becomes of the handle, whose answer comes when the connection is back. [`Error::LeaseExpired`] says that it
    /// was rolled back before.
    #[track_caller]
    pub fn rollback(self) -> JobHandle<Report> {
        self.calls.send(Does::RollBack, Location::caller(), |session: &Session<C>| {
            session.core().set_finisher(None);
            session.core().rollback()
        })
    }
}

impl<C: SessionConnection> Drop for AsyncSession<C> {
    /// Rolls back what was not committed, on the session's own thread.
    fn drop(&mut self) {
        self.calls.drain();
    }
}

fn commit<C: SessionConnection>(session: &Session<C>, place: Place) -> Result<Report> {
    let core = session.core();
    core.set_finisher(None);
    if let Some(at) = core.closed_at() {
        return Err(Error::RolledBack { cause: Cause::new(Reason::Removed, at) });
    }
    core.commit(place)
}

impl<C: SessionConnection> Executor<C> {
    /// Asks for a session with one transaction across several awaits: see [`AsyncSession`]. Where all threads for them
    /// ([`async_sessions`](crate::ExecutorBuilder::async_sessions)) are taken, the request waits in their queue, as a job
    /// does.
    ///
    /// It may write. On SQLite that is refused ([`Error::Configuration`]) unless
    /// [`async_writers`](crate::ExecutorBuilder::async_writers) allows it.
    #[track_caller]
    pub fn session(&self) -> JobHandle<AsyncSession<C>> {
        self.ask_for(TransactionOptions::new(), false, Location::caller())
    }

    /// As [`session`](Self::session), with options of its own: isolation and the like, `read_only()`, or a
    /// [time-out](TransactionOptions::timeout), which runs from now and so also while the request waits.
    ///
    /// [`Error::Configuration`] for options that can't be, among them `autocommit()`, which has no transaction to hold
    /// across awaits.
    #[track_caller]
    pub fn session_with(&self, options: TransactionOptions) -> JobHandle<AsyncSession<C>> {
        self.ask_for(options, true, Location::caller())
    }

    pub(crate) fn ask_for(&self, options: TransactionOptions, asked: bool, place: Place) -> JobHandle<AsyncSession<C>> {
        let owner = &*self.inner;
        let Some(lane) = owner.shell.lane(Duty::Bear) else { return JobHandle::refused(no_threads()) };
        if let Err(error) = self.check_session(&options) {
            return JobHandle::refused(error);
        }
        let header = Header::new(UnitOptions::from(options), asked, place);
        owner
            .shell
            .submit(Duty::Bear, header, |answer| bearing::job(owner.shell.id, lane, owner.leases, header, answer))
    }

    fn check_session(&self, options: &TransactionOptions) -> Result<()> {
        options.check::<C>()?;
        if options.is_autocommit() {
            return Err(Error::Configuration(
                "an AsyncSession is one transaction, and autocommit() has none: use `executor.run_with(autocommit(), …)` for each call".into(),
            ));
        }
        let is_sqlite = self.registry().engine().kind() == Kind::Sqlite;
        if is_sqlite && !options.is_read_only() && !self.inner.async_writers {
            return Err(Error::Configuration(
                "on SQLite one transaction writes at a time, so an AsyncSession that may write keeps every other writer waiting between its awaits: put the unit of work into one `executor.run(|session| …)`, ask for `session_with(read_only())`, or allow it with `async_writers(true)` on the executor's builder".into(),
            ));
        }
        Ok(())
    }
}

#[cold]
fn no_threads() -> Error {
    Error::Configuration(
        "this executor has no threads for AsyncSessions: give it some with `async_sessions(n)` on its builder, within the engine's `max_size`".into(),
    )
}
