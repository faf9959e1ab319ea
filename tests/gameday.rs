//! Game days: several experiments in one run, with go or no-go in between by somebody else; also over the death of the
//! controller. What was done is seen from outside.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    history::Run,
    people::Somebody,
    rig::{Going, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_game_day_goes_on_when_somebody_else_says_so", &[Need::Lab], decided),
        trial("a_question_outlives_the_controller", &[Need::Lab], outlives),
    ]
}

const PAGES: [&str; 2] = ["/run/data/first", "/run/data/second"];

/// A page is broken for a while, beside a crew that must not notice.
const EXPERIMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
parameters:
  page: { type: string }
  length: { type: duration, default: 500ms }
services: { crew: { rto: 1s } }
targets: { box: { select: "role=box" } }
probes:
  crew: { service: crew, process: { name: crew }, from: box, every: 50ms, timeout: 200ms }
steadyState: { probes: [crew], holdFor: 300ms, giveUpAfter: 20s }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: "${page}", content: broken } }, target: box, for: "${length}" }
recovery: { stableFor: 500ms, giveUpAfter: 10s }
limits: { maxTargets: 1 }
"#;

fn day(otherwise: &str, length: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: GameDay\nname: two-pages\npurpose: Find out who notices.\nowner: Web team\n\
         participants: [Operations, Support]\nsections:\n  \
         - {{ id: first, experiment: page.yaml, parameters: {{ page: {} }} }}\n  \
         - id: second\n    experiment: page.yaml\n    parameters: {{ page: {}, length: {length} }}\n    \
         waitBefore: 100ms\n    approval: {{ question: Is everybody ready?, deadline: 2m, otherwise: {otherwise} }}\n",
        PAGES[0], PAGES[1]
    )
}

/// A host with two pages and a crew.
fn prepared() -> (Rig, Going) {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    for page in PAGES {
        rig.keep("box", page, "as it was");
    }
    rig.document("page", EXPERIMENT);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    (rig, crew)
}

fn broken(rig: &Rig) -> [bool; 2] {
    PAGES.map(|page| rig.shell("box", &format!("cat {page}")).contains("broken"))
}

fn asks(entry: &Value) -> bool {
    entry["entry"] == "second:approval"
}

/// Begins a day and waits until it asks; the id of its run.
fn until_it_asks(rig: &Rig, day: &str) -> (Going, String) {
    let going = rig.begin(day, &[]);
    let run = going.event("planned")["run"].as_str().expect("run").to_owned();
    going.event_with("active", |body| body["item"]["entry"] == "first.break");
    going.event_with("entryStarted", asks);
    assert_eq!(broken(rig), [false, false], "the first section has undone its fault, the second waits");
    (going, run)
}

/// Verdicts of the sections, in order.
fn verdicts(run: &Run) -> Vec<&str> {
    let sections = run.report["sections"].as_array().expect("sections");
    sections.iter().map(|section| section["verdict"]["word"].as_str().expect("word")).collect()
}

fn decided() {
    let (rig, _crew) = prepared();
    let bert = Somebody::sign_in(&rig, "bert", &["approver"]);
    let carl = Somebody::sign_in(&rig, "carl", &["viewer"]);
    assert!(
        rig.fracas(&["validate", &rig.document("day", &day("skip", "1s"))]).good().err.contains("two-pages is valid")
    );

    // Go, by somebody else who may.
    let (going, run) = until_it_asks(&rig, &day("skip", "1s"));
    let shown = bert.says(&["show", &run]).good().out;
    assert!(shown.contains("go or no-go: Is everybody ready?"), "{shown}");
    assert!(shown.contains(&format!("fracas decide {run} second go|no-go")), "{shown}");
    assert!(shown.contains("an approver in default, not "), "{shown}");
    let not = rig.fracas(&["decide", &run, "second", "go"]);
    assert!(not.code == 7 && not.err.contains("whoever started the run does not decide"), "{}", not.text());
    carl.refused(&["decide", &run, "second", "go"], "needs the right to approve");
    bert.refused(&["decide", &run, "first", "go"], "asks nothing");
    let said = bert.says(&["decide", "last", "second", "go", "--note", "all are here"]).good();
    assert!(said.out.contains("second:approval of run") && said.out.contains("go"), "{}", said.out);
    bert.refused(&["decide", &run, "second", "no-go"], "was answered already: go by ");
    going.event_with("active", |body| body["item"]["entry"] == "second.break");
    assert_eq!(broken(&rig), [false, true]);
    let run = rig.finish(going);
    run.ended("pass", 0);
    assert_eq!((verdicts(&run), broken(&rig)), (vec!["pass", "pass"], [false, false]));
    assert_eq!(run.report["experiment"]["day"]["owner"], "Web team");
    for (word, form) in [("text", "go by "), ("markdown", "## Sections"), ("html", "Web team")] {
        let told = rig.fracas(&["report", &run.id, "--format", word]).good().out;
        assert!(told.contains("Operations") && told.contains(form) && told.contains("all are here"), "{word}: {told}");
    }
    // Each section was looked at in its own time only.
    let ended = run.report["sections"][0]["endedNs"].as_i64().expect("ended");
    let strip = run.probe("first.crew")["strip"].as_array().expect("strip").clone();
    let last = strip.last().expect("seen")["toNs"].as_i64().expect("to");
    assert!(last < ended + 1_500_000_000, "first.crew was looked at until {last}, and its section ended at {ended}");

    // No-go: the second section is skipped.
    let (going, run) = until_it_asks(&rig, &day("skip", "1s"));
    bert.says(&["decide", &run, "second", "no-go", "--note", "a release is under way"]).good();
    let run = rig.finish(going);
    run.ended("aborted", 4);
    assert_eq!((verdicts(&run), broken(&rig)), (vec!["pass", "aborted"], [false, false]));
    assert!(
        run.reasons().contains("no-go by ") && run.reasons().contains("a release is under way"),
        "{}",
        run.reasons()
    );
    assert_eq!(run.bodies("active").len(), 1, "{}", run.story());

    // A stop in the second section undoes everything.
    let (going, run) = until_it_asks(&rig, &day("stop", "1h"));
    bert.says(&["decide", &run, "second:approval", "go"]).good();
    going.event_with("active", |body| body["item"]["entry"] == "second.break");
    assert_eq!(broken(&rig), [false, true]);
    rig.fracas(&["stop", &run, "--reason", "customers call"]).good();
    let run = rig.finish(going);
    run.ended("aborted", 4);
    assert_eq!((verdicts(&run), broken(&rig)), (vec!["pass", "aborted"], [false, false]));

    // A day that asks nothing can be scheduled, with its files.
    let quiet = day("stop", "1s");
    let (quiet, _) = quiet.split_once("    waitBefore").expect("a wait");
    rig.document("quiet", quiet);
    let schedule = "apiVersion: fracas/v1\nkind: Schedule\nname: often\nexperiment: quiet.yaml\n\
                    when: { every: { period: 2s, from: 2026-01-01T00:00 } }\n";
    let schedule = rig.document("often", schedule);
    rig.fracas(&["schedule", "set", &schedule]).good();
    let runs = || rig.fracas(&["runs", "--output", "json"]).good().json()[0]["runs"].clone();
    until("a scheduled day has passed", || {
        let all = runs();
        let mut all = all.as_array().expect("runs").iter();
        all.any(|run| run["by"] == "schedule:often" && run["verdict"] == "pass")
    });
    rig.fracas(&["schedule", "remove", "often", "--reason", "enough"]).good();
    rig.stop();
}

fn outlives() {
    let (rig, _crew) = prepared();
    let bert = Somebody::sign_in(&rig, "bert", &["approver"]);
    let (going, run) = until_it_asks(&rig, &day("stop", "500ms"));
    rig.kill_controller();
    rig.start_controller();
    rig.until_connected(&["box"]);
    assert_eq!(broken(&rig), [false, false]);
    until("the question is there again", || bert.says(&["show", &run]).out.contains("second go|no-go"));
    bert.says(&["decide", &run, "second", "go"]).good();
    going.event_with("active", |body| body["item"]["entry"] == "second.break");
    let run = rig.finish(going);
    run.ended("pass", 0);
    assert_eq!((verdicts(&run), broken(&rig)), (vec!["pass", "pass"], [false, false]));
    assert_eq!(run.bodies("resumed").len(), 1, "{}", run.story());
    rig.stop();
}
