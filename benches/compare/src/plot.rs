//! The figures as a picture: a panel a backend, a group of bars a work, on a logarithmic scale on which raw is 1.

use std::fmt::Write as _;

use crate::report::Saved;
use crate::work::{Fallible, Work};

/// Names in the files, what the legend says, and a colour that is readable on white and on black.
const CONTENDERS: [(&str, &str, &str); 7] = [
    ("session", "session", "#1f7fd1"),
    ("session, autocommit", "session, autocommit (W2) or bulk_insert (W3)", "#7db8ea"),
    ("session, bulk_insert", "", "#7db8ea"),
    ("diesel tuned", "Diesel, tuned", "#d99a1c"),
    ("diesel naive", "Diesel, naive", "#cf5b28"),
    ("SeaORM", "SeaORM", "#84848c"),
    ("SeaORM insert_many", "SeaORM insert_many (W3)", "#b0b0b8"),
];
const BACKENDS: [(&str, &str); 3] = [("sqlite", "SQLite"), ("postgres", "PostgreSQL"), ("mysql", "MariaDB")];
const TICKS: [f64; 8] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

const PANEL: f64 = 330.0;
const MARGIN: f64 = 14.0;
const TOP: f64 = 92.0;
/// The room for the figure behind the longest bar.
const FIGURE: f64 = 40.0;
const BAR: f64 = 11.0;
const STEP: f64 = 13.0;
const HEADING: f64 = 18.0;
const BETWEEN: f64 = 8.0;
const SMALLEST: f64 = 0.35;

const STYLE: &str = "
    text { font: 11px system-ui, sans-serif; fill: #24292f }
    .head { font-weight: 600; font-size: 14px }
    .work { font-weight: 600 }
    .tick { fill: #6a737d; font-size: 10px }
    line { stroke: #d0d7de; stroke-width: 1 }
    .raw { stroke: #24292f; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 }
        .tick { fill: #9198a1 }
        line { stroke: #3d444d }
        .raw { stroke: #e6edf3 }
    }";

/// Where ratios lie in a panel.
struct Scale {
    largest: f64,
}

impl Scale {
    fn x(&self, ratio: f64) -> f64 {
        let width = PANEL - 2.0 * MARGIN - FIGURE;
        (ratio.max(SMALLEST) / SMALLEST).ln() / (self.largest / SMALLEST).ln() * width
    }
}

pub fn svg(files: &[Saved]) -> Fallible<String> {
    let panels: Vec<(&str, &Saved)> = BACKENDS
        .iter()
        .filter_map(|(backend, title)| Some((*title, files.iter().find(|file| file.backend == *backend)?)))
        .collect();
    if panels.is_empty() {
        return Err("no file holds figures of a backend that is known".into());
    }
    let shown = |file: &Saved| {
        file.rows.iter().filter(|row| index(&row.contender).is_some()).map(|row| row.ratio).fold(2.0, f64::max)
    };
    let scale = Scale { largest: panels.iter().map(|(_, file)| shown(file)).fold(2.0, f64::max) };
    let mut body = String::new();
    let mut bottom = TOP;
    for ((title, file), n) in panels.iter().zip(0_u8..) {
        let left = f64::from(n) * PANEL + MARGIN;
        writeln!(body, r#"<g transform="translate({left:.0} 0)">"#)?;
        writeln!(body, r#"<text class="head" x="0" y="{:.0}">{title}</text>"#, TOP - 22.0)?;
        let (bars, end) = bars(file, &scale)?;
        ticks(&mut body, &scale, end)?;
        body.push_str(&bars);
        body.push_str("</g>\n");
        bottom = bottom.max(end);
    }
    let width = PANEL * f64::from(u8::try_from(panels.len())?);
    let height = bottom + 26.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n\
         <title>Time as a multiple of the raw driver's, by workload and backend</title>\n<style>{STYLE}\n</style>\n"
    );
    writeln!(
        svg,
        r#"<text class="head" x="{MARGIN}" y="20">Time as a multiple of the raw driver's (the line at 1); shorter is better, the scale is logarithmic</text>"#
    )?;
    legend(&mut svg)?;
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn index(contender: &str) -> Option<usize> {
    CONTENDERS.iter().position(|(name, ..)| *name == contender)
}

fn legend(svg: &mut String) -> Fallible {
    let mut x = MARGIN;
    for (_, label, colour) in CONTENDERS.iter().filter(|(_, label, _)| !label.is_empty()) {
        writeln!(svg, r#"<rect x="{x:.0}" y="34" width="11" height="11" rx="2" fill="{colour}"/>"#)?;
        writeln!(svg, r#"<text x="{:.0}" y="43.5">{label}</text>"#, x + 16.0)?;
        x += 40.0 + 5.9 * f64::from(u8::try_from(label.len())?);
    }
    Ok(())
}

/// The lines behind the bars of a group, which leave its heading free.
fn grid(body: &mut String, scale: &Scale, from: f64, to: f64) -> Fallible {
    for tick in TICKS.into_iter().filter(|tick| *tick <= scale.largest) {
        let x = scale.x(tick);
        #[expect(clippy::float_cmp, reason = "one of the ticks")]
        let class = if tick == 1.0 { r#" class="raw""# } else { "" };
        writeln!(body, r#"<line{class} x1="{x:.1}" y1="{from:.0}" x2="{x:.1}" y2="{to:.0}"/>"#)?;
    }
    Ok(())
}

fn ticks(body: &mut String, scale: &Scale, end: f64) -> Fallible {
    for tick in TICKS.into_iter().filter(|tick| *tick <= scale.largest) {
        let x = scale.x(tick);
        writeln!(body, r#"<text class="tick" x="{x:.1}" y="{:.0}" text-anchor="middle">{tick}</text>"#, end + 13.0)?;
    }
    Ok(())
}

/// The groups of a panel, and where they end.
fn bars(file: &Saved, scale: &Scale) -> Fallible<(String, f64)> {
    let mut text = String::new();
    let mut y = TOP;
    for work in Work::ALL {
        let mut rows: Vec<_> = file
            .rows
            .iter()
            .filter(|row| row.work == work.name())
            .filter_map(|row| Some((index(&row.contender)?, row)))
            .collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort_by_key(|(n, _)| *n);
        let raw = file.rows.iter().find(|row| row.work == work.name()).map_or(0.0, |row| row.median);
        let unit = work.unit();
        writeln!(
            text,
            r#"<text class="work" x="0" y="{:.1}">{} {}<tspan class="tick" font-weight="400">  raw {raw:.1} µs/{unit}</tspan></text>"#,
            y + 11.0,
            if work == Work::W1Full { "W1" } else { work.name() },
            work.title()
        )?;
        y += HEADING;
        let lines = f64::from(u8::try_from(rows.len())?);
        grid(&mut text, scale, y - 2.0, y + lines * STEP)?;
        for (n, row) in rows {
            let (from, to) = (scale.x(row.ratio.min(1.0)), scale.x(row.ratio.max(1.0)));
            let (_, _, colour) = CONTENDERS[n];
            writeln!(
                text,
                r#"<rect x="{from:.1}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="1.5" fill="{colour}"><title>{}: {:.2}</title></rect>"#,
                (to - from).max(1.5),
                row.contender,
                row.ratio
            )?;
            let figure = if row.ratio < 9.95 { format!("{:.2}", row.ratio) } else { format!("{:.0}", row.ratio) };
            writeln!(text, r#"<text x="{:.1}" y="{:.1}">{figure}</text>"#, to + 4.0, y + 9.5)?;
            y += STEP;
        }
        y += BETWEEN;
    }
    Ok((text, y))
}
