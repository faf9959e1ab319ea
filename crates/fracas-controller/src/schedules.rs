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
    access::Right,
    chain::{Head, hex},
    diagnostic::Diagnostic,
    document,
    event::{Body, Event, Gone},
    id::RunId,
    schedule::{self, Act, Calendars, Clockwork, Concurrency, Due, Fact, Now, Schedule, Skip, State, Summary},
    time::Stamp,
};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::{
    history::{Extra, History, HistoryError},
    people::People,
    runs::{Request, RunError, Runs, whole},
    store::Cut,
};

/// At the latest so often each schedule looks at the clock: it may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait when the history could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long hosts may take to come back after a start of the controller, before what a due needs is missed.
const COMING_BACK: Duration = Duration::from_secs(10);
/// So often that is looked at.
const COME_BACK_YET: Duration = Duration::from_millis(100);
/// Fewer records than this stay as they are.
const WORTH_A_SUMMARY: usize = 50;
/// Most schedules of one controller.
const MOST: usize = 10_000;

/// All schedules of a controller. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Schedules {
    history: History,
    runs: Runs,
    people: Option<People>,
    slots: Arc<Mutex<BTreeMap<String, Arc<Slot>>>>,
    /// When this controller began: hosts may still have to come back.
    born: tokio::time::Instant,
}

/// The place of one schedule; once made it stays, with its one task.
#[derive(Debug, Default)]
struct Slot {
    /// Whoever reads, decides, starts and records holds it all the while.
    life: AsyncMutex<Life>,
    /// What others see.
    seen: Mutex<Arc<State>>,
    /// Something was recorded.
    poke: Notify,
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
    /// Texts of its calendars, by the names that the schedule writes.
    pub calendars: BTreeMap<String, String>,
    /// Texts of the files that it names, by the names it gives them.
    pub files: BTreeMap<String, String>,
    /// In which environment its runs are started.
    pub environment: String,
    /// Pseudonymous id of the caller.
    pub by: String,
}

/// Why a schedule was not set or changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A document or a calendar is wrong.
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
        Self { history, runs, people: None, slots: Arc::default(), born: tokio::time::Instant::now() }
    }

    /// The same, where nothing is started in the name of people who may not any more.
    #[must_use]
    pub fn answering_to(self, people: People) -> Self {
        Self { people: Some(people), ..self }
    }

    /// Takes up every schedule that was not removed. Returns how many.
    pub async fn resume(&self) -> Result<usize, HistoryError> {
        for stream in self.history.store().streams("schedule/").await? {
            let name = stream.trim_start_matches("schedule/");
            self.read(name, &mut *self.slot(name).life.lock().await).await?;
        }
        Ok(self.all().len())
    }

    /// The place of a schedule, with its task.
    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(name.to_owned()).or_insert_with(|| {
            let slot = Arc::new(Slot::default());
            let (schedules, name, its) = (self.clone(), name.to_owned(), slot.clone());
            tokio::spawn(async move { schedules.keep(name, its).await });
            slot
        });
        slot.clone()
    }

    /// Every schedule that was not removed, by name.
    pub fn all(&self) -> BTreeMap<String, Arc<State>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = slots.iter().map(|(name, slot)| (name.clone(), slot.seen()));
        seen.filter(|(_, state)| state.schedule.is_some() && !state.removed).collect()
    }

    /// Names of all, also of those that were removed.
    pub fn names(&self) -> Vec<String> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// One of them.
    pub fn one(&self, name: &str) -> Result<Arc<State>, ScheduleError> {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let state = slot.map(|slot| slot.seen()).filter(|state| state.schedule.is_some() && !state.removed);
        state.ok_or_else(|| ScheduleError::Unknown(name.to_owned()))
    }

    /// The next dues of a schedule after an instant.
    pub fn next(state: &State, after_ns: i64, many: usize) -> Vec<Due> {
        let Some(clockwork) = clockwork(state) else { return Vec::new() };
        clockwork.after(state.settled_ns).skip_while(|due| due.at_ns <= after_ns).take(many).collect()
    }

    /// The latest facts of a schedule, newest last: those since it is what `state` says, where that says it.
    pub async fn facts(&self, name: &str, state: &State, many: usize) -> Result<Vec<Event>, HistoryError> {
        let stream = stream_of(name);
        let head = self.history.store().head(&stream).await?.seq;
        let since = state.placed_by.saturating_sub(1);
        let mut facts = self.history.read(&stream, head.saturating_sub(many as u64).max(since)).await?;
        // A summary says again what was before.
        let before = |body: &Body| matches!(body, Body::Schedule { fact: Fact::Summary(summary), .. } if summary.upto < state.placed_by);
        facts.retain(|event| !before(&event.body));
        Ok(facts)
    }

    /// Whether somebody is among those who ever set this schedule, removed or not.
    pub async fn was_set_by(&self, name: &str, person: &str) -> Result<bool, HistoryError> {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if slot.is_some_and(|slot| slot.seen().by == person) {
            return Ok(true);
        }
        let set = |event: &Event| matches!(&event.body, Body::Schedule { fact: Fact::Set { by, .. }, .. } if by.as_str() == person);
        Ok(self.history.read(&stream_of(name), 0).await?.iter().any(set))
    }

    /// Makes a schedule, or changes the one of its name: document, experiment and calendars together, or nothing. Where its
    /// times change, those that wait or are owed are withdrawn.
    pub async fn set(&self, mut setting: Setting) -> Result<Arc<State>, ScheduleError> {
        let read = schedule::read_schedule(&setting.source_name, &setting.source);
        let read = read.map_err(ScheduleError::Document)?.schedule;
        let catalogue = self.runs.catalogue();
        let (name, text) = (&setting.experiment_name, &setting.experiment);
        let experiment = document::read(name, text, &setting.files, &read.parameters, &catalogue);
        setting.calendars.retain(|file, _| read.calendars.iter().any(|calendar| calendar.file == *file));
        let calendars = Calendars::read(&read, &setting.calendars);
        let wrong: Vec<Diagnostic> = [experiment.err(), calendars.err()].into_iter().flatten().flatten().collect();
        if !wrong.is_empty() {
            return Err(ScheduleError::Document(wrong));
        }
        let name = read.name.clone();
        if self.one(&name).is_err() && self.all().len() >= MOST {
            return Err(ScheduleError::TooMany);
        }
        self.tell(&name, move |life, now_ns| {
            let goes_on = life.state.goes_on(&read, now_ns);
            let mut facts = if goes_on { Vec::new() } else { life.withdrawn(now_ns) };
            facts.push(Fact::Set {
                schedule: Box::new(read),
                source: setting.source,
                experiment: setting.experiment,
                calendars: setting.calendars,
                files: setting.files,
                environment: setting.environment,
                by: setting.by,
            });
            facts
        })
        .await
    }

    /// The environment of a schedule that this text would change, if it is of another one.
    pub fn elsewhere(&self, source: &str, environment: &str) -> Option<String> {
        let name = schedule::read_schedule("", source).ok()?.schedule.name;
        let there = self.one(&name).ok()?.environment.clone();
        (there != environment).then_some(there)
    }

    /// From now on dues are skipped; `reason` is what is recorded with each.
    pub async fn pause(&self, name: &str, reason: String, by: String) -> Result<Arc<State>, ScheduleError> {
        self.one(name)?;
        self.tell(name, |_, _| vec![Fact::Paused { reason, by }]).await
    }

    /// Dues are started again.
    pub async fn unpause(&self, name: &str, by: String) -> Result<Arc<State>, ScheduleError> {
        self.one(name)?;
        self.tell(name, |_, _| vec![Fact::Resumed { by }]).await
    }

    /// Ends a schedule; its runs go on.
    pub async fn remove(&self, name: &str, reason: String, by: String) -> Result<Arc<State>, ScheduleError> {
        self.one(name)?;
        self.tell(name, |life, now_ns| {
            let mut facts = life.withdrawn(now_ns);
            facts.push(Fact::Removed { reason, by });
            facts
        })
        .await
    }

    /// Records what is to be said of a schedule as it stands, and lets its task look. A step that is starting a run is
    /// waited for.
    async fn tell(
        &self,
        name: &str,
        facts: impl FnOnce(&Life, i64) -> Vec<Fact> + Send + 'static,
    ) -> Result<Arc<State>, ScheduleError> {
        let (schedules, name) = (self.clone(), name.to_owned());
        // A caller that goes away must not let go in the middle.
        whole(async move {
            let slot = schedules.slot(&name);
            let mut life = slot.life.lock().await;
            schedules.read(&name, &mut life).await?;
            life.current = false;
            // What is settled, and by when, is of one instant.
            let at = schedules.history.now();
            let facts = facts(&life, at.wall_ns);
            schedules.append_at(&name, facts, &at).await?;
            schedules.read(&name, &mut life).await?;
            slot.poke.notify_one();
            Ok(slot.seen())
        })
        .await
    }

    async fn append(&self, name: &str, facts: Vec<Fact>) -> Result<(), HistoryError> {
        self.append_at(name, facts, &self.history.now()).await
    }

    async fn append_at(&self, name: &str, facts: Vec<Fact>, at: &Stamp) -> Result<(), HistoryError> {
        if facts.is_empty() {
            return Ok(());
        }
        let bodies: Vec<Body> = facts.into_iter().map(|fact| Body::Schedule { fact, at: at.clone() }).collect();
        self.history.append(&stream_of(name), bodies).await.map(drop)
    }

    /// Takes in what was recorded since, and lets others see it.
    async fn read(&self, name: &str, life: &mut Life) -> Result<(), HistoryError> {
        let stream = stream_of(name);
        let events = self.history.read(&stream, life.seq).await?;
        if events.is_empty() {
            return Ok(());
        }
        if life.seq == 0 {
            life.begin(&stream, &events)?;
        }
        for event in events {
            life.seq = event.seq;
            let Body::Schedule { fact, at } = event.body else { continue };
            life.take(&fact, at.wall_ns, event.seq);
        }
        *self.slot(name).seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(life.state.clone());
        Ok(())
    }

    /// Sums up the first records of a schedule, those from before this instant, and says in the audit stream, by `pruned`,
    /// that they go; in one commit. What goes is to be cut off by the caller. `None`: too few are that old.
    pub async fn sum_up(
        &self,
        name: &str,
        audit: &str,
        before_wall_ns: i64,
        pruned: impl FnOnce(Gone) -> Body + Send + 'static,
    ) -> Result<Option<Cut>, HistoryError> {
        let (schedules, name, audit) = (self.clone(), name.to_owned(), audit.to_owned());
        whole(async move {
            let slot = schedules.slot(&name);
            let mut life = slot.life.lock().await;
            let stream = stream_of(&name);
            let Some((upto, summary)) = schedules.summary(&stream, before_wall_ns).await? else { return Ok(None) };
            let gone = Gone { stream: stream.clone(), seq: upto.seq, hash: hex(&upto.hash), report: None };
            let at = schedules.history.now();
            let summed = Body::Schedule { fact: Fact::Summary(Box::new(summary)), at };
            let facts = [(stream.clone(), vec![summed]), (audit, vec![pruned(gone)])].into();
            schedules.history.append_together(facts, BTreeMap::new(), Extra::default()).await?;
            schedules.read(&name, &mut life).await?;
            Ok(Some(Cut { stream, upto }))
        })
        .await
    }

    /// How many records of a schedule a summary could take the place of now.
    pub async fn summable(&self, name: &str, before_wall_ns: i64) -> Result<u64, HistoryError> {
        let events = self.history.read(&stream_of(name), 0).await?;
        Ok(old(&events, before_wall_ns).map_or(0, |seq| seq + 1 - events[0].seq))
    }

    async fn summary(&self, stream: &str, before_wall_ns: i64) -> Result<Option<(Head, Summary)>, HistoryError> {
        let events = self.history.read(stream, 0).await?;
        let Some(upto) = old(&events, before_wall_ns) else { return Ok(None) };
        let mut life = Life::default();
        let mut source = life.begin(stream, &events)?;
        for event in events.iter().take_while(|event| event.seq <= upto) {
            let Body::Schedule { fact, at } = &event.body else { continue };
            life.take(fact, at.wall_ns, event.seq);
            if let Fact::Set { source: text, .. } = fact {
                source.clone_from(text);
            }
        }
        life.state.forget_ended(&self.runs.active().into_iter().collect());
        let last = self.history.read_stored(stream, upto - 1, 1).await?.pop();
        let head = last.map(|record| Head { seq: record.seq, hash: record.hash }).filter(|head| head.seq == upto);
        let summary = Summary { upto, timed_by: life.timed_by, source, state: life.state };
        Ok(head.map(|head| (head, summary)))
    }

    /// The one task of a schedule, begun anew after a bug.
    async fn keep(self, name: String, slot: Arc<Slot>) {
        loop {
            let (schedules, its, of) = (self.clone(), slot.clone(), name.clone());
            match tokio::spawn(async move { schedules.live(&of, &its).await }).await {
                Ok(()) => return,
                Err(bug) => {
                    tracing::error!(schedule = name, %bug, "a bug in the controller: the schedule is taken up anew");
                }
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn live(&self, name: &str, slot: &Slot) {
        let mut active = self.runs.changes();
        // What an earlier life began.
        slot.life.lock().await.unsure = true;
        while !self.runs.is_closed() {
            let pause = {
                let mut life = slot.life.lock().await;
                life.changed |= active.has_changed().unwrap_or(true);
                active.borrow_and_update();
                match self.step(name, &mut life).await {
                    Ok(pause) => pause,
                    Err(error) => {
                        (life.changed, life.unsure, life.current) = (true, true, false);
                        tracing::error!(schedule = name, %error, "a schedule stands still until its history can be written");
                        TRY_AGAIN
                    }
                }
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = slot.poke.notified() => {}
                _ = active.changed() => slot.life.lock().await.changed = true,
                () = tokio::time::sleep(pause.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Decides and does; how long there is nothing to do.
    async fn step(&self, name: &str, life: &mut Life) -> Result<Duration, HistoryError> {
        // Nobody else writes there, so that most of the time there is nothing to read.
        if !life.current {
            self.read(name, life).await?;
            life.current = true;
        }
        let Some(clockwork) = life.clockwork.clone().filter(|_| !life.state.removed) else { return Ok(LOOK_AGAIN) };
        // Until hosts have come back nothing can be started, and perhaps no document be read.
        if self.born.elapsed() < COMING_BACK && !self.runs.hosts_are_back() {
            return Ok(COME_BACK_YET);
        }
        if life.unsure {
            self.recover(name, life, &clockwork).await?;
        }
        let alive: BTreeSet<RunId> = self.runs.active().into_iter().collect();
        life.state.forget_ended(&alive);
        let now_ns = self.history.now().wall_ns;
        let changed = std::mem::take(&mut life.changed);
        let decision = schedule::decide(&life.state, &clockwork, Now { ns: now_ns, alive: &alive, changed });
        if decision.acts.is_empty() {
            let wait_ns = decision.wake_ns.unwrap_or(i64::MAX).saturating_sub(now_ns).max(1);
            return Ok(Duration::from_nanos(wait_ns.unsigned_abs()));
        }
        life.current = false;
        // One that waits is tried once for each change.
        life.changed = changed && !decision.acts.iter().any(|act| matches!(act, Act::Start(_)));
        let mut notes = Vec::new();
        for act in decision.acts {
            match act {
                Act::Note(fact) => {
                    if matches!(fact, Fact::SetBack { .. }) {
                        tracing::warn!(schedule = name, "the clock had been far ahead: what is due is owed again");
                    }
                    notes.push(fact);
                }
                Act::Stop(runs) => self.stop_for(name, &runs, "the next run of its schedule takes its place").await?,
                Act::Start(due) => {
                    self.append(name, std::mem::take(&mut notes)).await?;
                    notes.extend(self.start(name, life, due).await?);
                }
            }
        }
        self.append(name, notes).await?;
        Ok(Duration::ZERO)
    }

    /// Runs that were started and are not recorded here, because something broke in between.
    async fn recover(&self, name: &str, life: &mut Life, clockwork: &Clockwork) -> Result<(), HistoryError> {
        let mut found = Vec::new();
        for due in life.state.unsure(clockwork) {
            let run = self.history.store().idempotency(&life.key(name, due)).await?;
            found.extend(run.map(|run| Fact::Started { due, run }));
        }
        self.append(name, found).await?;
        life.unsure = false;
        self.read(name, life).await
    }

    /// Asks runs to end because a due of this schedule takes their place; it waits until they have.
    async fn stop_for(&self, name: &str, runs: &[RunId], why: &str) -> Result<(), HistoryError> {
        for run in runs {
            tracing::info!(schedule = name, %run, why, "a run is stopped for a due");
            self.runs.stop(run, &by(name), why).await?;
        }
        Ok(())
    }

    /// What comes of a due whose hosts these runs have, where it may take the place of some.
    async fn take_over(
        &self,
        name: &str,
        due: Due,
        request: &Request,
        holders: Vec<RunId>,
    ) -> Result<Result<Fact, String>, HistoryError> {
        let (mut stopped, mut kept) = (BTreeSet::new(), Vec::new());
        for run in holders {
            if !stopped.is_empty() && self.runs.draws_without(request, &stopped) {
                break;
            }
            match self.protected(&run, &request.environment).await? {
                Some(why) => kept.push(why),
                None => drop(stopped.insert(run)),
            }
        }
        if !self.runs.draws_without(request, &stopped) {
            return Ok(Err(kept.join("; ")));
        }
        let stopped: Vec<RunId> = stopped.into_iter().collect();
        self.stop_for(name, &stopped, &format!("schedule {name} takes its hosts")).await?;
        let named: Vec<String> = stopped.iter().map(|run| format!("run {run}")).collect();
        let reason = match &named[..] {
            // They have ended since.
            [] => "its hosts were taken".to_owned(),
            [one] => format!("{one} is being stopped for it, to have its hosts"),
            several => format!("{} are being stopped for it, to have their hosts", several.join(", ")),
        };
        Ok(Ok(Fact::Queued { due, reason }))
    }

    /// Why a run is not stopped for a due of this environment, if so: what somebody started by hand is theirs.
    async fn protected(&self, run: &RunId, environment: &str) -> Result<Option<String>, HistoryError> {
        let rows = self.history.store().run_prefix(run.as_str()).await?;
        let Some((row, _)) = rows.into_iter().find(|(row, _)| row.run == *run) else {
            return Ok(Some(format!("run {run} has hosts of its targets")));
        };
        let schedule = of(&row.by).filter(|_| row.environment == environment);
        Ok(schedule.is_none().then(|| {
            format!(
                "run {run} has hosts of its targets, and was not started by a schedule in environment {environment}: it is \
                 not stopped for this one"
            )
        }))
    }

    /// Starts a run for a due; what came of it. Nothing: it waits on, or is still owed.
    async fn start(&self, name: &str, life: &Life, due: Due) -> Result<Option<Fact>, HistoryError> {
        let Some(rules) = life.state.schedule.clone() else { return Ok(None) };
        let (owner, place) = (&life.state.by, &life.state.environment);
        let may = |right| self.people.as_ref().is_none_or(|people| people.still_may(owner, right, place));
        // As it would be by hand: whoever may not design any more runs what was approved.
        let approved_only = !may(Right::Design);
        let request = Request {
            source: life.state.experiment.clone(),
            source_name: rules.experiment.clone(),
            files: life.state.files.clone(),
            parameters: rules.parameters.clone(),
            seed: 0,
            environment: life.state.environment.clone(),
            by: by(name),
            idempotency_key: life.key(name, due),
            approved_only,
            drawn_anew: false,
        };
        let skipped = |reasons| Fact::Skipped { from: due, to: due, count: 1, reason: Skip::Refused { reasons } };
        if !may(Right::Run) {
            let why = format!(
                "{owner}, who set the schedule, may not start runs in environment {place} any more: somebody who may \
                 is to set it again"
            );
            return Ok(Some(skipped(vec![why])));
        }
        match self.runs.start(&request).await {
            Ok(run) => {
                tracing::info!(schedule = name, %run, "a scheduled run starts");
                Ok(Some(Fact::Started { due, run }))
            }
            Err(RunError::Document(wrong)) => Ok(Some(skipped(wrong.iter().map(Diagnostic::render).collect()))),
            // The next controller owes it.
            Err(RunError::Refused(_)) if self.runs.is_closed() => Ok(None),
            Err(RunError::Refused(refusals)) => {
                let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                tracing::warn!(schedule = name, reasons = reasons.join("; "), "a scheduled run was refused");
                let holders = match rules.when_hosts_are_taken {
                    Concurrency::Forbid => Vec::new(),
                    Concurrency::Queue | Concurrency::Replace => self.runs.holders(&request),
                };
                let Some(first) = holders.first().cloned() else { return Ok(Some(skipped(reasons))) };
                if life.state.waiting.iter().any(|waiting| waiting.due == due) {
                    return Ok(None);
                }
                if rules.when_hosts_are_taken == Concurrency::Replace {
                    let taken_over = self.take_over(name, due, &request, holders).await?;
                    return Ok(Some(taken_over.unwrap_or_else(|why| skipped([reasons, vec![why]].concat()))));
                }
                let reason = format!("{}; run {first} has hosts of its targets", reasons.join("; "));
                Ok(Some(Fact::Queued { due, reason }))
            }
            Err(RunError::History(error)) => Err(error),
        }
    }
}

/// Who starts and stops the runs of a schedule.
fn by(name: &str) -> String {
    format!("schedule:{name}")
}

/// Number of the last of the first records that are all from before this instant, if they are enough. Each summary is two
/// records itself, and the last record stays, so that the stream does.
fn old(events: &[Event], before_wall_ns: i64) -> Option<u64> {
    let before = |event: &&Event| event.received.wall_ns <= before_wall_ns;
    let old = events.iter().take(events.len().saturating_sub(1)).take_while(before);
    let last = old.clone().last()?.seq;
    (old.count() >= WORTH_A_SUMMARY).then_some(last)
}

/// The schedule that started a run of this starter.
pub fn of(by: &str) -> Option<&str> {
    by.strip_prefix("schedule:")
}

fn clockwork(state: &State) -> Option<Clockwork> {
    let Schedule { when, zone, seed, .. } = state.schedule.as_ref()?;
    // It was read once, when it was set.
    Clockwork::new(when, *zone, *seed).ok()
}

impl Slot {
    fn seen(&self) -> Arc<State> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a schedule's task knows.
#[derive(Debug, Default)]
struct Life {
    state: State,
    clockwork: Option<Clockwork>,
    /// Number of the last record that was taken in, and of the one since which its times are what they are.
    seq: u64,
    timed_by: u64,
    /// Nothing was recorded that was not taken in.
    current: bool,
    /// What a due waits for may have ended.
    changed: bool,
    /// A start may have been cut off.
    unsure: bool,
}

impl Life {
    /// Begins with what the summary of a pruned beginning says, if `events`, the first that are kept, have one before
    /// them; gives the text of the document then.
    fn begin(&mut self, stream: &str, events: &[Event]) -> Result<String, HistoryError> {
        let Some(gone) = events.first().map(|first| first.seq - 1).filter(|gone| *gone > 0) else {
            return Ok(String::new());
        };
        let summary = events.iter().find_map(|event| match &event.body {
            Body::Schedule { fact: Fact::Summary(summary), .. } if summary.upto == gone => Some(summary),
            _ => None,
        });
        let summary = summary.ok_or_else(|| HistoryError::Unsummed { stream: stream.to_owned() })?;
        (self.state, self.timed_by) = (summary.state.clone().read_again(), summary.timed_by);
        self.clockwork = clockwork(&self.state);
        self.changed = true;
        Ok(summary.source.clone())
    }

    fn take(&mut self, fact: &Fact, at_ns: i64, seq: u64) {
        if let Fact::Set { schedule, .. } = fact
            && !self.state.goes_on(schedule, at_ns)
        {
            self.timed_by = seq;
        }
        if matches!(fact, Fact::SetBack { .. }) {
            // What was started for a due of that time is no run of it now.
            self.timed_by = seq;
        }
        if let Fact::Set { environment, .. } = fact
            && (self.state.schedule.is_none() || self.state.environment != *environment)
        {
            self.state.placed_by = seq;
        }
        self.state.take(fact, at_ns);
        if matches!(fact, Fact::Set { .. }) {
            self.clockwork = clockwork(&self.state);
        }
        self.changed |= matches!(fact, Fact::Set { .. } | Fact::Resumed { .. });
    }

    fn withdrawn(&self, now_ns: i64) -> Vec<Fact> {
        let clockwork = self.clockwork.as_ref().filter(|_| !self.state.removed);
        clockwork.map(|clockwork| self.state.withdrawn(clockwork, now_ns)).unwrap_or_default()
    }

    /// The same for one due, whenever it is asked for.
    fn key(&self, name: &str, due: Due) -> String {
        format!("schedule/{name}/{}/{}", self.timed_by, due.nominal_ns)
    }
}

#[cfg(test)]
mod tests;
