//! The unit of work: what a session knows of the rows that it tracks, and what it still has to tell the database.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use hashbrown::HashSet;

use crate::backend::SessionConnection;
use crate::entity::{Entity, Insert, Persist, Record};
use crate::error::Result;
use crate::place::Place;
use crate::session::core::Core;

mod changed;
mod changes;
mod flush;
mod identity;
mod node;
mod order;
mod parents;
mod pending;
mod rest;
mod standing;
mod table;
mod tracked;

pub use parents::Parents;
pub use tracked::{ObjectState, Read, Tracked, Write};

pub(crate) use changes::{Change, Changes};
pub(crate) use node::{AnyNode, Node, Ops, Owner};
pub(crate) use pending::{Make, RecordUnit, Records};
pub(crate) use table::{Table, TableUnit};

/// Everything that a session tracks.
pub(crate) struct UnitOfWork<C: SessionConnection> {
    owner: Rc<Owner>,
    tables: RefCell<Vec<Rc<dyn Table<C>>>>,
    records: RefCell<Vec<Rc<dyn Records<C>>>>,
    resting: rest::Resting<C>,
    /// Changed since the last flush. They live as long as they are not written.
    dirty: RefCell<Vec<Rc<dyn AnyNode>>>,
    /// To be deleted by the next flush.
    marked: RefCell<Vec<Rc<dyn AnyNode>>>,
    pending: Cell<usize>,
    next_order: Cell<u64>,
    /// What was touched in the transaction and in each open savepoint: rollbacks look there.
    touched: RefCell<Vec<Touched>>,
    /// How many `no_autoflush` calls are running.
    pub(crate) quiet: Cell<usize>,
    /// Whether listeners are being asked about a flush.
    pub(crate) asking: Cell<bool>,
    links: RefCell<Vec<order::Link>>,
    /// Changes to make once the rows that they are made of are there.
    connections: RefCell<Vec<Connection>>,
    lookups: RefCell<Lookups>,
}

/// A change of one entity that needs the key of another.
type Connection = Box<dyn FnOnce() -> Result<()>>;

/// Nodes touched in a frame. Those that nobody holds any more are forgotten from time to time.
#[derive(Default)]
struct Touched {
    nodes: Vec<Weak<dyn AnyNode>>,
    sweep_at: usize,
}

impl Touched {
    fn add(&mut self, node: Weak<dyn AnyNode>) {
        self.expect(1);
        self.nodes.push(node);
    }

    /// Makes room for nodes that are not among them yet, so that [`add_new`](Self::add_new) need not look.
    fn expect(&mut self, more: usize) {
        if self.nodes.len() >= self.sweep_at {
            let mut seen = HashSet::new();
            self.nodes.retain(|node| node.strong_count() > 0 && seen.insert(node.as_ptr().cast::<()>()));
            self.sweep_at = (2 * (self.nodes.len() + more)).max(1024);
        }
        if more > 1 {
            self.nodes.reserve(more);
        }
    }

    fn add_new(&mut self, node: Weak<dyn AnyNode>) {
        self.nodes.push(node);
    }

    /// Forgets them all. A list that has grown long is not kept for sessions that touch little.
    fn rest(&mut self) {
        self.nodes.clear();
        self.nodes.shrink_to(KEPT);
        self.sweep_at = 0;
    }

    fn live(self) -> impl Iterator<Item = Rc<dyn AnyNode>> {
        self.nodes.into_iter().filter_map(|node| node.upgrade())
    }
}

/// Of so many nodes the room is kept for the next session.
const KEPT: usize = 1024;

/// Single rows read by key, by the line that asked: many of one line are a query that was not written.
#[derive(Default)]
struct Lookups(Vec<(Place, u32)>);

/// A line that reads so many rows one by one in a transaction is told so.
const LOOKUPS_NOTICED: u32 = 20;
/// So many lines are watched.
const LOOKUP_PLACES: usize = 256;

impl<C: SessionConnection> UnitOfWork<C> {
    pub(crate) fn new(session: u64, ops: Weak<dyn Ops>, level: u32) -> Self {
        let owner = Owner::new(session, ops);
        owner.set_level(level);
        Self {
            owner,
            tables: RefCell::default(),
            records: RefCell::default(),
            resting: rest::Resting::default(),
            dirty: RefCell::default(),
            marked: RefCell::default(),
            pending: Cell::new(0),
            next_order: Cell::new(0),
            touched: RefCell::new((0..=level).map(|_| Touched::default()).collect()),
            quiet: Cell::new(0),
            asking: Cell::new(false),
            links: RefCell::default(),
            connections: RefCell::default(),
            lookups: RefCell::default(),
        }
    }

    pub(crate) fn owner(&self) -> &Rc<Owner> {
        &self.owner
    }

    /// Whether a flush would send something.
    pub(crate) fn has_work(&self) -> bool {
        self.pending.get() > 0 || !self.dirty.borrow().is_empty() || !self.marked.borrow().is_empty()
    }

    /// The write guard that is alive, if there is one.
    pub(crate) fn guard(&self) -> Option<crate::Error> {
        self.owner.alive_guard()
    }

    /// Whether a statement must look here first: there may be something to flush.
    pub(crate) fn wants_a_look(&self) -> bool {
        self.has_work() || self.owner.has_guards()
    }

    pub(crate) fn table<T: Entity>(&self) -> Rc<TableUnit<T, C>>
    where
        C: Persist<T>,
    {
        let wanted = TypeId::of::<T>();
        let found = self.tables.borrow().iter().find(|table| table.entity() == wanted).cloned();
        let found = found.and_then(|table| Rc::downcast::<TableUnit<T, C>>(table.into_any()).ok());
        found.unwrap_or_else(|| {
            let table = self.resting.table().unwrap_or_else(|| Rc::new(TableUnit::new(Rc::clone(&self.owner))));
            self.tables.borrow_mut().push(Rc::clone(&table) as Rc<dyn Table<C>>);
            table
        })
    }

    /// The table of nodes of an entity that was used before.
    fn table_of(&self, entity: TypeId) -> Option<Rc<dyn Table<C>>> {
        self.tables.borrow().iter().find(|table| table.entity() == entity).cloned()
    }

    pub(crate) fn records<N: Record>(&self) -> Rc<RecordUnit<N, C>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let wanted = TypeId::of::<N>();
        let found = self.records.borrow().iter().find(|records| records.record() == wanted).cloned();
        let found = found.and_then(|records| Rc::downcast::<RecordUnit<N, C>>(records.into_any()).ok());
        found.unwrap_or_else(|| {
            // Its table is used with it.
            let table = self.table::<N::Entity>();
            let records = self.resting.records().unwrap_or_else(|| Rc::new(RecordUnit::new(table)));
            self.records.borrow_mut().push(Rc::clone(&records) as Rc<dyn Records<C>>);
            records
        })
    }

    /// Makes a node pending, with its record or the closure that will make it.
    pub(crate) fn add<N: Record>(&self, make: Make<N>, level: u32) -> Rc<Node<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let order = self.next_order.replace(self.next_order.get() + 1);
        let node = Node::pending(Rc::clone(&self.owner), level);
        self.records::<N>().push(Rc::clone(&node), make, level, order);
        self.pending.set(self.pending.get() + 1);
        node
    }

    /// Notes that rows of one table are made of rows of another, whatever their types say.
    pub(crate) fn link(&self, parents: impl IntoIterator<Item = crate::TableId>, child: crate::TableId) {
        let mut links = self.links.borrow_mut();
        for parent in parents {
            let link = order::Link { parent, child };
            if parent != child && !links.contains(&link) {
                links.push(link);
            }
        }
    }

    /// Keeps a change for the end of the next flush.
    pub(crate) fn connect(&self, connection: Connection) {
        self.connections.borrow_mut().push(connection);
    }

    /// Makes the changes that waited for rows, which are there now. Says whether there were any.
    pub(crate) fn make_connections(&self) -> Result<bool> {
        let connections = self.connections.take();
        let were_any = !connections.is_empty();
        connections.into_iter().try_for_each(|connect| connect())?;
        Ok(were_any)
    }

    pub(crate) fn changed(&self, node: Rc<dyn AnyNode>) {
        self.dirty.borrow_mut().push(node);
    }

    pub(crate) fn mark(&self, node: Rc<dyn AnyNode>) {
        self.marked.borrow_mut().push(node);
    }

    /// Entities of other types on this table are stale: its rows were changed past them.
    pub(crate) fn make_others_stale<T: Entity>(&self) {
        let others = self.tables.borrow().clone();
        for other in others.iter().filter(|other| other.table() == T::table() && other.entity() != TypeId::of::<T>()) {
            other.make_stale();
        }
    }

    /// Takes a node off every list of work to do.
    pub(crate) fn unlist(&self, node: &Rc<dyn AnyNode>) {
        self.undirty(node);
        self.unmark(node);
    }

    pub(crate) fn unmark(&self, node: &Rc<dyn AnyNode>) {
        self.marked.borrow_mut().retain(|other| !same(other, node));
    }

    pub(crate) fn unlist_pending(&self, node: &Rc<dyn AnyNode>) {
        let records = self.records.borrow().clone();
        for records in records {
            if records.expunge(node) {
                self.pending.set(self.pending.get().saturating_sub(1));
            }
        }
    }

    /// Notes that the innermost frame has touched a node.
    pub(crate) fn touch(&self, node: &Rc<dyn AnyNode>) {
        if let Some(frame) = self.touched.borrow_mut().last_mut() {
            frame.add(Rc::downgrade(node));
        }
    }

    /// The innermost frame will be told by [`touch_new`](Self::touch_new) of so many nodes.
    fn expect_new(&self, nodes: usize) {
        if let Some(frame) = self.touched.borrow_mut().last_mut() {
            frame.expect(nodes);
        }
    }

    /// As [`touch`](Self::touch), of a node that no frame has touched before.
    fn touch_new(&self, node: Weak<dyn AnyNode>) {
        if let Some(frame) = self.touched.borrow_mut().last_mut() {
            frame.add_new(node);
        }
    }

    pub(crate) fn level(&self) -> u32 {
        self.owner.level()
    }

    // ---- frames ----

    pub(crate) fn begin_nested(&self) {
        self.touched.borrow_mut().push(Touched::default());
        self.owner.set_level(self.level() + 1);
    }

    /// A savepoint was released: what it touched is its parent's now.
    pub(crate) fn release(&self) {
        let level = self.level();
        let frame = self.touched.borrow_mut().pop();
        self.owner.set_level(level.saturating_sub(1));
        for node in frame.into_iter().flat_map(Touched::live) {
            node.release(level);
            self.touch(&node);
        }
    }

    /// Everything since savepoint `level` began is undone; 0 is the transaction.
    pub(crate) fn roll_back_to(&self, level: u32, changes: &mut Changes) {
        self.owner.void_guards();
        let frames = {
            let mut touched = self.touched.borrow_mut();
            let position = (level as usize).min(touched.len());
            touched.split_off(position)
        };
        self.cancel_pending(changes);
        let mut nodes: Vec<_> = frames.into_iter().flat_map(Touched::live).collect();
        // What is marked or changed was touched; the lists go on without what is undone.
        // What is dropped may be user code that uses the session.
        let (dirty, marked) = (self.dirty.take(), self.marked.take());
        drop((dirty, marked));
        self.owner.set_level(level.saturating_sub(1));
        let tables = self.tables.borrow().clone();
        for table in tables {
            let own: Vec<_> = nodes.extract_if(.., |node| node.entity() == table.entity()).collect();
            table.undo(own, level, changes);
        }
        if level == 0 {
            self.touched.borrow_mut().push(Touched::default());
        }
    }

    fn cancel_pending(&self, changes: &mut Changes) {
        self.pending.set(0);
        self.links.borrow_mut().clear();
        let connections = self.connections.take();
        drop(connections);
        let mut n = 0;
        while let Some(records) = nth(&self.records, n) {
            records.cancel(changes);
            n += 1;
        }
    }

    pub(crate) fn committed(&self, changes: &mut Changes) {
        self.owner.void_guards();
        self.each_touched(|node| node.committed(changes));
        self.ended();
    }

    /// Whether nothing waits for a flush, a commit or a rollback.
    fn is_at_rest(&self) -> bool {
        let touched = self.touched.borrow();
        let has_touched = touched.len() != 1 || touched.iter().any(|frame| !frame.nodes.is_empty());
        !has_touched && !self.has_work() && self.connections.borrow().is_empty() && self.links.borrow().is_empty()
    }

    /// Goes through what all frames have touched; after this there is one, and it has touched nothing.
    fn each_touched(&self, mut f: impl FnMut(Rc<dyn AnyNode>)) {
        self.owner.set_level(0);
        if self.touched.borrow().iter().all(|frame| frame.nodes.is_empty()) {
            return self.touched.borrow_mut().truncate(1);
        }
        let mut n = 0;
        loop {
            let nodes = self.touched.borrow_mut().get_mut(n).map(|frame| std::mem::take(&mut frame.nodes));
            let Some(mut nodes) = nodes else { break };
            nodes.drain(..).filter_map(|node| node.upgrade()).for_each(&mut f);
            if let (0, Some(root)) = (n, self.touched.borrow_mut().first_mut())
                && root.nodes.is_empty()
            {
                root.nodes = nodes;
                root.sweep_at = 0;
            }
            n += 1;
        }
        self.touched.borrow_mut().truncate(1);
    }

    pub(crate) fn rolled_back(&self, changes: &mut Changes) {
        self.roll_back_to(0, changes);
        self.ended();
    }

    fn ended(&self) {
        self.links.borrow_mut().clear();
        self.lookups.borrow_mut().0.clear();
        self.owner.next_epoch();
    }

    /// Forgets everything; handles are detached and keep their values.
    pub(crate) fn forget(&self, changes: &mut Changes) {
        self.owner.void_guards();
        if !self.is_at_rest() {
            self.cancel_pending(changes);
            // What is dropped may be user code that uses the session.
            let (dirty, marked) = (self.dirty.take(), self.marked.take());
            drop((dirty, marked));
            // Those that were deleted are in no map any more.
            self.each_touched(|node| node.leave(changes));
        }
        let mut n = 0;
        while let Some(table) = nth(&self.tables, n) {
            table.forget(changes);
            n += 1;
        }
        self.ended();
    }

    /// Every entity leaves; the transaction goes on.
    pub(crate) fn expunge_all(&self, changes: &mut Changes) {
        let level = self.level();
        self.forget(changes);
        self.owner.set_level(level);
        *self.touched.borrow_mut() = (0..=level).map(|_| Touched::default()).collect();
    }

    /// Changes that were not written are dropped, and every entity is stale.
    pub(crate) fn expire_all(&self) {
        for node in self.dirty.take() {
            node.expire();
        }
        self.owner.next_epoch();
    }

    pub(crate) fn undirty(&self, node: &Rc<dyn AnyNode>) {
        self.dirty.borrow_mut().retain(|other| !same(other, node));
    }

    /// The session is closed for good.
    pub(crate) fn close(&self) {
        self.forget(&mut Changes::new(false));
        self.owner.close();
    }

    // ---- what it knows ----

    /// Every pending node, in the order of `add`.
    pub(crate) fn new_nodes(&self) -> Vec<Rc<dyn AnyNode>> {
        let records = self.records.borrow().clone();
        let mut nodes: Vec<_> = records.iter().flat_map(|records| records.nodes()).collect();
        nodes.sort_by_key(|(order, _)| *order);
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    pub(crate) fn dirty_nodes(&self) -> Vec<Rc<dyn AnyNode>> {
        self.dirty.borrow().clone()
    }

    pub(crate) fn marked_nodes(&self) -> Vec<Rc<dyn AnyNode>> {
        self.marked.borrow().clone()
    }

    pub(crate) fn tables(&self) -> Vec<Rc<dyn Table<C>>> {
        self.tables.borrow().clone()
    }

    pub(crate) fn reload(&self, core: &Core<C>, node: Rc<dyn AnyNode>, place: Place) -> Result<()> {
        let Some(table) = self.table_of(node.entity()) else { return Ok(()) };
        table.reload(core, vec![node], None, place)
    }

    /// A row was read by its key alone: in debug builds, names the line that does it again and again.
    pub(crate) fn looked_up(&self, place: Place, entity: &'static str) {
        if !cfg!(debug_assertions) {
            return;
        }
        let Lookups(places) = &mut *self.lookups.borrow_mut();
        let has_room = places.len() < LOOKUP_PLACES;
        match places.iter_mut().find(|(other, _)| std::ptr::eq(*other, place)) {
            Some((_, count)) => {
                *count += 1;
                if *count == LOOKUPS_NOTICED {
                    tracing::warn!(
                        session = self.owner.session(),
                        at = %place,
                        entity,
                        rows = LOOKUPS_NOTICED,
                        "one query a row: `get_many`, `related` or `parents` read them in one"
                    );
                }
            }
            None if has_room => places.push((place, 1)),
            None => {}
        }
    }
}

/// One of a list that is not borrowed while it is used: what is dropped may be user code that uses the session.
fn nth<R: ?Sized>(list: &RefCell<Vec<Rc<R>>>, n: usize) -> Option<Rc<R>> {
    list.borrow().get(n).cloned()
}

fn same(one: &Rc<dyn AnyNode>, other: &Rc<dyn AnyNode>) -> bool {
    std::ptr::addr_eq(Rc::as_ptr(one), Rc::as_ptr(other))
}

/// A thing that can be taken for what it is.
pub(crate) trait IntoAny {
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
}

impl<T: Any> IntoAny for T {
    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }
}
