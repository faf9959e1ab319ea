//! A fault that begins on its canary: it goes to the others when that held, and is undone where it did not.

use serde_json::json;

use super::*;

/// A script past its gate whose `kill` begins on `d1` of `d1`, `d2` and `d3`.
fn begun(rollout: serde_json::Value, required: bool, duration: serde_json::Value) -> Script {
    let mut script = Script::new();
    let Body::Planned { document, targets, hosts, canaries, .. } = &mut script.events[0].body else {
        unreachable!("the first event is the plan")
    };
    document["abortWhen"] = json!([]);
    document["lease"] = json!("1s");
    document["timeline"][0]["required"] = required.into();
    document["timeline"][0]["action"]["fault"]["rollout"] = rollout;
    document["timeline"][0]["action"]["fault"]["duration"] = duration;
    targets.insert("db".into(), vec!["d1".into(), "d2".into(), "d3".into()]);
    hosts.extend([("d2".into(), "d2".to_owned()), ("d3".into(), "d3".to_owned())]);
    canaries.insert("kill".into(), vec!["d1".into()]);
    script.gate();
    script
}

fn rollout(on_failure: &str) -> serde_json::Value {
    json!({ "canary": { "count": 1 }, "probes": ["up"], "holdFor": "3s", "giveUpAfter": "10s", "onFailure": on_failure })
}

fn item(host: &str) -> ItemKey {
    ItemKey { host: host.into(), ..Script::item("kill", 1) }
}

fn active(script: &mut Script, host: &str) {
    let plan = Plan { steps: vec![], claims: vec![], check: Check::Gone { processes: vec![] }, summary: String::new() };
    let at = stamp(host, script.now);
    script.host(host, Body::Applying { item: item(host), plan, at: at.clone() });
    script.host(host, Body::Active { item: item(host), effective: Between { from: at.clone(), to: at } });
    script.settle();
}

/// The canary's one-shot fires.
fn spent(script: &mut Script) {
    let at = stamp("d1", script.now);
    let plan = Plan { steps: vec![], claims: vec![], check: Check::Gone { processes: vec![] }, summary: String::new() };
    script.host("d1", Body::Applying { item: item("d1"), plan, at: at.clone() });
    let effective = Between { from: at.clone(), to: at };
    script.host("d1", Body::Spent { item: item("d1"), certain: true, effective });
}

fn checked(script: &mut Script, host: &str, proof: Proof) {
    let at = stamp(host, script.now);
    script.host(host, Body::Checked { item: item(host), proof, measured: vec![], at });
    script.settle();
}

fn undone(script: &mut Script, host: &str, cause: UndoCause) -> bool {
    let at = stamp(host, script.now);
    let between = Between { from: at.clone(), to: at };
    script.host(host, Body::Undone { item: item(host), cause, between, superseded: vec![] });
    script.settle()
}

fn suffering(script: &Script) -> Vec<String> {
    let run = script.run();
    ["d1", "d2", "d3"].into_iter().filter(|h| !run.desired_faults(&(*h).into()).is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_others_follow_when_the_canary_is_proven_and_the_probes_held() {
    let mut script = begun(rollout("stop"), true, json!("60s"));
    assert_eq!(suffering(&script), ["d1"]);
    script.watched(5);
    assert_eq!(suffering(&script), ["d1"], "nothing is known of it");
    active(&mut script, "d1");
    assert_eq!(script.run().entries[&"kill".into()].effective, None, "not on every host");
    script.watched(5);
    assert_eq!(suffering(&script), ["d1"], "not proven yet");
    checked(&mut script, "d1", Proof::Verified);
    assert_eq!(suffering(&script), ["d1", "d2", "d3"]);
    active(&mut script, "d2");
    assert_eq!(script.run().entries[&"kill".into()].effective, None);
    active(&mut script, "d3");
    assert!(script.run().entries[&"kill".into()].effective.is_some());
    // The canary's own time ends before that of the others.
    undone(&mut script, "d1", UndoCause::Expired);
    undone(&mut script, "d2", UndoCause::Expired);
    assert_eq!(script.run().entries[&"kill".into()].ended, None);
    undone(&mut script, "d3", UndoCause::Expired);
    assert!(script.run().entries[&"kill".into()].ended.is_some());
}

#[test]
fn a_probe_may_fail_and_recover_in_time() {
    let mut script = begun(rollout("stop"), true, json!("60s"));
    active(&mut script, "d1");
    checked(&mut script, "d1", Proof::Verified);
    script.edge(false);
    script.now += 2_000_000_000;
    script.settle();
    script.edge(true);
    script.watched(2);
    assert_eq!(suffering(&script), ["d1"], "up again for 2 s");
    script.watched(1);
    assert_eq!(suffering(&script), ["d1", "d2", "d3"]);
}

#[test]
fn the_wait_goes_on_by_itself_without_probes() {
    let mut alone = rollout("stop");
    alone["probes"] = json!([]);
    let mut script = begun(alone, true, json!("60s"));
    active(&mut script, "d1");
    checked(&mut script, "d1", Proof::Verified);
    let wake = script.run().decide(&stamp("c", script.now)).wake_ns;
    assert_eq!(wake, Some(script.now + 3_000_000_000));
    script.seconds(3);
    assert_eq!(suffering(&script), ["d1", "d2", "d3"]);
}

#[test]
fn a_canary_that_does_not_hold_ends_the_run() {
    let mut script = begun(rollout("stop"), true, json!("60s"));
    active(&mut script, "d1");
    checked(&mut script, "d1", Proof::Verified);
    script.edge(false);
    for _ in 0..13 {
        assert_eq!(suffering(&script).len(), usize::from(script.run().aborted.is_none()));
        script.seconds(1);
    }
    let why = "kill: with its canary in effect up was up for 0 s of 3s within 10s";
    assert_eq!(script.run().aborted, Some((AbortKind::StopCondition, why.to_owned())));
    assert!(undone(&mut script, "d1", UndoCause::NotDesired));
}

#[test]
fn or_is_undone_while_the_run_goes_on_without_what_was_to_follow() {
    let mut script = begun(rollout("continue"), true, json!("60s"));
    active(&mut script, "d1");
    checked(&mut script, "d1", Proof::Ineffective { why: "no packet was late".into() });
    script.watched(13);
    let state = &script.run().entries[&"kill".into()];
    assert_eq!(state.failed.as_deref(), Some("its canary on d1 had no effect: no packet was late"));
    assert!(suffering(&script).is_empty(), "taken back at once");
    assert!(matches!(script.run().phase, Phase::Running), "until its host has confirmed that");
    assert!(script.run().entries[&"slow".into()].skipped.as_deref().unwrap().contains("had no effect"));
    undone(&mut script, "d1", UndoCause::NotDesired);
    assert_eq!(script.run().aborted, None);
    assert!(!matches!(script.run().phase, Phase::Running));
}

#[test]
fn one_that_was_refused_does_not_keep_the_entry_open() {
    let mut script = begun(rollout("continue"), false, json!("60s"));
    let refusal = crate::plan::Refusal::new("no", "ask elsewhere");
    script.host("d1", Body::Refused { item: item("d1"), refusal, at: stamp("d1", script.now) });
    script.settle();
    let state = &script.run().entries[&"kill".into()];
    assert_eq!(state.failed.as_deref(), Some("its canary never came into effect"));
    assert!(suffering(&script).is_empty());
}

#[test]
fn a_one_shot_waits_for_its_proof_too() {
    let mut script = begun(rollout("stop"), true, serde_json::Value::Null);
    spent(&mut script);
    script.watched(4);
    assert!(script.run().entries[&"kill".into()].widened.is_none());
    assert_eq!(script.run().entries[&"kill".into()].ended, None, "the others have not had it");
    checked(&mut script, "d1", Proof::Verified);
    assert_eq!(suffering(&script), ["d2", "d3"]);
}

#[test]
fn what_the_canary_suffers_no_more_shows_nothing() {
    let mut script = begun(rollout("stop"), true, json!("60s"));
    active(&mut script, "d1");
    checked(&mut script, "d1", Proof::Verified);
    script.edge(false);
    script.seconds(1);
    undone(&mut script, "d1", UndoCause::Expired);
    let why = "kill: its canary on d1 ended before it had held";
    assert_eq!(script.run().aborted, Some((AbortKind::StopCondition, why.to_owned())));
}

#[test]
fn a_canary_that_is_out_of_contact_is_not_well() {
    let mut script = begun(rollout("stop"), true, json!("60s"));
    let Body::Planned { document, .. } = &mut script.events[0].body else { unreachable!("the plan") };
    document["lease"] = json!("8s");
    active(&mut script, "d1");
    checked(&mut script, "d1", Proof::Verified);
    script.watched(4);
    assert_eq!(suffering(&script), ["d1"], "its silence would be noticed only after the lease");
    script.say(Body::HostContact { host: "d1".into(), connected: false, at: stamp("c", script.now) });
    script.watched(5);
    assert_eq!(suffering(&script), ["d1"]);
    script.say(Body::HostContact { host: "d1".into(), connected: true, at: stamp("c", script.now) });
    script.watched(1);
    assert_eq!(suffering(&script), ["d1", "d2", "d3"]);
}

#[test]
fn nobody_follows_long_after_the_canary() {
    let mut script = begun(rollout("stop"), true, serde_json::Value::Null);
    spent(&mut script);
    let proof = Proof::Verified;
    script.host("d1", Body::Checked { item: item("d1"), proof, measured: vec![], at: stamp("d1", script.now) });
    // The controller is away meanwhile.
    script.now += 3600 * 1_000_000_000;
    script.seen();
    let why = "kill: the controller was away when it was to go on";
    assert_eq!(script.run().aborted, Some((AbortKind::StopCondition, why.to_owned())));
}

#[test]
fn a_new_attempt_of_the_canary_must_hold_as_long() {
    let mut script = begun(rollout("stop"), true, json!("60s"));
    let Body::Planned { document, .. } = &mut script.events[0].body else { unreachable!("the plan") };
    document["timeline"][0]["onInterrupt"] = json!("reapply");
    active(&mut script, "d1");
    undone(&mut script, "d1", UndoCause::AgentRestart);
    script.watched(6);
    let again = ItemKey { generation: 2, ..item("d1") };
    let at = stamp("d1", script.now);
    script.host("d1", Body::Active { item: again.clone(), effective: Between { from: at.clone(), to: at.clone() } });
    script.host("d1", Body::Checked { item: again, proof: Proof::Verified, measured: vec![], at });
    script.settle();
    assert_eq!(suffering(&script), ["d1"], "it has only begun");
    script.watched(4);
    assert_eq!(suffering(&script), ["d1", "d2", "d3"]);
    let of = |host: &str| script.run().desired_faults(&host.into())[0].key.generation;
    assert_eq!((of("d1"), of("d2")), (2, 2));
}
