//! A query's first row without binding the limit.
//!
//! Diesel's `LIMIT` is a bind, and SQLite plans a statement anew each time that such a bind changes hands: three times
//! the cost of the query itself (SQLite 3.51, `sqlite3ExprIsInteger`). Here `LIMIT 1` is written out where the query has
//! no limit, offset or locking clause of its own.

use std::cell::RefCell;
use std::collections::HashMap;

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

/// How the type name of a select statement begins, and what its sixth and ninth arguments are when nothing may follow its
/// ORDER BY (diesel 2.3.14); arguments that are the default may be missing at the end (rustc 1.95).
const SELECT: &str = "diesel::query_builder::select_statement::SelectStatement<";
const NO_LIMIT_OR_OFFSET: &str = "diesel::query_builder::limit_offset_clause::LimitOffsetClause<\
    diesel::query_builder::limit_clause::NoLimitClause, diesel::query_builder::offset_clause::NoOffsetClause>";
const NO_LOCKING: &str = "diesel::query_builder::locking_clause::NoLockingClause";

thread_local! {
    /// The answers so far, by the address of the type's name: each name is read once a thread.
    static KNOWN: RefCell<HashMap<usize, bool>> = RefCell::default();
}

/// A query that gives one row at the most.
#[derive(Debug)]
pub enum First<Q, L> {
    /// `LIMIT 1` in the text.
    Literal(Q),
    /// Diesel's own limit.
    Bound(L),
}

/// Whether `LIMIT 1` may be written behind `Q`. A name that this does not understand costs speed, never truth: the query
/// then takes Diesel's own road.
pub(crate) fn takes_a_literal_limit<Q>() -> bool {
    let name = std::any::type_name::<Q>();
    let known = KNOWN
        .try_with(|known| *known.borrow_mut().entry(name.as_ptr() as usize).or_insert_with(|| is_open_ended(name)));
    known.unwrap_or(false)
}

fn is_open_ended(name: &str) -> bool {
    let Some(arguments) = name.strip_prefix(SELECT).and_then(|rest| rest.strip_suffix('>')).and_then(split) else {
        return false;
    };
    arguments.get(5).is_none_or(|limit| *limit == NO_LIMIT_OR_OFFSET)
        && arguments.get(8).is_none_or(|locking| *locking == NO_LOCKING)
}

/// The arguments of a generic type; `None` if the brackets don't match.
fn split(arguments: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut before) = (0_u32, 0, ' ');
    for (at, letter) in arguments.char_indices() {
        match letter {
            '<' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' | ')' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(arguments[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        before = letter;
    }
    parts.push(arguments[start..].trim());
    (depth == 0).then_some(parts)
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
        assert!(takes(notes::table.group_by(notes::text).select(notes::text)));
        assert!(!takes(notes::table.group_by(notes::text).select(notes::text).limit(3)));
        #[cfg(feature = "postgres")]
        assert!(!takes(notes::table.for_update()));
    }
}
