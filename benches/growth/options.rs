//! The command line, which both programs share.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::store::Fallible;

pub(crate) const USAGE: &str = "\
cargo bench --bench growth [-- OPTIONS]
cargo bench --bench growth_memory [-- OPTIONS]
cargo bench --bench growth -- plot OUT.svg IN.tsv...

  --only CURVES      of growth, only these: flush,hits,threads,savepoints
  --quick            small sizes and few rounds: whether it works, with no word on speed
  --save FILE        writes the figures, as text with tabs
  --date TEXT        goes into that file";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    Flush,
    Hits,
    Threads,
    Savepoints,
}

impl Curve {
    pub(crate) const TIMED: [Self; 4] = [Self::Flush, Self::Hits, Self::Threads, Self::Savepoints];

    fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Hits => "hits",
            Self::Threads => "threads",
            Self::Savepoints => "savepoints",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Measure(Options),
    Plot { out: PathBuf, files: Vec<PathBuf> },
    Help,
}

#[derive(Debug, Default)]
pub(crate) struct Options {
    only: Option<Vec<Curve>>,
    pub(crate) quick: bool,
    pub(crate) save: Option<PathBuf>,
    pub(crate) date: Option<String>,
}

impl Options {
    pub(crate) fn wants(&self, curve: Curve) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&curve))
    }
}

/// How many entities are alive.
pub(crate) fn live(quick: bool) -> &'static [u32] {
    const LIVE: [u32; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    if quick { &LIVE[..5] } else { &LIVE }
}

pub(crate) fn parse() -> Fallible<Command> {
    let mut parser = lexopt::Parser::from_env();
    let mut words = Vec::new();
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            // Cargo passes it to every benchmark.
            Long("bench") => {}
            Long("only") => options.only = Some(curves(&parser.value()?.string()?)?),
            Long("quick") => options.quick = true,
            Long("save") => options.save = Some(parser.value()?.into()),
            Long("date") => options.date = Some(parser.value()?.string()?),
            Long("help") => return Ok(Command::Help),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    match words.next().as_deref() {
        None => Ok(Command::Measure(options)),
        Some("plot") => {
            let out = words.next().ok_or("plot needs a file to write")?.into();
            Ok(Command::Plot { out, files: words.map(PathBuf::from).collect() })
        }
        Some(other) => Err(format!("there is no command {other}\n\n{USAGE}").into()),
    }
}

fn curves(names: &str) -> Fallible<Vec<Curve>> {
    let by_name = |name: &str| {
        let found = Curve::TIMED.into_iter().find(|curve| curve.name() == name);
        found.ok_or_else(|| format!("there is no curve {name}").into())
    };
    names.split(',').map(by_name).collect()
}
