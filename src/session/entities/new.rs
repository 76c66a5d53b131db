//! Rows that are not there yet.

use std::panic::Location;

use smallvec::SmallVec;

use crate::backend::SessionConnection;
use crate::entity::{Entity, Insert, Persist, Record, RowLock};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::session::Session;
use crate::unit_of_work::{Make, ObjectState, Parents, Tracked};

/// An iterator may promise more than it gives: room is made for so many at once.
const EXPECTED: usize = 1 << 17;

impl<C: SessionConnection> Session<C> {
    /// Adds a row that the next flush inserts: until then it is pending. No I/O.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoTransaction`] where the session can't write; else as [`flush`](Session::flush)
    /// where nothing is sent.
    #[track_caller]
    pub fn add<N: Record>(&self, record: N) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        self.add_at(Make::Ready(record), 0, Location::caller())
    }

    /// [`add`](Session::add) for many.
    ///
    /// # Errors
    /// As [`add`](Session::add).
    #[track_caller]
    pub fn add_all<N: Record>(&self, records: impl IntoIterator<Item = N>) -> Result<Vec<Tracked<N::Entity>>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let place = Location::caller();
        let records = records.into_iter();
        let expected = records.size_hint().0;
        if expected > 1 {
            self.core().may_change(place)?;
            self.core().unit().records::<N>().reserve(expected.min(EXPECTED));
        }
        records.map(|record| self.add_at(Make::Ready(record), 0, place)).collect()
    }

    /// Adds a row that is made of its parents: one handle or a tuple of them, which may themselves be pending. `make` runs in
    /// the flush, when they have their keys; it can't use the session ([`Error::Reentrant`]).
    ///
    /// # Errors
    /// As [`add`](Session::add); [`Error::ForeignHandle`] for a parent of another session.
    ///
    /// # Examples
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/models.rs"));
    /// # fn main() -> Result<()> {
    /// # let session = session()?;
    /// let bob = session.add(NewUser { nickname: "bob".into(), email: None })?;
    /// let post = session.add_with(&bob, |bob| NewPost { user_id: bob.id, title: "first".into() })?;
    /// session.flush()?; // INSERT users, INSERT posts
    /// assert_eq!(post.read()?.user_id, bob.id()?);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn add_with<P: Parents, N: Record>(
        &self,
        parents: P,
        make: impl FnOnce(P::Values<'_>) -> N + 'static,
    ) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let place = Location::caller();
        let mut level = 0;
        let mut tables = SmallVec::<[_; 4]>::new();
        let mut foreign = None;
        parents.each(&mut |parent| {
            if parent.session != self.id() {
                foreign = Some(parent.session);
            }
            level = level.max(parent.level.map_or(0, |above| above + 1));
            tables.push(parent.table);
        });
        if let Some(session) = foreign {
            return Err(Error::ForeignHandle { entity: "parent", session });
        }
        let handles = parents.handles();
        let make = Make::Later(Box::new(move || P::with(&handles, make)));
        let added = self.add_at(make, level, place)?;
        self.core().unit().link(tables, N::Entity::table());
        Ok(added)
    }

    /// Changes one entity by the key of another, where rows refer to each other in a ring and no order of inserts would do: the
    /// column that may be NULL is inserted as NULL, and the flush that inserts the rows sends the UPDATE that fills it (as
    /// SQLAlchemy's `post_update`). Where both are rows already it is a change like any other.
    ///
    /// # Errors
    /// As [`write`](Tracked::write); [`Error::ForeignHandle`] for an entity of another session.
    #[track_caller]
    pub fn connect<A: Entity, B: Entity>(
        &self,
        from: &Tracked<A>,
        to: &Tracked<B>,
        change: impl FnOnce(&mut A, &B) + 'static,
    ) -> Result<()> {
        self.core().may_change(Location::caller())?;
        self.own(from)?;
        self.own(to)?;
        if from.state() != ObjectState::Pending && to.state() != ObjectState::Pending {
            let to = to.row()?;
            return from.update(|from| change(from, &to));
        }
        let (from, to) = (from.clone(), to.clone());
        self.core().unit().connect(Box::new(move || {
            let to = to.row()?;
            from.update(|from| change(from, &to))
        }));
        Ok(())
    }

    /// Inserts a row at once, after whatever waits: one statement.
    ///
    /// # Errors
    /// As [`flush`](Session::flush).
    #[track_caller]
    pub fn insert_now<N: Record>(&self, record: N) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let place = Location::caller();
        let added = self.add_at(Make::Ready(record), 0, place)?;
        self.core().flush_now(place)?;
        Ok(added)
    }

    /// The row with this key; if there is none, one that `make` gives is inserted. Two sessions that do this at once
    /// get the same row: the INSERT runs in a savepoint, and if somebody was faster their row is read.
    ///
    /// # Errors
    /// As [`get`](Session::get) and [`flush`](Session::flush).
    #[track_caller]
    pub fn get_or_add<N: Record>(
        &self,
        key: impl Into<<N::Entity as Entity>::Key>,
        make: impl FnOnce() -> N,
    ) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let (key, place) = (key.into(), Location::caller());
        if let Some(found) = self.get_at(&key, place)? {
            return Ok(found);
        }
        let inserted: Result<_> = self.nested_at(place, |session| {
            let added = session.add_at(Make::Ready(make()), 0, place)?;
            session.core().flush_now(place)?;
            Ok(added)
        });
        match inserted {
            Err(error) if error.is_unique_violation() => {
                // On REPEATABLE READ the other's row is not in this snapshot: a locking read sees it (MySQL).
                self.fetch::<N::Entity>(&key, Some(RowLock::share()), place)?.ok_or(error)
            }
            other => other,
        }
    }

    pub(in crate::session) fn add_at<N: Record>(
        &self,
        make: Make<N>,
        level: u32,
        place: Place,
    ) -> Result<Tracked<N::Entity>>
    where
        C: Insert<N> + Persist<N::Entity>,
    {
        let core = self.core();
        core.may_change(place)?;
        let node = core.unit().add(make, level);
        core.tell_transition(&node, ObjectState::Transient, ObjectState::Pending);
        Ok(Tracked::of(node))
    }
}
