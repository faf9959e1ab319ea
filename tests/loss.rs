//! A third of the datagrams to a host vanish, and whoever sends them counts the same as the report says.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    history::number,
    residue::Dump,
    rig::{Going, LIMIT, Rig},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[Need::Lab, Need::Program("nft"), Need::Program("tc"), Need::Program("ip")];
    vec![trial("a_third_of_the_datagrams_is_lost", needs, a_third_of_the_datagrams_is_lost)]
}

/// Datagrams, one each millisecond.
const SENT: i64 = 3000;

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: lossy
targets:
  server: { select: "role=server" }
timeline:
  - id: lose
    at: 0s
    fault: { net-loss: { percent: 33%, to: ["10.77.0.0/16"], ports: ["7000-7010"], protocol: udp } }
    target: server
    for: 12s
"#;

fn a_third_of_the_datagrams_is_lost() {
    let rig = Rig::bare(&["server"]);
    rig.start_controller();
    let bare = Dump::of(&rig, "server");
    rig.join("server", &[("role", "server")]);
    rig.until_connected(&["server"]);
    // The sender's host has no agent: nobody on it knows of Fracas.
    let answering = rig.go("server", "answer", part(&["answer", "7007"])).ready();
    let address = format!("{}:7007", rig.address("server"));
    let count = |how_many: i64| {
        let said = Going::start(&rig.host("ctl"), part(&["count", &address, &how_many.to_string(), "1000"])).end(LIMIT);
        said.good().json().remove(0)
    };
    assert_eq!(count(300)["answered"], 300, "nothing is lost by itself");
    let before = Dump::of(&rig, "server");

    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    let counted = count(SENT);
    assert!(going.runs(), "all was sent before the loss was over");
    let run = rig.finish(going);

    run.ended("pass", 0);
    let measured = run.measured("lose", "loss");
    let told = measured["got"].as_f64().expect("a number");
    let lost = SENT - number(&counted, "/answered");
    let share = lost as f64 * 100.0 / SENT as f64;
    eprintln!("loss: asked 33 %, reported {told:.2} % of {}, counted {share:.2} % of {SENT}", measured["n"]);
    // The rule saw exactly what was sent, so both count the same datagrams; one per cent is for rounding and strays.
    assert_eq!(measured["n"].as_i64(), Some(SENT), "{measured}");
    assert!((share - told).abs() <= 0.1, "counted {share} %, told {told} %");
    // Five standard deviations of 3000 trials.
    let spread = 5.0 * (0.33_f64 * 0.67 / SENT as f64).sqrt() * 100.0;
    assert!((share - 33.0).abs() <= spread, "{share} % is not a third by chance");

    Dump::of(&rig, "server").expect_no_fault(&before);
    assert_eq!(count(300)["answered"], 300, "nothing is lost any more");
    // When the agent goes, nothing of it is left at all.
    rig.signal_agent("server", Signal::TERM);
    assert_eq!(rig.end_agent("server", LIMIT).code, 0);
    answering.kill();
    Dump::of(&rig, "server").expect_same(&bare);
    rig.stop();
}
