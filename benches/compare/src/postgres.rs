//! PostgreSQL: libpq for the requests, the `postgres` crate for many rows.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2::{CustomizeConnection, Error as PoolError};
use diesel_session::EngineBuilder;

use crate::server;
use crate::work::{Arena, Draft, Fallible, Families, Sizes, Way, Work};

/// Inserts a row and gives the key that the database made.
macro_rules! insert_one {
    ($conn:expr, $table:ident, $row:expr) => {
        diesel::insert_into($table::table).values($row).returning($table::id).get_result::<i32>($conn)
    };
}

/// Inserts many rows and gives the keys that the database made, in their order.
macro_rules! insert_all {
    ($conn:expr, $table:ident, $rows:expr) => {
        diesel::insert_into($table::table).values($rows).returning($table::id).get_results::<i32>($conn)
    };
}

mod libpq;
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

type Conn = PgConnection;

/// Whether SeaORM can give the keys of many rows.
#[cfg(feature = "sea")]
const INSERT_GIVES_KEYS: bool = true;

// No vacuum begins by itself in the middle of a turn.
const SCHEMA: &str = "
    CREATE TABLE people (id SERIAL PRIMARY KEY, name TEXT NOT NULL UNIQUE, email TEXT NOT NULL, city TEXT NOT NULL,
        born INTEGER NOT NULL, visits INTEGER NOT NULL)
        WITH (autovacuum_enabled = false);
    CREATE TABLE notes (id SERIAL PRIMARY KEY, title TEXT NOT NULL UNIQUE, body TEXT NOT NULL, stars INTEGER NOT NULL)
        WITH (autovacuum_enabled = false);
    CREATE TABLE parents (id SERIAL PRIMARY KEY, name TEXT NOT NULL) WITH (autovacuum_enabled = false);
    CREATE TABLE children (id SERIAL PRIMARY KEY, parent_id INTEGER NOT NULL REFERENCES parents (id), name TEXT NOT NULL)
        WITH (autovacuum_enabled = false);
    CREATE INDEX children_of ON children (parent_id)";

const SETTLE_PEOPLE: &str = "VACUUM ANALYZE people";
const SETTLE_W3: &str = "TRUNCATE notes";
const SETTLE_W5: &str = "TRUNCATE children, parents";

const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

#[derive(Debug, Clone, Copy)]
struct Settings;

impl Settings {
    fn engine(self, builder: EngineBuilder<Conn>) -> EngineBuilder<Conn> {
        builder
    }

    #[cfg(feature = "sea")]
    fn sea(self, url: &str) -> sea_orm::ConnectOptions {
        sea_orm::ConnectOptions::new(url)
    }
}

impl CustomizeConnection<Conn, PoolError> for Settings {}

fn read<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> Fallible<T>) -> Fallible<T> {
    conn.build_transaction().repeatable_read().read_only().run(f)
}

fn write<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> Fallible<T>) -> Fallible<T> {
    conn.transaction(f)
}

const SERVER: (&str, &str) = ("TEST_POSTGRES_URL", "postgres://root@127.0.0.1:5432/postgres");

struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    fn new() -> Fallible<Self> {
        let (admin, base, query) = server::admin(SERVER.0, SERVER.1)?;
        let name = server::database_name()?;
        Conn::establish(&admin)?.batch_execute(&format!("CREATE DATABASE {name}"))?;
        // The crates that are compared here come without TLS, so nobody has it.
        let joint = if query.is_empty() { "?" } else { "&" };
        let plain = if query.contains("sslmode=") { String::new() } else { format!("{joint}sslmode=disable") };
        let url = format!("{base}/{name}{query}{plain}");
        Ok(Self { admin, name, url })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let dropped = Conn::establish(&self.admin)
            .map(|mut conn| conn.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)));
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("the database {} is still there", self.name);
        }
    }
}

pub struct Postgres {
    observer: observer::Observer,
    database: Database,
}

impl Postgres {
    pub fn new(sizes: Sizes) -> Fallible<Self> {
        let database = Database::new()?;
        let observer = observer::Observer::new(Conn::establish(&database.url)?, SCHEMA, sizes.people)?;
        Ok(Self { observer, database })
    }
}

pub fn version() -> Fallible<String> {
    let mut conn = Conn::establish(&server::admin(SERVER.0, SERVER.1)?.0)?;
    let version: String =
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Text>("current_setting('server_version')"))
            .get_result(&mut conn)?;
    Ok(format!("PostgreSQL {version}; raw is libpq in W1 and W2, the `postgres` crate in W3 to W5"))
}

impl Arena for Postgres {
    fn ways(&self) -> Fallible<Vec<Way>> {
        let url = &self.database.url;
        let mut ways = libpq::ways(url)?;
        ways.extend(session::ways(url, Settings)?);
        ways.extend(raw::ways(url)?);
        ways.extend(tuned::ways(url, Settings)?);
        ways.extend(naive::ways(url, Settings)?);
        #[cfg(feature = "sea")]
        ways.extend(sea::ways(url, Settings)?);
        // The one that all are compared with comes first.
        ways.sort_by_key(|way| way.name != "raw");
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
