//! Guard-rails over all runs, and runs that others must agree to.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    people::Somebody,
    rig::{Rig, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("guard_rails_bound_all_runs_together_and_while_they_go_on", &[Need::Lab], bound),
        trial("what_needs_approval_waits_for_others_and_any_change_voids_it", &[Need::Lab], approved),
    ]
}

const PAGE: &str = "/run/data/page";

fn experiment(name: &str, select: &str, length: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: {name}\n\
         targets: {{ box: {{ select: \"{select}\", pick: {{ count: 1 }} }} }}\n\
         timeline:\n  - {{ id: break, at: 0s, fault: {{ file-replace: {{ path: {PAGE}, content: broken }} }}, \
         target: box, for: {length} }}\n\
         recovery: {{ stableFor: 0s, giveUpAfter: 1s }}\n"
    )
}

fn with_pages(rig: &Rig, names: &[&str]) {
    for name in names {
        rig.keep(name, PAGE, "as it was");
    }
}

fn broken(rig: &Rig, name: &str) -> bool {
    rig.shell(name, &format!("cat {PAGE}")).contains("broken")
}

fn bound() {
    let names = ["one", "two", "three"];
    let rig = Rig::start(&[
        ("one", &[("role", "box"), ("nr", "1")]),
        ("two", &[("role", "box"), ("nr", "2")]),
        ("three", &[("role", "box"), ("nr", "3")]),
    ]);
    with_pages(&rig, &names);
    let rails = "apiVersion: fracas/v1\nkind: GuardRails\nlimits:\n  - { name: boxes, select: role=box, maxHosts: 1, minHealthy: 2 }\n";
    let path = rig.document("rails", rails);
    let said = rig.fracas(&["guard-rails", "set", &path]).good();
    assert!(said.out.contains("1 limits"), "{}", said.out);
    assert_eq!(rig.fracas(&["guard-rails", "show"]).good().out.trim_end(), rails.trim_end());
    assert!(rig.fracas(&["validate", &path]).good().err.contains("guard-rails is valid"));

    let first = rig.begin(&experiment("first", "nr=1", "1h"), &[]);
    first.event("active");
    assert!(broken(&rig, "one"));
    // The second run is a run of its own, and its document has no limit.
    let second = rig.document("second", &experiment("second", "nr=2", "1h"));
    for words in [["plan", second.as_str()].as_slice(), &["run", second.as_str(), "--yes"]] {
        let said = rig.fracas(words);
        let text = said.text();
        assert_eq!(said.code, 7, "{text}");
        assert!(text.contains("guard-rail boxes: 2 of 3") && text.contains("1 of 3"), "{text}");
    }
    assert!(!broken(&rig, "two"));
    // A host is lost meanwhile: too few are left, so the first run must not go on.
    rig.signal_agent("three", rustix::process::Signal::KILL);
    let run = rig.finish(first);
    assert_eq!(run.code, 4, "{}", run.err);
    assert!(
        run.reasons().contains("guard-rail boxes: 1 of 3 (hosts with role=box) are left in health"),
        "{}",
        run.reasons()
    );
    assert!(!broken(&rig, "one"));
    // A restart of the controller keeps them.
    let _ = rig.end_agent("three", crate::rig::LIMIT);
    rig.start_agent("three");
    rig.kill_controller();
    rig.start_controller();
    rig.until_connected(&names);
    assert_eq!(rig.fracas(&["guard-rails", "show"]).good().out.trim_end(), rails.trim_end());
    let bad = rig.document("bad", &rails.replace("maxHosts", "maxHost"));
    let said = rig.fracas(&["guard-rails", "set", &bad]);
    assert!(said.code == 2 && said.err.contains("did you mean `maxHosts`?"), "{}", said.text());
    rig.stop();
}

fn id(said: &Value) -> String {
    said["id"].as_str().expect("id").to_owned()
}

fn approved() {
    let rig = Rig::start(&[("one", &[("role", "box")]), ("two", &[("role", "box")])]);
    with_pages(&rig, &["one", "two"]);
    let rails =
        "apiVersion: fracas/v1\nkind: GuardRails\napprovals:\n  - { name: files, faults: [file-*], validFor: 1h }\n";
    let rails = rig.document("rails", rails);
    rig.fracas(&["guard-rails", "set", &rails]).good();
    let anna = Somebody::sign_in(&rig, "anna", &["operator", "approver"]);
    let bert = Somebody::sign_in(&rig, "bert", &["approver"]);
    let carl = Somebody::sign_in(&rig, "carl", &["runner"]);
    let path = rig.document("page", &experiment("page", "role=box", "1s"));
    let run = ["run", &path, "--yes", "--output", "json"];

    let said = anna.says(&run);
    assert!(said.code == 7 && said.err.contains("guard-rail files asks for approval"), "{}", said.text());
    assert!(anna.says(&["plan", &path]).good().out.contains("it cannot start yet: guard-rail files"));
    let asked = anna.says(&["approval", "ask", &path, "--output", "json"]).good().json().remove(0);
    let host = asked["asked"]["hosts"].as_object().expect("hosts").values().next().expect("host").clone();
    let host = host.as_str().expect("name");
    // Whoever asked does not approve, nor who may not.
    anna.refused(&["approval", "approve", &id(&asked), "--yes"], "somebody else must");
    carl.refused(&["approval", "approve", &id(&asked), "--yes"], "needs the right to approve");
    let shown = bert.says(&["approval", "show", &id(&asked)]).good().out;
    assert!(shown.contains("waiting, 0 of 1 approval") && shown.contains(PAGE) && shown.contains(host), "{shown}");
    let said = bert.says(&["approval", "approve", &id(&asked), "--note", "window agreed", "--yes"]).good();
    assert!(said.out.contains("is approved: 1 of 1 approval"), "{}", said.out);

    // Another document, another place, are not what was approved.
    let other = rig.document("other", &experiment("page", "role=box", "2s"));
    carl.refused(&["run", &other, "--yes"], "guard-rail files asks for approval by 1 other people");
    // The hosts that were shown are those that suffer, though each draw by itself would be another chance.
    let said = carl.says(&run).good();
    let planned = said.json().into_iter().find(|line| line["body"]["kind"] == "planned").expect("planned");
    assert_eq!(planned["body"]["targets"]["box"].as_array().map(Vec::len), Some(1));
    let suffered = said.json().into_iter().find(|line| line["body"]["kind"] == "active").expect("active");
    let suffered = suffered["body"]["item"]["host"].clone();
    assert_eq!(planned["body"]["hosts"][suffered.as_str().expect("id")].as_str(), Some(host));
    // It was for one run.
    carl.refused(&["run", &path, "--yes"], "is used");

    // One that was approved for hosts that changed since.
    let asked = anna.says(&["approval", "ask", &path, "--output", "json"]).good().json().remove(0);
    let host = asked["asked"]["hosts"].as_object().expect("hosts").values().next().expect("host").clone();
    bert.says(&["approval", "approve", &id(&asked), "--yes"]).good();
    rig.fracas(&["hosts", "cordon", host.as_str().expect("name"), "--reason", "release"]).good();
    anna.refused(&["run", &path, "--yes"], "approved for another plan");
    rig.fracas(&["hosts", "uncordon", host.as_str().expect("name")]).good();
    let rejected = bert.says(&["approval", "reject", &id(&asked), "--reason", "not before the migration"]).good();
    assert!(rejected.out.contains("is rejected"));
    anna.refused(&["run", &path, "--yes"], "is rejected");

    // A schedule is approved once for all its runs on few hosts.
    let schedule = "apiVersion: fracas/v1\nkind: Schedule\nname: often\nexperiment: page.yaml\n\
                    when: { every: { period: 2s, from: 2026-01-01T00:00 } }\n";
    let schedule = rig.document("often", schedule);
    anna.says(&["schedule", "set", &schedule]).good();
    let last =
        || rig.fracas(&["schedule", "list", "--output", "json"]).good().json()[0]["schedules"][0]["last"].clone();
    until("times are skipped for want of approval", || last().to_string().contains("asks for approval"));
    let asked = anna.says(&["approval", "ask", &schedule, "--output", "json"]).good().json().remove(0);
    bert.says(&["approval", "approve", &id(&asked), "--yes"]).good();
    until("it runs by itself", || last()["what"] == "started");
    until("on a host", || broken(&rig, "one") || broken(&rig, "two"));
    // Over a restart; and who set it loses the right to.
    rig.kill_controller();
    rig.start_controller();
    rig.until_connected(&["one", "two"]);
    until("it goes on", || last()["what"] == "started");
    rig.fracas(&["people", "revoke", "anna", "operator"]).good();
    until("nothing is started in her name", || last().to_string().contains("may not start runs"));
    let list = bert.says(&["approval", "list"]).good().out;
    assert!(list.contains("used") && list.contains("rejected") && list.contains("approved"), "{list}");
    rig.fracas(&["schedule", "remove", "often", "--reason", "enough"]).good();
    rig.stop();
}
