//! The figures as a picture: a panel a curve, the size on a logarithmic axis.

use std::fmt::Write as _;

use crate::drawing::{Axis, Frame, STYLE, legend};
use crate::figures::Figure;
use crate::store::Fallible;

/// A panel, and the colours of its series, which are readable on white and on black.
struct Panel {
    curve: &'static str,
    title: &'static str,
    /// The unit of the figures, above their axis.
    unit: &'static str,
    /// What grows, below its axis.
    size: &'static str,
    is_logarithmic: bool,
    series: &'static [(&'static str, &'static str)],
}

const BLUE: &str = "#1f7fd1";
const LIGHT_BLUE: &str = "#7db8ea";
const ORANGE: &str = "#cf5b28";
const LIGHT_ORANGE: &str = "#e5a34d";
const GREY: &str = "#84848c";
const LIGHT_GREY: &str = "#b0b0b8";

const PANELS: [Panel; 6] = [
    Panel {
        curve: "flush",
        title: "Rows in one transaction",
        unit: "µs a row",
        size: "rows",
        is_logarithmic: false,
        series: &[
            ("add, flush, commit", BLUE),
            ("its flush", LIGHT_BLUE),
            ("load, change, commit", ORANGE),
            ("their flush", LIGHT_ORANGE),
        ],
    },
    Panel {
        curve: "hits",
        title: "A hit in the identity map",
        unit: "ns a get",
        size: "live entities",
        is_logarithmic: false,
        series: &[
            ("get, random keys", BLUE),
            ("get, keys in order", LIGHT_BLUE),
            ("a bare hash map, random keys", GREY),
        ],
    },
    Panel {
        curve: "memory",
        title: "Memory of an entity",
        unit: "bytes an entity, all of it",
        size: "live entities",
        is_logarithmic: false,
        series: &[
            ("read", BLUE),
            // It lies on the line of those that were read.
            ("after commit", ""),
            ("changed", ORANGE),
            ("written, before commit", LIGHT_ORANGE),
        ],
    },
    Panel {
        curve: "threads",
        title: "Threads on eight connections",
        unit: "thousand transactions a second, all threads",
        size: "threads",
        is_logarithmic: false,
        series: &[("read", BLUE), ("read and change", ORANGE)],
    },
    Panel {
        curve: "wait",
        title: "The slowest of their transactions",
        unit: "ms, waits included",
        size: "threads",
        is_logarithmic: true,
        series: &[("read", BLUE), ("read and change", ORANGE)],
    },
    Panel {
        curve: "savepoints",
        title: "Savepoints in savepoints",
        unit: "µs a level, to open and commit",
        size: "levels",
        is_logarithmic: false,
        series: &[
            ("empty", BLUE),
            ("with a change", ORANGE),
            ("Diesel, empty", LIGHT_GREY),
            ("Diesel, with a change", GREY),
        ],
    },
];

const COLUMNS: usize = 3;
const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 300.0;
const HEAD: f64 = 50.0;

pub(crate) fn svg(figures: &[Figure]) -> Fallible<String> {
    let known = |figure: &Figure| {
        let panel = PANELS.iter().find(|panel| panel.curve == figure.curve);
        panel.is_some_and(|panel| panel.series.iter().any(|(name, _)| *name == figure.series))
    };
    if let Some(stranger) = figures.iter().find(|figure| !known(figure)) {
        return Err(format!("no panel shows {}, {}", stranger.curve, stranger.series).into());
    }
    let drawn: Vec<&Panel> =
        PANELS.iter().filter(|panel| figures.iter().any(|figure| figure.curve == panel.curve)).collect();
    if drawn.is_empty() {
        return Err("there are no figures to draw".into());
    }
    let place = |n: usize| -> Fallible<f64> { Ok(f64::from(u16::try_from(n)?)) };
    let width = place(drawn.len().min(COLUMNS))? * WIDTH;
    let height = place(drawn.len().div_ceil(COLUMNS))? * HEIGHT + HEAD;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n\
         <title>What a unit costs as the work grows</title>\n<style>{STYLE}\n</style>\n"
    );
    writeln!(
        svg,
        r#"<text class="head" x="14" y="22">What a unit costs as the work grows: where a line is level, the whole grows no faster than the work</text>"#
    )?;
    writeln!(
        svg,
        r#"<text class="tick" x="14" y="39">medians; thin upright lines are quartiles; a SQLite file, WAL, synchronous=NORMAL</text>"#
    )?;
    for (n, panel) in drawn.into_iter().enumerate() {
        let (left, top) = (place(n % COLUMNS)? * WIDTH, place(n / COLUMNS)? * HEIGHT + HEAD);
        writeln!(svg, r#"<g transform="translate({left:.0} {top:.0})">"#)?;
        let own: Vec<&Figure> = figures.iter().filter(|figure| figure.curve == panel.curve).collect();
        draw(&mut svg, panel, &own)?;
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn draw(svg: &mut String, panel: &Panel, figures: &[&Figure]) -> Fallible {
    let sizes = figures.iter().map(|figure| f64::from(figure.size));
    let (smallest, largest) = sizes.fold((f64::MAX, 1.0), |(least, most), size| (size.min(least), size.max(most)));
    let lowest = figures.iter().map(|figure| figure.low).fold(f64::MAX, f64::min);
    let highest = figures.iter().map(|figure| figure.high).fold(0.0, f64::max);
    let frame = Frame {
        width: WIDTH,
        height: HEIGHT,
        x: Axis::decades(smallest, largest),
        y: if panel.is_logarithmic { Axis::whole_decades(lowest, highest) } else { Axis::from_zero(highest) },
    };
    writeln!(svg, r#"<text class="panel" x="14" y="22">{}</text>"#, panel.title)?;
    let drawn: Vec<_> = panel.series.iter().copied().filter(|(_, colour)| !colour.is_empty()).collect();
    legend(svg, &drawn)?;
    frame.grid(svg, panel.unit, panel.size)?;
    // The first of the series lies on top.
    for (name, colour) in drawn.iter().rev() {
        let line: Vec<&Figure> = figures.iter().copied().filter(|figure| figure.series == *name).collect();
        frame.line(svg, &line, colour)?;
    }
    Ok(())
}
