//! The executor: database threads that run whole units of work and hand back futures.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::options::read_only;
use crate::place::Place;
use crate::scope::ScopedSession;
use crate::session::Session;
use crate::unit::UnitOptions;

mod answer;
mod async_session;
mod batch;
mod bearing;
mod builder;
mod calls;
mod clock;
mod handle;
pub(crate) mod installed;
mod job;
mod lane;
mod queue;
mod report;
mod shell;
mod sync;
mod waits;
mod worker;

pub use async_session::AsyncSession;
pub use batch::GroupCommit;
pub use builder::ExecutorBuilder;
pub use handle::JobHandle;
pub use report::{ExecutorReport, LaneReport};
pub use shell::WhenFull;

use bearing::Leases;
use job::{Header, Job, once, with_session};
use lane::Duty;
use shell::Shell;

/// Database threads that run whole units of work, one after the other, and hand back their answers.
///
/// A **job** is a closure that gets a session of its own; [`Session::current()`](Session::current) inside it is that
/// session. Its transaction is committed when it returns `Ok`, rolled back when it returns `Err` or panics, and the answer,
/// a [`JobHandle`], comes after that. The thread outlives whatever a job does.
///
/// Nothing here blocks the caller: [`run`](Executor::run) queues, the handle is a future on any runtime, and
/// [`wait`](JobHandle::wait) is there for code without one.
///
/// On **SQLite** there is one thread that writes and several that only read, so that no write ever waits for SQLite's own
/// lock within the process; with [`group_commit`](ExecutorBuilder::group_commit), jobs that wait together share one COMMIT.
///
/// A unit of work that has to await something in its middle has an [`AsyncSession`]: [`session`](Executor::session).
///
/// Cheap to clone. Dropping the last clone refuses what is queued ([`Error::ShutDown`]) and waits for nobody: a job that
/// runs goes on to its end, as does an [`AsyncSession`]. To wait, call [`shutdown`](Executor::shutdown).
///
/// # Examples
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Engine, Executor, Result, ScopedSession};
///
/// diesel::table! { notes (id) { id -> Integer, text -> Text, } }
///
/// # fn main() -> Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
/// let executor = Executor::new(registry)?;
/// let job = executor.run(|session| -> Result<_> {
///     session.batch_execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
///     session.execute(diesel::insert_into(notes::table).values(notes::text.eq("first")))
/// });
/// assert_eq!(job.wait()?, 1); // or `job.await?` in async code
/// let texts = executor.run_read(|session| -> Result<Vec<String>> { session.load(notes::table.select(notes::text)) });
/// assert_eq!(texts.wait()?, ["first"]);
/// executor.shutdown(std::time::Duration::from_secs(5))?;
/// # Ok(()) }
/// ```
pub struct Executor<C: SessionConnection> {
    inner: Arc<Owner<C>>,
}

/// Refuses what is queued when the last handle goes.
struct Owner<C: SessionConnection> {
    shell: Arc<Shell>,
    registry: ScopedSession<C>,
    /// Whether an acknowledged commit may be lost when the power goes.
    is_lax: bool,
    groups: bool,
    leases: Leases,
    /// Whether an `AsyncSession` may keep SQLite's other writers waiting.
    async_writers: bool,
}

impl<C: SessionConnection> Drop for Owner<C> {
    fn drop(&mut self) {
        if !self.shell.origin.is_elsewhere() {
            self.shell.refuse_all();
        }
    }
}

impl<C: SessionConnection> Clone for Executor<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: SessionConnection> fmt::Debug for Executor<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("registry", &self.inner.registry).finish_non_exhaustive()
    }
}

impl<C: SessionConnection> Executor<C> {
    /// An executor with every default; see [`ExecutorBuilder`].
    ///
    /// # Errors
    /// As [`ExecutorBuilder::build`].
    pub fn new(registry: ScopedSession<C>) -> Result<Self> {
        Self::builder(registry).build()
    }

    /// Starts an executor for a registry.
    pub fn builder(registry: ScopedSession<C>) -> ExecutorBuilder<C> {
        ExecutorBuilder::new(registry)
    }

    /// The registry whose sessions the jobs have.
    #[must_use]
    pub fn registry(&self) -> &ScopedSession<C> {
        &self.inner.registry
    }

    /// Queues a unit of work. Committed on `Ok`, rolled back on `Err` or panic.
    ///
    /// The handle is answered with the job's own error, what its commit answered, or an error of the executor: see
    /// [`JobHandle::wait`].
    #[track_caller]
    pub fn run<T, E, F>(&self, f: F) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        self.submit(Duty::Work, UnitOptions::default(), false, Location::caller(), once(f))
    }

    /// Queues a unit of work that only reads; a write in it is refused ([`Error::ReadOnly`]). On SQLite it runs beside
    /// the thread that writes, if there are threads for [reads](ExecutorBuilder::readers).
    #[track_caller]
    pub fn run_read<T, E, F>(&self, f: F) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        self.submit(Duty::Read, read_only().into(), true, Location::caller(), once(f))
    }

    /// As [`run`](Executor::run), with options of its own: isolation and the like, a
    /// [time-out](crate::TransactionOptions::timeout), which runs from now and so also while the job waits, and whether it is
    /// [run again](crate::TransactionOptions::retry). Read-only options bring it to the threads for reads.
    ///
    /// A job that is run again goes back to the head of the queue, where it waits without a connection and without holding
    /// up the thread; jobs that came later may then come first.
    #[track_caller]
    pub fn run_with<T, E, F>(&self, options: impl Into<UnitOptions>, f: F) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnMut(&Session<C>) -> Result<T, E> + Send + 'static,
    {
        let options = options.into();
        let duty = if options.transaction.is_read_only() { Duty::Read } else { Duty::Work };
        self.submit(duty, options, true, Location::caller(), f)
    }

    /// As [`run`](Executor::run), submitted at a line that is not the caller's; with options as [`run_with`](Executor::run_with).
    #[cfg(feature = "axum")]
    pub(crate) fn run_at<T, E>(
        &self,
        options: Option<crate::options::TransactionOptions>,
        place: Place,
        f: impl FnOnce(&Session<C>) -> Result<T, E> + Send + 'static,
    ) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let duty = if options.is_some_and(|options| options.is_read_only()) { Duty::Read } else { Duty::Work };
        self.submit(duty, options.unwrap_or_default().into(), options.is_some(), place, once(f))
    }

    fn submit<T, E>(
        &self,
        duty: Duty,
        options: UnitOptions,
        asked: bool,
        place: Place,
        f: impl FnMut(&Session<C>) -> Result<T, E> + Send + 'static,
    ) -> JobHandle<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if let Err(error) = options.check_for_a_job::<C>() {
            return JobHandle::refused(error);
        }
        let header = Header::new(options, asked, place);
        self.inner.shell.submit(duty, header, |answer| Job::new(header, answer, with_session(f)))
    }

    /// Takes no more jobs, waits until those that were taken are done, each [`AsyncSession`] has ended, and so have the
    /// threads. At the end of `patience` it refuses what has not begun ([`Error::ShutDown`]) and says so; what runs goes on,
    /// and calling this again waits on. To end everything: the executor first, then
    /// [`ScopedSession::shutdown`](crate::ScopedSession::shutdown).
    ///
    /// # Errors
    /// [`Error::NotDrained`]: how many were refused, and which still run; [`Error::WouldHang`] in a job.
    pub fn shutdown(&self, patience: Duration) -> Result<()> {
        self.inner.shell.shut_down(patience)
    }

    /// What it is doing and has done: a snapshot.
    #[must_use]
    pub fn inspect(&self) -> ExecutorReport {
        let owner = &*self.inner;
        ExecutorReport::new(&owner.shell, owner.groups, owner.is_lax)
    }
}
