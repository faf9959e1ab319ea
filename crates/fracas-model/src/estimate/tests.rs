//! Scripted outages whose truth is known: the interval must contain it, and must not be wide.

use proptest::prelude::*;

use super::*;

const MS: i64 = 1_000_000;

fn look(s: i64, c: i64) -> Look {
    Look { s: s * MS, c: c * MS }
}

fn rules(stable_ms: i64) -> Rules {
    Rules { stable_for: Dur::from_ms(stable_ms), every: Dur::from_ms(100), timeout: Dur::from_ms(100) }
}

/// Ticks every 100 ms with 1 ms latency; `down` says when.
fn scripted(until_ms: i64, down: impl Fn(i64) -> bool) -> Vec<Reading> {
    (0..until_ms / 100)
        .map(|i| Reading { look: look(i * 100, i * 100 + 1), ok: !down(i * 100), why: String::new() })
        .collect()
}

#[test]
fn one_outage_between_looks() {
    let found = Track::of_readings(&scripted(10_000, |t| (1050..2950).contains(&t))).estimate(rules(1000));
    let [outage] = &found.outages[..] else { panic!("{found:?}") };
    assert_eq!((outage.start_lo, outage.start_hi), (Some(1000 * MS), 1101 * MS));
    assert_eq!((outage.end_lo, outage.end_hi), (2900 * MS, Some(3001 * MS)));
    assert_eq!(outage.duration, Interval::new(Dur::from_ms(1799), Dur::from_ms(2001)));
    assert_eq!((outage.blips, outage.down_edges, outage.up_edges), (0, 1, 1));
}

#[test]
fn flapping_belongs_to_the_outage_until_it_lasts() {
    let down = |t: i64| (1000..1500).contains(&t) || (1900..2400).contains(&t) || (6000..6200).contains(&t);
    let found = Track::of_readings(&scripted(10_000, down)).estimate(rules(1000));
    let [first, second] = &found.outages[..] else { panic!("{found:?}") };
    assert_eq!((first.blips, first.down_edges, first.up_edges), (1, 2, 2));
    assert!(first.duration.contains(Dur::from_ms(1400)) && first.downtime.contains(Dur::from_ms(1000)), "{first:?}");
    assert_eq!(first.first_success, Some(look(2400, 2401)), "stamped at the first success of the stable window");
    assert!(second.duration.contains(Dur::from_ms(200)));
}

#[test]
fn without_coverage_nothing_has_recovered() {
    let short = Track::of_readings(&scripted(3500, |t| (1000..3000).contains(&t))).estimate(rules(1000));
    assert_eq!(short.outages[0].end_hi, None);
    assert_eq!(short.outages[0].duration.hi, None);
    assert!(short.outages[0].duration.lo >= Dur::from_ms(1799));
    let long = Track::of_readings(&scripted(4200, |t| (1000..3000).contains(&t))).estimate(rules(1000));
    assert_eq!(long.outages[0].end_hi, Some(3001 * MS));
}

#[test]
fn an_outage_from_the_first_look_on_has_no_upper_bound() {
    let found = Track::of_readings(&scripted(5000, |t| t < 2000)).estimate(rules(1000));
    assert_eq!(found.outages[0].start_lo, None);
    assert_eq!(found.outages[0].duration.hi, None);
}

#[test]
fn a_gap_at_an_edge_keeps_the_far_constraint() {
    let mut track = Track::default();
    track.edge(true, None, look(0, 1), 1);
    track.edge(false, Some(look(1000, 1001)), look(1100, 1101), 2);
    track.edge(true, Some(look(2000, 2001)), look(4000, 4001), 3);
    track.gap(look(2100, 3900));
    track.sealed(look(4000, 9000), 50, 0, 4);
    let outage = &track.estimate(rules(1000)).outages[0];
    assert_eq!((outage.end_lo, outage.end_hi), (2000 * MS, Some(4001 * MS)));
}

#[test]
fn a_hole_in_the_stable_window_restarts_it() {
    let mut track = Track::default();
    track.edge(true, None, look(0, 1), 1);
    track.edge(false, Some(look(1000, 1001)), look(1100, 1101), 2);
    track.edge(true, Some(look(2000, 2001)), look(2100, 2101), 3);
    track.gap(look(2300, 3900));
    track.sealed(look(2100, 2201), 2, 0, 4);
    track.sealed(look(4000, 4901), 10, 0, 5);
    track.sealed(look(5000, 9901), 50, 0, 6);
    let outage = &track.estimate(rules(1000)).outages[0];
    assert_eq!((outage.end_lo, outage.end_hi), (2000 * MS, Some(4901 * MS)));
}

#[test]
fn a_restarted_agent_goes_on_from_its_seals() {
    let mut track = Track::default();
    track.edge(true, None, look(0, 1), 1);
    track.sealed(look(0, 901), 10, 0, 2);
    track.sealed(look(1000, 1901), 10, 0, 3);
    // The agent died; the new one has no look before its first.
    track.edge(false, None, look(4000, 4001), 4);
    let outage = &track.estimate(rules(1000)).outages[0];
    assert_eq!((outage.start_lo, outage.start_hi), (Some(1000 * MS), 4001 * MS));
}

#[test]
fn late_looks_are_explained_by_the_phase_they_were_sent_in() {
    let mut edges = Edges::default();
    let seen = |edges: &mut Edges, s, c, ok| edges.see(look(s, c), ok).map(|e| e.ok);
    assert_eq!(seen(&mut edges, 0, 1, true), Some(true));
    assert_eq!(seen(&mut edges, 100, 101, false), Some(false));
    assert_eq!(seen(&mut edges, 45, 120, true), None, "was up at 45");
    assert_eq!(seen(&mut edges, 500, 501, true), Some(true));
    assert_eq!(seen(&mut edges, 400, 1400, false), None, "was down at 400");
    assert_eq!(edges.state(), Some(true));
}

#[test]
fn a_look_that_is_given_up_after_the_first_success_narrows_the_edge() {
    // Refused up to 500 ms, then answers that come after the timeout of 400 ms, but at once from 1010 ms on.
    let mut readings: Vec<Reading> =
        (0..30).map(|i| Reading { look: look(i * 100, i * 100 + 1), ok: true, why: String::new() }).collect();
    for (i, reading) in readings.iter_mut().enumerate().take(11).skip(3) {
        reading.ok = false;
        reading.look.c += if i < 5 { 0 } else { 399 * MS };
    }
    let outage = &Track::of_readings(&readings).estimate(rules(1000)).outages[0];
    assert_eq!((outage.end_lo, outage.end_hi), (1000 * MS, Some(1101 * MS)), "the failing look sent last says so");

    let mut edges = Edges::default();
    let seen = |edges: &mut Edges, s, c, ok| edges.see(look(s, c), ok).map(|e| e.before);
    seen(&mut edges, 0, 1, true);
    assert_eq!(seen(&mut edges, 100, 101, false), Some(Some(look(0, 1))));
    assert_eq!(edges.again(), []);
    assert_eq!(seen(&mut edges, 400, 401, true), Some(Some(look(100, 101))));
    assert_eq!(seen(&mut edges, 200, 600, false), None);
    assert_eq!(seen(&mut edges, 300, 700, false), None);
    let up = |before| Edge { ok: true, before: Some(before), after: look(400, 401) };
    assert_eq!(edges.again(), [up(look(300, 700))]);
    assert_eq!(edges.again(), [], "once");
    assert_eq!(seen(&mut edges, 250, 800, false), None);
    assert_eq!(edges.again(), [], "that was known better");
    assert_eq!(seen(&mut edges, 350, 900, false), None);
    assert_eq!(seen(&mut edges, 1000, 1001, false), Some(Some(look(400, 401))), "the next change");
    assert_eq!((edges.owed(), edges.again()), (vec![up(look(350, 900))], vec![]), "of the change before");
}

#[test]
fn a_look_that_was_still_out_when_the_first_failing_one_was_sent_bounds_nothing() {
    // Found by the bench: one look is given up, and a slow one that was sent after it completes just before.
    let looks =
        [(0, 1, true), (200, 201, true), (400, 401, true), (800, 901, true), (600, 948, false), (1000, 1001, true)];
    let readings: Vec<Reading> =
        looks.iter().map(|(s, c, ok)| Reading { look: look(*s, *c), ok: *ok, why: String::new() }).collect();
    let mut edges = Edges::of(Dur::from_ms(400));
    let told: Vec<Edge> = readings[..5].iter().filter_map(|r| edges.see(r.look, r.ok)).collect();
    assert_eq!(told.last().unwrap().before, Some(look(800, 901)), "the last sent that said otherwise");
    assert_eq!(edges.again(), [Edge { ok: false, before: Some(look(400, 401)), after: look(600, 948) }]);
    let changes = Track::of_readings(&readings).estimate(rules(1000)).changes;
    assert_eq!((changes[1].ok, changes[1].lo, changes[1].hi), (false, Some(400 * MS), 948 * MS));
}

/// One truth and how it was looked at.
#[derive(Clone, Debug)]
struct Script {
    downs: Vec<(i64, i64)>,
    readings: Vec<Reading>,
    every: i64,
    latency: i64,
    stable: i64,
}

fn script() -> impl Strategy<Value = Script> {
    // Period 5 to 500 ms; latency up to three periods, so that looks overlap and complete out of order.
    (5..500_i64, 1..300_i64, proptest::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 1..4), any::<u64>()).prop_map(
        |(every_ms, latency_percent, spans, seed)| {
            let every = every_ms * MS;
            let latency = (every * latency_percent / 100).max(1);
            let grain = 2 * (every + latency);
            let stable = 3 * grain;
            let mut at = 2 * grain;
            let mut downs = Vec::new();
            for (length, rest) in spans {
                let end = at + grain + (length * 40.0 * grain as f64) as i64;
                downs.push((at + 7, end));
                at = end + stable + 2 * grain + (rest * 5.0 * grain as f64) as i64;
            }
            let mut random = seed | 1;
            let mut draw = |below: i64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random % below.max(1) as u64) as i64
            };
            let down = |t: i64| downs.iter().any(|(a, b)| (*a..*b).contains(&t));
            let phase = draw(every);
            let readings = (0..at / every)
                .map(|i| {
                    let s = phase + i * every;
                    let c = s + draw(latency + 1);
                    let seen = s + draw(c - s + 1);
                    Reading { look: Look { s, c }, ok: !down(seen), why: String::new() }
                })
                .collect();
            Script { downs, readings, every, latency, stable }
        },
    )
}

/// What is left of a script's looks by a probe that rests, and how it ticked: at its full rate from two periods before
/// each outage until services were seen stable after it, else only every so many looks.
fn rested(script: &Script, share: usize) -> (Vec<Reading>, Vec<(i64, Dur)>) {
    let (every, slow) = (Dur::from_ns(script.every), Dur::from_ns(script.every * share as i64));
    let margin = 2 * script.every + script.latency;
    let busy: Vec<(i64, i64)> =
        script.downs.iter().map(|(start, end)| (start - margin, end + script.stable + margin)).collect();
    let at_full = |at: i64| busy.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let kept = script.readings.iter().enumerate().filter(|(i, r)| at_full(r.look.s) || i.is_multiple_of(share));
    let paces = busy.iter().flat_map(|(from, to)| [(*from, every), (*to, slow)]);
    (kept.map(|(_, r)| r.clone()).collect(), [(i64::MIN, slow)].into_iter().chain(paces).collect())
}

#[test]
fn looks_at_rest_are_no_hole_where_it_is_known_that_it_rested() {
    let seal = |track: &mut Track, s: i64| track.sealed(look(s, s + 10), 1, 0, 1);
    let mut track = Track::default();
    for s in [0, 1000, 6000, 11_000, 12_000] {
        seal(&mut track, s);
    }
    assert_eq!(track.estimate(rules(8000)).holes.len(), 2);
    let seconds = |n: i64| Dur::from_secs(n);
    track.paced(vec![(900 * MS, seconds(5)), (11_500 * MS, Dur::from_ms(100))]);
    assert_eq!(track.estimate(rules(8000)).holes, []);
    assert_eq!(track.slowest(0, 500 * MS, Dur::from_ms(100)), Dur::from_ms(100));
    assert_eq!(track.slowest(0, 900 * MS, Dur::from_ms(100)), seconds(5));
    assert_eq!(track.slowest(11_500 * MS, i64::MAX, Dur::from_ms(100)), Dur::from_ms(100));
    let slower: Vec<(Look, Dur)> = track.slower(Dur::from_ms(100)).collect();
    assert_eq!(slower, [(look(900, 11_500), seconds(5))]);
    // It does not rest any more.
    seal(&mut track, 30_000);
    assert_eq!(track.estimate(rules(8000)).holes, [look(12_010, 30_000)]);
}

/// Tightest bounds by trying: every reading is its own constraint, none left out.
fn exhaustive(script: &Script, rules: Rules) -> Vec<Outage> {
    let mut track = Track::default();
    for r in &script.readings {
        track.sightings.push(Sighting { look: r.look, ok: r.ok, seq: 0 });
        track.seals.push(r.look);
    }
    track.estimate(rules).outages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn intervals_contain_the_truth_and_are_narrow(script in script()) {
        let rules = Rules {
            stable_for: Dur::from_ns(script.stable),
            every: Dur::from_ns(script.every),
            timeout: Dur::from_ns(script.latency),
        };
        let found = Track::of_readings(&script.readings).estimate(rules).outages;
        prop_assert_eq!(found.len(), script.downs.len());
        let tight = exhaustive(&script, rules);
        prop_assert_eq!(tight.len(), found.len());
        for ((outage, (start, end)), tight) in found.iter().zip(&script.downs).zip(&tight) {
            let truth = Dur::from_ns(end - start);
            prop_assert!(outage.duration.contains(truth), "{truth} not in {} ({outage:?})", outage.duration);
            prop_assert!(outage.start_lo.is_some_and(|lo| lo <= *start) && *start <= outage.start_hi);
            prop_assert!(outage.end_lo <= *end && outage.end_hi.is_some_and(|hi| *end <= hi));
            prop_assert!(outage.downtime.contains(truth) || outage.blips > 0);
            let width = outage.duration.width().map_or(i64::MAX, Dur::ns);
            prop_assert!(width <= 2 * (script.every + script.latency), "{width} {script:?}");
            // The estimate from all raw readings is no narrower: edges tell all that there is.
            prop_assert!(tight.duration.contains(truth));
            prop_assert_eq!(tight.duration, outage.duration);
        }
    }

    #[test]
    fn a_probe_that_rests_in_time_loses_nothing(script in script(), share in 2..12_usize) {
        let rules = Rules {
            stable_for: Dur::from_ns(script.stable),
            every: Dur::from_ns(script.every),
            timeout: Dur::from_ns(script.latency),
        };
        let (readings, paces) = rested(&script, share);
        let mut track = Track::of_readings(&readings);
        track.paced(paces);
        let found = track.estimate(rules).outages;
        prop_assert_eq!(found.len(), script.downs.len());
        let busy = Track::of_readings(&script.readings).estimate(rules).outages;
        for ((outage, (start, end)), busy) in found.iter().zip(&script.downs).zip(&busy) {
            prop_assert!(outage.duration.contains(Dur::from_ns(end - start)), "{outage:?}");
            prop_assert_eq!(outage.duration, busy.duration, "as close as if it had not rested");
        }
    }

    #[test]
    fn cutting_the_track_never_turns_an_interval_wrong(script in script(), keep in 0.1..1.0_f64) {
        let rules = Rules {
            stable_for: Dur::from_ns(script.stable),
            every: Dur::from_ns(script.every),
            timeout: Dur::from_ns(script.latency),
        };
        let kept = (script.readings.len() as f64 * keep) as usize;
        for (outage, (start, end)) in
            Track::of_readings(&script.readings[..kept]).estimate(rules).outages.iter().zip(&script.downs)
        {
            prop_assert!(outage.duration.contains(Dur::from_ns(end - start)), "{outage:?}");
        }
    }
}
