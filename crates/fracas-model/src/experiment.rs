//! An experiment as typed values, filled from a document's canonical JSON (module `document` makes that).
//!
//! This is what the run machine, the estimator and the report work on; it never sees source text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::Params,
    id::{DetectionId, EntryId, LedgerId, ProbeId, SectionId, ServiceId, TargetId},
    stop::AbortWhen,
    units::{Dur, Percent},
};

/// A checked experiment. Every default is filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Experiment {
    /// `fracas/v1`.
    pub api_version: String,
    /// `Experiment` or `GameDay`.
    pub kind: String,
    /// Name of the experiment.
    pub name: String,
    /// What it is to show.
    #[serde(default)]
    pub description: String,
    /// Services under test with their objectives.
    #[serde(default)]
    pub services: BTreeMap<ServiceId, Service>,
    /// Rules that draw hosts.
    pub targets: BTreeMap<TargetId, Target>,
    /// What is looked at.
    #[serde(default)]
    pub probes: BTreeMap<ProbeId, Probe>,
    /// Where numbered markers are written, so that what is lost can be told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ledgers: BTreeMap<LedgerId, Ledger>,
    /// By which alerts the trouble is known that the run makes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detections: BTreeMap<DetectionId, Detection>,
    /// The gate before the timeline; absent: the timeline starts at once.
    #[serde(default)]
    pub steady_state: Option<SteadyState>,
    /// What happens.
    pub timeline: Vec<Entry>,
    /// How recovery is declared.
    pub recovery: Recovery,
    /// Stop conditions.
    #[serde(default)]
    pub abort_when: Vec<AbortWhen>,
    /// How many hosts may be under fault.
    pub limits: Limits,
    /// How long faults live without contact with the controller.
    pub lease: Dur,
    /// What only a game day has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Day>,
    /// The sections of a game day, in order; none for a single experiment. What belongs to one bears its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
}

impl Experiment {
    /// The section that an entry, probe, service or target belongs to; `None`: to the whole.
    ///
    /// `SECTION.NAME` is what the section's own document calls NAME, `SECTION:NAME` is an entry that the day adds.
    pub fn section_of(&self, name: &str) -> Option<&Section> {
        let (section, _) = name.split_once(['.', ':'])?;
        self.sections.iter().find(|one| one.id.as_str() == section)
    }
}

/// Why a game day is held, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Day {
    /// What it is to find out or to train.
    #[serde(default)]
    pub purpose: String,
    /// Who answers for it.
    #[serde(default)]
    pub owner: String,
    /// Who takes part.
    #[serde(default)]
    pub participants: Vec<String>,
}

/// One experiment of a game day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Section {
    /// Its name in the day.
    pub id: SectionId,
    /// Name of its experiment.
    pub name: String,
    /// What that is to show.
    #[serde(default)]
    pub description: String,
    /// The file it was read from, as the day names it.
    pub file: String,
    /// How many hosts its own entries may put under fault.
    pub limits: Limits,
}

impl Section {
    /// The name of an entry that the day adds to it.
    pub fn added(&self, what: &str) -> EntryId {
        EntryId::new(format!("{}:{what}", self.id))
    }

    /// The entry that waits for its steady state, and for its ledgers to be open.
    pub fn steady_state(&self) -> EntryId {
        self.added("steady-state")
    }

    /// The entry that ends it: over when all its others are, and its services have recovered or were given up.
    pub fn last(&self) -> EntryId {
        self.added("recovery")
    }
}

/// A service under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Recovery time objective.
    #[serde(default)]
    pub rto: Option<Dur>,
    /// From where the objective is counted.
    #[serde(default)]
    pub rto_from: RtoFrom,
    /// A look that succeeds and takes longer shows the service degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_above: Option<Dur>,
    /// Recovery point objective: how much of what was written last may be lost. Ledgers measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Dur>,
    /// Maximum tolerable period of disruption: within it the objective must lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtpd: Option<Dur>,
    /// How often the objective is to be proven by a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove_every: Option<Dur>,
}

/// From where a recovery time objective is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RtoFrom {
    /// First failure seen by the vantage (outage).
    #[default]
    Impact,
    /// The fault becoming effective.
    Fault,
}

/// A rule that draws hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Label selector in text form.
    pub select: String,
    /// How many of the matching hosts; all when absent.
    #[serde(default)]
    pub pick: Option<Pick>,
    /// What when none matches.
    #[serde(default)]
    pub on_empty: OnEmpty,
}

/// How many hosts are drawn. Exactly one of the two is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pick {
    /// This many; refused when fewer match.
    #[serde(default)]
    pub count: Option<u32>,
    /// This share, rounded as `limits.rounding` says.
    #[serde(default)]
    pub percent: Option<Percent>,
}

/// What when a target rule matches no host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnEmpty {
    /// The run is refused.
    #[default]
    Fail,
    /// Entries on it are skipped.
    Skip,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// The service it speaks for, if any.
    #[serde(default)]
    pub service: Option<ServiceId>,
    /// Name in the catalogue (`http`).
    pub kind: String,
    /// Checked parameters.
    pub params: Params,
    /// The target whose hosts look; the controller's observer when absent.
    #[serde(default)]
    pub from: Option<TargetId>,
    /// From start to start.
    pub every: Dur,
    /// The same while nothing is at stake; `every` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_at_rest: Option<Dur>,
    /// When a look counts as failed.
    pub timeout: Dur,
}

impl Probe {
    /// The longest time that may lie between two ticks.
    pub fn slowest(&self) -> Dur {
        self.every_at_rest.map_or(self.every, |at_rest| at_rest.max(self.every))
    }
}

/// A marker ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    /// The service whose data it speaks for.
    pub service: ServiceId,
    /// Name in the catalogue (`postgres`).
    pub kind: String,
    /// Checked parameters.
    pub params: Params,
    /// The target whose hosts write, a ledger each; the controller's observer when absent.
    #[serde(default)]
    pub from: Option<TargetId>,
    /// From the sending of one marker to the sending of the next.
    pub every: Dur,
    /// When a marker that was not answered counts as unknown.
    pub timeout: Dur,
}

/// A detection rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Detection {
    /// The service whose trouble the alert tells of; of the whole run when absent.
    #[serde(default)]
    pub service: Option<ServiceId>,
    /// Conditions on the labels of the alert, see [`Matcher`](crate::signal::Matcher); all of them.
    #[serde(rename = "match")]
    pub matching: Vec<String>,
}

/// The gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SteadyState {
    /// All of them must be ok.
    pub probes: Vec<ProbeId>,
    /// For this long without a failure.
    pub hold_for: Dur,
    /// And that must be reached within this time.
    pub give_up_after: Dur,
}

/// A timeline entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Unique name.
    pub id: EntryId,
    /// When it starts.
    pub trigger: Trigger,
    /// What it does.
    pub action: Action,
    /// Whether a run may pass without this fault being verified.
    #[serde(default = "yes")]
    pub required: bool,
    /// What when a fault is interrupted.
    #[serde(default)]
    pub on_interrupt: OnInterrupt,
}

fn yes() -> bool {
    true
}

/// When an entry starts. Offsets count exercise time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// This long after the gate passed.
    At(Dur),
    /// After something happened, plus a delay.
    After {
        /// What.
        what: AfterWhat,
        /// How much later.
        delay: Dur,
    },
}

/// What an entry waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AfterWhat {
    /// Another entry's trigger fired.
    Started(EntryId),
    /// Another entry's fault is active on every target.
    Effective(EntryId),
    /// Another entry is over.
    Ended(EntryId),
    /// A service is stable again after the first outage since the previous entry in the document started.
    Recovered(ServiceId),
    /// All of these are over: they ended, were skipped, or came to nothing.
    Over(Vec<EntryId>),
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Inject a fault.
    #[serde(rename_all = "camelCase")]
    Fault {
        /// Name in the catalogue.
        fault: String,
        /// Checked parameters.
        params: Params,
        /// On the hosts drawn for this target.
        target: TargetId,
        /// How long, for lasting faults.
        duration: Option<Dur>,
        /// On a few of them first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<Rollout>,
    },
    /// Let time pass.
    Wait {
        /// How long.
        duration: Dur,
    },
    /// Go on only when what is looked at is well.
    #[serde(rename_all = "camelCase")]
    Check {
        /// All of them must be ok.
        probes: Vec<ProbeId>,
        /// For this long without a failure.
        hold_for: Dur,
        /// And that must be reached within this time.
        give_up_after: Dur,
        /// What when it was not.
        on_failure: OnFailure,
    },
    /// Go on only when a person says so, who is not the one who started the run.
    Approval {
        /// What is asked.
        question: String,
        /// How long an answer is waited for.
        deadline: Dur,
        /// What at a no, or without an answer.
        otherwise: Otherwise,
    },
    /// Wait until services are stable again, for as long as a recovery is waited for. Only game days have it.
    Recovery {
        /// Which; a section may have none.
        services: Vec<ServiceId>,
    },
}

/// On how many hosts a fault begins, and when it goes to the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// How many of the drawn hosts begin; a share is rounded as `limits.rounding` says.
    pub canary: Pick,
    /// All of them must be ok.
    pub probes: Vec<ProbeId>,
    /// For this long without a failure, from the canary being in effect.
    pub hold_for: Dur,
    /// And that must be reached within this time.
    pub give_up_after: Dur,
    /// What when it was not.
    pub on_failure: OnFailure,
}

/// What when a check was not met in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// The run is aborted.
    #[default]
    Stop,
    /// What was to come after it is skipped; the rest goes on.
    Continue,
}

/// What when a question was not answered with go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Otherwise {
    /// The run is aborted.
    #[default]
    Stop,
    /// What was to come after it is skipped; the rest goes on.
    Skip,
}

/// What when a fault ended before its time (lease lost, agent restarted, host rebooted).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnInterrupt {
    /// The run is aborted.
    #[default]
    Fail,
    /// The driver asks anew with a higher generation.
    Reapply,
}

/// How recovery is declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// A service is recovered when it was up this long; the instant is its first success.
    pub stable_for: Dur,
    /// How long to wait for that after the last entry ended (also: for `after: {recovered: ..}`).
    pub give_up_after: Dur,
}

/// How many hosts may be under fault at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// At most this many hosts.
    #[serde(default)]
    pub max_targets: Option<u32>,
    /// At most this share of all hosts that the document's targets match.
    #[serde(default)]
    pub max_percent: Option<Percent>,
    /// How shares are rounded to hosts.
    #[serde(default)]
    pub rounding: Rounding,
}

/// How a share of hosts becomes a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rounding {
    /// Down; zero is refused.
    #[default]
    Floor,
    /// Up.
    Ceil,
    /// Down, but at least one.
    AtLeastOne,
}
