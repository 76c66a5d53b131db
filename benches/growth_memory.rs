//! How many bytes a tracked entity takes as the identity map grows, with everything that belongs to it: the row's struct
//! and its text, the node, the entry in the map and the handle in a `Vec`. Only what Rust allocates, not SQLite's pages.
//!
//! `cargo bench --bench growth_memory`; `-- --save FILE` writes the figures for the plot of `growth.rs`.
#![allow(clippy::print_stdout)]

use diesel::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

use figures::{Report, Rounds};
use options::Command;
use store::{Fallible, Item, Session, Store, items};

#[path = "growth/figures.rs"]
#[expect(dead_code, reason = "`growth.rs` draws")]
mod figures;
#[path = "growth/machine.rs"]
mod machine;
#[path = "growth/options.rs"]
#[expect(dead_code, reason = "`growth.rs` has several curves")]
mod options;
#[path = "growth/store.rs"]
#[expect(dead_code, reason = "`growth.rs` uses it in more ways")]
mod store;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> Fallible {
    match options::parse()? {
        Command::Help => println!("{}", options::USAGE),
        Command::Plot { .. } => return Err("`--bench growth` draws".into()),
        Command::Measure(options) => {
            let mut report = Report::begin(&options)?;
            let mut bytes = Rounds::new("memory", "bytes/entity");
            for &live in options::live(options.quick) {
                measure(&mut bytes, live)?;
            }
            report.curve("bytes an entity, all of it", bytes.figures());
            report.end()?;
        }
    }
    Ok(())
}

fn measure(bytes: &mut Rounds, live: u32) -> Fallible {
    let store = Store::with_rows(live)?;
    let session = Session::new(store.engine());
    let rows = || items::table.select(Item::as_select()).order(items::id);
    // What the first query and the first flush prepare belongs to the session, not to an entity.
    let first = session.load_tracked(rows().limit(1))?;
    first.iter().try_for_each(|item| item.update(|item| item.amount += 1))?;
    session.flush()?;
    drop(first);
    session.expunge_all()?;

    let region = Region::new(ALLOCATOR);
    let tracked = session.load_tracked(rows())?;
    let clean = left(&region);
    tracked.iter().try_for_each(|item| item.update(|item| item.amount += 1))?;
    let changed = left(&region);
    let written = i64::from(live) + 1;
    session.flush()?;
    let flushed = left(&region);
    session.commit()?;
    let committed = left(&region);
    let mut note = |series, left: f64| bytes.note(series, live, left / f64::from(live));
    note("read", clean);
    note("changed", changed);
    note("written, before commit", flushed);
    note("after commit", committed);
    drop(tracked);
    session.close();
    store.check(live, written)
}

/// The bytes that were allocated since and not freed.
fn left(region: &Region<'_, System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}
