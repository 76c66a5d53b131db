//! Entities on a session: add, get, change, delete, flush.

use std::rc::Rc;

use super::Session;
use crate::backend::SessionConnection;
use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::unit_of_work::{AnyNode, Node, ObjectState, Tracked};

mod ask;
mod change;
mod new;
mod read;

impl<C: SessionConnection> Session<C> {
    pub(super) fn own<'a, T: Entity>(&self, tracked: &'a Tracked<T>) -> Result<&'a Rc<Node<T>>> {
        if tracked.session_id() == self.id() {
            Ok(tracked.node())
        } else {
            Err(Error::ForeignHandle { entity: std::any::type_name::<T>(), session: tracked.session_id() })
        }
    }

    fn persistent<'a, T: Entity>(&self, node: &'a Rc<Node<T>>) -> Result<&'a Rc<Node<T>>> {
        let entity = std::any::type_name::<T>();
        match AnyNode::state(&**node) {
            ObjectState::Persistent => Ok(node),
            ObjectState::Pending => Err(Error::Pending { entity }),
            ObjectState::Transient => Err(Error::NotPersistent { entity }),
            ObjectState::Deleted | ObjectState::Detached => Err(Error::Detached { entity }),
        }
    }
}
