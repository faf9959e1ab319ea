//! The run machine: a fold of a run's history, what it decides next, and what it desires of each host.
//!
//! ```text
//! Planned -> Gating -> Running -> Recovering -> Undoing -> Finished
//!               \________\___________\____________^
//!                 abort (gate, stop condition, guard-rail, stop, halt, fault, controller)
//! ```
//! Pure: `apply` takes events, `decide` and `desired` take the instant as an argument. It never asks a clock.

mod decide;
mod desired;
mod hold;
mod ledgers;
mod rest;
mod rollout;
mod sight;
mod stops;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::{
    hold::Answer,
    ledgers::{LedgerState, Ledgers},
    rest::Resting,
    sight::Sight,
};
use crate::{
    event::{AbortKind, Body, Event, Proof, UndoCause},
    experiment::{Action, Experiment},
    id::{EntryId, HostId, ItemKey, ProbeId, RunId, ServiceId, TargetId},
    time::{ClockId, ClockMap, Stamp},
};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; nothing looks or hurts yet.
    Planned,
    /// Probes look; the gate has not opened.
    Gating {
        /// Since when, on the controller's clock.
        since: Stamp,
    },
    /// The timeline runs.
    Running,
    /// The timeline is through; services are to become stable.
    Recovering {
        /// Since when.
        since: Stamp,
    },
    /// Nothing is desired; hosts confirm.
    Undoing {
        /// Since when.
        since: Stamp,
    },
    /// Over.
    Finished,
}

/// Where an entry stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryState {
    /// When its trigger fired first.
    pub started: Option<Stamp>,
    /// When every item was active or spent, by receipt at the controller.
    pub effective: Option<Stamp>,
    /// The same of its canary alone.
    pub canary: Option<Stamp>,
    /// When its canary had held.
    pub widened: Option<Stamp>,
    /// When it was over.
    pub ended: Option<Stamp>,
    /// Why it was never started.
    pub skipped: Option<String>,
    /// Why what was to come after it is skipped: its check was not met, or its question not answered with go.
    pub failed: Option<String>,
    /// When it ended, was skipped or failed.
    pub over: Option<Stamp>,
    /// How its question was answered.
    pub answer: Option<Answer>,
    /// Highest generation asked for.
    pub generation: u32,
}

/// Where an item stands, as its host last said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemState {
    /// When it was asked for.
    pub asked: Option<Stamp>,
    /// Its host was out of contact when it was asked for, and has been since.
    pub out_of_reach: bool,
    /// It was taken back before its host began.
    pub withdrawn: bool,
    /// Waiting for its host's word ended without one.
    pub unanswered: bool,
    /// Its host is clean; how the item ended was told to a history that is gone.
    pub found_clean: bool,
    /// The host began to change something.
    pub touched: bool,
    /// All steps were done, or the one-shot fired.
    pub effective: bool,
    /// It was a one-shot and fired.
    pub spent: bool,
    /// Refused or failed, with the reason: `refused: ...`, `failed: ...`.
    pub failed: Option<String>,
    /// Why it was undone.
    pub undone: Option<UndoCause>,
    /// The last word on its effect.
    pub proof: Option<Proof>,
}

impl ItemState {
    /// Whether nothing more will happen to it on its host.
    pub fn closed(&self) -> bool {
        self.spent
            || self.undone.is_some()
            || self.withdrawn
            || self.found_clean
            || (self.failed.is_some() && !self.touched)
    }

    /// It was asked for, and its host has not said anything about it: it may be changing things this very moment.
    pub fn silent(&self) -> bool {
        self.asked.is_some() && !self.touched && self.failed.is_none() && !self.closed() && !self.unanswered
    }

    /// Whether it ended before its time through no decision of the run, while that has decided nothing to the contrary.
    /// A controller that cannot write its history desires nothing, though the run would.
    pub fn interrupted(&self) -> bool {
        match self.undone {
            Some(
                UndoCause::NotDesired
                | UndoCause::LeaseLost
                | UndoCause::AgentRestart
                | UndoCause::Reboot
                | UndoCause::Local
                | UndoCause::Policy,
            ) => true,
            Some(UndoCause::Expired | UndoCause::ApplyFailed) | None => false,
        }
    }
}

/// A run as its history tells it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Who started it (a pseudonymous id).
    pub by: String,
    /// The document.
    pub experiment: Experiment,
    /// Hosts drawn for each target.
    pub targets: BTreeMap<TargetId, Vec<HostId>>,
    /// Names of those hosts.
    pub names: BTreeMap<HostId, String>,
    /// Hosts on which the fault of an entry begins, where that is not on all at once.
    pub canaries: BTreeMap<EntryId, Vec<HostId>>,
    /// Vantage hosts of each probe.
    pub vantages: BTreeMap<ProbeId, Vec<HostId>>,
    /// Plan digests by entry and host, as rehearsed.
    pub digests: BTreeMap<(EntryId, HostId), String>,
    /// Where it stands.
    pub phase: Phase,
    /// The controller's clock, as of the last event.
    pub clock: ClockId,
    /// When it was accepted.
    pub planned: Stamp,
    /// The controller's machine was booted anew since: what was to come at some instant cannot be told any more.
    pub rebooted: bool,
    /// Since its history was restored from a backup made at this instant (wall time), what happened after that is not in it.
    pub restored: Option<i64>,
    /// When steady state was reached: `at: 0s`.
    pub gate: Option<Stamp>,
    /// Entries.
    pub entries: BTreeMap<EntryId, EntryState>,
    /// Items.
    pub items: BTreeMap<ItemKey, ItemState>,
    /// What each probe saw from each vantage.
    pub sights: BTreeMap<(ProbeId, HostId), Sight>,
    /// What is written to tell lost data by.
    pub ledgers: Ledgers,
    /// Services that failed since they were last stable (after the gate).
    pub fallen: BTreeMap<ServiceId, Stamp>,
    /// When each service was last declared recovered.
    pub recovered: BTreeMap<ServiceId, Stamp>,
    /// Hosts out of contact, and since when.
    pub lost_contact: BTreeMap<HostId, Stamp>,
    /// Hosts that came back into contact, and when last.
    pub back_in_contact: BTreeMap<HostId, Stamp>,
    /// The last known comparison of each clock with the controller's.
    pub clock_maps: BTreeMap<ClockId, ClockMap>,
    /// Who asked for the end.
    pub stop: Option<(String, String)>,
    /// A stop condition that its vantage saw met.
    pub met: Option<String>,
    /// A guard-rail of the fleet that does not hold any more.
    pub broken: Option<String>,
    /// Why it was turned to undoing early.
    pub aborted: Option<(AbortKind, String)>,
    /// Services that were not stable in time.
    pub gave_up: bool,
    /// A probe or ledger that its host refused.
    pub refused_look: Option<String>,
    /// Last number folded.
    pub seq: u64,
}

/// A stream that does not start like a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream does not start with a readable plan: {0}")]
pub struct NotARun(String);

impl Run {
    /// Folds a whole stream. The label `observer` names the host that probes without `from` look from.
    pub fn fold(events: &[Event]) -> Result<Self, NotARun> {
        let first = events.first().ok_or_else(|| NotARun("it is empty".into()))?;
        let Body::Planned { run, document, targets, rehearsed, hosts, canaries, by, .. } = &first.body else {
            return Err(NotARun("its first event is not Planned".into()));
        };
        let experiment: Experiment =
            serde_json::from_value(document.clone()).map_err(|error| NotARun(error.to_string()))?;
        let observer = targets.get(&TargetId::from(OBSERVER)).cloned().unwrap_or_default();
        let vantages = experiment
            .probes
            .iter()
            .map(|(id, probe)| {
                let hosts = probe.from.as_ref().map_or(Some(&observer), |t| targets.get(t));
                (id.clone(), hosts.cloned().unwrap_or_default())
            })
            .collect();
        let digests =
            rehearsed.iter().map(|r| ((r.item.entry.clone(), r.item.host.clone()), r.digest.clone())).collect();
        debug_assert!(!hosts.is_empty() || targets.values().all(Vec::is_empty));
        let entries = experiment.timeline.iter().map(|e| (e.id.clone(), EntryState::default())).collect();
        let mut folded = Self {
            id: run.clone(),
            by: by.clone(),
            experiment,
            targets: targets.clone(),
            names: hosts.clone(),
            canaries: canaries.clone(),
            vantages,
            digests,
            phase: Phase::Planned,
            clock: first.received.clock.clone(),
            planned: first.received.clone(),
            rebooted: false,
            restored: None,
            gate: None,
            entries,
            items: BTreeMap::new(),
            sights: BTreeMap::new(),
            ledgers: Ledgers::default(),
            fallen: BTreeMap::new(),
            recovered: BTreeMap::new(),
            lost_contact: BTreeMap::new(),
            back_in_contact: BTreeMap::new(),
            clock_maps: BTreeMap::new(),
            stop: None,
            met: None,
            broken: None,
            aborted: None,
            gave_up: false,
            refused_look: None,
            seq: 0,
        };
        for event in events {
            folded.apply(event);
        }
        Ok(folded)
    }

    /// Takes the next event.
    pub fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        if event.received.clock != self.clock {
            self.reboot(&event.received);
        }
        match &event.body {
            Body::GateStarted { at } => {
                self.phase = Phase::Gating { since: at.clone() };
                self.ledgers.asked = true;
            }
            Body::GatePassed { at } => {
                self.gate = Some(at.clone());
                self.phase = Phase::Running;
            }
            Body::EntryStarted { entry, occurrence, generation, at } => {
                self.start_entry(entry, *occurrence, *generation, at);
            }
            Body::RolloutWidened { entry, at } => self.widen(entry, at),
            Body::EntrySkipped { entry, why, at } => {
                let state = self.entries.entry(entry.clone()).or_default();
                (state.skipped, state.over) = (Some(why.clone()), Some(at.clone()));
            }
            Body::EntryEnded { entry, at } => {
                let state = self.entries.entry(entry.clone()).or_default();
                (state.ended, state.over) = (Some(at.clone()), Some(at.clone()));
            }
            Body::EntryFailed { entry, why, at } => {
                let state = self.entries.entry(entry.clone()).or_default();
                (state.failed, state.over) = (Some(why.clone()), Some(at.clone()));
            }
            Body::Decided { entry, go, by, note, at } => self.decided(entry, *go, by, note, at),
            Body::ServiceRecovered { service, at, .. } => {
                self.fallen.remove(service);
                self.recovered.insert(service.clone(), at.clone());
            }
            Body::StopRequested { by, reason, .. } => self.stop = Some((by.clone(), reason.clone())),
            Body::GuardRailBroken { why, .. } => drop(self.broken.get_or_insert_with(|| why.clone())),
            Body::Aborted { cause, why, .. } => self.aborted = Some((*why, cause.clone())),
            Body::RecoveryStarted { at } => self.phase = Phase::Recovering { since: at.clone() },
            Body::GaveUp { .. } => self.gave_up = true,
            Body::UndoStarted { at } => self.phase = Phase::Undoing { since: at.clone() },
            Body::LedgersClosed { at } => self.ledgers.closed = Some(at.clone()),
            Body::LedgersReleased { at } => self.ledgers.released = Some(at.clone()),
            Body::HostContact { host, connected, at } => {
                if *connected {
                    self.lost_contact.remove(host);
                    self.back_in_contact.insert(host.clone(), at.clone());
                    // It may have taken the order at once.
                    self.items
                        .iter_mut()
                        .filter(|(key, _)| key.host == *host)
                        .for_each(|(_, i)| i.out_of_reach = false);
                } else {
                    self.lost_contact.entry(host.clone()).or_insert_with(|| at.clone());
                }
            }
            Body::ClockSeen { map } => {
                self.clock_maps.insert(map.from.clone(), map.clone());
            }
            Body::Restored { made_wall_ns, at } => {
                self.restored = Some(*made_wall_ns);
                self.wait_anew(at);
            }
            Body::Finished { .. } => self.phase = Phase::Finished,
            _ => self.apply_host(event),
        }
    }

    /// The controller's boot time began anew: waits begin anew with it.
    fn reboot(&mut self, at: &Stamp) {
        self.clock = at.clock.clone();
        self.rebooted = true;
        self.wait_anew(at);
    }

    fn wait_anew(&mut self, at: &Stamp) {
        if let Phase::Undoing { since } = &mut self.phase {
            since.clone_from(at);
        }
        self.ledgers.begin_anew(at);
        self.lost_contact.values_mut().for_each(|since| since.clone_from(at));
    }

    fn start_entry(&mut self, entry: &EntryId, occurrence: u32, generation: u32, at: &Stamp) {
        // A new attempt of its canary has yet to come into effect.
        let narrow = self.narrow(entry);
        let state = self.entries.entry(entry.clone()).or_default();
        state.started.get_or_insert_with(|| at.clone());
        state.generation = generation;
        state.canary = state.canary.take().filter(|_| !narrow);
        let Some(Action::Fault { target, .. }) = self.action(entry).cloned() else { return };
        for host in self.asked_of(entry, &target) {
            let key = |generation| ItemKey {
                run: self.id.clone(),
                entry: entry.clone(),
                occurrence,
                host: host.clone(),
                generation,
            };
            let again = generation == 1
                || (1..generation).rev().find_map(|g| self.items.get(&key(g))).is_some_and(ItemState::interrupted);
            if again {
                let out_of_reach = self.lost_contact.contains_key(&host);
                let item = self.items.entry(key(generation)).or_default();
                (item.asked, item.out_of_reach) = (Some(at.clone()), out_of_reach);
            }
        }
    }

    fn apply_host(&mut self, event: &Event) {
        if let Some(key) = event.body.item() {
            let state = self.items.entry(key.clone()).or_default();
            match &event.body {
                Body::Withdrawn { .. } => state.withdrawn = true,
                Body::Unanswered { .. } => state.unanswered = true,
                Body::FoundClean { .. } => state.found_clean = true,
                Body::Refused { refusal, .. } => state.failed = Some(format!("refused: {refusal}")),
                Body::Applying { .. } => state.touched = true,
                Body::Active { .. } => state.effective = true,
                Body::Checked { proof, .. } => state.proof = Some(proof.clone()),
                Body::Spent { .. } => {
                    state.spent = true;
                    state.effective = true;
                }
                Body::Undone { cause, .. } => state.undone = Some(*cause),
                Body::Failed { failure, .. } => state.failed = Some(format!("failed: {failure}")),
                _ => {}
            }
            self.note_effective(&key.entry.clone(), &event.received);
            return;
        }
        let Some(host) = event.origin.as_ref().map(|o| o.host.clone()) else { return };
        if self.apply_ledger(event, &host) {
            return;
        }
        let probe = match &event.body {
            Body::StopConditionMet { probe, why, .. } => {
                return self.stop_met(probe, &host, why);
            }
            Body::Edge { probe, .. } | Body::Gap { probe, .. } | Body::ReadingsSealed { probe, .. } => probe.clone(),
            Body::ProbeRefused { probe, refusal, .. } => {
                self.refused_look = Some(format!("probe {probe}: {refusal}"));
                return;
            }
            _ => return,
        };
        let stable = self.experiment.recovery.stable_for;
        self.sights.entry((probe.clone(), host)).or_default().see(event, stable);
        if let Body::Edge { ok: false, .. } = event.body
            && self.gate.is_some()
            && let Some(service) = self.experiment.probes.get(&probe).and_then(|p| p.service.clone())
        {
            self.fallen.entry(service).or_insert_with(|| event.received.clone());
        }
    }

    fn note_effective(&mut self, entry: &EntryId, received: &Stamp) {
        if self.narrow(entry) {
            let known = self.experiment.timeline.iter().find(|one| one.id == *entry);
            let canary: Vec<bool> =
                known.into_iter().flat_map(|one| self.attempts(one)).map(|(_, item)| item.effective).collect();
            if !canary.is_empty() && canary.into_iter().all(|effective| effective) {
                self.entries.entry(entry.clone()).or_default().canary.get_or_insert_with(|| received.clone());
            }
            return;
        }
        let mut items = self.items.iter().filter(|(key, _)| key.entry == *entry).peekable();
        if items.peek().is_some() && items.all(|(_, item)| item.effective) {
            self.entries.entry(entry.clone()).or_default().effective.get_or_insert_with(|| received.clone());
        }
    }

    pub(crate) fn action(&self, entry: &EntryId) -> Option<&Action> {
        self.experiment.timeline.iter().find(|e| e.id == *entry).map(|e| &e.action)
    }

    /// Items whose host changed something and has not confirmed its undo, or never said what it did.
    pub fn unconfirmed(&self) -> Vec<&ItemKey> {
        let open = |item: &ItemState| (item.touched && !item.closed()) || item.unanswered;
        self.items.iter().filter(|(_, item)| open(item)).map(|(key, _)| key).collect()
    }

    /// Items that were asked for and of which their hosts have said nothing.
    pub fn silent(&self) -> Vec<&ItemKey> {
        self.items.iter().filter(|(_, item)| item.silent()).map(|(key, _)| key).collect()
    }

    /// Items of a restored run whose end may have been told to the history that is gone.
    pub fn untold(&self) -> Vec<&ItemKey> {
        let restored = self.items.iter().filter(|_| self.restored.is_some());
        let open = restored.filter(|(_, item)| item.silent() || (item.touched && !item.closed()));
        open.map(|(key, _)| key).collect()
    }

    /// A word for lists: `planned`, `gating`, `running`, `recovering`, `undoing`, `finished`.
    pub fn state_word(&self) -> &'static str {
        match self.phase {
            Phase::Planned => "planned",
            Phase::Gating { .. } => "gating",
            Phase::Running => "running",
            Phase::Recovering { .. } => "recovering",
            Phase::Undoing { .. } => "undoing",
            Phase::Finished => "finished",
        }
    }
}

/// The target name under which the observer host is drawn; documents cannot use it (`@` is not in names).
pub const OBSERVER: &str = "@observer";
