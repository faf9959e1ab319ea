//! When probes may look at their slower rate: while nothing is at stake. It only says what is wanted; at which rate a probe
//! really looked is its host's word.
//!
//! At stake is everything from shortly before a fault may begin until services were stable after it, whatever is to be
//! shown for a certain time meanwhile, and a service that fails by itself.

use std::collections::BTreeMap;

use super::{
    Phase, Run,
    decide::{Due, SEAL},
};
use crate::{
    experiment::{Action, AfterWhat, Entry, Probe, Trigger},
    id::{EntryId, ProbeId, ServiceId},
    time::Stamp,
    units::Dur,
};

/// Probes that may rest, each with the period that will do.
pub type Resting = BTreeMap<ProbeId, Dur>;

/// How often the timeline is gone through to foresee its entries: it may name later ones before earlier ones.
const PASSES: usize = 4;

impl Run {
    /// Which probes may rest at `now`. They are asked in time: see [`Run::decide`], which wakes for it.
    pub fn resting(&self, now: &Stamp) -> Resting {
        let mut slow = self.slow_probes().filter(|(id, _)| !self.ails(id)).peekable();
        if slow.peek().is_none() {
            return Resting::new();
        }
        let stake = self.stake_ns(now);
        let calm = |at_rest: Dur| stake.is_none_or(|at_ns| at_ns > now.later(lead(at_rest)).boot_ns);
        slow.filter(|(_, at_rest)| calm(*at_rest)).map(|(id, at_rest)| (id.clone(), at_rest)).collect()
    }

    /// When the next probe must not rest any more, as far as that is known without more being heard.
    pub(super) fn rest_ends(&self, now: &Stamp) -> Option<i64> {
        // Before the gate passes it is what is heard that brings it nearer.
        if !matches!(self.phase, Phase::Running) || self.slow_probes().next().is_none() {
            return None;
        }
        let stake = self.stake_ns(now)?;
        let ends = self.slow_probes().map(|(_, at_rest)| stake.saturating_sub(lead(at_rest).ns()));
        ends.filter(|at_ns| *at_ns > now.boot_ns).min()
    }

    fn slow_probes(&self) -> impl Iterator<Item = (&ProbeId, Dur)> {
        let slow = |probe: &Probe| probe.every_at_rest.filter(|at_rest| *at_rest > probe.every);
        self.experiment.probes.iter().filter_map(move |(id, probe)| Some((id, slow(probe)?)))
    }

    /// What it looks at fails, or its service has yet to become stable again. Before the gate that is no news.
    fn ails(&self, id: &ProbeId) -> bool {
        let service = self.experiment.probes.get(id).and_then(|probe| probe.service.as_ref());
        let failing = || {
            let mut hosts = self.vantages.get(id).into_iter().flatten();
            hosts.any(|host| self.sights.get(&(id.clone(), host.clone())).is_some_and(|sight| sight.ok == Some(false)))
        };
        self.gate.is_some() && (service.is_some_and(|service| self.fallen.contains_key(service)) || failing())
    }

    /// From when on something is at stake; `None`: nothing is known to come.
    fn stake_ns(&self, now: &Stamp) -> Option<i64> {
        match &self.phase {
            Phase::Planned | Phase::Finished => None,
            Phase::Gating { .. } => self.next_fault(now.later(self.gate_short()).boot_ns),
            Phase::Running if self.unsettled() => Some(i64::MIN),
            Phase::Running => self.next_fault(self.gate.as_ref()?.boot_ns),
            Phase::Recovering { .. } => Some(i64::MIN),
            Phase::Undoing { .. } => self.unsettled().then_some(i64::MIN),
        }
    }

    /// How much longer the gate's probes must be seen up, at least.
    fn gate_short(&self) -> Dur {
        let gate = self.experiment.steady_state.as_ref();
        let short = gate.map(|gate| gate.probes.iter().map(|id| gate.hold_for - self.worst_up(id)).max());
        short.flatten().unwrap_or_default().max(Dur::ZERO)
    }

    /// Something is under way that needs every look, or services were not seen stable since the last fault was over.
    fn unsettled(&self) -> bool {
        let mut over: Vec<(&EntryId, &Stamp)> = Vec::new();
        for entry in &self.experiment.timeline {
            let begun = self.entries.get(&entry.id).is_some_and(|state| state.started.is_some());
            match (&entry.action, self.through(&entry.id)) {
                _ if !begun => {}
                (Action::Fault { .. }, Some(at)) => over.push((&entry.id, at)),
                (Action::Fault { .. } | Action::Check { .. } | Action::Recovery { .. }, None) => return true,
                (_, _) => {}
            }
        }
        let section = |name: &str| self.experiment.section_of(name).map(|section| &section.id);
        let looked_at = |service: &&ServiceId| self.probes_of(service).any(|probe| self.looks(probe));
        self.experiment.services.keys().filter(looked_at).any(|service| {
            // In a game day a service has to do with the faults of its own section.
            let mine = section(service.as_str());
            let faults = over.iter().filter(|(entry, _)| mine.is_none() || section(entry.as_str()) == mine);
            faults.map(|(_, at)| *at).max_by_key(|at| at.boot_ns).is_some_and(|last| !self.settled(service, last))
        })
    }

    /// When the next fault may begin, if the gate passed or passes at `gate_ns`.
    fn next_fault(&self, gate_ns: i64) -> Option<i64> {
        let mut begins: BTreeMap<&EntryId, i64> = BTreeMap::new();
        let mut ends: BTreeMap<&EntryId, i64> = BTreeMap::new();
        for _ in 0..PASSES {
            let known = begins.len() + ends.len();
            for entry in &self.experiment.timeline {
                let Some(state) = self.entries.get(&entry.id) else { continue };
                if let Some(over) = &state.over {
                    ends.insert(&entry.id, over.boot_ns);
                    continue;
                }
                let started = state.started.as_ref().map(|at| at.boot_ns);
                let Some(at_ns) = started.or_else(|| self.begins(entry, gate_ns, &begins, &ends)) else { continue };
                begins.insert(&entry.id, at_ns);
                if let Action::Wait { duration } = &entry.action {
                    ends.insert(&entry.id, at_ns.saturating_add(duration.ns()));
                }
            }
            if begins.len() + ends.len() == known {
                break;
            }
        }
        let fault = |entry: &&Entry| matches!(entry.action, Action::Fault { .. });
        self.experiment.timeline.iter().filter(fault).filter_map(|entry| begins.get(&entry.id).copied()).min()
    }

    fn begins(
        &self,
        entry: &Entry,
        gate_ns: i64,
        begins: &BTreeMap<&EntryId, i64>,
        ends: &BTreeMap<&EntryId, i64>,
    ) -> Option<i64> {
        match self.due(entry) {
            Due::At(ns) => return Some(ns),
            Due::Until(..) | Due::Never(_) => return None,
            Due::Unknown => {}
        }
        match &entry.trigger {
            Trigger::At(offset) => Some(gate_ns.saturating_add(offset.ns())),
            Trigger::After { what, delay } => {
                let what = match what {
                    AfterWhat::Started(id) => begins.get(id),
                    AfterWhat::Ended(id) => ends.get(id),
                    // Everything looks at its full rate before any of these.
                    AfterWhat::Effective(_) | AfterWhat::Recovered(_) | AfterWhat::Over(_) => None,
                };
                Some(what?.saturating_add(delay.ns()))
            }
        }
    }
}

/// How long before a fault probes look at their full rate: what was seen may be told a slow period and a seal late, and
/// the order takes its time too.
fn lead(at_rest: Dur) -> Dur {
    at_rest + at_rest + SEAL
}
