//! Runs, their histories and reports, and the halt on the wire.

use std::{collections::BTreeSet, time::Duration};

use fracas_model::{
    access::{self, Right},
    event::{Body, Event},
    id::RunId,
    plan::Refusal,
    report,
};
use fracas_proto::{
    to_json,
    v1::{
        GetReportReply, HaltReply, HistoryEvent, ListRunsReply, ListRunsRequest, PlanReply, PlanRequest, RunSummary,
        StartRunReply, StartRunRequest, StopRunReply, StopRunRequest, WatchRunRequest, operator_server,
    },
};
use tokio::sync::watch;
use tonic::{Response, Status};

use super::{Act, Api, MAX_SOURCE, Reply, environment, status};
use crate::{
    access::Principal,
    driver::stream_of,
    history::{History, HistoryError},
    people::People,
    runs::{self, RunError},
    store::{RunIndex, Stored},
};

/// Events sent at once to somebody who watches.
const PAGE: usize = 256;
/// Runs listed when no limit is given, and the most that are listed.
const LISTED: (u32, u32) = (50, 1000);
/// How long a halt waits for the histories of its runs before the hosts are told.
/// At the latest so often it is looked whether somebody who watches still may.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const HALT_HEAD_START: Duration = Duration::from_millis(200);

impl Api {
    /// The run of this id, prefix or `last`, among those that the caller may see: the others are not there.
    pub(super) async fn find(&self, by: &Principal, run: &str) -> Result<(RunIndex, u64), Status> {
        let mut found = match run {
            "last" => self.seen_runs(by, 1).await?,
            "" => return Err(Status::invalid_argument("name a run: an id, a unique prefix of one, or `last`")),
            prefix => self.history.store().run_prefix(prefix).await.map_err(|e| status(&e.into()))?,
        };
        found.retain(|(row, _)| by.grants.allow(Right::View, &row.environment));
        match found.len() {
            0 => Err(Status::not_found(format!("no run `{run}` here: `fracas runs` lists them"))),
            1 => Ok(found.remove(0)),
            n => Err(Status::invalid_argument(format!("`{run}` is the start of {n} run ids: write more of it"))),
        }
    }

    /// The same, recorded as a look.
    async fn look_up(&self, by: &Principal, method: &'static str, run: &str) -> Result<(RunIndex, u64), Status> {
        let found = match self.find(by, run).await {
            Ok(found) => found,
            Err(why) => return Err(self.missing(by, method, run, why).await),
        };
        let row = &found.0;
        let act = Act { method, needs: &[Right::View], environment: &row.environment, about: row.run.as_str() };
        self.sees(by, act).await?;
        Ok(found)
    }

    /// The newest runs that the caller may see.
    pub(super) async fn seen_runs(&self, by: &Principal, limit: usize) -> Result<Vec<(RunIndex, u64)>, Status> {
        let (store, seen) = (self.history.store(), by.grants.environments(Right::View));
        let rows = if seen.contains(access::EVERYWHERE) {
            store.runs(limit).await
        } else {
            store.runs_in(seen.into_iter().map(str::to_owned).collect(), limit).await
        };
        rows.map_err(|e| status(&e.into()))
    }

    pub(super) async fn plan_of(&self, by: &Principal, wire: PlanRequest) -> Reply<PlanReply> {
        let asked = StartRunRequest {
            source: wire.source,
            source_name: wire.source_name,
            parameters: wire.parameters,
            seed: wire.seed,
            environment: wire.environment,
            idempotency_key: String::new(),
            files: wire.files,
        };
        let asked = asked_for(asked, by)?;
        let runs = by.grants.allow(Right::Run, &asked.environment);
        let needs: &[Right] = if runs { &[Right::Run] } else { &[Right::Design] };
        let act = Act { method: "Plan", needs, environment: &asked.environment, about: &asked.source_name };
        self.may(by, act).await?;
        let planned = self.runs.plan(&asked).await.map_err(|e| refused(&e))?;
        Ok(Response::new(PlanReply { plan_json: to_json(&planned) }))
    }

    pub(super) async fn start(&self, by: &Principal, wire: StartRunRequest) -> Reply<StartRunReply> {
        let mut asked = asked_for(wire, by)?;
        asked.approved_only = !by.grants.allow(Right::Design, &asked.environment);
        let act = Act {
            method: "StartRun",
            needs: &[Right::Run],
            environment: &asked.environment,
            about: &asked.source_name,
        };
        self.may(by, act.clone()).await?;
        match self.runs.start(&asked).await {
            Ok(run) => Ok(Response::new(StartRunReply { run: run.to_string() })),
            Err(error) => {
                let why = refused(&error);
                self.turned_down(by, act, &why).await;
                Err(why)
            }
        }
    }

    /// Whoever is signed in may end harm, also where they may not look.
    pub(super) async fn stop(&self, by: &Principal, wire: StopRunRequest) -> Reply<StopRunReply> {
        let anybody = Principal { grants: access::Grants::all(), ..by.clone() };
        // `last` is theirs: nobody means a run that they have not seen.
        let who = if wire.run == "last" { by } else { &anybody };
        let (found, _) = match self.find(who, &wire.run).await {
            Ok(found) => found,
            Err(why) => return Err(self.missing(by, "StopRun", &wire.run, why).await),
        };
        let act = Act { method: "StopRun", needs: &[], environment: &found.environment, about: found.run.as_str() };
        self.may(by, act).await?;
        if found.state == "finished" {
            return Ok(Response::new(StopRunReply { ended: true, verdict: found.verdict, run: found.run.to_string() }));
        }
        let reason = if wire.reason.is_empty() { "no reason given".to_owned() } else { wire.reason };
        self.runs.stop(&found.run, &by.id, &reason).await.map_err(|e| status(&e))?;
        Ok(Response::new(StopRunReply { run: found.run.to_string(), ..StopRunReply::default() }))
    }

    /// Whoever is signed in may.
    pub(super) async fn halt_all(&self, by: &Principal, reason: String) -> Reply<HaltReply> {
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
        let halted = Body::Halted { by: by.id.clone(), reason, at: self.history.now() };
        self.history.append(self.audit.stream(), vec![halted]).await.map_err(unrecorded)?;
        Ok(Response::new(HaltReply { halted: true, runs }))
    }

    pub(super) async fn clear(&self, by: &Principal, reason: String) -> Reply<HaltReply> {
        let act = Act { method: "ClearHalt", needs: &[Right::Govern], environment: access::EVERYWHERE, about: "" };
        self.may(by, act).await?;
        let by = by.id.clone();
        self.append_audit(Body::HaltCleared { by, reason, at: self.history.now() }).await?;
        self.fleet.halt(None);
        Ok(Response::new(HaltReply { halted: false, runs: Vec::new() }))
    }

    pub(super) async fn listed_runs(&self, by: &Principal, wire: &ListRunsRequest) -> Reply<ListRunsReply> {
        let act = Act { method: "ListRuns", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let limit = match wire.limit {
            0 => LISTED.0,
            asked => asked.min(LISTED.1),
        };
        let rows = self.seen_runs(by, limit as usize).await?;
        Ok(Response::new(ListRunsReply { runs: rows.into_iter().map(|(row, head)| summary(row, head)).collect() }))
    }

    pub(super) async fn shown_run(&self, by: &Principal, run: &str) -> Reply<RunSummary> {
        let (row, head) = self.look_up(by, "GetRun", run).await?;
        Ok(Response::new(summary(row, head)))
    }

    pub(super) async fn watched(
        &self,
        by: Principal,
        wire: WatchRunRequest,
    ) -> Reply<<Self as operator_server::Operator>::WatchRunStream> {
        let (row, _) = self.look_up(&by, "WatchRun", &wire.run).await?;
        let stream = stream_of(&row.run);
        let heads = self.history.subscribe(&stream).await.map_err(|e| status(&e))?;
        let (history, people) = (self.history.clone(), self.people.clone());
        let rights = people.changes();
        let watching = Watching { history, people, by, rights, stream, heads, after: wire.after, ended: false };
        let pages = futures_util::stream::unfold(watching, Watching::next_page);
        Ok(Response::new(Box::pin(futures_util::StreamExt::flat_map(pages, futures_util::stream::iter))))
    }

    pub(super) async fn report_of(&self, by: &Principal, run: &str) -> Reply<GetReportReply> {
        let (row, _) = self.look_up(by, "GetReport", run).await?;
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
}

struct Watching {
    history: History,
    people: People,
    by: Principal,
    rights: watch::Receiver<()>,
    stream: String,
    heads: watch::Receiver<u64>,
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
            if !self.people.stands(&self.by) {
                self.ended = true;
                let why = "the token is not good any more, or what its owner may has changed: sign in again";
                return Some((vec![Err(Status::unauthenticated(why))], self));
            }
            if records.is_empty() {
                let next = expiry(&self.people, &self.by);
                tokio::select! {
                    moved = self.heads.changed() => self.ended = moved.is_err(),
                    _ = self.rights.changed() => {}
                    () = next => {}
                }
                continue;
            }
            self.after = records.last().map_or(self.after, |record| record.seq);
            self.ended = records.last().is_some_and(sealed);
            let event = |r: Stored| HistoryEvent { seq: r.seq, stored: r.stored, hash: r.hash.to_vec() };
            return Some((records.into_iter().map(event).map(Ok).collect(), self));
        }
        None
    }
}

/// Whether this is the last record a run can have.
fn sealed(record: &Stored) -> bool {
    serde_json::from_slice::<Event>(&record.stored).is_ok_and(|e| matches!(e.body, Body::ReportSealed { .. }))
}

fn sealed_digest(event: &Event) -> Option<&str> {
    match &event.body {
        Body::ReportSealed { digest, .. } => Some(digest),
        _ => None,
    }
}

/// A caller's key means that caller's run there and no other's, nor that of a schedule.
fn own_key(key: &str, by: &Principal, environment: &str) -> String {
    if key.is_empty() { String::new() } else { format!("call/{}/{environment}/{key}", by.id) }
}

pub(super) fn asked_for(wire: StartRunRequest, by: &Principal) -> Result<runs::Request, Status> {
    if wire.source.len() + super::size(&wire.files) > MAX_SOURCE {
        return Err(Status::invalid_argument("the document, with the files it names, is larger than 1 MiB"));
    }
    Ok(runs::Request {
        source: wire.source,
        source_name: wire.source_name,
        files: wire.files.into_iter().collect(),
        parameters: wire.parameters.into_iter().collect(),
        seed: wire.seed,
        environment: environment(&wire.environment)?,
        by: by.id.clone(),
        idempotency_key: own_key(&wire.idempotency_key, by, &wire.environment),
        approved_only: false,
        drawn_anew: false,
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
pub(super) fn refused(error: &RunError) -> Status {
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

/// The end of the caller's token, or a while.
async fn expiry(people: &People, by: &Principal) {
    let left = people.expires_in(by).unwrap_or(LOOK_AGAIN);
    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
}
