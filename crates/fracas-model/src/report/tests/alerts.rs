//! Alerts: what they tell of the instants of a trouble, and what they have to do with the run.

use super::*;
use crate::signal::{AlertState, Signal};

/// True wall time, nanoseconds since the Unix epoch.
fn wall(true_ns: i64) -> i64 {
    stamp("c", true_ns).wall_ns
}

fn signal(name: &str, started: i64, ended: Option<i64>) -> Signal {
    Signal {
        id: name.to_owned(),
        state: if ended.is_some() { AlertState::Resolved } else { AlertState::Firing },
        labels: [("alertname".to_owned(), name.to_owned())].into(),
        summary: String::new(),
        starts_wall_ns: wall(started),
        ends_wall_ns: ended.map(wall),
    }
}

fn told(at: i64, signals: Vec<Signal>) -> Body {
    Body::Signalled { source: "alertmanager".into(), by: "p-1".into(), signals, left_out: 0, at: stamp("c", at) }
}

/// Killed at 10 s, down from 10.03 to 25 s; the rule `down` is for `web`.
fn script() -> Script {
    let mut script = Script::killing();
    let Body::Planned { document, .. } = &mut script.events[0].body else { panic!("the first event") };
    document["detections"] = json!({ "down": { "service": "web", "match": ["alertname=~Web.*"] } });
    script.gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(10 * S + 30 * MS, 25 * S)])
}

fn instant<'a>(report: &'a Report, id: &str) -> Option<&'a Instant> {
    report.timings[0].instants.iter().find(|instant| instant.id == id)
}

#[test]
fn an_alert_of_a_rule_detects_and_its_end_is_all_clear() {
    let mut script = script();
    // It fires at 15 s, and Alertmanager waits for its group.
    script.say(45 * S, told(45 * S, vec![signal("WebDown", 15 * S, None)]));
    script.say(70 * S, told(70 * S, vec![signal("WebDown", 15 * S, Some(30 * S))]));
    let report = script.report();
    for (id, truth) in [("t5", 5 * S), ("detected", 5 * S), ("t6", 35 * S), ("t13", 20 * S)] {
        let found = instant(&report, id).unwrap_or_else(|| panic!("{id} is not known"));
        let (lo, hi) = (found.lo_ns.unwrap(), found.hi_ns.unwrap());
        assert!(lo <= truth && truth <= hi && hi - lo <= 2 * S, "{id}: {lo} to {hi}");
        assert_eq!(found.clock.as_str(), "c");
    }
    let detected = metric(&report, "ttd").length.unwrap();
    assert!(detected.contains(Dur::from_secs(5)) && detected.width().unwrap() <= Dur::from_ms(2010), "{detected}");
    let notified = metric(&report, "ttn").length.unwrap();
    assert!(notified.contains(Dur::from_secs(30)), "{notified}");
    let clear = metric(&report, "timeToAllClear").length.unwrap();
    assert!(clear.contains(Dur::from_secs(5)), "{clear}");
    let [alert] = &report.alerts[..] else { panic!("{:?}", report.alerts) };
    assert_eq!((alert.standing, &alert.detections[..]), (Standing::Detects, &["down".into()][..]));
    // From the gate, at 10 s.
    assert_eq!((alert.fired_ns, alert.came_ns, alert.resolved_ns), (5 * S, 35 * S, Some(20 * S)));
    let how = &instant(&report, "t5").unwrap().how;
    assert!(how.contains("WebDown") && how.contains("30.0 s after") && how.contains("within 1s"), "{how}");
}

#[test]
fn what_fired_before_the_fault_or_fits_no_rule_detects_nothing() {
    let mut script = script();
    script.say(8 * S, told(8 * S, vec![signal("WebSlow", 5 * S, None)]));
    script.say(20 * S, told(20 * S, vec![signal("DiskFull", 15 * S, None)]));
    let report = script.report();
    let standings: Vec<(&str, Standing)> = report.alerts.iter().map(|a| (a.name.as_str(), a.standing)).collect();
    assert_eq!(standings, [("WebSlow", Standing::PreExisting), ("DiskFull", Standing::Unexplained)]);
    assert_eq!(instant(&report, "t5"), None);
    assert!(metric(&report, "ttd").length.is_none());
    // A mark counts beside alerts: the earliest does.
    script.say(30 * S, told(30 * S, vec![signal("WebDown", 29 * S, None)]));
    script.say(30 * S, mark(Mark::Detected, None, 18 * S, 18 * S, 30 * S));
    script.say(35 * S, mark(Mark::Notified, None, 0, 0, 35 * S));
    let report = script.report();
    let detected = instant(&report, "detected").unwrap();
    assert!(detected.hi_ns <= Some(20 * S) && detected.how.contains("says"), "{detected:?}");
    assert!(instant(&report, "t5").is_some());
    assert!(instant(&report, "t6").unwrap().how.contains("says"), "a person's word of persons");
}

#[test]
fn of_a_clock_that_is_ahead_and_of_an_end_without_time_nothing_is_known() {
    let mut script = script();
    script.say(20 * S, told(20 * S, vec![signal("WebDown", 50 * S, None)]));
    let report = script.report();
    assert_eq!((instant(&report, "t5"), report.alerts[0].standing), (None, Standing::Undated));
    assert!(report.warnings.iter().any(|w| w.contains("clock of alertmanager is ahead")), "{:?}", report.warnings);
    let mut script = self::script();
    script.say(20 * S, told(20 * S, vec![signal("WebDown", 15 * S, None)]));
    let timeless = Signal { ends_wall_ns: None, ..signal("WebDown", 15 * S, Some(20 * S)) };
    script.say(30 * S, told(30 * S, vec![timeless]));
    let report = script.report();
    assert!(instant(&report, "t5").is_some() && instant(&report, "t13").is_none());
    assert_eq!(report.alerts.len(), 1);
}

/// One alert may fulfil the rules of two services, and each has its own.
#[test]
fn an_alert_speaks_for_every_service_whose_rule_it_fulfils() {
    let mut script = Script::killing();
    let Body::Planned { document, .. } = &mut script.events[0].body else { panic!("the first event") };
    document["services"]["api"] = json!({});
    document["detections"] = json!({
        "a": { "service": "api", "match": ["alertname=WebDown"] }, "b": { "service": "web", "match": ["alertname=~Web.*"] },
        "c": { "service": "web", "match": ["alertname=Other"] },
    });
    let mut script = script.gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(10 * S + 30 * MS, 25 * S)]);
    script.say(16 * S, told(16 * S, vec![signal("WebDown", 15 * S, None)]));
    let report = script.report();
    assert_eq!(report.alerts[0].detections, ["a".into(), "b".into()]);
    for timing in &report.timings {
        assert!(timing.instants.iter().any(|instant| instant.id == "t5"), "{:?}", timing.service);
    }
    let unheard: Vec<&String> = report.warnings.iter().filter(|w| w.contains("no alert fulfilled")).collect();
    assert!(unheard.len() == 1 && unheard[0].contains("`c`"), "{unheard:?}");
}

#[test]
fn a_rule_of_which_nobody_told_is_warned_of() {
    let report = script().report();
    assert!(report.warnings.iter().any(|w| w.contains("no alert fulfilled the rule `down`")), "{:?}", report.warnings);
    let mut script = script();
    let body = Body::Signalled {
        source: "alertmanager".into(),
        by: "p-1".into(),
        signals: vec![signal("WebDown", 15 * S, None)],
        left_out: 3,
        at: stamp("c", 16 * S),
    };
    script.say(16 * S, body);
    let warnings = script.report().warnings;
    assert!(warnings.iter().any(|w| w.starts_with("at least 3 alerts that were told of")), "{warnings:?}");
    assert!(!warnings.iter().any(|w| w.contains("no alert fulfilled")), "{warnings:?}");
}
