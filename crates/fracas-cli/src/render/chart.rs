//! Where things lie in time: lanes of pieces and marks, the windows worth a closer look, ticks. It draws nothing.

mod lanes;

use fracas_model::{
    id::{EntryId, ServiceId},
    report::{Episode, ItemReport, ItemStep, ProbeReport, Report},
    units::Dur,
};

use super::words::offset;

/// What a piece of a lane shows; later ones are drawn over earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ink {
    /// The run waits for steady state.
    Gate,
    /// The timeline runs.
    Timeline,
    /// Services are to become stable.
    Recovery,
    /// Hosts confirm that nothing is left.
    Clearing,
    /// A `wait` entry.
    Wait,
    /// Asked for, not yet in effect.
    Applying,
    /// In effect.
    Active,
    /// Being undone.
    Undoing,
    /// Nobody knows whether it is still there.
    Unconfirmed,
    /// The probe saw it up.
    Up,
    /// It changed somewhere in this time.
    Changing,
    /// Up and down in turns, too short to draw one by one.
    Mixed,
    /// The probe saw it down.
    Down,
    /// Nobody looked.
    Gap,
    /// From impact to a recovery that lasted.
    Outage,
    /// Part of a length that is certain.
    Sure,
    /// Part of a length within which an end lies.
    Unsure,
}

/// A stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) ink: Ink,
    /// In words; empty for what needs none.
    pub(super) said: String,
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glyph {
    /// A one-shot fired.
    Fired,
    /// Refused or failed.
    Trouble,
    /// Undone, read back.
    Undone,
    /// Some event.
    Event,
}

/// An instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: i64,
    pub(super) glyph: Glyph,
    pub(super) said: String,
}

/// What kind of thing a lane is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The run as a whole.
    Run,
    /// An entry, on one host.
    Entry,
    /// What a probe saw from one vantage.
    Strip,
    /// One of the three intervals.
    Length,
    /// All events.
    Events,
}

/// One row of a drawing.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// What follows the name.
    pub(super) more: String,
    /// The host, where there is one, for drawings with little room.
    pub(super) host: String,
    /// What it amounts to, at the far end.
    pub(super) sum: String,
    pub(super) pieces: Vec<Piece>,
    pub(super) marks: Vec<Mark>,
}

/// A part of the run that deserves a drawing of its own.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// `A`, `B` ...
    pub(super) letter: char,
    pub(super) title: String,
    pub(super) from: i64,
    pub(super) to: i64,
    /// The outages whose lengths are drawn in it: of this entry, or of one service alone.
    about: (EntryId, Option<ServiceId>),
}

/// A drawing's content; offsets in nanoseconds from the origin.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) gate: bool,
    pub(super) lanes: Vec<Lane>,
    pub(super) windows: Vec<Window>,
}

/// Closer looks drawn at most.
const WINDOWS: usize = 8;
/// A window that covers more than this share of the whole shows nothing new.
const COVERS: i64 = 60;
/// An outage shorter than this share of its window gets its own.
const SPECK: i64 = 4;

impl Chart {
    /// The whole run.
    pub(super) fn whole(report: &Report) -> Self {
        let (from, to) = range(report);
        let windows = windows(report);
        let lanes = lanes::whole(report, from, to);
        Self { from, to, gate: report.times.gate_passed, lanes, windows }
    }

    /// One window: the faults and strips in it, and the lengths of the outages it is about.
    pub(super) fn closer(report: &Report, window: &Window) -> Self {
        let (from, to) = (window.from, window.to);
        let lanes = lanes::closer(report, window);
        Self { from, to, gate: report.times.gate_passed, lanes, windows: Vec::new() }
    }

    /// Every lane in a sentence: what a reader gets who cannot see the drawing.
    pub(super) fn told(&self) -> String {
        let mut text = format!("From {} to {} around the gate.", offset(self.from), offset(self.to));
        for lane in self.lanes.iter().filter(|lane| lane.kind != Kind::Events) {
            let said: Vec<&str> = lane
                .pieces
                .iter()
                .map(|p| &p.said)
                .chain(lane.marks.iter().map(|m| &m.said))
                .map(String::as_str)
                .filter(|said| !said.is_empty())
                .collect();
            let shown = said.iter().take(12).copied().collect::<Vec<_>>().join("; ");
            let rest = if said.len() > 12 { format!("; and {} more", said.len() - 12) } else { String::new() };
            let name = format!("{} {}", lane.name, lane.more);
            text += &match (shown.is_empty(), lane.sum.is_empty()) {
                (true, true) => format!(" {}.", name.trim()),
                (true, false) => format!(" {}: {}.", name.trim(), lane.sum),
                (false, true) => format!(" {}: {shown}{rest}.", name.trim()),
                (false, false) => format!(" {}: {}: {shown}{rest}.", name.trim(), lane.sum),
            };
        }
        text
    }
}

/// From the first event to the last; at least a second.
fn range(report: &Report) -> (i64, i64) {
    let (from, to) = (report.times.first_ns, report.times.last_ns);
    (from, to.max(from.saturating_add(1_000_000_000)))
}

/// Outages that count, with the probe that saw them.
pub(super) fn counted(report: &Report) -> impl Iterator<Item = (&ProbeReport, &Episode)> {
    report.probes.iter().flat_map(|p| p.episodes.iter().filter(|e| !e.pre_existing).map(move |e| (p, e)))
}

/// Where an outage ends at the latest, as far as it was seen to.
fn end_of(episode: &Episode) -> i64 {
    episode.end_hi_ns.unwrap_or(episode.end_lo_ns).max(episode.start_hi_ns)
}

fn moment(item: &ItemReport, step: ItemStep) -> Option<i64> {
    item.moments.iter().find(|m| m.step == step).map(|m| m.at_ns)
}

/// A window per entry that took effect, and one per outage that would be a speck in it; in order of time.
fn windows(report: &Report) -> Vec<Window> {
    let (first, last) = range(report);
    let whole = last - first;
    let mut windows = Vec::new();
    let mut push = |title: String, from: i64, to: i64, about| {
        let pad = ((to - from) / 8).max(250_000_000);
        let (from, to) = (from.saturating_sub(pad).max(first), to.saturating_add(pad).min(last));
        if (to - from).saturating_mul(100) <= whole.saturating_mul(COVERS) && to > from {
            windows.push(Window { letter: '?', title, from, to, about });
        }
    };
    for entry in &report.entries {
        let starts =
            entry.items.iter().filter_map(|i| moment(i, ItemStep::Applying).into_iter().chain(i.effective_ns).min());
        let Some(start) = starts.min() else { continue };
        let mine: Vec<_> = counted(report).filter(|(_, e)| e.after_entry.as_ref() == Some(&entry.entry)).collect();
        let undone = entry.items.iter().filter_map(|i| i.undone_ns).max();
        let hit = mine.iter().map(|(_, e)| end_of(e)).max();
        let near = |to: i64| undone.filter(|at| *at <= to.saturating_add((to - start) / 2));
        let end = match hit {
            Some(to) => near(to).map_or(to, |at| at.max(to)),
            None => undone.or(entry.ended_ns).unwrap_or(last),
        };
        push(format!("{} and what followed", entry.entry), start, end.max(start), (entry.entry.clone(), None));
        let mut services: Vec<&ServiceId> = mine.iter().filter_map(|(p, _)| p.service.as_ref()).collect();
        services.sort();
        services.dedup();
        for service in services {
            let of_it = mine.iter().filter(|(p, _)| p.service.as_ref() == Some(service));
            let Some((_, worst)) = of_it.max_by_key(|(_, e)| (e.outage.hi.map_or(i64::MAX, Dur::ns), e.outage.lo))
            else {
                continue;
            };
            let (from, to) = (worst.start_lo_ns.unwrap_or(worst.start_hi_ns), end_of(worst));
            if (to - from).saturating_mul(100) < (end - start).saturating_mul(SPECK) {
                let title = format!("{service}, its longest outage after {}", entry.entry);
                push(title, from - (to - from) / 2, to + (to - from) / 2, (entry.entry.clone(), Some(service.clone())));
            }
        }
    }
    windows.sort_by_key(|w| (w.from, w.to));
    windows.truncate(WINDOWS);
    for (window, letter) in windows.iter_mut().zip('A'..) {
        window.letter = letter;
    }
    windows
}

const STEPS_MS: &[i64] = &[
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000,
];

/// Round instants within the range, `most` at most, and the step between them.
pub(super) fn ticks(from: i64, to: i64, most: i64) -> (Vec<i64>, i64) {
    let fits = |step: &i64| (to - from) / step < most;
    let days = (to - from) / most / 86_400_000_000_000 + 1;
    let step = STEPS_MS.iter().map(|ms| ms * 1_000_000).find(fits).unwrap_or(days * 86_400_000_000_000);
    let first = from.div_euclid(step) + i64::from(from.rem_euclid(step) != 0);
    ((first..=to.div_euclid(step)).map(|i| i * step).collect(), step)
}

/// A tick's label: `0`, `+30m`, `-5s`, `+1.5s`.
pub(super) fn tick(ns: i64, step: i64) -> String {
    let sign = match ns.signum() {
        0 => return "0".into(),
        1 => "+",
        _ => "-",
    };
    let length = ns.abs();
    if step < 1_000_000_000 && length >= 1_000_000_000 {
        let (minutes, ms) = (length / 60_000_000_000, length / 1_000_000 % 60_000);
        let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
        let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
        return if minutes > 0 { format!("{sign}{minutes}m{seconds}s") } else { format!("{sign}{seconds}s") };
    }
    format!("{sign}{}", Dur::from_ns(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        const S: i64 = 1_000_000_000;
        assert_eq!(ticks(-11 * S, 41 * S, 6), ((0..6).map(|i| (i * 10 - 10) * S).collect(), 10 * S));
        let (two_hours, step) = ticks(-42 * S, 7150 * S, 5);
        assert_eq!((two_hours.len(), tick(two_hours[1], step)), (4, "+30m".into()));
        assert!(ticks(0, 400 * 86_400 * S, 5).0.len() <= 6);
        for width in [1, 7, 100, 5000, 3_000_000] {
            assert!(ticks(-width, width * S, 5).0.len() <= 6, "{width}");
        }
        assert_eq!(
            (tick(0, S), tick(-5 * S, S), tick(1500 * S / 1000, S / 2)),
            ("0".into(), "-5s".into(), "+1.5s".into())
        );
    }
}
