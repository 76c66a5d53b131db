//! Parents of records that are made when their parents have keys.

use super::tracked::Tracked;
use crate::entity::{Entity, TableId};
use crate::error::Result;

/// A handle, or a tuple of two to four: what [`Session::add_with`](crate::Session::add_with) makes a record of.
pub trait Parents: Sized {
    /// The handles, kept until the record is made.
    type Owned: 'static;

    /// What the closure gets: a reference a parent.
    type Values<'v>;

    /// Keeps the handles.
    fn handles(self) -> Self::Owned;

    /// Gives the parents' rows to `f`.
    ///
    /// # Errors
    /// A parent that is no row (any more).
    fn with<R, F: for<'v> FnOnce(Self::Values<'v>) -> R>(owned: &Self::Owned, f: F) -> Result<R>;

    #[doc(hidden)]
    fn each(&self, f: &mut dyn FnMut(Parent));
}

/// What a flush needs to know of a parent.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Parent {
    pub(crate) table: TableId,
    /// While it is pending: how many pending ones are above it.
    pub(crate) level: Option<u32>,
    pub(crate) session: u64,
}

impl<T: Entity> Parents for &Tracked<T> {
    type Owned = Tracked<T>;
    type Values<'v> = &'v T;

    fn handles(self) -> Self::Owned {
        self.clone()
    }

    fn with<R, F: for<'v> FnOnce(Self::Values<'v>) -> R>(owned: &Self::Owned, f: F) -> Result<R> {
        Ok(f(&*owned.row()?))
    }

    fn each(&self, f: &mut dyn FnMut(Parent)) {
        f(self.as_parent());
    }
}

macro_rules! tuples {
    ($($(($name:ident, $row:ident, $index:tt)),+;)+) => { $(
        impl<$($name: Entity),+> Parents for ($(&Tracked<$name>,)+) {
            type Owned = ($(Tracked<$name>,)+);
            type Values<'v> = ($(&'v $name,)+);

            fn handles(self) -> Self::Owned {
                ($(self.$index.clone(),)+)
            }

            fn with<R, F: for<'v> FnOnce(Self::Values<'v>) -> R>(owned: &Self::Owned, f: F) -> Result<R> {
                $(let $row = owned.$index.row()?;)+
                Ok(f(($(&*$row,)+)))
            }

            fn each(&self, f: &mut dyn FnMut(Parent)) {
                $(f(self.$index.as_parent());)+
            }
        }
    )+ };
}

tuples! {
    (A, a, 0), (B, b, 1);
    (A, a, 0), (B, b, 1), (D, d, 2);
    (A, a, 0), (B, b, 1), (D, d, 2), (E, e, 3);
}
