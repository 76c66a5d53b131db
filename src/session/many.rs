//! Calls for many entities at once.

use std::collections::HashMap;
use std::panic::Location;

use super::Session;
use crate::backend::SessionConnection;
use crate::entity::{Entity, Insert, Persist, Record};
use crate::error::Result;
use crate::unit_of_work::{Make, Tracked};

impl<C: SessionConnection> Session<C> {
    /// [`delete`](Session::delete) for many.
    ///
    /// # Errors
    /// As [`delete`](Session::delete); those before the one that is refused stay marked.
    #[track_caller]
    pub fn delete_all<'a, T: Entity>(&self, entities: impl IntoIterator<Item = &'a Tracked<T>>) -> Result<()>
    where
        C: Persist<T>,
    {
        for tracked in entities {
            self.delete(tracked)?;
        }
        Ok(())
    }

    /// [`merge`](Session::merge) for many, in their order: one SELECT for all rows that are not in the identity map, before which
    /// whatever waits is flushed, and no flush after it. Values with the same key become one entity, which the last of them
    /// describes.
    ///
    /// # Errors
    /// As [`merge`](Session::merge); what those before the one that is refused said is taken over.
    #[track_caller]
    pub fn merge_all<T: Record<Entity = T> + Entity>(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Tracked<T>>>
    where
        C: Insert<T> + Persist<T>,
    {
        let place = Location::caller();
        self.core().may_change(place)?;
        let values: Vec<T> = values.into_iter().collect();
        let keys: Vec<T::Key> = values.iter().map(T::key).collect();
        let known = self.many_at::<T>(&keys, place)?;
        let mut merged: HashMap<T::Key, Tracked<T>> =
            known.into_iter().filter_map(|tracked| Some((tracked.node().base()?.key(), tracked))).collect();
        let mut new: HashMap<T::Key, T> = HashMap::new();
        for (key, value) in keys.iter().zip(values) {
            match merged.get(key) {
                Some(tracked) => drop(self.take_over(tracked.clone(), value)?),
                None => drop(new.insert(key.clone(), value)),
            }
        }
        for key in &keys {
            if let Some(value) = new.remove(key) {
                merged.insert(key.clone(), self.add_at(Make::Ready(value), 0, place)?);
            }
        }
        Ok(keys.iter().filter_map(|key| merged.get(key).cloned()).collect())
    }
}
