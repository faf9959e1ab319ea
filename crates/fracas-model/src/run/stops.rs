//! Whether a stop condition of the document is met, or nobody can tell any more. What follows is decided elsewhere.
//!
//! Vantages evaluate conditions with every look and tell at once (`Run::met`). What is here is the same over the
//! summaries of each second, for agents that evaluate nothing, and what no vantage can tell: that it is lost.

use super::{Run, decide::SEAL, sight::LONGEST_WHY};
use crate::{
    id::{HostId, ProbeId},
    stop::{AbortWhen, Budget, Failing, Lost, OnLoss, StopWhen},
    time::Stamp,
    units::Dur,
};

impl Run {
    /// Why the run is to stop now, if so.
    pub(super) fn stopped(&self, now: &Stamp) -> Option<String> {
        let seen = self.experiment.abort_when.iter().find_map(|rail| match rail {
            AbortWhen::Failing(one) => self.failing(one),
            AbortWhen::Budget(one) => self.over_budget(one),
            AbortWhen::Lost(_) => None,
        });
        let lost = || self.losses().find(|(at_ns, _)| *at_ns <= now.boot_ns).map(|(_, loss)| self.in_words(&loss));
        self.met.clone().or(seen).or_else(lost)
    }

    /// Takes a vantage's word that a condition is met.
    pub(super) fn stop_met(&mut self, probe: &ProbeId, host: &HostId, why: &str) {
        let mut rails = self.experiment.abort_when.iter().filter_map(AbortWhen::probe);
        let asked = rails.any(|(of, _)| of == probe) && self.vantages.get(probe).is_some_and(|all| all.contains(host));
        // What was met before the gate is looked for in the summaries once that has passed.
        if asked && self.in_force(probe.as_str()).is_some() && self.met.is_none() {
            // A host may say as much as it likes.
            let why: String = why.chars().take(LONGEST_WHY).collect();
            self.met = Some(format!("{probe} {why}, seen by {}", self.name(host)));
        }
    }

    /// When a loss that is not one yet becomes one if nothing is heard: instants of the controller's boot time.
    pub(super) fn losing(&self) -> impl Iterator<Item = i64> {
        self.losses().map(|(at_ns, _)| at_ns)
    }

    fn failing(&self, Failing { probe, failing_for, .. }: &Failing) -> Option<String> {
        let mut sights = self.sights_of(probe);
        sights.find_map(|(host, sight)| {
            let met = sight.ok == Some(false) && sight.down_for() >= *failing_for;
            let why = if sight.why.is_empty() { String::new() } else { format!(": {}", sight.why) };
            let failing = || StopWhen::failing(*failing_for, sight.down_for());
            met.then(|| format!("{probe} {}{why}, seen by {}", failing(), self.name(host)))
        })
    }

    fn over_budget(&self, Budget { probe, error_budget, .. }: &Budget) -> Option<String> {
        let most = error_budget.most(self.experiment.probes.get(probe)?.every);
        let mut sights = self.sights_of(probe);
        sights.find_map(|(host, sight)| {
            let failed = sight.failed_within(error_budget.within);
            let why = || StopWhen::spent(failed, most, error_budget.allow, error_budget.within);
            (failed > most).then(|| format!("{probe} {}, seen by {}", why(), self.name(host)))
        })
    }

    /// What was seen of a probe that is to look now, by vantage.
    fn sights_of<'a>(&'a self, probe: &'a ProbeId) -> impl Iterator<Item = (&'a HostId, &'a super::Sight)> {
        let vantages =
            self.vantages.get(probe).filter(|_| self.in_force(probe.as_str()).is_some()).into_iter().flatten();
        vantages.filter_map(|host| Some((host, self.sights.get(&(probe.clone(), host.clone()))?)))
    }

    /// Every way in which a condition cannot be evaluated any more, and every vantage that must not be lost, each with the
    /// instant from which it counts, on the controller's boot time.
    fn losses(&self) -> impl Iterator<Item = (i64, Loss<'_>)> {
        self.experiment.abort_when.iter().flat_map(move |rail| match rail {
            AbortWhen::Lost(Lost { vantage, lost_for }) => {
                let hosts = self.targets.get(vantage).filter(|_| self.in_force(vantage.as_str()).is_some());
                let lost =
                    move |host| Some((self.lost_since(host, *lost_for)?, Loss::Vantage { host, lost_for: *lost_for }));
                hosts.into_iter().flatten().filter_map(lost).collect::<Vec<_>>()
            }
            AbortWhen::Failing(Failing { probe, on_loss, .. }) | AbortWhen::Budget(Budget { probe, on_loss, .. }) => {
                let since = self.in_force(probe.as_str()).filter(|_| *on_loss == OnLoss::Abort);
                let Some(since) = since else { return Vec::new() };
                let unseen = |host| match self.lost_since(host, self.experiment.lease) {
                    Some(at_ns) => Some((at_ns, Loss::Contact { probe, host })),
                    None => Some((self.blind_at(probe, host, since)?, Loss::Word { probe, host })),
                };
                self.vantages.get(probe).into_iter().flatten().filter_map(unseen).collect()
            }
        })
    }

    /// When a host will have been out of contact for so long, if it is.
    fn lost_since(&self, host: &HostId, patience: Dur) -> Option<i64> {
        self.lost_contact.get(host).map(|lost| lost.later(patience).boot_ns)
    }

    fn in_words(&self, loss: &Loss<'_>) -> String {
        match loss {
            Loss::Vantage { host, lost_for } => format!("contact with {} was lost for {lost_for}", self.name(host)),
            Loss::Contact { probe, host } => {
                format!("{probe} cannot be seen any more: contact with its vantage {} was lost", self.name(host))
            }
            Loss::Word { probe, host } => {
                format!("{probe} cannot be seen any more: {} tells nothing of it", self.name(host))
            }
        }
    }

    /// When a probe from which nothing is heard, though its vantage is in contact, is taken for lost.
    fn blind_at(&self, probe: &ProbeId, host: &HostId, since: &Stamp) -> Option<i64> {
        let heard = self.sights.get(&(probe.clone(), host.clone())).map_or(i64::MIN, |sight| sight.heard);
        let back = self.back_in_contact.get(host).map_or(i64::MIN, |at| at.boot_ns);
        let plan = self.experiment.probes.get(probe)?;
        let patience: Dur = self.experiment.lease + plan.slowest() + plan.timeout + SEAL + SEAL;
        Some(since.boot_ns.max(heard).max(back).saturating_add(patience.ns()))
    }
}

/// What is lost.
enum Loss<'a> {
    /// A vantage that must not be lost for so long.
    Vantage { host: &'a HostId, lost_for: Dur },
    /// Contact with a vantage of a probe.
    Contact { probe: &'a ProbeId, host: &'a HostId },
    /// Any word of a probe from a vantage that is in contact.
    Word { probe: &'a ProbeId, host: &'a HostId },
}
