//! Drawing hosts: from labels, the document's rules and a seed to the hosts of each target, or every reason why not.
//!
//! Pure: the hosts are an argument, chance comes from the seed alone. It knows nothing of faults but who suffers one.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    experiment::{Action, Experiment, Limits, OnEmpty, Pick, Rounding, Target},
    id::{EntryId, HostId, RunId, TargetId},
    plan::Refusal,
    selector::Selector,
    stop::{AbortWhen, OnLoss},
    units::Percent,
};

/// A host as far as drawing must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Its id.
    pub id: HostId,
    /// Its name, for messages.
    pub name: String,
    /// All its labels, `fact/` included.
    pub labels: BTreeMap<String, String>,
    /// Where it belongs.
    pub environment: String,
    /// Whether its agent is in contact.
    pub connected: bool,
    /// Why it gets no fault, if so.
    pub quarantined: Option<String>,
    /// Why a person wants no fault on it, if so.
    pub cordoned: Option<String>,
    /// The other run that has it for a fault, if so.
    pub taken: Option<RunId>,
    /// The controller's own observer: looks, and is never drawn.
    pub observer: bool,
}

/// Who was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drawn {
    /// Hosts of each target, by id; empty where the rule allows it.
    pub targets: BTreeMap<TargetId, Vec<HostId>>,
    /// Hosts on which the fault of an entry begins, by id; absent where it begins on all at once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub canaries: BTreeMap<EntryId, Vec<HostId>>,
    /// The host that probes without `from` look from; `None` when every probe has one.
    pub observer: Option<HostId>,
    /// Names of all of them.
    pub names: BTreeMap<HostId, String>,
    /// Remarks: hosts that match and were left out, and why.
    pub notes: Vec<String>,
}

/// The hosts that suffer a fault when these were drawn.
pub fn suffering(experiment: &Experiment, drawn: &BTreeMap<TargetId, Vec<HostId>>) -> BTreeSet<HostId> {
    let faults = experiment.timeline.iter().filter_map(|entry| match &entry.action {
        Action::Fault { target, .. } => drawn.get(target),
        Action::Wait { .. } | Action::Check { .. } | Action::Approval { .. } | Action::Recovery { .. } => None,
    });
    faults.flatten().cloned().collect()
}

/// The hosts that could be drawn for a fault, whatever stands against it now.
pub fn might_suffer(experiment: &Experiment, hosts: &[HostView]) -> BTreeSet<HostId> {
    let mut draw = Draw { experiment, hosts, drawn: Drawn::default(), refusals: Vec::new() };
    let targets = experiment.targets.iter();
    let matching = targets.map(|(id, target)| {
        let found = draw.matching(id, target);
        (id.clone(), found.into_iter().map(|host| host.id.clone()).collect())
    });
    let all: BTreeMap<TargetId, Vec<HostId>> = matching.collect();
    suffering(experiment, &all)
}

/// Draws hosts for every target. The error is every reason why the run must not start; never empty.
///
/// The same document, hosts and seed give the same draw: ChaCha8, targets in the order of their names, hosts by id.
pub fn draw(experiment: &Experiment, hosts: &[HostView], seed: u64) -> Result<Drawn, Vec<Refusal>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = Draw { experiment, hosts, drawn: Drawn::default(), refusals: Vec::new() };
    let mut population = BTreeMap::new();
    for (id, target) in &experiment.targets {
        let matching = draw.matching(id, target);
        population.insert(id.clone(), matching.clone());
        let chosen = draw.choose(id, target, matching, &mut random);
        draw.drawn.targets.insert(id.clone(), chosen);
    }
    draw.observer();
    draw.stops();
    draw.limits(&population);
    if draw.refusals.is_empty() { Ok(draw.drawn) } else { Err(draw.refusals) }
}

struct Draw<'a> {
    experiment: &'a Experiment,
    hosts: &'a [HostView],
    drawn: Drawn,
    refusals: Vec<Refusal>,
}

impl<'a> Draw<'a> {
    fn refuse(&mut self, why: impl Into<String>, instead: impl Into<String>) {
        self.refusals.push(Refusal::new(why, instead));
    }

    /// Hosts whose labels fit, in order of id.
    fn matching(&mut self, id: &TargetId, target: &Target) -> Vec<&'a HostView> {
        let selector = match target.select.parse::<Selector>() {
            Ok(selector) => selector,
            Err(error) => {
                self.refuse(format!("target {id}: {error}"), "correct the selector");
                return Vec::new();
            }
        };
        let fits = |host: &&HostView| !host.observer && selector.matches(&host.labels);
        let mut found: Vec<&HostView> = self.hosts.iter().filter(fits).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    fn suffers(&self, id: &TargetId) -> bool {
        let on = |action: &Action| matches!(action, Action::Fault { target, .. } if target == id);
        self.experiment.timeline.iter().any(|entry| on(&entry.action))
    }

    fn choose(
        &mut self,
        id: &TargetId,
        target: &Target,
        matching: Vec<&'a HostView>,
        random: &mut ChaCha8Rng,
    ) -> Vec<HostId> {
        if matching.is_empty() {
            if target.on_empty == OnEmpty::Fail {
                let near = self.near(target);
                self.refuse(format!("target {id}: no host matches {}", target.select), near);
            }
            return Vec::new();
        }
        let (mut free, away) = self.free(id, &matching);
        let wanted = self.wanted(id, target.pick.as_ref(), free.len());
        if free.is_empty() || free.len() < wanted {
            let left_out = if away.is_empty() { String::new() } else { format!(" ({})", away.join("; ")) };
            let (all, can) = (matching.len(), free.len());
            self.refuse(
                format!("target {id}: {wanted} of {all} matching hosts are to be drawn and {can} can be{left_out}"),
                "bring back the hosts that cannot be drawn, ask for fewer, or change the selector",
            );
            return Vec::new();
        }
        self.drawn.notes.extend(away.iter().map(|why| format!("target {id}: left out {why}")));
        free.shuffle(random);
        free.truncate(wanted);
        self.first(id, &free);
        free.sort_by(|a, b| a.id.cmp(&b.id));
        self.drawn.names.extend(free.iter().map(|host| (host.id.clone(), host.name.clone())));
        free.into_iter().map(|host| host.id.clone()).collect()
    }

    /// The canaries of the entries on this target: the first of `drawn`, which is in the order of the draw.
    fn first(&mut self, id: &TargetId, drawn: &[&HostView]) {
        for entry in &self.experiment.timeline {
            let Action::Fault { target, rollout: Some(rollout), .. } = &entry.action else { continue };
            if target != id {
                continue;
            }
            let count = match &rollout.canary {
                Pick { percent: Some(percent), .. } => share(*percent, drawn.len(), self.rounding(id)),
                Pick { count, .. } => count.map_or(1, |count| count as usize),
            };
            if count == 0 && !drawn.is_empty() {
                let all = drawn.len();
                self.refuse(
                    format!("{}: the canary would be less than one of {all} hosts", entry.id),
                    "ask for a greater share, or write `rounding: atLeastOne` under `limits`",
                );
            } else if count >= drawn.len() {
                let note = format!("{}: the canary is all of its {} hosts, so none follow", entry.id, drawn.len());
                self.drawn.notes.push(note);
            } else {
                let mut canary: Vec<HostId> = drawn[..count].iter().map(|host| host.id.clone()).collect();
                canary.sort();
                self.drawn.canaries.insert(entry.id.clone(), canary);
            }
        }
    }

    fn rounding(&self, id: &TargetId) -> Rounding {
        let section = self.experiment.section_of(id.as_str());
        section.map_or(&self.experiment.limits, |section| &section.limits).rounding
    }

    /// Hosts that can be drawn, and those that cannot with the reason.
    fn free(&self, id: &TargetId, matching: &[&'a HostView]) -> (Vec<&'a HostView>, Vec<String>) {
        let suffers = self.suffers(id);
        let (mut free, mut away) = (Vec::new(), Vec::new());
        for host in matching {
            match host.away().filter(|_| suffers || !host.connected) {
                Some(why) => away.push(format!("{}: {why}", host.name)),
                None => free.push(*host),
            }
        }
        (free, away)
    }

    /// A share is one of the hosts that can be drawn: with half of a fleet down, half of it is a quarter.
    fn wanted(&mut self, id: &TargetId, pick: Option<&Pick>, free: usize) -> usize {
        match pick {
            Some(Pick { count: Some(count), .. }) => *count as usize,
            Some(Pick { percent: Some(percent), .. }) => {
                let wanted = share(*percent, free, self.rounding(id));
                if wanted == 0 && free > 0 {
                    self.refuse(
                        format!("target {id}: {percent} of {free} hosts that can be drawn is less than one host"),
                        "ask for a greater share, or write `rounding: atLeastOne` under `limits`",
                    );
                }
                wanted
            }
            None | Some(Pick { count: None, percent: None }) => free,
        }
    }

    /// What to do when nothing matches: names what hosts there are.
    fn near(&self, target: &Target) -> String {
        let known: Vec<&str> = self.hosts.iter().filter(|h| !h.observer).map(|h| h.name.as_str()).collect();
        if known.is_empty() {
            return "no host of this environment has joined yet: make a token with `fracas hosts join-token` and start an agent with it, or name another with --environment"
                .into();
        }
        let key = target.select.split(['=', '!', ' ', ',']).find(|part| !part.is_empty()).unwrap_or_default();
        let values: BTreeSet<&str> = self.hosts.iter().filter_map(|h| h.labels.get(key)).map(String::as_str).collect();
        let values: Vec<&str> = values.into_iter().take(8).collect();
        if values.is_empty() {
            format!(
                "no host has the label {key}: see `fracas hosts`, set it with `fracas hosts label HOST {key}=VALUE`"
            )
        } else {
            format!("values of {key} here: {}; see `fracas hosts`", values.join(", "))
        }
    }

    fn observer(&mut self) {
        let probes = self.experiment.probes.iter().filter(|(_, probe)| probe.from.is_none());
        let ledgers = self.experiment.ledgers.iter().filter(|(_, ledger)| ledger.from.is_none());
        let lonely = probes.map(|(id, _)| format!("probe {id}"));
        let Some(lonely) = lonely.chain(ledgers.map(|(id, _)| format!("ledger {id}"))).next() else { return };
        match self.hosts.iter().find(|host| host.observer && host.connected) {
            Some(host) => {
                self.drawn.observer = Some(host.id.clone());
                self.drawn.names.insert(host.id.clone(), host.name.clone());
            }
            None => self.refuse(
                format!("{lonely} has no `from`, and this controller has no observer in contact"),
                "write `from:` with a target, or start the controller with its observer",
            ),
        }
    }

    /// Stop conditions that nobody could evaluate.
    fn stops(&mut self) {
        let experiment = self.experiment;
        for rail in &experiment.abort_when {
            let target = match rail {
                AbortWhen::Lost(lost) => Some(&lost.vantage),
                _ => rail
                    .probe()
                    .filter(|(_, on_loss)| *on_loss == OnLoss::Abort)
                    .and_then(|(probe, _)| experiment.probes.get(probe)?.from.as_ref()),
            };
            // Where the target must have hosts, that was told.
            let empty = |id: &TargetId| {
                let may_be = experiment.targets.get(id).is_some_and(|target| target.on_empty == OnEmpty::Skip);
                may_be && self.drawn.targets.get(id).is_none_or(Vec::is_empty)
            };
            if let Some(target) = target.filter(|id| empty(id)) {
                self.refuse(
                    format!("abort when {}: target {target} has no host that could tell", rail.text()),
                    "let hosts match it, or remove the condition",
                );
            }
        }
    }

    /// The limits of the whole, and those of each section of a game day for what belongs to it.
    fn limits(&mut self, population: &BTreeMap<TargetId, Vec<&HostView>>) {
        let experiment = self.experiment;
        let mut scopes = vec![(None, &experiment.limits)];
        scopes.extend(experiment.sections.iter().map(|section| (Some(&section.id), &section.limits)));
        for (scope, limits) in scopes {
            let mine = |id: &TargetId| {
                scope.is_none() || experiment.section_of(id.as_str()).map(|section| &section.id) == scope
            };
            let matching = population.iter().filter(|(id, _)| mine(id)).flat_map(|(_, hosts)| hosts);
            let matching: BTreeMap<&HostId, &HostView> = matching.map(|host| (&host.id, *host)).collect();
            let drawn = self.drawn.targets.iter().filter(|(id, _)| mine(id));
            let drawn = drawn.map(|(id, hosts)| (id.clone(), hosts.clone())).collect();
            let whose = scope.map(|id| format!("section {id}: ")).unwrap_or_default();
            self.limit(&whose, limits, &suffering(experiment, &drawn), &matching.into_values().collect::<Vec<_>>());
        }
    }

    /// `population` are the hosts that the targets match, each once.
    fn limit(&mut self, whose: &str, limits: &Limits, suffering: &BTreeSet<HostId>, population: &[&HostView]) {
        let count = suffering.len();
        let names: Vec<String> = suffering.iter().map(|id| self.drawn.names[id].clone()).collect();
        let names = names.join(", ");
        if let Some(most) = limits.max_targets
            && count > most as usize
        {
            self.refuse(
                format!("{whose}{count} hosts would be under fault ({names}), and `limits.maxTargets` is {most}"),
                "pick fewer hosts, or raise the limit",
            );
        }
        if let Some(percent) = limits.max_percent {
            let (most, all) = (share(percent, population.len(), limits.rounding), population.len());
            let gone: Vec<String> =
                population.iter().filter_map(|h| Some(format!("{}: {}", h.name, h.away()?))).collect();
            // Whoever wrote the limit wants the rest to work: what does not work already is part of it.
            let used = if gone.is_empty() {
                String::new()
            } else {
                format!(", of which {} are used already ({})", gone.len(), gone.join("; "))
            };
            if count + gone.len() > most && count > 0 {
                self.refuse(
                    format!(
                        "{whose}{count} hosts would be under fault ({names}), and `limits.maxPercent` allows {percent} of \
                         the {all} hosts that the document's targets match: {most}{used}"
                    ),
                    "pick fewer hosts, bring back those that are away, raise the limit, or write \
                     `rounding: atLeastOne`",
                );
            } else if !gone.is_empty() {
                self.drawn.notes.push(format!("{whose}limits.maxPercent allows {most} of {all} hosts{used}"));
            }
        }
    }
}

impl HostView {
    /// Why no fault may be put on it now, if so.
    fn away(&self) -> Option<String> {
        match (&self.quarantined, &self.cordoned, &self.taken) {
            (Some(why), ..) => Some(format!("quarantined, {why}")),
            (None, Some(why), _) => Some(format!("cordoned: {why}")),
            _ if !self.connected => Some("its agent is not in contact".to_owned()),
            (None, None, Some(run)) => Some(format!("run {run} has it for a fault, see `fracas show {run}`")),
            (None, None, None) => None,
        }
    }
}

/// A share of hosts as a number of them.
pub(crate) fn share(percent: Percent, of: usize, rounding: Rounding) -> usize {
    let exact = percent.0 * of as f64 / 100.0;
    match rounding {
        // A hair above, so that a third of three written as 33.333334 % does not depend on the last bit.
        Rounding::Floor => (exact + 1e-9).floor() as usize,
        Rounding::Ceil => (exact - 1e-9).ceil() as usize,
        Rounding::AtLeastOne => ((exact + 1e-9).floor() as usize).max(usize::from(of > 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{read_experiment, tests::catalogue};

    fn experiment(targets: &str, limits: &str) -> Experiment {
        let text = format!(
            "apiVersion: fracas/v1\nkind: Experiment\nname: x\ntargets: {targets}\n\
             timeline: [{{ id: k, at: 0s, target: db, fault: {{ process-kill: {{ name: a }} }} }}]\nlimits: {limits}\n"
        );
        read_experiment("t", &text, &BTreeMap::new(), &catalogue()).expect("valid").experiment
    }

    fn host(id: &str, role: &str) -> HostView {
        HostView {
            id: id.into(),
            name: format!("name-{id}"),
            labels: [("role".to_owned(), role.to_owned())].into(),
            environment: "default".into(),
            connected: true,
            quarantined: None,
            cordoned: None,
            taken: None,
            observer: false,
        }
    }

    fn fleet() -> Vec<HostView> {
        (0..10).map(|i| host(&format!("h{i}"), if i < 6 { "db" } else { "web" })).collect()
    }

    fn told(experiment: &Experiment, hosts: &[HostView]) -> String {
        match draw(experiment, hosts, 1) {
            Ok(drawn) => format!("{:?}", drawn.targets[&TargetId::from("db")]),
            Err(refusals) => refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn the_seed_decides_and_the_order_of_hosts_does_not() {
        let experiment = experiment("{ db: { select: role=db, pick: { count: 2 } } }", "{}");
        let mut hosts = fleet();
        let first = draw(&experiment, &hosts, 42).unwrap();
        hosts.reverse();
        assert_eq!(draw(&experiment, &hosts, 42).unwrap(), first);
        assert_eq!(first.targets[&TargetId::from("db")].len(), 2);
        let draws: BTreeSet<String> = (0..50).map(|s| format!("{:?}", draw(&experiment, &hosts, s).unwrap())).collect();
        assert!(draws.len() > 10, "{}", draws.len());
    }

    #[test]
    fn the_canary_is_drawn_by_the_seed_and_rounded_like_any_share() {
        let of = |rollout: &str, limits: &str| {
            let text = format!(
                "apiVersion: fracas/v1\nkind: Experiment\nname: x\ntargets: {{ db: {{ select: role=db }} }}\nlimits: {limits}\n\
                 timeline: [{{ id: k, at: 0s, target: db, fault: {{ process-kill: {{ name: a }} }}, rollout: {rollout} }}]\n"
            );
            let read = read_experiment("t", &text, &BTreeMap::new(), &catalogue()).expect("valid").experiment;
            move |seed| draw(&read, &fleet(), seed)
        };
        let entry = EntryId::from("k");
        let one = of("{}", "{}");
        let drawn: BTreeSet<Vec<HostId>> = (0..50).map(|seed| one(seed).unwrap().canaries[&entry].clone()).collect();
        assert_eq!(drawn.len(), 6, "each of the six hosts, one at a time");
        assert_eq!(one(7).unwrap(), one(7).unwrap());
        assert_eq!(of("{ canary: { percent: 40 } }", "{}")(1).unwrap().canaries[&entry].len(), 2);
        let few = of("{ canary: { percent: 10 } }", "{}")(1).unwrap_err();
        assert!(few[0].why.contains("less than one of 6 hosts"), "{few:?}");
        let least = of("{ canary: { percent: 10 } }", "{ rounding: atLeastOne }")(1).unwrap();
        assert_eq!(least.canaries[&entry].len(), 1);
        let all = of("{ canary: { count: 6 } }", "{}")(1).unwrap();
        assert!(all.canaries.is_empty() && all.notes[0].contains("all of its 6 hosts"), "{:?}", all.notes);
    }

    #[test]
    fn who_is_away_or_quarantined_is_left_out_and_told() {
        let experiment = experiment("{ db: { select: role=db, pick: { count: 6 } } }", "{}");
        let mut hosts = fleet();
        hosts[0].connected = false;
        hosts[1].quarantined = Some("run r was left open".into());
        let refusal = told(&experiment, &hosts);
        assert!(refusal.contains("6 of 6 matching hosts are to be drawn and 4 can be"), "{refusal}");
        assert!(refusal.contains("name-h0: its agent is not in contact"), "{refusal}");
        assert!(refusal.contains("name-h1: quarantined, run r was left open"), "{refusal}");
        let all = super::draw(&self::experiment("{ db: { select: role=db } }", "{}"), &hosts, 1).unwrap();
        assert_eq!((all.targets[&TargetId::from("db")].len(), all.notes.len()), (4, 2));
    }

    #[test]
    fn a_share_is_one_of_the_hosts_that_are_up() {
        let half = "{ db: { select: role=web, pick: { percent: 50% } } }";
        let mut hosts: Vec<HostView> = (0..10).map(|i| host(&format!("h{i}"), "web")).collect();
        for down in &mut hosts[..5] {
            down.connected = false;
        }
        let drawn = draw(&experiment(half, "{}"), &hosts, 1).unwrap();
        assert_eq!(drawn.targets[&TargetId::from("db")].len(), 2, "half of the five that are up, rounded down");
        assert_eq!(drawn.notes.len(), 5);
        let refused = told(&experiment(half, "{ maxPercent: 50% }"), &hosts);
        assert!(refused.contains("allows 50% of the 10 hosts") && refused.contains("5 are used already"), "{refused}");
        let drawn = draw(&experiment(half, "{ maxPercent: 70% }"), &hosts, 1).unwrap();
        let note = drawn.notes.last().unwrap();
        assert!(note.contains("limits.maxPercent allows 7 of 10 hosts, of which 5 are used already"), "{note}");
    }

    #[test]
    fn a_host_that_another_run_has_is_not_drawn_twice() {
        let mut hosts = vec![host("h0", "db")];
        hosts[0].taken = Some("r1".into());
        let refused = told(&experiment("{ db: { select: role=db } }", "{ maxTargets: 1 }"), &hosts);
        assert!(refused.contains("name-h0: run r1 has it for a fault"), "{refused}");
        // Whoever only looks from it does no harm.
        hosts.push(host("h1", "web"));
        let edge = "{ db: { select: role=web }, eye: { select: role=db } }";
        assert_eq!(draw(&experiment(edge, "{}"), &hosts, 1).unwrap().targets[&TargetId::from("eye")].len(), 1);
    }

    #[test]
    fn shares_are_rounded_as_the_document_says() {
        for (percent, of, rounding, expected) in [
            (34.0, 3, Rounding::Floor, 1),
            (33.0, 3, Rounding::Floor, 0),
            (33.0, 3, Rounding::AtLeastOne, 1),
            (34.0, 3, Rounding::Ceil, 2),
            (50.0, 4, Rounding::Floor, 2),
            (50.0, 4, Rounding::Ceil, 2),
            (100.0, 7, Rounding::Floor, 7),
            (10.0, 0, Rounding::AtLeastOne, 0),
        ] {
            assert_eq!(share(Percent(percent), of, rounding), expected, "{percent} % of {of}, {rounding:?}");
        }
    }

    #[test]
    fn limits_count_hosts_under_fault_only() {
        let two = "{ db: { select: role=db, pick: { count: 2 } }, web: { select: role=web } }";
        assert!(draw(&experiment(two, "{ maxTargets: 2 }"), &fleet(), 1).is_ok());
        assert!(
            told(&experiment("{ db: { select: role=db } }", "{ maxTargets: 5 }"), &fleet()).contains("6 hosts would")
        );
        assert!(draw(&experiment(two, "{ maxPercent: 20 }"), &fleet(), 1).is_ok());
        let over = told(&experiment(two, "{ maxPercent: 10 }"), &fleet());
        assert!(over.contains("10% of the 10 hosts"), "{over}");
    }

    #[test]
    fn an_empty_target_says_what_there_is() {
        let told = told(&experiment("{ db: { select: role=cache } }", "{}"), &fleet());
        assert!(told.contains("values of role here: db, web"), "{told}");
        let skip = experiment("{ db: { select: role=cache, onEmpty: skip } }", "{}");
        assert!(draw(&skip, &fleet(), 1).unwrap().targets[&TargetId::from("db")].is_empty());
    }
}
