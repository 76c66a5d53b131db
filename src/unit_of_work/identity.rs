//! The identity map of one entity: at most one node a key.

use std::hash::{BuildHasher, Hasher};
use std::rc::{Rc, Weak};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use super::node::Node;
use crate::entity::Entity;

/// Nodes by the keys of their rows: one that is to have another key is found under its old one until it is written. A node that nobody holds any more has left: the map does not keep it alive, and does not keep the key
/// a second time.
pub(crate) struct IdentityMap<T: Entity> {
    nodes: HashTable<Entry<T>>,
    hasher: DefaultHashBuilder,
}

struct Entry<T: Entity> {
    hash: u64,
    node: Weak<Node<T>>,
}

/// Few nodes are not worth a search for dead ones.
const SWEPT_FROM: usize = 64;

impl<T: Entity> Default for IdentityMap<T> {
    fn default() -> Self {
        Self { nodes: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<T: Entity> IdentityMap<T> {
    pub(crate) fn get(&self, key: &T::Key) -> Option<Rc<Node<T>>> {
        self.find(self.hasher.hash_one(key), |value| value.has_key(key))
    }

    /// The node of a row that was read.
    pub(crate) fn of(&self, value: &T) -> Option<Rc<Node<T>>> {
        let hash = self.hash(value);
        // Only rows with this hash are asked for their key, which may have to be made.
        let mut key = None;
        self.find(hash, |other| other.has_key(key.get_or_insert_with(|| value.key())))
    }

    fn find(&self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<Rc<Node<T>>> {
        let mut found = None;
        self.nodes.find(hash, |entry| {
            if entry.hash == hash {
                found = entry.node.upgrade().filter(|node| node.look_at_base(&mut is_it).unwrap_or(false));
            }
            found.is_some()
        });
        found
    }

    fn hash(&self, value: &T) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        value.hash_key(&mut hasher);
        hasher.finish()
    }

    /// Puts a node in. Gives the other one with the same key, which leaves.
    pub(crate) fn insert(&mut self, node: &Rc<Node<T>>) -> Option<Rc<Node<T>>> {
        let (hash, key) = node.look(|value| (self.hash(value), value.key()))?;
        let is_it = |entry: &Entry<T>| {
            entry.hash == hash
                && entry
                    .node
                    .upgrade()
                    .is_some_and(|node| node.look_at_base(|value| value.has_key(&key)).unwrap_or(false))
        };
        self.sweep_before_it_grows();
        match self.nodes.entry(hash, is_it, |entry| entry.hash) {
            hash_table::Entry::Occupied(mut entry) => {
                let before = std::mem::replace(&mut entry.get_mut().node, Rc::downgrade(node)).upgrade();
                before.filter(|before| !Rc::ptr_eq(before, node))
            }
            hash_table::Entry::Vacant(room) => {
                room.insert(Entry { hash, node: Rc::downgrade(node) });
                None
            }
        }
    }

    /// Makes room for more nodes at once.
    pub(crate) fn reserve(&mut self, more: usize) {
        if self.nodes.len() + more > self.nodes.capacity() {
            self.sweep();
            self.nodes.reserve(more, |entry| entry.hash);
        }
    }

    /// Forgets nodes that nobody holds any more, where there may be many.
    fn sweep(&mut self) {
        if self.nodes.len() >= SWEPT_FROM {
            self.nodes.retain(|entry| entry.node.strong_count() > 0);
        }
    }

    fn sweep_before_it_grows(&mut self) {
        if self.nodes.len() == self.nodes.capacity() {
            self.sweep();
        }
    }

    /// Puts a node in whose key is not there.
    pub(crate) fn insert_new(&mut self, node: &Rc<Node<T>>) {
        if let Some(hash) = node.look(|value| self.hash(value)) {
            self.push(hash, node);
        }
    }

    fn push(&mut self, hash: u64, node: &Rc<Node<T>>) {
        self.sweep_before_it_grows();
        self.nodes.insert_unique(hash, Entry { hash, node: Rc::downgrade(node) }, |entry| entry.hash);
    }

    /// Takes this very node out, under the key of `value`.
    pub(crate) fn take_under(&mut self, value: &T, node: &Rc<Node<T>>) {
        self.take_at(self.hash(value), node);
    }

    fn take_at(&mut self, hash: u64, node: &Rc<Node<T>>) {
        let address = Rc::as_ptr(node);
        if let Ok(entry) = self.nodes.find_entry(hash, |entry| std::ptr::eq(entry.node.as_ptr(), address)) {
            entry.remove();
        }
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = Rc<Node<T>>> {
        self.nodes.iter().filter_map(|entry| entry.node.upgrade())
    }

    /// Empty, and not large.
    pub(crate) fn rest(&mut self) {
        self.nodes.clear();
        if self.nodes.capacity() > 2 * super::KEPT {
            self.nodes = HashTable::new();
        }
    }

    /// Takes every node out; gives those that somebody holds.
    pub(crate) fn drain(&mut self) -> Vec<Rc<Node<T>>> {
        let mut held = Vec::new();
        for entry in self.nodes.drain() {
            held.extend(entry.node.upgrade());
        }
        held
    }
}

/// What `hash_key` must feed is what the key itself feeds.
#[cfg(debug_assertions)]
pub(crate) fn check_hash<T: Entity>(value: &T) -> bool {
    let hasher = DefaultHashBuilder::default();
    let mut own = hasher.build_hasher();
    value.hash_key(&mut own);
    own.finish() == hasher.hash_one(value.key())
}
