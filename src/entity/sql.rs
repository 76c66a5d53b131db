//! What the derives expand to: how columns are named and bound, and the statements made of that. Not for hand-written code.

use diesel::backend::Backend;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;

mod apply;
mod children;
mod delete;
mod insert;
mod kept;
mod list;
mod read;
mod select;
mod text;
mod update;

pub use apply::{apply, set_null};
pub use children::load_children;
pub use delete::{delete, delete_by_keys};
pub use insert::{insert, insert_given, insert_only};
pub use list::{List, Listing};
pub use select::{load_by_key, load_by_keys};
pub use update::update;

/// The columns of a struct: an entity's, a record's, an embedded part's.
pub trait Columns: 'static {
    /// How many.
    const COUNT: usize;

    /// The column's name in SQL.
    fn name(column: usize) -> &'static str;

    /// Whether the column is an integer that is never NULL: a bind of its own says all about its type.
    fn is_integer(column: usize) -> bool {
        let _ = column;
        false
    }

    /// The values in the form in which they are bound: references, or what `serialize_as` makes of them.
    type Bound<'a>;

    /// Converts the values.
    fn bound(&self) -> Self::Bound<'_>;
}

/// Whether this SQL type is an integer that is never NULL.
#[must_use]
pub fn is_integer<ST: 'static>() -> bool {
    use std::any::TypeId;

    use diesel::sql_types::{BigInt, Integer, SmallInt};

    let integers = [TypeId::of::<SmallInt>(), TypeId::of::<Integer>(), TypeId::of::<BigInt>()];
    integers.contains(&TypeId::of::<ST>())
}

/// Values that can be bound on a backend: the `Bound` of some [`Columns`].
pub trait Bind<DB: Backend> {
    /// Binds the value of a column.
    ///
    /// # Errors
    /// What Diesel says.
    fn bind<'b>(&'b self, column: usize, out: AstPass<'_, 'b, DB>) -> QueryResult<()>;

    /// The values of a column in these rows as one bind, where the database and the column's type have such.
    fn list<'r>(
        rows: &mut dyn Iterator<Item = &'r Self>,
        column: usize,
        lookup: &mut DB::MetadataLookup,
    ) -> Option<Box<dyn List<DB> + 'r>>
    where
        Self: Sized + 'r,
        DB: Listing,
    {
        let _ = (rows, column, lookup);
        None
    }
}

/// An entity whose key can be bound on a backend.
pub trait BindKey<DB: Backend>: crate::Entity {
    /// Binds a part of the key: 0 for the first column of it.
    ///
    /// # Errors
    /// What Diesel says.
    fn bind_key<'b>(key: &'b Self::Key, part: usize, out: AstPass<'_, 'b, DB>) -> QueryResult<()>;
}

/// What the statements need to know of an entity.
pub trait Row: crate::Entity + Columns {
    /// The numbers of the key's columns, in the order of the key's parts.
    const KEY: &'static [usize];

    /// The SQL type of [`Entity::Key`](crate::Entity::Key): a tuple where it has several columns.
    type KeySqlType;
}

/// A column of an entity, by the type that `table!` made for it: what Rust type its field has.
pub trait Field<Column>: crate::Entity {
    /// The type of the field.
    type Value;
}

/// What the statements need to know of a record.
pub trait NewRow: crate::Record<Entity: Row> + Columns {
    /// The names of the entity's columns that are read back, in the order of [`Record::Generated`](crate::Record::Generated).
    const GENERATED: &'static [&'static str];

    /// Their SQL type.
    type GeneratedSqlType;

    /// Which of the record's columns this one gives; the others take the database's default.
    fn given(&self) -> crate::ColumnSet {
        crate::ColumnSet::first(Self::COUNT)
    }
}
