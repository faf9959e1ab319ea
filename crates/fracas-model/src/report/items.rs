//! Entries and what was done for them on each host: life, asked and measured, undo.

use super::{EntryReport, ItemMoment, ItemReport, story::Item, story::Story};
use crate::{
    event::Proof,
    experiment::{Action, Entry},
    id::{ItemKey, ProbeId, ServiceId},
    units::Dur,
};

/// All entries in document order, with their items.
pub(super) fn entries(story: &Story) -> Vec<EntryReport> {
    let Some(experiment) = &story.experiment else { return Vec::new() };
    experiment.timeline.iter().map(|entry| report(story, entry)).collect()
}

fn report(story: &Story, entry: &Entry) -> EntryReport {
    let times = story.entries.get(&entry.id).cloned().unwrap_or_default();
    let (action, params, target, duration) = match &entry.action {
        Action::Fault { fault, params, target, duration, .. } => {
            let shown = params.0.iter().map(|(name, value)| match value {
                serde_json::Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            });
            (fault.clone(), shown.collect::<Vec<_>>().join(", "), Some(target.clone()), *duration)
        }
        Action::Wait { duration } => ("wait".to_owned(), String::new(), None, Some(*duration)),
        Action::Check { probes, hold_for, .. } => {
            let probes: Vec<&str> = probes.iter().map(ProbeId::as_str).collect();
            ("check".to_owned(), format!("{} ok for {hold_for}", probes.join(", ")), None, None)
        }
        Action::Approval { question, .. } => ("approval".to_owned(), question.clone(), None, None),
        Action::Recovery { services } => {
            let services: Vec<&str> = services.iter().map(ServiceId::as_str).collect();
            ("recovery".to_owned(), services.join(", "), None, None)
        }
    };
    let items = story.items.iter().filter(|(key, _)| key.entry == entry.id);
    EntryReport {
        entry: entry.id.clone(),
        action,
        params,
        target,
        duration,
        required: entry.required,
        started_ns: times.started,
        canary: story.head.canaries.get(&entry.id).cloned().unwrap_or_default(),
        widened_ns: times.widened,
        ended_ns: times.ended,
        skipped: times.skipped,
        failed: times.failed,
        answer: times.answer,
        items: items.map(|(key, item)| item_report(story, key, item)).collect(),
    }
}

fn item_report(story: &Story, key: &ItemKey, item: &Item) -> ItemReport {
    let origin = story.origin().map_or(0, |o| o.boot_ns);
    let undone = item.undone.as_ref();
    let mut trouble: Vec<String> = item.refused.iter().map(|why| format!("refused: {why}")).collect();
    trouble.extend(item.failed.iter().map(|why| format!("failed: {why}")));
    if item.unconfirmed() {
        trouble.extend(item.undo_failures.iter().map(|why| format!("not undone: {why}")));
    }
    if item.found_clean {
        trouble.push(
            "how it ended is not known: that was told to a history that is gone; the host says it is clean".into(),
        );
    }
    if item.spent == Some(false) {
        trouble.push("whether it fired is unknown: the agent died in the act".into());
    }
    ItemReport {
        host: key.host.clone(),
        occurrence: key.occurrence,
        generation: key.generation,
        summary: item.plan.as_ref().map(|p| p.summary.clone()).unwrap_or_default(),
        moments: item.moments.iter().map(|m| ItemMoment { at_ns: m.at_ns.saturating_sub(origin), ..*m }).collect(),
        one_shot: item.one_shot(),
        effective_ns: item.effective.as_ref().map(|b| story.offset_of(&b.to)),
        undone_ns: undone.map(|(_, b, _)| story.offset_of(&b.to)),
        cause: undone.map(|(cause, ..)| *cause).or(item.undoing.as_ref().map(|(cause, _)| *cause)),
        undo_took: undone.and_then(|(_, b, _)| b.to.since(&b.from).ok()).map(|d| d.max(Dur::ZERO)),
        proof: item.proof.clone(),
        measured: item.measured.clone(),
        superseded: undone.map(|(_, _, superseded)| superseded.clone()).unwrap_or_default(),
        trouble,
        unconfirmed: item.unconfirmed(),
    }
}

/// What a reader must know about the faults.
pub(super) fn warnings(story: &Story, entries: &[EntryReport]) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(story.unreadable.clone());
    for entry in entries {
        for item in &entry.items {
            let host = story.head.hosts.get(&item.host).map_or(item.host.as_str(), String::as_str);
            for thing in &item.superseded {
                warnings.push(format!("{} on {host}: found changed by others and left alone: {thing}", entry.entry));
            }
            if !entry.required && item.proof != Some(Proof::Verified) {
                warnings.push(format!("{} on {host} was not verified; the document does not require it", entry.entry));
            }
            if item.generation > 1 {
                warnings.push(format!(
                    "{} on {host} was interrupted and applied anew (attempt {})",
                    entry.entry, item.generation
                ));
            }
        }
    }
    if story.resumed > 0 {
        warnings.push(format!("the controller was restarted {} times during the run", story.resumed));
    }
    let mut lost = story.lost.clone();
    lost.sort();
    lost.dedup();
    for host in lost {
        let name = story.head.hosts.get(&host).map_or(host.as_str(), String::as_str);
        warnings.push(format!("contact with {name} was lost during the run"));
    }
    warnings
}
