//! Every kind of notice from the facts that lead to it, in their words; and what is no news.

use std::collections::BTreeSet;

use fracas_model::{notice::Interest, time::ClockId};
use serde_json::json;

use super::*;
use crate::notify::notice::{LONGEST_SUMMARY, PLACEHOLDERS};

/// 2026-11-24T02:45:00Z.
const START: i64 = 1_795_488_300_000_000_000;

fn stamp(seconds: i64) -> Stamp {
    let clock = ClockId { host: "c".into(), boot: "b".into() };
    Stamp { clock, boot_ns: seconds * 1_000_000_000, wall_ns: START + seconds * 1_000_000_000, bound_ns: 0 }
}

fn event(stream: &str, seq: u64, body: Body) -> Event {
    Event { stream: stream.into(), seq, received: stamp(seq as i64), origin: None, body }
}

fn planned(environment: &str) -> Body {
    Body::Planned {
        files: std::collections::BTreeMap::new(),
        run: "r1".into(),
        document: json!({ "name": "kill-web" }),
        source: String::new(),
        source_name: String::new(),
        intent: String::new(),
        plan: String::new(),
        seed: 1,
        targets: BTreeMap::new(),
        hosts: [("h1".into(), "web-1".into())].into(),
        canaries: BTreeMap::new(),
        rehearsed: vec![],
        by: "admin".into(),
        environment: environment.into(),
        at: stamp(1),
    }
}

fn contact(connected: bool) -> Body {
    Body::HostContact { host: "h1".into(), connected, at: stamp(1) }
}

fn aborted(why: AbortKind) -> Body {
    Body::Aborted { cause: "web-up failed for 2m".into(), why, at: stamp(1) }
}

fn finished(verdict: VerdictWord, reasons: &[&str]) -> Body {
    let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    Body::Finished { verdict, exit_code: 1, reasons, at: stamp(1) }
}

fn item() -> ItemKey {
    ItemKey { run: "r1".into(), entry: "slow".into(), occurrence: 0, host: "h1".into(), generation: 1 }
}

fn undo_failed(why: &str) -> Body {
    Body::UndoFailed { item: item(), failures: vec![why.into()], at: stamp(1) }
}

fn undone() -> Body {
    let between = fracas_model::event::Between { from: stamp(1), to: stamp(2) };
    Body::Undone { item: item(), cause: fracas_model::event::UndoCause::Expired, between, superseded: vec![] }
}

/// The notices of a stream whose facts are these.
fn told_of(stream: &str, bodies: Vec<Body>) -> Vec<Notice> {
    let mut known = Known::default();
    let events = (1..).zip(bodies).map(|(seq, body)| event(stream, seq, body));
    events.filter_map(|event| known.take(&event)).collect()
}

fn said(notices: &[Notice]) -> Vec<(&'static str, &str)> {
    notices.iter().map(|notice| (notice.kind.name(), notice.summary.as_str())).collect()
}

fn incidents(notice: &Notice) -> Vec<(&str, Kind, bool)> {
    notice.incidents.iter().map(|i| (i.key.as_str(), i.of, i.opens)).collect()
}

#[test]
fn a_run_from_its_start_to_its_verdict() {
    let bodies = vec![
        planned("production"),
        Body::GateStarted { at: stamp(1) },
        contact(false),
        contact(true),
        undo_failed("step 2: device busy"),
        undone(),
        aborted(AbortKind::GuardRail),
        finished(VerdictWord::Fail, &["web missed its objective of 10s", "and more"]),
        Body::ReportSealed { model: "1".into(), digest: String::new() },
        contact(false),
    ];
    let told = told_of("run/r1", bodies);
    let run = "run r1 of kill-web in production";
    let (lost, back) = ("went out of contact during", "is in contact again during");
    assert_eq!(
        said(&told),
        [
            ("run.started", format!("{run} started by admin").as_str()),
            ("host.lost", format!("host web-1 {lost} {run}").as_str()),
            ("host.back", format!("host web-1 {back} {run}").as_str()),
            ("undo.failed", format!("{run}: slow on web-1 could not be undone yet: step 2: device busy").as_str()),
            ("undo.done", format!("{run}: slow on web-1 is undone after all").as_str()),
            ("run.aborted", format!("{run} is being ended: web-up failed for 2m").as_str()),
            ("run.finished", format!("{run}: fail: web missed its objective of 10s").as_str()),
        ]
    );
    assert_eq!((told[0].id.as_str(), told[6].id.as_str()), ("run/r1/1", "run/r1/8"));
    assert!(told.iter().all(|notice| notice.environment == "production" && notice.subject == "run/r1"));
    assert_eq!(told[6].value("reason"), "web missed its objective of 10s; and more");
    assert_eq!((told[6].severity, told[4].severity), (Severity::Error, Severity::Info));
    // What is opened is closed, by the same key.
    assert_eq!(incidents(&told[1]), [("run/r1/host/h1", Kind::HostLost, true)]);
    assert_eq!(incidents(&told[2]), [("run/r1/host/h1", Kind::HostLost, false)]);
    let undo = "run/r1/undo/slow/0/1/h1";
    assert_eq!(incidents(&told[3]), [(undo, Kind::UndoFailed, true)]);
    assert_eq!(incidents(&told[4]), [(undo, Kind::UndoFailed, false)]);
    assert_eq!(incidents(&told[5]), [("run/r1", Kind::RunAborted, true)]);
    let series = "experiment/production/kill-web";
    assert_eq!(incidents(&told[6]), [("run/r1", Kind::RunAborted, false), (series, Kind::RunFinished, true)]);
}

/// A run whose only entry asks something.
fn asking() -> Vec<Body> {
    let text = "apiVersion: fracas/v1\nkind: Experiment\nname: ask\ntimeline:\n  - { id: ready, at: 0s, approval: { question: \
                Is on-call ready?, deadline: 30m, otherwise: skip } }\n";
    let (none, catalogue) = (BTreeMap::new(), fracas_model::catalogue::Catalogue::default());
    let read = fracas_model::document::read("x", text, &none, &none, &catalogue).unwrap();
    let mut begins = planned("prod");
    if let Body::Planned { document, .. } = &mut begins {
        *document = read.canonical;
    }
    vec![begins, Body::EntryStarted { entry: "ready".into(), occurrence: 0, generation: 1, at: stamp(2) }]
}

fn answered(go: bool) -> Body {
    Body::Decided { entry: "ready".into(), go, by: "p-1".into(), note: "all here".into(), at: stamp(3) }
}

#[test]
fn a_question_is_told_until_it_is_answered() {
    let (entry, at) = (EntryId::from("ready"), stamp(2));
    let other = Body::EntryStarted { entry: "else".into(), occurrence: 0, generation: 1, at };
    let ended = Body::EntryEnded { entry: entry.clone(), at: stamp(3) };
    let failed = Body::EntryFailed { entry: entry.clone(), why: "nobody decided within 30m".into(), at: stamp(9) };
    let told = |bodies: &[Body]| told_of("run/r1", [asking().as_slice(), bodies].concat());
    let (run, key) = ("run r1 of ask in prod", "run/r1/decision/ready");

    let well = told(&[other, answered(true), ended]);
    assert_eq!(
        said(&well)[1..],
        [
            (
                "decision.wanted",
                format!("{run} asks, until 2026-11-24T03:15:02.000Z: ready: Is on-call ready?").as_str()
            ),
            ("decision.made", format!("{run}: ready: go by p-1: all here").as_str()),
        ]
    );
    assert_eq!(incidents(&well[1]), [(key, Kind::DecisionWanted, true)]);
    assert_eq!(incidents(&well[2]), [(key, Kind::DecisionWanted, false)]);
    assert_eq!((well[1].value("entry").as_str(), well[2].value("by").as_str()), ("ready", "p-1"));
    // A no is one notice, though the entry fails by it; so is silence.
    assert_eq!(said(&told(&[answered(false), failed.clone()]))[2].1, format!("{run}: ready: no-go by p-1: all here"));
    assert_eq!(told(&[answered(false), failed.clone()]).len(), 3);
    assert_eq!(
        said(&told(&[failed]))[2],
        ("decision.made", format!("{run}: ready: nobody decided within 30m").as_str())
    );
    // The end of the run is that of the question.
    let stopped = told(&[aborted(AbortKind::Stop)]);
    assert_eq!(incidents(&stopped[2]), [(key, Kind::DecisionWanted, false)]);
    let over = told(&[finished(VerdictWord::Aborted, &[])]);
    assert_eq!(incidents(&over[2]), [(key, Kind::DecisionWanted, false)]);
}

#[test]
fn the_end_of_a_run_closes_what_is_open_in_it() {
    let bodies = vec![planned("default"), contact(false), undo_failed("no"), finished(VerdictWord::Pass, &[])];
    let told = told_of("run/r1", bodies);
    assert_eq!(told[3].summary, "run r1 of kill-web: pass");
    let closed: Vec<_> = incidents(&told[3]).into_iter().map(|(key, _, opens)| (key, opens)).collect();
    let undo = "run/r1/undo/slow/0/1/h1";
    assert_eq!(closed, [("run/r1/host/h1", false), (undo, false), ("experiment/default/kill-web", false)]);
}

#[test]
fn what_a_person_did_needs_no_other_person() {
    for why in [AbortKind::Stop, AbortKind::Halt, AbortKind::Gate] {
        let told = told_of("run/r1", vec![planned("default"), aborted(why), finished(VerdictWord::Aborted, &[])]);
        assert_eq!(told.iter().map(|notice| notice.incidents.len()).collect::<Vec<_>>(), [0, 0, 0], "{why:?}");
    }
}

#[test]
fn a_restart_of_the_controller_loses_no_host() {
    let mut known = Known::default();
    let at_once = |seq, body| Event { received: stamp(50), ..event("run/r1", seq, body) };
    known.take(&event("run/r1", 1, planned("default")));
    assert_eq!(known.take(&at_once(2, Body::Resumed { at: stamp(50) })), None);
    assert_eq!(known.take(&at_once(3, contact(false))), None);
    assert_eq!(known.take(&event("run/r1", 60, contact(true))), None);
    // From then on it can be lost as before, and what was taken already is no news.
    assert_eq!(known.take(&event("run/r1", 61, contact(false))).unwrap().kind, Kind::HostLost);
    assert_eq!(known.take(&event("run/r1", 61, contact(false))), None);
}

#[test]
fn a_failure_to_undo_is_told_once_until_it_is_undone_and_an_undo_only_after_one() {
    let bodies =
        vec![planned("default"), undone(), undo_failed("a"), undo_failed("b"), undone(), undo_failed("c"), undone()];
    let told = told_of("run/r1", bodies);
    let kinds: Vec<Kind> = told.iter().skip(1).map(|notice| notice.kind).collect();
    assert_eq!(kinds, [Kind::UndoFailed, Kind::UndoDone, Kind::UndoFailed, Kind::UndoDone]);
    assert_eq!((told[1].value("reason").as_str(), told[3].value("reason").as_str()), ("a", "c"));
}

#[test]
fn a_quarantine_and_its_end() {
    let enrolled = Body::HostEnrolled {
        host: "h1".into(),
        name: "web-1".into(),
        labels: BTreeMap::new(),
        serial: String::new(),
        at: stamp(1),
    };
    let quarantined = Body::HostQuarantined { run: "r1".into(), at: stamp(1) };
    let released = Body::HostReleased { why: "it reported that it is clean".into(), at: stamp(1) };
    let told = told_of("host/h1", vec![enrolled, quarantined.clone(), released]);
    assert_eq!(
        said(&told),
        [
            ("host.quarantined", "host web-1 is quarantined: run r1 was left unconfirmed on it"),
            ("host.released", "host web-1 is not quarantined any more: it reported that it is clean"),
        ]
    );
    assert_eq!(told[0].severity, Severity::Critical);
    assert_eq!(incidents(&told[0]), [("host/h1", Kind::HostQuarantined, true)]);
    assert_eq!(incidents(&told[1]), [("host/h1", Kind::HostQuarantined, false)]);
    // A controller that begins late must look back for the name.
    let mut known = Known::default();
    let late = event("host/h1", 7, quarantined);
    assert!(known.lacks(&late));
    assert_eq!(known.take(&late).unwrap().value("host"), "h1");
}

#[test]
fn a_halt_and_its_end() {
    let halted = Body::Halted { by: "admin".into(), reason: "real incident".into(), at: stamp(1) };
    let cleared = Body::HaltCleared { by: "admin".into(), reason: "over".into(), at: stamp(1) };
    let told = told_of("audit/c", vec![halted, cleared]);
    let words = [
        ("halt.set", "everything is halted by admin: real incident"),
        ("halt.cleared", "the halt is cleared by admin: over"),
    ];
    assert_eq!(said(&told), words);
    assert_eq!(incidents(&told[0]), [("halt", Kind::HaltSet, true)]);
    assert_eq!(incidents(&told[1]), [("halt", Kind::HaltSet, false)]);
}

const SCHEDULE: &str =
    "apiVersion: fracas/v1\nkind: Schedule\nname: nightly\nexperiment: e.yaml\nwhen: { cron: '0 2 * * *' }\n";

fn set() -> Fact {
    let schedule = fracas_model::schedule::read_schedule("s.yaml", SCHEDULE).unwrap().schedule;
    Fact::Set {
        calendars: std::collections::BTreeMap::new(),
        files: std::collections::BTreeMap::new(),
        schedule: Box::new(schedule),
        source: SCHEDULE.into(),
        experiment: String::new(),
        environment: "staging".into(),
        by: "admin".into(),
    }
}

fn scheduled(facts: Vec<Fact>) -> Vec<Notice> {
    told_of("schedule/nightly", facts.into_iter().map(|fact| Body::Schedule { fact, at: stamp(1) }).collect())
}

fn skipped(count: u64, reason: Skip) -> Fact {
    let due = |n: i64| Due { nominal_ns: START + n * 86_400_000_000_000, at_ns: START + n * 86_400_000_000_000 };
    Fact::Skipped { from: due(0), to: due(count as i64 - 1), count, reason }
}

#[test]
fn a_schedule_that_cannot_start_is_told_from_one_that_may_not() {
    let due = Due { nominal_ns: START, at_ns: START };
    let told = scheduled(vec![
        set(),
        skipped(1, Skip::Refused { reasons: vec!["no host matches role=db".into()] }),
        skipped(3, Skip::Missed),
        skipped(1, Skip::Blackout { name: "year-end".into() }),
        Fact::Paused { reason: "release week".into(), by: "p1".into() },
        skipped(1, Skip::Paused { reason: "release week".into() }),
        Fact::Resumed { by: "p1".into() },
        Fact::Queued { due, reason: "busy".into() },
        Fact::Started { due, run: "r7".into() },
        Fact::Removed { reason: "enough".into(), by: "p1".into() },
    ]);
    let at = "2026-11-24T02:45:00.000Z";
    assert_eq!(
        said(&told),
        [
            ("schedule.skipped", format!("schedule nightly skipped {at}: refused: no host matches role=db").as_str()),
            (
                "schedule.skipped",
                format!(
                    "schedule nightly skipped 3 times, {at} to 2026-11-26T02:45:00.000Z: nobody was there to start it \
                     in time"
                )
                .as_str()
            ),
            ("schedule.withheld", format!("schedule nightly skipped {at}: in a blackout: year-end").as_str()),
            ("schedule.paused", "schedule nightly is paused by p1: release week"),
            ("schedule.withheld", format!("schedule nightly skipped {at}: paused: release week").as_str()),
            ("schedule.resumed", "schedule nightly goes on, by p1"),
            ("schedule.started", format!("schedule nightly: run r7 started for {at}").as_str()),
        ]
    );
    assert!(told.iter().all(|notice| notice.environment == "staging"));
    assert_eq!(incidents(&told[0]), [("schedule/nightly", Kind::ScheduleSkipped, true)]);
    assert_eq!(incidents(&told[6]), [("schedule/nightly", Kind::ScheduleSkipped, false)]);
    assert!(told[2..6].iter().all(|notice| notice.incidents.is_empty()));
}

#[test]
fn foreign_text_is_one_short_line() {
    let halted = |reason: &str| Body::Halted { by: "admin".into(), reason: reason.into(), at: stamp(1) };
    let told = told_of("audit/c", vec![halted("a\r\nBcc: everybody\u{7}"), halted(&"ß".repeat(100_000))]);
    assert_eq!(told[0].summary, "everything is halted by admin: a  Bcc: everybody");
    assert_eq!(told[0].value("reason"), "a  Bcc: everybody");
    let long = ItemKey { entry: "e\n".repeat(10_000).as_str().into(), ..item() };
    let failed = Body::UndoFailed { item: long, failures: vec!["x\ty".into(); 30], at: stamp(1) };
    let undo = told_of("run/r1", vec![planned("default"), failed]).remove(1);
    assert!(undo.value("entry").chars().count() <= LONGEST && !undo.value("entry").contains('\n'));
    assert!(undo.value("reason").ends_with("x y; and 20 more"), "{}", undo.value("reason"));
    assert_eq!(told[1].summary.chars().count(), LONGEST_SUMMARY);
    assert_eq!(told[1].value("reason").chars().count(), LONGEST);
}

#[test]
fn what_concerns_whom() {
    let interest = |on: &[Kind], environments: &[&str], incidents| Interest {
        on: on.to_vec(),
        environments: environments.iter().map(|e| (*e).to_owned()).collect(),
        incidents,
    };
    let told = told_of("run/r1", vec![planned("production"), aborted(AbortKind::GuardRail)]);
    let aborted = &told[1];
    assert!(aborted.concerns(&interest(&[Kind::RunAborted], &[], false)));
    assert!(aborted.concerns(&interest(&[Kind::RunAborted], &["staging", "production"], false)));
    assert!(!aborted.concerns(&interest(&[Kind::RunAborted], &["staging"], false)));
    assert!(!aborted.concerns(&interest(&[Kind::RunFinished], &[], false)));
    // Who is paged is told the end too, and nothing that opens nothing.
    let bodies = vec![planned("production"), aborted_by_fault(), finished(VerdictWord::Aborted, &[])];
    let told = told_of("run/r1", bodies);
    let pages: Vec<bool> = told.iter().map(|n| n.concerns(&interest(&[Kind::RunAborted], &[], true))).collect();
    assert_eq!(pages, [false, true, true]);
    // A halt concerns every environment.
    let halted = Body::Halted { by: "admin".into(), reason: "x".into(), at: stamp(1) };
    assert!(told_of("audit/c", vec![halted])[0].concerns(&interest(&[Kind::HaltSet], &["staging"], false)));
}

fn aborted_by_fault() -> Body {
    aborted(AbortKind::Fault)
}

fn certificate_used(serial: &str) -> Body {
    Body::HostCertificateUsed { serial: serial.into(), superseded: "00".into(), at: stamp(1) }
}

#[test]
fn a_certificate_is_told_of_only_if_it_was_not_renewed_in_time() {
    let low = Body::HostCertificateLow { serial: "02".into(), until_s: 1_795_488_300, at: stamp(1) };
    let told = told_of("host/h1", vec![certificate_used("02"), low, certificate_used("03"), certificate_used("04")]);
    let kinds: Vec<Kind> = told.iter().map(|notice| notice.kind).collect();
    assert_eq!(kinds, [Kind::CertificateLow, Kind::CertificateRenewed]);
    assert!(told[0].summary.contains("2026-11-24T02:45:00"), "{}", told[0].summary);
    assert_eq!(incidents(&told[1]), [("host/h1/certificate", Kind::CertificateLow, false)]);
}

#[test]
fn a_template_can_name_every_field_of_every_notice() {
    let run = vec![
        planned("default"),
        contact(false),
        contact(true),
        undo_failed("a"),
        undone(),
        aborted(AbortKind::Fault),
        finished(VerdictWord::Fail, &["x"]),
    ];
    let host = vec![
        Body::HostQuarantined { run: "r1".into(), at: stamp(1) },
        Body::HostReleased { why: "w".into(), at: stamp(1) },
        certificate_used("01"),
        Body::HostCertificateLow { serial: "01".into(), until_s: 1_795_000_000, at: stamp(1) },
        certificate_used("02"),
        Body::HostDuplicated { why: "w".into(), at: stamp(1) },
        Body::HostTrusted { by: "a".into(), reason: "r".into(), at: stamp(1) },
        Body::HostRevoked { by: "a".into(), reason: "r".into(), at: stamp(1) },
    ];
    let audit = vec![
        Body::Halted { by: "a".into(), reason: "r".into(), at: stamp(1) },
        Body::HaltCleared { by: "a".into(), reason: "r".into(), at: stamp(1) },
    ];
    let due = Due { nominal_ns: START, at_ns: START };
    let schedule = scheduled(vec![
        set(),
        Fact::Started { due, run: "r".into() },
        skipped(1, Skip::Missed),
        skipped(1, Skip::NotAllowedThen),
        Fact::Paused { reason: "r".into(), by: "b".into() },
        Fact::Resumed { by: "b".into() },
    ]);
    let asked = [asking(), vec![answered(true)]].concat();
    let mut all = [
        told_of("run/r1", run),
        told_of("run/r1", asked),
        told_of("host/h", host),
        told_of("audit/c", audit),
        schedule,
    ]
    .concat();
    let kinds: BTreeSet<Kind> = all.iter().map(|notice| notice.kind).collect();
    assert_eq!(kinds, Kind::ALL.into_iter().collect(), "every kind is here");
    all.push(Notice::test("test/1".into(), stamp(1), "ops", "admin"));
    let fields: BTreeSet<&str> = all.iter().flat_map(|notice| &notice.fields).map(|(name, _)| *name).collect();
    let fixed = ["id", "event", "time", "severity", "summary", "environment"];
    let known: BTreeSet<&str> = fields.iter().copied().chain(fixed).collect();
    assert_eq!(known, PLACEHOLDERS.into_iter().collect(), "no place without a field, no field without a place");
    for notice in &all {
        assert!(notice.details().starts_with(&format!("event: {}\ntime: ", notice.kind)));
        assert_eq!(notice.data()["summary"], notice.summary);
    }
}
