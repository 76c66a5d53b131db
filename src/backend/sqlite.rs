//! SQLite: BEGIN IMMEDIATE behind a gate, `query_only` by difference, databases in memory that keep their data.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Text as SqlText};
use diesel::sqlite::SqliteConnection;

use super::command::{Command, Numbered, RELEASE, ROLLBACK_TO, SAVEPOINT, Text, commands};
use super::{
    ConnectionSettings, GateKey, GateRule, JournalMode, Kind, Limits, Phase, PreparedUrl, SessionConnection,
    Synchronous, Truth, Verdict, Witness, marker,
};
use crate::error::{Error, ErrorClass, Result};
use crate::options::{BeginMode, TransactionOptions};
use crate::testing::{Fault, MadeDatabase};

commands! {
    Begin = "BEGIN";
    BeginImmediate = "BEGIN IMMEDIATE";
    BeginExclusive = "BEGIN EXCLUSIVE";
    Commit = "COMMIT";
    Rollback = "ROLLBACK";
    QueryOnlyOn = "PRAGMA query_only = 1";
    QueryOnlyOff = "PRAGMA query_only = 0";
    Mark = "SAVEPOINT ds_mark";
    TakeMark = "RELEASE SAVEPOINT ds_mark";
}

/// A name that no savepoint has: releasing it fails without effect, and Diesel then looks at SQLite's autocommit flag
/// (diesel 2.3.14, `SqliteConnection::batch_execute`).
const PROBE: &str = "RELEASE ds_none";

/// Named with its database: a temporary table of the same name is found first otherwise (SQLite docs, "Database Object Name
/// Resolution").
const MARKER_TABLE: &str = "main.diesel_session_commits";

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
struct Statement {
    #[diesel(sql_type = SqlText)]
    statement: String,
}

#[derive(QueryableByName)]
struct Violation {
    #[diesel(sql_type = SqlText)]
    name: String,
}

#[derive(QueryableByName)]
struct Journal {
    #[diesel(sql_type = SqlText)]
    journal_mode: String,
}

/// What is set on the connection; `None` when raw statements may have changed it.
#[derive(Debug, Default)]
pub struct SqliteState {
    query_only: Option<bool>,
    /// On a connection that somebody else made: what it was before.
    own_query_only: Option<bool>,
    /// The busy time-out that a transaction asked for and that is still set.
    busy_timeout: Option<Duration>,
    /// The one that the connection had before, which `setup` may have chosen.
    own_busy_timeout: Option<Duration>,
}

impl SessionConnection for SqliteConnection {
    type RowMode = DefaultLoadingMode;

    type State = SqliteState;

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
        *state = SqliteState { query_only: Some(false), ..SqliteState::default() };
        Ok(())
    }

    fn meet(&mut self, state: &mut Self::State) -> QueryResult<()> {
        if state.own_query_only.is_none() {
            let own = diesel::dsl::sql::<BigInt>("PRAGMA query_only").get_result::<i64>(self)? != 0;
            state.own_query_only = Some(own);
            state.query_only = Some(own);
        }
        Ok(())
    }

    fn put_back(&mut self, state: &mut Self::State) -> QueryResult<()> {
        self.limit(&ConnectionSettings::default(), Limits::default(), state)?;
        state.own_query_only.map_or(Ok(()), |own| set_query_only(self, own, state))
    }

    fn restore(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        *state = SqliteState::default();
        drop_temporary(self)?;
        apply(self, settings)
    }

    fn prepare_autocommit(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        self.limit(settings, limits, state)?;
        set_query_only(self, options.read_only, state)
    }

    fn check_settings(settings: &ConnectionSettings, _state: &Self::State) -> Result<()> {
        if settings.idle_in_transaction.is_some() {
            return Err(Error::Configuration(
                "SQLite has no time-out for idle transactions: drop idle_in_transaction_timeout()".into(),
            ));
        }
        Ok(())
    }

    fn check(options: &TransactionOptions) -> Result<()> {
        if options.statement_timeout.is_some() {
            return Err(Error::Configuration(
                "SQLite can't stop a running statement through Diesel: drop statement_timeout(), or bound the waits with timeout()".into(),
            ));
        }
        Ok(())
    }

    fn limit(&mut self, _settings: &ConnectionSettings, limits: Limits, state: &mut Self::State) -> QueryResult<()> {
        if state.busy_timeout.is_none() && limits == Limits::default() {
            return Ok(());
        }
        let own = match state.own_busy_timeout {
            Some(own) => own,
            None => busy_timeout(self)?,
        };
        state.own_busy_timeout = Some(own);
        let wanted = limits.lock(Some(own)).filter(|wanted| *wanted != own);
        if state.busy_timeout != wanted {
            self.batch_execute(&format!("PRAGMA busy_timeout = {}", wanted.unwrap_or(own).as_millis()))?;
            state.busy_timeout = wanted;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        self.limit(settings, limits, state)?;
        set_query_only(self, options.read_only || state.own_query_only == Some(true), state)?;
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

    fn check_constraints(&mut self, settings: &ConnectionSettings) -> QueryResult<()> {
        if !settings.foreign_keys {
            return Ok(());
        }
        let ask = "SELECT \"table\" AS name FROM pragma_foreign_key_check LIMIT 1";
        let Some(found) = diesel::sql_query(ask).get_result::<Violation>(self).optional()? else { return Ok(()) };
        let text = format!("FOREIGN KEY constraint failed (a row of the table {} refers to none)", found.name);
        Err(DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, Box::new(text)))
    }

    fn make_test_database(url: &str, name: &str, _template: Option<&str>) -> Result<MadeDatabase> {
        if url == ":memory:" {
            return Ok(MadeDatabase { url: format!("file:/{name}?vfs=memdb"), name: String::new() });
        }
        let parent = if url.is_empty() { std::env::temp_dir() } else { url.into() };
        if !parent.is_dir() {
            return Err(Error::Configuration(
                format!("a test database of SQLite is made in memory or in a folder, and {url:?} is neither: write `:memory:`, an existing folder, or nothing for the system's temporary one").into(),
            ));
        }
        let folder = parent.join(name);
        let failed = |error: String| Error::Connect { url: folder.display().to_string(), message: error };
        std::fs::create_dir(&folder).map_err(|error| failed(error.to_string()))?;
        match folder.join("test.db").to_str() {
            Some(url) => Ok(MadeDatabase { url: url.to_owned(), name: url.trim_end_matches("test.db").to_owned() }),
            None => Err(failed("the folder's name is no text".into())),
        }
    }

    fn drop_test_database(_url: &str, made: &MadeDatabase) -> Result<()> {
        if made.name.is_empty() {
            return Ok(());
        }
        std::fs::remove_dir_all(&made.name)
            .map_err(|error| Error::Connect { url: made.name.clone(), message: error.to_string() })
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

    fn mark(&mut self, _state: &Self::State) -> QueryResult<()> {
        Command::<Mark>::new().execute(self).map(drop)
    }

    fn truth_since_mark(&mut self, _state: &Self::State) -> Truth {
        // The mark is gone if its transaction is, also where raw text began another.
        if Command::<TakeMark>::new().execute(self).is_ok() {
            return Truth::Open;
        }
        match self.truth() {
            Truth::Open => Truth::Ended,
            other => other,
        }
    }

    fn make_witness_table(&mut self, _state: &Self::State) -> QueryResult<bool> {
        marker::make(self, MARKER_TABLE, "").map(|()| true)
    }

    fn prune_witnesses(&mut self, _state: &Self::State) -> QueryResult<()> {
        marker::prune(self, MARKER_TABLE)
    }

    fn witness(&mut self, _state: &Self::State) -> QueryResult<Option<Witness>> {
        marker::set(self, MARKER_TABLE, String::new()).map(Some)
    }

    fn verify(&mut self, witness: &Witness, _state: &Self::State, deadline: Instant) -> QueryResult<Verdict> {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.batch_execute(&format!("PRAGMA busy_timeout = {}", patience.as_millis()))?;
        // Committed, not rolled back: pages of the lost commit that reached the write-ahead log are overwritten, so that no
        // recovery finds them later.
        match marker::insert(self, &witness.table, &witness.key) {
            Ok(()) => Ok(Verdict::RolledBack),
            Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(Verdict::Committed),
            Err(error) => Err(error),
        }
    }

    fn raise(&mut self, fault: Fault) -> DieselError {
        let text = if fault == Fault::Unknown { Fault::UNKNOWN } else { "database is locked" };
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()))
    }

    fn classify(error: &DieselError, phase: Phase) -> ErrorClass {
        super::classify::sqlite(error, phase)
    }

    fn is_in_transaction(&mut self, _state: &Self::State) -> bool {
        // Refused inside a transaction; outside it takes no lock, and is rolled back with whatever else there is.
        self.batch_execute("BEGIN").is_err()
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

/// Drops what only this connection has: temporary tables, views and triggers, and the databases that were attached.
fn drop_temporary(conn: &mut SqliteConnection) -> QueryResult<()> {
    // Triggers first, which go with their tables; a virtual table before the tables that it keeps its data in.
    let ask = "SELECT 'DROP ' || type || ' IF EXISTS temp.\"' || replace(name, '\"', '\"\"') || '\"' AS statement FROM \
               (SELECT type, name, CASE type WHEN 'trigger' THEN 1 WHEN 'view' THEN 2 ELSE 3 END AS rank, \
               coalesce(sql, '') NOT LIKE 'CREATE VIRTUAL%' AS is_plain FROM sqlite_temp_master \
               WHERE type IN ('table', 'view', 'trigger') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
               UNION ALL SELECT 'database', name, 4, 0 FROM pragma_database_list WHERE name NOT IN ('main', 'temp')) \
               ORDER BY rank, is_plain";
    let left: Vec<Statement> = diesel::sql_query(ask).load(conn)?;
    if !left.is_empty() {
        conn.batch_execute("PRAGMA query_only = 0; PRAGMA foreign_keys = OFF")?;
    }
    for Statement { statement } in left {
        let statement = statement.replacen("DROP database IF EXISTS temp.", "DETACH DATABASE ", 1);
        conn.batch_execute(&statement)?;
    }
    Ok(())
}

fn busy_timeout(conn: &mut SqliteConnection) -> QueryResult<Duration> {
    let millis = diesel::dsl::sql::<BigInt>("PRAGMA busy_timeout").get_result::<i64>(conn)?;
    Ok(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

fn set_query_only(conn: &mut SqliteConnection, on: bool, state: &mut SqliteState) -> QueryResult<()> {
    if state.query_only == Some(on) {
        return Ok(());
    }
    state.query_only = None;
    if on {
        Command::<QueryOnlyOn>::new().execute(conn)?;
    } else {
        Command::<QueryOnlyOff>::new().execute(conn)?;
    }
    state.query_only = Some(on);
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
