//! Clients of a PostgreSQL primary go through a delay of 200 ms: psql's own clock says so, and nothing stays behind.

use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{residue::Dump, rig::Rig, services, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[
        Need::Lab,
        Need::AnyProgram(services::POSTGRES),
        Need::Program("nft"),
        Need::Program("tc"),
        Need::Program("ip"),
    ];
    vec![trial("psql_feels_the_delay", needs, psql_feels_the_delay)]
}

/// Round trips that psql times, without and with the delay.
const FREE: usize = 200;
const DELAYED: usize = 40;

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: slow-clients
services:
  store: {}
targets:
  primary: { select: "role=db,tier=primary", pick: { count: 1 } }
  app: { select: "role=app" }
probes:
  accepts:
    service: store
    tcp: { address: "db:5432" }
    from: app
    every: 100ms
    timeout: 1s
timeline:
  - id: slow
    at: 0s
    fault: { net-delay: { delay: 200ms, to: ["10.77.0.0/16", "fd77::/64"], ports: [5432], protocol: tcp } }
    target: primary
    for: 15s
recovery: { stableFor: 1s, giveUpAfter: 1m }
"#;

fn psql_feels_the_delay() {
    let rig = Rig::start(&[("db", &[("role", "db"), ("tier", "primary")]), ("app", &[("role", "app")])]);
    let _postgres = services::postgres(&rig, "db");
    let primary = rig.address("db");
    let free = median(&timings(&rig, &primary, FREE));
    let before = Dump::of(&rig, "db");

    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    before.expect_change(&Dump::of(&rig, "db"), "rules");
    let times = timings(&rig, &primary, DELAYED);
    let slow = median(&times);
    assert!(going.runs(), "psql was done before the delay was");
    let run = rig.finish(going);

    run.ended("pass", 0);
    let measured = run.measured("slow", "added delay");
    let told = measured["got"].as_f64().expect("a number");
    let felt = slow - free;
    eprintln!(
        "delay: asked 200 ms, reported {told:.2} ms p50 (n = {}), psql felt {felt:.2} ms more (p50 of {DELAYED}; {free:.2} ms without)",
        measured["n"],
    );
    assert!((felt - told).abs() <= (told * 0.05).max(2.0), "felt {felt} ms, told {told} ms: {times:?}");
    assert!((told - 200.0).abs() <= 10.0, "asked 200 ms, told {told} ms");
    assert!(measured["n"].as_u64() >= Some(DELAYED as u64), "every one of psql's packets was measured: {measured}");

    Dump::of(&rig, "db").expect_no_fault(&before);
    let after = median(&timings(&rig, &primary, FREE));
    assert!(after < slow / 10.0, "it is quick again: {after} ms");
    rig.stop();
}

/// Round trips of single statements as psql times them, milliseconds.
fn timings(rig: &Rig, primary: &str, how_many: usize) -> Vec<f64> {
    let script = format!("\\timing on\n{}", "select 1;\n".repeat(how_many));
    let said = services::psql(rig, "app", primary, &script);
    let times: Vec<f64> =
        said.lines().filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(times.len(), how_many, "{said}");
    times
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
