//! Facts of whole lives, told one by one: what they count for, and that states of runs are those of the run machine.

use fracas_model::{
    catalogue::{Catalogue, FaultInfo, Nature},
    document::read_experiment,
    event::{AbortKind, Origin},
    id::HostId,
    plan::{Check, Plan, Refusal},
    run::Run,
    schedule::Due,
    time::{ClockId, Stamp},
};
use prometheus_client::encoding::text::encode;

use super::*;

const DOCUMENT: &str = "apiVersion: fracas/v1
kind: Experiment
name: x
targets: { db: { select: role=db } }
timeline: [{ id: slow, at: 0s, for: 10s, target: db, fault: { slow: {} } }]
";

fn stamp(host: &str, boot_ns: i64) -> Stamp {
    let clock = ClockId { host: host.into(), boot: "b".into() };
    Stamp { clock, boot_ns, wall_ns: boot_ns, bound_ns: 0 }
}

fn planned(at_ns: i64) -> Body {
    let fault = FaultInfo {
        name: "slow".into(),
        summary: String::new(),
        help: String::new(),
        params: vec![],
        nature: Nature::Lasting,
        needs: vec![],
        example: String::new(),
    };
    let catalogue = Catalogue { faults: vec![fault], ..Catalogue::default() };
    Body::Planned {
        files: std::collections::BTreeMap::new(),
        run: "r".into(),
        document: read_experiment("x", DOCUMENT, &BTreeMap::new(), &catalogue).unwrap().canonical,
        source: String::new(),
        source_name: String::new(),
        intent: String::new(),
        plan: String::new(),
        seed: 1,
        targets: [("db".into(), vec![HostId::from("h")])].into(),
        hosts: [(HostId::from("h"), "db-1".to_owned())].into(),
        canaries: BTreeMap::new(),
        rehearsed: vec![],
        by: "admin".into(),
        environment: "default".into(),
        at: stamp("c", at_ns),
    }
}

fn plan() -> Plan {
    Plan { steps: vec![], claims: vec![], check: Check::Gone { processes: vec![] }, summary: String::new() }
}

fn item() -> ItemKey {
    ItemKey { run: "r".into(), entry: "slow".into(), occurrence: 0, host: "h".into(), generation: 1 }
}

/// The facts of one run, each with the millisecond at which the controller received it.
fn life() -> Vec<(i64, Body)> {
    let at = |ms: i64| stamp("c", ms * 1_000_000);
    let between = |from: i64, to: i64| Between { from: stamp("h", from * 1_000_000), to: stamp("h", to * 1_000_000) };
    let cause = UndoCause::Expired;
    let entry = || EntryId::from("slow");
    vec![
        (0, planned(0)),
        (1, Body::GateStarted { at: at(1) }),
        (2, Body::GatePassed { at: at(2) }),
        (10, Body::EntryStarted { entry: entry(), occurrence: 0, generation: 1, at: at(10) }),
        (20, Body::Applying { item: item(), plan: plan(), at: stamp("h", 1) }),
        (50, Body::Active { item: item(), effective: between(700, 701) }),
        (90, Body::Undoing { item: item(), cause, at: stamp("h", 2) }),
        (99, Body::Undone { item: item(), cause, between: between(800, 804), superseded: vec![] }),
        (100, Body::EntryEnded { entry: entry(), at: at(100) }),
        (101, Body::RecoveryStarted { at: at(101) }),
        (102, Body::UndoStarted { at: at(102) }),
        (103, Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![], at: at(103) }),
    ]
}

fn event(seq: u64, stream: &str, ms: i64, body: Body) -> Event {
    let origin = body.item().map(|item| Origin { host: item.host.clone(), outbox: "o".into(), seq });
    Event { stream: stream.into(), seq, received: stamp("c", ms * 1_000_000), origin, body }
}

fn states(facts: &Facts) -> Vec<&'static str> {
    let running = facts.running(&[RunId::from("r")].into());
    running.into_iter().filter(|(_, many)| *many > 0).map(|(state, _)| state).collect()
}

fn told(facts: &Facts) -> String {
    let mut registry = Registry::default();
    facts.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|told| told == *line), "{line} is not in:\n{text}");
    }
}

#[test]
fn the_state_of_a_run_is_that_of_the_run_machine() {
    let facts = Facts::default();
    let events: Vec<Event> = (1..).zip(life()).map(|(seq, (ms, body))| event(seq, "run/r", ms, body)).collect();
    let mut run = Run::fold(&events[..1]).unwrap();
    for one in &events {
        facts.take(one);
        run.apply(one);
        let expected = Some(run.state_word()).filter(|word| *word != "finished");
        assert_eq!(states(&facts), Vec::from_iter(expected), "{:?}", one.body);
    }
    assert!(facts.lock().is_empty(), "nothing is kept of what is over");
    let abort = Body::Aborted { cause: String::new(), why: AbortKind::Stop, at: stamp("c", 0) };
    assert_eq!(state_after(&abort), None, "the undo that follows is the change");
}

#[test]
fn a_run_counts_for_its_verdict_its_fault_and_their_times() {
    let facts = Facts::default();
    for (seq, (ms, body)) in (1..).zip(life()) {
        facts.take(&event(seq, "run/r", ms, body));
    }
    says(
        &told(&facts),
        &[
            "runs_started_total 1",
            "runs_finished_total{verdict=\"pass\"} 1",
            "runs_finished_total{verdict=\"fail\"} 0",
            "runs_finished_total{verdict=\"undo_unconfirmed\"} 0",
            "fault_transitions_total{to=\"active\"} 1",
            "fault_transitions_total{to=\"undone\"} 1",
            "fault_transitions_total{to=\"failed\"} 0",
            "faults_undone_total{cause=\"expired\"} 1",
            // Both received by the controller, 10 and 50 ms.
            "fault_effect_delay_seconds_sum 0.04",
            "fault_effect_delay_seconds_bucket{le=\"0.025\"} 0",
            "fault_effect_delay_seconds_bucket{le=\"0.05\"} 1",
            // On the host's own clock.
            "fault_undo_duration_seconds_sum 0.004",
            "fault_undo_duration_seconds_count 1",
            "history_facts_total{stream=\"run\"} 12",
        ],
    );
}

#[test]
fn an_effect_whose_wish_was_not_heard_has_no_time() {
    let facts = Facts::default();
    let between = |from: i64, to: i64| Between { from: stamp("h", from), to: stamp("h", to) };
    facts.take(&event(7, "run/r", 5, Body::Active { item: item(), effective: between(1, 2) }));
    // As if the clock had run backwards, and one of two boots.
    let undone = |between| Body::Undone { item: item(), cause: UndoCause::Reboot, between, superseded: vec![] };
    facts.take(&event(8, "run/r", 6, undone(between(9, 3))));
    let other = Between { from: stamp("h", 1), to: stamp("other boot", 2) };
    facts.take(&event(9, "run/r", 7, undone(other)));
    let refused = Body::Refused { item: item(), refusal: Refusal::new("a", "b"), at: stamp("h", 1) };
    facts.take(&event(10, "run/r", 7, refused));
    says(
        &told(&facts),
        &[
            "fault_transitions_total{to=\"active\"} 1",
            "fault_transitions_total{to=\"refused\"} 1",
            "fault_effect_delay_seconds_count 0",
            "faults_undone_total{cause=\"reboot\"} 2",
            "fault_undo_duration_seconds_count 1",
            "fault_undo_duration_seconds_sum 0.0",
        ],
    );
}

#[test]
fn dues_count_by_what_became_of_them() {
    let facts = Facts::default();
    let due = |ms: i64| Due { nominal_ns: ms * 1_000_000, at_ns: ms * 1_000_000 };
    let say = |fact: Fact| {
        let body = Body::Schedule { fact, at: stamp("c", 9_000_000_000) };
        facts.take(&event(1, "schedule/secret", 9_000, body));
    };
    facts.take(&event(1, "run/r", 8_300, planned(8_300_000_000)));
    say(Fact::Started { due: due(8_000), run: "r".into() });
    // Its run is unknown, so that its record must do.
    say(Fact::Started { due: due(8_500), run: "gone".into() });
    let skipped = |count: u64, reason: Skip| Fact::Skipped { from: due(1), to: due(2), count, reason };
    say(skipped(41, Skip::Missed));
    say(skipped(1, Skip::Missed));
    say(skipped(2, Skip::Blackout { name: "secret".into() }));
    say(skipped(3, Skip::Refused { reasons: vec!["secret".into()] }));
    say(Fact::Queued { due: due(1), reason: "secret".into() });
    let text = told(&facts);
    says(
        &text,
        &[
            "schedule_dues_total{outcome=\"run\"} 2",
            "schedule_dues_total{outcome=\"missed\"} 42",
            "schedule_dues_total{outcome=\"blackout\"} 2",
            "schedule_dues_total{outcome=\"refused\"} 3",
            "schedule_dues_total{outcome=\"paused\"} 0",
            "schedule_start_delay_seconds_count 2",
            "schedule_start_delay_seconds_sum 0.8",
        ],
    );
    assert!(!text.contains("secret"));
}

#[test]
fn every_word_has_a_counter() {
    let facts = Facts::default();
    let at = stamp("c", 1);
    for verdict in [
        VerdictWord::Pass,
        VerdictWord::Fail,
        VerdictWord::Inconclusive,
        VerdictWord::Aborted,
        VerdictWord::Error,
        VerdictWord::UndoUnconfirmed,
        VerdictWord::Refused,
    ] {
        facts.take(&event(1, "run/r", 1, Body::Finished { verdict, exit_code: 0, reasons: vec![], at: at.clone() }));
    }
    assert!(facts.finished.all().all(|(_, many)| many == 1), "{:?}", facts.finished);
    let run = RunId::from("r");
    for reason in [
        Skip::Missed,
        Skip::NotAllowedThen,
        Skip::Blackout { name: String::new() },
        Skip::Paused { reason: String::new() },
        Skip::StillRunning { run: run.clone() },
        Skip::AnotherWaits,
        Skip::Replaced,
        Skip::WaitedTooLong { reason: String::new() },
        Skip::Refused { reasons: vec![] },
        Skip::Withdrawn,
    ] {
        facts.dues.one(skip_word(&reason));
    }
    facts.dues.one("run");
    assert!(facts.dues.all().all(|(_, many)| many == 1), "{:?}", facts.dues);
    for cause in [
        UndoCause::Expired,
        UndoCause::NotDesired,
        UndoCause::LeaseLost,
        UndoCause::AgentRestart,
        UndoCause::Reboot,
        UndoCause::Local,
        UndoCause::ApplyFailed,
        UndoCause::Policy,
    ] {
        facts.undone.one(cause_word(cause));
    }
    assert!(facts.undone.all().all(|(_, many)| many == 1), "{:?}", facts.undone);
    let key = item;
    for body in [
        Body::Applying { item: key(), plan: plan(), at: at.clone() },
        Body::Spent { item: key(), certain: false, effective: Between { from: at.clone(), to: at.clone() } },
        Body::Failed { item: key(), failure: String::new(), at: at.clone() },
        Body::UndoFailed { item: key(), failures: vec![], at: at.clone() },
        Body::Withdrawn { item: key(), at: at.clone() },
        Body::Unanswered { item: key(), at },
    ] {
        facts.take(&event(1, "run/r", 1, body));
    }
    let mut counted: Vec<&str> = facts.transitions.all().filter(|(_, many)| *many == 1).map(|(to, _)| to).collect();
    counted.sort_unstable();
    assert_eq!(counted, ["applying", "failed", "spent", "unanswered", "undo_failed", "withdrawn"]);
}
