//! A fault that begins on a few hosts, its canary, and goes to the others once that has held: who suffers when, and when
//! it goes on. What is looked at meanwhile is seen as for any check.

use super::{
    EntryState, ItemState, Run,
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
            if self.attempts(entry).all(|(_, item)| item.closed() || item.failed.is_some()) {
                let why = "its canary never came into effect".to_owned();
                decision.append.push(held_not(entry, rollout, why, now));
            }
            return;
        };
        // A host that is silent is missed only after its lease.
        let hold_for = rollout.hold_for.max(self.experiment.lease);
        let held = effective.later(hold_for).boot_ns;
        let limit = effective.later(rollout.give_up_after.max(hold_for) + SEAL + SEAL).boot_ns;
        let why = match self.ended_early(entry) {
            Some(why) => return decision.append.push(held_not(entry, rollout, why, now)),
            None => self.unproven(entry).or_else(|| self.unsteady(rollout, effective)),
        };
        if now.boot_ns >= limit {
            let why = why.unwrap_or_else(|| "the controller was away when it was to go on".to_owned());
            decision.append.push(held_not(entry, rollout, why, now));
        } else if why.is_none() && now.boot_ns >= held {
            decision.append.push(Body::RolloutWidened { entry: entry.id.clone(), at: now.clone() });
        } else {
            decision.wait_until(if now.boot_ns < held { held } else { limit });
        }
    }

    /// The last attempt of an entry's fault on each host; without those that failed where the document does not need them.
    pub(super) fn attempts<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = (&'a ItemKey, &'a ItemState)> {
        let later = |key: &ItemKey| {
            let next = ItemKey { generation: key.generation + 1, ..key.clone() };
            self.items.contains_key(&next)
        };
        let mine = self.items.iter().filter(|(key, _)| key.entry == entry.id);
        mine.filter(move |(key, item)| !later(key) && (entry.required || item.failed.is_none()))
    }

    /// Why the fault is on the canary no more, or nobody knows: nothing is shown by what comes after that.
    fn ended_early(&self, entry: &Entry) -> Option<String> {
        self.attempts(entry).find_map(|(key, item)| {
            let host = self.name(&key.host);
            let ended = item.closed() && !item.spent;
            ended.then(|| format!("its canary on {host} ended before it had held"))
        })
    }

    /// Why the canary shows nothing yet.
    fn unproven(&self, entry: &Entry) -> Option<String> {
        self.attempts(entry).find_map(|(key, item)| {
            let what = match &item.proof {
                _ if self.lost_contact.contains_key(&key.host) => "is out of contact".to_owned(),
                Some(Proof::Verified) => return None,
                Some(Proof::Ineffective { why }) => format!("had no effect: {why}"),
                _ if !entry.required => return None,
                Some(Proof::Unverified { why }) => format!("could not be verified: {why}"),
                None => "was not verified".to_owned(),
            };
            Some(format!("its canary on {} {what}", self.name(&key.host)))
        })
    }

    /// Which probe was not well for as long as it must be.
    fn unsteady(&self, rollout: &Rollout, since: &Stamp) -> Option<String> {
        let seen = |probe: &ProbeId| {
            let vantages = self.vantages.get(probe).filter(|all| !all.is_empty());
            vantages.is_some_and(|all| all.iter().all(|host| !self.lost_contact.contains_key(host)))
        };
        let held = |probe: &&ProbeId| seen(probe) && self.held(probe, since, rollout.hold_for);
        let short = rollout.probes.iter().find(|probe| !held(probe))?;
        let (within, hold_for) = (rollout.give_up_after, rollout.hold_for);
        let up = self.worst_up(short).min(within).human();
        Some(format!("with its canary in effect {short} was up for {up} of {hold_for} within {within}"))
    }
}

fn held_not(entry: &Entry, rollout: &Rollout, why: String, now: &Stamp) -> Body {
    let at = now.clone();
    match rollout.on_failure {
        OnFailure::Continue => Body::EntryFailed { entry: entry.id.clone(), why, at },
        OnFailure::Stop => Body::Aborted { cause: format!("{}: {why}", entry.id), why: AbortKind::StopCondition, at },
    }
}
