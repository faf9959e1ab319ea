//! Guard-rails: how much of the fleet may suffer at once, whatever single documents say, and which runs need approval.
//!
//! Pure: the fleet and what is wanted of it are arguments. The same [`admit`] is asked when a run is planned, when it takes
//! its hosts, and while it goes on.

mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::read::{guard_rails_shape, is_guard_rails, read_guard_rails};
use crate::{
    experiment::{Action, Experiment, Rounding},
    id::{HostId, TargetId},
    plan::Refusal,
    selector::Selector,
    target::{HostView, share, suffering},
    units::{Dur, Percent},
};

/// All guard-rails of a controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardRails {
    /// How much may suffer at once.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// What needs approval.
    #[serde(default)]
    pub approvals: Vec<Rule>,
}

/// How much of a group of hosts may suffer at once, over all runs. At least one bound is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Its name, for refusals.
    pub name: String,
    /// Only hosts of these environments; none: of all.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Only hosts with these labels; empty: all.
    #[serde(default)]
    pub select: String,
    /// At most so many under fault.
    #[serde(default)]
    pub max_hosts: Option<u32>,
    /// At most this share of them under fault.
    #[serde(default)]
    pub max_percent: Option<Percent>,
    /// At least so many in contact, not quarantined and not under fault.
    #[serde(default)]
    pub min_healthy: Option<u32>,
    /// How a share becomes a number.
    #[serde(default)]
    pub rounding: Rounding,
}

/// Which runs need approval. Every condition that is set must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Its name, for refusals.
    pub name: String,
    /// In these environments; none: in all.
    #[serde(default)]
    pub environments: Vec<String>,
    /// With one of these faults, `*` at the end standing for any rest; none: with any.
    #[serde(default)]
    pub faults: Vec<String>,
    /// On more hosts than this.
    #[serde(default)]
    pub more_hosts_than: Option<u32>,
    /// With a fault that lasts longer than this.
    #[serde(default)]
    pub longer_than: Option<Dur>,
    /// So many people must approve, none of whom asked for it.
    pub count: u32,
    /// How long an approval holds.
    pub valid_for: Dur,
}

/// A group of hosts as a limit counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    all: usize,
    /// Under fault, those wanted too.
    under: usize,
    /// In contact, not quarantined, not under fault.
    healthy: usize,
    /// Names of those that are neither, with the reason.
    away: Vec<String>,
}

impl Limit {
    fn counts(&self, host: &HostView, selector: Option<&Selector>) -> bool {
        let there = self.environments.is_empty() || self.environments.contains(&host.environment);
        !host.observer && there && selector.is_none_or(|selector| selector.matches(&host.labels))
    }

    /// The group when `wants` suffer beside those that other runs have; nothing when none of `wants` is in it.
    fn counted(&self, fleet: &[HostView], wants: &BTreeSet<HostId>) -> Option<Counted> {
        // It was read once when it was set; what cannot be read counts all hosts.
        let selector = Some(&self.select).filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
        let group: Vec<&HostView> = fleet.iter().filter(|host| self.counts(host, selector.as_ref())).collect();
        if !group.iter().any(|host| wants.contains(&host.id)) {
            return None;
        }
        let mut counted = Counted { all: group.len(), ..Counted::default() };
        for host in group {
            if wants.contains(&host.id) || host.taken.is_some() {
                counted.under += 1;
            } else if host.connected && host.quarantined.is_none() {
                counted.healthy += 1;
            } else {
                let why = if host.connected { "quarantined" } else { "not in contact" };
                counted.away.push(format!("{} ({why})", host.name));
            }
        }
        Some(counted)
    }

    fn group(&self) -> String {
        let labels =
            if self.select.is_empty() { "all hosts".to_owned() } else { format!("hosts with {}", self.select) };
        match &self.environments[..] {
            [] => labels,
            environments => format!("{labels} in {}", environments.join(", ")),
        }
    }

    fn unhealthy(&self, counted: &Counted) -> Option<Refusal> {
        let least = self.min_healthy? as usize;
        if counted.healthy >= least {
            return None;
        }
        let away = if counted.away.is_empty() { String::new() } else { format!("; {}", counted.away.join(", ")) };
        Some(Refusal::new(
            format!(
                "guard-rail {}: {} of {} ({}) would be left in health, at least {least} must be{away}",
                self.name,
                counted.healthy,
                counted.all,
                self.group()
            ),
            "ask for fewer hosts, bring back those that are away, or wait for the end of other runs",
        ))
    }

    fn too_many(&self, counted: &Counted) -> Option<Refusal> {
        let by_share =
            self.max_percent.map(|percent| (share(percent, counted.all, self.rounding), percent.to_string()));
        let by_count = self.max_hosts.map(|most| (most as usize, format!("{most} hosts")));
        let (most, limit) = [by_share, by_count].into_iter().flatten().min_by_key(|(most, _)| *most)?;
        (counted.under > most).then(|| {
            Refusal::new(
                format!(
                    "guard-rail {}: {} of {} ({}) would be under fault at once, over all runs, and {limit} may be: {most}",
                    self.name,
                    counted.under,
                    counted.all,
                    self.group()
                ),
                "ask for fewer hosts, or wait for the end of other runs (`fracas runs`)",
            )
        })
    }
}

/// Whether hosts may suffer now beside those that other runs have (`taken` in `fleet`): every reason against it.
pub fn admit(rails: &GuardRails, fleet: &[HostView], wants: &BTreeSet<HostId>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for limit in &rails.limits {
        let Some(counted) = limit.counted(fleet, wants) else { continue };
        refusals.extend(limit.too_many(&counted));
        refusals.extend(limit.unhealthy(&counted));
    }
    refusals
}

/// Why a run that has these hosts must not go on: too few are left in health because others were lost meanwhile.
pub fn broken(rails: &GuardRails, fleet: &[HostView], has: &BTreeSet<HostId>) -> Option<String> {
    rails.limits.iter().find_map(|limit| {
        let refusal = limit.unhealthy(&limit.counted(fleet, has)?)?;
        Some(refusal.why.replacen("would be left", "are left", 1))
    })
}

impl Rule {
    /// Whether it asks for approval of a run of this experiment on these hosts.
    pub fn asks(&self, experiment: &Experiment, environment: &str, drawn: &BTreeMap<TargetId, Vec<HostId>>) -> bool {
        let faults: Vec<(&str, Option<Dur>)> = experiment
            .timeline
            .iter()
            .filter_map(|entry| match &entry.action {
                Action::Fault { fault, duration, .. } => Some((fault.as_str(), *duration)),
                Action::Wait { .. } | Action::Check { .. } | Action::Approval { .. } | Action::Recovery { .. } => None,
            })
            .collect();
        let named = |fault: &str| {
            let fits = |pattern: &String| match pattern.strip_suffix('*') {
                Some(start) => fault.starts_with(start),
                None => pattern == fault,
            };
            self.faults.is_empty() || self.faults.iter().any(fits)
        };
        let long = |duration: Option<Dur>| {
            self.longer_than.is_none_or(|limit| duration.is_some_and(|duration| duration > limit))
        };
        let many = |limit: u32| suffering(experiment, drawn).len() > limit as usize;
        (self.environments.is_empty() || self.environments.iter().any(|one| one == environment))
            && faults.iter().any(|(fault, duration)| named(fault) && long(*duration))
            && self.more_hosts_than.is_none_or(many)
    }
}

impl GuardRails {
    /// The rules that ask for approval of a run.
    pub fn asking(
        &self,
        experiment: &Experiment,
        environment: &str,
        drawn: &BTreeMap<TargetId, Vec<HostId>>,
    ) -> Vec<&Rule> {
        self.approvals.iter().filter(|rule| rule.asks(experiment, environment, drawn)).collect()
    }
}
