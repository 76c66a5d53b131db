//! What the benchmarks share: the databases, and the contenders that do the same work in different ways.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

#[path = "../../tests/support/mod.rs"]
pub mod support;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

/// Rows in the table; cycles go through their keys in turn.
pub const ROWS: i32 = 1_000;
const ROWS_USIZE: usize = 1_000;

/// What the contenders may ask of a session at most, as a multiple of bare Diesel.
pub const RATIO_AT_MOST: f64 = 1.05;

/// What a cycle does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// BEGIN, SELECT by key, COMMIT.
    Read,
    /// BEGIN, SELECT by key, UPDATE of one column by key, COMMIT.
    ReadUpdate,
}

/// One way to do the work.
pub struct Contender {
    pub name: &'static str,
    pub work: Work,
    /// Whether the ratio to the first contender of its work is bounded.
    pub bounded: bool,
    /// Does one cycle on the row with this key, which holds this number; a cycle that writes adds one to it.
    pub cycle: Box<dyn Fn(i32, i32)>,
}

/// The contenders with connections of their own, and how to run them with the registry in place behind
/// `Session::current()`.
pub struct Seating {
    pub contenders: Vec<Contender>,
    pub enter: Box<dyn Fn(&mut dyn FnMut())>,
}

/// The contenders of one database, and what their database should hold.
pub struct Arena {
    pub name: String,
    pub seating: Seating,
    /// Seats the contenders anew. A server's process stays on the core where it happens to run, which can cost either side
    /// a multiple, so they draw again and again. `None` where the database is in this process.
    pub seat_anew: Option<Box<dyn Fn() -> Seating>>,
    /// Brings the database to the same state before each turn that writes.
    pub settle: Box<dyn Fn()>,
    /// Every row, in order of its key.
    pub stored: Box<dyn Fn() -> Vec<(i32, String, i32)>>,
    expected: Vec<i32>,
    next: i32,
}

impl Arena {
    fn new(name: String, seating: Seating) -> Self {
        Self {
            name,
            seating,
            seat_anew: None,
            settle: Box::new(|| ()),
            stored: Box::new(Vec::new),
            expected: vec![0; ROWS_USIZE],
            next: 0,
        }
    }

    /// New connections for everybody, where that matters.
    pub fn seat_anew(&mut self) {
        if let Some(seat) = &self.seat_anew {
            self.seating = seat();
        }
    }

    /// Lets a contender do `cycles` cycles.
    pub fn turn(&mut self, contender: usize, cycles: u32) -> Duration {
        let contender = &self.seating.contenders[contender];
        let writes = i32::from(contender.work == Work::ReadUpdate);
        if writes > 0 {
            (self.settle)();
        }
        let (expected, next) = (&mut self.expected, &mut self.next);
        let mut took = Duration::ZERO;
        (self.seating.enter)(&mut || {
            let started = Instant::now();
            for _ in 0..cycles {
                let n = &mut expected[usize::try_from(*next).unwrap()];
                *next = (*next + 1) % ROWS;
                let key = if *next == 0 { ROWS } else { *next };
                (contender.cycle)(key, *n);
                *n += writes;
            }
            took = started.elapsed();
        });
        took
    }

    /// Whether every row holds what it should.
    pub fn is_as_expected(&self) -> bool {
        let stored = (self.stored)();
        stored.len() == ROWS_USIZE
            && stored
                .iter()
                .zip(self.expected.iter().zip(1..))
                .all(|((id, text, n), (expected, key))| *id == key && *text == text_of(key) && n == expected)
    }
}

pub fn text_of(key: i32) -> String {
    format!("note number {key}")
}

/// The arenas of every backend that is switched on.
pub fn arenas() -> Vec<Arena> {
    let mut arenas = Vec::new();
    #[cfg(feature = "sqlite")]
    arenas.extend(["NORMAL", "FULL"].map(sqlite::arena));
    #[cfg(feature = "postgres")]
    arenas.push(postgres::arena());
    #[cfg(feature = "mysql")]
    arenas.push(mysql::arena());
    arenas
}
