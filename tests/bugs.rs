//! A bug in each task of the agent in turn, while faults are active: whatever breaks, the host is as it was and the run
//! does not pass. A bug in a task of the agent ends the agent, and its guard undoes; one in a worker ends that worker, and
//! the agent undoes.

use fracas_agent::crash::{REACHED, TASKS, VARIABLE};
use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{
    residue::Dump,
    rig::{Going, LIMIT, RUN_LIMIT, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[Need::Lab, Need::Program("nft"), Need::Program("tc"), Need::Program("ip")];
    vec![trial("a_bug_in_any_task_leaves_nothing", needs, a_bug_in_any_task_leaves_nothing)]
}

/// The file with the order, on the host.
const ORDER: &str = "/run/bug";
/// The exit code that an end by SIGABRT is told as.
const ABORTED: i32 = 128 + 6;

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: everything-at-once
targets: { box: { select: "role=box" } }
probes:
  crew: { process: { name: crew }, every: 100ms, timeout: 1s, from: box }
timeline:
  - { id: lose, at: 0s, fault: { net-loss: { percent: 100%, ports: [7007], protocol: udp } }, target: box, for: 60s }
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: 60s }
  - { id: load, at: 0s, fault: { cpu-load: { percent: 5%, cores: 1, mode: total } }, target: box, for: 60s }
  - { id: fill, at: 0s, fault: { disk-fill: { path: /run/small, size: 1MiB } }, target: box, for: 60s }
  - { id: replace, at: 0s, fault: { file-replace: { path: /run/etc/conf, content: "broken" } }, target: box, for: 60s }
  - { id: kill, at: 1s, fault: { process-kill: { name: victim } }, target: box }
recovery: { stableFor: 1s, giveUpAfter: 5s }
lease: 3s
"#;

/// Faults that are active when the bug strikes.
const LASTING: usize = 5;

/// Where a bug strikes, from the pass with this number on: those of the last part strike while the run begins.
const CASES: &[(&str, &str, u64)] = &[
    ("task-reconcile", "agent", 1),
    ("task-session", "agent", 1),
    ("task-upward", "agent", 1),
    ("task-assure", "agent", 1),
    ("task-watch", "agent", 1),
    ("task-probe", "agent", 1),
    ("task-disk", "agent", 1),
    ("task-net", "net", 1),
    ("task-burn", "burn", 1),
    ("task-steer", "burn", 1),
    ("task-fill", "fill", 1),
    ("task-orders", "burn", 1),
    ("task-orders", "fill", 1),
    ("task-orders", "seize", 1),
    ("task-orders", "guard", 1),
    // When the file is put back, for the run is stopped then.
    ("task-aside", "agent", 1),
    ("task-exit", "agent", 1),
    // The third worker, the second word to the probes.
    ("task-spawner", "agent", 3),
    ("task-probes", "agent", 2),
];

/// Those that strike while the run begins.
const EARLY: [&str; 3] = ["task-exit", "task-spawner", "task-probes"];

fn a_bug_in_any_task_leaves_nothing() {
    for (_, task) in TASKS {
        assert!(CASES.iter().any(|(known, ..)| known == task), "no case for {task}");
    }
    let rig = Rig::bare(&["box"]);
    rig.start_controller();
    rig.shell(
        "box",
        "mkdir -p /run/small /run/etc && mount -t tmpfs -o size=128m small /run/small && echo whole > /run/etc/conf",
    );
    let agent = || rig.agent_program("box").env(VARIABLE, ORDER);
    let token = rig.token(&[("role", "box")]);
    rig.start_agent_as("box", agent().env("FRACAS_JOIN_TOKEN", token));
    rig.until_connected(&["box"]);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let mut before = Dump::of(&rig, "box");
    for (number, (task, who, nth)) in CASES.iter().enumerate() {
        let victim = rig.go("box", "victim", part(&["rest", "victim"])).ready();
        let said = format!("case {number}: a bug in {task} of {who}");
        let order = format!("{task}:{nth}:{who}:panic:{number}");
        let early = EARLY.contains(task);
        if early {
            rig.keep("box", ORDER, &order);
        }
        let going = rig.begin(DOCUMENT, &[]);
        if !early {
            let mut active = std::collections::BTreeSet::new();
            while active.len() < LASTING {
                let seen = active.clone();
                let body = going.event_with("active", |body| !seen.contains(&body["item"]["entry"].to_string()));
                active.insert(body["item"]["entry"].to_string());
            }
            rig.keep("box", ORDER, &order);
        }
        if *task == "task-aside" {
            going.interrupt();
        }
        until(&format!("{said} strikes"), || exists(&rig, &format!("{ORDER}{REACHED}")));
        rig.shell("box", &format!("rm -f {ORDER} {ORDER}{REACHED}"));
        let dies = *who == "agent";
        if dies {
            let ended = rig.end_agent("box", LIMIT);
            assert_eq!(ended.code, ABORTED, "{said}: {}", ended.text());
            assert!(ended.err.contains("asked by the test switch"), "{said}: {}", ended.err);
            // Before anybody starts the agent again: this is the guard's work.
            until(&format!("{said}: the guard undid all"), || nothing_open(&rig));
            rig.start_agent_as("box", agent());
            assert!(rig.agent_reports("box"), "{said}: the agent does not start");
        }
        victim.kill();
        finish(&said, going, *who == "guard");
        if dies {
            // The agent that died cannot be the one of before.
            let now = Dump::of(&rig, "box");
            now.expect_no_fault(&before);
            before = now;
        } else {
            Dump::of(&rig, "box").expect_no_fault(&before);
        }
        assert!(crew.runs(), "{said}");
        eprintln!("{said}: nothing is left");
    }
    rig.shell("box", "umount /run/small");
    rig.stop();
}

fn exists(rig: &Rig, path: &str) -> bool {
    rig.shell("box", &format!("test -e {path} && echo yes || true")).trim() == "yes"
}

fn nothing_open(rig: &Rig) -> bool {
    let status = rig.say("box", part(&["fracas", "agent", "status", "--state-dir", crate::rig::STATE]));
    status.code == 0 && status.out.contains("open     nothing")
}

/// A run that lost a fault is no proof of anything, and says so; one that lost only its guard goes on, and is stopped.
fn finish(said: &str, going: Going, goes_on: bool) {
    if goes_on {
        going.interrupt();
    }
    let ended = going.end(RUN_LIMIT);
    assert!([3, 4, 5].contains(&ended.code), "{said}: {} {}", ended.code, ended.err);
}
