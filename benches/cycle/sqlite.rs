//! Bare Diesel on SQLite: the same settings and the same ways to begin as the engine's.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{EngineBuilder, Synchronous};

use super::Arena;
use super::support::sqlite_file as db;
use db::Conn;

#[path = "contenders.rs"]
mod contenders;

#[derive(Debug, Clone, Copy)]
struct Settings(&'static str);

impl Settings {
    fn engine(self, builder: EngineBuilder<Conn>) -> EngineBuilder<Conn> {
        builder.synchronous(if self.0 == "FULL" { Synchronous::Full } else { Synchronous::Normal })
    }

    fn set_up(self, conn: &mut Conn) -> QueryResult<()> {
        conn.batch_execute(&format!(
            "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = 1; PRAGMA journal_mode = WAL; PRAGMA synchronous = {}",
            self.0
        ))
    }
}

fn read<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> QueryResult<T>) -> QueryResult<T> {
    conn.transaction(f)
}

fn write<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> QueryResult<T>) -> QueryResult<T> {
    conn.immediate_transaction(f)
}

/// Empties the write-ahead log, so that no turn pays for the checkpoint of another.
fn settle(conn: &mut Conn) {
    conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

pub fn arena(synchronous: &'static str) -> Arena {
    contenders::arena(format!("SQLite, synchronous={synchronous}"), Settings(synchronous))
}
