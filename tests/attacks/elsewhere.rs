//! Every method of the operators' service, tried by those who may not: a host, somebody of another environment, and whoever
//! has a token that is none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ADMIN, CA, attacker, identity, knows_the_interface, start_open, told};
use crate::{
    people::Somebody,
    rig::{DATA, Rig, until},
    stage::part,
};

const SCRIPT: &str = include_str!("methods.py");
/// The service had so many methods when this was written; there will not be fewer.
const METHODS: usize = 50;

pub(super) fn certificate() {
    let rig = Rig::bare(&["box"]);
    let [front, fleet] = start_open(&rig);
    rig.join("box", &[]);
    rig.until_connected(&["box"]);
    knows_the_interface(&rig, "box");
    let [key, cert] = identity();
    let tried = told(attacker(&rig, "box", SCRIPT, &["certificate", &front, &fleet, CA, ADMIN, &key, &cert]));
    assert!(tried.len() >= METHODS, "{} methods", tried.len());
    for one in &tried {
        // There the service asks for a token; here there is no such service.
        assert!(one["front"] == "UNAUTHENTICATED" && one["fleet"] == "UNIMPLEMENTED", "{one}");
    }
    eprintln!("{} methods refused to a host's certificate, at both listeners", tried.len());
    assert!(rig.fracas(&["hosts"]).good().out.contains("box"));
    rig.stop();
}

const EXPERIMENT: &str = "apiVersion: fracas/v1
kind: Experiment
name: only-in-b
targets: { box: { select: \"role=box\" } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/data/page, content: broken } }, target: box, for: 1h }
recovery: { stableFor: 0s, giveUpAfter: 1s }
";

const SCHEDULE: &str = "apiVersion: fracas/v1
kind: Schedule
name: nights-of-b
experiment: only-in-b.yaml
when: { cron: '0 3 1 1 *' }
";

/// What stands in B for somebody who may not look there; where it is found in an answer, too much was told.
const MARKS: [&str; 3] = ["only-in-b", "box-b", "nights-of-b"];

pub(super) fn elsewhere() {
    let rig = Rig::bare(&["box-a", "box-b"]);
    let [front, _] = start_open(&rig);
    for (name, place) in [("box-a", "a"), ("box-b", "b")] {
        let ask = ["hosts", "join-token", "--label", "role=box", "--environment", place, "--output", "json"];
        let token = rig.fracas(&ask).good().json()[0]["token"].as_str().expect("token").to_owned();
        rig.start_agent_as(name, rig.agent_program(name).env("FRACAS_JOIN_TOKEN", token));
        rig.keep(name, "/run/data/page", "as it was");
    }
    rig.until_connected(&["box-a", "box-b"]);
    knows_the_interface(&rig, "box-a");
    let bert = Somebody::sign_in(&rig, "bert", &["operator@b"]);
    let path = rig.document("only-in-b", EXPERIMENT);
    let one = |said: Value, name: &str| said[name].as_str().unwrap_or_else(|| panic!("no {name}: {said}")).to_owned();
    let json = |words: &[&str]| rig.fracas(&[words, &["--output", "json"]].concat()).good().json().remove(0);
    // All that there is to reach for in B.
    let approval = json(&["approval", "ask", &path, "--environment", "b"]);
    let feed = json(&["schedule", "feed", "--environment", "b"]);
    rig.fracas(&["schedule", "set", &rig.document("nights", SCHEDULE), "--environment", "b"]).good();
    let run = one(json(&["run", &path, "--yes", "--detach", "--environment", "b"]), "run");
    until("the page is broken", || rig.shell("box-b", "cat /run/data/page").contains("broken"));
    let known = json!({
        "run": run, "host": "box-b", "name": "nights-of-b", "id": one(approval.clone(), "id"), "person": "bert",
        "RevokeFeed.id": one(feed["feed"].clone(), "id"), "RevokeAccessToken.id": bert.token_id(), "environment": "b",
        "source": EXPERIMENT, "source_name": "only.yaml", "SetSchedule.source": SCHEDULE, "experiment": EXPERIMENT,
        "experiment_name": "only-in-b.yaml", "schedule": "nights-of-b", "entry": "break", "go": true, "reason": "x",
        "grant": { "role": "viewer", "environment": "b" }, "grants": { "role": "viewer", "environment": "b" },
        "set": { "role": "y" }, "labels": { "role": "y" }, "digest": one(approval, "digest"), "handle": "eve",
        "channel": "none", "stream": format!("run/{run}"), "limit": 1000,
    });
    let state = |name: &str| {
        let shown = json(&["show", name]);
        (shown["run"]["state"].clone(), shown["state"].clone())
    };
    let before = state(&run);
    for (who, roles) in [("anna", ["operator@a", "approver@a"]), ("adam", ["admin@a", "viewer@a"])] {
        let somebody = Somebody::sign_in(&rig, who, &roles);
        let words = ["elsewhere", &front, CA, ADMIN, somebody.token(), &known.to_string()];
        let tried = told(attacker(&rig, "box-a", SCRIPT, &words));
        assert!(tried.len() >= METHODS - 2, "{} methods", tried.len());
        let mut counted = BTreeMap::new();
        for one in &tried {
            let (method, status) = (one["method"].as_str().expect("name"), one["status"].as_str().expect("status"));
            let said = one["said"].as_str().unwrap_or_default();
            *counted.entry(status.to_owned()).or_insert(0) += 1;
            let names_b =
                one["fields"].as_array().is_some_and(|fields| fields.iter().any(|f| f != "reason" && f != "limit"));
            match status {
                "PERMISSION_DENIED" | "NOT_FOUND" => {}
                // To hold a schedule back is everybody's, what it is, not.
                "OK" if method == "PauseSchedule" => {}
                // Lists of what one may see, and what concerns all.
                "OK" if !names_b => {}
                _ => panic!("{who} {method}: {status} {said}"),
            }
            if status == "OK" {
                assert!(!MARKS.iter().any(|mark| said.contains(mark)), "{who} {method}: {said}");
            }
        }
        eprintln!("{who} of A tried {} methods on B: {counted:?}", tried.len());
        // By way of their own environment neither.
        let path = rig.document("nights", SCHEDULE);
        somebody.refused(&["schedule", "set", &path, "--environment", "a"], "environment b");
    }
    assert_eq!(state(&run), before);
    assert!(rig.shell("box-b", "cat /run/data/page").contains("broken"), "the run in B goes on");
    let shown = json(&["schedule", "show", "nights-of-b"]);
    assert!(shown.to_string().contains("\"environment\":\"b\""), "{shown}");
    rig.fracas(&["stop", &run]).good();
    until("the page is whole", || rig.shell("box-b", "cat /run/data/page").contains("as it was"));
    rig.stop();
}

pub(super) fn bad_tokens() {
    let rig = Rig::bare(&["box", "other"]);
    let [front, _] = start_open(&rig);
    knows_the_interface(&rig, "box");
    let foreign = rig.go("other", "foreign", part(&["fracas", "controller", "--data-dir", DATA]));
    rig.fracas(&["people", "add", "anna", "--role", "operator@default"]).good();
    let made = |ttl: &str| {
        let words = ["people", "token", "make", "anna", "--ttl", ttl, "--output", "json"];
        let made = rig.fracas(&words).good().json().remove(0);
        (made["token"].as_str().expect("token").to_owned(), made["id"].as_str().expect("id").to_owned())
    };
    let (good, id) = made("1h");
    let (short, _) = made("1s");
    let mut strange = String::new();
    until("the other controller has made its token", || {
        let text = rig.shell("other", &format!("cat {DATA}/admin.token 2>/dev/null; true"));
        text.trim().clone_into(&mut strange);
        !strange.is_empty()
    });
    assert!(foreign.runs());
    let status = |token: &str| {
        let known = json!({ "limit": 1 }).to_string();
        let tried = told(attacker(&rig, "box", SCRIPT, &["elsewhere", &front, CA, ADMIN, token, &known]));
        let all: Vec<(String, String)> = tried
            .iter()
            .map(|one| (one["method"].to_string(), one["status"].as_str().expect("status").to_owned()))
            .collect();
        assert!(all.len() >= METHODS - 2);
        all
    };
    let opens = |token: &str| status(token).iter().any(|(_, status)| status != "UNAUTHENTICATED");
    assert!(opens(&good), "a good one opens something");
    until("the short one has expired", || !opens(&short));
    let join = rig.token(&[]);
    let wrong = format!("{}{}", &good[..good.len() - 2], if good.ends_with("00") { "11" } else { "00" });
    let digest = good.rsplit_once('.').expect("parts").0.to_owned();
    for bad in [&good[..good.len() - 1], &wrong, &digest, &strange, &join, "", "fpt1", "\u{e9}"] {
        // What is no header's value never leaves the attacker.
        if bad.is_ascii() {
            assert!(!opens(bad), "{bad}");
        }
    }
    rig.fracas(&["people", "token", "revoke", &id, "--reason", "lost"]).good();
    assert!(!opens(&good), "it was revoked");
    foreign.kill();
    rig.stop();
}
