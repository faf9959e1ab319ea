//! Detection by real alerting: a Prometheus whose rule fires, an Alertmanager that tells of it, and what the report makes of
//! that, against what Prometheus itself recorded and the trial's own eye saw.

use std::time::Duration;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    history::Run,
    rig::{DATA, Going, Rig, until, wait_for},
    services, trial,
    truth::Eye,
};

pub(crate) fn trials() -> Vec<Trial> {
    const ALL: &[Need] = &[
        Need::Lab,
        Need::Program("nginx"),
        Need::Program("prometheus"),
        Need::Program("prometheus-alertmanager"),
        Need::Program("curl"),
    ];
    vec![trial("an_alert_of_a_real_alertmanager_detects", ALL, detects)]
}

const DOCUMENT: &str = "\
apiVersion: fracas/v1
kind: Experiment
name: shop-is-noticed
services: { shop: { rto: 20s } }
targets: { web: { select: \"role=web\" }, edge: { select: \"role=edge\" } }
probes:
  shop: { service: shop, http: { url: \"http://web/\" }, from: edge, every: 50ms, timeout: 500ms }
detections:
  shop-down: { service: shop, match: [\"alertname=ShopDown\", \"severity=~page|critical\"] }
steadyState: { probes: [shop], holdFor: 2s, giveUpAfter: 30s }
timeline: [{ id: kill, at: 0s, target: web, fault: { process-kill: { name: nginx, signal: KILL } } }]
recovery: { stableFor: 6s, giveUpAfter: 1m }
";

/// A Prometheus that scrapes host `web` four times a second, and an Alertmanager that tells the controller of all alerts of a
/// group at once. Prometheus finds its Alertmanager within five seconds of its start, and tells of nothing before: so long
/// its watchdog waits.
fn monitoring(rig: &Rig, token: &str) -> [Going; 2] {
    let ca = rig.shell("ctl", &format!("cat {DATA}/ca.pem"));
    rig.keep("mon", "/run/ca.pem", &ca);
    rig.keep("mon", "/run/token", token);
    rig.keep(
        "mon",
        "/run/rules.yml",
        "groups: [{ name: shop, rules: [\n\
         { alert: Watchdog, expr: vector(1), for: 6s, labels: { severity: none } },\n\
         { alert: ShopScrape, expr: 'up{job=\"shop\"} == 0', labels: { severity: info } },\n\
         { alert: ShopDown, expr: 'up{job=\"shop\"} == 0', for: 1s, labels: { severity: page },\n\
         annotations: { summary: the shop does not answer } } ] }]\n",
    );
    rig.keep(
        "mon",
        "/run/prometheus.yml",
        "global: { scrape_interval: 250ms, scrape_timeout: 200ms, evaluation_interval: 250ms }\n\
         rule_files: [/run/rules.yml]\n\
         alerting: { alertmanagers: [{ static_configs: [{ targets: ['127.0.0.1:9093'] }] }] }\n\
         scrape_configs: [{ job_name: shop, metrics_path: /, static_configs: [{ targets: ['web:80'] }] }]\n",
    );
    rig.keep(
        "mon",
        "/run/alertmanager.yml",
        "route: { receiver: fracas, group_by: [nothing], group_wait: 200ms, group_interval: 400ms, repeat_interval: 1h }\n\
         receivers: [{ name: fracas, webhook_configs: [{ url: 'https://ctl:7766/signals/alertmanager',\n\
         http_config: { tls_config: { ca_file: /run/ca.pem },\n\
         authorization: { credentials_file: /run/token } } }] }]\n",
    );
    let alertmanager = Program::new("/usr/bin/prometheus-alertmanager").args([
        "--config.file=/run/alertmanager.yml",
        "--storage.path=/tmp/alertmanager",
        "--web.listen-address=127.0.0.1:9093",
        "--cluster.listen-address=",
    ]);
    let prometheus = Program::new("/usr/bin/prometheus").args([
        "--config.file=/run/prometheus.yml",
        "--storage.tsdb.path=/tmp/prometheus",
        "--web.listen-address=127.0.0.1:9090",
    ]);
    [rig.go("mon", "alertmanager", alertmanager), rig.go("mon", "prometheus", prometheus)]
}

/// What a query of Prometheus gives.
fn query(rig: &Rig, text: &str) -> Vec<Value> {
    let words = ["-sS", "-m", "5", "-G", "http://127.0.0.1:9090/api/v1/query", "--data-urlencode"];
    let said = rig.say("mon", Program::new("curl").args(words).arg(format!("query={text}")));
    let answer: Value = serde_json::from_str(&said.out).unwrap_or_default();
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

fn detects() {
    let rig = Rig::bare(&["web", "mon", "edge"]);
    rig.start_controller_as(rig.controller_program(DATA).args(["--front-listen", "0.0.0.0:7766"]));
    for name in ["web", "edge"] {
        rig.join(name, &[("role", name)]);
    }
    rig.until_connected(&["web", "edge"]);
    let _nginx = services::nginx_saying(&rig, "web", 5000, "shop_visitors 1\\n");
    rig.fracas(&["people", "add", "alertmanager", "--role", "signaller"]).good();
    let made = rig.fracas(&["people", "token", "make", "alertmanager", "--output", "json"]).good().json().remove(0);
    let token = made["token"].as_str().expect("a token").to_owned();
    let _monitoring = monitoring(&rig, &token);
    until("Prometheus sees the shop", || query(&rig, "up{job=\"shop\"} == 1").len() == 1);
    until("its watchdog fires", || query(&rig, "ALERTS{alertname=\"Watchdog\",alertstate=\"firing\"}").len() == 1);
    let eye = Eye::open(&rig, "edge", "http", &format!("{}:80", rig.address("web")), Duration::from_millis(500));

    let run = rig.run(DOCUMENT);
    run.ended("pass", 0);
    let seen = eye.close();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let fired = wait_for("Prometheus has recorded it", || {
        let samples = query(&rig, "ALERTS{alertname=\"ShopDown\",alertstate=\"firing\"}[10m]");
        samples.first()?["values"][0][0].as_f64()
    });
    judged(&run, fired);
    rig.verify_history();
    rig.start_controller();
    rig.until_connected(&["web", "edge"]);
    let secret = token.rsplit('.').next().expect("a secret");
    let kept = rig.say("ctl", Program::new("/bin/grep").args(["-r", "-l", "-e", secret, DATA]));
    assert_eq!(kept.out, "", "the token is kept");
    rig.stop();
}

/// `fired`: Unix seconds at which Prometheus began to record the alert as firing.
fn judged(run: &Run, fired: f64) {
    let report = &run.report;
    let origin = report["times"]["originWallNs"].as_i64().expect("an origin");
    let alerts = report["alerts"].as_array().expect("alerts");
    let alert = |name: &str| {
        let mine: Vec<&Value> = alerts.iter().filter(|alert| alert["name"] == name).collect();
        assert_eq!(mine.len(), 1, "{name} once, however often it was told: {alerts:#?}");
        mine[0]
    };
    let down = alert("ShopDown");
    assert_eq!((&down["standing"], &down["detections"]), (&"detects".into(), &json!(["shop-down"])), "{down}");
    assert_eq!(down["summary"], "the shop does not answer");
    assert_eq!(alert("Watchdog")["standing"], "preExisting");
    assert_eq!(alert("ShopScrape")["standing"], "unexplained");
    let ns = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("{value} in {down}"));
    let off_ms = (origin + ns(&down["firedNs"])) as f64 / 1e6 - fired * 1e3;
    eprintln!("fired {off_ms:.3} ms off what Prometheus recorded");
    assert!(off_ms.abs() < 2.0, "{down}: {fired}");
    assert!(ns(&down["cameNs"]) >= ns(&down["firedNs"]) && ns(&down["resolvedNs"]) > ns(&down["firedNs"]), "{down}");

    let timing = &report["timings"][0];
    let instant = |id: &str| {
        let all = timing["instants"].as_array().expect("instants");
        let found = all.iter().find(|instant| instant["id"] == id).unwrap_or_else(|| panic!("no {id} in {timing:#}"));
        (ns(&found["loNs"]), ns(&found["hiNs"]))
    };
    let truth = (fired * 1e9) as i64 - origin;
    let holds = |(lo, hi): (i64, i64), at: i64| lo - 2_000_000 <= at && at <= hi + 2_000_000;
    assert!(holds(instant("t5"), truth) && holds(instant("detected"), truth), "{:?} {truth}", instant("t5"));
    assert!(instant("t6").0 >= truth && instant("t13").1 > instant("t11").0, "{timing:#}");
    let metric = |id: &str| {
        let all = timing["metrics"].as_array().expect("metrics");
        all.iter().find(|metric| metric["id"] == id).unwrap_or_else(|| panic!("no {id}"))["length"].clone()
    };
    for id in ["ttd", "ttn", "ttr"] {
        assert!(metric(id).is_object(), "{id} is known: {timing:#}");
    }
    // The rule waits for a second, and Prometheus looks four times a second.
    let ttd = crate::truth::Range::of(&metric("ttd"));
    assert!(ttd.hi > 1_000_000_000 && ttd.lo < 4_000_000_000, "{ttd}");
    eprintln!("time to detect {ttd}");
}
