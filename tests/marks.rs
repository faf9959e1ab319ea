//! Marks: people tell when they detected, acknowledged and mitigated, and the report makes times of it that contain what the
//! trial's own clock saw.

use fracas_sim::{lab::Stream, need::Need};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    history::{Run, nanoseconds, number},
    people::Somebody,
    rig::Rig,
    stage::part,
    trial,
    truth::now_ns,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("what_people_tell_is_measured", &[Need::Lab], told)]
}

/// A page that says what the trial has it say, and a crew that is paused meanwhile.
const EXPERIMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
services: { page: { rto: 1m } }
targets: { box: { select: "role=box" } }
probes:
  page: { service: page, http: { url: "http://box:9000/", status: 204 }, from: box, every: 50ms, timeout: 500ms }
steadyState: { probes: [page], holdFor: 300ms, giveUpAfter: 20s }
timeline:
  - { id: still, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: 4s }
recovery: { stableFor: 500ms, giveUpAfter: 20s }
"#;

/// Runs something; between which two instants of the trial's own clock.
fn during(what: impl FnOnce()) -> (i64, i64) {
    let from = now_ns();
    what();
    (from, now_ns())
}

fn metric<'a>(run: &'a Run, id: &str) -> &'a Value {
    let metrics = run.report["timings"][0]["metrics"].as_array().expect("metrics");
    metrics.iter().find(|metric| metric["id"] == id).unwrap_or_else(|| panic!("no {id}: {metrics:#?}"))
}

/// Bounds in nanoseconds.
fn length(run: &Run, id: &str) -> (i64, i64) {
    let metric = metric(run, id);
    let bounds = &metric["length"];
    assert!(bounds["hi"].is_string(), "{metric}");
    (nanoseconds(&bounds["lo"]), nanoseconds(&bounds["hi"]))
}

fn told() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let _crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let address = format!("{}:9000", rig.address("box"));
    let mut page = rig.go("box", "page", part(&["oracle", &address]).stdin(Stream::Pipe)).ready();
    page.order(&json!({ "code": 204, "body": "" }));
    let bert = Somebody::sign_in(&rig, "bert", &["viewer"]);
    let going = rig.begin(EXPERIMENT, &[]);
    let run = going.event("planned")["run"].as_str().expect("run").to_owned();
    let effective = going.event("active")["effective"].clone();
    let broken = during(|| page.order(&json!({ "code": 500, "body": "broken" })));
    going.event_with("edge", |body| body["ok"] == false);

    let not = |words: &[&str], why: &str| {
        let said = bert.says(words);
        assert!(said.code != 0 && said.err.contains(why), "{words:?}: {}", said.text());
    };
    not(&["mark", &run, "detected", "--service", "pages"], "has no service `pages`: it has page");
    not(&["mark", &run, "detected", "--by", "bert"], "needs the right to run");
    let unknown = rig.fracas(&["mark", &run, "detected", "--by", "nobody-here"]);
    assert!(unknown.code != 0 && unknown.err.contains("fracas people add"), "{}", unknown.text());
    not(&["mark", &run, "detected", "--ago", "2d"], "nothing longer than");
    not(&["mark", "nothing", "detected"], "nothing");
    not(&["mark", &run, "seen"], "possible values");
    // A false alarm, taken back.
    bert.says(&["mark", &run, "detected"]).good();
    bert.says(&["mark", &run, "detected", "--retract", "--note", "another page"]).good();
    let detected = during(|| drop(bert.says(&["mark", &run, "detected", "--note", "page 7"]).good()));
    let said = rig.fracas(&["mark", "last", "acknowledged", "--service", "page", "--by", "bert", "--output", "json"]);
    assert_eq!(said.good().json()[0]["mark"], "acknowledged");
    let mitigated = during(|| {
        drop(rig.fracas(&["mark", &run, "mitigated", "--ago", "60ms", "--give-or-take", "30ms"]).good());
    });
    // It stays down beyond the undo, so that which came first can be told.
    let undone = number(&going.event("undone"), "/between/to/bootNs");
    going.event_with("readingsSealed", |body| number(body, "/between/s") > undone);
    let mended = during(|| page.order(&json!({ "code": 204, "body": "" })));
    let run = rig.finish(going);
    run.ended("inconclusive", 3);

    let boot = |which: &str| effective[which]["bootNs"].as_i64().expect("a stamp");
    let ttd = length(&run, "ttd");
    let truth = (detected.0 - boot("to"), detected.1 - boot("from"));
    assert!(ttd.0 >= truth.0 - 5_000_000 && ttd.1 <= truth.1 + 5_000_000, "{ttd:?} lies beside {truth:?}");
    assert!(ttd.0 <= truth.1 && truth.0 <= ttd.1, "{ttd:?} does not meet {truth:?}");
    // From 30 to 90 ms before it was told.
    let ttm = length(&run, "ttm");
    let truth = (mitigated.0 - boot("to") - 90_000_000, mitigated.1 - boot("from") - 30_000_000);
    assert!(ttm.1 - ttm.0 >= 60_000_000 && ttm.0 >= truth.0 - 5_000_000 && ttm.1 <= truth.1 + 5_000_000, "{ttm:?}");
    let outage = length(&run, "outage");
    let truth = (mended.0 - broken.1, mended.1 - broken.0);
    assert!(outage.0 <= truth.1 && truth.0 <= outage.1, "{outage:?} does not meet {truth:?}");
    assert_eq!(metric(&run, "ttd")["definition"], "detected - t2 (fault effective)");
    let reverted = &run.report["timings"][0]["instants"];
    let reverted = reverted.as_array().expect("instants").iter().find(|one| one["id"] == "t10").expect("t10");
    assert!(reverted["how"].as_str().is_some_and(|how| how == "its duration ended"), "{reverted}");
    assert!(metric(&run, "ttr")["caveat"].as_str().is_some_and(|why| why.contains("lifted first")), "{}", run.story());
    for (form, sign) in [("text", "time to detect"), ("markdown", "## Times"), ("html", "id=\"times\"")] {
        let report = rig.fracas(&["report", &run.id, "--format", form]).good().out;
        assert!(report.contains(sign) && report.contains("page 7"), "{form}: {report}");
    }
    let late = bert.says(&["mark", &run.id, "resolved"]);
    assert!(late.code == 7 && late.err.contains("is over"), "{}", late.text());
    rig.stop();
}
