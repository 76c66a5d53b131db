//! SQLite: BEGIN IMMEDIATE behind a gate, `query_only` by difference, databases in memory that keep their data.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::Text as SqlText;
use diesel::sqlite::SqliteConnection;

use super::command::{Command, Numbered, RELEASE, ROLLBACK_TO, SAVEPOINT, Text, commands};
use super::{
    ConnectionSettings, GateKey, GateRule, JournalMode, Kind, PreparedUrl, SessionConnection, Synchronous, Truth,
};
use crate::error::{Error, Result};
use crate::options::{BeginMode, TransactionOptions};

commands! {
    Begin = "BEGIN";
    BeginImmediate = "BEGIN IMMEDIATE";
    BeginExclusive = "BEGIN EXCLUSIVE";
    Commit = "COMMIT";
    Rollback = "ROLLBACK";
    QueryOnlyOn = "PRAGMA query_only = 1";
    QueryOnlyOff = "PRAGMA query_only = 0";
}

/// A name that no savepoint has: releasing it fails without effect, and Diesel then looks at SQLite's autocommit flag
/// (diesel 2.3.14, `SqliteConnection::batch_execute`).
const PROBE: &str = "RELEASE ds_none";

/// How long the switch to WAL may wait for other processes that open the same new file.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(30);

static MEMORY_DATABASES: AtomicU64 = AtomicU64::new(0);
static MEMORY_MIGRATIONS: Mutex<()> = Mutex::new(());

#[derive(QueryableByName)]
struct DatabaseFile {
    #[diesel(sql_type = SqlText)]
    file: String,
}

#[derive(QueryableByName)]
struct Journal {
    #[diesel(sql_type = SqlText)]
    journal_mode: String,
}

/// Whether `query_only` is on; `None` when raw statements may have changed it.
#[derive(Debug, Default)]
pub struct QueryOnly(Option<bool>);

impl SessionConnection for SqliteConnection {
    type RowMode = DefaultLoadingMode;

    type State = QueryOnly;

    fn kind(&self) -> Kind {
        Kind::Sqlite
    }

    fn prepare_url(url: &str) -> Result<PreparedUrl> {
        let is_private_memory =
            url.is_empty() || url == ":memory:" || url.starts_with("file::memory:") || url == "sqlite://:memory:";
        if url.contains("cache=shared") {
            return Err(Error::Configuration(
                "`cache=shared` answers SQLITE_LOCKED at once, whatever the busy time-out: use `:memory:`, which every session of the engine shares here, or a file".into(),
            ));
        }
        if url == "sqlite::memory:" {
            return Err(Error::Configuration(
                "`sqlite::memory:` would create a file of that name: write `:memory:`".into(),
            ));
        }
        if is_private_memory {
            let n = MEMORY_DATABASES.fetch_add(1, Ordering::Relaxed);
            return Ok(PreparedUrl { url: format!("file:/diesel-session-{n}?vfs=memdb"), memory: true });
        }
        Ok(PreparedUrl { url: url.to_owned(), memory: url.contains("vfs=memdb") || url.contains("mode=memory") })
    }

    fn configure(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        // The busy time-out comes first: every later statement may meet another process.
        apply(self, settings)?;
        let file = file_name(self)?;
        if !file.is_empty() {
            switch_journal(self, &file, journal_name(settings.journal_mode))?;
        }
        state.0 = Some(false);
        Ok(())
    }

    fn restore(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        state.0 = None;
        apply(self, settings)
    }

    fn prepare_autocommit(&mut self, options: &TransactionOptions, state: &mut Self::State) -> QueryResult<()> {
        set_query_only(self, options.read_only, state)
    }

    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        set_query_only(self, options.read_only, state)?;
        let mode = match options.begin_mode {
            Some(mode) => mode,
            None if options.read_only => BeginMode::Deferred,
            None => settings.begin_mode,
        };
        match mode {
            BeginMode::Deferred => Command::<Begin>::new().execute(self)?,
            BeginMode::Immediate => Command::<BeginImmediate>::new().execute(self)?,
            BeginMode::Exclusive => Command::<BeginExclusive>::new().execute(self)?,
        };
        super::set_in_transaction(self, true);
        Ok(())
    }

    fn commit(&mut self, _untroubled: bool, _state: &Self::State) -> QueryResult<()> {
        Command::<Commit>::new().execute(self)?;
        super::set_in_transaction(self, false);
        Ok(())
    }

    fn rollback(&mut self, _state: &Self::State) -> QueryResult<()> {
        let result = Command::<Rollback>::new().execute(self);
        if result.is_err() && self.truth() != Truth::Ended {
            return result.map(drop);
        }
        super::set_in_transaction(self, false);
        Ok(())
    }

    fn savepoint(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        Numbered { before: SAVEPOINT, n }.execute(self).map(drop)
    }

    fn release(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        Numbered { before: RELEASE, n }.execute(self).map(drop)
    }

    fn rollback_to(&mut self, n: usize, state: &Self::State) -> QueryResult<()> {
        Numbered { before: ROLLBACK_TO, n }.execute(self)?;
        self.release(n, state)
    }

    fn truth(&mut self) -> Truth {
        // The probe always fails; afterwards Diesel's depth follows SQLite's autocommit flag.
        let _ = self.batch_execute(PROBE);
        match super::depth(self) {
            Err(_) => Truth::Broken,
            Ok(0) => Truth::Ended,
            Ok(_) => Truth::Open,
        }
    }

    fn errors_abort_transactions() -> bool {
        false
    }

    fn ping(&mut self) -> QueryResult<()> {
        Ok(())
    }

    fn gate(&mut self, url: &PreparedUrl) -> QueryResult<(GateRule, Option<GateKey>)> {
        if url.memory {
            return Ok((GateRule::All, Some(GateKey::Name(url.url.clone()))));
        }
        let file = file_name(self)?;
        if file.is_empty() {
            return Ok((GateRule::All, None));
        }
        Ok((GateRule::Writers, Some(file_key(&file))))
    }

    fn is_remote() -> bool {
        false
    }

    fn with_migration_lock<T>(
        &mut self,
        url: &PreparedUrl,
        patience: Duration,
        body: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let refused =
            |error: diesel::result::Error| Error::Migration(format!("the migration lock could not be taken: {error}"));
        let file = if url.memory { String::new() } else { file_name(self).map_err(refused)? };
        if file.is_empty() {
            let _turn = MEMORY_MIGRATIONS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            return body(self);
        }
        let lock = side_lock(&file, patience).map_err(refused)?;
        let result = body(self);
        // Closing it gives the lock back.
        drop(lock);
        result
    }
}

fn apply(conn: &mut SqliteConnection, settings: &ConnectionSettings) -> QueryResult<()> {
    conn.batch_execute(&format!("PRAGMA busy_timeout = {}", settings.busy_timeout.as_millis()))?;
    conn.batch_execute(&format!("PRAGMA foreign_keys = {}", u8::from(settings.foreign_keys)))?;
    let synchronous = match settings.synchronous {
        Synchronous::Off => "OFF",
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
        Synchronous::Extra => "EXTRA",
    };
    conn.batch_execute(&format!("PRAGMA synchronous = {synchronous}"))
}

fn set_query_only(conn: &mut SqliteConnection, on: bool, state: &mut QueryOnly) -> QueryResult<()> {
    if state.0 == Some(on) {
        return Ok(());
    }
    state.0 = None;
    if on {
        Command::<QueryOnlyOn>::new().execute(conn)?;
    } else {
        Command::<QueryOnlyOff>::new().execute(conn)?;
    }
    state.0 = Some(on);
    Ok(())
}

fn journal_name(mode: JournalMode) -> &'static str {
    match mode {
        JournalMode::Wal => "wal",
        JournalMode::Delete => "delete",
        JournalMode::Truncate => "truncate",
        JournalMode::Persist => "persist",
    }
}

fn journal(conn: &mut SqliteConnection) -> QueryResult<String> {
    diesel::sql_query("PRAGMA journal_mode").get_result::<Journal>(conn).map(|row| row.journal_mode)
}

/// The file of the main database; empty in memory.
fn file_name(conn: &mut SqliteConnection) -> QueryResult<String> {
    diesel::sql_query("SELECT coalesce(file, '') AS file FROM pragma_database_list WHERE name = 'main'")
        .get_result::<DatabaseFile>(conn)
        .map(|row| row.file)
}

/// Sets the journal mode, which SQLite keeps in the file. Many processes that switch a new file at once fail at once,
/// whatever the busy time-out, so they take turns. A file that can't be written keeps its mode.
fn switch_journal(conn: &mut SqliteConnection, file: &str, wanted: &str) -> QueryResult<()> {
    if journal(conn)? == wanted {
        return Ok(());
    }
    let switched = side_lock(file, JOURNAL_PATIENCE).and_then(|mut lock| {
        if journal(conn)? != wanted {
            conn.batch_execute(&format!("PRAGMA journal_mode = {wanted}"))?;
        }
        lock.batch_execute("ROLLBACK")
    });
    match switched {
        Err(error) if is_read_only_text(&error.to_string()) => {
            tracing::warn!(wanted, "the database file can't be written, its journal mode stays");
            Ok(())
        }
        other => other,
    }
}

fn is_read_only_text(message: &str) -> bool {
    ["readonly database", "nable to open", "Read-only file system"].iter().any(|text| message.contains(text))
}

fn side_lock(file: &str, patience: Duration) -> QueryResult<SqliteConnection> {
    let open = |error: diesel::ConnectionError| {
        diesel::result::Error::DatabaseError(
            diesel::result::DatabaseErrorKind::Unknown,
            Box::new(format!("{file}-migrate.lock: {error}")),
        )
    };
    let mut lock = SqliteConnection::establish(&format!("{file}-migrate.lock")).map_err(open)?;
    lock.batch_execute(&format!("PRAGMA busy_timeout = {}", patience.as_millis()))?;
    lock.batch_execute("BEGIN EXCLUSIVE")?;
    Ok(lock)
}

#[cfg(unix)]
fn file_key(file: &str) -> GateKey {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(file) {
        Ok(metadata) => GateKey::File(metadata.dev(), metadata.ino()),
        Err(_) => GateKey::Name(file.to_owned()),
    }
}

#[cfg(not(unix))]
fn file_key(file: &str) -> GateKey {
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.into());
    GateKey::Name(path.to_string_lossy().into_owned())
}
