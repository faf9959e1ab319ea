//! The account of a ledger: what was acknowledged, and what of it is there. Pure arithmetic on markers and what was found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Found, Marker, Outcome};
use crate::{
    event::Look,
    time::{ClockId, Interval},
    units::Dur,
};

/// What one life of a writer logged. Another life begins when its agent is started anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// Its number, which rises from life to life on one clock.
    pub life: u64,
    /// The clock of its stamps.
    pub clock: ClockId,
    /// Its markers, in any order.
    pub markers: Vec<Marker>,
}

/// A span of acknowledged markers that are lost, with no survivor between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// The life of the writer.
    pub life: u64,
    /// Number of the first.
    pub first: u64,
    /// Number of the last; those between that were not acknowledged are not lost.
    pub last: u64,
    /// How many acknowledged markers.
    pub count: u64,
    /// When the first was sent and acknowledged, nanoseconds of the writer's boot time.
    pub from: Look,
    /// The same of the last.
    pub to: Look,
    /// How much time of acknowledged writes is lost. Open above when no earlier marker survived.
    pub data: Interval,
}

/// What became of all markers of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Markers that were logged.
    pub written: u64,
    /// Of them acknowledged.
    pub acknowledged: u64,
    /// Of them surely failed.
    pub failed: u64,
    /// Of them neither.
    pub unknown: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// Surely failed, and there nevertheless.
    pub resurrected: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Unknown ones that are there: they count as neither written nor lost.
    pub unknown_found: u64,
    /// There, and not in the log: their writer died before it could tell.
    pub unlogged: u64,
    /// Numbers that were given and are in no log: their writer died, or what it told was given up.
    #[serde(default)]
    pub untold: u64,
    /// Where the lost ones lie, in order.
    pub spans: Vec<Lost>,
    /// How much time of acknowledged writes is lost, of the worst span; with nothing lost from none to what markers this far
    /// apart cannot show. `None` when no marker was acknowledged.
    pub achieved: Option<Interval>,
}

/// Balances what was logged against what was found.
pub fn account(lives: &[Life], found: &[Found]) -> Account {
    let mut there: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for stretch in found {
        // A host may say any numbers, but an honest one never as many.
        let room = (4 * super::MOST_MARKERS).saturating_sub(there.len() as u64);
        let end = stretch.first.saturating_add(stretch.count.min(room));
        for number in stretch.first..end {
            let times = there.entry((stretch.life, number)).or_default();
            *times = times.saturating_add(stretch.times);
        }
    }
    let mut account =
        Account { duplicated: there.values().filter(|times| **times > 1).count() as u64, ..Account::default() };
    let mut by_clock: BTreeMap<&ClockId, Vec<(u64, Marker, bool)>> = BTreeMap::new();
    let mut logged = 0;
    for life in lives {
        let highest = life.markers.iter().map(|marker| marker.number).max().unwrap_or_default();
        account.untold = account.untold.saturating_add(highest.saturating_sub(life.markers.len() as u64));
        for marker in &life.markers {
            let found = there.get(&(life.life, marker.number)).is_some_and(|times| *times > 0);
            logged += u64::from(found);
            account.written += 1;
            match (marker.outcome, found) {
                (Outcome::Acknowledged, _) => {
                    account.acknowledged += 1;
                    account.lost += u64::from(!found);
                }
                (Outcome::Failed, _) => {
                    account.failed += 1;
                    account.resurrected += u64::from(found);
                }
                (Outcome::Unknown, _) => {
                    account.unknown += 1;
                    account.unknown_found += u64::from(found);
                }
            }
            by_clock.entry(&life.clock).or_default().push((life.life, *marker, found));
        }
    }
    account.unlogged = (there.len() as u64).saturating_sub(logged);
    let mut unseen = None;
    for mut line in by_clock.into_values() {
        line.sort_by_key(|(life, marker, _)| (marker.look.s, *life, marker.number));
        account.spans.extend(spans(&line));
        unseen = unseen.max(Some(coarsest(&line)));
    }
    if account.acknowledged > 0 {
        let nothing = Interval { lo: Dur::ZERO, hi: Some(unseen.unwrap_or_default()) };
        let worst = account
            .spans
            .iter()
            .map(|span| span.data)
            .fold(nothing, |a, b| Interval { lo: a.lo.max(b.lo), hi: a.hi.zip(b.hi).map(|(a, b)| a.max(b)) });
        account.achieved = Some(worst);
    }
    account
}

fn acknowledged(marker: &Marker) -> bool {
    marker.outcome == Outcome::Acknowledged
}

/// Lost spans of one clock's markers, in order of sending.
fn spans(line: &[(u64, Marker, bool)]) -> Vec<Lost> {
    let survivor = |(_, marker, found): &(u64, Marker, bool)| acknowledged(marker) && *found;
    let (mut spans, mut before, mut at) = (Vec::new(), None::<Look>, 0);
    for stretch in line.chunk_by(|a, b| survivor(a) == survivor(b)) {
        at += stretch.len();
        if survivor(&stretch[0]) {
            before = stretch.last().map(|(_, marker, _)| marker.look);
            continue;
        }
        let lost = |(_, marker, found): &&(u64, Marker, bool)| acknowledged(marker) && !found;
        let Some((life, first, _)) = stretch.iter().find(lost) else { continue };
        let Some(position) = stretch.iter().rposition(|one| lost(&one)) else { continue };
        let last = stretch[position].1;
        // What was sent next, whatever became of it: until then the service had stopped taking writes that it would lose.
        let next = stretch.get(position + 1).or_else(|| line.get(at)).map_or(last.look.c, |(_, next, _)| next.look.c);
        let length = |from: i64, to: i64| Dur::from_ns(to.saturating_sub(from).max(0));
        spans.push(Lost {
            life: *life,
            first: first.number,
            last: last.number,
            count: stretch.iter().filter(lost).count() as u64,
            from: first.look,
            to: last.look,
            data: Interval {
                lo: length(first.look.c, last.look.s),
                hi: before.map(|before| length(before.s, next.max(last.look.c))),
            },
        });
    }
    spans
}

/// The longest time in which a write could be lost that no marker shows: from the sending of one that survived to the
/// completion of the one sent next.
fn coarsest(line: &[(u64, Marker, bool)]) -> Dur {
    let pairs = line.windows(2).filter(|pair| acknowledged(&pair[0].1) && pair[0].2);
    let longest = pairs.map(|pair| pair[1].1.look.c.saturating_sub(pair[0].1.look.s)).max();
    // A single one shows no more than itself.
    let alone = || line.iter().map(|(_, marker, _)| marker.look.c.saturating_sub(marker.look.s)).max();
    Dur::from_ns(longest.or_else(alone).unwrap_or_default().max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::stretches;

    const MS: i64 = 1_000_000;

    fn clock() -> ClockId {
        ClockId { host: "h".into(), boot: "b".into() }
    }

    /// Markers every 100 ms that take 5 ms, of these outcomes: `a`cknowledged, `f`ailed, `u`nknown.
    fn life(outcomes: &str) -> Life {
        let markers = outcomes.chars().zip(1..).map(|(outcome, number)| Marker {
            number,
            look: Look { s: number as i64 * 100 * MS, c: (number as i64 * 100 + 5) * MS },
            outcome: match outcome {
                'a' => Outcome::Acknowledged,
                'f' => Outcome::Failed,
                _ => Outcome::Unknown,
            },
        });
        Life { life: 1, clock: clock(), markers: markers.collect() }
    }

    fn there(numbers: impl IntoIterator<Item = u64>) -> Vec<Found> {
        stretches(numbers.into_iter().map(|number| (1, number)).collect())
    }

    fn interval(lo: i64, hi: i64) -> Option<Interval> {
        Some(Interval { lo: Dur::from_ms(lo), hi: Some(Dur::from_ms(hi)) })
    }

    #[test]
    fn nothing_lost_is_at_most_what_markers_this_far_apart_cannot_show_and_never_nothing() {
        let seen = account(&[life("aaaaa")], &there(1..=5));
        assert_eq!((seen.acknowledged, seen.lost, seen.spans.len()), (5, 0, 0));
        assert_eq!(seen.achieved, interval(0, 105));
        // What failed tells until when the service took writes.
        let mut slow = life("aaafa");
        slow.markers[3].look.c = 1400 * MS;
        assert_eq!(account(&[slow], &there([1, 2, 3, 5])).achieved, interval(0, 1100));
        assert_eq!(account(&[life("fff")], &[]).achieved, None);
        assert_eq!(account(&[], &[]).achieved, None);
    }

    #[test]
    fn a_lost_tail_is_told_exactly_with_bounds_that_hold_the_truth() {
        // 4 and 5 are lost; then the service was away, and came back.
        let seen = account(&[life("aaaaaffua")], &there([1, 2, 3, 9]));
        assert_eq!((seen.lost, seen.failed, seen.unknown), (2, 2, 1));
        let [span] = &seen.spans[..] else { panic!("{seen:?}") };
        assert_eq!((span.first, span.last, span.count), (4, 5, 2));
        // Survivor 3 was sent at 300, 4 acknowledged at 405, 5 sent at 500, 6 failed at 605.
        assert_eq!(seen.achieved, interval(95, 305));
    }

    #[test]
    fn without_a_survivor_before_it_a_loss_has_no_upper_bound() {
        let seen = account(&[life("aaaff")], &[]);
        assert_eq!(seen.lost, 3);
        assert_eq!(seen.achieved, Some(Interval { lo: Dur::from_ms(195), hi: None }));
    }

    #[test]
    fn each_loss_between_survivors_is_a_span_of_its_own_and_the_worst_one_counts() {
        let seen = account(&[life("aaaaaaaaaa")], &there([1, 3, 4, 9, 10]));
        let spans: Vec<_> = seen.spans.iter().map(|span| (span.first, span.last, span.count)).collect();
        assert_eq!(spans, [(2, 2, 1), (5, 8, 4)]);
        assert_eq!(seen.achieved, interval(295, 505));
        // What was lost on both sides of a failure without a survivor is one span.
        let seen = account(&[life("aaafaaf")], &there([1, 2]));
        assert_eq!(seen.spans.iter().map(|span| (span.first, span.last, span.count)).collect::<Vec<_>>(), [(3, 6, 3)]);
    }

    #[test]
    fn resurrected_duplicated_unknown_and_unlogged_ones_are_counted_apart() {
        let mut found = there([1, 2, 3, 4, 4, 5, 77]);
        found.push(Found { life: 9, first: 1, count: 2, times: 1 });
        let seen = account(&[life("aafuu")], &found);
        let counts = (seen.resurrected, seen.duplicated, seen.unknown, seen.unknown_found, seen.unlogged, seen.lost);
        assert_eq!(counts, (1, 1, 2, 2, 3, 0));
    }

    #[test]
    fn lives_on_one_clock_follow_each_other_and_clocks_stand_apart() {
        let mut holed = life("aaaa");
        holed.markers.remove(2);
        // What was not told may have been lost: the bound holds it, the count cannot.
        let seen = account(&[holed], &there([1, 2, 4]));
        assert_eq!((seen.untold, seen.lost, seen.achieved), (1, 0, interval(0, 205)));
        let mut second = life("aaa");
        second.life = 2;
        for marker in &mut second.markers {
            marker.look = Look { s: marker.look.s + 2000 * MS, c: marker.look.c + 2000 * MS };
        }
        let found = [there(1..=3), stretches(vec![(2, 1), (2, 2), (2, 3)])].concat();
        // Between the lives nobody wrote: 2105 - 300.
        assert_eq!(account(&[life("aaa"), second.clone()], &found).achieved, interval(0, 1805));
        second.clock.boot = "later".into();
        assert_eq!(account(&[life("aaa"), second], &found).achieved, interval(0, 105));
    }

    /// Against a service whose truth is known: it takes writes until an instant and loses those since another.
    #[test]
    fn the_interval_contains_how_much_was_lost() {
        use rand::{RngExt as _, SeedableRng as _};
        use rand_chacha::ChaCha8Rng;
        for seed in 0..2000 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let every = random.random_range(10..200) * MS;
            let (kept_until, fails_at) = {
                let fails_at = random.random_range(5 * every..50 * every);
                (fails_at - random.random_range(0..5 * every), fails_at)
            };
            let markers: Vec<(Marker, i64)> = (1..60)
                .map(|number| {
                    let s = number as i64 * every;
                    let written = s + random.random_range(0..every / 2);
                    let c = written + random.random_range(0..every);
                    let outcome = if written < fails_at { Outcome::Acknowledged } else { Outcome::Failed };
                    (Marker { number, look: Look { s, c }, outcome }, written)
                })
                .collect();
            let kept = markers.iter().filter(|(m, at)| *at < kept_until && acknowledged(m)).map(|(m, _)| (1, m.number));
            let found = stretches(kept.collect());
            let lost = markers.iter().filter(|(m, at)| acknowledged(m) && *at >= kept_until).count() as u64;
            let log = Life { life: 1, clock: clock(), markers: markers.into_iter().map(|(m, _)| m).collect() };
            let seen = account(&[log], &found);
            assert_eq!(seen.lost, lost, "seed {seed}");
            let Some(Interval { lo, hi }) = seen.achieved else { continue };
            let truth = Dur::from_ns(fails_at - kept_until);
            assert!(lo <= truth && hi.is_none_or(|hi| truth <= hi), "seed {seed}: {truth} in {lo} .. {hi:?}");
        }
    }
}
