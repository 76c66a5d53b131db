//! The table that everything is measured on, in a SQLite file of its own.

use diesel::prelude::*;
use diesel_session::{Bulk, Engine, Entity, Record, ScopedSession, Synchronous, autocommit};

pub(crate) type Fallible<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
pub(crate) type Conn = diesel::sqlite::SqliteConnection;
pub(crate) type Session = diesel_session::Session<Conn>;
pub(crate) type Registry = ScopedSession<Conn>;

/// Connections of the pool.
pub(crate) const POOL: usize = 8;

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
        amount -> BigInt,
    }
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = items)]
pub(crate) struct Item {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) amount: i64,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = items)]
#[entity(of = Item, generated(id))]
pub(crate) struct NewItem {
    name: String,
    amount: i64,
}

/// New rows. The sum of their amounts is [`sum_of_new`].
pub(crate) fn new_items(count: u32) -> impl Iterator<Item = NewItem> {
    (1..=count).map(|n| NewItem { name: format!("item number {n}"), amount: i64::from(n) })
}

pub(crate) fn sum_of_new(count: u32) -> i64 {
    let count = i64::from(count);
    count * (count + 1) / 2
}

/// A database; its file goes with it.
pub(crate) struct Store {
    registry: Registry,
    file: String,
    _folder: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new() -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("growth.db").display().to_string();
        let engine = Engine::<Conn>::builder(file.clone()).synchronous(Synchronous::Normal).max_size(POOL).build()?;
        let store = Self { registry: Registry::new(engine), file, _folder: folder };
        store.batch(
            "CREATE TABLE items (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, amount BIGINT NOT NULL)",
        )?;
        Ok(store)
    }

    /// With the rows of [`new_items`], whose keys count from 1.
    pub(crate) fn with_rows(count: u32) -> Fallible<Self> {
        let store = Self::new()?;
        store.registry.transaction(|session| session.bulk_insert(new_items(count), Bulk::new()))?;
        store.settle()?;
        Ok(store)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn engine(&self) -> &Engine<Conn> {
        self.registry.engine()
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    fn batch(&self, sql: &str) -> Fallible {
        Ok(Session::with_options(self.engine(), autocommit())?.batch_execute(sql)?)
    }

    /// Empties the write-ahead log, so that no measurement pays for the checkpoint of what came before.
    pub(crate) fn settle(&self) -> Fallible {
        self.batch("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Whether the table has so many rows, and amounts that were raised by `added` altogether. Through a connection of its own,
    /// which sees only what is stored.
    pub(crate) fn check(&self, rows: u32, added: i64) -> Fallible {
        let mut observer = Conn::establish(&self.file)?;
        let sums = diesel::dsl::sql::<(diesel::sql_types::BigInt, diesel::sql_types::BigInt)>(
            "SELECT count(*), coalesce(sum(amount), 0) FROM items",
        );
        let (count, sum): (i64, i64) = sums.get_result(&mut observer)?;
        let expected = (i64::from(rows), sum_of_new(rows) + added);
        if (count, sum) == expected {
            return Ok(());
        }
        Err(format!("{count} rows with a sum of {sum} are stored, where {} with {} should be", expected.0, expected.1)
            .into())
    }
}
