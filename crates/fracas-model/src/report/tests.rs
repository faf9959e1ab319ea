//! Scripted histories whose truth is known, and the verdict rules one by one.

mod alerts;
mod rest;

use serde_json::json;

use super::*;
use crate::{
    event::{AbortKind, Between, Body, Look, Origin, Reading, Rehearsal},
    id::ItemKey,
    mark::Mark,
    plan::{Check, Plan, Refusal},
    time::{ClockId, ClockMap, Stamp},
};

const MS: i64 = 1_000_000;
const S: i64 = 1000 * MS;

/// Each host's boot clock is ahead of the controller's by this.
fn ahead(host: &str) -> i64 {
    match host {
        "d1" => 5000 * S,
        "e1" => 70_000 * S,
        _ => 0,
    }
}

/// True time, read on a host's clock.
fn stamp(host: &str, true_ns: i64) -> Stamp {
    let clock = ClockId { host: host.into(), boot: "b".into() };
    Stamp { clock, boot_ns: true_ns + ahead(host), wall_ns: 1_790_000_000 * S + true_ns, bound_ns: MS }
}

/// A run of one service `web` (objective 10 s) watched from `e1` every 100 ms, and faults on `d1`; all in true time.
struct Script {
    events: Vec<Event>,
    blobs: BTreeMap<String, Readings>,
    maps: bool,
}

impl Script {
    fn new(timeline: serde_json::Value, web: serde_json::Value) -> Self {
        Self::with(timeline, web, Vec::new())
    }

    fn with(timeline: serde_json::Value, web: serde_json::Value, rehearsed: Vec<Rehearsal>) -> Self {
        let document = json!({
            "apiVersion": "fracas/v1", "kind": "Experiment", "name": "t",
            "services": { "web": web },
            "targets": { "db": { "select": "role=db" }, "edge": { "select": "role=edge" } },
            "probes": { "up": { "service": "web", "kind": "http", "params": {}, "from": "edge",
                "every": "100ms", "timeout": "100ms" } },
            "timeline": timeline,
            "recovery": { "stableFor": "2s", "giveUpAfter": "60s" }, "limits": {}, "lease": "15s"
        });
        let mut script = Self { events: Vec::new(), blobs: BTreeMap::new(), maps: true };
        let hosts = |h: &str| vec![HostId::from(h)];
        let body = Body::Planned {
            run: "r".into(),
            document,
            source: String::new(),
            source_name: "t.yaml".into(),
            files: BTreeMap::new(),
            intent: "i".into(),
            plan: "p".into(),
            seed: 7,
            targets: [("db".into(), hosts("d1")), ("edge".into(), hosts("e1"))].into(),
            hosts: [("d1".into(), "db-1".to_owned()), ("e1".into(), "edge-1".to_owned())].into(),
            canaries: BTreeMap::new(),
            rehearsed,
            by: "ann".into(),
            environment: "default".into(),
            at: stamp("c", 0),
        };
        script.say(0, body);
        script
    }

    fn killing() -> Self {
        let kill = json!([{ "id": "kill", "trigger": { "at": "0s" },
            "action": { "fault": { "fault": "k", "params": { "name": "x" }, "target": "db", "duration": null } } }]);
        Self::new(kill, json!({ "rto": "10s" }))
    }

    fn slowing(required: bool) -> Self {
        let slow = json!([{ "id": "slow", "trigger": { "at": "0s" }, "required": required,
            "action": { "fault": { "fault": "s", "params": {}, "target": "db", "duration": "20s" } } }]);
        Self::new(slow, json!({ "rto": "10s" }))
    }

    fn push(&mut self, true_ns: i64, body: Body, host: Option<&str>) {
        let seq = self.events.len() as u64 + 1;
        let origin = host.map(|h| Origin { host: h.into(), outbox: "o".into(), seq });
        // A message takes 3 ms.
        let received = stamp("c", true_ns + if host.is_some() { 3 * MS } else { 0 });
        self.events.push(Event { stream: "run/r".into(), seq, received, origin, body });
    }

    fn say(&mut self, true_ns: i64, body: Body) {
        self.push(true_ns, body, None);
    }

    fn item(entry: &str) -> ItemKey {
        ItemKey { run: "r".into(), entry: entry.into(), occurrence: 0, host: "d1".into(), generation: 1 }
    }

    /// Gate at 10 s; clocks known within 2 ms from then on.
    fn gate(mut self) -> Self {
        for host in ["d1", "e1"] {
            if self.maps {
                let (from, to) = (stamp(host, 9 * S), stamp("c", 0).clock);
                let offset = -ahead(host);
                let map = ClockMap {
                    from: from.clock.clone(),
                    to,
                    at_ns: from.boot_ns,
                    lo_ns: offset - MS,
                    hi_ns: offset + MS,
                };
                self.say(9 * S, Body::ClockSeen { map });
            }
        }
        self.say(10 * S, Body::GatePassed { at: stamp("c", 10 * S) });
        self
    }

    /// The probe's looks until `until`, with what an agent reports of them.
    fn looks(self, until: i64, down: &[(i64, i64)]) -> Self {
        self.looks_at(until, down, |_| true)
    }

    /// The same for a probe that does not look at every tick.
    fn looks_at(mut self, until: i64, down: &[(i64, i64)], looks: impl Fn(i64) -> bool) -> Self {
        let readings: Vec<Reading> = (0..until / (100 * MS))
            .map(|i| i * 100 * MS)
            .filter(|s| looks(*s))
            .map(|s| {
                let failing = down.iter().any(|(a, b)| (*a..*b).contains(&s));
                let look = Look { s: s + ahead("e1"), c: s + ahead("e1") + if failing { 20 } else { 2 } * MS };
                Reading { look, ok: !failing, why: if failing { "status 503".into() } else { String::new() } }
            })
            .collect();
        let mut edges = crate::estimate::Edges::default();
        for second in readings.chunk_by(|a, b| a.look.s / S == b.look.s / S) {
            for r in second {
                if let Some(e) = edges.see(r.look, r.ok) {
                    let at = stamp("e1", r.look.c - ahead("e1"));
                    let probe = "up".into();
                    let body = Body::Edge { probe, ok: e.ok, before: e.before, after: e.after, why: r.why.clone(), at };
                    self.push(r.look.c - ahead("e1"), body, Some("e1"));
                }
            }
            let failed = second.iter().filter(|r| !r.ok).count() as u32;
            let between = Look { s: second[0].look.s, c: second[second.len() - 1].look.c };
            let digest = format!("blob{}", between.s);
            self.blobs.insert(digest.clone(), Readings::pack(second));
            let ok = second.len() as u32 - failed;
            let at = stamp("e1", between.c - ahead("e1"));
            let body = Body::ReadingsSealed { probe: "up".into(), digest, between, ok, failed, at };
            self.push(between.c - ahead("e1"), body, Some("e1"));
        }
        self
    }

    fn applied(mut self, entry: &str, at: i64, proof: Option<Proof>) -> Self {
        let item = Self::item(entry);
        self.say(at, Body::EntryStarted { entry: entry.into(), occurrence: 0, generation: 1, at: stamp("c", at) });
        let check = Check::Gone { processes: vec![] };
        let plan = Plan { steps: vec![], claims: vec![], check, summary: "do it".into() };
        self.push(at, Body::Applying { item: item.clone(), plan, at: stamp("d1", at) }, Some("d1"));
        let effective = Between { from: stamp("d1", at + MS), to: stamp("d1", at + 2 * MS) };
        let body = if entry == "kill" {
            Body::Spent { item: item.clone(), certain: true, effective }
        } else {
            Body::Active { item: item.clone(), effective }
        };
        self.push(at + 2 * MS, body, Some("d1"));
        if let Some(proof) = proof {
            let body = Body::Checked { item, proof, measured: vec![], at: stamp("d1", at + 50 * MS) };
            self.push(at + 50 * MS, body, Some("d1"));
        }
        self
    }

    fn undone(mut self, entry: &str, at: i64, cause: UndoCause) -> Self {
        let item = Self::item(entry);
        self.push(at, Body::Undoing { item: item.clone(), cause, at: stamp("d1", at) }, Some("d1"));
        let between = Between { from: stamp("d1", at), to: stamp("d1", at + 5 * MS) };
        self.push(at + 5 * MS, Body::Undone { item, cause, between, superseded: vec![] }, Some("d1"));
        self
    }

    fn aborted(mut self, at: i64, why: AbortKind) -> Self {
        self.say(at, Body::Aborted { cause: "up was failing".into(), why, at: stamp("c", at) });
        self
    }

    fn report(&self) -> Report {
        build(&self.events, &BTreeMap::new())
    }

    fn verdict(&self) -> (VerdictWord, u8) {
        let verdict = self.report().verdict;
        (verdict.word, verdict.exit_code)
    }
}

const VERIFIED: Option<Proof> = Some(Proof::Verified);

#[test]
fn a_kill_that_heals_itself_passes_with_three_intervals_that_hold_the_truth() {
    let script =
        Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(10 * S + 30 * MS, 15 * S)]);
    let report = script.report();
    assert_eq!(script.verdict(), (VerdictWord::Pass, 0), "{:?}", report.verdict.reasons);
    let web = &report.services[0];
    assert!(web.outage.unwrap().contains(Dur::from_ns(15 * S - 10 * S - 30 * MS)), "{:?}", web.outage);
    let from_fault = web.recovery_from_fault.unwrap();
    assert!(from_fault.contains(Dur::from_ns(5 * S - 2 * MS)), "{from_fault}");
    assert!(from_fault.width().unwrap() <= Dur::from_ms(100 + 22 + 1 + 2 * 2 + 30), "{from_fault}");
    assert_eq!((web.residual, web.recovered_before_revert, web.down_edges), (None, None, 1));
    assert!(matches!(web.judgement, Judgement::Met { .. }));
    assert!(!web.events.is_empty());
    assert!(report.probes[0].strip.iter().any(|s| s.state == Seen::Down));
    let mut edges = script.events.iter().filter(|e| web.events.contains(&e.seq));
    assert!(edges.all(|e| matches!(e.body, Body::Edge { .. })));
}

#[test]
fn the_fault_instant_raises_the_lower_edge_of_impact() {
    let base = || Script::killing().gate().looks(40 * S, &[(10 * S + 90 * MS, 15 * S)]);
    let wide = base().report().probes[0].episodes[0].outage;
    let known = base().applied("kill", 10 * S + 80 * MS, VERIFIED).report().services[0].outage.unwrap();
    assert_eq!(known.lo, wide.lo);
    assert!(known.hi < wide.hi && known.contains(Dur::from_ns(5 * S - 90 * MS)));
}

#[test]
fn without_clock_maps_there_is_no_recovery_from_fault() {
    let mut script = Script::killing();
    script.maps = false;
    let script = script.gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(11 * S, 15 * S)]);
    let report = script.report();
    assert_eq!(report.services[0].recovery_from_fault, None);
    assert!(
        matches!(report.services[0].judgement, Judgement::Met { .. }),
        "one vantage clock is enough for the outage"
    );
    assert!(report.warnings.iter().any(|w| w.contains("no clock map")));
}

#[test]
fn a_missed_objective_fails_and_an_unsettled_one_is_inconclusive() {
    let out = |until| {
        Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(60 * S, &[(10 * S + 10 * MS, until)]).verdict()
    };
    assert_eq!(out(25 * S), (VerdictWord::Fail, 1));
    assert_eq!(out(20 * S + 50 * MS), (VerdictWord::Inconclusive, 3));
    assert_eq!(out(60 * S), (VerdictWord::Fail, 1), "never came back");
}

#[test]
fn a_held_fault_is_judged_while_it_is_active() {
    let held = |down: &[(i64, i64)]| {
        let script = Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED);
        let script = script.undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, down);
        (script.verdict(), script.report().services[0].clone())
    };
    let (verdict, web) = held(&[]);
    assert_eq!(verdict, (VerdictWord::Pass, 0));
    assert_eq!((web.outage, web.recovered_before_revert), (None, None));
    assert!(matches!(&web.judgement, Judgement::Met { why } if why.contains("no outage seen")));
    let (verdict, web) = held(&[(11 * S, 16 * S)]);
    assert_eq!((verdict, web.recovered_before_revert), ((VerdictWord::Pass, 0), Some(true)));
    let (verdict, web) = held(&[(11 * S, 31 * S)]);
    assert_eq!((verdict, web.recovered_before_revert), ((VerdictWord::Fail, 1), Some(false)));
    assert!(web.residual.unwrap().contains(Dur::from_ns(S - 5 * MS)), "{:?}", web.residual);
    let (verdict, web) = held(&[(25 * S, 31 * S)]);
    assert_eq!(verdict, (VerdictWord::Inconclusive, 3));
    assert!(matches!(web.judgement, Judgement::NotMeasured { .. }));
    assert!(web.outage.unwrap().contains(Dur::from_secs(6)), "numbers are never withheld");
}

#[test]
fn a_guard_rail_withholds_the_judgement_and_exits_4() {
    let script =
        Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED).aborted(18 * S, AbortKind::StopCondition);
    let script = script.undone("slow", 18 * S, UndoCause::NotDesired).looks(60 * S, &[(11 * S, 19 * S)]);
    assert_eq!(script.verdict(), (VerdictWord::Aborted, 4));
    let web = &script.report().services[0];
    assert!(
        matches!(&web.judgement, Judgement::NotMeasured { why } if why.contains("stop condition")),
        "{:?}",
        web.judgement
    );
    assert_eq!(web.recovered_before_revert, Some(false));
}

#[test]
fn an_unconfirmed_undo_beats_all() {
    let script = Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED).looks(60 * S, &[(11 * S, 60 * S)]);
    let script = script.aborted(40 * S, AbortKind::Stop);
    assert_eq!(script.verdict(), (VerdictWord::UndoUnconfirmed, 6));
    assert!(script.report().verdict.reasons[0].contains("db-1"));
    assert!(script.report().entries[0].items[0].unconfirmed);
}

#[test]
fn a_fault_that_is_not_verified_never_passes_unless_the_entry_allows_it() {
    let run = |required, proof| {
        let script = Script::slowing(required).gate().applied("slow", 10 * S, proof);
        script.undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, &[]).verdict().1
    };
    let why = || "no matching traffic".to_owned();
    assert_eq!(run(true, Some(Proof::Unverified { why: why() })), 3);
    assert_eq!(run(true, None), 3);
    assert_eq!(run(false, Some(Proof::Unverified { why: why() })), 0);
    assert_eq!(run(false, Some(Proof::Ineffective { why: why() })), 3, "no fault took effect: nothing was measured");
}

#[test]
fn aborts_errors_and_refusals_have_their_codes() {
    let gate = Script::killing().looks(10 * S, &[]).aborted(10 * S, AbortKind::Gate);
    assert_eq!(gate.verdict(), (VerdictWord::Aborted, 4));
    assert_eq!(gate.report().verdict.reasons.len(), 1, "{:?}", gate.report().verdict);
    let mut failed = Script::killing().gate();
    failed
        .say(10 * S, Body::EntryStarted { entry: "kill".into(), occurrence: 0, generation: 1, at: stamp("c", 10 * S) });
    let item = Script::item("kill");
    let body = Body::Failed { item, failure: "no such process".into(), at: stamp("d1", 10 * S) };
    failed.push(10 * S, body, Some("d1"));
    assert_eq!(failed.verdict(), (VerdictWord::Error, 5));
    let refusal = Refusal::new("fault k is not allowed here", "allow it in the policy");
    let rehearsal =
        Rehearsal { item: Script::item("kill"), plan: None, refusals: vec![refusal], digest: String::new() };
    let kill = json!([{ "id": "kill", "trigger": { "at": "0s" },
        "action": { "fault": { "fault": "k", "params": {}, "target": "db", "duration": null } } }]);
    let refused = Script::with(kill, json!({}), vec![rehearsal]);
    assert_eq!(refused.verdict(), (VerdictWord::Refused, 7));
    assert_eq!(build(&[], &BTreeMap::new()).verdict.exit_code, 5, "an empty history is no run");
}

#[test]
fn what_was_broken_before_is_shown_and_not_judged() {
    let script = Script::killing().gate().applied("kill", 20 * S, VERIFIED);
    let report = script.looks(60 * S, &[(11 * S, 15 * S), (20 * S + 50 * MS, 22 * S)]).report();
    let web = &report.services[0];
    assert_eq!((web.pre_existing, web.outages), (1, 1));
    assert!(web.outage.unwrap().contains(Dur::from_ns(2 * S - 50 * MS)));
    assert!(report.warnings.iter().any(|w| w.contains("already failing")));
}

#[test]
fn outages_that_were_recovered_from_count_one_by_one_and_their_span_is_told() {
    let script = Script::killing().gate().applied("kill", 10 * S, VERIFIED);
    let web = script.looks(90 * S, &[(10 * S + 50 * MS, 14 * S), (40 * S, 47 * S)]).report().services[0].clone();
    assert_eq!(web.outages, 2);
    assert!(web.outage.unwrap().contains(Dur::from_secs(7)), "the worst counts");
    assert!(web.span.unwrap().contains(Dur::from_ns(37 * S - 50 * MS)));
    assert!(web.downtime.unwrap().contains(Dur::from_ns(11 * S - 50 * MS)));
    assert!(matches!(web.judgement, Judgement::Met { .. }));
}

#[test]
fn a_service_nobody_looks_at_is_not_measured() {
    let script = Script::killing().gate().applied("kill", 10 * S, VERIFIED);
    assert_eq!(script.verdict(), (VerdictWord::Inconclusive, 3));
    let why = "its probe never looked".to_owned();
    assert_eq!(script.report().services[0].judgement, Judgement::NotMeasured { why });
    // A run without faults shows nothing about recovery.
    let idle = Script::new(
        json!([{ "id": "w", "trigger": { "at": "0s" }, "action": { "wait": { "duration": "5s" } } }]),
        json!({ "rto": "10s" }),
    );
    let idle = idle.gate().looks(30 * S, &[]);
    assert!(matches!(&idle.report().services[0].judgement, Judgement::NotMeasured { why } if why.contains("no fault")));
}

#[test]
fn blobs_add_statistics_and_never_change_the_verdict() {
    let script = Script::killing().gate().applied("kill", 40 * S, VERIFIED);
    let script = script.looks(60 * S, &[(40 * S + 50 * MS, 44 * S)]);
    let with = build(&script.events, &script.blobs);
    assert_eq!(with.verdict, script.report().verdict);
    let (baseline, under) = (with.probes[0].baseline.clone().unwrap(), with.probes[0].under_fault.clone().unwrap());
    assert_eq!((baseline.n, baseline.failed), (400, 0));
    assert!(baseline.p50_ms.is_some_and(|p| (p - 2.0).abs() < 1e-9) && baseline.p99_ms.is_some());
    assert!(under.failed == 39 && under.n >= 40 && under.p99_ms.is_none(), "{under:?}");
}

#[test]
fn a_kept_verdict_is_shown_and_doubted_when_it_differs() {
    let mut script = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(60 * S, &[(11 * S, 30 * S)]);
    let reasons = vec!["looked fine".to_owned()];
    let body = Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons, at: stamp("c", 60 * S) };
    script.say(60 * S, body);
    let report = script.report();
    assert_eq!((report.verdict.exit_code, report.times.finished), (0, true));
    assert!(report.warnings.iter().any(|w| w.contains("kept verdict")), "{:?}", report.warnings);
}

#[test]
fn short_gaps_are_drawn_and_what_probes_share_is_said_once() {
    let kill = json!([{ "id": "kill", "trigger": { "at": "0s" },
        "action": { "fault": { "fault": "k", "params": {}, "target": "db", "duration": null } } }]);
    let script = Script::new(kill, json!({ "rto": "1s" })).gate();
    let mut script = script.applied("kill", 10 * S, VERIFIED).looks(30 * S, &[]);
    let between = Look { s: 12 * S + ahead("e1"), c: 12 * S + 200 * MS + ahead("e1") };
    for host in ["e1", "e2"] {
        let at = stamp(host, 12 * S + 200 * MS);
        let body = Body::Gap { probe: "up".into(), missed: 2, between, why: "late".into(), at };
        script.push(12 * S + 200 * MS, body, Some(host));
    }
    let report = script.report();
    let gap = report.probes[0].strip.iter().find(|s| s.state == Seen::Gap).unwrap();
    assert!((gap.from_ns - 2 * S).abs() < 2 * MS && gap.to_ns - gap.from_ns == 200 * MS, "{gap:?}");
    assert_eq!(report.probes.len(), 2);
    let coarse = report.warnings.iter().filter(|w| w.contains("coarse for an objective")).count();
    assert_eq!(coarse, 1, "{:?}", report.warnings);
}

#[test]
fn reports_survive_json_and_every_event_has_a_line() {
    let script = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(30 * S, &[(11 * S, 12 * S)]);
    let report = build(&script.events, &script.blobs);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert!(text.starts_with(r#"{"schema":"fracas.report/v1""#));
    assert_eq!(report.events.len(), script.events.len());
    assert_eq!(
        report.experiment.as_ref().map(|e| e.name.as_str()),
        Some("t"),
        "what was asked is kept with the answer"
    );
    let fired = report.events.iter().find(|e| e.text == "kill on db-1 fired").unwrap();
    assert!((fired.at_ns - 2 * MS).abs() <= 2 * MS, "placed on the controller's clock: {}", fired.at_ns);
}

#[test]
fn whatever_numbers_a_host_tells_there_is_a_report() {
    let mut script = Script::killing();
    let at = |ns: i64| stamp("e1", ns);
    for (ns, missed) in [(S, u64::MAX), (2 * S, u64::MAX)] {
        let from = ahead("e1") + ns;
        let between = Look { s: from, c: from + MS };
        script.say(ns, Body::Gap { probe: "up".into(), missed, between, why: "late".into(), at: at(ns) });
    }
    let packed = Readings { s: vec![i64::MAX, i64::MAX], took: vec![i64::MAX, 1], failed: vec![-1, 0], whys: vec![] };
    let looks: Vec<Look> = packed.unpack().iter().map(|reading| reading.look).collect();
    assert_eq!(looks, [Look { s: i64::MAX, c: i64::MAX }; 2]);
    let report = build(&script.events, &BTreeMap::new());
    assert_eq!(report.probes[0].missed, u64::MAX);
}

fn mark(mark: Mark, service: Option<&str>, least_ago: i64, most_ago: i64, at: i64) -> Body {
    let when = Between { from: stamp("c", at - most_ago), to: stamp("c", at - least_ago) };
    let service = service.map(Into::into);
    Body::Marked { mark, service, when, by: "p1".into(), did: None, note: String::new(), at: stamp("c", at) }
}

fn metric<'a>(report: &'a Report, id: &str) -> &'a Metric {
    report.timings[0].metrics.iter().find(|metric| metric.id == id).unwrap_or_else(|| panic!("no {id}"))
}

#[test]
fn times_between_instants_hold_the_truth_and_say_whose_clocks_they_rest_on() {
    let mut script =
        Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(10 * S + 30 * MS, 15 * S)]);
    script.say(12 * S, mark(Mark::Detected, Some("web"), 0, 0, 12 * S));
    script.say(13 * S, mark(Mark::Acknowledged, None, 0, 0, 13 * S));
    // Told late, and not exactly: between 14 and 16 s.
    script.say(30 * S, mark(Mark::Mitigated, None, 14 * S, 16 * S, 30 * S));
    let report = script.report();
    let timing = &report.timings[0];
    let ids: Vec<&str> = timing.instants.iter().map(|instant| instant.id.as_str()).collect();
    assert_eq!(ids, ["t0", "t1", "t2", "t3", "detected", "t7", "t9", "t11"]);
    let span = |at: usize| (timing.instants[at].lo_ns, timing.instants[at].hi_ns);
    assert_eq!((span(0), span(1), span(4)), ((Some(0), Some(0)), (Some(0), Some(0)), (Some(2 * S), Some(2 * S))));
    // The fault took effect from 10.001 to 10.002 s; the clocks of d1 and e1 are known within 2 ms each.
    let truth = [
        ("timeToInject", 2 * MS, 4),
        ("timeToImpact", 30 * MS - 2 * MS, 130),
        ("ttd", 2 * S - 2 * MS, 6),
        ("ttaFromDetection", S, 0),
        ("ttaFromFault", 3 * S - 2 * MS, 6),
        ("outage", 5 * S - 30 * MS, 2 * (100 + 22)),
        ("ttr", 5 * S - 2 * MS, 140),
    ];
    for (id, true_ns, widest_ms) in truth {
        let length = metric(&report, id).length.unwrap_or_else(|| panic!("{id} is not known"));
        assert!(length.contains(Dur::from_ns(true_ns)), "{id}: {length}");
        assert!(length.width().unwrap() <= Dur::from_ms(widest_ms), "{id}: {length}");
    }
    let mitigated = metric(&report, "ttm").length.unwrap();
    assert!(mitigated.contains(Dur::from_secs(4)) && mitigated.contains(Dur::from_secs(5)), "{mitigated}");
    let clocks = |id: &str| metric(&report, id).clocks.iter().map(HostId::as_str).collect::<Vec<_>>();
    assert_eq!((clocks("ttd"), clocks("outage"), clocks("ttr")), (vec!["d1", "c"], vec!["e1"], vec!["d1", "e1"]));
    assert_eq!(metric(&report, "ttd").definition, "detected - t2 (fault effective)");
    assert_eq!(metric(&report, "ttr").caveat, None, "nothing was lifted: it healed by itself");
    assert!(timing.metrics.iter().all(|metric| metric.id != "wrt"), "nobody told of it");
}

#[test]
fn of_several_marks_the_earliest_that_was_not_taken_back_counts() {
    let mut script = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(20 * S, &[]);
    script.say(11 * S, mark(Mark::Detected, None, 0, 0, 11 * S));
    let (service, by, note) = (None, String::from("p1"), String::from("another alarm"));
    script.say(12 * S, Body::MarkRetracted { mark: Mark::Detected, service, by, note, at: stamp("c", 12 * S) });
    let ttd = |script: &Script| metric(&script.report(), "ttd").length.map(|length| length.lo.ns() / S);
    assert_eq!(ttd(&script), None);
    assert_eq!(
        metric(&script.report(), "ttd").missing.as_deref(),
        Some("nobody told: fracas mark RUN detected"),
        "and that is said"
    );
    script.say(16 * S, mark(Mark::Detected, None, 0, 0, 16 * S));
    script.say(15 * S, mark(Mark::Declared, None, 0, 0, 15 * S));
    assert_eq!(ttd(&script), Some(4), "who declares an incident has detected it");
    // That of another service is none of this one's.
    script.say(14 * S, mark(Mark::Detected, Some("other"), 0, 0, 14 * S));
    assert_eq!(ttd(&script), Some(4));
    script.say(14 * S, mark(Mark::Detected, None, 5 * S, 5 * S, 14 * S));
    let before = script.report();
    assert_eq!(metric(&before, "ttd").missing.as_deref(), Some("detected came before fault effective"));
}

#[test]
fn a_recovery_that_the_tool_brought_about_says_so() {
    let script = Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED);
    let script = script.undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, &[(11 * S, 31 * S)]);
    let report = script.report();
    let caveat = metric(&report, "ttr").caveat.clone().unwrap();
    assert_eq!(caveat, "the fault was lifted first (its duration ended): not the work of responders alone");
    assert!(metric(&report, "residual").length.unwrap().contains(Dur::from_secs(1)));
    let healed = Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED);
    let healed = healed.undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, &[(11 * S, 21 * S)]).report();
    assert_eq!(metric(&healed, "ttr").caveat, None);
}

#[test]
fn without_clock_maps_a_time_across_clocks_is_not_given() {
    let mut script = Script::killing();
    script.maps = false;
    let report = script.gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(11 * S, 15 * S)]).report();
    assert_eq!(metric(&report, "ttr").missing.as_deref(), Some("no clock map links the two clocks"));
    assert!(metric(&report, "outage").length.is_some(), "one clock is enough");
}

impl Script {
    /// The end, with the verdict that the history gives.
    fn over(mut self, at: i64) -> Self {
        let Verdict { word: verdict, exit_code, reasons } = self.report().verdict;
        self.say(at, Body::Finished { verdict, exit_code, reasons, at: stamp("c", at) });
        self
    }

    /// How long recovery took, as trends count it.
    fn length(self) -> Option<Interval> {
        let report = self.over(90 * S).report();
        let points = crate::trend::points(&report);
        assert_eq!((points.len(), points[0].service.as_str(), points[0].seed), (1, "web", 7));
        assert_eq!((&points[0].verdict, &points[0].judgement), (&report.verdict.word, &report.services[0].judgement));
        points[0].length
    }
}

#[test]
fn a_trend_counts_what_the_objective_counts() {
    let killed = |down: &[(i64, i64)]| Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(60 * S, down);
    let back = killed(&[(10 * S + 30 * MS, 15 * S)]);
    assert_eq!(crate::trend::points(&back.report()), [], "a run that goes on is no point");
    let outage = back.report().services[0].outage;
    assert_eq!(back.length(), outage);
    let never = killed(&[(11 * S, 60 * S)]).length().unwrap();
    assert!(never.hi.is_none() && never.lo > Dur::from_secs(47), "{never}");
    let calm = killed(&[]).length().unwrap();
    assert_eq!((calm.lo, calm.hi), (Dur::ZERO, Some(Dur::from_ms(200))), "a dip of that length may be missed");

    // Counted from the fault, without clocks that could tell: longer than the outage, nobody knows how much.
    let mut blind = Script::killing();
    blind.maps = false;
    let Body::Planned { document, .. } = &mut blind.events[0].body else { panic!("the first event") };
    document["services"]["web"]["rtoFrom"] = "fault".into();
    let blind = blind.gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(11 * S, 15 * S)]);
    let outage = blind.report().services[0].outage.unwrap();
    assert_eq!(blind.length(), Some(Interval::at_least(outage.lo)));
}

/// The length that trends count of the only service of a report.
fn counted(report: &Report) -> Option<Interval> {
    let points = crate::trend::points(report);
    assert_eq!(points.len(), 1);
    points[0].length
}

#[test]
fn a_trend_counts_in_a_game_day_what_befell_the_services_own_section() {
    let day = |mut report: Report, entries: &[&str]| {
        let section = |id: &str| json!({ "id": id, "name": id, "file": "f.yaml", "limits": {} });
        let sections = serde_json::from_value(json!([section("a"), section("b")])).unwrap();
        report.experiment.as_mut().unwrap().sections = sections;
        report.services[0].service = "a.web".into();
        for probe in &mut report.probes {
            probe.service = Some("a.web".into());
        }
        let entry = report.entries.remove(0);
        report.entries.extend(entries.iter().map(|id| EntryReport { entry: (*id).into(), ..entry.clone() }));
        report
    };
    let slowed = || Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED);
    let stopped = slowed().aborted(18 * S, AbortKind::StopCondition).undone("slow", 18 * S, UndoCause::NotDesired);
    let stopped = stopped.looks(60 * S, &[(11 * S, 19 * S)]).over(90 * S).report();
    assert_eq!(counted(&day(stopped.clone(), &["b.slow"])), None, "no fault of its own took effect");
    let mut both = day(stopped.clone(), &["a.slow", "b.slow"]);
    both.entries[0].items[0].cause = Some(UndoCause::Expired);
    assert_eq!(counted(&both), stopped.services[0].outage, "what was lifted early was another section's");
    both.entries[0].items[0].cause = Some(UndoCause::NotDesired);
    assert_eq!(counted(&both).unwrap().hi, None);
}

#[test]
fn a_trend_calls_calm_only_what_was_seen_throughout() {
    let slow = json!([{ "id": "slow", "trigger": { "at": "0s" },
        "action": { "fault": { "fault": "s", "params": {}, "target": "db", "duration": "60s" } } }]);
    let seen = |until| {
        let script = Script::new(slow.clone(), json!({})).gate().applied("slow", 10 * S, VERIFIED);
        script.undone("slow", 70 * S, UndoCause::Expired).looks(until, &[]).over(90 * S).report()
    };
    let mut throughout = seen(80 * S);
    assert_eq!(counted(&throughout), Some(Interval::new(Dur::ZERO, Dur::from_ms(200))));
    assert_eq!(counted(&seen(12 * S)), Some(Interval::at_least(Dur::ZERO)), "the vantage was gone for 58 s");
    for segment in &mut throughout.probes[0].strip {
        segment.from_ns = segment.from_ns.max(5 * S);
    }
    assert_eq!(counted(&throughout), Some(Interval::at_least(Dur::ZERO)), "it came 5 s late");
}

#[test]
fn a_trend_gives_no_upper_bound_for_a_vantage_whose_clock_is_not_linked() {
    let down = [(10 * S + 30 * MS, 15 * S)];
    let script = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(60 * S, &down);
    let mut report = script.over(90 * S).report();
    report.services[0].rto_from = RtoFrom::Fault;
    let told = report.services[0].recovery_from_fault;
    assert!(told.is_some_and(|told| told.hi.is_some()) && counted(&report) == told, "{told:?}");

    let mut other = report.probes[0].clone();
    let longer = Interval::new(Dur::from_secs(20), Dur::from_ms(20_100));
    (other.episodes[0].outage, other.episodes[0].recovery_from_fault) = (longer, None);
    report.probes.push(other);
    report.services[0].outage = Some(longer);
    assert_eq!(counted(&report), Some(Interval::at_least(Dur::from_secs(20))));
}

#[test]
fn a_trend_never_takes_a_lifted_fault_for_a_recovery() {
    let slowed = || Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED);
    // Lifted after its full asked time: that is what the experiment is, and as long as it took.
    let held = slowed().undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, &[(25 * S, 31 * S)]);
    let outage = held.report().services[0].outage;
    assert_eq!(held.length(), outage);
    // Lifted early, and back a second later: without that it was out for the seven seconds until then, at least.
    let stopped = slowed().aborted(18 * S, AbortKind::StopCondition).undone("slow", 18 * S, UndoCause::NotDesired);
    let length = stopped.looks(60 * S, &[(11 * S, 19 * S)]).length().unwrap();
    assert_eq!(length.hi, None);
    assert!(length.lo > Dur::from_ms(6_500) && length.lo <= Dur::from_secs(7), "{length}");
    // Back before it was lifted: nothing helped it.
    let stopped = slowed().aborted(28 * S, AbortKind::Stop).undone("slow", 28 * S, UndoCause::NotDesired);
    let length = stopped.looks(60 * S, &[(11 * S, 16 * S)]).length().unwrap();
    assert!(length.contains(Dur::from_secs(5)) && length.hi.is_some(), "{length}");
    // Without effect there was nothing to recover from.
    let why = "not there".to_owned();
    let ineffective = Script::slowing(false).gate().applied("slow", 10 * S, Some(Proof::Ineffective { why }));
    assert_eq!(ineffective.undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, &[]).length(), None);
}

#[test]
fn a_service_that_answers_late_is_degraded_and_not_down() {
    let mut script = Script::killing();
    let Body::Planned { document, .. } = &mut script.events[0].body else { panic!("the first event") };
    document["services"]["web"]["slowAbove"] = "50ms".into();
    let mut script = script.gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[]);
    assert_eq!(script.report().services[0].degraded, None, "without raw readings nobody knows");
    // Slow from 12 to 15 s of true time.
    for packed in script.blobs.values_mut() {
        let mut readings = packed.unpack();
        for reading in &mut readings {
            if (12 * S..15 * S).contains(&(reading.look.s - ahead("e1"))) {
                reading.look.c = reading.look.s + 60 * MS;
            }
        }
        *packed = Readings::pack(&readings);
    }
    let report = build(&script.events, &script.blobs);
    let web = &report.services[0];
    let slow = web.degraded.unwrap();
    assert_eq!((web.outage, slow.spans, slow.slow), (None, 1, 30));
    assert!(slow.in_all.contains(Dur::from_secs(3)) && slow.longest == Some(slow.in_all), "{slow:?}");
    assert!(slow.in_all.width().unwrap() <= Dur::from_ms(2 * (100 + 60)), "{slow:?}");
}

#[test]
fn of_a_service_that_is_down_in_part_the_share_of_failing_looks_is_told() {
    let down: Vec<(i64, i64)> = (0..10).map(|i| (12 * S + i * 400 * MS, 12 * S + i * 400 * MS + 100 * MS)).collect();
    let mut script = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &down);
    assert_eq!(script.report().services[0].failing, None, "without raw readings nobody knows");
    let share = build(&script.events, &script.blobs).services[0].failing.unwrap();
    // Every 100 ms, for 3.7 s: one look of four met it down.
    assert_eq!(share.failed, 10);
    assert!((36..=38).contains(&share.looks), "{share:?}");
    // What is kept in part says nothing.
    let first = script.blobs.keys().next().cloned().unwrap();
    script.blobs.remove(&first);
    assert_eq!(build(&script.events, &script.blobs).services[0].failing, None);
    let solid = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[(12 * S, 15 * S)]);
    let share = build(&solid.events, &solid.blobs).services[0].failing.unwrap();
    assert_eq!(share.failed, share.looks);
    let calm = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[]);
    assert_eq!(build(&calm.events, &calm.blobs).services[0].failing, None);
}

#[test]
fn a_change_that_is_told_again_is_one_line_and_a_matter_of_course() {
    let mut script = Script::killing().gate().applied("kill", 10 * S, VERIFIED);
    let (before, after) = (Look { s: 1, c: 2 }, Look { s: 3, c: 4 });
    for (ok, before) in [(true, None), (false, Some(before)), (false, Some(Look { s: 2, c: 5 })), (true, Some(after))] {
        let at = stamp("e1", 11 * S);
        let after = if ok { before.map_or(Look { s: 0, c: 1 }, |_| Look { s: 6, c: 7 }) } else { after };
        let body = Body::Edge { probe: "up".into(), ok, before, after, why: "status 503".into(), at };
        script.push(11 * S, body, Some("e1"));
    }
    let report = script.report();
    let told = report.events.iter().filter(|line| line.kind == "edge");
    let told: Vec<(&str, bool)> = told.map(|line| (line.text.as_str(), line.routine)).collect();
    let again = "up: when it came to be failing is known more closely";
    assert_eq!(told, [("up ok", false), ("up failing: status 503", false), (again, true), ("up ok", false)]);
}

#[test]
fn what_was_slow_beside_being_down_counts_and_what_was_down_does_not() {
    let mut script = Script::killing();
    let Body::Planned { document, .. } = &mut script.events[0].body else { panic!("the first event") };
    document["services"]["web"]["slowAbove"] = "50ms".into();
    let mut script = script.gate().applied("kill", 10 * S, VERIFIED).looks(100 * S, &[(12 * S, 70 * S)]);
    // Slow for a second before it went down, and for a second after it came back.
    for packed in script.blobs.values_mut() {
        let mut readings = packed.unpack();
        for reading in &mut readings {
            let at = reading.look.s - ahead("e1");
            if reading.ok && ((11 * S..12 * S).contains(&at) || (70 * S..71 * S).contains(&at)) {
                reading.look.c = reading.look.s + 60 * MS;
            }
        }
        *packed = Readings::pack(&readings);
    }
    let slow = build(&script.events, &script.blobs).services[0].degraded.unwrap();
    assert_eq!((slow.spans, slow.slow), (2, 20));
    assert!(slow.in_all.contains(Dur::from_secs(2)), "{slow:?}");
    assert!(slow.in_all.width().unwrap() <= Dur::from_ms(4 * (100 + 60)), "{slow:?}");
}

#[test]
fn a_service_that_did_not_come_back_has_a_shortest_time() {
    let report = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(60 * S, &[(11 * S, 60 * S)]).report();
    let ttr = metric(&report, "ttr");
    let length = ttr.length.unwrap();
    assert!(length.hi.is_none() && length.lo > Dur::from_secs(48), "{length}");
    assert_eq!(ttr.caveat, None);
    assert!(metric(&report, "outage").length.unwrap().hi.is_none());
}

#[test]
fn whose_work_a_mitigation_was_depends_on_which_came_first() {
    let mitigated = |at: i64, give: i64| {
        let script = Script::slowing(true).gate().applied("slow", 10 * S, VERIFIED);
        let mut script = script.undone("slow", 30 * S, UndoCause::Expired).looks(60 * S, &[(11 * S, 31 * S)]);
        script.say(50 * S, mark(Mark::Mitigated, None, 50 * S - at - give, 50 * S - at + give, 50 * S));
        metric(&script.report(), "ttm").caveat.clone()
    };
    assert_eq!(mitigated(14 * S, 0), None, "before the tool lifted the fault");
    assert!(mitigated(33 * S, 0).unwrap().contains("lifted first"));
    assert!(mitigated(30 * S, 2 * S).unwrap().contains("cannot be told"));
}

#[test]
fn what_the_tool_lifted_is_told_whichever_fault_opened_the_outage() {
    let both = json!([
        { "id": "slow", "trigger": { "at": "0s" },
            "action": { "fault": { "fault": "s", "params": {}, "target": "db", "duration": "20s" } } },
        { "id": "kill", "trigger": { "at": "5s" },
            "action": { "fault": { "fault": "k", "params": {}, "target": "db", "duration": null } } }
    ]);
    let script = Script::new(both, json!({ "rto": "10s" })).gate().applied("slow", 10 * S, VERIFIED);
    let script = script.applied("kill", 15 * S, VERIFIED).undone("slow", 30 * S, UndoCause::Expired);
    let report = script.looks(60 * S, &[(16 * S, 31 * S)]).report();
    assert!(metric(&report, "ttr").caveat.as_deref().is_some_and(|why| why.contains("lifted first")));
}

#[test]
fn marks_of_two_boots_of_the_controller_are_placed_by_wall_time() {
    let mut script = Script::killing().gate().applied("kill", 10 * S, VERIFIED).looks(40 * S, &[]);
    script.say(12 * S, mark(Mark::Alerted, None, 0, 0, 12 * S));
    let mut later = mark(Mark::Declared, None, 0, 0, 20 * S);
    let Body::Marked { when, at, .. } = &mut later else { panic!("a mark") };
    for stamp in [&mut when.from, &mut when.to, at] {
        stamp.clock.boot = "after".into();
        stamp.boot_ns = 3 * S;
    }
    script.say(20 * S, later);
    let report = script.report();
    assert!(metric(&report, "ttd").length.unwrap().contains(Dur::from_ns(2 * S - 2 * MS)));
    let declared = report.timings[0].instants.iter().find(|instant| instant.id == "t8").unwrap();
    assert_eq!((declared.lo_ns, declared.hi_ns), (Some(10 * S), Some(10 * S)));
}
