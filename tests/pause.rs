//! A redis stands still for two seconds, twice, and goes on as if nothing had been.

use std::time::Duration;

use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{
    history::number,
    residue::Dump,
    rig::{Rig, until},
    services, trial,
    truth::{self, Eye},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("redis_is_paused_and_goes_on", &[Need::Lab, Need::Program("redis-server")], redis_is_paused_and_goes_on)]
}

/// When a look of the probe counts as failed.
const TIMEOUT: Duration = Duration::from_millis(200);

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: redis-pauses
services:
  cache: { rto: 1s }
targets:
  cache: { select: "role=cache" }
  edge: { select: "role=edge" }
probes:
  answers:
    service: cache
    tcp: { address: "cache:6379", send: "PING\r\n", expect: "PONG" }
    from: edge
    every: 20ms
    timeout: 200ms
steadyState: { probes: [answers], holdFor: 7s, giveUpAfter: 2m }
timeline:
  - id: pause
    at: 0s
    fault: { process-pause: { name: redis-server } }
    target: cache
    for: 2s
  - id: again
    after: { recovered: cache, delay: 500ms }
    fault: { process-pause: { port: 6379 } }
    target: cache
    for: 2s
recovery: { stableFor: 1s, giveUpAfter: 30s }
"#;

fn redis_is_paused_and_goes_on() {
    let rig = Rig::start(&[("cache", &[("role", "cache")]), ("edge", &[("role", "edge")])]);
    let redis = services::redis(&rig, "cache");
    let eye = Eye::open(&rig, "edge", "ping", &format!("{}:6379", rig.address("cache")), Duration::from_millis(150));
    let state = || {
        let process = rig.process("cache", redis.pid()).expect("redis");
        (process["state"].as_str().unwrap_or_default().to_owned(), number(&process, "/tracer"))
    };
    until("redis waits for its clients", || state() == ("S".into(), 0));
    let before = Dump::of(&rig, "cache");

    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    let during = state();
    assert!(["t", "T"].contains(&during.0.as_str()), "{during:?}");
    let run = rig.finish(going);

    // Held on purpose for longer than the service may be away: that is a miss, not a doubt.
    run.ended("fail", 1);
    assert!(run.reasons().contains("while the fault was held, beyond 1s"), "{}", run.reasons());
    assert_eq!(run.undo_causes(), ["expired", "expired"]);
    let seen = eye.close();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(truth::hold(&run, "answers", &seen, TIMEOUT) > 0, "every interval is too wide");
    for (n, entry) in ["pause", "again"].into_iter().enumerate() {
        assert_eq!(run.item(entry)["proof"]["state"], "verified", "{entry}");
        // Not one answer between the instant it surely stood still and the instant it was let go.
        let (active, undone) = (run.bodies("active")[n], run.bodies("undone")[n]);
        let still = (number(active, "/effective/to/bootNs"), number(undone, "/between/from/bootNs"));
        assert!(seen[n].last_up.0 <= still.0 && seen[n].first_up.1 >= still.1, "{seen:?} in {still:?}");
        assert!(still.1 - still.0 >= 1_900_000_000, "it stood still for as long as was asked: {still:?}");
    }

    until("redis waits for its clients again", || state() == ("S".into(), 0));
    Dump::of(&rig, "cache").expect_same(&before);
    assert!(rig.shell("cache", "/usr/bin/redis-cli ping").contains("PONG"));
    assert!(redis.runs(), "it is the same process");
    rig.stop();
}
