//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::work::{Fallible, Sizes, Work};

pub const USAGE: &str = "\
cargo run --release --manifest-path benches/compare/Cargo.toml -- sqlite|postgres|mysql [options]
cargo run --release --manifest-path benches/compare/Cargo.toml -- plot OUT.svg IN.tsv...

  --work W1,W4       only these: W1 W1F W2 W3 W4 W5 (W1F is W1 with synchronous=FULL)
  --rounds N         instead of 200 for W1 and W2, 9 for W3, 25 for W4 and W5
  --only NAME        only this contender
  --cycles N         so many cycles a turn of W1 and W2, instead of 4 ms
  --rows N           so many rows, or families, instead of the usual sizes
  --smoke            tiny sizes, one round: whether it works, with no word on speed
  --save FILE        writes the figures, as text with tabs
  --date TEXT        goes into that file
  --note TEXT        so does this: what else the figures depend on
  --against FILE     compares the ratios with those of a file";

#[derive(Debug)]
pub enum Command {
    Measure(String, Options),
    Plot { out: PathBuf, files: Vec<PathBuf> },
    Help,
}

#[derive(Debug, Default)]
pub struct Options {
    works: Option<Vec<Work>>,
    /// Instead of the usual ones.
    pub rounds: Option<usize>,
    pub only: Option<String>,
    pub cycles: Option<usize>,
    rows: Option<u16>,
    pub smoke: bool,
    pub save: Option<PathBuf>,
    pub date: Option<String>,
    pub note: Option<String>,
    pub against: Option<PathBuf>,
}

impl Options {
    pub fn wants(&self, work: Work) -> bool {
        self.works.as_ref().is_none_or(|works| works.contains(&work))
    }

    pub fn sizes(&self) -> Sizes {
        let usual = if self.smoke { Sizes::SMOKE } else { Sizes::FULL };
        self.rows.map_or(usual, |rows| usual.with_rows(rows.max(1)))
    }

    pub fn rounds(&self, work: Work) -> usize {
        match (self.smoke, self.rounds, work) {
            (true, _, _) => 1,
            (false, Some(rounds), _) => rounds.max(1),
            (false, None, Work::W1 | Work::W1Full | Work::W2) => 200,
            (false, None, Work::W3) => 9,
            (false, None, Work::W4 | Work::W5) => 25,
        }
    }
}

pub fn parse() -> Fallible<Command> {
    let mut parser = lexopt::Parser::from_env();
    let mut words: Vec<String> = Vec::new();
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("work") => {
                let names = parser.value()?.string()?;
                let work = |name: &str| Work::by_name(name).ok_or_else(|| format!("there is no work {name}"));
                options.works = Some(names.split(',').map(work).collect::<Result<_, _>>()?);
            }
            Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
            Long("only") => options.only = Some(parser.value()?.string()?),
            Long("cycles") => options.cycles = Some(parser.value()?.parse()?),
            Long("rows") => options.rows = Some(parser.value()?.parse()?),
            Long("smoke") => options.smoke = true,
            Long("save") => options.save = Some(parser.value()?.into()),
            Long("date") => options.date = Some(parser.value()?.string()?),
            Long("note") => options.note = Some(parser.value()?.string()?),
            Long("against") => options.against = Some(parser.value()?.into()),
            Long("help") => return Ok(Command::Help),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    match words.next().as_deref() {
        None => Ok(Command::Help),
        Some("plot") => {
            let out = words.next().ok_or("plot needs a file to write")?.into();
            Ok(Command::Plot { out, files: words.map(PathBuf::from).collect() })
        }
        Some(backend) if words.len() == 0 => Ok(Command::Measure(backend.to_owned(), options)),
        Some(_) => Err("one backend at a time".into()),
    }
}
