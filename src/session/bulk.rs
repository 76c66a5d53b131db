//! Many rows past the identity map, in bounded memory.

use std::fmt;
use std::panic::Location;

use super::Session;
use super::events::StatementKind;
use crate::backend::SessionConnection;
use crate::entity::{Change, ColumnSet, Entity, Insert, Persist, Record};
use crate::error::{Error, Result};
use crate::place::Place;

/// So many rows are taken from the input and sent before the next ones are: full statements, which are kept prepared.
const CHUNK: usize = 1_024;

/// How far a bulk call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Rows of the input that were sent.
    pub rows: usize,
    /// Rows that the database wrote.
    pub written: usize,
}

/// How a bulk call goes about its work.
#[must_use]
pub struct Bulk<'a> {
    chunk: usize,
    columns: Option<&'a [&'a str]>,
    progress: Option<Box<dyn FnMut(Progress) + 'a>>,
}

impl Default for Bulk<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Bulk<'a> {
    /// 1 024 rows at a time, every column, no progress.
    pub fn new() -> Self {
        Self { chunk: CHUNK, columns: None, progress: None }
    }

    /// How many rows are held and sent at a time; at least one.
    pub fn chunk_size(mut self, rows: usize) -> Self {
        self.chunk = rows.max(1);
        self
    }

    /// For updates: writes only these columns, by their names in SQL.
    pub fn columns(mut self, names: &'a [&'a str]) -> Self {
        self.columns = Some(names);
        self
    }

    /// Calls `f` after each chunk. It can't use the session's transaction to any good: it is in the middle of the work.
    pub fn progress(mut self, f: impl FnMut(Progress) + 'a) -> Self {
        self.progress = Some(Box::new(f));
        self
    }

    fn columns_of<T: Entity>(&self, count: usize) -> Result<ColumnSet> {
        let own = T::key_columns();
        let Some(names) = self.columns else { return Ok(ColumnSet::first(count).without(own)) };
        let number = |name: &&str| {
            (0..count).find(|column| T::column_name(*column) == *name).filter(|column| !own.has(*column)).ok_or_else(|| {
                Error::Configuration(
                    format!("table {} has no column `{name}` that could be updated: name columns as in SQL, none of the key", T::TABLE)
                        .into(),
                )
            })
        };
        if names.is_empty() {
            return Err(Error::Configuration("a bulk update of no column: name at least one".into()));
        }
        names.iter().map(number).collect()
    }
}

impl fmt::Debug for Bulk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").field("chunk", &self.chunk).field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl<C: SessionConnection> Session<C> {
    /// Inserts many rows without tracking them: as many in a statement as do it good, one chunk in memory at a time. Hooks of the
    /// records don't run. The call is all or nothing: it runs in a savepoint, and the transaction goes on after an error. Gives how
    /// many rows were inserted.
    ///
    /// # Errors
    /// [`Error::Bulk`] with the number of the row that the database refused; else as [`execute`](Session::execute).
    #[track_caller]
    pub fn bulk_insert<N: Record>(&self, records: impl IntoIterator<Item = N>, bulk: Bulk<'_>) -> Result<usize>
    where
        C: Insert<N>,
    {
        self.in_chunks(records, bulk, StatementKind::Insert, Location::caller(), |conn, rows| {
            let rows: Vec<&N> = rows.iter().collect();
            conn.insert_only(&rows)
        })
    }

    /// Writes many rows by their keys without tracking them: every column, or [those named](Bulk::columns). Of an entity with a
    /// version each row must hold the version that the database has, which is raised. All or nothing, as
    /// [`bulk_insert`](Session::bulk_insert). Entities of the identity map are stale afterwards. Gives how many rows were
    /// written.
    ///
    /// # Errors
    /// [`Error::Bulk`] with the number of a row that is not there, or not in its version ([`Error::is_stale_data`]), or that the
    /// database refused; else as [`execute`](Session::execute).
    #[track_caller]
    pub fn bulk_update<T: Entity>(&self, rows: impl IntoIterator<Item = T>, bulk: Bulk<'_>) -> Result<usize>
    where
        C: Persist<T>,
    {
        let mut columns = bulk.columns_of::<T>(T::column_count())?;
        if let Some(version) = T::version_column() {
            columns = columns.with(version, true);
        }
        self.in_chunks(rows, bulk, StatementKind::Update, Location::caller(), |conn, rows| {
            let next = |row: &T| {
                let mut next = row.clone();
                next.set_version(row.version().unwrap_or_default().wrapping_add(1));
                next
            };
            let raised: Vec<T> =
                if T::version_column().is_some() { rows.iter().map(next).collect() } else { Vec::new() };
            let changes: Vec<_> =
                rows.iter().enumerate().map(|(n, old)| Change { old, new: raised.get(n).unwrap_or(old) }).collect();
            let matched = conn.update(&changes, columns)?;
            if matched == rows.len() { Ok(matched) } else { Err(diesel::result::Error::NotFound) }
        })
    }

    /// Deletes many rows by their keys, past the identity map, whatever their versions. Keys without a row are no error. All or
    /// nothing, as [`bulk_insert`](Session::bulk_insert). Entities of the identity map are stale afterwards. Gives how many rows
    /// were deleted.
    ///
    /// # Errors
    /// [`Error::Bulk`] with the number of the row that the database refused to delete; else as [`execute`](Session::execute).
    #[track_caller]
    pub fn bulk_delete<T: Entity>(&self, keys: impl IntoIterator<Item = T::Key>, bulk: Bulk<'_>) -> Result<usize>
    where
        C: Persist<T>,
    {
        self.in_chunks(keys, bulk, StatementKind::Delete, Location::caller(), C::delete_by_keys)
    }

    fn in_chunks<R>(
        &self,
        rows: impl IntoIterator<Item = R>,
        mut bulk: Bulk<'_>,
        kind: StatementKind,
        place: Place,
        send: impl Fn(&mut C, &[R]) -> diesel::QueryResult<usize>,
    ) -> Result<usize> {
        let mut rows = rows.into_iter();
        let mut chunk = Vec::with_capacity(bulk.chunk.min(CHUNK));
        let mut done = Progress { rows: 0, written: 0 };
        let written = self.nested_at(place, |session| {
            loop {
                chunk.clear();
                chunk.extend(rows.by_ref().take(bulk.chunk));
                if chunk.is_empty() {
                    return Ok(done.written);
                }
                done.written += session.send_chunk(&chunk, done.rows, kind, place, &send)?;
                done.rows += chunk.len();
                if let Some(progress) = &mut bulk.progress {
                    progress(done);
                }
            }
        });
        // What was sent to find the row hides the error.
        self.core().noted(written)
    }

    /// Sends a chunk. If it is refused, finds out which row it was: the one without which those before it go through.
    fn send_chunk<R>(
        &self,
        rows: &[R],
        before: usize,
        kind: StatementKind,
        place: Place,
        send: &impl Fn(&mut C, &[R]) -> diesel::QueryResult<usize>,
    ) -> Result<usize> {
        let attempt =
            |rows: &[R]| self.nested_at(place, |session| session.core().run(|| kind, place, |conn| send(conn, rows)));
        let error: Error = match attempt(rows) {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        if !self.is_active() || error.class() != crate::ErrorClass::Statement && !error.is_not_found() {
            return Err(error);
        }
        // The shortest beginning that is refused ends with the row.
        let (mut good, mut bad) = (0, rows.len());
        let mut source = error;
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            // What goes through is undone too: the next beginning has it in it.
            let tried = self.nested_at(place, |session| {
                session.core().run(|| kind, place, |conn| send(conn, &rows[..middle]))?;
                Err::<(), _>(Tried::Good)
            });
            match tried {
                Err(Tried::Bad(error)) => {
                    source = *error;
                    bad = middle;
                }
                _ => good = middle,
            }
        }
        Err(Error::Bulk { row: before + bad - 1, source: std::sync::Arc::new(source) })
    }
}

/// How the beginning of a chunk went.
enum Tried {
    Good,
    Bad(Box<Error>),
}

impl From<Error> for Tried {
    fn from(error: Error) -> Self {
        Self::Bad(Box::new(error))
    }
}
