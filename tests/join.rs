//! Hosts that may not join: expired, used, foreign and malformed tokens. Each is told to the person at the host, and no
//! trace of the host is kept.

use std::time::Duration;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    residue::Dump,
    rig::{DATA, Going, LIMIT, Rig, STATE, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("bad_tokens_let_nobody_in", &[Need::Lab], bad_tokens_let_nobody_in),
        trial("one_token_is_for_one_host", &[Need::Lab], one_token_is_for_one_host),
        trial("a_forgotten_host_stays_out", &[Need::Lab], a_forgotten_host_stays_out),
    ]
}

/// Names of the hosts the controller knows, without its observer.
fn known(rig: &Rig) -> Vec<String> {
    let hosts = rig.hosts();
    hosts.into_iter().filter(|(_, host)| host["observer"] == false).map(|(name, _)| name).collect()
}

/// An agent that must not be let in.
fn kept_out(rig: &Rig, host: &str, program: Program, words: &[&str]) {
    let before = Dump::of(rig, host);
    let said = Going::start(&rig.host(host), program).end(Duration::from_secs(30));
    assert_eq!(said.code, 5, "{}", said.text());
    for word in words {
        assert!(said.err.contains(word), "{word} is not in: {}", said.err);
    }
    Dump::of(rig, host).expect_same(&before);
    let kept = rig.shell(host, &format!("ls {STATE}"));
    assert!(!kept.contains("host.key") && !kept.contains(".pem"), "nothing of an identity is kept: {kept}");
}

const NOT_VALID: &str = "join token is not valid (unknown, expired or used): have a new one made";

fn bad_tokens_let_nobody_in() {
    let rig = Rig::bare(&["box", "other"]);
    rig.start_controller();
    let with = |token: &str| rig.agent_program("box").env("FRACAS_JOIN_TOKEN", token);

    kept_out(&rig, "box", rig.agent_program("box"), &["this host is not enrolled", "fracas hosts join-token"]);
    kept_out(&rig, "box", with("fjt1.nonsense"), &["the join token is malformed", "fracas hosts join-token"]);
    let file = rig.agent_program("box").args(["--join-token-file", "/run/none"]);
    kept_out(&rig, "box", file, &["the join token cannot be read from /run/none"]);

    let said = rig.fracas(&["hosts", "join-token", "--ttl", "1s", "--output", "json"]).good().json().remove(0);
    let expires_ns = said["expiresWallNs"].as_i64().expect("expiry");
    until("the token has expired", || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec * 1_000_000_000 + now.tv_nsec > expires_ns
    });
    kept_out(&rig, "box", with(said["token"].as_str().expect("token")), &[NOT_VALID]);

    // Right in form, with a secret that nobody made.
    let token = rig.token(&[]);
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[2] = "00".repeat(32);
    kept_out(&rig, "box", with(&parts.join(".")), &[NOT_VALID]);
    // The token of another controller: this one is not who the token says.
    let foreign = rig.go("other", "foreign", crate::stage::part(&["fracas", "controller", "--data-dir", DATA]));
    let ask = ["fracas", "hosts", "join-token", "--output", "json", "--context", "/run/data/fracas/admin.yaml"];
    let mut foreign_token = String::new();
    until("the other controller answers", || {
        let said = rig.say("other", crate::stage::part(&ask));
        said.json().first().and_then(|line| line["token"].as_str()).unwrap_or_default().clone_into(&mut foreign_token);
        said.code == 0
    });
    assert!(foreign.runs());
    kept_out(&rig, "box", with(&foreign_token), &["it is not the controller that made this token"]);

    assert_eq!(known(&rig), Vec::<String>::new());
    let audit = rig.controller_log();
    assert!(audit.contains("enrolment refused") && audit.contains("has expired"), "the operator sees why: {audit}");
    // The good one is still good, as a file with a line end.
    rig.keep("box", "/run/token", &format!("{token}\n"));
    rig.start_agent_as("box", rig.agent_program("box").args(["--join-token-file", "/run/token"]));
    rig.until_connected(&["box"]);
    rig.stop();
}

fn a_forgotten_host_stays_out() {
    let rig = Rig::start(&[("old", &[]), ("new", &[])]);
    let forget = ["hosts", "forget", "old", "--reason", "scrapped"];
    let said = rig.fracas(&forget);
    assert!(said.code == 7 && said.err.contains("host old is in contact: stop its agent first"), "{}", said.text());
    let said = rig.fracas(&["hosts", "write-off", "old", "--reason", "none"]);
    assert!(said.code == 7 && said.err.contains("is not quarantined"), "{}", said.text());
    rig.signal_agent("old", rustix::process::Signal::TERM);
    assert_eq!(rig.end_agent("old", LIMIT).code, 0);
    until("its agent is out of contact", || rig.hosts()["old"]["connected"] == false);
    rig.fracas(&forget).good();
    assert_eq!(known(&rig), ["new"]);
    // Its certificate is in order and is not accepted any more, nor after a restart.
    rig.start_agent("old");
    until("it is told why", || rig.agent_log("old").contains("was forgotten here"));
    rig.signal_controller(rustix::process::Signal::TERM);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    rig.start_controller();
    rig.until_connected(&["new"]);
    assert_eq!(known(&rig), ["new"]);
    // What a controller writes to cannot be proved meanwhile.
    let verify = crate::stage::part(&["fracas", "controller", "verify", "--data-dir", DATA]);
    let said = rig.say("ctl", verify);
    assert!(said.code == 5 && said.err.contains("is in use by process"), "{}", said.text());
    rig.stop();
}

fn one_token_is_for_one_host() {
    let rig = Rig::bare(&["a", "b", "c"]);
    rig.start_controller();
    let token = rig.token(&[("role", "twin")]);
    // Both at once: one of them is let in.
    let twins: Vec<Going> = ["a", "b"]
        .into_iter()
        .map(|name| Going::start(&rig.host(name), rig.agent_program(name).env("FRACAS_JOIN_TOKEN", &token)))
        .collect();
    until("one of them is refused", || twins.iter().any(|twin| !twin.runs()));
    let (stays, leaves): (Vec<Going>, Vec<Going>) = twins.into_iter().partition(Going::runs);
    assert_eq!((stays.len(), leaves.len()), (1, 1), "exactly one");
    for left in leaves {
        let said = left.end(LIMIT);
        assert!(said.code == 5 && said.err.contains(NOT_VALID), "{}", said.text());
    }
    until("the other one is in contact", || {
        rig.hosts().values().any(|host| host["labels"]["role"] == "twin" && host["connected"] == true)
    });
    assert_eq!(known(&rig).len(), 1, "{:?}", known(&rig));
    // Later it is as used up.
    kept_out(&rig, "c", rig.agent_program("c").env("FRACAS_JOIN_TOKEN", &token), &[NOT_VALID]);
    let labels = |host: &Value| host["labels"]["role"] == "twin";
    assert_eq!(rig.hosts().values().filter(|host| labels(host)).count(), 1);
    for twin in stays {
        twin.signal(rustix::process::Signal::TERM);
        assert_eq!(twin.end(LIMIT).code, 0);
    }
    rig.verify_history();
}
