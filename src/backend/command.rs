//! Transaction commands as cacheable statements: prepared once a connection, one round trip each.
//!
//! Diesel's `batch_execute` parses them every time and, on MySQL, wraps each in two more round trips
//! (`COM_SET_OPTION`, seen with diesel 2.3.14).

use std::marker::PhantomData;

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::Untyped;

/// The text of a command, named by a type so that the statement cache finds it without looking at the text.
pub(crate) trait Text: 'static {
    const SQL: &'static str;
}

/// A command whose text is known at compile time.
pub(crate) struct Command<T>(PhantomData<T>);

impl<T> Command<T> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Text> QueryId for Command<T> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<T: Text, DB: Backend> QueryFragment<DB> for Command<T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(T::SQL);
        Ok(())
    }
}

impl<T> Query for Command<T> {
    type SqlType = Untyped;
}

impl<T, C> RunQueryDsl<C> for Command<T> {}

/// A command that numbers a savepoint. The statement cache knows it by its text; numbers above the limit are not cached,
/// because Diesel's cache never forgets.
pub(crate) struct Numbered {
    pub(crate) before: &'static str,
    pub(crate) n: usize,
}

/// Savepoints nested deeper than this are sent without being kept prepared.
const CACHED_SAVEPOINTS: usize = 16;

impl QueryId for Numbered {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend> QueryFragment<DB> for Numbered {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if self.n > CACHED_SAVEPOINTS {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(self.before);
        out.push_sql(&self.n.to_string());
        Ok(())
    }
}

impl<C> RunQueryDsl<C> for Numbered {}

pub(crate) const SAVEPOINT: &str = "SAVEPOINT ds_";
pub(crate) const RELEASE: &str = "RELEASE SAVEPOINT ds_";
pub(crate) const ROLLBACK_TO: &str = "ROLLBACK TO SAVEPOINT ds_";

macro_rules! commands {
    ($($name:ident = $sql:literal;)*) => { $(
        pub(crate) struct $name;
        impl Text for $name { const SQL: &'static str = $sql; }
    )* };
}
pub(crate) use commands;
