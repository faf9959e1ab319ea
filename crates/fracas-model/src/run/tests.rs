//! The run machine on scripted histories: gate, triggers, interruption, guard-rail, stop, unconfirmed undo.

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
        let mut script = Self { events: Vec::new(), now: 0 };
        let hosts = |h: &str| vec![HostId::from(h)];
        script.say(Body::Planned {
            run: "r".into(),
            document: document(),
            source: String::new(),
            source_name: String::new(),
            intent: String::new(),
            plan: String::new(),
            seed: 1,
            targets: [("db".into(), hosts("d1")), ("edge".into(), hosts("e1"))].into(),
            hosts: [("d1".into(), "d1".to_owned()), ("e1".into(), "e1".to_owned())].into(),
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
    // A spent fault has no length: its host's word is waited for as long as a recovery is.
    assert_eq!(script.run().decide(&stamp("c", script.now)).wake_ns, Some(script.now + 15_000_000_000));
    script.seconds(15);
    assert!(script.run().aborted.is_none());
    script.seconds(60);
    let cause = script.run().aborted.unwrap().1;
    assert_eq!(cause, "kill on d1: contact was lost for longer than the lease of 15s");
    assert!(!script.seconds(104), "it may still confirm");
    assert!(script.seconds(1), "60 s to give up, 15 s of lease, and 30 s");
    assert_eq!(script.run().unconfirmed().len(), 1);
}

#[test]
fn a_guard_rail_ends_the_run_and_an_unconfirmed_undo_keeps_it_open_for_a_bounded_time() {
    let mut script = Script::new();
    script.gate();
    script.applying("kill");
    script.edge(false);
    script.now += 20_000_000_000;
    script.seen();
    assert_eq!(script.run().aborted.as_ref().map(|a| a.0), Some(AbortKind::GuardRail));
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
