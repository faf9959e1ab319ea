//! A disk of a lab host is filled under a run, as df has it, and free again, also after the agent is killed.

use std::time::Duration;

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    residue::Dump,
    rig::{Rig, timed, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_disk_is_filled_for_a_while", &[Need::Lab], filled),
        trial("a_filled_disk_is_free_again_when_the_agent_is_killed", &[Need::Lab], killed),
    ]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: disk-is-full
parameters:
  length: { type: duration, default: 2s }
targets:
  box: { select: "role=box" }
timeline:
  - id: fill
    at: 0s
    fault: { disk-fill: { path: /tmp, size: 100MiB } }
    target: box
    for: "${length}"
recovery: { stableFor: 1s, giveUpAfter: 10s }
"#;

/// MiB that are used of the host's disk in memory.
fn used(rig: &Rig) -> u64 {
    rig.shell("box", "df -B1M --output=used /tmp | tail -1").trim().parse().expect("a number")
}

fn filled() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let (before, empty) = (Dump::of(&rig, "box"), used(&rig));
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    assert_eq!(used(&rig), empty + 100);
    let run = rig.finish(going);
    run.ended("pass", 0);
    assert_eq!(run.item("fill")["proof"]["state"], "verified", "{}", run.story());
    assert_eq!(run.undo_causes(), ["expired"]);
    assert_eq!(used(&rig), empty);
    Dump::of(&rig, "box").expect_same(&before);
    // What would eat into the reserve is refused before anything is done.
    let greedy = rig.document("greedy", &DOCUMENT.replace("size: 100MiB", "left: 1MiB"));
    let said = rig.fracas(&["plan", &greedy]);
    assert_eq!(said.code, 7, "{}", said.text());
    assert!(said.text().contains("reserves"), "{}", said.text());
    rig.stop();
}

fn killed() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let (before, empty) = (Dump::of(&rig, "box"), used(&rig));
    let going = rig.begin(DOCUMENT, &["--set", "length=5m"]);
    going.event("active");
    assert_eq!(used(&rig), empty + 100);
    rig.signal_agent("box", Signal::KILL);
    let ((), took) = timed(|| until("the disk is free", || used(&rig) == empty));
    eprintln!("100 MiB free {took:?} after SIGKILL of the agent");
    assert!(took < Duration::from_secs(10), "nobody waited for the lease: {took:?}");
    rig.start_agent("box");
    rig.until_connected(&["box"]);
    let run = rig.finish(going);
    assert_eq!(run.undo_causes(), ["agentRestart"], "{}", run.story());
    Dump::of(&rig, "box").expect_same(&before);
    rig.stop();
}
