//! A scripted world in true time: faults and what probes saw of them, as the history that real hosts would have reported.
//!
//! Everything is fixed, chance included, so that reports made of it are the same on every machine.

use std::collections::BTreeMap;

use fracas_model::{
    estimate::Edges,
    event::{AbortKind, Between, Body, Event, Look, Measured, Origin, Proof, Reading, Readings, Rehearsal, UndoCause},
    id::{HostId, ItemKey},
    plan::{Check, Plan, Refusal},
    report::{Report, build},
    time::{ClockId, ClockMap, Stamp},
};
use serde_json::{Value, json};

/// One millisecond in nanoseconds.
pub(crate) const MS: i64 = 1_000_000;
/// One second in nanoseconds.
pub(crate) const S: i64 = 1000 * MS;
/// 2026-11-24T02:45:00Z.
const START: i64 = 1_795_488_300 * S;
const RUN: &str = "06FQ3W9T4K7R";

/// What a probe does from one vantage, in true time.
pub(crate) struct Vantage {
    /// The probe.
    pub(crate) probe: &'static str,
    /// Where it looks from.
    pub(crate) host: &'static str,
    /// Period.
    pub(crate) every: i64,
    /// From its first to its last tick.
    pub(crate) span: (i64, i64),
    /// When it fails, and why.
    pub(crate) down: Vec<(i64, i64, &'static str)>,
    /// When answers take longer, and by how much.
    pub(crate) slow: Vec<(i64, i64, i64)>,
    /// When no tick happens, and why.
    pub(crate) missing: Vec<(i64, i64, &'static str)>,
}

/// The history under construction.
pub(crate) struct World {
    told: Vec<(i64, Option<&'static str>, Body)>,
    blobs: BTreeMap<String, Readings>,
    chance: u64,
}

/// Each host's boot clock is ahead of the controller's by this.
fn ahead(host: &str) -> i64 {
    if host == "c" {
        return 0;
    }
    host.bytes().map(|b| i64::from(b) * 97 * S).sum()
}

fn stamp(host: &str, at: i64) -> Stamp {
    let clock = ClockId { host: host.into(), boot: "b".into() };
    // One host's kernel does not know how far its wall clock is off.
    let bound_ns = if host.ends_with("e2") { -1 } else { 1_200_000 };
    Stamp { clock, boot_ns: at + ahead(host), wall_ns: START + at, bound_ns }
}

/// An instant on the controller's clock.
pub(crate) fn moment(at: i64) -> Stamp {
    stamp("c", at)
}

/// One attempt of one entry on one host.
pub(crate) fn item(entry: &str, host: &str) -> ItemKey {
    ItemKey { run: RUN.into(), entry: entry.into(), occurrence: 0, host: host.into(), generation: 1 }
}

/// Asked and measured.
pub(crate) fn measured(
    what: &str,
    unit: &str,
    asked: Option<f64>,
    got: f64,
    p99: Option<f64>,
    n: u64,
    by: &str,
) -> Measured {
    Measured { what: what.into(), unit: unit.into(), asked, got, p99, n, by: by.into() }
}

impl World {
    /// A run of `document`, accepted at 0; hosts as (id, name).
    pub(crate) fn new(document: Value, targets: &[(&str, &[&str])], hosts: &[(&str, &str)]) -> Self {
        let digest = |x: &str| x.repeat(16);
        let drawn = targets.iter().map(|(t, hosts)| ((*t).into(), hosts.iter().map(|h| HostId::from(*h)).collect()));
        let body = Body::Planned {
            run: RUN.into(),
            source_name: format!("{}.yaml", document["name"].as_str().unwrap_or("experiment")),
            files: BTreeMap::new(),
            document,
            source: String::new(),
            intent: digest("9f2c"),
            plan: digest("41d7"),
            seed: 7_316_220_458,
            targets: drawn.collect(),
            hosts: hosts.iter().map(|(id, name)| ((*id).into(), (*name).to_owned())).collect(),
            canaries: BTreeMap::new(),
            rehearsed: Vec::new(),
            by: "person-3".into(),
            environment: "staging".into(),
            at: stamp("c", 0),
        };
        let mut world = Self { told: Vec::new(), blobs: BTreeMap::new(), chance: 7 };
        world.say(0, body);
        for (host, _) in hosts {
            world.clock(host, 2 * S);
        }
        world
    }

    /// How a host's clock reads against the controller's, known within 0.7 ms.
    pub(crate) fn clock(&mut self, host: &str, at: i64) {
        let (from, to, offset) = (stamp(host, at).clock, stamp("c", 0).clock, -ahead(host));
        let (lo_ns, hi_ns) = (offset - 400_000, offset + 300_000);
        self.say(at, Body::ClockSeen { map: ClockMap { from, to, at_ns: at + ahead(host), lo_ns, hi_ns } });
    }

    /// A host's answer to the rehearsal: it will not do it.
    pub(crate) fn refuses(&mut self, entry: &str, host: &str, why: &str, instead: &str) {
        let refusals = vec![Refusal::new(why, instead)];
        if let Some((_, _, Body::Planned { rehearsed, .. })) = self.told.first_mut() {
            rehearsed.push(Rehearsal { item: item(entry, host), plan: None, refusals, digest: String::new() });
        }
    }

    /// The controller's event.
    pub(crate) fn say(&mut self, at: i64, body: Body) {
        self.told.push((at, None, body));
    }

    /// A host's event; the message takes 3 ms.
    pub(crate) fn hear(&mut self, at: i64, host: &'static str, body: Body) {
        self.told.push((at + 3 * MS, Some(host), body));
    }

    /// Steady state: waited for from 100 ms on, held at `at`.
    pub(crate) fn gate(&mut self, at: i64) {
        self.say(100 * MS, Body::GateStarted { at: stamp("c", 100 * MS) });
        self.say(at, Body::GatePassed { at: stamp("c", at) });
    }

    fn random(&mut self) -> i64 {
        // Knuth's multiplier for 64 bits; only its upper bits are used.
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 40) as i64
    }

    /// Every look of a vantage, and what its agent reports of them.
    pub(crate) fn looks(&mut self, v: &Vantage) {
        let base = ahead(v.host);
        self.hear(
            v.span.0 - MS,
            v.host,
            Body::ProbeStarted { probe: v.probe.into(), at: stamp(v.host, v.span.0 - MS) },
        );
        let mut readings = Vec::new();
        for tick in 0..=(v.span.1 - v.span.0) / v.every {
            let s = v.span.0 + tick * v.every + self.random() % (v.every / 20);
            if v.missing.iter().any(|(from, to, _)| (*from..*to).contains(&s)) {
                continue;
            }
            let down = v.down.iter().find(|(from, to, _)| (*from..*to).contains(&s));
            let slow: i64 = v.slow.iter().filter(|(from, to, _)| (*from..*to).contains(&s)).map(|x| x.2).sum();
            let took = 2 * MS + slow + self.random() % (MS + slow / 20);
            let look = Look { s: s + base, c: s + base + took };
            readings.push(Reading { look, ok: down.is_none(), why: down.map_or("", |d| d.2).to_owned() });
        }
        self.edges(v, &readings);
        self.seals(v, &readings);
        for (from, to, why) in &v.missing {
            let missed = ((to - from) / v.every) as u64;
            let between = Look { s: from + base, c: to + base };
            let at = stamp(v.host, *to);
            self.hear(*to, v.host, Body::Gap { probe: v.probe.into(), missed, between, why: (*why).into(), at });
        }
    }

    fn edges(&mut self, v: &Vantage, readings: &[Reading]) {
        let base = ahead(v.host);
        let mut edges = Edges::default();
        for r in readings {
            if let Some(e) = edges.see(r.look, r.ok) {
                let at = r.look.c - base;
                let body = Body::Edge {
                    probe: v.probe.into(),
                    ok: e.ok,
                    before: e.before,
                    after: e.after,
                    why: r.why.clone(),
                    at: stamp(v.host, at),
                };
                self.hear(at, v.host, body);
            }
        }
    }

    fn seals(&mut self, v: &Vantage, readings: &[Reading]) {
        for second in readings.chunk_by(|a, b| a.look.s / S == b.look.s / S) {
            let between = Look { s: second[0].look.s, c: second[second.len() - 1].look.c };
            let digest = format!("{}-{}-{}", v.probe, v.host, between.s);
            let failed = second.iter().filter(|r| !r.ok).count() as u32;
            let at = between.c - ahead(v.host);
            let body = Body::ReadingsSealed {
                probe: v.probe.into(),
                digest: digest.clone(),
                between,
                ok: second.len() as u32 - failed,
                failed,
                at: stamp(v.host, at),
            };
            self.hear(at, v.host, body);
            self.blobs.insert(digest, Readings::pack(second));
        }
    }

    /// The controller asks for an entry.
    pub(crate) fn starts(&mut self, entry: &str, at: i64) {
        let body = Body::EntryStarted { entry: entry.into(), occurrence: 0, generation: 1, at: stamp("c", at) };
        self.say(at, body);
    }

    /// An entry is over.
    pub(crate) fn ends(&mut self, entry: &str, at: i64) {
        self.say(at, Body::EntryEnded { entry: entry.into(), at: stamp("c", at) });
    }

    fn applying(&mut self, entry: &str, host: &'static str, at: i64, summary: &str) -> Between {
        let check = Check::Gone { processes: Vec::new() };
        let plan = Plan { steps: Vec::new(), claims: Vec::new(), check, summary: summary.into() };
        self.hear(at + 4 * MS, host, Body::Applying { item: item(entry, host), plan, at: stamp(host, at + 4 * MS) });
        Between { from: stamp(host, at + 9 * MS), to: stamp(host, at + 10 * MS) }
    }

    /// A one-shot fires, verified.
    pub(crate) fn fires(&mut self, entry: &str, host: &'static str, at: i64, summary: &str, seen: Vec<Measured>) {
        let effective = self.applying(entry, host, at, summary);
        self.hear(at + 10 * MS, host, Body::Spent { item: item(entry, host), certain: true, effective });
        self.checks(entry, host, at + 60 * MS, Proof::Verified, seen);
    }

    /// A lasting fault becomes active.
    pub(crate) fn holds(&mut self, entry: &str, host: &'static str, at: i64, summary: &str) {
        let effective = self.applying(entry, host, at, summary);
        self.hear(at + 10 * MS, host, Body::Active { item: item(entry, host), effective });
    }

    /// Somebody looked whether it works.
    pub(crate) fn checks(&mut self, entry: &str, host: &'static str, at: i64, proof: Proof, measured: Vec<Measured>) {
        let body = Body::Checked { item: item(entry, host), proof, measured, at: stamp(host, at) };
        self.hear(at, host, body);
    }

    /// A lasting fault is lifted and read back.
    pub(crate) fn lifts(&mut self, entry: &str, host: &'static str, at: i64, cause: UndoCause) {
        self.hear(at, host, Body::Undoing { item: item(entry, host), cause, at: stamp(host, at) });
        let between = Between { from: stamp(host, at), to: stamp(host, at + 7 * MS) };
        let body = Body::Undone { item: item(entry, host), cause, between, superseded: Vec::new() };
        self.hear(at + 7 * MS, host, body);
    }

    /// The run turns to undoing early.
    pub(crate) fn aborts(&mut self, at: i64, why: AbortKind, cause: &str) {
        self.say(at, Body::Aborted { cause: cause.into(), why, at: stamp("c", at) });
    }

    /// A host is lost, or found again.
    pub(crate) fn contact(&mut self, host: &str, connected: bool, at: i64) {
        self.say(at, Body::HostContact { host: host.into(), connected, at: stamp("c", at) });
    }

    /// A service was up for the stable window.
    pub(crate) fn recovers(&mut self, service: &str, host: &str, since: i64, at: i64) {
        let body = Body::ServiceRecovered { service: service.into(), since: stamp(host, since), at: stamp("c", at) };
        self.say(at, body);
    }

    /// Timeline through at the first instant, nothing desired from the second on.
    pub(crate) fn calms(&mut self, through: Option<i64>, undo: i64) {
        if let Some(at) = through {
            self.say(at, Body::RecoveryStarted { at: stamp("c", at) });
        }
        self.say(undo, Body::UndoStarted { at: stamp("c", undo) });
    }

    /// Ends the run with the verdict that follows from its history.
    pub(crate) fn finish(mut self, at: i64) -> Report {
        let verdict = build(&self.events(), &BTreeMap::new()).verdict;
        let body = Body::Finished {
            verdict: verdict.word,
            exit_code: verdict.exit_code,
            reasons: verdict.reasons,
            at: stamp("c", at),
        };
        self.say(at, body);
        build(&self.events(), &self.blobs)
    }

    /// The report of a run that still goes on.
    pub(crate) fn so_far(mut self) -> Report {
        build(&self.events(), &self.blobs)
    }

    fn events(&mut self) -> Vec<Event> {
        self.told.sort_by_key(|(at, ..)| *at);
        let numbered = self.told.iter().zip(1..);
        numbered
            .map(|((at, host, body), seq)| {
                let origin = host.map(|h| Origin { host: h.into(), outbox: "o".into(), seq });
                Event { stream: format!("run/{RUN}"), seq, received: stamp("c", *at), origin, body: body.clone() }
            })
            .collect()
    }
}

/// An entry whose trigger is an offset.
pub(crate) fn at(id: &str, offset: &str, fault: &str, params: Value, target: &str, duration: Option<&str>) -> Value {
    entry(id, json!({ "at": offset }), fault, params, target, duration)
}

/// An entry.
pub(crate) fn entry(
    id: &str,
    trigger: Value,
    fault: &str,
    params: Value,
    target: &str,
    duration: Option<&str>,
) -> Value {
    let fault = json!({ "fault": fault, "params": params, "target": target, "duration": duration });
    json!({ "id": id, "trigger": trigger, "action": { "fault": fault } })
}
