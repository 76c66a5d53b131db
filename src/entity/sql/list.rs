//! The values of a column in many rows as one array: PostgreSQL takes that for a table, with one bind a column instead of one a
//! value, and one text for any number of rows.

use diesel::backend::Backend;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::HasSqlType;

use super::Bind;
use crate::backend::{Kind, SessionConnection};

/// Splits rows into as many as such a statement takes: more are not faster. Where there are no lists they stay together.
pub(super) fn parts<R>(kind: Kind, rows: &[R]) -> impl Iterator<Item = &[R]> {
    rows.chunks(if kind == Kind::Postgres { 5_000 } else { rows.len().max(1) })
}

/// A list of values that can be bound.
pub trait List<DB: Backend> {
    /// Binds it.
    ///
    /// # Errors
    /// What Diesel says.
    fn bind<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()>;
}

/// A backend that may have lists.
pub trait Listing: Backend {
    /// A list of these values; none where the backend, or the type, has no arrays.
    fn list<'r, ST, V>(
        values: &mut dyn Iterator<Item = &'r V>,
        lookup: &mut Self::MetadataLookup,
    ) -> Option<Box<dyn List<Self> + 'r>>
    where
        ST: 'static,
        V: ToSql<ST, Self> + 'r,
        Self: HasSqlType<ST>,
    {
        let _ = (values, lookup);
        None
    }
}

#[cfg(feature = "sqlite")]
impl Listing for diesel::sqlite::Sqlite {}

#[cfg(feature = "mysql")]
impl Listing for diesel::mysql::Mysql {}

#[cfg(feature = "postgres")]
mod postgres {
    use std::marker::PhantomData;

    use diesel::pg::{Pg, PgMetadataLookup};
    use diesel::query_builder::AstPass;
    use diesel::result::QueryResult;
    use diesel::serialize::ToSql;
    use diesel::sql_types::{Array, HasSqlType};

    use super::{List, Listing};

    /// Types with lower numbers are PostgreSQL's own (`FirstNormalObjectId`).
    const FIRST_OF_USERS: u32 = 16_384;

    struct Values<'r, ST, V>(Vec<&'r V>, PhantomData<fn() -> ST>);

    impl<ST, V> List<Pg> for Values<'_, ST, V>
    where
        ST: 'static,
        V: ToSql<ST, Pg>,
        Pg: HasSqlType<ST>,
    {
        fn bind<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
            out.push_bind_param::<Array<ST>, Vec<&V>>(&self.0)
        }
    }

    impl Listing for Pg {
        fn list<'r, ST, V>(
            values: &mut dyn Iterator<Item = &'r V>,
            lookup: &mut (dyn PgMetadataLookup + 'static),
        ) -> Option<Box<dyn List<Self> + 'r>>
        where
            ST: 'static,
            V: ToSql<ST, Self> + 'r,
            Self: HasSqlType<ST>,
        {
            // `unnest` would take an array of arrays apart, and one of composites, which a user's type may be; and there are types
            // without arrays.
            let metadata = <Self as HasSqlType<ST>>::metadata(lookup);
            let is_built_in = metadata.oid().is_ok_and(|oid| oid < FIRST_OF_USERS);
            let has_array = is_built_in && metadata.array_oid().is_ok_and(|oid| oid != 0);
            has_array.then(|| Box::new(Values::<ST, V>(values.collect(), PhantomData)) as Box<dyn List<Self> + 'r>)
        }
    }
}

/// A list a column.
pub(super) type Lists<'r, DB> = Vec<Box<dyn List<DB> + 'r>>;

/// These columns of the rows as lists; none where one of them can't be one.
pub(super) fn lists<'r, C, B>(
    conn: &mut C,
    rows: &'r [B],
    columns: impl Iterator<Item = usize>,
) -> Option<Lists<'r, C::Backend>>
where
    C: SessionConnection,
    B: Bind<C::Backend> + 'r,
{
    let lookup = conn.lookup()?;
    columns.map(|column| B::list(&mut rows.iter(), column, lookup)).collect()
}
