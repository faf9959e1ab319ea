//! Upgrades: what an older version left on disk is taken up, its open run included, and agents one version older are served.
//!
//! What was left is in `tests/upgrade`, with a note on how it was made. `FRACAS_UPGRADE_OLD=PROGRAM` is an older `fracas`:
//! then both versions run beside each other too, and with `FRACAS_UPGRADE_KEEP=DIR` that one leaves its traces there;
//! `cargo xtask upgrade-trial` builds and names it.

use std::{io::Write as _, time::Duration};

use fracas_sim::{
    lab::{Program, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    residue::Dump,
    rig::{DATA, Going, LIMIT, Labels, Rig, STATE, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials =
        vec![trial("what_an_older_version_left_is_taken_up", &[Need::Lab, Need::Program("tar")], taken_up)];
    if old().is_some() {
        trials.extend([
            trial("older_agents_serve_this_controller", &[Need::Lab], older_agents),
            trial("a_fleet_is_upgraded_in_the_middle_of_a_run", &[Need::Lab], in_the_middle),
            trial("this_agent_and_an_older_controller", &[Need::Lab], an_older_controller),
        ]);
    }
    if std::env::var_os("FRACAS_UPGRADE_KEEP").is_some() {
        trials.push(trial("an_older_version_leaves_its_traces", &[Need::Lab, Need::Program("tar")], leave_traces));
    }
    trials
}

/// What the controller of the older version kept, and the agent.
const LEFT: [(&str, &[u8]); 2] =
    [("ctl", include_bytes!("upgrade/controller.tar.gz")), ("box", include_bytes!("upgrade/agent.tar.gz"))];

const BOX: Labels<'_> = &[("role", "box")];

/// All of it was there in the older version.
const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
parameters:
  length: { type: duration, default: 9m }
services: { crew: { rto: 10s } }
targets: { box: { select: "role=box", pick: { count: 1 } } }
probes:
  crew: { service: crew, process: { name: crew }, from: box, every: 100ms, timeout: 1s }
steadyState: { probes: [crew], holdFor: 500ms }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: "${length}" }
recovery: { stableFor: 500ms, giveUpAfter: 10s }
"#;

/// The older program, if there is one.
fn old() -> Option<String> {
    std::env::var("FRACAS_UPGRADE_OLD").ok()
}

fn older(words: &[&str]) -> Program {
    Program::new(old().expect("an older program")).args(words.iter().copied())
}

fn old_controller(rig: &Rig) -> Program {
    let fleet = format!("{}:7767", rig.address("ctl"));
    older(&["controller", "--data-dir", DATA, "--fleet-listen", &fleet, "--name", "ctl"])
}

fn old_agent(rig: &Rig) -> Program {
    let controller = format!("{}:7767", rig.address("ctl"));
    older(&["agent", "--controller", &controller, "--state-dir", STATE, "--name", "box"])
}

fn crew(rig: &Rig) -> Going {
    rig.go("box", "crew", part(&["rest", "crew"])).ready()
}

/// Runs as the controller lists them, newest first.
fn runs(rig: &Rig) -> Vec<Value> {
    let listed = rig.fracas(&["runs", "--output", "json"]).good().json().remove(0);
    listed["runs"].as_array().expect("runs").clone()
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// The history of a run as it is shown to whoever watches it late.
fn story(rig: &Rig, run: &str) -> Vec<Value> {
    rig.fracas(&["watch", run, "--output", "json"]).json()
}

fn clean(rig: &Rig) {
    let status = rig.read("box", part(&["fracas", "agent", "status", "--state-dir", STATE]));
    assert!(status.contains("open     nothing"), "{status}");
}

fn taken_up() {
    let rig = Rig::bare(&["box"]);
    for (host, bytes) in LEFT {
        let unpack = Program::new("tar").args(["xz", "-C", "/run/data"]).stdin(Stream::Pipe);
        let mut running = rig.host(host).spawn(unpack).expect("started");
        running.stdin.take().expect("pipe").write_all(bytes).expect("written");
        assert!(running.wait_for(LIMIT).expect("lab").expect("it ends").success(), "unpacked on {host}");
    }
    let crew = crew(&rig);
    let before = Dump::of(&rig, "box");
    // The heads that the older version signed hold for what this version reads.
    rig.verify_data(DATA);

    rig.start_controller();
    let listed = runs(&rig);
    let verdicts: Vec<&str> = listed.iter().map(|run| word(run, "verdict")).collect();
    assert_eq!(verdicts.len(), 3, "{listed:?}");
    assert_eq!(verdicts[1..], ["aborted", "pass"], "{listed:?}");
    for ended in &listed[1..] {
        let run = word(ended, "run");
        for format in ["json", "text", "html", "markdown"] {
            let report = rig.fracas(&["report", run, "--format", format]).good().out;
            assert!(report.contains("stand-still"), "{format}: {report}");
        }
        let events = story(&rig, run);
        assert!(events.iter().any(|line| line["body"]["kind"] == "undone"), "{events:?}");
    }
    // A run cannot begin twice on a host: the open one is taken up, and has it.
    let open = word(&listed[0], "run").to_owned();

    let status = rig.say("box", part(&["fracas", "agent", "status", "--state-dir", STATE])).out;
    assert!(status.contains("open     1\n") && status.contains("stop crew by ptrace"), "{status}");
    rig.start_agent("box");
    rig.until_connected(&["box"]);
    until("the open run ends", || word(&runs(&rig)[0], "state") == "finished");
    let ended = runs(&rig).remove(0);
    assert_eq!(word(&ended, "run"), open);
    let undone: Vec<Value> = story(&rig, &open).into_iter().filter(|line| line["body"]["kind"] == "undone").collect();
    assert_eq!(undone.len(), 1, "{ended}");
    // The machine has been started anew since, unless it is the one that made these files.
    assert!(["reboot", "agentRestart"].contains(&word(&undone[0]["body"], "cause")), "{}", undone[0]);
    assert!(["error", "aborted"].contains(&word(&ended, "verdict")), "{ended}");
    clean(&rig);

    // And all goes on.
    rig.run_with(DOCUMENT, &["--set", "length=1s"]).ended("pass", 0);
    rig.signal_agent("box", Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0, "it leaves with nothing open");
    Dump::of(&rig, "box").expect_same(&before);
    assert!(crew.runs(), "a process that came to be called the same is not touched");
    rig.stop();
}

/// Runs of the older version that pass and that are stopped.
fn two_runs(rig: &Rig) {
    rig.run_with(DOCUMENT, &["--set", "length=1s"]).ended("pass", 0);
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    let run = word(&runs(rig)[0], "run").to_owned();
    rig.fracas(&["stop", &run, "--reason", "seen enough"]).good();
    rig.finish(going).ended("aborted", 4);
}

fn older_agents() {
    let rig = Rig::bare(&["box", "new"]);
    rig.start_controller();
    rig.start_agent_as("box", old_agent(&rig).env("FRACAS_JOIN_TOKEN", rig.token(BOX)));
    rig.join("new", &[("role", "new")]);
    rig.until_connected(&["box", "new"]);
    let crew = crew(&rig);
    let before = Dump::of(&rig, "box");
    two_runs(&rig);
    // The fleet's catalogue has what only the newer agent can do; the older one says no, and why.
    let newer = DOCUMENT.replace("process-pause: { name: crew }", "file-replace: { path: /run/data/x, content: y }");
    rig.keep("box", "/run/data/x", "x");
    let path = rig.document("newer", &newer);
    let refused = rig.fracas(&["plan", &path, "--set", "length=1s"]);
    let text = refused.text();
    let why = text.lines().find(|line| line.contains("is not known to this agent")).unwrap_or_default();
    assert!(refused.code != 0 && !why.is_empty(), "{text}");
    eprintln!("a fault that an older agent does not know: {why}");
    // A halt reaches it.
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    rig.fracas(&["halt", "--reason", "all stop"]).good();
    rig.finish(going).ended("aborted", 4);
    rig.fracas(&["halt", "clear", "--reason", "go on"]).good();
    assert!(crew.runs());
    rig.shell("box", "rm /run/data/x");
    Dump::of(&rig, "box").expect_same(&before);
    rig.stop();
}

fn in_the_middle() {
    let rig = Rig::bare(&["box"]);
    rig.start_controller_as(old_controller(&rig));
    rig.start_agent_as("box", old_agent(&rig).env("FRACAS_JOIN_TOKEN", rig.token(BOX)));
    rig.until_connected(&["box"]);
    let crew = crew(&rig);
    let going = rig.begin(DOCUMENT, &["--set", "length=30s"]);
    going.event("active");
    // The controller first; the fault goes on within its lease.
    rig.kill_controller();
    rig.start_controller();
    rig.until_connected(&["box"]);
    let run = rig.finish(going);
    run.ended("pass", 0);
    assert_eq!(run.undo_causes(), ["expired"], "{}", run.story());
    // Then the agent, in the middle of the next one.
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    rig.signal_agent("box", Signal::KILL);
    rig.end_agent("box", LIMIT);
    rig.start_agent("box");
    let run = rig.finish(going);
    run.ended("error", 5);
    assert_eq!(run.undo_causes(), ["agentRestart"], "{}", run.story());
    clean(&rig);
    rig.run_with(DOCUMENT, &["--set", "length=1s"]).ended("pass", 0);
    let state = rig.process("box", crew.pid()).expect("crew")["state"].clone();
    assert!(crew.runs() && state == "S", "{state}");
    rig.stop();
}

/// Controllers are upgraded first. Where that was forgotten, nothing is harmed, and the log says what is the matter.
fn an_older_controller() {
    let rig = Rig::bare(&["box"]);
    rig.start_controller_as(old_controller(&rig));
    rig.join("box", BOX);
    let told = || rig.agent_log("box").contains("no contact with the controller");
    let serves = || rig.hosts().get("box").is_some_and(|host| host["connected"] == true);
    until("it is served, or says why not", || told() || serves());
    if serves() {
        eprintln!("an older controller serves this agent");
    } else {
        let log = rig.agent_log("box");
        let why = log.lines().find(|line| line.contains("no contact with the controller")).unwrap_or_default();
        eprintln!("an older controller does not serve this agent: {why}");
        assert!(why.contains("malformed") || why.contains("upgrade"), "{why}");
    }
    clean(&rig);
    rig.signal_agent("box", Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0, "it leaves with nothing open");
    rig.signal_controller(Signal::TERM);
    rig.end_controller(Duration::from_mins(2));
}

/// Makes what [`taken_up`] takes up.
fn leave_traces() {
    let keep = std::env::var("FRACAS_UPGRADE_KEEP").expect("a folder");
    let rig = Rig::bare(&["box"]);
    rig.start_controller_as(old_controller(&rig));
    let agent = old_agent(&rig).env("FRACAS_JOIN_TOKEN", rig.token(BOX)).env("FRACAS_RECORD", "/run/data/said");
    rig.start_agent_as("box", agent);
    rig.until_connected(&["box"]);
    let _crew = crew(&rig);
    two_runs(&rig);
    rig.fracas(&["halt", "--reason", "a drill"]).good();
    rig.fracas(&["halt", "clear", "--reason", "the drill is over"]).good();
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    going.event("checked");
    // Nobody may undo what the agent leaves: the guard stands still while the agent is killed.
    let guards: Vec<Value> = rig.processes("box").into_iter().filter(|p| p["name"] == "fracas-guard").collect();
    assert_eq!(guards.len(), 1, "one guard");
    rig.shell("box", &format!("kill -STOP {}", guards[0]["pid"]));
    rig.signal_agent("box", Signal::KILL);
    rig.kill_controller();
    for (host, folder, name) in [("ctl", "fracas", "controller"), ("box", "agent", "agent")] {
        let packed = rig.shell(host, &format!("tar cz -C /run/data {folder} | base64 -w0"));
        unpack(&packed, &format!("{keep}/{name}.tar.gz"));
    }
    unpack(&rig.shell("box", "base64 -w0 /run/data/said"), &format!("{keep}/said.bin"));
    rig.shell("box", &format!("kill -KILL {}", guards[0]["pid"]));
}

fn unpack(base64: &str, path: &str) {
    let file = std::fs::File::create(path).expect("a file");
    let mut decode = std::process::Command::new("base64")
        .arg("-d")
        .stdin(std::process::Stdio::piped())
        .stdout(file)
        .spawn()
        .expect("started");
    decode.stdin.take().expect("pipe").write_all(base64.as_bytes()).expect("written");
    assert!(decode.wait().expect("it ends").success());
}
