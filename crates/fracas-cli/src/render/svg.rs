//! Drawings as inline SVG that fills whatever width it gets: positions in percent, letters and heights in pixels.
//!
//! So the same drawing is sharp on a phone, on a screen and on paper. Colours are classes; the page gives them values.

use std::fmt::Write as _;

use fracas_model::{
    report::{Judgement, Report, ServiceReport},
    units::Dur,
};

use super::{
    chart::{Chart, Glyph, Ink, Kind, Lane, Mark, Piece, tick, ticks},
    page::escape,
    words::{self, clock_utc, offset},
};

/// Ticks that always have a label, and ticks in all (the others are labelled where there is room).
const TICKS: (i64, i64) = (5, 11);
/// Characters of a lane's label that fit on a phone.
const LABEL: usize = 50;

/// Patterns that all drawings of a page share; they tell states apart without colour.
pub(super) fn patterns() -> &'static str {
    "<svg class=\"patterns\" width=\"0\" height=\"0\" aria-hidden=\"true\" focusable=\"false\"><defs>\
     <pattern id=\"p-down\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
     <rect class=\"f-back\" width=\"5\" height=\"5\"/><rect class=\"f-down\" width=\"2.6\" height=\"5\"/></pattern>\
     <pattern id=\"p-fault\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(-45)\">\
     <rect class=\"f-back\" width=\"5\" height=\"5\"/><rect class=\"f-fault\" width=\"2.6\" height=\"5\"/></pattern>\
     <pattern id=\"p-gap\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
     <rect class=\"f-back\" width=\"6\" height=\"6\"/><rect class=\"f-gap\" width=\"1.2\" height=\"6\"/></pattern>\
     <pattern id=\"p-unsure\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
     <rect class=\"f-back\" width=\"4\" height=\"4\"/><rect class=\"f-sure\" width=\"2\" height=\"4\"/></pattern>\
     </defs></svg>"
}

/// A drawing of a chart; `id` makes its parts' names unique on the page.
pub(super) fn timeline(report: &Report, chart: &Chart, id: &str, title: &str) -> String {
    let top = if chart.windows.is_empty() { 4 } else { 20 };
    let heights: Vec<i64> = chart.lanes.iter().map(|lane| height(lane.kind)).collect();
    let bottom = top + heights.iter().sum::<i64>();
    let axis_height = 34;
    let mut out = open(id, title, &chart.told(), bottom + axis_height);
    let place = |ns: i64| percent(ns, chart.from, chart.to);
    for window in &chart.windows {
        let (from, to) = (place(window.from), place(window.to));
        let _ = write!(
            out,
            "<rect class=\"window\" x=\"{from:.3}%\" y=\"0\" width=\"{:.3}%\" height=\"{bottom}\"/>\
             <text class=\"letter\" x=\"{:.3}%\" y=\"13\" text-anchor=\"middle\">{}</text>",
            to - from,
            f64::midpoint(from, to).clamp(1.5, 98.5),
            window.letter
        );
    }
    out += &axis(report, chart, top, bottom);
    if chart.gate && (chart.from..=chart.to).contains(&0) {
        let x = place(0);
        let _ = write!(out, "<line class=\"gate\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"{top}\" y2=\"{bottom}\"/>");
    }
    let mut y = top;
    for (lane, height) in chart.lanes.iter().zip(heights) {
        draw_lane(&mut out, lane, y, &place);
        y += height;
    }
    out + "</svg>"
}

fn open(id: &str, title: &str, told: &str, height: i64) -> String {
    format!(
        "<svg class=\"drawing\" xmlns=\"http://www.w3.org/2000/svg\" width=\"100%\" height=\"{height}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
        escape(title),
        escape(told)
    )
}

fn percent(ns: i64, from: i64, to: i64) -> f64 {
    ((ns - from) as f64 * 100.0 / (to - from).max(1) as f64).clamp(0.0, 100.0)
}

fn height(kind: Kind) -> i64 {
    match kind {
        Kind::Run => 40,
        Kind::Entry => 38,
        Kind::Strip => 44,
        Kind::Length => 34,
        Kind::Events => 36,
    }
}

/// Lines for all ticks; labels in two rows, offset and UTC, the minor ones only where there is room.
fn axis(report: &Report, chart: &Chart, top: i64, bottom: i64) -> String {
    let (major, step) = ticks(chart.from, chart.to, TICKS.0);
    let (all, fine) = ticks(chart.from, chart.to, TICKS.1);
    let minor: Vec<i64> = all.into_iter().filter(|at| !major.contains(at)).collect();
    // A mix of two steps would label uneven distances: the finer ones must divide the coarser.
    let minor = if step % fine == 0 { minor } else { Vec::new() };
    let mut out = String::new();
    let major = major.iter().map(|at| (at, "", step));
    for (at, class, step) in major.chain(minor.iter().map(|at| (at, " minor", fine))) {
        let x = percent(*at, chart.from, chart.to);
        let anchor = anchor(x);
        let _ = write!(
            out,
            "<line class=\"grid{class}\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"{top}\" y2=\"{}\"/>\
             <text class=\"tick{class} {anchor}\" x=\"{x:.3}%\" y=\"{}\">{}</text>",
            bottom + 4,
            bottom + 16,
            tick(*at, fine)
        );
        if step >= 1_000_000_000 {
            let clock = clock_utc(report, *at);
            let _ = write!(
                out,
                "<text class=\"clock{class} {anchor}\" x=\"{x:.3}%\" y=\"{}\">{}</text>",
                bottom + 30,
                clock.get(..8).unwrap_or_default()
            );
        }
    }
    let _ = write!(out, "<line class=\"axis\" x1=\"0\" x2=\"100%\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    out
}

/// How a label sits on its place: at the very ends inwards; near them inwards on a phone only, which the page sees to.
fn anchor(x: f64) -> &'static str {
    match x {
        ..2.5 => "start",
        2.5..7.0 => "middle near-start",
        7.0..93.0 => "middle",
        93.0..97.5 => "middle near-end",
        _ => "end",
    }
}

fn draw_lane(out: &mut String, lane: &Lane, y: i64, place: &dyn Fn(i64) -> f64) {
    let name: String = cut(&words::plain(&lane.name), LABEL);
    let room = LABEL.saturating_sub(name.chars().count() + 1);
    let more = cut(&words::plain(&lane.more), room);
    let sum = cut(&words::plain(&lane.sum), LABEL);
    // Where both do not fit on a phone, the sum gives way: it stands in the tables as well.
    let tight = if name.chars().count() + more.chars().count() + sum.chars().count() > LABEL { " roomy" } else { "" };
    let _ = write!(
        out,
        "\n<g class=\"lane\"><text class=\"label\" x=\"0\" y=\"{}\"><tspan class=\"name\">{}</tspan> {}</text>\
         <text class=\"sum{tight}\" x=\"100%\" y=\"{}\" text-anchor=\"end\">{}</text>",
        y + 12,
        escape(&name),
        escape(&more),
        y + 12,
        escape(&sum)
    );
    let middle = y + 25;
    if matches!(lane.kind, Kind::Run | Kind::Entry | Kind::Strip) {
        let _ = write!(out, "<line class=\"track\" x1=\"0\" x2=\"100%\" y1=\"{middle}\" y2=\"{middle}\"/>");
    }
    for piece in &lane.pieces {
        draw_piece(out, piece, middle, place);
    }
    for mark in &lane.marks {
        draw_mark(out, mark, middle, place);
    }
    *out += "</g>";
}

/// At most `most` characters; what is cut off is marked.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Class, height, and how far below the middle its own middle lies.
fn shape(ink: Ink) -> (&'static str, i64, i64) {
    match ink {
        Ink::Gate => ("gate-wait", 12, 0),
        Ink::Timeline => ("phase", 12, 0),
        Ink::Recovery => ("phase-recovery", 12, 0),
        Ink::Clearing => ("phase-undo", 12, 0),
        Ink::Wait => ("wait", 6, 0),
        Ink::Applying | Ink::Undoing => ("applying", 12, 0),
        Ink::Active => ("active", 12, 0),
        Ink::Unconfirmed => ("unconfirmed", 12, 0),
        Ink::Up => ("up", 4, 4),
        Ink::Changing => ("changing", 10, 1),
        Ink::Mixed => ("mixed", 14, 0),
        Ink::Down => ("down", 14, 0),
        Ink::Gap => ("gap", 14, 0),
        Ink::Outage => ("outage", 2, 11),
        Ink::Sure => ("sure", 10, 0),
        Ink::Unsure => ("unsure", 10, 0),
    }
}

fn draw_piece(out: &mut String, piece: &Piece, middle: i64, place: &dyn Fn(i64) -> f64) {
    let (class, height, below) = shape(piece.ink);
    let (from, to) = (place(piece.from), place(piece.to));
    let _ = write!(
        out,
        "<rect class=\"{class}\" x=\"{from:.3}%\" y=\"{}\" width=\"{:.3}%\" height=\"{height}\"",
        middle + below - height / 2,
        to - from
    );
    if piece.said.is_empty() {
        *out += "/>";
    } else {
        let _ = write!(out, "><title>{}</title></rect>", escape(&piece.said));
    }
    let named = matches!(piece.ink, Ink::Gate | Ink::Timeline | Ink::Recovery | Ink::Clearing);
    // A letter takes about 6 px: fits on a phone (358 px), on a wide screen (900 px), or nowhere.
    let needs = piece.said.len() as f64 * 6.0 + 10.0;
    let room = to - from;
    if named && room * 9.0 > needs {
        let roomy = if room * 3.58 > needs { "" } else { " roomy" };
        let _ = write!(
            out,
            "<text class=\"phase-name{roomy}\" x=\"{:.3}%\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(from, to),
            middle + 4,
            escape(&piece.said)
        );
    }
}

fn draw_mark(out: &mut String, mark: &Mark, middle: i64, place: &dyn Fn(i64) -> f64) {
    let x = place(mark.at);
    if mark.glyph == Glyph::Event {
        let (from, to) = (middle - 7, middle + 5);
        let _ = write!(out, "<line class=\"event\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"{from}\" y2=\"{to}\"/>");
        return;
    }
    let (class, path) = match mark.glyph {
        Glyph::Fired => ("fired", "M0 -9L6 0L0 9L-6 0Z"),
        Glyph::Trouble => ("trouble", "M-5 -5L5 5M5 -5L-5 5"),
        _ => ("undone", "M0 -9V9"),
    };
    let _ = write!(
        out,
        "<svg x=\"{x:.3}%\" y=\"{middle}\" width=\"1\" height=\"1\" overflow=\"visible\">\
         <path class=\"{class}\" d=\"{path}\"><title>{}</title></path></svg>",
        escape(&mark.said)
    );
}

/// The three intervals of a service against its objective; `None` when there is nothing to draw.
pub(super) fn intervals(service: &ServiceReport, id: &str) -> Option<String> {
    let three = words::three(service);
    let longest = three.iter().filter_map(|l| l.value).map(|i| i.hi.unwrap_or(i.lo).max(i.lo)).max();
    let (longest, rto) = (longest?, service.rto.unwrap_or(Dur::ZERO));
    let to = (longest.ns().max(rto.ns()) / 20).saturating_mul(23).max(1_000_000);
    let (top, row, axis_height) = (if service.rto.is_some() { 20 } else { 6 }, 38, 20);
    let bottom = top + row * 3;
    let told: Vec<String> = three.iter().map(|l| format!("{}: {}.", l.name, l.shown())).collect();
    let objective = service.rto.map_or_else(|| "No objective.".to_owned(), |rto| format!("Objective: {rto}."));
    let title = format!("Recovery of {} against its objective", service.service);
    let mut out = open(id, &title, &format!("{objective} {}", told.join(" ")), bottom + axis_height);
    let (all, step) = ticks(0, to, TICKS.0);
    for at in all {
        let x = percent(at, 0, to);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"{top}\" y2=\"{}\"/>\
             <text class=\"tick {}\" x=\"{x:.3}%\" y=\"{}\">{}</text>",
            bottom + 4,
            anchor(x),
            bottom + 16,
            tick(at, step).trim_start_matches('+')
        );
    }
    for (index, length) in three.iter().enumerate() {
        let y = top + row * index as i64;
        let _ = write!(
            out,
            "<text class=\"label\" x=\"0\" y=\"{}\"><tspan class=\"name\">{}</tspan>{}: {}</text>\
             <line class=\"track\" x1=\"0\" x2=\"100%\" y1=\"{}\" y2=\"{}\"/>",
            y + 14,
            length.name,
            if length.judged { " (judged)" } else { "" },
            escape(&length.shown()),
            y + 26,
            y + 26
        );
        let beyond = service.rto.map(|rto| percent(rto.ns(), 0, to));
        if let Some(x) = beyond {
            let _ = write!(
                out,
                "<rect class=\"beyond\" x=\"{x:.3}%\" y=\"{}\" width=\"{:.3}%\" height=\"12\"/>",
                y + 20,
                100.0 - x
            );
        }
        if let Some(value) = length.value {
            let class = if length.judged { judged(&service.judgement) } else { "plain" };
            let lo = percent(value.lo.ns(), 0, to);
            let hi = value.hi.map_or(100.0, |hi| percent(hi.ns(), 0, to));
            let _ = write!(
                out,
                "<rect class=\"least {class}\" x=\"0\" y=\"{}\" width=\"{lo:.3}%\" height=\"12\"/>\
                 <rect class=\"most {class}\" x=\"{lo:.3}%\" y=\"{}\" width=\"{:.3}%\" height=\"12\"/>",
                y + 20,
                y + 20,
                hi - lo
            );
        }
        if let Some(x) = beyond {
            let (from, until) = (y + 17, y + 35);
            let _ =
                write!(out, "<line class=\"objective\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"{from}\" y2=\"{until}\"/>");
        }
    }
    if let Some(rto) = service.rto {
        let x = percent(rto.ns(), 0, to);
        let _ = write!(
            out,
            "<text class=\"objective-name {}\" x=\"{x:.3}%\" y=\"13\">objective {rto}</text>",
            match x {
                ..12.0 => "start",
                12.0..88.0 => "middle",
                _ => "end",
            }
        );
    }
    Some(out + "</svg>")
}

fn judged(judgement: &Judgement) -> &'static str {
    match judgement {
        Judgement::Met { .. } => "met",
        Judgement::Missed { .. } => "missed",
        Judgement::Inconclusive { .. } => "inconclusive",
        Judgement::NotMeasured { .. } | Judgement::NoObjective => "plain",
    }
}

/// What the inks of a chart mean, those that occur.
pub(super) fn legend(charts: &[Chart]) -> String {
    const MEANINGS: &[(Ink, &str)] = &[
        (Ink::Wait, "a wait of the timeline"),
        (Ink::Applying, "fault being applied or undone"),
        (Ink::Active, "fault in effect"),
        (Ink::Unconfirmed, "not confirmed clean"),
        (Ink::Up, "up"),
        (Ink::Down, "down"),
        (Ink::Mixed, "up and down in turns, too short to draw singly"),
        (Ink::Changing, "changed somewhere in here"),
        (Ink::Gap, "nobody looked"),
        (Ink::Outage, "one outage, from impact to a recovery that lasted"),
        (Ink::Sure, "certain part of a length"),
        (Ink::Unsure, "a length ends somewhere in here"),
    ];
    let occurs = |ink: Ink| charts.iter().flat_map(|c| &c.lanes).flat_map(|l| &l.pieces).any(|p| p.ink == ink);
    let glyph = |glyph: Glyph| charts.iter().flat_map(|c| &c.lanes).flat_map(|l| &l.marks).any(|m| m.glyph == glyph);
    let swatch = |inner: &str, meaning: &str| {
        format!(
            "<li><svg class=\"swatch\" width=\"22\" height=\"18\" aria-hidden=\"true\" focusable=\"false\">{inner}</svg> \
             {meaning}</li>"
        )
    };
    let mut out = String::from("<ul class=\"legend\">");
    if glyph(Glyph::Fired) {
        out += &swatch("<path class=\"fired\" d=\"M11 0L17 9L11 18L5 9Z\"/>", "one-shot fault fired");
    }
    if glyph(Glyph::Trouble) {
        out += &swatch("<path class=\"trouble\" d=\"M6 4L16 14M16 4L6 14\"/>", "refused or failed");
    }
    for (ink, meaning) in MEANINGS.iter().filter(|(ink, _)| occurs(*ink)) {
        let (class, height, below) = shape(*ink);
        let y = if *ink == Ink::Outage { 8 } else { 9 + below - height / 2 };
        out +=
            &swatch(&format!("<rect class=\"{class}\" x=\"1\" y=\"{y}\" width=\"20\" height=\"{height}\"/>"), meaning);
    }
    if glyph(Glyph::Undone) {
        out += &swatch("<path class=\"undone\" d=\"M11 0V18\"/>", "undone and read back");
    }
    if charts.iter().any(|c| c.gate) {
        out += &swatch("<line class=\"gate\" x1=\"11\" x2=\"11\" y1=\"0\" y2=\"18\"/>", "steady state held: offset 0");
    }
    out + "</ul>"
}

/// From when to when a drawing goes, for its caption.
pub(super) fn span(report: &Report, chart: &Chart) -> String {
    let clock = |at| clock_utc(report, at).get(..8).unwrap_or_default().to_owned();
    format!("{} to {} ({} to {} UTC)", offset(chart.from), offset(chart.to), clock(chart.from), clock(chart.to))
}
