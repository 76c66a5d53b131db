//! Ever more rows in one transaction: added, or loaded and changed in one column.

use std::time::{Duration, Instant};

use diesel::prelude::*;

use crate::figures::{Report, Rounds};
use crate::store::{Fallible, Item, Session, Store, items, new_items};

const ROUNDS: usize = 3;
/// Small sizes are measured several times a round, up to about so many rows.
const ROWS: u32 = 10_000;

/// What a transaction took, and the flush in it.
struct Took {
    whole: Duration,
    flush: Duration,
}

pub(crate) fn measure(report: &mut Report, quick: bool) -> Fallible {
    let sizes: &[u32] = if quick { &[100, 1_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let mut times = Rounds::new("flush", "us/row");
    // What the first transactions of a process cost more.
    transactions(sizes[0])?;
    for _ in 0..if quick { 1 } else { ROUNDS } {
        for &rows in sizes {
            for _ in 0..(ROWS / rows).max(1) {
                let (added, changed) = transactions(rows)?;
                let mut note = |series, took: Duration| {
                    times.note(series, rows, took.as_secs_f64() * 1e6 / f64::from(rows));
                };
                note("add, flush, commit", added.whole);
                note("its flush", added.flush);
                note("load, change, commit", changed.whole);
                note("their flush", changed.flush);
            }
        }
    }
    report.curve("microseconds a row, of all rows in one transaction", times.figures());
    Ok(())
}

fn transactions(rows: u32) -> Fallible<(Took, Took)> {
    let store = Store::new()?;
    let added = add(&store, rows)?;
    store.check(rows, 0)?;
    store.settle()?;
    let changed = change(&store, rows)?;
    store.check(rows, i64::from(rows))?;
    Ok((added, changed))
}

fn add(store: &Store, rows: u32) -> Fallible<Took> {
    let session = Session::new(store.engine());
    let records: Vec<_> = new_items(rows).collect();
    let started = Instant::now();
    let added = session.add_all(records)?;
    let flush = timed(|| session.flush())?;
    session.commit()?;
    let whole = started.elapsed();
    // The table was empty, so SQLite's keys are the places in the order of `add`.
    if !added.iter().zip(1..).all(|(item, key)| item.key() == Some(key)) {
        return Err("an added entity has not the key of its row".into());
    }
    Ok(Took { whole, flush })
}

fn change(store: &Store, rows: u32) -> Fallible<Took> {
    let session = Session::new(store.engine());
    let started = Instant::now();
    let loaded = session.load_tracked(items::table.select(Item::as_select()).order(items::id))?;
    loaded.iter().try_for_each(|item| item.update(|item| item.amount += 1))?;
    let flush = timed(|| session.flush())?;
    session.commit()?;
    let whole = started.elapsed();
    if u32::try_from(loaded.len())? != rows {
        return Err(format!("{} rows were loaded instead of {rows}", loaded.len()).into());
    }
    Ok(Took { whole, flush })
}

fn timed(f: impl FnOnce() -> diesel_session::Result<()>) -> Fallible<Duration> {
    let started = Instant::now();
    f()?;
    Ok(started.elapsed())
}
