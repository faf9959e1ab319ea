//! What the controller tells of itself, as Prometheus hears it: a real one scrapes, stores and judges it, by the example
//! configuration and rules that the documentation gives.

use std::fmt::Write as _;

use fracas_sim::{
    lab::{Program, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    rig::{DATA, LIMIT, Rig, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Lab, Need::Program("prometheus"), Need::Program("promtool")];
    vec![
        trial("prometheus_hears_of_a_run", NEEDS, prometheus_hears_of_a_run),
        trial("a_controller_that_drains_says_so", &[Need::Lab], a_controller_that_drains_says_so),
    ]
}

const README: &str = include_str!("../README.md");
const TABLE: &str = include_str!("../crates/fracas-controller/METRICS.md");
/// The controller's listener for metrics, and Prometheus's own.
const TOLD: &str = "127.0.0.1:7768";
const PROMETHEUS: &str = "127.0.0.1:9090";

const EXPERIMENT: &str = "
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
parameters: { length: { type: duration, default: 300ms } }
targets: { box: { select: \"role=box\" } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/data/page, content: broken } }, target: box, for: \"${length}\" }
recovery: { stableFor: 0s, giveUpAfter: 1s }
";

/// The example in a page that begins with this line.
fn example(page: &str, begin: &str) -> String {
    let examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found: Vec<&str> = examples.filter(|example| example.starts_with(begin)).collect();
    assert_eq!(found.len(), 1, "one example begins with {begin}");
    found[0].to_owned()
}

fn rig() -> Rig {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.keep("box", "/run/data/page", "as it was");
    rig
}

/// What Prometheus says to a query; one value for each series.
fn query(rig: &Rig, text: &str) -> Vec<f64> {
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in text.bytes() {
        let _ = write!(path, "%{byte:02x}");
    }
    let (code, body) = rig.page("ctl", PROMETHEUS, &path);
    assert_eq!(code, 200, "{text}: {body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    let series = answer["data"]["result"].as_array().expect("series").iter();
    series.filter_map(|one| one["value"][1].as_str()?.parse().ok()).collect()
}

/// Waits until a query has this one answer.
fn becomes(rig: &Rig, text: &str, value: f64) {
    until(&format!("{text} is {value}"), || {
        let got = query(rig, text);
        got.len() == 1 && (got[0] - value).abs() < 1e-9
    });
}

fn prometheus_hears_of_a_run() {
    let rig = rig();
    rig.keep("ctl", "/run/rules.yaml", &example(TABLE, "groups:"));
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [/run/rules.yaml]\n{}",
        example(README, "scrape_configs:")
    );
    rig.keep("ctl", "/run/prometheus.yaml", &config);
    let rules = rig.read("ctl", Program::new("promtool").args(["check", "rules", "/run/rules.yaml"]));
    assert!(rules.contains("SUCCESS: 8 rules found"), "{rules}");
    let checked = rig.read("ctl", Program::new("promtool").args(["check", "config", "/run/prometheus.yaml"]));
    assert!(checked.contains("SUCCESS"), "{checked}");
    let words = [
        "--config.file=/run/prometheus.yaml",
        "--storage.tsdb.path=/run/data/prometheus",
        &format!("--web.listen-address={PROMETHEUS}"),
    ];
    let prometheus = rig.go("ctl", "prometheus", Program::new("prometheus").args(words));
    until("Prometheus answers", || rig.page("ctl", PROMETHEUS, "/-/ready").0 == 200);
    becomes(&rig, "up{job=\"fracas\"}", 1.0);
    becomes(&rig, "fracas_runs_finished_total{verdict=\"pass\"}", 0.0);

    let path = rig.document("experiment", EXPERIMENT);
    rig.fracas(&["run", &path, "--yes"]).good();
    for (text, value) in [
        ("fracas_runs_finished_total{verdict=\"pass\"}", 1.0),
        ("sum(fracas_runs_finished_total)", 1.0),
        ("sum(fracas_runs_active)", 0.0),
        ("fracas_hosts{state=\"connected\"}", 1.0),
        ("fracas_observers{state=\"connected\"}", 1.0),
        ("fracas_faults_undone_total{cause=\"expired\"}", 1.0),
        ("fracas_fault_effect_delay_seconds_count", 1.0),
        ("fracas_fault_effect_delay_seconds_bucket{le=\"10.0\"}", 1.0),
        ("fracas_fault_undo_duration_seconds_count", 1.0),
        ("fracas_grpc_calls_total{method=\"StartRun\",code=\"OK\"}", 1.0),
        ("fracas_agent_sessions_opened_total", 2.0),
        ("fracas_history_append_duration_seconds_count > bool 10", 1.0),
        ("fracas_history_size_bytes > bool 10000", 1.0),
        ("sum(fracas_history_append_failures_total)", 0.0),
        ("fracas_audit_unsigned_records", 0.0),
        ("abs(time() - fracas_start_time_seconds) < bool 600", 1.0),
        ("fracas_certificate_expiry_timestamp_seconds{certificate=\"server\"} > bool time()", 1.0),
        ("fracas_metrics_missed_facts_total", 0.0),
        ("fracas_halted", 0.0),
        ("fracas_build_info", 1.0),
    ] {
        becomes(&rig, text, value);
    }
    // The name without its suffix: it asked for OpenMetrics, and got it.
    let (_, metadata) = rig.page("ctl", PROMETHEUS, "/api/v1/metadata?metric=fracas_runs_finished");
    assert!(metadata.contains("\"type\":\"counter\"") && metadata.contains("by verdict"), "{metadata}");

    rig.fracas(&["halt", "--reason", "real incident"]).good();
    becomes(&rig, "fracas_halted", 1.0);
    let alert = "count(ALERTS{alertname=\"FracasHalted\",alertstate=\"pending\"})";
    becomes(&rig, alert, 1.0);
    assert_eq!(rig.fracas(&["run", &path, "--yes"]).code, 7);
    becomes(&rig, "fracas_runs_refused_total{reason=\"halted\"}", 1.0);
    rig.fracas(&["halt", "clear", "--reason", "over"]).good();
    becomes(&rig, "fracas_halted", 0.0);
    becomes(&rig, "count(ALERTS) or vector(0)", 0.0);
    let (_, judged) = rig.page("ctl", PROMETHEUS, "/api/v1/rules");
    assert_eq!(judged.matches("\"health\":\"ok\"").count(), 8, "{judged}");

    linted(&rig);
    prometheus.signal(Signal::TERM);
    assert_eq!(prometheus.end(LIMIT).code, 0);
    rig.stop();
}

/// Nothing is said against the metrics by Prometheus's own critic.
fn linted(rig: &Rig) {
    use std::io::Write as _;
    let (code, page) = rig.page("ctl", TOLD, "/metrics");
    assert!(code == 200 && page.lines().count() > 200, "{page}");
    let check = |page: &str| {
        let program = Program::new("promtool").args(["check", "metrics"]).stdin(Stream::Pipe);
        let mut running = rig.host("ctl").spawn(program.stdout(Stream::Pipe).stderr(Stream::Pipe)).expect("started");
        running.stdin.take().expect("pipe").write_all(page.as_bytes()).expect("written");
        let said = [running.stdout.take(), running.stderr.take()]
            .map(|pipe| std::io::read_to_string(pipe.expect("pipe")).expect("text"));
        let end = running.wait_for(LIMIT).expect("lab").expect("it ends");
        (end.success(), said.concat())
    };
    assert_eq!(check(&page), (true, String::new()));
    // It would say something.
    let (fine, said) = check("# TYPE fracas_things counter\nfracas_things 1\n");
    assert!(!fine && said.contains("_total"), "{said}");
}

fn a_controller_that_drains_says_so() {
    let rig = rig();
    let page = |path: &str| rig.page("ctl", TOLD, path);
    assert_eq!((page("/healthz"), page("/readyz")), ((200, "ok\n".into()), (200, "ok\n".into())));
    let going = rig.begin(EXPERIMENT, &["--set", "length=5s"]);
    going.event("active");
    let active = "fracas_runs_active{state=\"running\"} 1\n";
    let (_, told) = page("/metrics");
    assert!(told.contains(active) && told.contains("fracas_faults_desired 1\n"), "{told}");
    rig.signal_controller(Signal::TERM);
    until("it is not ready any more", || page("/readyz") == (503, "draining: no new run starts\n".into()));
    assert_eq!(page("/healthz").0, 200, "it has time to end");
    Rig::finish_without_report(going).ended("pass", 0);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    assert_eq!(page("/healthz").0, 0, "nobody listens");
    rig.verify_data(DATA);
    // What an earlier life counted is not counted again, and it is ready before anybody has called it.
    rig.start_controller();
    until("it is ready", || page("/readyz").0 == 200);
    let (_, told) = page("/metrics");
    assert!(told.contains("fracas_runs_finished_total{verdict=\"pass\"} 0\n"), "{told}");
    assert!(told.contains("fracas_controller_epoch 2\n"), "{told}");
    rig.until_connected(&["box"]);
    rig.stop();
}
