//! What a unit costs as the work grows: a row of a flush, a hit in the identity map, a transaction among many threads, a
//! savepoint among many.
//!
//! Sizes take turns round by round, so that a machine that slows down for a while slows all of them; only the identity map,
//! which each round would have to fill anew, is measured at one size after the other.
//!
//! `cargo bench --bench growth` measures on a SQLite file (WAL, `synchronous=NORMAL`); `--bench growth_memory` adds the bytes
//! of an entity, in a program of its own, because the counting allocator would weigh on the times. What is stored is checked
//! after each measurement; wrong data, an error or an unfinished thread ends the program with an error. `-- --help` says how
//! to save and to draw.
#![allow(clippy::print_stdout)]

use figures::Report;
use options::{Command, Curve, Options};
use store::Fallible;

#[path = "growth/bare.rs"]
mod bare;
#[path = "growth/drawing.rs"]
mod drawing;
#[path = "growth/figures.rs"]
mod figures;
#[path = "growth/flush.rs"]
mod flush;
#[path = "growth/hits.rs"]
mod hits;
#[path = "growth/machine.rs"]
mod machine;
#[path = "growth/options.rs"]
mod options;
#[path = "growth/plot.rs"]
mod plot;
#[path = "growth/savepoints.rs"]
mod savepoints;
#[path = "growth/store.rs"]
mod store;
#[path = "growth/threads.rs"]
mod threads;

fn main() -> Fallible {
    match options::parse()? {
        Command::Help => println!("{}", options::USAGE),
        Command::Measure(options) => measure(&options)?,
        Command::Plot { out, files } => {
            let mut figures = Vec::new();
            for file in &files {
                figures.extend(figures::load(file)?);
            }
            std::fs::write(out, plot::svg(&figures)?)?;
        }
    }
    Ok(())
}

fn measure(options: &Options) -> Fallible {
    let mut report = Report::begin(options)?;
    for curve in Curve::TIMED.into_iter().filter(|curve| options.wants(*curve)) {
        match curve {
            Curve::Flush => flush::measure(&mut report, options.quick)?,
            Curve::Hits => hits::measure(&mut report, options.quick)?,
            Curve::Threads => threads::measure(&mut report, options.quick)?,
            Curve::Savepoints => savepoints::measure(&mut report, options.quick)?,
        }
    }
    report.end()
}
