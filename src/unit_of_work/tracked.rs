//! The handle of a tracked row, and the guards that read and write it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::rc::Rc;

use super::node::{AnyNode, Node};
use super::parents::Parent;
use crate::entity::{Entity, Record};
use crate::error::{Error, Result};
use crate::place::Place;

/// Where an object stands between the program and the database, in SQLAlchemy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectState {
    /// No row, and no session: its insert was rolled back, or it was expunged before.
    Transient,
    /// Added; the next flush inserts it.
    Pending,
    /// A row, in the session's identity map.
    Persistent,
    /// Its DELETE was sent; a rollback makes it persistent again.
    Deleted,
    /// It was a row, and no session tracks it any more.
    Detached,
}

/// A handle on an entity in a session's identity map: the same row is the same handle.
///
/// Cheap to clone, compared by identity, `!Send`. It keeps what it showed last for as long as it lives, also after
/// [`Session::remove()`](crate::Session::remove) and the end of the session.
///
/// | | transient | pending | persistent | deleted | detached |
/// |---|---|---|---|---|---|
/// | [`read`](Tracked::read) | `NotPersistent` | `Pending` | the row | the row | the row |
/// | [`id`](Tracked::id) | `NotPersistent` | flushes | the key | the key | the key |
/// | [`write`](Tracked::write) | `NotPersistent` | `Pending` | a guard | `Detached` | `Detached` |
pub struct Tracked<T: Entity> {
    node: Rc<Node<T>>,
}

impl<T: Entity> Tracked<T> {
    pub(crate) fn of(node: Rc<Node<T>>) -> Self {
        Self { node }
    }

    pub(crate) fn node(&self) -> &Rc<Node<T>> {
        &self.node
    }

    /// The row, from memory: never any I/O. What is read stays as it was, whatever happens to the entity meanwhile. After a
    /// commit, a rollback, or raw SQL through the session it is what was known before; [`refresh`](crate::Session::refresh),
    /// `get` and queries read anew, and so does [`write`](Tracked::write).
    ///
    /// # Errors
    /// [`Error::Pending`] before its insert; [`Error::NotPersistent`] once that was rolled back.
    pub fn read(&self) -> Result<Read<T>> {
        match self.node.value() {
            Some(value) => Ok(Read(value)),
            None => Err(self.no_row()),
        }
    }

    /// The row, also of a parent that the running flush has just inserted.
    pub(crate) fn row(&self) -> Result<Rc<T>> {
        self.node.value_or_staged().ok_or_else(|| self.no_row())
    }

    fn no_row(&self) -> Error {
        let entity = std::any::type_name::<T>();
        match self.state() {
            ObjectState::Pending => Error::Pending { entity },
            _ => Error::NotPersistent { entity },
        }
    }

    /// The row, moved out where this is its last handle and cloned where not.
    ///
    /// # Errors
    /// As [`read`](Tracked::read).
    pub fn into_value(self) -> Result<T> {
        let value = self.node.value().ok_or_else(|| self.no_row())?;
        drop(self);
        Ok(Rc::unwrap_or_clone(value))
    }

    /// The record again, after its insert was rolled back or it was expunged: to be changed and added anew. Once.
    ///
    /// # Errors
    /// [`Error::NotTransient`] in any other state, for another type of record, and for a record that was never made.
    pub fn into_new<N: Record<Entity = T>>(&self) -> Result<N> {
        let not_transient = || Error::NotTransient { entity: std::any::type_name::<T>() };
        if self.state() != ObjectState::Transient {
            return Err(not_transient());
        }
        let record = self.node.take_record().ok_or_else(not_transient)?;
        match record.downcast::<N>() {
            Ok(record) => Ok(*record),
            Err(other) => {
                self.node.cancel(Some(other));
                Err(not_transient())
            }
        }
    }

    /// The primary key. For a pending entity this flushes; for all others it costs nothing.
    ///
    /// # Errors
    /// As [`Session::flush`](crate::Session::flush), for a pending one; [`Error::NotPersistent`] for a transient one.
    #[track_caller]
    pub fn id(&self) -> Result<T::Key> {
        if let Some(key) = self.node.key() {
            return Ok(key);
        }
        if self.state() == ObjectState::Pending
            && let Some(ops) = self.node.owner().ops()
        {
            ops.flush(Location::caller())?;
        }
        self.node.key().ok_or_else(|| self.no_row())
    }

    /// The primary key, if it has one yet. Never flushes.
    #[must_use]
    pub fn key(&self) -> Option<T::Key> {
        self.node.key()
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> ObjectState {
        AnyNode::state(&*self.node)
    }

    /// Whether what it shows may not be what the database holds: since its last read a transaction ended, or raw SQL went
    /// through the session. An entity with changes of its own is not.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.state() == ObjectState::Persistent && self.node.is_stale()
    }

    /// The number of the session that it belongs or belonged to.
    #[must_use]
    pub fn session_id(&self) -> u64 {
        self.node.owner().session()
    }

    /// A guard to change the row with: `user.write()?.email = email`. The guard holds a copy, which the entity takes over
    /// when it is dropped; the next flush writes the columns that differ. No I/O, unless the entity [is
    /// stale](Tracked::is_stale): then its row is read first, in one round trip, so that no update is lost.
    ///
    /// While a guard lives, whatever would flush is refused with [`Error::WriteGuardAlive`]: let it end with its statement, or
    /// use [`update`](Tracked::update).
    ///
    /// # Errors
    /// [`Error::Pending`]: flush first. [`Error::RowGone`]: its row was deleted. [`Error::Detached`] once the session is
    /// closed or the entity deleted. [`Error::WriteGuardAlive`] for a second guard. [`Error::ReadOnly`],
    /// [`Error::NoTransaction`] where the session can't write, [`Error::PendingRollback`] where it waits for a rollback.
    #[track_caller]
    pub fn write(&self) -> Result<Write<'_, T>> {
        self.write_at(Location::caller())
    }

    fn write_at(&self, place: Place) -> Result<Write<'_, T>> {
        let entity = std::any::type_name::<T>();
        match self.state() {
            ObjectState::Persistent => {}
            ObjectState::Pending | ObjectState::Transient => return Err(self.no_row()),
            ObjectState::Deleted | ObjectState::Detached => return Err(Error::Detached { entity }),
        }
        let Some(ops) = self.node.owner().ops() else { return Err(Error::Detached { entity }) };
        ops.may_change(place)?;
        if let Some(error) = self.node.guard() {
            return Err(error);
        }
        if self.node.is_stale() {
            ops.reload(self.node.erased(), place)?;
        }
        let Some(value) = self.node.value() else { return Err(self.no_row()) };
        // The application's `clone` may panic.
        let copy = Some(Rc::unwrap_or_clone(value));
        let guard = self.node.open_guard(place)?;
        Ok(Write { tracked: self, copy, guard, unwinds: std::thread::panicking() })
    }

    /// Changes the row in a closure, in which no guard can be forgotten.
    ///
    /// # Errors
    /// As [`write`](Tracked::write).
    #[track_caller]
    pub fn update<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R> {
        let mut guard = self.write_at(Location::caller())?;
        Ok(f(&mut guard))
    }

    pub(crate) fn as_parent(&self) -> Parent {
        Parent { table: T::table(), level: self.node.pending_level(), session: self.session_id() }
    }

    /// The guard ended: its copy is the row, if it differs.
    fn publish(&self, copy: T) {
        let node = &self.node;
        if node.look(|value| copy.diff(value).is_empty()) != Some(false) {
            return;
        }
        let Some(ops) = node.owner().ops() else { return };
        let (is_first, is_touched) = node.change(copy, node.owner().level());
        if is_touched {
            ops.touch(&node.erased());
        }
        if is_first {
            ops.changed(node.erased());
        }
    }
}

impl<T: Entity> Clone for Tracked<T> {
    fn clone(&self) -> Self {
        Self { node: Rc::clone(&self.node) }
    }
}

impl<T: Entity> PartialEq for Tracked<T> {
    /// Two handles are equal when they are handles of one object.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.node, &other.node)
    }
}

impl<T: Entity> Eq for Tracked<T> {}

impl<T: Entity> Hash for Tracked<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.node).hash(state);
    }
}

impl<T: Entity> fmt::Debug for Tracked<T> {
    /// The key and the state; no values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("table", &T::TABLE)
            .field("key", &self.key())
            .field("state", &self.state())
            .finish()
    }
}

/// What a row was when it was read. Later changes don't show in it, and it holds nothing up.
pub struct Read<T>(Rc<T>);

impl<T> Deref for Read<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Read<T> {
    /// The same view once more. Not a method, as with [`std::cell::Ref`]: `user.read()?.clone()` is a `User`.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a method would hide that of the row")]
    pub fn clone(this: &Self) -> Self {
        Self(Rc::clone(&this.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Read<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Read<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A copy of a row to be changed; the entity takes it over when the guard is dropped. If its transaction was rolled back
/// meanwhile, or the session closed, the copy is thrown away.
#[must_use = "a guard that is dropped at once changes nothing"]
pub struct Write<'a, T: Entity> {
    tracked: &'a Tracked<T>,
    /// Taken when it is dropped.
    copy: Option<T>,
    guard: u64,
    /// Whether a panic was on its way already when the guard was made: in a destructor.
    unwinds: bool,
}

impl<T: Entity> Deref for Write<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // There until the drop.
        match &self.copy {
            Some(copy) => copy,
            None => unreachable!("a guard has its copy until it is dropped"),
        }
    }
}

impl<T: Entity> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.copy {
            Some(copy) => copy,
            None => unreachable!("a guard has its copy until it is dropped"),
        }
    }
}

impl<T: Entity> Drop for Write<'_, T> {
    fn drop(&mut self) {
        let is_good = self.tracked.node.owner().close_guard(self.guard);
        // A panic half way through a change is not a change.
        let is_whole = self.unwinds || !std::thread::panicking();
        if let (true, true, Some(copy)) = (is_good, is_whole, self.copy.take()) {
            self.tracked.publish(copy);
        }
    }
}

impl<T: Entity + fmt::Debug> fmt::Debug for Write<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
