//! Entities and records with what the derives would make of them, written out.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel_session::entity::sql::{Bind, BindKey, Columns, NewRow, Row};
use diesel_session::{ColumnSet, Entity, Record, TableId};

use super::db::{Conn, Database};

pub type DB = <Conn as Connection>::Backend;

diesel::table! {
    users (id) {
        id -> Integer,
        nickname -> Text,
        email -> Nullable<Text>,
        version -> Integer,
    }
}

diesel::table! {
    countries (code) {
        code -> Text,
        name -> Text,
        population -> BigInt,
    }
}

diesel::table! {
    memberships (user_id, group_id) {
        user_id -> Integer,
        group_id -> Integer,
        role -> Text,
    }
}

diesel::table! {
    readings (id) {
        id -> BigInt,
        user_id -> Nullable<Integer>,
        at -> Nullable<Timestamp>,
        good -> Bool,
        value -> Nullable<Double>,
        note -> Nullable<Text>,
    }
}

const SQLITE: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, nickname TEXT NOT NULL, email TEXT, version INTEGER NOT NULL DEFAULT 1);
    CREATE TABLE countries (code TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, population BIGINT NOT NULL DEFAULT 7);
    CREATE TABLE memberships (user_id INTEGER NOT NULL, group_id INTEGER NOT NULL, role TEXT NOT NULL, PRIMARY KEY (user_id, group_id));
    CREATE TABLE readings (id INTEGER PRIMARY KEY NOT NULL, user_id INTEGER, at TIMESTAMP, good BOOLEAN NOT NULL, value DOUBLE, note TEXT)";

const POSTGRES: &str = "
    CREATE TABLE users (id SERIAL PRIMARY KEY, nickname VARCHAR(190) NOT NULL, email TEXT, version INTEGER NOT NULL DEFAULT 1);
    CREATE TABLE countries (code VARCHAR(20) PRIMARY KEY, name TEXT NOT NULL, population BIGINT NOT NULL DEFAULT 7);
    CREATE TABLE memberships (user_id INTEGER NOT NULL, group_id INTEGER NOT NULL, role TEXT NOT NULL, PRIMARY KEY (user_id, group_id));
    CREATE TABLE readings (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id INTEGER, at TIMESTAMP, good BOOLEAN NOT NULL, value DOUBLE PRECISION, note TEXT)";

/// The key of `countries` has another collation than the connection.
const MYSQL: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY AUTO_INCREMENT, nickname VARCHAR(190) NOT NULL, email TEXT, version INTEGER NOT NULL DEFAULT 1) ENGINE = InnoDB;
    CREATE TABLE countries (code VARCHAR(20) COLLATE utf8mb4_unicode_520_ci PRIMARY KEY, name TEXT NOT NULL, population BIGINT NOT NULL DEFAULT 7) ENGINE = InnoDB;
    CREATE TABLE memberships (user_id INTEGER NOT NULL, group_id INTEGER NOT NULL, role TEXT COLLATE utf8mb4_bin NOT NULL, PRIMARY KEY (user_id, group_id)) ENGINE = InnoDB;
    CREATE TABLE readings (id BIGINT PRIMARY KEY AUTO_INCREMENT, user_id INTEGER, at TIMESTAMP(6) NULL, good BOOLEAN NOT NULL, value DOUBLE, note TEXT) ENGINE = InnoDB";

/// A database with the tables, and a connection to it.
pub fn connect() -> (Database, Conn) {
    let database = Database::new();
    let mut conn = Conn::establish(&database.url).unwrap();
    let tables = match diesel_session::SessionConnection::kind(&conn) {
        diesel_session::Kind::Sqlite => SQLITE,
        diesel_session::Kind::Postgres => POSTGRES,
        _ => MYSQL,
    };
    conn.batch_execute(tables).unwrap();
    (database, conn)
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct User {
    pub id: i32,
    pub nickname: String,
    pub email: Option<String>,
    pub version: i32,
}

impl Entity for User {
    type Key = i32;
    const TABLE: &'static str = "users";

    fn table() -> TableId {
        TableId::of::<users::table>()
    }

    fn key(&self) -> i32 {
        self.id
    }

    fn diff(&self, old: &Self) -> ColumnSet {
        ColumnSet::NONE
            .with(0, self.id != old.id)
            .with(1, self.nickname != old.nickname)
            .with(2, self.email != old.email)
            .with(3, self.version != old.version)
    }

    fn key_columns() -> ColumnSet {
        ColumnSet::of(0)
    }

    fn column_count() -> usize {
        <Self as Columns>::COUNT
    }

    fn column_name(column: usize) -> &'static str {
        <Self as Columns>::name(column)
    }

    fn version(&self) -> Option<i64> {
        Some(self.version.into())
    }

    fn set_version(&mut self, version: i64) {
        self.version = version.try_into().unwrap();
    }

    fn version_column() -> Option<usize> {
        Some(3)
    }
}

impl Columns for User {
    const COUNT: usize = 4;

    fn name(column: usize) -> &'static str {
        ["id", "nickname", "email", "version"][column]
    }

    type Bound<'a> = &'a Self;

    fn bound(&self) -> &Self {
        self
    }
}

impl Bind<DB> for &User {
    fn bind<'b>(&'b self, column: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match column {
            0 => out.push_bind_param::<diesel::dsl::SqlTypeOf<users::id>, _>(&self.id),
            1 => out.push_bind_param::<diesel::dsl::SqlTypeOf<users::nickname>, _>(&self.nickname),
            2 => out.push_bind_param::<diesel::dsl::SqlTypeOf<users::email>, _>(&self.email),
            _ => out.push_bind_param::<diesel::dsl::SqlTypeOf<users::version>, _>(&self.version),
        }
    }
}

impl Row for User {
    const KEY: &'static [usize] = &[0];
    type KeySqlType = diesel::dsl::SqlTypeOf<users::id>;
}

impl BindKey<DB> for User {
    fn bind_key<'b>(key: &'b i32, _: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param::<diesel::dsl::SqlTypeOf<users::id>, _>(key)
    }
}

/// `#[entity(of = User, generated(id, version))]`, and an email that is left out where it is not given.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUser {
    pub nickname: String,
    pub email: Option<String>,
}

impl Record for NewUser {
    type Entity = User;
    type Generated = (i32, i32);

    fn finish(self, (id, version): (i32, i32)) -> User {
        User { id, nickname: self.nickname, email: self.email, version }
    }

    fn unfinish(user: User) -> Self {
        Self { nickname: user.nickname, email: user.email }
    }
}

impl Columns for NewUser {
    const COUNT: usize = 2;

    fn name(column: usize) -> &'static str {
        ["nickname", "email"][column]
    }

    type Bound<'a> = &'a Self;

    fn bound(&self) -> &Self {
        self
    }
}

impl Bind<DB> for &NewUser {
    fn bind<'b>(&'b self, column: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match column {
            0 => out.push_bind_param::<diesel::dsl::SqlTypeOf<users::nickname>, _>(&self.nickname),
            _ => out.push_bind_param::<diesel::dsl::SqlTypeOf<users::email>, _>(&self.email),
        }
    }
}

impl NewRow for NewUser {
    const GENERATED: &'static [&'static str] = &["id", "version"];
    type GeneratedSqlType = (diesel::dsl::SqlTypeOf<users::id>, diesel::dsl::SqlTypeOf<users::version>);

    fn given(&self) -> ColumnSet {
        ColumnSet::of(0).with(1, self.email.is_some())
    }
}

/// The parts that are the same for each struct.
macro_rules! columns {
    ($name:ident, $table:ident, $($number:literal $column:ident),*) => {
        impl Columns for $name {
            const COUNT: usize = [$($number),*].len();
            fn name(column: usize) -> &'static str {
                [$(stringify!($column)),*][column]
            }
            type Bound<'a> = &'a Self;
            fn bound(&self) -> &Self {
                self
            }
        }
        impl Bind<DB> for &$name {
            fn bind<'b>(&'b self, column: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
                match column {
                    $($number => out.push_bind_param::<diesel::dsl::SqlTypeOf<$table::$column>, _>(&self.$column),)*
                    _ => unreachable!(),
                }
            }
        }
    };
}

macro_rules! entity {
    ($name:ident, $table:ident, $key:ty, |$row:ident| $get_key:expr, [$($number:literal $column:ident),*]) => {
        impl Entity for $name {
            type Key = $key;
            const TABLE: &'static str = stringify!($table);
            fn table() -> TableId {
                TableId::of::<$table::table>()
            }
            fn key(&self) -> $key {
                let $row = self;
                $get_key
            }
            fn diff(&self, old: &Self) -> ColumnSet {
                ColumnSet::NONE$(.with($number, self.$column != old.$column))*
            }
            fn key_columns() -> ColumnSet {
                <Self as Row>::KEY.iter().copied().collect()
            }
            fn column_count() -> usize {
                <Self as Columns>::COUNT
            }

            fn column_name(column: usize) -> &'static str {
                <Self as Columns>::name(column)
            }
        }
        columns!($name, $table, $($number $column),*);
    };
}

/// Its own record: nothing is generated.
macro_rules! own_record {
    ($name:ident) => {
        impl Record for $name {
            type Entity = Self;
            type Generated = ();
            fn finish(self, (): ()) -> Self {
                self
            }
            fn unfinish(entity: Self) -> Self {
                entity
            }
            fn given_key(&self) -> Option<<Self as Entity>::Key> {
                Some(Entity::key(self))
            }
            fn as_entity(&self) -> Option<&Self> {
                Some(self)
            }
        }
        impl NewRow for $name {
            const GENERATED: &'static [&'static str] = &[];
            type GeneratedSqlType = ();
        }
    };
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = countries)]
pub struct Country {
    pub code: String,
    pub name: String,
    pub population: i64,
}

entity!(Country, countries, String, |row| row.code.clone(), [0 code, 1 name, 2 population]);
own_record!(Country);

impl Row for Country {
    const KEY: &'static [usize] = &[0];
    type KeySqlType = diesel::dsl::SqlTypeOf<countries::code>;
}

impl BindKey<DB> for Country {
    fn bind_key<'b>(key: &'b String, _: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param::<diesel::dsl::SqlTypeOf<countries::code>, _>(key)
    }
}

/// Gives the key; the population is generated.
#[derive(Debug, Clone)]
pub struct NewCountry {
    pub name: String,
    pub code: String,
}

columns!(NewCountry, countries, 0 name, 1 code);

impl Record for NewCountry {
    type Entity = Country;
    type Generated = (i64,);

    fn finish(self, (population,): (i64,)) -> Country {
        Country { code: self.code, name: self.name, population }
    }

    fn unfinish(country: Country) -> Self {
        Self { code: country.code, name: country.name }
    }

    fn given_key(&self) -> Option<String> {
        Some(self.code.clone())
    }
}

impl NewRow for NewCountry {
    const GENERATED: &'static [&'static str] = &["population"];
    type GeneratedSqlType = (diesel::dsl::SqlTypeOf<countries::population>,);
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = memberships)]
pub struct Membership {
    pub user_id: i32,
    pub group_id: i32,
    pub role: String,
}

entity!(Membership, memberships, (i32, i32), |row| (row.user_id, row.group_id), [0 user_id, 1 group_id, 2 role]);
own_record!(Membership);

impl Row for Membership {
    const KEY: &'static [usize] = &[0, 1];
    type KeySqlType = (diesel::dsl::SqlTypeOf<memberships::user_id>, diesel::dsl::SqlTypeOf<memberships::group_id>);
}

impl BindKey<DB> for Membership {
    fn bind_key<'b>(key: &'b (i32, i32), part: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match part {
            0 => out.push_bind_param::<diesel::dsl::SqlTypeOf<memberships::user_id>, _>(&key.0),
            _ => out.push_bind_param::<diesel::dsl::SqlTypeOf<memberships::group_id>, _>(&key.1),
        }
    }
}

/// All kinds of columns.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = readings)]
pub struct Reading {
    pub id: i64,
    pub user_id: Option<i32>,
    pub at: Option<chrono::NaiveDateTime>,
    pub good: bool,
    pub value: Option<f64>,
    pub note: Option<String>,
}

entity!(Reading, readings, i64, |row| row.id, [0 id, 1 user_id, 2 at, 3 good, 4 value, 5 note]);

impl Row for Reading {
    const KEY: &'static [usize] = &[0];
    type KeySqlType = diesel::dsl::SqlTypeOf<readings::id>;
}

impl BindKey<DB> for Reading {
    fn bind_key<'b>(key: &'b i64, _: usize, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param::<diesel::dsl::SqlTypeOf<readings::id>, _>(key)
    }
}

#[derive(Debug, Clone)]
pub struct NewReading {
    pub user_id: Option<i32>,
    pub at: Option<chrono::NaiveDateTime>,
    pub good: bool,
    pub value: Option<f64>,
    pub note: Option<String>,
}

columns!(NewReading, readings, 0 user_id, 1 at, 2 good, 3 value, 4 note);

impl Record for NewReading {
    type Entity = Reading;
    type Generated = (i64,);

    fn finish(self, (id,): (i64,)) -> Reading {
        let Self { user_id, at, good, value, note } = self;
        Reading { id, user_id, at, good, value, note }
    }

    fn unfinish(reading: Reading) -> Self {
        let Reading { user_id, at, good, value, note, .. } = reading;
        Self { user_id, at, good, value, note }
    }
}

impl NewRow for NewReading {
    const GENERATED: &'static [&'static str] = &["id"];
    type GeneratedSqlType = (diesel::dsl::SqlTypeOf<readings::id>,);
}
