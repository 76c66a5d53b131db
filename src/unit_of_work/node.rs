//! A tracked row: its value, its state, and what a rollback would put back.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use smallvec::SmallVec;

use super::IntoAny;
use super::changes::{Change, Changes};
use super::standing::Standing;
use super::tracked::ObjectState;
use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::place::Place;

/// What a handle asks of its session, whose connection it doesn't know.
pub(crate) trait Ops {
    /// Whether the session takes changes now.
    fn may_change(&self, place: Place) -> Result<()>;
    /// Reads the row anew.
    fn reload(&self, node: Rc<dyn AnyNode>, place: Place) -> Result<()>;
    fn flush(&self, place: Place) -> Result<()>;
    /// Takes the node among those that the next flush writes.
    fn changed(&self, node: Rc<dyn AnyNode>);
    /// Notes that the innermost frame has touched the node.
    fn touch(&self, node: &Rc<dyn AnyNode>);
}

/// What the nodes of a session share.
pub(crate) struct Owner {
    session: Cell<u64>,
    /// Raised when everything that is clean becomes stale.
    epoch: Cell<u32>,
    /// How many savepoints are open.
    level: Cell<u32>,
    guards: RefCell<Vec<Guard>>,
    next_guard: Cell<u64>,
    ops: RefCell<Option<Weak<dyn Ops>>>,
}

/// A write guard that is alive.
struct Guard {
    id: u64,
    node: *const (),
    entity: &'static str,
    place: Place,
}

/// The epoch of nodes that are stale whatever the session's is.
const STALE: u32 = 0;

impl Owner {
    pub(crate) fn new(session: u64, ops: Weak<dyn Ops>) -> Rc<Self> {
        Rc::new(Self {
            session: Cell::new(session),
            epoch: Cell::new(STALE + 1),
            level: Cell::new(0),
            guards: RefCell::default(),
            next_guard: Cell::new(0),
            ops: RefCell::new(Some(ops)),
        })
    }

    pub(crate) fn session(&self) -> u64 {
        self.session.get()
    }

    /// Another session is the owner, of nodes that it will make.
    pub(crate) fn pass_on(&self, session: u64, ops: Weak<dyn Ops>, level: u32) {
        self.session.set(session);
        self.level.set(level);
        *self.ops.borrow_mut() = Some(ops);
    }

    /// The session, while it is open.
    pub(crate) fn ops(&self) -> Option<Rc<dyn Ops>> {
        self.ops.borrow().as_ref().and_then(Weak::upgrade)
    }

    pub(crate) fn close(&self) {
        self.ops.borrow_mut().take();
    }

    /// Everything that is clean is stale from now on.
    pub(crate) fn next_epoch(&self) {
        let next = self.epoch.get().wrapping_add(1);
        self.epoch.set(if next == STALE { STALE + 1 } else { next });
    }

    pub(crate) fn level(&self) -> u32 {
        self.level.get()
    }

    pub(crate) fn set_level(&self, level: u32) {
        self.level.set(level);
    }

    pub(crate) fn has_guards(&self) -> bool {
        !self.guards.borrow().is_empty()
    }

    pub(crate) fn alive_guard(&self) -> Option<Error> {
        self.guards.borrow().last().map(Guard::error)
    }

    fn guard_of(&self, node: *const ()) -> Option<Error> {
        self.guards.borrow().iter().find(|guard| guard.node == node).map(Guard::error)
    }

    fn open_guard(&self, node: *const (), entity: &'static str, place: Place) -> u64 {
        let id = self.next_guard.replace(self.next_guard.get() + 1);
        self.guards.borrow_mut().push(Guard { id, node, entity, place });
        id
    }

    /// Whether the guard was still good.
    pub(crate) fn close_guard(&self, id: u64) -> bool {
        let Ok(mut guards) = self.guards.try_borrow_mut() else { return false };
        let before = guards.len();
        guards.retain(|guard| guard.id != id);
        guards.len() < before
    }

    /// The frame ended: what the guards hold is thrown away.
    pub(crate) fn void_guards(&self) {
        self.guards.borrow_mut().clear();
    }
}

impl Guard {
    fn error(&self) -> Error {
        Error::WriteGuardAlive { entity: self.entity, at: self.place }
    }
}

/// A node of any entity.
pub(crate) trait AnyNode: IntoAny {
    fn entity(&self) -> TypeId;
    fn entity_name(&self) -> &'static str;
    fn table_name(&self) -> &'static str;
    fn state(&self) -> ObjectState;
    /// A hash of the key that its row has in the database.
    fn key_hash(&self) -> Option<u64>;
    /// The savepoint `level` was released: its undo is its parent's.
    fn release(&self, level: u32);
    /// Drops the changes that were not written, and makes it stale.
    fn expire(&self);
    /// A deleted one is not the session's any more.
    fn leave(self: Rc<Self>, changes: &mut Changes);
    /// The transaction is stored: there is nothing to undo any more.
    fn committed(self: Rc<Self>, changes: &mut Changes);
}

/// The record that was made of a row again.
pub(crate) type Unfinished = Box<dyn Any>;

/// How to make a record of a row again.
type Unfinish<T> = fn(T) -> Unfinished;

/// What a rollback puts back.
struct Undo<T> {
    level: u32,
    state: ObjectState,
    value: Option<Rc<T>>,
}

/// What only few nodes have.
struct Extra<T> {
    /// What the database holds, while the value differs.
    base: Option<Rc<T>>,
    /// For each frame that has touched it; mostly there is one.
    undo: SmallVec<[Undo<T>; 1]>,
    /// What it was to be inserted from, or was.
    record: Option<Unfinished>,
}

impl<T> Default for Extra<T> {
    fn default() -> Self {
        Self { base: None, undo: SmallVec::new(), record: None }
    }
}

impl<T> Extra<T> {
    fn is_empty(&self) -> bool {
        self.base.is_none() && self.undo.is_empty() && self.record.is_none()
    }

    fn remember(&mut self, level: u32, state: ObjectState, value: impl FnOnce(Option<Rc<T>>) -> Option<Rc<T>>) -> bool {
        let is_new = self.undo.last().is_none_or(|undo| undo.level < level);
        if is_new {
            self.undo.push(Undo { level, state, value: value(self.base.clone()) });
        }
        is_new
    }
}

pub(crate) struct Node<T: Entity> {
    owner: Rc<Owner>,
    /// The row; of a pending one what the running flush has inserted, which only its children may see.
    value: Cell<Option<Rc<T>>>,
    extra: Cell<Option<Box<Extra<T>>>>,
    /// Inserted in a frame that is still open: how to make a record of it again.
    born: Cell<Option<Unfinish<T>>>,
    epoch: Cell<u32>,
    /// The level is, while it is pending, how many pending parents are above it; then the frame that it was born in.
    standing: Standing,
}

impl<T: Entity> Node<T> {
    pub(crate) fn loaded(owner: Rc<Owner>, value: T) -> Rc<Self> {
        let epoch = Cell::new(owner.epoch.get());
        Rc::new(Self {
            owner,
            value: Cell::new(Some(Rc::new(value))),
            extra: Cell::new(None),
            born: Cell::new(None),
            epoch,
            standing: Standing::new(ObjectState::Persistent, 0),
        })
    }

    pub(crate) fn pending(owner: Rc<Owner>, level: u32) -> Rc<Self> {
        Rc::new(Self {
            owner,
            value: Cell::new(None),
            extra: Cell::new(None),
            born: Cell::new(None),
            epoch: Cell::new(STALE),
            standing: Standing::new(ObjectState::Pending, level),
        })
    }

    pub(crate) fn owner(&self) -> &Rc<Owner> {
        &self.owner
    }

    fn extra<R>(&self, f: impl FnOnce(&mut Extra<T>) -> R) -> R {
        let mut extra = self.extra.take().unwrap_or_default();
        let result = f(&mut extra);
        self.extra.set((!extra.is_empty()).then_some(extra));
        result
    }

    fn peek<R>(&self, f: impl FnOnce(Option<&Extra<T>>) -> R) -> R {
        let extra = self.extra.take();
        let result = f(extra.as_deref());
        self.extra.set(extra);
        result
    }

    pub(crate) fn value(&self) -> Option<Rc<T>> {
        if self.standing.state() == ObjectState::Pending { None } else { self.value_or_staged() }
    }

    /// What a child that is being made may see: the row itself, or the one that the running flush has inserted.
    pub(crate) fn value_or_staged(&self) -> Option<Rc<T>> {
        let value = self.value.take();
        self.value.set(value.clone());
        value
    }

    pub(crate) fn look<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        if self.standing.state() == ObjectState::Pending {
            return None;
        }
        // Not through `value`: the counter costs more than the look. Put back also if the application's code panics.
        let looked_at = PutBack { cell: &self.value, value: self.value.take() };
        looked_at.value.as_deref().map(f)
    }

    /// The same at the row as the database holds it.
    pub(crate) fn look_at_base<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        match self.peek(|extra| extra.and_then(|extra| extra.base.clone())) {
            Some(base) => Some(f(&base)),
            None => self.look(f),
        }
    }

    pub(crate) fn key(&self) -> Option<T::Key> {
        self.look(T::key)
    }

    /// The row as the database holds it, as far as the session knows.
    pub(crate) fn base(&self) -> Option<Rc<T>> {
        self.peek(|extra| extra.and_then(|extra| extra.base.clone())).or_else(|| self.value())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.peek(|extra| extra.is_some_and(|extra| extra.base.is_some()))
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.epoch.get() != self.owner.epoch.get() && !self.is_dirty()
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.standing.is_marked()
    }

    pub(crate) fn set_marked(&self, marked: bool) {
        self.standing.set_marked(marked);
    }

    pub(crate) fn set_state(&self, state: ObjectState) {
        self.standing.set_state(state);
    }

    pub(crate) fn pending_level(&self) -> Option<u32> {
        (self.standing.state() == ObjectState::Pending).then(|| self.standing.level())
    }

    pub(crate) fn make_stale(&self) {
        self.epoch.set(STALE);
    }

    /// The row as it was just read: it replaces what was known, changes included.
    pub(crate) fn loaded_again(&self, value: T) {
        self.written(Rc::new(value));
        self.epoch.set(self.owner.epoch.get());
    }

    /// The row as it was just written. Columns that were not may have changed since it was read: that makes it no fresher.
    pub(crate) fn written(&self, value: Rc<T>) {
        self.value.set(Some(value));
        if self.is_dirty() {
            self.extra(|extra| extra.base = None);
        }
    }

    /// Drops the changes that were not written.
    pub(crate) fn drop_changes(&self) {
        if let Some(base) = self.extra(|extra| extra.base.take()) {
            self.value.set(Some(base));
        }
    }

    /// A change: keeps the old value as the base, unless there is one, and for a rollback of the innermost frame. Says whether
    /// it is the first since the last flush, and whether it is the frame's first touch.
    pub(crate) fn change(&self, value: T, level: u32) -> (bool, bool) {
        let old = self.value.replace(Some(Rc::new(value)));
        let (state, is_born) = (self.standing.state(), self.is_born_in(level));
        self.extra(|extra| {
            let is_first = extra.base.is_none();
            if is_first {
                extra.base = old;
            }
            (is_first, !is_born && extra.remember(level, state, |base| base))
        })
    }

    pub(crate) fn stage(&self, value: Option<Rc<T>>) {
        self.value.set(value);
    }

    /// The running flush was good: what it inserted is the row.
    pub(crate) fn inserted(&self, level: u32, unfinish: Unfinish<T>) {
        self.born.set(Some(unfinish));
        self.standing.set_level(level);
        self.epoch.set(self.owner.epoch.get());
        self.standing.set_state(ObjectState::Persistent);
    }

    /// Whether a rollback of this frame leaves nothing of it to put back.
    fn is_born_in(&self, level: u32) -> bool {
        self.born.get().is_some() && self.standing.level() >= level
    }

    /// Keeps what a rollback of the innermost frame will need. Says whether the frame had not touched it yet.
    pub(crate) fn remember(&self, level: u32) -> bool {
        if self.is_born_in(level) {
            return false;
        }
        let state = self.standing.state();
        self.extra(|extra| extra.remember(level, state, |base| base.or_else(|| self.value())))
    }

    /// Puts back what was before the frame `level`.
    pub(crate) fn undo(&self, level: u32) {
        self.standing.set_marked(false);
        self.epoch.set(STALE);
        if self.is_born_in(level) {
            let unfinish = self.born.take();
            self.extra.take();
            self.standing.set_state(ObjectState::Transient);
            if let (Some(unfinish), Some(value)) = (unfinish, self.value.take()) {
                let record = unfinish(Rc::unwrap_or_clone(value));
                self.extra(|extra| extra.record = Some(record));
            }
            return;
        }
        let undone = self.extra(|extra| {
            extra.base = None;
            let position = extra.undo.iter().position(|undo| undo.level >= level)?;
            extra.undo.drain(position..).next()
        });
        let Some(undone) = undone else { return };
        self.standing.set_state(undone.state);
        self.value.set(undone.value);
    }

    /// Never inserted: transient, with its record if there is one.
    pub(crate) fn cancel(&self, record: Option<Unfinished>) {
        self.standing.set_state(ObjectState::Transient);
        self.standing.set_level(0);
        self.value.set(None);
        self.extra(|extra| extra.record = record);
    }

    pub(crate) fn take_record(&self) -> Option<Unfinished> {
        self.extra(|extra| extra.record.take())
    }

    /// No longer the session's. Values stay, changes that were not written too.
    pub(crate) fn detach(&self) {
        self.standing.set_state(ObjectState::Detached);
        self.standing.set_marked(false);
        self.epoch.set(STALE);
        self.extra.take();
        self.born.take();
    }

    pub(crate) fn erased(self: &Rc<Self>) -> Rc<dyn AnyNode> {
        Rc::clone(self) as Rc<dyn AnyNode>
    }

    fn address(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }

    pub(crate) fn open_guard(&self, place: Place) -> Result<u64> {
        if let Some(error) = self.guard() {
            return Err(error);
        }
        Ok(self.owner.open_guard(self.address(), std::any::type_name::<T>(), place))
    }

    pub(crate) fn guard(&self) -> Option<Error> {
        self.owner.guard_of(self.address())
    }
}

/// A value that is looked at; goes back to its cell, whatever way the look ends.
struct PutBack<'a, T> {
    cell: &'a Cell<Option<Rc<T>>>,
    value: Option<Rc<T>>,
}

impl<T> Drop for PutBack<'_, T> {
    fn drop(&mut self) {
        self.cell.set(self.value.take());
    }
}

impl<T: Entity> AnyNode for Node<T> {
    fn entity(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn entity_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn table_name(&self) -> &'static str {
        T::TABLE
    }

    fn state(&self) -> ObjectState {
        self.standing.state()
    }

    fn key_hash(&self) -> Option<u64> {
        self.base().map(|base| crate::entity::hash_of(&base.key()))
    }

    fn release(&self, level: u32) {
        if self.born.get().is_some() && self.standing.level() == level {
            self.standing.set_level(level.saturating_sub(1));
            return;
        }
        // What its parent has to put back is older: that of a row born there is nothing.
        let is_known = self.is_born_in(level.saturating_sub(1));
        if self.peek(|extra| extra.is_none()) {
            return;
        }
        self.extra(|extra| {
            if extra.undo.last().is_some_and(|undo| undo.level == level)
                && let Some(last) = extra.undo.pop()
                && !is_known
                && extra.undo.last().is_none_or(|undo| undo.level + 1 < level)
            {
                extra.undo.push(Undo { level: level.saturating_sub(1), ..last });
            }
        });
    }

    fn expire(&self) {
        self.drop_changes();
        self.make_stale();
    }

    fn leave(self: Rc<Self>, changes: &mut Changes) {
        let from = self.standing.state();
        if from == ObjectState::Deleted {
            self.detach();
            changes.push(|| Change { node: self, from, to: ObjectState::Detached });
        }
    }

    fn committed(self: Rc<Self>, changes: &mut Changes) {
        self.born.take();
        if let Some(mut extra) = self.extra.take() {
            extra.undo.clear();
            self.extra.set((!extra.is_empty()).then_some(extra));
        }
        if self.standing.state() == ObjectState::Deleted {
            self.standing.set_state(ObjectState::Detached);
            changes.push(|| Change { node: self, from: ObjectState::Deleted, to: ObjectState::Detached });
        }
    }
}
