//! Whole documents: what they become, and what their mistakes are called.

use serde_json::json;

use super::*;
use crate::{
    catalogue::{FaultInfo, LedgerInfo, Nature, Params, ProbeInfo},
    experiment::{Action, AfterWhat, Trigger},
    id::{EntryId, ServiceId, TargetId},
    shape::Field,
    stop::AbortWhen,
    units::{Dur, Percent},
};

/// Two faults and a probe with parameters like those of the real ones.
pub(crate) fn catalogue() -> Catalogue {
    let fault = |name: &str, nature, params| FaultInfo {
        name: name.into(),
        summary: format!("{name} does its work."),
        help: String::new(),
        params,
        nature,
        needs: vec![],
        example: String::new(),
    };
    let kill = vec![
        Field::required("name", Shape::Text { max: 64 }, "Which processes."),
        Field::with_default("signal", Shape::choice(&["KILL", "TERM"]), "TERM", "Which signal."),
    ];
    let delay = vec![
        Field::required("delay", Shape::duration(Dur::from_ms(1), Dur::from_secs(60)), "How long."),
        Field::with_default("jitter", Shape::duration(Dur::ZERO, Dur::from_secs(60)), "0s", "Half the spread."),
        Field::optional("to", Shape::list(Shape::Cidr, 64), "Far ends."),
        Field::optional("ports", Shape::list(Shape::Ports, 64), "Ports."),
    ];
    let http = vec![
        Field::required("url", Shape::Url, "Where."),
        Field::with_default("status", Shape::Integer { min: 100, max: 599 }, 200, "Wanted status."),
        Field::optional("contains", Shape::Text { max: 100 }, "Wanted text."),
    ];
    let probe = ProbeInfo {
        name: "http".into(),
        summary: "Asks a web server.".into(),
        help: String::new(),
        params: http,
        reading: Vec::new(),
        example: String::new(),
    };
    let ledger = LedgerInfo {
        name: "redis".into(),
        summary: "Keeps markers in Redis.".into(),
        help: String::new(),
        params: vec![Field::required("address", Shape::Address, "Where.")],
        place: "key".into(),
        example: String::new(),
    };
    Catalogue {
        ledgers: vec![ledger],
        faults: vec![fault("process-kill", Nature::Spent, kill), fault("net-delay", Nature::Lasting, delay)],
        probes: vec![probe],
    }
}

/// The document of the house plan.
pub(crate) const TASTE: &str = r#"apiVersion: fracas/v1
kind: Experiment
name: checkout-survives-db-kill
description: Killing the primary must not take checkout down for more than 30 s.
services:
  checkout: { rto: 30s }
targets:
  primary: { select: "role=db,tier=primary", pick: { count: 1 }, onEmpty: fail }
  edge:    { select: "role=edge" }
probes:
  checkout-up:
    service: checkout
    http: { url: "http://checkout.internal/health", status: 200 }
    from: edge
    every: 50ms
    timeout: 50ms
steadyState: { probes: [checkout-up], holdFor: 10s }
timeline:
  - id: kill
    at: 0s
    fault: { process-kill: { name: postgres, signal: KILL } }
    target: primary
  - id: slow
    after: { recovered: checkout }
    fault: { net-delay: { delay: 200ms, jitter: 20ms, to: ["10.0.0.0/8"], ports: [5432] } }
    target: primary
    for: 60s
recovery: { stableFor: 5s, giveUpAfter: 5m }
abortWhen:
  - { probe: checkout-up, failingFor: 2m }
limits: { maxTargets: 1, maxPercent: 34, rounding: floor }
"#;

pub(crate) fn read(text: &str) -> Result<ReadExperiment, Vec<String>> {
    read_experiment("t.yaml", text, &BTreeMap::new(), &catalogue()).map_err(|list| {
        let say = |d: &Diagnostic| {
            let help = d.help.as_ref().map(|h| format!(" | {h}")).unwrap_or_default();
            format!("{}:{} {}{help}", d.line, d.column, d.message)
        };
        list.iter().filter(|d| d.severity == crate::diagnostic::Severity::Error).map(say).collect()
    })
}

#[test]
fn the_document_of_the_house_plan_is_read_as_it_is() {
    let taste = read(TASTE).unwrap();
    assert_eq!(taste.warnings, []);
    let experiment = &taste.experiment;
    assert_eq!(experiment.name, "checkout-survives-db-kill");
    assert_eq!(experiment.services[&ServiceId::from("checkout")].rto, Some(Dur::from_secs(30)));
    assert_eq!(experiment.targets[&TargetId::from("primary")].select, "role=db,tier=primary");
    assert_eq!(experiment.limits.max_percent, Some(Percent(34.0)));
    assert_eq!(experiment.lease, Dur::from_secs(15));
    assert_eq!(experiment.steady_state.as_ref().unwrap().give_up_after, Dur::from_secs(60));
    assert_eq!(experiment.timeline[0].trigger, Trigger::At(Dur::ZERO));
    let params = json!({"delay": "200ms", "jitter": "20ms", "to": ["10.0.0.0/8"], "ports": ["5432"]});
    assert_eq!(
        experiment.timeline[1].action,
        Action::Fault {
            fault: "net-delay".into(),
            params: Params(params.as_object().unwrap().clone()),
            target: TargetId::from("primary"),
            duration: Some(Dur::from_secs(60)),
            rollout: None,
        }
    );
    assert_eq!(
        experiment.timeline[1].trigger,
        Trigger::After { what: AfterWhat::Recovered(ServiceId::from("checkout")), delay: Dur::ZERO }
    );
    assert_eq!(serde_json::from_value::<Experiment>(taste.canonical.clone()).unwrap(), *experiment);
}

#[test]
fn the_starter_is_valid_and_without_warnings() {
    let starter = read(starter()).unwrap();
    assert_eq!(starter.warnings, []);
    assert_eq!(starter.parameters["url"], "http://checkout.internal/health");
}

#[test]
fn a_fault_alone_is_enough_and_defaults_are_filled_in() {
    let text = "apiVersion: fracas/v1\nkind: Experiment\nname: adhoc\ntargets: { t: { select: role=db } }\n\
                timeline: [{ id: a, at: 0s, fault: { process-kill: { name: x } }, target: t }, { id: b, after: { ended: a }, wait: 5s }]\n";
    let read = read(text).unwrap();
    assert_eq!(read.warnings, []);
    let document = json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "adhoc", "description": "",
        "services": {}, "probes": {}, "targets": {"t": {"select": "role=db", "onEmpty": "fail"}},
        "timeline": [
            {"id": "a", "at": "0s", "fault": {"process-kill": {"name": "x", "signal": "TERM"}}, "target": "t",
             "required": true, "onInterrupt": "fail"},
            {"id": "b", "after": {"ended": "a", "delay": "0s"}, "wait": "5s", "required": true, "onInterrupt": "fail"},
        ],
        "recovery": {"stableFor": "5s", "giveUpAfter": "5m"}, "abortWhen": [], "limits": {"rounding": "floor"},
        "lease": "15s",
    });
    assert_eq!(read.document, document);
    assert_eq!(
        read.experiment.timeline[1].trigger,
        Trigger::After { what: AfterWhat::Ended(EntryId::from("a")), delay: Dur::ZERO }
    );
}

#[test]
fn stop_conditions_and_canaries_are_read_with_their_mistakes() {
    let with = |from: &str, to: &str| TASTE.replace(from, to);
    let rails = "abortWhen:\n  - { vantage: edge, lostFor: 5s }\n  - { probe: checkout-up, errorBudget: { allow: 5%, within: 1m }, onLoss: continue }";
    let read_rails = read(&with("abortWhen:", rails)).unwrap();
    let texts: Vec<String> = read_rails.experiment.abort_when.iter().map(AbortWhen::text).collect();
    assert_eq!(
        texts,
        [
            "a host of edge was out of contact for 5s",
            "over 5% of the looks of checkout-up within 1m failed, but not when nobody can look any more",
            "checkout-up was failing for 2m",
        ]
    );
    assert_final(&read_rails);
    let wrong = |text: &str| {
        let told = read(text).unwrap_err();
        told.join("\n")
    };
    let one = |rail: &str| wrong(&with("abortWhen:", &format!("abortWhen:\n  - {rail}")));
    assert!(one("{ probe: checkout-up, lostFor: 5s }").contains("`lostFor` is of a `vantage`"));
    assert!(one("{ vantage: edge, failingFor: 5s }").contains("it is lost"));
    assert!(one("{ vantage: edge, lostFor: 5s, onLoss: abort }").contains("remove `onLoss`"));
    assert!(one("{ vantage: egde, lostFor: 5s }").contains("did you mean `edge`?"));
    assert!(one("{ probe: checkout-up, failingFor: 5s, lostFor: 5s }").contains("lostFor"));
    assert!(one("{ failingFor: 5s }").contains("probe"));
    let slow = wrong(&with("every: 50ms", "every: 2s"));
    assert!(slow.contains("looks every 2s") && slow.contains("`every: 1s` or less"), "{slow}");

    let rests = |at_rest: &str| with("every: 50ms", &format!("every: 50ms\n    everyAtRest: {at_rest}"));
    let probe = read(&rests("1s")).unwrap().experiment.probes[&"checkout-up".into()].clone();
    assert_eq!((probe.every_at_rest, probe.slowest()), (Some(Dur::from_secs(1)), Dur::from_secs(1)));
    assert_final(&read(&rests("1s")).unwrap());
    let shorter = wrong(&rests("20ms"));
    assert!(shorter.starts_with("16:5 ") && shorter.contains("write 50ms or more"), "{shorter}");
    let seldom = wrong(&rests("2s"));
    assert!(seldom.contains("every 2s at rest") && seldom.contains("`everyAtRest: 1s` or less"), "{seldom}");
    let unseen = read(&rests("1s").replace("holdFor: 10s", "holdFor: 59s")).unwrap().warnings;
    assert!(unseen[0].message.contains("too late for 59s within 1m"), "{unseen:?}");

    let canary = "target: primary\n    rollout: { canary: { percent: 10 }, probes: [checkout-up] }\n    for: 60s";
    let text = with("target: primary\n    for: 60s", canary);
    let rollout = match read(&text).unwrap().experiment.timeline[1].action.clone() {
        Action::Fault { rollout: Some(rollout), .. } => rollout,
        other => panic!("{other:?}"),
    };
    assert_eq!((rollout.canary.percent, rollout.hold_for), (Some(Percent(10.0)), Dur::from_secs(10)));
    assert_final(&read(&text).unwrap());
    let more = |more: &str| wrong(&text.replace("probes: [checkout-up] }", more));
    assert!(more("probes: [chekout-up] }").contains("did you mean `checkout-up`?"));
    let short = text.replace("for: 60s", "for: 12s");
    assert!(wrong(&short).contains("its canary is to be looked at for 15s"), "the lease");
    assert!(more("holdFor: 2m }").contains("cannot be reached before `giveUpAfter`, 1m"));
    let waits = with(
        "fault: { net-delay: { delay: 200ms, jitter: 20ms, to: [\"10.0.0.0/8\"], ports: [5432] } }\n    target: primary\n    for: 60s",
        "wait: 1s\n    rollout: {}",
    );
    assert!(wrong(&waits).contains("`rollout` has no meaning for a `wait`"));
}

/// Reading what was read, as JSON, gives the same again.
fn assert_final(first: &ReadExperiment) {
    let again = read(&first.document.to_string()).unwrap_or_else(|e| panic!("{e:#?}\n{}", first.document));
    assert_eq!(again.document, first.document);
    assert_eq!(again.canonical, first.canonical);
    assert_eq!(again.experiment, first.experiment);
}

#[test]
fn canonical_documents_are_final() {
    for text in [TASTE, starter()] {
        assert_final(&read(text).unwrap());
    }
    let tricky = TASTE.replace("description: Killing", "description: \"$${x} \\\" \\n\u{fffd} \u{1f600} : # \" #");
    assert_final(&read(&tricky).unwrap());
}

#[test]
fn json_with_tabs_and_windows_lines_is_read_like_yaml() {
    let yaml = read(TASTE).unwrap();
    let json = serde_json::to_string_pretty(&yaml.document).unwrap().replace("  ", "\t").replace('\n', "\r\n");
    assert_eq!(read(&format!("\u{feff}{json}")).unwrap().experiment, yaml.experiment);
    assert_eq!(read(&TASTE.replace('\n', "\r\n")).unwrap().experiment, yaml.experiment);
}

/// The house plan's document with one change.
fn changed(from: &str, to: &str) -> String {
    assert!(TASTE.contains(from), "{from}");
    TASTE.replacen(from, to, 1)
}

#[test]
fn a_ledger_that_will_be_full_too_early_is_warned_of() {
    let with = |every: &str| {
        let ledger =
            format!("ledgers:\n  data: {{ service: checkout, redis: {{ address: \"db:6379\" }}, every: {every} }}\n");
        let text = changed("steadyState:", &(ledger + "steadyState:"));
        // The entry after it lasts until 40 minutes.
        let text = text.replace("at: 0s", "at: 39m").replace("rto: 30s", "rto: 30s, rpo: 10s");
        read(&text).unwrap().warnings.iter().map(|w| format!("{} | {:?}", w.message, w.help)).collect::<Vec<_>>()
    };
    let told = with("10ms");
    assert!(told.iter().any(|w| w.contains("full") && w.contains("33m20s") && w.contains("every: 12ms")), "{told:?}");
    assert!(!with("12ms").iter().any(|w| w.contains("full")), "{:?}", with("12ms"));
}

#[test]
fn mistakes_of_meaning_are_told_at_their_place() {
    let mut wrong = Vec::new();
    for (from, to, expected) in MISTAKES {
        let told = read(&changed(from, to)).map_or_else(|list| list.join("\n"), |_| "valid".to_owned());
        if told != *expected {
            wrong.push(format!("{from:?} -> {to:?}\n  told:     {told:?}\n  expected: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "kind: Experiment",
        "kind: Drill",
        "2:7 `kind: Drill` is not built yet | write `kind: Experiment`; a timeline may ask people with `approval`",
    ),
    (
        "kind: Experiment",
        "kind: GameDay",
        "2:7 this is a game day, not an experiment | `fracas run FILE` runs it; what its sections name are experiments",
    ),
    (
        "kind: Experiment",
        "kind: Experimnet",
        "2:7 there is no kind of document `Experimnet` | did you mean `Experiment`?",
    ),
    (
        "kind: Experiment",
        "kind: HostPolicy",
        "2:7 this is a host's policy, not an experiment | it belongs on the host, in the file that its agent is started with",
    ),
    ("fracas/v1", "fracas/v2", "1:13 `apiVersion`: \"fracas/v2\" is not one of the choices | write `fracas/v1`"),
    (
        "  checkout: {",
        "  Checkout: {",
        "6:3 \"Checkout\" is not a name | use at most 63 small letters, digits and hyphens, with a letter or digit at both ends",
    ),
    ("service: checkout", "service: chekout", "12:14 there is no service `chekout` | did you mean `checkout`?"),
    ("from: edge", "from: edges", "14:11 there is no target `edges` | did you mean `edge`?"),
    ("probes: [checkout-up]", "probes: [other]", "17:25 there is no probe `other` | there are: checkout-up"),
    ("probe: checkout-up", "probe: checkoutup", "30:14 there is no probe `checkoutup` | did you mean `checkout-up`?"),
    ("target: primary", "target: replica", "22:13 there is no target `replica` | there are: primary, edge"),
    (
        "    target: primary\n  - id: slow",
        "  - id: slow",
        "19:9 `kill` does not say on which target | write `target:` with `primary` or `edge`",
    ),
    ("recovered: checkout", "recovered: shop", "24:25 there is no service `shop` | there are: checkout"),
    (
        "after: { recovered: checkout }",
        "after: { ended: killl }",
        "24:21 there is no entry `killl` | did you mean `kill`?",
    ),
    (
        "after: { recovered: checkout }",
        "after: { ended: slow }",
        "24:5 these entries wait for each other and never start: slow after slow | let one of them start with `at`",
    ),
    (
        "    at: 0s",
        "    after: { started: slow }",
        "20:5 these entries wait for each other and never start: kill after slow after kill | let one of them start with `at`",
    ),
    (
        "    at: 0s",
        "    after: { recovered: checkout }",
        "20:25 nothing comes before this entry that `checkout` could recover from | let the first entry start with `at`",
    ),
    ("    at: 0s\n", "", "19:5 an element of `timeline` needs a trigger | write `at` or `after`"),
    (
        "    at: 0s",
        "    at: 0s\n    after: { ended: slow }",
        "21:5 `at` and `after` cannot stand together | keep one trigger",
    ),
    (
        "    at: 0s",
        "    atTime: 2030-01-01T00:00:00Z",
        "20:5 `atTime` is not built yet | use `at` with an offset, and start the run at the time you mean",
    ),
    ("    at: 0s", "    when: x", "20:5 `when` is not built yet | use `after` with one entry or service"),
    (
        "    at: 0s",
        "    manual: true",
        "20:5 `manual` is not built yet | use `at` or `after`; `fracas stop` ends a run by hand",
    ),
    (
        "    at: 0s",
        "    at: 0s\n    deadline: 5s",
        "21:5 `deadline` is not built yet | `recovery.giveUpAfter` bounds how long a recovery is waited for",
    ),
    (
        "    at: 0s",
        "    at: 0s\n    else: stop",
        "21:5 `else` is not built yet | an entry that cannot start is skipped, and the report says so",
    ),
    (
        "    at: 0s",
        "    at: 0s\n    repeat: 3",
        "21:5 `repeat` is not built yet | write the entry several times, each with an id of its own",
    ),
    (
        "    fault: { process-kill: { name: postgres, signal: KILL } }\n    target: primary\n",
        "    message: hello\n",
        "21:5 `message` is not built yet | people take part in drills, which come later; use `wait` to leave them time",
    ),
    (
        "    fault: { process-kill: { name: postgres, signal: KILL } }\n",
        "    wait: 5s\n",
        "22:5 `target` has no meaning for a `wait` | remove it",
    ),
    (
        "    fault: { process-kill: { name: postgres, signal: KILL } }\n    target: primary\n",
        "    check: { probes: [checkoutup] }\n",
        "21:23 there is no probe `checkoutup` | did you mean `checkout-up`?",
    ),
    (
        "id: slow",
        "id: kill",
        "23:9 a second entry is called `kill` | the first stands on line 19; give each entry an id of its own",
    ),
    (
        "    for: 60s\n",
        "",
        "25:14 net-delay lasts, and `slow` does not say for how long | write for example `for: 60s`",
    ),
    (
        "    target: primary\n",
        "    target: primary\n    for: 5s\n",
        "23:5 process-kill is done once and has no length | remove `for`; faults that last are: net-delay",
    ),
    (
        "process-kill: {",
        "proces-kill: {",
        "21:14 there is no fault `proces-kill` | did you mean `process-kill`? known here: process-kill, net-delay",
    ),
    (
        "http: {",
        "htpp: {",
        "13:5 unknown key `htpp` in `checkout-up` | did you mean `http`? known here: service, from, every, everyAtRest, timeout, http",
    ),
    (
        "    http: { url: \"http://checkout.internal/health\", status: 200 }\n",
        "",
        "11:3 `checkout-up` needs a kind of probe | write `http`",
    ),
    (
        "signal: KILL",
        "signal: kil",
        "21:54 `signal`: \"kil\" is not one of the choices | did you mean `KILL`? write `KILL` or `TERM`",
    ),
    ("rto: 30s", "rto: 30", "6:20 `rto`: the unit of 30 is missing | write `30ms`, `30s` or `30m`"),
    ("rto: 30s", "rto: 30s, rpo: 5", "6:30 `rpo`: the unit of 5 is missing | write `5ms`, `5s` or `5m`"),
    (
        "rto: 30s",
        "rto: 30s, mtpd: 20s",
        "6:15 `rto` is 30s, beyond the maximum tolerable period of disruption, 20s | make `rto` shorter than `mtpd`",
    ),
    (
        "rto: 30s",
        "mtpd: 1h, proveEvery: 90d",
        "6:25 `checkout` has neither `rto` nor `rpo` that could be proven | write its recovery time: `rto: 30s`",
    ),
    (
        "steadyState:",
        "ledgers:\n  data: { service: chekout, redis: { address: \"db:6379\" }, from: egde }\nsteadyState:",
        "18:20 there is no service `chekout` | did you mean `checkout`?\n18:66 there is no target `egde` | did you mean `edge`?",
    ),
    (
        "steadyState:",
        "ledgers:\n  data: { service: checkout, redsi: { address: \"db:6379\" } }\nsteadyState:",
        "18:30 unknown key `redsi` in `data` | did you mean `redis`? known here: service, from, every, timeout, redis",
    ),
    (
        "holdFor: 10s",
        "holdFor: 10m",
        "17:39 `holdFor` is 10m, which cannot be reached before `giveUpAfter`, 1m | make `giveUpAfter` longer than 10m",
    ),
    (
        "giveUpAfter: 5m",
        "giveUpAfter: 2s",
        "28:13 `stableFor` is 5s, which cannot be reached before `giveUpAfter`, 2s | make `giveUpAfter` longer than 5s",
    ),
    (
        "count: 1 }",
        "count: 2 }",
        "8:61 `primary` picks 2 hosts, and `limits.maxTargets` is 1 | pick fewer, or raise the limit",
    ),
    ("count: 1 }", "count: 1, percent: 10% }", "8:64 `count` and `percent` cannot stand together | keep one key"),
    (
        "maxPercent: 34",
        "maxPercent: 0",
        "31:38 `maxPercent` must be a percentage such as 25% or a whole number, not \"0\" | write `0%`; or write a number from 1 to 100",
    ),
    (
        "rounding: floor",
        "rounding: down",
        "31:52 `rounding`: \"down\" is not one of the choices | write `floor`, `ceil` or `atLeastOne`",
    ),
    (
        "\"role=db,tier=primary\"",
        "\"role in db\"",
        "8:22 `select`: \"role in db\" is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any | write for example role=db,tier in (a, b)",
    ),
    (
        "edge:    {",
        "edge: { select: \"a\" }\n  edge: {",
        "10:3 the key `edge` stands here a second time | it is already on line 9, column 3",
    ),
    ("[checkout-up], holdFor", "[], holdFor", "17:16 `probes` has 0 elements, it must have 1 to 1000"),
    (
        "every: 50ms",
        "every: ${x}",
        "15:12 there is no parameter `x` | the document declares no `parameters`; `$${` stands for the characters themselves",
    ),
    ("every: 50ms", "every: 5ms", "15:12 `every`: 5ms is out of range | write a duration from 10ms to 1h"),
    ("limits: {", "lease: 5m10h\nlimits: {", "31:8 `lease`: 5m10h is out of range | write a duration from 1s to 10m"),
    (
        "timeline:",
        "timelines:",
        "1:1 `timeline` is missing | timeline: what happens, and when\n18:1 unknown key `timelines` | did you mean `timeline`? known here: apiVersion, kind, name, description, parameters, services, targets, probes, ledgers, detections, steadyState, timeline, recovery, abortWhen, limits, lease",
    ),
];

#[test]
fn a_controller_that_knows_no_fault_says_how_it_learns_of_them() {
    let empty = Catalogue { faults: Vec::new(), ..catalogue() };
    let mistakes = read_experiment("taste.yaml", TASTE, &BTreeMap::new(), &empty).unwrap_err();
    let told: Vec<String> = mistakes.iter().map(Diagnostic::render).collect();
    assert!(told[0].contains("there is no fault `process-kill`") && told[0].contains("let a host join"), "{told:?}");
}
