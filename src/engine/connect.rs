//! Opening connections, and knowing which can still be trusted.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, get_default_instrumentation};
use diesel::result::{Error as DieselError, QueryResult};

use crate::backend::{ConnectionSettings, PreparedUrl, SessionConnection};
use crate::error::{Error, Result};
use crate::panics::panic_text;

/// Code of the user's that runs on a bare connection.
pub(crate) type ConnectionHook<C> = Arc<dyn Fn(&mut C) -> QueryResult<()> + Send + Sync>;

/// Runs the user's code; a panic becomes an error. It must not get out: it would cost r2d2 the place in its pool that it
/// was about to fill (r2d2 0.8.10), and leave the session that waits half begun.
fn guarded<C>(hook: &ConnectionHook<C>, conn: &mut C) -> QueryResult<()> {
    catch_unwind(AssertUnwindSafe(|| hook(conn))).unwrap_or_else(|panic| {
        let text = format!("the set-up or reset of the connection panicked: {}", panic_text(&*panic));
        Err(DieselError::QueryBuilderError(text.into()))
    })
}

/// A connection and what is known about it.
pub(crate) struct Slot<C: SessionConnection> {
    pub(crate) conn: C,
    pub(crate) state: C::State,
    /// Code outside the session had the bare connection: settings are applied anew before the next transaction.
    pub(crate) touched: bool,
    pub(crate) born: Instant,
    /// When it came back from its last use; where nothing can happen to it meanwhile (SQLite), when it was lent.
    pub(crate) last_used: Instant,
    /// A statement failed on it in a way that may be the connection's fault: ping before the next use.
    pub(crate) suspect: bool,
    /// Not to be used again.
    pub(crate) broken: bool,
}

impl<C: SessionConnection> Slot<C> {
    pub(crate) fn new(conn: C) -> Self {
        let now = Instant::now();
        Self {
            conn,
            state: C::State::default(),
            touched: false,
            born: now,
            last_used: now,
            suspect: false,
            broken: false,
        }
    }

    /// Whether it can go back: no transaction open, nothing broken.
    pub(crate) fn is_clean(&mut self) -> bool {
        !self.broken && matches!(crate::backend::depth(&mut self.conn), Ok(0))
    }
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
        let mut conn = C::establish(&self.url.url).map_err(|error| self.refused(&error))?;
        if let Some(make) = self.instrumentation {
            conn.set_instrumentation(make());
        } else if let Some(default) = get_default_instrumentation() {
            conn.set_instrumentation(default);
        }
        let mut slot = Slot::new(conn);
        slot.conn.configure(&self.settings, &mut slot.state).map_err(|error| self.refused(&error))?;
        if let Some(setup) = &self.setup {
            guarded(setup, &mut slot.conn)
                .and_then(|()| end_left_open(&mut slot.conn))
                .map_err(|error| self.refused(&error))?;
        }
        slot.last_used = Instant::now();
        Ok(Box::new(slot))
    }

    /// Opens a connection on a thread of its own, so that a server that never answers costs `patience` and no more.
    pub(crate) fn open_within(self: &Arc<Self>, patience: Duration) -> Result<Box<Slot<C>>> {
        let (give, take) = mpsc::sync_channel(1);
        let connector = Arc::clone(self);
        std::thread::Builder::new()
            .name("diesel-session-connect".into())
            .spawn(move || {
                // The receiver is gone if it lost its patience; the connection then closes here.
                let _ = give.send(connector.open());
            })
            .map_err(|error| self.refused(&error))?;
        take.recv_timeout(patience).unwrap_or_else(|_| Err(self.refused(&format!("no answer within {patience:?}"))))
    }

    /// Whether a connection that lay idle may be handed out; puts back what raw code may have changed on it. `wary`: pings
    /// it however short it lay.
    pub(crate) fn check(&self, slot: &mut Slot<C>, now: Instant, wary: bool) -> QueryResult<()> {
        let idle = || now.saturating_duration_since(slot.last_used);
        if wary || slot.suspect || (C::is_remote() && idle() > self.ping_after) {
            slot.conn.ping()?;
            slot.suspect = false;
        }
        if slot.touched {
            slot.conn.restore(&self.settings, &mut slot.state)?;
            for hook in [&self.setup, &self.reset].into_iter().flatten() {
                guarded(hook, &mut slot.conn)?;
                end_left_open(&mut slot.conn)?;
            }
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

/// Rolls back what `setup` or `reset` left open: a session begins a transaction of its own, and joins none by accident.
fn end_left_open<C: SessionConnection>(conn: &mut C) -> QueryResult<()> {
    if crate::backend::unwind_to(conn, 0)? {
        tracing::warn!("a transaction left open by the set-up of a connection was rolled back");
    }
    Ok(())
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
        slot.conn.ping().map_err(|error| self.0.refused(&error))
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
