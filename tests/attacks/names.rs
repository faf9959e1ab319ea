//! Names out of everywhere that look like paths, steer terminals, turn the writing round, or are endless: refused, or shown so
//! that they do nothing. And agents that claim what is not theirs.

use serde_json::{Value, json};

use super::{CA, attacker, identity, start_open, told};
use crate::{
    rig::{DATA, Rig, Said, until},
    stage::part,
};

const CLAIMS: &str = include_str!("claims.py");

/// What is tried as every name.
fn evil() -> Vec<String> {
    vec![
        "../../../../run/data/owned".into(),
        "/run/data/owned".into(),
        "a\u{0}owned".into(),
        "two\nlines: owned".into(),
        "\u{202e}denwo\u{2066}".into(),
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m".into(),
        "owned".repeat(2048),
    ]
}

/// Nothing in it that a terminal obeys, or that turns the writing round.
fn harmless(said: &Said) {
    let bad = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    for text in [&said.out, &said.err] {
        assert!(!text.contains(bad), "{:?}", text.chars().take(2000).collect::<String>());
    }
}

fn document(place: &str, evil: &str) -> String {
    // JSON's strings are YAML's too.
    let evil = serde_json::to_string(evil).expect("text");
    let put = |here: &str, usual: &str| if here == place { evil.clone() } else { usual.to_owned() };
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: {}\ndescription: {}\nparameters: {{ {}: {{ type: string, default: {} }} }}\n\
         targets: {{ {}: {{ select: {} }} }}\nprobes: {{ {}: {{ service: {}, tcp: {{ address: \"127.0.0.1:1\" }} }} }}\n\
         services: {{ {}: {{ rto: 1m }} }}\n\
         timeline:\n  - {{ id: {}, at: 0s, for: 100ms, target: box, fault: {{ file-replace: {{ path: {}, content: {} }} }} }}\n\
         recovery: {{ stableFor: 0s, giveUpAfter: 1s }}\n",
        put("name", "owned-not"),
        put("description", "plain"),
        put("parameter", "p"),
        put("default", "d"),
        put("target", "box"),
        put("select", "role=box"),
        put("probe", "up"),
        put("service", "web"),
        put("service", "web"),
        put("entry", "break"),
        put("path", "/run/data/page"),
        put("content", "x"),
    )
}

const PLACES: [&str; 11] =
    ["name", "description", "parameter", "default", "target", "select", "probe", "service", "entry", "path", "content"];

pub(super) fn names() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.keep("box", "/run/data/page", "as it was");
    let (mut refused, mut shown) = (0, 0);
    let mut tried = |words: &[&str]| -> Said {
        let said = rig.fracas(words);
        harmless(&said);
        if said.code == 0 {
            shown += 1;
        } else {
            refused += 1;
        }
        said
    };
    for evil in evil() {
        for place in PLACES {
            let path = rig.document("evil", &document(place, &evil));
            tried(&["validate", &path]);
            tried(&["plan", &path]);
        }
        for (place, text) in [
            ("schedule", format!("name: {}\nexperiment: evil.yaml", json!(evil))),
            ("file", format!("name: x\nexperiment: {}", json!(evil))),
            ("calendar", format!("name: x\nexperiment: evil.yaml\nblackouts: [{{ file: {} }}]", json!(evil))),
        ] {
            let text = format!("apiVersion: fracas/v1\nkind: Schedule\n{text}\nwhen: {{ cron: '0 3 1 1 *' }}\n");
            let path = rig.document("evil-schedule", &text);
            let said = tried(&["schedule", "set", &path]);
            assert_ne!(said.code, 0, "{place}: {}", said.text());
        }
        if evil.contains('\0') {
            continue;
        }
        told_by_name(&evil, &mut tried);
        rig.fracas(&["people", "remove", "anna", "--reason", &evil]);
        rig.fracas(&["people", "remove", "bert", "--reason", &evil]);
        // A run whose texts are evil as far as they may be.
        let path = rig.document("evil", &document("content", &evil));
        tried(&["run", &path, "--yes", "--set", "p=x"]);
        for words in [
            &["hosts"][..],
            &["runs"],
            &["show", "last"],
            &["watch", "last"],
            &["report", "last"],
            &["report", "last", "--format", "markdown"],
            &["people", "list"],
            &["people", "token", "list"],
            &["schedule", "list"],
            &["approval", "list"],
            &["audit", "list"],
            &["audit", "list", "--refused"],
        ] {
            tried(words);
        }
    }
    tampered_backups(&rig);
    let log = rig.controller_log();
    assert!(!log.contains(['\u{1b}', '\u{7}', '\u{9b}']), "the log steers a terminal");
    for host in ["ctl", "box"] {
        let left = rig.shell(host, "find /run /tmp /var /etc -xdev -name '*owned*' 2>/dev/null; true");
        assert_eq!(left, "", "written outside on {host}");
    }
    eprintln!("evil names: {refused} commands refused, {shown} with harmless output");
    assert!(refused > 200 && shown > 50, "{refused} {shown}");
    rig.stop();
}

/// Everything that takes a name on the command line.
fn told_by_name(evil: &str, tried: &mut dyn FnMut(&[&str]) -> Said) {
    // On a command line there is no other way to write them.
    let pair = format!("{evil}=x");
    let value = format!("role={evil}");
    for words in [
        &["people", "add", evil][..],
        &["people", "add", "anna", "--name", evil],
        &["people", "add", "bert", "--email", evil],
        &["people", "grant", evil, "viewer"],
        &["hosts", "label", "box", &pair],
        &["hosts", "label", "box", &value],
        &["hosts", "join-token", "--label", &pair],
        &["hosts", "join-token", "--environment", evil],
        &["hosts", "cordon", evil, "--reason", "x"],
        &["hosts", "cordon", "box", "--reason", evil],
        &["hosts", "uncordon", "box"],
        &["show", evil],
        &["stop", evil],
        &["decide", "last", evil, "go"],
        &["approval", "approve", evil],
        &["schedule", "show", evil],
        &["schedule", "feed", "--environment", evil],
        &["schedule", "feed", "--revoke", evil, "--reason", "x"],
        &["people", "token", "revoke", evil, "--reason", evil],
        &["halt", "--reason", evil],
        &["halt", "clear", "--reason", evil],
        &["notify", "test", evil],
        &["faults", evil],
        &["run", evil],
    ] {
        tried(words);
    }
}

/// Backups that were made to be unpacked elsewhere.
fn tampered_backups(rig: &Rig) {
    rig.shell("ctl", "mkdir -p /run/data/tar && cd /run/data/tar && echo owned > owned && ln -s /run/data/owned-link link && \
        tar -cPf /run/data/evil1.tar --transform 's,^owned,../owned,' owned && \
        tar -cPf /run/data/evil2.tar --transform 's,^owned,/run/data/owned,' owned && tar -cf /run/data/evil3.tar link && rm owned");
    for number in 1..=3 {
        let (from, to) = (format!("/run/data/evil{number}.tar"), format!("/run/data/restored{number}"));
        let said = rig.say("ctl", part(&["fracas", "controller", "restore", "--from", &from, "--data-dir", &to]));
        harmless(&said);
        assert_ne!(said.code, 0, "{}", said.text());
        assert!(rig.shell("ctl", &format!("ls -d {to} 2>&1; true")).contains("No such file"));
    }
}

pub(super) fn claims() {
    let rig = Rig::bare(&["box", "thief"]);
    let [_, fleet] = start_open(&rig);
    for name in ["box", "thief"] {
        rig.join(name, &[("role", name)]);
    }
    rig.until_connected(&["box", "thief"]);
    super::knows_the_interface(&rig, "thief");
    let hosts = rig.hosts();
    let id = |name: &str| hosts[name]["id"].as_str().expect("id").to_owned();
    let [key, cert] = identity();
    rig.signal_agent("thief", rustix::process::Signal::TERM);
    assert_eq!(rig.end_agent("thief", crate::rig::LIMIT).code, 0);
    until("it is away", || rig.hosts()["thief"]["connected"] == false);
    // A signing request that wants to be the controller's, or the other host's.
    let wanted = format!("DNS:fracas-controller,DNS:{},URI:fracas://host/{}", id("box"), id("box"));
    rig.shell("thief", &format!(
        "cd /run/data && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout forged.key -out forged.csr \
         -subj '/CN=fracas-controller' -addext 'subjectAltName={wanted}' -addext 'extendedKeyUsage=serverAuth' \
         -addext 'basicConstraints=critical,CA:TRUE' 2>&1"
    ));
    let front = format!("{}:7766", rig.address("ctl"));
    let token = rig.token(&[("role", "newcomer")]);
    let words =
        [&front, &fleet, CA, super::ADMIN, &key, &cert, &token, "/run/data/forged.csr", &id("box"), &id("thief")];
    let words: Vec<&str> = words.into_iter().map(AsRef::as_ref).collect();
    let tried = told(attacker(&rig, "thief", CLAIMS, &words));
    let of = |what: &str| {
        tried.iter().find(|one| one["what"] == what).unwrap_or_else(|| panic!("no {what}: {tried:?}")).clone()
    };
    // The name and the rights in the certificate are the controller's choice.
    let enrolled = of("enrolled");
    let pem = enrolled["certificate"].as_str().expect("pem");
    rig.keep("thief", "/run/data/forged.pem", pem);
    let shown = rig.shell("thief", "openssl x509 -in /run/data/forged.pem -noout -text");
    assert!(
        !shown.contains("DNS:fracas-controller") && !shown.contains("TLS Web Server") && !shown.contains("CA:TRUE"),
        "{shown}"
    );
    assert!(!shown.contains(&id("box")) && shown.contains(enrolled["host"].as_str().expect("id")), "{shown}");
    // Facts are facts, whatever they are called.
    let hosts = rig.hosts();
    let labels = |name: &str| hosts[name]["labels"].as_object().expect("labels").clone();
    let own = labels("thief");
    assert_eq!(own["role"], "thief", "{own:?}");
    for (label, value) in &own {
        assert!(label.starts_with("fact/") || !value.to_string().contains("forged"), "{label}: {value}");
    }
    assert_ne!(own.get("fracas/environment"), Some(&Value::from("forged")));
    assert_eq!(hosts["box"]["connected"], true, "{hosts:?}");
    // Nothing in another's name reached the history.
    let kept = rig.shell("ctl", &format!("cat {DATA}/history.sqlite* | tr -cd '\\40-\\176'"));
    for stream in ["host of another", "audit", "run of nobody", "schedule"] {
        let mark = format!("forged in {stream}");
        assert!(!kept.contains(&mark), "{mark}");
    }
    for one in &tried {
        eprintln!("{}", one.to_string().chars().take(200).collect::<String>());
    }
    // It was let in with what it said, so that there was something to refuse.
    assert_eq!(of("forged facts")["welcome"], true, "{tried:?}");
    for stream in ["host of another", "audit", "run of nobody", "schedule", "path"] {
        assert_eq!(of(&format!("a report in {stream}"))["welcome"], true);
    }
    let said = rig.fracas(&["hosts"]).good();
    harmless(&said);
    harmless(&rig.fracas(&["hosts", "show", "thief"]));
    let big = of("a hello of 9 MB");
    assert!(big["status"] != "OK" && big["welcome"] == false, "{big}");
    rig.fracas(&["hosts"]).good();
    rig.start_agent("thief");
    rig.until_connected(&["box", "thief"]);
    rig.stop();
}
