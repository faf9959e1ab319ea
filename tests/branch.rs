//! Nobody saws off the branch: all packets of a host are lost both ways, and its agent keeps its lease, a session on port 22
//! lives, and the fault ends when its time is up and not before.
//!
//! `FRACAS_LOSS_SECONDS=120` makes it last as long as a person would.

use std::time::Duration;

use fracas_sim::{lab::Stream, need::Need};
use libtest_mimic::Trial;

use crate::{
    controller_trial::given,
    history::number,
    rig::{Going, LIMIT, Rig},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_lost_network_loses_neither_the_lease_nor_ssh", &[Need::Lab], a_lost_network)]
}

/// How long unless told: several leases.
const SECONDS: u64 = 8;
/// The longest pause of the session: TCP's shortest time to send again is 0.2 s, and a busy machine adds to that.
const PAUSE: Duration = Duration::from_secs(2);

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: cut-off
parameters:
  length: { type: duration, default: 8s }
targets: { box: { select: "role=box" } }
timeline:
  - { id: in, at: 0s, fault: { net-loss: { percent: 100%, direction: ingress } }, target: box, for: "${length}" }
  - { id: out, at: 0s, fault: { net-loss: { percent: 100%, direction: egress } }, target: box, for: "${length}" }
recovery: { stableFor: 1s, giveUpAfter: 5s }
lease: 2s
"#;

fn a_lost_network() {
    let seconds = given("FRACAS_LOSS_SECONDS").unwrap_or(SECONDS);
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let address = rig.address("box");
    let ssh = rig.go("box", "echo", part(&["echo", "0.0.0.0:22"])).ready();
    let other = rig.go("box", "answer", part(&["answer", "7007"])).ready();
    let far = rig.go("ctl", "answer", part(&["answer", "7007"])).ready();
    let count = |from: &str, to: &str, how_many: u64| {
        let words = ["count", &format!("{}:7007", rig.address(to)), &how_many.to_string(), "1000"];
        number(&Going::start(&rig.host(from), part(&words)).end(LIMIT).good().json()[0], "/answered")
    };
    assert_eq!((count("ctl", "box", 100), count("box", "ctl", 100)), (100, 100));
    let mut session =
        rig.go("ctl", "session", part(&["session", &format!("{address}:22")]).stdin(Stream::Pipe)).ready();
    let going = rig.begin(DOCUMENT, &["--set", &format!("length={seconds}s")]);
    going.event_with("active", |body| body["item"]["entry"] == "in");
    going.event_with("active", |body| body["item"]["entry"] == "out");
    assert_eq!((count("ctl", "box", 200), count("box", "ctl", 200)), (0, 0), "everything else is lost");
    // A new connection to port 22 comes through as well, in the middle of it.
    let mut fresh = rig.go("ctl", "session", part(&["session", &format!("{address}:22")]).stdin(Stream::Pipe)).ready();
    assert!(going.runs(), "all that happened under the fault");
    let run = rig.finish(going);
    run.ended("pass", 0);
    // Not by a lease that was lost.
    assert_eq!(run.undo_causes(), ["expired", "expired"], "{}", run.story());
    session.close();
    let said = session.end(LIMIT).json().pop().expect("a word");
    let (beats, longest) = (number(&said, "/beats"), number(&said, "/longestNs"));
    eprintln!(
        "session on port 22 under total loss of {seconds} s: {beats} bytes there and back, longest {:.0} ms",
        longest as f64 / 1e6
    );
    assert!(beats as u64 > seconds * 10 && longest < PAUSE.as_nanos() as i64, "{said}");
    fresh.close();
    assert!(number(&fresh.end(LIMIT).json().pop().expect("a word"), "/beats") > 10);
    assert_eq!((count("ctl", "box", 100), count("box", "ctl", 100)), (100, 100));
    for answering in [ssh, other, far] {
        answering.kill();
    }
    rig.stop();
}
