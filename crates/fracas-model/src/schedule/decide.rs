//! What a schedule does now, and when it must be asked again. Pure: the history so far, the time, and which runs are alive.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use serde::{Deserialize, Serialize};

use super::{Calendars, CatchUp, Clockwork, Concurrency, Due, Fact, Schedule, Skip, closed};
use crate::id::RunId;

/// Dues that are looked at in one decision; of more, the oldest are settled first and the rest in the next.
pub const MOST_AT_ONCE: usize = 20_000;
/// When more than so much of what is to come is settled, the clock had been wrong. Less may be a clock that is set to run
/// right, and no due should become two runs for that.
const FAR_AHEAD_NS: i64 = 86_400_000_000_000;

/// What the history of a schedule says: a fold over its facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Its rules; `None` before the first fact.
    pub schedule: Option<Schedule>,
    /// Text of the experiment.
    pub experiment: String,
    /// Texts of the files that it names, by the names it gives them.
    pub files: BTreeMap<String, String>,
    /// Its calendars; read from their texts.
    #[serde(skip)]
    pub calendars: Calendars,
    /// Texts of its calendars, by the names of their files.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub calendar_texts: BTreeMap<String, String>,
    /// When it was set, paused or resumed last.
    pub changed_ns: i64,
    /// In which environment its runs are started.
    pub environment: String,
    /// Number of the record that put it there; what was recorded before is of another environment. 0: nobody knows.
    pub placed_by: u64,
    /// Who made or changed it last.
    pub by: String,
    /// All dues up to this nominal instant are settled or wait; those after it are owed.
    pub settled_ns: i64,
    /// Dues that wait, in their order.
    pub waiting: VecDeque<Waiting>,
    /// Runs it started, as far as nobody said that they have ended.
    pub runs: BTreeSet<RunId>,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// It is no more.
    pub removed: bool,
    /// The last fact about a due.
    pub last: Option<Fact>,
}

/// A due that could not start when it should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The due.
    pub due: Due,
    /// Since when.
    pub since_ns: i64,
    /// For what.
    pub reason: String,
}

/// Something to be done; whatever comes of it is recorded before the next decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Record this.
    Note(Fact),
    /// Start a run for this due, and record that it started or why it was refused. Nothing follows in this decision.
    Start(Due),
    /// Ask these runs to end.
    Stop(Vec<RunId>),
}

/// What to do now, in this order, and when to ask again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to do.
    pub acts: Vec<Act>,
    /// When; `None`: only when something else changes.
    pub wake_ns: Option<i64>,
}

impl State {
    /// With its calendars read from their texts again: as it is after it was kept.
    #[must_use]
    pub fn read_again(mut self) -> Self {
        if let Some(rules) = &self.schedule {
            self.calendars = Calendars::kept(rules, &self.calendar_texts);
        }
        self
    }

    /// Takes in a fact that was recorded at this instant of the wall clock.
    pub fn take(&mut self, fact: &Fact, at_ns: i64) {
        match fact {
            Fact::Set { schedule, experiment, calendars, files, environment, by, .. } => {
                // What was due by other rules was owed by them, and is settled or withdrawn. So is what a clock that was
                // ahead had settled beforehand.
                if !self.goes_on(schedule, at_ns) {
                    self.settled_ns = at_ns;
                    self.waiting.clear();
                }
                self.calendars = Calendars::kept(schedule, calendars);
                self.calendar_texts.clone_from(calendars);
                self.schedule = Some((**schedule).clone());
                (self.experiment, self.environment, self.by) = (experiment.clone(), environment.clone(), by.clone());
                self.files.clone_from(files);
                self.removed = false;
            }
            Fact::Started { due, run } => {
                self.runs.insert(run.clone());
                self.settle(due, due);
            }
            Fact::Skipped { from, to, .. } => self.settle(from, to),
            Fact::Queued { due, reason } => {
                self.settle(due, due);
                self.waiting.push_back(Waiting { due: *due, since_ns: at_ns, reason: reason.clone() });
            }
            Fact::SetBack { .. } => {
                self.settled_ns = at_ns;
                self.waiting.retain(|waiting| waiting.due.nominal_ns <= at_ns);
            }
            Fact::Paused { reason, .. } => self.paused = Some(reason.clone()),
            Fact::Resumed { .. } => self.paused = None,
            Fact::Removed { .. } => {
                (self.removed, self.paused) = (true, None);
                self.waiting.clear();
            }
            // It says again what was taken in already.
            Fact::Summary(_) => {}
        }
        if matches!(fact, Fact::Started { .. } | Fact::Skipped { .. } | Fact::Queued { .. }) {
            self.last = Some(fact.clone());
        }
        if matches!(fact, Fact::Set { .. } | Fact::Paused { .. } | Fact::Resumed { .. }) {
            self.changed_ns = at_ns;
        }
    }

    /// Whether dues stay what they are when these rules are set now: the same instants, of a schedule that is there.
    pub fn goes_on(&self, rules: &Schedule, now_ns: i64) -> bool {
        let timing = |rules: &Schedule| (rules.when.clone(), rules.zone, rules.seed);
        let same = self.schedule.as_ref().is_some_and(|before| timing(before) == timing(rules));
        same && !self.removed && self.settled_ns <= now_ns
    }

    /// What is said of the dues that are owed or wait, when the rules change or end now.
    pub fn withdrawn(&self, clockwork: &Clockwork, now_ns: i64) -> Vec<Fact> {
        let mut notes = Notes { clockwork, acts: Vec::new() };
        for waiting in &self.waiting {
            notes.skip(waiting.due, Skip::Withdrawn);
        }
        for due in clockwork.after(self.settled_ns).take_while(|due| due.nominal_ns <= now_ns) {
            notes.skip(due, Skip::Withdrawn);
        }
        notes.facts()
    }

    /// Dues that may have become a run of which nothing is recorded, where a start was cut off.
    pub fn unsure(&self, clockwork: &Clockwork) -> Vec<Due> {
        let waiting = self.waiting.iter().map(|waiting| waiting.due);
        waiting.chain(clockwork.next(self.settled_ns)).collect()
    }

    /// Runs that are not among those alive have ended: they need not be remembered.
    pub fn forget_ended(&mut self, alive: &BTreeSet<RunId>) {
        self.runs.retain(|run| alive.contains(run));
    }

    fn settle(&mut self, from: &Due, to: &Due) {
        self.settled_ns = self.settled_ns.max(to.nominal_ns);
        let among = from.nominal_ns..=to.nominal_ns;
        self.waiting.retain(|waiting| !among.contains(&waiting.due.nominal_ns));
    }
}

/// What is to be done, in its order.
struct Notes<'d> {
    clockwork: &'d Clockwork,
    acts: Vec<Act>,
}

impl Notes<'_> {
    /// Dues that follow each other and are skipped for one reason become one record.
    fn skip(&mut self, due: Due, reason: Skip) {
        if let Some(Act::Note(Fact::Skipped { to, count, reason: last, .. })) = self.acts.last_mut()
            && *last == reason
            && self.clockwork.next(to.nominal_ns) == Some(due)
        {
            (*to, *count) = (due, *count + 1);
            return;
        }
        self.acts.push(Act::Note(Fact::Skipped { from: due, to: due, count: 1, reason }));
    }

    fn facts(self) -> Vec<Fact> {
        let fact = |act| if let Act::Note(fact) = act { Some(fact) } else { None };
        self.acts.into_iter().filter_map(fact).collect()
    }
}

/// What a decision looks at beside the history.
#[derive(Clone, Copy, Debug)]
pub struct Now<'n> {
    /// The wall clock.
    pub ns: i64,
    /// Runs that have not ended, of whomever.
    pub alive: &'n BTreeSet<RunId>,
    /// What a due waits for may have ended since it was last tried.
    pub changed: bool,
}

/// Decides. A decision holds at most one start, as its last act, so that what came of it is known before the next.
pub fn decide(state: &State, clockwork: &Clockwork, now: Now<'_>) -> Decision {
    let Some(schedule) = state.schedule.as_ref().filter(|_| !state.removed) else { return Decision::default() };
    let own: Vec<RunId> = state.runs.intersection(now.alive).cloned().collect();
    let (waiting, notes) = (state.waiting.clone(), Notes { clockwork, acts: Vec::new() });
    Deciding { schedule, state, clockwork, now, own, notes, waiting, closed: OnceCell::new() }.go()
}

struct Deciding<'d> {
    schedule: &'d Schedule,
    state: &'d State,
    clockwork: &'d Clockwork,
    now: Now<'d>,
    own: Vec<RunId>,
    notes: Notes<'d>,
    waiting: VecDeque<Waiting>,
    closed: OnceCell<Option<Skip>>,
}

impl Deciding<'_> {
    fn go(mut self) -> Decision {
        let now_ns = self.now.ns;
        if self.state.settled_ns.saturating_sub(now_ns) > FAR_AHEAD_NS {
            self.notes.acts.push(Act::Note(Fact::SetBack { settled_ns: self.state.settled_ns }));
            return self.decision(None, Some(now_ns));
        }
        let mut dues: Vec<Due> = Vec::new();
        let mut next = None;
        for due in self.clockwork.after(self.state.settled_ns) {
            if due.at_ns > now_ns || dues.len() == MOST_AT_ONCE {
                next = Some(due);
                break;
            }
            dues.push(due);
        }
        // More than can be looked at: then even the last of these is not the latest.
        let more = next.is_some_and(|due| due.at_ns <= now_ns);
        let wake = |at: Option<i64>| at.or(next.map(|due| due.at_ns));
        if let Some(reason) = &self.state.paused {
            let reason = Skip::Paused { reason: reason.clone() };
            self.give_up_waiting(&reason);
            for due in dues {
                self.notes.skip(due, reason.clone());
            }
            return self.decision(None, wake(more.then_some(now_ns)));
        }
        let late = |due: &&Due| now_ns - due.at_ns > self.schedule.start_within.ns();
        let missed = dues.iter().take_while(late).count();
        let kept = match self.schedule.catch_up {
            _ if more && !matches!(self.schedule.catch_up, CatchUp::All { .. }) => 0,
            CatchUp::Skip => 0,
            CatchUp::Latest => usize::from(missed == dues.len()),
            CatchUp::All { max } => max as usize,
        };
        let first = missed.saturating_sub(kept);
        for due in &dues[..first] {
            self.notes.skip(*due, Skip::Missed);
        }
        if more && first > 0 {
            return self.decision(None, Some(now_ns));
        }
        for due in &dues[first..] {
            if let Some(start) = self.due(*due) {
                // What comes of it decides about the others.
                return self.decision(Some(start), Some(now_ns));
            }
        }
        while let Some(waiting) = self.waiting.front().cloned() {
            let limit = waiting.since_ns.max(waiting.due.at_ns).saturating_add(self.schedule.wait_at_most.ns());
            let wake = [wake(None), Some(limit)].into_iter().flatten().min();
            if now_ns >= limit {
                self.waiting.pop_front();
                self.notes.skip(waiting.due, Skip::WaitedTooLong { reason: waiting.reason });
            } else if !self.own.is_empty() || !self.now.changed {
                return self.decision(None, wake);
            } else if let Some(reason) = self.closed() {
                self.give_up_waiting(&reason);
            } else {
                // Its turn has come.
                return self.decision(Some(waiting.due), wake);
            }
        }
        self.decision(None, wake(None))
    }

    /// How many may wait.
    fn room(&self) -> usize {
        match self.schedule.catch_up {
            CatchUp::All { max } => max.max(1) as usize,
            CatchUp::Skip | CatchUp::Latest => 1,
        }
    }

    /// What stands against a start now; looked at once, for whichever due asks first.
    fn closed(&self) -> Option<Skip> {
        let look = || closed(self.schedule, &self.state.calendars, self.now.ns).map(Skip::from);
        self.closed.get_or_init(look).clone()
    }

    /// A due that is to start now; else it was noted why not.
    fn due(&mut self, due: Due) -> Option<Due> {
        if let Some(reason) = self.closed() {
            self.notes.skip(due, reason);
            return None;
        }
        let in_the_way = self.own.first().cloned();
        match (self.schedule.concurrency, in_the_way) {
            (_, None) if self.waiting.is_empty() => return Some(due),
            (Concurrency::Replace, None) => {
                self.give_up_waiting(&Skip::Replaced);
                return Some(due);
            }
            (Concurrency::Replace, Some(run)) => {
                self.give_up_waiting(&Skip::Replaced);
                let stop = Act::Stop(self.own.clone());
                if !self.notes.acts.contains(&stop) {
                    self.notes.acts.push(stop);
                }
                self.queue(due, format!("run {run} is being stopped for it"));
            }
            (Concurrency::Forbid, Some(run)) => self.notes.skip(due, Skip::StillRunning { run }),
            (Concurrency::Queue, Some(run)) if self.waiting.len() < self.room() => {
                self.queue(due, format!("run {run} has not ended"));
            }
            (Concurrency::Queue, None) if self.waiting.len() < self.room() => {
                self.queue(due, "another waits before it".into());
            }
            (Concurrency::Forbid | Concurrency::Queue, _) => self.notes.skip(due, Skip::AnotherWaits),
        }
        None
    }

    fn queue(&mut self, due: Due, reason: String) {
        self.notes.acts.push(Act::Note(Fact::Queued { due, reason: reason.clone() }));
        self.waiting.push_back(Waiting { due, since_ns: self.now.ns, reason });
    }

    fn give_up_waiting(&mut self, reason: &Skip) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.notes.skip(waiting.due, reason.clone());
        }
    }

    fn decision(self, start: Option<Due>, wake_ns: Option<i64>) -> Decision {
        let mut acts = self.notes.acts;
        acts.extend(start.map(Act::Start));
        Decision { acts, wake_ns }
    }
}
