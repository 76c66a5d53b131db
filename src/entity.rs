//! What an entity is: the half that knows no connection, and the half that each connection has.

use std::fmt;
use std::hash::{Hash, Hasher};

use diesel::query_builder::QueryFragment;
use diesel::result::QueryResult;

use crate::backend::SessionConnection;
use crate::error::Result;

mod columns;
#[doc(hidden)]
pub mod derived;
#[doc(hidden)]
pub mod sql;

pub use columns::ColumnSet;

/// A table of the schema, whatever struct stands for its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableId(std::any::TypeId);

impl TableId {
    /// The table that Diesel's `table!` made the type `T` for.
    #[must_use]
    pub fn of<T: 'static>() -> Self {
        Self(std::any::TypeId::of::<T>())
    }
}

/// A row that a session tracks: `#[derive(Entity)]` on a Diesel model.
///
/// This half knows no connection; what touches a database is [`Persist`], which the connection implements.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an entity",
    label = "the session can track only entities",
    note = "derive it: `#[derive(Clone, Queryable, Selectable, Identifiable, Entity)]`"
)]
pub trait Entity: Clone + 'static {
    /// The primary key; a tuple where it has several columns.
    type Key: Clone + Eq + Hash + Ord + fmt::Debug + 'static;

    /// The table's name, with its schema if it has one.
    const TABLE: &'static str;

    /// Which table it is.
    fn table() -> TableId;

    /// The tables that rows of this one refer to: their inserts come before, their deletes after.
    fn depends_on() -> Vec<TableId> {
        Vec::new()
    }

    /// The key of this row.
    fn key(&self) -> Self::Key;

    /// Whether this row has that key. To be overridden where making a key costs an allocation.
    fn has_key(&self, key: &Self::Key) -> bool {
        self.key() == *key
    }

    /// Feeds a hasher what the key would feed it.
    fn hash_key(&self, hasher: &mut impl Hasher) {
        self.key().hash(hasher);
    }

    /// The columns that differ.
    fn diff(&self, old: &Self) -> ColumnSet;

    /// The columns of the key, in the numbers of [`diff`](Self::diff).
    fn key_columns() -> ColumnSet;

    /// How many columns it has.
    fn column_count() -> usize;

    /// The column's name in SQL.
    fn column_name(column: usize) -> &'static str;

    /// The row's version, where the entity has one.
    fn version(&self) -> Option<i64> {
        None
    }

    /// Puts another version in.
    fn set_version(&mut self, version: i64) {
        let _ = version;
    }

    /// The column of the version.
    fn version_column() -> Option<usize> {
        None
    }

    /// Names the rows that this one refers to, for the order of deletes.
    fn references(&self, visit: &mut dyn FnMut(Reference)) {
        let _ = visit;
    }
}

/// Several columns of an entity or a record, as a struct of their own: `#[diesel(embed)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be embedded in an entity",
    label = "`#[diesel(embed)]` takes structs of columns",
    note = "derive it: `#[derive(Clone, Queryable, Selectable, Insertable, Embedded)]`"
)]
pub trait Embedded: Clone + sql::Columns {
    /// The columns that differ, numbered from 0.
    fn diff(&self, old: &Self) -> ColumnSet;
}

/// A foreign key's value in a row.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The table that it refers to.
    pub table: TableId,
    /// A hash of the key that it refers to, as [`hash_of`] makes it: a hint for an order, never an identity.
    pub key: u64,
    /// The column, where it may be NULL.
    pub nullable: Option<usize>,
}

/// The hash that [`Reference::key`] holds.
pub fn hash_of<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// How a row is locked when it is read (PostgreSQL docs, "The Locking Clause"). SQLite has no row locks: there the session's
/// transaction has the whole file already, and all of these mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowLock {
    pub(crate) strength: LockStrength,
    pub(crate) wait: LockWait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LockStrength {
    Update,
    NoKeyUpdate,
    Share,
    KeyShare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LockWait {
    Wait,
    NoWait,
    SkipLocked,
}

impl RowLock {
    /// `FOR UPDATE`.
    #[must_use]
    pub const fn update() -> Self {
        Self { strength: LockStrength::Update, wait: LockWait::Wait }
    }

    /// `FOR NO KEY UPDATE`; `FOR UPDATE` where there is no such thing.
    #[must_use]
    pub const fn no_key_update() -> Self {
        Self { strength: LockStrength::NoKeyUpdate, wait: LockWait::Wait }
    }

    /// `FOR SHARE`.
    #[must_use]
    pub const fn share() -> Self {
        Self { strength: LockStrength::Share, wait: LockWait::Wait }
    }

    /// `FOR KEY SHARE`; `FOR SHARE` where there is no such thing.
    #[must_use]
    pub const fn key_share() -> Self {
        Self { strength: LockStrength::KeyShare, wait: LockWait::Wait }
    }

    /// An error at once where another transaction holds the row.
    #[must_use]
    pub const fn no_wait(self) -> Self {
        Self { wait: LockWait::NoWait, ..self }
    }

    /// No row where another transaction holds it.
    #[must_use]
    pub const fn skip_locked(self) -> Self {
        Self { wait: LockWait::SkipLocked, ..self }
    }

    pub(crate) fn skips(self) -> bool {
        self.wait == LockWait::SkipLocked
    }
}

/// A changed row.
#[derive(Debug)]
pub struct Change<'a, T> {
    /// What the database holds: its key and version find the row.
    pub old: &'a T,
    /// What it is to hold.
    pub new: &'a T,
}

/// What a connection does for an entity. Derived with it; implemented by hand only for what the derive can't know.
///
/// Every method sends a statement, or several where the database's limit of binds asks for it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't store `{T}`",
    label = "`{T}` is not an entity on this connection",
    note = "derive it: `#[derive(Clone, Queryable, Selectable, Identifiable, Entity)]`, for this database too if it says `backends(…)` or `check_for_backend(…)`"
)]
pub trait Persist<T: Entity>: SessionConnection {
    /// The rows of these keys, in any order; a key without a row gives none.
    ///
    /// # Errors
    /// What the database answered.
    fn load_by_keys(&mut self, keys: &[T::Key], lock: Option<RowLock>) -> QueryResult<Vec<T>>;

    /// The row of this key, if there is one.
    ///
    /// # Errors
    /// What the database answered.
    fn load_by_key(&mut self, key: &T::Key) -> QueryResult<Option<T>> {
        Ok(self.load_by_keys(std::slice::from_ref(key), None)?.pop())
    }

    /// Writes `columns` of each row; gives how many rows were found, by old key and, where there is one, old version.
    ///
    /// # Errors
    /// What the database answered.
    fn update(&mut self, rows: &[Change<'_, T>], columns: ColumnSet) -> QueryResult<usize>;

    /// Deletes the rows; gives how many were found, by key and, where there is one, version.
    ///
    /// # Errors
    /// What the database answered.
    fn delete(&mut self, rows: &[&T]) -> QueryResult<usize>;

    /// Deletes by keys alone; gives how many rows were found.
    ///
    /// # Errors
    /// What the database answered.
    fn delete_by_keys(&mut self, keys: &[T::Key]) -> QueryResult<usize>;

    /// `UPDATE … SET changes`, of Diesel's `AsChangeset`, for the row with this key and, where there is one, this version, which
    /// is raised; gives how many rows were found.
    ///
    /// # Errors
    /// What the database answered.
    fn apply(
        &mut self,
        key: &T::Key,
        version: Option<i64>,
        changes: &dyn QueryFragment<Self::Backend>,
    ) -> QueryResult<usize>
    where
        Self: Sized;

    /// Sets these columns, which may be NULL, to NULL in the row with this key.
    ///
    /// # Errors
    /// What the database answered.
    fn set_null(&mut self, key: &T::Key, columns: ColumnSet) -> QueryResult<usize>;

    /// Whether any of the hooks below does something.
    const HAS_HOOKS: bool = false;

    /// Runs in a flush before a changed row is written; what it changes is written too.
    ///
    /// # Errors
    /// An error fails the flush.
    fn before_update(&mut self, entity: &mut T) -> Result<()> {
        let _ = entity;
        Ok(())
    }

    /// Runs in a flush after the row was written.
    ///
    /// # Errors
    /// An error fails the flush.
    fn after_update(&mut self, entity: &T) -> Result<()> {
        let _ = entity;
        Ok(())
    }

    /// Runs in a flush before the row is deleted.
    ///
    /// # Errors
    /// An error fails the flush.
    fn before_delete(&mut self, entity: &T) -> Result<()> {
        let _ = entity;
        Ok(())
    }

    /// Runs in a flush after the row was deleted.
    ///
    /// # Errors
    /// An error fails the flush.
    fn after_delete(&mut self, entity: &T) -> Result<()> {
        let _ = entity;
        Ok(())
    }
}

/// What is inserted to make an entity: `#[derive(Insertable, Record)]` on a Diesel `Insertable`, or on the entity itself
/// where its key is known before.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the record of an entity",
    label = "`add` takes records",
    note = "derive it: `#[derive(Insertable, Record)]` with `#[entity(of = User, generated(id))]`"
)]
pub trait Record: Sized + 'static {
    /// What the row is, once it is stored.
    type Entity: Entity;

    /// What the database generates: the values of the columns that the record does not give.
    type Generated: 'static;

    /// The row, from the record and what the database generated.
    fn finish(self, generated: Self::Generated) -> Self::Entity;

    /// The record again, after the insert was rolled back.
    fn unfinish(entity: Self::Entity) -> Self;

    /// The key, where the record gives it.
    fn given_key(&self) -> Option<<Self::Entity as Entity>::Key> {
        None
    }

    /// The row as it will be, where the record is the entity itself and nothing is generated: such a record may take the
    /// place of a row that is deleted in the same flush.
    fn as_entity(&self) -> Option<&Self::Entity> {
        None
    }
}

/// What a connection does for a record. Derived with it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't insert `{N}`",
    label = "`{N}` is not a record on this connection",
    note = "derive it: `#[derive(Insertable, Record)]`, for this database too if it says `backends(…)` or `check_for_backend(…)`"
)]
pub trait Insert<N: Record>: SessionConnection {
    /// Inserts the rows and gives what the database generated for each, in the order of the rows.
    ///
    /// # Errors
    /// What the database answered; or what it generated can't be matched to the rows for certain.
    fn insert(&mut self, rows: &[&N]) -> QueryResult<Vec<N::Generated>>;

    /// Inserts the rows where nobody wants to know what was generated; gives how many.
    ///
    /// # Errors
    /// What the database answered.
    fn insert_only(&mut self, rows: &[&N]) -> QueryResult<usize>;

    /// Whether any of the hooks below does something.
    const HAS_HOOKS: bool = false;

    /// Runs in a flush before the row is inserted.
    ///
    /// # Errors
    /// An error fails the flush.
    fn before_insert(&mut self, record: &mut N) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// Runs in a flush after the row was inserted.
    ///
    /// # Errors
    /// An error fails the flush.
    fn after_insert(&mut self, entity: &N::Entity) -> Result<()> {
        let _ = entity;
        Ok(())
    }
}

/// Hooks of an entity, called by flushes where it says `#[entity(hooks)]`. They have the connection, inside the
/// transaction, and no session: a flush is running.
pub trait EntityHooks<C: SessionConnection>: Entity {
    /// As [`Persist::before_update`].
    ///
    /// # Errors
    /// An error fails the flush.
    fn before_update(&mut self, connection: &mut C) -> Result<()> {
        let _ = connection;
        Ok(())
    }

    /// As [`Persist::after_update`].
    ///
    /// # Errors
    /// An error fails the flush.
    fn after_update(&self, connection: &mut C) -> Result<()> {
        let _ = connection;
        Ok(())
    }

    /// As [`Persist::before_delete`].
    ///
    /// # Errors
    /// An error fails the flush.
    fn before_delete(&self, connection: &mut C) -> Result<()> {
        let _ = connection;
        Ok(())
    }

    /// As [`Persist::after_delete`].
    ///
    /// # Errors
    /// An error fails the flush.
    fn after_delete(&self, connection: &mut C) -> Result<()> {
        let _ = connection;
        Ok(())
    }
}

/// Hooks of a record, called by flushes where it says `#[entity(hooks)]`.
pub trait RecordHooks<C: SessionConnection>: Record {
    /// As [`Insert::before_insert`].
    ///
    /// # Errors
    /// An error fails the flush.
    fn before_insert(&mut self, connection: &mut C) -> Result<()> {
        let _ = connection;
        Ok(())
    }

    /// As [`Insert::after_insert`].
    ///
    /// # Errors
    /// An error fails the flush.
    fn after_insert(entity: &Self::Entity, connection: &mut C) -> Result<()> {
        let _ = (entity, connection);
        Ok(())
    }
}

/// A child entity: its rows refer to rows of `P`. Derived from `#[diesel(belongs_to(P))]`.
pub trait BelongsTo<P: Entity>: Entity {
    /// The key of the row that this one refers to; `None` where the column is NULL.
    fn parent_key(&self) -> Option<P::Key>;
}

/// What a connection does for a child entity. Derived with [`BelongsTo`].
pub trait LoadChildren<T: BelongsTo<P>, P: Entity>: SessionConnection {
    /// The rows that refer to any of these keys, ordered by their own key.
    ///
    /// # Errors
    /// What the database answered.
    fn load_children(&mut self, keys: &[P::Key]) -> QueryResult<Vec<T>>;
}
