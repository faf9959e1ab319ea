//! The Operator service: wire to model and back, after checking who calls. It decides nothing.

mod keep;
mod schedules;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use fracas_model::{
    event::{Body, Event},
    id::{HostId, RunId},
    plan::Refusal,
    report,
    selector::Selector,
};
use fracas_proto::{
    to_json,
    v1::{
        BackupPiece, BackupRequest, ForgetHostReply, GetCatalogueReply, GetCatalogueRequest, GetHeadsReply,
        GetHeadsRequest, GetReportReply, GetReportRequest, GetRunRequest, GetScheduleReply, GetScheduleRequest,
        HaltReply, HaltRequest, HistoryEvent, Host, HostRequest, KeptStream, LabelHostRequest, ListHostsReply,
        ListHostsRequest, ListRunsReply, ListRunsRequest, ListSchedulesReply, ListSchedulesRequest, ListStreamsRequest,
        MakeJoinTokenReply, MakeJoinTokenRequest, PlanReply, PlanRequest, PruneReply, PruneRequest, ReadRecordsRequest,
        Record, RunSummary, Schedule, ScheduleRequest, SetScheduleRequest, StartRunReply, StartRunRequest,
        StopRunReply, StopRunRequest, WatchRunRequest, operator_server,
    },
};
use futures_util::Stream;
use tonic::{Request, Response, Status};

use crate::{
    access::Principal,
    driver::{stream_of, stream_of_host},
    enrol::Gate,
    fleet::Fleet,
    history::{History, HistoryError},
    keep::Keeper,
    runs::{self, RunError, Runs},
    schedules::Schedules,
    store::{RunIndex, StoreError},
};

/// Events sent at once to somebody who watches.
const PAGE: usize = 256;
/// Runs listed when no limit is given, and the most that are listed.
const LISTED: (u32, u32) = (50, 1000);
/// Longest source text taken, bytes (the parser's own limit).
const MAX_SOURCE: usize = 1 << 20;

/// How long a halt waits for the histories of its runs before the hosts are told.
const HALT_HEAD_START: Duration = Duration::from_millis(200);
/// Life of a join token when none is asked for, and the longest, seconds.
const TOKEN_SECONDS: (u32, u32) = (1800, 30 * 86_400);

/// The service.
#[derive(Clone)]
pub struct Api {
    runs: Runs,
    schedules: Schedules,
    history: History,
    fleet: Fleet,
    audit: String,
    gate: Arc<dyn Gate>,
    keeper: Option<Arc<Keeper>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// A service over the controller's parts; `audit` is its audit stream.
    pub fn new(
        runs: Runs,
        schedules: Schedules,
        history: History,
        fleet: Fleet,
        audit: String,
        gate: Arc<dyn Gate>,
    ) -> Self {
        Self { runs, schedules, history, fleet, audit, gate, keeper: None }
    }

    /// The same over a history that somebody keeps; without, nothing is signed, pruned or copied.
    #[must_use]
    pub fn kept_by(self, keeper: Option<Arc<Keeper>>) -> Self {
        Self { keeper, ..self }
    }

    async fn find(&self, run: &str) -> Result<(RunIndex, u64), Status> {
        let store = self.history.store();
        let mut found = match run {
            "last" => store.runs(1).await,
            "" => return Err(Status::invalid_argument("name a run: an id, a unique prefix of one, or `last`")),
            prefix => store.run_prefix(prefix).await,
        }
        .map_err(|e| status(&e.into()))?;
        match found.len() {
            0 => Err(Status::not_found(format!("no run `{run}` here: `fracas runs` lists them"))),
            1 => Ok(found.remove(0)),
            n => Err(Status::invalid_argument(format!("`{run}` is the start of {n} run ids: write more of it"))),
        }
    }

    async fn append_audit(&self, body: Body) -> Result<(), Status> {
        self.history.append(&self.audit, vec![body]).await.map(drop).map_err(|e| status(&e))
    }

    async fn called(&self, by: &Principal, method: &str, environment: &str) -> Result<(), Status> {
        let environment = if environment.is_empty() { "default" } else { environment }.to_owned();
        let (by, method, at) = (by.id.clone(), method.to_owned(), self.history.now());
        self.append_audit(Body::Called { by, method, environment, refused: None, at }).await
    }

    fn host_view(&self, id: &HostId, record: &crate::fleet::HostRecord) -> Host {
        Host {
            id: id.to_string(),
            name: record.name.clone(),
            connected: record.connected,
            labels: record.all_labels().into_iter().collect(),
            facts_json: record.facts.as_ref().map(to_json).unwrap_or_default(),
            last_seen_wall_ns: record.last_seen.as_ref().map_or(0, |at| at.wall_ns),
            runs: self.fleet.runs_on(id).iter().map(ToString::to_string).collect(),
            quarantined: record.quarantined.as_ref().map_or_else(|| record.trouble.clone(), ToString::to_string),
            observer: record.observer,
        }
    }

    fn host_reply(&self, id: &HostId) -> Reply<Host> {
        let hosts = self.fleet.hosts();
        let record = hosts.get(id).ok_or_else(|| Status::not_found("the host is gone"))?;
        Ok(Response::new(self.host_view(id, record)))
    }

    fn find_host(&self, host: &str) -> Result<HostId, Status> {
        let hosts = self.fleet.hosts();
        let fits = |(id, record): &(&HostId, &crate::fleet::HostRecord)| {
            record.name == host || (!host.is_empty() && id.as_str().starts_with(host))
        };
        let mut found = hosts.iter().filter(fits).map(|(id, _)| id.clone());
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Status::not_found(format!("no host `{host}`: `fracas hosts` lists them"))),
            _ => Err(Status::invalid_argument(format!("`{host}` names several hosts: use the id"))),
        }
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl operator_server::Operator for Api {
    async fn plan(&self, request: Request<PlanRequest>) -> Reply<PlanReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        let asked = StartRunRequest {
            source: wire.source,
            source_name: wire.source_name,
            parameters: wire.parameters,
            seed: wire.seed,
            environment: wire.environment,
            idempotency_key: String::new(),
        };
        let planned = self.runs.plan(&asked_for(asked, by)?).await.map_err(|e| refused(&e))?;
        Ok(Response::new(PlanReply { plan_json: to_json(&planned) }))
    }

    async fn start_run(&self, request: Request<StartRunRequest>) -> Reply<StartRunReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "StartRun", &wire.environment).await?;
        let run = self.runs.start(&asked_for(wire, by)?).await.map_err(|e| refused(&e))?;
        Ok(Response::new(StartRunReply { run: run.to_string() }))
    }

    async fn stop_run(&self, request: Request<StopRunRequest>) -> Reply<StopRunReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "StopRun", "").await?;
        let (found, _) = self.find(&wire.run).await?;
        if found.state == "finished" {
            return Ok(Response::new(StopRunReply { ended: true, verdict: found.verdict }));
        }
        let reason = if wire.reason.is_empty() { "no reason given".to_owned() } else { wire.reason };
        self.runs.stop(&found.run, &by.id, &reason).await.map_err(|e| status(&e))?;
        Ok(Response::new(StopRunReply::default()))
    }

    async fn halt(&self, request: Request<HaltRequest>) -> Reply<HaltReply> {
        let by = principal(&request)?;
        let reason = request.into_inner().reason;
        let stop = |run: RunId| {
            let (by, why) = (format!("halt:{}", by.id), format!("halted by {}: {reason}", by.id));
            async move { self.runs.stop(&run, &by, &why).await }
        };
        let before = self.runs.active();
        let mut stops = Box::pin(futures_util::future::try_join_all(before.iter().cloned().map(stop)));
        // The runs should know why their faults end before their hosts report it. But a halt must work even when the
        // history cannot be written, so the hosts do not wait for long.
        let early = tokio::time::timeout(HALT_HEAD_START, &mut stops).await.ok();
        self.fleet.halt(Some(reason.clone()));
        let unrecorded = |error: HistoryError| {
            let text = format!(
                "nothing is desired of any host any more, but the halt could not be recorded and ends with this \
                 controller process: {error}; then say it again"
            );
            Status::new(status(&error).code(), text)
        };
        match early {
            Some(stopped) => stopped,
            None => stops.await,
        }
        .map_err(unrecorded)?;
        // From the latch on none can start; some may have started just before.
        self.runs.settle_starts().await;
        let active = self.runs.active();
        for run in active.iter().filter(|run| !before.contains(run)) {
            stop(run.clone()).await.map_err(unrecorded)?;
        }
        let ended: BTreeSet<&RunId> = before.iter().chain(&active).collect();
        let runs = ended.into_iter().map(ToString::to_string).collect();
        let halted = Body::Halted { by: by.id, reason, at: self.history.now() };
        self.history.append(&self.audit, vec![halted]).await.map_err(unrecorded)?;
        Ok(Response::new(HaltReply { halted: true, runs }))
    }

    async fn clear_halt(&self, request: Request<HaltRequest>) -> Reply<HaltReply> {
        let by = principal(&request)?;
        let reason = request.into_inner().reason;
        let api = self.clone();
        carried_through(async move {
            api.append_audit(Body::HaltCleared { by: by.id, reason, at: api.history.now() }).await?;
            api.fleet.halt(None);
            Ok(Response::new(HaltReply { halted: false, runs: Vec::new() }))
        })
        .await
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Reply<ListRunsReply> {
        principal(&request)?;
        let limit = match request.into_inner().limit {
            0 => LISTED.0,
            asked => asked.min(LISTED.1),
        };
        let rows = self.history.store().runs(limit as usize).await.map_err(|e| status(&e.into()))?;
        Ok(Response::new(ListRunsReply { runs: rows.into_iter().map(|(row, head)| summary(row, head)).collect() }))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Reply<RunSummary> {
        principal(&request)?;
        let (row, head) = self.find(&request.into_inner().run).await?;
        Ok(Response::new(summary(row, head)))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<HistoryEvent, Status>> + Send>>;

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Reply<Self::WatchRunStream> {
        principal(&request)?;
        let wire = request.into_inner();
        let (row, _) = self.find(&wire.run).await?;
        let stream = stream_of(&row.run);
        let heads = self.history.subscribe(&stream).await.map_err(|e| status(&e))?;
        let watching = Watching { history: self.history.clone(), stream, heads, after: wire.after, ended: false };
        let pages = futures_util::stream::unfold(watching, Watching::next_page);
        Ok(Response::new(Box::pin(futures_util::StreamExt::flat_map(pages, futures_util::stream::iter))))
    }

    async fn get_report(&self, request: Request<GetReportRequest>) -> Reply<GetReportReply> {
        principal(&request)?;
        let (row, _) = self.find(&request.into_inner().run).await?;
        let events = self.history.read(&stream_of(&row.run), 0).await.map_err(|e| status(&e))?;
        if let Some(digest) = events.iter().find_map(sealed_digest) {
            // The very bytes that the history vouches for.
            let bytes = self.history.blob(digest).await.map_err(|e| status(&e))?;
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            let gone = || {
                let why = format!("the report of run {} is missing: run `fracas controller verify`", row.run);
                Status::data_loss(why)
            };
            return Ok(Response::new(GetReportReply { report_json: text.ok_or_else(gone)?, r#final: true }));
        }
        let blobs = crate::driver::blobs(&self.history, &events).await.map_err(|e| status(&e))?;
        let report = report::build(&events, &blobs);
        Ok(Response::new(GetReportReply { report_json: to_json(&report), r#final: false }))
    }

    async fn list_hosts(&self, request: Request<ListHostsRequest>) -> Reply<ListHostsReply> {
        principal(&request)?;
        let text = request.into_inner().selector;
        let selector = if text.trim().is_empty() { None } else { Some(text.parse::<Selector>()) };
        let selector = selector.transpose().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let hosts = self.fleet.hosts();
        let matching =
            hosts.iter().filter(|(_, record)| selector.as_ref().is_none_or(|s| s.matches(&record.all_labels())));
        Ok(Response::new(ListHostsReply { hosts: matching.map(|(id, r)| self.host_view(id, r)).collect() }))
    }

    async fn label_host(&self, request: Request<LabelHostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        let id = self.find_host(&wire.host)?;
        let labels: BTreeMap<String, String> = wire.set.into_iter().collect();
        settable(labels.keys().chain(&wire.remove))?;
        valid(&labels)?;
        let set = labels;
        let mut labels = self.fleet.hosts().get(&id).map(|record| record.labels.clone()).unwrap_or_default();
        labels.extend(set);
        labels.retain(|key, _| !wire.remove.contains(key));
        let body = Body::HostLabelled { labels: labels.clone(), by: by.id, at: self.history.now() };
        let api = self.clone();
        carried_through(async move {
            api.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
            api.fleet.record(&id, |record| record.labels = labels);
            api.host_reply(&id)
        })
        .await
    }

    async fn forget_host(&self, request: Request<HostRequest>) -> Reply<ForgetHostReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "ForgetHost", "").await?;
        let (id, reason) = (self.find_host(&wire.host)?, reasoned(wire.reason)?);
        let name = self.fleet.hosts().get(&id).map(|record| record.name.clone()).unwrap_or_default();
        let api = self.clone();
        carried_through(async move {
            api.fleet.forget_host(&id).map_err(|e| Status::failed_precondition(e.to_string()))?;
            let body = Body::HostForgotten { by: by.id, reason, at: api.history.now() };
            if let Err(error) = api.history.append(&stream_of_host(&id), vec![body]).await {
                api.fleet.keep_host(&id);
                return Err(status(&error));
            }
            api.fleet.drop_host(&id);
            tracing::info!(host = %id, name, "host forgotten");
            Ok(Response::new(ForgetHostReply { id: id.to_string(), name }))
        })
        .await
    }

    async fn write_off_host(&self, request: Request<HostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "WriteOffHost", "").await?;
        let (id, reason) = (self.find_host(&wire.host)?, reasoned(wire.reason)?);
        let record = self.fleet.hosts().remove(&id).unwrap_or_default();
        let quarantined = record.quarantined.clone();
        if quarantined.is_none() {
            return Err(Status::failed_precondition(match record.distrust() {
                // Not for anybody's word: the agent itself takes no orders.
                Some(why) => format!("host {} cannot be written off from here: {why}", wire.host),
                None => format!("host {} is not quarantined", wire.host),
            }));
        }
        let why = format!("written off by {}: {reason}", by.id);
        let api = self.clone();
        carried_through(async move {
            let body = Body::HostReleased { why, at: api.history.now() };
            api.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
            api.fleet.record(&id, |record| record.quarantined = None);
            tracing::warn!(host = %id, run = ?quarantined, "quarantine ended on the word of a person");
            api.host_reply(&id)
        })
        .await
    }

    async fn make_join_token(&self, request: Request<MakeJoinTokenRequest>) -> Reply<MakeJoinTokenReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        let labels: BTreeMap<String, String> = wire.labels.into_iter().collect();
        settable(labels.keys())?;
        valid(&labels)?;
        let ttl = match wire.ttl_seconds {
            0 => TOKEN_SECONDS.0,
            asked => asked.min(TOKEN_SECONDS.1),
        };
        let made = self.gate.make(ttl, labels, &by.id).await.map_err(|e| status(&e))?;
        Ok(Response::new(MakeJoinTokenReply { token: made.text, expires_wall_ns: made.expires_wall_ns }))
    }

    async fn set_schedule(&self, request: Request<SetScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "SetSchedule", &wire.environment).await?;
        self.set(wire, by).await
    }

    async fn list_schedules(&self, request: Request<ListSchedulesRequest>) -> Reply<ListSchedulesReply> {
        principal(&request)?;
        Ok(Response::new(self.listed()))
    }

    async fn get_schedule(&self, request: Request<GetScheduleRequest>) -> Reply<GetScheduleReply> {
        principal(&request)?;
        self.shown(request.into_inner()).await
    }

    async fn pause_schedule(&self, request: Request<ScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "PauseSchedule", "").await?;
        let paused = self.schedules.pause(&wire.name, reasoned(wire.reason)?, by.id).await;
        self.changed(paused)
    }

    async fn resume_schedule(&self, request: Request<ScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "ResumeSchedule", "").await?;
        let resumed = self.schedules.unpause(&wire.name, by.id).await;
        self.changed(resumed)
    }

    async fn remove_schedule(&self, request: Request<ScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.called(&by, "RemoveSchedule", "").await?;
        let removed = self.schedules.remove(&wire.name, reasoned(wire.reason)?, by.id).await;
        self.changed(removed)
    }

    async fn get_catalogue(&self, request: Request<GetCatalogueRequest>) -> Reply<GetCatalogueReply> {
        principal(&request)?;
        Ok(Response::new(GetCatalogueReply { catalogue_json: to_json(&self.fleet.catalogue()) }))
    }

    type ListStreamsStream = keep::Streamed<KeptStream>;

    async fn list_streams(&self, request: Request<ListStreamsRequest>) -> Reply<Self::ListStreamsStream> {
        principal(&request)?;
        self.streams(request.into_inner()).await
    }

    type ReadRecordsStream = keep::Streamed<Record>;

    async fn read_records(&self, request: Request<ReadRecordsRequest>) -> Reply<Self::ReadRecordsStream> {
        principal(&request)?;
        self.records(request.into_inner()).await
    }

    async fn get_heads(&self, request: Request<GetHeadsRequest>) -> Reply<GetHeadsReply> {
        principal(&request)?;
        self.heads(&request.into_inner())
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Reply<PruneReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        if !wire.dry_run {
            self.called(&by, "Prune", "").await?;
        }
        self.pruned(wire, by).await
    }

    type BackupStream = keep::Streamed<BackupPiece>;

    async fn backup(&self, request: Request<BackupRequest>) -> Reply<Self::BackupStream> {
        let by = principal(&request)?;
        self.called(&by, "Backup", "").await?;
        self.backed_up(&request.into_inner(), &by).await
    }
}

struct Watching {
    history: History,
    stream: String,
    heads: tokio::sync::watch::Receiver<u64>,
    after: u64,
    ended: bool,
}

type Page = Vec<Result<HistoryEvent, Status>>;

impl Watching {
    async fn next_page(mut self) -> Option<(Page, Self)> {
        while !self.ended {
            self.heads.borrow_and_update();
            let records = match self.history.read_stored(&self.stream, self.after, PAGE).await {
                Ok(records) => records,
                Err(error) => {
                    self.ended = true;
                    return Some((vec![Err(status(&error))], self));
                }
            };
            if records.is_empty() {
                self.ended = self.heads.changed().await.is_err();
                continue;
            }
            self.after = records.last().map_or(self.after, |record| record.seq);
            self.ended = records.last().is_some_and(sealed);
            let event = |r: crate::store::Stored| HistoryEvent { seq: r.seq, stored: r.stored, hash: r.hash.to_vec() };
            return Some((records.into_iter().map(event).map(Ok).collect(), self));
        }
        None
    }
}

/// Carries something through whether or not the caller waits for it: between a commit and the change in memory that goes
/// with it nobody may leave.
async fn carried_through<T: Send + 'static>(work: impl Future<Output = Reply<T>> + Send + 'static) -> Reply<T> {
    match tokio::spawn(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(bug)) => std::panic::resume_unwind(bug),
        Err(Err(_)) => Err(Status::unavailable("the controller is shutting down")),
    }
}

fn reasoned(reason: String) -> Result<String, Status> {
    if reason.trim().is_empty() {
        return Err(Status::invalid_argument("a reason is needed, for the history"));
    }
    Ok(reason)
}

/// Whether this is the last record a run can have.
fn sealed(record: &crate::store::Stored) -> bool {
    serde_json::from_slice::<Event>(&record.stored).is_ok_and(|e| matches!(e.body, Body::ReportSealed { .. }))
}

fn sealed_digest(event: &Event) -> Option<&str> {
    match &event.body {
        Body::ReportSealed { digest, .. } => Some(digest),
        _ => None,
    }
}

/// Labels under these prefixes are not for operators to set.
fn settable<'a>(mut keys: impl Iterator<Item = &'a String>) -> Result<(), Status> {
    match keys.find(|key| key.starts_with("fact/") || key.starts_with("fracas/")) {
        None => Ok(()),
        Some(key) => {
            let whose = if key.starts_with("fact/") { "the agent's own" } else { "the controller's own" };
            Err(Status::invalid_argument(format!("label {key} is {whose}: choose a name without that prefix")))
        }
    }
}

/// Whether every label could be selected.
fn valid(labels: &BTreeMap<String, String>) -> Result<(), Status> {
    for (key, value) in labels {
        format!("{key}={value}")
            .parse::<Selector>()
            .map_err(|e| Status::invalid_argument(format!("label {key}={value}: {e}")))?;
    }
    Ok(())
}

fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    let known = request.extensions().get::<Principal>().cloned();
    known
        .ok_or_else(|| Status::unauthenticated("no valid token came with the call: send `authorization: Bearer TOKEN`"))
}

fn asked_for(wire: StartRunRequest, by: Principal) -> Result<runs::Request, Status> {
    if wire.source.len() > MAX_SOURCE {
        return Err(Status::invalid_argument("the document is larger than 1 MiB"));
    }
    Ok(runs::Request {
        source: wire.source,
        source_name: wire.source_name,
        parameters: wire.parameters.into_iter().collect(),
        seed: wire.seed,
        environment: if wire.environment.is_empty() { "default".into() } else { wire.environment },
        by: by.id,
        idempotency_key: wire.idempotency_key,
    })
}

fn summary(row: RunIndex, head_seq: u64) -> RunSummary {
    RunSummary {
        run: row.run.to_string(),
        name: row.name,
        state: row.state,
        verdict: row.verdict,
        exit_code: row.exit_code.into(),
        reason: row.reason,
        started_wall_ns: row.started_wall_ns,
        ended_wall_ns: row.ended_wall_ns.unwrap_or(0),
        by: row.by,
        environment: row.environment,
        head_seq,
    }
}

/// Document errors and refusals travel whole, as JSON in the status details, so that the CLI can show them as its own.
fn refused(error: &RunError) -> Status {
    match error {
        RunError::Document(diagnostics) => {
            let text = diagnostics.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("\n");
            Status::with_details(tonic::Code::InvalidArgument, text, to_json(diagnostics).into_bytes().into())
        }
        RunError::Refused(refusals) => {
            let text = refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n");
            Status::with_details(tonic::Code::FailedPrecondition, text, to_json(refusals).into_bytes().into())
        }
        RunError::History(error) => status(error),
    }
}

/// What may pass is told apart from what will not: nobody should try that again for ever.
fn status(error: &HistoryError) -> Status {
    let text = error.to_string();
    match error {
        HistoryError::Unreadable { .. } | HistoryError::Unsummed { .. } => Status::data_loss(text),
        HistoryError::Closed { .. } => Status::failed_precondition(text),
        HistoryError::BadReport { .. } => Status::invalid_argument(text),
        HistoryError::Store(error) => match error {
            StoreError::Full { .. } => Status::resource_exhausted(text),
            StoreError::Damaged { .. } | StoreError::Foreign { .. } | StoreError::Newer { .. } => {
                Status::data_loss(text)
            }
            StoreError::Fenced { .. } | StoreError::KeyTaken { .. } => Status::failed_precondition(text),
            StoreError::Conflict { .. } | StoreError::Failed { .. } | StoreError::Closed => Status::unavailable(text),
        },
    }
}

#[cfg(test)]
mod tests;
