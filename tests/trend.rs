//! Repeats, trends and services as their user has them: a service whose supervisor becomes lazier is found to be slower,
//! and objectives that a run met are proven.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    history::nanoseconds,
    rig::{Going, LIMIT, RUN_LIMIT, Rig, Said},
    stage::{MARK, part},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_slower_recovery_is_found_over_repeated_runs", &[Need::Lab], slower),
        trial("a_series_ends_at_the_first_run_that_does_not_pass", &[Need::Lab], ends),
        trial("the_example_of_a_pipeline_is_a_valid_document", &[Need::Lab], pipeline),
    ]
}

const CREW: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: crew-comes-back
services: { crew: { rto: 10s, mtpd: 1h, proveEvery: 30d } }
targets: { box: { select: "role=box" } }
probes:
  crew: { service: crew, process: { name: crew }, from: box, every: 20ms, timeout: 200ms }
steadyState: { probes: [crew], holdFor: 300ms }
timeline:
  - { id: kill, at: 0s, target: box, fault: { process-kill: { name: crew } } }
recovery: { stableFor: 400ms, giveUpAfter: 20s }
"#;

/// A crew whose supervisor waits so long before it starts it again.
fn supervised(rig: &Rig, pause_ms: u32) -> Going {
    let pause = pause_ms.to_string();
    let going = rig.go("box", "supervisor", part(&["supervise", &pause, "/proc/self/exe", MARK, "rest", "crew"]));
    going.find("a crew", |line| line.get("began").map(|_| ()));
    going
}

/// Ends a supervisor with the crew that it would otherwise leave behind.
fn dismissed(rig: &Rig, supervisor: &Going) {
    supervisor.kill();
    for process in rig.processes("box").iter().filter(|process| process["name"] == "crew") {
        rig.shell("box", &format!("kill -9 {}", process["pid"]));
    }
}

/// A series to its end: what was said, and the last line.
fn series(rig: &Rig, words: &[&str]) -> (Said, Value) {
    let all: Vec<&str> = ["run", "/run/crew.yaml", "--yes", "--output", "json"].iter().chain(words).copied().collect();
    let said = rig.fracas_going(&all).end(RUN_LIMIT);
    let last = said.json().pop().unwrap_or_default();
    assert_eq!(
        (&last["schema"], &last["exitCode"]),
        (&"fracas.series/v1".into(), &said.code.into()),
        "{}",
        said.text()
    );
    (said, last)
}

fn trend(rig: &Rig, words: &[&str]) -> (i32, Value) {
    let all: Vec<&str> = ["trend", "--output", "json"].iter().chain(words).copied().collect();
    let said = rig.fracas(&all);
    let data = said.json().pop().unwrap_or_else(|| panic!("{}", said.text()));
    (said.code, data)
}

fn slower() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.document("crew", CREW);
    let quick = supervised(&rig, 300);
    let (said, last) = series(&rig, &["--repeat", "3", "--seed", "11", "--report", "/run/crew.html"]);
    assert_eq!(said.code, 0, "{}", said.text());
    let runs = last["runs"].as_array().expect("runs");
    let seeds: Vec<u64> = runs.iter().filter_map(|run| run["seed"].as_u64()).collect();
    assert_eq!((seeds.len(), seeds[0]), (3, 11));
    assert!(seeds[1] != seeds[2] && seeds[1] != 11, "{seeds:?}");
    assert_eq!(last["trends"][0]["n"], 3);
    for run in runs {
        let shown = rig.fracas(&["report", run["run"].as_str().expect("id"), "--format", "json"]).good();
        let report: Value = serde_json::from_str(&shown.out).expect("report");
        assert_eq!((&report["seed"], &report["times"]["gatePassed"]), (&run["seed"], &true.into()));
    }
    for number in 1..=3 {
        rig.shell("ctl", &format!("test -s /run/crew.{number}.html"));
    }
    // The page of the last one shows those before it.
    rig.shell(
        "ctl",
        "test $(grep -o '<title>run ' /run/crew.3.html | wc -l) = 3 && ! grep -q '<title>run ' /run/crew.1.html",
    );
    let (code, few) = trend(&rig, &["crew-comes-back", "--fail-on", "slower"]);
    assert_eq!((code, &few["trends"][0]["change"]["word"]), (3, &"cannotTell".into()), "1 against 2 settles nothing");

    dismissed(&rig, &quick);
    let lazy = supervised(&rig, 1500);
    series(&rig, &["--repeat", "3"]).0.good();
    let compare = ["crew-comes-back", "--newest", "3", "--baseline", "last:3", "--fail-on", "slower"];
    let (code, data) = trend(&rig, &[&compare[..], &["--to", "/run/t.svg", "--to", "/run/t.png"]].concat());
    let found = &data["trends"][0];
    assert_eq!((code, &found["n"], &found["change"]["word"]), (1, &6.into(), &"slower".into()), "{found}");
    let points = found["points"].as_array().expect("points");
    for (number, point) in points.iter().enumerate() {
        let (lo, hi) = (nanoseconds(&point["length"]["lo"]), nanoseconds(&point["length"]["hi"]));
        let pause = if number < 3 { 300_000_000 } else { 1_500_000_000 };
        // The supervisor slept for its pause at least, and a machine under load does not stall for a second.
        assert!(hi >= pause && lo < pause + 1_000_000_000, "{point}");
    }
    eprintln!("three against three: {}", found["change"]["why"]);
    rig.shell("ctl", "grep -q '<svg ' /run/t.svg && test \"$(head -c 4 /run/t.png | tail -c 3)\" = PNG");
    let said = rig.fracas(&[&["trend"], &compare[..]].concat());
    assert_eq!(said.code, 1);
    assert!(said.out.contains("SLOWER: slower than the 3 runs before, p = 0.05, n = 3 against 3"), "{}", said.out);
    assert!(said.out.contains("n too small for P95 (59 needed)"), "{}", said.out);

    // Proven by the newest run, and known of nowhere else.
    let services = ["services", "--fail-on", "unproven", "--output", "json"];
    let said = rig.fracas(&services).good().json().remove(0);
    let crew = &said["services"][0];
    assert_eq!(
        (&crew["state"], &crew["daysSince"], &crew["mtpd"]),
        (&"proven".into(), &0.into(), &"1h".into()),
        "{crew}"
    );
    assert_eq!(crew["lastProof"]["run"], points[5]["run"]);
    let nowhere = rig.fracas(&[&services[..], &["--environment", "elsewhere"]].concat());
    assert_eq!((nowhere.code, &nowhere.json()[0]["services"]), (3, &serde_json::json!([])), "{}", nowhere.text());

    // Another objective is another intent: told apart, unless mixed on purpose.
    rig.document("crew", &CREW.replace("rto: 10s", "rto: 1s"));
    let run = rig.fracas(&["run", "/run/crew.yaml", "--yes"]);
    assert_eq!(run.code, 1, "{}", run.text());
    let (_, data) = trend(&rig, &["--service", "crew"]);
    assert_eq!((&data["trends"][0]["n"], &data["earlier"][0]["n"]), (&1.into(), &6.into()));
    let (_, data) = trend(&rig, &["--service", "crew", "--all-intents"]);
    assert_eq!((&data["trends"][0]["n"], &data["earlier"]), (&7.into(), &serde_json::json!([])));
    let said = rig.fracas(&services);
    assert_eq!((said.code, &said.json()[0]["services"][0]["state"]), (1, &"missed".into()), "{}", said.text());
    let junit = rig.fracas(&["report", "last", "--format", "junit"]).good().out;
    assert!(junit.contains("<failure type=\"missed\""), "{junit}");
    meets_its_schema(&rig);
    dismissed(&rig, &lazy);
    rig.stop();
}

/// A report of a real run is what the published schema says.
fn meets_its_schema(rig: &Rig) {
    let parsed = |words: &[&str]| serde_json::from_str::<Value>(&rig.fracas(words).good().out).expect("JSON");
    let schema = jsonschema::validator_for(&parsed(&["schema", "--kind", "report"])).expect("a schema");
    let report = parsed(&["report", "last", "--format", "json"]);
    let wrong: Vec<String> = schema.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn ends() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let crew = supervised(&rig, 400);
    rig.document("crew", &CREW.replace("rto: 10s", "rto: 100ms"));
    let (said, last) = series(&rig, &["--repeat", "3"]);
    assert_eq!((said.code, last["runs"].as_array().map(Vec::len)), (1, Some(1)), "{last}");
    assert_eq!(last["endedEarly"], "run 1 ended with fail");
    let (said, last) = series(&rig, &["--repeat", "2", "--keep-going"]);
    assert_eq!((said.code, last["runs"].as_array().map(Vec::len)), (1, Some(2)), "{last}");
    assert_eq!(last.get("endedEarly"), None);

    // Ctrl-C ends the run under way and the series with it, also one that would keep going.
    rig.document("crew", &CREW.replace("holdFor: 300ms", "holdFor: 50s"));
    let going =
        rig.fracas_going(&["run", "/run/crew.yaml", "--yes", "--output", "json", "--repeat", "3", "--keep-going"]);
    going.event("gateStarted");
    going.interrupt();
    let said = going.end(LIMIT);
    let last = said.json().pop().unwrap_or_default();
    assert_eq!((said.code, &last["endedEarly"]), (4, &"Ctrl-C".into()), "{}", said.text());
    assert_eq!(last["runs"].as_array().map(Vec::len), Some(1));
    // That run never hit anything: it is told, and counts for nothing.
    assert_eq!((&last["trends"][0]["n"], &last["trends"][0]["points"][0]["length"]), (&0.into(), &Value::Null));
    dismissed(&rig, &crew);
    rig.stop();
}

fn pipeline() {
    let rig = Rig::bare(&[]);
    let path = rig.document("kill-primary", include_str!("../deploy/ci/kill-primary.yaml"));
    let said = rig.say("ctl", Rig::command(&["validate", &path])).good();
    assert!(!said.text().contains("error"), "{}", said.text());
}
