//! Which statements are kept prepared, and their texts, each of which is made once.
//!
//! Diesel's cache finds a statement by its type, or by its text, which is then made for each execution. To put together an
//! UPDATE of one column takes as many instructions as Diesel's other work on it, and SQLite needs few more to run it. So
//! the texts that come again are kept.

use std::any::TypeId;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::result::QueryResult;
use hashbrown::{HashMap, HashSet};

/// What a statement is for. With the type that it is of, the columns and the number of rows that says its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Update,
    SetNull,
    /// A changeset, known by a hash of its text.
    Apply,
    Insert(Form),
    Delete,
    DeleteByKeys,
    SelectByKeys,
    SelectChildren,
}

/// How rows are inserted and read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// `VALUES (…), (…)`
    Values,
    /// The same with keys that were chosen for the rows.
    Keyed,
    /// `VALUES (…), (…) RETURNING …`
    Returning,
    /// The same with keys that were chosen for the rows.
    KeyedReturning,
    /// PostgreSQL: `SELECT … FROM … ORDER BY … RETURNING …`, which draws the keys in order.
    Ordered,
    /// MySQL: NULL for the key, which only one that counts up takes.
    Counted,
}

impl Purpose {
    /// Whose column sets are counted together.
    fn family(self) -> u8 {
        match self {
            Self::Update => 0,
            Self::SetNull => 1,
            Self::Apply => 2,
            Self::Insert(_) => 3,
            Self::Delete => 4,
            Self::DeleteByKeys => 5,
            Self::SelectByKeys => 6,
            Self::SelectChildren => 7,
        }
    }
}

/// Diesel's cache of prepared statements never forgets: only the first column sets of each type are kept prepared.
const SETS: usize = 64;

/// Of the sizes that few statements have, so many are kept of each column set: those that came twice.
const ODD_SIZES: usize = 8;

/// What this process keeps.
#[derive(Default)]
struct Registry {
    /// The column sets of each type.
    sets: HashMap<(TypeId, u8), HashSet<u128>>,
    /// The odd sizes of each column set.
    sizes: HashMap<(TypeId, u8, u128), Sizes>,
}

#[derive(Default)]
struct Sizes {
    kept: Vec<usize>,
    last_seen: [usize; ODD_SIZES],
    next: usize,
}

impl Sizes {
    /// Whether this size is kept; it is if it has been seen lately.
    fn are_with(&mut self, rows: usize) -> bool {
        if self.kept.contains(&rows) {
            return true;
        }
        let is_known = self.last_seen.contains(&rows) && self.kept.len() < ODD_SIZES;
        if is_known {
            self.kept.push(rows);
        } else {
            self.last_seen[self.next % ODD_SIZES] = rows;
            self.next += 1;
        }
        is_known
    }
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether statements of these columns are kept prepared: they are among the first that this process made for the type.
pub(super) fn is_kept<T: 'static>(purpose: Purpose, columns: u128) -> bool {
    let mut registry = registry();
    let sets = registry.sets.entry((TypeId::of::<T>(), purpose.family())).or_default();
    sets.contains(&columns) || sets.len() < SETS && sets.insert(columns)
}

/// Whether statements of a size that need not come again are kept prepared, because they did: the same job makes as many rows
/// each time.
fn is_odd_size_kept<T: 'static>(purpose: Purpose, columns: u128, rows: usize) -> bool {
    let mut registry = registry();
    registry.sizes.entry((TypeId::of::<T>(), purpose.family(), columns)).or_default().are_with(rows)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    of: TypeId,
    backend: TypeId,
    purpose: Purpose,
    columns: u128,
    rows: usize,
}

thread_local! {
    static TEXTS: RefCell<HashMap<Shape, Rc<str>>> = RefCell::default();
}

/// A statement that is kept prepared, unless it is one of too many kinds or its like has not come before.
pub(super) struct Kept<S> {
    statement: S,
    text: Option<Rc<str>>,
}

impl<S> Kept<S> {
    /// A statement of `rows` rows and these columns of `T`.
    pub(super) fn new<T, DB>(
        statement: S,
        purpose: Purpose,
        columns: u128,
        rows: usize,
        comes_again: bool,
    ) -> QueryResult<Self>
    where
        T: 'static,
        DB: Backend + Default + 'static,
        DB::QueryBuilder: Default,
        S: QueryFragment<DB>,
    {
        let shape = Shape { of: TypeId::of::<T>(), backend: TypeId::of::<DB>(), purpose, columns, rows };
        let known = TEXTS.try_with(|texts| texts.try_borrow().ok()?.get(&shape).map(Rc::clone));
        if let Ok(Some(text)) = known {
            return Ok(Self { statement, text: Some(text) });
        }
        let comes_again = comes_again || is_odd_size_kept::<T>(purpose, columns, rows);
        if !comes_again || !is_kept::<T>(purpose, columns) {
            return Ok(Self { statement, text: None });
        }
        let mut builder = DB::QueryBuilder::default();
        statement.to_sql(&mut builder, &DB::default())?;
        let text: Rc<str> = builder.finish().into();
        let _ = TEXTS.try_with(|texts| Some(texts.try_borrow_mut().ok()?.insert(shape, Rc::clone(&text))));
        Ok(Self { statement, text: Some(text) })
    }
}

impl<S: QueryId> QueryId for Kept<S> {
    type QueryId = S::QueryId;
    const HAS_STATIC_QUERY_ID: bool = S::HAS_STATIC_QUERY_ID;
}

impl<S: Query> Query for Kept<S> {
    type SqlType = S::SqlType;
}

impl<C, S> RunQueryDsl<C> for Kept<S> {}

impl<S, DB> QueryFragment<DB> for Kept<S>
where
    S: QueryFragment<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let Some(text) = &self.text else {
            out.unsafe_to_cache_prepared();
            return self.statement.walk_ast(out);
        };
        // Only binds are asked of the statement itself.
        if out.bind_collector().is_some() || out.debug_binds().is_some() {
            return self.statement.walk_ast(out);
        }
        out.push_sql(text);
        Ok(())
    }
}

/// A statement that the cache finds by its type, so that its text is asked for once a connection.
pub(super) struct Named<S>(pub(super) S);

impl<S: QueryId> QueryId for Named<S> {
    type QueryId = S::QueryId;
    const HAS_STATIC_QUERY_ID: bool = S::HAS_STATIC_QUERY_ID;
}

impl<S: Query> Query for Named<S> {
    type SqlType = S::SqlType;
}

impl<S, DB> QueryFragment<DB> for Named<S>
where
    S: QueryFragment<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        // Without a walk through the whole selection, for each execution.
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_column_sets_are_kept_prepared() {
        struct Wide;
        let kept = (0..1000).filter(|&columns| is_kept::<Wide>(Purpose::Update, columns)).count();
        assert_eq!(kept, SETS);
        assert!(is_kept::<Wide>(Purpose::Update, 3) && !is_kept::<Wide>(Purpose::Update, 999));
        assert!(is_kept::<Wide>(Purpose::SetNull, 999));
    }

    #[test]
    fn of_odd_sizes_the_first_that_come_twice_are_kept_and_no_more() {
        struct Job;
        let kept = |rows| is_odd_size_kept::<Job>(Purpose::Update, 1, rows);
        assert!(!kept(1000) && kept(1000) && kept(1000));
        assert!((1..1000).all(|rows| !kept(rows)), "each came once");
        let twice = (2000..2100).filter(|&rows| !kept(rows) && kept(rows)).count();
        assert_eq!(twice, ODD_SIZES - 1);
        assert!(kept(1000));
    }
}
