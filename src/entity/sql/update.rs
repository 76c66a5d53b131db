//! Changed rows.

use std::marker::PhantomData;

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as DieselError, QueryResult};
use diesel::sql_types::BigInt;
use hashbrown::HashSet;
use smallvec::SmallVec;

use crate::backend::{Kind, SessionConnection, Truth};
use crate::entity::{Change, ColumnSet};

use super::kept::{Kept, Purpose};
use super::list::{Lists, lists, parts};
use super::read::first;
use super::text::{ONE_BY_ONE, batches, comes_again, push_found, push_schema, push_string, push_table};
use super::{Bind, Columns, Row};

/// MySQL's form is a SELECT a row.
const MOST: usize = 1024;

/// Writes `columns` of each row; gives how many rows were found, by old key and, where there is one, old version.
///
/// # Errors
/// What the database answered.
pub fn update<C, T>(conn: &mut C, rows: &[Change<'_, T>], columns: ColumnSet) -> QueryResult<usize>
where
    C: SessionConnection,
    T: Row,
    for<'a> T::Bound<'a>: Bind<C::Backend>,
    i64: FromSqlRow<BigInt, C::Backend>,
    C::Backend: QueryMetadata<BigInt>,
{
    if columns.is_empty() {
        return Ok(rows.len());
    }
    let kind = conn.kind();
    let version = T::version_column();
    // In one statement, keys that rows hand on to each other would meet halfway.
    let one_by_one =
        columns.meets(T::KEY.iter().copied().collect()) || kind == Kind::Sqlite && !fit_together(conn, rows)?;
    let width = if one_by_one { ONE_BY_ONE } else { T::KEY.len() + columns.len() + usize::from(version.is_some()) };
    let mut found = 0;
    for rows in parts(kind, rows) {
        let listed = if one_by_one { None } else { as_lists(conn, rows, columns, version) };
        found += match listed {
            Some(written) => written?,
            None => in_batches(conn, rows, columns, version, width)?,
        };
    }
    Ok(found)
}

/// So many rows are worth the question whether SQLite may have them in one statement.
const TOGETHER: usize = 16;

/// Whether SQLite does the same with the rows of one statement as with one by one. It finds them all, and looks at their
/// versions, before it writes the first, and writes them in an order of its own: triggers, and constraints that don't just
/// refuse, would tell. A row that is named twice it writes once.
fn fit_together<C, T>(conn: &mut C, rows: &[Change<'_, T>]) -> QueryResult<bool>
where
    C: SessionConnection,
    T: Row,
    i64: FromSqlRow<BigInt, C::Backend>,
    C::Backend: QueryMetadata<BigInt>,
{
    if rows.len() < TOGETHER {
        return Ok(false);
    }
    let mut keys = HashSet::with_capacity(rows.len());
    if !rows.iter().all(|row| keys.insert(row.old.key())) {
        return Ok(false);
    }
    Ok(first::<C, _, i64>(conn, Peculiarities::<T>(PhantomData))? == Some(0))
}

/// How many triggers a table of SQLite has, whether it is a view, has a temporary namesake, or constraints with a say in what
/// a conflict does.
struct Peculiarities<T>(PhantomData<T>);

impl<T: 'static> QueryId for Peculiarities<T> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<T> Query for Peculiarities<T> {
    type SqlType = BigInt;
}

impl<T: Row, DB: Backend> QueryFragment<DB> for Peculiarities<T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT (SELECT count(*) FROM ");
        push_schema::<T, DB>(&mut out)?;
        out.push_sql("sqlite_master WHERE tbl_name = ");
        push_string::<T, DB>(&mut out);
        out.push_sql(" AND (type IN ('trigger', 'view') OR type = 'table' AND upper(sql) LIKE '%CONFLICT%'))");
        out.push_sql(" + (SELECT count(*) FROM sqlite_temp_master WHERE tbl_name = ");
        push_string::<T, DB>(&mut out);
        out.push_sql(")");
        Ok(())
    }
}

/// Sends the rows as one array a column; none where they can't be, or one alone is faster.
fn as_lists<C, T>(
    conn: &mut C,
    rows: &[Change<'_, T>],
    columns: ColumnSet,
    version: Option<usize>,
) -> Option<QueryResult<usize>>
where
    C: SessionConnection,
    T: Row,
    for<'a> T::Bound<'a>: Bind<C::Backend>,
{
    // Asked first, so that nothing is made in vain.
    conn.lookup()?;
    if rows.len() < 2 {
        return None;
    }
    let (old, new): (Vec<_>, Vec<_>) = rows.iter().map(|row| (row.old.bound(), row.new.bound())).unzip();
    let mut all = lists(conn, &old, T::KEY.iter().copied().chain(version))?;
    all.append(&mut lists(conn, &new, columns.iter())?);
    let update = Listed::<T, C::Backend> { lists: all, columns, version, entity: PhantomData };
    let kept = Kept::new::<T, C::Backend>(update, Purpose::Update, columns.bits(), 0, true);
    Some(kept.and_then(|update| update.execute(conn)))
}

fn in_batches<C, T>(
    conn: &mut C,
    rows: &[Change<'_, T>],
    columns: ColumnSet,
    version: Option<usize>,
    width: usize,
) -> QueryResult<usize>
where
    C: SessionConnection,
    T: Row,
    for<'a> T::Bound<'a>: Bind<C::Backend>,
{
    let kind = conn.kind();
    let mut found = 0;
    for rows in batches(kind, rows, width, MOST) {
        found += match send(conn, rows, columns, version) {
            // SQLite looks at each row alone, in an order of its own. In that of the keys they may get along; the statement has
            // left nothing behind.
            Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _))
                if kind == Kind::Sqlite && rows.len() > 1 && conn.truth() == Truth::Open =>
            {
                rows.chunks(1).map(|row| send(conn, row, columns, version)).sum::<QueryResult<usize>>()?
            }
            other => other?,
        };
    }
    Ok(found)
}

fn send<C, T>(conn: &mut C, rows: &[Change<'_, T>], columns: ColumnSet, version: Option<usize>) -> QueryResult<usize>
where
    C: SessionConnection,
    T: Row,
    for<'a> T::Bound<'a>: Bind<C::Backend>,
{
    let (kind, count) = (conn.kind(), rows.len());
    let rows = rows.iter().map(|row| (row.old.bound(), row.new.bound())).collect();
    let update = Update::<T> { kind, rows, columns, version };
    Kept::new::<T, C::Backend>(update, Purpose::Update, columns.bits(), count, comes_again(count))?.execute(conn)
}

/// `UPDATE t AS t SET c = v.n0 FROM unnest(?, ?) AS v(k0, n0) WHERE t.k = v.k0`
struct Listed<'r, T, DB: Backend> {
    lists: Lists<'r, DB>,
    columns: ColumnSet,
    version: Option<usize>,
    entity: PhantomData<T>,
}

impl<T, DB: Backend> QueryId for Listed<'_, T, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T: Row, DB: Backend> QueryFragment<DB> for Listed<'_, T, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let found_by = || T::KEY.iter().copied().chain(self.version);
        out.push_sql("UPDATE ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" AS t SET ");
        for (i, column) in self.columns.iter().enumerate() {
            out.push_sql(if i > 0 { ", " } else { "" });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(&format!(" = v.n{i}"));
        }
        out.push_sql(" FROM unnest(");
        for (i, list) in self.lists.iter().enumerate() {
            out.push_sql(if i > 0 { ", " } else { "" });
            list.bind(out.reborrow())?;
        }
        out.push_sql(") AS v(");
        for i in 0..found_by().count() {
            out.push_sql(&format!("{}k{i}", if i > 0 { ", " } else { "" }));
        }
        for i in 0..self.columns.len() {
            out.push_sql(&format!(", n{i}"));
        }
        out.push_sql(") WHERE ");
        for (i, column) in found_by().enumerate() {
            out.push_sql(if i > 0 { " AND t." } else { "t." });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(&format!(" = v.k{i}"));
        }
        Ok(())
    }
}

/// The UPDATE of one row, or of several at once.
struct Update<'a, T: Columns> {
    kind: Kind,
    /// Old and new.
    rows: SmallVec<[(T::Bound<'a>, T::Bound<'a>); 1]>,
    columns: ColumnSet,
    version: Option<usize>,
}

impl<T: Columns> QueryId for Update<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<'a, T, DB> QueryFragment<DB> for Update<'a, T>
where
    T: Row,
    T::Bound<'a>: Bind<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("UPDATE ");
        match (self.rows.as_slice(), self.kind) {
            ([row], _) => self.one(row, out),
            (_, Kind::Mysql) => self.joined(out),
            _ => self.by_values(out),
        }
    }
}

impl<'a, T: Row> Update<'a, T> {
    /// `t SET c = ? WHERE k = ?`
    fn one<'b, DB>(
        &'b self,
        (old, new): &'b (T::Bound<'a>, T::Bound<'a>),
        mut out: AstPass<'_, 'b, DB>,
    ) -> QueryResult<()>
    where
        T::Bound<'a>: Bind<DB>,
        DB: Backend,
    {
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" SET ");
        for (i, column) in self.columns.iter().enumerate() {
            out.push_sql(if i > 0 { ", " } else { "" });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(" = ");
            new.bind(column, out.reborrow())?;
        }
        out.push_sql(" WHERE ");
        push_found::<T, DB, _>(&mut out, old, self.version)
    }

    /// `t AS t SET c = v.column2 FROM (VALUES (?, ?), …) AS v WHERE t.k = v.column1`: names that SQLite and PostgreSQL give to
    /// the columns of VALUES.
    fn by_values<'b, DB>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        T::Bound<'a>: Bind<DB>,
        DB: Backend,
    {
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" AS t SET ");
        for (i, column) in self.columns.iter().enumerate() {
            out.push_sql(if i > 0 { ", " } else { "" });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(&format!(" = v.column{}", self.found_by().count() + i + 1));
        }
        out.push_sql(" FROM (VALUES ");
        for (i, row) in self.rows.iter().enumerate() {
            out.push_sql(if i > 0 { ", (" } else { "(" });
            self.values(row, &mut out, |_, _| {})?;
            out.push_sql(")");
        }
        out.push_sql(") AS v WHERE ");
        self.matching(&mut out, |i| format!("v.column{}", i + 1))
    }

    /// MySQL: `(SELECT k AS k0, c AS n0 FROM t WHERE 1 = 0 UNION ALL SELECT ?, ? …) AS v STRAIGHT_JOIN t ON t.k = v.k0
    /// SET t.c = v.n0`.
    ///
    /// The first SELECT, of no row, gives the columns of `v` the types and collations of the table's: binds alone would
    /// give the connection's collation, which can't be compared with another one's. Integers do without, and are faster. The
    /// join is straight so that rows are always found, and locked, by their key and never by reading the table.
    fn joined<'b, DB>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        T::Bound<'a>: Bind<DB>,
        DB: Backend,
    {
        out.push_sql("(");
        let columns = self.found_by().chain(self.columns.iter());
        let are_typed = columns.clone().all(<T as Columns>::is_integer);
        if !are_typed {
            for (i, column) in columns.enumerate() {
                out.push_sql(if i > 0 { ", " } else { "SELECT " });
                out.push_identifier(<T as Columns>::name(column))?;
                out.push_sql(&self.alias(i));
            }
            out.push_sql(" FROM ");
            push_table::<T, DB>(&mut out)?;
            out.push_sql(" WHERE 1 = 0");
        }
        for (n, row) in self.rows.iter().enumerate() {
            let names = are_typed && n == 0;
            out.push_sql(if names { "SELECT " } else { " UNION ALL SELECT " });
            self.values(row, &mut out, |out, i| {
                if names {
                    out.push_sql(&self.alias(i));
                }
            })?;
        }
        out.push_sql(") AS v STRAIGHT_JOIN ");
        push_table::<T, DB>(&mut out)?;
        out.push_sql(" AS t ON ");
        self.matching(&mut out, |i| format!("v.k{i}"))?;
        out.push_sql(" SET ");
        for (i, column) in self.columns.iter().enumerate() {
            out.push_sql(if i > 0 { ", t." } else { "t." });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(&format!(" = v.n{i}"));
        }
        Ok(())
    }

    /// The columns by which a row is found.
    fn found_by(&self) -> impl Iterator<Item = usize> + Clone {
        T::KEY.iter().copied().chain(self.version)
    }

    /// ` AS k0` for what a row is found by, ` AS n0` for what is written.
    fn alias(&self, i: usize) -> String {
        let found_by = self.found_by().count();
        if i < found_by { format!(" AS k{i}") } else { format!(" AS n{}", i - found_by) }
    }

    /// What a row is found by, then what is written; `after` each.
    fn values<'b, DB>(
        &'b self,
        (old, new): &'b (T::Bound<'a>, T::Bound<'a>),
        out: &mut AstPass<'_, 'b, DB>,
        after: impl Fn(&mut AstPass<'_, 'b, DB>, usize),
    ) -> QueryResult<()>
    where
        T::Bound<'a>: Bind<DB>,
        DB: Backend,
    {
        let found_by = self.found_by().map(|column| (old, column));
        let written = self.columns.iter().map(|column| (new, column));
        for (i, (row, column)) in found_by.chain(written).enumerate() {
            out.push_sql(if i > 0 { ", " } else { "" });
            row.bind(column, out.reborrow())?;
            after(out, i);
        }
        Ok(())
    }

    fn matching<DB: Backend>(&self, out: &mut AstPass<'_, '_, DB>, name: impl Fn(usize) -> String) -> QueryResult<()> {
        for (i, column) in self.found_by().enumerate() {
            out.push_sql(if i > 0 { " AND t." } else { "t." });
            out.push_identifier(<T as Columns>::name(column))?;
            out.push_sql(" = ");
            out.push_sql(&name(i));
        }
        Ok(())
    }
}
