//! Stop conditions and canaries, seen from outside: what the vantage saw ends the fault elsewhere within a second, and a
//! fault that does harm on its canary never reaches the other hosts.

use fracas_sim::{
    lab::{Program, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    history::{Run, number},
    rig::{Going, LIMIT, Rig, until, wait_for},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    const PROMETHEUS: &[Need] = &[Need::Lab, Need::Program("prometheus")];
    vec![
        trial("a_stop_condition_ends_the_fault_within_a_second", &[Need::Lab, Need::Time], within_a_second),
        trial("every_kind_of_stop_condition_stops", PROMETHEUS, every_kind_stops),
        trial("a_fault_that_harms_its_canary_goes_no_further", &[Need::Lab], canary),
    ]
}

/// How often a stop is measured.
const STOPS: usize = 20;
/// From the look by which the condition is met to the fault being gone: what is promised, nanoseconds.
const PROMISED_NS: i64 = 1_000_000_000;

/// A crew that stands still for half a minute, unless `more` ends that; `probes` look from `edge`.
fn document(probes: &str, more: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: stops\n\
         targets: {{ box: {{ select: \"role=box\" }}, edge: {{ select: \"role=edge\" }} }}\n\
         probes:\n{probes}\
         timeline:\n  - {{ id: still, at: 0s, target: box, for: 30s, fault: {{ process-pause: {{ name: heart }} }} }}\n\
         recovery: {{ stableFor: 0s }}\nlease: 3s\n{more}"
    )
}

/// The oracle on `edge` and whoever asks it.
struct Oracle(Going);

impl Oracle {
    fn start(rig: &Rig) -> Self {
        let address = format!("{}:9000", rig.address("edge"));
        let going = rig.go("edge", "oracle", part(&["oracle", &address]).stdin(Stream::Pipe)).ready();
        let mut oracle = Self(going);
        oracle.says(204, "");
        oracle
    }

    fn says(&mut self, code: u16, body: &str) {
        self.0.order(&json!({ "code": code, "body": body }));
    }

    /// When this answer was first given since `after`.
    fn given(&self, body: &str, after: i64) -> i64 {
        let given =
            |line: &Value| Some(number(line, "/bootNs")).filter(|at| line["given"]["body"] == body && *at > after);
        self.0.find("the answer was given", |line| line.get("given").and_then(|_| given(line)))
    }
}

fn rig(boxes: &[&str]) -> (Rig, Vec<Going>) {
    let mut agents: Vec<(&str, &[(&str, &str)])> = vec![("edge", &[("role", "edge")])];
    agents.extend(boxes.iter().map(|name| (*name, &[("role", "box")][..])));
    let rig = Rig::start(&agents);
    let hearts = boxes.iter().map(|name| rig.go(name, "heart", part(&["heart", "heart"])).ready()).collect();
    (rig, hearts)
}

/// The pauses of a heart so far, from and to.
fn stills(heart: &Going) -> Vec<(i64, i64)> {
    let lines = heart.out.lines();
    let said = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    said.filter_map(|line| Some((number(line.get("still")?, "/from"), number(line.get("still")?, "/to")))).collect()
}

/// Waits for the end of the pause in which this instant lies.
fn still(heart: &Going, at: i64) -> (i64, i64) {
    let around = |(from, to): &(i64, i64)| (*from..=*to).contains(&at);
    wait_for("the heart beats again", || stills(heart).into_iter().find(around))
}

/// The pauses of at least a second: no scheduler makes them.
fn long(heart: &Going) -> Vec<(i64, i64)> {
    stills(heart).into_iter().filter(|(from, to)| to - from >= 1_000_000_000).collect()
}

fn stopped(run: &Run, reason: &str) {
    run.ended("aborted", 4);
    assert!(run.reasons().contains(reason), "{reason} in {}", run.reasons());
    assert_eq!(run.undo_causes(), ["notDesired"], "{}", run.story());
}

const ASKING: &str = "  may: { webhook: { url: \"http://edge:9000/may?run=1\" }, from: edge, every: 100ms }\n";

fn within_a_second() {
    let (rig, hearts) = rig(&["box"]);
    let mut oracle = Oracle::start(&rig);
    let rail = "abortWhen: [{ probe: may, failingFor: 0s }]\nsteadyState: { probes: [may], holdFor: 100ms }\n";
    let (mut after, mut took) = (0, Vec::new());
    for n in 0..STOPS {
        let going = rig.begin(&document(ASKING, rail), &[]);
        // Proven, so that the heart has stood still for a while.
        going.event("checked");
        let stop = format!("{{\"stop\": true, \"reason\": \"number {n}\"}}");
        oracle.says(200, &stop);
        let asked = oracle.given(&stop, after);
        let run = rig.finish(going);
        stopped(&run, &format!("asked to stop: number {n}, seen by edge"));
        let met = number(run.body("stopConditionMet"), "/look/c");
        assert!(met >= asked, "a condition cannot be met before it is");
        let (_, to) = still(&hearts[0], asked);
        took.push(to - asked);
        oracle.says(204, "");
        after = to;
    }
    took.sort_unstable();
    let (p50, most) = (took[STOPS / 2] / 1_000_000, took[STOPS - 1] / 1_000_000);
    eprintln!("the service says stop -> the heart beats: n = {STOPS}, p50 {p50} ms, max {most} ms");
    assert!(took[STOPS - 1] <= PROMISED_NS, "{took:?}");
    rig.stop();
}

fn every_kind_stops() {
    let (rig, hearts) = rig(&["box"]);
    let mut oracle = Oracle::start(&rig);
    // The heart beats again within the promise after the look that the history names.
    let in_time = |run: &Run| {
        let met = number(run.body("stopConditionMet"), "/look/c");
        let (from, to) = still(&hearts[0], met);
        assert!(
            from < met && (0..=PROMISED_NS).contains(&(to - met)),
            "{} ms\n{}",
            (to - met) / 1_000_000,
            run.story()
        );
    };

    // An error budget: of the 20 looks of 2 s two may fail, whatever lies between.
    let budget = "abortWhen: [{ probe: may, errorBudget: { allow: 10%, within: 2s } }]\n";
    let going = rig.begin(&document(ASKING, budget), &[]);
    going.event("active");
    oracle.says(503, "spent");
    let run = rig.finish(going);
    stopped(&run, "may failed 3 times within 2s (its error budget of 10% allows 2): status 503, seen by edge");
    in_time(&run);
    oracle.says(204, "");

    // A query of a real Prometheus, which scrapes what the oracle says.
    let scraped = "global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: shop, static_configs: [{ targets: [\"ORACLE\"] }] }]\n";
    rig.keep("ctl", "/run/prometheus.yaml", &scraped.replace("ORACLE", &format!("{}:9000", rig.address("edge"))));
    let at = format!("{}:9090", rig.address("ctl"));
    let words = [
        "--config.file=/run/prometheus.yaml",
        "--storage.tsdb.path=/run/data/prometheus",
        &format!("--web.listen-address={at}"),
    ];
    oracle.says(200, "shop_errors 0\n");
    let prometheus = rig.go("ctl", "prometheus", Program::new("prometheus").args(words));
    until("Prometheus has scraped", || rig.page("ctl", &at, "/api/v1/query?query=shop_errors").1.contains("\"0\""));
    // From the controller's own observer, which is where such a probe looks from unless told otherwise.
    let asks = format!(
        "  errors: {{ prometheus: {{ url: \"http://{at}\", query: \"max(shop_errors)\", below: 5 }}, every: 200ms }}\n"
    );
    let rail = "abortWhen: [{ probe: errors, failingFor: 0s }]\nsteadyState: { probes: [errors], holdFor: 300ms }\n";
    let going = rig.begin(&document(&asks, rail), &[]);
    going.event("active");
    oracle.says(200, "shop_errors 7\n");
    let run = rig.finish(going);
    stopped(&run, "7 is not below 5, seen by observer");
    in_time(&run);
    // When it does not answer, nobody knows: that is no reason to go on.
    oracle.says(200, "shop_errors 0\n");
    until("Prometheus has scraped", || rig.page("ctl", &at, "/api/v1/query?query=shop_errors").1.contains("\"0\""));
    let going = rig.begin(&document(&asks, rail), &[]);
    going.event("active");
    prometheus.signal(Signal::KILL);
    let run = rig.finish(going);
    stopped(&run, "errors was failing for");
    in_time(&run);
    oracle.says(204, "");

    // Too little memory on a host.
    let short = "  room: { pressure: { memoryAvailable: 100% }, from: edge, every: 500ms }\n";
    let run = rig.run(&document(short, "abortWhen: [{ probe: room, failingFor: 1s }]\n"));
    stopped(&run, "less than 100% of the memory available, seen by edge");
    in_time(&run);

    lost(&rig, &hearts[0]);
    rig.stop();
}

/// A vantage that is lost, as a condition and as the end of one.
fn lost(rig: &Rig, heart: &Going) {
    for (rail, reason) in [
        ("{ vantage: edge, lostFor: 500ms }", "contact with edge was lost for 500ms"),
        ("{ probe: may, failingFor: 20s }", "may cannot be seen any more: contact with its vantage edge was lost"),
    ] {
        let going = rig.begin(&document(ASKING, &format!("abortWhen: [{rail}]\n")), &[]);
        going.event("active");
        rig.signal_agent("edge", Signal::KILL);
        let run = rig.finish(going);
        stopped(&run, reason);
        still(heart, number(run.body("undone"), "/between/from/bootNs"));
        rig.start_agent("edge");
        rig.until_connected(&["edge"]);
    }
    // Unless the document says that it goes on without.
    let rail = "abortWhen: [{ probe: may, failingFor: 20s, onLoss: continue }]\n";
    let going = rig.begin(&document(ASKING, rail).replace("for: 30s", "for: 6s"), &[]);
    going.event("active");
    rig.signal_agent("edge", Signal::KILL);
    let run = rig.finish(going);
    run.ended("pass", 0);
    assert_eq!(run.undo_causes(), ["expired"], "{}", run.story());
    rig.start_agent("edge");
    assert!(rig.agent_reports("edge"));
}

fn canary() {
    let boxes = ["one", "two", "three"];
    let (rig, hearts) = rig(&boxes);
    let mut oracle = Oracle::start(&rig);
    let rollout = "rollout: { canary: { count: 1 }, probes: [may], holdFor: 1s, giveUpAfter: 5s }";
    let slowly =
        document(ASKING, "").replace("lease: 3s", "lease: 1s").replace("for: 30s", &format!("for: 8s, {rollout}"));

    let plan = rig.fracas(&["plan", &rig.document("plan", &slowly), "--seed", "7"]).good().out;
    assert!(plan.contains("on 1 host first until may is ok for 1s"), "{plan}");
    assert_eq!(plan.matches("(canary)").count(), 1, "{plan}");
    let run = rig.run_with(&slowly, &["--seed", "7"]);
    run.ended("pass", 0);
    let mut begins: Vec<(i64, usize)> =
        (0..3).map(|i| (wait_for("the heart beats again", || long(&hearts[i]).first().copied()).0, i)).collect();
    begins.sort_unstable();
    let first = boxes[begins[0].1];
    assert!(plan.contains(&format!("still on {first} (canary)")), "{first} in {plan}");
    let ahead = begins[1].0 - begins[0].0;
    assert!(ahead >= 1_000_000_000, "the others stood still {} ms later", ahead / 1_000_000);
    assert_eq!(run.bodies("rolloutWidened").len(), 1);
    let text = rig.fracas(&["report", &run.id]).good().out;
    assert!(text.contains("on 1 host first, on the others from"), "{text}");

    // The first harm that is seen stays on one host.
    let going = rig.begin(&slowly.replace("for: 8s", "for: 30s"), &["--seed", "7"]);
    going.event("active");
    oracle.says(503, "harm");
    let run = rig.finish(going);
    run.ended("aborted", 4);
    assert!(run.reasons().contains("still: with its canary in effect may was up for"), "{}", run.reasons());
    assert!(run.reasons().contains("its canary came first"), "{}", run.reasons());
    until("the canary beats again", || long(&hearts[begins[0].1]).len() == 2);
    let stood: Vec<usize> = hearts.iter().map(|heart| long(heart).len()).collect();
    assert_eq!(stood.iter().sum::<usize>(), 4, "three of the first run, and the canary: {stood:?}");
    oracle.says(204, "");

    // Or the run goes on without it.
    let going = rig.begin(
        &slowly
            .replace("for: 8s", "for: 30s")
            .replace("giveUpAfter: 5s", "giveUpAfter: 2s, onFailure: continue")
            .replace("recovery:", "  - { id: last, after: { started: still }, wait: 4s }\nrecovery:"),
        &["--seed", "7"],
    );
    going.event("active");
    oracle.says(503, "harm");
    let run = rig.finish(going);
    run.ended("fail", 1);
    assert_eq!(run.undo_causes(), ["notDesired"], "{}", run.story());
    assert_eq!(run.bodies("entryFailed").len(), 1, "{}", run.story());
    for heart in hearts {
        heart.signal(Signal::KILL);
        heart.end(LIMIT);
    }
    rig.stop();
}
