//! Stop conditions in the run machine: met by a look, by summaries, and by the loss of whoever looks.

use serde_json::json;

use super::*;

/// A script whose document has these conditions, past its gate, with the fault of `kill` in effect.
fn under(abort_when: serde_json::Value) -> Script {
    let mut script = Script::new();
    let Body::Planned { document, .. } = &mut script.events[0].body else {
        unreachable!("the first event is the plan")
    };
    document["abortWhen"] = abort_when;
    script.gate();
    script.applying("kill");
    script
}

fn met(script: &mut Script, host: &str, probe: &str) {
    let (look, at) = (Look { s: script.now, c: script.now }, stamp(host, script.now));
    script.host(host, Body::StopConditionMet { probe: probe.into(), why: "was failing".into(), look, at });
    script.settle();
}

fn sealed(script: &mut Script, ok: u32, failed: u32) {
    script.now += 1_000_000_000;
    let between = Look { s: script.now - 1_000_000_000, c: script.now };
    let (digest, at) = (String::new(), stamp("e1", script.now));
    script.host("e1", Body::ReadingsSealed { probe: "up".into(), digest, between, ok, failed, at });
    script.settle();
}

fn cause(script: &Script) -> Option<String> {
    script.run().aborted.map(|(kind, cause)| {
        assert_eq!(kind, AbortKind::StopCondition);
        cause
    })
}

#[test]
fn vantages_know_the_conditions_of_their_probes() {
    let rails = json!([
        { "probe": "up", "failingFor": "20s" },
        { "probe": "up", "errorBudget": { "allow": "5%", "within": "1m" } },
        { "vantage": "edge", "lostFor": "3s" },
    ]);
    let probes = under(rails).run().desired_probes(&"e1".into(), &Resting::new());
    let stop = serde_json::to_value(&probes[0].stop).unwrap();
    // 5 % of the 600 looks of a minute.
    assert_eq!(stop, json!([{ "failingFor": "20s" }, { "budget": { "most": 30, "allow": "5%", "within": "1m" } }]));
}

#[test]
fn the_word_of_a_vantage_ends_the_run_at_once_and_that_of_anybody_else_does_not() {
    let mut script = under(json!([{ "probe": "up", "failingFor": "20s" }]));
    met(&mut script, "d1", "up");
    met(&mut script, "e1", "other");
    assert_eq!(cause(&script), None);
    met(&mut script, "e1", "up");
    assert_eq!(cause(&script).as_deref(), Some("up was failing, seen by e1"));
    assert!(script.run().desired_faults(&"d1".into()).is_empty(), "undone in the same step");
    let mut without = under(json!([]));
    met(&mut without, "e1", "up");
    assert_eq!(cause(&without), None, "nobody asked for it");
}

#[test]
fn an_error_budget_is_counted_over_summaries_too() {
    let mut script = under(json!([{ "probe": "up", "errorBudget": { "allow": "5%", "within": "20s" } }]));
    // 200 looks in 20 s, of which 10 may fail.
    for _ in 0..5 {
        sealed(&mut script, 8, 2);
    }
    assert_eq!(cause(&script), None);
    for _ in 0..20 {
        sealed(&mut script, 10, 0);
    }
    for _ in 0..5 {
        sealed(&mut script, 8, 2);
    }
    assert_eq!(cause(&script), None, "what failed before the window counts no more");
    sealed(&mut script, 9, 1);
    let spent = "up failed 11 times within 20s (its error budget of 5% allows 10), seen by e1";
    assert_eq!(cause(&script).as_deref(), Some(spent));
}

fn contact(script: &mut Script, host: &str, connected: bool) {
    script.say(Body::HostContact { host: host.into(), connected, at: stamp("c", script.now) });
    script.settle();
}

#[test]
fn a_vantage_must_not_be_lost_for_longer_than_was_said() {
    let mut script = under(json!([{ "vantage": "edge", "lostFor": "3s" }]));
    contact(&mut script, "e1", false);
    let wake = script.run().decide(&stamp("c", script.now)).wake_ns;
    assert_eq!(wake, Some(script.now + 3_000_000_000));
    script.seconds(2);
    assert_eq!(cause(&script), None);
    contact(&mut script, "e1", true);
    script.seconds(5);
    contact(&mut script, "e1", false);
    assert_eq!(cause(&script), None, "it was back");
    script.seconds(3);
    assert_eq!(cause(&script).as_deref(), Some("contact with e1 was lost for 3s"));
}

#[test]
fn the_loss_of_a_condition_ends_the_run_unless_it_says_otherwise() {
    for (on_loss, ends) in [("abort", true), ("continue", false)] {
        let rail = json!([{ "probe": "up", "failingFor": "20s", "onLoss": on_loss }]);
        let mut silent = under(rail.clone());
        // The lease, one period, one timeout and two seconds for the summaries.
        silent.now += 17_300_000_000;
        silent.settle();
        let why = cause(&silent);
        assert_eq!(why.as_deref(), ends.then_some("up cannot be seen any more: e1 tells nothing of it"), "{on_loss}");
        let mut lost = under(rail);
        contact(&mut lost, "e1", false);
        lost.seconds(15);
        let why = cause(&lost);
        let words = "up cannot be seen any more: contact with its vantage e1 was lost";
        assert_eq!(why.as_deref(), ends.then_some(words), "{on_loss}");
    }
}

#[test]
fn before_the_steady_state_nothing_is_to_be_stopped() {
    let mut script = Script::new();
    let Body::Planned { document, .. } = &mut script.events[0].body else { unreachable!("the plan") };
    document["abortWhen"] = json!([{ "probe": "up", "failingFor": "20s" }]);
    script.settle();
    script.edge(false);
    script.now += 25_000_000_000;
    sealed(&mut script, 0, 10);
    met(&mut script, "e1", "up");
    assert_eq!(script.run().aborted, None, "the gate waits for it");
    script.edge(true);
    script.watched(2);
    assert!(script.run().gate.is_some() && script.run().aborted.is_none());
}

#[test]
fn a_vantage_that_was_booted_anew_begins_anew() {
    let mut script = under(json!([{ "probe": "up", "failingFor": "20s" }]));
    // Its boot time begins again far below what was told before.
    let clock = ClockId { host: "e1".into(), boot: "another".into() };
    let at = |boot_ns| Stamp { clock: clock.clone(), boot_ns, wall_ns: boot_ns, bound_ns: 0 };
    let look = Look { s: 1_000, c: 1_000 };
    let (probe, why) = ("up".into(), String::new());
    script.host("e1", Body::Edge { probe, ok: false, before: None, after: look, why, at: at(1_000) });
    script.settle();
    assert_eq!(cause(&script), None, "it has just begun to fail");
    let sight = &script.run().sights[&("up".into(), "e1".into())];
    assert_eq!((sight.since, sight.until), (1_000, 1_000));
}
