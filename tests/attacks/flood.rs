//! Thousands of connections, slow ones and endless ones, from several hosts at once, at both doors. What is sent takes no
//! memory that stays, who dawdles is let go in time, and whoever is known is served as before.

use serde_json::Value;

use super::{ADMIN, CA, attacker, identity, knows_the_interface, start_open, stolen};
use crate::rig::{RUN_LIMIT, Rig};

const SCRIPT: &str = include_str!("flood.py");
const HONEST: &str = include_str!("honest.py");

/// Longest that a handshake may take, and that a stranger is borne, seconds: what the product says, and what the machine may
/// add. See `listen::HANDSHAKE` and `server::PATIENCE`.
const HANDSHAKE: (f64, f64) = (10.0, 4.0);
const PATIENCE: (f64, f64) = (30.0, 5.0);
/// How much larger the controller may be for all that was sent, KiB: most is what connections and their windows cost.
const GROWTH_KIB: u64 = 200 << 10;
/// Longest that an honest call may wait meanwhile, milliseconds, where half of them take so long: the machine's two
/// processors are also the attackers'.
const HALF_MS: f64 = 250.0;
const WORST_MS: f64 = 5000.0;

/// Resident memory of a process on a host, now and at its most, KiB.
fn memory(rig: &Rig, pid: i32) -> (u64, u64) {
    let status = rig.shell("ctl", &format!("cat /proc/{pid}/status"));
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a field");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Connections that found the controller's queues full.
fn unqueued(rig: &Rig) -> u64 {
    let told = rig.shell("ctl", "cat /proc/net/netstat");
    let mut lines = told.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut fields = names.split_whitespace().zip(values.split_whitespace());
    let field = fields.find(|(name, _)| *name == "ListenOverflows").expect("a field");
    field.1.parse().expect("a number")
}

/// Calls of an honest operator for so many seconds.
fn honest(rig: &Rig, front: &str, seconds: &str) -> crate::rig::Going {
    attacker(rig, "desk", HONEST, &[front, CA, ADMIN, ADMIN, seconds])
}

fn figures(what: &str, told: &Value) -> (f64, f64) {
    assert_eq!(told["failures"], 0, "{what}: {told}");
    let (open, new) = (&told["open"], &told["new"]);
    eprintln!("honest calls {what}, ms: on an open connection {open}, on a new one {new}");
    let worst = |name: &str| [open, new].iter().filter_map(|kind| kind[name].as_f64()).fold(0.0, f64::max);
    (worst("p50"), worst("max"))
}

pub(super) fn flood() {
    let rig = Rig::bare(&["box", "desk", "m1", "m2", "m3"]);
    let [front, fleet] = start_open(&rig);
    for name in ["box", "m3"] {
        rig.join(name, &[("role", name)]);
    }
    rig.until_connected(&["box", "m3"]);
    for host in ["desk", "m1", "m2", "m3"] {
        knows_the_interface(&rig, host);
    }
    let [key, cert] = identity();
    for host in ["m1", "m2"] {
        stolen(&rig, "m3", &key, host, "/run/data/host.key");
        stolen(&rig, "m3", &cert, host, "/run/data/host.pem");
    }
    // The thief has the host to himself.
    rig.signal_agent("m3", rustix::process::Signal::TERM);
    assert_eq!(rig.end_agent("m3", RUN_LIMIT).code, 0);
    let pid = rig.controller_pid();
    let calm = honest(&rig, &front, "6").end(RUN_LIMIT).good().json().remove(0);
    let before = memory(&rig, pid);

    let attack = |host: &str, kind: &str, key: &str, cert: &str| {
        attacker(&rig, host, SCRIPT, &[kind, &fleet, &front, ADMIN, key, cert])
    };
    let (k, c) = ("/run/data/host.key", "/run/data/host.pem");
    let attackers = [attack("m1", "crowd", k, c), attack("m2", "slow", k, c), attack("m3", "pushed", &key, &cert)];
    let meanwhile = honest(&rig, &front, "35");
    // What a person does meanwhile is done too.
    rig.keep("box", "/run/data/page", "as it was");
    let run = rig.run(
        "apiVersion: fracas/v1\nkind: Experiment\nname: meanwhile\ntargets: { box: { select: \"role=box\" } }\n\
         timeline:\n  - { id: break, at: 0s, for: 1s, target: box, fault: { file-replace: { path: /run/data/page, content: x } } }\n\
         recovery: { stableFor: 0s, giveUpAfter: 1s }\n",
    );
    run.ended("pass", 0);
    let meanwhile = meanwhile.end(RUN_LIMIT).good().json().remove(0);
    let during = memory(&rig, pid);
    let mut tried = Vec::new();
    for attacker in attackers {
        tried.extend(attacker.end(RUN_LIMIT).good().json());
    }
    let after = honest(&rig, &front, "6").end(RUN_LIMIT).good().json().remove(0);
    let at_rest = memory(&rig, pid);

    for one in tried.iter().filter(|one| one["done"].is_null()) {
        eprintln!("{one}");
        let name = one["attack"].as_str().expect("a name");
        let number = |field: &str| one[field].as_f64();
        if name.contains("crowd") || name.starts_with("slow") {
            assert_eq!(one["cut"], one["n"], "{name}: some are still there: {one}");
            let (limit, slack) = if name.contains("preface") { PATIENCE } else { HANDSHAKE };
            assert!(number("last") < Some(limit + slack), "{one}");
            // The places were really held: else nothing was tried.
            assert!(name.contains("preface") || number("last") > Some(limit - 1.0), "{one}");
        }
    }
    let cut = |name: &str| tried.iter().find(|one| one["attack"] == name).unwrap_or_else(|| panic!("no {name}"));
    for endless in [
        "headers without end",
        "headers without end, as a host",
        "a message of 100 MB",
        "a message of 100 MB, as a host",
    ] {
        let one = cut(endless);
        // At most what the windows and the limits on headers let through.
        assert!(one["bytes"].as_u64() < Some(16 << 20), "{one}");
    }
    let (half, worst) = figures("before", &calm);
    let (half_meanwhile, worst_meanwhile) = figures("meanwhile", &meanwhile);
    figures("after", &after);
    assert_eq!(unqueued(&rig), 0, "connections found a full queue");
    eprintln!("the controller, KiB now and at most: before {before:?}, meanwhile {during:?}, after {at_rest:?}");
    assert!(half_meanwhile < half * 5.0 + HALF_MS && worst_meanwhile < worst + WORST_MS, "{meanwhile}");
    assert!(at_rest.1 - before.0 < GROWTH_KIB, "{before:?} {at_rest:?}");
    rig.stop();
}
