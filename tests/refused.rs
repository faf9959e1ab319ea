//! What is refused before anything happens: bad documents with all their mistakes, targets nobody has, processes that are
//! not there, too many, or protected. Each says what and what instead, and nothing is left of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{
    offline::here,
    residue::Dump,
    rig::{LIMIT, Rig, Said},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_malformed_document_tells_every_mistake", &[], a_malformed_document_tells_every_mistake),
        trial("bombs_are_defused", &[], bombs_are_defused),
        trial("nothing_starts_that_must_not", &[Need::Lab], nothing_starts_that_must_not),
        trial("a_probe_that_was_never_healthy", &[Need::Lab], a_probe_that_was_never_healthy),
        trial("a_process_that_is_always_another", &[Need::Lab], a_process_that_is_always_another),
    ]
}

/// A document as this machine's `fracas validate` sees it.
fn validate(document: &str) -> Said {
    here(&["validate", "-"], document, &[])
}

const MALFORMED: &str = r#"apiVersion: fracas/v1
kind: Experiment
name: Wrong_Name
targets:
  db: { select: "role in db" }
probes:
  up: { http: { url: "ftp://x/", status: 99 }, every: 5 }
timeline:
  - id: kill
    at: soon
    fault: { process-kil: { name: x } }
    target: dbs
  - id: kill
    at: 0s
    fault: { process-kill: { name: x, signal: KILLL } }
    target: db
unknown: 1
"#;

fn a_malformed_document_tells_every_mistake() {
    let said = validate(MALFORMED);
    assert_eq!(said.code, 2, "{said:?}");
    for (place, what) in [
        ("3:7", "\"Wrong_Name\" is not a name"),
        ("5:17", "select"),
        ("7:22", "url"),
        ("7:42", "99"),
        ("7:55", "unit"),
        ("10:9", "soon"),
        ("11:14", "did you mean `process-kill`?"),
        ("12:13", "there is no target `dbs`"),
        ("13:9", "a second entry is called `kill`"),
        ("15:47", "did you mean `KILL`?"),
        ("17:1", "unknown"),
    ] {
        let at = format!("standard input:{place}: error:");
        let told = said.out.split("\n\n").find(|told| told.contains(&at));
        assert!(told.is_some_and(|told| told.contains(what)), "{at} {what} is not in:\n{}", said.out);
        // The offending line stands below.
        assert!(told.is_some_and(|told| told.contains('^')), "{told:?}");
    }
    assert!(said.err.contains("11 errors"), "{}", said.err);
    // What is no YAML at all says so, once, at its place.
    let said = validate("timeline: [ {\n  - }\n");
    assert!(said.code == 2 && said.out.contains("standard input:2:3: error:") && said.out.contains("YAML"), "{said:?}");
    let said = validate("");
    assert!(said.code == 2 && said.out.contains("the file is empty"), "{said:?}");
}

fn bombs_are_defused() {
    let mut laughs = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        let _ = writeln!(laughs, "a{n}: &a{n} [{aliases}]");
    }
    let deep = format!("a: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("# {}\n", "x".repeat(3 << 20));
    for (what, bomb, word) in [("aliases", laughs, "alias"), ("depth", deep, "deep"), ("length", long, "bytes")] {
        let begun = Instant::now();
        let said = validate(&bomb);
        let took = begun.elapsed();
        assert!(
            said.code == 2 && said.out.contains(word),
            "{what}: {} {}",
            said.code,
            &said.out[..said.out.len().min(400)]
        );
        // Seconds are for a machine that does something else beside.
        assert!(took < Duration::from_secs(10), "{what} took {took:?}");
    }
}

/// A document that kills what its last argument says.
fn kill(select: &str, parameters: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: kill\ntargets: {{ box: {{ select: \"{select}\" }} }}\n\
         timeline:\n  - {{ id: kill, at: 0s, fault: {{ process-kill: {parameters} }}, target: box }}\n"
    )
}

fn pause(duration: &str) -> String {
    kill("role=box", "{ name: crew, count: 3 }")
        .replace("process-kill", "process-pause")
        .replace("target: box }", &format!("target: box, for: {duration} }}"))
}

fn nothing_starts_that_must_not() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let crew = rig.go("box", "crew", part(&["crowd", "crew", "3"]));
    let pids = crew.find("the crew", |line| line["pids"].as_array().cloned());
    let before = Dump::of(&rig, "box");
    let mut documents = vec![
        (
            "a host nobody has",
            kill("role=db", "{ name: crew }"),
            7,
            "no host matches role=db",
            "values of role here: box",
        ),
        ("a label nobody has", kill("rule=db", "{ name: crew }"), 7, "no host matches rule=db", "fracas hosts label"),
        (
            "a process that is not there",
            kill("role=box", "{ name: nobody-here }"),
            7,
            "no process matches name nobody-here",
            "ps -e",
        ),
        (
            "a pid file that is not there",
            kill("role=box", "{ pidFile: /run/none.pid }"),
            7,
            "/run/none.pid holds no process number",
            "is the service running",
        ),
        (
            "a port nobody listens on",
            kill("role=box", "{ port: 4 }"),
            7,
            "no process is known to listen on TCP port 4",
            "ss -ltnp",
        ),
        (
            "more processes than counted",
            kill("role=box", "{ name: crew }"),
            7,
            "3 processes match crew, count allows 1",
            "set count to 3",
        ),
        (
            "init",
            kill("role=box", "{ name: fracas-lab-host }"),
            7,
            "is protected: it is the init process",
            "choose another process",
        ),
        (
            "the agent itself",
            kill("role=box", "{ name: fracas-guard }"),
            7,
            "is protected: it belongs to the agent",
            "choose another process",
        ),
        ("two ways of choosing", kill("role=box", "{ name: crew, port: 80 }"), 7, "chosen in two ways", "only one of"),
        ("longer than the host allows", pause("2h"), 7, "1h", "policy"),
        ("no length", pause("1s").replace(", for: 1s", ""), 2, "does not say for how long", "for: 60s"),
    ];
    documents.push(("a bad document", MALFORMED.to_owned(), 2, "experiment.yaml:3:7: error", "did you mean"));
    for (what, document, code, why, instead) in documents {
        let said = rig.begin(&document, &[]).end(Duration::from_mins(1));
        assert_eq!(said.code, code, "{what}: {}", said.text());
        assert!(said.err.contains(why) && said.err.contains(instead), "{what}: {}", said.err);
        assert_eq!(said.out, "", "{what}: nothing began");
        let path = rig.document("experiment", &document);
        let planned = rig.fracas(&["plan", &path]);
        assert_eq!(planned.code, code, "{what}: {}", planned.text());
        assert!(planned.text().contains(why), "{what}: {}", planned.text());
    }
    // Those that are counted are named.
    let said = rig.begin(&kill("role=box", "{ name: crew }"), &[]).end(Duration::from_mins(1));
    assert!(pids.iter().all(|pid| said.err.contains(&pid.to_string())), "{} {pids:?}", said.err);

    let runs = rig.fracas(&["runs", "--output", "json"]).good().json();
    assert_eq!(runs[0]["runs"], serde_json::json!([]), "no run was made of it");
    Dump::of(&rig, "box").expect_same(&before);
    rig.stop();
}

fn a_probe_that_was_never_healthy() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let before = Dump::of(&rig, "box");
    let document = kill("role=box", "{ name: crew }")
        + "probes:\n  up: { tcp: { address: \"box:9\" }, every: 50ms, timeout: 50ms }\n\
           steadyState: { probes: [up], holdFor: 1s, giveUpAfter: 3s }\n";
    let run = rig.run(&document);
    run.ended("aborted", 4);
    assert!(
        run.reasons().contains("steady state: steady state was not met within 3s: up was up for"),
        "{}",
        run.reasons()
    );
    for kind in ["entryStarted", "applying", "spent"] {
        assert!(run.bodies(kind).is_empty(), "nothing was done: {}", run.story());
    }
    assert_eq!(run.body("edge")["why"], "connection refused", "{}", run.story());
    assert!(crew.runs());
    Dump::of(&rig, "box").expect_same(&before);
    rig.stop();
}

fn a_process_that_is_always_another() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.go("box", "relay", part(&["relay", "relay"]));
    let document = kill("role=box", "{ name: relay, count: 5 }");
    let mut ends = BTreeMap::<i32, usize>::new();
    for _ in 0..5 {
        // Whoever was meant is gone before anything can be done to it; or it was hit, and the next was there already.
        let said = rig.begin(&document, &[]).end(Duration::from_mins(1));
        *ends.entry(said.code).or_default() += 1;
        let shots = said.out.matches("\"kind\":\"spent\"").count();
        match said.code {
            0 => assert_eq!(shots, 1, "{}", said.out),
            5 => assert!(
                said.out.contains("no process matches name relay") || said.out.contains(" is gone\""),
                "{}",
                said.out
            ),
            7 => assert!(said.out.is_empty() && said.err.contains("no process matches name relay"), "{}", said.text()),
            other => panic!("exit code {other}: {}", said.text()),
        }
        assert!(shots <= 1, "one signal, and never again: {}", said.out);
    }
    eprintln!("a process that lives 2 ms: exit codes and how often: {ends:?}");
    // Nothing hangs and nothing is kept: what can be hit is hit at once.
    let target = rig.go("box", "slow", part(&["rest", "slow"])).ready();
    rig.run(&kill("role=box", "{ name: slow }")).ended("pass", 0);
    assert_eq!(target.end(LIMIT).code, 128 + 9);
    rig.stop();
}
