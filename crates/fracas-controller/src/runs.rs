//! Accepting runs: read the document, draw targets, rehearse on every drawn host, record, drive. No run logic here.

pub mod marks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fracas_model::{
    approval::{self, About},
    catalogue::Catalogue,
    desired::{FaultItem, Mode},
    diagnostic::Diagnostic,
    digest,
    document::{self, ReadExperiment},
    event::{Body, Rehearsal},
    experiment::{Action, Experiment},
    id::{EntryId, HostId, ItemKey, RunId, TargetId},
    plan::Refusal,
    run::{Answer, OBSERVER, Run},
    target::{self, Drawn, HostView},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{MutexGuard, watch};

use crate::{
    approvals::{self, Approvals},
    driver::{Driver, stream_of},
    fleet::{Claimed, Fleet, NotAdmitted},
    history::{Extra, History, HistoryError},
    metrics::{Counts, REFUSALS},
    store::{RunIndex, StoreError},
};

/// How long hosts may take to answer a rehearsal.
const REHEARSAL_PATIENCE: Duration = Duration::from_secs(10);

/// A request to plan or start a run.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Document text.
    pub source: String,
    /// Its file name, for messages.
    pub source_name: String,
    /// Texts of the files that it names, by the names it gives them.
    pub files: BTreeMap<String, String>,
    /// Values given for parameters.
    pub parameters: BTreeMap<String, String>,
    /// Seed of random choices; 0: one is drawn.
    pub seed: u64,
    /// Environment the caller acts in.
    pub environment: String,
    /// Pseudonymous id of the caller.
    pub by: String,
    /// Unique per intended run; empty: none.
    pub idempotency_key: String,
    /// The caller may only start what others have approved.
    pub approved_only: bool,
    /// Hosts are drawn anew, whatever was approved.
    pub drawn_anew: bool,
}

impl Request {
    fn read(&self, catalogue: &Catalogue) -> Result<ReadExperiment, Vec<Diagnostic>> {
        document::read(&self.source_name, &self.source, &self.files, &self.parameters, catalogue)
    }
}

/// What a run would do, before it does it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Seed of random choices.
    pub seed: u64,
    /// Digest of intent, hex.
    pub intent: String,
    /// Digest of the plan, hex.
    pub plan: String,
    /// The document as it was understood.
    pub experiment: Experiment,
    /// Hosts drawn for each target.
    pub targets: BTreeMap<TargetId, Vec<HostId>>,
    /// Names of those hosts.
    pub hosts: BTreeMap<HostId, String>,
    /// Hosts on which the fault of an entry begins, where that is not on all at once.
    #[serde(default)]
    pub canaries: BTreeMap<EntryId, Vec<HostId>>,
    /// What each host said it would do.
    pub rehearsals: Vec<Rehearsal>,
    /// Everything that stands in the way; empty: the run may start.
    pub refusals: Vec<Refusal>,
    /// Remarks on the document.
    pub warnings: Vec<Diagnostic>,
    /// Remarks on the draw: hosts that match and were left out.
    pub notes: Vec<String>,
}

/// Why a run was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The document is wrong.
    #[error("the document has {} errors", .0.len())]
    Document(Vec<Diagnostic>),
    /// Somebody or something does not allow it now; the texts say what to do.
    #[error("the run was refused")]
    Refused(Vec<Refusal>),
    /// The history cannot be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It does not count, now or from this person.
    #[error("{0}")]
    Not(String),
    /// The history cannot be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Accepts runs and keeps their drivers going.
#[derive(Clone, Debug)]
pub struct Runs {
    history: History,
    fleet: Fleet,
    audit: String,
    approvals: Approvals,
    active: Arc<Active>,
    refused: Counts,
    /// Draws run ids and seeds.
    random: Arc<Mutex<ChaCha8Rng>>,
}

/// Runs that have a driver.
#[derive(Debug, Default)]
struct Active {
    runs: Mutex<BTreeSet<RunId>>,
    changed: watch::Sender<()>,
    closed: Mutex<Option<String>>,
    /// Held from the last look at whether runs may start until the run that may is in `runs`.
    starting: tokio::sync::Mutex<()>,
}

/// How often a driver that hit a bug is started anew.
const RESTARTS: u32 = 3;

impl Runs {
    /// Over one history and one fleet; `audit` is the controller's audit stream, `seed` decides run ids and those seeds
    /// that nobody gave.
    pub fn new(history: History, fleet: Fleet, audit: String, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed)));
        let approvals = Approvals::new(history.clone());
        let refused = Counts::new("reason", REFUSALS);
        Self { history, fleet, audit, approvals, active: Arc::default(), refused, random }
    }

    /// The same runs, of which some need these approvals.
    #[must_use]
    pub fn approved_by(self, approvals: Approvals) -> Self {
        Self { approvals, ..self }
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up every run that has not ended: at start, after a crash. Returns how many, once the fleet knows what each
    /// of them wishes.
    pub async fn resume(&self) -> Result<usize, HistoryError> {
        let mut settling = Vec::new();
        for stream in self.history.store().streams("run/").await? {
            let run = RunId::new(stream.trim_start_matches("run/"));
            let rows = self.history.store().run_prefix(run.as_str()).await?;
            if rows.iter().all(|(row, _)| row.run != run || row.state != "finished") {
                settling.push(self.spawn(run));
            }
        }
        let resumed = settling.len();
        for mut settled in settling {
            // A driver that ended before it wished anything drops its sender, which is as good.
            let _ = settled.wait_for(|settled| *settled).await;
        }
        Ok(resumed)
    }

    fn spawn(&self, run: RunId) -> watch::Receiver<bool> {
        let driver = Driver::new(run.clone(), self.audit.clone(), self.history.clone(), self.fleet.clone());
        let (settled, active) = (driver.settled(), Arc::clone(&self.active));
        active.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone());
        let runs = self.clone();
        tokio::spawn(async move {
            runs.keep_driving(&run, driver).await;
            active.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
            active.changed.send_replace(());
        });
        settled
    }

    async fn keep_driving(&self, run: &RunId, mut driver: Driver) {
        for _ in 0..=RESTARTS {
            match tokio::spawn(driver.drive()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::error!(%run, %error, "the run cannot be driven; its faults end with their leases");
                    return;
                }
                Err(bug) => {
                    // Nothing is decided meanwhile, so nothing may be desired.
                    self.fleet.spare(run);
                    tracing::error!(%run, %bug, "a bug in the controller: the run is ended");
                    if let Err(error) = self.stop(run, "controller", "a bug in the controller").await {
                        tracing::error!(%run, %error, "that could not be recorded");
                    }
                }
            }
            driver = Driver::new(run.clone(), self.audit.clone(), self.history.clone(), self.fleet.clone());
        }
        self.fleet.forget(run);
    }

    /// Waits until no run is just being started: what starts later looks at the halt, and whether runs may start, again.
    pub async fn settle_starts(&self) {
        drop(self.hold_starts().await);
    }

    /// Until it is dropped no run takes its hosts.
    pub async fn hold_starts(&self) -> MutexGuard<'_, ()> {
        self.active.starting.lock().await
    }

    /// Runs that have not ended.
    pub fn active(&self) -> Vec<RunId> {
        self.active.runs.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits until no run is active.
    pub async fn idle(&self) {
        let mut changed = self.active.changed.subscribe();
        while !self.active().is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Wakes whenever a run has ended.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.active.changed.subscribe()
    }

    /// What documents may name now.
    pub fn catalogue(&self) -> Catalogue {
        self.fleet.catalogue()
    }

    /// The runs that have hosts which this request needs for a fault, where nothing else stands in the way of the draw.
    pub fn holders(&self, request: &Request) -> Vec<RunId> {
        let views = self.views(&RunId::new(""), &request.environment);
        let all: BTreeSet<RunId> = views.iter().filter_map(|host| host.taken.clone()).collect();
        let Ok(read) = request.read(&self.fleet.catalogue()) else { return Vec::new() };
        if draws(&read.experiment, &views, request, &BTreeSet::new()) || !draws(&read.experiment, &views, request, &all)
        {
            return Vec::new();
        }
        let wanted = target::might_suffer(&read.experiment, &views);
        let held = views.into_iter().filter(|host| wanted.contains(&host.id)).filter_map(|host| host.taken);
        held.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether the request would find its hosts if these runs had none.
    pub fn draws_without(&self, request: &Request, gone: &BTreeSet<RunId>) -> bool {
        let views = self.views(&RunId::new(""), &request.environment);
        let read = request.read(&self.fleet.catalogue());
        read.is_ok_and(|read| draws(&read.experiment, &views, request, gone))
    }

    /// Whether every host is in contact that is known.
    pub fn hosts_are_back(&self) -> bool {
        let census = self.fleet.census();
        census.connected + census.observers > 0 && census.away + census.observers_away == 0
    }

    /// Whether [`close`](Self::close) was said.
    pub fn is_closed(&self) -> bool {
        self.active.closed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// From now on no run starts; `reason` is what callers are told.
    pub fn close(&self, reason: &str) {
        *self.active.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Asks a run to end; one that has ended needs it no more.
    pub async fn stop(&self, run: &RunId, by: &str, reason: &str) -> Result<(), HistoryError> {
        let body = Body::StopRequested { by: by.to_owned(), reason: reason.to_owned(), at: self.history.now() };
        match self.history.append(&stream_of(run), vec![body]).await {
            Ok(_) | Err(HistoryError::Closed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Records an answer to the question of an entry, or of a section's approval; which entry that is.
    pub async fn answer(&self, run: &RunId, entry: &str, answer: Answer) -> Result<EntryId, AnswerError> {
        let stream = stream_of(run);
        loop {
            let events = self.history.read(&stream, 0).await?;
            let folded = Run::fold(&events).map_err(|error| AnswerError::Not(error.to_string()))?;
            let Some(asked) = folded.question(entry).cloned() else {
                return Err(AnswerError::Not(format!("`{entry}` asks nothing in run {run}: see `fracas show {run}`")));
            };
            let at = self.history.now();
            folded.may_decide(&asked, &answer.by, &at).map_err(AnswerError::Not)?;
            let Answer { go, by, note } = answer.clone();
            let body = Body::Decided { entry: asked.clone(), go, by, note, at };
            let extra = Extra { expected: Some(folded.seq), ..Extra::default() };
            // What was told meanwhile may be that it is too late.
            match self.history.append_with(&stream, vec![body], extra).await {
                Err(HistoryError::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(asked),
            }
        }
    }

    /// Why nothing may start now, if so.
    fn shut(&self) -> Option<Refusal> {
        if let Some(reason) = self.active.closed.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Some(Refusal::new(reason, "try again when the controller is back"));
        }
        let reason = self.fleet.halted()?;
        Some(Refusal::new(format!("everything is halted: {reason}"), "clear it with `fracas halt clear --reason ...`"))
    }

    /// Reads, draws and rehearses; changes nothing anywhere.
    pub async fn plan(&self, request: &Request) -> Result<Planned, RunError> {
        let (runs, request) = (self.clone(), request.clone());
        // A caller that goes away must not leave the rehearsal behind.
        whole(async move {
            let run = runs.new_run_id();
            let planned = runs.plan_as(&run, &request).await;
            runs.fleet.forget(&run);
            planned.map(|(mut planned, _)| {
                if let Err(why) = runs.approval(&planned, &request) {
                    planned.notes.push(format!("it cannot start yet: {why}"));
                }
                planned
            })
        })
        .await
    }

    /// Starts a run and returns its id; a repeated key returns the run it started before.
    pub async fn start(&self, request: &Request) -> Result<RunId, RunError> {
        let (runs, request) = (self.clone(), request.clone());
        // A caller that goes away must not leave a run behind that is recorded and not driven.
        whole(async move {
            let started = runs.start_whole(&request).await;
            match &started {
                Err(RunError::Document(_)) => runs.refused.one("document"),
                Err(RunError::Refused(_)) if runs.fleet.halted().is_some() => runs.refused.one("halted"),
                Err(RunError::Refused(_)) => runs.refused.one("refused"),
                Ok(_) | Err(RunError::History(_)) => {}
            }
            started
        })
        .await
    }

    /// How many starts were refused, and why.
    pub fn refused(&self) -> &Counts {
        &self.refused
    }

    async fn start_whole(&self, request: &Request) -> Result<RunId, RunError> {
        if let Some(known) = self.known(&request.idempotency_key).await? {
            return Ok(known);
        }
        if let Some(refusal) = self.shut() {
            return Err(RunError::Refused(vec![refusal]));
        }
        let run = self.new_run_id();
        let planned = self.plan_as(&run, request).await;
        self.fleet.forget(&run);
        let _starting = self.active.starting.lock().await;
        // The same request may have come twice: what the first one claimed must not refuse the second.
        if let Some(known) = self.known(&request.idempotency_key).await? {
            return Ok(known);
        }
        // It was asked before the rehearsal, which takes its time.
        if let Some(refusal) = self.shut() {
            return Err(RunError::Refused(vec![refusal]));
        }
        let (planned, read) = planned?;
        if !planned.refusals.is_empty() {
            return Err(RunError::Refused(planned.refusals));
        }
        let approval = self.approval(&planned, request).map_err(|why| RunError::Refused(vec![*why]))?;
        let suffering = target::suffering(&planned.experiment, &planned.targets);
        self.still_there(&run, &suffering, &planned, &request.environment).map_err(RunError::Refused)?;
        self.fleet.claim(&run, suffering).map_err(|why| {
            RunError::Refused(match why {
                NotAdmitted::Claimed(claimed) => vec![taken(&claimed, &planned.hosts)],
                NotAdmitted::GuardRails(refusals) => refusals,
            })
        })?;
        let at = self.history.now();
        let index = RunIndex {
            run: run.clone(),
            name: planned.experiment.name.clone(),
            state: "planned".into(),
            verdict: String::new(),
            exit_code: 0,
            reason: String::new(),
            started_wall_ns: at.wall_ns,
            ended_wall_ns: None,
            by: request.by.clone(),
            environment: request.environment.clone(),
        };
        let body = Body::Planned {
            run: run.clone(),
            document: read.canonical,
            source: request.source.clone(),
            source_name: request.source_name.clone(),
            files: request.files.clone(),
            intent: planned.intent,
            plan: planned.plan,
            seed: planned.seed,
            targets: planned.targets,
            hosts: planned.hosts,
            canaries: planned.canaries,
            rehearsed: planned.rehearsals,
            by: request.by.clone(),
            environment: request.environment.clone(),
            at,
        };
        let key = &request.idempotency_key;
        let idempotency = (!key.is_empty()).then(|| (key.clone(), run.clone()));
        let extra = Extra { expected: None, index: Some(index), idempotency };
        let mut facts = BTreeMap::from([(stream_of(&run), vec![body])]);
        let mut expected = BTreeMap::from([(stream_of(&run), 0)]);
        if let Some((id, seq)) = &approval {
            let used = Body::Approval { fact: approval::Fact::Used { run: run.clone() }, at: self.history.now() };
            facts.insert(approvals::stream_of(id), vec![used]);
            expected.insert(approvals::stream_of(id), *seq);
        }
        match self.history.append_together(facts, expected, extra).await {
            Ok(_) => {
                if let Some((id, seq)) = &approval {
                    self.approvals.used(id, seq + 1, &run);
                }
                drop(self.spawn(run.clone()));
                Ok(run)
            }
            Err(error) => {
                self.fleet.forget(&run);
                match error {
                    HistoryError::Store(StoreError::KeyTaken { run, .. }) => Ok(run),
                    error => Err(error.into()),
                }
            }
        }
    }

    /// Hosts that were cordoned or moved while the rehearsal took its time are out of reach.
    fn still_there(
        &self,
        run: &RunId,
        suffering: &BTreeSet<HostId>,
        planned: &Planned,
        environment: &str,
    ) -> Result<(), Vec<Refusal>> {
        let now = self.views(run, environment);
        let gone = |id: &&HostId| !now.iter().any(|host| host.id == **id && host.cordoned.is_none());
        let gone: Vec<Refusal> = suffering.iter().filter(gone).map(|id| left(id, &planned.hosts)).collect();
        if gone.is_empty() { Ok(()) } else { Err(gone) }
    }

    /// The approval by which a run may start, with the number of its last record; none is needed for most.
    fn approval(&self, planned: &Planned, request: &Request) -> Result<Option<(String, u64)>, Box<Refusal>> {
        let rails = self.fleet.rails();
        let asking = rails.asking(&planned.experiment, &request.environment, &planned.targets);
        if asking.is_empty() && !request.approved_only {
            return Ok(None);
        }
        let about = About {
            intent: &planned.intent,
            plan: &planned.plan,
            environment: &request.environment,
            hosts: target::suffering(&planned.experiment, &planned.targets).len(),
            count: asking.iter().map(|rule| rule.count).max().unwrap_or(1),
            valid_ns: asking.iter().map(|rule| rule.valid_for.ns()).min().unwrap_or(i64::MAX),
        };
        let rules: Vec<&str> = asking.iter().map(|rule| rule.name.as_str()).collect();
        self.approvals.covering(&about, &rules).map(Some)
    }

    async fn known(&self, key: &str) -> Result<Option<RunId>, RunError> {
        if key.is_empty() {
            return Ok(None);
        }
        Ok(self.history.store().idempotency(key).await.map_err(HistoryError::from)?)
    }

    fn new_run_id(&self) -> RunId {
        let seconds = self.history.now().wall_ns / 1_000_000_000;
        RunId::generate(seconds.unsigned_abs(), self.draw(rand::RngExt::random))
    }

    async fn plan_as(&self, run: &RunId, request: &Request) -> Result<(Planned, ReadExperiment), RunError> {
        let read = request.read(&self.fleet.catalogue()).map_err(RunError::Document)?;
        let intent = digest::intent(&read.canonical);
        // The hosts of a plan that was approved are those that its seed draws.
        let approved = || self.approvals.seed(&intent, &request.environment).filter(|_| !request.drawn_anew);
        let seed = match request.seed {
            0 => approved().unwrap_or_else(|| self.draw(|random| random.random_range(1..=u64::MAX))),
            given => given,
        };
        let drawn =
            target::draw(&read.experiment, &self.views(run, &request.environment), seed).map_err(RunError::Refused)?;
        let items = items(run, &read.experiment, &drawn);
        let (rehearsals, mut refusals) = self.rehearse(run, items, &drawn).await;
        refusals.extend(rehearsals.iter().flat_map(|rehearsal| attributed(rehearsal, &drawn)));
        refusals.extend(self.fleet.admits(run, &target::suffering(&read.experiment, &drawn.targets)));
        let mut targets = drawn.targets.clone();
        if let Some(observer) = &drawn.observer {
            targets.insert(TargetId::from(OBSERVER), vec![observer.clone()]);
        }
        let plan = digest::plan(&intent, seed, &targets, &drawn.canaries, &rehearsals);
        let planned = Planned {
            seed,
            intent,
            plan,
            experiment: read.experiment.clone(),
            targets,
            hosts: drawn.names,
            canaries: drawn.canaries,
            rehearsals,
            refusals,
            warnings: read.warnings.clone(),
            notes: drawn.notes,
        };
        Ok((planned, read))
    }

    async fn rehearse(&self, run: &RunId, items: Vec<FaultItem>, drawn: &Drawn) -> (Vec<Rehearsal>, Vec<Refusal>) {
        let mut waiting: BTreeSet<ItemKey> = items.iter().map(|item| item.key.clone()).collect();
        let mut answers = self.fleet.rehearse(run, items);
        let mut rehearsals = Vec::new();
        let all = async {
            while !waiting.is_empty() {
                let Some(answer) = answers.recv().await else { return };
                if waiting.remove(&answer.item) {
                    rehearsals.push(answer);
                }
            }
        };
        // A host that does not answer in time is refused by name below.
        let _ = tokio::time::timeout(REHEARSAL_PATIENCE, all).await;
        rehearsals.sort_by(|a, b| a.item.cmp(&b.item));
        let silent = waiting.into_iter().map(|key| {
            let name = drawn.names.get(&key.host).map_or(key.host.as_str(), String::as_str);
            Refusal::new(
                format!(
                    "host {name} did not say within {} s what {} would do",
                    REHEARSAL_PATIENCE.as_secs(),
                    key.entry
                ),
                "look at it with `fracas hosts`, then try again",
            )
        });
        (rehearsals, silent.collect())
    }

    /// The hosts of an environment; the observer is of all.
    fn views(&self, run: &RunId, environment: &str) -> Vec<HostView> {
        let mut hosts = self.fleet.views(run);
        hosts.retain(|host| host.observer || host.environment == environment);
        hosts
    }
}

/// Carries something through whether or not somebody waits for it.
pub(crate) async fn whole<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(bug)) => std::panic::resume_unwind(bug),
        // The process ends, and with it whoever waits.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Whether the hosts of an experiment could be drawn if these runs had none.
fn draws(experiment: &Experiment, hosts: &[HostView], request: &Request, gone: &BTreeSet<RunId>) -> bool {
    let taken = |host: &HostView| host.taken.clone().filter(|run| !gone.contains(run));
    let hosts: Vec<HostView> = hosts.iter().map(|host| HostView { taken: taken(host), ..host.clone() }).collect();
    target::draw(experiment, &hosts, request.seed).is_ok()
}

fn items(run: &RunId, experiment: &Experiment, drawn: &Drawn) -> Vec<FaultItem> {
    let mut items = Vec::new();
    for entry in &experiment.timeline {
        let Action::Fault { fault, params, target, duration, .. } = &entry.action else { continue };
        for host in drawn.targets.get(target).into_iter().flatten() {
            items.push(FaultItem {
                key: ItemKey {
                    run: run.clone(),
                    entry: entry.id.clone(),
                    occurrence: 0,
                    host: host.clone(),
                    generation: 1,
                },
                mode: Mode::Rehearse,
                experiment: experiment.name.clone(),
                fault: fault.clone(),
                params: params.clone(),
                duration: *duration,
                plan_digest: None,
            });
        }
    }
    items
}

/// The host was taken out of reach since it was drawn.
fn left(host: &HostId, names: &BTreeMap<HostId, String>) -> Refusal {
    let name = names.get(host).map_or(host.as_str(), String::as_str);
    Refusal::new(
        format!("host {name} was cordoned, or moved to another environment, while the run was planned"),
        "look at it with `fracas hosts`, then start the run again",
    )
}

/// Another run has drawn the host since this one did.
fn taken(claimed: &Claimed, names: &BTreeMap<HostId, String>) -> Refusal {
    let (host, run) = (names.get(&claimed.host).map_or(claimed.host.as_str(), String::as_str), &claimed.run);
    Refusal::new(
        format!("run {run} has host {host} for a fault"),
        format!("wait for its end (`fracas watch {run}`), or stop it (`fracas stop {run}`)"),
    )
}

/// What a host refused, with the entry and the host it is about.
fn attributed(rehearsal: &Rehearsal, drawn: &Drawn) -> Vec<Refusal> {
    let host = drawn.names.get(&rehearsal.item.host).cloned().unwrap_or_else(|| rehearsal.item.host.to_string());
    let of = |refusal: &Refusal| {
        Refusal::new(format!("{} on {host}: {}", rehearsal.item.entry, refusal.why), refusal.instead.clone())
    };
    rehearsal.refusals.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
