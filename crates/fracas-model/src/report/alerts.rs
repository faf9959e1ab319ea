//! What alerting tools told during a run: each firing of an alert once, and whether it tells of the trouble that the run made.
//! Nothing here is judged.
//!
//! An alert's own time is its source's, whose clock nobody compared with ours: it is taken to be within [`WITHIN`] of it, and
//! the alert surely fired before the word of it came.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::story::Story;
use crate::{
    id::{DetectionId, ServiceId},
    signal::{AlertState, Matchers, Signal},
    time::Stamp,
    units::Dur,
};

/// How far the clock of an alerting tool is taken to be off the controller's, at most. Machines that measure keep time.
pub(super) const WITHIN: Dur = Dur::from_secs(1);

/// One firing of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertReport {
    /// Who told it.
    pub source: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says; may be empty.
    pub summary: String,
    /// The rules that it fulfils.
    pub detections: Vec<DetectionId>,
    /// What it has to do with the run.
    pub standing: Standing,
    /// When it fired by its source's clock, nanoseconds from the origin.
    pub fired_ns: i64,
    /// When the first word of it came.
    pub came_ns: i64,
    /// When it was resolved by its source's clock; absent: that was not told.
    pub resolved_ns: Option<i64>,
    /// The events that tell it.
    pub events: Vec<u64>,
}

/// What an alert has to do with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It fulfils a rule, and did not fire before the fault took effect.
    Detects,
    /// It fired before any fault took effect: it tells of something else.
    PreExisting,
    /// Its source's clock is ahead of the controller's by more than a second: nobody knows when it fired.
    Undated,
    /// No rule knows it: the fault reached farther than was thought, or there is a real trouble beside the run.
    Unexplained,
}

/// One firing of an alert as it was told, on the controller's clock.
#[derive(Clone, Debug)]
pub(super) struct Fired<'a> {
    pub source: &'a str,
    pub signal: &'a Signal,
    /// The first word of it.
    pub came: &'a Stamp,
    /// Earliest and latest, by that clock; absent where the source's clock is ahead of it by more than is taken.
    pub at: Option<(i64, i64)>,
    /// The end of it with the word of that, if it came and says when.
    pub resolved: Option<(i64, &'a Stamp)>,
    pub events: Vec<u64>,
}

impl Fired<'_> {
    /// A wall time of its source on the controller's boot clock, nanoseconds.
    fn place(came: &Stamp, wall_ns: i64) -> i64 {
        came.boot_ns.saturating_sub(came.wall_ns.saturating_sub(wall_ns))
    }

    /// Earliest and latest time at which it fired, from the origin.
    pub(super) fn placed(&self, story: &Story) -> Option<(i64, i64)> {
        self.at.map(|(lo, hi)| (offset_of(story, lo, self.came), offset_of(story, hi, self.came)))
    }

    /// Earliest and latest time at which it ended, on the clock of the word of it.
    pub(super) fn ended(&self) -> Option<(i64, i64, &Stamp)> {
        let (wall_ns, came) = self.resolved?;
        within(Self::place(came, wall_ns), came).map(|(lo, hi)| (lo, hi, came))
    }

    /// How long after it fired, by its source's clock, the word of it came; negative when that clock is ahead.
    pub(super) fn underway(&self) -> Dur {
        Dur::from_ns(self.came.wall_ns.saturating_sub(self.signal.starts_wall_ns))
    }
}

/// An instant of the clock of a stamp, from the origin.
pub(super) fn offset_of(story: &Story, boot_ns: i64, on: &Stamp) -> i64 {
    story.since_origin(on).saturating_sub(on.boot_ns.saturating_sub(boot_ns))
}

/// The bounds of what its source says, told by the word that came: not after that.
fn within(at: i64, came: &Stamp) -> Option<(i64, i64)> {
    let (lo, hi) = (at.saturating_sub(WITHIN.ns()), at.saturating_add(WITHIN.ns()));
    (lo <= came.boot_ns).then_some((lo, hi.min(came.boot_ns)))
}

/// Every firing that was told, in the order in which the first word came.
pub(super) fn fired(story: &Story) -> Vec<Fired<'_>> {
    let mut all: Vec<Fired<'_>> = Vec::new();
    let mut known: BTreeMap<(&str, &str, i64), usize> = BTreeMap::new();
    for told in &story.signals {
        for signal in &told.signals {
            let key = (told.source.as_str(), signal.id.as_str(), signal.starts_wall_ns);
            let at = *known.entry(key).or_insert(all.len());
            if at == all.len() {
                all.push(Fired {
                    source: &told.source,
                    signal,
                    came: &told.at,
                    at: within(Fired::place(&told.at, signal.starts_wall_ns), &told.at),
                    resolved: None,
                    events: Vec::new(),
                });
            }
            let Some(one) = all.get_mut(at) else { continue };
            if let (AlertState::Resolved, Some(ends), None) = (signal.state, signal.ends_wall_ns, one.resolved) {
                one.resolved = Some((ends, &told.at));
            }
            if one.events.last() != Some(&told.seq) {
                one.events.push(told.seq);
            }
        }
    }
    all
}

/// The rules of a document, read once.
pub(super) struct Rules<'a>(Vec<(&'a DetectionId, Option<&'a ServiceId>, Matchers)>);

impl<'a> Rules<'a> {
    pub(super) fn of(story: &'a Story) -> Self {
        let rules = story.experiment.iter().flat_map(|experiment| &experiment.detections);
        Self(rules.map(|(id, rule)| (id, rule.service.as_ref(), Matchers::read(&rule.matching))).collect())
    }

    /// Those that an alert fulfils, each with the service for which it speaks.
    pub(super) fn fulfilled(&self, signal: &Signal) -> impl Iterator<Item = (&'a DetectionId, Option<&'a ServiceId>)> {
        let fit = self.0.iter().filter(|(_, _, matchers)| matchers.fit(&signal.labels));
        fit.map(|(id, service, _)| (*id, *service))
    }
}

/// Every firing, for the report.
pub(super) fn reports(story: &Story) -> Vec<AlertReport> {
    let effective = story.items.values().filter_map(|item| item.effective.as_ref());
    let first = effective.map(|between| story.offset_of(&between.from)).min();
    let rules = Rules::of(story);
    let report = |one: Fired<'_>| {
        let detections: Vec<DetectionId> = rules.fulfilled(one.signal).map(|(id, _)| id.clone()).collect();
        let placed = one.placed(story);
        let before = placed.map(|(_, latest)| first.is_none_or(|first| latest < first));
        let offset =
            |came: &Stamp, wall_ns| story.since_origin(came).saturating_sub(came.wall_ns.saturating_sub(wall_ns));
        AlertReport {
            source: one.source.to_owned(),
            name: one.signal.name().to_owned(),
            labels: one.signal.labels.clone(),
            summary: one.signal.summary.clone(),
            standing: match (detections.is_empty(), before) {
                (_, None) => Standing::Undated,
                (_, Some(true)) => Standing::PreExisting,
                (false, Some(false)) => Standing::Detects,
                (true, Some(false)) => Standing::Unexplained,
            },
            detections,
            fired_ns: offset(one.came, one.signal.starts_wall_ns),
            came_ns: story.since_origin(one.came),
            resolved_ns: one.resolved.map(|(wall_ns, came)| offset(came, wall_ns)),
            events: one.events,
        }
    };
    fired(story).into_iter().map(report).collect()
}

/// What a reader must know of them.
pub(super) fn warnings(story: &Story, alerts: &[AlertReport]) -> Vec<String> {
    let rules = story.experiment.iter().flat_map(|experiment| experiment.detections.keys());
    let told = |id: &&DetectionId| alerts.iter().any(|alert| alert.detections.contains(*id));
    let mut warnings: Vec<String> = rules
        .filter(|id| !told(id))
        .map(|id| format!("no alert fulfilled the rule `{id}`: it did not fire, or nobody told of it here"))
        .collect();
    // The same ones are told of again and again.
    if let Some(left_out) = story.signals.iter().map(|told| told.left_out).max().filter(|left_out| *left_out > 0) {
        warnings.push(format!(
            "at least {left_out} alerts that were told of are not in the history: too many, or unreadable"
        ));
    }
    let undated = alerts.iter().filter(|alert| alert.standing == Standing::Undated).map(|alert| &alert.source);
    warnings.extend(undated.collect::<std::collections::BTreeSet<_>>().into_iter().map(|source| {
        format!("the clock of {source} is ahead of the controller's by more than {WITHIN}: nobody knows when its alerts fired")
    }));
    warnings
}
