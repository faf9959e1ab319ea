//! The run machine on scripted histories: gate, triggers, interruption, stop condition, stop, unconfirmed undo.

mod ledgers;
mod rest;
mod rollout;
mod stops;

use serde_json::json;

use super::*;
use crate::{
    event::{Between, Look, Origin},
    id::ServiceId,
    plan::{Check, Plan},
    time::{ClockId, Stamp},
    units::Dur,
};

struct Script {
    events: Vec<Event>,
    now: i64,
}

fn stamp(host: &str, boot_ns: i64) -> Stamp {
    Stamp { clock: ClockId { host: host.into(), boot: "b".into() }, boot_ns, wall_ns: boot_ns, bound_ns: 0 }
}

fn document() -> serde_json::Value {
    json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "t",
        "services": { "web": { "rto": "30s" } },
        "targets": { "db": { "select": "role=db" }, "edge": { "select": "role=edge" } },
        "probes": { "up": { "service": "web", "kind": "http", "params": {}, "from": "edge", "every": "100ms", "timeout": "100ms" } },
        "steadyState": { "probes": ["up"], "holdFor": "2s", "giveUpAfter": "60s" },
        "timeline": [
            { "id": "kill", "trigger": { "at": "0s" },
              "action": { "fault": { "fault": "k", "params": {}, "target": "db", "duration": null } } },
            { "id": "slow", "trigger": { "after": { "what": { "recovered": "web" }, "delay": "0s" } },
              "action": { "fault": { "fault": "s", "params": {}, "target": "db", "duration": "5s" } } }
        ],
        "recovery": { "stableFor": "2s", "giveUpAfter": "60s" },
        "abortWhen": [ { "probe": "up", "failingFor": "20s" } ],
        "limits": {}, "lease": "15s"
    })
}

impl Script {
    fn new() -> Self {
        Self::of(document())
    }

    fn of(document: serde_json::Value) -> Self {
        let mut script = Self { events: Vec::new(), now: 0 };
        let hosts = |h: &str| vec![HostId::from(h)];
        script.say(Body::Planned {
            run: "r".into(),
            document,
            source: String::new(),
            source_name: String::new(),
            files: BTreeMap::new(),
            intent: String::new(),
            plan: String::new(),
            seed: 1,
            targets: [("db".into(), hosts("d1")), ("edge".into(), hosts("e1"))].into(),
            hosts: [("d1".into(), "d1".to_owned()), ("e1".into(), "e1".to_owned())].into(),
            canaries: BTreeMap::new(),
            rehearsed: vec![],
            by: "admin".into(),
            environment: "default".into(),
            at: stamp("c", 0),
        });
        script
    }

    fn push(&mut self, body: Body, origin: Option<Origin>) {
        let seq = self.events.len() as u64 + 1;
        self.events.push(Event { stream: "run/r".into(), seq, received: stamp("c", self.now), origin, body });
    }

    fn say(&mut self, body: Body) {
        self.push(body, None);
    }

    fn host(&mut self, host: &str, body: Body) {
        self.push(body, Some(Origin { host: host.into(), outbox: "o".into(), seq: 1 }));
    }

    fn run(&self) -> Run {
        Run::fold(&self.events).unwrap()
    }

    /// Decides until nothing more is to be appended; says whether the run wants to finish.
    fn settle(&mut self) -> bool {
        for _ in 0..50 {
            let decision = self.run().decide(&stamp("c", self.now));
            if decision.append.is_empty() {
                return decision.finish;
            }
            decision.append.into_iter().for_each(|body| self.say(body));
        }
        panic!("the run never settles: {:?}", self.events);
    }

    fn seconds(&mut self, seconds: i64) -> bool {
        self.now += seconds * 1_000_000_000;
        self.settle()
    }

    /// Time passes and the probe goes on looking.
    fn watched(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1_000_000_000;
            self.seen();
        }
    }

    fn edge(&mut self, ok: bool) {
        let look = Look { s: self.now, c: self.now };
        let at = stamp("e1", self.now);
        self.host("e1", Body::Edge { probe: "up".into(), ok, before: None, after: look, why: String::new(), at });
        self.settle();
    }

    fn seen(&mut self) {
        let between = Look { s: self.now - 1_000_000_000, c: self.now };
        let at = stamp("e1", self.now);
        let (digest, ok, failed) = (String::new(), 1, 0);
        self.host("e1", Body::ReadingsSealed { probe: "up".into(), digest, between, ok, failed, at });
        self.settle();
    }

    fn item(entry: &str, generation: u32) -> ItemKey {
        ItemKey { run: "r".into(), entry: entry.into(), occurrence: 0, host: "d1".into(), generation }
    }

    fn applying(&mut self, entry: &str) {
        let plan =
            Plan { steps: vec![], claims: vec![], check: Check::Gone { processes: vec![] }, summary: String::new() };
        let item = Self::item(entry, 1);
        self.host("d1", Body::Applying { item, plan, at: stamp("d1", self.now) });
        self.settle();
    }

    fn spent(&mut self, entry: &str) {
        self.applying(entry);
        let effective = Between { from: stamp("d1", self.now), to: stamp("d1", self.now) };
        let item = Self::item(entry, 1);
        self.host("d1", Body::Spent { item, certain: true, effective });
        self.settle();
    }

    fn undone(&mut self, entry: &str, cause: UndoCause) -> bool {
        let between = Between { from: stamp("d1", self.now), to: stamp("d1", self.now) };
        let item = Self::item(entry, 1);
        self.host("d1", Body::Undone { item, cause, between, superseded: vec![] });
        self.settle()
    }

    fn gate(&mut self) {
        self.settle();
        self.edge(true);
        self.now += 2_000_000_000;
        self.seen();
        assert!(self.run().gate.is_some());
    }
}

#[test]
fn the_gate_waits_for_the_hold_time_and_gives_up() {
    let mut script = Script::new();
    script.settle();
    script.edge(true);
    script.now += 1_000_000_000;
    script.seen();
    assert!(script.run().gate.is_none());
    assert!(script.run().desired_faults(&"d1".into()).is_empty());
    assert!(script.seconds(60), "nothing was changed, so the run may finish");
    assert_eq!(script.run().aborted.as_ref().map(|a| a.0), Some(AbortKind::Gate));
}

#[test]
fn kill_then_recovered_then_slow_then_the_end() {
    let mut script = Script::new();
    script.gate();
    assert_eq!(script.run().desired_faults(&"d1".into()).len(), 1);
    script.spent("kill");
    script.now += 100_000_000;
    script.edge(false);
    script.seconds(3);
    assert!(script.run().desired_faults(&"d1".into()).is_empty(), "the second waits for recovery");
    script.edge(true);
    for _ in 0..3 {
        script.now += 1_000_000_000;
        script.seen();
    }
    assert!(script.run().recovered.contains_key(&ServiceId::from("web")));
    let slow = script.run().desired_faults(&"d1".into());
    assert_eq!(slow.iter().map(|f| f.key.entry.as_str()).collect::<Vec<_>>(), ["slow"]);
    assert_eq!(slow[0].duration, Some(Dur::from_secs(5)));
    script.applying("slow");
    script.seconds(5);
    assert!(!script.undone("slow", UndoCause::Expired), "services are watched until they were stable");
    for _ in 0..4 {
        script.now += 1_000_000_000;
        script.seen();
    }
    assert!(script.settle());
    assert!(script.run().aborted.is_none());
}

#[test]
fn a_lost_lease_aborts_and_nothing_is_asked_again() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    assert!(script.undone("kill", UndoCause::LeaseLost), "all confirmed, so the run may finish");
    let run = script.run();
    assert_eq!(run.aborted.as_ref().map(|a| a.0), Some(AbortKind::Fault));
    assert!(run.desired_faults(&"d1".into()).is_empty());
}

#[test]
fn a_fault_that_the_controller_gave_up_without_a_decision_is_no_success() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    assert!(script.undone("kill", UndoCause::NotDesired));
    let run = script.run();
    assert_eq!(run.aborted.as_ref().map(|a| a.0), Some(AbortKind::Controller));
    assert_eq!(run.aborted.unwrap().1, "kill on d1 was interrupted: the controller no longer asked for it");
}

#[test]
fn a_host_that_never_comes_back_does_not_keep_the_run() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    script.say(Body::HostContact { host: "d1".into(), connected: false, at: stamp("c", script.now) });
    script.settle();
    // A spent fault has no length: its host's word is waited for as long as a recovery is. What the run looks at before
    // that is whether the vantage, which is in contact, still tells something.
    assert_eq!(script.run().decide(&stamp("c", script.now)).wake_ns, Some(script.now + 17_200_000_000));
    script.watched(15);
    assert!(script.run().aborted.is_none());
    script.watched(60);
    let cause = script.run().aborted.unwrap().1;
    assert_eq!(cause, "kill on d1: contact was lost for longer than the lease of 15s");
    assert!(!script.seconds(104), "it may still confirm");
    assert!(script.seconds(1), "60 s to give up, 15 s of lease, and 30 s");
    assert_eq!(script.run().unconfirmed().len(), 1);
}

#[test]
fn an_order_that_was_taken_back_is_waited_for_until_its_host_says_so() {
    let mut script = Script::new();
    script.gate();
    assert_eq!(script.run().silent(), [&Script::item("kill", 1)]);
    script.say(Body::StopRequested { by: "ann".into(), reason: "enough".into(), at: stamp("c", script.now) });
    assert!(!script.settle(), "the host may be applying it this very moment");
    let mut told = Script { events: script.events.clone(), now: script.now };
    told.say(Body::Withdrawn { item: Script::item("kill", 1), at: stamp("c", told.now) });
    assert!(told.settle());
    assert!(told.run().unconfirmed().is_empty());

    let mut late = Script { events: script.events.clone(), now: script.now };
    late.applying("kill");
    assert!(!late.settle(), "it was");
    assert!(late.undone("kill", UndoCause::NotDesired));

    assert!(!script.seconds(104));
    assert!(script.seconds(1), "60 s to give up, 15 s of lease, and 30 s");
    assert_eq!(script.run().unconfirmed(), [&Script::item("kill", 1)], "nobody knows what became of it");
}

#[test]
fn an_order_to_a_host_that_was_away_all_along_needs_no_word() {
    let mut script = Script::new();
    script.say(Body::HostContact { host: "d1".into(), connected: false, at: stamp("c", 0) });
    script.gate();
    script.say(Body::StopRequested { by: "ann".into(), reason: "enough".into(), at: stamp("c", script.now) });
    assert!(script.settle());
    assert!(script.run().unconfirmed().is_empty());
    assert!(script.run().items[&Script::item("kill", 1)].withdrawn);
}

#[test]
fn an_order_to_a_host_that_was_away_and_came_back_does() {
    let mut script = Script::new();
    script.say(Body::HostContact { host: "d1".into(), connected: false, at: stamp("c", 0) });
    script.gate();
    script.say(Body::HostContact { host: "d1".into(), connected: true, at: stamp("c", script.now) });
    script.say(Body::StopRequested { by: "ann".into(), reason: "enough".into(), at: stamp("c", script.now) });
    assert!(!script.settle());
}

#[test]
fn a_host_in_contact_that_says_nothing_ends_the_run() {
    let mut script = Script::new();
    script.gate();
    script.watched(44);
    assert!(script.run().aborted.is_none());
    script.watched(1);
    let cause = script.run().aborted.unwrap();
    assert_eq!(cause.0, AbortKind::Fault);
    assert_eq!(cause.1, "kill on d1: the host said nothing about it, long after it should have ended");
}

#[test]
fn an_undo_that_goes_on_failing_ends_the_run() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    let failures = vec!["busy".to_owned()];
    script.host("d1", Body::UndoFailed { item: Script::item("kill", 1), failures, at: stamp("d1", script.now) });
    script.watched(45);
    assert_eq!(
        script.run().aborted.unwrap().1,
        "kill on d1: its undo was not confirmed, long after it should have ended"
    );
    assert!(script.seconds(105), "it is not waited for for ever");
    assert_eq!(script.run().unconfirmed().len(), 1);
}

#[test]
fn contact_that_came_back_gives_the_host_its_time() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    script.say(Body::HostContact { host: "d1".into(), connected: false, at: stamp("c", script.now) });
    script.watched(60);
    script.say(Body::HostContact { host: "d1".into(), connected: true, at: stamp("c", script.now) });
    script.settle();
    assert!(script.run().aborted.is_none(), "what it kept is on its way");
    script.spent("kill");
    assert!(script.run().aborted.is_none());
}

#[test]
fn a_guard_rail_that_hears_nothing_is_lost() {
    let mut script = Script::new();
    script.gate();
    script.spent("kill");
    script.seconds(17);
    assert!(script.run().aborted.is_none());
    script.seconds(1);
    let (kind, cause) = script.run().aborted.unwrap();
    assert_eq!(
        (kind, cause.as_str()),
        (AbortKind::StopCondition, "up cannot be seen any more: e1 tells nothing of it")
    );
}

#[test]
fn a_machine_that_was_booted_anew_ends_the_run() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    let mut after = Stamp { wall_ns: script.now + 1, ..stamp("c", 0) };
    after.clock.boot = "b2".into();
    let (kind, _) = match script.run().decide(&after).append.as_slice() {
        [Body::Aborted { why, cause, .. }] => (*why, cause.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind, AbortKind::Controller);
    // Waits are counted on the new clock.
    let seq = script.events.len() as u64 + 1;
    let body = Body::Aborted { cause: "booted".into(), why: kind, at: after.clone() };
    script.events.push(Event { stream: "run/r".into(), seq, received: after.clone(), origin: None, body });
    let body = Body::UndoStarted { at: after.clone() };
    script.events.push(Event { stream: "run/r".into(), seq: seq + 1, received: after.clone(), origin: None, body });
    let undoing = script.run();
    assert!(!undoing.decide(&after.later(Dur::from_secs(104))).finish);
    assert!(undoing.decide(&after.later(Dur::from_secs(105))).finish);
}

#[test]
fn what_is_due_while_the_controller_is_away_for_long_is_not_started_late() {
    let mut script = Script::new();
    script.now = 61_000_000_000;
    script.settle();
    assert_eq!(script.run().aborted.unwrap().1, "it was accepted 61.0 s before the controller could start it");

    let mut script = Script::new();
    script.gate();
    script.spent("kill");
    let mut run = script.run();
    run.experiment.timeline[1].trigger = crate::experiment::Trigger::At(Dur::from_secs(30));
    run.experiment.abort_when.clear();
    let at = |seconds: i64| stamp("c", script.now + seconds * 1_000_000_000);
    assert!(matches!(run.decide(&at(89)).append.as_slice(), [Body::EntryStarted { .. }]));
    match run.decide(&at(91)).append.as_slice() {
        [Body::Aborted { cause, .. }] => assert_eq!(cause, "slow was due 61.0 s ago, when the controller was away"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn readings_that_were_kept_while_there_was_no_contact_prove_nothing_about_now() {
    let mut script = Script::new();
    script.gate();
    script.spent("kill");
    let map = ClockMap { from: stamp("e1", 0).clock, to: stamp("c", 0).clock, at_ns: 0, lo_ns: -1000, hi_ns: 1000 };
    script.host("e1", Body::ClockSeen { map });
    let from = script.run().entries[&EntryId::from("kill")].effective.clone().unwrap();
    // Seen up for long, and heard of now, but nobody looked since the fault.
    let (service, before) = (ServiceId::from("web"), script.now);
    script.now += 10_000_000_000;
    let between = Look { s: before - 1_000_000_000, c: before };
    let body = Body::ReadingsSealed {
        probe: "up".into(),
        digest: String::new(),
        between,
        ok: 1,
        failed: 0,
        at: stamp("e1", script.now),
    };
    script.host("e1", body);
    assert!(!script.run().steady_since(&service, &from));
    script.now += 1_000_000_000;
    let between = Look { s: script.now - 1_000_000_000, c: script.now };
    let (digest, at) = (String::new(), stamp("e1", script.now));
    script.host("e1", Body::ReadingsSealed { probe: "up".into(), digest, between, ok: 1, failed: 0, at });
    assert!(script.run().steady_since(&service, &from));
}

#[test]
fn a_stop_condition_ends_the_run_and_an_unconfirmed_undo_keeps_it_open_for_a_bounded_time() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    script.edge(false);
    script.now += 20_000_000_000;
    script.seen();
    assert_eq!(script.run().aborted.as_ref().map(|a| a.0), Some(AbortKind::StopCondition));
    assert!(!script.seconds(100), "the host has not confirmed");
    assert!(script.seconds(60 + 15 + 30), "and is not waited for for ever");
    assert_eq!(script.run().unconfirmed().len(), 1);
}

#[test]
fn a_stop_undoes_at_once() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    script.say(Body::StopRequested { by: "ann".into(), reason: "enough".into(), at: stamp("c", script.now) });
    assert!(!script.settle());
    assert!(script.run().desired_faults(&"d1".into()).is_empty());
    assert!(script.undone("kill", UndoCause::NotDesired));
}

#[test]
fn a_guard_rail_of_the_fleet_that_breaks_ends_the_run() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    script.say(Body::GuardRailBroken { why: "guard-rail all: 1 of 3 are left".into(), at: stamp("c", script.now) });
    script.settle();
    let run = script.run();
    assert_eq!(run.aborted, Some((AbortKind::GuardRail, "guard-rail all: 1 of 3 are left".to_owned())));
    assert!(matches!(run.phase, Phase::Undoing { .. }));
    assert!(run.desired_faults(&"d1".into()).is_empty());
}
