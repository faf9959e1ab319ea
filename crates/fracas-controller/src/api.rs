//! The Operator service: who calls, whether they may, and from wire to model and back. It decides nothing else.
//!
//! ```text
//! token -> principal -> (right, environment)? -> recorded, refused or not -> done
//! ```

mod approvals;
mod decide;
mod entrance;
mod feeds;
mod guard;
mod hosts;
mod keep;
mod marks;
mod notices;
mod people;
mod results;
mod runs;
mod schedules;

use std::{collections::HashMap, pin::Pin, sync::Arc};

pub use self::entrance::Entrance;
use fracas_model::{
    access::{self, Right},
    event::Body,
};
use fracas_proto::{
    to_json,
    v1::{
        AddPersonRequest, Approval, ApproveRequest, AskApprovalRequest, BackupPiece, BackupRequest, CordonHostReply,
        CordonHostRequest, DecideReply, DecideRequest, Feed, ForgetHostReply, GetApprovalRequest, GetCatalogueReply,
        GetCatalogueRequest, GetGuardRailsRequest, GetHeadsReply, GetHeadsRequest, GetReportReply, GetReportRequest,
        GetRunRequest, GetScheduleReply, GetScheduleRequest, GuardRails, HaltReply, HaltRequest, HistoryEvent, Host,
        HostRequest, KeptStream, LabelHostRequest, ListAccessTokensReply, ListAccessTokensRequest, ListApprovalsReply,
        ListApprovalsRequest, ListFeedsReply, ListFeedsRequest, ListHostsReply, ListHostsRequest,
        ListNotificationsReply, ListNotificationsRequest, ListPeopleReply, ListPeopleRequest, ListResultsReply,
        ListResultsRequest, ListRunsReply, ListRunsRequest, ListSchedulesReply, ListSchedulesRequest,
        ListStreamsRequest, MakeAccessTokenReply, MakeAccessTokenRequest, MakeFeedReply, MakeFeedRequest,
        MakeJoinTokenReply, MakeJoinTokenRequest, MarkReply, MarkRequest, MoveHostRequest, Person, PlanReply,
        PlanRequest, PruneReply, PruneRequest, ReadRecordsRequest, Record, RejectRequest, RemovePersonRequest,
        RevokeAccessTokenReply, RevokeAccessTokenRequest, RevokeFeedRequest, RunSummary, Schedule, ScheduleRequest,
        SetGuardRailsRequest, SetRoleRequest, SetScheduleRequest, StartRunReply, StartRunRequest, StopRunReply,
        StopRunRequest, TestNotificationReply, TestNotificationRequest, WatchRunRequest, WhoAmIRequest,
        WithdrawRequest, operator_server,
    },
};
use futures_util::Stream;
use tonic::{Request, Response, Status};

use crate::{
    access::Principal,
    approvals::Approvals,
    audit::{Audit, Call},
    enrol::Gate,
    feeds::{self as links, Feeds},
    fleet::Fleet,
    history::{History, HistoryError},
    keep::Keeper,
    notify::Notices,
    people::People,
    results::Results,
    runs::Runs,
    schedules::Schedules,
    store::StoreError,
};

/// Longest source text taken, bytes (the parser's own limit).
const MAX_SOURCE: usize = 1 << 20;

/// The parts of a controller that the service speaks for.
#[derive(Clone)]
pub struct Parts {
    /// Runs.
    pub runs: Runs,
    /// Schedules.
    pub schedules: Schedules,
    /// Channels that are told what happens.
    pub notices: Notices,
    /// Links for calendar programs.
    pub feeds: Feeds,
    /// The history.
    pub history: History,
    /// Hosts.
    pub fleet: Fleet,
    /// Where calls are recorded.
    pub audit: Audit,
    /// Who may call.
    pub people: People,
    /// Who has agreed to what.
    pub approvals: Approvals,
    /// Lets hosts in.
    pub gate: Arc<dyn Gate>,
    /// Keeps the history; without, nothing is signed, pruned or copied.
    pub keeper: Option<Arc<Keeper>>,
}

/// The service.
#[derive(Clone)]
pub struct Api {
    runs: Runs,
    schedules: Schedules,
    notices: Notices,
    feeds: Feeds,
    history: History,
    fleet: Fleet,
    audit: Audit,
    people: People,
    approvals: Approvals,
    gate: Arc<dyn Gate>,
    keeper: Option<Arc<Keeper>>,
    results: Results,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// What a call does, for the decision whether it may and for the record.
#[derive(Clone, Debug)]
struct Act<'a> {
    method: &'static str,
    /// All of them; none: whoever is signed in may.
    needs: &'a [Right],
    /// [`access::EVERYWHERE`]: what it does concerns the whole controller.
    environment: &'a str,
    about: &'a str,
}

impl Api {
    /// A service over the controller's parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { runs, schedules, notices, feeds, history, fleet, audit, people, approvals, gate, keeper } = parts;
        let results = Results::new(history.clone());
        Self { runs, schedules, notices, feeds, history, fleet, audit, people, approvals, gate, keeper, results }
    }

    /// Whether the caller may do this. Recorded before it is done; a refusal too.
    async fn may(&self, by: &Principal, act: Act<'_>) -> Result<(), Status> {
        let refused = refusal(by, &act);
        let call = self.call(by, &act, refused.clone());
        let recorded = self.audit.acted(call).await;
        match refused {
            Some(why) => Err(Status::permission_denied(why)),
            None => recorded.map_err(|e| status(&e)),
        }
    }

    /// Whether the caller may look at something. Recorded too.
    async fn sees(&self, by: &Principal, act: Act<'_>) -> Result<(), Status> {
        let refused = refusal(by, &act);
        self.audit.looked(self.call(by, &act, refused.clone())).await;
        refused.map_or(Ok(()), |why| Err(Status::permission_denied(why)))
    }

    /// That something was asked for which is not there, or not for the caller to see.
    async fn missing(&self, by: &Principal, method: &'static str, about: &str, why: Status) -> Status {
        let act = Act { method, needs: &[], environment: access::EVERYWHERE, about };
        let refused = why.message().lines().next().unwrap_or_default().to_owned();
        self.audit.looked(self.call(by, &act, Some(refused))).await;
        why
    }

    /// That something the caller may do was refused all the same: by limits, a policy, a halt.
    async fn turned_down(&self, by: &Principal, act: Act<'_>, why: &Status) {
        let refused = why.message().lines().next().unwrap_or_default().to_owned();
        if let Err(error) = self.audit.acted(self.call(by, &act, Some(refused))).await {
            tracing::error!(%error, "a refusal could not be recorded");
        }
    }

    #[expect(clippy::unused_self, reason = "a call is one of this service")]
    fn call(&self, by: &Principal, act: &Act<'_>, refused: Option<String>) -> Call {
        Call {
            by: by.id.clone(),
            method: act.method.to_owned(),
            environment: act.environment.to_owned(),
            about: act.about.to_owned(),
            refused,
        }
    }

    async fn append_audit(&self, body: Body) -> Result<(), Status> {
        self.history.append(self.audit.stream(), vec![body]).await.map(drop).map_err(|e| status(&e))
    }
}

/// Why the caller may not, if so, and what would help.
fn refusal(by: &Principal, act: &Act<'_>) -> Option<String> {
    let needs = act.needs.iter().find(|right| !by.grants.allow(**right, act.environment))?;
    let place = match act.environment {
        access::EVERYWHERE => "in all environments".to_owned(),
        environment => format!("in environment {environment}"),
    };
    let roles: Vec<&str> = needs.roles().iter().map(|role| role.word()).collect();
    Some(format!(
        "{} needs the right to {} {place}: an admin can give the role {}",
        act.method,
        needs.word(),
        roles.join(" or ")
    ))
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl operator_server::Operator for Api {
    async fn plan(&self, request: Request<PlanRequest>) -> Reply<PlanReply> {
        let by = principal(&request)?;
        self.plan_of(&by, request.into_inner()).await
    }

    async fn start_run(&self, request: Request<StartRunRequest>) -> Reply<StartRunReply> {
        let by = principal(&request)?;
        self.start(&by, request.into_inner()).await
    }

    async fn stop_run(&self, request: Request<StopRunRequest>) -> Reply<StopRunReply> {
        let by = principal(&request)?;
        self.stop(&by, request.into_inner()).await
    }

    async fn decide(&self, request: Request<DecideRequest>) -> Reply<DecideReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.decided_entry(&by, request.into_inner()).await }).await
    }

    async fn mark(&self, request: Request<MarkRequest>) -> Reply<MarkReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.marked(&by, request.into_inner()).await }).await
    }

    async fn halt(&self, request: Request<HaltRequest>) -> Reply<HaltReply> {
        let by = principal(&request)?;
        self.halt_all(&by, request.into_inner().reason).await
    }

    async fn clear_halt(&self, request: Request<HaltRequest>) -> Reply<HaltReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.clear(&by, request.into_inner().reason).await }).await
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Reply<ListRunsReply> {
        let by = principal(&request)?;
        self.listed_runs(&by, &request.into_inner()).await
    }

    async fn list_results(&self, request: Request<ListResultsRequest>) -> Reply<ListResultsReply> {
        let by = principal(&request)?;
        self.listed_results(&by, &request.into_inner()).await
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Reply<RunSummary> {
        let by = principal(&request)?;
        self.shown_run(&by, &request.into_inner().run).await
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<HistoryEvent, Status>> + Send>>;

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Reply<Self::WatchRunStream> {
        let by = principal(&request)?;
        self.watched(by, request.into_inner()).await
    }

    async fn get_report(&self, request: Request<GetReportRequest>) -> Reply<GetReportReply> {
        let by = principal(&request)?;
        self.report_of(&by, &request.into_inner().run).await
    }

    async fn list_hosts(&self, request: Request<ListHostsRequest>) -> Reply<ListHostsReply> {
        let by = principal(&request)?;
        self.listed_hosts(&by, &request.into_inner().selector).await
    }

    async fn label_host(&self, request: Request<LabelHostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.labelled(&by, request.into_inner()).await }).await
    }

    async fn forget_host(&self, request: Request<HostRequest>) -> Reply<ForgetHostReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.forgotten(&by, request.into_inner()).await }).await
    }

    async fn write_off_host(&self, request: Request<HostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.written_off(&by, request.into_inner()).await }).await
    }

    async fn revoke_host(&self, request: Request<HostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.revoked(&by, request.into_inner()).await }).await
    }

    async fn trust_host(&self, request: Request<HostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.trusted(&by, request.into_inner()).await }).await
    }

    async fn get_guard_rails(&self, request: Request<GetGuardRailsRequest>) -> Reply<GuardRails> {
        let by = principal(&request)?;
        self.rails(&by).await
    }

    async fn set_guard_rails(&self, request: Request<SetGuardRailsRequest>) -> Reply<GuardRails> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.rails_set(&by, request.into_inner()).await }).await
    }

    async fn ask_approval(&self, request: Request<AskApprovalRequest>) -> Reply<Approval> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.asked_approval(&by, request.into_inner()).await }).await
    }

    async fn list_approvals(&self, request: Request<ListApprovalsRequest>) -> Reply<ListApprovalsReply> {
        let by = principal(&request)?;
        self.listed_approvals(&by).await
    }

    async fn get_approval(&self, request: Request<GetApprovalRequest>) -> Reply<Approval> {
        let by = principal(&request)?;
        self.shown_approval(&by, request.into_inner()).await
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Reply<Approval> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.approved(&by, request.into_inner()).await }).await
    }

    async fn reject(&self, request: Request<RejectRequest>) -> Reply<Approval> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.rejected(&by, request.into_inner()).await }).await
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Reply<Approval> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.withdrawn(&by, request.into_inner()).await }).await
    }

    async fn move_host(&self, request: Request<MoveHostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.moved(&by, request.into_inner()).await }).await
    }

    async fn cordon_host(&self, request: Request<CordonHostRequest>) -> Reply<CordonHostReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.cordoned(&by, request.into_inner()).await }).await
    }

    async fn uncordon_host(&self, request: Request<HostRequest>) -> Reply<Host> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.uncordoned(&by, request.into_inner()).await }).await
    }

    async fn make_join_token(&self, request: Request<MakeJoinTokenRequest>) -> Reply<MakeJoinTokenReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.join_token(&by, request.into_inner()).await }).await
    }

    async fn set_schedule(&self, request: Request<SetScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.set(&by, request.into_inner()).await }).await
    }

    async fn list_schedules(&self, request: Request<ListSchedulesRequest>) -> Reply<ListSchedulesReply> {
        let by = principal(&request)?;
        self.listed_schedules(&by).await
    }

    async fn get_schedule(&self, request: Request<GetScheduleRequest>) -> Reply<GetScheduleReply> {
        let by = principal(&request)?;
        self.shown_schedule(&by, request.into_inner()).await
    }

    async fn pause_schedule(&self, request: Request<ScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.paused(&by, request.into_inner()).await }).await
    }

    async fn resume_schedule(&self, request: Request<ScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.resumed(&by, request.into_inner()).await }).await
    }

    async fn remove_schedule(&self, request: Request<ScheduleRequest>) -> Reply<Schedule> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.removed(&by, request.into_inner()).await }).await
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Reply<Person> {
        let by = principal(&request)?;
        self.myself(&by).await
    }

    async fn list_people(&self, request: Request<ListPeopleRequest>) -> Reply<ListPeopleReply> {
        let by = principal(&request)?;
        self.listed_people(&by).await
    }

    async fn add_person(&self, request: Request<AddPersonRequest>) -> Reply<Person> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.added(&by, request.into_inner()).await }).await
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Reply<Person> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.role_set(&by, request.into_inner()).await }).await
    }

    async fn remove_person(&self, request: Request<RemovePersonRequest>) -> Reply<Person> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.person_removed(&by, request.into_inner()).await }).await
    }

    async fn make_access_token(&self, request: Request<MakeAccessTokenRequest>) -> Reply<MakeAccessTokenReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.token_made(&by, request.into_inner()).await }).await
    }

    async fn list_access_tokens(&self, request: Request<ListAccessTokensRequest>) -> Reply<ListAccessTokensReply> {
        let by = principal(&request)?;
        self.listed_tokens(&by).await
    }

    async fn revoke_access_token(&self, request: Request<RevokeAccessTokenRequest>) -> Reply<RevokeAccessTokenReply> {
        let by = principal(&request)?;
        let api = self.clone();
        carried_through(async move { api.token_revoked(&by, request.into_inner()).await }).await
    }

    async fn list_notifications(&self, request: Request<ListNotificationsRequest>) -> Reply<ListNotificationsReply> {
        let by = principal(&request)?;
        self.channels(&by).await
    }

    async fn test_notification(&self, request: Request<TestNotificationRequest>) -> Reply<TestNotificationReply> {
        let by = principal(&request)?;
        self.tried(&by, &request.into_inner().channel).await
    }

    async fn make_feed(&self, request: Request<MakeFeedRequest>) -> Reply<MakeFeedReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        let environment = self.feeds.environment(&wire.environment, &wire.schedule);
        let needs = &[Right::View];
        self.may(&by, Act { method: "MakeFeed", needs, environment: &environment, about: &wire.schedule }).await?;
        self.linked(environment, wire, by).await
    }

    async fn list_feeds(&self, request: Request<ListFeedsRequest>) -> Reply<ListFeedsReply> {
        let by = principal(&request)?;
        let act = Act { method: "ListFeeds", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(&by, act).await?;
        Ok(Response::new(self.links(&by)))
    }

    async fn revoke_feed(&self, request: Request<RevokeFeedRequest>) -> Reply<Feed> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        // Whoever pastes the whole link gives its signature away to nobody.
        let id = links::public_part(&wire.id);
        let made = self.feeds.one(id).ok();
        let own = made.as_ref().is_some_and(|made| made.by == by.id);
        let environment = made.map_or_else(|| access::DEFAULT_ENVIRONMENT.to_owned(), |made| made.environment);
        let needs: &[Right] = if own { &[] } else { &[Right::Govern] };
        self.may(&by, Act { method: "RevokeFeed", needs, environment: &environment, about: id }).await?;
        self.unlinked(id, reasoned(wire.reason)?, by).await
    }

    async fn get_catalogue(&self, request: Request<GetCatalogueRequest>) -> Reply<GetCatalogueReply> {
        let by = principal(&request)?;
        let act = Act { method: "GetCatalogue", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(&by, act).await?;
        Ok(Response::new(GetCatalogueReply { catalogue_json: to_json(&self.fleet.catalogue()) }))
    }

    type ListStreamsStream = keep::Streamed<KeptStream>;

    async fn list_streams(&self, request: Request<ListStreamsRequest>) -> Reply<Self::ListStreamsStream> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.proves(&by, "ListStreams").await?;
        self.streams(wire).await
    }

    type ReadRecordsStream = keep::Streamed<Record>;

    async fn read_records(&self, request: Request<ReadRecordsRequest>) -> Reply<Self::ReadRecordsStream> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.proves(&by, "ReadRecords").await?;
        self.records(wire).await
    }

    async fn get_heads(&self, request: Request<GetHeadsRequest>) -> Reply<GetHeadsReply> {
        let by = principal(&request)?;
        // They tell nothing but how long the audit stream is, and whoever keeps them makes it stronger.
        let act = Act { method: "GetHeads", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(&by, act).await?;
        self.heads(request.into_inner())
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Reply<PruneReply> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.rules(&by, "Prune", if wire.dry_run { "dry run" } else { "" }).await?;
        self.pruned(wire, by).await
    }

    type BackupStream = keep::Streamed<BackupPiece>;

    async fn backup(&self, request: Request<BackupRequest>) -> Reply<Self::BackupStream> {
        let by = principal(&request)?;
        let wire = request.into_inner();
        self.rules(&by, "Backup", if wire.without_keys { "without keys" } else { "" }).await?;
        self.backed_up(&wire, &by).await
    }
}

/// Carries something through whether or not the caller waits for it: between its record, its commit and the change in
/// memory that goes with it nobody may leave.
async fn carried_through<T: Send + 'static>(work: impl Future<Output = Reply<T>> + Send + 'static) -> Reply<T> {
    match tokio::spawn(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(bug)) => std::panic::resume_unwind(bug),
        Err(Err(_)) => Err(Status::unavailable("the controller is shutting down")),
    }
}

/// Bytes of files that came with a document.
fn size(files: &HashMap<String, String>) -> usize {
    files.iter().map(|(name, text)| name.len() + text.len()).sum()
}

fn reasoned(reason: String) -> Result<String, Status> {
    if reason.trim().is_empty() {
        return Err(Status::invalid_argument("a reason is needed, for the history"));
    }
    Ok(reason)
}

/// The environment as it is written, or the default one.
fn environment(text: &str) -> Result<String, Status> {
    access::environment(text).map_err(Status::invalid_argument)
}

fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    let known = request.extensions().get::<Principal>().cloned();
    known
        .ok_or_else(|| Status::unauthenticated("no valid token came with the call: send `authorization: Bearer TOKEN`"))
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
