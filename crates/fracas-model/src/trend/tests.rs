//! Trends over made-up runs: what counts, what is refused, what is never mixed or dropped.

use super::{
    ChangeWord::{CannotTell, NotSlower, Slower},
    *,
};
use crate::{event::VerdictWord, experiment::RtoFrom, report::RecoveryPoint};

const DAY: i64 = 86_400_000_000_000;

fn between(lo: i64, hi: i64) -> Interval {
    Interval::new(Dur::from_ms(lo), Dur::from_ms(hi))
}

fn met() -> Judgement {
    Judgement::Met { why: "within".into() }
}

/// The run of that number and day, whose service took so long.
fn point(number: usize, length: Option<Interval>) -> Point {
    Point {
        run: RunId::new(format!("r{number:03}")),
        experiment: "kill".into(),
        service: "shop".into(),
        environment: "default".into(),
        started_wall_ns: number as i64 * DAY,
        ended_wall_ns: number as i64 * DAY,
        seed: 1,
        intent: "aa".into(),
        faults: Vec::new(),
        verdict: VerdictWord::Pass,
        judgement: met(),
        rto: Some(Dur::from_secs(5)),
        rto_from: RtoFrom::Impact,
        rpo: None,
        mtpd: None,
        prove_every: None,
        length,
        outage: length,
        recovery_from_fault: None,
        residual: None,
        recovery_point: None,
    }
}

fn asked(newest: usize, last: usize) -> Asked {
    Asked { newest, baseline: Baseline::Last(last), alpha: ALPHA }
}

/// The trend of points that are given oldest first.
fn one(points: Vec<Point>, asked: Option<&Asked>) -> Trend {
    let mut all = trends(points.into_iter().rev().collect(), false, asked);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn percentiles_enclose_what_they_can_and_refuse_the_rest() {
    let points: Vec<Point> = (1..=20).map(|i| point(i, Some(between(i as i64 * 100, i as i64 * 100 + 50)))).collect();
    let trend = one(points, None);
    let [median, p90, p95, p99] = &trend.percentiles[..] else { panic!("{:?}", trend.percentiles) };
    assert_eq!(median.of_runs, Some(between(1000, 1050)));
    assert_eq!(
        (median.at_least, median.at_most),
        (Some(Dur::from_ms(600)), Some(Dur::from_ms(1550))),
        "ranks 6 and 15"
    );
    assert_eq!((p90.of_runs, p90.at_most, p90.needs), (None, None, 29));
    assert_eq!((p95.of_runs, p95.needs, p99.needs), (None, 59, 299));
    assert!(trend.all_met_bound.is_some_and(|bound| (bound - 0.861).abs() < 1e-3), "{:?}", trend.all_met_bound);
}

#[test]
fn a_run_cut_short_counts_as_longer_than_it_was_seen() {
    let mut points: Vec<Point> = (1..=9).map(|i| point(i, Some(between(100, 150)))).collect();
    points.extend((10..=20).map(|i| point(i, Some(Interval::at_least(Dur::from_ms(120))))));
    let trend = one(points, None);
    assert_eq!((trend.n, trend.censored), (20, 11));
    // Of more than half the end was not seen: the median has no upper bound, and it is not pretended that it has.
    assert_eq!(trend.percentiles[0].of_runs, Some(Interval::at_least(Dur::from_ms(120))));
    assert_eq!(trend.percentiles[0].at_most, None);
}

#[test]
fn runs_without_effect_are_shown_and_do_not_count() {
    let points = vec![point(1, Some(between(1, 2))), point(2, None), point(3, Some(between(1, 2)))];
    let trend = one(points, Some(&asked(1, 20)));
    assert_eq!((trend.points.len(), trend.n), (3, 2));
    let change = trend.change.unwrap();
    assert_eq!((change.later, change.baseline), (vec!["r003".into()], vec!["r001".into()]));
}

#[test]
fn different_intents_are_told_apart_unless_mixed_on_purpose() {
    let mut points: Vec<Point> = (1..=6).map(|i| point(i, Some(between(1, 2)))).collect();
    for late in &mut points[4..] {
        late.intent = "bb".into();
    }
    points.reverse();
    let apart = trends(points.clone(), false, None);
    let told: Vec<_> =
        apart.iter().map(|t| (t.intents.join(","), t.points.len(), t.points[0].run.to_string())).collect();
    assert_eq!(told, [("bb".into(), 2, "r005".into()), ("aa".into(), 4, "r001".into())]);
    let mixed = one_mixed(points);
    assert_eq!((mixed.intents.len(), mixed.n), (2, 6));
}

fn one_mixed(points: Vec<Point>) -> Trend {
    let mut all = trends(points, true, None);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn the_newest_run_is_slower_than_the_last_twenty() {
    let mut points: Vec<Point> = (1..=25).map(|i| point(i, Some(between(900 + i as i64, 1000 + i as i64)))).collect();
    points.push(point(26, Some(between(1500, 1600))));
    let change = one(points.clone(), Some(&asked(1, 20))).change.unwrap();
    assert_eq!(change.word, ChangeWord::Slower);
    assert_eq!(change.why, "slower than the 20 runs before, p = 0.0476, n = 1 against 20");
    assert_eq!((change.later.len(), change.baseline.len(), change.baseline[0].as_str()), (1, 20, "r006"));

    // The same length as before, within what was seen: not slower.
    points[25].length = Some(between(950, 1050));
    let change = one(points.clone(), Some(&asked(1, 20))).change.unwrap();
    assert_eq!((change.word, change.p), (ChangeWord::NotSlower, Some(1.0)));

    // Cut short before the others were over: nobody knows.
    points[25].length = Some(Interval::at_least(Dur::from_ms(10)));
    let change = one(points, Some(&asked(1, 20))).change.unwrap();
    assert_eq!(change.word, ChangeWord::CannotTell);
    assert_eq!(change.why, "the run ended before the service was back, n = 1 against 20");
}

#[test]
fn too_few_runs_cannot_tell_and_say_how_many_would() {
    let points: Vec<Point> = (1..=6).map(|i| point(i, Some(between(i as i64, i as i64)))).collect();
    let change = one(points.clone(), Some(&asked(1, 20))).change.unwrap();
    assert_eq!((change.word, change.p), (ChangeWord::CannotTell, None));
    assert_eq!(
        change.why,
        "n = 1 against 5: p cannot fall below 0.17 at that size, 0.05 is asked; 19 runs before the newest one are enough"
    );
    let change = one(points.clone(), Some(&asked(3, 20))).change.unwrap();
    assert_eq!((change.word, change.p), (ChangeWord::Slower, Some(0.05)), "1 of 20 ways");
    let change = one(points[..1].to_vec(), Some(&asked(1, 20))).change.unwrap();
    assert_eq!(change.why, "nothing to compare with: n = 1 against 0");
}

#[test]
fn a_baseline_may_be_named() {
    let points: Vec<Point> = (1..=12).map(|i| point(i, Some(between(i as i64, i as i64)))).collect();
    let named =
        |from: &str, to: &str| Asked { newest: 2, baseline: Baseline::Between(from.into(), to.into()), alpha: ALPHA };
    let change = one(points.clone(), Some(&named("r002", "r009"))).change.unwrap();
    assert_eq!((change.baseline.len(), change.word), (8, ChangeWord::Slower));
    // A run that is being compared, or is not there, is no baseline.
    for (from, to) in [("r011", "r012"), ("r009", "r002"), ("x", "r002")] {
        let change = one(points.clone(), Some(&named(from, to))).change.unwrap();
        assert_eq!((change.word, change.baseline.len()), (ChangeWord::CannotTell, 0), "{from} {to}");
    }
}

#[test]
fn the_worst_word_counts() {
    let change = |word| Change { word, why: String::new(), p: None, alpha: ALPHA, later: vec![], baseline: vec![] };
    let trend = |word| Trend { change: Some(change(word)), ..one(vec![point(1, None)], None) };
    assert_eq!(worst(&[trend(NotSlower), trend(CannotTell)]), Some(CannotTell));
    assert_eq!(worst(&[trend(CannotTell), trend(Slower)]), Some(Slower));
    assert_eq!(worst(&[]), None);
    assert_eq!((short(0.00001), short(0.0476), short(0.31)), ("< 0.0001".into(), "0.0476".into(), "0.31".into()));
}

#[test]
fn a_service_with_a_recovery_point_is_proven_only_by_runs_that_met_both() {
    let kept =
        |hi: i64, judgement| RecoveryPoint { achieved: Some(between(0, hi)), lost: 0, acknowledged: 100, judgement };
    let with = |n, kept: Option<RecoveryPoint>| {
        let mut one = point(n, Some(between(900, 1000)));
        (one.rpo, one.recovery_point) = (Some(Dur::from_secs(5)), kept);
        one
    };
    let standing = |points: Vec<Point>| standings(points, 10_000_000_000_000).remove(0);
    let unmeasured = Judgement::NotMeasured { why: "no ledger speaks for its data".into() };
    let never = RecoveryPoint { achieved: None, ..kept(0, unmeasured) };
    let told = standing(vec![with(3, Some(never.clone()))]);
    assert_eq!((told.state, told.why.as_str()), (State::NeverProven, "last: no ledger speaks for its data"));
    let told = standing(vec![with(3, Some(never)), with(2, Some(kept(200, met())))]);
    assert_eq!((told.state, told.last_proof.as_ref().unwrap().run.as_str()), (State::Proven, "r002"));
    assert_eq!(told.last_proof.unwrap().data.unwrap().hi, Some(Dur::from_ms(200)));
    let missed = kept(9000, Judgement::Missed { why: "lost".into() });
    let told = standing(vec![with(3, Some(missed)), with(2, Some(kept(200, met())))]);
    assert_eq!((told.state, told.why.as_str()), (State::Missed, "run r003 missed its recovery point: lost"));
}

#[test]
fn a_service_is_overdue_when_its_last_proof_is_too_old() {
    let mut points: Vec<Point> = (1..=3).map(|i| point(i, Some(between(900, 1000)))).collect();
    points[2].judgement = Judgement::Inconclusive { why: "it spans".into(), settled_by_period: None };
    for point in &mut points {
        point.prove_every = Some(Dur::from_ns(30 * DAY));
    }
    let newest_first = |points: &[Point]| points.iter().rev().cloned().collect();
    let stands = |points: &[Point], day: i64| standings(newest_first(points), day * DAY).remove(0);
    let standing = stands(&points, 12);
    assert_eq!((standing.state, standing.days_since), (State::Proven, Some(10)));
    assert_eq!(standing.last_proof.as_ref().map(|proof| proof.run.as_str()), Some("r002"));
    assert_eq!(standing.why, "achieved 900 ms to 1.00 s in run r002; due in 20 days");
    let standing = stands(&points, 40);
    assert_eq!(standing.state, State::Overdue);
    assert_eq!(standing.why, "achieved 900 ms to 1.00 s in run r002; due 8 days ago");

    // A tighter objective than what was achieved has never been proven.
    for point in &mut points {
        point.rto = Some(Dur::from_ms(950));
    }
    let standing = stands(&points, 12);
    assert_eq!((standing.state, standing.last_proof), (State::NeverProven, None));

    points.push(Point { judgement: Judgement::Missed { why: String::new() }, ..point(4, Some(between(9000, 9100))) });
    points[3].mtpd = Some(Dur::from_secs(8));
    let standing = stands(&points, 12);
    assert_eq!(standing.state, State::Missed);
    assert_eq!(
        standing.why,
        "run r004 missed it: 9.00 s to 9.10 s, beyond even the maximum tolerable period of disruption"
    );

    let none = Point { rto: None, judgement: Judgement::NoObjective, ..point(5, None) };
    assert_eq!(stands(&[none], 12).state, State::NoObjective);

    // A run of a clock that stood a year ahead is no newer for it.
    for point in &mut points {
        (point.rto, point.mtpd) = (Some(Dur::from_secs(5)), None);
    }
    points[0].started_wall_ns += 365 * DAY;
    assert_eq!(stands(&points, 12).last_run.as_str(), "r004");
}

#[test]
fn the_order_of_the_store_decides_which_run_is_the_newest() {
    let mut points: Vec<Point> = (1..=21).map(|i| point(i, Some(between(1000, 1000)))).collect();
    points[4].started_wall_ns += 365 * DAY;
    points[20].length = Some(between(9000, 9000));
    let change = one(points, Some(&asked(1, 20))).change.unwrap();
    assert_eq!((change.word, change.later), (Slower, vec!["r021".into()]));
}

#[test]
fn a_baseline_without_upper_bounds_cannot_show_that_nothing_is_slower() {
    let at_least = |ms| Some(Interval::at_least(Dur::from_ms(ms)));
    let mut points: Vec<Point> = (1..=20).map(|i| point(i, at_least(2000))).collect();
    points.push(point(21, Some(between(300_000, 301_000))));
    let told = |points: &[Point]| {
        let change = one(points.to_vec(), Some(&asked(1, 20))).change.unwrap();
        (change.word, change.why)
    };
    let why = "20 of the 20 runs before ended before the service was back, n = 1 against 20";
    assert_eq!(told(&points), (CannotTell, why.into()));
    // Not longer than they were seen: whatever they would have been, it is not slower.
    points[20].length = Some(between(1000, 1100));
    assert_eq!(told(&points).0, NotSlower);
    // Only both together make the difference.
    points[20].length = at_least(1000);
    assert_eq!(told(&points).0, CannotTell);
}

#[test]
fn a_newest_run_without_effect_is_not_passed_over() {
    let mut points: Vec<Point> = (1..=21).map(|i| point(i, Some(between(1000, 1000)))).collect();
    points.push(point(22, None));
    for newest in [1, 2] {
        let change = one(points.clone(), Some(&asked(newest, 20))).change.unwrap();
        assert_eq!((change.word, change.why.as_str()), (CannotTell, "no fault took effect in run r022"));
    }
    points.push(point(23, Some(between(1000, 1000))));
    assert_eq!(one(points, Some(&asked(1, 20))).change.unwrap().word, NotSlower);
}

#[test]
fn several_services_share_the_chance_of_a_false_alarm() {
    // Services of so many earlier runs, of which the newest run is the slowest, or as long as all others.
    let of = |service: &str, before: usize, last: i64| {
        let mut points: Vec<Point> = (1..=before).map(|i| point(i, Some(between(1000, 1000)))).collect();
        points.push(point(before + 1, Some(between(last, last))));
        for point in &mut points {
            point.service = service.into();
        }
        one(points, None)
    };
    let asked = asked(1, 100);
    let told = |services: &[(&str, usize, i64)]| -> Vec<ChangeWord> {
        let mut all: Vec<Trend> = services.iter().map(|(name, before, last)| of(name, *before, *last)).collect();
        compare_together(&mut all, &asked);
        all.iter().filter_map(|trend| Some(trend.change.as_ref()?.word)).collect()
    };
    assert_eq!(told(&[("a", 25, 9000)]), [Slower]);
    assert_eq!(told(&[("a", 25, 9000), ("b", 25, 1000)]), [CannotTell, CannotTell], "39 runs before are needed");
    assert_eq!(told(&[("a", 39, 9000), ("b", 39, 1000)]), [Slower, NotSlower]);
    assert_eq!(told(&[("a", 25, 9000), ("b", 45, 9000)]), [Slower, Slower], "the second has all of alpha");
    assert_eq!(told(&[("a", 25, 9000), ("b", 5, 9000)]), [Slower, CannotTell], "what cannot be told takes no share");
}
