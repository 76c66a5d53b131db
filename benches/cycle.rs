//! What a session costs beside the same statements through bare Diesel with a tuned r2d2 pool.
//!
//! `cargo bench --bench cycle` runs SQLite; `--features postgres,mysql` adds servers (`TEST_POSTGRES_URL`,
//! `TEST_MYSQL_URL`). The contenders take turns round by round in one process, and a ratio is the median of the ratios
//! of each round, so that a machine that slows down for a while slows all of them. After each round every row is
//! checked; wrong data ends the program with an error.
//!
//! Against a server the core that its process happens to run on can cost either side a multiple, as the quartiles show.
//! So the contenders reconnect every ten rounds, and the ratio is that of their best tenths. Server and benchmark
//! pinned to one core (`taskset -c 0`) give the steadiest figures.
//!
//! Options after `--`:
//!
//! - `--check`: end with an error where a bound is missed;
//! - `--rounds N`, `--cycles N`: instead of the defaults (201 rounds; turns of about 3 ms);
//! - `--only TEXT`: only contenders whose "database/work/name" contains the text.
#![allow(
    clippy::duplicate_mod,
    clippy::type_complexity,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arena::{Arena, RATIO_AT_MOST, Work};

#[path = "cycle/arena.rs"]
mod arena;

/// How long a turn should take, roughly: long enough for the clock, short enough for the machine to stay as it is.
const TURN: Duration = Duration::from_millis(3);
/// How many rounds the contenders keep their connections to a server.
const SEATED: usize = 10;
/// `Session::current()` on an existing session, in nanoseconds.
const CURRENT_AT_MOST: f64 = 10.0;

struct Options {
    check: bool,
    rounds: usize,
    cycles: Option<u32>,
    only: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { check: false, rounds: 201, cycles: None, only: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // Cargo passes it to every benchmark.
                "--bench" => {}
                "--check" => options.check = true,
                "--rounds" => options.rounds = value()?.parse().map_err(|_| "--rounds takes a number")?,
                "--cycles" => options.cycles = Some(value()?.parse().map_err(|_| "--cycles takes a number")?),
                "--only" => options.only = Some(value()?),
                other => return Err(format!("unknown option {other}")),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(message) => {
            println!("{message}");
            return ExitCode::FAILURE;
        }
    };
    println!("{:<72} {:>11} {:>7} {:>15}", "", "median", "ratio", "quartiles");
    let mut missed = 0;
    for mut arena in arena::arenas() {
        for work in [Work::Read, Work::ReadUpdate] {
            match measure(&mut arena, work, &options) {
                Ok(over) => missed += over,
                Err(message) => {
                    println!("{message}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    #[cfg(feature = "sqlite")]
    {
        missed += current(&options);
    }
    if missed > 0 {
        println!("{missed} above the bound");
    }
    if options.check && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures the contenders of one work in turns and prints them; says how many are above their bound.
fn measure(arena: &mut Arena, work: Work, options: &Options) -> Result<usize, String> {
    let title = format!("{}/{work:?}", arena.name);
    let all = &arena.seating.contenders;
    let contenders: Vec<usize> =
        (0..all.len()).filter(|&i| all[i].work == work && options.wants(&format!("{title}/{}", all[i].name))).collect();
    let Some(&first) = contenders.first() else { return Ok(0) };
    let cycles = options.cycles.unwrap_or_else(|| {
        arena.turn(first, 200);
        let took = arena.turn(first, 200);
        u32::try_from((TURN.as_nanos() * 200 / took.as_nanos().max(1)).clamp(20, 1_000_000)).unwrap_or(200)
    });
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..options.rounds {
        if round % SEATED == 0 {
            arena.seat_anew();
            contenders.iter().for_each(|&contender| _ = arena.turn(contender, 20));
        }
        for turn in 0..contenders.len() {
            let turn = (turn + round) % contenders.len();
            times[turn].push(arena.turn(contenders[turn], cycles).as_secs_f64() / f64::from(cycles));
        }
        if !arena.is_as_expected() {
            return Err(format!("{title}: the database does not hold what the cycles wrote"));
        }
    }
    let mut missed = 0;
    for (i, &contender) in contenders.iter().enumerate() {
        let contender = &arena.seating.contenders[contender];
        let mut ratios: Vec<f64> = times[i].iter().zip(&times[0]).map(|(mine, bare)| mine / bare).collect();
        let ratio = if arena.seat_anew.is_some() {
            // Between the seatings a cycle takes one time or a multiple of it, so the best tenth of each is compared.
            quantile(&mut times[i].clone(), 0.1) / quantile(&mut times[0].clone(), 0.1)
        } else {
            quantile(&mut ratios, 0.5)
        };
        let over = contender.bounded && ratio > RATIO_AT_MOST;
        missed += usize::from(over);
        let name = format!("{title}/{}", contender.name);
        print_row(&name, quantile(&mut times[i].clone(), 0.5) * 1e6, "us", Some((ratio, &mut ratios)), over);
    }
    Ok(missed)
}

/// Measures `Session::current()` where there is a session.
#[cfg(feature = "sqlite")]
fn current(options: &Options) -> usize {
    use arena::support::sqlite_memory::{Database, Registry, Session};
    use diesel_session::Engine;

    const CALLS: u32 = 1_000_000;
    if !options.wants("Session::current()") {
        return 0;
    }
    let registry = Registry::new(Engine::new(Database::new().url).unwrap());
    let mut times = registry.enter(|| {
        let _session = Session::current().unwrap();
        let turn = || {
            let started = Instant::now();
            for _ in 0..CALLS {
                let _ = black_box(Session::current());
            }
            started.elapsed().as_secs_f64() / f64::from(CALLS) * 1e9
        };
        let times: Vec<f64> = (0..options.rounds).map(|_| turn()).collect();
        Session::remove();
        times
    });
    let median = quantile(&mut times, 0.5);
    let over = median > CURRENT_AT_MOST;
    print_row("Session::current() on an existing session", median, "ns", None, over);
    usize::from(over)
}

fn print_row(name: &str, median: f64, unit: &str, ratio: Option<(f64, &mut [f64])>, over: bool) {
    let mark = if over { "  above the bound" } else { "" };
    let ratio = ratio.map_or_else(String::new, |(ratio, all)| {
        format!(" {ratio:>7.3}   {:>5.3} - {:>5.3}", quantile(all, 0.25), quantile(all, 0.75))
    });
    println!("{name:<72} {median:>8.2} {unit}{ratio}{mark}");
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let position = ((values.len() - 1) as f64 * q).round() as usize;
    values[position]
}
