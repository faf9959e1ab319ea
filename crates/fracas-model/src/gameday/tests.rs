//! Game days from their texts to their verdicts: what is compiled, what is refused, and whole days on scripted histories.

use std::collections::BTreeMap;

use super::*;
use crate::{
    diagnostic::{Diagnostic, Severity},
    document::{self, ReadExperiment, read_experiment, tests::catalogue},
    event::{AbortKind, Between, Body, Event, Look, Origin, Proof, VerdictWord},
    experiment::{Action, AfterWhat, Experiment, Trigger},
    id::{HostId, ItemKey, TargetId},
    plan::{Check, Plan},
    report::{Report, build},
    run::Run,
    time::{ClockId, ClockMap, Stamp},
    units::Dur,
};

const KILL: &str = r#"apiVersion: fracas/v1
kind: Experiment
name: survives-kill
parameters: { who: { type: string, default: db } }
services: { web: { rto: 30s } }
targets: { db: { select: role=db }, edge: { select: role=edge } }
probes: { up: { service: web, http: { url: "http://x/" }, from: edge, every: 100ms } }
steadyState: { probes: [up], holdFor: 2s, giveUpAfter: 60s }
timeline:
  - { id: kill, at: 1s, target: db, fault: { process-kill: { name: "${who}" } } }
recovery: { stableFor: 2s, giveUpAfter: 50s }
abortWhen: [{ probe: up, failingFor: 20s }]
limits: { maxTargets: 1 }
lease: 10s
"#;

const DAY: &str = r"apiVersion: fracas/v1
kind: GameDay
name: autumn
purpose: Find out.
owner: Database team
participants: [Operations]
sections:
  - id: first
    experiment: kill.yaml
    onFailure: continue
  - id: second
    experiment: kill.yaml
    parameters: { who: web }
    waitBefore: 10s
    approval: { question: Is everybody ready?, otherwise: skip }
";

fn files() -> BTreeMap<String, String> {
    [("kill.yaml".to_owned(), KILL.to_owned())].into()
}

fn read(day: &str) -> Result<ReadExperiment, Vec<String>> {
    let say = |d: &Diagnostic| format!("{}:{}:{} {}", d.file, d.line, d.column, d.message);
    document::read("days/day.yaml", day, &files(), &BTreeMap::new(), &catalogue())
        .map_err(|all| all.iter().filter(|d| d.severity == Severity::Error).map(say).collect())
}

fn line(experiment: &Experiment, at: usize) -> String {
    let entry = &experiment.timeline[at];
    let when = match &entry.trigger {
        Trigger::At(offset) => format!("at {offset}"),
        Trigger::After { what: AfterWhat::Ended(id), delay } => format!("{delay} after {id}"),
        Trigger::After { what: AfterWhat::Over(ids), delay } => {
            let ids: Vec<&str> = ids.iter().map(crate::id::EntryId::as_str).collect();
            format!("{delay} after all of {}", ids.join(" "))
        }
        other @ Trigger::After { .. } => format!("{other:?}"),
    };
    let what = match &entry.action {
        Action::Fault { params, target, .. } => format!("{} on {target}", params.0["name"]),
        Action::Wait { duration } => format!("wait {duration}"),
        Action::Check { probes, hold_for, on_failure, .. } => format!("{} {hold_for} {on_failure:?}", probes[0]),
        Action::Approval { question, deadline, otherwise } => format!("{question} {deadline} {otherwise:?}"),
        Action::Recovery { services } => format!("{}", services[0]),
    };
    format!("{}: {when}: {what}", entry.id)
}

#[test]
fn sections_follow_each_other_under_names_of_their_own() {
    let read = read(DAY).unwrap();
    assert_eq!(read.warnings, []);
    let day = &read.experiment;
    let lines: Vec<String> = (0..day.timeline.len()).map(|at| line(day, at)).collect();
    assert_eq!(
        lines,
        [
            "first:steady-state: at 0s: first.up 2s Continue",
            "first.kill: 1s after first:steady-state: \"db\" on first.db",
            "first:recovery: 0s after all of first:steady-state first.kill: first.web",
            "second:wait: 0s after all of first:recovery: wait 10s",
            "second:approval: 0s after second:wait: Is everybody ready? 30m Skip",
            "second:steady-state: 0s after second:approval: second.up 2s Stop",
            "second.kill: 1s after second:steady-state: \"web\" on second.db",
            "second:recovery: 0s after all of second:wait second:approval second:steady-state second.kill: second.web",
        ]
    );
    assert_eq!((day.recovery.give_up_after, day.lease), (Dur::from_secs(50), Dur::from_secs(10)));
    assert_eq!(day.probes[&"second.up".into()].from, Some("second.edge".into()));
    assert_eq!(day.abort_when[1].probe().map(|(probe, _)| probe), Some(&"second.up".into()));
    assert_eq!(day.day.as_ref().unwrap().participants, ["Operations"]);
    assert_eq!(day.sections[1].limits.max_targets, Some(1));
    assert_eq!(serde_json::from_value::<Experiment>(read.canonical.clone()).unwrap(), *day);
    let again = document::read("d", &read.document.to_string(), &files(), &BTreeMap::new(), &catalogue()).unwrap();
    assert_eq!(again.canonical, read.canonical, "its own form is final");
}

#[test]
fn a_single_experiment_is_kept_as_before() {
    let single = read_experiment("kill.yaml", KILL, &BTreeMap::new(), &catalogue()).unwrap();
    let keys: Vec<&String> = single.canonical.as_object().unwrap().keys().collect();
    assert!(!keys.iter().any(|key| *key == "sections" || *key == "day"), "its digest must not change: {keys:?}");
    assert!(!is_game_day(KILL) && super::files(KILL).is_empty());
    assert_eq!(super::files(DAY), ["kill.yaml"]);
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once() {
    let bad = KILL.replace("probes: [up]", "probes: [upp]");
    let files: BTreeMap<String, String> = [("kill.yaml".to_owned(), bad)].into();
    let day = DAY.replace("id: second\n    experiment: kill.yaml", "id: first\n    experiment: slow.yaml")
        + "abortWhen: [{ probe: site, failingFor: 1m }]\nowners: me\n";
    let told = document::read("days/day.yaml", &day, &files, &BTreeMap::new(), &catalogue()).unwrap_err();
    let told: Vec<String> = told.iter().map(|d| format!("{}:{} {}", d.file, d.line, d.message)).collect();
    assert_eq!(
        told,
        [
            "days/day.yaml:11 a second section is called `first`",
            "days/day.yaml:12 there is no file `slow.yaml`",
            "days/day.yaml:16 there is no probe `site`",
            "days/day.yaml:17 unknown key `owners`",
            "days/kill.yaml:8 there is no probe `upp`",
        ]
    );
    let unknown = read(&DAY.replace("who: web", "what: web")).unwrap_err();
    assert!(unknown[0].starts_with("days/kill.yaml:4") && unknown[0].contains("`what`, which is not"), "{unknown:?}");
    let nested = files.into_keys().map(|name| (name, DAY.to_owned())).collect();
    let told = document::read("d", DAY, &nested, &BTreeMap::new(), &catalogue()).unwrap_err();
    assert_eq!(told[0].message, "this is a game day, not an experiment");
    assert!(read("kind: GameDay\nsections: 7\n").is_err() && read("kind: GameDay").is_err());
}

#[test]
fn the_starter_is_valid_beside_the_starter_of_an_experiment() {
    let files = [("kill-db.yaml".to_owned(), document::starter().to_owned())].into();
    let read = document::read("day.yaml", starter(), &files, &BTreeMap::new(), &catalogue()).unwrap();
    assert_eq!((read.warnings.len(), read.experiment.sections.len()), (0, 2), "{:?}", read.warnings);
}

#[test]
fn what_is_read_meets_the_published_schema_and_mistakes_do_not() {
    let schema = crate::schema::game_day_json_schema(&catalogue());
    let validator = jsonschema::draft202012::options().build(&schema).unwrap();
    let document = read(DAY).unwrap().document;
    assert!(validator.is_valid(&document), "{document}");
    for (pointer, value) in [
        ("/sections/0/onFailure", "perhaps"),
        ("/sections/1/approval/deadline", "soon"),
        ("/sections/0/surprise", "x"),
        ("/kind", "Experiment"),
    ] {
        let mut changed = document.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(key.to_owned(), value.into());
        assert!(!validator.is_valid(&changed), "{pointer}");
    }
}

#[test]
fn each_section_keeps_its_own_limits_beside_those_of_the_day() {
    use crate::target::{HostView, draw};
    let host = |n: u32| HostView {
        id: format!("h{n}").as_str().into(),
        name: format!("host-{n}"),
        labels: [("role".to_owned(), if n < 3 { "db" } else { "edge" }.to_owned())].into(),
        environment: "default".into(),
        connected: true,
        quarantined: None,
        cordoned: None,
        taken: None,
        observer: false,
    };
    let hosts: Vec<HostView> = (0..4).map(host).collect();
    let told = |day: &Experiment| draw(day, &hosts, 7).map_or_else(|all| all[0].to_string(), |_| "drawn".into());
    let day = read(DAY).unwrap().experiment;
    assert!(told(&day).starts_with("section first: 3 hosts would be under fault"), "{}", told(&day));
    let kill = KILL.replace("{ select: role=db }", "{ select: role=db, pick: { count: 1 } }");
    let files = [("kill.yaml".to_owned(), kill)].into();
    let of = |day: &str| document::read("d", day, &files, &BTreeMap::new(), &catalogue()).unwrap().experiment;
    assert_eq!(told(&of(DAY)), "drawn");
    let drawn = |seed| draw(&of(DAY), &hosts, seed).unwrap().targets;
    let two = |seed: &u64| drawn(*seed)[&"first.db".into()] != drawn(*seed)[&"second.db".into()];
    let seed = (1..50).find(two).expect("sections are drawn one by one");
    let one = of(&format!("{DAY}limits: {{ maxTargets: 1 }}\n"));
    let refused = draw(&one, &hosts, seed).unwrap_err()[0].to_string();
    assert!(refused.starts_with("2 hosts would be under fault"), "the day counts all hosts: {refused}");
}

// === whole days ===

struct Script {
    events: Vec<Event>,
    now: i64,
}

fn stamp(host: &str, boot_ns: i64) -> Stamp {
    Stamp { clock: ClockId { host: host.into(), boot: "b".into() }, boot_ns, wall_ns: boot_ns, bound_ns: 0 }
}

impl Script {
    /// A day whose faults are for `d1` and whose probes look from `e1`, accepted from ann.
    fn of(day: &str) -> Self {
        Self::with(day, KILL)
    }

    /// The same with another experiment in its sections.
    fn with(day: &str, kill: &str) -> Self {
        let files: BTreeMap<String, String> = [("kill.yaml".to_owned(), kill.to_owned())].into();
        let read = document::read("days/day.yaml", day, &files, &BTreeMap::new(), &catalogue()).unwrap();
        Self::planned(read, "day.yaml", day, &files)
    }

    fn planned(read: ReadExperiment, name: &str, source: &str, files: &BTreeMap<String, String>) -> Self {
        let hosts = |target: &TargetId| {
            let host = if target.as_str().ends_with("db") { "d1" } else { "e1" };
            (target.clone(), vec![HostId::from(host)])
        };
        let mut script = Self { events: Vec::new(), now: 0 };
        script.say(Body::Planned {
            run: "r".into(),
            document: read.canonical,
            source: source.to_owned(),
            source_name: name.to_owned(),
            files: files.clone(),
            intent: String::new(),
            plan: String::new(),
            seed: 1,
            targets: read.experiment.targets.keys().map(hosts).collect(),
            hosts: [("d1".into(), "db-1".to_owned()), ("e1".into(), "edge-1".to_owned())].into(),
            canaries: BTreeMap::new(),
            rehearsed: vec![],
            by: "ann".into(),
            environment: "default".into(),
            at: stamp("c", 0),
        });
        for host in ["d1", "e1"] {
            let map =
                ClockMap { from: stamp(host, 0).clock, to: stamp("c", 0).clock, at_ns: 0, lo_ns: -1000, hi_ns: 1000 };
            script.host(host, Body::ClockSeen { map });
        }
        script.settle();
        script
    }

    fn push(&mut self, body: Body, host: Option<&str>) {
        let seq = self.events.len() as u64 + 1;
        let origin = host.map(|host| Origin { host: host.into(), outbox: "o".into(), seq });
        self.events.push(Event { stream: "run/r".into(), seq, received: stamp("c", self.now), origin, body });
    }

    fn say(&mut self, body: Body) {
        self.push(body, None);
    }

    fn host(&mut self, host: &str, body: Body) {
        self.push(body, Some(host));
    }

    fn run(&self) -> Run {
        Run::fold(&self.events).unwrap()
    }

    /// Decides until nothing more is to be appended. The run is folded anew each time, as after a crash.
    fn settle(&mut self) -> bool {
        for _ in 0..50 {
            let decision = self.run().decide(&stamp("c", self.now));
            if decision.append.is_empty() {
                return decision.finish;
            }
            decision.append.into_iter().for_each(|body| self.say(body));
        }
        panic!("it never settles: {:?}", self.events);
    }

    fn edge(&mut self, section: &str, ok: bool) {
        self.edge_of(&format!("{section}.up"), ok);
    }

    fn edge_of(&mut self, probe: &str, ok: bool) {
        let (look, at) = (Look { s: self.now, c: self.now }, stamp("e1", self.now));
        let probe = probe.into();
        self.host("e1", Body::Edge { probe, ok, before: None, after: look, why: String::new(), at });
        self.settle();
    }

    /// Time passes, and the probe of a section goes on looking.
    fn watched(&mut self, section: &str, seconds: i64) -> bool {
        self.watched_by(&format!("{section}.up"), seconds)
    }

    fn watched_by(&mut self, probe: &str, seconds: i64) -> bool {
        let mut over = false;
        for _ in 0..seconds {
            self.now += 1_000_000_000;
            let between = Look { s: self.now - 1_000_000_000, c: self.now };
            let (probe, at) = (probe.into(), stamp("e1", self.now));
            let (digest, ok, failed) = (String::new(), 10, 0);
            self.host("e1", Body::ReadingsSealed { probe, digest, between, ok, failed, at });
            over = self.settle();
        }
        over
    }

    fn seconds(&mut self, seconds: i64) -> bool {
        self.now += seconds * 1_000_000_000;
        self.settle()
    }

    /// The one-shot of a section is fired and verified.
    fn killed(&mut self, section: &str) {
        self.fired(section, "kill");
    }

    fn fired(&mut self, section: &str, entry: &str) {
        let entry = format!("{section}.{entry}").as_str().into();
        let item = ItemKey { run: "r".into(), entry, occurrence: 0, host: "d1".into(), generation: 1 };
        let plan =
            Plan { steps: vec![], claims: vec![], check: Check::Gone { processes: vec![] }, summary: String::new() };
        let at = stamp("d1", self.now);
        let effective = Between { from: at.clone(), to: at.clone() };
        self.host("d1", Body::Applying { item: item.clone(), plan, at: at.clone() });
        self.host("d1", Body::Checked { item: item.clone(), proof: Proof::Verified, measured: vec![], at });
        self.host("d1", Body::Spent { item, certain: true, effective });
        self.settle();
    }

    /// A section from its first look to its end, without any trouble.
    fn through(&mut self, section: &str) -> bool {
        self.edge(section, true);
        self.watched(section, 4);
        assert_eq!(self.faults(), [format!("{section}.kill")]);
        self.killed(section);
        self.watched(section, 4)
    }

    fn faults(&self) -> Vec<String> {
        self.run().desired_faults(&"d1".into()).iter().map(|fault| fault.key.entry.to_string()).collect()
    }

    fn probes(&self) -> Vec<String> {
        self.run()
            .desired_probes(&"e1".into(), &BTreeMap::default())
            .iter()
            .map(|probe| probe.probe.to_string())
            .collect()
    }

    fn answer(&mut self, go: bool, by: &str) {
        let (entry, note, at) = ("second:approval".into(), "the replica lags".into(), stamp("c", self.now));
        self.say(Body::Decided { entry, go, by: by.into(), note, at });
        self.settle();
    }

    /// The report of a run that wants to end.
    fn report(&self) -> Report {
        assert!(self.run().decide(&stamp("c", self.now)).finish, "{:?}", self.run().phase);
        build(&self.events, &BTreeMap::new())
    }
}

fn words(report: &Report) -> (VerdictWord, Vec<VerdictWord>) {
    (report.verdict.word.clone(), report.sections.iter().map(|section| section.verdict.word.clone()).collect())
}

#[test]
fn a_day_goes_through_its_sections_and_each_looks_in_its_own_time_only() {
    let mut script = Script::of(DAY);
    assert_eq!(script.probes(), ["first.up"]);
    script.through("first");
    assert_eq!(script.probes(), ["second.up"], "the wait is part of the section");
    script.edge("second", true);
    script.watched("second", 10);
    assert!(script.run().entries[&"second:approval".into()].started.is_some());
    // An outage that a section no longer looks at is not judged, and ends nothing.
    script.edge("first", false);
    script.watched("second", 30);
    assert!(script.run().aborted.is_none() && script.faults().is_empty());
    let run = script.run();
    let (asks, now) = (run.question("second").unwrap(), stamp("c", script.now));
    assert_eq!(Some(asks), run.question("second:approval"));
    assert!(run.may_decide(asks, "ann", &now).unwrap_err().contains("somebody else must"));
    assert!(run.may_decide(asks, "bert", &now).is_ok() && run.question("first").is_none());
    script.answer(true, "ann");
    assert!(script.run().entries[&"second:approval".into()].over.is_none(), "whoever started it does not decide");
    script.answer(true, "bert");
    script.watched("second", 4);
    assert_eq!(script.faults(), ["second.kill"]);
    script.killed("second");
    assert!(script.watched("second", 4));
    let report = script.report();
    assert_eq!(words(&report), (VerdictWord::Pass, vec![VerdictWord::Pass; 2]), "{:?}", report.verdict);
    let (first, second) = (&report.sections[0], &report.sections[1]);
    assert!(first.ended_ns.unwrap() <= second.started_ns.unwrap() && second.ended_ns.is_some());
    assert!(second.verdict.reasons[0].starts_with("second.web met its objective"), "{:?}", second.verdict.reasons);
    let asked = report.entries.iter().find(|entry| entry.action == "approval").unwrap();
    assert_eq!(asked.answer.as_deref(), Some("go by bert: the replica lags"));
}

#[test]
fn a_no_go_skips_the_section_or_ends_the_day() {
    let mut script = Script::of(DAY);
    script.through("first");
    script.watched("second", 10);
    script.answer(false, "bert");
    assert!(script.settle() && script.faults().is_empty());
    let report = script.report();
    assert_eq!(words(&report), (VerdictWord::Aborted, vec![VerdictWord::Pass, VerdictWord::Aborted]));
    assert_eq!(report.sections[1].verdict.reasons, ["second:approval: no-go by bert: the replica lags"]);
    assert_eq!(report.verdict.reasons, report.sections[1].verdict.reasons, "nothing else is in doubt");

    let mut script = Script::of(&DAY.replace("otherwise: skip", "otherwise: stop"));
    script.through("first");
    script.watched("second", 10);
    script.answer(false, "bert");
    assert_eq!(script.run().aborted.as_ref().map(|aborted| aborted.0), Some(AbortKind::NoGo));
    let report = script.report();
    assert_eq!(words(&report), (VerdictWord::Aborted, vec![VerdictWord::Pass, VerdictWord::Aborted]));
    assert_eq!(report.verdict.reasons, ["go/no-go: second:approval: no-go by bert: the replica lags"]);
}

#[test]
fn a_no_go_also_holds_back_what_waits_for_a_recovery() {
    let slow =
        "  - { id: slow, after: { recovered: web }, target: db, fault: { process-kill: { name: db } } }\nrecovery";
    let kill = KILL.replace("recovery: {", &format!("{slow}: {{"));
    // Both when it is said: soon after the services were seen well, and long after.
    for thinks in [5, 100] {
        let mut script = Script::with(DAY, &kill);
        script.edge("first", true);
        script.watched("first", 4);
        script.killed("first");
        script.watched("first", 4);
        script.fired("first", "slow");
        script.watched("first", 4);
        script.edge("second", true);
        script.watched("second", 10 + thinks);
        script.answer(false, "bert");
        let over = script.watched("second", 4);
        assert_eq!((over, script.faults()), (true, vec![]), "{thinks}");
        let run = script.run();
        assert!(run.entries[&"second.slow".into()].started.is_none() && run.aborted.is_none(), "{:?}", run.aborted);
        let why = run.entries[&"second.slow".into()].skipped.clone().unwrap();
        assert!(why.contains("no-go by bert"), "{why}");
        assert_eq!(words(&script.report()).1, [VerdictWord::Pass, VerdictWord::Aborted]);
    }
}

#[test]
fn what_waits_for_a_recovery_after_a_failed_look_does_not_wait_for_ever() {
    let timeline = "  - { id: look, at: 0s, check: { probes: [up], holdFor: 5s, giveUpAfter: 6s, onFailure: continue } }\n  \
                    - { id: kill, after: { recovered: web }";
    let text = KILL.replace("  - { id: kill, at: 1s", timeline);
    let read = read_experiment("kill.yaml", &text, &BTreeMap::new(), &catalogue()).unwrap();
    let mut script = Script::planned(read, "kill.yaml", &text, &BTreeMap::new());
    let edge = |script: &mut Script, ok: bool| script.edge_of("up", ok);
    edge(&mut script, true);
    script.watched_by("up", 3);
    // It flaps, so that five seconds never come together.
    for _ in 0..3 {
        edge(&mut script, false);
        script.watched_by("up", 1);
        edge(&mut script, true);
        script.watched_by("up", 3);
    }
    let run = script.run();
    assert!(run.entries[&"look".into()].failed.is_some(), "{:?}", run.entries[&"look".into()]);
    let why = run.entries[&"kill".into()].skipped.clone().unwrap();
    assert!(why.starts_with("entry look: was not met"), "{why}");
    assert!(script.watched_by("up", 8), "it ends");
}

#[test]
fn a_question_that_nobody_answers_is_a_no() {
    let mut script = Script::of(&DAY.replace("ready?,", "ready?, deadline: 20s,"));
    script.through("first");
    script.edge("second", true);
    script.watched("second", 10);
    let asked = script.run().entries[&"second:approval".into()].started.clone().unwrap();
    let left = asked.later(Dur::from_secs(19)).since(&stamp("c", script.now)).unwrap();
    script.watched("second", left.ns() / 1_000_000_000);
    assert!(script.run().entries[&"second:approval".into()].over.is_none());
    script.watched("second", 1);
    let run = script.run();
    assert!(run.may_decide(&"second:approval".into(), "bert", &stamp("c", script.now)).is_err(), "too late");
    let report = script.report();
    assert_eq!(report.sections[1].verdict.reasons, ["second:approval: nobody decided within 20s"]);
}

#[test]
fn a_section_without_steady_state_is_skipped_and_the_next_goes_on() {
    let mut script = Script::of(&DAY.replace("    approval: { question: Is everybody ready?, otherwise: skip }\n", ""));
    script.edge("first", false);
    // Its own stop condition would end the day; here it only flaps.
    for _ in 0..6 {
        script.watched("first", 8);
        script.edge("first", true);
        script.watched("first", 1);
        script.edge("first", false);
    }
    script.seconds(7);
    let run = script.run();
    let why = run.entries[&"first:steady-state".into()].failed.clone().unwrap();
    assert!(why.contains("was not met within 1m: first.up was up for"), "{why}");
    assert_eq!(run.entries[&"first:recovery".into()].skipped.as_deref(), Some("no fault of the section was started"));
    script.watched("second", 10);
    assert!(script.through("second"));
    let report = script.report();
    assert_eq!(words(&report), (VerdictWord::Aborted, vec![VerdictWord::Aborted, VerdictWord::Pass]));
    assert_eq!(report.sections[0].verdict.reasons.len(), 1, "{:?}", report.sections[0].verdict);
}

#[test]
fn a_stop_in_a_section_ends_the_day_and_what_was_proven_stays() {
    let mut script = Script::of(DAY);
    script.through("first");
    script.edge("second", true);
    script.watched("second", 10);
    script.answer(true, "bert");
    script.watched("second", 4);
    script.say(Body::StopRequested { by: "carl".into(), reason: "enough".into(), at: stamp("c", script.now) });
    script.settle();
    assert!(script.faults().is_empty());
    script.killed("second");
    let report = script.report();
    assert_eq!(words(&report), (VerdictWord::Aborted, vec![VerdictWord::Pass, VerdictWord::Aborted]));
    assert_eq!(report.verdict.reasons[0], "stop: stopped by carl: enough");

    let mut early = Script::of(DAY);
    early.say(Body::StopRequested { by: "carl".into(), reason: "enough".into(), at: stamp("c", early.now) });
    early.settle();
    let report = early.report();
    assert_eq!(words(&report), (VerdictWord::Aborted, vec![VerdictWord::Aborted; 2]));
    let why = "section second was not started: stop: stopped by carl: enough";
    assert_eq!(report.sections[1].verdict.reasons, [why]);
}

#[test]
fn an_outage_in_one_section_is_judged_there_alone() {
    let mut script = Script::of(&DAY.replace("    approval: { question: Is everybody ready?, otherwise: skip }\n", ""));
    script.edge("first", true);
    script.watched("first", 4);
    script.killed("first");
    script.now += 100_000_000;
    script.edge("first", false);
    script.watched("first", 10);
    script.edge("first", true);
    script.watched("first", 4);
    script.watched("second", 10);
    script.through("second");
    let report = script.report();
    assert_eq!(words(&report), (VerdictWord::Pass, vec![VerdictWord::Pass; 2]), "{:?}", report.verdict);
    let outages: Vec<u32> = report.services.iter().map(|service| service.outages).collect();
    assert_eq!(outages, [1, 0]);
    let after = report.probes[0].episodes[0].after_entry.clone();
    assert_eq!(after, Some("first.kill".into()));
}

#[test]
fn what_no_host_suffers_is_passed_over_in_its_own_section() {
    let mut script = Script::of(DAY);
    script.events.truncate(3);
    if let Body::Planned { targets, .. } = &mut script.events[0].body {
        targets.insert("second.db".into(), vec![]);
        targets.insert("second.edge".into(), vec![]);
    }
    script.settle();
    assert_eq!(script.probes(), ["first.up"]);
    assert!(script.run().entries[&"second.kill".into()].over.is_none(), "its section has not begun");
    script.through("first");
    script.seconds(10);
    script.answer(true, "bert");
    assert!(script.run().entries[&"second:steady-state".into()].over.is_none(), "nobody looks, so it is not well");
    script.seconds(61);
    let (kind, why) = script.run().aborted.clone().unwrap();
    assert_eq!(kind, AbortKind::Gate);
    assert_eq!(why, "second:steady-state was not met within 1m: second.up was up for 0 s of 2s");
}

#[test]
fn a_plain_timeline_may_ask_and_look_too() {
    let timeline = "  - { id: ask, at: 0s, approval: { question: Now?, otherwise: skip } }\n  \
                    - { id: look, after: { ended: ask }, check: { probes: [up], holdFor: 1s, giveUpAfter: 10s, onFailure: continue } }\n  \
                    - { id: kill, after: { ended: look }";
    let text = KILL.replace("  - { id: kill, at: 1s", timeline);
    let read = read_experiment("kill.yaml", &text, &BTreeMap::new(), &catalogue()).unwrap();
    assert_eq!(read.experiment.timeline.len(), 3);
    let wrong = text
        .replace("probes: [up], holdFor: 1s", "probes: [app], holdFor: 11s")
        .replace("at: 0s, approval", "at: 0s, for: 1s, approval");
    let told = read_experiment("k", &wrong, &BTreeMap::new(), &catalogue()).unwrap_err();
    let told: Vec<&str> = told.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "`for` has no meaning for an `approval`",
            "`holdFor` is 11s, which cannot be reached before `giveUpAfter`, 10s",
            "there is no probe `app`"
        ]
    );
}
