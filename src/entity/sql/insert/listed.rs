//! New rows as one array a column.

use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

use crate::backend::SessionConnection;
use crate::entity::ColumnSet;
use crate::entity::sql::kept::{Form, Kept, Purpose};
use crate::entity::sql::list::{Lists, lists};
use crate::entity::sql::text::{push_names, push_table};
use crate::entity::sql::{Bind, Columns, NewRow};

use super::ReadBack;
use super::statement::push_read_back;

/// `INSERT INTO t (…) SELECT c0, c1 FROM unnest(?, ?) AS v(c0, c1)`
pub(super) struct Listed<'r, N, DB: Backend> {
    lists: Lists<'r, DB>,
    given: ColumnSet,
    form: Form,
    record: PhantomData<N>,
}

impl<'r, N: NewRow, DB: Backend + Default + 'static> Listed<'r, N, DB>
where
    DB::QueryBuilder: Default,
{
    /// The statement, which fits any number of rows; none where they are better sent otherwise, or can't be lists.
    pub(super) fn new<C, B>(
        conn: &mut C,
        rows: &'r [B],
        given: ColumnSet,
        form: Form,
    ) -> QueryResult<Option<Kept<Self>>>
    where
        C: SessionConnection<Backend = DB>,
        B: Bind<DB>,
    {
        if rows.len() < 2 || given.is_empty() {
            return Ok(None);
        }
        let Some(lists) = lists(conn, rows, given.iter()) else { return Ok(None) };
        let insert = Self { lists, given, form, record: PhantomData };
        Kept::new::<N, DB>(insert, Purpose::Insert(form), given.bits(), 0, true).map(Some)
    }
}

impl<N, DB: Backend> QueryId for Listed<'_, N, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<N: NewRow, DB: Backend> Query for Listed<'_, N, DB> {
    type SqlType = ReadBack<N>;
}

impl<N: NewRow, DB: Backend> QueryFragment<DB> for Listed<'_, N, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let is_ordered = self.form == Form::Ordered;
        out.push_sql("INSERT INTO ");
        push_table::<N::Entity, DB>(&mut out)?;
        out.push_sql(" (");
        push_names(&mut out, self.given.iter().map(<N as Columns>::name))?;
        out.push_sql(")");
        for i in 0..self.lists.len() {
            out.push_sql(&format!("{} c{i}", if i > 0 { "," } else { " SELECT" }));
        }
        for (i, list) in self.lists.iter().enumerate() {
            out.push_sql(if i > 0 { ", " } else { " FROM unnest(" });
            list.bind(out.reborrow())?;
        }
        out.push_sql(if is_ordered { ") WITH ORDINALITY AS v(" } else { ") AS v(" });
        for i in 0..self.lists.len() {
            out.push_sql(&format!("{}c{i}", if i > 0 { ", " } else { "" }));
        }
        out.push_sql(if is_ordered { ", ord) ORDER BY ord" } else { ")" });
        if is_ordered || self.form == Form::Returning {
            out.push_sql(" RETURNING ");
            push_read_back::<N, DB>(&mut out)?;
        }
        Ok(())
    }
}
