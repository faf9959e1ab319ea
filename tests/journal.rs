//! The agent's journal on a real host: what it tells a host's owner afterwards, and what becomes of a host whose journal is
//! torn, newer than the agent, on a disk that takes no writes, or on one that is full.

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    residue::Dump,
    rig::{LIMIT, Rig, STATE, Said, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_host_tells_its_own_history", &[Need::Lab], a_host_tells_its_own_history),
        trial("a_newer_journal_is_kept_and_takes_no_orders", &[Need::Lab], a_newer_journal),
        trial("a_torn_journal_still_undoes", &[Need::Lab], a_torn_journal_still_undoes),
        trial("nothing_is_applied_that_cannot_be_journalled", &[Need::Lab, Need::Root], nothing_is_applied),
    ]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: broken-page
parameters:
  length: { type: duration, default: 500ms }
targets: { box: { select: "role=box" } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/site/page, content: "out of order" } }, target: box, for: "${length}" }
"#;

/// A host with an agent and a file, whose state directory may be a mount of its own.
struct Stage {
    rig: Rig,
    before: Dump,
}

impl Stage {
    fn set(mount: Option<&str>) -> Self {
        let rig = Rig::bare(&["box"]);
        rig.start_controller();
        rig.shell("box", "mkdir -p /run/site && echo welcome > /run/site/page");
        if let Some(options) = mount {
            rig.shell("box", &format!("mkdir -p {STATE} && mount -t tmpfs -o {options} state {STATE}"));
        }
        rig.join("box", &[("role", "box")]);
        rig.until_connected(&["box"]);
        // Last read in the far future: no look of this test is written into the inode.
        rig.shell("box", "touch -a -d 2100-01-01 /run/site/page");
        let before = Dump::of(&rig, "box");
        Self { rig, before }
    }

    fn page(&self) -> String {
        self.rig.shell("box", "cat /run/site/page").trim().to_owned()
    }

    fn run(&self) -> Said {
        self.rig.begin(DOCUMENT, &[]).end(LIMIT)
    }

    fn agent(&self, words: &[&str]) -> Said {
        let words: Vec<&str> = ["fracas", "agent"].iter().chain(words).copied().collect();
        self.rig.say("box", part(&words).args(["--state-dir", STATE]))
    }

    fn end_agent(&self) {
        self.rig.signal_agent("box", Signal::TERM);
        let ended = self.rig.end_agent("box", LIMIT);
        assert_eq!(ended.code, 0, "{}", ended.err);
    }

    fn journal(&self) -> String {
        self.rig.shell("box", &format!("sha256sum < {STATE}/journal"))
    }

    /// Kills the agent together with its guard.
    fn kill_both(&self) {
        let mine = |process: &Value| {
            let command = process["command"].to_string();
            command.contains("guard") || command.contains("state-dir")
        };
        let processes = self.rig.processes("box");
        let pids: Vec<String> = processes.iter().filter(|p| mine(p)).map(|p| p["pid"].to_string()).collect();
        let pids = pids.join(" ");
        // Stopped first, so that neither undoes while the other is killed.
        self.rig.shell("box", &format!("kill -STOP {pids}; kill -KILL {pids}"));
        let ended = self.rig.end_agent("box", LIMIT);
        assert_eq!(ended.code, 128 + 9, "{}", ended.err);
    }

    fn quarantined(&self) -> String {
        self.rig.hosts()["box"]["quarantined"].as_str().unwrap_or_default().to_owned()
    }
}

fn a_host_tells_its_own_history() {
    let stage = Stage::set(None);
    let none = stage.agent(&["history"]);
    assert!(none.code == 0 && none.out.starts_with("no run did anything to this host"), "{}", none.text());
    let passed = stage.rig.run(DOCUMENT);
    passed.ended("pass", 0);
    let going = stage.rig.begin(DOCUMENT, &["--set", "length=5m"]);
    going.event("active");
    let open = stage.agent(&["history", "--json"]).good().json().remove(0);
    assert_eq!((open["items"][1]["state"].as_str(), open["runs"].as_u64()), (Some("open"), Some(2)), "{open}");
    stage.rig.kill_controller();
    stage.end_agent();
    // Nobody but the host is left to ask.
    let told = stage.agent(&["history", "--json"]).good().json().remove(0);
    let items = told["items"].as_array().expect("items");
    let (first, second) = (&items[0], &items[1]);
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    assert_eq!((text(first, "run"), text(first, "experiment")), (passed.id.clone(), "broken-page".into()), "{told}");
    assert_eq!((text(first, "state"), text(first, "cause")), ("undone".into(), "expired".into()), "{told}");
    assert_eq!((text(second, "state"), text(second, "cause")), ("undone".into(), "agentRestart".into()), "{told}");
    assert!((0.5..5.0).contains(&first["seconds"].as_f64().expect("seconds")), "{told}");
    let shown = stage.agent(&["history", "--last", "1"]).good().out;
    assert!(
        !shown.contains(&passed.id) && shown.contains("1 earlier runs") && shown.contains("file-replace"),
        "{shown}"
    );
    let check = stage.agent(&["check", "--json"]).good().json().remove(0);
    assert_eq!(check["journal"]["ended"], 2, "{check}");
    assert!(check["clock"]["synchronised"].is_boolean() && check["faults"].as_array().expect("faults").len() >= 8);
    assert_eq!(stage.page(), "welcome");
    drop(going);
}

fn a_newer_journal() {
    let stage = Stage::set(None);
    stage.rig.run(DOCUMENT).ended("pass", 0);
    stage.end_agent();
    // A whole record of version 9: length, CRC-32, version, payload. The checksum is gzip's of the same bytes.
    stage.rig.shell(
        "box",
        &format!(
            "printf '\\011{{\"record\":\"new\"}}' > /run/body; \
             {{ printf '\\021\\000\\000\\000'; gzip -c /run/body | tail -c 8 | head -c 4; cat /run/body; }} >> {STATE}/journal; \
             rm /run/body"
        ),
    );
    let as_left = stage.journal();
    let status = stage.agent(&["status"]);
    assert!(status.code == 5 && status.out.contains("version 9"), "{}", status.text());
    stage.rig.start_agent("box");
    assert!(stage.rig.agent_reports("box"));
    until("the controller knows", || stage.quarantined().contains("version 9"));
    let refused = stage.run();
    assert_eq!(refused.code, 7, "{}", refused.text());
    assert!(refused.text().contains("quarantined") && refused.text().contains("version 9"), "{}", refused.text());
    let written_off = stage.rig.fracas(&["hosts", "write-off", "box", "--reason", "it looks clean"]);
    assert!(written_off.code != 0 && written_off.err.contains("version 9"), "{}", written_off.text());
    stage.rig.signal_agent("box", Signal::TERM);
    stage.rig.end_agent("box", LIMIT);
    let undo = stage.agent(&["undo-all"]);
    assert!(undo.code == 6 && undo.out.contains("version 9"), "{}", undo.text());
    assert_eq!(stage.journal(), as_left, "nothing was written to it");
    // The way out that it told.
    stage.rig.shell("box", &format!("mv {STATE}/journal /run/journal-kept"));
    stage.rig.start_agent("box");
    assert!(stage.rig.agent_reports("box"));
    until("it is trusted again", || stage.quarantined().is_empty());
    stage.rig.run(DOCUMENT).ended("pass", 0);
    stage.rig.stop();
}

fn a_torn_journal_still_undoes() {
    let stage = Stage::set(None);
    let going = stage.rig.begin(DOCUMENT, &["--set", "length=5m"]);
    going.event("active");
    assert_eq!(stage.page(), "out of order");
    stage.kill_both();
    assert_eq!(stage.page(), "out of order", "nobody was left to undo");
    stage.rig.shell("box", &format!("truncate -s -3 {STATE}/journal"));
    let status = stage.agent(&["status"]);
    assert!(status.code == 1 && status.out.contains("unfinished"), "{}", status.text());
    stage.rig.start_agent("box");
    assert!(stage.rig.agent_reports("box"));
    // Before the first word to the controller.
    assert_eq!(stage.page(), "welcome");
    assert!(stage.rig.agent_log("box").contains("unfinished"), "{}", stage.rig.agent_log("box"));
    assert_eq!(going.end(LIMIT).code, 5);
    Dump::of(&stage.rig, "box").expect_same(&stage.before);
    stage.rig.stop();
}

/// Whether something was applied, as the experiment's own events say.
fn applied(said: &Said) -> bool {
    said.json().iter().any(|line| ["applying", "active"].iter().any(|kind| line["body"]["kind"] == *kind))
}

fn nothing_is_applied() {
    // So small that nothing can be kept aside in it.
    let stage = Stage::set(Some("size=128k"));
    stage.rig.run(DOCUMENT).ended("pass", 0);

    // Both die, and then the disk takes no writes: what is open is undone all the same, and nothing new is applied.
    let going = stage.rig.begin(DOCUMENT, &["--set", "length=5m"]);
    going.event("active");
    stage.kill_both();
    assert_eq!(stage.page(), "out of order");
    stage.rig.shell("box", &format!("mount -o remount,ro {STATE}"));
    stage.rig.start_agent("box");
    assert!(stage.rig.agent_reports("box"));
    assert_eq!(stage.page(), "welcome");
    assert_eq!(going.end(LIMIT).code, 5);
    let refused = stage.run();
    assert!(!applied(&refused) && refused.code != 0, "{}", refused.text());
    assert!(refused.text().contains("the journal cannot be written"), "{}", refused.text());
    assert!(refused.text().contains("make room or make the agent's state directory writable"), "{}", refused.text());
    stage.rig.shell("box", &format!("mount -o remount,rw {STATE}"));
    stage.rig.run(DOCUMENT).ended("pass", 0);

    stage.rig.shell("box", &format!("head -c 1000000 /dev/zero > {STATE}/others 2>/dev/null || true"));
    // What is left of the last page may still hold a few records.
    let full = (0..10).map(|_| stage.run()).find(|said| !applied(said)).expect("the disk is full some day");
    assert!(full.code != 0 && full.text().contains("the journal cannot be written"), "{}", full.text());
    assert_eq!(stage.page(), "welcome");
    stage.rig.shell("box", &format!("rm {STATE}/others"));
    stage.rig.run(DOCUMENT).ended("pass", 0);
    Dump::of(&stage.rig, "box").expect_same(&stage.before);
    stage.end_agent();
    stage.rig.shell("box", &format!("umount {STATE}"));
}
