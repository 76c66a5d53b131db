//! A query's first row without binding the limit.
//!
//! Diesel's `LIMIT` is a bind, and SQLite plans a statement anew each time that such a bind changes hands: three times
//! the cost of the query itself (SQLite 3.51, `sqlite3ExprIsInteger`). Here `LIMIT 1` is written out where the query has
//! no limit, offset or locking clause of its own.

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

/// How the type name of a select statement begins, and how it ends when nothing may follow its ORDER BY (diesel 2.3.14).
/// A name that does not match costs speed, never truth: the query then takes Diesel's own road.
const SELECT: &str = "diesel::query_builder::select_statement::SelectStatement<";
const OPEN_END: &str = "diesel::query_builder::limit_offset_clause::LimitOffsetClause<\
    diesel::query_builder::limit_clause::NoLimitClause, diesel::query_builder::offset_clause::NoOffsetClause>, \
    diesel::query_builder::group_by_clause::NoGroupByClause, diesel::query_builder::having_clause::NoHavingClause, \
    diesel::query_builder::locking_clause::NoLockingClause>";

/// A query that gives one row at the most.
#[derive(Debug)]
pub enum First<Q, L> {
    /// `LIMIT 1` in the text.
    Literal(Q),
    /// Diesel's own limit.
    Bound(L),
}

/// Whether `LIMIT 1` may be written behind `Q`.
pub(crate) fn takes_a_literal_limit<Q>() -> bool {
    let name = std::any::type_name::<Q>();
    name.starts_with(SELECT) && name.ends_with(OPEN_END)
}

impl<Q: Query, L> Query for First<Q, L> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryId, L: QueryId> QueryId for First<Q, L> {
    type QueryId = First<Q::QueryId, L::QueryId>;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID && L::HAS_STATIC_QUERY_ID;
}

impl<DB: Backend, Q: QueryFragment<DB>, L: QueryFragment<DB>> QueryFragment<DB> for First<Q, L> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match self {
            Self::Literal(query) => {
                query.walk_ast(out.reborrow())?;
                out.push_sql(" LIMIT 1");
                Ok(())
            }
            Self::Bound(query) => query.walk_ast(out),
        }
    }
}

impl<Q, L, C> RunQueryDsl<C> for First<Q, L> {}

#[cfg(test)]
mod tests {
    use diesel::prelude::*;

    use super::takes_a_literal_limit;

    diesel::table! { notes (id) { id -> Integer, text -> Text, } }

    fn takes<Q: diesel::query_builder::AsQuery>(_: Q) -> bool {
        takes_a_literal_limit::<Q::Query>()
    }

    #[test]
    fn only_queries_with_nothing_behind_the_order_take_a_literal_limit() {
        assert!(takes(notes::table));
        assert!(takes(notes::table.find(1)));
        assert!(takes(notes::table.filter(notes::text.eq("a")).select(notes::id).order(notes::id)));
        assert!(!takes(notes::table.limit(3)));
        assert!(!takes(notes::table.offset(3)));
        assert!(!takes(notes::table.group_by(notes::text).select(notes::text)));
    }
}
