//! People and what they may: roles in environments, tokens that end, contexts, and attacks by those who are in already.

use std::time::Duration;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    rig::{DATA, LIMIT, Rig, STATE, Said, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("people_may_what_they_were_given_and_only_there", &[Need::Lab], given_and_only_there),
        trial("a_hosts_certificate_opens_nothing_that_is_for_people", &[Need::Lab, Need::Program("curl")], no_way_in),
        trial("a_cordoned_host_is_spared_and_a_drained_one_is_clean", &[Need::Lab], spared),
    ]
}

const PAGE: &str = "/run/data/page";

const EXPERIMENT: &str = "
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
targets: { box: { select: \"role=box\" } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/data/page, content: broken } }, target: box, for: LENGTH }
recovery: { stableFor: 0s, giveUpAfter: 1s }
";

/// Somebody at the controller's host who has signed in, with a home of their own.
pub(crate) struct Somebody<'a> {
    rig: &'a Rig,
    home: String,
    token: String,
    id: String,
}

impl<'a> Somebody<'a> {
    pub(crate) fn sign_in(rig: &'a Rig, handle: &str, roles: &[&str]) -> Self {
        let mut words = vec!["people", "add", handle, "--output", "json"];
        for role in roles {
            words.extend(["--role", role]);
        }
        let id = rig.fracas(&words).good().json()[0]["id"].as_str().expect("id").to_owned();
        let made = rig.fracas(&["people", "token", "make", handle, "--output", "json"]).good().json().remove(0);
        let token = made["token"].as_str().expect("token").to_owned();
        let somebody = Self { rig, home: format!("/run/data/{handle}"), token, id };
        let ca = format!("{DATA}/ca.pem");
        let login = ["login", "--controller", "127.0.0.1:7766", "--ca", &ca, "--name", "here"];
        let program = somebody.program(&login).env("FRACAS_TOKEN", &somebody.token);
        let said = rig.say("ctl", program).good();
        assert!(said.out.contains(&format!("as {handle}")), "{}", said.text());
        somebody
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The public part of the token.
    pub(crate) fn token_id(&self) -> &str {
        self.token.split('.').nth(1).expect("an id")
    }

    fn program(&self, words: &[&str]) -> Program {
        part(&["fracas"]).args(words.iter().copied()).env("HOME", &self.home).env("TZ", "UTC")
    }

    pub(crate) fn says(&self, words: &[&str]) -> Said {
        self.rig.say("ctl", self.program(words))
    }

    /// Is not let do it, and is told what would help.
    pub(crate) fn refused(&self, words: &[&str], why: &str) {
        let said = self.says(words);
        assert!(said.code == 7 && said.err.contains(why), "{words:?} {}", said.text());
    }
}

/// Every text that the history's files hold.
fn kept(rig: &Rig) -> String {
    rig.shell("ctl", &format!("cat {DATA}/history.sqlite* | tr -cd '\\11\\12\\15\\40-\\176'"))
}

fn given_and_only_there() {
    let rig = Rig::bare(&["box-s", "box-p"]);
    rig.start_controller();
    for (name, place) in [("box-s", "staging"), ("box-p", "prod")] {
        let ask = ["hosts", "join-token", "--label", "role=box", "--environment", place, "--output", "json"];
        let token = rig.fracas(&ask).good().json()[0]["token"].as_str().expect("token").to_owned();
        rig.start_agent_as(name, rig.agent_program(name).env("FRACAS_JOIN_TOKEN", token));
        rig.keep(name, PAGE, "as it was");
    }
    rig.until_connected(&["box-s", "box-p"]);
    let anna = Somebody::sign_in(&rig, "anna", &["operator@staging", "viewer@prod"]);
    let bert = Somebody::sign_in(&rig, "bert", &["viewer@prod"]);
    let path = rig.document("page", &EXPERIMENT.replace("LENGTH", "1s"));

    // There it works, and no host of another place is drawn though its labels fit.
    let run = ["run", &path, "--yes", "--environment", "staging", "--output", "json"];
    let said = anna.says(&run).good();
    let planned = said.json().into_iter().find(|line| line["body"]["kind"] == "planned").expect("planned");
    let hosts: Vec<&Value> = planned["body"]["hosts"].as_object().expect("hosts").values().collect();
    assert_eq!(hosts, ["box-s"]);
    assert_eq!(planned["body"]["by"].as_str(), Some(anna.id.as_str()));
    // Elsewhere it does not, whatever is tried.
    let why = "needs the right to";
    anna.refused(&["run", &path, "--yes", "--environment", "prod"], "environment prod");
    anna.refused(&["plan", &path, "--environment", "prod"], "environment prod");
    anna.refused(&["hosts", "cordon", "box-p", "--reason", "x"], why);
    anna.refused(&["hosts", "join-token", "--environment", "staging"], why);
    anna.refused(&["people", "list"], why);
    anna.refused(&["people", "grant", "anna", "admin@staging"], why);
    anna.refused(&["halt", "clear", "--reason", "x"], why);
    // What one may not see is not there.
    let seen = |somebody: &Somebody<'_>| somebody.says(&["runs", "--output", "json"]).good().json()[0]["runs"].clone();
    assert_eq!(seen(&anna).as_array().map(Vec::len), Some(1));
    assert_eq!(seen(&bert).as_array().map(Vec::len), Some(0));
    assert!(bert.says(&["show", "last"]).err.contains("no run `last` here"));
    let hosts = bert.says(&["hosts"]).good().out;
    assert!(hosts.contains("box-p") && !hosts.contains("box-s"), "{hosts}");
    // Ending harm is for everybody who is signed in.
    let long = rig.document("long", &EXPERIMENT.replace("LENGTH", "1h"));
    let detached = ["run", &long, "--yes", "--detach", "--environment", "staging", "--output", "json"];
    let started = anna.says(&detached).good().json().remove(0);
    let run = started["run"].as_str().expect("run").to_owned();
    until("the page is broken", || rig.shell("box-s", &format!("cat {PAGE}")).contains("broken"));
    bert.says(&["stop", &run, "--reason", "customers call"]).good();
    until("the page is whole", || rig.shell("box-s", &format!("cat {PAGE}")).contains("as it was"));
    bert.says(&["halt", "--reason", "incident"]).good();
    anna.refused(&["run", &path, "--yes", "--environment", "staging"], "incident");
    rig.fracas(&["halt", "clear", "--reason", "over"]).good();

    // A token that was revoked ends what it watches and opens nothing; over a restart too.
    let started = anna.says(&detached).good().json().remove(0);
    let run = started["run"].as_str().expect("run").to_owned();
    let watching = rig.go("ctl", "watching", anna.program(&["watch", &run, "--output", "json"]));
    watching.event("active");
    let tokens = rig.fracas(&["people", "token", "list", "--output", "json"]).good().json().remove(0);
    let hers =
        tokens["tokens"].as_array().expect("tokens").iter().find(|token| token["handle"] == "anna").expect("hers");
    rig.fracas(&["people", "token", "revoke", hers["id"].as_str().expect("id"), "--reason", "laptop lost"]).good();
    let said = watching.end(LIMIT);
    assert!(said.code == 5 && said.err.contains("sign in again"), "{}", said.text());
    rig.fracas(&["stop", &run]).good();
    rig.signal_controller(Signal::TERM);
    assert_eq!(rig.end_controller(Duration::from_mins(2)).code, 0);
    rig.start_controller();
    let said = anna.says(&["runs"]);
    assert!(said.code == 5 && said.err.contains("does not accept the token"), "{}", said.text());
    let everybody = rig.fracas(&["people", "list"]).good().out;
    assert!(everybody.contains("operator@staging"), "{everybody}");

    // What was refused is on record, secrets and names are not. Who knocks again and again is counted, and told at the end.
    rig.until_connected(&["box-s", "box-p"]);
    rig.signal_controller(Signal::TERM);
    assert_eq!(rig.end_controller(Duration::from_mins(2)).code, 0);
    let kept = kept(&rig);
    for word in ["needs the right to run in environment prod", "the token was revoked", anna.id.as_str()] {
        assert!(kept.contains(word), "{word} is not on record");
    }
    let secret = anna.token.rsplit('.').next().expect("secret");
    for private in [secret, "anna"] {
        assert!(!kept.contains(private), "{private} is in the history");
        assert!(!rig.controller_log().contains(secret), "the secret is in the log");
    }
    rig.start_controller();
    rig.until_connected(&["box-s", "box-p"]);
    rig.stop();
}

/// The answer of a gRPC server to somebody who speaks HTTP only.
fn ask(rig: &Rig, host: &str, url: &str, words: &str) -> String {
    let curl = format!(
        "curl -sS -i -k --http2 --max-time 10 -X POST {words} -H 'content-type: application/grpc' -H 'te: trailers' \
         {url} 2>&1; true"
    );
    rig.shell(host, &curl)
}

fn no_way_in() {
    let rig = Rig::bare(&["box"]);
    let front = format!("{}:7766", rig.address("ctl"));
    rig.start_controller_as(rig.controller_program(DATA).args(["--front-listen", "0.0.0.0:7766"]));
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    let certificate = format!("--cert {STATE}/cert.pem --key {STATE}/key.pem");
    let fleet = format!("{}:7767", rig.address("ctl"));
    for method in ["ListRuns", "StartRun", "Halt", "MakeJoinToken", "AddPerson"] {
        // On the agents' listener there is no such service; on the operators' a certificate is nothing.
        let answer = ask(&rig, "box", &format!("https://{fleet}/fracas.v1.Operator/{method}"), &certificate);
        assert!(answer.contains("grpc-status: 12"), "{method}: {answer}");
        let answer = ask(&rig, "box", &format!("https://{front}/fracas.v1.Operator/{method}"), &certificate);
        assert!(answer.contains("grpc-status: 16"), "{method}: {answer}");
    }
    // Tokens of other kinds are none: a join token, a digest, an empty one.
    let join = rig.token(&[]);
    for token in [join.as_str(), "fat1.0", "", "fpt1.0000000000000000.00"] {
        let header = format!("-H 'authorization: Bearer {token}'");
        let answer = ask(&rig, "box", &format!("https://{front}/fracas.v1.Operator/ListRuns"), &header);
        assert!(answer.contains("grpc-status: 16"), "{token}: {answer}");
    }
    rig.stop();
}

fn spared() {
    let rig = Rig::start(&[("one", &[("role", "box")]), ("two", &[("role", "box")])]);
    for name in ["one", "two"] {
        rig.keep(name, PAGE, "as it was");
    }
    let broken = |name: &str| rig.shell(name, &format!("cat {PAGE}")).contains("broken");
    rig.fracas(&["hosts", "cordon", "one", "--reason", "release"]).good();
    let going = rig.begin(&EXPERIMENT.replace("LENGTH", "1h"), &[]);
    going.event("active");
    until("the other one suffers", || broken("two"));
    assert!(!broken("one"));
    let hosts = rig.fracas(&["hosts"]).good().out;
    assert!(hosts.contains("cordoned: release"), "{hosts}");
    let said = rig.fracas(&["hosts", "drain", "two", "--reason", "disk to be changed", "--output", "json"]).good();
    let ended = said.json()[0]["runs"][0].as_str().expect("run").to_owned();
    let run = rig.finish(going);
    assert_eq!((run.code, run.id.as_str()), (4, ended.as_str()), "{}", run.err);
    assert!(!broken("two"));
    let said = rig.fracas(&["run", "/run/experiment.yaml", "--yes"]);
    assert!(said.code == 7 && said.err.contains("cordoned: disk to be changed"), "{}", said.text());
    for name in ["one", "two"] {
        rig.fracas(&["hosts", "uncordon", name]).good();
    }
    let said = rig.fracas(&["hosts", "uncordon", "one"]);
    assert!(said.code == 7 && said.err.contains("is not cordoned"), "{}", said.text());
    rig.stop();
}
