//! The command line against a controller: what a plan shows and leaves alone, a run in lines and as data, watching from
//! where one left off, lists, stops, halts and hosts.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    offline::here,
    residue::Dump,
    rig::{Going, LIMIT, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_plan_shows_everything_and_changes_nothing", &[Need::Lab], a_plan_changes_nothing),
        trial("a_run_in_lines_and_as_data", &[Need::Lab], a_run_in_lines_and_as_data),
        trial("watching_goes_on_where_it_was_left", &[Need::Lab], watching_goes_on_where_it_was_left),
        trial("stop_and_halt", &[Need::Lab], stop_and_halt),
        trial("hosts_and_their_labels", &[Need::Lab], hosts_and_their_labels),
        trial("a_run_on_this_machine_alone", &[Need::Lab], a_run_on_this_machine_alone),
    ]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
parameters:
  length: { type: duration, default: 2s }
services: { crew: { rto: 10s } }
targets: { box: { select: "role=box", pick: { count: 1 } } }
probes:
  crew: { service: crew, process: { name: crew }, from: box, every: 100ms, timeout: 1s }
steadyState: { probes: [crew], holdFor: 500ms }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: "${length}" }
recovery: { stableFor: 500ms, giveUpAfter: 10s }
"#;

fn set(hosts: &[&str]) -> (Rig, Vec<Going>) {
    let labels: &[(&str, &str)] = &[("role", "box")];
    let agents: Vec<_> = hosts.iter().map(|name| (*name, labels)).collect();
    let rig = Rig::start(&agents);
    let crews = hosts.iter().map(|host| rig.go(host, "crew", part(&["rest", "crew"])).ready()).collect();
    (rig, crews)
}

fn a_plan_changes_nothing() {
    let (rig, crews) = set(&["box-1", "box-2", "box-3"]);
    let before: Vec<Dump> = ["box-1", "box-2", "box-3"].iter().map(|host| Dump::of(&rig, host)).collect();
    let path = rig.document("experiment", DOCUMENT);
    let plan = |seed: &str| rig.fracas(&["plan", &path, "--seed", seed, "--output", "json"]).good().json().remove(0);
    let first = plan("7");
    assert_eq!(first["schema"], "fracas.plan/v1");
    let drawn = first["targets"]["box"][0].as_str().expect("a host").to_owned();
    let name = first["hosts"][&drawn].as_str().expect("its name").to_owned();
    assert_eq!(first["rehearsals"].as_array().map(Vec::len), Some(1), "one of three was drawn");
    assert_eq!(first["rehearsals"][0]["plan"]["summary"], "stop crew by ptrace");

    let page = rig.fracas(&["plan", &path, "--seed", "7"]).good().out;
    for word in [
        "targets (seed 7)",
        &format!("box: {name}"),
        "pause: process-pause on box for 2s, at 0s",
        &format!("pause on {name}: stop crew by ptrace"),
        "undo:",
        &format!("intent  sha256:{}", first["intent"].as_str().expect("digest")),
        &format!("plan    sha256:{}", first["plan"].as_str().expect("digest")),
    ] {
        assert!(page.contains(word), "{word} is not in:\n{page}");
    }
    // The same seed draws the same hosts; the digest of intent does not depend on the draw.
    assert_eq!(plan("7")["plan"], first["plan"]);
    let others: Vec<Value> = ["1", "2", "3", "4", "5", "6", "8", "9"].iter().map(|seed| plan(seed)).collect();
    assert!(others.iter().any(|other| other["targets"] != first["targets"]), "chance draws them");
    assert!(others.iter().all(|other| other["intent"] == first["intent"]));

    for (host, before) in ["box-1", "box-2", "box-3"].iter().zip(&before) {
        Dump::of(&rig, host).expect_same(before);
        let status = rig.read(host, part(&["fracas", "agent", "status", "--state-dir", crate::rig::STATE]));
        assert!(status.contains("open     nothing"), "{status}");
    }
    assert!(crews.iter().all(Going::runs));
    assert_eq!(rig.fracas(&["runs", "--output", "json"]).good().json()[0]["runs"], serde_json::json!([]));
    // What was planned is what is run.
    let run = rig.run_with(DOCUMENT, &["--seed", "7"]);
    run.ended("pass", 0);
    let planned = run.body("planned");
    assert_eq!((&planned["plan"], &planned["targets"]["box"]), (&first["plan"], &first["targets"]["box"]));
    rig.stop();
}

fn a_run_in_lines_and_as_data() {
    let (rig, _crews) = set(&["box"]);
    let schema = |kind: &str| {
        let text = here(&["schema", "--kind", kind], "", &[]).good().out;
        jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
    };
    let (event, result) = (schema("event"), schema("result"));
    let path = rig.document("experiment", DOCUMENT);

    let said = rig.fracas(&["run", &path, "--output", "json", "--report", "/run/report.html"]).good();
    let mut lines = said.json();
    let last = lines.pop().expect("a result");
    assert!(result.is_valid(&last), "{last}");
    assert_eq!((last["report"].as_str(), last["exitCode"].as_u64()), (Some("/run/report.html"), Some(0)));
    for line in &lines {
        assert!(event.is_valid(line), "{line}");
    }
    assert!(lines.len() > 10);
    let page = rig.shell("ctl", "cat /run/report.html");
    assert!(
        page.starts_with("<!doctype html>") || page.starts_with("<!DOCTYPE html>"),
        "{}",
        &page[..page.len().min(80)]
    );

    // For people: a line each, with both times, then the summary.
    let said = rig.fracas(&["run", &path]).good();
    let lines: Vec<&str> = said.out.lines().collect();
    for words in [
        "stand-still from /run/experiment.yaml",
        "steady state held",
        "pause on box active",
        "pause on box undone",
        "verdict: pass",
    ] {
        let line = lines.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}:\n{}", said.out));
        assert!(line.contains('Z') || line.contains("UTC"), "the time stands before it: {line}");
    }
    assert!(said.out.contains("pass") && said.out.contains("crew"), "{}", said.out);
    assert!(!said.out.contains('\u{1b}'), "no colours where there is no terminal");
    let quiet = rig.fracas(&["run", &path, "--quiet"]).good();
    assert!(quiet.out.lines().count() < lines.len() && !quiet.out.contains("pause on box active"), "{}", quiet.out);

    let all = rig.fracas(&["runs", "--output", "json"]).good().json().remove(0);
    let runs = all["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 3);
    assert!(
        runs.iter().all(|run| run["verdict"] == "pass" && run["state"] == "finished" && run["name"] == "stand-still")
    );
    assert!(
        runs.windows(2).all(|pair| pair[0]["startedWallNs"].as_i64() > pair[1]["startedWallNs"].as_i64()),
        "newest first"
    );
    assert_eq!(
        rig.fracas(&["runs", "--limit", "1", "--output", "json"]).good().json()[0]["runs"].as_array().map(Vec::len),
        Some(1)
    );
    let table = rig.fracas(&["runs"]).good().out;
    assert_eq!(table.matches("stand-still").count(), 3, "{table}");

    let id = runs[0]["run"].as_str().expect("id");
    for name in [id, &id[..id.len() - 1], "last"] {
        let shown = rig.fracas(&["show", name]).good().out;
        assert!(
            shown.contains(id) && shown.contains("pass (exit code 0)") && shown.contains("pause on box undone"),
            "{shown}"
        );
    }
    let shown = rig.fracas(&["show", id, "--output", "json"]).good().json().remove(0);
    assert_eq!(shown["history"].as_array().map(Vec::len), runs[0]["headSeq"].as_u64().map(|n| n as usize));
    let missing = rig.fracas(&["show", "nosuchrun"]);
    assert!(missing.code == 5 && missing.err.contains("no run `nosuchrun` here"), "{}", missing.text());
    for (form, word) in [("text", "pass"), ("markdown", "# "), ("json", "fracas.report/v1"), ("html", "<svg")] {
        let report = rig.fracas(&["report", "last", "--format", form]).good().out;
        assert!(
            report.contains(word) && report.contains("stand-still"),
            "{form}: {}",
            &report[..report.len().min(400)]
        );
    }
    rig.stop();
}

fn watching_goes_on_where_it_was_left() {
    let (rig, _crews) = set(&["box"]);
    let path = rig.document("experiment", DOCUMENT);
    let started = rig.fracas(&["run", &path, "--detach", "--output", "json"]).good().json().remove(0);
    let id = started["run"].as_str().expect("id").to_owned();
    // Somebody watches for a while and leaves; the run goes on.
    let first = rig.fracas_going(&["watch", &id, "--output", "json"]);
    first.event("active");
    first.signal(rustix::process::Signal::INT);
    let first = first.end(LIMIT);
    assert_eq!(first.code, 130, "{}", first.text());
    let seqs = |text: &[Value]| text.iter().filter_map(|line| line["seq"].as_u64()).collect::<Vec<u64>>();
    let seen = seqs(&first.json());
    let last = *seen.last().expect("something was seen");
    let rest = rig.fracas(&["watch", &id, "--after", &last.to_string(), "--output", "json"]).good();
    let rest_seen = seqs(&rest.json());
    assert_eq!(rest_seen[0], last + 1, "nothing twice, nothing left out");
    let all: Vec<u64> = seen.iter().chain(&rest_seen).copied().collect();
    let head = rig.fracas(&["runs", "--output", "json"]).good().json()[0]["runs"][0]["headSeq"].as_u64();
    assert_eq!((all.clone(), head), ((1..=all.len() as u64).collect(), all.last().copied()));
    // In lines, too; and a run that ended long ago ends the watch at once, with its code.
    let lines = rig.fracas(&["watch", &id, "--after", &last.to_string()]).good().out;
    assert!(!lines.contains("pause on box applying") && lines.contains("verdict: pass"), "{lines}");
    rig.stop();
}

fn stop_and_halt() {
    let (rig, crews) = set(&["box"]);
    let stands =
        || rig.process("box", crews[0].pid()).is_some_and(|p| ["t", "T"].iter().any(|state| p["state"] == *state));
    let begin = || {
        let going = rig.begin(DOCUMENT, &["--set", "length=5m"]);
        going.event("active");
        assert!(stands());
        going
    };
    let going = begin();
    let said = rig.fracas(&["stop", "last", "--reason", "customers call", "--output", "json"]).good().json().remove(0);
    assert_eq!((said["schema"].as_str(), said["reason"].as_str()), (Some("fracas.stop/v1"), Some("customers call")));
    let run = rig.finish(going);
    run.ended("aborted", 4);
    assert!(run.reasons().contains("stopped by admin: customers call"), "{}", run.reasons());
    assert!(!stands());
    let again = rig.fracas(&["stop", "last"]).good();
    assert!(again.err.contains("had already ended (aborted), nothing was stopped"), "{}", again.err);

    let going = begin();
    let halted = rig.fracas(&["halt", "--reason", "real incident", "--output", "json"]).good().json().remove(0);
    let run = rig.finish(going);
    assert_eq!((halted["halted"].as_bool(), halted["runs"][0].as_str()), (Some(true), Some(run.id.as_str())));
    run.ended("aborted", 4);
    assert!(run.reasons().contains("halt: halted by admin: real incident"), "{}", run.reasons());
    until("the crew goes on", || !stands());
    let refused = |rig: &Rig| {
        let said = rig.begin(DOCUMENT, &[]).end(LIMIT);
        assert_eq!(said.code, 7, "{}", said.text());
        assert!(
            said.err.contains("everything is halted: real incident") && said.err.contains("fracas halt clear"),
            "{}",
            said.err
        );
    };
    refused(&rig);
    // Latched: a restart of the controller changes nothing.
    rig.kill_controller();
    rig.start_controller();
    rig.until_connected(&["box"]);
    refused(&rig);
    let cleared = rig.fracas(&["halt", "clear", "--reason", "incident closed"]).good();
    assert!(cleared.out.contains("not halted"), "{}", cleared.out);
    rig.run(DOCUMENT).ended("pass", 0);
    rig.stop();
}

fn hosts_and_their_labels() {
    let (rig, _crews) = set(&["box-1", "box-2"]);
    let table = rig.fracas(&["hosts"]).good().out;
    for word in ["box-1", "box-2", "role=box", "connected, observer"] {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
    let said = rig.fracas(&["hosts", "label", "box-1", "tier=primary", "role=db"]).good().out;
    assert!(said.contains("role=db") && said.contains("tier=primary"), "{said}");
    let selected =
        rig.fracas(&["hosts", "-l", "tier=primary,role in (db)", "--output", "json"]).good().json().remove(0);
    assert_eq!(
        (selected["hosts"].as_array().map(Vec::len), selected["hosts"][0]["name"].as_str()),
        (Some(1), Some("box-1"))
    );
    let own = rig.fracas(&["hosts", "label", "box-1", "fact/os=mine"]);
    assert!(own.code == 2 && own.err.contains("the agent's own"), "{}", own.text());
    let wrong = rig.fracas(&["hosts", "-l", "role in"]);
    assert!(wrong.code == 2, "{}", wrong.text());
    rig.fracas(&["hosts", "label", "box-1", "tier-", "role=box"]).good();
    // Labels outlive the controller.
    rig.kill_controller();
    rig.start_controller();
    assert_eq!(rig.hosts()["box-1"]["labels"]["role"], "box");
    assert_eq!(rig.hosts()["box-1"]["labels"].get("tier"), None);
    rig.until_connected(&["box-1", "box-2"]);
    rig.stop();
}

fn a_run_on_this_machine_alone() {
    let rig = Rig::bare(&["box"]);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    rig.keep("box", "/run/experiment.yaml", &DOCUMENT.replace("role=box", "local=true"));
    let before = Dump::of(&rig, "box");
    let words = [
        "fracas",
        "run",
        "/run/experiment.yaml",
        "--local",
        "--yes",
        "--output",
        "json",
        "--report",
        "/run/report.json",
    ];
    let program = || part(&words).env("FRACAS_AGENT_STATE", "/run/data/agent/own");
    let said = Going::start(&rig.host("box"), program()).end(LIMIT);
    assert_eq!(said.code, 0, "{}", said.text());
    let report: Value =
        serde_json::from_str(&rig.shell("box", "cat /run/report.json; rm /run/report.json")).expect("report");
    assert_eq!(report["verdict"]["word"], "pass");
    assert!(crew.runs());

    // Interrupted, it stops, undoes and leaves nothing, not even its controller.
    rig.keep(
        "box",
        "/run/experiment.yaml",
        &DOCUMENT.replace("role=box", "local=true").replace("default: 2s", "default: 5m"),
    );
    let going = Going::start(&rig.host("box"), program());
    going.event("active");
    going.signal(rustix::process::Signal::INT);
    let said = going.end(LIMIT);
    assert_eq!(said.code, 4, "{}", said.text());
    rig.shell("box", "rm -f /run/report.json");
    Dump::of(&rig, "box").expect_same(&before);
    assert!(crew.runs());
}
