//! Whom the controller tells what happens: a run's verdict and a halt reach a receiver, also one that was away while the
//! controller died; what must not be shown is nowhere.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    rig::{DATA, Going, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("what_happens_is_told_and_outlives_the_controller", &[Need::Lab], told)]
}

const RECEIVER: &str = "127.0.0.1:8099";

const CONFIG: &str = r#"
apiVersion: fracas/v1
kind: ControllerConfig
notifications:
  - name: hook
    webhook: { url: "http://127.0.0.1:8099/events", secret: { file: /run/hook.key } }
  - name: chat
    slack: { url: { env: CHAT_URL } }
    on: [run.finished]
    template: { subject: "${experiment} ended: ${verdict}" }
"#;

const EXPERIMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
targets: { box: { select: "role=box" } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/data/page, content: broken } }, target: box, for: 300ms }
recovery: { stableFor: 0s, giveUpAfter: 1s }
"#;

fn receiver(rig: &Rig) -> Going {
    rig.go("ctl", "receiver", part(&["receive", RECEIVER])).ready()
}

/// The first request of this path whose body has this value at this place.
fn got(receiver: &Going, path: &str, place: &str, value: &str) -> Value {
    let wanted = |line: &Value| (line["path"] == path && line["body"][place] == value).then(|| line.clone());
    receiver.find(value, wanted)
}

fn channel(rig: &Rig, name: &str) -> Value {
    let listed = rig.fracas(&["notify", "list", "--output", "json"]).good().json().remove(0);
    let all = listed["channels"].as_array().expect("channels").iter();
    all.find(|channel| channel["name"] == name).cloned().unwrap_or_else(|| panic!("no {name}: {listed}"))
}

fn told() {
    let rig = Rig::bare(&["box"]);
    let here = receiver(&rig);
    rig.keep("ctl", "/run/hook.key", "CANARY-hmac");
    let config = rig.document("controller", CONFIG);
    let program = || {
        let program = rig.controller_program(DATA).env("FRACAS_CONFIG", &config);
        program.env("CHAT_URL", format!("http://{RECEIVER}/services/CANARY-url"))
    };
    let shown = rig.say("ctl", part(&["fracas", "controller", "--config", &config, "--check-config"])).good().out;
    assert!(shown.contains(r#"{"url":{"env":"CHAT_URL"}}"#) && shown.contains("host.quarantined"), "{shown}");
    rig.start_controller_as(program());
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    rig.keep("box", "/run/data/page", "as it was");
    let run = rig.run(EXPERIMENT);
    let event = got(&here, "/events", "type", "dev.fracas.run.finished");
    assert_eq!(event["body"]["subject"], format!("run/{}", run.id), "{event}");
    assert_eq!(event["body"]["data"]["experiment"], "page-is-broken");
    assert!(event["headers"]["fracas-signature"].as_str().is_some_and(|s| s.starts_with("t=")), "{event}");
    let verdict = event["body"]["data"]["verdict"].as_str().expect("verdict");
    got(&here, "/services/CANARY-url", "text", &format!("page-is-broken ended: {verdict}"));

    // By hand.
    let said = rig.fracas(&["notify", "test", "hook"]).good().out;
    assert!(said.starts_with("hook took test/"), "{said}");
    got(&here, "/events", "type", "dev.fracas.test");
    let nobody = rig.fracas(&["notify", "test", "nobody"]);
    assert!(nobody.code == 5 && nobody.err.contains("fracas notify list"), "{nobody:?}");
    assert_eq!(
        (&channel(&rig, "hook")["failingSinceWallNs"], &channel(&rig, "chat")["by"]),
        (&0.into(), &"slack".into())
    );

    // Away.
    here.kill();
    let refused = rig.fracas(&["notify", "test", "hook"]);
    assert!(refused.code == 5 && refused.err.contains("connection refused"), "{refused:?}");
    rig.fracas(&["halt", "--reason", "real incident"]).good();
    until("the channel fails", || channel(&rig, "hook")["failing"] == "connection refused");
    let list = rig.fracas(&["notify", "list"]).good().out;
    assert!(list.contains("FAILING since"), "{list}");
    rig.kill_controller();
    rig.start_controller_as(program());
    let again = receiver(&rig);
    let event = got(&again, "/events", "type", "dev.fracas.halt.set");
    assert_eq!(event["body"]["data"]["reason"], "real incident", "{event}");
    until("the channel works", || channel(&rig, "hook")["failingSinceWallNs"] == 0);
    let last = channel(&rig, "hook")["last"].clone();
    assert_eq!((&last["notice"], &last["gaveUp"]), (&event["body"]["id"], &"".into()), "{last}");
    rig.fracas(&["halt", "clear", "--reason", "over"]).good();
    got(&again, "/events", "type", "dev.fracas.halt.cleared");

    // Nothing comes twice, and nothing of a run that was told by an earlier life.
    let ids = |going: &Going| -> Vec<String> {
        let lines = going.out.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let of = lines.filter(|line| line["path"] == "/events").map(|line| line["body"]["id"].to_string());
        of.collect()
    };
    let all = [ids(&here), ids(&again)].concat();
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");

    let known = format!("{}{list}{shown}", rig.controller_log());
    assert!(!known.contains("CANARY"), "{known}");
    rig.shell("ctl", &format!("! grep -ra CANARY {DATA}"));
    rig.stop();
}
