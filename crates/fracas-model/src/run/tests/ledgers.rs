//! Ledgers in a run: opened before anything is broken, read back once all is undone, removed before the end.

use super::*;
use crate::{
    desired::LedgerWork,
    event::AbortKind,
    ledger::{Found, Marker, Markers, Outcome},
    plan::Refusal,
    report,
};

fn with_ledger(rpo: &str) -> serde_json::Value {
    let mut document = document();
    document["services"]["web"]["rpo"] = rpo.into();
    document["ledgers"] = json!({ "data": {
        "service": "web", "kind": "redis", "params": {}, "from": "edge", "every": "100ms", "timeout": "1s"
    } });
    document["timeline"].as_array_mut().unwrap().truncate(1);
    document
}

impl Script {
    fn opened(&mut self) {
        let (place, at) = ("p".to_owned(), stamp("e1", self.now));
        self.host("e1", Body::LedgerOpened { ledger: "data".into(), place, life: 7, at });
        self.settle();
    }

    fn work(&self) -> Vec<LedgerWork> {
        self.run().desired_ledgers(&"e1".into()).into_iter().map(|item| item.work).collect()
    }

    fn wrote(&mut self, acknowledged: u64) {
        let marker = |number: u64| Marker {
            number,
            look: Look { s: number as i64 * 100_000_000, c: number as i64 * 100_000_000 + 1_000_000 },
            outcome: if number <= acknowledged { Outcome::Acknowledged } else { Outcome::Failed },
        };
        let markers = Markers::pack(&(1..=acknowledged + 1).map(marker).collect::<Vec<_>>());
        let at = stamp("e1", self.now);
        self.host("e1", Body::MarkersWritten { ledger: "data".into(), life: 7, markers, why: String::new(), at });
    }

    fn read(&mut self, count: u64, last: bool) -> bool {
        let found = vec![Found { life: 7, first: 1, count, times: 1 }];
        // Writing was to end when the next marker would have been sent.
        let between = Look { s: 2_200_000_000, c: self.now };
        let at = stamp("e1", self.now);
        self.host("e1", Body::LedgerRead { ledger: "data".into(), found, last, between, at });
        self.settle()
    }

    fn dropped(&mut self) -> bool {
        let (place, at) = ("p".to_owned(), stamp("e1", self.now));
        self.host("e1", Body::LedgerDropped { ledger: "data".into(), place, at });
        self.settle()
    }

    /// Up to where the timeline is through and nothing is open any more.
    fn until_undone(&mut self) {
        self.gate_with_ledger();
        self.wrote(20);
        self.spent("kill");
        self.watched(4);
        assert!(matches!(self.run().phase, Phase::Undoing { .. }), "{:?}", self.run().phase);
    }

    fn gate_with_ledger(&mut self) {
        self.settle();
        self.edge(true);
        self.now += 2_000_000_000;
        self.seen();
        assert!(self.run().gate.is_none(), "steady, but nothing is written yet");
        self.opened();
        assert!(self.run().gate.is_some());
    }
}

#[test]
fn it_is_written_until_all_is_undone_then_read_back_then_removed() {
    let mut script = Script::of(with_ledger("5s"));
    assert!(script.run().desired_ledgers(&"e1".into()).is_empty(), "not before the run begins");
    script.until_undone();
    assert!(script.events.iter().any(|e| matches!(e.body, Body::LedgersClosed { .. })));
    assert_eq!(script.work(), [LedgerWork::Read]);
    let item = &script.run().desired_ledgers(&"e1".into())[0];
    assert!(item.made && item.place.starts_with("fracas_r_data_") && item.token.len() == 32, "{item:?}");
    assert!(script.run().desired_ledgers(&"d1".into()).is_empty(), "of nobody else");
    assert!(!script.read(19, false));
    assert_eq!(script.work(), [LedgerWork::Read], "a part is not the whole");
    assert!(!script.read(0, true));
    assert_eq!(script.work(), [LedgerWork::Drop]);
    assert!(script.dropped(), "through");
    assert!(script.work().is_empty());
    let told = report::build(&script.events, &BTreeMap::new());
    let account = told.ledgers[0].account.as_ref().unwrap();
    assert_eq!((account.acknowledged, account.lost, account.spans[0].first), (20, 1, 20));
    let point = told.services[0].recovery_point.as_ref().unwrap();
    // Survivor 19 was sent at 1.9 s, 21 failed at 2.101 s.
    assert_eq!(point.achieved.unwrap().hi, Some(Dur::from_ms(201)));
    assert!(matches!(point.judgement, report::Judgement::Met { .. }), "{point:?}");
    assert_eq!(told.ledgers[0].left, None);
}

#[test]
fn what_is_lost_beyond_the_objective_fails_the_run() {
    let mut script = Script::of(with_ledger("500ms"));
    script.until_undone();
    script.read(5, true);
    script.dropped();
    let told = report::build(&script.events, &BTreeMap::new());
    assert_eq!(told.verdict.word, crate::event::VerdictWord::Fail, "{:?}", told.verdict);
    let why = "web missed its recovery point: 15 of 20 acknowledged markers lost: between 1.40 s and 1.60 s of data, \
               objective 500ms";
    assert!(told.verdict.reasons.contains(&why.to_owned()), "{:?}", told.verdict.reasons);
    assert_eq!(told.ledgers[0].lost_at.len(), 1);
}

#[test]
fn a_service_that_does_not_come_back_is_not_read_for_ever_and_what_is_left_is_named() {
    let mut script = Script::of(with_ledger("5s"));
    script.until_undone();
    let (place, at) = ("p".to_owned(), stamp("e1", script.now));
    let trouble = Body::LedgerTroubled { ledger: "data".into(), place, why: "connection refused".into(), at };
    script.host("e1", trouble);
    assert!(!script.seconds(55));
    assert_eq!(script.work(), [LedgerWork::Read]);
    assert!(script.seconds(5));
    assert_eq!(script.work(), [LedgerWork::Read], "what was not read is not removed");
    let verdict = report::build(&script.events, &BTreeMap::new()).verdict;
    let reasons = verdict.reasons.join("; ");
    assert!(reasons.contains("web: recovery point not measured: ledger data on e1: it could not"), "{reasons}");
    let (verdict, at) = (verdict.word, stamp("c", script.now));
    script.say(Body::Finished { verdict, exit_code: 3, reasons: Vec::new(), at });
    let told = report::build(&script.events, &BTreeMap::new());
    let ledger = &told.ledgers[0];
    assert_eq!(ledger.not_measured.as_deref(), Some("it could not be read back: connection refused"));
    assert_eq!(ledger.left.as_deref(), Some("connection refused"));
}

#[test]
fn a_place_with_foreign_content_ends_the_run_before_anything_is_broken() {
    let mut script = Script::of(with_ledger("5s"));
    script.settle();
    let refusal = Refusal::new("the table p is there and is not ours", "remove it");
    let at = stamp("e1", script.now);
    script.host("e1", Body::LedgerRefused { ledger: "data".into(), refusal, at });
    // Nothing of ours is there: there is nothing to read or to remove.
    assert!(script.settle());
    let run = script.run();
    assert!(matches!(&run.aborted, Some((AbortKind::Fault, why)) if why.contains("not ours")), "{:?}", run.aborted);
    assert!(run.items.is_empty() && script.work().is_empty());
}

#[test]
fn a_ledger_that_is_not_opened_in_time_ends_the_run_at_the_gate() {
    let mut script = Script::of(with_ledger("5s"));
    script.settle();
    script.edge(true);
    for _ in 0..30 {
        script.now += 2_000_000_000;
        script.seen();
    }
    let run = script.run();
    assert!(
        matches!(&run.aborted, Some((AbortKind::Gate, why)) if why.contains("was not opened")),
        "{:?}",
        run.aborted
    );
    // It may have been made, with the word still under way: its host is asked to see to it.
    assert_eq!(script.work(), [LedgerWork::Drop]);
    let (place, at) = ("p".to_owned(), stamp("e1", script.now));
    let trouble = Body::LedgerTroubled { ledger: "data".into(), place, why: "connection refused".into(), at };
    script.host("e1", trouble);
    assert!(script.dropped());
    let told = &report::build(&script.events, &BTreeMap::new()).ledgers[0];
    assert_eq!(told.not_measured.as_deref(), Some("its place was not made: connection refused"));
    assert_eq!(told.left, None);
}

/// What is lost of a section's data can be told only of what was written before its faults.
#[test]
fn a_section_of_a_game_day_waits_for_its_own_ledger() {
    let after = |id: &str| json!({ "after": { "what": { "ended": id }, "delay": "0s" } });
    let check =
        json!({ "check": { "probes": ["a.up"], "holdFor": "2s", "giveUpAfter": "60s", "onFailure": "continue" } });
    let fault = json!({ "fault": { "fault": "k", "params": {}, "target": "db", "duration": null } });
    let document = json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "day",
        "services": { "a.web": { "rto": "30s", "rpo": "5s" } },
        "targets": { "db": { "select": "role=db" }, "edge": { "select": "role=edge" } },
        "probes": { "a.up": { "service": "a.web", "kind": "http", "params": {}, "from": "edge", "every": "100ms", "timeout": "100ms" } },
        "ledgers": { "a.data": { "service": "a.web", "kind": "redis", "params": {}, "from": "edge", "every": "100ms", "timeout": "1s" } },
        "timeline": [
            { "id": "a:steady-state", "trigger": { "at": "0s" }, "action": check },
            { "id": "a.kill", "trigger": after("a:steady-state"), "action": fault },
            { "id": "a:recovery", "trigger": after("a.kill"), "action": { "recovery": { "services": ["a.web"] } } },
        ],
        "sections": [{ "id": "a", "name": "a", "file": "a.yaml", "limits": {} }],
        "recovery": { "stableFor": "2s", "giveUpAfter": "60s" },
        "abortWhen": [], "limits": {}, "lease": "15s"
    });
    let steady = |script: &mut Script, ok: bool| {
        let (look, at) = (Look { s: script.now, c: script.now }, stamp("e1", script.now));
        script.host("e1", Body::Edge { probe: "a.up".into(), ok, before: None, after: look, why: String::new(), at });
        script.settle();
        for _ in 0..3 {
            script.now += 1_000_000_000;
            let (between, at) = (Look { s: script.now - 1_000_000_000, c: script.now }, stamp("e1", script.now));
            let (probe, digest) = ("a.up".into(), String::new());
            script.host("e1", Body::ReadingsSealed { probe, digest, between, ok: 1, failed: 0, at });
            script.settle();
        }
    };
    let opened = |script: &mut Script| {
        let (ledger, place, at) = ("a.data".into(), "p".to_owned(), stamp("e1", script.now));
        script.host("e1", Body::LedgerOpened { ledger, place, life: 7, at });
        script.settle();
    };
    let started = |script: &Script| script.run().entries[&EntryId::from("a.kill")].started.is_some();
    let mut script = Script::of(document.clone());
    script.settle();
    steady(&mut script, true);
    assert_eq!(script.work(), [LedgerWork::Write]);
    assert!(!started(&script), "nothing is written yet");
    opened(&mut script);
    assert!(started(&script));

    // The other way round it waits for its steady state.
    let mut script = Script::of(document.clone());
    script.settle();
    opened(&mut script);
    assert!(!started(&script));
    steady(&mut script, true);
    assert!(started(&script));

    let mut script = Script::of(document);
    script.settle();
    steady(&mut script, true);
    script.seconds(120);
    let failed = script.run().entries[&EntryId::from("a:steady-state")].failed.clone().unwrap_or_default();
    assert_eq!(failed, "was not met: ledger a.data on e1 was not opened within 1m: its host said nothing about it");
    assert!(!started(&script));
}
