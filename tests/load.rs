//! A core is loaded by half; what the burning process really used, read from `/proc` by the test, is what the report says.

use std::time::Duration;

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    history::number,
    residue::Dump,
    rig::{Rig, wait_for},
    stage, trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("half_a_core_is_burned", &[Need::Lab], half_a_core_is_burned)]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: half-a-core
targets:
  box: { select: "role=box" }
timeline:
  - id: burn
    at: 0s
    fault: { cpu-load: { percent: 50%, cores: 1 } }
    target: box
    for: 8s
    required: false
"#;

/// `/proc` counts in hundredths of a second on every Linux.
const TICKS: f64 = 100.0;
fn half_a_core_is_burned() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let before = Dump::of(&rig, "box");
    let at_rest = rig.processes("box");
    let going = rig.begin(DOCUMENT, &[]);
    let begun = number(&going.event("active"), "/effective/to/bootNs");
    let fresh = |process: &Value| at_rest.iter().all(|p| p["pid"] != process["pid"]);
    // Whoever is new and burns: the test does not know the worker's name. Its last sight counts all it ever used.
    let mut last = None;
    wait_for("the burning to be over", || {
        let now = rig.processes("box");
        let burned: i64 = now.iter().filter(|process| fresh(process)).map(|process| number(process, "/ticks")).sum();
        if burned > 0 {
            last = Some((stage::boot_ns(), burned));
        }
        (burned == 0 && last.is_some()).then_some(())
    });
    let (ended, ticks) = last.expect("somebody burned");
    let burned = ticks as f64 / TICKS * 1e9 / (ended - begun) as f64 * 100.0;
    let run = rig.finish(going);

    run.ended("pass", 0);
    let measured = run.measured("burn", "core load");
    let told = measured["got"].as_f64().expect("a number");
    let proof = &run.item("burn")["proof"]["state"];
    eprintln!(
        "cpu: asked 50 %, reported {told:.2} % ({proof}), used {burned:.2} % in {:?}",
        Duration::from_nanos((ended - begun) as u64)
    );
    assert!(ended - begun >= 6_000_000_000, "most of the eight seconds were seen");
    // Both looked from the beginning, and for the last time shortly before the end.
    assert!((burned - told).abs() <= 5.0, "used {burned} %, told {told} %");
    if proof == "verified" {
        assert!((burned - 50.0).abs() <= 8.0, "said to be verified, used {burned} %");
    }
    Dump::of(&rig, "box").expect_same(&before);
    rig.stop();
}
