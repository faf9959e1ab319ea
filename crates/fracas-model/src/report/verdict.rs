//! The verdict, from the history alone: an undo that nobody confirmed beats all, then abort, failure, doubt.

use std::collections::BTreeMap;

use super::{EntryReport, ItemReport, Judgement, SectionReport, ServiceReport, Verdict, exit_code, story::Story};
use crate::{
    event::{AbortKind, Proof, VerdictWord},
    experiment::{OnEmpty, Section},
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

impl Findings {
    fn add(&mut self, other: Self) {
        self.unconfirmed.extend(other.unconfirmed);
        self.refused.extend(other.refused);
        self.errors.extend(other.errors);
        self.aborts.extend(other.aborts);
        self.failures.extend(other.failures);
        self.doubts.extend(other.doubts);
    }

    /// The worst word with every reason, the most important first; `praise` when there is none.
    fn conclude(self, praise: impl FnOnce() -> Vec<String>) -> Verdict {
        let order = [
            (VerdictWord::UndoUnconfirmed, self.unconfirmed),
            (VerdictWord::Refused, self.refused),
            (VerdictWord::Error, self.errors),
            (VerdictWord::Aborted, self.aborts),
            (VerdictWord::Fail, self.failures),
            (VerdictWord::Inconclusive, self.doubts),
        ];
        let word = order.iter().find(|(_, why)| !why.is_empty()).map_or(VerdictWord::Pass, |(word, _)| word.clone());
        let mut reasons: Vec<String> = order.into_iter().flat_map(|(_, why)| why).collect();
        if reasons.is_empty() {
            reasons = praise();
        }
        Verdict { exit_code: exit_code(&word), word, reasons }
    }
}

/// Judges the run, as if it ended now unless it is finished: the worst of its sections, and what belongs to none.
pub(super) fn verdict(story: &Story, entries: &[EntryReport], services: &[ServiceReport]) -> Verdict {
    let parts = story.experiment.iter().flat_map(|experiment| &experiment.sections).map(Some);
    let mut found = Findings::default();
    for section in parts.chain([None]) {
        found.add(Scope::new(story, section, entries, services).findings());
    }
    if story.gate.is_none() && story.entries.is_empty() {
        found.refused.clone_from(&story.head.refused);
    }
    found.errors.extend(story.unreadable.clone());
    // What never began leaves nothing to doubt.
    if !found.refused.is_empty() {
        found.doubts.clear();
    }
    found.conclude(|| praise(&entries.iter().collect::<Vec<_>>(), &services.iter().collect::<Vec<_>>()))
}

/// Judges each section like a run.
pub(super) fn sections(story: &Story, entries: &[EntryReport], services: &[ServiceReport]) -> Vec<SectionReport> {
    let sections = story.experiment.iter().flat_map(|experiment| &experiment.sections);
    sections
        .map(|section| {
            let scope = Scope::new(story, Some(section), entries, services);
            SectionReport {
                id: section.id.clone(),
                name: section.name.clone(),
                description: section.description.clone(),
                file: section.file.clone(),
                started_ns: scope.begun(),
                ended_ns: scope.over(),
                verdict: scope.findings().conclude(|| praise(&scope.entries, &scope.services)),
            }
        })
        .collect()
}

/// What is judged together: a section, or what belongs to none; in a single experiment that is everything.
struct Scope<'a> {
    story: &'a Story,
    section: Option<&'a Section>,
    entries: Vec<&'a EntryReport>,
    services: Vec<&'a ServiceReport>,
}

impl<'a> Scope<'a> {
    fn new(
        story: &'a Story,
        section: Option<&'a Section>,
        entries: &'a [EntryReport],
        services: &'a [ServiceReport],
    ) -> Self {
        let of = |name: &str| story.experiment.as_ref().and_then(|e| Some(&e.section_of(name)?.id));
        let mine = |name: &str| of(name) == section.map(|section| &section.id);
        Self {
            story,
            section,
            entries: entries.iter().filter(|entry| mine(entry.entry.as_str())).collect(),
            services: services.iter().filter(|service| mine(service.service.as_str())).collect(),
        }
    }

    fn begun(&self) -> Option<i64> {
        self.section.and_then(|section| begun(self.story, section))
    }

    fn over(&self) -> Option<i64> {
        self.section.and_then(|section| over(self.story, section))
    }

    fn findings(&self) -> Findings {
        let mut found = Findings::default();
        for entry in &self.entries {
            judge_entry(self.story, entry, &mut found);
        }
        for service in &self.services {
            judge_service(self.story, service, &mut found);
        }
        let asked = self.entries.iter().any(|entry| entry.target.is_some());
        let applied = self.entries.iter().flat_map(|entry| &entry.items).any(|item| item.effective_ns.is_some());
        if asked && !applied {
            found.doubts.push("no fault was applied on any host".into());
        }
        let turned_down = self.end(&mut found);
        // What never began leaves nothing to doubt.
        let harmed = self.entries.iter().any(|entry| entry.target.is_some() && entry.started_ns.is_some());
        if turned_down && !harmed {
            found.doubts.clear();
        }
        found
    }

    /// Why it ended before its time; whether it was turned down: by a check, or by a person.
    fn end(&self, found: &mut Findings) -> bool {
        let mut turned_down = false;
        for entry in &self.entries {
            let Some(why) = &entry.failed else { continue };
            let text = format!("{}: {why}", entry.entry);
            // A check of the document's own is one of its judgements, that of a day only whether the section could begin.
            let judgement = entry.action == "check" || entry.target.is_some();
            if judgement && !entry.entry.as_str().contains(':') {
                found.failures.push(text);
            } else {
                found.aborts.push(text);
                turned_down = true;
            }
        }
        let Some(section) = self.section else {
            // What ends a game day belongs to the section that was under way.
            let sections = self.story.experiment.iter().flat_map(|experiment| &experiment.sections);
            let mut under_way =
                sections.filter(|one| begun(self.story, one).is_some() && over(self.story, one).is_none());
            return (under_way.next().is_none() && self.aborted(found)) || turned_down;
        };
        match (self.begun(), self.over(), &self.story.aborted) {
            (Some(_), None, Some(_)) => self.aborted(found) || turned_down,
            (None, _, Some((kind, cause))) => {
                let why = format!("{}: {cause}", abort_word(*kind));
                found.aborts.push(format!("section {} was not started: {why}", section.id));
                true
            }
            _ => turned_down,
        }
    }

    fn aborted(&self, found: &mut Findings) -> bool {
        match &self.story.aborted {
            Some((AbortKind::Fault | AbortKind::Controller, cause)) => {
                // Often it is the failure of an item in the same words.
                found.errors.retain(|known| known != cause);
                found.errors.insert(0, cause.clone());
            }
            Some((kind, cause)) => found.aborts.push(format!("{}: {cause}", abort_word(*kind))),
            None => {}
        }
        matches!(self.story.aborted, Some((AbortKind::Gate | AbortKind::NoGo, _)))
    }
}

/// When the first entry of a section started, or was passed over.
fn begun(story: &Story, section: &Section) -> Option<i64> {
    let experiment = story.experiment.as_ref()?;
    let of = |name: &str| experiment.section_of(name).is_some_and(|one| one.id == section.id);
    let mine = story.entries.iter().filter(|(id, _)| of(id.as_str()));
    mine.filter_map(|(_, times)| times.started.or(times.over)).min()
}

fn over(story: &Story, section: &Section) -> Option<i64> {
    story.entries.get(&section.last())?.over
}

/// The name of what ended a run early.
pub(super) fn abort_word(kind: AbortKind) -> &'static str {
    match kind {
        AbortKind::Gate => "steady state",
        AbortKind::GuardRail => "guard-rail",
        AbortKind::StopCondition => "stop condition",
        AbortKind::Stop => "stop",
        AbortKind::Halt => "halt",
        AbortKind::Fault => "fault",
        AbortKind::NoGo => "go/no-go",
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
        let silent: Vec<&HostId> = drawn.iter().filter(|host| !last.keys().any(|(h, _)| *h == *host)).collect();
        let narrow = !entry.canary.is_empty() && entry.widened_ns.is_none();
        let (spared, silent): (Vec<&HostId>, Vec<&HostId>) =
            silent.into_iter().partition(|host| narrow && !entry.canary.contains(host));
        if !spared.is_empty() {
            let hosts: Vec<String> = spared.into_iter().map(name).collect();
            found.doubts.push(format!("{id} was not started on {}: its canary came first", hosts.join(", ")));
        }
        found
            .doubts
            .extend(silent.into_iter().map(|host| format!("{id} on {}: the host said nothing about it", name(host))));
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
    match service.recovery_point.as_ref().map(|point| &point.judgement) {
        Some(Judgement::Missed { why }) => found.failures.push(format!("{id} missed its recovery point: {why}")),
        Some(Judgement::Inconclusive { why, .. }) => found.doubts.push(format!("{id}: {why}")),
        Some(Judgement::NotMeasured { why }) => {
            found.doubts.push(format!("{id}: recovery point not measured: {why}"));
        }
        Some(Judgement::Met { .. } | Judgement::NoObjective) | None => {}
    }
}

fn praise(entries: &[&EntryReport], services: &[&ServiceReport]) -> Vec<String> {
    let items = entries.iter().filter(|e| e.target.is_some()).map(|e| e.items.len()).sum::<usize>();
    let recovery_time = services.iter().filter_map(|s| match &s.judgement {
        Judgement::Met { why } => Some(format!("{} met its objective: {why}", s.service)),
        _ => None,
    });
    let recovery_point = services.iter().filter_map(|s| match &s.recovery_point.as_ref()?.judgement {
        Judgement::Met { why } => Some(format!("{} met its recovery point: {why}", s.service)),
        _ => None,
    });
    let mut reasons: Vec<String> = recovery_time.chain(recovery_point).collect();
    if items > 0 {
        reasons.push(format!("every required fault was verified and every undo confirmed ({items} in all)"));
    }
    if reasons.is_empty() {
        reasons.push("nothing was asked that could fail".into());
    }
    reasons
}
