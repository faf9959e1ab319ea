//! What can go wrong around a fault: its target dies and another process gets the number, its device disappears, somebody
//! sets the clock. Nobody else is hit, the host is as it was, and the run says what happened.

use std::time::Duration;

use fracas_agent::crash::{REACHED, VARIABLE};
use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::{
    process::Signal,
    time::{ClockId, Timespec, clock_gettime, clock_settime},
};

use crate::{
    history::{Run, nanoseconds},
    residue::Dump,
    rig::{Going, LIMIT, Rig, timed, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Need::Lab, Need::Program("ip"), Need::Program("tc"), Need::Program("nft")];
    let mut trials = vec![
        trial("a_number_that_went_to_another_process_is_not_signalled", &[Need::Lab], numbers),
        trial("a_device_that_disappears_takes_its_fault_along", lab, device),
    ];
    // The clock is the machine's, and no namespace has one of its own: only a virtual machine may lose it.
    if std::env::var_os(crate::guest::VARIABLE).is_some() {
        trials.push(trial("a_clock_that_is_set_changes_no_length", &[Need::Lab], clock));
    }
    trials
}

/// Where the order to stop is kept on the host.
const ORDER: &str = "/run/data/agent.crash";

const HIT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: hit
targets: { box: { select: "role=box" } }
timeline:
  - { id: hit, at: 0s, fault: { FAULT: { name: victim } }, target: box LENGTH }
recovery: { stableFor: 1s, giveUpAfter: 2s }
lease: 10s
"#;

fn numbers() {
    let rig = Rig::bare(&["box"]);
    rig.start_controller();
    let token = rig.token(&[("role", "box")]);
    let agent = rig.agent_program("box").env(VARIABLE, ORDER).env("FRACAS_JOIN_TOKEN", token);
    rig.start_agent_as("box", agent);
    rig.until_connected(&["box"]);
    for (n, (fault, length)) in [("process-kill", ""), ("process-pause", ", for: 2s")].into_iter().enumerate() {
        let victim = rig.go("box", "victim", part(&["rest", "victim"])).ready();
        let pid = victim.pid();
        // The agent stops itself when the plan is in the journal, with the number in it, and nothing is done yet.
        rig.keep("box", ORDER, &format!("after-step-record:1:agent:stop:{n}"));
        let run = rig.begin(&HIT.replace("FAULT", fault).replace("LENGTH", length), &[]);
        let stopped = || rig.process("box", rig.agent_pid("box")).is_some_and(|agent| agent["state"] == "T");
        until("the agent is about to do it", stopped);
        victim.kill();
        let reborn = rig.go("box", "reborn", part(&["reborn", &pid.to_string(), "newcomer"]));
        reborn.find("the newcomer", |line| (line["reborn"] == pid).then_some(()));
        let newcomer = || rig.process("box", pid);
        until("the newcomer rests", || newcomer().is_some_and(|it| it["name"] == "newcomer" && it["state"] == "S"));
        let began = rig.shell("box", &format!("cut -d' ' -f22 /proc/{pid}/stat; rm -f {ORDER} {ORDER}{REACHED}"));
        rig.signal_agent("box", Signal::CONT);
        let run = rig.finish(run);
        // It is the same one, it runs, and nobody stopped it for a while either: no signal ever came.
        let lives = newcomer().unwrap_or_else(|| panic!("{fault} hit the newcomer\n{}", run.story()));
        assert_eq!((lives["name"].as_str(), lives["state"].as_str()), (Some("newcomer"), Some("S")), "{}", run.story());
        assert_eq!(rig.shell("box", &format!("cut -d' ' -f22 /proc/{pid}/stat")), began);
        eprintln!("{fault}: {} {}", run.result["verdict"], run.reasons());
        assert!(run.reasons().contains(&format!("victim (pid {pid}) is gone")), "{}\n{}", run.reasons(), run.story());
        assert_ne!(run.code, 0, "{}", run.story());
        assert!(run.bodies("active").is_empty(), "{}", run.story());
        rig.shell("box", &format!("kill -9 {pid}"));
        reborn.end(LIMIT);
    }
    rig.stop();
}

const SLOW_DEVICE: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: device-goes
targets: { box: { select: "role=box" } }
timeline:
  - { id: slow, at: 0s, fault: { net-delay: { delay: 100ms, device: gone0 } }, target: box, for: 4s, required: false }
  - { id: lossy, at: 0s, fault: { net-loss: { percent: 50%, device: gone0, direction: egress } }, target: box, for: 4s, required: false }
  - { id: other, at: 0s, fault: { net-loss: { percent: 50%, device: stays0 } }, target: box, for: 4s, required: false }
recovery: { stableFor: 1s, giveUpAfter: 2s }
lease: 10s
"#;

fn device() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.shell("box", "ip link add stays0 type ifb; ip link set stays0 up");
    let before = Dump::of(&rig, "box");
    rig.shell("box", "ip link add gone0 type ifb; ip link set gone0 up");
    // In good order; and with the agent dead, whose guard then undoes what is not there.
    for killed in [false, true] {
        if killed {
            rig.shell("box", "ip link add gone0 type ifb; ip link set gone0 up");
        }
        let run = rig.begin(SLOW_DEVICE, &[]);
        for entry in ["slow", "lossy", "other"] {
            run.event_with("active", |body| body["item"]["entry"] == entry);
        }
        rig.shell("box", "ip link del gone0");
        if killed {
            rig.signal_agent("box", Signal::KILL);
            rig.end_agent("box", LIMIT);
            rig.start_agent("box");
        }
        let run = rig.finish(run);
        eprintln!("device gone, agent killed {killed}: {} {}", run.result["verdict"], run.reasons());
        assert!(!run.reasons().contains("unconfirmed"), "{}\n{}", run.reasons(), run.story());
        assert_eq!(run.bodies("undone").len(), 3, "{}", run.story());
        rig.until_connected(&["box"]);
        Dump::of(&rig, "box").expect_no_fault(&before);
    }
    rig.stop();
}

const STILL: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: still
targets: { box: { select: "role=box" } }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: 6s }
recovery: { stableFor: 1s, giveUpAfter: 2s }
lease: 4s
"#;

/// How far the clock is set, seconds: forward, then further back.
const STEPS: [i64; 2] = [5 * 3600, -9 * 3600];

/// Sets the machine's clock by so many seconds.
fn set_clock(by_s: i64) {
    let now = clock_gettime(ClockId::Realtime);
    let time = Timespec { tv_sec: now.tv_sec + by_s, tv_nsec: now.tv_nsec };
    clock_settime(ClockId::Realtime, time).expect("the clock is ours to set");
}

fn clock() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let stands = || rig.process("box", crew.pid()).is_some_and(|it| it["state"] == "T" || it["state"] == "t");
    let before = Dump::of(&rig, "box");
    for by_s in STEPS {
        let run = rig.begin(STILL, &[]);
        run.event("active");
        let ((), stood) = timed(|| {
            set_clock(by_s);
            // The plant: a dump that did not see this would see no fault on the clock.
            before.expect_change(&Dump::of(&rig, "box"), "clock");
            until("the crew goes on", || !stands());
        });
        set_clock(-by_s);
        let run = rig.finish(run);
        let lasted = nanoseconds(&run.item("pause")["lasted"]);
        eprintln!("clock set by {by_s} s: stood still {stood:?}, lasted {lasted} ns: {}", run.reasons());
        assert_eq!(run.undo_causes(), ["expired"], "its lease was renewed all the time\n{}", run.story());
        assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&stood), "{stood:?}\n{}", run.story());
        Dump::of(&rig, "box").expect_same(&before);
    }
    // And with the contact lost: the lease runs out after its length, whatever the clock says.
    let run = rig.begin(STILL, &[]);
    run.event("active");
    rig.signal_controller(Signal::STOP);
    set_clock(STEPS[1]);
    let ((), stood) = timed(|| until("the lease runs out", || !stands()));
    set_clock(-STEPS[1]);
    rig.signal_controller(Signal::CONT);
    assert!(stood < Duration::from_millis(5500), "a lease of 4 s ran out after {stood:?}");
    eprintln!("clock set back with the controller stopped: free after {stood:?}");
    leave(rig, run, &before);
}

fn leave(rig: Rig, run: Going, before: &Dump) {
    let run: Run = rig.finish(run);
    assert_eq!(run.undo_causes(), ["leaseLost"], "{}", run.story());
    rig.until_connected(&["box"]);
    Dump::of(&rig, "box").expect_same(before);
    rig.stop();
}
