//! A controller in trouble: its ports taken, its disk full, its history damaged, of a later version or somebody else's. It
//! says which and what to do, never repairs by guessing, and hurts nobody meanwhile.

use std::time::Duration;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    rig::{DATA, Going, LIMIT, Rig, Said, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_taken_port_is_told", &[Need::Lab], a_taken_port_is_told),
        trial("a_second_controller_is_refused", &[Need::Lab], a_second_controller_is_refused),
        trial("a_damaged_or_newer_history_is_refused", &[Need::Lab], a_damaged_or_newer_history_is_refused),
        trial("a_full_disk_at_the_start", &[Need::Lab], a_full_disk_at_the_start),
        trial("a_full_disk_ends_the_harm", &[Need::Lab], a_full_disk_ends_the_harm),
    ]
}

const FILE: &str = "/run/data/fracas/history.sqlite";

/// A start that must fail, and soon.
fn fails(rig: &Rig, program: Program, words: &[&str]) -> Said {
    let said = Going::start(&rig.host("ctl"), program).end(Duration::from_secs(30));
    assert_eq!(said.code, 5, "{}", said.text());
    for word in words {
        assert!(said.err.contains(word), "{word} is not in: {}", said.err);
    }
    said
}

/// Ends a controller in good order.
fn end(rig: &Rig) {
    rig.signal_controller(Signal::TERM);
    let ended = rig.end_controller(LIMIT);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

fn a_taken_port_is_told() {
    let rig = Rig::bare(&[]);
    let front = rig.go("ctl", "front", part(&["occupy", "127.0.0.1:7766"])).ready();
    let another = "another program uses that port; choose another with";
    fails(&rig, rig.controller_program(DATA), &["127.0.0.1:7766 for operators", another, "--front-listen"]);
    front.kill();
    let fleet = rig.go("ctl", "fleet", part(&["occupy", &format!("{}:7767", rig.address("ctl"))])).ready();
    fails(&rig, rig.controller_program(DATA), &[":7767 for agents", another, "--fleet-listen"]);
    fleet.kill();
    let metrics = rig.go("ctl", "metrics", part(&["occupy", "127.0.0.1:7768"])).ready();
    fails(&rig, rig.controller_program(DATA), &["127.0.0.1:7768 for metrics", another, "--metrics-listen"]);
    rig.start_controller_as(rig.controller_program(DATA).args(["--metrics-listen", "off"]));
    end(&rig);
    metrics.kill();
    // An address that is not this machine's.
    let elsewhere = rig.controller_program(DATA).arg("--front-listen").arg("10.99.99.99:7766");
    fails(&rig, elsewhere, &["cannot listen on 10.99.99.99:7766 for operators", "--front-listen"]);
    rig.start_controller();
    rig.verify_history();
}

fn a_second_controller_is_refused() {
    let rig = Rig::bare(&[]);
    rig.start_controller();
    let second = rig.controller_program(DATA).args(["--front-listen", "127.0.0.1:0"]);
    let first = rig.controller_pid();
    fails(&rig, second, &[&format!("in use by process {first}"), DATA]);
    // The first one has not noticed.
    rig.fracas(&["hosts"]).good();
    rig.verify_history();
}

fn a_damaged_or_newer_history_is_refused() {
    let rig = Rig::bare(&[]);
    rig.start_controller();
    end(&rig);
    // After an orderly end it is one file without a log beside it, so that a copy is a backup.
    assert_eq!(rig.shell("ctl", &format!("ls {FILE}*")).trim(), FILE);
    rig.shell("ctl", &format!("cp -p {FILE} /run/whole"));
    let restore = format!("rm -f {FILE}* && cp -p /run/whole {FILE}");
    let digest = || rig.shell("ctl", &format!("sha256sum {FILE}"));
    let patch =
        |bytes: &str, at: u32| format!("printf '{bytes}' | dd of={FILE} bs=1 seek={at} conv=notrunc status=none");
    for (what, damage, words) in [
        ("half a file", format!("truncate -s $(($(stat -c %s {FILE}) / 2)) {FILE}"), ["damaged", "backup"]),
        ("an empty file", format!("truncate -s 0 {FILE}"), ["it is empty", "backup"]),
        (
            "a torn page",
            format!("dd if=/dev/urandom of={FILE} bs=4096 seek=3 count=1 conv=notrunc status=none"),
            ["damaged", "backup"],
        ),
        // The schema's version and the program's number stand in the file's header, see sqlite.org/fileformat2.html.
        ("a later version", patch("\\000\\000\\003\\347", 60), ["999", "newer"]),
        ("another program's file", patch("\\000\\000\\000\\001", 68), ["another program's database", "history.sqlite"]),
    ] {
        rig.shell("ctl", &format!("{restore} && {damage}"));
        let before = digest();
        fails(&rig, rig.controller_program(DATA), &words);
        assert_eq!(digest(), before, "{what} is left as it was found");
    }
    rig.shell("ctl", &restore);
    rig.start_controller();
    rig.verify_history();
}

/// A small disk of its own under the data directory.
fn small_disk(rig: &Rig, size: &str) {
    let mount = format!("mkdir -p {DATA} && mount -i -n -t tmpfs -o size={size},mode=700 small {DATA}");
    rig.shell("ctl", &mount);
}

fn fill(rig: &Rig) {
    // It ends when nothing more fits.
    let all = format!(
        "head -c 64m /dev/zero > {DATA}/fill; head -c 64k /dev/zero >> {DATA}/fill2; df -B1 --output=avail {DATA} | tail -1"
    );
    let left = rig.read("ctl", Program::new("sh").args(["-c", &all]));
    assert_eq!(left.trim(), "0", "the disk is full");
}

fn a_full_disk_at_the_start() {
    let rig = Rig::bare(&[]);
    small_disk(&rig, "1m");
    fill(&rig);
    fails(&rig, rig.controller_program(DATA), &["No space left on device", DATA]);
    rig.shell("ctl", &format!("umount -i -n {DATA}"));
    // Enough for keys, not for a history.
    small_disk(&rig, "32k");
    fails(&rig, rig.controller_program(DATA), &["full", DATA]);
    rig.shell("ctl", &format!("umount -i -n {DATA}"));
    small_disk(&rig, "16m");
    rig.start_controller();
    rig.verify_history();
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: pause-the-crew
targets: { box: { select: "role=box" } }
probes:
  crew: { process: { name: crew }, from: box, every: 100ms, timeout: 1s }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: 5m }
recovery: { stableFor: 1s, giveUpAfter: 10s }
lease: 5s
"#;

fn a_full_disk_ends_the_harm() {
    let rig = Rig::bare(&["box"]);
    small_disk(&rig, "16m");
    rig.start_controller();
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let state = || rig.process("box", crew.pid()).expect("crew")["state"].as_str().unwrap_or_default().to_owned();
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    assert!(["t", "T"].contains(&state().as_str()), "it stands still");
    fill(&rig);
    until("the crew goes on although nothing can be written", || state() == "S");
    assert!(going.runs(), "the run has not ended: nothing could be written");
    // Who asks sees why, and no restart would mend it.
    let page = |path: &str| rig.page("ctl", "127.0.0.1:7768", path);
    let full = (503, "the history cannot be written (full): free some space, it goes on by itself\n".to_owned());
    assert_eq!((page("/readyz"), page("/healthz").0), (full, 200));
    // A person sees why.
    assert!(rig.controller_log().contains("nothing is desired until the history can be used again"));
    let refused = rig.fracas(&["halt", "--reason", "disk full"]);
    assert!(refused.code == 5 && refused.err.contains("full: free some space"), "{}", refused.text());

    rig.shell("ctl", &format!("rm {DATA}/fill {DATA}/fill2"));
    until("it is ready again", || page("/readyz").0 == 200);
    let run = rig.finish(going);
    // Five minutes were asked: what the controller could not keep up is no success.
    run.ended("error", 5);
    assert!(
        run.reasons().contains("pause on box was interrupted: the controller no longer asked for it"),
        "{}",
        run.reasons()
    );
    rig.stop();
}
