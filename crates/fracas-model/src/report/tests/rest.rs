//! Reports of a probe that rested: in time nothing is lost, and where a fault struck meanwhile it is said.

use super::*;

impl Script {
    /// Of a document whose probe may look every second at rest; it was at its full rate in these times of the run.
    fn rests(mut self, until: i64, down: &[(i64, i64)], full: &[(i64, i64)]) -> Self {
        let Body::Planned { document, .. } = &mut self.events[0].body else {
            unreachable!("the first event is the plan")
        };
        document["probes"]["up"]["everyAtRest"] = json!("1s");
        let mut pace = |at: i64, every: Dur| {
            self.push(at, Body::PaceChanged { probe: "up".into(), every, at: stamp("e1", at) }, Some("e1"));
        };
        pace(0, Dur::from_secs(1));
        for (from, to) in full {
            pace(*from, Dur::from_ms(100));
            pace(*to, Dur::from_secs(1));
        }
        self.looks_at(until, down, |s| s % S == 0 || full.iter().any(|(from, to)| (*from..*to).contains(&s)))
    }
}

fn killed() -> Script {
    Script::killing().gate().applied("kill", 10 * S, VERIFIED)
}

#[test]
fn an_outage_is_known_as_closely_as_if_the_probe_had_not_rested() {
    let down = [(10 * S + 30 * MS, 15 * S + 40 * MS)];
    let rested = killed().rests(60 * S, &down, &[(8 * S, 20 * S)]).report();
    let busy = killed().looks(60 * S, &down).report();
    assert_eq!(rested.services[0].outage, busy.services[0].outage);
    assert_eq!((rested.verdict, rested.probes[0].rested), (busy.verdict, None));
    assert!(rested.probes[0].looks < busy.probes[0].looks / 3);
    assert!(!rested.probes[0].strip.iter().any(|segment| segment.state == Seen::Gap), "rest is no gap");
}

#[test]
fn a_fault_that_struck_at_rest_is_told_and_the_interval_is_wider() {
    let (begun, ended) = (10 * S + 130 * MS, 15 * S + 40 * MS);
    let report = killed().rests(60 * S, &[(begun, ended)], &[(10 * S + 500 * MS, 20 * S)]).report();
    let outage = report.services[0].outage.unwrap();
    assert!(outage.contains(Dur::from_ns(ended - begun)), "{outage}");
    // The fault's instant bounds it from below, the first look at the full rate from above.
    assert!((500..=700).contains(&(outage.width().unwrap().ns() / MS)), "{outage}");
    // As long as it rested under fault, and one look of the full rate at either end; clocks are known within some ms.
    let rested = report.probes[0].rested.unwrap();
    assert!((700..705).contains(&(rested.ns() / MS)), "{rested}");
    let told = report.warnings.iter().find(|warning| warning.contains("at rest while a fault was in effect"));
    assert!(told.is_some_and(|told| told.contains("up from edge-1")), "{:?}", report.warnings);
}

#[test]
fn no_outage_is_judged_by_how_it_was_looked_while_one_was_to_be_expected() {
    let why = |full: &[(i64, i64)]| {
        let report = killed().rests(60 * S, &[], full).report();
        match report.services[0].judgement.clone() {
            Judgement::Met { why } => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why(&[(8 * S, 20 * S)]), "no outage seen; dips shorter than 200 ms (1.10 s at rest) may be missed");
    assert!(why(&[]).starts_with("no outage seen; dips shorter than 1.10 s"), "{}", why(&[]));
    let early = why(&[(8 * S, 11 * S)]);
    assert!(early.starts_with("no outage seen; dips shorter than 1.10 s"), "not stable for 2 s yet: {early}");
}

#[test]
fn what_rest_left_open_would_be_settled_by_looking_at_the_full_rate() {
    // Out for 9.95 s, from 830 ms after the fault; the objective is 10 s.
    let down = [(10 * S + 830 * MS, 20 * S + 780 * MS)];
    let inconclusive = |report: Report| match report.services[0].judgement.clone() {
        Judgement::Inconclusive { why, .. } => why,
        other => panic!("{other:?}"),
    };
    let why = inconclusive(killed().rests(60 * S, &down, &[(11 * S, 30 * S)]).report());
    assert!(why.contains(", at rest too, would settle it"), "{why}");
}

#[test]
fn whatever_rate_a_host_tells_there_is_a_report() {
    let mut script = killed().rests(20 * S, &[], &[]);
    for every in [i64::MIN, -1, 0, i64::MAX] {
        let at = stamp("e1", 12 * S);
        script.push(12 * S, Body::PaceChanged { probe: "up".into(), every: Dur::from_ns(every), at }, Some("e1"));
    }
    assert!(script.report().probes[0].rested.is_some_and(|rested| rested == Dur::from_secs(1)));
}
