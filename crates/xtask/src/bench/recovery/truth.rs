//! What truly happened to a scripted service, and whether an estimate holds against it. It draws no script and looks at
//! nothing.
//!
//! A *dip* is a time in which the service was down for this probe: a request that met it then was not answered well
//! within the probe's timeout. What no failing look met cannot be known from outside. So the truth of an outage is from
//! the beginning of its first dip that a failing look met to the end of the last such dip, and an outage none of whose
//! dips were met is missed. A partial outage has no dips but failed requests: each is one, as short as its decision.

use fracas_model::{
    estimate::{Outage, Rules, Track},
    event::Reading,
    units::Dur,
};

/// When something happened: at some instant in `[lo, hi]`, nanoseconds of boot time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) lo: i64,
    pub(super) hi: i64,
}

impl Span {
    pub(super) fn at(ns: i64) -> Self {
        Self { lo: ns, hi: ns }
    }

    fn width(self) -> i64 {
        self.hi - self.lo
    }

    fn middle(self) -> i64 {
        i64::midpoint(self.lo, self.hi)
    }
}

/// From up to down and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dip {
    pub(super) down: Span,
    pub(super) up: Span,
}

/// How a service fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// Connections are refused.
    Refused,
    /// It answers that it cannot.
    Failing,
    /// Requests wait until it is back.
    Hanging,
    /// Several dips inside the stable window.
    Flapping,
    /// Refused, then up with a latency that falls below the probe's timeout only later.
    Slow,
    /// Each request fails by chance.
    Partial,
}

impl Shape {
    pub(super) const ALL: [Self; 6] =
        [Self::Refused, Self::Failing, Self::Hanging, Self::Flapping, Self::Slow, Self::Partial];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refuses",
            Self::Failing => "answers 503",
            Self::Hanging => "hangs",
            Self::Flapping => "flapping",
            Self::Slow => "slow recovery",
            Self::Partial => "partial",
        }
    }
}

/// One outage as the script has it.
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    pub(super) shape: Shape,
    /// In order; of a partial outage, the failed requests.
    pub(super) dips: Vec<Dip>,
    /// All of it, met or not; of a partial outage, the time in which requests may fail.
    pub(super) whole: Dip,
}

/// What one probe saw of one service.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub(super) rules: Rules,
    /// In order of sending.
    pub(super) readings: Vec<Reading>,
    /// As the agent told it.
    pub(super) track: Track,
}

/// How one outage fared.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) shape: Shape,
    pub(super) every_ns: i64,
    pub(super) fate: Fate,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// No look met it.
    Missed {
        /// Though one dip was longer than a period and the latency of 99 of 100 looks, and a timeout where it hangs.
        long_enough: bool,
    },
    /// It was met, but the estimate has no outage for it, or not one of its own.
    Lost,
    /// Found.
    Found(Found),
}

/// An estimated outage beside its truth, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Impact, recovery and length all lie within their intervals, as far as the truth itself is known.
    pub(super) held: bool,
    /// The whole script's length lies in the interval too.
    pub(super) held_whole: bool,
    /// `hi - lo`; the largest number when it is open.
    pub(super) width: i64,
    /// 2 x (period + p99 latency of all looks at the service) + what the truth itself is uncertain by.
    pub(super) allowed: i64,
    /// The same with the latency of the looks at this outage, from a period before it to a period after it, where that is
    /// larger: where few looks of many end at the timeout, only these show it.
    pub(super) allowed_own: i64,
    /// Width of what all single readings, not only the edges, would allow: no estimate can be narrower.
    pub(super) tightest: i64,
    /// The true length.
    pub(super) truth: i64,
    /// Middle of the interval less the truth; `None` when the interval is open.
    pub(super) error: Option<i64>,
    /// Middle of the interval less the length of the whole script.
    pub(super) error_whole: Option<i64>,
}

/// Every scripted outage's fate, and the outages that were found but never happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    pub(super) outcomes: Vec<Outcome>,
    /// Each with its period.
    pub(super) invented: Vec<i64>,
}

/// Holds what was seen of one service against its script.
pub(super) fn judge(script: &[Scripted], looked: &Looked) -> Judged {
    let Looked { rules, readings, track } = looked;
    let every = rules.every.ns();
    let latency = p99(readings);
    let found = track.estimate(*rules).outages;
    let tightest = tightest(looked);
    let mut failing: Vec<&Reading> = readings.iter().filter(|r| !r.ok).collect();
    failing.sort_by_key(|r| r.look.s);
    let longest = failing.iter().map(|r| r.look.c - r.look.s).max().unwrap_or(0);
    let met = |dip: &Dip| {
        let from = failing.partition_point(|r| r.look.s < dip.down.lo - longest);
        failing[from..].iter().take_while(|r| r.look.s <= dip.up.hi).any(|r| r.look.c >= dip.down.lo)
    };
    let mut outcomes = Vec::new();
    let mut truths = Vec::new();
    for scripted in script {
        let (shape, whole) = (scripted.shape, scripted.whole);
        let seen: Vec<Dip> = scripted.dips.iter().copied().filter(met).collect();
        if seen.is_empty() {
            let must = every + latency + if shape == Shape::Hanging { rules.timeout.ns() } else { 0 };
            let long = |dip: &Dip| dip.up.lo - dip.down.hi > must;
            let long_enough = shape != Shape::Partial && scripted.dips.iter().any(long);
            outcomes.push(Outcome { shape, every_ns: every, fate: Fate::Missed { long_enough } });
        }
        // A return that lasts as long as the stable window is a recovery, also where the script says that it goes on.
        for group in seen.chunk_by(|a, b| b.down.lo - a.up.hi <= rules.stable_for.ns()) {
            if let (Some(first), Some(last)) = (group.first(), group.last()) {
                truths.push((shape, whole, Dip { down: first.down, up: last.up }));
            }
        }
    }
    let overlaps = |o: &Outage, truth: &Dip| {
        o.start_lo.is_none_or(|lo| lo <= truth.up.hi) && o.end_hi.is_none_or(|hi| truth.down.lo <= hi)
    };
    for (shape, whole, truth) in &truths {
        let mine: Vec<&Outage> = found.iter().filter(|o| overlaps(o, truth)).collect();
        let fate = match mine[..] {
            [one] if truths.iter().filter(|(.., t)| overlaps(one, t)).count() == 1 => {
                let tight = tightest.iter().find(|o| overlaps(o, truth)).map_or(0, width);
                let own =
                    readings.iter().filter(|r| r.look.c >= truth.down.lo - every && r.look.s <= truth.up.hi + every);
                let allow = |latency| 2 * (every + latency) + truth.down.width() + truth.up.width();
                let allowed = (allow(latency), allow(p99(own).max(latency)));
                Fate::Found(compare(one, truth, whole, allowed, tight))
            }
            _ => Fate::Lost,
        };
        outcomes.push(Outcome { shape: *shape, every_ns: every, fate });
    }
    let invented = found.iter().filter(|o| !truths.iter().any(|(.., t)| overlaps(o, t))).map(|_| every).collect();
    Judged { outcomes, invented }
}

fn compare(outage: &Outage, truth: &Dip, whole: &Dip, allowed: (i64, i64), tightest: i64) -> Found {
    let meets = |lo: Option<i64>, hi: Option<i64>, span: Span| {
        lo.is_none_or(|lo| lo <= span.hi) && hi.is_none_or(|hi| span.lo <= hi)
    };
    let length = |dip: &Dip| Span { lo: dip.up.lo - dip.down.hi, hi: dip.up.hi - dip.down.lo };
    let duration = (Some(outage.duration.lo.ns()), outage.duration.hi.map(Dur::ns));
    let point = outage.duration.point().map(Dur::ns);
    Found {
        held: meets(duration.0, duration.1, length(truth))
            && meets(outage.start_lo, Some(outage.start_hi), truth.down)
            && meets(Some(outage.end_lo), outage.end_hi, truth.up),
        held_whole: meets(duration.0, duration.1, length(whole)),
        width: width(outage),
        allowed: allowed.0,
        allowed_own: allowed.1,
        tightest,
        truth: length(truth).middle(),
        error: point.map(|p| p - length(truth).middle()),
        error_whole: point.map(|p| p - length(whole).middle()),
    }
}

fn width(outage: &Outage) -> i64 {
    outage.duration.width().map_or(i64::MAX, Dur::ns)
}

/// The estimate from every single reading.
fn tightest(looked: &Looked) -> Vec<Outage> {
    // The same gaps and seals, so that the stable window is judged alike.
    let mut track = looked.track.clone();
    for reading in &looked.readings {
        track.edge(reading.ok, None, reading.look, 0);
    }
    track.estimate(looked.rules).outages
}

/// Latency of 99 of 100 looks, nearest rank.
fn p99<'a>(readings: impl IntoIterator<Item = &'a Reading>) -> i64 {
    let mut took: Vec<i64> = readings.into_iter().map(|r| r.look.c - r.look.s).collect();
    took.sort_unstable();
    let rank = (took.len() as f64 * 0.99).ceil() as usize;
    took.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use fracas_model::event::Look;

    use super::*;

    const MS: i64 = 1_000_000;

    /// Looks of 1 ms every 100 ms, down as told, against a script that says something else.
    fn judged(down: &[(i64, i64)], script: &[(i64, i64)]) -> Judged {
        let rules = Rules { stable_for: Dur::from_secs(1), every: Dur::from_ms(100), timeout: Dur::from_ms(100) };
        let readings: Vec<Reading> = (0..100)
            .map(|i| Reading {
                look: Look { s: i * 100 * MS, c: (i * 100 + 1) * MS },
                ok: !down.iter().any(|(a, b)| (*a..*b).contains(&(i * 100))),
                why: String::new(),
            })
            .collect();
        let dip = |(a, b): &(i64, i64)| Dip { down: Span::at(a * MS), up: Span::at(b * MS) };
        let script: Vec<Scripted> = script
            .iter()
            .map(|span| Scripted { shape: Shape::Refused, dips: vec![dip(span)], whole: dip(span) })
            .collect();
        let track = Track::of_readings(&readings);
        judge(&script, &Looked { rules, readings, track })
    }

    #[test]
    fn a_wrong_estimate_is_not_held() {
        let right = judged(&[(1050, 2950)], &[(1050, 2950)]);
        let [Outcome { fate: Fate::Found(found), .. }] = right.outcomes[..] else { panic!("{right:?}") };
        assert!(found.held && found.width <= found.allowed_own && found.tightest == found.width, "{found:?}");
        assert!(found.error.is_some_and(|e| e.abs() < 2 * MS));
        // The same looks, but the service was down half a second longer.
        let wrong = judged(&[(1050, 2950)], &[(1050, 3450)]);
        let [Outcome { fate: Fate::Found(found), .. }] = wrong.outcomes[..] else { panic!("{wrong:?}") };
        assert!(!found.held);
    }

    #[test]
    fn missed_invented_and_merged_are_told_apart() {
        let short = judged(&[], &[(1010, 1090)]);
        assert!(matches!(short.outcomes[..], [Outcome { fate: Fate::Missed { long_enough: false }, .. }]));
        let long = judged(&[], &[(1010, 1290)]);
        assert!(matches!(long.outcomes[..], [Outcome { fate: Fate::Missed { long_enough: true }, .. }]));
        assert_eq!(judged(&[(1050, 2950)], &[]).invented, [100 * MS]);
        // One outage was found where the script has two.
        let merged = judged(&[(1050, 5950)], &[(1050, 2950), (4050, 5950)]);
        assert!(merged.outcomes.iter().all(|o| matches!(o.fate, Fate::Lost)), "{merged:?}");
    }
}
