//! Who is open, who holds connections and the write gate, since when and from which line.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use crate::place::Place;

/// One holder of a connection or of the write gate.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Holder {
    thread: String,
    place: String,
    age: Duration,
}

impl Holder {
    pub(crate) fn new(thread: ThreadId, name: Option<&str>, place: Place, since: Instant) -> Self {
        Self { thread: thread_label(thread, name), place: place.to_string(), age: since.elapsed() }
    }

    /// The thread: its name if it has one, and its id.
    #[must_use]
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// The line that took it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// For how long.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }
}

fn thread_label(thread: ThreadId, name: Option<&str>) -> String {
    name.map_or_else(|| format!("{thread:?}"), |name| format!("{name} {thread:?}"))
}

/// A table of [`Holder`]s, as text a line each.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Holders(Vec<Holder>);

impl Holders {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Holder> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Holders {
    type Item = &'a Holder;
    type IntoIter = std::slice::Iter<'a, Holder>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Holder> for Holders {
    fn from_iter<I: IntoIterator<Item = Holder>>(holders: I) -> Self {
        Self(holders.into_iter().collect())
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("  nobody");
        }
        for (i, holder) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "  {} since {:?}, from {}", holder.thread, holder.age, holder.place)?;
        }
        Ok(())
    }
}

/// What a session is doing, as [`inspect`](crate::ScopedSession::inspect) and
/// [`Session::state`](crate::Session::state) show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum SessionState {
    /// No transaction: nothing was sent since the last commit or rollback.
    Idle,
    /// A transaction is open.
    Active,
    /// A statement failed; the transaction waits for its rollback.
    Failed,
    /// The transaction goes on, but can only be rolled back.
    RollbackOnly,
    /// The transaction is gone on the server.
    Lost,
    /// The session is closed for good.
    Closed,
}

/// Each state at its own number.
const STATES: [SessionState; 6] = [
    SessionState::Idle,
    SessionState::Active,
    SessionState::Failed,
    SessionState::RollbackOnly,
    SessionState::Lost,
    SessionState::Closed,
];

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::RollbackOnly => "rollback-only",
            Self::Lost => "lost",
            Self::Closed => "closed",
        })
    }
}

/// One open session.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SessionReport {
    /// The session's number, as in [`Session::id`](crate::Session::id).
    pub id: u64,
    /// Its thread.
    pub thread: String,
    /// What it is doing.
    pub state: SessionState,
    /// The line that made it.
    pub made_at: String,
    /// The line that began its transaction, while one is open.
    pub begun_at: Option<String>,
    /// How long that transaction has been open.
    pub age: Option<Duration>,
    /// The line of its newest statement.
    pub last_statement_at: Option<String>,
    /// How many statements it has sent.
    pub statements: u64,
}

/// What happened since the registry was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counters {
    /// Sessions left by a job and rolled back at the next job boundary.
    pub leaks: u64,
    /// Sessions that ended with their thread instead of by `remove()`.
    pub thread_exits: u64,
    /// Hooks that returned an error or panicked.
    pub hook_errors: u64,
}

/// The state of a registry and its engine: a struct, a text (`Display`) and, with the feature `serde`, JSON.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct InspectReport {
    /// Every open session of the registry, on every thread.
    pub sessions: Vec<SessionReport>,
    /// Who holds connections.
    pub connections: Holders,
    /// Who holds the write gate (SQLite).
    pub write_gate: Holders,
    /// How many threads wait for a connection or for the gate.
    pub waiting: usize,
    /// How many connections may be in use at once.
    pub max_size: usize,
    /// How many connections lie idle.
    pub idle: usize,
    /// What happened so far.
    pub counters: Counters,
}

impl InspectReport {
    /// The report as JSON.
    ///
    /// # Errors
    /// None in practice: every part of the report has a JSON form.
    #[cfg(feature = "serde")]
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Sessions with an open transaction.
    pub fn open_transactions(&self) -> impl Iterator<Item = &SessionReport> {
        self.sessions.iter().filter(|session| session.begun_at.is_some())
    }
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} session(s), {} of {} connection(s) in use, {} idle, {} waiting",
            self.sessions.len(),
            self.connections.len(),
            self.max_size,
            self.idle,
            self.waiting
        )?;
        for session in &self.sessions {
            write!(
                f,
                "  session {} on {}: {}, made at {}",
                session.id, session.thread, session.state, session.made_at
            )?;
            if let (Some(begun_at), Some(age)) = (&session.begun_at, session.age) {
                write!(f, ", begun {age:?} ago at {begun_at}")?;
            }
            if let Some(place) = &session.last_statement_at {
                write!(f, ", {} statement(s), the last at {place}", session.statements)?;
            }
            writeln!(f)?;
        }
        if !self.connections.is_empty() {
            writeln!(f, "connections:\n{}", self.connections)?;
        }
        if !self.write_gate.is_empty() {
            writeln!(f, "write gate:\n{}", self.write_gate)?;
        }
        write!(
            f,
            "{} leaked session(s), {} ended with their thread, {} hook error(s)",
            self.counters.leaks, self.counters.thread_exits, self.counters.hook_errors
        )
    }
}

/// What a session tells the registry about itself, readable from every thread. The sessions of a thread use one after
/// the other.
#[derive(Debug)]
pub(crate) struct Entry {
    thread: Thread,
    id: AtomicU64,
    state: AtomicU8,
    progress: Mutex<Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    made_at: Place,
    /// Whose the rest is: perhaps an earlier session's.
    id: u64,
    begun: Option<(Place, Instant)>,
    last: Option<Place>,
    statements: u64,
}

impl Progress {
    fn new(id: u64, made_at: Place) -> Self {
        Self { made_at, id, begun: None, last: None, statements: 0 }
    }
}

impl Entry {
    /// The entry of a session of this thread.
    pub(crate) fn new(id: u64, made_at: Place) -> Arc<Self> {
        Arc::new(Self {
            thread: std::thread::current(),
            id: AtomicU64::new(id),
            state: AtomicU8::new(SessionState::Idle as u8),
            progress: Mutex::new(Progress::new(id, made_at)),
        })
    }

    /// Another session of the thread has it now; `made_at` if that is another line.
    pub(crate) fn reuse(&self, id: u64, made_at: Option<Place>) {
        self.id.store(id, Ordering::Relaxed);
        if let Some(made_at) = made_at {
            *self.progress() = Progress::new(id, made_at);
        }
        self.is(SessionState::Idle);
    }

    /// What this session did so far; for its own thread.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        let id = self.id.load(Ordering::Relaxed);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.id != id {
            *progress = Progress::new(id, progress.made_at);
        }
        progress
    }

    pub(crate) fn statement(&self, place: Place) {
        let mut progress = self.progress();
        progress.last = Some(place);
        progress.statements += 1;
    }

    /// A transaction was begun, perhaps by a statement.
    pub(crate) fn begun(&self, place: Place, at: Instant, statements: u64) {
        let mut progress = self.progress();
        progress.begun = Some((place, at));
        if statements > 0 {
            progress.last = Some(place);
            progress.statements += statements;
        }
        drop(progress);
        self.is(SessionState::Active);
    }

    pub(crate) fn is(&self, state: SessionState) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn state(&self) -> SessionState {
        STATES[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// What the session does; `None` where it is closed.
    pub(crate) fn report(&self) -> Option<SessionReport> {
        let (state, progress) = self.look()?;
        Some(SessionReport {
            id: progress.id,
            thread: thread_label(self.thread.id(), self.thread.name()),
            state,
            made_at: progress.made_at.to_string(),
            begun_at: progress.begun.map(|(place, _)| place.to_string()),
            age: progress.begun.map(|(_, at)| at.elapsed()),
            last_statement_at: progress.last.map(ToString::to_string),
            statements: progress.statements,
        })
    }

    /// The entry as a holder, while its transaction is open.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let (place, at) = self.look()?.1.begun?;
        Some(Holder::new(self.thread.id(), self.thread.name(), place, at))
    }

    fn look(&self) -> Option<(SessionState, Progress)> {
        let mut progress = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, state) = (self.id.load(Ordering::Relaxed), self.state());
        if progress.id != id {
            progress = Progress::new(id, progress.made_at);
        }
        if state == SessionState::Idle {
            // Of the transaction before.
            progress.begun = None;
        }
        (state != SessionState::Closed).then_some((state, progress))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_state_stands_at_its_number() {
        for (number, state) in STATES.iter().enumerate() {
            assert_eq!(*state as usize, number);
        }
    }

    #[test]
    fn a_transaction_that_is_over_holds_nothing() {
        let place = std::panic::Location::caller();
        let entry = Entry::new(1, place);
        assert!(entry.holder().is_none());
        entry.begun(place, Instant::now(), 1);
        assert!(entry.holder().is_some());
        entry.is(SessionState::Idle);
        assert!(entry.holder().is_none());
        assert!(entry.report().unwrap().begun_at.is_none());
        entry.is(SessionState::Closed);
        assert!(entry.report().is_none());
        entry.reuse(2, None);
        let report = entry.report().unwrap();
        assert_eq!((report.id, report.statements, report.last_statement_at), (2, 0, None));
    }
}
