//! What a run desires of each host now: faults that are due and not closed, and its probes.

use super::{Phase, Resting, Run};
use crate::{
    desired::{FaultItem, Mode, ProbeItem},
    experiment::Action,
    id::{EntryId, HostId, ProbeId},
    stop::StopWhen,
    units::Dur,
};

impl Run {
    /// Faults this host should suffer. Empty from the moment the run turns to undoing.
    pub fn desired_faults(&self, host: &HostId) -> Vec<FaultItem> {
        if self.aborted.is_some() || !matches!(self.phase, Phase::Running) {
            return Vec::new();
        }
        let due = self.items.iter().filter(|(key, item)| key.host == *host && !item.closed() && item.failed.is_none());
        let due = due.filter(|(key, _)| self.stands(&key.entry));
        due.filter_map(|(key, _)| {
            let Some(Action::Fault { fault, params, duration, .. }) = self.action(&key.entry) else { return None };
            Some(FaultItem {
                key: key.clone(),
                mode: Mode::Apply,
                experiment: self.experiment.name.clone(),
                fault: fault.clone(),
                params: params.clone(),
                duration: *duration,
                plan_digest: self.digests.get(&(key.entry.clone(), key.host.clone())).cloned(),
            })
        })
        .collect()
    }

    /// Probes this host should run: from the gate until the run has finished; those of a section from its start to its end.
    /// Those that may rest are as [`Run::resting`] says.
    pub fn desired_probes(&self, host: &HostId, resting: &Resting) -> Vec<ProbeItem> {
        if matches!(self.phase, Phase::Planned | Phase::Finished) {
            return Vec::new();
        }
        let mine = self.experiment.probes.iter().filter(|(id, _)| self.vantages[*id].contains(host) && self.looks(id));
        mine.map(|(id, probe)| ProbeItem {
            run: self.id.clone(),
            probe: id.clone(),
            kind: probe.kind.clone(),
            params: probe.params.clone(),
            every: probe.every,
            at_rest: resting.get(id).copied(),
            timeout: probe.timeout,
            stop: self.stops_on(id, probe.every),
            until: self.experiment.recovery.give_up_after + self.experiment.lease + Dur::from_secs(60),
        })
        .collect()
    }

    /// Whether an entry is one of the document and was not taken back. A kept history may speak of any.
    pub(super) fn stands(&self, entry: &EntryId) -> bool {
        self.entries.get(entry).is_some_and(|state| state.failed.is_none())
    }

    fn stops_on(&self, probe: &ProbeId, every: Dur) -> Vec<StopWhen> {
        let mine = self.experiment.abort_when.iter().filter(|rail| rail.probe().is_some_and(|(of, _)| of == probe));
        mine.filter_map(|rail| rail.when(every)).collect()
    }

    /// Every host this run has business with.
    pub fn hosts(&self) -> Vec<HostId> {
        let mut hosts: Vec<HostId> = self.targets.values().chain(self.vantages.values()).flatten().cloned().collect();
        hosts.extend(self.ledger_hosts().cloned());
        hosts.sort();
        hosts.dedup();
        hosts
    }
}
