//! Opening connections, and knowing which can still be trusted.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, get_default_instrumentation};
use diesel::result::{Error as DieselError, QueryResult};

use super::sandbox::Sandbox;
use super::slot::Slot;
use super::watch::Watch;
use crate::backend::{ConnectionSettings, PreparedUrl, SessionConnection};
use crate::error::{Error, Result};
use crate::panics::panic_text;
use crate::testing::{Call, FaultPlan};

/// Code of the user's that runs on a bare connection.
pub(crate) type ConnectionHook<C> = Arc<dyn Fn(&mut C) -> QueryResult<()> + Send + Sync>;

const SET_UP: &str = "the set-up or reset";

/// Runs the user's code, or what runs the user's instrumentation; a panic becomes an error. It must not get out: it would
/// cost r2d2 the place in its pool that it was about to fill (r2d2 0.8.10), and leave the session that waits half begun.
fn guarded<R>(what: &str, f: impl FnOnce() -> QueryResult<R>) -> QueryResult<R> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = format!("{what} of the connection panicked: {}", panic_text(&*panic));
        Err(DieselError::QueryBuilderError(text.into()))
    })
}

/// Opens connections the way the engine was asked to.
pub(crate) struct Connector<C: SessionConnection> {
    pub(crate) url: PreparedUrl,
    pub(crate) shown_url: String,
    pub(crate) settings: ConnectionSettings,
    pub(crate) setup: Option<ConnectionHook<C>>,
    pub(crate) reset: Option<ConnectionHook<C>>,
    pub(crate) instrumentation: Option<fn() -> Box<dyn Instrumentation>>,
    pub(crate) ping_after: Duration,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) faults: Option<FaultPlan>,
    /// The transaction around all others, where there is one.
    pub(crate) sandbox: Option<Arc<Sandbox>>,
    /// The connection that `build()` tried the URL with, kept for the first who asks.
    pub(crate) spare: Mutex<Option<Box<Slot<C>>>>,
    /// No new connections: the engine was closed.
    pub(crate) closed: AtomicBool,
}

impl<C: SessionConnection> fmt::Debug for Connector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("url", &self.shown_url).finish_non_exhaustive()
    }
}

impl<C: SessionConnection> Connector<C> {
    /// Opens and sets up a connection, on this thread, for as long as the driver takes.
    pub(crate) fn open(&self) -> Result<Box<Slot<C>>> {
        if let Some(slot) = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(slot);
        }
        guarded("the opening", || Ok(self.open_another())).unwrap_or_else(|panic| Err(self.refused(&panic)))
    }

    fn open_another(&self) -> Result<Box<Slot<C>>> {
        if let Some(fault) = self.faults.as_ref().and_then(|faults| faults.next(Call::Connect)) {
            return Err(self.refused(&format!("a planned fault: {fault:?}")));
        }
        let mut conn = C::establish(&self.url.url).map_err(|error| self.refused(&error))?;
        let own = self.instrumentation.map(|make| make()).or_else(get_default_instrumentation);
        let (watch, watcher) = Watch::new(own, C::ddl_commits());
        conn.set_instrumentation(watcher);
        let mut slot = Slot::new(conn, self.faults.clone(), Some(watch));
        slot.conn.configure(&self.settings, &mut slot.state).map_err(|error| self.refused(&error))?;
        if let Some(setup) = &self.setup {
            guarded(SET_UP, || setup(&mut slot.conn))
                .and_then(|()| end_left_open(&mut slot))
                .map_err(|error| self.refused(&error))?;
        }
        // After the set-up, which may choose the database.
        if self.settings.verify_commits {
            slot.conn.know_server(&mut slot.state).map_err(|error| self.refused(&error))?;
        }
        if let Some(sandbox) = &self.sandbox {
            slot.play_in(sandbox, &self.settings);
        }
        slot.last_used = Instant::now();
        Ok(Box::new(slot))
    }

    /// Opens a connection on a thread of its own, so that a server that never answers costs `patience` and no more.
    pub(crate) fn open_within(self: &Arc<Self>, patience: Duration) -> Result<Box<Slot<C>>> {
        let connector = Arc::clone(self);
        // If nobody waits any more the connection closes there.
        within(patience, move || connector.open()).unwrap_or_else(|silence| Err(self.refused(&silence)))
    }

    /// Whether a connection has to be asked whether it still lives. `wary`: however short it lay.
    pub(crate) fn doubts(&self, slot: &Slot<C>, now: Instant, wary: bool) -> bool {
        let idle = || now.saturating_duration_since(slot.last_used);
        wary || slot.suspect || (C::is_remote() && idle() > self.ping_after)
    }

    /// Gets a connection that lay idle ready for its next user: asks whether it lives, if in doubt, and puts back what raw
    /// code may have changed on it.
    pub(crate) fn check(&self, slot: &mut Slot<C>, is_doubtful: bool) -> QueryResult<()> {
        if is_doubtful {
            slot.ping()?;
            slot.suspect = false;
        }
        // Settings of a sandbox belong to the transaction around it: most could not be put back inside.
        if slot.touched && !slot.is_sandboxed() {
            guarded(SET_UP, || {
                slot.conn.restore(&self.settings, &mut slot.state)?;
                for hook in [&self.setup, &self.reset].into_iter().flatten() {
                    hook(&mut slot.conn)?;
                    end_left_open(slot)?;
                }
                Ok(())
            })?;
            slot.touched = false;
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Refuses new connections and closes the one that nobody has asked for yet.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(spare);
    }

    pub(crate) fn refused(&self, error: &dyn fmt::Display) -> Error {
        let message = error.to_string().replace(&self.url.url, &self.shown_url);
        Error::Connect { url: self.shown_url.clone(), message }
    }
}

/// Runs `f` on a thread of its own, for what a server that never answers would keep for ever. If it takes longer than
/// `patience` it goes on, and what it gives is dropped there.
pub(crate) fn within<T: Send + 'static>(
    patience: Duration,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (give, take) = mpsc::sync_channel(1);
    let run = move || drop(give.send(f()));
    let thread = std::thread::Builder::new().name("diesel-session-connect".into()).spawn(run);
    thread.map_err(|error| error.to_string())?;
    take.recv_timeout(patience).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => format!("no answer within {patience:?}"),
        mpsc::RecvTimeoutError::Disconnected => "the driver, or code that it calls, panicked".to_owned(),
    })
}

/// Rolls back what `setup` or `reset` left open: a session begins a transaction of its own, and joins none by accident.
fn end_left_open<C: SessionConnection>(slot: &mut Slot<C>) -> QueryResult<()> {
    if crate::backend::unwind_to(&mut slot.conn, 0)? {
        tracing::warn!("a transaction left open by the set-up of a connection was rolled back");
    }
    slot.conn.settle(&slot.state)
}

/// The URL without its password: `user:secret@host` becomes `user:***@host`, and so do `password=` parameters.
pub(crate) fn redact(url: &str) -> String {
    let mut shown = match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => match url[scheme + 3..at].find(':') {
            Some(colon) => format!("{}:***{}", &url[..scheme + 3 + colon], &url[at..]),
            None => url.to_owned(),
        },
        _ => url.to_owned(),
    };
    let mut from = 0;
    while let Some(found) = shown[from..].find("password") {
        let after = from + found + "password".len();
        from = after;
        let Some(value) = shown[after..].trim_start().strip_prefix('=') else { continue };
        // libpq's keywords may have spaces around the sign, and quotes around a value with spaces in it.
        let start = shown.len() - value.trim_start().len();
        let end = match shown[start..].strip_prefix('\'') {
            Some(quoted) => closing_quote(quoted).map_or(shown.len(), |end| start + end + 2),
            None => shown[start..].find(['&', ' ']).map_or(shown.len(), |end| start + end),
        };
        shown.replace_range(start..end, "***");
        from = start + "***".len();
    }
    shown
}

/// Where a quoted value ends; a backslash takes the next letter's meaning away.
fn closing_quote(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    quoted.char_indices().find_map(|(at, letter)| {
        let ends = letter == '\'' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// r2d2's view of the connector: it opens, we judge.
pub(crate) struct Manager<C: SessionConnection>(pub(crate) Arc<Connector<C>>);

impl<C: SessionConnection> fmt::Debug for Manager<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C: SessionConnection> r2d2::ManageConnection for Manager<C> {
    type Connection = Box<Slot<C>>;
    type Error = Error;

    fn connect(&self) -> Result<Self::Connection> {
        // r2d2 replaces what it closes; after the engine's end there is nothing to replace.
        if self.0.is_closed() {
            return Err(Error::ShutDown);
        }
        let slot = self.0.open()?;
        if self.0.is_closed() { Err(Error::ShutDown) } else { Ok(slot) }
    }

    fn is_valid(&self, slot: &mut Self::Connection) -> Result<()> {
        slot.ping().map_err(|error| self.0.refused(&error))
    }

    fn has_broken(&self, slot: &mut Self::Connection) -> bool {
        !slot.is_clean()
    }
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn a_password_never_shows() {
        assert_eq!(redact("postgres://ann:s3cret@db/app"), "postgres://ann:***@db/app");
        assert_eq!(redact("mysql://ann:p@ss@db/app"), "mysql://ann:***@db/app");
        assert_eq!(redact("postgres://ann@db/app?password=s3cret&x=1"), "postgres://ann@db/app?password=***&x=1");
        assert_eq!(redact("host=db password=s3cret user=ann"), "host=db password=*** user=ann");
        assert_eq!(redact("host=db password = s3cret user=ann"), "host=db password = *** user=ann");
        assert_eq!(redact(r"host=db password='s3 \'cret' user=ann"), "host=db password=*** user=ann");
        assert_eq!(redact("host=db password='s3 cret"), "host=db password=***");
        assert_eq!(redact("app.db"), "app.db");
    }
}
