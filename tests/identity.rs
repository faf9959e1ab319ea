//! The identity of hosts: certificates that renew themselves under faults and through kills, hosts that are revoked, and two
//! agents with one identity. The certificates are read from the hosts' disks by a parser of its own.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fracas_agent::crash::{REACHED, RENEWALS, VARIABLE};
use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    residue::Dump,
    rig::{DATA, Going, LIMIT, Rig, STATE, timed, until, wait_for},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("certificates_are_renewed_under_a_fault", &[Need::Lab], renewed_under_a_fault),
        trial("an_agent_killed_at_any_place_of_a_renewal_comes_back", &[Need::Lab], killed_at_any_place),
        trial("a_revoked_host_gets_nothing", &[Need::Lab, Need::Program("tar")], revoked),
        trial("two_agents_with_one_identity_are_seen", &[Need::Lab, Need::Program("tar")], two_agents),
    ]
}

/// The shortest life of certificates there is.
const SHORTEST: &str = "20s";
/// Where an agent that is to be killed looks for the place.
const ORDER: &str = "/run/order";

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
parameters:
  length: { type: duration, default: 9m }
services: { crew: { rto: 10s } }
targets: { box: { select: "role=box" } }
lease: 5s
probes:
  crew: { service: crew, process: { name: crew }, from: box, every: 100ms, timeout: 1s }
steadyState: { probes: [crew], holdFor: 500ms }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: "${length}" }
recovery: { stableFor: 500ms, giveUpAfter: 10s }
"#;

/// What the documents here ask for, as a lease.
const LEASE: Duration = Duration::from_secs(5);

fn bare(hosts: &[&str], life: &str) -> Rig {
    let rig = Rig::bare(hosts);
    start_controller(&rig, life);
    rig
}

/// A controller whose certificates for hosts live so long.
fn start_controller(rig: &Rig, life: &str) {
    rig.start_controller_as(rig.controller_program(DATA).args(["--host-certificate-life", life]));
}

fn crew(rig: &Rig, host: &str) -> Going {
    rig.go(host, "crew", part(&["rest", "crew"])).ready()
}

fn stands_still(rig: &Rig, host: &str, crew: &Going) -> bool {
    let process = rig.process(host, crew.pid()).expect("crew");
    ["t", "T"].contains(&process["state"].as_str().unwrap_or_default())
}

/// Serial of the certificate on a host's disk, whichever of the two places it is in.
fn serial(rig: &Rig, host: &str) -> String {
    let text = rig.shell(host, &format!("cat {STATE}/renewed.pem {STATE}/cert.pem 2>/dev/null || true"));
    let pems = x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()).map(|pem| pem.expect("PEM"));
    let certificate = pems.into_iter().find(|pem| pem.label == "CERTIFICATE").expect("a certificate");
    certificate.parse_x509().expect("X.509").raw_serial_as_string()
}

fn renewed_under_a_fault() {
    let rig = bare(&["box"], SHORTEST);
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    let crew = crew(&rig, "box");
    let before = Dump::of(&rig, "box");
    let going = rig.begin(DOCUMENT, &["--set", "length=50s"]);
    going.event("active");
    let (held, over) = (Instant::now(), AtomicBool::new(false));
    let (mut serials, mut looks) = (vec![serial(&rig, "box")], 0);
    let (broken, run) = thread::scope(|scope| {
        let told = &over;
        let ends = scope.spawn(move || {
            going.event("undoing");
            told.store(true, Ordering::Release);
            going
        });
        let mut broken = None;
        while !over.load(Ordering::Acquire) {
            let still = stands_still(&rig, "box", &crew);
            if !still && !over.load(Ordering::Acquire) {
                broken.get_or_insert_with(|| held.elapsed());
            }
            let now = serial(&rig, "box");
            if serials.last() != Some(&now) {
                serials.push(now);
            }
            looks += 1;
        }
        (broken, ends.join().expect("the run goes on"))
    });
    let lasted = held.elapsed();
    let run = rig.finish(run);
    run.ended("pass", 0);
    // The last look may have come between the undo and the word of it.
    assert!(broken.is_none_or(|at| at + Duration::from_secs(1) > lasted), "it went on after {broken:?} of {lasted:?}");
    assert!(serials.len() > 2 && serials.iter().collect::<BTreeSet<_>>().len() == serials.len(), "{serials:?}");
    assert!(run.bodies("hostContact").is_empty(), "the session never ended: {:?}", run.bodies("hostContact"));
    assert_eq!(run.undo_causes(), ["expired"]);
    eprintln!("held for {lasted:?} over {} certificates of {SHORTEST}, {looks} looks", serials.len());
    assert!(!rig.controller_log().contains("did not renew"), "{}", rig.controller_log());
    // With the controller away nothing renews; it is tried again, and the same identity comes back in time.
    let known = rig.hosts()["box"]["id"].clone();
    rig.kill_controller();
    until("the agent misses it", || rig.agent_log("box").contains("no contact with the controller"));
    start_controller(&rig, SHORTEST);
    rig.until_connected(&["box"]);
    let last = serial(&rig, "box");
    until("it is renewed again", || serial(&rig, "box") != last);
    assert_eq!(rig.hosts()["box"]["id"], known);
    Dump::of(&rig, "box").expect_same(&before);
    // An agent that was away for longer than its certificate lived is told what to do, and a token is all it takes.
    rig.signal_agent("box", Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0);
    let ends = rig.hosts()["box"]["certificateUntilS"].as_i64().expect("when it ends");
    until("the certificate is over", || wall_s() > ends + 1);
    rig.start_agent("box");
    until("it says what to do", || rig.agent_log("box").contains("have a token made with `fracas hosts join-token`"));
    rig.signal_agent("box", Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0);
    rig.join("box", &[("role", "box")]);
    until("it is a new host", || {
        rig.fracas(&["hosts", "--output", "json"]).good().json()[0]["hosts"].as_array().is_some_and(|hosts| {
            hosts.iter().any(|host| host["name"] == "box" && host["id"] != known && host["connected"] == true)
        })
    });
    rig.stop();
}

fn wall_s() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

fn killed_at_any_place() {
    const ROUNDS: usize = 3;
    let names: Vec<String> = RENEWALS.iter().map(|(_, place)| place.replace('-', "")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rig = bare(&names, "30s");
    for name in &names {
        let token = rig.token(&[("role", "box")]);
        rig.start_agent_as(name, rig.agent_program(name).env(VARIABLE, ORDER).env("FRACAS_JOIN_TOKEN", token));
    }
    rig.until_connected(&names);
    let mut trials = 0;
    for round in 0..ROUNDS {
        let before: Vec<String> = names.iter().map(|name| serial(&rig, name)).collect();
        for ((_, place), name) in RENEWALS.iter().zip(&names) {
            rig.keep(name, ORDER, &format!("{place}:1:agent:kill:{round}"));
        }
        // At once, for what they have left to live is short.
        for ((_, place), name) in RENEWALS.iter().zip(&names) {
            let ended = rig.end_agent(name, LIMIT);
            assert_eq!(ended.code, 128 + 9, "{place}: {}", ended.text());
            let reached = format!("cat {ORDER}{REACHED} && rm {ORDER} {ORDER}{REACHED}");
            assert!(rig.shell(name, &reached).trim().parse::<u32>().is_ok(), "{place}");
            rig.start_agent_as(name, rig.agent_program(name).env(VARIABLE, ORDER));
        }
        for (((_, place), name), before) in RENEWALS.iter().zip(&names).zip(&before) {
            assert!(rig.agent_reports(name), "{place}: it does not come back");
            // It has what was stored before it was killed, and goes on to renew in any case.
            until(&format!("{place}: renewed"), || serial(&rig, name) != *before);
            trials += 1;
        }
    }
    rig.until_connected(&names);
    for (name, host) in rig.hosts().into_iter().filter(|(_, host)| host["observer"] == false) {
        assert_eq!((host["duplicate"].as_str(), host["revoked"].as_str()), (Some(""), Some("")), "{name}");
    }
    eprintln!("{trials} kills at {} places of a renewal: each came back", RENEWALS.len());
    rig.stop();
}

/// The state directory of an agent, as a text.
fn copied(rig: &Rig, host: &str) -> String {
    rig.shell(host, &format!("(tar c -C {STATE} . || true) | base64"))
}

/// Puts a copied state directory onto another host.
fn planted(rig: &Rig, host: &str, copy: &str) {
    rig.keep(host, "/run/copy", copy);
    rig.shell(host, &format!("rm -rf {STATE} && mkdir -m 700 -p {STATE} && base64 -d /run/copy | tar x -C {STATE}"));
}

fn revoked() {
    const HOSTS: [&str; 6] = ["box", "b", "c", "d", "e", "thief"];
    let rig = bare(&HOSTS, "10m");
    for name in &HOSTS[..5] {
        rig.join(name, &[("role", if *name == "box" { "box" } else { "spare" })]);
    }
    rig.until_connected(&HOSTS[..5]);
    let crew = crew(&rig, "box");
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    assert!(stands_still(&rig, "box", &crew));
    let stolen = copied(&rig, "box");
    let id = rig.hosts()["box"]["id"].as_str().expect("id").to_owned();
    let mut took = Vec::new();
    for name in HOSTS[..5].iter().rev() {
        let told = || rig.agent_log(name).contains("is revoked: by admin, disk image leaked");
        let revoke = || {
            rig.fracas(&["hosts", "revoke", name, "--reason", "disk image leaked"]).good();
            until("the agent is told", told);
        };
        took.push(timed(revoke).1);
    }
    assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{took:?}");
    // Only its lease is left to it.
    let ((), undone) = timed(|| until("the fault ends", || !stands_still(&rig, "box", &crew)));
    assert!(undone < LEASE + Duration::from_secs(2), "{undone:?}");
    eprintln!(
        "n = {}: sessions ended within {:?} of the answer; the fault {undone:?} later",
        took.len(),
        took.iter().max()
    );
    let shown = rig.fracas(&["hosts"]).good().out;
    assert_eq!(shown.matches("REVOKED: by admin").count(), 5, "{shown}");
    let said = rig.fracas(&["hosts", "revoke", "box", "--reason", "again"]);
    assert!(said.code == 7 && said.err.contains("is revoked already"), "{}", said.text());
    let ended = going.end(crate::rig::RUN_LIMIT);
    assert!([5, 6].contains(&ended.code), "as with any host that is lost: {}", ended.text());

    // Nothing is given to whoever shows that key: elsewhere, after a restart of either side.
    let away = |name: &str| rig.hosts()[name]["connected"] == false;
    planted(&rig, "thief", &stolen);
    rig.start_agent_as("thief", rig.agent_program("thief"));
    until("the thief is told", || rig.agent_log("thief").contains(&format!("host {id} is revoked")));
    rig.kill_controller();
    start_controller(&rig, "10m");
    let told = |name: &str| rig.agent_log(name).matches("is revoked").count();
    let before = told("box");
    rig.signal_agent("box", Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0);
    rig.start_agent("box");
    until("it is told again", || told("box") > before);
    assert!(HOSTS[..5].iter().all(|name| away(name)) && rig.fracas(&["hosts"]).good().out.contains("REVOKED"));

    // A new token makes a new host of it; the old one is listed until it is forgotten.
    rig.signal_agent("box", Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0);
    rig.shell("box", &format!("cd {STATE} && rm -f key.pem cert.pem ca.pem host_id"));
    rig.join("box", &[("role", "box")]);
    let all =
        || rig.fracas(&["hosts", "--output", "json"]).good().json()[0]["hosts"].as_array().cloned().unwrap_or_default();
    until("it is a new host", || {
        all().iter().any(|host| host["name"] == "box" && host["id"] != *id && host["connected"] == true)
    });
    let quarantined = all().iter().any(|host| host["id"] == *id && host["quarantined"] != "");
    if quarantined {
        rig.fracas(&["hosts", "write-off", &id, "--reason", "seen to"]).good();
    }
    rig.fracas(&["hosts", "forget", &id, "--reason", "gone"]).good();
    assert!(all().iter().all(|host| host["id"] != *id));
    rig.stop();
}

fn two_agents() {
    let rig = bare(&["box", "twin"], "60s");
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    let duplicate = || rig.hosts()["box"]["duplicate"].as_str().unwrap_or_default().to_owned();
    // Starts, kills and boots are one host, however many.
    let lives = 24;
    for life in 0..lives {
        rig.signal_agent("box", Signal::KILL);
        rig.end_agent("box", LIMIT);
        if life % 2 == 1 {
            let boot = format!("/run/boot-{life}");
            rig.keep("box", &boot, &format!("{life:08}-0000-4000-8000-000000000000\n"));
            rig.shell("box", &format!("mount --bind {boot} /proc/sys/kernel/random/boot_id"));
        }
        rig.start_agent("box");
        assert!(rig.agent_reports("box"), "life {life}");
        assert_eq!(duplicate(), "", "life {life}");
    }
    for _ in 0..lives / 2 {
        rig.shell("box", "umount /proc/sys/kernel/random/boot_id");
    }
    rig.signal_agent("box", Signal::KILL);
    rig.end_agent("box", LIMIT);
    rig.start_agent("box");
    assert!(rig.agent_reports("box"));

    let crews = (crew(&rig, "box"), crew(&rig, "twin"));
    let going = rig.begin(DOCUMENT, &[]);
    going.event("active");
    assert!(stands_still(&rig, "box", &crews.0));
    let copy = copied(&rig, "box");
    planted(&rig, "twin", &copy);
    let started = Instant::now();
    rig.start_agent_as("twin", rig.agent_program("twin"));
    let why = wait_for("the two are seen", || Some(duplicate()).filter(|why| !why.is_empty()));
    let seen = started.elapsed();
    until("the fault is withdrawn", || !stands_still(&rig, "box", &crews.0));
    let (withdrawn, addresses) = (started.elapsed(), [rig.address("box"), rig.address("twin")]);
    assert!(
        why.starts_with("two agents use its certificate") && addresses.iter().all(|one| why.contains(one.as_str())),
        "{why}"
    );
    assert!(withdrawn < seen + LEASE + Duration::from_secs(2), "{withdrawn:?}");
    let ended = going.end(crate::rig::RUN_LIMIT);
    assert!(ended.code == 4 && ended.text().contains("seems to be two"), "{}", ended.text());
    assert!(rig.fracas(&["hosts"]).good().out.contains("DUPLICATE: two agents use its certificate"));
    assert!(!stands_still(&rig, "twin", &crews.1), "nothing was done to the copy");
    // Nothing is drawn onto it.
    let said = rig.fracas(&["run", &rig.document("again", DOCUMENT)]);
    assert!(said.code == 7 && said.text().contains("two agents use its certificate"), "{}", said.text());
    eprintln!(
        "n = {lives} restarts and boots, none taken for two; the copy was seen after {seen:?}, the fault gone after {withdrawn:?}"
    );

    rig.signal_agent("twin", Signal::TERM);
    assert_eq!(rig.end_agent("twin", LIMIT).code, 0);
    rig.fracas(&["hosts", "trust", "box", "--reason", "the copy is off"]).good();
    assert_eq!(duplicate(), "");
    let going = rig.begin(DOCUMENT, &["--set", "length=2s"]);
    rig.finish(going).ended("pass", 0);

    // A copy again, which is started once its certificate was renewed on the host itself.
    let (copy, shown) = (copied(&rig, "box"), serial(&rig, "box"));
    let used = || rig.agent_log("box").matches("the session goes on with the next one").count();
    let before = used();
    until("the host uses another certificate", || used() > before && serial(&rig, "box") != shown);
    planted(&rig, "twin", &copy);
    rig.start_agent_as("twin", rig.agent_program("twin"));
    until("the copy is told", || rig.agent_log("twin").contains("the next one was used since"));
    let why = duplicate();
    assert!(why.starts_with("a certificate that it has renewed since was shown from"), "{why}");
    assert!(addresses.iter().all(|one| why.contains(one.as_str())), "{why}");
    assert_eq!(rig.hosts()["box"]["connected"], true, "the host itself goes on");
    rig.stop();
}
