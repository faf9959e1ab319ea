//! False controllers, and old words of true ones: an agent speaks with nobody whose key its authority does not vouch for, takes
//! no order that is older than one it took, and lives by no grant that is not of now.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{attacker, identity, stolen};
use crate::{
    rig::{DATA, Going, LIMIT, Rig, STATE, until},
    stage::{boot_ns, part},
};

const SCRIPT: &str = include_str!("orders.py");
const FILES: &str = "/run/data/interface";
const PAGE: &str = "/run/data/page";
const LEASE_MS: i64 = 3000;
/// What an agent may take beyond the end of its lease, with a machine that does something else beside.
const SLACK_MS: i64 = 2000;

/// A fault that breaks the page for an hour, unless its lease ends.
fn item(run: &str) -> Value {
    json!({
        "key": { "run": run, "entry": "break", "occurrence": 0, "host": "", "generation": 1 },
        "mode": "apply", "experiment": "attack", "fault": "file-replace",
        "params": { "path": PAGE, "content": "broken" }, "duration": "1h", "planDigest": null,
    })
}

fn desired(epoch: u64, revision: u64, host: &str, runs: &[&str]) -> Value {
    let mut faults: Vec<Value> = runs.iter().map(|run| item(run)).collect();
    for fault in &mut faults {
        fault["key"]["host"] = host.into();
    }
    let lease = format!("{LEASE_MS}ms");
    json!({ "desired": { "epoch": epoch, "revision": revision, "lease": lease, "faults": faults, "probes": [] } })
}

/// A false controller where the true one was, with this key and certificate.
fn false_controller(rig: &Rig, key: &str, cert: &str) -> Going {
    let address = format!("{}:7767", rig.address("ctl"));
    attacker_with_input(rig, &["serve", FILES, &address, &format!("{DATA}/ca.pem"), key, cert]).ready()
}

fn attacker_with_input(rig: &Rig, words: &[&str]) -> Going {
    use fracas_sim::lab::{Program, Stream};
    let python = std::env::var("FRACAS_PYTHON").expect("checked");
    let program = Program::new(python).args(["-c", &format!("{}\n{SCRIPT}", super::WIRE)]).args(words.iter().copied());
    rig.go("ctl", "false controller", program.stdin(Stream::Pipe))
}

/// A rig whose controller was killed, with what a false one needs; and the id of the host.
fn orphaned() -> (Rig, String) {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.keep("box", PAGE, "as it was");
    let (ca, admin) = (format!("{DATA}/ca.pem"), format!("{DATA}/admin.token"));
    super::told(attacker(&rig, "ctl", SCRIPT, &[FILES, "127.0.0.1:7766", &ca, &admin]));
    let host = rig.hosts()["box"]["id"].as_str().expect("id").to_owned();
    rig.kill_controller();
    (rig, host)
}

/// The first message of this kind that fits.
fn hears(controller: &Going, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    controller.find(kind, |line| Some(line.clone()).filter(|line| line["kind"] == kind && fits(line)))
}

fn whole_number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

pub(super) fn old_orders() {
    let (rig, host) = orphaned();
    let broken = || rig.shell("box", &format!("cat {PAGE}")).contains("broken");
    // With the true key: all that the agent can know is what it was told before.
    let mut controller = false_controller(&rig, &format!("{DATA}/server.key"), &format!("{DATA}/server.pem"));
    let hello = hears(&controller, "hello", |_| true);
    let epoch = whole_number(&hello["fields"]["epoch"]).unsigned_abs();
    let later = epoch + 1000;
    let taken = |controller: &Going, revision: i64| {
        hears(controller, "taken", |line| whole_number(&line["fields"]["revision"]) == revision);
    };
    controller.order(&json!({ "lease": LEASE_MS }));
    controller.order(&desired(later, 1, &host, &["one"]));
    until("what it is told now it does", broken);
    controller.order(&desired(later, 2, &host, &[]));
    until("and ends", || !broken());
    taken(&controller, 2);

    // What was said before, again; and what another life of the controller said. The agent hangs up each time.
    for (revision, older) in [(1, later), (u64::MAX >> 1, later - 1), (7, epoch)] {
        let session = whole_number(&hears(&controller, "renew", |_| true)["session"]);
        let now = hears_newest(&controller, session);
        controller.order(&desired(older, revision, &host, &["one", "two"]));
        hears(&controller, "ended", |line| whole_number(&line["session"]) == now);
        hears(&controller, "hello", |line| whole_number(&line["session"]) > now);
        assert!(!broken(), "an older order was obeyed");
    }
    until("the agent says why", || rig.agent_log("box").contains("is older than"));

    // What is over does not rise again, though it comes with a new number; another one does, so the order was looked at.
    until("it is in contact again", || controller.out.text().contains("\"hello\""));
    controller.order(&desired(later, 3, &host, &["one"]));
    taken(&controller, 3);
    assert!(!broken(), "a closed item has risen");
    controller.order(&desired(later, 4, &host, &["one", "three"]));
    until("a new one is applied", broken);
    controller.order(&desired(later, 5, &host, &["one"]));
    until("and undone", || !broken());
    taken(&controller, 5);

    // Grants of another time: those of the past and of the future keep nothing alive.
    controller.order(&desired(later, 6, &host, &["four"]));
    until("the last one is applied", broken);
    controller.order(&json!({ "lease": 0 }));
    let stale = newest_stamp(&controller);
    let from = boot_ns();
    let mut whole_at = None;
    until("its lease ends although grants rain down", || {
        for echo in [stale, stale - 60_000_000_000, boot_ns() + 3_600_000_000_000, i64::MAX, -1, 0] {
            controller.order(&json!({ "grant": { "echo": echo, "leaseMs": 86_400_000 } }));
        }
        // The order comes again and again too, as it was.
        controller.order(&desired(later, 6, &host, &["four"]));
        whole_at = (!broken()).then(boot_ns);
        whole_at.is_some()
    });
    let lived = (whole_at.expect("whole") - from) / 1_000_000;
    eprintln!(
        "a fault with a lease of {LEASE_MS} ms, under grants of other times: undone {lived} ms after the last true one"
    );
    assert!(lived < LEASE_MS + SLACK_MS, "{lived} ms");
    // Nor does it rise from them afterwards.
    taken_again(&mut controller, &host, later);
    assert!(!broken());

    // The true one takes the agent back, and is obeyed.
    controller.kill();
    rig.start_controller();
    rig.until_connected(&["box"]);
    let run = rig.run(
        "apiVersion: fracas/v1\nkind: Experiment\nname: after\ntargets: { box: { select: \"role=box\" } }\n\
         timeline:\n  - { id: break, at: 0s, for: 1s, target: box, fault: { file-replace: { path: /run/data/page, content: x } } }\n\
         recovery: { stableFor: 0s, giveUpAfter: 1s }\n",
    );
    run.ended("pass", 0);
    rig.stop();
}

/// The newest session from which the agent was heard, not before this one.
fn hears_newest(controller: &Going, from: i64) -> i64 {
    let lines = controller.out.lines();
    let sessions = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["session"].as_i64());
    sessions.max().unwrap_or(from)
}

/// The stamp of the newest renewal: one that was granted already.
fn newest_stamp(controller: &Going) -> i64 {
    let lines = controller.out.lines();
    let renewals = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let stamps = renewals.filter(|line| line["kind"] == "renew").map(|line| whole_number(&line["fields"]["bootNs"]));
    stamps.max().expect("a renewal")
}

/// Lets the agent take another order, so that everything before is settled.
fn taken_again(controller: &mut Going, host: &str, epoch: u64) {
    controller.order(&json!({ "lease": LEASE_MS }));
    controller.order(&desired(epoch, 7, host, &["four"]));
    hears(controller, "taken", |line| whole_number(&line["fields"]["revision"]) == 7);
}

pub(super) fn false_controllers() {
    let (rig, _) = orphaned();
    // Another authority, whose controller has the same name; and a host's own certificate, which is of the true one.
    let other = "/run/data/other";
    let foreign = rig.go(
        "ctl",
        "other",
        part(&[
            "fracas",
            "controller",
            "--data-dir",
            other,
            "--front-listen",
            "127.0.0.1:0",
            "--fleet-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "off",
        ]),
    );
    until("the other one has its key", || foreign.err.text().contains("controller ready"));
    foreign.signal(Signal::TERM);
    assert_eq!(foreign.end(LIMIT).code, 0);
    let [key, cert] = identity();
    for (from, to) in [(&key, "/run/data/host.key"), (&cert, "/run/data/host.pem")] {
        stolen(&rig, "box", from, "ctl", to);
    }
    assert!(rig.shell("box", &format!("ls {STATE}")).contains("key.pem"));
    let [other_key, other_cert] = ["server.key", "server.pem"].map(|name| format!("{other}/{name}"));
    for (key, cert) in [(other_key.as_str(), other_cert.as_str()), ("/run/data/host.key", "/run/data/host.pem")] {
        let complaints = || rig.agent_log("box").matches("invalid peer certificate").count();
        let before = complaints();
        let controller = false_controller(&rig, key, cert);
        until("the agent says that this is not its controller", || complaints() > before);
        assert!(!controller.out.text().contains("\"hello\""), "{}", controller.out.text());
        controller.kill();
    }
    // With the true key the same program is spoken with: it was no other fault of its own.
    let controller = false_controller(&rig, &format!("{DATA}/server.key"), &format!("{DATA}/server.pem"));
    hears(&controller, "hello", |_| true);
    controller.kill();
    rig.start_controller();
    rig.until_connected(&["box"]);
    rig.stop();
}
