//! Clocks that do not agree, and clocks that jump.
//!
//! A process cannot set the clocks of a machine it shares, so what can be had here is this: an agent in a time namespace
//! whose boot time is a day ahead, and processes that were stopped and find that much time has passed, as after a sleep
//! of the machine. Wall clocks that are set under a running program are tried where the clock is an argument: tokens and
//! stamps in the controller, the comparison of clocks in the agent, the fold of clocks in the report.

use std::time::Duration;

use fracas_sim::{
    lab::{Program, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    history::number,
    residue::Dump,
    rig::{Rig, STATE, until},
    services, stage, trial,
    truth::{Eye, Range},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_agent_a_day_ahead", &[Need::Lab, Need::TimeNamespace, Need::Program("nginx")], an_agent_a_day_ahead),
        trial("a_controller_that_slept", &[Need::Lab], a_controller_that_slept),
    ]
}

/// A day and an hour.
const AHEAD_S: i64 = 90_000;

const KILL: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: kill-tomorrow
services:
  web: { rto: 5s, rtoFrom: fault }
targets:
  web: { select: "role=web" }
  edge: { select: "role=edge" }
probes:
  page:
    service: web
    http: { url: "http://web/" }
    from: edge
    every: 20ms
    timeout: 500ms
steadyState: { probes: [page], holdFor: 1s, giveUpAfter: 1m }
timeline:
  - { id: kill, at: 0s, fault: { process-kill: { name: nginx } }, target: web }
  - { id: load, after: { recovered: web }, fault: { cpu-load: { percent: 5%, cores: 1 } }, target: web, for: 2s, required: false }
recovery: { stableFor: 1s, giveUpAfter: 30s }
lease: 5s
"#;

fn an_agent_a_day_ahead() {
    let rig = Rig::bare(&["web", "edge"]);
    rig.start_controller();
    rig.join("edge", &[("role", "edge")]);
    // Setting a namespace's clock takes a privilege that no host of a lab has, so the agent lives in a user namespace of
    // its own, too, and can do as much as an ordinary user. Its program is standard input: other ways to it are barred.
    let controller = format!("{}:7767", rig.address("ctl"));
    let offset = AHEAD_S.to_string();
    let words = [
        "--user",
        "--map-root-user",
        "--time",
        "--boottime",
        &offset,
        "--monotonic",
        &offset,
        "--fork",
        "--kill-child=TERM",
        "--",
    ];
    let agent = ["/proc/self/fd/0", stage::MARK, "fracas", "agent", "--controller", &controller, "--state-dir", STATE];
    let this = std::fs::File::open("/proc/self/exe").expect("this program");
    let program = Program::new("unshare").stdin(Stream::File(this.into()));
    let program = program.args(words).args(agent).args(["--name", "web"]);
    let token = rig.token(&[("role", "web")]);
    rig.start_agent_as("web", program.env("FRACAS_JOIN_TOKEN", token));
    rig.until_connected(&["web", "edge"]);
    let nginx = services::nginx(&rig, "web", 300);
    let eye = Eye::open(&rig, "edge", "http", &format!("{}:80", rig.address("web")), Duration::from_secs(1));

    let run = rig.run(KILL);
    run.ended("pass", 0);
    let seen = eye.close();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let set_out = number(run.body("spent"), "/effective/from/bootNs");
    let ahead = set_out - stage::boot_ns();
    assert!(ahead > (AHEAD_S - 600) * 1_000_000_000, "the agent is a day ahead: {ahead} ns");
    // The truth, on the clock of everybody else: the master died after the agent set out and before its parent saw it.
    let died = nginx.find("its death", |line| line["ended"].as_i64());
    let since = Range { lo: set_out - AHEAD_S * 1_000_000_000, hi: died };
    let (told, truth) = (Range::of(&run.service("web")["recoveryFromFault"]), seen[0].until_up(since));
    assert!(told.meets(truth), "reported {told}, the truth is {truth}\n{}", run.story());
    eprintln!("a day ahead: recovery from fault reported {told}; seen {truth}");
    assert_eq!(run.undo_causes(), ["expired"], "its lease was renewed on its own clock");
}

const PAUSE: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
targets: { box: { select: "role=box" } }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: 5m }
recovery: { stableFor: 1s, giveUpAfter: 5s }
lease: 3s
"#;

fn a_controller_that_slept() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let crew = rig.go("box", "crew", stage::part(&["rest", "crew"])).ready();
    let before = Dump::of(&rig, "box");
    let going = rig.begin(PAUSE, &[]);
    going.event("active");
    rig.signal_controller(Signal::STOP);
    until("the crew goes on without the controller", || {
        rig.process("box", crew.pid()).is_some_and(|process| process["state"] == "S")
    });
    rig.signal_controller(Signal::CONT);
    let run = rig.finish(going);
    run.ended("error", 5);
    assert_eq!(run.undo_causes(), ["leaseLost"], "{}", run.story());
    rig.until_connected(&["box"]);
    Dump::of(&rig, "box").expect_same(&before);
    assert!(crew.runs());
    rig.stop();
}
