//! The verdict, from the history alone: an undo that nobody confirmed beats all, then abort, failure, doubt.

use std::collections::BTreeMap;

use super::{EntryReport, ItemReport, Judgement, ServiceReport, Verdict, exit_code, story::Story};
use crate::{
    event::{AbortKind, Proof, VerdictWord},
    experiment::OnEmpty,
    id::HostId,
    units::Dur,
};

/// Reasons, sorted by the word they lead to.
#[derive(Default)]
struct Findings {
    unconfirmed: Vec<String>,
    refused: Vec<String>,
    errors: Vec<String>,
    aborts: Vec<String>,
    failures: Vec<String>,
    doubts: Vec<String>,
}

/// Judges the run, as if it ended now unless it is finished.
pub(super) fn verdict(story: &Story, entries: &[EntryReport], services: &[ServiceReport]) -> Verdict {
    let mut found = Findings::default();
    for entry in entries {
        judge_entry(story, entry, &mut found);
    }
    for service in services {
        judge_service(story, service, &mut found);
    }
    let asked = entries.iter().any(|entry| entry.target.is_some());
    let applied = entries.iter().flat_map(|entry| &entry.items).any(|item| item.effective_ns.is_some());
    if asked && !applied {
        found.doubts.push("no fault was applied on any host".into());
    }
    match &story.aborted {
        Some((AbortKind::Fault | AbortKind::Controller, cause)) => {
            // Often it is the failure of an item in the same words.
            found.errors.retain(|known| known != cause);
            found.errors.insert(0, cause.clone());
        }
        Some((kind, cause)) => found.aborts.push(format!("{}: {cause}", abort_word(*kind))),
        None => {}
    }
    if story.gate.is_none() && story.entries.is_empty() {
        found.refused.clone_from(&story.head.refused);
    }
    found.errors.extend(story.unreadable.clone());
    // What never began leaves nothing to doubt.
    if !found.refused.is_empty() || matches!(story.aborted, Some((AbortKind::Gate, _))) {
        found.doubts.clear();
    }
    let order = [
        (VerdictWord::UndoUnconfirmed, &found.unconfirmed),
        (VerdictWord::Refused, &found.refused),
        (VerdictWord::Error, &found.errors),
        (VerdictWord::Aborted, &found.aborts),
        (VerdictWord::Fail, &found.failures),
        (VerdictWord::Inconclusive, &found.doubts),
    ];
    let word = order.iter().find(|(_, why)| !why.is_empty()).map_or(VerdictWord::Pass, |(word, _)| word.clone());
    let mut reasons: Vec<String> = order.iter().flat_map(|(_, why)| why.iter().cloned()).collect();
    if reasons.is_empty() {
        reasons = praise(entries, services);
    }
    Verdict { exit_code: exit_code(&word), word, reasons }
}

/// The name of what ended a run early.
pub(super) fn abort_word(kind: AbortKind) -> &'static str {
    match kind {
        AbortKind::Gate => "steady state",
        AbortKind::GuardRail => "guard-rail",
        AbortKind::Stop => "stop",
        AbortKind::Halt => "halt",
        AbortKind::Fault => "fault",
        AbortKind::Controller => "controller",
    }
}

fn judge_entry(story: &Story, entry: &EntryReport, found: &mut Findings) {
    let name = |host: &HostId| story.head.hosts.get(host).map_or(host.to_string(), Clone::clone);
    let id = &entry.entry;
    for item in entry.items.iter().filter(|i| i.unconfirmed) {
        let why = item.trouble.last().map(|t| format!(" ({t})")).unwrap_or_default();
        found
            .unconfirmed
            .push(format!("{id} on {}: the host has not confirmed that it is clean{why}", name(&item.host)));
    }
    let Some(target) = &entry.target else { return };
    if !entry.required {
        return;
    }
    // Of several attempts the last one counts.
    let mut last: BTreeMap<(&HostId, u32), &ItemReport> = BTreeMap::new();
    for item in &entry.items {
        let known = last.entry((&item.host, item.occurrence)).or_insert(item);
        if item.generation > known.generation {
            *known = item;
        }
    }
    for item in last.values() {
        let host = name(&item.host);
        if let Some(trouble) = item.trouble.iter().find(|t| t.starts_with("refused") || t.starts_with("failed")) {
            found.errors.push(format!("{id} on {host} {trouble}"));
        } else {
            found.doubts.extend(doubt(item).map(|why| format!("{id} on {host} {why}")));
        }
    }
    let experiment = story.experiment.as_ref();
    let may_be_empty = experiment.and_then(|e| e.targets.get(target)).is_some_and(|t| t.on_empty == OnEmpty::Skip);
    let drawn = story.head.targets.get(target).map_or(&[][..], Vec::as_slice);
    if let Some(why) = &entry.skipped {
        if !(may_be_empty && drawn.is_empty()) {
            found.doubts.push(format!("{id} was not started: {why}"));
        }
    } else if entry.started_ns.is_none() {
        found.doubts.push(format!("{id} was not started"));
    } else {
        let silent = drawn.iter().filter(|host| !last.keys().any(|(h, _)| h == host));
        found.doubts.extend(silent.map(|host| format!("{id} on {}: the host said nothing about it", name(host))));
    }
}

/// Why an item's effect is not proven.
fn doubt(item: &ItemReport) -> Option<String> {
    match &item.proof {
        Some(Proof::Verified) if !item.trouble.iter().any(|t| t.starts_with("whether")) => None,
        Some(Proof::Verified) => Some("may have fired or not: its agent died in the act".into()),
        Some(Proof::Ineffective { why }) => Some(format!("had no effect: {why}")),
        Some(Proof::Unverified { why }) => Some(format!("could not be verified: {why}")),
        None => Some("was not verified".into()),
    }
}

fn judge_service(story: &Story, service: &ServiceReport, found: &mut Findings) {
    let id = &service.service;
    match &service.judgement {
        Judgement::Missed { why } => found.failures.push(format!("{id} missed its objective: {why}")),
        Judgement::Inconclusive { why, .. } => found.doubts.push(format!("{id}: {why}")),
        Judgement::NotMeasured { why } => found.doubts.push(format!("{id}: objective not measured: {why}")),
        // Without an objective there is still the promise of the document that it recovers in time.
        Judgement::NoObjective if story.gave_up.contains(id) => {
            let limit = story.experiment.as_ref().map_or(Dur::ZERO, |e| e.recovery.give_up_after);
            found.failures.push(format!("{id} was not stable again within {limit}"));
        }
        // The outage that counts was settled, and yet it was not up at the end.
        Judgement::Met { .. } if story.gave_up.contains(id) => {
            found.doubts.push(format!("{id} met its objective but was not stable when the run gave up waiting"));
        }
        Judgement::Met { .. } | Judgement::NoObjective => {}
    }
}

fn praise(entries: &[EntryReport], services: &[ServiceReport]) -> Vec<String> {
    let items = entries.iter().filter(|e| e.target.is_some()).map(|e| e.items.len()).sum::<usize>();
    let mut reasons: Vec<String> = services
        .iter()
        .filter_map(|s| match &s.judgement {
            Judgement::Met { why } => Some(format!("{} met its objective: {why}", s.service)),
            _ => None,
        })
        .collect();
    if items > 0 {
        reasons.push(format!("every required fault was verified and every undo confirmed ({items} in all)"));
    }
    if reasons.is_empty() {
        reasons.push("nothing was asked that could fail".into());
    }
    reasons
}
