//! When probes may rest, and from when on they must not: ahead of a fault, until services are stable, while all is not well.

use serde_json::json;

use super::*;

const S: i64 = 1_000_000_000;
/// Two periods at rest and a seal.
const LEAD: i64 = 3 * S;

/// A script past its gate, with this timeline, whose probe may look every second at rest.
fn resting(timeline: serde_json::Value) -> Script {
    let mut script = planned(timeline);
    script.gate();
    script
}

fn planned(timeline: serde_json::Value) -> Script {
    let mut script = Script::new();
    let Body::Planned { document, .. } = &mut script.events[0].body else {
        unreachable!("the first event is the plan")
    };
    document["probes"]["up"]["everyAtRest"] = json!("1s");
    document["timeline"] = timeline;
    // Their own waits would wake the run too.
    document["abortWhen"] = json!([]);
    script
}

fn fault(id: &str, trigger: serde_json::Value) -> serde_json::Value {
    let fault = json!({ "fault": { "fault": "k", "params": {}, "target": "db", "duration": null } });
    json!({ "id": id, "trigger": trigger, "action": fault })
}

fn after(what: serde_json::Value, delay: &str) -> serde_json::Value {
    json!({ "after": { "what": what, "delay": delay } })
}

impl Script {
    /// What the vantage is asked for now.
    fn at_rest(&self) -> Option<Dur> {
        let run = self.run();
        let probes = run.desired_probes(&"e1".into(), &run.resting(&stamp("c", self.now)));
        assert_eq!(probes[0].every, Dur::from_ms(100), "whatever it may do, it is the same probe");
        probes[0].at_rest
    }

    fn wakes(&self) -> Option<i64> {
        self.run().decide(&stamp("c", self.now)).wake_ns
    }
}

const SLOW: Option<Dur> = Some(Dur::from_ms(1000));

#[test]
fn a_probe_without_a_rate_at_rest_never_rests() {
    let mut script = Script::new();
    script.settle();
    assert_eq!(script.at_rest(), None);
    script.gate();
    assert_eq!((script.at_rest(), script.run().resting(&stamp("c", script.now)).len()), (None, 0));
}

#[test]
fn the_full_rate_is_asked_for_ahead_of_a_fault_and_until_services_are_stable() {
    let later = fault("slow", after(json!({ "ended": "kill" }), "60s"));
    let mut script = resting(json!([fault("kill", json!({ "at": "20s" })), later]));
    let gate = script.now;
    assert_eq!((script.at_rest(), script.wakes()), (SLOW, Some(gate + 20 * S - LEAD)));
    script.watched(16);
    assert_eq!(script.at_rest(), SLOW);
    script.now = gate + 20 * S - LEAD;
    assert_eq!(script.at_rest(), None);
    assert!(script.run().desired_faults(&"d1".into()).is_empty(), "not before its time");
    assert_eq!(script.wakes(), Some(gate + 20 * S));
    script.watched(3);
    assert_eq!((script.run().desired_faults(&"d1".into()).len(), script.at_rest()), (1, None));
    script.spent("kill");
    let over = script.now;
    script.edge(false);
    script.edge(true);
    script.watched(2);
    assert_eq!(script.at_rest(), None, "what is seen is told a second late");
    script.watched(1);
    assert!(script.run().recovered.contains_key(&ServiceId::from("web")));
    assert_eq!((script.at_rest(), script.wakes()), (SLOW, Some(over + 60 * S - LEAD)));
    script.now = over + 60 * S - LEAD;
    assert_eq!(script.at_rest(), None);
}

#[test]
fn a_gate_that_is_nearly_shown_ends_the_rest() {
    let mut script = planned(json!([fault("kill", json!({ "at": "0s" }))]));
    let Body::Planned { document, .. } = &mut script.events[0].body else { unreachable!("as above") };
    document["steadyState"]["holdFor"] = json!("10s");
    script.settle();
    assert_eq!((script.at_rest(), script.wakes()), (SLOW, Some(60 * S)), "it waits to be told, no longer");
    script.edge(false);
    assert_eq!(script.at_rest(), SLOW, "it was never up");
    script.edge(true);
    script.watched(6);
    assert_eq!(script.at_rest(), SLOW);
    script.watched(1);
    assert_eq!((script.at_rest(), script.run().gate.is_some()), (None, false));
    script.watched(3);
    assert_eq!((script.at_rest(), script.run().desired_faults(&"d1".into()).len()), (None, 1));
}

#[test]
fn a_fault_after_waits_is_foreseen_in_whatever_order_they_are_written() {
    let wait = |id: &str, trigger| json!({ "id": id, "trigger": trigger, "action": { "wait": { "duration": "30s" } } });
    let mut script = resting(json!([
        fault("kill", after(json!({ "ended": "second" }), "5s")),
        wait("second", after(json!({ "started": "first" }), "40s")),
        wait("first", json!({ "at": "10s" })),
    ]));
    let due = script.now + (10 + 40 + 30 + 5) * S;
    // Until then the waits themselves begin and end.
    assert_eq!((script.at_rest(), script.wakes()), (SLOW, Some(script.now + 10 * S)));
    script.watched(81);
    assert_eq!((script.at_rest(), script.wakes()), (SLOW, Some(due - LEAD)));
    script.watched(1);
    assert_eq!((script.at_rest(), script.wakes()), (None, Some(due)));
}

#[test]
fn where_nobody_knows_when_a_fault_begins_the_full_rate_comes_with_it() {
    let ask = json!({ "id": "ask", "trigger": { "at": "0s" },
        "action": { "approval": { "question": "Now?", "deadline": "30m", "otherwise": "stop" } } });
    let mut script = resting(json!([ask, fault("kill", after(json!({ "ended": "ask" }), "0s"))]));
    script.watched(5);
    assert_eq!(script.at_rest(), SLOW);
    let at = stamp("c", script.now);
    script.say(Body::Decided { entry: "ask".into(), go: true, by: "bert".into(), note: String::new(), at });
    script.settle();
    assert_eq!((script.run().desired_faults(&"d1".into()).len(), script.at_rest()), (1, None));
}

#[test]
fn what_fails_by_itself_is_looked_at_closely_until_it_is_stable_again() {
    let mut script = resting(json!([fault("kill", json!({ "at": "10m" }))]));
    assert_eq!(script.at_rest(), SLOW);
    script.edge(false);
    assert_eq!(script.at_rest(), None);
    script.edge(true);
    script.watched(1);
    assert_eq!(script.at_rest(), None);
    script.watched(1);
    assert_eq!(script.at_rest(), SLOW);
}

#[test]
fn a_check_and_the_last_recovery_are_looked_at_closely() {
    let check = json!({ "id": "well", "trigger": { "at": "10s" },
        "action": { "check": { "probes": ["up"], "holdFor": "5s", "giveUpAfter": "60s", "onFailure": "stop" } } });
    let mut script = resting(json!([check]));
    script.watched(9);
    assert_eq!(script.at_rest(), SLOW);
    script.watched(1);
    assert_eq!(script.at_rest(), None);
    script.watched(6);
    assert!(matches!(script.run().phase, Phase::Recovering { .. }), "{:?}", script.run().phase);
    assert_eq!(script.at_rest(), None);
}

#[test]
fn a_run_that_was_aborted_is_looked_at_closely_while_its_faults_are_there() {
    let mut script = resting(json!([fault("kill", json!({ "at": "0s" }))]));
    script.applying("kill");
    script.say(Body::StopRequested { by: "ann".into(), reason: "enough".into(), at: stamp("c", script.now) });
    script.settle();
    assert!(matches!(script.run().phase, Phase::Undoing { .. }));
    assert_eq!(script.at_rest(), None);
}
