//! Values of any type that travel with a session.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// A session's own values, one a type (SQLAlchemy's `Session.info`, typed). They live as long as the session.
#[derive(Default)]
pub struct Info {
    values: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info").field("values", &self.values.borrow().len()).finish()
    }
}

impl Info {
    /// Puts a value in, and gives back the one of the same type that was there.
    pub fn insert<T: 'static>(&self, value: T) -> Option<Rc<T>> {
        let old = self.values.borrow_mut().insert(TypeId::of::<T>(), Rc::new(value));
        old.and_then(|old| old.downcast().ok())
    }

    /// The value of this type, if there is one.
    #[must_use]
    pub fn get<T: 'static>(&self) -> Option<Rc<T>> {
        let value = self.values.borrow().get(&TypeId::of::<T>()).cloned();
        value.and_then(|value| value.downcast().ok())
    }

    pub(crate) fn clear(&mut self) {
        if !self.values.get_mut().is_empty() {
            let values = self.values.take();
            drop(values);
        }
    }

    /// Takes the value of this type out.
    pub fn remove<T: 'static>(&self) -> Option<Rc<T>> {
        let value = self.values.borrow_mut().remove(&TypeId::of::<T>());
        value.and_then(|value| value.downcast().ok())
    }
}
