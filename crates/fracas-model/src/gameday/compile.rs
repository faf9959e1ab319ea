//! From a day and its experiments to the one experiment that is run. Pure renaming and chaining; nothing is judged here.

use serde::Deserialize;

use crate::{
    experiment::{
        Action, AfterWhat, Entry, Experiment, OnFailure, OnInterrupt, Otherwise, Section, SteadyState, Trigger,
    },
    id::{DetectionId, EntryId, LedgerId, ProbeId, SectionId, ServiceId, TargetId},
    stop::AbortWhen,
    units::Dur,
};

/// A section as the day says it, with its experiment.
pub(super) struct Part {
    pub id: SectionId,
    pub file: String,
    pub wait_before: Option<Dur>,
    pub approval: Option<Approval>,
    pub on_failure: OnFailure,
    pub experiment: Experiment,
}

/// What is asked before a section begins.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    pub question: String,
    pub deadline: Dur,
    pub otherwise: Otherwise,
}

/// Puts the sections into the day, one after another.
pub(super) fn compile(mut day: Experiment, parts: Vec<Part>) -> Experiment {
    let mut before = None;
    for part in parts {
        let section = Section {
            id: part.id,
            name: part.experiment.name.clone(),
            description: part.experiment.description.clone(),
            file: part.file,
            limits: part.experiment.limits.clone(),
        };
        let within = Within(&section.id);
        let mut chain = Chain { section: &section, base: before.take(), entries: Vec::new() };
        if let Some(duration) = part.wait_before {
            chain.add("wait", Action::Wait { duration });
        }
        if let Some(Approval { question, deadline, otherwise }) = part.approval {
            chain.add("approval", Action::Approval { question, deadline, otherwise });
        }
        let gate = part.experiment.steady_state.or_else(|| {
            // What is lost can be told only of what was written before: ledgers are waited for in any case.
            let ledgers = !part.experiment.ledgers.is_empty();
            ledgers.then(|| SteadyState { probes: vec![], hold_for: Dur::ZERO, give_up_after: Dur::from_secs(60) })
        });
        if let Some(gate) = gate {
            let probes = gate.probes.iter().map(|probe| within.probe(probe)).collect();
            let (hold_for, give_up_after, on_failure) = (gate.hold_for, gate.give_up_after, part.on_failure);
            chain.add("steady-state", Action::Check { probes, hold_for, give_up_after, on_failure });
        }
        let Chain { base, mut entries, .. } = chain;
        entries.extend(part.experiment.timeline.into_iter().map(|entry| within.entry(entry, base.as_ref())));
        let others = entries.iter().map(|entry| entry.id.clone()).collect();
        let services = part.experiment.services.keys().map(|service| within.service(service)).collect();
        let end = after(Some(&AfterWhat::Over(others)), Dur::ZERO);
        entries.push(added(section.last(), end, Action::Recovery { services }));
        before = Some(AfterWhat::Over(vec![section.last()]));

        day.timeline.extend(entries);
        day.services.extend(part.experiment.services.into_iter().map(|(id, service)| (within.service(&id), service)));
        day.targets.extend(part.experiment.targets.into_iter().map(|(id, target)| (within.target(&id), target)));
        day.probes.extend(part.experiment.probes.into_iter().map(|(id, mut probe)| {
            probe.service = probe.service.map(|service| within.service(&service));
            probe.from = probe.from.map(|target| within.target(&target));
            (within.probe(&id), probe)
        }));
        day.ledgers.extend(part.experiment.ledgers.into_iter().map(|(id, mut ledger)| {
            ledger.service = within.service(&ledger.service);
            ledger.from = ledger.from.map(|target| within.target(&target));
            (LedgerId::new(within.name(id.as_str())), ledger)
        }));
        day.detections.extend(part.experiment.detections.into_iter().map(|(id, mut rule)| {
            rule.service = rule.service.map(|service| within.service(&service));
            (DetectionId::new(within.name(id.as_str())), rule)
        }));
        day.abort_when.extend(part.experiment.abort_when.into_iter().map(|mut rail| {
            within.stop(&mut rail);
            rail
        }));
        day.sections.push(section);
    }
    day
}

/// Entries that the day adds before the section's own, each after the one before.
struct Chain<'s> {
    section: &'s Section,
    /// What the next one starts after; `None`: the beginning of the day.
    base: Option<AfterWhat>,
    entries: Vec<Entry>,
}

impl Chain<'_> {
    fn add(&mut self, what: &str, action: Action) {
        let id = self.section.added(what);
        self.entries.push(added(id.clone(), after(self.base.as_ref(), Dur::ZERO), action));
        self.base = Some(AfterWhat::Ended(id));
    }
}

fn added(id: EntryId, trigger: Trigger, action: Action) -> Entry {
    Entry { id, trigger, action, required: true, on_interrupt: OnInterrupt::Fail }
}

fn after(base: Option<&AfterWhat>, delay: Dur) -> Trigger {
    base.map_or(Trigger::At(delay), |what| Trigger::After { what: what.clone(), delay })
}

/// Gives the names of a section's document their place in the day.
struct Within<'s>(&'s SectionId);

impl Within<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.0)
    }

    fn probe(&self, id: &ProbeId) -> ProbeId {
        ProbeId::new(self.name(id.as_str()))
    }

    fn service(&self, id: &ServiceId) -> ServiceId {
        ServiceId::new(self.name(id.as_str()))
    }

    fn target(&self, id: &TargetId) -> TargetId {
        TargetId::new(self.name(id.as_str()))
    }

    fn id(&self, id: &EntryId) -> EntryId {
        EntryId::new(self.name(id.as_str()))
    }

    /// Offsets from the steady state count from the end of what the day put before the section's timeline.
    fn entry(&self, mut entry: Entry, base: Option<&AfterWhat>) -> Entry {
        entry.id = self.id(&entry.id);
        entry.trigger = match entry.trigger {
            Trigger::At(offset) => after(base, offset),
            Trigger::After { what, delay } => Trigger::After { what: self.what(what), delay },
        };
        match &mut entry.action {
            Action::Fault { target, rollout, .. } => {
                *target = self.target(target);
                let probes = rollout.iter_mut().flat_map(|rollout| &mut rollout.probes);
                probes.for_each(|probe| *probe = self.probe(probe));
            }
            Action::Check { probes, .. } => probes.iter_mut().for_each(|probe| *probe = self.probe(probe)),
            Action::Recovery { services } => services.iter_mut().for_each(|service| *service = self.service(service)),
            Action::Wait { .. } | Action::Approval { .. } => {}
        }
        entry
    }

    fn stop(&self, rail: &mut AbortWhen) {
        match rail {
            AbortWhen::Failing(one) => one.probe = self.probe(&one.probe),
            AbortWhen::Budget(one) => one.probe = self.probe(&one.probe),
            AbortWhen::Lost(one) => one.vantage = self.target(&one.vantage),
        }
    }

    fn what(&self, what: AfterWhat) -> AfterWhat {
        match what {
            AfterWhat::Started(id) => AfterWhat::Started(self.id(&id)),
            AfterWhat::Effective(id) => AfterWhat::Effective(self.id(&id)),
            AfterWhat::Ended(id) => AfterWhat::Ended(self.id(&id)),
            AfterWhat::Recovered(service) => AfterWhat::Recovered(self.service(&service)),
            AfterWhat::Over(ids) => AfterWhat::Over(ids.iter().map(|id| self.id(id)).collect()),
        }
    }
}
