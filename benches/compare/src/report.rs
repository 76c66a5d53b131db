//! The figures for people, in a file, and beside those of an earlier run.

use std::fmt::Write as _;
use std::path::Path;

use crate::machine::{load_average, machine, versions};
use crate::measure::Measured;
use crate::options::Options;
use crate::work::{Fallible, Work};

pub const TABLE_HEAD: &str = "work  contender                         median us          ratio       quartiles";
const COLUMNS: &str = "backend\twork\tcontender\tunit\tmedian_us\tratio\tlow\thigh";
/// The crates that matter.
const CRATES: [&str; 8] = ["diesel", "r2d2", "rusqlite", "libpq", "postgres", "mysql", "sea-orm", "sqlx"];
/// A ratio that changed by less is the same.
const SAME: f64 = 0.02;

/// The figures of a file.
#[derive(Debug)]
pub struct Saved {
    pub backend: String,
    pub rows: Vec<Measured>,
}

/// What the figures depend on: sizes, versions, the machine.
pub fn head(backend: &str, version: &str, options: &Options) -> Fallible<String> {
    let sizes = options.sizes();
    let mut head = String::new();
    if let Some(date) = &options.date {
        writeln!(head, "# date: {date}")?;
    }
    let crates = versions(include_str!("../Cargo.lock"), &CRATES).join(", ");
    writeln!(head, "# {backend}: {version}; {crates}")?;
    writeln!(head, "# machine: {}; load at the start: {}", machine(), load_average())?;
    if let Some(note) = &options.note {
        writeln!(head, "# {note}")?;
    }
    if let Some(rounds) = options.rounds {
        writeln!(head, "# rounds: {rounds}")?;
    }
    writeln!(
        head,
        "# {} people, W3 inserts {} rows, W4 changes all people, W5 makes {} families; contenders that send a row at a \
         time make a tenth of the rows of W3, and SeaORM a tenth of the cycles and families",
        sizes.people, sizes.notes, sizes.families
    )?;
    Ok(head)
}

pub fn table(rows: &[Measured]) -> String {
    let mut text = String::new();
    if let Some(work) = rows.first().and_then(|row| Work::by_name(&row.work)) {
        _ = writeln!(text, "{}: {}", work.name(), work.title());
    }
    for row in rows {
        _ = writeln!(
            text,
            "{:<4}  {:<32}  {:>9.2} / {:<6} {:>7.3}   {:>5.3} - {:>5.3}",
            row.work, row.contender, row.median, row.unit, row.ratio, row.low, row.high
        );
    }
    text
}

pub fn save(file: &Path, head: &str, backend: &str, rows: &[Measured]) -> Fallible {
    let mut text = format!("{head}{COLUMNS}\n");
    for row in rows {
        writeln!(
            text,
            "{backend}\t{}\t{}\t{}\t{:.3}\t{:.4}\t{:.4}\t{:.4}",
            row.work, row.contender, row.unit, row.median, row.ratio, row.low, row.high
        )?;
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(file, text)?)
}

pub fn load(file: &Path) -> Fallible<Saved> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let mut backend = String::new();
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && *line != COLUMNS) {
        let bad = || format!("{name}: not a line of figures: {line}");
        let fields: Vec<&str> = line.split('\t').collect();
        let [of, work, contender, unit, figures @ ..] = fields.as_slice() else { return Err(bad().into()) };
        let figures: Vec<f64> =
            figures.iter().map(|figure| figure.parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
        let [median, ratio, low, high] = figures[..] else { return Err(bad().into()) };
        backend = (*of).to_owned();
        let (work, contender, unit) = ((*work).to_owned(), (*contender).to_owned(), (*unit).to_owned());
        rows.push(Measured { work, contender, unit, median, ratio, low, high });
    }
    Ok(Saved { backend, rows })
}

/// How each ratio changed since. It is worse, or better, if each median lies outside the other's quartiles.
pub fn against(saved: &Saved, rows: &[Measured]) -> String {
    let mut text = format!(
        "\nagainst the file, {}\nwork  contender                            then     now  change\n",
        saved.backend
    );
    let mut worse = 0;
    for new in rows {
        let Some(old) = saved.rows.iter().find(|old| old.work == new.work && old.contender == new.contender) else {
            _ = writeln!(text, "{:<4}  {:<32}           {:>7.3}  new", new.work, new.contender, new.ratio);
            continue;
        };
        let change = new.ratio / old.ratio - 1.0;
        let verdict = if change > SAME && new.ratio > old.high && old.ratio < new.low {
            worse += 1;
            "  WORSE"
        } else if change < -SAME && new.ratio < old.low && old.ratio > new.high {
            "  better"
        } else {
            ""
        };
        _ = writeln!(
            text,
            "{:<4}  {:<32}  {:>7.3} {:>7.3} {:>+6.1} %{verdict}",
            new.work,
            new.contender,
            old.ratio,
            new.ratio,
            change * 100.0
        );
    }
    _ = writeln!(text, "{worse} worse by more than the noise");
    text
}
