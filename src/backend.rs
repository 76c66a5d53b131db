//! What differs between databases, and nothing else: how each begins, ends and is asked about its transaction.

use std::time::{Duration, Instant};

use diesel::backend::Backend;
use diesel::connection::{
    DefaultLoadingMode, LoadConnection, TransactionDepthChange, TransactionManager, TransactionManagerStatus,
};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::sql_types::{BigInt, Nullable, TypeMetadata};
use diesel::{Connection, QueryableByName};

use crate::entity::sql::Listing;
use crate::error::{Error, ErrorClass, Result};
use crate::options::TransactionOptions;
use crate::testing::MadeDatabase;

pub(crate) mod classify;
pub(crate) mod command;
#[cfg(any(feature = "sqlite", feature = "mysql"))]
mod marker;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

/// Which database a connection speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// SQLite, in this process.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    Mysql,
}

/// What the connection says about its transaction, asked without guessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Truth {
    /// A transaction is open and usable.
    Open,
    /// A transaction is open, and the server refuses everything but a rollback (PostgreSQL).
    Aborted,
    /// No transaction is open: it ended, by whatever statement.
    Ended,
    /// The connection can't be used any more.
    Broken,
}

/// What was being done when an error came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// A statement, BEGIN or a savepoint command: before COMMIT.
    Statement,
    /// COMMIT.
    Commit,
}

/// Which lock of the database's file a transaction needs inside this process before it may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GateRule {
    /// None: the server arbitrates.
    Never,
    /// Transactions that may write take turns (SQLite files).
    Writers,
    /// All transactions take turns (SQLite in memory).
    All,
}

/// SQLite's `journal_mode` (SQLite docs, "PRAGMA journal_mode").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalMode {
    /// Readers go on while somebody writes: the default for files.
    Wal,
    /// The rollback journal.
    Delete,
    /// The rollback journal, truncated instead of deleted.
    Truncate,
    /// The rollback journal, its header overwritten instead of deleted.
    Persist,
}

/// SQLite's `synchronous` (SQLite docs, "PRAGMA synchronous").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// Never waits for the disk: a power cut may corrupt the file.
    Off,
    /// WAL: a power cut may lose the newest commits, never the file.
    Normal,
    /// A commit that returned `Ok` survives a power cut: the default.
    Full,
    /// As `Full`, and the directory is synced too.
    Extra,
}

/// What an engine asks of each new connection.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    pub(crate) journal_mode: JournalMode,
    pub(crate) synchronous: Synchronous,
    pub(crate) busy_timeout: Duration,
    pub(crate) foreign_keys: bool,
    pub(crate) begin_mode: crate::options::BeginMode,
    pub(crate) isolation: Option<crate::options::IsolationLevel>,
    pub(crate) idle_in_transaction: Option<Duration>,
    pub(crate) verify_commits: bool,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            journal_mode: JournalMode::Wal,
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            foreign_keys: true,
            begin_mode: crate::options::BeginMode::Immediate,
            isolation: None,
            idle_in_transaction: None,
            verify_commits: false,
        }
    }
}

/// How long the database itself may take for the statements of a transaction; nothing where it may take for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Asked for: a statement as a whole. Not on SQLite, which can't be interrupted through Diesel.
    pub(crate) statement: Option<Duration>,
    /// Asked for: the wait for one lock.
    pub(crate) lock: Option<Duration>,
    /// What is left until the deadline. It shortens what was asked for and what the connection has by itself.
    pub(crate) left: Option<Duration>,
}

impl Limits {
    /// What a statement may take on a connection that by itself allows `own`.
    pub(crate) fn statement(&self, own: Option<Duration>) -> Option<Duration> {
        shorter(self.statement.or(own), self.left)
    }

    /// How long it may wait for a lock on a connection that by itself allows `own`.
    pub(crate) fn lock(&self, own: Option<Duration>) -> Option<Duration> {
        shorter(self.lock.or(own), self.left)
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What is noted before COMMIT, so that its outcome can be found out if the answer never comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// PostgreSQL's number of the transaction, elsewhere the key of its marker row.
    pub(crate) key: String,
    /// Which server it was, in which of its lives.
    pub(crate) server: String,
    /// The table of the marker row, where there is one.
    pub(crate) table: String,
}

/// What became of a commit whose answer never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It is stored.
    Committed,
    /// It is not, and never will be.
    RolledBack,
    /// Not to be found out.
    Unknown,
}

/// A Diesel connection that a session can run on. Implemented for `SqliteConnection`, `PgConnection` and
/// `MysqlConnection`; application code only names it in bounds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a connection that a session can run on",
    label = "a session needs `SqliteConnection`, `PgConnection` or `MysqlConnection`",
    note = "turn on the feature of your database: `sqlite`, `postgres` or `mysql`"
)]
pub trait SessionConnection:
    Connection<Backend: Default + Listing + Backend<QueryBuilder: Default>>
    + LoadConnection<DefaultLoadingMode>
    + LoadConnection<Self::RowMode>
    + Sized
    + 'static
{
    /// The loading mode in which rows are fetched as they are consumed, so that a result needs no memory of its size.
    type RowMode: 'static;

    /// What is known about the connection and kept beside it, so that settings are sent only when they change.
    type State: Default + Send;

    /// Which database this is.
    fn kind(&self) -> Kind;

    /// Where the types are looked up that a database numbers itself; none where it numbers none.
    #[doc(hidden)]
    fn lookup(&mut self) -> Option<&mut <Self::Backend as TypeMetadata>::MetadataLookup> {
        None
    }

    /// The URL to connect to for the URL that the user gave.
    ///
    /// # Errors
    /// [`Error::Configuration`](crate::Error::Configuration) for a URL that can't work.
    fn prepare_url(url: &str) -> Result<PreparedUrl>;

    /// Brings a new connection to the engine's settings.
    ///
    /// # Errors
    /// What the database answered.
    fn configure(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()>;

    /// Learns what is needed about a connection that somebody else made, before each transaction on it, and changes nothing.
    ///
    /// # Errors
    /// What the database answered; or a transaction is open that Diesel does not count.
    fn meet(&mut self, state: &mut Self::State) -> QueryResult<()> {
        let _ = state;
        Ok(())
    }

    /// Puts back, on such a connection, what was set for a transaction.
    ///
    /// # Errors
    /// What the database answered.
    fn put_back(&mut self, state: &mut Self::State) -> QueryResult<()> {
        let _ = state;
        Ok(())
    }

    /// Puts settings back that code with the bare connection may have changed.
    ///
    /// # Errors
    /// What the database answered.
    fn restore(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        let _ = (settings, state);
        Ok(())
    }

    /// Undoes what `setup` and `reset` may not choose.
    ///
    /// # Errors
    /// What the database answered.
    fn settle(&mut self, state: &Self::State) -> QueryResult<()> {
        let _ = state;
        Ok(())
    }

    /// Gets the connection ready for a session in autocommit mode.
    ///
    /// # Errors
    /// What the database answered.
    fn prepare_autocommit(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        let _ = (options, settings, limits, state);
        Ok(())
    }

    /// Refuses settings of an engine that this database can't keep.
    ///
    /// # Errors
    /// [`Error::Configuration`](crate::Error::Configuration).
    fn check_settings(settings: &ConnectionSettings, state: &Self::State) -> Result<()> {
        let _ = (settings, state);
        Ok(())
    }

    /// Refuses options that this database can't keep.
    ///
    /// # Errors
    /// [`Error::Configuration`](crate::Error::Configuration).
    fn check(options: &TransactionOptions) -> Result<()> {
        let _ = options;
        Ok(())
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// What the database answered; then no transaction is open.
    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()>;

    /// Changes the limits of the open transaction.
    ///
    /// # Errors
    /// What the database answered.
    fn limit(&mut self, settings: &ConnectionSettings, limits: Limits, state: &mut Self::State) -> QueryResult<()>;

    /// Commits. An `Ok` means that the database stored the transaction.
    ///
    /// `untroubled`: every statement went through the session, and none failed.
    ///
    /// # Errors
    /// What the database answered; the transaction may still be open.
    fn commit(&mut self, untroubled: bool, state: &Self::State) -> QueryResult<()>;

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// What the database answered; the connection is then not to be used again.
    fn rollback(&mut self, state: &Self::State) -> QueryResult<()>;

    /// Checks what COMMIT would check and RELEASE SAVEPOINT does not: deferred constraints.
    ///
    /// # Errors
    /// The violation.
    #[doc(hidden)]
    fn check_constraints(&mut self, settings: &ConnectionSettings) -> QueryResult<()> {
        let _ = settings;
        Ok(())
    }

    /// Whether a database can be made as a copy of another.
    #[doc(hidden)]
    fn copies_databases() -> bool {
        false
    }

    /// Makes a database for a test where `url` leads to, as a copy of `template` if there is one.
    #[doc(hidden)]
    fn make_test_database(url: &str, name: &str, template: Option<&str>) -> Result<MadeDatabase>;

    /// Drops it, whoever is still connected.
    #[doc(hidden)]
    fn drop_test_database(url: &str, made: &MadeDatabase) -> Result<()>;

    /// Says, as long as this process lives, that it uses this template; drops those of processes that are gone.
    #[doc(hidden)]
    fn guard_template(url: &str, name: &str) -> Result<()> {
        let _ = (url, name);
        Ok(())
    }

    /// Sets savepoint `n`.
    ///
    /// # Errors
    /// What the database answered.
    fn savepoint(&mut self, n: usize, state: &Self::State) -> QueryResult<()>;

    /// Releases savepoint `n`.
    ///
    /// # Errors
    /// What the database answered.
    fn release(&mut self, n: usize, state: &Self::State) -> QueryResult<()>;

    /// Rolls back to savepoint `n` and releases it, so that rolled-back savepoints don't pile up on the server.
    ///
    /// # Errors
    /// What the database answered.
    fn rollback_to(&mut self, n: usize, state: &Self::State) -> QueryResult<()>;

    /// The state of the transaction as the connection knows it.
    fn truth(&mut self) -> Truth;

    /// The state of the transaction after a statement of the session's failed with `error`.
    fn truth_after(&mut self, error: &DieselError, state: &Self::State) -> Truth {
        let _ = (error, state);
        self.truth()
    }

    /// Sets a mark in the transaction before raw use, where the connection does not see by itself that raw text ended the
    /// transaction or began another.
    ///
    /// # Errors
    /// What the database answered.
    fn mark(&mut self, state: &Self::State) -> QueryResult<()> {
        let _ = state;
        Ok(())
    }

    /// The state of the transaction after raw use since [`mark`](Self::mark).
    fn truth_since_mark(&mut self, state: &Self::State) -> Truth {
        let _ = state;
        self.truth()
    }

    /// Makes what [`witness`](Self::witness) needs in the database; once for an engine. Says whether marker rows would be
    /// part of their transactions: not in a table of an engine that has none.
    ///
    /// # Errors
    /// What the database answered, as when the table for the marker rows can't be made.
    fn make_witness_table(&mut self, state: &Self::State) -> QueryResult<bool> {
        let _ = state;
        Ok(true)
    }

    /// Forgets marker rows that nobody asks about any more.
    ///
    /// # Errors
    /// What the database answered.
    fn prune_witnesses(&mut self, state: &Self::State) -> QueryResult<()> {
        let _ = state;
        Ok(())
    }

    /// Finds out which server a new connection leads to, for [`witness`](Self::witness).
    ///
    /// # Errors
    /// What the database answered.
    fn know_server(&mut self, state: &mut Self::State) -> QueryResult<()> {
        let _ = state;
        Ok(())
    }

    /// Notes, in the open transaction, what its outcome can be found out by; `None` where the database knows that it wrote
    /// nothing.
    ///
    /// # Errors
    /// What the database answered.
    fn witness(&mut self, state: &Self::State) -> QueryResult<Option<Witness>>;

    /// Whether [`witness`](Self::witness) can tell a transaction that only loaded from one whose functions wrote.
    fn knows_what_wrote() -> bool {
        false
    }

    /// Finds out, on another connection, what became of a commit whose answer never came.
    ///
    /// # Errors
    /// What the database answered; then nothing is known.
    fn verify(&mut self, witness: &Witness, state: &Self::State, deadline: Instant) -> QueryResult<Verdict>;

    /// Answers as the database does when `fault` happens, and does to the transaction what the database would.
    #[doc(hidden)]
    fn raise(&mut self, fault: crate::testing::Fault) -> DieselError;

    /// What the caller can do about an error that came up in `phase`.
    fn classify(error: &DieselError, phase: Phase) -> ErrorClass;

    /// Whether DDL commits the transaction that it stands in.
    fn ddl_commits() -> bool {
        false
    }

    /// Whether a transaction is open, also one that was begun by text, which Diesel does not count.
    fn is_in_transaction(&mut self, state: &Self::State) -> bool {
        let _ = state;
        self.truth() == Truth::Open
    }

    /// Whether an error of a statement leaves PostgreSQL's transaction aborted (so that it can't be ignored).
    fn errors_abort_transactions() -> bool;

    /// One cheap round trip that fails if the server is gone.
    ///
    /// # Errors
    /// What the connection answered.
    fn ping(&mut self) -> QueryResult<()>;

    /// Asks the connection, once, whether it lives after all, where the error reads as if it had died: a trigger may say the
    /// same. One that is dead says so at once.
    fn lives_after(&mut self, error: &DieselError) -> bool {
        Self::is_remote() && reads_as_death::<Self>(error) && self.ping().is_ok()
    }

    /// Which transactions take turns inside this process, and under which name.
    ///
    /// # Errors
    /// What the database answered.
    fn gate(&mut self, url: &PreparedUrl) -> QueryResult<(GateRule, Option<GateKey>)>;

    /// Whether ending a transaction or closing the connection can wait for a network.
    fn is_remote() -> bool;

    /// Takes the migration lock (never around the migrations, always beside them), runs `body`, gives the lock back.
    ///
    /// # Errors
    /// [`Error::Migration`](crate::Error::Migration) if the lock can't be had in time, or what `body` answered.
    fn with_migration_lock<T>(
        &mut self,
        url: &PreparedUrl,
        patience: Duration,
        body: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T>;
}

/// Whether the server or the driver says, with these words or this kind, that the connection is gone.
fn reads_as_death<C: SessionConnection>(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(..)) && C::classify(error, Phase::Statement) == ErrorClass::Connection
}

/// What identifies a database file inside this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GateKey {
    /// A file, by device and inode, so that two paths to it are one.
    File(u64, u64),
    /// A name: memory databases, and files where the system has no inodes.
    Name(String),
}

/// A URL as the connection takes it.
#[derive(Debug, Clone)]
pub struct PreparedUrl {
    pub(crate) url: String,
    /// SQLite in memory: an anchor connection keeps the data.
    pub(crate) memory: bool,
}

impl PreparedUrl {
    pub(crate) fn plain(url: &str) -> Self {
        Self { url: url.to_owned(), memory: false }
    }
}

/// The transaction depth as Diesel counts it; `Err` when the connection is broken.
pub(crate) fn depth<C: Connection>(conn: &mut C) -> QueryResult<u32> {
    let status = <C::TransactionManager as TransactionManager<C>>::transaction_manager_status_mut(conn);
    Ok(status.transaction_depth()?.map_or(0, std::num::NonZeroU32::get))
}

/// Tells Diesel that a transaction was begun or ended by a statement of ours, so that `conn.transaction()` inside
/// `with_connection` nests instead of beginning again.
pub(crate) fn set_in_transaction<C: Connection>(conn: &mut C, open: bool) {
    let status = <C::TransactionManager as TransactionManager<C>>::transaction_manager_status_mut(conn);
    if let TransactionManagerStatus::Valid(status) = status {
        loop {
            let change = match (status.transaction_depth(), open) {
                (None, true) => TransactionDepthChange::IncreaseDepth,
                (Some(_), false) => TransactionDepthChange::DecreaseDepth,
                _ => break,
            };
            if status.change_transaction_depth(change).is_err() {
                break;
            }
        }
    }
}

/// Rolls back what raw code left open above `wanted` levels; says whether there was something.
pub(crate) fn unwind_to<C: Connection>(conn: &mut C, wanted: u32) -> QueryResult<bool> {
    let mut left_open = false;
    while depth(conn)? > wanted {
        left_open = true;
        C::TransactionManager::rollback_transaction(conn)?;
    }
    Ok(left_open)
}

/// One integer of a query made of text.
#[derive(Debug, QueryableByName)]
pub(crate) struct Number {
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) value: Option<i64>,
}

/// A connection to the database that others are made beside.
pub(crate) fn admin<C: Connection>(url: &str) -> Result<C> {
    C::establish(url).map_err(|error| admin_refused(url, &error))
}

pub(crate) fn admin_refused(url: &str, error: &dyn std::fmt::Display) -> Error {
    let shown = crate::engine::redact(url);
    Error::Connect { message: error.to_string().replace(url, &shown), url: shown }
}

/// The URL of another database on the same server.
pub(crate) fn with_database(url: &str, name: &str) -> Result<String> {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let after_scheme = base.find("://").map(|scheme| scheme + 3);
    let slash = after_scheme.and_then(|start| base[start..].find('/').map(|slash| start + slash));
    match (after_scheme, slash) {
        (Some(_), Some(slash)) => Ok(format!("{}/{name}{query}", &base[..slash])),
        (Some(_), None) => Ok(format!("{base}/{name}{query}")),
        (None, _) => Err(Error::Configuration(
            "test databases are made on the server of a URL: `postgres://…` or `mysql://…`, with any database on it"
                .into(),
        )),
    }
}
