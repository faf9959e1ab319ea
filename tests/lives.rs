//! Who may go away while a run goes on: the command that started it, by Ctrl-C or worse, and the controller, in good order
//! or killed. The run lives in the history; nothing is lost with a process.

use std::{collections::BTreeSet, time::Duration};

use fracas_sim::{lab::LinkState, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    history::number,
    residue::Dump,
    rig::{DATA, Going, LIMIT, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("one_interrupt_stops_and_shows_the_undo", &[Need::Lab], one_interrupt_stops_and_shows_the_undo),
        trial("two_interrupts_leave_the_rest_to_the_controller", &[Need::Lab], two_interrupts_leave),
        trial("a_killed_command_stops_nothing", &[Need::Lab], a_killed_command_stops_nothing),
        trial("sigterm_drains_the_controller", &[Need::Lab], sigterm_drains_the_controller),
        trial("a_second_sigterm_does_not_wait", &[Need::Lab], a_second_sigterm_does_not_wait),
        trial("a_killed_controller_takes_its_runs_up_again", &[Need::Lab], a_killed_controller_takes_its_runs_up_again),
        trial("a_controller_that_is_away_for_long", &[Need::Lab], a_controller_that_is_away_for_long),
        trial("a_restored_controller_ends_what_it_does_not_know", &[Need::Lab], a_restored_controller_ends_it),
    ]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
parameters:
  length: { type: duration, default: 5m }
  lease: { type: duration, default: 15s }
targets: { box: { select: "role=box" } }
probes:
  crew: { process: { name: crew }, every: 200ms, timeout: 1s, from: box }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: "${length}" }
recovery: { stableFor: 1s, giveUpAfter: 5s }
lease: "${lease}"
"#;

/// A crew on a host with an agent.
struct Stage {
    rig: Rig,
    crew: Going,
    before: Dump,
}

impl Stage {
    fn set() -> Self {
        let rig = Rig::start(&[("box", &[("role", "box")])]);
        let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
        let before = Dump::of(&rig, "box");
        Self { rig, crew, before }
    }

    /// A run whose pause is in effect.
    fn begin(&self, words: &[&str]) -> Going {
        let going = self.rig.begin(DOCUMENT, words);
        going.event("active");
        assert!(self.stands());
        going
    }

    fn stands(&self) -> bool {
        let crew = self.rig.process("box", self.crew.pid()).expect("crew");
        ["t", "T"].iter().any(|state| crew["state"] == *state)
    }

    fn end(self) {
        until("the crew goes on", || !self.stands());
        self.rig.until_connected(&["box"]);
        Dump::of(&self.rig, "box").expect_same(&self.before);
        assert!(self.crew.runs());
        self.rig.stop();
    }
}

/// The summary of the newest run.
fn last(rig: &Rig) -> Value {
    rig.fracas(&["runs", "--output", "json"]).good().json().remove(0)["runs"][0].take()
}

fn one_interrupt_stops_and_shows_the_undo() {
    let stage = Stage::set();
    let going = stage.begin(&[]);
    going.signal(Signal::INT);
    let run = stage.rig.finish(going);
    run.ended("aborted", 4);
    assert!(run.reasons().contains("stop: stopped by admin: Ctrl-C"), "{}", run.reasons());
    assert_eq!(run.undo_causes(), ["notDesired"]);
    assert!(run.err.contains("stopping: everything is being undone; Ctrl-C again leaves"), "{}", run.err);
    // Its own command saw the undo before it ended.
    let undone = run.events.iter().position(|event| event["body"]["kind"] == "undone");
    assert!(undone < run.events.iter().position(|event| event["body"]["kind"] == "finished"));
    stage.end();
}

fn two_interrupts_leave() {
    let stage = Stage::set();
    let going = stage.begin(&[]);
    // The undo cannot be confirmed meanwhile.
    stage.rig.host("box").set_link(LinkState::Cut).expect("cut");
    going.signal(Signal::INT);
    going.event("stopRequested");
    going.signal(Signal::INT);
    let said = going.end(Duration::from_secs(20));
    assert_eq!(said.code, 130, "{}", said.text());
    assert!(said.err.contains("left with exit code 130; run "), "{}", said.err);
    assert!(said.err.contains("not yet undone: pause on box") && said.err.contains("fracas watch"), "{}", said.err);
    assert_ne!(last(&stage.rig)["state"], "finished", "the run goes on at the controller");
    stage.rig.host("box").set_link(LinkState::Up).expect("up");
    let watched = stage.rig.fracas(&["watch", "last", "--output", "json"]);
    assert_eq!(watched.code, 4, "{}", watched.text());
    stage.end();
}

fn a_killed_command_stops_nothing() {
    let stage = Stage::set();
    let going = stage.begin(&["--set", "length=6s"]);
    going.kill();
    assert!(stage.stands(), "the run goes on");
    let watched = stage.rig.fracas(&["watch", "last", "--output", "json"]);
    assert_eq!(watched.code, 0, "{}", watched.text());
    let seen: BTreeSet<u64> = watched.json().iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seen, (1..=seen.len() as u64).collect(), "the whole history, from its beginning");
    assert_eq!((last(&stage.rig)["verdict"].as_str(), last(&stage.rig)["exitCode"].as_u64()), (Some("pass"), Some(0)));
    stage.end();
}

fn a_restored_controller_ends_it() {
    let stage = Stage::set();
    let again = |deed: &str| {
        stage.rig.signal_controller(Signal::TERM);
        assert_eq!(stage.rig.end_controller(LIMIT).code, 0);
        stage.rig.shell("ctl", deed);
        stage.rig.start_controller();
        stage.rig.until_connected(&["box"]);
    };
    again(&format!("cp -a {DATA} /run/backup"));
    // One life more, so that the agent has taken orders of an epoch that the copy never reached.
    again("true");
    let going = stage.begin(&[]);
    stage.rig.kill_controller();
    stage.rig.shell("ctl", &format!("rm -rf {DATA} && cp -a /run/backup {DATA}"));
    stage.rig.start_controller();
    until("the crew goes on, since nobody wants otherwise", || !stage.stands());
    stage.rig.until_connected(&["box"]);
    assert!(stage.rig.controller_log().contains("epoch raised"), "it says why");
    let said = going.end(LIMIT);
    assert!(said.code == 5 && said.err.contains("no run"), "its run is unknown here: {}", said.text());
    // It drives the host as before.
    let run = stage.rig.run_with(DOCUMENT, &["--set", "length=1s"]);
    run.ended("pass", 0);
    stage.end();
}

fn sigterm_drains_the_controller() {
    let stage = Stage::set();
    // The usual controller waits for 30 s; this one is in a hurry.
    stage.rig.signal_controller(Signal::TERM);
    assert_eq!(stage.rig.end_controller(LIMIT).code, 0);
    stage.rig.start_controller_as(stage.rig.controller_program(DATA).args(["--drain", "4s"]));
    stage.rig.until_connected(&["box"]);

    // A short run ends by itself while the controller waits for it.
    let short = stage.begin(&["--set", "length=2s"]);
    stage.rig.signal_controller(Signal::TERM);
    let refused = stage.rig.begin(DOCUMENT, &[]).end(LIMIT);
    assert_eq!(refused.code, 7, "{}", refused.text());
    assert!(refused.err.contains("the controller is shutting down"), "{}", refused.err);
    Rig::finish_without_report(short).ended("pass", 0);
    assert_eq!(stage.rig.end_controller(LIMIT).code, 0);
    stage.rig.verify_data(DATA);

    // A long one is stopped and undone before the controller goes.
    stage.rig.start_controller_as(stage.rig.controller_program(DATA).args(["--drain", "1s"]));
    stage.rig.until_connected(&["box"]);
    let long = stage.begin(&[]);
    stage.rig.signal_controller(Signal::TERM);
    let run = Rig::finish_without_report(long);
    run.ended("aborted", 4);
    assert!(run.reasons().contains("stopped by controller: the controller is shutting down"), "{}", run.reasons());
    let ended = stage.rig.end_controller(LIMIT);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!stage.stands(), "all was undone by then");
    stage.rig.verify_data(DATA);
    stage.rig.start_controller();
    stage.end();
}

fn a_second_sigterm_does_not_wait() {
    let stage = Stage::set();
    let going = stage.begin(&["--set", "lease=3s"]);
    stage.rig.signal_controller(Signal::TERM);
    until("it waits", || stage.rig.controller_log().contains("waiting for runs to end"));
    stage.rig.signal_controller(Signal::TERM);
    let ended = stage.rig.end_controller(Duration::from_secs(20));
    assert_eq!(ended.code, 6, "a run was left open: {}", ended.err);
    assert!(ended.err.contains("runs were left open: their faults end with their leases"), "{}", ended.err);
    until("the lease ends the fault", || !stage.stands());
    stage.rig.start_controller();
    let run = stage.rig.finish(going);
    run.ended("error", 5);
    assert_eq!(run.undo_causes(), ["leaseLost"], "{}", run.story());
    stage.end();
}

fn a_killed_controller_takes_its_runs_up_again() {
    let stage = Stage::set();
    let going = stage.begin(&["--set", "length=10s"]);
    stage.rig.kill_controller();
    assert!(stage.stands(), "the agent holds it within the lease");
    stage.rig.start_controller();
    let run = stage.rig.finish(going);
    run.ended("pass", 0);
    assert_eq!(run.bodies("resumed").len(), 1, "{}", run.story());
    assert_eq!(run.undo_causes(), ["expired"]);
    // The command that watched saw each event once, in order, over both connections.
    let seen: Vec<u64> = run.events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    assert!(
        run.err.contains("connection lost") && run.err.contains("connection to the controller is back"),
        "{}",
        run.err
    );
    let (active, undone) = (run.body("active"), run.body("undone"));
    let lasted = number(undone, "/between/from/bootNs") - number(active, "/effective/to/bootNs");
    assert!(lasted >= 9_900_000_000, "it lasted as long as was asked: {lasted} ns");
    stage.end();
}

fn a_controller_that_is_away_for_long() {
    let stage = Stage::set();
    let going = stage.begin(&["--set", "lease=3s"]);
    stage.rig.kill_controller();
    until("the lease ends the fault", || !stage.stands());
    stage.rig.start_controller();
    let run = stage.rig.finish(going);
    run.ended("error", 5);
    assert_eq!(run.undo_causes(), ["leaseLost"], "{}", run.story());
    let waited = run.events.iter().filter(|event| event["body"]["kind"] == "resumed").count();
    assert_eq!(waited, 1);
    stage.end();
}
