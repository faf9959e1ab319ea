//! When a service was down, as intervals that contain the truth, from what one vantage saw of one probe on one clock.
//!
//! It never judges and never crosses clocks: objectives and faults are the report's matter.
//!
//! Every look is a constraint: an ok proves *up at some instant in [s, c]*, a failure *down at some instant in [s, c]*.
//! The history with the fewest changes that fulfils all constraints is found twice. Going forward, every change is put
//! as late as the constraints allow; going backward, as early. Each true change lies between the two. For looks that do
//! not overlap this is the textbook rule: an outage starts in [last ok .s, first failure .c] and ends in
//! [last failure .s, first ok .c]; overlapping and late looks need no special case.

use std::collections::VecDeque;

use crate::{
    event::{Look, Reading},
    time::Interval,
    units::Dur,
};

/// One constraint: the probed thing was up (or down) at some instant of the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When, nanoseconds of the vantage's boot time.
    pub look: Look,
    /// Up or down.
    pub ok: bool,
    /// Sequence number of the event that tells it; 0 for a raw reading.
    pub seq: u64,
}

/// What one vantage saw of one probe, on one clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    sightings: Vec<Sighting>,
    gaps: Vec<Look>,
    seals: Vec<Look>,
    /// From when on it ticked at which rate, where that was not always the same.
    paces: Vec<(i64, Dur)>,
}

/// How recovery is declared, and how the probe ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Recovered means up this long without a failure.
    pub stable_for: Dur,
    /// The probe's period, start to start.
    pub every: Dur,
    /// When a look counts as failed.
    pub timeout: Dur,
}

/// A change between up and down, at some instant in `[lo, hi]`; `lo` is absent when nothing earlier was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is afterwards.
    pub ok: bool,
    /// Earliest instant.
    pub lo: Option<i64>,
    /// Latest instant.
    pub hi: i64,
    /// The look that first showed it.
    pub look: Look,
    /// The event that told it; 0 for a raw reading.
    pub seq: u64,
}

/// A span of failing, from impact to recovery; shorter returns inside it are flapping and belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Earliest instant of impact; `None` when the first look of all already failed.
    pub start_lo: Option<i64>,
    /// Latest instant of impact.
    pub start_hi: i64,
    /// Earliest instant of recovery: the send of the last failing look.
    pub end_lo: i64,
    /// Latest instant of recovery: the completion of the first success of the stable window; `None` while not recovered.
    pub end_hi: Option<i64>,
    /// The first success of the stable window.
    pub first_success: Option<Look>,
    /// Impact to recovery.
    pub duration: Interval,
    /// Sum of the failing phases.
    pub downtime: Interval,
    /// Changes from up to down.
    pub down_edges: u32,
    /// Changes from down to up.
    pub up_edges: u32,
    /// Returns that did not last: dips beyond the first.
    pub blips: u32,
    /// Events behind these numbers.
    pub events: Vec<u64>,
}

/// Everything that follows from a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Outages, in order.
    pub outages: Vec<Outage>,
    /// Every change, in order; the first entry says how it began.
    pub changes: Vec<Change>,
    /// First send and last completion that were seen.
    pub covered: Option<Look>,
    /// Times in which nobody looked and that are long enough to matter for the stable window.
    pub holes: Vec<Look>,
}

/// Which part of the stable window may go unseen; a longer hole restarts the window after it.
///
/// Looks are samples anyway: one missed tick hides no more than the time between two ticks does. The run machine, which
/// declares recovery while the run goes on, uses the same share.
pub const HOLE_SHARE: i64 = 4;

impl Track {
    /// A change the vantage reported: the last look that said otherwise and the first that said so.
    pub fn edge(&mut self, ok: bool, before: Option<Look>, after: Look, seq: u64) {
        if let Some(look) = before {
            self.sightings.push(Sighting { look, ok: !ok, seq });
        }
        self.sightings.push(Sighting { look: after, ok, seq });
    }

    /// Ticks that were due in this time did not happen.
    pub fn gap(&mut self, between: Look) {
        self.gaps.push(between);
    }

    /// It ticked at these rates, each from that instant on; before the first of them as its rules say.
    pub fn paced(&mut self, mut paces: Vec<(i64, Dur)>) {
        paces.sort_by_key(|(from, _)| *from);
        self.paces = paces;
    }

    /// The longest period that was in force at some time between two instants, for a probe that ticks like this else.
    pub fn slowest(&self, from: i64, to: i64, every: Dur) -> Dur {
        let begun = self.paces.partition_point(|(at, _)| *at <= from);
        let before = begun.checked_sub(1).map_or(every, |last| self.paces[last].1);
        let within = self.paces[begun..].iter().take_while(|(at, _)| *at <= to).map(|(_, every)| *every);
        within.fold(before, Dur::max)
    }

    /// When it ticked more slowly than this: each time with its period, the last without end.
    pub fn slower(&self, every: Dur) -> impl Iterator<Item = (Look, Dur)> {
        let ends = self.paces.iter().skip(1).map(|(at, _)| *at).chain([i64::MAX]);
        let times = self.paces.iter().zip(ends).map(|((s, period), c)| (Look { s: *s, c }, *period));
        times.filter(move |(time, period)| *period > every && time.c > time.s)
    }

    /// Readings of this time were kept. When all agree, they are one wide constraint: it lets a track go on after the
    /// vantage's agent was restarted, when the first new edge knows of no earlier look.
    pub fn sealed(&mut self, between: Look, ok: u32, failed: u32, seq: u64) {
        self.seals.push(between);
        if (ok == 0) != (failed == 0) {
            self.sightings.push(Sighting { look: between, ok: failed == 0, seq });
        }
    }

    /// The track that an agent would have reported for these readings: the same edges, and a seal per second.
    pub fn of_readings(readings: &[Reading]) -> Self {
        let mut track = Self::default();
        let longest = readings.iter().map(|r| r.look.c.saturating_sub(r.look.s)).max().unwrap_or(0);
        let mut edges = Edges::of(Dur::from_ns(longest));
        let mut by_completion: Vec<&Reading> = readings.iter().collect();
        by_completion.sort_by_key(|r| r.look.c);
        for reading in &by_completion {
            if let Some(edge) = edges.see(reading.look, reading.ok) {
                for edge in edges.owed().into_iter().chain([edge]) {
                    track.edge(edge.ok, edge.before, edge.after, 0);
                }
            }
        }
        for edge in edges.again() {
            track.edge(edge.ok, edge.before, edge.after, 0);
        }
        for second in by_completion.chunk_by(|a, b| a.look.c / 1_000_000_000 == b.look.c / 1_000_000_000) {
            let s = second.iter().map(|r| r.look.s).min().unwrap_or_default();
            let c = second.iter().map(|r| r.look.c).max().unwrap_or_default();
            let ok = second.iter().filter(|r| r.ok).count() as u32;
            track.sealed(Look { s, c }, ok, second.len() as u32 - ok, 0);
        }
        track
    }

    /// First send and last completion of anything seen.
    pub fn covered(&self) -> Option<Look> {
        let looks = || self.seals.iter().chain(self.sightings.iter().map(|x| &x.look));
        Some(Look { s: looks().map(|l| l.s).min()?, c: looks().map(|l| l.c).max()? })
    }

    /// Times in which nobody looked, longer than a quarter of the stable window: reported gaps, and holes between seals
    /// that are longer than two periods and a timeout (lost without notice).
    fn holes(&self, rules: Rules) -> Vec<Look> {
        let matters = rules.stable_for.ns() / HOLE_SHARE;
        let quiet = |from, to| matters.max(2 * self.slowest(from, to, rules.every).ns() + rules.timeout.ns());
        let mut holes: Vec<Look> = self.gaps.iter().filter(|g| g.c - g.s > matters).copied().collect();
        let mut seals = self.seals.clone();
        seals.sort_by_key(|l| l.s);
        let mut seen = i64::MAX;
        for seal in seals {
            if seen != i64::MAX && seal.s.saturating_sub(seen) > quiet(seen, seal.s) {
                holes.push(Look { s: seen, c: seal.s });
            }
            seen = if seen == i64::MAX { seal.c } else { seen.max(seal.c) };
        }
        holes.sort_by_key(|h| h.s);
        holes
    }

    /// The history with the fewest changes that all that was seen allows.
    pub fn changes(&self) -> Vec<Change> {
        changes(&self.sightings)
    }

    /// Outages and what they rest on.
    pub fn estimate(&self, rules: Rules) -> Estimate {
        let changes = changes(&self.sightings);
        let holes = self.holes(rules);
        let covered = self.covered();
        let phases =
            Phases { track: self, changes: &changes, holes: &holes, rules, covered: covered.map_or(0, |l| l.c) };
        Estimate { outages: phases.outages(), covered, holes: holes.clone(), changes: changes.clone() }
    }
}

/// The history with the fewest changes: its first state and every change with its earliest and latest instant.
fn changes(sightings: &[Sighting]) -> Vec<Change> {
    let mut by_completion = sightings.to_vec();
    by_completion.sort_by_key(|x| (x.look.c, x.look.s));
    let Some(first) = by_completion.first() else { return Vec::new() };
    // Forward: a look that says otherwise is explained by the phase before if it was sent before this phase began.
    let mut found = vec![Change { ok: first.ok, lo: None, hi: first.look.c, look: first.look, seq: first.seq }];
    let (mut state, mut since) = (first.ok, i64::MIN);
    for x in &by_completion {
        if x.ok != state && x.look.s >= since {
            found.push(Change { ok: x.ok, lo: None, hi: x.look.c, look: x.look, seq: x.seq });
            (state, since) = (x.ok, x.look.c);
        }
    }
    // Backward, from the same last state: the mirror image puts every change as early as can be.
    let mut by_send = sightings.to_vec();
    by_send.sort_by_key(|x| std::cmp::Reverse((x.look.s, x.look.c)));
    let mut until = i64::MAX;
    let mut earliest = Vec::new();
    for x in &by_send {
        if x.ok != state && x.look.c <= until {
            earliest.push(x.look.s);
            (state, until) = (x.ok, x.look.s);
        }
    }
    for (change, lo) in found.iter_mut().skip(1).rev().zip(earliest) {
        change.lo = Some(lo.min(change.hi));
    }
    found
}

/// Working state of one estimate.
struct Phases<'a> {
    track: &'a Track,
    changes: &'a [Change],
    holes: &'a [Look],
    rules: Rules,
    covered: i64,
}

impl Phases<'_> {
    fn outages(&self) -> Vec<Outage> {
        let mut outages = Vec::new();
        let mut at = 0;
        while let Some(offset) = self.changes[at.min(self.changes.len())..].iter().position(|c| !c.ok) {
            let first = at + offset;
            let mut last = first;
            let mut recovery = None;
            // Go from return to return until one lasts.
            while let Some(up) = self.changes.get(last + 1) {
                recovery = self.stable(last + 1).map(|look| (up, look));
                if recovery.is_some() || self.changes.get(last + 2).is_none() {
                    break;
                }
                last += 2;
            }
            outages.push(self.outage(first, last, recovery));
            at = last + 2;
        }
        outages
    }

    /// The first success of the stable window in the up phase that `changes[index]` opens, if there is such a window.
    fn stable(&self, index: usize) -> Option<Look> {
        let next_down = self.changes.get(index + 1).map(|c| c.hi);
        let window = self.rules.stable_for.ns();
        let mut success = self.changes[index].look;
        let mut from = success.s;
        loop {
            let end = from.saturating_add(window);
            let in_phase = |at: i64| next_down.is_none_or(|down| at < down);
            let hole = self.holes.iter().rev().find(|h| h.c > from && h.s < end && in_phase(h.s));
            if let Some(hole) = hole {
                // Nobody saw it stay up: start anew behind the hole. The lower bound stays where it was.
                let later = self.track.sightings.iter().filter(|x| x.ok && x.look.s >= hole.c && in_phase(x.look.c));
                success = later.min_by_key(|x| x.look.c)?.look;
                from = hole.c;
            } else if next_down.is_some_and(|down| down < end) || self.covered < end {
                return None;
            } else {
                return Some(success);
            }
        }
    }

    fn outage(&self, first: usize, last: usize, recovery: Option<(&Change, Look)>) -> Outage {
        let down = &self.changes[first];
        let (start_lo, start_hi) = (down.lo, down.hi);
        let end_hi = recovery.map(|(_, look)| look.c);
        let end_lo = self.changes.get(last + 1).and_then(|c| c.lo).unwrap_or_else(|| self.last_failure(last));
        let mut events: Vec<u64> = self.changes[first..].iter().take(last + 2 - first).map(|c| c.seq).collect();
        events.retain(|seq| *seq > 0);
        events.dedup();
        let downs = (last - first) / 2 + 1;
        Outage {
            start_lo,
            start_hi,
            end_lo: end_lo.max(start_lo.unwrap_or(i64::MIN)),
            end_hi,
            first_success: recovery.map(|(_, look)| look),
            duration: between(start_lo, start_hi, end_lo, end_hi),
            downtime: self.downtime(first, last, end_hi),
            down_edges: downs as u32,
            up_edges: self.changes[first..].iter().take(last + 2 - first).filter(|c| c.ok).count() as u32,
            blips: downs as u32 - 1,
            events,
        }
    }

    /// Send of the last failing look of a phase that was not seen to end.
    fn last_failure(&self, index: usize) -> i64 {
        let failing = self.track.sightings.iter().filter(|x| !x.ok).map(|x| x.look.s).max();
        failing.unwrap_or(self.changes[index].look.s)
    }

    fn downtime(&self, first: usize, last: usize, end_hi: Option<i64>) -> Interval {
        let (mut lo, mut hi) = (0_i64, Some(0));
        for index in (first..=last).step_by(2) {
            let down = &self.changes[index];
            let up = self.changes.get(index + 1);
            let up_lo = up.and_then(|c| c.lo).unwrap_or_else(|| self.last_failure(index));
            let up_hi = if index == last { end_hi } else { up.map(|c| c.hi) };
            let phase = between(down.lo, down.hi, up_lo, up_hi);
            lo = lo.saturating_add(phase.lo.ns());
            hi = hi.zip(phase.hi).map(|(sum, h)| h.ns().saturating_add(sum));
        }
        Interval { lo: Dur::from_ns(lo), hi: hi.map(Dur::from_ns) }
    }
}

/// The length from an instant in `[start_lo, start_hi]` to one in `[end_lo, end_hi]`, never negative.
pub fn between(start_lo: Option<i64>, start_hi: i64, end_lo: i64, end_hi: Option<i64>) -> Interval {
    let lo = end_lo.saturating_sub(start_hi).max(0);
    let hi = start_lo.zip(end_hi).map(|(start, end)| Dur::from_ns(end.saturating_sub(start).max(lo)));
    Interval { lo: Dur::from_ns(lo), hi }
}

/// Most looks of one state that [`Edges`] remembers, however long they may be out.
const MOST_RECENT: usize = 128;

/// A change as a vantage reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What it is now.
    pub ok: bool,
    /// The look with the latest send that said otherwise.
    pub before: Option<Look>,
    /// The first completed look that said so.
    pub after: Look,
}

/// Finds edges while looks complete; feed looks in order of completion.
///
/// A look that was sent before the present phase began and says otherwise is explained by the phase before: no edge. But
/// where looks overlap, the look that an edge names as the one before need not be the one that bounds the change: one that
/// completes after the edge may have been sent later, and where it was still out when the first look of the change was sent,
/// it may speak of what came after. The edge is then told again with that other look, see [`Edges::again`].
#[derive(Clone, Debug, Default)]
pub struct Edges {
    state: Option<bool>,
    since: i64,
    latest: [Option<Look>; 2],
    /// Longest time that a look is out.
    reach: i64,
    /// Of each state the looks that had completed when one that is still out was sent, and those since.
    recent: [VecDeque<Look>; 2],
    told: Option<Edge>,
    again: Vec<Edge>,
    owed: Vec<Edge>,
}

impl Edges {
    /// For looks that are given up after this time. It only says what is remembered: looks that take longer are no mistake.
    pub fn of(timeout: Dur) -> Self {
        Self { reach: timeout.ns().max(0), ..Self::default() }
    }

    /// Takes one completed look; an edge if it is the first or tells of a change.
    pub fn see(&mut self, look: Look, ok: bool) -> Option<Edge> {
        let slot = &mut self.latest[usize::from(ok)];
        if slot.is_none_or(|known| look.s > known.s) {
            *slot = Some(look);
        }
        let edge = match self.state {
            None => Edge { ok, before: None, after: look },
            Some(state) if state != ok && look.s >= self.since => {
                Edge { ok, before: self.latest[usize::from(state)], after: look }
            }
            Some(state) => {
                self.remember(look, ok);
                if state != ok {
                    self.narrow(look);
                }
                return None;
            }
        };
        self.owed = std::mem::take(&mut self.again);
        // The look before was still out when this one was sent: what had completed by then bounds the change in any case.
        let settled = self.recent[usize::from(!ok)].iter().filter(|l| l.c <= look.s).max_by_key(|l| l.s);
        if let (Some(before), Some(settled)) = (edge.before, settled)
            && before.c > look.s
        {
            self.again.push(Edge { before: Some(*settled), ..edge });
        }
        self.remember(look, ok);
        self.since = if self.state.is_none() { i64::MIN } else { look.c };
        self.state = Some(ok);
        self.told = Some(edge);
        Some(edge)
    }

    /// Keeps a look for as long as one that was sent after it may be out.
    fn remember(&mut self, look: Look, ok: bool) {
        let recent = &mut self.recent[usize::from(ok)];
        recent.push_back(look);
        let begin = look.c.saturating_sub(self.reach);
        while recent.len() > MOST_RECENT || recent.get(1).is_some_and(|next| next.c < begin) {
            recent.pop_front();
        }
    }

    /// A look that the phase before explains moves the edge's `before` nearer if it was sent later.
    fn narrow(&mut self, look: Look) {
        if let Some(edge) = &mut self.told
            && edge.before.is_some_and(|before| before.s < look.s)
        {
            let known = edge.before;
            edge.before = Some(look);
            // Once for any number of such looks.
            self.again.retain(|told| told.before != known);
            self.again.push(*edge);
        }
    }

    /// The last edge again, with other looks before it that bound the change as well: ask now and then.
    pub fn again(&mut self) -> Vec<Edge> {
        std::mem::take(&mut self.again)
    }

    /// What was not asked for in time of the edge before the last: ask after each new edge, and tell these first.
    pub fn owed(&mut self) -> Vec<Edge> {
        std::mem::take(&mut self.owed)
    }

    /// What it is now; `None` before the first look.
    pub fn state(&self) -> Option<bool> {
        self.state
    }
}

#[cfg(test)]
mod tests;
