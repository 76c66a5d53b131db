//! What becomes of objects, for the listeners.

use std::rc::Rc;

use super::node::AnyNode;
use super::tracked::ObjectState;

/// An object's way from one state to another.
pub(crate) struct Change {
    pub(crate) node: Rc<dyn AnyNode>,
    pub(crate) from: ObjectState,
    pub(crate) to: ObjectState,
}

/// The changes of a call, kept only where somebody wants to hear of them.
pub(crate) struct Changes(Option<Vec<Change>>);

impl Changes {
    pub(crate) fn new(somebody_listens: bool) -> Self {
        Self(somebody_listens.then(Vec::new))
    }

    pub(crate) fn push(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.0 {
            changes.push(change());
        }
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = std::iter::Flatten<std::option::IntoIter<Vec<Change>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}
