//! Trends: what many runs of one intent say together about a service, and whether the newest of them are slower.
//!
//! Every run counts: one that ended before its service was back is a length without an upper bound, not a missing one.
//! Statistics rest on ranks alone and hold for any distribution; what n does not support is refused, never guessed. It
//! fetches no run and draws nothing.
//!
//! A length is known only within bounds. A percentile of the lower bounds and the same percentile of the upper bounds
//! enclose the percentile of the truth, whatever lies between, and a run cut short has no upper bound. That is wider than
//! Turnbull's estimate, and holds without its assumption that runs are cut short independently of how they would have
//! gone, which is wrong for every run that a stop condition ended.

mod point;
mod rank;
mod standing;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    point::{Point, points},
    rank::{slower_p, smallest_p},
    standing::{Standing, State, standings},
};
use crate::{
    id::{RunId, ServiceId},
    report::Judgement,
    stats,
    time::Interval,
    units::Dur,
};

/// Names the shape of trends as data.
pub const SCHEMA: &str = "fracas.trend/v1";

/// How often a comparison may call a service slower that is not, unless told.
pub const ALPHA: f64 = 0.05;

/// What many runs say of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// The service.
    pub service: ServiceId,
    /// Names of the experiments whose runs these are.
    pub experiments: Vec<String>,
    /// Digests of what they meant: one, unless different ones were mixed on purpose.
    pub intents: Vec<String>,
    /// Every run, oldest first.
    pub points: Vec<Point>,
    /// How many of them count: a fault took effect.
    pub n: usize,
    /// How many of those ended before the service was back.
    pub censored: usize,
    /// How many met the objective of their document.
    pub met: usize,
    /// How many missed it.
    pub missed: usize,
    /// Lower 95 % bound of the chance to meet it; where not all did, there is none.
    pub all_met_bound: Option<f64>,
    /// Median and higher percentiles.
    pub percentiles: Vec<Percentile>,
    /// The newest runs against those before them, where that was asked for.
    pub change: Option<Change>,
}

/// A percentile, as far as n supports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentile {
    /// Which: 0.5 is the median.
    pub p: f64,
    /// How many runs it needs.
    pub needs: usize,
    /// Bounds of the percentile of these runs; `None`: too few.
    pub of_runs: Option<Interval>,
    /// What the percentile of all such runs is at least, with 97.5 % confidence; of the median only.
    pub at_least: Option<Dur>,
    /// What it is at most: with 97.5 % confidence of the median, with 95 % of the others. `None`: too few runs, or too many
    /// of them were cut short.
    pub at_most: Option<Dur>,
}

/// Some runs against others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What can be said.
    pub word: ChangeWord,
    /// In plain words, with p and n.
    pub why: String,
    /// The chance of so much slower a look if nothing has changed; `None`: there was nothing to compare.
    pub p: Option<f64>,
    /// At or below which p it is called slower.
    pub alpha: f64,
    /// The newest runs, oldest first.
    pub later: Vec<RunId>,
    /// What they are compared with.
    pub baseline: Vec<RunId>,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeWord {
    /// Slower than chance explains.
    Slower,
    /// Not slower beyond what chance explains.
    NotSlower,
    /// Too few runs, too many cut short, or a newest run that shows nothing.
    CannotTell,
}

/// What the newest runs are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// So many runs before them.
    Last(usize),
    /// From one run to another, both included; the same one twice for one alone.
    Between(RunId, RunId),
}

/// What is compared, and how surely.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// How many of the newest runs.
    pub newest: usize,
    /// With what.
    pub baseline: Baseline,
    /// How often a false alarm may be raised: by one comparison, or by all that [`compare_together`] is given.
    pub alpha: f64,
}

/// Trends of these points: one for each service and intent, the one with the newest run first; with `mixed`, one for each
/// service. Points come as the store tells them, those of the newest run first: what the controller's clock said then orders
/// nothing, it may have stood wrong.
pub fn trends(points: Vec<Point>, mixed: bool, asked: Option<&Asked>) -> Vec<Trend> {
    let mut groups: Vec<Vec<Point>> = Vec::new();
    for point in points {
        let alike = |one: &Point| one.service == point.service && (mixed || one.intent == point.intent);
        match groups.iter_mut().find(|group| alike(&group[0])) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    let oldest_first = groups.into_iter().map(|points| points.into_iter().rev().collect());
    oldest_first.map(|points| of(points, asked)).collect()
}

fn of(points: Vec<Point>, asked: Option<&Asked>) -> Trend {
    let lengths: Vec<Interval> = points.iter().filter_map(|point| point.length).collect();
    // A run without effect met nothing, whatever it was called then.
    let counted = || points.iter().filter(|point| point.length.is_some());
    let met = counted().filter(|point| matches!(point.judgement, Judgement::Met { .. })).count();
    let missed = counted().filter(|point| matches!(point.judgement, Judgement::Missed { .. })).count();
    let all_met = met > 0 && met == lengths.len();
    let distinct = |of: fn(&Point) -> &String| {
        let mut all: Vec<String> = Vec::new();
        for text in points.iter().map(of) {
            if !all.contains(text) {
                all.push(text.clone());
            }
        }
        all
    };
    Trend {
        service: points[0].service.clone(),
        experiments: distinct(|point| &point.experiment),
        intents: distinct(|point| &point.intent),
        n: lengths.len(),
        censored: lengths.iter().filter(|length| length.hi.is_none()).count(),
        met,
        missed,
        all_met_bound: all_met.then(|| stats::all_passed_bound(u32::try_from(met).unwrap_or(u32::MAX))),
        percentiles: [0.5, 0.9, 0.95, 0.99].map(|p| percentile(&lengths, p)).into(),
        change: asked.map(|asked| change(&points, asked)),
        points,
    }
}

/// The percentile `p` of lengths known within bounds: see the module.
pub fn percentile(lengths: &[Interval], p: f64) -> Percentile {
    let n = lengths.len();
    let mut shortest: Vec<Dur> = lengths.iter().map(|length| length.lo).collect();
    let mut longest: Vec<i64> = lengths.iter().map(|length| length.hi.map_or(i64::MAX, Dur::ns)).collect();
    shortest.sort_unstable();
    longest.sort_unstable();
    let upper = |rank: usize| longest.get(rank - 1).filter(|ns| **ns < i64::MAX).map(|ns| Dur::from_ns(*ns));
    let nearest = ((p * n as f64).ceil() as usize).clamp(1, n.max(1));
    let needs = stats::needed(p);
    let of_runs = (n >= needs).then(|| Interval { lo: shortest[nearest - 1], hi: upper(nearest) });
    let (below, above) = if p > 0.5 { (None, stats::upper_rank(n, p)) } else { stats::enclosing_ranks(n, p) };
    Percentile { p, needs, of_runs, at_least: below.map(|rank| shortest[rank - 1]), at_most: above.and_then(upper) }
}

/// The newest of these runs, oldest first, against the baseline.
fn change(points: &[Point], asked: &Asked) -> Change {
    let (before, later) = points.split_at(points.len().saturating_sub(asked.newest.max(1)));
    let later: Vec<&Point> = later.iter().collect();
    let before: Vec<&Point> = before.iter().filter(|point| point.length.is_some()).collect();
    let before = match &asked.baseline {
        Baseline::Last(n) => &before[before.len().saturating_sub(*n)..],
        Baseline::Between(first, last) => {
            let place = |run: &RunId| before.iter().position(|point| point.run == *run);
            match (place(first), place(last)) {
                (Some(from), Some(to)) if from <= to => &before[from..=to],
                _ => &[],
            }
        }
    };
    let runs = |points: &[&Point]| points.iter().map(|point| point.run.clone()).collect();
    // The run before it would say nothing of the one that was asked for.
    let (word, why, p) = match later.iter().find(|point| point.length.is_none()) {
        Some(point) => (ChangeWord::CannotTell, format!("no fault took effect in run {}", point.run), None),
        None => compared(&lengths(&later), &lengths(before), asked),
    };
    Change { word, why, p, alpha: asked.alpha, later: runs(&later), baseline: runs(before) }
}

fn lengths(points: &[&Point]) -> Vec<Interval> {
    points.iter().filter_map(|point| point.length).collect()
}

/// The word, the reason, and p.
fn compared(later: &[Interval], baseline: &[Interval], asked: &Asked) -> (ChangeWord, String, Option<f64>) {
    let (m, n) = (later.len(), baseline.len());
    let sizes = format!("n = {m} against {n}");
    if m == 0 || n == 0 {
        return (ChangeWord::CannotTell, format!("nothing to compare with: {sizes}"), None);
    }
    let best = smallest_p(m, n);
    // A p of exactly alpha counts, also where it was summed from parts.
    let alpha = asked.alpha * (1.0 + 1e-9);
    if best > alpha {
        let needs = ((1.0 / alpha).ceil() as usize).saturating_sub(1);
        let help = match &asked.baseline {
            _ if m > 1 => String::new(),
            Baseline::Last(most) if *most < needs => format!("; a baseline of last:{needs} is enough"),
            _ => format!("; {needs} runs before the newest one are enough"),
        };
        let (best, asked) = (short(best), short(asked.alpha));
        let why = format!("{sizes}: p cannot fall below {best} at that size, {asked} is asked{help}");
        return (ChangeWord::CannotTell, why, None);
    }
    let p = slower_p(later, baseline);
    if p <= alpha {
        return (ChangeWord::Slower, format!("slower than {} before, p = {}, {sizes}", runs(n), short(p)), Some(p));
    }
    if let Some(those) = doubted(later, baseline, alpha) {
        return (ChangeWord::CannotTell, format!("{those} ended before the service was back, {sizes}"), Some(p));
    }
    (ChangeWord::NotSlower, format!("not slower than {} before, p = {}, {sizes}", runs(n), short(p)), Some(p))
}

/// The runs of which nobody knows how long they would have been, where that makes a difference: a later one that was cut
/// short may have been as slow as can be, one of the baseline may have been back in the next moment.
fn doubted(later: &[Interval], baseline: &[Interval], alpha: f64) -> Option<String> {
    let cut = |lengths: &[Interval]| lengths.iter().filter(|length| length.hi.is_none()).count();
    let filled = |lengths: &[Interval], with: fn(Dur) -> Interval| -> Vec<Interval> {
        lengths.iter().map(|one| if one.hi.is_none() { with(one.lo) } else { *one }).collect()
    };
    let slowest = filled(later, |_| Interval::at_least(Dur::from_ns(i64::MAX)));
    let quickest = filled(baseline, |lo| Interval::new(lo, lo));
    let (m, n) = (later.len(), baseline.len());
    let of_later = || match m {
        1 => "the run".to_owned(),
        _ => format!("{} of the {m} newest runs", cut(later)),
    };
    let of_baseline = || match n {
        1 => "the run before".to_owned(),
        _ => format!("{} of the {n} runs before", cut(baseline)),
    };
    if cut(later) > 0 && slower_p(&slowest, baseline) <= alpha {
        return Some(of_later());
    }
    if cut(baseline) > 0 && slower_p(later, &quickest) <= alpha {
        return Some(of_baseline());
    }
    let both = cut(later) > 0 && cut(baseline) > 0 && slower_p(&slowest, &quickest) <= alpha;
    both.then(|| format!("{} and {}", of_later(), of_baseline()))
}

fn runs(n: usize) -> String {
    if n == 1 { "the run".to_owned() } else { format!("the {n} runs") }
}

/// p for people: two figures, and no more zeros than anybody reads.
pub fn short(p: f64) -> String {
    if p < 0.000_1 {
        "< 0.0001".to_owned()
    } else if p < 0.1 {
        format!("{p:.4}").trim_end_matches('0').to_owned()
    } else {
        format!("{p:.2}")
    }
}

/// Compares again, so that all these comparisons together raise a false alarm no more often than was asked (Holm 1979): of k
/// that are left, the one with the smallest p is slower at or below alpha / k; the first that is not ends it. Trends that
/// could not be compared raise none and are not counted.
pub fn compare_together(trends: &mut [Trend], asked: &Asked) {
    for trend in trends.iter_mut() {
        trend.change = Some(change(&trend.points, asked));
    }
    let p = |trend: &Trend| trend.change.as_ref().and_then(|change| change.p);
    let mut order: Vec<(usize, f64)> = trends.iter().enumerate().filter_map(|(at, t)| Some((at, p(t)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let all = order.len();
    let mut left = all;
    for (at, _) in order {
        let alpha = asked.alpha / left as f64;
        let mut found = change(&trends[at].points, &Asked { alpha, ..asked.clone() });
        if all > 1 {
            found.why += &format!("; alpha of {} shared by {all} services", short(asked.alpha));
        }
        if found.word == ChangeWord::Slower {
            left -= 1;
        }
        trends[at].change = Some(found);
    }
}

/// The worst word of several comparisons: slower beats doubt, doubt beats all well.
pub fn worst(trends: &[Trend]) -> Option<ChangeWord> {
    let words = trends.iter().filter_map(|trend| trend.change.as_ref()).map(|change| change.word);
    words.min_by_key(|word| match word {
        ChangeWord::Slower => 0,
        ChangeWord::CannotTell => 1,
        ChangeWord::NotSlower => 2,
    })
}
