//! How often each contender of `cycle.rs` allocates in a cycle (SQLite's and the servers' C libraries not counted), and
//! that `Session::current()` on an existing session does not at all: the program ends with an error if it does.
//!
//! A program of its own, because the counting allocator would weigh on the times.
#![allow(
    clippy::duplicate_mod,
    clippy::type_complexity,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::alloc::System;
use std::hint::black_box;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "cycle/arena.rs"]
mod arena;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CYCLES: u32 = 1_000;

/// Allocations, reallocations included.
fn count(f: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    f();
    let change = region.change();
    change.allocations + change.reallocations
}

fn main() -> ExitCode {
    for mut arena in arena::arenas() {
        for i in 0..arena.seating.contenders.len() {
            arena.turn(i, CYCLES);
            // The turn's own allocations are in both.
            let once = count(|| _ = arena.turn(i, CYCLES));
            let twice = count(|| _ = arena.turn(i, 2 * CYCLES));
            let contender = &arena.seating.contenders[i];
            let name = format!("{}/{:?}/{}", arena.name, contender.work, contender.name);
            println!("{name:<72} {:>6.2} a cycle", f64::from(u32::try_from(twice - once).unwrap()) / f64::from(CYCLES));
        }
        if !arena.is_as_expected() {
            println!("{}: the database does not hold what the cycles wrote", arena.name);
            return ExitCode::FAILURE;
        }
    }
    #[cfg(feature = "sqlite")]
    {
        use arena::support::sqlite_memory::{Registry, Session};

        let registry = Registry::new(diesel_session::Engine::new(":memory:").unwrap());
        let allocations = registry.enter(|| {
            let _session = Session::current().unwrap();
            drop(Session::current());
            let allocations = count(|| (0..CYCLES).for_each(|_| drop(black_box(Session::current()))));
            Session::remove();
            allocations
        });
        println!("{:<72} {allocations:>6} in {CYCLES} calls", "Session::current() on an existing session");
        if allocations > 0 {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
