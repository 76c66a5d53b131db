//! MySQL and MariaDB.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::r2d2::{CustomizeConnection, Error as PoolError};
use diesel_session::EngineBuilder;

use crate::server;
use crate::work::{Arena, Draft, Fallible, Families, Sizes, Way, Work};

#[diesel::declare_sql_function]
extern "SQL" {
    /// The first key that the last INSERT made.
    fn last_insert_id() -> diesel::sql_types::Unsigned<diesel::sql_types::BigInt>;
}

/// Inserts a row and gives the key that the database made.
macro_rules! insert_one {
    ($conn:expr, $table:ident, $row:expr) => {
        diesel::insert_into($table::table).values($row).execute($conn).and_then(|_| {
            let key: u64 = diesel::select(super::last_insert_id()).get_result($conn)?;
            Ok(i32::try_from(key).unwrap_or(0))
        })
    };
}

/// Inserts many rows and gives the keys that the database made, in their order. They follow each other, as a plain
/// INSERT of several rows makes them with `innodb_autoinc_lock_mode` 0 and 1; the benchmark is alone on its table anyway.
macro_rules! insert_all {
    ($conn:expr, $table:ident, $rows:expr) => {
        diesel::insert_into($table::table).values($rows).execute($conn).and_then(|count| {
            let first: u64 = diesel::select(super::last_insert_id()).get_result($conn)?;
            Ok((0..count).zip(i32::try_from(first).unwrap_or(0)..).map(|(_, key)| key))
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

type Conn = MysqlConnection;

/// Whether SeaORM can give the keys of many rows.
#[cfg(feature = "sea")]
const INSERT_GIVES_KEYS: bool = false;

const SCHEMA: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100) NOT NULL UNIQUE, email VARCHAR(100) NOT NULL,
        city VARCHAR(100) NOT NULL, born INTEGER NOT NULL, visits INTEGER NOT NULL) ENGINE = InnoDB;
    CREATE TABLE notes (id INTEGER PRIMARY KEY AUTO_INCREMENT, title VARCHAR(100) NOT NULL UNIQUE, body VARCHAR(100) NOT NULL,
        stars INTEGER NOT NULL) ENGINE = InnoDB;
    CREATE TABLE parents (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100) NOT NULL) ENGINE = InnoDB;
    CREATE TABLE children (id INTEGER PRIMARY KEY AUTO_INCREMENT, parent_id INTEGER NOT NULL, name VARCHAR(100) NOT NULL,
        FOREIGN KEY (parent_id) REFERENCES parents (id)) ENGINE = InnoDB";

const SETTLE_PEOPLE: &str = "DO 0";
const SETTLE_W3: &str = "TRUNCATE notes";
const SETTLE_W5: &str = "SET foreign_key_checks = 0; TRUNCATE children; TRUNCATE parents; SET foreign_key_checks = 1";

const READ: &str = "START TRANSACTION READ ONLY";

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
    AnsiTransactionManager::begin_transaction_sql(conn, READ)?;
    let value = f(conn)?;
    AnsiTransactionManager::commit_transaction(conn)?;
    Ok(value)
}

fn write<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> Fallible<T>) -> Fallible<T> {
    conn.transaction(f)
}

const SERVER: (&str, &str) = ("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/mysql");

struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    fn new() -> Fallible<Self> {
        let (admin, base, query) = server::admin(SERVER.0, SERVER.1)?;
        let name = server::database_name()?;
        Conn::establish(&admin)?.batch_execute(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"))?;
        let url = format!("{base}/{name}{query}");
        Ok(Self { admin, name, url })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let dropped =
            Conn::establish(&self.admin).map(|mut conn| conn.batch_execute(&format!("DROP DATABASE {}", self.name)));
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("the database {} is still there", self.name);
        }
    }
}

pub struct Mysql {
    observer: observer::Observer,
    database: Database,
}

impl Mysql {
    pub fn new(sizes: Sizes) -> Fallible<Self> {
        let database = Database::new()?;
        let observer = observer::Observer::new(Conn::establish(&database.url)?, SCHEMA, sizes.people)?;
        Ok(Self { observer, database })
    }
}

pub fn version() -> Fallible<String> {
    let mut conn = Conn::establish(&server::admin(SERVER.0, SERVER.1)?.0)?;
    let version: String =
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Text>("version()")).get_result(&mut conn)?;
    Ok(format!("{version}; raw is the `mysql` crate"))
}

impl Arena for Mysql {
    fn ways(&self) -> Fallible<Vec<Way>> {
        let url = &self.database.url;
        let mut ways = raw::ways(url)?;
        ways.extend(session::ways(url, Settings)?);
        ways.extend(tuned::ways(url, Settings)?);
        ways.extend(naive::ways(url, Settings)?);
        #[cfg(feature = "sea")]
        ways.extend(sea::ways(url, Settings)?);
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
