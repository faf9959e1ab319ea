//! What durable facts count for: verdicts, faults and their times, dues of schedules. A listener of the history takes them
//! in one by one; nobody waits for it, and what it misses it counts.
//!
//! The controller's own clock stamps every fact when it is received, so that a difference between two of them needs no
//! other clock: a time to effect includes the way of the agent's report.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fracas_model::{
    event::{Between, Body, Event, UndoCause, VerdictWord},
    id::{EntryId, ItemKey, RunId},
    schedule::{Fact, Skip},
};
use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::meters::Counts;
use crate::{history::History, runs::Runs};

/// States of runs that have not ended, in the words of the run machine.
pub(super) const RUN_STATES: [&str; 5] = ["planned", "gating", "running", "recovering", "undoing"];
const VERDICTS: &[&str] = &["pass", "fail", "inconclusive", "aborted", "error", "undo_unconfirmed", "refused"];
const TRANSITIONS: &[&str] =
    &["applying", "active", "spent", "refused", "failed", "undone", "undo_failed", "withdrawn", "unanswered"];
const CAUSES: &[&str] =
    &["expired", "not_desired", "lease_lost", "agent_restart", "reboot", "local", "apply_failed", "policy"];
const OUTCOMES: &[&str] = &[
    "run",
    "missed",
    "not_allowed_then",
    "blackout",
    "paused",
    "still_running",
    "another_waits",
    "replaced",
    "waited_too_long",
    "refused",
    "withdrawn",
];
const STREAMS: &[&str] = &["run", "host", "schedule", "audit", "other"];

/// Upper bounds of the time from a wish to its effect, seconds.
const EFFECT: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the time an undo takes, seconds.
const UNDO: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Upper bounds of the delay of a scheduled start, seconds: it is late when hosts are, or when it waited for another run.
const DELAY: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

/// See the module. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    heard: Counts,
    missed: Counter,
    started: Counter,
    finished: Counts,
    transitions: Counts,
    undone: Counts,
    effect: Histogram,
    undo: Histogram,
    dues: Counts,
    delay: Histogram,
    runs: Arc<Mutex<BTreeMap<RunId, Seen>>>,
}

/// A run that has not ended.
#[derive(Clone, Debug)]
struct Seen {
    state: &'static str,
    planned_wall_ns: i64,
    /// When its entries were asked for: entry, occurrence and generation; boot time of the controller's clock.
    asked: BTreeMap<(EntryId, u32, u32), i64>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            heard: Counts::new("stream", STREAMS),
            missed: Counter::default(),
            started: Counter::default(),
            finished: Counts::new("verdict", VERDICTS),
            transitions: Counts::new("to", TRANSITIONS),
            undone: Counts::new("cause", CAUSES),
            effect: Histogram::new(EFFECT),
            undo: Histogram::new(UNDO),
            dues: Counts::new("outcome", OUTCOMES),
            delay: Histogram::new(DELAY),
            runs: Arc::default(),
        }
    }
}

impl Facts {
    pub(super) fn register(&self, registry: &mut Registry) {
        let facts = self.clone();
        registry.register("history_facts", "Durable facts, by the kind of their stream", facts.heard);
        registry.register("metrics_missed_facts", "Durable facts that these metrics missed", facts.missed);
        registry.register("runs_started", "Runs that were accepted", facts.started);
        registry.register("runs_finished", "Runs that have ended, by verdict", facts.finished);
        registry.register("fault_transitions", "What became of faults on hosts, each step", facts.transitions);
        registry.register("faults_undone", "Faults undone and read back as gone, by cause", facts.undone);
        let help = "Time from the wish for a fault to the word of its host that it is in effect";
        registry.register_with_unit("fault_effect_delay", help, Unit::Seconds, facts.effect);
        let help = "Time from the first inverse step to the end of the read-back";
        registry.register_with_unit("fault_undo_duration", help, Unit::Seconds, facts.undo);
        registry.register("schedule_dues", "Due times of schedules, by what became of them", facts.dues);
        let help = "Time from a due to the plan of its run";
        registry.register_with_unit("schedule_start_delay", help, Unit::Seconds, facts.delay);
    }

    /// Takes in what is told, until the history is closed.
    pub(super) async fn listen(self, mut told: Receiver<Arc<Event>>, history: History, runs: Runs) {
        loop {
            match told.recv().await {
                Ok(event) => self.take(&event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "metrics missed facts");
                    self.missed.inc_by(missed);
                    self.look(&history, &runs).await;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Learns which runs have not ended and where they stand: at the start, and when facts were missed.
    pub(super) async fn look(&self, history: &History, runs: &Runs) {
        let active = runs.active();
        let mut rows = BTreeMap::new();
        for run in &active {
            let Ok(found) = history.store().run_prefix(run.as_str()).await else { continue };
            rows.extend(found.into_iter().map(|(row, _)| row).find(|row| row.run == *run).map(|row| (run, row)));
        }
        let mut seen = self.lock();
        seen.retain(|run, _| active.contains(run));
        for (run, row) in rows {
            let Some(state) = RUN_STATES.iter().find(|state| **state == row.state) else { continue };
            let known = seen.entry(run.clone()).or_insert_with(|| Seen::new(state, row.started_wall_ns));
            known.state = state;
        }
    }

    /// How many of these runs are in each of [`RUN_STATES`].
    pub(super) fn running(&self, active: &BTreeSet<RunId>) -> [(&'static str, usize); RUN_STATES.len()] {
        let seen = self.lock();
        let active: Vec<&'static str> =
            seen.iter().filter(|(run, _)| active.contains(run)).map(|(_, run)| run.state).collect();
        RUN_STATES.map(|state| (state, active.iter().filter(|its| **its == state).count()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Seen>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, event: &Event) {
        let (kind, name) = event.stream.split_once('/').unwrap_or_default();
        self.heard.one(STREAMS.iter().find(|known| **known == kind).unwrap_or(&"other"));
        match &event.body {
            Body::Schedule { fact, at } => self.due(fact, at.wall_ns),
            _ if kind == "run" => self.of_run(&RunId::from(name), event),
            _ => {}
        }
    }

    fn of_run(&self, run: &RunId, event: &Event) {
        let now_ns = event.received.boot_ns;
        match &event.body {
            Body::Planned { at, .. } => {
                self.started.inc();
                self.lock().insert(run.clone(), Seen::new(RUN_STATES[0], at.wall_ns));
            }
            Body::Finished { verdict, .. } => {
                self.finished.one(verdict_word(verdict));
                self.lock().remove(run);
            }
            // Its end may have been missed.
            Body::ReportSealed { .. } => drop(self.lock().remove(run)),
            Body::EntryStarted { entry, occurrence, generation, .. } => {
                if let Some(seen) = self.lock().get_mut(run) {
                    seen.asked.insert((entry.clone(), *occurrence, *generation), now_ns);
                }
            }
            body => {
                if let Some(state) = state_after(body) {
                    if let Some(seen) = self.lock().get_mut(run) {
                        seen.state = state;
                    }
                } else if let Some(item) = body.item() {
                    self.of_item(run, item, body, now_ns);
                }
            }
        }
    }

    fn of_item(&self, run: &RunId, item: &ItemKey, body: &Body, now_ns: i64) {
        let Some(to) = transition(body) else { return };
        self.transitions.one(to);
        match body {
            Body::Active { .. } | Body::Spent { certain: true, .. } => {
                let key = (item.entry.clone(), item.occurrence, item.generation);
                // Unknown of a run that an earlier life of the controller began.
                let asked = self.lock().get(run).and_then(|seen| seen.asked.get(&key).copied());
                if let Some(asked) = asked {
                    self.effect.observe(seconds(now_ns - asked));
                }
            }
            Body::Undone { cause, between: Between { from, to }, .. } => {
                self.undone.one(cause_word(*cause));
                if let Ok(took) = to.since(from) {
                    self.undo.observe(seconds(took.ns()));
                }
            }
            _ => {}
        }
    }

    fn due(&self, fact: &Fact, at_wall_ns: i64) {
        match fact {
            Fact::Started { due, run } => {
                self.dues.one("run");
                // The run may have ended before the schedule said that it began.
                let planned = self.lock().get(run).map_or(at_wall_ns, |seen| seen.planned_wall_ns);
                self.delay.observe(seconds(planned - due.at_ns));
            }
            Fact::Skipped { count, reason, .. } => self.dues.add(skip_word(reason), *count),
            Fact::Set { .. }
            | Fact::Queued { .. }
            | Fact::Paused { .. }
            | Fact::Resumed { .. }
            | Fact::Removed { .. }
            | Fact::SetBack { .. }
            | Fact::Summary(_) => {}
        }
    }
}

impl Seen {
    fn new(state: &'static str, planned_wall_ns: i64) -> Self {
        Self { state, planned_wall_ns, asked: BTreeMap::new() }
    }
}

/// A clock that was set may make a difference negative.
fn seconds(ns: i64) -> f64 {
    ns.max(0) as f64 / 1e9
}

/// The state of a run after this fact, if it changes it.
fn state_after(body: &Body) -> Option<&'static str> {
    let [_, gating, running, recovering, undoing] = RUN_STATES;
    match body {
        Body::GateStarted { .. } => Some(gating),
        Body::GatePassed { .. } => Some(running),
        Body::RecoveryStarted { .. } => Some(recovering),
        Body::UndoStarted { .. } => Some(undoing),
        _ => None,
    }
}

fn verdict_word(verdict: &VerdictWord) -> &'static str {
    match verdict {
        VerdictWord::UndoUnconfirmed => "undo_unconfirmed",
        other => other.name(),
    }
}

fn transition(body: &Body) -> Option<&'static str> {
    Some(match body {
        Body::Applying { .. } => "applying",
        Body::Active { .. } => "active",
        Body::Spent { .. } => "spent",
        Body::Refused { .. } => "refused",
        Body::Failed { .. } => "failed",
        Body::Undone { .. } => "undone",
        Body::UndoFailed { .. } => "undo_failed",
        Body::Withdrawn { .. } => "withdrawn",
        Body::Unanswered { .. } => "unanswered",
        _ => return None,
    })
}

fn cause_word(cause: UndoCause) -> &'static str {
    match cause {
        UndoCause::Expired => "expired",
        UndoCause::NotDesired => "not_desired",
        UndoCause::LeaseLost => "lease_lost",
        UndoCause::AgentRestart => "agent_restart",
        UndoCause::Reboot => "reboot",
        UndoCause::Local => "local",
        UndoCause::ApplyFailed => "apply_failed",
        UndoCause::Policy => "policy",
    }
}

fn skip_word(skip: &Skip) -> &'static str {
    match skip {
        Skip::Missed => "missed",
        Skip::NotAllowedThen => "not_allowed_then",
        Skip::Blackout { .. } => "blackout",
        Skip::Paused { .. } => "paused",
        Skip::StillRunning { .. } => "still_running",
        Skip::AnotherWaits => "another_waits",
        Skip::Replaced => "replaced",
        Skip::WaitedTooLong { .. } => "waited_too_long",
        Skip::Refused { .. } => "refused",
        Skip::Withdrawn => "withdrawn",
    }
}

#[cfg(test)]
mod tests;
