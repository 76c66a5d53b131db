//! The registry: one session a thread.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::backend::SessionConnection;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::inspect::InspectReport;
use crate::options::SessionOptions;
use crate::place::Place;
use crate::session::core::{Core, Listeners, Whence};
use crate::session::table::SessionTable;
use crate::session::{Session, SessionListener};

mod ambient;
mod extent;
pub(crate) mod job;
mod local;
mod task;
pub(crate) mod transactional;

pub use task::ScopedFuture;

use ambient::Known;
use local::{Found, RegistryId};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What sessions are made from.
struct Template<C: SessionConnection> {
    options: SessionOptions,
    listeners: Listeners<C>,
}

pub(crate) struct Inner<C: SessionConnection> {
    id: RegistryId,
    engine: Engine<C>,
    strict: AtomicBool,
    template: RwLock<Template<C>>,
    /// Whether the template still is what it was at the start, so that nobody needs to look at it.
    is_plain: AtomicBool,
    table: Arc<SessionTable>,
}

impl<C: SessionConnection> Inner<C> {
    fn template(&self) -> RwLockReadGuard<'_, Template<C>> {
        self.template.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_template(&self, change: impl FnOnce(&mut Template<C>)) {
        // In a forked child its lock may be held by a thread that does not exist there.
        if self.engine.is_elsewhere() {
            return;
        }
        change(&mut self.template.write().unwrap_or_else(PoisonError::into_inner));
        self.is_plain.store(false, Ordering::Release);
    }

    /// A session; `change` gets the registry's options and says which it is to have.
    fn make(&self, change: impl FnOnce(SessionOptions) -> SessionOptions, place: Place) -> Result<Rc<Core<C>>> {
        self.make_in(change, place, None)
    }

    /// As `make`; `outer`: whose transaction it is to share.
    fn make_in(
        &self,
        change: impl FnOnce(SessionOptions) -> SessionOptions,
        place: Place,
        outer: Option<&Rc<Core<C>>>,
    ) -> Result<Rc<Core<C>>> {
        self.engine.origin().check()?;
        let (options, listeners) = if self.is_plain.load(Ordering::Acquire) {
            (SessionOptions::new(), None)
        } else {
            let template = self.template();
            (template.options.clone(), template.listeners.clone())
        };
        let options = change(options);
        options.transaction.check::<C>()?;
        let origin = outer.map_or(Whence::Engine, |outer| Whence::Shared(Rc::clone(outer)));
        Ok(Core::new(Some(self.engine.clone()), options, Some(&self.table), listeners, place, origin))
    }

    /// This thread's session, made if there is none.
    fn current(&self, place: Place) -> Result<Rc<Core<C>>> {
        match self.found()? {
            Some(core) => Ok(core),
            None => self.add(|options| options, place),
        }
    }

    fn current_with(&self, options: SessionOptions, place: Place) -> Result<Rc<Core<C>>> {
        if let Some(core) = self.found()? {
            return Err(Error::AlreadyPresent { at: core.made_at });
        }
        if self.is_plain.load(Ordering::Acquire) {
            return self.add(|_| options, place);
        }
        self.add(|configured| configured.overridden_by(options), place)
    }

    /// This thread's session; `None` where one may be made.
    fn found(&self) -> Result<Option<Rc<Core<C>>>> {
        self.engine.origin().check()?;
        if let Some(found) = local::top::<C>(self.id)? {
            if found.core.is_available() {
                return Ok(Some(found.core));
            }
            match found.core.closed_at() {
                _ if found.core.is_in_hook() => return Err(Error::InHook),
                None => return Ok(Some(found.core)),
                // Removed inside its extent: a new session there would not be the extent's.
                Some(at) if found.extent => return Err(Error::SessionClosed { at }),
                Some(_) => local::pull(&found.core),
            }
        }
        if self.strict.load(Ordering::Relaxed) {
            return Err(Error::NoScope);
        }
        Ok(None)
    }

    /// A session of this thread outside any extent.
    fn add(&self, change: impl FnOnce(SessionOptions) -> SessionOptions, place: Place) -> Result<Rc<Core<C>>> {
        let core = self.make(change, place)?;
        local::push(self.id, &core, false)?;
        Ok(core)
    }
}

/// The registry: gives each thread one [`Session`], made on first use.
///
/// Cheap to clone, `Send + Sync`. Either [`install`](ScopedSession::install) one for the process, so that
/// `Session::current()` finds it everywhere, or [`enter`](ScopedSession::enter) one for an extent, or call the methods
/// here. A thread that ends without [`remove`](ScopedSession::remove) has its transaction rolled back; until then a session
/// that nobody removed stays open, with its connection, even if the registry is dropped meanwhile.
///
/// # Examples
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Engine, ScopedSession};
///
/// type Session = diesel_session::Session<SqliteConnection>;
///
/// fn handler() -> diesel_session::Result<()> {
///     let session = Session::current()?;              // this thread's session; nothing sent yet
///     session.batch_execute("CREATE TABLE notes (text TEXT)")?;
///     session.commit()?;                              // stored, and the connection is back in the pool
///     Ok(())
/// }
///
/// # fn main() -> diesel_session::Result<()> {
/// ScopedSession::new(Engine::<SqliteConnection>::new(":memory:")?).install()?;
/// handler()?;
/// Session::remove();                                  // at the end of the request, whatever happened
/// # Ok(()) }
/// ```
pub struct ScopedSession<C: SessionConnection> {
    inner: Arc<Inner<C>>,
}

impl<C: SessionConnection> Clone for ScopedSession<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: SessionConnection> fmt::Debug for ScopedSession<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedSession")
            .field("id", &self.inner.id)
            .field("engine", &self.inner.engine)
            .finish_non_exhaustive()
    }
}

impl<C: SessionConnection> ScopedSession<C> {
    /// A registry over an engine. Two databases of one connection type are two registries.
    #[must_use]
    pub fn new(engine: Engine<C>) -> Self {
        Self {
            inner: Arc::new(Inner {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                engine,
                strict: AtomicBool::new(false),
                template: RwLock::new(Template { options: SessionOptions::new(), listeners: None }),
                is_plain: AtomicBool::new(true),
                table: Arc::default(),
            }),
        }
    }

    /// From now on `current()` makes no session outside an extent (`scope`, `transaction`, `read`, `job`, `request`,
    /// `future`): it answers [`Error::NoScope`], so that nobody works in a transaction that nobody ends.
    #[must_use]
    pub fn strict(self) -> Self {
        self.inner.strict.store(true, Ordering::Relaxed);
        self
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine<C> {
        &self.inner.engine
    }

    /// Makes this the registry behind `Session::current()` on every thread of the process that has not entered another.
    ///
    /// # Errors
    /// [`Error::AlreadyInstalled`] if there is one for this connection type.
    pub fn install(self) -> Result<()> {
        self.inner.engine.origin().check()?;
        ambient::install(self.inner)
    }

    /// Makes this the registry behind `Session::current()` while `f` runs on this thread. Nests; the one before is back
    /// afterwards, also after a panic. Threads started inside don't inherit it: use [`spawn`](ScopedSession::spawn) or
    /// [`wrap`](ScopedSession::wrap). It makes no session and ends none.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        let registry: Arc<Inner<C>> = Arc::clone(&self.inner);
        ambient::Frame::new(registry).enter(f)
    }

    /// This thread's session, made if there is none. A new session sends nothing until its first statement.
    ///
    /// # Errors
    /// [`Error::InHook`] while the session runs its hooks; [`Error::NoScope`] in a strict registry outside any extent;
    /// [`Error::SessionClosed`] in an extent whose session was removed; [`Error::ThreadExiting`] while the thread's
    /// destructors run.
    #[track_caller]
    pub fn current(&self) -> Result<Session<C>> {
        self.inner.current(Location::caller()).map(Session::of)
    }

    /// This thread's session, if it has one that is open.
    #[must_use]
    pub fn try_current(&self) -> Option<Session<C>> {
        let found = local::top::<C>(self.inner.id).ok().flatten()?;
        found.core.is_available().then(|| Session::of(found.core))
    }

    /// Makes this thread's session with options of its own: `current_with(read_only())`. What they leave open is as
    /// [configured](ScopedSession::configure).
    ///
    /// # Errors
    /// [`Error::AlreadyPresent`] if the thread has one: its options can't change any more. Else as
    /// [`current`](ScopedSession::current).
    #[track_caller]
    pub fn current_with(&self, options: impl Into<SessionOptions>) -> Result<Session<C>> {
        self.inner.current_with(options.into(), Location::caller()).map(Session::of)
    }

    /// Whether this thread has an open session.
    #[must_use]
    pub fn has(&self) -> bool {
        self.try_current().is_some()
    }

    /// Puts `session` in the place of this thread's own, which is closed and returned.
    ///
    /// # Errors
    /// [`Error::NotOwner`] inside an extent, whose session can't be exchanged.
    #[track_caller]
    pub fn replace(&self, session: &Session<C>) -> Result<Option<Session<C>>> {
        self.inner.engine.origin().check()?;
        let old = local::top::<C>(self.inner.id)?;
        if let Some(found) = &old {
            if found.extent {
                return Err(Error::NotOwner { at: found.core.made_at });
            }
            found.core.close(Location::caller());
            local::pull(&found.core);
        }
        local::push(self.inner.id, session.core(), false)?;
        Ok(old.map(|found| Session::of(found.core)))
    }

    /// Changes the options of sessions made from now on, on every thread.
    ///
    /// # Errors
    /// [`Error::AlreadyPresent`] where this thread has a session: it would not follow.
    pub fn configure(&self, change: impl FnOnce(SessionOptions) -> SessionOptions) -> Result<()> {
        if let Some(session) = self.try_current() {
            return Err(Error::AlreadyPresent { at: session.made_at() });
        }
        self.inner.engine.origin().check()?;
        let options = self.inner.template().options.clone();
        let options = change(options);
        options.transaction.check::<C>()?;
        self.inner.change_template(|template| template.options = options);
        Ok(())
    }

    /// Tells `listener` what the sessions made from now on do.
    pub fn listen(&self, listener: impl SessionListener<C> + Send + Sync + 'static) {
        let listener: Arc<dyn SessionListener<C> + Send + Sync> = Arc::new(listener);
        self.inner.change_template(|template| {
            let known = template.listeners.iter().flat_map(|listeners| listeners.iter()).cloned();
            template.listeners = Some(known.chain([listener]).collect());
        });
    }

    /// Ends this thread's session: rolls back what is open, gives the connection back, closes every handle. Does nothing
    /// where there is none, and makes none. Inside a call that holds the session it happens when that call ends.
    #[track_caller]
    pub fn remove(&self) {
        if let Ok(Some(found)) = local::top::<C>(self.inner.id) {
            end(found, Location::caller());
        }
    }

    /// Refuses new transactions, waits until the open ones of every thread have ended, then closes the engine's idle
    /// connections; one in use closes when it comes back. Nothing is killed: on a time-out call it again to wait on.
    ///
    /// # Errors
    /// [`Error::ShutdownTimeout`] with the table of those still open: thread, place, age.
    pub fn shutdown(&self, patience: Duration) -> Result<()> {
        self.inner.table.shut_down(patience)?;
        self.inner.engine.close_all();
        Ok(())
    }

    /// Whether [`shutdown`](ScopedSession::shutdown) was called.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.inner.table.is_shut_down()
    }

    /// Every open session on every thread, and who holds connections and the write gate: a snapshot.
    #[must_use]
    pub fn inspect(&self) -> InspectReport {
        let engine = &self.inner.engine;
        InspectReport {
            sessions: self.inner.table.reports(),
            connections: engine.connections_in_use(),
            write_gate: engine.write_gate(),
            waiting: engine.waiting(),
            max_size: engine.max_size(),
            idle: engine.idle(),
            counters: self.inner.table.counters(),
        }
    }
}

/// Ends this thread's session by `remove`.
fn end<C: SessionConnection>(found: Found<C>, place: Place) {
    // On the stack until its hooks have run, so that they find it in its hooks instead of making another.
    found.core.close(place);
    if !found.extent && found.core.has_closed() {
        local::pull(&found.core);
        Core::rest(found.core);
    } else {
        local::cool();
    }
}

/// The session of the registry that is meant here: the innermost [entered](ScopedSession::enter) on this thread, else the
/// [installed](ScopedSession::install) one.
impl<C: SessionConnection> Session<C> {
    /// This thread's session, made if there is none. A few nanoseconds and no allocation when it exists.
    ///
    /// # Errors
    /// [`Error::NoRegistry`] if no registry is entered or installed; else as [`ScopedSession::current`].
    #[track_caller]
    #[inline]
    pub fn current() -> Result<Self> {
        match local::hot::<C>() {
            Some(core) => Ok(Self::of(core)),
            None => Self::look_up(Location::caller()),
        }
    }

    #[cold]
    fn look_up(place: Place) -> Result<Self> {
        let core = Self::meant()?.0.current(place)?;
        local::heat(&core);
        Ok(Self::of(core))
    }

    /// The registry that is meant here.
    ///
    /// # Errors
    /// [`Error::NoRegistry`] if none is entered or installed.
    pub fn registry() -> Result<ScopedSession<C>> {
        Ok(ScopedSession { inner: Arc::clone(&Self::meant()?.0) })
    }

    fn meant() -> Result<Rc<Known<Inner<C>>>> {
        ambient::find().ok_or(Error::NoRegistry { connection: std::any::type_name::<C>() })
    }

    /// This thread's session, if it has one that is open. Never makes one.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        Self::registry().ok()?.try_current()
    }

    /// As [`ScopedSession::current_with`].
    ///
    /// # Errors
    /// As [`ScopedSession::current_with`], and [`Error::NoRegistry`].
    #[track_caller]
    pub fn current_with(options: impl Into<SessionOptions>) -> Result<Self> {
        let core = Self::meant()?.0.current_with(options.into(), Location::caller())?;
        local::heat(&core);
        Ok(Self::of(core))
    }

    /// Whether this thread has an open session.
    #[must_use]
    pub fn has() -> bool {
        Self::try_current().is_some()
    }

    /// As [`ScopedSession::replace`].
    ///
    /// # Errors
    /// As [`ScopedSession::replace`], and [`Error::NoRegistry`].
    #[track_caller]
    pub fn replace(session: &Self) -> Result<Option<Self>> {
        Self::registry()?.replace(session)
    }

    /// Ends this thread's session, as [`ScopedSession::remove`]; does nothing where there is no session or no registry.
    #[track_caller]
    pub fn remove() {
        if let Some(found) = local::hot_top::<C>() {
            end(found, Location::caller());
        } else if let Ok(registry) = Self::registry() {
            registry.remove();
        }
    }
}
