//! A registry's open sessions, readable from every thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::fork::Origin;
use crate::inspect::{Counters, Entry, Holders, SessionReport, SessionState};
use crate::place::Place;

type Seat = usize;

/// Entries in numbered seats: in and out without a search.
#[derive(Debug, Default)]
struct Seats {
    entries: Vec<Option<Arc<Entry>>>,
    free: Vec<Seat>,
}

impl Seats {
    fn taken(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().flatten()
    }
}

#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    origin: Origin,
    sessions: Mutex<Seats>,
    open: AtomicUsize,
    shut_down: AtomicBool,
    waiting: Mutex<()>,
    nobody_open: Condvar,
    leaks: AtomicU64,
    thread_exits: AtomicU64,
    hook_errors: AtomicU64,
}

impl SessionTable {
    fn sessions(&self) -> std::sync::MutexGuard<'_, Seats> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, entry: &Arc<Entry>) -> Seat {
        let entry = Some(Arc::clone(entry));
        let mut sessions = self.sessions();
        if let Some(seat) = sessions.free.pop() {
            sessions.entries[seat] = entry;
            return seat;
        }
        sessions.entries.push(entry);
        sessions.entries.len() - 1
    }

    fn remove(&self, seat: Seat) {
        let mut sessions = self.sessions();
        let entry = sessions.entries[seat].take();
        sessions.free.push(seat);
        drop(sessions);
        drop(entry);
    }

    /// A transaction is about to begin.
    pub(crate) fn admit(&self) -> Result<()> {
        self.open.fetch_add(1, Ordering::SeqCst);
        if self.shut_down.load(Ordering::SeqCst) {
            self.ended();
            return Err(Error::ShutDown);
        }
        Ok(())
    }

    /// A transaction ended.
    pub(crate) fn ended(&self) {
        let is_awaited = self.open.fetch_sub(1, Ordering::SeqCst) == 1 && self.shut_down.load(Ordering::SeqCst);
        if is_awaited && !self.origin.is_elsewhere() {
            let _turn = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.nobody_open.notify_all();
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::SeqCst)
    }

    /// Refuses new transactions and waits until the open ones have ended.
    pub(crate) fn shut_down(&self, patience: Duration) -> Result<()> {
        self.origin.check()?;
        self.shut_down.store(true, Ordering::SeqCst);
        let started = Instant::now();
        let mut turn = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while self.open.load(Ordering::SeqCst) > 0 {
            let waited = started.elapsed();
            if waited >= patience {
                drop(turn);
                return Err(Error::ShutdownTimeout { waited, holders: self.holders() });
            }
            turn = self.nobody_open.wait_timeout(turn, patience - waited).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn holders(&self) -> Holders {
        self.sessions().taken().filter_map(|entry| entry.holder()).collect()
    }

    pub(crate) fn reports(&self) -> Vec<SessionReport> {
        if self.origin.is_elsewhere() {
            return Vec::new();
        }
        let entries: Vec<_> = self.sessions().taken().cloned().collect();
        let mut reports: Vec<_> = entries.iter().filter_map(|entry| entry.report()).collect();
        reports.sort_by_key(|report| report.id);
        reports
    }

    pub(crate) fn leaked(&self) {
        self.leaks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended_with_its_thread(&self) {
        self.thread_exits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hook_failed(&self) {
        self.hook_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            leaks: self.leaks.load(Ordering::Relaxed),
            thread_exits: self.thread_exits.load(Ordering::Relaxed),
            hook_errors: self.hook_errors.load(Ordering::Relaxed),
        }
    }
}

/// A session's place in its registry's table.
#[derive(Debug)]
pub(crate) struct Desk {
    table: Arc<SessionTable>,
    seat: Seat,
    pub(crate) entry: Arc<Entry>,
    made_at: Place,
}

thread_local! {
    /// The desk of this thread's last session, left for the next: a session a request takes no lock that other threads
    /// want. It shows as no session while nobody sits there.
    static SPARE: Cell<Option<Desk>> = const { Cell::new(None) };
}

impl Desk {
    /// A desk for a session of this thread; none in another process than the table's, where its locks may never open.
    pub(crate) fn take(table: &Arc<SessionTable>, id: u64, made_at: Place) -> Option<Self> {
        if table.origin.is_elsewhere() {
            return None;
        }
        if let Ok(Some(mut desk)) = SPARE.try_with(Cell::take)
            && Arc::ptr_eq(&desk.table, table)
        {
            // Mostly one line makes all of a thread's sessions.
            let moved = !std::ptr::eq(desk.made_at, made_at);
            desk.entry.reuse(id, moved.then_some(made_at));
            desk.made_at = made_at;
            return Some(desk);
        }
        let entry = Entry::new(id, made_at);
        let seat = table.insert(&entry);
        Some(Self { table: Arc::clone(table), seat, entry, made_at })
    }

    pub(crate) fn table(&self) -> &SessionTable {
        &self.table
    }

    /// Leaves it for the thread's next session.
    pub(crate) fn leave(self) {
        self.entry.is(SessionState::Closed);
        let before = SPARE.try_with(|spare| spare.replace(Some(self)));
        drop(before);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if !self.table.origin.is_elsewhere() {
            self.table.remove(self.seat);
        }
    }
}
