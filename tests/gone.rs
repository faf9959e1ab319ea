//! Agents that vanish in the middle of a run: killed, killed with their guard, frozen, cut off, or without power. The host
//! is freed each time, without anybody's help, and the run says what became of it.

use std::time::Duration;

use fracas_sim::{lab::LinkState, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    history::Run,
    residue::Dump,
    rig::{Going, LIMIT, Rig, timed, until, wait_for},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_killed_agent", &[Need::Lab], a_killed_agent),
        trial("a_killed_agent_with_its_guard", &[Need::Lab], a_killed_agent_with_its_guard),
        trial("a_killed_guard_is_replaced", &[Need::Lab], a_killed_guard_is_replaced),
        trial("a_frozen_agent", &[Need::Lab], a_frozen_agent),
        trial("a_cut_link_is_undone_by_the_lease", &[Need::Lab], a_cut_link_is_undone_by_the_lease),
        trial("a_short_cut_changes_nothing", &[Need::Lab], a_short_cut_changes_nothing),
        trial("a_host_without_power", &[Need::Lab], a_host_without_power),
        trial("a_host_that_never_comes_back", &[Need::Lab, Need::Time], a_host_that_never_comes_back),
    ]
}

/// The lease of these runs.
const LEASE: Duration = Duration::from_secs(3);
/// By how much longer than the agent a worker waits before it ends by itself.
const SLACK: Duration = Duration::from_secs(5);
/// How late a busy machine may be.
const LATE: Duration = Duration::from_secs(10);

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
parameters:
  length: { type: duration, default: 5m }
targets: { box: { select: "role=box" } }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: "${length}" }
recovery: { stableFor: 1s, giveUpAfter: 1s }
lease: 3s
"#;

/// A host with an agent and a crew that stands still under a run.
struct Stage {
    rig: Rig,
    crew: Going,
    run: Going,
    before: Dump,
}

impl Stage {
    fn set(words: &[&str]) -> Self {
        let rig = Rig::start(&[("box", &[("role", "box")])]);
        let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
        let before = Dump::of(&rig, "box");
        let run = rig.begin(DOCUMENT, words);
        run.event("active");
        let stage = Self { rig, crew, run, before };
        assert!(stage.stands(), "the crew stands still");
        stage
    }

    fn state(&self) -> String {
        let crew = self.rig.process("box", self.crew.pid()).expect("crew");
        crew["state"].as_str().unwrap_or_default().to_owned()
    }

    fn stands(&self) -> bool {
        ["t", "T"].contains(&self.state().as_str())
    }

    /// Waits until the crew goes on; how long that took.
    fn freed(&self) -> Duration {
        timed(|| until("the crew goes on", || !self.stands())).1
    }

    /// Processes of a name on the host.
    fn called(&self, name: &str) -> Vec<Value> {
        self.rig.processes("box").into_iter().filter(|process| process["name"] == name).collect()
    }

    /// Kills a process of the host that this test did not start itself.
    fn kill(&self, pid: &Value) {
        self.rig.shell("box", &format!("kill -9 {pid}"));
    }

    /// The agent is back and all is as it was; gives the run.
    fn end(self) -> Run {
        self.rig.until_connected(&["box"]);
        let run = self.rig.finish(self.run);
        Dump::of(&self.rig, "box").expect_same(&self.before);
        assert!(self.crew.runs(), "the crew came to no harm");
        self.rig.stop();
        run
    }
}

/// The run must have ended because its fault did, for this reason.
fn interrupted(run: &Run, cause: &str, words: &str) {
    run.ended("error", 5);
    assert_eq!(run.undo_causes(), [cause], "{}", run.story());
    assert!(run.reasons().contains(&format!("pause on box was interrupted: {words}")), "{}", run.reasons());
}

fn a_killed_agent() {
    let stage = Stage::set(&[]);
    stage.rig.signal_agent("box", Signal::KILL);
    let took = stage.freed();
    assert!(took < LEASE, "nobody waited for the lease: {took:?}");
    until("the guard has done its work and is gone", || stage.called("fracas-guard").is_empty());
    assert!(stage.run.runs(), "nobody has told the controller yet");
    stage.rig.start_agent("box");
    interrupted(&stage.end(), "agentRestart", "the agent was restarted");
}

fn a_killed_agent_with_its_guard() {
    let stage = Stage::set(&[]);
    let guard = stage.called("fracas-guard").remove(0);
    stage.kill(&guard["pid"]);
    stage.rig.signal_agent("box", Signal::KILL);
    let took = stage.freed();
    assert!(took < LEASE, "the kernel let it go: {took:?}");
    stage.rig.start_agent("box");
    interrupted(&stage.end(), "agentRestart", "the agent was restarted");
}

fn a_killed_guard_is_replaced() {
    let stage = Stage::set(&["--set", "length=8s"]);
    let guard = stage.called("fracas-guard").remove(0);
    stage.kill(&guard["pid"]);
    let fresh = wait_for("a new guard", || stage.called("fracas-guard").into_iter().find(|g| g["pid"] != guard["pid"]));
    assert!(stage.stands(), "the run goes on");
    // The new one is as good: agent and guard of now.
    assert_eq!(fresh["parent"], stage.rig.agent_pid("box"));
    stage.end().ended("pass", 0);
}

fn a_frozen_agent() {
    // As when the machine sleeps or its hypervisor takes it away: the agent does nothing, and then much time has passed.
    let stage = Stage::set(&[]);
    stage.rig.signal_agent("box", Signal::STOP);
    let took = stage.freed();
    assert!(took < LEASE + SLACK + LATE, "the worker ended by itself: {took:?}");
    stage.rig.signal_agent("box", Signal::CONT);
    let run = stage.end();
    run.ended("error", 5);
    assert_eq!(run.bodies("undone").len(), 1, "{}", run.story());
}

fn a_cut_link_is_undone_by_the_lease() {
    let stage = Stage::set(&[]);
    stage.rig.host("box").set_link(LinkState::Cut).expect("cut");
    let took = stage.freed();
    assert!(took < LEASE + LATE, "{took:?} after the cut");
    assert!(stage.run.runs(), "the controller cannot know yet");
    stage.rig.host("box").set_link(LinkState::Up).expect("up");
    let run = stage.end();
    interrupted(&run, "leaseLost", "contact with the controller was lost");
    assert!(run.bodies("hostContact").iter().any(|body| body["connected"] == false), "{}", run.story());
}

fn a_short_cut_changes_nothing() {
    let stage = Stage::set(&["--set", "length=8s"]);
    stage.rig.host("box").set_link(LinkState::Unplugged).expect("unplugged");
    // Well below the lease; the length of the cut is the point.
    std::thread::sleep(Duration::from_millis(700));
    stage.rig.host("box").set_link(LinkState::Up).expect("up");
    let run = stage.end();
    run.ended("pass", 0);
    assert_eq!(run.undo_causes(), ["expired"]);
}

fn a_host_without_power() {
    let stage = Stage::set(&[]);
    stage.rig.host("box").power_off().expect("off");
    stage.rig.lab.add_host("box").expect("on again");
    stage.rig.start_agent("box");
    stage.rig.until_connected(&["box"]);
    let Stage { rig, run, .. } = stage;
    let run = rig.finish(run);
    // The lab's hosts share one kernel, so this is no boot by its number; to the agent it is a restart.
    interrupted(&run, "agentRestart", "the agent was restarted");
    rig.stop();
}

fn a_host_that_never_comes_back() {
    let stage = Stage::set(&["--set", "length=10s"]);
    let Stage { rig, crew, run, before } = stage;
    rig.host("box").set_link(LinkState::Cut).expect("cut");
    let run = rig.finish(run);
    run.ended("undo-unconfirmed", 6);
    assert!(run.reasons().contains("pause on box: the host has not confirmed that it is clean"), "{}", run.reasons());
    let host = rig.hosts().remove("box").expect("box");
    assert_eq!((host["connected"].as_bool(), host["quarantined"].as_str()), (Some(false), Some(run.id.as_str())));
    assert!(rig.fracas(&["hosts"]).good().out.contains("QUARANTINED"), "a person sees it");
    let refused = rig.begin(DOCUMENT, &[]).end(LIMIT);
    assert!(refused.code == 7 && refused.err.contains("quarantined"), "{}", refused.text());

    // Back at last: it says that it is clean and is trusted again.
    rig.host("box").set_link(LinkState::Up).expect("up");
    until("it is released", || rig.hosts()["box"]["quarantined"] == "");
    let rerun = rig.run_with(DOCUMENT, &["--set", "length=1s"]);
    rerun.ended("pass", 0);
    Dump::of(&rig, "box").expect_same(&before);
    assert!(crew.runs());
    rig.stop();
}
