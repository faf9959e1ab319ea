//! The agent, its guard and its workers die in every way a service can, with faults on: each time the host is itself again,
//! and so is the agent.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    faults::{LONG, PAGE, PEER, STOPPED, begin, document, reached, room},
    guest::{Case, Going, pull_the_plug, say, until},
    look::{AGENT, active, answers, main_pid, ours, restarts, workers},
};

/// In this order.
pub(crate) const TRIALS: &[Case] = &[
    ("agent_killed_with_faults_active", agent_killed),
    ("agent_and_guard_killed", both_killed),
    ("worker_killed_for_want_of_memory", out_of_memory),
    ("agent_stopped_by_a_signal", halted),
    ("service_stopped_with_faults_active", service_stopped),
    ("restart_of_the_machine_with_faults_active", machine_restarts),
    ("after_the_restart_everything_is_undone", after_restart),
];

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a number"), signal).expect("it is there");
}

/// All the kinds of fault at once, active.
struct Everything {
    going: Going,
    room: u64,
}

impl Everything {
    fn begin() -> Self {
        connected();
        let room = room();
        let faults = [
            ("page", format!("file-replace: {{ path: {PAGE}, content: broken }}")),
            ("unit", format!("service-stop: {{ unit: {} }}", STOPPED.0)),
            ("disk", "disk-fill: { path: /opt, size: 60MB }".to_owned()),
            ("net", format!("net-loss: {{ percent: 100%, to: [{PEER}/32] }}")),
            ("pause", "process-pause: { port: 8080 }".to_owned()),
            ("cpu", "cpu-load: { percent: 20% }".to_owned()),
        ];
        let faults: Vec<(&str, &str)> = faults.iter().map(|(id, fault)| (*id, fault.as_str())).collect();
        let going = begin(&document(&faults, Some(LONG)));
        let all = Self { going, room };
        until("all faults are on", || all.on() == 5);
        until("the processor is loaded", || !workers("burn").is_empty());
        all
    }

    /// How many of those that can be seen without waiting are on.
    fn on(&self) -> usize {
        [
            fs::read_to_string(PAGE).is_ok_and(|text| text == "broken"),
            !active(STOPPED.0),
            self.room.saturating_sub(room()) > 50_000_000,
            !reached(),
            answers(8080).is_none(),
        ]
        .into_iter()
        .filter(|on| *on)
        .count()
    }

    /// Until none is, and what only the agent's own processes show.
    fn gone(&self) -> Duration {
        until("all faults are undone", || self.on() == 0 && answers(STOPPED.1).is_some())
    }

    /// The run ends by itself, as not passed, since its faults were cut short.
    fn ended(self) {
        let said = self.going.end();
        assert_ne!(said.code, 0, "{}", said.out);
        assert_ne!(said.code, 6, "everything was undone: {}", said.out);
    }
}

/// Whether the agent is in contact with its controller.
pub(crate) fn connected() {
    until("the agent is in contact", || {
        let hosts = say("/usr/local/bin/fracas", &["hosts", "--output", "json"]);
        hosts.out.contains("\"guest\"") && !hosts.out.contains("\"connected\":false")
    });
}

fn back(before: i32) {
    until("the agent is back", || active(AGENT) && main_pid(AGENT) != before);
    connected();
}

fn agent_killed() {
    let all = Everything::begin();
    let (pid, restarted) = (main_pid(AGENT), restarts(AGENT));
    signal(pid, Signal::KILL);
    println!("all undone {:.2?} after SIGKILL of the agent", all.gone());
    back(pid);
    assert_eq!(restarts(AGENT), restarted + 1);
    all.ended();
}

fn both_killed() {
    let all = Everything::begin();
    let pid = main_pid(AGENT);
    let guard = workers("guard");
    assert_eq!(guard.len(), 1, "{:?}", ours());
    signal(guard[0], Signal::STOP);
    signal(pid, Signal::KILL);
    signal(guard[0], Signal::KILL);
    println!("all undone {:.2?} after SIGKILL of agent and guard", all.gone());
    back(pid);
    all.ended();
}

fn out_of_memory() {
    connected();
    let (pid, restarted) = (main_pid(AGENT), restarts(AGENT));
    let going = begin(&document(&[("it", "cpu-load: { percent: 20% }")], Some(LONG)));
    until("the processor is loaded", || !workers("burn").is_empty());
    going.event("active");
    let worker = workers("burn");
    // The kernel chooses its victim as when memory is short.
    fs::write("/proc/sysrq-trigger", "f").expect("sysrq");
    until("the kernel killed the worker", || workers("burn") != worker);
    let said = going.end();
    assert!(said.code != 0 && said.code != 6, "{}", said.out);
    assert!(said.out.contains("burn worker") && said.out.contains("SIGKILL"), "it is told: {}", said.out);
    assert_eq!((main_pid(AGENT), restarts(AGENT)), (pid, restarted), "the agent lives");
    assert!(active(AGENT));
    let log = say("/bin/journalctl", &["--no-pager", "-k", "-b", "-o", "cat"]).good();
    assert!(log.contains("Out of memory: Killed process") && log.contains("(fracas-burn)"), "{log}");
    assert_eq!(crate::look::property(AGENT, "OOMPolicy"), "continue");
}

fn halted() {
    let all = Everything::begin();
    let pid = main_pid(AGENT);
    signal(pid, Signal::STOP);
    println!("all undone {:.2?} after SIGSTOP of the agent", all.gone());
    back(pid);
    all.ended();
    // The same with nothing open, where only systemd minds.
    let pid = main_pid(AGENT);
    signal(pid, Signal::STOP);
    println!(
        "an idle agent that hangs is another after {:.2?}",
        until("the watchdog bites", || main_pid(AGENT) != pid)
    );
    back(pid);
}

fn service_stopped() {
    let all = Everything::begin();
    say("/bin/systemctl", &["stop", AGENT]).good();
    assert_eq!(all.on(), 0, "whoever stops it waits until all is undone");
    assert_eq!(ours(), []);
    assert_eq!(crate::look::property(AGENT, "Result"), "success");
    say("/bin/systemctl", &["start", AGENT]).good();
    all.ended();
}

fn machine_restarts() {
    let all = Everything::begin();
    assert!(all.going.pid() > 0);
    pull_the_plug("restart_of_the_machine_with_faults_active");
}

fn after_restart() {
    // As boot would: the trials' own services are not enabled.
    say("/bin/systemctl", &["start", "fracas-controller.service", "victim@8080.service"]).good();
    crate::setup::cable();
    assert_eq!(fs::read_to_string(PAGE).expect("the page"), "as it was\n");
    until("the agent is there", || active(AGENT));
    connected();
    assert_eq!(say("/usr/local/bin/fracas-agent", &["status"]).code, 0);
}
