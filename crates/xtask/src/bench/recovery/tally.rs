//! Outcomes counted into rows of a table: how many were found, held, and how wide. It judges no single outage.

use fracas_model::stats::passed_bound;

use super::truth::{Fate, Found, Judged, Outcome};
use crate::bench::table;

/// What the columns of [`Tally::cells`] are called, after that of the row itself.
pub(super) const COLUMNS: [&str; 10] = [
    "outages",
    "missed (long enough)",
    "invented",
    "held (95 % bound)",
    "narrow",
    "or by its own looks (95 % bound)",
    "wider by looks, by estimate",
    "width p50, p99",
    "allowed p50",
    "error mean; |error| p50, p99",
];

/// Counts of one row.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) found: Vec<Found>,
    pub(super) missed: u32,
    pub(super) missed_long: u32,
    pub(super) lost: u32,
    pub(super) invented: u32,
}

impl Tally {
    /// Everything that was judged, as far as the row is about it.
    pub(super) fn of<'a>(judged: impl IntoIterator<Item = &'a Judged>, about: impl Fn(&Outcome) -> bool) -> Self {
        let mut tally = Self::default();
        for outcome in judged.into_iter().flat_map(|j| &j.outcomes).filter(|o| about(o)) {
            match outcome.fate {
                Fate::Missed { long_enough } => {
                    tally.missed += 1;
                    tally.missed_long += u32::from(long_enough);
                }
                Fate::Lost => tally.lost += 1,
                Fate::Found(found) => tally.found.push(found),
            }
        }
        tally
    }

    /// Outages that at least one failing look met.
    pub(super) fn met(&self) -> u32 {
        self.lost + self.count(|_| true)
    }

    /// Of these, whose intervals hold the truth.
    pub(super) fn held(&self) -> u32 {
        self.count(|f| f.held)
    }

    /// Held, and not wider than the looks at the service allow.
    fn narrow(&self) -> u32 {
        self.count(|f| f.held && f.width <= f.allowed)
    }

    /// Held, and not wider than these or the looks at the outage itself allow.
    pub(super) fn narrow_own(&self) -> u32 {
        self.count(|f| f.held && f.width <= f.allowed_own)
    }

    /// Wider than the latter though the single readings would have allowed a narrower interval.
    pub(super) fn wide_by_estimate(&self) -> u32 {
        self.count(|f| f.width > f.allowed_own && f.tightest <= f.allowed_own)
    }

    /// Wider than the latter by looks that were missed, late or slow: nothing that was seen bounds it closer.
    fn wide_by_looks(&self) -> u32 {
        self.count(|f| f.width > f.allowed_own && f.tightest > f.allowed_own)
    }

    fn count(&self, what: impl Fn(&Found) -> bool) -> u32 {
        self.found.iter().filter(|f| what(f)).count() as u32
    }

    fn errors(&self) -> Vec<i64> {
        self.found.iter().filter_map(|f| f.error).collect()
    }

    /// The cells of a row, in the order of [`COLUMNS`]; milliseconds.
    pub(super) fn cells(&self) -> Vec<String> {
        let share = |k: u32| {
            let n = self.met();
            if n == 0 { "-".into() } else { format!("{k} of {n} (>= {:.2} %)", passed_bound(k, n) * 100.0) }
        };
        let sorted = |mut values: Vec<i64>| {
            values.sort_unstable();
            values
        };
        let closed = |of: fn(&Found) -> i64| self.found.iter().map(of).filter(|w| *w < i64::MAX).collect::<Vec<_>>();
        let widths = sorted(closed(|f| f.width));
        let errors = sorted(self.errors().iter().map(|e| e.abs()).collect());
        vec![
            (self.met() + self.missed).to_string(),
            format!("{} ({})", self.missed, self.missed_long),
            self.invented.to_string(),
            share(self.held()),
            self.narrow().to_string(),
            share(self.narrow_own()),
            format!("{}, {}", self.wide_by_looks(), self.wide_by_estimate()),
            format!("{}, {}", ms(rank(&widths, 0.5)), ms(rank(&widths, 0.99))),
            ms(rank(&sorted(closed(|f| f.allowed)), 0.5)),
            format!(
                "{}; {}, {}",
                mean(&self.errors()).map_or("-".into(), |b| format!("{:+.2}", b / 1e6)),
                ms(rank(&errors, 0.5)),
                ms(rank(&errors, 0.99))
            ),
        ]
    }
}

/// A table with one row for each named tally, and a last one for all.
pub(super) fn print(heading: &str, first: &str, rows: &[(String, Tally)]) -> anyhow::Result<()> {
    let cells = |(name, tally): &(String, Tally)| [vec![name.clone()], tally.cells()].concat();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table(heading, &[&[first][..], &COLUMNS].concat(), &rows)
}

/// The mean of nanoseconds.
pub(super) fn mean(values: &[i64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|v| *v as f64).sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}

/// Nearest rank of ascending values; a p99 only where 299 values support it.
pub(super) fn rank(sorted: &[i64], share: f64) -> Option<i64> {
    if sorted.len() < fracas_model::stats::needed(share) {
        return None;
    }
    sorted.get(((share * sorted.len() as f64).ceil() as usize).saturating_sub(1)).copied()
}

/// Nanoseconds as milliseconds.
pub(super) fn ms(ns: Option<i64>) -> String {
    ns.map_or("-".into(), |ns| format!("{:.1}", ns as f64 / 1e6))
}
