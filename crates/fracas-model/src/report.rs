//! The report of one run, folded from its history; the verdict is part of it and never needs more than the events.
//!
//! It opens no store and draws nothing: renderers live elsewhere. Blobs of readings, when given, add latency statistics
//! and change nothing else.

mod alerts;
mod clocks;
mod instants;
mod items;
mod judge;
mod latency;
mod ledgers;
mod lines;
mod services;
mod story;
#[cfg(test)]
mod tests;
mod vantages;
mod verdict;

use std::collections::BTreeMap;

pub use self::alerts::{AlertReport, Standing};
pub use self::instants::{Instant, Metric, Timing};
pub use self::ledgers::{LedgerReport, RecoveryPoint, in_words as data_lost};
pub use self::lines::{asked_and_measured, cause_text, text as event_text};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, Measured, Proof, Readings, UndoCause, VerdictWord},
    experiment::{Experiment, RtoFrom},
    id::{EntryId, HostId, ProbeId, RunId, SectionId, ServiceId, TargetId},
    time::Interval,
    units::Dur,
};

/// Names the shape of a report as data.
pub const SCHEMA: &str = "fracas.report/v1";

/// Version of the model that makes reports.
pub const MODEL: &str = env!("CARGO_PKG_VERSION");

/// Everything a report shows. Offsets are nanoseconds from the origin (the gate, else acceptance of the run).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the model that folded the history.
    pub model: String,
    /// The run.
    pub run: RunId,
    /// Name of the experiment.
    pub name: String,
    /// What it is to show.
    pub description: String,
    /// What was asked: the canonical document, parameters applied and defaults filled in. `None` when the history holds
    /// none that can be read.
    pub experiment: Option<Experiment>,
    /// Name of the source file.
    pub source_name: String,
    /// Who asked (a pseudonymous id).
    pub by: String,
    /// Where it ran.
    pub environment: String,
    /// When.
    pub times: Times,
    /// Seed of every random choice.
    pub seed: u64,
    /// Digest of intent.
    pub intent: String,
    /// Digest of the plan.
    pub plan: String,
    /// Hosts drawn for each target.
    pub targets: BTreeMap<TargetId, Vec<HostId>>,
    /// Names of hosts.
    pub hosts: BTreeMap<HostId, String>,
    /// The judgement of the whole.
    pub verdict: Verdict,
    /// The sections of a game day, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<SectionReport>,
    /// Services under test.
    pub services: Vec<ServiceReport>,
    /// Instants and the times between them, of each service under test; of the whole run where it names none.
    #[serde(default)]
    pub timings: Vec<Timing>,
    /// The timeline's entries.
    pub entries: Vec<EntryReport>,
    /// What each probe saw from each vantage.
    pub probes: Vec<ProbeReport>,
    /// What became of the markers of each ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ledgers: Vec<LedgerReport>,
    /// What alerting tools told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertReport>,
    /// Every event, in order.
    pub events: Vec<EventLine>,
    /// What a reader must know before trusting the numbers.
    pub warnings: Vec<String>,
    /// How well the clocks of the hosts were known.
    pub clocks: Vec<ClockLine>,
    /// How long a service must be up to count as recovered.
    pub stable_for: Option<Dur>,
    /// Sequence number of the last event this rests on.
    pub head_seq: u64,
}

/// Wall times are the controller's, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// Accepted.
    pub planned_wall_ns: i64,
    /// Offset 0 of everything below: steady state reached, else acceptance.
    pub origin_wall_ns: i64,
    /// Whether steady state was reached.
    pub gate_passed: bool,
    /// Finished, else the last event.
    pub ended_wall_ns: i64,
    /// Offset of the first event.
    pub first_ns: i64,
    /// Offset of the end.
    pub last_ns: i64,
    /// Whether the run is over.
    pub finished: bool,
}

/// The judgement of a run and what `fracas run` exits with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The word.
    pub word: VerdictWord,
    /// Exit code: see [`exit_code`].
    pub exit_code: u8,
    /// Why, most important first.
    pub reasons: Vec<String>,
}

/// One section of a game day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SectionReport {
    /// Its name in the day.
    pub id: SectionId,
    /// Name of its experiment.
    pub name: String,
    /// What that is to show.
    pub description: String,
    /// The file it was read from.
    pub file: String,
    /// When its first entry started.
    pub started_ns: Option<i64>,
    /// When its last entry was over.
    pub ended_ns: Option<i64>,
    /// Judged like a run, by what belongs to it.
    pub verdict: Verdict,
}

/// Exit codes are part of the command line's contract: 2 (usage) and 130 (second Ctrl-C) are never a verdict's.
pub fn exit_code(word: &VerdictWord) -> u8 {
    match word {
        VerdictWord::Pass => 0,
        VerdictWord::Fail => 1,
        VerdictWord::Inconclusive => 3,
        VerdictWord::Aborted => 4,
        VerdictWord::Error => 5,
        VerdictWord::UndoUnconfirmed => 6,
        VerdictWord::Refused => 7,
    }
}

/// How a service did against its objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "word", rename_all_fields = "camelCase")]
pub enum Judgement {
    /// The longest the observations allow is within the objective.
    Met {
        /// In plain words.
        why: String,
    },
    /// The shortest the observations allow is beyond the objective.
    Missed {
        /// In plain words.
        why: String,
    },
    /// The objective lies between the two.
    Inconclusive {
        /// In plain words.
        why: String,
        /// The probe period that would settle it; absent when none would.
        settled_by_period: Option<Dur>,
    },
    /// The run could not show it.
    NotMeasured {
        /// Why not.
        why: String,
    },
    /// The document sets no objective.
    NoObjective,
}

/// One service: worst over its probes and vantages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// The service.
    pub service: ServiceId,
    /// Its recovery time objective.
    pub rto: Option<Dur>,
    /// From where that is counted.
    pub rto_from: RtoFrom,
    /// Its recovery point objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Dur>,
    /// Its maximum tolerable period of disruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtpd: Option<Dur>,
    /// How often its objective is to be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove_every: Option<Dur>,
    /// How it did.
    pub judgement: Judgement,
    /// Impact to recovery, on one vantage clock. `None`: no outage was seen after the first fault.
    pub outage: Option<Interval>,
    /// First impact to last recovery when there was more than one outage: what lies between counts as unsteady, not as out.
    pub span: Option<Interval>,
    /// How many outages were seen after the first fault.
    pub outages: u32,
    /// Fault effective to recovery.
    pub recovery_from_fault: Option<Interval>,
    /// Fault reverted to recovery.
    pub residual: Option<Interval>,
    /// Whether the service came back while the fault was still active; `None` when there was nothing to revert, no
    /// outage, or the two cannot be told apart.
    pub recovered_before_revert: Option<bool>,
    /// Failing phases summed up.
    pub downtime: Option<Interval>,
    /// Returns that did not last.
    pub blips: u32,
    /// Changes from up to down.
    pub down_edges: u32,
    /// Changes from down to up.
    pub up_edges: u32,
    /// Outages that began before the first fault became effective.
    pub pre_existing: u32,
    /// How many vantages saw it down together; `None` with fewer than two, or where no clock map links them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<Together>,
    /// How much of it failed while it was out; `None` without an outage or without all raw readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Share>,
    /// Up, but slow; `None` without `slowAbove` or raw readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Degraded>,
    /// How much of its data was lost; `None` without ledger and objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<RecoveryPoint>,
    /// Sequence numbers of the events behind these numbers.
    pub events: Vec<u64>,
}

/// How much of a service was out: what several vantages saw at one time, from the first fault on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Together {
    /// Vantages: a probe from a host each.
    pub vantages: u32,
    /// Most of them that were surely down at one time.
    pub certain: u32,
    /// Most of them that may have been.
    pub possible: u32,
    /// How long all of them were down at once.
    pub all_down: Interval,
    /// How long at least one of them was.
    pub any_down: Interval,
}

/// Looks at a service, of all its vantages, from its first failure after the first fault to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// All of them.
    pub looks: u64,
    /// Those that failed.
    pub failed: u64,
}

/// A service that answered, but slower than it should, from the first fault on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Degraded {
    /// What counted as slow.
    pub slow_above: Dur,
    /// Slow spans, of the vantage that saw the longest.
    pub spans: u32,
    /// The longest of them.
    pub longest: Option<Interval>,
    /// All of them together.
    pub in_all: Interval,
    /// Looks of that vantage that succeeded.
    pub looks: u64,
    /// Those of them that were slow.
    pub slow: u64,
}

/// One outage, from impact to a recovery that lasted, and how it lies to the faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    /// Began before the first fault became effective.
    pub pre_existing: bool,
    /// The entry whose fault it is counted from; `None` before any fault.
    pub after_entry: Option<EntryId>,
    /// Impact: earliest (absent: failing from the first look on).
    pub start_lo_ns: Option<i64>,
    /// Impact: latest.
    pub start_hi_ns: i64,
    /// Recovery: earliest.
    pub end_lo_ns: i64,
    /// Recovery: latest; absent while not recovered.
    pub end_hi_ns: Option<i64>,
    /// Impact to recovery.
    pub outage: Interval,
    /// Fault effective to recovery.
    pub recovery_from_fault: Option<Interval>,
    /// Fault reverted to recovery.
    pub residual: Option<Interval>,
    /// Whether it came back while the fault was still active.
    pub recovered_before_revert: Option<bool>,
    /// Failing phases summed up.
    pub downtime: Interval,
    /// Returns that did not last.
    pub blips: u32,
    /// Changes from up to down.
    pub down_edges: u32,
    /// Changes from down to up.
    pub up_edges: u32,
    /// How it stands against the objective.
    pub judgement: Judgement,
    /// Events behind these numbers.
    pub events: Vec<u64>,
}

/// One probe from one vantage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// The probe.
    pub probe: ProbeId,
    /// The service it speaks for.
    pub service: Option<ServiceId>,
    /// Name in the catalogue.
    pub kind: String,
    /// Where it looked from.
    pub host: HostId,
    /// Period, start to start.
    pub every: Dur,
    /// The same while nothing was at stake, as its document has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_at_rest: Option<Dur>,
    /// It was still at rest, or again, while a fault was in effect or before services were stable after it: up to so much
    /// lay between the starts of two looks then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rested: Option<Dur>,
    /// When a look counts as failed.
    pub timeout: Dur,
    /// Looks that were kept, and how many of them failed.
    pub looks: u64,
    /// Failed ones.
    pub failed: u64,
    /// Ticks that were due and did not happen.
    pub missed: u64,
    /// Why it could not run.
    pub refused: Option<String>,
    /// Spans of failing.
    pub episodes: Vec<Episode>,
    /// What it saw, for drawing.
    pub strip: Vec<Segment>,
    /// Latency before the first fault.
    pub baseline: Option<Latency>,
    /// Latency while a fault was active or the service was out.
    pub under_fault: Option<Latency>,
}

/// What a probe's readings amount to over some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// How many looks.
    pub n: u64,
    /// How many failed.
    pub failed: u64,
    /// Median of those that succeeded, milliseconds; from 5 on.
    pub p50_ms: Option<f64>,
    /// 99th percentile of those that succeeded, milliseconds; from 299 on.
    pub p99_ms: Option<f64>,
}

/// What a probe saw over some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// From.
    pub from_ns: i64,
    /// To.
    pub to_ns: i64,
    /// What.
    pub state: Seen,
}

/// What a probe saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seen {
    /// Up.
    Up,
    /// Down.
    Down,
    /// Changing: somewhere in this time.
    Changing,
    /// Nobody looked.
    Gap,
}

/// One timeline entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryReport {
    /// The entry.
    pub entry: EntryId,
    /// Fault name, or `wait`, `check`, `approval`, `recovery`.
    pub action: String,
    /// Its parameters, or what it looks at or asks, in one line.
    pub params: String,
    /// Target of a fault.
    pub target: Option<TargetId>,
    /// How long it was asked to last.
    pub duration: Option<Dur>,
    /// Whether the run needs its fault to be verified.
    pub required: bool,
    /// When its trigger fired.
    pub started_ns: Option<i64>,
    /// Hosts on which it began, where that was not on all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<HostId>,
    /// When its canary had held and it went to the other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widened_ns: Option<i64>,
    /// When it was over.
    pub ended_ns: Option<i64>,
    /// Why it was not started.
    pub skipped: Option<String>,
    /// Why what was to come after it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// How its question was answered: `go by p-1abcde: all well`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What was done on each host.
    pub items: Vec<ItemReport>,
}

/// Where an item got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ItemStep {
    /// The host will not do it; nothing was changed.
    Refused,
    /// Journalled; steps begin.
    Applying,
    /// All steps done.
    Active,
    /// The effect was seen.
    Verified,
    /// Looked, and the effect was not there.
    Ineffective,
    /// There was nothing to look at.
    Unverified,
    /// A one-shot fired.
    Spent,
    /// Applying failed.
    Failed,
    /// Undo begins.
    Undoing,
    /// Some steps could not be undone yet.
    UndoFailed,
    /// Read back: nothing is left.
    Undone,
}

/// A step of an item's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemMoment {
    /// Which.
    pub step: ItemStep,
    /// When.
    pub at_ns: i64,
    /// The event that tells it.
    pub seq: u64,
}

/// What one fault did on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemReport {
    /// The host.
    pub host: HostId,
    /// Repeat number, from 0.
    pub occurrence: u32,
    /// Attempt, from 1.
    pub generation: u32,
    /// One sentence: what was planned on this host.
    pub summary: String,
    /// Its life, in order.
    pub moments: Vec<ItemMoment>,
    /// A one-shot: nothing to undo.
    pub one_shot: bool,
    /// When it surely had become effective: just after the system call.
    pub effective_ns: Option<i64>,
    /// When the undo was read back.
    pub undone_ns: Option<i64>,
    /// Why it ended.
    pub cause: Option<UndoCause>,
    /// From the first inverse step to the end of the read-back.
    pub undo_took: Option<Dur>,
    /// The last word on its effect.
    pub proof: Option<Proof>,
    /// Asked and measured.
    pub measured: Vec<Measured>,
    /// Found changed by others and left alone.
    pub superseded: Vec<String>,
    /// Why it was refused, failed, or could not be undone.
    pub trouble: Vec<String>,
    /// The host has changed something and has not confirmed that it is gone.
    pub unconfirmed: bool,
}

/// One event, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// Number in the stream.
    pub seq: u64,
    /// The controller's wall clock when it took it.
    pub wall_ns: i64,
    /// Offset of the instant it tells of.
    pub at_ns: i64,
    /// Which kind: the event's name.
    pub kind: String,
    /// What happened.
    pub text: String,
    /// Where, if on a host.
    pub host: Option<HostId>,
    /// A repeated matter of course (sealed readings, clock maps) that summaries leave out.
    pub routine: bool,
}

/// How well a host's clock was known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockLine {
    /// The host.
    pub host: HostId,
    /// Width of the tightest map to the controller's clock; `None`: no map.
    pub map_width: Option<Dur>,
    /// How many maps.
    pub maps: u64,
    /// Largest bound of its wall clock the kernel gave; `None`: unsynchronised.
    pub wall_bound: Option<Dur>,
}

/// Folds one run's stream into its report; without `Finished`, as if the run ended with its last event.
///
/// `blobs` are sealed readings by digest; they may be empty or partial.
pub fn build(events: &[Event], blobs: &BTreeMap<String, Readings>) -> Report {
    let story = story::Story::read(events);
    let entries = items::entries(&story);
    let services::Found { mut probes, mut services, incidents } = services::services(&story);
    let timings = instants::timings(&story, &incidents);
    latency::fill(&story, blobs, &mut probes);
    latency::degraded(&story, blobs, &mut services);
    latency::failing(&story, blobs, &probes, &mut services);
    let ledgers = ledgers::reports(&story);
    ledgers::recovery_points(&story, &ledgers, &mut services);
    let mut warnings = services::warnings(&story, &services, &probes);
    warnings.extend(items::warnings(&story, &entries));
    warnings.extend(ledgers::warnings(&ledgers));
    let alerts = alerts::reports(&story);
    warnings.extend(alerts::warnings(&story, &alerts));
    let sections = verdict::sections(&story, &entries, &services);
    let computed = verdict::verdict(&story, &entries, &services);
    let verdict = match &story.finished {
        Some(kept) => {
            if kept.word != computed.word {
                warnings.push(format!(
                    "the kept verdict is \"{}\", but folding the history anew gives \"{}\" ({})",
                    kept.word.name(),
                    computed.word.name(),
                    computed.reasons.first().map_or("no reason", String::as_str)
                ));
            }
            kept.clone()
        }
        None => computed,
    };
    let head = story.head.clone();
    Report {
        schema: SCHEMA.into(),
        model: MODEL.into(),
        run: head.run,
        name: story.experiment.as_ref().map_or_else(|| head.source_name.clone(), |e| e.name.clone()),
        description: story.experiment.as_ref().map(|e| e.description.clone()).unwrap_or_default(),
        experiment: story.experiment.clone(),
        source_name: head.source_name,
        by: head.by,
        environment: head.environment,
        times: story.times(),
        seed: head.seed,
        intent: head.intent,
        plan: head.plan,
        targets: head.targets,
        hosts: head.hosts,
        verdict,
        sections,
        services,
        timings,
        entries,
        probes,
        ledgers,
        alerts,
        events: lines::lines(&story, events),
        warnings,
        clocks: story.clocks.lines(&story),
        stable_for: story.experiment.as_ref().map(|e| e.recovery.stable_for),
        head_seq: events.last().map_or(0, |e| e.seq),
    }
}

impl Report {
    /// Name of a host, or its id when it has none.
    pub fn host_name<'a>(&'a self, host: &'a HostId) -> &'a str {
        self.hosts.get(host).map_or(host.as_str(), String::as_str)
    }

    /// The longest episode of a service that counts, with its probe.
    pub fn worst_episode(&self, service: &ServiceId) -> Option<(&ProbeReport, &Episode)> {
        let of_service = self.probes.iter().filter(|p| p.service.as_ref() == Some(service));
        of_service
            .flat_map(|p| p.episodes.iter().filter(|e| !e.pre_existing).map(move |e| (p, e)))
            .max_by_key(|(_, e)| (e.outage.hi.map_or(i64::MAX, Dur::ns), e.outage.lo))
    }
}
