//! Canaries in every place where a secret enters, looked for in everything that comes out: histories, evidence, backups,
//! reports, logs at their most talkative, metrics, notices, and what is said of mistakes.

use fracas_sim::lab::Program;
use serde_json::Value;

use crate::{
    rig::{DATA, LIMIT, Rig, until},
    stage::part,
};

const RECEIVER: &str = "127.0.0.1:8099";
const FORMATS: [&str; 4] = ["text", "markdown", "html", "json"];

const CONFIG: &str = r#"
apiVersion: fracas/v1
kind: ControllerConfig
signIn:
  issuer: http://127.0.0.1:9
  clientId: fracas
  clientSecret: { file: /run/data/oidc }
  roles: { sre: [operator] }
notifications:
  - name: hook
    webhook:
      url: { env: HOOK_URL }
      secret: { file: /run/data/hmac }
      headers: { authorization: { env: HOOK_HEADER } }
    on: [run.started, run.finished, run.aborted, halt.set, schedule.paused]
  - name: chat
    slack: { url: { file: /run/data/slack } }
    on: [run.started, run.finished, run.aborted, halt.set]
  - name: call
    pagerduty: { routingKey: { file: /run/data/pagerduty }, url: "http://127.0.0.1:8099" }
  - name: mail
    email:
      server: "127.0.0.1:9"
      from: a@example.org
      to: [b@example.org]
      username: me
      password: { file: /run/data/mail }
    on: [run.started, run.finished, run.aborted, halt.set]
"#;

/// In a file or a variable by reference, so that they are in no place of ours at all.
const BY_REFERENCE: [&str; 8] = ["probe", "oidc", "hook-url", "hmac", "hook-header", "slack", "pagerduty", "mail"];

const EXPERIMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
targets: { box: { select: "role=box" } }
services: { web: { rto: 1m } }
probes:
  up:
    service: web
    http:
      url: "http://127.0.0.1:8099/"
      headers: { authorization: "Bearer CANARY-document", x-key: { env: FRACAS_SECRET_KEY } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/data/page, content: broken } }, target: box, for: 300ms }
recovery: { stableFor: 0s, giveUpAfter: 1s }
"#;

fn canary(name: &str) -> String {
    format!("CANARY-{name}-5f2b")
}

/// All that came out, by where.
#[derive(Default)]
struct Told(Vec<(String, String)>);

impl Told {
    fn take(&mut self, place: &str, text: String) {
        self.0.push((place.to_owned(), text));
    }

    fn expect_without(&self, what: &str, secret: &str, but: &[&str]) {
        assert!(secret.len() >= 8, "{what}");
        for (place, text) in self.0.iter().filter(|(place, _)| !but.contains(&place.as_str())) {
            assert!(!text.contains(secret), "{what} is told in {place}");
        }
    }
}

pub(super) fn secrets() {
    let rig = Rig::bare(&["box", "bad"]);
    let receiver = rig.go("ctl", "receiver", part(&["receive", RECEIVER])).ready();
    for name in ["oidc", "hmac", "pagerduty", "mail"] {
        rig.keep("ctl", &format!("/run/data/{name}"), &canary(name));
    }
    rig.keep("ctl", "/run/data/slack", &format!("http://{RECEIVER}/{}", canary("slack")));
    let config = rig.document("controller", CONFIG);
    let program = || {
        let program = rig.controller_program(DATA).args(["--log-level", "debug", "--metrics-listen", "127.0.0.1:7768"]);
        let program = program
            .env("FRACAS_CONFIG", &config)
            .env("FRACAS_SECRET_KEY", canary("probe"))
            .env("HOOK_HEADER", format!("Bearer {}", canary("hook-header")));
        program.env("HOOK_URL", format!("http://{RECEIVER}/{}", canary("hook-url")))
    };
    let mut told = Told::default();
    let say =
        |words: &[&str]| rig.say("ctl", part(&[&["fracas", "controller", "--config", &config], words].concat())).text();
    told.take("--check-config", say(&["--check-config"]));
    rig.start_controller_as(program());
    let token = rig.token(&[("role", "box")]);
    let join = token.split('.').nth(2).expect("secret").to_owned();
    let agent = |name: &str| rig.agent_program(name).args(["--log-level", "debug"]);
    rig.start_agent_as("box", agent("box").env("FRACAS_JOIN_TOKEN", &token));
    rig.until_connected(&["box"]);
    // A mistake with a token: it was used, it is cut off.
    for bad in [token.as_str(), &token[..token.len() - 3]] {
        let said = rig.say("bad", agent("bad").env("FRACAS_JOIN_TOKEN", bad));
        assert_eq!(said.code, 5, "{}", said.text());
        told.take("an agent with a bad token", said.text());
    }
    rig.fracas(&["people", "add", "anna", "--role", "viewer"]).good();
    let made = rig.fracas(&["people", "token", "make", "anna", "--output", "json"]).good().json().remove(0);
    let access = made["token"].as_str().expect("token").to_owned();
    let secret = access.rsplit('.').next().expect("secret").to_owned();
    let feed = rig.fracas(&["schedule", "feed", "--output", "json"]).good().json().remove(0).to_string();
    let signature = feed.split("signature=").nth(1).expect("signature")[..64].to_owned();
    let link = feed.split('"').find(|text| text.contains("signature=")).expect("a link").to_owned();
    let admin = rig.shell("ctl", &format!("cat {DATA}/admin.token")).trim().to_owned();

    rig.keep("box", "/run/data/page", "as it was");
    rig.run(EXPERIMENT);
    pasted(&rig, [&link, &access, &token]);
    let userinfo =
        EXPERIMENT.replace("http://127.0.0.1:8099/", &format!("http://me:{}@127.0.0.1:8099/", canary("userinfo")));
    let path = rig.document("userinfo", &userinfo);
    let said = rig.fracas(&["run", &path, "--yes"]);
    assert!(said.code == 2 && said.text().contains("holds credentials"), "{}", said.text());
    let curl = [
        "-s",
        "-k",
        "-H",
        &format!("authorization: Bearer {}x", &access),
        "https://127.0.0.1:7766/fracas.v1.Operator/ListRuns",
    ]
    .map(str::to_owned);
    rig.say("ctl", Program::new("curl").args(curl));
    let login = part(&["fracas", "login", "--controller", "127.0.0.1:7766", "--ca", &format!("{DATA}/ca.pem")]);
    told.take("a sign-in that fails", rig.say("ctl", login.env("HOME", "/run/data/home")).text());
    for name in ["hook", "chat", "call", "mail"] {
        told.take("notify test", rig.fracas(&["notify", "test", name]).text());
    }
    rig.fracas(&["halt", "--reason", "x"]).good();
    rig.fracas(&["halt", "clear", "--reason", "x"]).good();
    until("the notices have come", || {
        receiver.out.text().contains("halt.set") && receiver.out.text().contains("routing_key")
    });

    outputs(&rig, &mut told);
    told.take("metrics", rig.page("ctl", "127.0.0.1:7768", "/metrics").1);
    let notices = receiver.out.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let bodies: Vec<String> = notices.map(|line| line["body"].to_string()).collect();
    assert!(bodies.len() > 5, "{bodies:?}");
    let (keyed, plain): (Vec<String>, Vec<String>) = bodies.into_iter().partition(|body| body.contains("routing_key"));
    told.take("notices", plain.join("\n"));
    told.take("notices to PagerDuty", keyed.join("\n"));
    at_rest(&rig, &mut told);
    for name in BY_REFERENCE {
        // PagerDuty's key is how PagerDuty knows us.
        let but: &[&str] = if name == "pagerduty" { &["notices to PagerDuty"] } else { &[] };
        told.expect_without(name, &canary(name), but);
    }
    told.expect_without("the password of a URL", &canary("userinfo"), &[]);
    told.expect_without("the secret of a join token", &join, &[]);
    told.expect_without("the secret of an access token", &secret, &[]);
    told.expect_without("the signature of a link", &signature, &[]);
    // A backup with keys holds every key, and says so.
    told.expect_without("the administrator's token", admin.rsplit('.').next().expect("secret"), &["backup"]);
    // What stands in a document is in its run's history, and wherever that is shown: there are references instead.
    let documents = ["watch", "report", "evidence", "backup", "backup without keys", "history"];
    told.expect_without("a header of a document", "CANARY-document", &documents);
    let (_, history) = told.0.iter().find(|(place, _)| place == "history").expect("it");
    assert!(history.contains("CANARY-document"), "the canaries can be found at all");
    let bytes: usize = told.0.iter().map(|(_, text)| text.len()).sum();
    eprintln!("{} canaries, none in {} outputs of {bytes} bytes", BY_REFERENCE.len() + 6, told.0.len());
    rig.verify_data(DATA);
}

/// Secrets in the wrong place: where an id is asked for. They are said back to whoever said them, and to nobody else.
fn pasted(rig: &Rig, [link, access, token]: [&str; 3]) {
    for words in [
        &["schedule", "feed", "--revoke", link, "--reason", "pasted"][..],
        &["people", "token", "revoke", access, "--reason", "pasted"],
        &["show", access],
        &["stop", access],
        &["schedule", "show", access],
        &["approval", "show", access],
        &["hosts", "cordon", token, "--reason", "pasted"],
    ] {
        rig.fracas(words);
    }
}

/// All that can be asked for.
fn outputs(rig: &Rig, told: &mut Told) {
    for words in [
        &["notify", "list", "--output", "json"][..],
        &["people", "token", "list", "--output", "json"],
        &["people", "list", "--output", "json"],
        &["schedule", "feed", "--list", "--output", "json"],
        &["hosts", "--output", "json"],
        &["runs", "--output", "json"],
        &["audit", "list", "--output", "json"],
    ] {
        told.take(&words.join(" "), rig.fracas(words).good().text());
    }
    for format in FORMATS {
        told.take("report", rig.fracas(&["report", "last", "--format", format]).good().out);
    }
    told.take("watch", rig.fracas(&["watch", "last", "--output", "json"]).out);
    rig.fracas(&["audit", "export", "--to", "/run/data/evidence"]).good();
    told.take(
        "evidence",
        rig.shell("ctl", "cd /run/data/evidence && find . -type f -exec cat {} + | tr -cd '\\11\\12\\40-\\176'"),
    );
    for (place, words) in [("backup", &[][..]), ("backup without keys", &["--without-keys"])] {
        rig.shell("ctl", "rm -f /run/data/backup.tar");
        rig.fracas(&[&["controller", "backup", "--to", "/run/data/backup.tar"], words].concat()).good();
        told.take(place, rig.shell("ctl", "tr -cd '\\11\\12\\40-\\176' < /run/data/backup.tar"));
    }
}

/// What both leave behind.
fn at_rest(rig: &Rig, told: &mut Told) {
    // The last words of both are in their logs.
    rig.signal_agent("box", rustix::process::Signal::TERM);
    assert_eq!(rig.end_agent("box", LIMIT).code, 0);
    rig.signal_controller(rustix::process::Signal::TERM);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    told.take("history", rig.shell("ctl", &format!("cat {DATA}/history.sqlite* | tr -cd '\\11\\12\\40-\\176'")));
    told.take("log of the controller", rig.controller_log());
    told.take("log of the agent", rig.agent_log("box"));
    let state = "cd /run/data/agent && find . -type f ! -name key.pem -exec cat {} + | tr -cd '\\11\\12\\40-\\176'";
    told.take("state of the agent", rig.shell("box", state));
}
