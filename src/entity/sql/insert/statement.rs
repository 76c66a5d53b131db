//! The statements of an insert.

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use crate::backend::{Kind, SessionConnection};
use crate::entity::ColumnSet;
use crate::entity::sql::kept::{Form, Kept, Purpose};
use crate::entity::sql::read::rows as read;
use crate::entity::sql::text::{comes_again, key_names, padded, push_in, push_names, push_table};
use crate::entity::sql::{Bind, BindKey, Columns, NewRow};

use super::{Key, ReadBack};

/// `INSERT INTO t …`
pub(super) struct Rows<'a, N: Columns> {
    kind: Kind,
    rows: Vec<N::Bound<'a>>,
    given: ColumnSet,
    form: Form,
    /// The keys, where they are chosen.
    keys: Vec<i64>,
}

impl<'a, N: NewRow> Rows<'a, N> {
    pub(super) fn new(kind: Kind, rows: &[&'a N], given: ColumnSet, form: Form) -> Self {
        let rows = rows.iter().map(|row| row.bound()).collect();
        Self { kind, rows, given, form, keys: Vec::new() }
    }

    /// With keys that were chosen for the rows.
    pub(super) fn with_keys(self, keys: Vec<i64>) -> Self {
        Self { keys, ..self }
    }

    /// Gives how many rows were stored.
    pub(super) fn execute<C>(self, conn: &mut C) -> QueryResult<usize>
    where
        C: SessionConnection,
        Self: QueryFragment<C::Backend>,
    {
        self.kept::<C::Backend>()?.execute(conn)
    }

    /// Gives what is read back.
    pub(super) fn read<C>(self, conn: &mut C) -> QueryResult<Vec<(Key<N>, N::Generated)>>
    where
        C: SessionConnection,
        Self: QueryFragment<C::Backend>,
        (Key<N>, N::Generated): FromSqlRow<ReadBack<N>, C::Backend>,
        C::Backend: QueryMetadata<ReadBack<N>>,
    {
        read(conn, self.kept::<C::Backend>()?)
    }

    fn kept<DB>(self) -> QueryResult<Kept<Self>>
    where
        DB: Backend + Default + 'static,
        DB::QueryBuilder: Default,
        Self: QueryFragment<DB>,
    {
        let (form, columns, rows) = (self.form, self.given.bits(), self.rows.len());
        Kept::new::<N, DB>(self, Purpose::Insert(form), columns, rows, comes_again(rows))
    }

    fn values<'b, DB>(&'b self, i: usize, row: &'b N::Bound<'a>, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        DB: Backend,
        N::Bound<'a>: Bind<DB>,
        i64: ToSql<BigInt, DB>,
    {
        let mut comma = "";
        if let Some(id) = self.keys.get(i) {
            out.push_bind_param::<BigInt, i64>(id)?;
            comma = ", ";
        }
        if self.form == Form::Counted {
            // NULL, which asks for a key; with the first, nothing is left of what an earlier statement made: if a trigger gives
            // the keys instead, `LAST_INSERT_ID()` says 0 and not some other row.
            out.push_sql(if i == 0 { "NULLIF(LAST_INSERT_ID(0), 0)" } else { "NULL" });
            comma = ", ";
        }
        for column in self.given.iter() {
            out.push_sql(comma);
            row.bind(column, out.reborrow())?;
            comma = ", ";
        }
        Ok(())
    }
}

impl<N: Columns> QueryId for Rows<'_, N> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<N: NewRow> Query for Rows<'_, N> {
    type SqlType = ReadBack<N>;
}

impl<'a, N, DB> QueryFragment<DB> for Rows<'a, N>
where
    N: NewRow,
    N::Bound<'a>: Bind<DB>,
    i64: ToSql<BigInt, DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("INSERT INTO ");
        push_table::<N::Entity, DB>(&mut out)?;
        let names_key = !self.keys.is_empty() || self.form == Form::Counted;
        if self.given.is_empty() && !names_key && self.kind != Kind::Mysql {
            out.push_sql(" DEFAULT VALUES");
        } else {
            out.push_sql(" (");
            let key = key_names::<N::Entity>().take(usize::from(names_key));
            push_names(&mut out, key.chain(self.given.iter().map(<N as Columns>::name)))?;
            out.push_sql(")");
            if self.form == Form::Ordered { self.ordered(&mut out)? } else { self.listed(&mut out)? }
        }
        if matches!(self.form, Form::Returning | Form::KeyedReturning | Form::Ordered) {
            out.push_sql(" RETURNING ");
            push_read_back::<N, DB>(&mut out)?;
        }
        Ok(())
    }
}

impl<'a, N: NewRow> Rows<'a, N> {
    fn listed<'b, DB>(&'b self, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        DB: Backend,
        N::Bound<'a>: Bind<DB>,
        i64: ToSql<BigInt, DB>,
    {
        for (i, row) in self.rows.iter().enumerate() {
            out.push_sql(if i > 0 { ", (" } else { " VALUES (" });
            self.values(i, row, out)?;
            out.push_sql(")");
        }
        Ok(())
    }

    fn ordered<'b, DB>(&'b self, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        DB: Backend,
        N::Bound<'a>: Bind<DB>,
        i64: ToSql<BigInt, DB>,
    {
        for i in 0..self.given.len() {
            out.push_sql(&format!("{} c{i}", if i > 0 { "," } else { " SELECT" }));
        }
        for (i, row) in self.rows.iter().enumerate() {
            out.push_sql(if i > 0 { ", (" } else { " FROM (VALUES (" });
            self.values(i, row, out)?;
            out.push_sql(&format!(", {i})"));
        }
        out.push_sql(") AS v(");
        for i in 0..self.given.len() {
            out.push_sql(&format!("c{i}, "));
        }
        out.push_sql("ord) ORDER BY ord");
        Ok(())
    }
}

/// The columns that are read back: the key's, then the generated ones.
pub(super) fn push_read_back<N: NewRow, DB: Backend>(out: &mut AstPass<'_, '_, DB>) -> QueryResult<()> {
    push_names(out, key_names::<N::Entity>().chain(N::GENERATED.iter().copied()))
}

/// Rows that were just inserted, by the keys that were given: where there is no RETURNING.
pub(super) struct Again<'a, N: NewRow> {
    pub(super) kind: Kind,
    pub(super) keys: &'a [Key<N>],
}

impl<N: NewRow> QueryId for Again<'_, N> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<N: NewRow> Query for Again<'_, N> {
    type SqlType = ReadBack<N>;
}

impl<N, DB> QueryFragment<DB> for Again<'_, N>
where
    N: NewRow,
    N::Entity: BindKey<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT ");
        push_read_back::<N, DB>(&mut out)?;
        out.push_sql(" FROM ");
        push_table::<N::Entity, DB>(&mut out)?;
        out.push_sql(" WHERE ");
        push_in::<N::Entity, DB>(&mut out, self.kind, key_names::<N::Entity>(), self.keys, padded(self.keys.len()))
    }
}
