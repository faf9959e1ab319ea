//! Sample runs for looking at reports and for the tests of the renderers: small ones of several kinds and a large one.

use fracas_model::{
    event::{AbortKind, Proof, UndoCause},
    report::Report,
};
use serde_json::{Value, json};

use super::{
    day::day,
    world::{MS, S, Vantage, World, at, entry, measured},
};

/// Every sample by name.
pub(crate) fn samples() -> Vec<(&'static str, Report)> {
    vec![
        ("pass", pass()),
        ("fail", fail()),
        ("aborted", aborted()),
        ("unconfirmed", unconfirmed()),
        ("refused", refused()),
        ("running", running()),
        ("day", day()),
        ("large", large()),
    ]
}

fn probe(service: &str, url: &str, from: &str, every: &str, timeout: &str) -> Value {
    json!({ "service": service, "kind": "http", "params": { "url": url, "status": 200 }, "from": from,
        "every": every, "timeout": timeout })
}

fn shop(timeline: Value) -> Value {
    json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "checkout-survives-db-kill",
        "description": "Killing the primary must not take checkout down for more than 30 s.",
        "services": { "checkout": { "rto": "30s" } },
        "targets": {
            "primary": { "select": "role=db,tier=primary", "pick": { "count": 1 } },
            "edge": { "select": "role=edge" }
        },
        "probes": { "checkout-up":
            probe("checkout", "http://checkout.internal/health", "edge", "50ms", "50ms") },
        "steadyState": { "probes": ["checkout-up"], "holdFor": "10s", "giveUpAfter": "1m" },
        "timeline": timeline,
        "recovery": { "stableFor": "5s", "giveUpAfter": "5m" },
        "abortWhen": [{ "probe": "checkout-up", "failingFor": "2m" }],
        "limits": { "maxTargets": 1, "maxPercent": "34%" }, "lease": "15s"
    })
}

const SHOP_TARGETS: &[(&str, &[&str])] = &[("primary", &["h1"]), ("edge", &["e1"])];
const SHOP_HOSTS: &[(&str, &str)] = &[("h1", "db-1"), ("e1", "edge-1")];

fn kill_then_slow() -> Value {
    let recovered = json!({ "after": { "what": { "recovered": "checkout" }, "delay": "0s" } });
    let delay = json!({ "delay": "200ms", "jitter": "20ms", "ports": "5432", "to": "10.0.0.0/8" });
    json!([
        at("kill", "0s", "process-kill", json!({ "name": "postgres", "signal": "KILL" }), "primary", None),
        entry("slow", recovered, "net-delay", delay, "primary", Some("20s")),
    ])
}

fn checkout(span: (i64, i64), down: Vec<(i64, i64, &'static str)>, slow: Vec<(i64, i64, i64)>) -> Vantage {
    Vantage { probe: "checkout-up", host: "e1", every: 50 * MS, span, down, slow, missing: Vec::new() }
}

/// A killed primary comes back in time, twice blinking; then a slow network, which does no harm.
pub(crate) fn pass() -> Report {
    let gate = 11 * S;
    let mut world = World::new(shop(kill_then_slow()), SHOP_TARGETS, SHOP_HOSTS);
    world.gate(gate);
    world.starts("kill", gate);
    let gone = vec![measured("time to exit", "ms", None, 1.83, None, 1, "pidfd of the process")];
    world.fires("kill", "h1", gate + 20 * MS, "send KILL to 1 process named postgres", gone);
    world.ends("kill", gate + 90 * MS);
    let refused = "connection refused";
    let down = vec![(gate + 72 * MS, gate + 1310 * MS, refused), (gate + 1620 * MS, gate + 3400 * MS, "status 503")];
    world.recovers("checkout", "e1", gate + 3400 * MS, gate + 8460 * MS);
    let slow = gate + 8470 * MS;
    world.starts("slow", slow);
    world.holds("slow", "h1", slow + 20 * MS, "hold packets to 10.0.0.0/8 port 5432 for 200 ms +- 20 ms");
    let delay = measured("added delay", "ms", Some(200.0), 201.3, None, 50, "probe packets through the filter");
    world.checks("slow", "h1", slow + 3 * S, Proof::Verified, vec![delay]);
    world.lifts("slow", "h1", slow + 20 * S, UndoCause::Expired);
    world.ends("slow", slow + 20 * S + 30 * MS);
    world.looks(&checkout((500 * MS, slow + 25 * S), down, vec![(slow, slow + 20 * S, 12 * MS)]));
    world.calms(Some(slow + 20 * S + 40 * MS), slow + 25 * S + 50 * MS);
    world.finish(slow + 25 * S + 200 * MS)
}

/// A cache that stands still for its whole minute, and a cart that does not live without it.
pub(crate) fn fail() -> Report {
    let document = json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "cart-without-its-cache",
        "description": "The cart must answer from the database within 5 s when the cache stands still.",
        "services": { "cart": { "rto": "5s", "rtoFrom": "fault" }, "search": {} },
        "targets": { "cache": { "select": "role=cache" }, "edge": { "select": "role=edge" } },
        "probes": {
            "cart-up": probe("cart", "http://cart.internal/health", "edge", "100ms", "250ms"),
            "search-up": probe("search", "http://search.internal/", "edge", "100ms", "250ms")
        },
        "steadyState": { "probes": ["cart-up"], "holdFor": "5s", "giveUpAfter": "1m" },
        "timeline": [at("freeze", "2s", "process-pause", json!({ "name": "redis-server" }), "cache", Some("1m"))],
        "recovery": { "stableFor": "3s", "giveUpAfter": "2m" }, "limits": { "maxTargets": 1 }, "lease": "15s"
    });
    let hosts = [("h1", "cache-1"), ("e1", "edge-1"), ("e2", "edge-2")];
    let mut world = World::new(document, &[("cache", &["h1"]), ("edge", &["e1", "e2"])], &hosts);
    let gate = 6 * S;
    world.gate(gate);
    let start = gate + 2 * S;
    world.starts("freeze", start);
    world.holds("freeze", "h1", start + 12 * MS, "seize redis-server and keep its threads stopped");
    let stopped = measured("stopped threads", "%", Some(100.0), 100.0, None, 5, "states in /proc");
    world.checks("freeze", "h1", start + 200 * MS, Proof::Verified, vec![stopped]);
    world.lifts("freeze", "h1", start + 60 * S, UndoCause::Expired);
    world.ends("freeze", start + 60 * S + 30 * MS);
    let end = start + 68 * S;
    let out = |from: i64, to: i64| vec![(start + from * MS, start + to * MS, "no answer within 250ms")];
    let look = |probe, host, down| Vantage {
        probe,
        host,
        every: 100 * MS,
        span: (400 * MS, end),
        down,
        slow: vec![(start, start + 60 * S, 4 * MS)],
        missing: if host == "e2" { vec![(start + 30 * S, start + 33 * S, "the probe was late")] } else { Vec::new() },
    };
    world.looks(&look("cart-up", "e1", out(90, 61_240)));
    world.looks(&look("cart-up", "e2", out(130, 61_060)));
    world.looks(&look("search-up", "e1", Vec::new()));
    world.looks(&look("search-up", "e2", Vec::new()));
    world.calms(Some(start + 60 * S + 40 * MS), end);
    world.finish(end + 150 * MS)
}

/// A stop condition ends it: the network lost more than checkout could bear.
pub(crate) fn aborted() -> Report {
    let loss = json!({ "loss": "60%", "ports": "5432", "to": "10.0.0.0/8" });
    let document = shop(json!([at("lossy", "1s", "net-loss", loss, "primary", Some("10m"))]));
    let mut world = World::new(document, SHOP_TARGETS, SHOP_HOSTS);
    let gate = 12 * S;
    world.gate(gate);
    let start = gate + S;
    world.starts("lossy", start);
    world.holds("lossy", "h1", start + 15 * MS, "drop 60 % of packets to 10.0.0.0/8 port 5432");
    let lost = measured("loss", "%", Some(60.0), 59.4, None, 1840, "counters of real traffic");
    world.checks("lossy", "h1", start + 4 * S, Proof::Verified, vec![lost]);
    let stop = start + 124 * S;
    world.aborts(stop, AbortKind::StopCondition, "checkout-up from edge-1 was failing for 2m");
    world.lifts("lossy", "h1", stop + 30 * MS, UndoCause::NotDesired);
    world.ends("lossy", stop + 60 * MS);
    let down = vec![(start + 3200 * MS, stop + 2300 * MS, "no answer within 50ms")];
    world.looks(&checkout((500 * MS, stop + 10 * S), down, Vec::new()));
    world.calms(None, stop + 10 * S);
    world.finish(stop + 10 * S + 100 * MS)
}

/// The host under fault vanishes and never says that it is clean.
pub(crate) fn unconfirmed() -> Report {
    let mut world = World::new(shop(kill_then_slow()), SHOP_TARGETS, SHOP_HOSTS);
    let gate = 11 * S;
    world.gate(gate);
    world.starts("kill", gate);
    world.fires("kill", "h1", gate + 20 * MS, "send KILL to 1 process named postgres", Vec::new());
    world.ends("kill", gate + 90 * MS);
    world.recovers("checkout", "e1", gate + 2400 * MS, gate + 7460 * MS);
    let slow = gate + 7470 * MS;
    world.starts("slow", slow);
    world.holds("slow", "h1", slow + 20 * MS, "hold packets to 10.0.0.0/8 port 5432 for 200 ms +- 20 ms");
    let why = "no matching traffic".to_owned();
    world.checks("slow", "h1", slow + 3 * S, Proof::Unverified { why }, Vec::new());
    world.contact("h1", false, slow + 9 * S);
    world.aborts(slow + 24 * S, AbortKind::Fault, "slow on db-1: contact was lost for longer than its lease");
    let end = slow + 360 * S;
    let down = vec![(gate + 72 * MS, gate + 2380 * MS, "connection refused")];
    world.looks(&checkout((500 * MS, slow + 30 * S), down, Vec::new()));
    world.calms(None, slow + 24 * S + MS);
    world.finish(end)
}

/// No host would do it.
pub(crate) fn refused() -> Report {
    let mut world = World::new(shop(kill_then_slow()), SHOP_TARGETS, SHOP_HOSTS);
    let why = "the host's policy does not allow process-kill";
    world.refuses("kill", "h1", why, "add it to `faults` in the host's policy, or draw another host");
    world.finish(3 * S)
}

/// Still going on.
pub(crate) fn running() -> Report {
    let mut world = World::new(shop(kill_then_slow()), SHOP_TARGETS, SHOP_HOSTS);
    let gate = 11 * S;
    world.gate(gate);
    world.starts("kill", gate);
    world.fires("kill", "h1", gate + 20 * MS, "send KILL to 1 process named postgres", Vec::new());
    world.ends("kill", gate + 90 * MS);
    world.looks(&checkout((500 * MS, gate + 4 * S), vec![(gate + 60 * MS, gate + 9 * S, "status 503")], Vec::new()));
    world.so_far()
}

fn large_document() -> Value {
    let loss = json!({ "loss": "30%", "ports": "9200", "to": "10.0.0.0/8" });
    let delay = json!({ "delay": "200ms", "jitter": "20ms", "ports": "5432", "to": "10.0.0.0/8" });
    json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "quarterly-recovery-of-the-shop",
        "description": "Two hours, three faults one after the other: checkout and search must come back within their \
            objectives, whichever part is hurt.",
        "services": { "checkout": { "rto": "30s" }, "search": { "rto": "2m" } },
        "targets": {
            "primary": { "select": "role=db,tier=primary", "pick": { "count": 1 } },
            "index": { "select": "role=search" },
            "edge": { "select": "role=edge" }
        },
        "probes": {
            "checkout-up": probe("checkout", "http://checkout.internal/health", "edge", "500ms", "500ms"),
            "search-up": probe("search", "http://search.internal/ready", "edge", "1s", "1s")
        },
        "steadyState": { "probes": ["checkout-up", "search-up"], "holdFor": "30s", "giveUpAfter": "5m" },
        "timeline": [
            at("kill", "5m", "process-kill", json!({ "name": "postgres", "signal": "KILL" }), "primary", None),
            at("slow", "25m", "net-delay", delay, "primary", Some("20m")),
            json!({ "id": "breathe", "trigger": { "after": { "what": { "ended": "slow" }, "delay": "0s" } },
                "action": { "wait": { "duration": "10m" } } }),
            at("lossy", "1h15m", "net-loss", loss, "index", Some("15m")),
        ],
        "recovery": { "stableFor": "20s", "giveUpAfter": "25m" },
        "abortWhen": [{ "probe": "checkout-up", "failingFor": "5m" }],
        "limits": { "maxTargets": 2 }, "lease": "15s"
    })
}

/// Three faults, two services, two vantages, two hours, about four hundred events beside the routine ones.
pub(crate) fn large() -> Report {
    const M: i64 = 60 * S;
    let hosts = [
        ("h1", "db-1.fra.example.net"),
        ("s1", "search-1.fra.example.net"),
        ("s2", "search-2.fra.example.net"),
        ("e1", "edge-1.fra.example.net"),
        ("e2", "edge-2.ams.example.net"),
    ];
    let targets: &[(&str, &[&str])] = &[("primary", &["h1"]), ("index", &["s1", "s2"]), ("edge", &["e1", "e2"])];
    let mut world = World::new(large_document(), targets, &hosts);
    let gate = 42 * S;
    world.gate(gate);
    let kill = gate + 5 * M;
    world.starts("kill", kill);
    let gone = vec![measured("time to exit", "ms", None, 2.4, None, 1, "pidfd of the process")];
    world.fires("kill", "h1", kill + 20 * MS, "send KILL to 1 process named postgres", gone);
    world.ends("kill", kill + 90 * MS);
    let slow = gate + 25 * M;
    world.starts("slow", slow);
    world.holds("slow", "h1", slow + 20 * MS, "hold packets to 10.0.0.0/8 port 5432 for 200 ms +- 20 ms");
    let delay =
        measured("added delay", "ms", Some(200.0), 200.9, Some(221.4), 1200, "probe packets through the filter");
    world.checks("slow", "h1", slow + 4 * S, Proof::Verified, vec![delay]);
    world.lifts("slow", "h1", slow + 20 * M, UndoCause::Expired);
    world.ends("slow", slow + 20 * M + 40 * MS);
    world.starts("breathe", slow + 20 * M + 50 * MS);
    world.ends("breathe", slow + 30 * M + 50 * MS);
    let lossy = gate + 75 * M;
    world.starts("lossy", lossy);
    for (host, got) in [("s1", 29.6), ("s2", 30.8)] {
        world.holds("lossy", host, lossy + 20 * MS, "drop 30 % of packets to 10.0.0.0/8 port 9200");
        let lost = measured("loss", "%", Some(30.0), got, None, 51_204, "counters of real traffic");
        world.checks("lossy", host, lossy + 5 * S, Proof::Verified, vec![lost]);
        world.lifts("lossy", host, lossy + 15 * M, UndoCause::Expired);
    }
    world.ends("lossy", lossy + 15 * M + 40 * MS);
    let end = gate + 2 * 60 * M - 50 * S;
    world.contact("e2", false, gate + 55 * M);
    world.contact("e2", true, gate + 55 * M + 48 * S);
    for minute in 1..(end / M) {
        for (host, _) in hosts {
            world.clock(host, minute * M);
        }
    }
    look_at_large(&mut world, (kill, slow, lossy, end));
    world.calms(Some(lossy + 15 * M + 50 * MS), end);
    world.finish(end + 400 * MS)
}

fn look_at_large(world: &mut World, (kill, slow, lossy, end): (i64, i64, i64, i64)) {
    const M: i64 = 60 * S;
    // Search flaps under loss: down for some seconds again and again, with returns too short to count at first.
    let flaps = |late: i64, n: i64| -> Vec<(i64, i64, &'static str)> {
        (0..n)
            .map(|i| (lossy + late + i * 9700 * MS, lossy + late + i * 9700 * MS + (2 + i % 4) * S, "status 504"))
            .collect()
    };
    let checkout = |late: i64| {
        vec![
            (kill + 72 * MS + late, kill + 4310 * MS + late, "connection refused"),
            (kill + 5100 * MS + late, kill + 11_400 * MS + late, "status 503"),
            (slow + 7 * M + late, slow + 7 * M + 3200 * MS + late, "no answer within 500ms"),
        ]
    };
    let lost = vec![(gate_of(kill) + 55 * M, gate_of(kill) + 55 * M + 47 * S, "the agent was restarted")];
    let vantage = |probe, host, every, down, missing| Vantage {
        probe,
        host,
        every,
        span: (2500 * MS, end - S),
        down,
        slow: if probe == "checkout-up" { vec![(slow, slow + 20 * M, 203 * MS)] } else { Vec::new() },
        missing,
    };
    world.looks(&vantage("checkout-up", "e1", 500 * MS, checkout(0), Vec::new()));
    world.looks(&vantage("checkout-up", "e2", 500 * MS, checkout(130 * MS), lost.clone()));
    world.looks(&vantage("search-up", "e1", S, flaps(40 * S, 88), Vec::new()));
    world.looks(&vantage("search-up", "e2", S, flaps(41 * S, 84), lost));
    world.recovers("checkout", "e1", kill + 11_400 * MS, kill + 32 * S);
}

fn gate_of(kill: i64) -> i64 {
    kill - 300 * S
}
