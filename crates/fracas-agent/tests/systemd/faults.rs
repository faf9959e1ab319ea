//! Each fault through the installed service and a real controller, its effect seen by others: the service's walls let it do
//! what it is for.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{
    guest::{Case, Going, Said, say, until},
    look::{AGENT, active, answers, main_pid, property, restarts},
};

/// In this order.
pub(crate) const TRIALS: &[Case] = &[
    ("fault_process_kill", kill),
    ("fault_process_pause", pause),
    ("fault_net_delay_by_netem", || delay("netem")),
    ("fault_net_delay_by_owned_rules", || delay("owned")),
    ("fault_net_loss_by_netem", || loss("netem")),
    ("fault_net_loss_by_owned_rules", || loss("owned")),
    ("fault_disk_fill", fill),
    ("fault_file_replace", replace),
    ("fault_service_stop", stop),
    ("fault_service_stop_without_a_bus", stop_without_bus),
    ("fault_service_stop_and_a_quick_restart_as_systemd_unit_sees_them", seen),
    ("fault_cpu_load_does_not_starve_the_agent", load),
];

/// A file to be replaced.
pub(crate) const PAGE: &str = "/opt/page";
/// The host behind the cable.
pub(crate) const PEER: &str = "10.9.0.2";
/// The unit to be stopped, and its port.
pub(crate) const STOPPED: (&str, u16) = ("victim@8081.service", 8081);
/// Length of a fault that is to be ended by something else than its time.
pub(crate) const LONG: &str = "10m";

/// An experiment on this host: each entry's id and fault, all at once for so long. Without a length they are spent at once.
pub(crate) fn document(faults: &[(&str, &str)], length: Option<&str>) -> String {
    let mut text = String::from(
        "apiVersion: fracas/v1\nkind: Experiment\nname: trial\ntargets: { guest: { select: \"role=guest\" } }\ntimeline:\n",
    );
    let length = length.map(|length| format!(", for: {length}")).unwrap_or_default();
    for (id, fault) in faults {
        text += &format!("  - {{ id: {id}, at: 0s, fault: {{ {fault} }}, target: guest{length} }}\n");
    }
    text += "recovery: { stableFor: 1s, giveUpAfter: 1s }\n";
    text
}

/// Starts a run.
pub(crate) fn begin(document: &str) -> Going {
    fs::write("/run/trial.yaml", document).expect("a file");
    Going::start("/usr/local/bin/fracas", &["run", "/run/trial.yaml", "--yes", "--output", "json"])
}

/// The run must have passed: its fault was verified, and everything is undone.
fn passed(said: &Said) {
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(said.out.contains("\"verified\""), "{}", said.out);
}

fn kill() {
    let before = answers(8080).expect("the victim answers");
    passed(&begin(&document(&[("it", "process-kill: { port: 8080 }")], None)).end());
    until("systemd has started it again", || answers(8080).is_some_and(|pid| pid != before));
}

fn pause() {
    let before = answers(8080).expect("the victim answers");
    let going = begin(&document(&[("it", "process-pause: { port: 8080 }")], Some("4s")));
    until("it answers no more", || answers(8080).is_none());
    passed(&going.end());
    assert_eq!(answers(8080), Some(before));
}

/// Round trips of some pings to the peer, in milliseconds. By the clock of ping (`-U`): the kernel stamps an answer when it
/// comes in at the device, which is before any rule holds it.
fn pings() -> Vec<f64> {
    let said = say("/bin/ping", &["-n", "-U", "-c", "4", "-i", "0.2", "-W", "3", PEER]);
    let times = said.out.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok());
    times.collect()
}

/// Whether one ping to the peer comes back.
pub(crate) fn reached() -> bool {
    say("/bin/ping", &["-n", "-c", "1", "-W", "1", PEER]).code == 0
}

fn delay(mechanism: &str) {
    // Far above what an emulated machine on a busy one adds.
    let fault = format!("net-delay: {{ delay: 1s, to: [{PEER}/32], mechanism: {mechanism} }}");
    let quick = || pings().iter().filter(|ms| **ms < 700.0).count() == 4;
    until("pings are quick", quick);
    let going = begin(&document(&[("it", &fault)], Some("10s")));
    let mut slow = Vec::new();
    until("all pings are slow", || {
        slow = pings();
        slow.len() == 4 && slow.iter().all(|ms| *ms >= 1000.0)
    });
    println!("1 s asked by {mechanism}, pings saw {slow:?}");
    passed(&going.end());
    until("pings are quick again", quick);
}

fn loss(mechanism: &str) {
    let fault = format!("net-loss: {{ percent: 100%, to: [{PEER}/32], mechanism: {mechanism} }}");
    until("all pings come back", || pings().len() == 4);
    let going = begin(&document(&[("it", &fault)], Some("10s")));
    until("no ping comes back", || pings().is_empty());
    passed(&going.end());
    until("all pings come back", || pings().len() == 4);
}

/// Bytes that programs without privilege may still write where the trials' files are.
pub(crate) fn room() -> u64 {
    let seen = rustix::fs::statvfs("/opt").expect("a file system");
    seen.f_bavail * seen.f_frsize
}

fn fill() {
    let before = room();
    let going = begin(&document(&[("it", "disk-fill: { path: /opt, size: 60MB }")], Some("3s")));
    until("the room is gone", || before.saturating_sub(room()) > 55_000_000);
    passed(&going.end());
    // The journal of the host goes on growing.
    assert!(room() + 20_000_000 > before, "{before} {}", room());
}

fn replace() {
    let read = || fs::read_to_string(PAGE).expect("the page");
    assert_eq!(read(), "as it was\n");
    let going = begin(&document(&[("it", &format!("file-replace: {{ path: {PAGE}, content: broken }}"))], Some("3s")));
    until("it reads otherwise", || read() == "broken");
    passed(&going.end());
    assert_eq!(read(), "as it was\n");
}

fn stop() {
    let (unit, port) = STOPPED;
    let before = answers(port).expect("the victim answers");
    let going = begin(&document(&[("it", &format!("service-stop: {{ unit: {unit} }}"))], Some("4s")));
    until("it is stopped", || !active(unit) && answers(port).is_none());
    passed(&going.end());
    assert!(active(unit));
    until("it answers again", || answers(port).is_some_and(|pid| pid != before));
}

/// systemd answers at its own socket where no bus runs.
fn stop_without_bus() {
    let bus = ["dbus.socket", "dbus.service"];
    say("/bin/systemctl", &["stop", bus[0], bus[1]]).good();
    assert!(!bus.iter().any(|unit| active(unit)));
    stop();
    assert!(!bus.iter().any(|unit| active(unit)), "nobody has asked for it");
    say("/bin/systemctl", &["start", bus[0]]).good();
}

/// What the probe `systemd-unit` says of a unit that stops and starts, and of one that is up again before anybody looks;
/// systemctl says the same.
fn seen() {
    let (unit, port) = STOPPED;
    let other = "victim@8080.service";
    let before = restarts(other);
    let probes = format!(
        "services: {{ web: {{}} }}\nprobes:\n  stopped: {{ service: web, systemd-unit: {{ unit: {unit}, tolerance: {{ subState: {{ equals: running }}, \
         result: {{ equals: success }}, mainPid: {{ min: 2 }}, since: {{ max: 1d }} }} }}, from: guest, every: 200ms, timeout: 2s }}\n  \
         restarted: {{ systemd-unit: {{ unit: {other}, state: [active, activating, deactivating, inactive], \
         tolerance: {{ restarts: {{ max: {before} }} }} }}, from: guest, every: 200ms, timeout: 2s }}\n\
         steadyState: {{ probes: [stopped, restarted], holdFor: 1s }}\ntimeline:"
    );
    let text = document(&[("it", &format!("service-stop: {{ unit: {unit} }}"))], Some("4s"));
    let text = text.replace("timeline:", &probes).replace("giveUpAfter: 1s", "giveUpAfter: 1m");
    let going = begin(&text);
    until("it is stopped", || property(unit, "ActiveState") == "inactive");
    say("/bin/systemctl", &["kill", "--signal=KILL", other]).good();
    let said = going.end();
    until("it answers again", || answers(port).is_some());
    assert_eq!(restarts(other), before + 1);
    let bodies = said.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get("body").cloned());
    let edges: Vec<Value> = bodies.filter(|body| body["kind"] == "edge").collect();
    let of = |probe: &str| {
        let own = edges.iter().filter(|body| body["probe"] == probe);
        own.map(|body| (body["ok"] == true, body["why"].as_str().unwrap_or_default().to_owned())).collect::<Vec<_>>()
    };
    let (stopped, mut restarted) = (of("stopped"), of("restarted"));
    // Where looks overlap, an edge may be told again with better bounds.
    restarted.dedup();
    println!("systemd-unit saw {stopped:?} and {restarted:?}");
    let [(true, _), (false, why), .., (true, _)] = &stopped[..] else { panic!("{stopped:?}") };
    assert!(why == "inactive (dead)" || why.starts_with("deactivating ("), "{why}");
    let hidden = format!("restarts was {}, at most {before} wanted", before + 1);
    assert_eq!(restarted, [(true, String::new()), (false, hidden)]);
    passed(&said);
}

/// Idle and all ticks of all cores since boot.
fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").expect("proc");
    let all: Vec<u64> =
        stat.lines().next().expect("cpu").split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect();
    (all[3] + all[4], all.iter().take(8).sum())
}

fn load() {
    let (pid, before) = (main_pid(AGENT), restarts(AGENT));
    let watchdog: Duration = Duration::from_secs(5);
    let going = begin(&document(&[("it", "cpu-load: { percent: 100% }")], Some("17s")));
    going.event("active");
    let (idle, all) = ticks();
    std::thread::sleep(watchdog * 3);
    let (idle, all) = (ticks().0 - idle, ticks().1 - all);
    let share = idle as f64 / all as f64;
    println!("{:.1} % idle in three watchdog periods under load", share * 100.0);
    assert!(share < 0.05);
    let said = going.end();
    // How much was used is for the guest's own clock to say, above: the agent's measure of an emulated processor that others
    // share is not judged here. That it held its lease is.
    assert!(said.code == 0 || said.code == 3, "{}", said.out);
    assert!(said.out.contains("\"cause\":\"expired\""), "it lasted as long as it should: {}", said.out);
    assert_eq!((main_pid(AGENT), restarts(AGENT)), (pid, before), "the same agent lives");
}
