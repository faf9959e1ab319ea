//! nginx is killed by name, pid file and port, and its supervisor starts it again.

use std::time::Duration;

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    history::{Run, number},
    rig::{Going, Rig},
    services, trial,
    truth::{self, Eye, Range},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("nginx_is_killed_and_comes_back", &[Need::Lab, Need::Program("nginx")], nginx_is_killed_and_comes_back)]
}

/// How long the supervisor waits.
const PAUSE_MS: u32 = 700;

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: nginx-comes-back
parameters:
  rto: { type: duration, default: 5s }
services:
  web: { rto: "${rto}" }
targets:
  web: { select: "role=web", pick: { count: 1 } }
  edge: { select: "role=edge" }
probes:
  page:
    service: web
    http: { url: "http://web/", status: 200, body: ok }
    from: edge
    every: 20ms
    # A dead nginx refuses at once; only a machine that stalls takes longer, and that is no outage.
    timeout: 2s
steadyState: { probes: [page], holdFor: 7s, giveUpAfter: 2m }
timeline:
  - id: by-name
    at: 0s
    fault: { process-kill: { name: nginx, signal: KILL } }
    target: web
  - id: by-file
    after: { recovered: web, delay: 500ms }
    fault: { process-kill: { pidFile: /run/nginx.pid } }
    target: web
  - id: by-port
    after: { recovered: web, delay: 500ms }
    fault: { process-kill: { port: 80, signal: TERM } }
    target: web
recovery: { stableFor: 1s, giveUpAfter: 30s }
abortWhen:
  - { probe: page, failingFor: 20s }
limits: { maxTargets: 1 }
"#;

fn nginx_is_killed_and_comes_back() {
    let rig = Rig::start(&[("web", &[("role", "web")]), ("edge", &[("role", "edge")])]);
    let nginx = services::nginx(&rig, "web", PAUSE_MS);
    let eye = Eye::open(&rig, "edge", "http", &format!("{}:80", rig.address("web")), Duration::from_secs(2));
    let first = nginx.find("nginx", |line| line["pid"].as_i64());

    let run = rig.run(DOCUMENT);
    run.ended("pass", 0);
    // The same outages against an objective they cannot meet.
    let strict = rig.run_with(DOCUMENT, &["--set", "rto=100ms"]);
    strict.ended("fail", 1);
    let reasons = strict.reasons();
    assert!(reasons.contains("web missed its objective") && reasons.contains("beyond 100ms"), "{reasons}");

    let seen = eye.close();
    assert_eq!(seen.len(), 6, "{seen:?}");
    let waits = Duration::ZERO;
    let narrow = truth::hold(&run, "page", &seen[..3], waits) + truth::hold(&strict, "page", &seen[3..], waits);
    assert!(narrow > 0, "every interval is too wide");
    assert!(seen.iter().all(|o| o.length().hi >= i64::from(PAUSE_MS) * 1_000_000), "the supervisor waits: {seen:?}");

    // From the fault on: it happened after the agent set out and before the supervisor saw it.
    let deaths: Vec<i64> = said(&nginx).iter().filter_map(|line| line["ended"].as_i64()).collect();
    for (n, entry) in ["by-name", "by-file", "by-port"].into_iter().enumerate() {
        let spent = run.bodies("spent")[n];
        assert_eq!(spent["item"]["entry"], entry);
        let since = Range { lo: number(spent, "/effective/from/bootNs"), hi: deaths[n] };
        let (told, truth) =
            (Range::of(&run.probe("page")["episodes"][n]["recoveryFromFault"]), seen[n].until_up(since));
        assert!(told.meets(truth), "{entry}: reported {told}, the truth is {truth}\n{}", run.story());
        eprintln!("{entry}: recovery from fault reported {told}; seen {truth}");
    }

    // Master and workers share a name, a port and a socket; only the master counts, and it was the master that died.
    let masters: Vec<i64> = said(&nginx).iter().filter_map(|line| line["pid"].as_i64()).collect();
    assert_eq!((masters.len(), masters[0]), (7, first));
    assert_eq!(killed(&run), masters[..3]);
    for entry in ["by-name", "by-file", "by-port"] {
        assert_eq!(run.item(entry)["proof"]["state"], "verified", "{entry}");
        let moments = run.item(entry)["moments"].as_array().expect("moments");
        assert_eq!(moments.iter().filter(|m| m["step"] == "spent").count(), 1, "{moments:?}");
    }
    rig.stop();
}

/// What the supervisor said so far.
fn said(supervisor: &Going) -> Vec<Value> {
    supervisor.out.lines().iter().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

/// Numbers of the processes that the plans named, one for each entry.
fn killed(run: &Run) -> Vec<i64> {
    let plans: Vec<&Value> = run.bodies("applying").iter().map(|body| &body["plan"]["steps"]).collect();
    assert!(plans.iter().all(|steps| steps.as_array().is_some_and(|s| s.len() == 1)), "{plans:?}");
    plans.iter().map(|steps| number(steps, "/0/signal/process/pid")).collect()
}
