//! The plot of a trend as simple shapes, and the two ways to write them: SVG for pages, PNG for chats and mails.
//!
//! It computes no number: positions follow from the trend's points, percentiles and change.

mod raster;
mod vector;

use fracas_model::{
    report::Judgement,
    trend::{ChangeWord, Point, Trend},
    units::Dur,
};

pub(super) use self::{raster::png, vector::svg};
use super::{chart::ticks, words};
use crate::times;

/// Size of one plot.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
/// Room around the field: left for lengths, below for days.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 44.0;
/// Lengths that are written at the side, at most.
const TICKS: i64 = 6;
/// Wider than this no bar is drawn, however few the runs.
const WIDEST: f64 = 22.0;

/// What a colour stands for; both writers know the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// The paper.
    Paper,
    /// Letters.
    Ink,
    /// Less important letters and lines.
    Faint,
    /// Where the median lies with 95 % confidence.
    Band,
    /// The compared runs.
    Later,
    /// Objective met.
    Met,
    /// Objective missed.
    Missed,
    /// Neither.
    Open,
}

impl Paint {
    /// Red, green, blue. Told apart by brightness too.
    fn rgb(self) -> [u8; 3] {
        match self {
            Self::Paper => [0xff, 0xff, 0xff],
            Self::Ink => [0x1c, 0x1c, 0x22],
            Self::Faint => [0xb8, 0xb8, 0xc0],
            Self::Band => [0xe3, 0xea, 0xf6],
            Self::Later => [0xfb, 0xf0, 0xd2],
            Self::Met => [0x1d, 0x7a, 0x4b],
            Self::Missed => [0xb3, 0x26, 0x1e],
            Self::Open => [0x5f, 0x63, 0x72],
        }
    }
}

/// One shape, in pixels from the upper left corner.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Filled.
    Box { x: f64, y: f64, width: f64, height: f64, paint: Paint, said: String },
    /// Upright or level, one pixel wide; `dashed` has gaps.
    Line { from: (f64, f64), to: (f64, f64), paint: Paint, dashed: bool },
    /// A triangle that points upwards: it goes on beyond.
    Beyond { x: f64, y: f64, size: f64, paint: Paint },
    /// A cross: nothing to show.
    Cross { x: f64, y: f64, size: f64, paint: Paint },
    /// Letters; `x` is where they begin, or end for those `to_the_left`.
    Text { x: f64, y: f64, text: String, paint: Paint, to_the_left: bool },
}

/// Shapes and the size of what they stand on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawing {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}

/// Plots below each other; an empty one says so.
pub(super) fn drawing(trends: &[Trend]) -> Drawing {
    let mut shapes = Vec::new();
    for (number, trend) in trends.iter().enumerate() {
        one(trend, number as f64 * HEIGHT, &mut shapes);
    }
    let mut height = HEIGHT * trends.len() as f64;
    if trends.is_empty() {
        height = 60.0;
        shapes.push(text(16.0, 36.0, "no finished run looked at a service", Paint::Ink));
    }
    let names: Vec<&str> = trends.iter().map(|trend| trend.service.as_str()).collect();
    Drawing { width: WIDTH, height, title: format!("Recovery over runs: {}", names.join(", ")), shapes }
}

fn text(x: f64, y: f64, text: impl Into<String>, paint: Paint) -> Shape {
    Shape::Text { x, y, text: text.into(), paint, to_the_left: false }
}

/// Where lengths and runs lie in one plot.
struct Field {
    top: f64,
    bottom: f64,
    longest_ns: f64,
    step: f64,
}

impl Field {
    fn y(&self, length: Dur) -> f64 {
        let share = (length.ns() as f64 / self.longest_ns).clamp(0.0, 1.0);
        self.bottom - share * (self.bottom - self.top)
    }

    fn x(&self, number: usize) -> f64 {
        LEFT + (number as f64 + 0.5) * self.step
    }
}

fn one(trend: &Trend, top: f64, shapes: &mut Vec<Shape>) {
    let lengths = trend.points.iter().filter_map(|point| point.length);
    let shown = lengths
        .map(|length| length.hi.unwrap_or(length.lo).ns())
        .chain(trend.points.last().and_then(|p| p.rto).map(Dur::ns));
    let longest = shown.max().unwrap_or(0).max(1_000_000);
    let step = (WIDTH - LEFT - RIGHT) / trend.points.len().max(1) as f64;
    let longest_ns = longest as f64 * 1.15;
    let field = Field { top: top + TOP, bottom: top + HEIGHT - BOTTOM, longest_ns, step };
    heading(trend, top, shapes);
    marked(trend, &field, shapes);
    axes(trend, &field, shapes);
    let width = (step * 0.6).clamp(2.0, WIDEST);
    for (number, point) in trend.points.iter().enumerate() {
        bar(point, field.x(number), width, &field, shapes);
    }
}

fn heading(trend: &Trend, top: f64, shapes: &mut Vec<Shape>) {
    let names = format!("{}: recovery in {}", trend.service, trend.experiments.join(", "));
    shapes.push(text(16.0, top + 22.0, words::plain(&names), Paint::Ink));
    let median = trend.percentiles.first().and_then(|one| one.of_runs);
    let median = median.map(|median| format!(", median {median}")).unwrap_or_default();
    let counts = format!("n = {}, {} cut short{median}", trend.n, trend.censored);
    shapes.push(text(16.0, top + 40.0, counts, Paint::Open));
    if let Some(change) = &trend.change {
        let paint = if change.word == ChangeWord::Slower { Paint::Missed } else { Paint::Open };
        shapes.push(text(16.0, top + 56.0, words::plain(&change.why), paint));
    }
}

/// The compared runs, where the median lies, and the objective; all behind the bars.
fn marked(trend: &Trend, field: &Field, shapes: &mut Vec<Shape>) {
    let right = WIDTH - RIGHT;
    if let Some(change) = &trend.change {
        let later = |point: &Point| change.later.contains(&point.run);
        for (number, _) in trend.points.iter().enumerate().filter(|(_, point)| later(point)) {
            let (x, height) = (field.x(number) - field.step / 2.0, field.bottom - field.top);
            let said = "compared".to_owned();
            shapes.push(Shape::Box { x, y: field.top, width: field.step, height, paint: Paint::Later, said });
        }
    }
    let Some(median) = trend.percentiles.first() else { return };
    if let (Some(low), Some(high)) = (median.at_least, median.at_most) {
        let (y, low) = (field.y(high), field.y(low));
        let said = "the median lies here with 95 % confidence".to_owned();
        let height = (low - y).max(1.0);
        shapes.push(Shape::Box { x: LEFT, y, width: right - LEFT, height, paint: Paint::Band, said });
    }
    if let Some(rto) = trend.points.last().and_then(|point| point.rto) {
        let y = field.y(rto);
        shapes.push(Shape::Line { from: (LEFT, y), to: (right, y), paint: Paint::Missed, dashed: true });
        shapes.push(Shape::Text {
            x: right - 4.0,
            y: y - 4.0,
            text: format!("objective {rto}"),
            paint: Paint::Missed,
            to_the_left: true,
        });
    }
}

fn axes(trend: &Trend, field: &Field, shapes: &mut Vec<Shape>) {
    for at in ticks(0, field.longest_ns as i64, TICKS).0 {
        let length = Dur::from_ns(at);
        let y = field.y(length);
        if at > 0 {
            shapes.push(Shape::Line { from: (LEFT, y), to: (WIDTH - RIGHT, y), paint: Paint::Faint, dashed: true });
        }
        let (x, text) = (LEFT - 6.0, length.human());
        shapes.push(Shape::Text { x, y: y + 4.0, text, paint: Paint::Open, to_the_left: true });
    }
    let (left, right) = ((LEFT, field.bottom), (WIDTH - RIGHT, field.bottom));
    shapes.push(Shape::Line { from: left, to: right, paint: Paint::Ink, dashed: false });
    let day = |point: &Point| times::utc(point.started_wall_ns).get(..16).unwrap_or_default().replace('T', " ");
    if let Some(first) = trend.points.first() {
        shapes.push(text(LEFT, field.bottom + 18.0, day(first), Paint::Open));
    }
    if let Some(last) = trend.points.last().filter(|_| trend.points.len() > 1) {
        let (x, y, text) = (WIDTH - RIGHT, field.bottom + 18.0, format!("{} UTC", day(last)));
        shapes.push(Shape::Text { x, y, text, paint: Paint::Open, to_the_left: true });
    }
    let legend = "bar: bounds of the length; arrow: cut short, longer than seen; cross: no fault took effect";
    shapes.push(text(LEFT, field.bottom + 34.0, legend, Paint::Open));
}

fn bar(point: &Point, x: f64, width: f64, field: &Field, shapes: &mut Vec<Shape>) {
    let paint = match point.judgement {
        Judgement::Met { .. } => Paint::Met,
        Judgement::Missed { .. } => Paint::Missed,
        _ => Paint::Open,
    };
    let Some(length) = point.length else {
        shapes.push(Shape::Cross { x, y: field.bottom - 6.0, size: 6.0, paint: Paint::Open });
        return;
    };
    let said = words::plain(&format!("run {}: {length}, {}", point.run, words::judgement_name(&point.judgement)));
    let low = field.y(length.lo);
    // What would be thinner than three pixels is drawn three pixels high.
    let high = length.hi.map_or(field.top + 8.0, |hi| field.y(hi)).min(low - 3.0);
    shapes.push(Shape::Box { x: x - width / 2.0, y: high, width, height: low - high, paint, said });
    if length.hi.is_none() {
        shapes.push(Shape::Beyond { x, y: field.top, size: 8.0, paint });
    }
}
