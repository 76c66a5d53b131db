//! The figures: for people as they come, and in a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use diesel::prelude::*;

use crate::machine::{load_average, machine, versions};
use crate::options::Options;
use crate::store::{Conn, Fallible};

/// The crates that matter.
const CRATES: [&str; 3] = ["diesel", "hashbrown", "r2d2"];
const COLUMNS: &str = "curve\tseries\tsize\tunit\tmedian\tlow\thigh";

/// What a unit costs at one size.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) curve: String,
    pub(crate) series: String,
    pub(crate) size: u32,
    pub(crate) unit: String,
    /// Of the rounds, as are the quartiles.
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Figure {
    pub(crate) fn of(curve: &str, series: &str, size: u32, unit: &str, mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let last = rounds.len().saturating_sub(1);
        let at = |place: usize| rounds.get(place).copied().unwrap_or(f64::NAN);
        let (curve, series, unit) = (curve.to_owned(), series.to_owned(), unit.to_owned());
        Self { curve, series, size, unit, median: at(last / 2), low: at(last / 4), high: at((3 * last).div_ceil(4)) }
    }
}

/// What the rounds of a curve gave.
pub(crate) struct Rounds {
    curve: &'static str,
    unit: &'static str,
    cells: Vec<(&'static str, u32, Vec<f64>)>,
}

impl Rounds {
    pub(crate) fn new(curve: &'static str, unit: &'static str) -> Self {
        Self { curve, unit, cells: Vec::new() }
    }

    pub(crate) fn note(&mut self, series: &'static str, size: u32, value: f64) {
        match self.cells.iter_mut().find(|(name, n, _)| *name == series && *n == size) {
            Some((.., values)) => values.push(value),
            None => self.cells.push((series, size, vec![value])),
        }
    }

    /// The curves one after the other.
    pub(crate) fn figures(self) -> Vec<Figure> {
        let mut order: Vec<&str> = Vec::new();
        for (series, ..) in &self.cells {
            if !order.contains(series) {
                order.push(series);
            }
        }
        let place = |series: &str| order.iter().position(|name| *name == series);
        let mut cells = self.cells;
        cells.sort_by_key(|(series, size, _)| (place(series), *size));
        let figure = |(series, size, values)| Figure::of(self.curve, series, size, self.unit, values);
        cells.into_iter().map(figure).collect()
    }
}

/// Prints figures as they are measured, and saves them at the end.
pub(crate) struct Report {
    head: String,
    figures: Vec<Figure>,
    save: Option<PathBuf>,
}

impl Report {
    pub(crate) fn begin(options: &Options) -> Fallible<Self> {
        let mut head = String::new();
        if let Some(date) = &options.date {
            writeln!(head, "# date: {date}")?;
        }
        let crates = versions(include_str!("../../Cargo.lock"), &CRATES).join(", ");
        writeln!(head, "# SQLite {}, WAL, synchronous=NORMAL; {crates}", sqlite_version()?)?;
        writeln!(head, "# machine: {}; load at the start: {}", machine(), load_average())?;
        if options.quick {
            writeln!(head, "# --quick: no word on speed")?;
        }
        print!("{head}");
        Ok(Self { head, figures: Vec::new(), save: options.save.clone() })
    }

    /// A curve, for people in these words.
    pub(crate) fn curve(&mut self, what: &str, figures: Vec<Figure>) {
        let Some(first) = figures.first() else { return };
        self.heading(&first.curve, what);
        figures.into_iter().for_each(|figure| self.add(figure));
    }

    fn heading(&self, curve: &str, what: &str) {
        println!("\n{curve}: {what}\n{:<32} {:>9} {:>12} {:>22}", "", "size", "median", "quartiles");
    }

    fn add(&mut self, figure: Figure) {
        let Figure { series, size, unit, median, low, high, .. } = &figure;
        println!("{series:<32} {size:>9} {median:>12.3} {low:>10.3} - {high:<10.3} {unit}");
        self.figures.push(figure);
    }

    pub(crate) fn end(self) -> Fallible {
        let end = format!("# load at the end: {}", load_average());
        println!("\n{end}");
        let Some(file) = self.save else { return Ok(()) };
        let mut text = format!("{}{end}\n{COLUMNS}\n", self.head);
        for Figure { curve, series, size, unit, median, low, high } in &self.figures {
            writeln!(text, "{curve}\t{series}\t{size}\t{unit}\t{median:.4}\t{low:.4}\t{high:.4}")?;
        }
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(file, text)?)
    }
}

pub(crate) fn load(file: &Path) -> Fallible<Vec<Figure>> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && *line != COLUMNS);
    lines.map(|line| parse(line).ok_or_else(|| format!("{name}: not a line of figures: {line}").into())).collect()
}

fn parse(line: &str) -> Option<Figure> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [curve, series, size, unit, median, low, high] = fields[..] else { return None };
    Some(Figure {
        curve: curve.to_owned(),
        series: series.to_owned(),
        size: size.parse().ok()?,
        unit: unit.to_owned(),
        median: median.parse().ok()?,
        low: low.parse().ok()?,
        high: high.parse().ok()?,
    })
}

fn sqlite_version() -> Fallible<String> {
    let mut conn = Conn::establish(":memory:")?;
    Ok(diesel::dsl::sql::<diesel::sql_types::Text>("SELECT sqlite_version()").get_result(&mut conn)?)
}
