//! Bare Diesel on MySQL and MariaDB: the same ways to begin as the session's.

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::prelude::*;
use diesel_session::EngineBuilder;

use super::Arena;
use super::support::mysql as db;
use db::Conn;

#[path = "contenders.rs"]
mod contenders;

#[derive(Debug, Clone, Copy)]
struct Settings;

impl Settings {
    fn engine(self, builder: EngineBuilder<Conn>) -> EngineBuilder<Conn> {
        builder
    }

    fn set_up(self, _conn: &mut Conn) -> QueryResult<()> {
        Ok(())
    }
}

fn read<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> QueryResult<T>) -> QueryResult<T> {
    AnsiTransactionManager::begin_transaction_sql(conn, "START TRANSACTION READ ONLY")?;
    let value = f(conn);
    AnsiTransactionManager::commit_transaction(conn)?;
    value
}

fn write<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> QueryResult<T>) -> QueryResult<T> {
    conn.transaction(f)
}

fn settle(_conn: &mut Conn) {}

pub fn arena() -> Arena {
    contenders::arena("MySQL/MariaDB".to_owned(), Settings)
}
