//! What only the derives' output needs. Not for hand-written code.

use diesel::internal::table_macro::{Identifier, InfixNode};
use diesel::result::{Error, QueryResult};

use crate::entity::{Entity, Record};

/// The columns of a struct as constants.
pub trait Names: super::sql::Columns {
    /// Their names in SQL.
    const NAMES: &'static [&'static str];

    /// Their SQL types: a tuple, in which an embedded part is a tuple.
    type SqlTypes;
}

/// The lists one after the other: of embedded parts' names, whose lengths the derive does not know.
#[must_use]
pub const fn joined<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let mut all = [""; N];
    let (mut list, mut at) = (0, 0);
    while list < lists.len() {
        let mut name = 0;
        while name < lists[list].len() {
            all[at] = lists[list][name];
            name += 1;
            at += 1;
        }
        list += 1;
    }
    all
}

/// A table, as `table!` describes it.
#[derive(Debug, Clone, Copy)]
pub struct NamedTable<T: 'static>(pub &'static T);

impl NamedTable<Identifier<'static>> {
    /// Its name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.0
    }
}

impl<M> NamedTable<InfixNode<Identifier<'static>, Identifier<'static>, M>> {
    /// Diesel keeps a schema's name to itself, so the struct has to say it.
    #[must_use]
    #[expect(clippy::panic, reason = "the compiler runs it: this is a compile error")]
    pub const fn name(self) -> &'static str {
        panic!("this table is in a schema: name both on the entity, `#[entity(table = \"schema.table\")]`")
    }
}

/// A record that may give the value of a column.
pub trait Gives<Column> {
    /// Its type.
    type Value;

    /// The value, where it is given.
    fn value(&self) -> Option<&Self::Value>;
}

/// An entity whose key can be made of what the record `R` gives.
pub trait KeyFrom<R>: Entity {
    /// The key, where all of it is given.
    fn key_from(record: &R) -> Option<Self::Key>;
}

/// A record that is asked for its key. Method lookup takes [`KeyGiven`] where it applies, else, one reference further,
/// [`KeyUnknown`]: so a derive on the record learns what it can't see, which columns are the entity's key.
#[derive(Debug)]
pub struct Keyed<'a, R>(pub &'a R);

/// The record gives each column of the key.
pub trait KeyGiven {
    /// The entity.
    type Entity: Entity;

    /// The key.
    fn key(&self) -> Option<<Self::Entity as Entity>::Key>;
}

impl<R: Record> KeyGiven for Keyed<'_, R>
where
    R::Entity: KeyFrom<R>,
{
    type Entity = R::Entity;

    fn key(&self) -> Option<<Self::Entity as Entity>::Key> {
        R::Entity::key_from(self.0)
    }
}

/// The record does not know the key.
pub trait KeyUnknown {
    /// The entity.
    type Entity: Entity;

    /// Nothing.
    fn key(&self) -> Option<<Self::Entity as Entity>::Key>;
}

impl<R: Record> KeyUnknown for &Keyed<'_, R> {
    type Entity = R::Entity;

    fn key(&self) -> Option<<Self::Entity as Entity>::Key> {
        None
    }
}

/// An entity that may be its own record: a derived one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is the record of no entity",
    label = "neither the record of an entity nor an entity itself",
    note = "say whose record it is: `#[entity(of = User, generated(id))]`; or, if it is its own, derive `Entity` too"
)]
pub trait OwnRecord {
    /// The same type.
    type Itself: Entity;
}

/// The answer where a column is asked for that there is not, or whose value the database makes.
///
/// # Errors
/// Always.
#[cold]
pub fn no_value(column: usize) -> QueryResult<()> {
    Err(Error::QueryBuilderError(format!("column {column} has no value to bind").into()))
}

/// Its tokens, where SQLite is on.
#[cfg(feature = "sqlite")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_sqlite { ($($tokens:tt)*) => { $($tokens)* } }
/// Nothing: SQLite is off.
#[cfg(not(feature = "sqlite"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_sqlite {
    ($($tokens:tt)*) => {};
}

/// Its tokens, where PostgreSQL is on.
#[cfg(feature = "postgres")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_postgres { ($($tokens:tt)*) => { $($tokens)* } }
/// Nothing: PostgreSQL is off.
#[cfg(not(feature = "postgres"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_postgres {
    ($($tokens:tt)*) => {};
}

/// Its tokens, where MySQL is on.
#[cfg(feature = "mysql")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_mysql { ($($tokens:tt)*) => { $($tokens)* } }
/// Nothing: MySQL is off.
#[cfg(not(feature = "mysql"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_mysql {
    ($($tokens:tt)*) => {};
}
