//! People who sign in by an identity provider that nobody here wrote: roles from its claims, a no in the browser, and a
//! provider that is down.

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    rig::{DATA, Going, LIMIT, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs: &[Need] = &[
        Need::Lab,
        Need::Program("node"),
        Need::Program("curl"),
        Need::Variable("FRACAS_OIDC", "a folder with the npm package oidc-provider, as .ci/run makes one"),
    ];
    vec![trial("people_sign_in_by_their_identity_provider", needs, sign_in)]
}

const SCRIPT: &str = include_str!("provider.mjs");
const PORT: &str = "9911";
const SECRET: &str = "a-client-secret-of-some-length";
const PEOPLE: &str = r#"{
    "u1": { "preferred_username": "Anna.Berg", "name": "Anna Berg", "groups": ["sre"], "email": "anna@example.org" },
    "u2": { "preferred_username": "bert", "groups": ["sales"] },
    "u3": { "preferred_username": "anna.berg@example.org", "groups": ["auditors"] }
}"#;

fn config(session: &str, group: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: ControllerConfig\nsignIn:\n  issuer: http://127.0.0.1:{PORT}\n  clientId: fracas\n  \
         clientSecret: {{ file: /run/client-secret }}\n  session: {session}\n  \
         roles: {{ {group}: [operator@staging, viewer@prod], auditors: ['viewer@*'] }}\n"
    )
}

fn provider(rig: &Rig) -> Going {
    let program = Program::new("node").args(["/run/provider.mjs", PORT, PEOPLE, SECRET]);
    let program = program.env("FRACAS_OIDC", std::env::var("FRACAS_OIDC").expect("checked"));
    rig.go("ctl", "provider", program).ready()
}

fn start(rig: &Rig, config: &str) {
    rig.keep("ctl", "/run/controller.yaml", config);
    rig.start_controller_as(rig.controller_program(DATA).args(["--config", "/run/controller.yaml"]));
}

fn person(home: &str, words: &[&str]) -> Program {
    part(&["fracas"]).args(words.iter().copied()).env("HOME", format!("/run/data/{home}")).env("TZ", "UTC")
}

/// Begins to sign in; the code that is shown.
fn begin(rig: &Rig, home: &str) -> (Going, String) {
    let ca = format!("{DATA}/ca.pem");
    let words = ["login", "--controller", "127.0.0.1:7766", "--ca", &ca, "--name", "here", "--output", "json"];
    let going = rig.go("ctl", home, person(home, &words));
    let code = going.find("a code", |line| line["userCode"].as_str().map(str::to_owned));
    (going, code)
}

fn answer(rig: &Rig, code: &str, who: &str) {
    let who = if who.is_empty() { String::new() } else { format!("&who={who}") };
    rig.shell("ctl", &format!("curl -sSf 'http://127.0.0.1:{PORT}/answer?user_code={code}{who}'"));
}

/// Signs in as this subject of the provider.
fn login(rig: &Rig, home: &str, who: &str) -> Value {
    let (going, code) = begin(rig, home);
    answer(rig, &code, who);
    let said = going.end(LIMIT).good();
    said.json().into_iter().find(|line| line["schema"] == "fracas.login/v1").expect("signed in")["person"].clone()
}

fn roles(person: &Value) -> String {
    let roles = person["roles"].as_array().expect("roles").iter();
    roles.map(|one| format!("{}@{}", one["role"], one["environment"])).collect::<Vec<_>>().join(" ").replace('"', "")
}

fn sign_in() {
    let rig = Rig::bare(&[]);
    rig.keep("ctl", "/run/provider.mjs", SCRIPT);
    rig.keep("ctl", "/run/client-secret", &format!("{SECRET}\n"));
    let running = provider(&rig);
    start(&rig, &config("8h", "sre"));

    let anna = login(&rig, "one", "u1");
    assert_eq!((anna["handle"].as_str(), roles(&anna).as_str()), (Some("anna.berg"), "viewer@prod operator@staging"));
    let said = rig.say("ctl", person("one", &["whoami"])).good();
    assert!(said.out.contains("operator@staging"), "{}", said.text());
    let said = rig.say("ctl", person("one", &["people", "list"]));
    assert!(said.code == 7 && said.err.contains("right to govern"), "{}", said.text());
    // The same person is the same pseudonym; somebody of the same name is not.
    assert_eq!(login(&rig, "two", "u1")["id"], anna["id"]);
    let other = login(&rig, "three", "u3");
    assert!(other["handle"] == "anna.berg-2" && other["id"] != anna["id"], "{other}");

    // Known there, and nobody here; and a no in the browser.
    let (going, code) = begin(&rig, "four");
    answer(&rig, &code, "u2");
    let said = going.end(LIMIT);
    assert!(said.code == 7 && said.err.contains("have no role here"), "{}", said.text());
    let (going, code) = begin(&rig, "four");
    answer(&rig, &code, "");
    let said = going.end(LIMIT);
    assert!(said.code == 7 && said.err.contains("refused in the browser"), "{}", said.text());

    // Down: signing in says so and what helps; who is signed in works on, and so does the administrator.
    running.kill();
    let ca = format!("{DATA}/ca.pem");
    let words = ["login", "--controller", "127.0.0.1:7766", "--ca", &ca];
    let said = rig.say("ctl", person("five", &words));
    let helps = said.err.contains("connection refused") && said.err.contains("--token-file");
    assert!(said.code == 5 && helps, "{}", said.text());
    rig.say("ctl", person("one", &["runs"])).good();
    rig.fracas(&["people", "list"]).good();
    let running = provider(&rig);

    // What the provider's groups give here is settled anew at the next sign-in, and a session ends.
    rig.signal_controller(Signal::TERM);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    start(&rig, &config("1m", "sre-no-more"));
    let (going, code) = begin(&rig, "six");
    answer(&rig, &code, "u1");
    let said = going.end(LIMIT);
    assert!(said.code == 7 && said.err.contains("have no role here"), "{}", said.text());
    let mine = || rig.say("ctl", person("one", &["whoami", "--output", "json"])).good().json().remove(0);
    until("what she was given is taken away", || roles(&mine()).is_empty());

    // Nothing secret and no name is in the history; that somebody was refused is.
    rig.signal_controller(Signal::TERM);
    assert_eq!(rig.end_controller(LIMIT).code, 0);
    let kept = rig.shell("ctl", &format!("cat {DATA}/history.sqlite* | tr -cd '\\11\\12\\15\\40-\\176'"));
    for private in [SECRET, "anna", "Berg", "example.org"] {
        assert!(!kept.contains(private), "{private} is in the history");
        assert!(!rig.controller_log().contains(SECRET), "the secret is in the log");
    }
    assert!(kept.contains("have no role here"), "refused sign-ins are on record");
    running.kill();
    rig.verify_data(DATA);
}
