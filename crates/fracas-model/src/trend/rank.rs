//! Whether some lengths are longer than others, told from intervals: a rank test, exact wherever that can be counted.
//!
//! It knows nothing of runs, and never takes a middle for the truth: what overlaps counts as a tie.

use crate::time::Interval;

/// Above this product of the smaller group and all lengths the distribution is not counted any more (some 10^8 steps).
const COUNTABLE: usize = 10_000;

/// The smallest p that so many lengths can give at all: one way in all ways to choose the later ones.
pub fn smallest_p(later: usize, baseline: usize) -> f64 {
    let few = later.min(baseline);
    (1..=few).map(|k| k as f64 / (later + baseline - few + k) as f64).product()
}

/// The chance that lengths of one kind, told apart by chance, would look as much slower as `later` does against
/// `baseline`, or more: a small one says that the later ones are longer. 1 when either is empty.
///
/// One length is longer than another only if its shortest is beyond the other's longest. Each length scores the number of
/// lengths that it is longer than, less those it is shorter than (Gehan 1965; without overlaps this is Wilcoxon's rank sum
/// and Mann and Whitney's U, `score = 2 U - mn`). Given the scores, every choice of the later ones is equally likely if
/// nothing has changed, so p is valid at any n and with any ties, as long as lengths are cut short for the same reasons in
/// both groups (Mantel 1967). Counted exactly while it can be; beyond, by the normal distribution with the variance of
/// that choice, half a step taken off.
pub fn slower_p(later: &[Interval], baseline: &[Interval]) -> f64 {
    let (m, all) = (later.len(), later.len() + baseline.len());
    if m == 0 || m == all {
        return 1.0;
    }
    let pooled: Vec<&Interval> = later.iter().chain(baseline).collect();
    let scores: Vec<i64> = pooled.iter().map(|one| score(one, &pooled)).collect();
    let seen: i64 = scores[..m].iter().sum();
    if m.min(all - m) * all > COUNTABLE {
        return approximate(&scores, m, seen);
    }
    // The scores of all sum to zero: choosing the later ones or the others is the same choice.
    if m * 2 <= all { share_at_least(&scores, m, seen) } else { share_at_most(&scores, all - m, -seen) }
}

fn score(one: &Interval, pooled: &[&Interval]) -> i64 {
    let longer = |a: &Interval, b: &Interval| b.hi.is_some_and(|hi| a.lo > hi);
    pooled.iter().map(|other| i64::from(longer(one, other)) - i64::from(longer(other, one))).sum()
}

/// The share of choices of `few` scores whose sum is at least `sum`.
fn share_at_least(scores: &[i64], few: usize, sum: i64) -> f64 {
    let ways = ways(scores, few);
    let from = usize::try_from(sum + few as i64 * scores.len() as i64).unwrap_or(0);
    ways.get(from..).unwrap_or_default().iter().sum::<f64>() / ways.iter().sum::<f64>()
}

/// The same for at most.
fn share_at_most(scores: &[i64], few: usize, sum: i64) -> f64 {
    let mirrored: Vec<i64> = scores.iter().map(|score| -score).collect();
    share_at_least(&mirrored, few, -sum)
}

/// In how many ways `few` of the scores have each sum, from `-few * n` on.
fn ways(scores: &[i64], few: usize) -> Vec<f64> {
    let n = scores.len();
    // A score lies between -n and n; moved up by n it is an index.
    let width = few * 2 * n + 1;
    let mut ways = vec![vec![0.0; width]; few + 1];
    ways[0][0] = 1.0;
    for (taken, score) in scores.iter().enumerate() {
        let up = usize::try_from(score + n as i64).unwrap_or(0);
        for size in (1..=few.min(taken + 1)).rev() {
            let (smaller, larger) = ways.split_at_mut(size);
            for (to, from) in larger[0][up..].iter_mut().zip(&smaller[size - 1]) {
                *to += from;
            }
        }
    }
    ways.pop().unwrap_or_default()
}

fn approximate(scores: &[i64], m: usize, seen: i64) -> f64 {
    let n = scores.len() as f64;
    let squares: f64 = scores.iter().map(|score| (*score as f64).powi(2)).sum();
    let variance = m as f64 * (n - m as f64) / (n * (n - 1.0)) * squares;
    if variance <= 0.0 {
        return 1.0;
    }
    beyond((seen as f64 - 1.0) / variance.sqrt())
}

/// The chance that a standard normal variable exceeds `z`; off by less than 7.5e-8 (Abramowitz and Stegun 26.2.17).
fn beyond(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - beyond(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let factors = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = factors.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Dur;

    fn exact(ms: i64) -> Interval {
        Interval::new(Dur::from_ms(ms), Dur::from_ms(ms))
    }

    #[track_caller]
    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 5e-5, "{a} is not {b}");
    }

    /// Two samples of which `u` pairs have the later one shorter.
    fn with_u(m: i64, n: i64, u: i64) -> (Vec<Interval>, Vec<Interval>) {
        let baseline: Vec<Interval> = (1..=n).map(|i| exact(i * 100)).collect();
        let mut left = u;
        let later = (0..m).map(|i| {
            let below = left.min(n);
            left -= below;
            exact((n - below) * 100 + 50 - i)
        });
        (later.collect(), baseline)
    }

    #[test]
    fn p_is_that_of_the_published_tables() {
        // Mann and Whitney (1947), and every table since: P(U <= u) for sample sizes (m, n).
        let table = [(4, 4, 0, 0.014_29), (5, 5, 4, 0.047_62), (3, 4, 1, 0.057_14), (10, 10, 27, 0.044_64)];
        for (m, n, u, p) in table {
            let (later, baseline) = with_u(m, n, u);
            near(slower_p(&later, &baseline), p);
        }
        // Swapping who is called later turns the tail round.
        let (later, baseline) = with_u(4, 4, 0);
        near(slower_p(&baseline, &later), 1.0);
        near(smallest_p(4, 4), 1.0 / 70.0);
        near(smallest_p(1, 20), 1.0 / 21.0);
        near(smallest_p(0, 20), 1.0);
    }

    #[test]
    fn groups_of_unequal_size_count_alike_from_either_side() {
        for (m, n) in [(1, 19), (19, 1), (7, 3), (3, 7)] {
            let (later, baseline) = with_u(m, n, 0);
            near(slower_p(&later, &baseline), smallest_p(later.len(), baseline.len()));
        }
    }

    #[test]
    fn what_overlaps_or_was_cut_short_is_a_tie() {
        let wide = |lo, hi| Interval::new(Dur::from_ms(lo), Dur::from_ms(hi));
        let baseline: Vec<Interval> = (0..20).map(|i| wide(100 + i, 200 + i)).collect();
        near(slower_p(&[wide(200, 300)], &baseline), 1.0);
        near(slower_p(&[wide(220, 300)], &baseline), 1.0 / 21.0);
        // Cut short before the others were over: it may have been anything.
        near(slower_p(&[Interval::at_least(Dur::from_ms(50))], &baseline), 1.0);
        near(slower_p(&[Interval::at_least(Dur::from_ms(220))], &baseline), 1.0 / 21.0);
        near(slower_p(&[], &baseline), 1.0);
    }

    #[test]
    fn the_approximation_agrees_with_the_count() {
        let (later, baseline) = with_u(30, 30, 340);
        let pooled: Vec<&Interval> = later.iter().chain(&baseline).collect();
        let scores: Vec<i64> = pooled.iter().map(|one| score(one, &pooled)).collect();
        let close = approximate(&scores, 30, scores[..30].iter().sum());
        let counted = slower_p(&later, &baseline);
        assert!((close - counted).abs() < 2e-3, "{close} is not {counted}");
        near(beyond(1.959_964), 0.025);
        near(beyond(-1.644_854), 0.95);
    }

    #[test]
    fn false_alarms_are_no_more_often_than_promised() {
        // One distribution for both, with wide intervals, ties and runs cut short; a fixed sequence of chance.
        let mut state = 7_u64;
        let mut chance = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as i64 % below as i64
        };
        for (m, n) in [(1, 20), (5, 5), (5, 20)] {
            let trials = 2000;
            let mut alarms = 0;
            for _ in 0..trials {
                let mut draw = |_| {
                    let (lo, width) = (chance(40), chance(4));
                    if chance(10) == 0 {
                        Interval::at_least(Dur::from_ms(lo / 2))
                    } else {
                        Interval::new(Dur::from_ms(lo), Dur::from_ms(lo + width))
                    }
                };
                let later: Vec<Interval> = (0..m).map(&mut draw).collect();
                let baseline: Vec<Interval> = (0..n).map(&mut draw).collect();
                alarms += i32::from(slower_p(&later, &baseline) <= 0.05);
            }
            // Three standard errors above 5 % of 2000.
            assert!(alarms <= 100 + 30, "m = {m}, n = {n}: {alarms} alarms in {trials}");
        }
    }

    #[test]
    fn a_true_slowdown_is_found() {
        let baseline: Vec<Interval> = (0..10).map(|i| exact(100 + i)).collect();
        let later: Vec<Interval> = (0..5).map(|i| exact(108 + i)).collect();
        assert!(slower_p(&later, &baseline) < 0.01);
        assert!(slower_p(&baseline[..5], &baseline[5..]) > 0.9);
    }
}
