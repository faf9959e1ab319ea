//! The lanes of a drawing, filled from the report. It places what is known and computes no length.

use fracas_model::report::{EntryReport, Episode, ItemReport, ItemStep, ProbeReport, Report, Seen};

use super::{Glyph, Ink, Kind, Lane, Mark, Piece, Window, counted, end_of, moment};
use crate::{
    render::words::{asked, offset, proof},
    words::count,
};

/// Hosts of one entry drawn one by one; the others share a lane.
const HOSTS: usize = 10;
/// Vantages drawn at most.
const VANTAGES: usize = 24;
/// Pieces shorter than the range divided by this are joined with their like.
const GRAIN: i64 = 600;

/// All lanes of a whole run.
pub(super) fn whole(report: &Report, from: i64, to: i64) -> Vec<Lane> {
    let mut lanes = vec![run(report)];
    lanes.extend(report.entries.iter().flat_map(|entry| entry_lanes(report, entry, to)));
    lanes.extend(strips(report, from, to, true));
    lanes.push(events(report));
    clipped(lanes, from, to)
}

/// The lanes of a window.
pub(super) fn closer(report: &Report, window: &Window) -> Vec<Lane> {
    let (from, to) = (window.from, window.to);
    let end = report.times.last_ns;
    let mut lanes: Vec<Lane> = report.entries.iter().flat_map(|entry| entry_lanes(report, entry, end)).collect();
    lanes = clipped(lanes, from, to);
    lanes.retain(|lane| !lane.pieces.is_empty() || !lane.marks.is_empty());
    let speaks = |p: &&ProbeReport| window.about.1.is_none() || p.service == window.about.1;
    let only = window.about.1.as_ref().map(ToString::to_string);
    let mut strips = clipped(strips(report, from, to, false), from, to);
    strips.retain(|lane| !lane.pieces.is_empty() && only.as_ref().is_none_or(|name| lane.name == *name));
    // What a vantage saw in all would mislead beside a part of it.
    for lane in &mut strips {
        lane.sum.clear();
    }
    lanes.extend(strips);
    let mut services: Vec<_> = report.services.iter().map(|s| &s.service).collect();
    services.retain(|s| window.about.1.as_ref().is_none_or(|only| only == *s));
    for service in services {
        let mine = counted(report).filter(|(p, e)| {
            p.service.as_ref() == Some(service) && e.after_entry.as_ref() == Some(&window.about.0) && speaks(p)
        });
        let worst = mine.max_by_key(|(_, e)| (e.outage.hi.map_or(i64::MAX, fracas_model::units::Dur::ns), e.outage.lo));
        if let Some((probe, episode)) = worst {
            lanes.extend(clipped(lengths(report, probe, episode), from, to));
        }
    }
    lanes
}

fn piece(from: i64, to: i64, ink: Ink, said: impl Into<String>) -> Piece {
    Piece { from, to: to.max(from), ink, said: said.into() }
}

fn clipped(mut lanes: Vec<Lane>, from: i64, to: i64) -> Vec<Lane> {
    for lane in &mut lanes {
        lane.pieces.retain(|p| p.to >= from && p.from <= to);
        for p in &mut lane.pieces {
            (p.from, p.to) = (p.from.clamp(from, to), p.to.clamp(from, to));
        }
        lane.pieces.sort_by_key(|p| (p.ink, p.from));
        lane.marks.retain(|m| (from..=to).contains(&m.at));
    }
    lanes
}

fn run(report: &Report) -> Lane {
    let mut bounds: Vec<(i64, Option<(Ink, &str)>)> = report
        .events
        .iter()
        .filter_map(|event| {
            let phase = match event.kind.as_str() {
                "gateStarted" => Some((Ink::Gate, "steady state")),
                "gatePassed" => Some((Ink::Timeline, "timeline")),
                "recoveryStarted" => Some((Ink::Recovery, "recovery")),
                "aborted" | "undoStarted" => Some((Ink::Clearing, "undo")),
                "finished" => None,
                _ => return None,
            };
            Some((event.at_ns, phase))
        })
        .collect();
    bounds.sort_by_key(|(at, _)| *at);
    bounds.push((report.times.last_ns, None));
    let mut pieces: Vec<Piece> = Vec::new();
    for pair in bounds.windows(2) {
        let Some((ink, name)) = pair[0].1 else { break };
        match pieces.last_mut().filter(|last| last.ink == ink) {
            Some(last) => last.to = pair[1].0,
            None => pieces.push(piece(pair[0].0, pair[1].0, ink, name)),
        }
    }
    let sum = if report.times.finished { report.verdict.word.name().to_owned() } else { "not ended yet".into() };
    Lane {
        kind: Kind::Run,
        name: "Run".into(),
        more: String::new(),
        host: String::new(),
        sum,
        pieces,
        marks: Vec::new(),
    }
}

fn entry_lanes(report: &Report, entry: &EntryReport, end: i64) -> Vec<Lane> {
    let lane = |more: String, host: &str, sum: String| Lane {
        kind: Kind::Entry,
        name: entry.entry.to_string(),
        more,
        host: host.to_owned(),
        sum,
        pieces: Vec::new(),
        marks: Vec::new(),
    };
    if entry.items.is_empty() {
        let sum = entry.skipped.as_ref().map_or_else(String::new, |why| format!("skipped: {why}"));
        let mut lane = lane(
            asked(entry),
            "",
            if entry.started_ns.is_none() && sum.is_empty() { "not started".into() } else { sum },
        );
        if let Some(from) = entry.started_ns {
            let to = entry.ended_ns.unwrap_or(end);
            let ink = if entry.target.is_some() { Ink::Applying } else { Ink::Wait };
            lane.pieces.push(piece(from, to, ink, format!("{} to {}", offset(from), offset(to))));
        }
        return vec![lane];
    }
    let mut lanes: Vec<(String, Lane)> = Vec::new();
    let hosts: std::collections::BTreeSet<_> = entry.items.iter().map(|i| &i.host).collect();
    for item in &entry.items {
        let alone = hosts.len() <= HOSTS || hosts.iter().position(|h| **h == item.host).is_some_and(|i| i < HOSTS - 1);
        let key = if alone { item.host.to_string() } else { String::new() };
        let index = lanes.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            let place = if alone {
                report.host_name(&item.host).to_owned()
            } else {
                format!("{} more hosts", hosts.len() + 1 - HOSTS)
            };
            let sum = if alone { summed(item) } else { String::new() };
            lanes.push((key, lane(format!("{} on {place}", entry.action), &place, sum)));
            lanes.len() - 1
        });
        let (_, lane) = &mut lanes[index];
        live(item, end, report.times.finished, lane);
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

/// What came of it, in a few words.
fn summed(item: &ItemReport) -> String {
    let end = match (item.unconfirmed, item.undone_ns) {
        (true, _) => ", NOT CONFIRMED CLEAN".to_owned(),
        (false, Some(at)) => format!(", undone at {}", offset(at)),
        (false, None) => String::new(),
    };
    let proof = proof(item);
    let short = proof.split(':').next().unwrap_or_default();
    format!("{short}{end}")
}

/// An item's life as pieces and marks.
fn live(item: &ItemReport, end: i64, finished: bool, lane: &mut Lane) {
    let mut open: Option<(i64, Ink)> = None;
    for moment in &item.moments {
        let at = moment.at_ns;
        let ink = match moment.step {
            ItemStep::Applying => Some(Ink::Applying),
            ItemStep::Active => Some(Ink::Active),
            ItemStep::Undoing | ItemStep::UndoFailed => Some(Ink::Undoing),
            ItemStep::Spent | ItemStep::Undone | ItemStep::Failed | ItemStep::Refused => None,
            ItemStep::Verified | ItemStep::Ineffective | ItemStep::Unverified => continue,
        };
        if let Some((from, was)) = open.take() {
            lane.pieces.push(piece(from, at, was, said(was, from, at)));
        }
        open = ink.map(|ink| (at, ink));
        let mark = match moment.step {
            ItemStep::Spent => Some((Glyph::Fired, "fired")),
            ItemStep::Undone => Some((Glyph::Undone, "undone")),
            ItemStep::Failed => Some((Glyph::Trouble, "failed")),
            ItemStep::Refused => Some((Glyph::Trouble, "refused")),
            _ => None,
        };
        lane.marks.extend(mark.map(|(glyph, word)| Mark { at, glyph, said: format!("{word} at {}", offset(at)) }));
    }
    if let Some((from, ink)) = open {
        if item.unconfirmed && finished {
            let last = item.moments.last().map_or(from, |m| m.at_ns);
            lane.pieces.push(piece(from, last, ink, said(ink, from, last)));
            lane.pieces.push(piece(
                last,
                end,
                Ink::Unconfirmed,
                format!("not confirmed clean from {} on", offset(last)),
            ));
        } else {
            lane.pieces.push(piece(from, end, ink, said(ink, from, end)));
        }
    }
}

fn said(ink: Ink, from: i64, to: i64) -> String {
    let word = match ink {
        Ink::Active => "active",
        Ink::Down => "down",
        Ink::Gap => "nobody looked",
        Ink::Mixed => "up and down in turns",
        // Too short to speak of, or a matter of course.
        _ => return String::new(),
    };
    format!("{word} from {} to {}", offset(from), offset(to))
}

fn strips(report: &Report, from: i64, to: i64, brackets: bool) -> Vec<Lane> {
    let grain = (to - from) / GRAIN;
    let mut probes: Vec<&ProbeReport> = report.probes.iter().collect();
    let hidden = probes.len().saturating_sub(VANTAGES);
    // Those that saw an outage come first when there are too many; the order of the report is kept.
    if hidden > 0 {
        let mut calm: Vec<&ProbeReport> = probes.iter().filter(|p| p.episodes.is_empty()).copied().collect();
        calm.truncate(calm.len().saturating_sub(hidden));
        probes.retain(|p| !p.episodes.is_empty() || calm.iter().any(|c| std::ptr::eq(*c, *p)));
        probes.truncate(VANTAGES);
    }
    let mut lanes: Vec<Lane> = probes.into_iter().map(|p| strip(report, p, (from, to), grain, brackets)).collect();
    if hidden > 0 && brackets {
        let more = format!("{} not drawn; their looks are in the tables", count(hidden, "more vantage"));
        let (host, sum, pieces, marks) = (String::new(), String::new(), Vec::new(), Vec::new());
        lanes.push(Lane { kind: Kind::Strip, name: "…".into(), more, host, sum, pieces, marks });
    }
    lanes
}

fn strip(report: &Report, probe: &ProbeReport, (from, to): (i64, i64), grain: i64, brackets: bool) -> Lane {
    let mut segments: Vec<(i64, i64, Ink)> = probe
        .strip
        .iter()
        .filter(|s| s.state != Seen::Gap && s.to_ns >= from && s.from_ns <= to)
        .map(|s| {
            let ink = match s.state {
                Seen::Up => Ink::Up,
                Seen::Down => Ink::Down,
                Seen::Changing => Ink::Changing,
                Seen::Gap => Ink::Gap,
            };
            (s.from_ns, s.to_ns, ink)
        })
        .collect();
    segments.sort_by_key(|s| s.0);
    let mut pieces: Vec<Piece> =
        joined(&segments, grain).into_iter().map(|(a, b, ink)| piece(a, b, ink, said(ink, a, b))).collect();
    let gaps = probe.strip.iter().filter(|s| s.state == Seen::Gap);
    pieces.extend(gaps.map(|s| piece(s.from_ns, s.to_ns, Ink::Gap, said(Ink::Gap, s.from_ns, s.to_ns))));
    if brackets {
        let bracket = |e: &Episode| {
            let from = e.start_lo_ns.unwrap_or(e.start_hi_ns);
            piece(from, end_of(e), Ink::Outage, String::new())
        };
        pieces.extend(probe.episodes.iter().map(bracket));
    }
    let name = probe.service.as_ref().map_or_else(|| probe.probe.to_string(), ToString::to_string);
    let host = report.host_name(&probe.host).to_owned();
    let more = if probe.service.is_some() { format!("{} from {host}", probe.probe) } else { format!("from {host}") };
    Lane { kind: Kind::Strip, name, more, host, sum: seen(probe), pieces, marks: Vec::new() }
}

fn seen(probe: &ProbeReport) -> String {
    if probe.refused.is_some() {
        return "could not look".into();
    }
    let counted = probe.episodes.iter().filter(|e| !e.pre_existing).count();
    let blips: u32 = probe.episodes.iter().map(|e| e.blips).sum();
    let outages = match (counted, probe.episodes.len() - counted) {
        (0, 0) if probe.looks == 0 => "no looks".into(),
        (0, 0) => "no outage".to_owned(),
        (n, 0) => count(n, "outage"),
        (n, before) => format!("{}, {before} before any fault", count(n, "outage")),
    };
    let blips = if blips > 0 { format!(", {}", count(blips as usize, "blip")) } else { String::new() };
    let missed =
        if probe.missed > 0 { format!(", {}", count(probe.missed as usize, "missed tick")) } else { String::new() };
    format!("{outages}{blips}{missed}")
}

/// Neighbours that are each too short to see become one piece; a phase of failing is never lost in it.
fn joined(segments: &[(i64, i64, Ink)], grain: i64) -> Vec<(i64, i64, Ink)> {
    let mut pieces = Vec::new();
    let mut group: Vec<(i64, i64, Ink)> = Vec::new();
    let close = |group: &mut Vec<(i64, i64, Ink)>, pieces: &mut Vec<(i64, i64, Ink)>| {
        let downs = group.iter().filter(|s| s.2 == Ink::Down).count();
        if downs > 1 {
            pieces.push((group[0].0, group[group.len() - 1].1, Ink::Mixed));
        } else {
            pieces.append(group);
        }
        group.clear();
    };
    for segment in segments {
        if segment.1 - segment.0 >= grain {
            close(&mut group, &mut pieces);
            pieces.push(*segment);
        } else {
            group.push(*segment);
        }
    }
    close(&mut group, &mut pieces);
    pieces
}

/// The three lengths of one outage as bars: certain in the middle, uncertain at the ends.
fn lengths(report: &Report, probe: &ProbeReport, episode: &Episode) -> Vec<Lane> {
    let (end_lo, end_hi) = (episode.end_lo_ns, episode.end_hi_ns.unwrap_or(report.times.last_ns));
    let end_lo = end_lo.min(end_hi);
    let service = probe.service.as_ref().map_or_else(|| probe.probe.to_string(), ToString::to_string);
    let lane = |name: &str, from: (i64, i64), length: Option<fracas_model::time::Interval>| {
        let length = length?;
        let from = (from.0, from.1.min(end_hi));
        let mut pieces = vec![piece(from.1.min(end_lo), end_lo, Ink::Sure, String::new())];
        pieces.push(piece(from.0, from.1, Ink::Unsure, String::new()));
        pieces.push(piece(end_lo, end_hi, Ink::Unsure, String::new()));
        let host = report.host_name(&probe.host).to_owned();
        let (name, more) = (format!("{service} {name}"), format!("from {host}"));
        Some(Lane { kind: Kind::Length, name, more, host, sum: length.to_string(), pieces, marks: Vec::new() })
    };
    let start = (episode.start_lo_ns.unwrap_or(episode.start_hi_ns), episode.start_hi_ns);
    let entry = report.entries.iter().find(|e| Some(&e.entry) == episode.after_entry.as_ref());
    let effective =
        entry.and_then(|e| e.items.iter().filter_map(|i| i.effective_ns.or_else(|| moment(i, ItemStep::Active))).min());
    let lifted =
        report.entries.iter().flat_map(|e| &e.items).filter_map(|i| i.undone_ns).filter(|at| *at <= end_hi).max();
    let lanes = [
        lane("outage", start, Some(episode.outage)),
        effective.and_then(|at| lane("recovery from fault", (at, at), episode.recovery_from_fault)),
        lifted.and_then(|at| lane("residual", (at, at), episode.residual)),
    ];
    lanes.into_iter().flatten().collect()
}

fn events(report: &Report) -> Lane {
    let told: Vec<_> = report.events.iter().filter(|e| !e.routine).collect();
    let mark = |at| Mark { at, glyph: Glyph::Event, said: String::new() };
    let mut at: Vec<i64> = told.iter().map(|e| e.at_ns).collect();
    at.sort_unstable();
    let grain = (report.times.last_ns - report.times.first_ns) / 1000;
    at.dedup_by(|a, b| *a - *b < grain);
    let marks = at.into_iter().map(mark).collect();
    let more = format!("{} beside the routine ones", count(told.len(), "event"));
    let (host, sum, pieces) = (String::new(), String::new(), Vec::new());
    Lane { kind: Kind::Events, name: "Events".into(), more, host, sum, pieces, marks }
}
