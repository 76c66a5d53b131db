//! SQLite: a WAL file in a folder of its own, one build of SQLite for all contenders.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2::{CustomizeConnection, Error as PoolError};
use diesel_session::{EngineBuilder, Synchronous};
use tempfile::TempDir;

use crate::work::{Arena, Draft, Fallible, Families, Sizes, Way, Work};

#[diesel::declare_sql_function]
extern "SQL" {
    /// The last key that the connection's last INSERT made.
    fn last_insert_rowid() -> diesel::sql_types::BigInt;
}

/// Inserts a row and gives the key that the database made.
macro_rules! insert_one {
    ($conn:expr, $table:ident, $row:expr) => {
        diesel::insert_into($table::table).values($row).returning($table::id).get_result::<i32>($conn)
    };
}

/// Inserts many rows and gives the keys that the database made, in their order. They follow each other on a table of which
/// nothing is deleted; RETURNING would cost several times the INSERT, which then writes a statement journal.
macro_rules! insert_all {
    ($conn:expr, $table:ident, $rows:expr) => {
        diesel::insert_into($table::table).values($rows).execute($conn).and_then(|count| {
            let last: i64 = diesel::select(super::last_insert_rowid()).get_result($conn)?;
            Ok((0..count)
                .zip(i32::try_from(last).unwrap_or(0) - i32::try_from(count).unwrap_or(0) + 1..)
                .map(|(_, key)| key))
        })
    };
}

#[path = "contenders/naive.rs"]
mod naive;
#[path = "contenders/observer.rs"]
mod observer;
mod raw;
#[cfg(feature = "sea")]
#[path = "contenders/sea.rs"]
mod sea;
#[path = "contenders/session.rs"]
mod session;
#[path = "contenders/tuned.rs"]
mod tuned;

type Conn = SqliteConnection;

/// Whether SeaORM can give the keys of many rows.
#[cfg(feature = "sea")]
const INSERT_GIVES_KEYS: bool = true;

const SCHEMA: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, email TEXT NOT NULL, city TEXT NOT NULL,
        born INTEGER NOT NULL, visits INTEGER NOT NULL);
    CREATE TABLE notes (id INTEGER PRIMARY KEY NOT NULL, title TEXT NOT NULL UNIQUE, body TEXT NOT NULL, stars INTEGER NOT NULL);
    CREATE TABLE parents (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL);
    CREATE TABLE children (id INTEGER PRIMARY KEY NOT NULL, parent_id INTEGER NOT NULL REFERENCES parents (id), name TEXT NOT NULL);
    CREATE INDEX children_of ON children (parent_id)";

// No turn pays for the checkpoint of another.
const SETTLE_PEOPLE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
const SETTLE_W3: &str = "DELETE FROM notes; PRAGMA wal_checkpoint(TRUNCATE)";
const SETTLE_W5: &str = "DELETE FROM children; DELETE FROM parents; PRAGMA wal_checkpoint(TRUNCATE)";

/// What every contender sets on its connections: the engine's defaults, but for `synchronous`.
#[derive(Debug, Clone, Copy)]
struct Settings {
    full: bool,
}

impl Settings {
    fn pragmas(self) -> String {
        let synchronous = if self.full { "FULL" } else { "NORMAL" };
        format!(
            "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = 1; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}"
        )
    }

    fn engine(self, builder: EngineBuilder<Conn>) -> EngineBuilder<Conn> {
        builder.synchronous(if self.full { Synchronous::Full } else { Synchronous::Normal })
    }
}

#[cfg(feature = "sea")]
impl Settings {
    fn sea(self, path: &str) -> sea_orm::ConnectOptions {
        use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};

        let mut options = sea_orm::ConnectOptions::new(format!("sqlite://{path}"));
        options.map_sqlx_sqlite_opts(move |options| {
            let synchronous = if self.full { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
            options.journal_mode(SqliteJournalMode::Wal).synchronous(synchronous)
        });
        options
    }
}

impl CustomizeConnection<Conn, PoolError> for Settings {
    fn on_acquire(&self, conn: &mut Conn) -> Result<(), PoolError> {
        conn.batch_execute(&self.pragmas()).map_err(PoolError::QueryError)
    }
}

fn read<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> Fallible<T>) -> Fallible<T> {
    conn.transaction(f)
}

fn write<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> Fallible<T>) -> Fallible<T> {
    conn.immediate_transaction(f)
}

pub struct Sqlite {
    settings: Settings,
    path: String,
    observer: observer::Observer,
    _folder: TempDir,
}

impl Sqlite {
    pub fn new(sizes: Sizes, full: bool) -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        let path =
            folder.path().join("compare.db").to_str().ok_or("the temporary folder's name is not text")?.to_owned();
        let settings = Settings { full };
        let mut conn = Conn::establish(&path)?;
        conn.batch_execute(&settings.pragmas())?;
        let observer = observer::Observer::new(conn, SCHEMA, sizes.people)?;
        Ok(Self { settings, path, observer, _folder: folder })
    }
}

pub fn version() -> Fallible<String> {
    Ok(format!("SQLite {} for all", rusqlite::version()))
}

impl Arena for Sqlite {
    fn ways(&self) -> Fallible<Vec<Way>> {
        let mut ways = raw::ways(&self.path, self.settings)?;
        ways.extend(session::ways(&self.path, self.settings)?);
        ways.extend(tuned::ways(&self.path, self.settings)?);
        ways.extend(naive::ways(&self.path, self.settings)?);
        #[cfg(feature = "sea")]
        ways.extend(sea::ways(&self.path, self.settings)?);
        Ok(ways)
    }

    fn settle(&mut self, work: Work) -> Fallible {
        self.observer.settle(work)
    }

    fn visits(&mut self) -> Fallible<Vec<i32>> {
        self.observer.visits()
    }

    fn notes(&mut self) -> Fallible<Vec<(i32, Draft)>> {
        self.observer.notes()
    }

    fn families(&mut self) -> Fallible<Families> {
        self.observer.families()
    }
}
