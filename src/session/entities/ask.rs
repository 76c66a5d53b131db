//! The flush, and what waits for it.

use std::panic::Location;
use std::rc::Rc;

use crate::backend::SessionConnection;
use crate::entity::{Entity, Persist};
use crate::error::Result;
use crate::session::Session;
use crate::session::core::Quiet;
use crate::unit_of_work::{AnyNode, Node, ObjectState, Tracked, UnitOfWork};

impl<C: SessionConnection> Session<C> {
    /// Writes everything that waits, in an order that the keys between tables allow: for each table first changed rows, then
    /// new ones, many in a statement; then deletes, the other way round. One statement for each table and kind of change and,
    /// of changed rows, set of columns; a few where there are more rows than one statement takes (on SQLite also where there
    /// are fewer than 32, which go in statements of 16, 4 and 1 rows that are kept prepared). Nothing where nothing waits. Every count of rows is checked.
    ///
    /// Queries through the session flush first, and so do `commit` and `begin_nested`.
    ///
    /// # Errors
    /// What the database answered. [`Error::StaleData`](crate::Error::StaleData) where rows were not as the session knew them. Either fails the
    /// frame: `rollback()` undoes it, and until then everything that waited still does. [`Error::WriteGuardAlive`](crate::Error::WriteGuardAlive) while a
    /// guard lives: nothing is sent.
    #[track_caller]
    pub fn flush(&self) -> Result<()> {
        self.core().flush_now(Location::caller())
    }

    /// Runs `f`, in which queries don't flush first: for objects that are not whole yet. `commit`, `flush` and `begin_nested`
    /// do flush.
    pub fn no_autoflush<R>(&self, f: impl FnOnce() -> R) -> R {
        let _quiet = Quiet::start(&self.core().unit().quiet);
        f()
    }

    /// Whether the next flush would write something for this entity: it is pending, differs from its row, or is to be deleted.
    /// No I/O.
    #[must_use]
    pub fn is_modified<T: Entity>(&self, tracked: &Tracked<T>) -> bool {
        let node = tracked.node();
        self.contains(tracked) && (tracked.state() == ObjectState::Pending || node.is_marked() || differs(node))
    }

    /// Whether the entity is this session's: pending or persistent.
    #[must_use]
    pub fn contains<T: Entity>(&self, tracked: &Tracked<T>) -> bool {
        tracked.session_id() == self.id() && matches!(tracked.state(), ObjectState::Pending | ObjectState::Persistent)
    }

    /// The pending entities of this type, in the order of `add` (SQLAlchemy's `new`).
    #[must_use]
    pub fn new_entities<T: Entity>(&self) -> Vec<Tracked<T>> {
        typed(self.core().known_unit().map(UnitOfWork::new_nodes))
    }

    /// The entities of this type that differ from their rows (SQLAlchemy's `dirty`).
    #[must_use]
    pub fn dirty_entities<T: Entity>(&self) -> Vec<Tracked<T>> {
        let changed: Vec<Tracked<T>> = typed(self.core().known_unit().map(UnitOfWork::dirty_nodes));
        changed.into_iter().filter(|tracked| !tracked.node().is_marked() && differs(tracked.node())).collect()
    }

    /// The entities of this type that the next flush deletes (SQLAlchemy's `deleted`).
    #[must_use]
    pub fn deleted_entities<T: Entity>(&self) -> Vec<Tracked<T>> {
        typed(self.core().known_unit().map(UnitOfWork::marked_nodes))
    }

    /// Whether a flush would have anything to write.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.core().known_unit().is_some_and(UnitOfWork::has_work)
    }

    /// The entities of this type that are in the identity map because somebody holds them.
    #[must_use]
    pub fn tracked<T: Entity>(&self) -> Vec<Tracked<T>>
    where
        C: Persist<T>,
    {
        match self.core().known_unit() {
            Some(unit) => unit.table::<T>().live().into_iter().map(Tracked::of).collect(),
            None => Vec::new(),
        }
    }
}

/// Whether the value is not the row's: one that was changed back is not.
fn differs<T: Entity>(node: &Node<T>) -> bool {
    node.base().zip(node.value()).is_some_and(|(base, value)| !value.diff(&base).is_empty())
}

fn typed<T: Entity>(nodes: Option<Vec<Rc<dyn AnyNode>>>) -> Vec<Tracked<T>> {
    let nodes = nodes.into_iter().flatten();
    nodes.filter_map(|node| Rc::downcast::<Node<T>>(node.into_any()).ok()).map(Tracked::of).collect()
}
