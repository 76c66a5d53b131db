//! The session itself: its connection, its frames and the way from one state to the next.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Session;
use super::events::SessionListener;
use super::frames::Frames;
use super::hooks::{Hook, HookError};
use super::join::{JoinMode, Joined};
use super::state::{Action, Operation, Refusal, Situation, Situations};
use super::table::{Desk, SessionTable};
use crate::backend::SessionConnection;
use crate::engine::{ConnectionSlot, Engine, Lease};
use crate::error::{Cause, Error, Reason, Result};
use crate::fork::Origin;
use crate::info::Info;
use crate::inspect::SessionState;
use crate::options::{SessionOptions, TransactionOptions};
use crate::place::Place;
use crate::unit::{Attempt, RetryPolicy};
use crate::unit_of_work::UnitOfWork;

mod attempt;
mod begin;
mod clock;
mod commit;
mod end;
mod entities;
mod hook;
mod listening;
mod nested;
mod rest;
mod share;
mod statement;

pub(crate) use clock::Deadline;
pub(crate) use entities::Quiet;
pub(crate) use statement::Road;

use share::Share;

/// Hooks registered by hooks run too, up to this many in one ending.
const HOOKS_AT_MOST: usize = 1_000;

static NEXT_IDS: AtomicU64 = AtomicU64::new(1);
/// A thread takes so many numbers at once.
const IDS: u64 = 64;

thread_local! {
    /// The next number of this thread, and where its numbers end.
    static IDS_LEFT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn next_id() -> u64 {
    IDS_LEFT.with(|left| {
        let (next, end) = left.get();
        let (next, end) = if next < end {
            (next, end)
        } else {
            let next = NEXT_IDS.fetch_add(IDS, Ordering::Relaxed);
            (next, next + IDS)
        };
        left.set((next + 1, end));
        next
    })
}

/// The connection of a session, while it has one.
pub(crate) enum Connection<C: SessionConnection> {
    Leased(Lease<C>),
    Joined(Box<ConnectionSlot<C>>),
}

impl<C: SessionConnection> Connection<C> {
    fn slot(&mut self) -> Option<&mut ConnectionSlot<C>> {
        match self {
            Self::Leased(lease) => lease.slot(),
            Self::Joined(slot) => Some(slot),
        }
    }
}

/// Where a session's connection comes from.
pub(crate) enum Whence<C: SessionConnection> {
    Engine,
    /// It is somebody else's.
    Joined(C, JoinMode),
    /// It is lent by the session that bears a transaction for several.
    Shared(Rc<Core<C>>),
}

/// Who ends the transaction: the extent that was opened for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finisher {
    pub(crate) place: Place,
    /// Whether only the extent may commit or roll back (`transaction`, `job`), or the code in it too (`request`).
    pub(crate) owns: bool,
}

/// The listeners of a registry; none while nobody listens.
pub(crate) type Listeners<C> = Option<Arc<[Arc<dyn SessionListener<C> + Send + Sync>]>>;

pub(crate) struct Core<C: SessionConnection> {
    pub(crate) id: u64,
    origin: Origin,
    engine: Option<Engine<C>>,
    join_mode: JoinMode,
    /// Its part in a transaction that it shares with other sessions.
    share: Option<Share<C>>,
    options: SessionOptions,
    pub(crate) made_at: Place,
    situations: Cell<Situations>,
    connection: RefCell<Option<Connection<C>>>,
    /// The options of the transaction that is open or will be.
    current: Cell<TransactionOptions>,
    /// Begun logically: by `begin`, by the first statement, or by a hook.
    created: Cell<Option<Place>>,
    joined: Cell<Joined>,
    frames: RefCell<Frames>,
    lost: RefCell<Option<Cause>>,
    finisher: Cell<Option<Finisher>>,
    /// How many `transaction` calls have joined the open one.
    joins: Cell<usize>,
    deadline: Cell<Option<Deadline>>,
    is_bounded: Cell<bool>,
    /// How much time was left when the database was last told.
    told: Cell<Option<Duration>>,
    /// Whether that was after BEGIN.
    told_anew: Cell<bool>,
    attempt: Cell<Option<(Attempt, RetryPolicy)>>,
    /// What the session answered last, if that was an error and nothing has gone well since.
    trouble: RefCell<Option<Error>>,
    is_troubled: Cell<bool>,
    again_after: Cell<Option<Duration>>,
    /// Whether a statement may have written.
    wrote: Cell<bool>,
    /// Whether the rollback was asked for by the code of the extent itself.
    quiet: Cell<bool>,
    held_at: Cell<Option<Place>>,
    closed_at: Cell<Option<Place>>,
    close_at_return: Cell<Option<Place>>,
    hook_queue: RefCell<Option<VecDeque<Hook>>>,
    listeners: RefCell<Vec<Rc<dyn SessionListener<C>>>>,
    shared_listeners: Listeners<C>,
    watched: Cell<bool>,
    asking: Cell<bool>,
    /// Of listeners that panicked when they heard of an end, until its report is made.
    listener_errors: RefCell<Vec<HookError>>,
    /// Whether there was work to lose when it was closed.
    closed_on_work: Cell<bool>,
    /// Made when the first entity comes.
    unit: OnceCell<Box<UnitOfWork<C>>>,
    /// The memory of an earlier session's, for that.
    resting: Cell<Option<Box<UnitOfWork<C>>>>,
    me: RefCell<Weak<Self>>,
    /// Where other threads see it; none outside a registry.
    desk: Option<Desk>,
    pub(crate) info: Info,
}

impl<C: SessionConnection> Core<C> {
    pub(crate) fn new(
        engine: Option<Engine<C>>,
        options: SessionOptions,
        table: Option<&Arc<SessionTable>>,
        shared_listeners: Listeners<C>,
        place: Place,
        whence: Whence<C>,
    ) -> Rc<Self> {
        let id = next_id();
        let desk = table.and_then(|table| Desk::take(table, id, place));
        let mut core = Self::place(&engine, place);
        // Nobody else has it yet.
        if let Some(own) = Rc::get_mut(&mut core) {
            own.begin(id, engine, options, place);
            own.desk = desk;
            own.options.fill(&own.info);
            own.watched.set(shared_listeners.is_some());
            own.shared_listeners = shared_listeners;
            match whence {
                Whence::Engine => {}
                Whence::Joined(conn, mode) => {
                    let slot = Box::new(ConnectionSlot::new(conn, None, None));
                    *own.connection.get_mut() = Some(Connection::Joined(slot));
                    own.join_mode = mode;
                }
                Whence::Shared(outer) => own.share = Some(Share::new(outer)),
            }
        }
        *core.me.borrow_mut() = Rc::downgrade(&core);
        core
    }

    /// A session that has not begun.
    fn vacant(origin: Origin, place: Place) -> Self {
        Self {
            id: 0,
            origin,
            engine: None,
            join_mode: JoinMode::default(),
            share: None,
            options: SessionOptions::new(),
            made_at: place,
            situations: Cell::new(Situations::IDLE),
            connection: RefCell::default(),
            current: Cell::new(TransactionOptions::new()),
            created: Cell::new(None),
            joined: Cell::new(Joined::No),
            frames: RefCell::default(),
            lost: RefCell::default(),
            finisher: Cell::new(None),
            joins: Cell::new(0),
            deadline: Cell::new(None),
            is_bounded: Cell::new(false),
            told: Cell::new(None),
            told_anew: Cell::new(false),
            attempt: Cell::new(None),
            trouble: RefCell::default(),
            is_troubled: Cell::new(false),
            again_after: Cell::new(None),
            wrote: Cell::new(false),
            quiet: Cell::new(false),
            held_at: Cell::new(None),
            closed_at: Cell::new(None),
            close_at_return: Cell::new(None),
            hook_queue: RefCell::default(),
            listeners: RefCell::default(),
            shared_listeners: None,
            watched: Cell::new(false),
            asking: Cell::new(false),
            listener_errors: RefCell::default(),
            closed_on_work: Cell::new(false),
            unit: OnceCell::new(),
            resting: Cell::new(None),
            me: RefCell::default(),
            desk: None,
            info: Info::default(),
        }
    }

    pub(crate) fn has(&self, situation: Situation) -> bool {
        self.situations.get().has(situation)
    }

    /// Whether the session's connections are another process's, made before a fork.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }

    pub(crate) fn check_origin(&self) -> Result<()> {
        self.origin.check()
    }

    fn table(&self) -> Option<&SessionTable> {
        self.desk.as_ref().map(Desk::table)
    }

    fn show(&self, state: SessionState) {
        if let Some(desk) = &self.desk {
            desk.entry.is(state);
        }
    }

    fn show_statement(&self, place: Place) {
        if let Some(desk) = &self.desk {
            desk.entry.statement(place);
        }
    }

    fn set(&self, situation: Situation, on: bool) {
        self.situations.set(self.situations.get().with(situation, on));
    }

    /// Running its end hooks, perhaps those of its own closing.
    pub(crate) fn is_in_hook(&self) -> bool {
        self.has(Situation::InHook)
    }

    /// Open for use by code that asks for the current session.
    pub(crate) fn is_available(&self) -> bool {
        !self.has(Situation::Closed) && !self.has(Situation::InHook) && !self.is_elsewhere()
    }

    /// In the middle of a call of its own: lent, flushing, or in its hooks.
    pub(crate) fn is_held(&self) -> bool {
        self.has(Situation::Lent) || self.has(Situation::Flushing) || self.has(Situation::InHook)
    }

    pub(crate) fn state(&self) -> SessionState {
        let situations = self.situations.get();
        if situations.has(Situation::Closed) {
            SessionState::Closed
        } else if situations.has(Situation::Lost) {
            SessionState::Lost
        } else if situations.has(Situation::Failed) {
            SessionState::Failed
        } else if situations.has(Situation::RollbackOnly) {
            SessionState::RollbackOnly
        } else if situations.has(Situation::Active) {
            SessionState::Active
        } else {
            SessionState::Idle
        }
    }

    pub(crate) fn begun_at(&self) -> Option<Place> {
        self.created.get()
    }

    pub(crate) fn options(&self) -> TransactionOptions {
        self.current.get()
    }

    /// What the open transaction gives to one that joins it.
    pub(crate) fn offered(&self) -> TransactionOptions {
        let options = self.current.get();
        self.engine.as_ref().map_or(options, |engine| options.on(engine.kind(), engine.settings()))
    }

    pub(crate) fn finisher(&self) -> Option<Finisher> {
        self.finisher.get()
    }

    pub(crate) fn set_finisher(&self, finisher: Option<Finisher>) {
        self.finisher.set(finisher);
        self.set(Situation::Owned, finisher.is_some_and(|finisher| finisher.owns));
    }

    pub(crate) fn savepoints(&self) -> usize {
        self.frames.borrow().savepoints.len()
    }

    fn decide(&self, operation: Operation) -> Result<Action> {
        self.origin.check()?;
        self.situations.get().decide(operation).map_err(|refusal| self.refuse(refusal))
    }

    #[cold]
    fn refuse(&self, refusal: Refusal) -> Error {
        let here = self.made_at;
        match refusal {
            Refusal::SessionClosed => Error::SessionClosed { at: self.closed_at.get().unwrap_or(here) },
            Refusal::InHook => Error::InHook,
            Refusal::Reentrant => Error::Reentrant,
            Refusal::InUse => Error::InUse { at: self.held_at.get().unwrap_or(here) },
            Refusal::NoTransaction => Error::NoTransaction,
            Refusal::NotOwner => {
                let begun_at = self.created.get().unwrap_or(here);
                Error::NotOwner { at: self.finisher.get().map_or(begun_at, |finisher| finisher.place) }
            }
            Refusal::SavepointOpen => {
                Error::SavepointOpen { at: self.frames.borrow_mut().innermost().place.unwrap_or(here) }
            }
            Refusal::TransactionLost => Error::TransactionLost { cause: self.lost_cause() },
            Refusal::PendingRollback => Error::PendingRollback { cause: self.doom() },
        }
    }

    fn lost_cause(&self) -> Cause {
        self.lost.borrow().clone().unwrap_or_else(|| Cause::new(Reason::EndedOutside, self.made_at))
    }

    /// Why the transaction can't be committed.
    fn doom(&self) -> Cause {
        if let Some(lost) = &*self.lost.borrow() {
            return lost.clone();
        }
        self.frames.borrow().doom().cloned().unwrap_or_else(|| Cause::new(Reason::EndedOutside, self.made_at))
    }

    /// Brings the flags in line with the frames.
    fn refresh(&self) {
        let mut frames = self.frames.borrow_mut();
        let has_savepoint = !frames.savepoints.is_empty();
        let root_doomed = frames.root.rollback_only.is_some();
        let innermost = frames.innermost();
        let failed = innermost.failure.is_some();
        let doomed = root_doomed || innermost.rollback_only.is_some();
        drop(frames);
        let situations = self
            .situations
            .get()
            .with(Situation::SavepointOpen, has_savepoint)
            .with(Situation::Failed, failed)
            .with(Situation::RollbackOnly, doomed)
            .with(Situation::Lost, self.lost.borrow().is_some());
        self.situations.set(situations);
        self.show(self.state());
    }

    pub(crate) fn set_rollback_only(&self, reason: Reason, place: Place) -> Result<()> {
        self.origin.check()?;
        for (situation, refusal) in [
            (Situation::Closed, Refusal::SessionClosed),
            // The transaction is over; the mark would hit the next one.
            (Situation::InHook, Refusal::InHook),
            // What was sent is stored.
            (Situation::Autocommit, Refusal::NoTransaction),
        ] {
            if self.has(situation) {
                return Err(self.refuse(refusal));
            }
        }
        self.created.set(self.created.get().or(Some(place)));
        {
            let mut frames = self.frames.borrow_mut();
            // Asked for in a savepoint or by a joined transaction, it is news to the extent's own code.
            self.quiet.set(self.quiet.get() || (frames.savepoints.is_empty() && self.joins.get() == 0));
            frames.innermost().rollback_only.get_or_insert(Cause::new(reason, place));
        }
        self.refresh();
        Ok(())
    }

    /// Whether the only reason to roll back is that the extent's own code asked for it.
    pub(crate) fn is_quietly_rollback_only(&self) -> bool {
        let frames = self.frames.borrow();
        self.quiet.get()
            && self.lost.borrow().is_none()
            && frames.root.failure.is_none()
            && frames.root.rollback_only.as_ref().is_some_and(|cause| matches!(cause.reason(), Reason::Requested(_)))
    }

    /// A `transaction` joins: gives the serial of the frame that it will mark if it fails.
    pub(crate) fn join(&self) -> u64 {
        self.joins.set(self.joins.get() + 1);
        self.set(Situation::Owned, true);
        self.frames.borrow_mut().innermost().serial
    }

    /// A joined `transaction` ended; if it failed, the frame that it joined can only be rolled back.
    pub(crate) fn leave(&self, serial: u64, failed: Option<Reason>, place: Place) {
        self.joins.set(self.joins.get().saturating_sub(1));
        let owned = self.joins.get() > 0 || self.finisher.get().is_some_and(|finisher| finisher.owns);
        self.set(Situation::Owned, owned);
        let Some(reason) = failed else { return };
        if let Some(frame) = self.frames.borrow_mut().by_serial(serial) {
            frame.rollback_only.get_or_insert(Cause::new(reason, place));
        }
        self.refresh();
    }

    /// A handle for listeners; none while the last handle is being dropped.
    fn handle(&self) -> Option<Session<C>> {
        self.me.borrow().upgrade().map(Session::of)
    }
}
