//! How much of a service was out: phases in which several vantages saw it down, laid over each other on one clock. It knows
//! no faults and judges nothing.

use super::{Together, clocks::Clocks};
use crate::{
    estimate::Estimate,
    time::{ClockId, Interval, Stamp},
    units::Dur,
};

/// One phase of being down as one vantage saw it, on its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    /// It began at some instant from here; absent: nothing earlier was seen.
    pub start_lo: Option<i64>,
    /// To here.
    pub start_hi: i64,
    /// It ended at some instant from here.
    pub end_lo: i64,
    /// To here; absent: its end was not seen.
    pub end_hi: Option<i64>,
}

/// Every phase that reaches beyond the first fault, which took effect from `from.0` to `from.1` at the latest; what lies before
/// it is cut off. Returns that did not last are no part of a phase.
pub(super) fn phases(found: &Estimate, from: (i64, i64)) -> Vec<Phase> {
    let changes = &found.changes;
    let down = changes.iter().enumerate().filter(|(_, change)| !change.ok);
    let phase = down.map(|(at, change)| {
        let up = changes.get(at + 1);
        // A phase that was not seen to end belongs to the last outage.
        let last_failure = || found.outages.last().map_or(change.hi, |outage| outage.end_lo);
        Phase {
            start_lo: Some(change.lo.unwrap_or(i64::MIN).max(from.0)),
            start_hi: change.hi.max(from.1),
            end_lo: up.map_or_else(last_failure, |up| up.lo.unwrap_or(change.hi)),
            end_hi: up.map(|up| up.hi),
        }
    });
    phase.filter(|phase| phase.end_hi.is_none_or(|end| phase.start_lo.is_none_or(|start| end > start))).collect()
}

/// What they say together. Each part of it holds for every truth that the phases allow: what surely overlapped is made of
/// the parts of each phase that are certain, what may have of those that are possible.
///
/// Each vantage has its phases with the clock they are on: a host that was booted anew is one vantage on two clocks.
pub(super) fn together(clocks: &Clocks, seen: &[Vec<(ClockId, Phase)>]) -> Option<Together> {
    if seen.len() < 2 {
        return None;
    }
    let Some((target, _)) = seen.iter().flatten().next() else {
        let none = Interval { lo: Dur::ZERO, hi: Some(Dur::ZERO) };
        return Some(Together { vantages: seen.len() as u32, certain: 0, possible: 0, all_down: none, any_down: none });
    };
    let (mut certain, mut possible) = (Vec::new(), Vec::new());
    for phases in seen {
        let (mut surely, mut perhaps) = (Vec::new(), Vec::new());
        for (clock, phase) in phases {
            let on =
                |ns: i64| clocks.to(&Stamp { clock: clock.clone(), boot_ns: ns, wall_ns: 0, bound_ns: -1 }, target);
            let (from, to) = (on(phase.start_hi)?.1, on(phase.end_lo)?.0);
            if from < to {
                surely.push((from, to));
            }
            let from = phase.start_lo.map_or(Some(i64::MIN), |ns| Some(on(ns)?.0))?;
            let to = phase.end_hi.map_or(Some(i64::MAX), |ns| Some(on(ns)?.1))?;
            perhaps.push((from, to));
        }
        certain.extend(united(surely));
        possible.extend(united(perhaps));
    }
    let (certain, possible) = (Layers::of(&certain), Layers::of(&possible));
    let all = seen.len() as u32;
    let length = |layers: u32| {
        let lo = certain.time(layers).unwrap_or(i64::MAX);
        Interval { lo: Dur::from_ns(lo), hi: possible.time(layers).map(|hi| Dur::from_ns(hi.max(lo))) }
    };
    Some(Together {
        vantages: all,
        certain: certain.most,
        possible: possible.most,
        all_down: length(all),
        any_down: length(1),
    })
}

/// One vantage counts once: the bounds of two phases with a single look in between overlap by the length of that look.
fn united(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.sort_unstable();
    let mut apart: Vec<(i64, i64)> = Vec::new();
    for (from, to) in spans {
        match apart.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => apart.push((from, to)),
        }
    }
    apart
}

/// Spans laid over each other.
struct Layers {
    /// From where how many lie there.
    steps: Vec<(i64, u32)>,
    most: u32,
}

impl Layers {
    fn of(spans: &[(i64, i64)]) -> Self {
        let mut edges: Vec<(i64, i32)> = spans.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
        // At one instant an end comes before a beginning: those two do not overlap.
        edges.sort_unstable();
        let (mut steps, mut count, mut most) = (Vec::new(), 0_i32, 0);
        for (at, by) in edges {
            count += by;
            most = most.max(count);
            steps.push((at, count.max(0) as u32));
        }
        Self { steps, most: most.max(0) as u32 }
    }

    /// How long at least so many lay there; `None`: without end.
    fn time(&self, least: u32) -> Option<i64> {
        let mut sum = 0_i64;
        for pair in self.steps.windows(2) {
            let ((from, count), (to, _)) = (pair[0], pair[1]);
            if count >= least && to > from {
                if from == i64::MIN || to == i64::MAX {
                    return None;
                }
                sum = sum.saturating_add(to.saturating_sub(from));
            }
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> ClockId {
        ClockId { host: "e".into(), boot: "b".into() }
    }

    fn phase(start: (i64, i64), end: (i64, Option<i64>)) -> Phase {
        Phase { start_lo: Some(start.0), start_hi: start.1, end_lo: end.0, end_hi: end.1 }
    }

    fn of(phases: &[Vec<Phase>]) -> Option<Together> {
        let with_clock = |phases: &Vec<Phase>| phases.iter().map(|phase| (clock(), *phase)).collect();
        let seen: Vec<Vec<(ClockId, Phase)>> = phases.iter().map(with_clock).collect();
        together(&Clocks::default(), &seen)
    }

    fn ns(lo: i64, hi: Option<i64>) -> Interval {
        Interval { lo: Dur::from_ns(lo), hi: hi.map(Dur::from_ns) }
    }

    #[test]
    fn what_surely_overlaps_is_less_than_what_may() {
        // Both were down; surely from 20 to 30, possibly from 15 to 40.
        let one = vec![phase((0, 10), (30, Some(40)))];
        let two = vec![phase((15, 20), (50, Some(60)))];
        let seen = of(&[one.clone(), two.clone(), vec![]]).unwrap();
        assert_eq!((seen.vantages, seen.certain, seen.possible), (3, 2, 2));
        assert_eq!((seen.all_down, seen.any_down), (ns(0, Some(0)), ns(40, Some(60))));
        assert_eq!(of(&[one, two]).unwrap().all_down, ns(10, Some(25)));
    }

    #[test]
    fn an_end_that_nobody_saw_bounds_nothing() {
        let seen = of(&[vec![phase((0, 10), (30, None))], vec![phase((0, 10), (30, Some(40)))]]).unwrap();
        assert_eq!((seen.any_down, seen.all_down), (ns(20, None), ns(20, Some(40))));
        assert_eq!(of(&[vec![phase((0, 1), (2, Some(3)))]]), None, "one vantage is no crowd");
    }

    #[test]
    fn neighbours_whose_bounds_overlap_are_one_vantage() {
        let flapping = vec![phase((0, 10), (20, Some(30))), phase((28, 35), (50, Some(60)))];
        let seen = of(&[flapping, vec![]]).unwrap();
        assert_eq!((seen.certain, seen.possible, seen.any_down), (1, 1, ns(25, Some(60))));
    }
}
