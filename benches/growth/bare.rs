//! Diesel's own savepoints, with the engine's settings.

use std::time::{Duration, Instant};

use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::prelude::*;

use crate::store::{Conn, Fallible, Store, items};

type Manager = <Conn as Connection>::TransactionManager;

pub(crate) struct Bare(Conn);

impl Bare {
    pub(crate) fn connect(store: &Store) -> Fallible<Self> {
        let mut conn = Conn::establish(store.file())?;
        conn.batch_execute(
            "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = 1; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        )?;
        Ok(Self(conn))
    }

    /// Opens so many savepoints, in each of which another row may be changed, and commits them. The transaction around them is
    /// not in the time.
    pub(crate) fn nest(&mut self, depth: u32, change: bool) -> Fallible<Duration> {
        let last = i32::try_from(depth)?;
        self.0.immediate_transaction(|conn| {
            let started = Instant::now();
            for key in 1..=last {
                Manager::begin_transaction(conn)?;
                if change {
                    diesel::update(items::table.find(key)).set(items::amount.eq(items::amount + 1)).execute(conn)?;
                }
            }
            for _ in 1..=last {
                Manager::commit_transaction(conn)?;
            }
            Ok(started.elapsed())
        })
    }
}
