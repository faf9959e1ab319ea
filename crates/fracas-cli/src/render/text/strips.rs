//! A drawing of the run in letters, for terminals and for the code block of a Markdown report.

use fracas_model::report::Report;

use super::Style;
use crate::{
    live::span::{Line, Style as Ink},
    render::{
        chart::{Chart, Glyph, Ink as Piece, Kind, Lane, tick, ticks},
        words::plain,
    },
};

/// Most columns a strip takes.
const CELLS: usize = 120;

/// One line per entry and vantage over one axis, then what the letters mean.
pub(in crate::render) fn strips(report: &Report, chart: &Chart, style: Style) -> String {
    let width = style.width.max(40);
    let lanes: Vec<&Lane> = chart.lanes.iter().filter(|l| matches!(l.kind, Kind::Entry | Kind::Strip)).collect();
    let label = lanes.iter().map(|l| Line::new().with(Ink::Plain, title(l)).width()).max().unwrap_or(0).min(width / 3);
    let cells = (width - label - 2).clamp(10, CELLS);
    let mut out = String::new();
    let mut write = |line: Line| out += &format!("{}\n", line.render(style.colour).trim_end());
    for lane in &lanes {
        let mut line = Line::new().with(Ink::Bold, title(lane)).cut(label).pad(label + 2);
        let shown = |column| {
            let (letter, glyph, ink) = cell(chart, lane, column, cells);
            (if style.colour { glyph } else { letter }, ink)
        };
        let columns: Vec<(&str, Ink)> = (0..cells).map(shown).collect();
        for run in columns.chunk_by(|a, b| a.1 == b.1) {
            line = line.with(run[0].1, run.iter().map(|(sign, _)| *sign).collect::<String>());
        }
        write(line);
    }
    write(axis(chart, label + 2, cells));
    let gate = if report.times.gate_passed { ", 0 is the gate" } else { "" };
    let key = if style.colour {
        format!("█ up or in effect, ▁ down, ▄ both, · nobody looked, ◆ fired, ▒ applying or undoing{gate}")
    } else {
        format!("o up, x down, m both, ? nobody looked, # in effect, ! fired, - applying or undoing{gate}")
    };
    write(Line::new().with(Ink::Dim, key).cut(width));
    out
}

fn title(lane: &Lane) -> String {
    plain(&format!("{} {}", lane.name, lane.host)).trim_end().to_owned()
}

/// Letter, glyph and colour of one cell: the gravest of what lies in it.
fn cell(chart: &Chart, lane: &Lane, column: usize, cells: usize) -> (&'static str, &'static str, Ink) {
    let at = |column: usize| chart.from + ((chart.to - chart.from) as f64 * column as f64 / cells as f64) as i64;
    let (from, to) = (at(column), at(column + 1));
    let here = |from_ns: i64, to_ns: i64| from_ns < to && (to_ns > from || from_ns >= from);
    if lane.marks.iter().any(|m| m.glyph == Glyph::Fired && here(m.at, m.at)) {
        return ("!", "◆", Ink::Red);
    }
    if lane.marks.iter().any(|m| m.glyph == Glyph::Trouble && here(m.at, m.at)) {
        return ("X", "X", Ink::Red);
    }
    let inks: Vec<Piece> =
        lane.pieces.iter().filter(|p| p.ink != Piece::Outage && here(p.from, p.to)).map(|p| p.ink).collect();
    let any = |ink: Piece| inks.contains(&ink);
    if any(Piece::Gap) {
        return ("?", "·", Ink::Dim);
    }
    if any(Piece::Mixed) || any(Piece::Up) && (any(Piece::Down) || any(Piece::Changing)) {
        return ("m", "▄", Ink::Yellow);
    }
    match inks.iter().max() {
        Some(Piece::Down | Piece::Changing) => ("x", "▁", Ink::Red),
        Some(Piece::Up) => ("o", "█", Ink::Green),
        Some(Piece::Active) => ("#", "█", Ink::Red),
        Some(Piece::Unconfirmed) => ("?", "?", Ink::Red),
        Some(Piece::Applying | Piece::Undoing) if any(Piece::Active) => ("#", "█", Ink::Red),
        Some(Piece::Applying | Piece::Undoing) => ("-", "▒", Ink::Yellow),
        Some(Piece::Wait) => ("-", "─", Ink::Dim),
        _ => (" ", " ", Ink::Plain),
    }
}

fn axis(chart: &Chart, indent: usize, cells: usize) -> Line {
    let (ticks, step) = ticks(chart.from, chart.to, (cells / 12).max(2) as i64);
    let mut line = Line::new().pad(indent);
    for at in ticks {
        let column = ((at - chart.from) as f64 / (chart.to - chart.from) as f64 * cells as f64) as usize + indent;
        let label = format!("|{}", tick(at, step));
        if column >= line.width() && column + label.len() <= indent + cells {
            line = line.pad(column).with(Ink::Dim, label);
        }
    }
    line
}
