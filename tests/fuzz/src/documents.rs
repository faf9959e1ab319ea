//! Whatever people write: documents of every kind, and words with a grammar of their own. What is read must be readable
//! again, and every mistake must be tellable.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fracas_controller::{
    config,
    tokens::JoinToken,
    verify::{public_key, read_heads},
};
use fracas_model::{
    access,
    diagnostic::Diagnostic,
    digest,
    document::{self, read_experiment, starter},
    guard::{self, read_guard_rails},
    id::HostId,
    policy::{Policy, read_policy},
    schedule::{Clockwork, Now, State, decide, described, read_schedule, zone},
    selector::Selector,
    target::{HostView, draw},
    units::{Dur, Percent, Size},
};

use crate::{
    Target,
    world::{self, NOW_NS, catalogue},
};

pub(crate) const EXPERIMENT: Target = Target { name: "experiment", take: experiment, seeds: experiments };
pub(crate) const SCHEDULE: Target = Target { name: "schedule", take: schedule, seeds: schedules };
pub(crate) const HOUSE: Target = Target { name: "house", take: house, seeds: houses };
pub(crate) const WORDS: Target = Target { name: "words", take: words, seeds: some_words };

/// Every mistake as a person sees it.
fn told(mistakes: &[Diagnostic]) {
    assert!(!mistakes.is_empty(), "refused for no reason");
    let text: usize = mistakes.iter().map(|mistake| mistake.render().len()).sum();
    assert!(text < world::LONGEST, "{text} bytes of mistakes");
}

/// Lines `name=value` up to a zero byte are parameters; the rest is the document.
fn experiment(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (given, text) = text.split_once('\0').unwrap_or(("", &text));
    let given: BTreeMap<String, String> =
        given.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if text.contains("GameDay") {
        return game_day(text, &given);
    }
    let read = match read_experiment("fuzz.yaml", text, &given, catalogue()) {
        Ok(read) => read,
        Err(mistakes) => return told(&mistakes),
    };
    read.warnings.iter().for_each(|warning| drop(warning.render()));
    let again = read_experiment("again.yaml", &read.document.to_string(), &BTreeMap::new(), catalogue());
    match again {
        Ok(again) => assert_eq!(again.canonical, read.canonical, "reading it again gives something else"),
        Err(mistakes) => panic!("what was read cannot be read again: {}", mistakes[0].render()),
    }
    let typed = serde_json::from_value(read.canonical.clone());
    assert_eq!(typed.ok().as_ref(), Some(&read.experiment), "the history would tell another experiment");
    assert_eq!(digest::intent(&read.canonical).len(), 64);
    // Refusals are as good as hosts.
    let _ = draw(&read.experiment, &hosts(), 7);
}

/// A document of several experiments, of which one is always there.
fn game_day(text: &str, given: &BTreeMap<String, String>) {
    let files = [("one.yaml".to_owned(), world::SMALL.to_owned())].into();
    let read = match document::read("fuzz.yaml", text, &files, given, catalogue()) {
        Ok(read) => read,
        Err(mistakes) => return told(&mistakes),
    };
    read.warnings.iter().for_each(|warning| drop(warning.render()));
    let typed = serde_json::from_value(read.canonical.clone());
    assert_eq!(typed.ok().as_ref(), Some(&read.experiment), "the history would tell another day");
    let _ = draw(&read.experiment, &hosts(), 7);
}

const DAY: &str = "apiVersion: fracas/v1
kind: GameDay
name: day
sections:
  - { id: first, experiment: one.yaml, onFailure: continue }
  - id: second
    experiment: one.yaml
    waitBefore: 10m
    approval: { question: Is on-call ready?, deadline: 30m, otherwise: skip }
";

fn hosts() -> Vec<HostView> {
    let labels = |role: &str| [("role".to_owned(), role.to_owned()), ("tier".to_owned(), "primary".to_owned())].into();
    let view = |(number, role): (usize, &str)| HostView {
        id: HostId::new(format!("h{number}")),
        name: format!("host-{number}"),
        labels: labels(role),
        environment: "default".to_owned(),
        connected: true,
        quarantined: None,
        cordoned: None,
        taken: None,
        observer: false,
    };
    ["box", "db", "edge", "web", "db"].into_iter().enumerate().map(view).collect()
}

fn experiments() -> Vec<Vec<u8>> {
    let head = "apiVersion: fracas/v1\nkind: Experiment\nname: seed\ntargets: { box: { select: \"role=box\" } }\n";
    let fault = |info: &fracas_model::catalogue::FaultInfo| {
        let lasting = if info.nature == fracas_model::catalogue::Nature::Spent { "" } else { ", for: 5s" };
        format!("{head}timeline:\n  - {{ id: one, at: 0s, fault: {}, target: box{lasting} }}\n", info.example.trim())
    };
    let probe = |info: &fracas_model::catalogue::ProbeInfo| {
        let named = format!("{}: {}", info.name, info.example.trim());
        format!(
            "{head}services: {{ s: {{ rto: 30s }} }}\nprobes:\n  up: {{ service: s, from: box, every: 100ms, timeout: 1s, {named} }}\n\
             timeline:\n  - {{ id: one, at: 0s, wait: 1s }}\n"
        )
    };
    let mut all: Vec<String> = world::EXAMPLES.iter().map(|text| (*text).to_owned()).collect();
    all.extend([starter().to_owned(), world::SMALL.to_owned()]);
    all.extend(catalogue().faults.iter().map(fault));
    all.extend(catalogue().probes.iter().map(probe));
    all.iter().for_each(|text| good(text, &read_experiment("seed", text, &BTreeMap::new(), catalogue())));
    let with = "name: seed\nparameters: { length: { type: duration, default: 2s }, who: { type: text } }";
    let parameters =
        all[5].replace("name: small", with).replace("for: 2s", "for: \"${length}\"").replace("web }", "\"${who}\" }");
    all.push(format!("length=3s\nwho=web\0{parameters}"));
    let files = [("one.yaml".to_owned(), world::SMALL.to_owned())].into();
    good(DAY, &document::read("seed", DAY, &files, &BTreeMap::new(), catalogue()));
    all.push(DAY.to_owned());
    all.into_iter().map(String::into_bytes).collect()
}

/// An input to begin with must be a good document.
fn good<T>(text: &str, read: &Result<T, Vec<Diagnostic>>) {
    if let Err(mistakes) = read {
        panic!("{}\n{text}", mistakes[0].render());
    }
}

/// Dues looked at of each schedule.
const DUES: usize = 1000;

fn schedule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = match read_schedule("fuzz.yaml", &text) {
        Ok(read) => read,
        Err(mistakes) => return told(&mistakes),
    };
    read.warnings.iter().for_each(|warning| drop(warning.render()));
    let rules = read.schedule;
    let clockwork = Clockwork::new(&rules.when, rules.zone, rules.seed).expect("what was read has a clockwork");
    let mut last = None;
    for due in clockwork.after(NOW_NS).take(DUES) {
        assert!(Some(due.nominal_ns) > last && due.at_ns >= due.nominal_ns, "{due:?} after {last:?}");
        last = Some(due.nominal_ns);
    }
    clockwork.coming(NOW_NS).take(10).for_each(drop);
    let state = State { settled_ns: NOW_NS, schedule: Some(rules), ..State::default() };
    for later_ns in [0, 60_000_000_000, 86_400_000_000_000 * 40] {
        let now = Now { ns: NOW_NS + later_ns, alive: &BTreeSet::new(), changed: true };
        let decision = decide(&state, &clockwork, now);
        assert!(decision.acts.len() < 100_000, "{} acts at once", decision.acts.len());
    }
}

fn schedules() -> Vec<Vec<u8>> {
    let head = "apiVersion: fracas/v1\nkind: Schedule\nname: often\nexperiment: page.yaml\n";
    let rest = [
        "when: { every: { period: 2s, from: 2026-01-01T00:00 } }\n",
        "when: { cron: \"30 2 * * MON-FRI\" }\nzone: Europe/Berlin\ncatchUp: latest\n",
        "when: { cron: \"0 0 29 2 *\" }\nzone: America/New_York\nconcurrency: queue\ncatchUp: { all: 5 }\n",
        "when: { at: 2027-03-28T02:30 }\nzone: Europe/Berlin\n",
        "when: { random: { opens: \"0 9 * * 1-5\", within: 6h } }\nzone: Asia/Kolkata\n",
        "when: { cron: \"*/5 8-18 L * FRI#2\" }\nallowed:\n  - { days: mon-tue, hours: \"09:00-17:00\" }\nblackouts:\n  - { from: 2026-12-24, to: 2027-01-02T00:00, why: holidays }\n",
    ];
    let whole: Vec<String> = rest.iter().map(|rest| format!("{head}{rest}")).collect();
    whole.iter().for_each(|text| good(text, &read_schedule("seed", text)));
    whole.into_iter().map(String::into_bytes).collect()
}

/// The first byte says which kind of document.
fn house(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match kind % 3 {
        0 => match read_guard_rails("fuzz.yaml", &text) {
            Ok((rails, warnings)) => {
                warnings.iter().for_each(|warning| drop(warning.render()));
                let json = serde_json::to_value(&rails).expect("guard-rails are JSON");
                assert_eq!(serde_json::from_value(json).ok().as_ref(), Some(&rails));
                let fleet = hosts();
                guard::admit(&rails, &fleet, &fleet.iter().map(|host| host.id.clone()).collect());
            }
            Err(mistakes) => told(&mistakes),
        },
        1 => match read_policy("fuzz.yaml", &text) {
            Ok(policy) => {
                let json = serde_json::to_value(&policy).expect("a policy is JSON");
                assert_eq!(serde_json::from_value(json).ok().as_ref(), Some(&policy));
                policy.protects_path("/etc/passwd", &[]).expect("the system itself is always protected");
            }
            Err(mistakes) => told(&mistakes),
        },
        _ => match config::read_file("fuzz.yaml", &text) {
            Ok(given) => drop(given.settle("/var/lib/fracas".into()).text()),
            Err(why) => assert!(!why.is_empty()),
        },
    }
}

fn houses() -> Vec<Vec<u8>> {
    let mut policy = serde_json::to_value(Policy::builtin()).expect("JSON");
    (policy["apiVersion"], policy["kind"]) = ("fracas/v1".into(), "HostPolicy".into());
    let policy = policy.to_string();
    let all = [
        (
            0,
            "apiVersion: fracas/v1\nkind: GuardRails\nlimits:\n  - { name: fleet, maxPercent: 20%, minHealthy: 3 }\n  - { name: db, select: role=db, maxHosts: 1 }\napprovals:\n  - { name: prod, environments: [prod], faults: [net-*], count: 1, validFor: 1d }\n",
        ),
        (0, "apiVersion: fracas/v1\nkind: GuardRails\n"),
        (
            1,
            "apiVersion: fracas/v1\nkind: HostPolicy\nallowFaults: [process-kill]\nmaxDuration: 10m\nprotectPaths: [/srv]\n",
        ),
        (1, policy.as_str()),
        (
            2,
            "apiVersion: fracas/v1\nkind: ControllerConfig\ndataDir: /var/lib/fracas\nfrontListen: 127.0.0.1:7766\nfleetListen: 0.0.0.0:7767\nnames: [ctl.example.org]\nhostCertificateDays: 365\ndrain: 30s\nobserver: true\n",
        ),
    ];
    for (kind, text) in &all {
        match kind {
            0 => good(text, &read_guard_rails("seed", text)),
            1 => good(text, &read_policy("seed", text)),
            _ => drop(config::read_file("seed", text).expect("a good configuration")),
        }
    }
    all.iter().map(|(kind, text)| [&[*kind][..], text.as_bytes()].concat()).collect()
}

/// The first byte says which grammar.
fn words(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match kind % 10 {
        0 => again::<Selector>(&text),
        1 => again::<Dur>(&text),
        2 => again::<Size>(&text),
        3 => again::<Percent>(&text),
        4 => drop(described(&text)),
        // Documents have no longer ones.
        5 => drop(zone(text.get(..64).unwrap_or(&text))),
        6 => drop(access::environment(&text)),
        7 => {
            if let Ok(token) = JoinToken::parse(&text) {
                let written = token.text();
                assert_eq!(JoinToken::parse(&written).expect("its own text").text(), written);
            }
        }
        8 => drop(read_heads(Path::new("heads"), data)),
        _ => drop(public_key(Path::new("audit.pub"), data)),
    }
}

/// What is written of a value is that value.
fn again<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    assert_eq!(written.parse::<T>().ok().as_ref(), Some(&value), "{text:?} is written as {written:?}");
}

fn some_words() -> Vec<Vec<u8>> {
    let token = JoinToken::make([1; 8], [2; 32], [3; 32]).text();
    let all = [
        (0, "role=db,tier!=primary,zone in (a, b),x notin (c),has,!hasnot"),
        (1, "1h30m"),
        (1, "1.5ms"),
        (1, "-3us"),
        (2, "1.5GiB"),
        (3, "12.5%"),
        (4, "*/5 8-18 1,15 JAN-MAR MON#1"),
        (4, "@daily"),
        (5, "Europe/Berlin"),
        (6, "prod"),
        (7, token.as_str()),
        (8, "{\"stream\":\"audit/c\",\"seq\":3,\"hash\":\"00\",\"wallNs\":5,\"signature\":\"00\"}\n{\"str"),
        (9, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"),
    ];
    all.iter().map(|(kind, text)| [&[*kind][..], text.as_bytes()].concat()).collect()
}
