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

/// Balances what was logged against what was found when it was read: `read` begins when writing was to end, on the clock of
/// whoever read.
pub fn account(lives: &[Life], found: &[Found], read: (&ClockId, Look)) -> Account {
    let mut there: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    // A host may say any numbers, but an honest one never as many.
    let mut room = 4 * super::MOST_MARKERS;
    for stretch in found {
        let count = stretch.count.min(room);
        room -= count;
        let end = stretch.first.saturating_add(count);
        for number in stretch.first..end {
            let times = there.entry((stretch.life, number)).or_default();
            *times = times.saturating_add(stretch.times);
        }
    }
    let mut account =
        Account { duplicated: there.values().filter(|times| **times > 1).count() as u64, ..Account::default() };
    let mut by_clock: BTreeMap<&ClockId, Vec<Line>> = BTreeMap::new();
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
    let mut unseen = Some(Dur::ZERO);
    for (clock, mut line) in by_clock {
        line.sort_by_key(|(life, marker, _)| (marker.look.s, *life, marker.number));
        // What came after the last marker came before writing was to end, if that can be said at all.
        let end = (*clock == *read.0).then_some(read.1.s);
        account.spans.extend(spans(&line, end));
        unseen = unseen.zip(coarsest(&line, end)).map(|(a, b)| a.max(b));
    }
    if account.acknowledged > 0 {
        let nothing = Interval { lo: Dur::ZERO, hi: unseen };
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

/// A marker with the life of its writer, and whether it was found.
type Line = (u64, Marker, bool);

/// How many markers may be under way beside another one: agents allow 128. Where a log says that there were more, a bound is
/// left open instead.
const MOST_BESIDE: usize = 1000;

fn survived((_, marker, found): &Line) -> bool {
    acknowledged(marker) && *found
}

/// What it says of the service: that it took writes that stay, or that it took none. Of a marker of which nobody knows, and
/// that is not there, it says nothing: the service may have taken those of others meanwhile.
fn telling((_, marker, found): &Line) -> bool {
    *found || marker.outcome != Outcome::Unknown
}

/// The first telling marker that was sent once this one was completed. Whatever was written after it and lost was written
/// before that one was completed: had that one been written before the loss, it would be lost too; and where it surely
/// failed the service took no writes.
fn next(line: &[Line], at: usize) -> Option<usize> {
    let done = line[at].1.look.c;
    let beside = line[at + 1..].iter().take(MOST_BESIDE).position(|(_, marker, _)| marker.look.s >= done)?;
    let from = at + 1 + beside;
    line[from..].iter().position(telling).map(|later| from + later)
}

/// When that one was completed. Without one, when writing was to end: a writer that died leaves no next one. `None`: nobody
/// knows.
fn until(line: &[Line], at: usize, end: Option<i64>) -> Option<i64> {
    match next(line, at) {
        Some(next) => Some(line[next].1.look.c),
        None => end.filter(|_| line.len() - at <= MOST_BESIDE || !beside_all(line, at)),
    }
}

/// Whether as many as may be under way beside this one follow it, and all of them are.
fn beside_all(line: &[Line], at: usize) -> bool {
    let done = line[at].1.look.c;
    line[at + 1..].iter().take(MOST_BESIDE).all(|(_, marker, _)| marker.look.s < done)
}

/// Lost spans of one clock's markers, in order of sending.
fn spans(line: &[Line], end: Option<i64>) -> Vec<Lost> {
    let (mut spans, mut from) = (Vec::new(), 0);
    for stretch in line.chunk_by(|a, b| survived(a) == survived(b)) {
        let begin = from;
        from += stretch.len();
        let lost = |(_, marker, found): &&Line| acknowledged(marker) && !found;
        let (Some(first_at), Some(last_at)) =
            (stretch.iter().position(|one| lost(&one)), stretch.iter().rposition(|one| lost(&one)))
        else {
            continue;
        };
        let ((life, first, _), (_, last, _)) = (&stretch[first_at], &stretch[last_at]);
        // The last one that surely was written before the first that is lost.
        let earlier = line[..begin].iter().rev().take(MOST_BESIDE).filter(|one| survived(one));
        let before = earlier.map(|(_, marker, _)| marker.look).find(|look| look.c <= first.look.s);
        let hi = before.zip(until(line, begin + last_at, end)).map(|(before, until)| length(before.s, until));
        spans.push(Lost {
            life: *life,
            first: first.number,
            last: last.number,
            count: stretch.iter().filter(lost).count() as u64,
            from: first.look,
            to: last.look,
            data: Interval { lo: least(stretch), hi },
        });
    }
    spans
}

fn length(from: i64, to: i64) -> Dur {
    Dur::from_ns(to.saturating_sub(from).max(0))
}

/// The longest time from the acknowledgement of a lost marker to the sending of another, in which no marker says that the
/// service was away or that something is kept.
fn least(stretch: &[Line]) -> Dur {
    let (mut longest, mut since) = (Dur::ZERO, None);
    for one @ (_, marker, _) in stretch {
        match (telling(one), acknowledged(marker)) {
            (true, true) => longest = longest.max(length(*since.get_or_insert(marker.look.c), marker.look.s)),
            (true, false) => since = None,
            (false, _) => {}
        }
    }
    longest
}

/// Whether these follow each other without a hole, and all but the last surely failed.
fn away(row: &[Line]) -> bool {
    row.windows(2).all(|pair| {
        let ((life, one, found), (later, other, _)) = (&pair[0], &pair[1]);
        one.outcome == Outcome::Failed && !found && life == later && other.number == one.number + 1
    })
}

/// The longest time in which writes could be lost that no marker shows: from the sending of a telling one to the completion
/// of the next. Between two that failed one after the other the service is taken to be away. `None`: without bound.
fn coarsest(line: &[Line], end: Option<i64>) -> Option<Dur> {
    let mut longest = 0;
    for (at, (_, marker, found)) in line.iter().enumerate().filter(|(_, one)| telling(one)) {
        match (marker.outcome, found) {
            // A span tells of it.
            (Outcome::Acknowledged, false) => continue,
            (Outcome::Failed, false) if next(line, at).is_some_and(|next| away(&line[at..=next])) => continue,
            _ => {}
        }
        longest = longest.max(until(line, at, end)?.saturating_sub(marker.look.s));
    }
    Some(Dur::from_ns(longest))
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

    /// The account, read back one period after the last marker, in 5 ms.
    fn account(lives: &[Life], found: &[Found]) -> Account {
        let last = lives.iter().flat_map(|life| &life.markers).map(|marker| marker.look.s).max().unwrap_or_default();
        super::account(lives, found, (&clock(), Look { s: last + 100 * MS, c: last + 105 * MS }))
    }

    fn there(numbers: impl IntoIterator<Item = u64>) -> Vec<Found> {
        stretches(numbers.into_iter().map(|number| (1, number)).collect())
    }

    fn interval(lo: i64, hi: i64) -> Interval {
        Interval { lo: Dur::from_ms(lo), hi: Some(Dur::from_ms(hi)) }
    }

    #[test]
    fn nothing_lost_is_at_most_what_markers_this_far_apart_cannot_show_and_never_nothing() {
        let seen = account(&[life("aaaaa")], &there(1..=5));
        assert_eq!((seen.acknowledged, seen.lost, seen.spans.len()), (5, 0, 0));
        assert_eq!(seen.achieved, Some(interval(0, 105)));
        // What failed tells until when the service took writes.
        let mut slow = life("aaafa");
        slow.markers[3].look.c = 1400 * MS;
        assert_eq!(account(&[slow], &there([1, 2, 3, 5])).achieved, Some(interval(0, 1100)));
        assert_eq!(account(&[life("fff")], &[]).achieved, None);
        assert_eq!(account(&[], &[]).achieved, None);
    }

    #[test]
    fn a_row_of_failures_is_one_absence_however_long_each_takes_but_not_a_row_with_a_hole() {
        let mut slow = life("aaffffffa");
        for marker in &mut slow.markers[2..8] {
            marker.look.c += 250 * MS;
        }
        // From the survivor at 200 to the first failure's end at 555.
        assert_eq!(account(&[slow.clone()], &there([1, 2, 9])).achieved, Some(interval(0, 355)));
        // Of one of them nobody knows: meanwhile the service may have taken writes.
        slow.markers[4].outcome = Outcome::Unknown;
        let hole = account(&[slow], &there([1, 2, 9])).achieved.and_then(|achieved| achieved.hi);
        assert!(hole > Some(Dur::from_ms(500)), "{hole:?}");
    }

    #[test]
    fn a_lost_tail_is_told_exactly_with_bounds_that_hold_the_truth() {
        // 4 and 5 are lost; then the service was away, and came back.
        let seen = account(&[life("aaaaaffua")], &there([1, 2, 3, 9]));
        assert_eq!((seen.lost, seen.failed, seen.unknown), (2, 2, 1));
        let [span] = &seen.spans[..] else { panic!("{seen:?}") };
        assert_eq!((span.first, span.last, span.count), (4, 5, 2));
        // Survivor 3 was sent at 300, 4 acknowledged at 405, 5 sent at 500, 6 failed at 605.
        assert_eq!(seen.achieved, Some(interval(95, 305)));
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
        assert_eq!(seen.achieved, Some(interval(295, 505)));
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
        assert_eq!((seen.untold, seen.lost, seen.achieved), (1, 0, Some(interval(0, 205))));
        let mut second = life("aaa");
        second.life = 2;
        for marker in &mut second.markers {
            marker.look = Look { s: marker.look.s + 2000 * MS, c: marker.look.c + 2000 * MS };
        }
        let found = [there(1..=3), stretches(vec![(2, 1), (2, 2), (2, 3)])].concat();
        // Between the lives nobody wrote: 2105 - 300.
        assert_eq!(account(&[life("aaa"), second.clone()], &found).achieved, Some(interval(0, 1805)));
        // Of another boot nobody can say when its last marker was, and what came after it.
        second.clock.boot = "later".into();
        let apart = account(&[life("aaa"), second], &found);
        assert_eq!(apart.achieved, Some(Interval { lo: Dur::ZERO, hi: None }));
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
                    let written = s + random.random_range(0..2 * every);
                    // Some are under way beside the next ones.
                    let c = written + random.random_range(0..every) * random.random_range(1..4);
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
