//! The executors of the process, for functions that are not handed one: what `#[on_database_thread]` expands to.

use std::any::{Any, TypeId};
use std::panic::Location;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::handle::JobHandle;
use super::job::{Header, Job, once};
use super::lane::Duty;
use super::shell::Shell;
use super::{Executor, Owner};
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::options::TransactionOptions;
use crate::place::Place;
use crate::unit::{RetryPolicy, UnitOptions};

/// An executor of any connection type.
#[derive(Clone)]
struct Installed {
    connection: TypeId,
    shell: Arc<Shell>,
    check: fn(&UnitOptions) -> Result<()>,
    /// What keeps it running.
    owner: Arc<dyn Any + Send + Sync>,
}

/// One for each connection type, so there are few.
static INSTALLED: RwLock<Vec<Installed>> = RwLock::new(Vec::new());

impl<C: SessionConnection> Executor<C> {
    /// Makes this the executor of `#[on_database_thread]` functions, for the rest of the process's life or until it is
    /// [shut down](Executor::shutdown): then another one can take its place.
    ///
    /// # Errors
    /// [`Error::ExecutorInstalled`] if there is one for this connection type that is not shut down.
    pub fn install(self) -> Result<()> {
        self.inner.shell.origin.check()?;
        // Before the lock, to be dropped after it: what they own is the user's.
        let over: Vec<Installed>;
        let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
        over = installed.extract_if(.., |known| known.shell.is_shut_down()).collect();
        let connection = TypeId::of::<C>();
        if installed.iter().any(|known| known.connection == connection) {
            return Err(Error::ExecutorInstalled);
        }
        let shell = Arc::clone(&self.inner.shell);
        installed.push(Installed { connection, shell, check: UnitOptions::check_for_a_job::<C>, owner: self.inner });
        drop(installed);
        drop(over);
        Ok(())
    }

    /// The installed executor of this connection type.
    #[must_use]
    pub fn installed() -> Option<Self> {
        let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
        let known = installed.iter().find(|known| known.connection == TypeId::of::<C>())?;
        let inner: Arc<Owner<C>> = Arc::clone(&known.owner).downcast().ok()?;
        Some(Self { inner })
    }
}

fn find(connection: Option<TypeId>) -> Result<Installed> {
    let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
    let mut fitting = installed.iter().filter(|known| connection.is_none_or(|wanted| known.connection == wanted));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(Error::NoExecutor),
        (Some(_), Some(_)) => Err(Error::AmbiguousExecutor),
    }
}

/// What `#[on_database_thread(…)]` was told.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadOptions {
    connection: Option<TypeId>,
    options: UnitOptions,
    asked: bool,
}

impl ThreadOptions {
    /// As the registry's sessions are.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// On the executor of this connection type.
    #[must_use]
    pub fn connection<C: SessionConnection>(mut self) -> Self {
        self.connection = Some(TypeId::of::<C>());
        self
    }

    /// Only reads.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.change(TransactionOptions::read_only)
    }

    /// As [`TransactionOptions::timeout`], from the call on.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|options| options.timeout(timeout))
    }

    /// Run again as the policy says.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = Some(policy);
        self.asked = true;
        self
    }

    fn change(mut self, change: impl FnOnce(TransactionOptions) -> TransactionOptions) -> Self {
        self.options.transaction = change(self.options.transaction);
        self.asked = true;
        self
    }
}

/// The return type of a function for a database thread.
#[diagnostic::on_unimplemented(
    message = "a function for a database thread returns a `Result`",
    label = "this is not a `Result<T, E>`"
)]
pub trait JobResult {
    /// What it gives.
    type Value;
    /// What can go wrong.
    type Error;
    /// What the caller gets instead.
    type Handle;
}

// The bounds of a job stand here too, so that the compiler complains at the function's return type.
impl<T: Send + 'static, E: From<Error> + Send + 'static> JobResult for Result<T, E> {
    type Value = T;
    type Error = E;
    type Handle = JobHandle<T, E>;
}

/// Runs the body of a function as a job of the installed executor.
#[track_caller]
pub fn on_database_thread<T, E>(
    options: ThreadOptions,
    body: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> JobHandle<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    submit(options, Location::caller(), once(|_| body()))
}

/// As [`on_database_thread`], of a body that may be run again.
#[track_caller]
pub fn on_database_thread_again<T, E>(
    options: ThreadOptions,
    mut body: impl FnMut() -> Result<T, E> + Send + 'static,
) -> JobHandle<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    submit(options, Location::caller(), move |_| body())
}

fn submit<T, E>(
    options: ThreadOptions,
    place: Place,
    f: impl FnMut(&dyn Any) -> Result<T, E> + Send + 'static,
) -> JobHandle<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let ThreadOptions { connection, options, asked } = options;
    let found = find(connection).and_then(|found| (found.check)(&options).map(|()| found));
    let installed = match found {
        Ok(installed) => installed,
        Err(error) => return JobHandle::refused(error),
    };
    let header = Header::new(options, asked, place);
    let duty = if options.transaction.is_read_only() { Duty::Read } else { Duty::Work };
    installed.shell.submit(duty, header, |answer| Job::new(header, answer, f))
}
