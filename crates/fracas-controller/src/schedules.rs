//! Schedules at work: one task for each, which asks the model what to do now, does it, records what came of it, and sleeps
//! until it must ask again. It decides nothing.
//!
//! Whatever happens between a start and its record, the same due never becomes two runs: the due is the run's idempotency
//! key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fracas_model::{
    diagnostic::Diagnostic,
    document,
    event::{Body, Event},
    id::RunId,
    schedule::{self, Act, Clockwork, Due, Fact, Now, Schedule, Skip, State},
};

use crate::{
    history::{History, HistoryError},
    runs::{Request, RunError, Runs},
};

/// At the latest so often each schedule looks at the clock: it may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait when the history could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long hosts may take to come back after a start of the controller, before what a due needs is missed.
const COMING_BACK: Duration = Duration::from_secs(10);
/// So often that is looked at.
const COME_BACK_YET_NS: i64 = 100_000_000;
/// Most schedules of one controller.
const MOST: usize = 10_000;

/// All schedules of a controller. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Schedules {
    history: History,
    runs: Runs,
    known: Arc<Mutex<BTreeMap<String, State>>>,
}

/// What is asked of [`Schedules::set`].
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Text of the schedule.
    pub source: String,
    /// Its file name, for messages.
    pub source_name: String,
    /// Text of the experiment.
    pub experiment: String,
    /// Its file name.
    pub experiment_name: String,
    /// In which environment its runs are started.
    pub environment: String,
    /// Pseudonymous id of the caller.
    pub by: String,
}

/// Why a schedule was not set or changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// One of the two documents is wrong.
    #[error("the documents have {} errors", .0.len())]
    Document(Vec<Diagnostic>),
    /// There is none of that name.
    #[error("no schedule {0:?} here: `fracas schedule list` names those there are")]
    Unknown(String),
    /// There are too many.
    #[error("there are {MOST} schedules already: remove some")]
    TooMany,
    /// The history cannot be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Name of the stream of a schedule.
pub fn stream_of(name: &str) -> String {
    format!("schedule/{name}")
}

impl Schedules {
    /// None yet; [`resume`](Self::resume) takes up those of the history.
    pub fn new(history: History, runs: Runs) -> Self {
        Self { history, runs, known: Arc::default() }
    }

    /// Takes up every schedule that was not removed. Returns how many.
    pub async fn resume(&self) -> Result<usize, HistoryError> {
        for stream in self.history.store().streams("schedule/").await? {
            let name = stream.trim_start_matches("schedule/").to_owned();
            let mut task = Task::new(self.clone(), name);
            task.read().await?;
            if !task.state.removed {
                tokio::spawn(task.live());
            }
        }
        Ok(self.all().len())
    }

    /// Every schedule that was not removed, by name.
    pub fn all(&self) -> BTreeMap<String, State> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One of them.
    pub fn one(&self, name: &str) -> Result<State, ScheduleError> {
        self.all().remove(name).ok_or_else(|| ScheduleError::Unknown(name.to_owned()))
    }

    /// The next dues of a schedule after an instant.
    pub fn next(state: &State, after_ns: i64, many: usize) -> Vec<Due> {
        let Some(clockwork) = clockwork(state) else { return Vec::new() };
        let from = state.settled_ns.max(after_ns);
        clockwork.after(from).take(many).collect()
    }

    /// The latest facts of a schedule, newest last.
    pub async fn facts(&self, name: &str, many: usize) -> Result<Vec<Event>, HistoryError> {
        let mut events = self.history.read(&stream_of(name), 0).await?;
        let surplus = events.len().saturating_sub(many);
        events.drain(..surplus);
        Ok(events)
    }

    /// Makes a schedule, or changes the one of its name. Dues that wait under the rules before are withdrawn.
    pub async fn set(&self, setting: Setting) -> Result<State, ScheduleError> {
        let read = schedule::read_schedule(&setting.source_name, &setting.source);
        let read = read.map_err(ScheduleError::Document)?.schedule;
        let catalogue = self.runs.catalogue();
        document::read_experiment(&setting.experiment_name, &setting.experiment, &read.parameters, &catalogue)
            .map_err(ScheduleError::Document)?;
        let name = read.name.clone();
        let before = self.one(&name).ok();
        if before.is_none() && self.all().len() >= MOST {
            return Err(ScheduleError::TooMany);
        }
        let mut facts: Vec<Fact> = before.into_iter().flat_map(withdrawn).collect();
        facts.push(Fact::Set {
            schedule: Box::new(read),
            source: setting.source,
            experiment: setting.experiment,
            environment: setting.environment,
            by: setting.by,
        });
        self.tell(&name, facts).await
    }

    /// From now on dues are skipped; `reason` is what is recorded with each.
    pub async fn pause(&self, name: &str, reason: String, by: String) -> Result<State, ScheduleError> {
        self.one(name)?;
        self.tell(name, vec![Fact::Paused { reason, by }]).await
    }

    /// Dues are started again.
    pub async fn unpause(&self, name: &str, by: String) -> Result<State, ScheduleError> {
        self.one(name)?;
        self.tell(name, vec![Fact::Resumed { by }]).await
    }

    /// Ends a schedule; its runs go on.
    pub async fn remove(&self, name: &str, reason: String, by: String) -> Result<State, ScheduleError> {
        let mut facts = withdrawn(self.one(name)?);
        facts.push(Fact::Removed { reason, by });
        self.tell(name, facts).await
    }

    /// Records facts, takes them in, and lets the task of the schedule look, or begins it.
    async fn tell(&self, name: &str, facts: Vec<Fact>) -> Result<State, ScheduleError> {
        let (schedules, name) = (self.clone(), name.to_owned());
        // A caller that goes away must not leave a schedule behind that is recorded and that nobody keeps.
        let told = tokio::spawn(async move {
            let fresh = schedules.one(&name).is_err();
            schedules.append(&name, facts).await?;
            let mut task = Task::new(schedules, name);
            task.read().await?;
            let state = task.state.clone();
            if fresh && !state.removed {
                tokio::spawn(task.live());
            }
            Ok(state)
        });
        match told.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(told) => told,
            Err(Ok(bug)) => std::panic::resume_unwind(bug),
            // The process ends, and with it whoever waits.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    async fn append(&self, name: &str, facts: Vec<Fact>) -> Result<(), HistoryError> {
        let at = self.history.now();
        let bodies: Vec<Body> = facts.into_iter().map(|fact| Body::Schedule { fact, at: at.clone() }).collect();
        self.history.append(&stream_of(name), bodies).await.map(drop)
    }
}

/// What is said of dues that wait for a schedule that is changed.
fn withdrawn(state: State) -> Vec<Fact> {
    let skip = |due: Due| Fact::Skipped { from: due, to: due, count: 1, reason: Skip::Withdrawn };
    state.waiting.into_iter().map(|waiting| skip(waiting.due)).collect()
}

fn clockwork(state: &State) -> Option<Clockwork> {
    let Schedule { when, zone, seed, .. } = state.schedule.as_ref()?;
    // It was read once, when it was set.
    Clockwork::new(when, *zone, *seed).ok()
}

/// One schedule's life.
struct Task {
    schedules: Schedules,
    name: String,
    state: State,
    clockwork: Option<Clockwork>,
    /// Number of the last record that was taken in, and of the one that set the rules.
    seq: u64,
    set_seq: u64,
    /// What a due waits for may have ended.
    changed: bool,
    /// When the task began.
    born: tokio::time::Instant,
}

impl Task {
    fn new(schedules: Schedules, name: String) -> Self {
        let (state, born) = (State::default(), tokio::time::Instant::now());
        Self { schedules, name, state, clockwork: None, seq: 0, set_seq: 0, changed: true, born }
    }

    /// Takes in what was recorded since, and lets others see it.
    async fn read(&mut self) -> Result<(), HistoryError> {
        for event in self.schedules.history.read(&stream_of(&self.name), self.seq).await? {
            self.seq = event.seq;
            let Body::Schedule { fact, .. } = event.body else { continue };
            self.state.take(&fact, event.received.wall_ns);
            if matches!(fact, Fact::Set { .. }) {
                self.set_seq = event.seq;
                self.clockwork = clockwork(&self.state);
            }
            self.changed |= matches!(fact, Fact::Set { .. } | Fact::Resumed { .. });
        }
        let mut known = self.schedules.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.removed {
            known.remove(&self.name);
        } else {
            known.insert(self.name.clone(), self.state.clone());
        }
        Ok(())
    }

    async fn live(mut self) {
        let mut active = self.schedules.runs.changes();
        loop {
            active.borrow_and_update();
            match self.step().await {
                Ok(Some(0)) => {}
                Ok(Some(pause_ns)) => {
                    let pause = Duration::from_nanos(pause_ns.unsigned_abs()).min(LOOK_AGAIN);
                    let Ok(mut heads) = self.schedules.history.subscribe(&stream_of(&self.name)).await else {
                        continue;
                    };
                    let seq = self.seq;
                    tokio::select! {
                        _ = heads.wait_for(|head| *head > seq) => {}
                        changed = active.changed() => self.changed |= changed.is_ok(),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(schedule = self.name, %error, "a schedule stands still until its history can be written");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Decides and does; how long there is nothing to do, in nanoseconds, or `None` at its end.
    async fn step(&mut self) -> Result<Option<i64>, HistoryError> {
        self.read().await?;
        if self.state.removed || self.schedules.runs.is_closed() {
            return Ok(None);
        }
        let Some(clockwork) = &self.clockwork else { return Ok(None) };
        // Until a host says what it can do, nothing can be started and no document be read.
        if self.schedules.runs.catalogue().faults.is_empty() && self.born.elapsed() < COMING_BACK {
            return Ok(Some(COME_BACK_YET_NS));
        }
        let alive: BTreeSet<RunId> = self.schedules.runs.active().into_iter().collect();
        self.state.forget_ended(&alive);
        let now_ns = self.schedules.history.now().wall_ns;
        let changed = std::mem::take(&mut self.changed);
        let decision = schedule::decide(&self.state, clockwork, Now { ns: now_ns, alive: &alive, changed });
        if decision.acts.is_empty() {
            let wake = decision.wake_ns.unwrap_or(i64::MAX);
            return Ok(Some(wake.saturating_sub(now_ns).max(1)));
        }
        let mut notes = Vec::new();
        for act in decision.acts {
            match act {
                Act::Note(fact) => notes.push(fact),
                Act::Stop(runs) => {
                    for run in runs {
                        let by = format!("schedule:{}", self.name);
                        self.schedules.runs.stop(&run, &by, "the next run of its schedule takes its place").await?;
                    }
                    self.changed = true;
                }
                Act::Start(due) => {
                    if let Err(error) = self.schedules.append(&self.name, std::mem::take(&mut notes)).await {
                        self.changed = true;
                        return Err(error);
                    }
                    notes.extend(self.start(due).await?);
                }
            }
        }
        self.schedules.append(&self.name, notes).await?;
        Ok(Some(0))
    }

    /// Starts a run for a due; what came of it. Nothing: it waits on.
    async fn start(&mut self, due: Due) -> Result<Option<Fact>, HistoryError> {
        let Some(rules) = self.state.schedule.clone() else { return Ok(None) };
        let request = Request {
            source: self.state.experiment.clone(),
            source_name: rules.experiment.clone(),
            parameters: rules.parameters.clone(),
            seed: 0,
            environment: self.state.environment.clone(),
            by: format!("schedule:{}", self.name),
            idempotency_key: format!("schedule/{}/{}/{}", self.name, self.set_seq, due.nominal_ns),
        };
        let skipped = |reasons| Fact::Skipped { from: due, to: due, count: 1, reason: Skip::Refused { reasons } };
        match self.schedules.runs.start(&request).await {
            Ok(run) => {
                tracing::info!(schedule = self.name, %run, "a scheduled run starts");
                Ok(Some(Fact::Started { due, run }))
            }
            Err(RunError::Document(wrong)) => Ok(Some(skipped(wrong.iter().map(Diagnostic::render).collect()))),
            Err(RunError::Refused(refusals)) => {
                let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                tracing::warn!(schedule = self.name, reasons = reasons.join("; "), "a scheduled run was refused");
                let queues = rules.when_hosts_are_taken == schedule::Concurrency::Queue;
                match self.schedules.runs.holder(&request).filter(|_| queues) {
                    Some(_) if self.state.waiting.iter().any(|waiting| waiting.due == due) => Ok(None),
                    Some(run) => Ok(Some(Fact::Queued { due, reason: format!("run {run} has its hosts") })),
                    None => Ok(Some(skipped(reasons))),
                }
            }
            Err(RunError::History(error)) => {
                self.changed = true;
                Err(error)
            }
        }
    }
}
