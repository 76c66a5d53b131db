//! Axes, grids and lines of one panel.

use std::fmt::Write as _;

use crate::figures::Figure;
use crate::store::Fallible;

pub(crate) const STYLE: &str = "
    text { font: 11px system-ui, sans-serif; fill: #24292f }
    .head { font-weight: 600; font-size: 14px }
    .panel { font-weight: 600; font-size: 12.5px }
    .tick { fill: #6a737d; font-size: 10px }
    .grid { stroke: #e4e8ec; stroke-width: 1 }
    .axis { stroke: #8c959f; stroke-width: 1 }
    .range { stroke-width: 1; opacity: 0.55 }
    .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 }
        .tick { fill: #9198a1 }
        .grid { stroke: #2b3138 }
        .axis { stroke: #656d76 }
    }";

const LEFT: f64 = 46.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 90.0;
const BOTTOM: f64 = 46.0;
/// Gridlines across, about.
const LINES: f64 = 5.0;

/// Where values lie on an axis: a share of its length.
pub(crate) struct Axis {
    from: f64,
    to: f64,
    is_logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// Logarithmic, with a tick a decade.
    pub(crate) fn decades(from: f64, to: f64) -> Self {
        let to = to.max(from * 10.0);
        let mut ticks = vec![10_f64.powf(from.log10().ceil())];
        while let Some(next) = ticks.last().map(|tick| tick * 10.0).filter(|next| *next <= to * 1.000_1) {
            ticks.push(next);
        }
        Self { from, to, is_logarithmic: true, ticks }
    }

    pub(crate) fn whole_decades(from: f64, to: f64) -> Self {
        Self::decades(10_f64.powf(from.log10().floor()), 10_f64.powf(to.log10().ceil()))
    }

    pub(crate) fn from_zero(to: f64) -> Self {
        let decade = 10_f64.powf((to / LINES).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * decade);
        let step = steps.into_iter().find(|step| to / step <= LINES).unwrap_or(to);
        let mut ticks = vec![0.0];
        while let Some(last) = ticks.last().copied().filter(|last| *last < to) {
            ticks.push(last + step);
        }
        Self { from: 0.0, to: ticks.last().copied().unwrap_or(to), is_logarithmic: false, ticks }
    }

    fn share(&self, value: f64) -> f64 {
        if self.is_logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }

    fn labels(&self) -> impl Iterator<Item = (f64, String)> {
        self.ticks.iter().map(|tick| (*tick, short(*tick)))
    }
}

/// A number as it stands at an axis.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        // Sums of steps are not exact.
        _ => format!("{}", (value * 1e4).round() / 1e4),
    }
}

pub(crate) struct Frame {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.share(value) * (self.height - BOTTOM - TOP)
    }

    /// The grid, and what its lines mean.
    pub(crate) fn grid(&self, svg: &mut String, unit: &str, size: &str) -> Fallible {
        let (left, right, bottom) = (LEFT, self.width - RIGHT, self.height - BOTTOM);
        writeln!(svg, r#"<text class="tick" x="14" y="{:.0}">{unit}</text>"#, TOP - 11.0)?;
        for (n, (tick, label)) in self.y.labels().enumerate() {
            let (y, class) = (self.y(tick), if n == 0 { "axis" } else { "grid" });
            writeln!(svg, r#"<line class="{class}" x1="{left:.0}" y1="{y:.1}" x2="{right:.0}" y2="{y:.1}"/>"#)?;
            let (x, y) = (left - 6.0, y + 3.5);
            writeln!(svg, r#"<text class="tick" x="{x:.0}" y="{y:.1}" text-anchor="end">{label}</text>"#)?;
        }
        for (tick, label) in self.x.labels() {
            let (x, end, y) = (self.x(tick), bottom + 4.0, bottom + 16.0);
            writeln!(svg, r#"<line class="axis" x1="{x:.1}" y1="{bottom:.0}" x2="{x:.1}" y2="{end:.0}"/>"#)?;
            writeln!(svg, r#"<text class="tick" x="{x:.1}" y="{y:.0}" text-anchor="middle">{label}</text>"#)?;
        }
        let (x, y) = (f64::midpoint(left, right), bottom + 32.0);
        Ok(writeln!(svg, r#"<text class="tick" x="{x:.0}" y="{y:.0}" text-anchor="middle">{size}</text>"#)?)
    }

    /// The medians, joined, and behind each its quartiles.
    pub(crate) fn line(&self, svg: &mut String, figures: &[&Figure], colour: &str) -> Fallible {
        let at = |figure: &Figure| (self.x(f64::from(figure.size)), self.y(figure.median));
        for figure in figures {
            let (x, low, high) = (at(figure).0, self.y(figure.low), self.y(figure.high));
            if low - high > 1.0 {
                writeln!(
                    svg,
                    r#"<line class="range" x1="{x:.1}" y1="{low:.1}" x2="{x:.1}" y2="{high:.1}" stroke="{colour}"/>"#
                )?;
            }
        }
        let points: Vec<String> =
            figures.iter().map(|figure| at(figure)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(svg, r#"<polyline class="line" points="{}" stroke="{colour}"/>"#, points.join(" "))?;
        for figure in figures {
            let (x, y) = at(figure);
            let Figure { series, size, unit, median, low, high, .. } = figure;
            writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"><title>{series}, {size}: {median:.2} {unit} ({low:.2} to {high:.2})</title></circle>"#
            )?;
        }
        Ok(())
    }
}

/// Up to two series a line, in columns.
pub(crate) fn legend(svg: &mut String, series: &[(&str, &str)]) -> Fallible {
    const COLUMN: f64 = 152.0;
    let (mut x, mut y) = (14.0, 43.0);
    for (n, (name, colour)) in series.iter().enumerate() {
        writeln!(svg, r#"<circle cx="{:.0}" cy="{:.0}" r="4" fill="{colour}"/>"#, x + 4.0, y - 4.0)?;
        writeln!(svg, r#"<text x="{:.0}" y="{y:.0}">{name}</text>"#, x + 13.0)?;
        (x, y) = if n % 2 == 0 { (14.0 + COLUMN, y) } else { (14.0, y + 17.0) };
    }
    Ok(())
}
