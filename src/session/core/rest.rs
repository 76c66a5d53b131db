//! Sessions of a thread come one after the other, so each takes over the memory of the one before: a request's session would
//! else cost more in `malloc` than in SQL that SQLite answers from memory.

use std::any::Any;
use std::cell::Cell;
use std::rc::{Rc, Weak};

use super::Core;
use crate::backend::SessionConnection;
use crate::options::SessionOptions;
use crate::session::state::Situation;

thread_local! {
    /// The last session that ended here, for the next one. It holds nothing but memory: no engine, no value of the user's.
    static RESTING: Cell<Option<Rc<dyn Any>>> = const { Cell::new(None) };
}

impl<C: SessionConnection> Core<C> {
    /// Puts a session that was just made where it will stay.
    pub(super) fn settle_in(made: Self) -> Rc<Self> {
        let core = match resting::<C>() {
            Some(mut core) => {
                if let Some(place) = Rc::get_mut(&mut core) {
                    let unit = place.resting.take();
                    *place = made;
                    place.resting.set(unit);
                    core
                } else {
                    Rc::new(made)
                }
            }
            None => Rc::new(made),
        };
        *core.me.borrow_mut() = Rc::downgrade(&core);
        core
    }

    /// Drops a handle on a session that has ended; if it was the last one, its memory stays for the next session of the thread.
    pub(crate) fn rest(mut core: Rc<Self>) {
        let is_plain = core.has(Situation::Closed) && core.engine.is_some() && core.share.is_none();
        if !is_plain || Rc::strong_count(&core) > 1 || core.is_elsewhere() {
            return;
        }
        core.me.replace(Weak::new());
        if let Some(place) = Rc::get_mut(&mut core) {
            place.let_go();
            let before = RESTING.try_with(|resting| resting.replace(Some(core)));
            drop(before);
        }
    }

    /// Drops what is not plain memory. What is forgotten here is dropped when the next session takes the place.
    fn let_go(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.leave();
        }
        if let Some(unit) = self.unit.take() {
            self.resting.set(unit.rest());
        }
        let frames = self.frames.get_mut().end();
        let (lost, trouble) = (self.lost.take(), self.trouble.take());
        let (listeners, shared) = (self.listeners.take(), self.shared_listeners.take());
        let (hooks, errors) = (self.hook_queue.take(), self.listener_errors.take());
        drop((frames, lost, trouble, listeners, shared, hooks, errors));
        self.options = SessionOptions::new();
        self.info.clear();
        self.engine = None;
    }
}

/// The memory of this thread's last session, if that was of this type.
fn resting<C: SessionConnection>() -> Option<Rc<Core<C>>> {
    let resting = RESTING.try_with(Cell::take).ok()??;
    resting.downcast().map_err(|other| RESTING.try_with(|resting| resting.set(Some(other)))).ok()
}
