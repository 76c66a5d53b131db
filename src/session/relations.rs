//! Relations: rows of another table that belong to many entities, in one query.

use std::collections::{HashMap, HashSet};
use std::panic::Location;

use super::Session;
use crate::backend::SessionConnection;
use crate::entity::{BelongsTo, Entity, LoadChildren, Persist};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::unit_of_work::Tracked;

impl<C: SessionConnection> Session<C> {
    /// The children of each parent, in the order of the parents, each list in the order of the children's keys. One SELECT for
    /// all (a few where the database's limit of binds asks for it), before which whatever waits is flushed.
    ///
    /// # Errors
    /// As [`load_tracked`](Session::load_tracked).
    ///
    /// # Examples
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/models.rs"));
    /// # fn main() -> Result<()> {
    /// # let session = session()?;
    /// let users = session.load_tracked(users::table.select(User::as_select()))?;
    /// for (user, posts) in users.iter().zip(session.related::<Post, _>(&users)?) {
    ///     assert_eq!((user.read()?.nickname.as_str(), posts.len()), ("ann", 1));
    /// }
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn related<T, P>(&self, parents: &[Tracked<P>]) -> Result<Vec<Vec<Tracked<T>>>>
    where
        T: BelongsTo<P>,
        P: Entity,
        C: Persist<T> + LoadChildren<T, P>,
    {
        self.related_at(parents, Location::caller())
    }

    fn related_at<T, P>(&self, parents: &[Tracked<P>], place: Place) -> Result<Vec<Vec<Tracked<T>>>>
    where
        T: BelongsTo<P>,
        P: Entity,
        C: Persist<T> + LoadChildren<T, P>,
    {
        let core = self.core();
        core.may_read()?;
        core.autoflush(place)?;
        let keys =
            parents.iter().map(|parent| self.own(parent).and_then(|_| parent.id())).collect::<Result<Vec<_>>>()?;
        let mut wanted = keys.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let rows = match wanted.is_empty() {
            true => Vec::new(),
            false => core.entity_query(place, |conn| conn.load_children(&wanted))?,
        };
        let mut children: HashMap<P::Key, Vec<Tracked<T>>> = HashMap::new();
        for row in rows {
            if let Some(key) = row.parent_key() {
                if wanted.binary_search(&key).is_err() {
                    return Err(Error::Configuration(
                        format!(
                            "a row of {} refers to a key that is spelt otherwise than its row of {}: give both the same \
                             spelling, which the database's collation takes for equal",
                            T::TABLE,
                            P::TABLE
                        )
                        .into(),
                    ));
                }
                children.entry(key).or_default().push(self.intern(row)?);
            }
        }
        Ok(keys.iter().map(|key| children.get(key).cloned().unwrap_or_default()).collect())
    }

    /// The parent of each child, in the order of the children; `None` where the foreign key is NULL. Parents that are in the
    /// identity map and not stale cost nothing, the others one SELECT together.
    ///
    /// # Errors
    /// As [`get_many`](Session::get_many).
    #[track_caller]
    pub fn parents<P, T>(&self, children: &[Tracked<T>]) -> Result<Vec<Option<Tracked<P>>>>
    where
        T: BelongsTo<P>,
        P: Entity,
        C: Persist<P>,
    {
        let place = Location::caller();
        let core = self.core();
        core.may_read()?;
        children.iter().try_for_each(|child| self.own(child).map(drop))?;
        if children.iter().any(|child| child.key().is_none()) {
            core.autoflush(place)?;
        }
        let keys = children.iter().map(|child| Ok(child.row()?.parent_key())).collect::<Result<Vec<_>>>()?;
        let wanted: HashSet<P::Key> = keys.iter().flatten().cloned().collect();
        let wanted: Vec<P::Key> = wanted.into_iter().collect();
        let parents: HashMap<P::Key, Tracked<P>> = self
            .many_at::<P>(&wanted, place)?
            .into_iter()
            .filter_map(|parent| Some((parent.node().base()?.key(), parent)))
            .collect();
        Ok(keys.into_iter().map(|key| key.and_then(|key| parents.get(&key).cloned())).collect())
    }

    /// Many to many: for each parent the rows that a link table `L` connects it with, in the order of the links' keys. Two
    /// SELECTs for all parents.
    ///
    /// # Errors
    /// As [`load_tracked`](Session::load_tracked).
    #[track_caller]
    pub fn related_through<T, L, P>(&self, parents: &[Tracked<P>]) -> Result<Vec<Vec<Tracked<T>>>>
    where
        L: BelongsTo<P> + BelongsTo<T>,
        T: Entity,
        P: Entity,
        C: Persist<T> + Persist<L> + LoadChildren<L, P>,
    {
        let place = Location::caller();
        let links = self.related_at::<L, P>(parents, place)?;
        let key = |link: &Tracked<L>| Ok(BelongsTo::<T>::parent_key(&*link.row()?));
        let mut wanted = HashSet::new();
        for link in links.iter().flatten() {
            wanted.extend(key(link)?);
        }
        let wanted: Vec<T::Key> = wanted.into_iter().collect();
        let targets: HashMap<T::Key, Tracked<T>> = self
            .many_at::<T>(&wanted, place)?
            .into_iter()
            .filter_map(|row| Some((row.node().base()?.key(), row)))
            .collect();
        let of_one = |links: Vec<Tracked<L>>| {
            let keys = links.iter().map(&key).collect::<Result<Vec<_>>>()?;
            Ok(keys.into_iter().flatten().filter_map(|key| targets.get(&key).cloned()).collect())
        };
        links.into_iter().map(of_one).collect()
    }
}
