//! A fault that begins on a few hosts, its canary, and goes to the others once that has held: who suffers when, and when
//! it goes on. What is looked at meanwhile is seen as for any check.

use super::{
    EntryState, Run,
    decide::{Decision, SEAL},
};
use crate::{
    event::{AbortKind, Body, Proof},
    experiment::{Action, Entry, OnFailure, Rollout},
    id::{EntryId, HostId, ItemKey, ProbeId, TargetId},
    time::Stamp,
};

impl Run {
    /// Whether an entry's fault is for its canary only, so far.
    pub(super) fn narrow(&self, entry: &EntryId) -> bool {
        self.canaries.contains_key(entry) && self.entries.get(entry).is_none_or(|state| state.widened.is_none())
    }

    /// The hosts on which an entry's fault is asked for, when it is asked for now.
    pub(super) fn asked_of(&self, entry: &EntryId, target: &TargetId) -> Vec<HostId> {
        let canary = self.canaries.get(entry).filter(|_| self.narrow(entry));
        canary.or_else(|| self.targets.get(target)).cloned().unwrap_or_default()
    }

    /// The canary held: the other hosts are asked too.
    pub(super) fn widen(&mut self, entry: &EntryId, at: &Stamp) {
        let Some(Action::Fault { target, .. }) = self.action(entry) else { return };
        let all = self.targets.get(target).cloned().unwrap_or_default();
        let canary = self.canaries.get(entry).cloned().unwrap_or_default();
        let state = self.entries.entry(entry.clone()).or_default();
        if state.widened.replace(at.clone()).is_some() || state.over.is_some() {
            return;
        }
        let generation = state.generation;
        for host in all.into_iter().filter(|host| !canary.contains(host)) {
            let out_of_reach = self.lost_contact.contains_key(&host);
            let key = ItemKey { run: self.id.clone(), entry: entry.clone(), occurrence: 0, host, generation };
            let item = self.items.entry(key).or_default();
            (item.asked, item.out_of_reach) = (Some(at.clone()), out_of_reach);
        }
    }

    /// What becomes of an entry that has begun on its canary only.
    pub(super) fn roll_out(&self, entry: &Entry, state: &EntryState, now: &Stamp, decision: &mut Decision) {
        let Action::Fault { rollout: Some(rollout), .. } = &entry.action else { return };
        let Some(effective) = &state.canary else {
            // Until its hosts have said all they will.
            let mut mine = self.items.iter().filter(|(key, _)| key.entry == entry.id);
            if mine.all(|(_, item)| item.closed() || item.failed.is_some()) {
                let why = "its canary never came into effect".to_owned();
                decision.append.push(held_not(entry, rollout, why, now));
            }
            return;
        };
        let held = effective.later(rollout.hold_for).boot_ns;
        let limit = effective.later(rollout.give_up_after + SEAL).boot_ns;
        let why = match (self.unproven(entry), self.unsteady(rollout, effective)) {
            (None, None) if now.boot_ns >= held => {
                return decision.append.push(Body::RolloutWidened { entry: entry.id.clone(), at: now.clone() });
            }
            (Some(why), _) => why,
            (None, short) => {
                let within = rollout.give_up_after;
                short.map_or_else(String::new, |probe| {
                    let up = self.worst_up(probe).min(within).human();
                    format!("with its canary in effect {probe} was up for {up} of {} within {within}", rollout.hold_for)
                })
            }
        };
        if now.boot_ns >= limit {
            decision.append.push(held_not(entry, rollout, why, now));
        } else {
            decision.wait_until(if now.boot_ns < held { held } else { limit });
        }
    }

    /// Why the canary shows nothing yet: of several attempts on a host the last counts.
    fn unproven(&self, entry: &Entry) -> Option<String> {
        let mine = self.items.iter().filter(|(key, _)| key.entry == entry.id);
        let generation = self.entries[&entry.id].generation;
        let last = mine.filter(|(key, item)| key.generation == generation || !item.interrupted());
        last.into_iter().find_map(|(key, item)| {
            let what = match &item.proof {
                Some(Proof::Verified) => return None,
                Some(Proof::Ineffective { why }) => format!("had no effect: {why}"),
                _ if !entry.required => return None,
                Some(Proof::Unverified { why }) => format!("could not be verified: {why}"),
                None => "was not verified".to_owned(),
            };
            Some(format!("its canary on {} {what}", self.name(&key.host)))
        })
    }

    fn unsteady<'a>(&self, rollout: &'a Rollout, since: &Stamp) -> Option<&'a ProbeId> {
        let unseen = |probe: &ProbeId| self.vantages.get(probe).is_none_or(Vec::is_empty);
        rollout.probes.iter().find(|probe| unseen(probe) || !self.held(probe, since, rollout.hold_for))
    }
}

fn held_not(entry: &Entry, rollout: &Rollout, why: String, now: &Stamp) -> Body {
    let at = now.clone();
    match rollout.on_failure {
        OnFailure::Continue => Body::EntryFailed { entry: entry.id.clone(), why, at },
        OnFailure::Stop => Body::Aborted { cause: format!("{}: {why}", entry.id), why: AbortKind::StopCondition, at },
    }
}
