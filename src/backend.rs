//! What differs between databases, and nothing else: how each begins, ends and is asked about its transaction.

use diesel::connection::{
    DefaultLoadingMode, LoadConnection, TransactionDepthChange, TransactionManager, TransactionManagerStatus,
};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::sql_types::{BigInt, Nullable};
use diesel::{Connection, QueryableByName};

use crate::error::Result;
use crate::options::TransactionOptions;

pub(crate) mod command;
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
    pub(crate) busy_timeout: std::time::Duration,
    pub(crate) foreign_keys: bool,
    pub(crate) begin_mode: crate::options::BeginMode,
    pub(crate) isolation: Option<crate::options::IsolationLevel>,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            journal_mode: JournalMode::Wal,
            synchronous: Synchronous::Full,
            busy_timeout: std::time::Duration::from_secs(5),
            foreign_keys: true,
            begin_mode: crate::options::BeginMode::Immediate,
            isolation: None,
        }
    }
}

/// A Diesel connection that a session can run on. Implemented for `SqliteConnection`, `PgConnection` and
/// `MysqlConnection`; application code only names it in bounds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a connection that a session can run on",
    label = "a session needs `SqliteConnection`, `PgConnection` or `MysqlConnection`",
    note = "turn on the feature of your database: `sqlite`, `postgres` or `mysql`"
)]
pub trait SessionConnection:
    Connection + LoadConnection<DefaultLoadingMode> + LoadConnection<Self::RowMode> + Sized + 'static
{
    /// The loading mode in which rows are fetched as they are consumed, so that a result needs no memory of its size.
    type RowMode: 'static;

    /// What is known about the connection and kept beside it, so that settings are sent only when they change.
    type State: Default + Send;

    /// Which database this is.
    fn kind(&self) -> Kind;

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

    /// Puts settings back that code with the bare connection may have changed.
    ///
    /// # Errors
    /// What the database answered.
    fn restore(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        let _ = (settings, state);
        Ok(())
    }

    /// Gets the connection ready for a session in autocommit mode.
    ///
    /// # Errors
    /// What the database answered.
    fn prepare_autocommit(&mut self, options: &TransactionOptions, state: &mut Self::State) -> QueryResult<()> {
        let _ = (options, state);
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
        state: &mut Self::State,
    ) -> QueryResult<()>;

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

    /// The state of the transaction, asked of the connection after raw use.
    fn truth(&mut self) -> Truth;

    /// The state of the transaction after a statement failed with `error`.
    fn truth_after(&mut self, error: &DieselError) -> Truth {
        let _ = error;
        self.truth()
    }

    /// Whether an error of a statement leaves PostgreSQL's transaction aborted (so that it can't be ignored).
    fn errors_abort_transactions() -> bool;

    /// One cheap round trip that fails if the server is gone.
    ///
    /// # Errors
    /// What the connection answered.
    fn ping(&mut self) -> QueryResult<()>;

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
        patience: std::time::Duration,
        body: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T>;
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
