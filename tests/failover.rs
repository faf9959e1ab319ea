//! Services that fail over to another host: an nginx behind haproxy, and a PostgreSQL primary whose standby is promoted. What
//! a report says of the outage contains what the trial's own eye saw.

use std::time::Duration;

use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{
    rig::Rig,
    services, trial,
    truth::{self, Eye},
};

pub(crate) fn trials() -> Vec<Trial> {
    const WEB: &[Need] = &[Need::Lab, Need::Program("nginx"), Need::Program("haproxy")];
    const SQL: &[Need] =
        &[Need::Lab, Need::Program("haproxy"), Need::Program("psql"), Need::AnyProgram(services::POSTGRES)];
    vec![trial("an_nginx_behind_haproxy_fails_over", WEB, web), trial("a_postgresql_standby_is_promoted", SQL, sql)]
}

/// Killed on `first`, for good; the probe looks through haproxy on `front`.
fn document(name: &str, probe: &str, hold: &str, service: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: {name}\nservices: {{ shop: {{ rto: 20s }} }}\n\
         targets: {{ first: {{ select: \"role=first\" }}, edge: {{ select: \"role=edge\" }} }}\n\
         probes:\n  shop: {{ service: shop, {probe}, from: edge, timeout: 2s }}\n\
         steadyState: {{ probes: [shop], holdFor: {hold}, giveUpAfter: 2m }}\n\
         timeline: [{{ id: kill, at: 0s, target: first, fault: {{ process-kill: {{ name: {service}, signal: KILL }} }} }}]\n\
         recovery: {{ stableFor: 3s, giveUpAfter: 1m }}\n"
    )
}

/// Hosts `first` and `second` that serve, `front` with haproxy, `edge` that looks.
fn rig() -> Rig {
    let rig = Rig::bare(&["first", "second", "front", "edge"]);
    rig.start_controller();
    for name in ["first", "edge"] {
        rig.join(name, &[("role", name)]);
    }
    rig.until_connected(&["first", "edge"]);
    rig
}

fn holds(rig: Rig, eye: Eye, document: &str) {
    let run = rig.run(document);
    run.ended("pass", 0);
    let seen = eye.close();
    assert_eq!(seen.len(), 1, "{seen:?}");
    // A look that waits for haproxy's connection takes no longer than that may.
    let narrow = truth::hold(&run, "shop", &seen, Duration::from_millis(500));
    assert_eq!(narrow, 1, "the interval is too wide");
    rig.stop();
}

fn web() {
    let rig = rig();
    // Whoever supervises the first starts it again after the trial, so to speak.
    let _nginx = [services::nginx(&rig, "first", 600_000), services::nginx(&rig, "second", 600_000)];
    let (first, second) = (rig.address("first"), rig.address("second"));
    let _haproxy = services::haproxy(&rig, "front", "http", 80, [&first, &second]);
    let eye = Eye::open(&rig, "edge", "http", &format!("{}:80", rig.address("front")), Duration::from_secs(2));
    holds(rig, eye, &document("web-fails-over", "http: { url: \"http://front/\" }, every: 20ms", "7s", "nginx"));
}

fn sql() {
    let rig = rig();
    let _primary = services::postgres(&rig, "first");
    let (first, second) = (rig.address("first"), rig.address("second"));
    let [_standby, _watchdog] = services::standby(&rig, "second", &first);
    let _haproxy = services::haproxy(&rig, "front", "tcp", 5432, [&first, &second]);
    let front = format!("{}:5432", rig.address("front"));
    let eye = Eye::open(&rig, "edge", "psql", &front, Duration::from_secs(2));
    let probe = "postgres: { address: \"front:5432\", user: postgres, tolerance: { recovery: { equals: false } } }, every: 50ms";
    holds(rig, eye, &document("standby-takes-over", probe, "16s", "postgres"));
}
