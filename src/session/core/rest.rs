//! Sessions of a thread come one after the other, so each takes over the memory of the one before: a request's session would
//! else cost more in `malloc` than in SQL that SQLite answers from memory.

use std::any::Any;
use std::cell::Cell;
use std::rc::{Rc, Weak};

use super::Core;
use crate::backend::SessionConnection;
use crate::engine::Engine;
use crate::fork::Origin;
use crate::options::SessionOptions;
use crate::place::Place;
use crate::session::join::{JoinMode, Joined};
use crate::session::state::{Situation, Situations};

thread_local! {
    /// The last session that ended here, for the next one. It holds nothing but memory: no engine, no value of the user's.
    static RESTING: Cell<Option<Rc<dyn Any>>> = const { Cell::new(None) };
}

impl<C: SessionConnection> Core<C> {
    /// Where a new session goes: to the place of the last one, if that has left it.
    pub(super) fn place(engine: &Option<Engine<C>>, place: Place) -> Rc<Self> {
        resting::<C>().unwrap_or_else(|| {
            let origin = engine.as_ref().map_or_else(Origin::here, |engine| engine.origin().clone());
            Rc::new(Self::vacant(origin, place))
        })
    }

    /// Makes a session of what another one has left, or of nothing. Every field is named, so that none is left as it was by
    /// mistake.
    pub(super) fn begin(&mut self, id: u64, engine: Option<Engine<C>>, options: SessionOptions, place: Place) {
        let Self {
            id: own_id,
            origin,
            engine: own_engine,
            join_mode,
            share,
            options: own_options,
            made_at,
            situations,
            connection,
            current,
            created,
            joined,
            frames,
            lost,
            finisher,
            joins,
            deadline,
            is_bounded,
            told,
            told_anew,
            attempt,
            trouble,
            is_troubled,
            again_after,
            wrote,
            quiet,
            held_at,
            closed_at,
            close_at_return,
            hook_queue,
            listeners,
            shared_listeners,
            watched,
            asking,
            listener_errors,
            closed_on_work,
            // Nothing is in them, or what the next unit of work is made of.
            unit: _,
            resting: _,
            me: _,
            desk: _,
            info: _,
        } = self;
        match &engine {
            Some(engine) => origin.clone_from(engine.origin()),
            // The memory may be of a session before a fork.
            None => *origin = Origin::here(),
        }
        (*own_id, *made_at, *join_mode) = (id, place, JoinMode::default());
        situations.set(Situations::IDLE.with(Situation::Autocommit, options.transaction.autocommit));
        current.set(options.transaction);
        (*own_engine, *own_options) = (engine, options);
        for flag in [is_bounded, told_anew, is_troubled, wrote, quiet, watched, asking, closed_on_work] {
            flag.set(false);
        }
        for place in [created, held_at, closed_at, close_at_return] {
            place.set(None);
        }
        joined.set(Joined::No);
        joins.set(0);
        finisher.set(None);
        deadline.set(None);
        told.set(None);
        attempt.set(None);
        again_after.set(None);
        forget(share);
        forget(shared_listeners);
        forget(connection.get_mut());
        forget(lost.get_mut());
        forget(trouble.get_mut());
        forget(hook_queue.get_mut());
        listeners.get_mut().clear();
        listener_errors.get_mut().clear();
        frames.get_mut().renew();
    }

    /// Drops a handle on a session that has ended; if it was the last one, its memory stays for the next session of the thread.
    pub(crate) fn rest(mut core: Rc<Self>) {
        let is_plain = core.has(Situation::Closed) && core.engine.is_some() && core.share.is_none();
        if !is_plain || Rc::strong_count(&core) > 1 || core.is_elsewhere() {
            return;
        }
        core.me.replace(Weak::new());
        if let Some(own) = Rc::get_mut(&mut core) {
            own.let_go();
            let before = RESTING.try_with(|resting| resting.replace(Some(core)));
            drop(before);
        }
    }

    /// Drops what is not plain memory.
    fn let_go(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.leave();
        }
        if let Some(unit) = self.unit.take() {
            self.resting.set(unit.rest());
        }
        let frames = self.frames.get_mut().end();
        drop(frames);
        forget(self.lost.get_mut());
        forget(self.trouble.get_mut());
        forget(self.hook_queue.get_mut());
        forget(&mut self.shared_listeners);
        self.listeners.get_mut().clear();
        self.listener_errors.get_mut().clear();
        self.options = SessionOptions::new();
        self.info.clear();
        self.engine = None;
    }
}

/// Drops what is there; mostly nothing is.
fn forget<T>(value: &mut Option<T>) {
    if value.is_some() {
        *value = None;
    }
}

/// The memory of this thread's last session, if that was of this type.
fn resting<C: SessionConnection>() -> Option<Rc<Core<C>>> {
    let resting = RESTING.try_with(Cell::take).ok()??;
    resting.downcast().map_err(|other| RESTING.try_with(|resting| resting.set(Some(other)))).ok()
}
