//! Keeping the record, as whoever answers for it does: proofs from outside, evidence without Fracas, prunes, backups of a
//! controller at work, and a controller whose disk is gone.

use std::time::Duration;

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    history::Run,
    residue::Dump,
    rig::{DATA, Going, LIMIT, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let python = &[Need::Lab, Need::Program("python3"), Need::Program("openssl"), Need::Program("sha256sum")];
    vec![
        trial(
            "a_run_that_was_open_in_a_backup_ends_clean_and_the_history_is_proved",
            &[Need::Lab],
            a_backup_in_a_fault,
        ),
        trial("a_restored_run_whose_end_the_old_controller_heard_ends_clean_too", &[Need::Lab], an_end_told_elsewhere),
        trial("the_history_is_proved_from_outside", &[Need::Lab, Need::Program("python3")], proved_from_outside),
        trial("evidence_is_checked_without_fracas", python, evidence),
        trial("what_was_pruned_is_gone_and_the_rest_is_proved", &[Need::Lab], pruned),
        trial("a_full_disk_leaves_no_half_backup", &[Need::Lab], full_disk),
    ]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
parameters: { length: { type: duration, default: 5m } }
targets: { box: { select: "role=box" } }
probes:
  crew: { process: { name: crew }, every: 200ms, timeout: 1s, from: box }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: "${length}" }
recovery: { stableFor: 500ms, giveUpAfter: 5s }
lease: 5s
"#;

struct Stage {
    rig: Rig,
    crew: Going,
}

impl Stage {
    fn set() -> Self {
        let rig = Rig::start(&[("box", &[("role", "box")])]);
        let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
        Self { rig, crew }
    }

    fn stands(&self) -> bool {
        let crew = self.rig.process("box", self.crew.pid()).expect("crew");
        ["t", "T"].iter().any(|state| crew["state"] == *state)
    }

    fn short_run(&self) -> Run {
        let run = self.rig.run_with(DOCUMENT, &["--set", "length=1s"]);
        run.ended("pass", 0);
        run
    }

    /// Keeps heads and key where the controller's data are not.
    fn keep_heads(&self) {
        self.rig.fracas(&["audit", "heads", "--limit", "1000", "--to", "/run/heads", "--key-to", "/run/key"]).good();
    }

    /// What `audit verify` says, held against what was kept.
    fn verify(&self) -> (i32, Value) {
        let words = ["audit", "verify", "--heads", "/run/heads", "--key", "/run/key", "--output", "json"];
        let said = self.rig.fracas(&words);
        let found = said.json().pop().unwrap_or_else(|| panic!("{}", said.text()));
        (said.code, found)
    }

    fn end_controller(&self) {
        self.rig.signal_controller(Signal::TERM);
        let ended = self.rig.end_controller(Duration::from_mins(2));
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
}

/// The last run, at its end.
fn last_ended(rig: &Rig) -> Value {
    let watched = rig.fracas(&["watch", "last", "--output", "json"]);
    watched.json().pop().unwrap_or_else(|| panic!("{}", watched.text()))
}

/// A disk that is lost and put back from the backup.
fn restore(rig: &Rig) -> Value {
    rig.shell("ctl", &format!("mv {DATA} /run/lost"));
    let restore = ["controller", "restore", "--from", "/run/backup.tar", "--data-dir", DATA, "--output", "json"];
    let restored = rig.fracas(&restore).good().json().remove(0);
    assert_eq!(restored["verification"]["whole"], true, "{restored}");
    rig.start_controller();
    rig.until_connected(&["box"]);
    restored
}

/// The history of a restored controller, held against heads that were signed before and after the backup.
fn proved_after_restore(stage: &Stage) {
    let (code, found) = stage.verify();
    assert_eq!((code, &found["whole"], &found["complete"]), (3, &json!(true), &json!(false)), "{found}");
    assert!(found["newer"].as_array().is_some_and(|newer| !newer.is_empty()), "{found}");
    let text = stage.rig.fracas(&["audit", "verify", "--heads", "/run/heads", "--key", "/run/key"]).out;
    assert!(text.contains("NOT HERE: head ") && text.contains("is newer than this copy"), "{text}");
    assert!(!text.contains("BROKEN"), "{text}");
    // Held against what it signed itself it is all there.
    let own = stage.rig.fracas(&["audit", "verify", "--key", "/run/key"]).good();
    assert!(own.out.contains(": whole;"), "{}", own.out);
}

fn a_backup_in_a_fault() {
    let stage = Stage::set();
    let before = Dump::of(&stage.rig, "box");
    stage.short_run();
    let going = stage.rig.begin(DOCUMENT, &[]);
    going.event("active");
    assert!(stage.stands());
    let said = stage.rig.fracas(&["controller", "backup", "--to", "/run/backup.tar"]).good();
    assert!(said.err.contains("holds every key"), "{}", said.err);
    assert_eq!(stage.rig.shell("ctl", "stat -c %a /run/backup.tar").trim(), "600");
    assert!(stage.stands(), "the fault goes on meanwhile");
    // Heads that are newer than the backup, kept elsewhere.
    stage.rig.fracas(&["hosts", "join-token"]).good();
    until("a head of that is signed", || {
        let heads = stage.rig.fracas(&["audit", "heads"]).good().json().remove(0);
        let told = stage.rig.fracas(&["audit", "list", "--method", "MakeJoinToken", "--output", "json"]).good().json();
        told.last().is_some_and(|told| told["seq"].as_u64() <= heads["seq"].as_u64())
    });
    stage.keep_heads();
    stage.rig.kill_controller();
    let restored = restore(&stage.rig);
    assert_eq!((&restored["openRuns"], &restored["withKeys"]), (&json!(1), &json!(true)), "{restored}");
    until("the crew goes on", || !stage.stands());
    let ended = last_ended(&stage.rig);
    assert_eq!(ended["verdict"], "error", "{ended}");
    assert!(ended["reasons"][0].as_str().is_some_and(|why| why.contains("restored from a backup")), "{ended}");
    // It watched a history that is gone.
    going.kill();
    Dump::of(&stage.rig, "box").expect_same(&before);
    proved_after_restore(&stage);
    // It drives the host as before, and the host is in good standing.
    assert_eq!(stage.rig.hosts()["box"]["quarantined"], "");
    stage.short_run();
    stage.rig.stop();
}

fn an_end_told_elsewhere() {
    let stage = Stage::set();
    let going = stage.rig.begin(DOCUMENT, &[]);
    going.event("active");
    stage.rig.fracas(&["controller", "backup", "--to", "/run/backup.tar"]).good();
    // The old controller hears of the end, of which the backup knows nothing.
    stage.rig.fracas(&["stop", "last", "--reason", "enough"]).good();
    stage.rig.finish(going).ended("aborted", 4);
    until("the end is signed", || {
        let heads = stage.rig.fracas(&["audit", "heads"]).good().json().remove(0);
        let told = stage.rig.fracas(&["audit", "list", "--method", "Close", "--output", "json"]).good().json();
        told.last().is_some_and(|told| told["seq"].as_u64() <= heads["seq"].as_u64())
    });
    stage.keep_heads();
    stage.end_controller();
    restore(&stage.rig);
    let ended = last_ended(&stage.rig);
    assert_eq!(ended["verdict"], "error", "{ended}");
    assert!(ended["reasons"][0].as_str().is_some_and(|why| why.contains("restored from a backup")), "{ended}");
    let shown = stage.rig.fracas(&["watch", "last"]);
    assert!(shown.out.contains("is not there any more, says the host; how it ended is not known"), "{}", shown.out);
    assert_eq!(stage.rig.hosts()["box"]["quarantined"], "");
    proved_after_restore(&stage);
    stage.short_run();
    stage.rig.stop();
}

/// Changes the history of the controller while it is away.
fn tamper(rig: &Rig, statement: &str) {
    rig.signal_controller(Signal::TERM);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    let script =
        format!("import sqlite3; c = sqlite3.connect('{DATA}/history.sqlite'); c.execute(\"{statement}\"); c.commit()");
    rig.keep("ctl", "/run/tamper.py", &script);
    rig.shell("ctl", "python3 /run/tamper.py");
    rig.start_controller();
    rig.until_connected(&["box"]);
}

fn proved_from_outside() {
    let stage = Stage::set();
    let run = stage.short_run();
    stage.rig.fracas(&["stop", "last"]).good();
    until("the end is signed", || {
        stage.keep_heads();
        let found = stage.verify().1;
        let bare = found["onlyTheDatabase"].as_array().expect("a list");
        bare.iter().all(|one| one["stream"] != format!("run/{}", run.id).as_str())
    });
    let (code, found) = stage.verify();
    assert_eq!((code, &found["whole"]), (0, &json!(true)), "{found}");
    assert!(found["signedHeads"].as_u64() > Some(0) && found["records"].as_u64() > Some(20), "{found}");
    // Hosts' streams are closed by nobody: it says so.
    let text = stage.rig.fracas(&["audit", "verify", "--heads", "/run/heads", "--key", "/run/key"]).good().out;
    assert!(text.contains("only the database vouches for:") && text.contains("\n  host/"), "{text}");
    // The list names who did what.
    let list = stage.rig.fracas(&["audit", "list", "--by", "admin"]).good().out;
    assert!(list.contains("StartRun") && list.contains("StopRun") && !list.contains("Close"), "{list}");
    let none = stage.rig.fracas(&["audit", "list", "--method", "StartRun", "--since", "2100-01-01T00:00:00Z"]).good();
    assert!(none.out.is_empty() && none.err.contains("nothing of that kind"), "{}", none.text());
    // Whoever can write the database cannot hide that from who asks from outside.
    let of_run = format!("stream = (SELECT id FROM stream WHERE name = 'run/{}')", run.id);
    tamper(
        &stage.rig,
        &format!(
            "UPDATE event SET stored = CAST(replace(CAST(stored AS TEXT), 'pass', 'fail') AS BLOB) WHERE seq > 5 AND {of_run}"
        ),
    );
    let (code, found) = stage.verify();
    assert_eq!((code, &found["whole"]), (1, &json!(false)), "{found}");
    let broken = found["broken"].as_array().expect("a list");
    assert_eq!(broken[0]["stream"], format!("run/{}", run.id).as_str(), "{found}");
    assert!(broken[0]["seq"].as_u64() > Some(5), "the first wrong record is named: {found}");
    assert_eq!(broken[0]["why"], "its bytes do not have its hash");
}

fn evidence() {
    let stage = Stage::set();
    let run = stage.short_run();
    stage.keep_heads();
    let said = stage.rig.fracas(&["audit", "export", "--to", "/run/evidence"]).good();
    assert!(said.out.contains("README.txt says how to check them"), "{}", said.out);
    let check = |more: &str| {
        stage.rig.say(
            "ctl",
            fracas_sim::lab::Program::new("sh").args(["-c", &format!("cd /run/evidence && python3 check.py {more}")]),
        )
    };
    let whole = check("/run/heads").good();
    assert!(whole.out.contains("signed heads: whole") && !whole.out.contains("openssl is not here"), "{}", whole.out);
    // By hand, as its README says.
    stage.rig.shell("ctl", "cd /run/evidence && sha256sum --quiet --check SHA256SUMS");
    let verify = "openssl pkeyutl -verify -pubin -inkey audit.pem -rawin -in head.txt -sigfile head.sig";
    let said = stage.rig.shell("ctl", &format!("cd /run/evidence && {verify}"));
    assert!(said.contains("Verified Successfully"), "{said}");
    let file = format!("streams/run_{}-*.jsonl", run.id);
    stage.rig.shell("ctl", "cp -a /run/evidence /run/whole");
    let again = || stage.rig.shell("ctl", "rm -rf /run/evidence && cp -a /run/whole /run/evidence");
    // A change that does not care for the chain; one that does; a reading; a run that is taken away; a prune that is made up.
    let rechain = "import glob, hashlib, json
path = glob.glob('/run/evidence/FILE')[0]
head, *records = [json.loads(line) for line in open(path)]
last = head['hash']
for record in records:
    record['stored'] = record['stored'].replace('pass', 'fail')
    last = record['hash'] = hashlib.sha256(bytes.fromhex(last) + record['stored'].encode()).hexdigest()
open(path, 'w').write(''.join(json.dumps(line) + chr(10) for line in [head, *records]))
";
    stage.rig.keep("ctl", "/run/rechain.py", &rechain.replace("FILE", &file));
    for (what, deed, finds) in [
        (
            "a word",
            "sed -i 's/StartRun/StopRun/' streams/audit_*.jsonl".to_owned(),
            "it does not follow from the one before it",
        ),
        ("a chain", "python3 /run/rechain.py".to_owned(), "it does not end as the audit stream says"),
        ("a blob", "for f in blobs/*; do echo x >> $f; break; done".to_owned(), "its bytes are missing or changed"),
        (
            "a run",
            "grep -v run_ streams.jsonl > s; mv s streams.jsonl".to_owned(),
            "it is gone, and no prune of it is recorded",
        ),
        ("a beginning", format!("sed -i '1s/\"after\":0/\"after\":1/;2d' {file}"), "its beginning is gone"),
        ("a head", "sed -i 's/\"wallNs\":1/\"wallNs\":2/' heads.jsonl".to_owned(), "its signature does not hold"),
    ] {
        stage.rig.shell("ctl", &format!("cd /run/evidence && {deed}"));
        let said = check("");
        assert!(said.code == 1 && said.out.contains(finds), "{what}: {}", said.text());
        again();
    }
    // A head from elsewhere that is not of this history.
    stage.rig.shell("ctl", "sed 's/\"hash\":\"./\"hash\":\"x/' /run/heads > /run/other");
    assert!(check("/run/other").out.contains("it is not of this history"));
    // As one file, and only what is new.
    stage.rig.fracas(&["audit", "export", "--to", "/run/e.tar", "--since", "2100-01-01T00:00:00Z"]).good();
    stage.rig.shell("ctl", "cd /run && tar xf e.tar && cd e && ! ls streams | grep run_ && python3 check.py");
    let twice = stage.rig.fracas(&["audit", "export", "--to", "/run/evidence"]);
    assert!(twice.code == 2 && twice.err.contains("is there already"), "{}", twice.text());
    stage.rig.stop();
}

fn pruned() {
    let stage = Stage::set();
    let runs = [stage.short_run(), stage.short_run()];
    stage.keep_heads();
    let open = stage.rig.begin(DOCUMENT, &["--set", "length=1m"]);
    open.event("active");
    let prune = |more: &[&str]| {
        let words = ["controller", "prune", "--older-than", "0s"].iter().chain(more).copied();
        stage.rig.fracas(&words.collect::<Vec<_>>())
    };
    assert_eq!(prune(&["--yes"]).code, 2, "a reason is needed");
    let would = prune(&["--dry-run"]).good().out;
    assert!(would.contains("2 runs, ") && would.contains("would go") && would.contains("1 run stay"), "{would}");
    let listed =
        || stage.rig.fracas(&["runs", "--output", "json"]).good().json()[0]["runs"].as_array().expect("runs").len();
    assert_eq!(listed(), 3);
    let gone = prune(&["--reason", "the contract says so", "--yes", "--output", "json"]).good().json().remove(0);
    assert_eq!(gone["pruned"]["runs"].as_array().map(Vec::len), Some(2), "{gone}");
    assert_eq!(listed(), 1, "no ghosts");
    let shown = stage.rig.fracas(&["show", &runs[0].id]);
    assert!(shown.code != 0 && shown.err.contains("no run"), "{}", shown.text());
    // Heads from before the prune know the runs, and it is said plainly what became of them.
    let (code, found) = stage.verify();
    assert_eq!((code, &found["whole"], &found["complete"]), (0, &json!(true), &json!(true)), "{found}");
    let told = &found["pruned"][0];
    assert_eq!(
        (&told["by"], &told["reason"], &told["vouched"]),
        (&json!("admin"), &json!("the contract says so"), &json!(true))
    );
    assert_eq!(told["streams"].as_array().map(Vec::len), Some(2), "{found}");
    let text = stage.rig.fracas(&["audit", "verify", "--heads", "/run/heads", "--key", "/run/key"]).good().out;
    assert!(text.contains("by admin for \"the contract says so\": 2 streams, heads vouched"), "{text}");
    let list = stage.rig.fracas(&["audit", "list", "--method", "Prune"]).good().out;
    assert!(list.contains("2 streams removed: the contract says so"), "{list}");
    // The run under way has not noticed.
    assert!(stage.stands());
    stage.rig.fracas(&["stop", "last"]).good();
    stage.rig.finish(open).ended("aborted", 4);
    // What is gone is in no file any more, and offline it is told as it is online.
    stage.end_controller();
    let said = stage
        .rig
        .say("ctl", part(&["fracas", "controller", "verify", "--data-dir", DATA, "--heads", "/run/heads"]))
        .good();
    assert!(said.out.contains("2 streams, heads vouched"), "{}", said.out);
    stage.rig.start_controller();
    stage.rig.stop();
}

fn full_disk() {
    let rig = Rig::bare(&[]);
    rig.shell("ctl", &format!("mkdir -p {DATA} && mount -i -n -t tmpfs -o size=48m,mode=700 small {DATA}"));
    rig.start_controller();
    // Where the copy would fill the controller's own disk, it is not even begun.
    let said = rig.fracas(&["controller", "backup", "--to", "/run/b.tar"]);
    assert!(said.code == 5 && said.err.contains("free some space"), "{}", said.text());
    assert_eq!(rig.shell("ctl", &format!("ls /run | grep b.tar || true; ls {DATA} | grep copy || true")), "");
    rig.signal_controller(Signal::TERM);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    // Where there is no room for the archive, nothing is left of it.
    rig.shell("ctl", "mkdir /run/tiny && mount -i -n -t tmpfs -o size=64k tiny /run/tiny");
    let said = rig.fracas(&["controller", "backup", "--data-dir", DATA, "--to", "/run/tiny/b.tar"]);
    assert!(said.code == 5 && said.err.contains("the disk is full"), "{}", said.text());
    assert_eq!(rig.shell("ctl", "ls -A /run/tiny"), "");
    // Nor of a restore.
    rig.fracas(&["controller", "backup", "--data-dir", DATA, "--to", "/run/b.tar"]).good();
    let said = rig.fracas(&["controller", "restore", "--from", "/run/b.tar", "--data-dir", "/run/tiny/d"]);
    assert!(said.code == 5 && said.err.contains("cannot be written"), "{}", said.text());
    assert_eq!(rig.shell("ctl", "ls -A /run/tiny"), "");
    rig.fracas(&["controller", "restore", "--from", "/run/b.tar", "--data-dir", "/run/whole"]).good();
    rig.verify_data("/run/whole");
}
