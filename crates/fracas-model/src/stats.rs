//! Statistics that say how much they rest on: percentiles are refused when there are too few values to support them.
//!
//! It does not know what the values mean, and it never drops one.

/// Confidence at which a percentile must be supported: the chance that the largest of n values lies above it.
pub const CONFIDENCE: f64 = 0.95;

/// How many values a percentile `p` (0 < p < 1) needs: the smallest n with `1 - p^n >= 95 %`.
///
/// The distribution-free tolerance bound `n >= ln(1 - confidence) / ln(p)`: 5 for the median, 59 for P95, 299 for P99.
pub fn needed(p: f64) -> usize {
    if p <= 0.0 {
        return 1;
    }
    if p >= 1.0 {
        return usize::MAX;
    }
    ((1.0 - CONFIDENCE).ln() / p.ln()).ceil() as usize
}

/// The percentile `p` (0 < p < 1) of values in ascending order, nearest rank; `None` when n does not support it.
pub fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    if sorted.len() < needed(p) {
        return None;
    }
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len()) - 1).copied()
}

/// The arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

/// What can be said of a set of values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Median, from 5 values on.
    pub p50: Option<f64>,
    /// 95th percentile, from 59 values on.
    pub p95: Option<f64>,
    /// 99th percentile, from 299 values on.
    pub p99: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// Sums up values in any order.
pub fn summary(mut values: Vec<f64>) -> Summary {
    values.sort_by(f64::total_cmp);
    Summary {
        n: values.len(),
        mean: mean(&values),
        p50: percentile(&values, 0.50),
        p95: percentile(&values, 0.95),
        p99: percentile(&values, 0.99),
        max: values.last().copied(),
    }
}

/// Lower 95 % bound of the chance of success after `n` runs that all passed: `0.05^(1/n)`; zero runs show nothing.
pub fn all_passed_bound(n: u32) -> f64 {
    if n == 0 { 0.0 } else { (1.0 - CONFIDENCE).powf(1.0 / f64::from(n)) }
}

/// Lower 95 % bound of the chance of success when `passed` of `n` runs passed, exact: the Clopper-Pearson bound, the
/// chance at which so many or more would pass in 5 % of all such series; 0 when none passed.
///
/// Found by halving, to 1e-12. The sum runs over what is above `passed`, so it is quick when most passed.
pub fn passed_bound(passed: u32, n: u32) -> f64 {
    let passed = passed.min(n);
    if passed == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if at_least(passed, n, middle) < 1.0 - CONFIDENCE { low = middle } else { high = middle }
    }
    low
}

/// The chance of `k` or more successes in `n` runs at the chance `p` (0 < p < 1) of each.
fn at_least(k: u32, n: u32, p: f64) -> f64 {
    // Logarithms: a chance to the power of ten thousand is smaller than any number.
    let odds = (1.0 - p).ln() - p.ln();
    let mut term = f64::from(n) * p.ln();
    let mut sum = term.exp();
    for i in (k..n).rev() {
        term += odds + f64::from(i + 1).ln() - f64::from(n - i).ln();
        sum += term.exp();
    }
    sum
}

/// Ranks, counted from 1, of the two values in ascending order between which the quantile `p` (0 < p < 1) of whatever the
/// `n` values were drawn from lies with at least 95 % confidence, at most 2.5 % outside on either side. `None` where n is
/// too small for that side.
///
/// The exact distribution-free interval from order statistics: with B binomial (n, p), the lower rank is the largest r with
/// `P(B <= r - 1) <= 2.5 %`, the upper one the smallest s with `P(B >= s) <= 2.5 %` (Hahn and Meeker, Statistical Intervals,
/// section 5.2). Ties only widen what it covers.
pub fn enclosing_ranks(n: usize, p: f64) -> (Option<usize>, Option<usize>) {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let cumulated = cumulated(n, p);
    let lower = (1..=n).rev().find(|r| cumulated[r - 1] <= tail);
    (lower, (1..=n).find(|s| 1.0 - cumulated[s - 1] <= tail))
}

/// Rank, counted from 1, of the value that lies above the quantile `p` with at least 95 % confidence; `None` while n is
/// smaller than [`needed`].
pub fn upper_rank(n: usize, p: f64) -> Option<usize> {
    let cumulated = cumulated(n, p);
    (1..=n).find(|s| 1.0 - cumulated[s - 1] <= 1.0 - CONFIDENCE)
}

/// `P(B <= k)` for k from 0 to n, B binomial. Summed from logarithms, so that nothing underflows for large n.
fn cumulated(n: usize, p: f64) -> Vec<f64> {
    let (hit, miss) = (p.ln(), (1.0 - p).ln());
    let mut ways = 0.0;
    let mut sum = 0.0;
    (0..=n)
        .map(|k| {
            if k > 0 {
                ways += ((n - k + 1) as f64 / k as f64).ln();
            }
            sum += (ways + k as f64 * hit + (n - k) as f64 * miss).exp();
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize) -> Vec<f64> {
        (1..=n).map(|i| i as f64).collect()
    }

    #[test]
    fn percentiles_need_support() {
        assert_eq!((needed(0.5), needed(0.95), needed(0.99)), (5, 59, 299));
        assert_eq!(percentile(&ramp(58), 0.95), None);
        assert_eq!(percentile(&ramp(59), 0.95), Some(57.0));
        assert_eq!(percentile(&ramp(298), 0.99), None);
        assert_eq!(percentile(&ramp(299), 0.99), Some(297.0));
        assert_eq!(percentile(&ramp(1000), 0.5), Some(500.0));
    }

    #[test]
    fn a_summary_sorts_and_keeps_all() {
        let mut values = ramp(300);
        values.reverse();
        let s = summary(values);
        assert_eq!((s.n, s.p50, s.p99, s.max), (300, Some(150.0), Some(297.0), Some(300.0)));
        assert!((s.mean.unwrap() - 150.5).abs() < 1e-9);
        assert_eq!(summary(Vec::new()), Summary::default());
    }

    #[test]
    fn some_failures_bound_the_chance_too() {
        for n in [1, 2, 59, 300, 10_000] {
            assert!((passed_bound(n, n) - all_passed_bound(n)).abs() < 1e-9, "{n}");
        }
        // The beta quantile: I_x(9, 2) = 0.05 at x = 0.605836.
        assert!((passed_bound(9, 10) - 0.605_836).abs() < 1e-5, "{}", passed_bound(9, 10));
        // One of two: 1 - (1 - p)^2 = 0.05.
        assert!((passed_bound(1, 2) - (1.0 - 0.95_f64.sqrt())).abs() < 1e-9);
        assert!(passed_bound(9_990, 10_000) > 0.998 && passed_bound(9_990, 10_000) < 0.999);
        assert!(passed_bound(0, 10).abs() < 1e-12 && passed_bound(0, 0).abs() < 1e-12);
    }

    #[test]
    fn passes_bound_the_chance() {
        assert!((all_passed_bound(59) - 0.950_5).abs() < 1e-3 && all_passed_bound(0).abs() < 1e-12);
        assert!((all_passed_bound(1) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn ranks_around_the_median_are_those_of_the_tables() {
        // Conover, Practical Nonparametric Statistics, and any table of the sign test at 95 %.
        for (n, ranks) in [(6, (1, 6)), (10, (2, 9)), (15, (4, 12)), (20, (6, 15)), (25, (8, 18))] {
            assert_eq!(enclosing_ranks(n, 0.5), (Some(ranks.0), Some(ranks.1)), "n = {n}");
        }
        assert_eq!(enclosing_ranks(5, 0.5), (None, None));
        assert_eq!(enclosing_ranks(0, 0.5), (None, None));
    }

    #[test]
    fn an_upper_bound_needs_what_the_percentile_needs() {
        for p in [0.5, 0.9, 0.95, 0.99] {
            let n = needed(p);
            assert_eq!((upper_rank(n - 1, p), upper_rank(n, p)), (None, Some(n)), "p = {p}");
        }
        // Hahn and Meeker, table of one-sided upper bounds: of 100 values the 99th bounds P95 at 95 %.
        assert_eq!(upper_rank(100, 0.95), Some(99));
        assert!(upper_rank(20_000, 0.99).is_some_and(|rank| rank > 19_800));
    }
}
