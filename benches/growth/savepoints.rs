//! Savepoints in savepoints: all are opened, then all committed from the inside out.

use std::time::{Duration, Instant};

use diesel::prelude::*;

use crate::bare::Bare;
use crate::figures::{Report, Rounds};
use crate::store::{Fallible, Item, Session, Store, items};

const DEPTHS: [u32; 7] = [1, 3, 10, 30, 100, 300, 1_000];
/// About so many savepoints make a round.
const SAVEPOINTS: u32 = 1_000;
const ROUNDS: usize = 9;

pub(crate) fn measure(report: &mut Report, quick: bool) -> Fallible {
    let depths = if quick { &DEPTHS[..5] } else { &DEPTHS };
    let rounds = if quick { 1 } else { ROUNDS };
    let rows = *depths.last().unwrap_or(&1);
    let store = Store::with_rows(rows)?;
    let mut bare = Bare::connect(&store)?;
    let mut changed = 0;
    let mut times = Rounds::new("savepoints", "us/level");
    for round in 0..=rounds {
        for &depth in depths {
            let times_each = (SAVEPOINTS / depth).max(1);
            let mut took = [Duration::ZERO; 4];
            for _ in 0..times_each {
                took[0] += nest(&store, depth, false)?;
                took[1] += nest(&store, depth, true)?;
                took[2] += bare.nest(depth, false)?;
                took[3] += bare.nest(depth, true)?;
            }
            changed += 2 * i64::from(times_each * depth);
            store.check(rows, changed)?;
            store.settle()?;
            // The first round prepares the statements of every level.
            if round == 0 {
                continue;
            }
            let series = ["empty", "with a change", "Diesel, empty", "Diesel, with a change"];
            for (series, took) in series.into_iter().zip(took) {
                times.note(series, depth, took.as_secs_f64() * 1e6 / f64::from(times_each * depth));
            }
        }
    }
    report.curve("microseconds a level, to open and commit all", times.figures());
    Ok(())
}

/// Opens so many savepoints, in each of which another entity may be changed, and commits them. The transaction around them is
/// not in the time.
fn nest(store: &Store, depth: u32, change: bool) -> Fallible<Duration> {
    let session = Session::new(store.engine());
    let last = i32::try_from(depth)?;
    let tracked = session.load_tracked(items::table.filter(items::id.le(last)).select(Item::as_select()))?;
    let started = Instant::now();
    let mut open = Vec::with_capacity(tracked.len());
    for item in &tracked {
        open.push(session.begin_nested()?);
        if change {
            item.update(|item| item.amount += 1)?;
        }
    }
    while let Some(innermost) = open.pop() {
        innermost.commit()?;
    }
    let took = started.elapsed();
    session.commit()?;
    Ok(took)
}
