//! Rounds in which the contenders take turns, and what their times come to.

use std::time::Instant;

use crate::check;
use crate::options::Options;
use crate::work::{Arena, Fallible, Outcome, Sizes, Task, Way, Work, drafts, families};

/// How long a turn of cycles takes, in seconds: long enough for the clock, short enough for the machine to stay as it is.
const TURN: f64 = 0.004;
/// How many rounds the contenders keep their connections to a server.
const SEATED: usize = 10;
const SEATED_LONG: usize = 3;
/// How often the rounds are drawn anew to see how much a figure of best tenths is worth.
const DRAWS: usize = 400;

/// What one contender needs for one work.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub work: String,
    pub contender: String,
    pub unit: String,
    /// Microseconds a unit: the median of the rounds.
    pub median: f64,
    /// To the first contender of the work.
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
}

/// How the rounds are made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub sizes: Sizes,
    /// Whether there is a server: a process that stays on the core where it happens to run, which costs a cycle a
    /// multiple. So the contenders reconnect now and then, and cycles are compared by the best tenths of their rounds.
    pub remote: bool,
}

pub fn measure(arena: &mut dyn Arena, work: Work, plan: Plan, options: &Options) -> Fallible<Vec<Measured>> {
    let seat = |arena: &dyn Arena| -> Fallible<Vec<Way>> {
        let wanted = |way: &Way| way.work == work && options.only.as_ref().is_none_or(|only| *only == way.name);
        Ok(arena.ways()?.into_iter().filter(wanted).collect())
    };
    let mut ways = seat(arena)?;
    if ways.is_empty() {
        return Ok(Vec::new());
    }
    let mut table = Table::new(arena, work, plan.sizes)?;
    let cycles = match (options.cycles, options.smoke) {
        (Some(cycles), _) => cycles,
        (None, true) => 20,
        (None, false) if work.is_cycle() => {
            table.turn(arena, &mut ways[0], 200)?;
            cycles_in_a_turn(table.turn(arena, &mut ways[0], 200)?)
        }
        (None, false) => 1,
    };
    let rounds = options.rounds(work);
    let seated = if work.is_cycle() { SEATED } else { SEATED_LONG };
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        if round % seated == 0 {
            if plan.remote && round > 0 {
                drop(ways);
                ways = seat(arena)?;
            }
            if (plan.remote || round == 0) && !options.smoke {
                for way in &mut ways {
                    table.warm_up(arena, way)?;
                }
            }
        }
        for turn in 0..ways.len() {
            let turn = (turn + round) % ways.len();
            times[turn].push(table.turn(arena, &mut ways[turn], cycles)?);
        }
    }
    let best = plan.remote && work.is_cycle();
    let blocks = if best { seated } else { 1 };
    let row = |(way, mine): (&Way, &Vec<f64>)| {
        let (ratio, low, high) = ratio(mine, &times[0], best, blocks);
        Measured {
            work: work.name().into(),
            contender: way.name.into(),
            unit: work.unit().into(),
            median: quantile(&mut mine.clone(), 0.5) * 1e6,
            ratio,
            low,
            high,
        }
    };
    Ok(ways.iter().zip(&times).map(row).collect())
}

fn cycles_in_a_turn(one: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let cycles = (TURN / one).clamp(20.0, 100_000.0) as usize;
    cycles
}

/// What the tables should hold.
struct Table {
    work: Work,
    sizes: Sizes,
    visits: Vec<i32>,
    next: usize,
}

impl Table {
    fn new(arena: &mut dyn Arena, work: Work, sizes: Sizes) -> Fallible<Self> {
        Ok(Self { work, sizes, visits: arena.visits()?, next: 0 })
    }

    fn warm_up(&mut self, arena: &mut dyn Arena, way: &mut Way) -> Fallible {
        let share = way.share;
        if !self.work.is_cycle() {
            way.share = share.max(10);
        }
        let turn = self.turn(arena, way, 20);
        way.share = share;
        turn.map(drop)
    }

    /// Lets a contender do its work once, cycles so many times, and checks the data. Gives the seconds for a unit.
    fn turn(&mut self, arena: &mut dyn Arena, way: &mut Way, cycles: usize) -> Fallible<f64> {
        arena.settle(self.work)?;
        let (task, units) = self.task(way.share, cycles);
        let started = Instant::now();
        let outcome = on_the_clock(way, task);
        let took = started.elapsed().as_secs_f64();
        let told = |error| format!("{}, {}: {error}", self.work.name(), way.name);
        let outcome = outcome.map_err(told)?;
        self.check(arena, way, units, outcome).map_err(told)?;
        #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52")]
        Ok(took / units as f64)
    }

    fn task(&mut self, share: usize, cycles: usize) -> (Task, usize) {
        match self.work {
            Work::W1 | Work::W1Full | Work::W2 => {
                let cycles = (cycles / share).max(1);
                let requests = (0..cycles).map(|_| self.request()).collect();
                (Task::Requests(requests), cycles)
            }
            Work::W3 => {
                let count = self.sizes.notes / share;
                (Task::Insert(drafts(count)), count)
            }
            Work::W4 => {
                self.visits.iter_mut().for_each(|visits| *visits += 1);
                (Task::LoadAndChange, self.visits.len())
            }
            Work::W5 => {
                let count = (self.sizes.families / share).max(1);
                (Task::Families(families(count, self.sizes.children)), count)
            }
        }
    }

    /// The next row in turn, which will have been visited once more.
    fn request(&mut self) -> (i32, i32) {
        let visits = &mut self.visits[self.next];
        self.next = (self.next + 1) % usize::try_from(self.sizes.people).unwrap_or(1);
        let before = *visits;
        *visits += i32::from(self.work.writes());
        let key = if self.next == 0 { self.sizes.people } else { i32::try_from(self.next).unwrap_or(0) };
        (key, before)
    }

    fn check(&self, arena: &mut dyn Arena, way: &Way, units: usize, outcome: Outcome) -> Fallible {
        match (self.work, outcome) {
            (Work::W3, Outcome::Keys(keys)) => check::notes(&drafts(units), &arena.notes()?, Some(&keys)),
            (Work::W3, _) => check::notes(&drafts(units), &arena.notes()?, None),
            (Work::W5, Outcome::Families(parents, children)) => {
                check::families(&families(units, self.sizes.children), &arena.families()?, &parents, &children)
            }
            (Work::W5, _) => Err(format!("{} gave no keys", way.name).into()),
            (Work::W2, _) => Ok(()),
            (Work::W1 | Work::W1Full | Work::W4, _) => check::visits(&self.visits, &arena.visits()?),
        }
    }
}

/// All that is timed, and by this name the one part whose instructions `.ci/instructions` counts.
#[inline(never)]
fn on_the_clock(way: &mut Way, task: Task) -> Fallible<Outcome> {
    (way.run)(task)
}

/// The ratio and its quartiles. In processes of its own it is the median of the rounds' ratios; of best tenths the
/// quartiles say what other draws of the seatings would have given.
fn ratio(mine: &[f64], base: &[f64], best: bool, block: usize) -> (f64, f64, f64) {
    if !best {
        let mut ratios: Vec<f64> = mine.iter().zip(base).map(|(mine, base)| mine / base).collect();
        return (quantile(&mut ratios, 0.5), quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75));
    }
    let tenth = |times: &[f64]| quantile(&mut times.to_vec(), 0.1);
    let (mine, base): (Vec<&[f64]>, Vec<&[f64]>) = (mine.chunks(block).collect(), base.chunks(block).collect());
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = || {
        // Knuth's linear congruential generator, with the same draws in each run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % mine.len()
    };
    let mut ratios: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for _ in 0..mine.len() {
                let n = draw();
                one.extend_from_slice(mine[n]);
                other.extend_from_slice(base[n]);
            }
            tenth(&one) / tenth(&other)
        })
        .collect();
    let ratio = tenth(&mine.concat()) / tenth(&base.concat());
    // One lucky seating may decide the best tenth, and few draws have it.
    (ratio, quantile(&mut ratios, 0.25).min(ratio), quantile(&mut ratios, 0.75).max(ratio))
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the list"
    )]
    let position = ((values.len().saturating_sub(1)) as f64 * q).round() as usize;
    values.get(position).copied().unwrap_or(f64::NAN)
}
