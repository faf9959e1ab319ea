//! The whole fleet in simulated time: whatever goes wrong, the run ends, its history is whole, nothing is left on a
//! host, nothing is fired twice; and a seed tells the same story twice.

use std::{collections::BTreeSet, time::Duration};

use fracas_model::{event::Body, ledger::Outcome as Marked};
use fracas_sim::world::{Outcome, Trouble, play, play_day, play_ledger, play_rest, play_rollout, troubles};

/// Seeds of every test run: `FRACAS_SEEDS=N` plays so many, `FRACAS_SEED_BASE=N` begins after that one, `FRACAS_SEED=N`
/// plays that one alone.
fn seeds() -> Vec<u64> {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let base = given("FRACAS_SEED_BASE").unwrap_or(0);
    match given("FRACAS_SEED") {
        Some(seed) => vec![seed],
        None => (base + 1..=base + given("FRACAS_SEEDS").unwrap_or(24)).collect(),
    }
}

fn story(outcome: &Outcome) -> String {
    let line = |event: &fracas_model::event::Event| {
        let body = serde_json::to_string(&event.body).unwrap_or_default();
        format!("{} {} {}", event.seq, event.received.boot_ns / 1_000_000, body.chars().take(180).collect::<String>())
    };
    outcome.events.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What must be so whatever went wrong.
fn whole(seed: u64, troubles: &[(Duration, Trouble)], outcome: &Outcome) {
    let told = || format!("seed {seed}, troubles {troubles:?}\n{}", story(outcome));
    assert!(outcome.broken.is_empty(), "{:?}\n{}", outcome.broken, told());
    for (host, residue) in &outcome.residues {
        assert!(residue.is_empty(), "left on {host}: {residue}\n{}", told());
    }
    for (host, shots) in &outcome.shots {
        let distinct: BTreeSet<_> = shots.iter().collect();
        assert_eq!(distinct.len(), shots.len(), "fired twice on {host}: {shots:?}\n{}", told());
    }
    let sealed = outcome.events.iter().filter(|e| matches!(e.body, Body::ReportSealed { .. })).count();
    assert_eq!(sealed, 1, "{}", told());
    assert!(matches!(outcome.exit_code, 0 | 1 | 3..=6), "exit {}\n{}", outcome.exit_code, told());
    if troubles.is_empty() {
        assert_eq!(outcome.exit_code, 0, "{}\n{}", outcome.reason, told());
    }
    ends(outcome, &told);
}

/// Every item that was begun is told to be over, unless the run says that it does not know.
fn ends(outcome: &Outcome, told: &dyn Fn() -> String) {
    let begun: BTreeSet<_> = outcome
        .events
        .iter()
        .filter_map(|e| match &e.body {
            Body::Applying { item, .. } => Some(item.clone()),
            _ => None,
        })
        .collect();
    let over: BTreeSet<_> = outcome
        .events
        .iter()
        .filter_map(|e| match &e.body {
            Body::Undone { item, .. } | Body::Spent { item, .. } => Some(item.clone()),
            _ => None,
        })
        .collect();
    let open: Vec<_> = begun.difference(&over).collect();
    assert!(open.is_empty() || outcome.exit_code == 6, "not told to be over: {open:?}\n{}", told());
}

#[test]
fn whatever_goes_wrong_the_run_ends_and_nothing_is_left() {
    let mut verdicts = std::collections::BTreeMap::new();
    for seed in seeds() {
        let troubles = troubles(seed);
        let outcome = play(seed, &troubles);
        whole(seed, &troubles, &outcome);
        if troubles.is_empty() {
            assert_eq!(outcome.shots["db"].len(), 1, "seed {seed}\n{}", story(&outcome));
        }
        *verdicts.entry(outcome.exit_code).or_insert(0_u32) += 1;
    }
    println!("worlds by exit code: {verdicts:?}");
}

/// What every section of a day must show, and that none begins before the one before it is over and the answer is go.
fn sections(seed: u64, troubles: &[(Duration, Trouble)], outcome: &Outcome) {
    let told = || format!("seed {seed}, troubles {troubles:?}\n{}", story(outcome));
    let at = |fits: &dyn Fn(&Body) -> bool| outcome.events.iter().position(|event| fits(&event.body));
    let started = |id: &str| at(&|body| matches!(body, Body::EntryStarted { entry, .. } if entry.as_str() == id));
    if let Some(second) = started("second.kill") {
        let over = at(&|body| matches!(body, Body::EntryEnded { entry, .. } if entry.as_str() == "first:recovery"));
        let go = at(&|body| matches!(body, Body::Decided { go: true, .. }));
        assert!(over.is_some_and(|over| over < second) && go.is_some_and(|go| go < second), "{}", told());
    }
    let report = fracas_model::report::build(&outcome.events, &std::collections::BTreeMap::new());
    let codes: Vec<u8> = report.sections.iter().map(|section| section.verdict.exit_code).collect();
    assert!(!report.warnings.iter().any(|warning| warning.contains("folding the history anew")), "{}", told());
    assert!(codes.contains(&outcome.exit_code), "exit {} of {codes:?}\n{}", outcome.exit_code, told());
    if troubles.is_empty() {
        assert_eq!((outcome.shots["db"].len(), codes), (2, vec![0, 0]), "{}", told());
    }
}

#[test]
fn a_day_goes_on_where_it_was_whatever_goes_wrong() {
    let (mut verdicts, mut resumed) = (std::collections::BTreeMap::new(), 0);
    for seed in seeds() {
        // The same troubles as elsewhere, but over the whole length of the day.
        let mut troubles = troubles(seed);
        for (at, _) in &mut troubles {
            *at *= 3;
        }
        let outcome = play_day(seed, &troubles);
        whole(seed, &troubles, &outcome);
        sections(seed, &troubles, &outcome);
        resumed +=
            u32::from(outcome.exit_code == 0 && outcome.events.iter().any(|e| matches!(e.body, Body::Resumed { .. })));
        *verdicts.entry(outcome.exit_code).or_insert(0_u32) += 1;
    }
    println!("days by exit code: {verdicts:?}; passed over a death of the controller: {resumed}");
}

#[test]
fn nobody_else_suffers_before_the_canary_held_whatever_goes_wrong() {
    let (mut verdicts, mut widened) = (std::collections::BTreeMap::new(), 0);
    for seed in seeds() {
        let troubles = troubles(seed);
        let outcome = play_rollout(seed, &troubles);
        whole(seed, &troubles, &outcome);
        let told = || format!("seed {seed}, troubles {troubles:?}\n{}", story(&outcome));
        let canary = outcome.events.iter().find_map(|event| match &event.body {
            Body::Planned { canaries, .. } => canaries.get(&"slow".into()).cloned(),
            _ => None,
        });
        let (mut wide, mut suffered, mut over, mut lost) = (false, BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for event in &outcome.events {
            match &event.body {
                Body::RolloutWidened { .. } => {
                    let on = |hosts: &BTreeSet<_>| canary.iter().flatten().any(|host| hosts.contains(host));
                    assert!(!on(&over) && !on(&lost), "the canary was over or out of contact\n{}", told());
                    wide = true;
                }
                Body::HostContact { host, connected: false, .. } => drop(lost.insert(host.clone())),
                Body::HostContact { host, .. } => drop(lost.remove(host)),
                Body::Undone { item, .. } if item.entry.as_str() == "slow" => drop(over.insert(item.host.clone())),
                Body::Applying { item, .. } if item.entry.as_str() == "slow" => {
                    let first = canary.as_ref().is_some_and(|canary| canary.contains(&item.host));
                    assert!(first || wide, "{}", told());
                    suffered.insert(item.host.clone());
                }
                _ => {}
            }
        }
        assert!(!wide || !suffered.is_empty(), "{}", told());
        assert!(!troubles.is_empty() || (wide && suffered.len() == 2), "{}", told());
        widened += u32::from(wide);
        *verdicts.entry(outcome.exit_code).or_insert(0_u32) += 1;
    }
    println!("worlds by exit code: {verdicts:?}; the canary held in {widened}");
}

/// What a ledger tells, against what the database knows. Whether it told anything.
fn honest(outcome: &Outcome, told: &dyn Fn() -> String) -> bool {
    let report = fracas_model::report::build(&outcome.events, &std::collections::BTreeMap::new());
    assert!(!report.warnings.iter().any(|warning| warning.contains("folding the history anew")), "{}", told());
    let ledger = report.ledgers.first().unwrap_or_else(|| panic!("no ledger\n{}", told()));
    let opened = outcome.events.iter().any(|event| matches!(event.body, Body::LedgerOpened { .. }));
    let dropped = outcome.events.iter().any(|event| matches!(event.body, Body::LedgerDropped { .. }));
    assert!(outcome.data.made <= 1, "made again\n{}", told());
    assert!(!dropped || outcome.data.kept.is_none(), "said to be removed, and there\n{}", told());
    if opened && outcome.data.kept.is_some() {
        assert!(ledger.left.is_some(), "left behind, and not named\n{}", told());
    }
    let Some(account) = &ledger.account else {
        assert!(ledger.not_measured.is_some(), "{}", told());
        return false;
    };
    // Of what it logged as acknowledged, exactly what the kill took is lost.
    let logged = outcome.events.iter().flat_map(|event| match &event.body {
        Body::MarkersWritten { life, markers, .. } => {
            let acknowledged = markers.unpack().into_iter().filter(|marker| marker.outcome == Marked::Acknowledged);
            acknowledged.map(|marker| (*life, marker.number)).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    });
    let lost = logged.filter(|marker| outcome.data.lost.contains(marker)).count() as u64;
    assert_eq!(account.lost, lost, "{account:?} of {:?}\n{}", outcome.data, told());
    assert_eq!((account.resurrected, account.duplicated), (0, 0), "{account:?}\n{}", told());
    let Some(achieved) = account.achieved else { return false };
    for (kept_until, killed) in &outcome.data.kills {
        let truth = fracas_model::units::Dur::from_ns(killed - kept_until);
        let holds = achieved.hi.is_none_or(|hi| truth <= hi);
        // From below only of what was logged: a writer that was away has nothing to show.
        assert!(holds && (outcome.data.kills.len() > 1 || achieved.lo <= truth), "{truth} in {achieved}\n{}", told());
    }
    true
}

#[test]
fn a_ledger_tells_the_truth_whatever_goes_wrong() {
    let (mut verdicts, mut measured) = (std::collections::BTreeMap::new(), 0);
    for seed in seeds() {
        let troubles = troubles(seed);
        let outcome = play_ledger(seed, &troubles);
        whole(seed, &troubles, &outcome);
        let told = || format!("seed {seed}, troubles {troubles:?}\n{}", story(&outcome));
        let telling = honest(&outcome, &told);
        assert!(telling || !troubles.is_empty(), "{}", told());
        measured += u32::from(telling);
        *verdicts.entry(outcome.exit_code).or_insert(0_u32) += 1;
    }
    println!("worlds by exit code: {verdicts:?}; measured in {measured}");
}

/// When the only probe was told to look at which rate, on the clock of its vantage: milliseconds.
fn paces(outcome: &Outcome) -> Vec<(i64, i64)> {
    let pace = |event: &fracas_model::event::Event| match &event.body {
        Body::PaceChanged { every, at, .. } => Some((at.boot_ns, every.ns() / 1_000_000)),
        _ => None,
    };
    outcome.events.iter().filter_map(pace).collect()
}

#[test]
fn a_probe_that_rests_is_at_its_full_rate_when_it_counts_and_an_outage_is_known_as_closely() {
    for seed in seeds().into_iter().take(6) {
        // Without troubles: everything is exact.
        let outcome = play_rest(seed, &[]);
        whole(seed, &[], &outcome);
        let told = || format!("seed {seed}\n{}", story(&outcome));
        let started = outcome.events.iter().filter(|e| matches!(e.body, Body::ProbeStarted { .. })).count();
        assert_eq!(started, 1, "another rate is no other probe\n{}", told());
        assert!(!outcome.events.iter().any(|e| matches!(e.body, Body::Gap { .. })), "{}", told());
        let paces = paces(&outcome);
        let rates: Vec<i64> = paces.iter().map(|(_, every)| *every).collect();
        // At rest in the gate and the quiet time after it, between the faults, and after them until recovery is asked for.
        assert_eq!(rates, [1000, 100, 1000, 100, 1000, 100], "{}", told());

        let report = fracas_model::report::build(&outcome.events, &std::collections::BTreeMap::new());
        let probe = &report.probes[0];
        assert_eq!((probe.rested, probe.missed), (None, 0), "never at rest under fault\n{}", told());
        // The process is gone for 1.5 s, in steps of 2 ms; a look takes 3 ms, and the clocks are known within 80.
        let outage = report.services[0].outage.expect("the kill was seen");
        let (lo, hi) = (outage.lo.ns() / 1_000_000, outage.hi.expect("it came back").ns() / 1_000_000);
        assert!(lo <= 1504 && hi >= 1496, "{outage}\n{}", told());
        assert!(hi - lo <= 2 * (100 + 3 + 2), "as close as at the full rate: {outage}\n{}", told());

        // Looks between two instants: each seal holds those of about a second.
        let looks = |from: i64, to: i64| -> u32 {
            let seals = outcome.events.iter().filter_map(|event| match &event.body {
                Body::ReadingsSealed { between, ok, failed, .. } if between.s >= from && between.c <= to => {
                    Some(ok + failed)
                }
                _ => None,
            });
            seals.sum()
        };
        for pair in paces.windows(2) {
            let ((from, every), (to, _)) = (pair[0], pair[1]);
            let most = (to - from) / 1_000_000 / every + 2;
            assert!(i64::from(looks(from, to)) <= most, "from {from} every {every} ms\n{}", told());
        }
    }
}

#[test]
fn a_probe_that_rests_tells_the_truth_whatever_goes_wrong() {
    let (mut verdicts, mut wide) = (std::collections::BTreeMap::new(), 0);
    for seed in seeds() {
        // The same troubles as elsewhere, over the whole length of the run.
        let mut troubles = troubles(seed);
        for (at, _) in &mut troubles {
            *at *= 3;
        }
        let outcome = play_rest(seed, &troubles);
        whole(seed, &troubles, &outcome);
        let report = fracas_model::report::build(&outcome.events, &std::collections::BTreeMap::new());
        for episode in report.probes.iter().flat_map(|probe| &probe.episodes).filter(|e| !e.pre_existing) {
            let bounds = (episode.outage.lo.ns() / 1_000_000, episode.outage.hi.map(|hi| hi.ns() / 1_000_000));
            let told = || format!("seed {seed}, troubles {troubles:?}: {}\n{}", episode.outage, story(&outcome));
            assert!(bounds.0 <= 1504 && bounds.1.is_none_or(|hi| hi >= 1496), "{}", told());
            wide += u32::from(bounds.1.is_none_or(|hi| hi - bounds.0 > 2 * (100 + 3 + 2)));
        }
        *verdicts.entry(outcome.exit_code).or_insert(0_u32) += 1;
    }
    println!("worlds by exit code: {verdicts:?}; known less closely: {wide}");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in seeds().into_iter().take(6) {
        let troubles = troubles(seed);
        let (first, second) = (play(seed, &troubles), play(seed, &troubles));
        let (one, other) = (story(&first), story(&second));
        if let Some((line, (one, other))) = one.lines().zip(other.lines()).enumerate().find(|(_, (a, b))| a != b) {
            panic!("seed {seed}, line {line}:\n{one}\n{other}\n{troubles:?}");
        }
        assert_eq!(one.lines().count(), other.lines().count(), "seed {seed}");
        assert_eq!(first.streams, second.streams, "seed {seed}");
    }
}
