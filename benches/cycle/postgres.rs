//! Bare Diesel on PostgreSQL: the same ways to begin as the session's.

use diesel::prelude::*;
use diesel_session::EngineBuilder;

use super::Arena;
use super::support::postgres as db;
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
    conn.build_transaction().repeatable_read().read_only().run(f)
}

fn write<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> QueryResult<T>) -> QueryResult<T> {
    conn.transaction(f)
}

fn settle(_conn: &mut Conn) {}

pub fn arena() -> Arena {
    contenders::arena("PostgreSQL".to_owned(), Settings)
}
