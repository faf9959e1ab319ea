//! The controller as the commands see it: calls with model types. Generated wire types never leave this file.

mod approvals;
mod dial;
mod feeds;
mod guard;
mod keep;
mod notices;
mod people;
mod results;
mod schedules;
mod signin;

pub use approvals::ApprovalSummary;
pub use feeds::{FeedSummary, MadeFeed};
pub use guard::GuardRailsAnswer;
pub use keep::{KeptRecord, KeptStream, PruneAnswer, PruneOrder};
pub use notices::{ChannelSummary, NoticeOutcome, TriedChannel};
pub use people::{NewPerson, PersonSummary, RoleSummary, TokenSummary};
pub use results::{Results, ResultsQuery};
pub use schedules::{ScheduleSubmission, ScheduleSummary};
pub use signin::{SignInClient, UserCode};

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use dial::{DialError, Dialler};
use fracas_model::{
    catalogue::Catalogue,
    diagnostic::Diagnostic,
    event::{Event, Rehearsal},
    experiment::Experiment,
    facts::HostFacts,
    id::{EntryId, HostId, RunId, TargetId},
    mark::{Ago, Mark},
    plan::Refusal,
    units::Dur,
};
use fracas_proto::v1::{self, operator_client::OperatorClient};
use futures_util::{StreamExt as _, stream::BoxStream};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{context::Access, exit, follow::Source};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A watched run may be silent for minutes; pings notice a dead connection within two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Reports carry every reading of a run.
const LARGEST_MESSAGE: usize = 256 << 20;

/// Why a call was not answered. The text says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the address.
    #[error("{0}\n(is the controller running there? is the address right?)")]
    Unreachable(String),
    /// Somebody else answers.
    #[error("{0}\n(take the CA file that this controller wrote at its first start)")]
    Untrusted(String),
    /// The CA file cannot be used.
    #[error("{file} is no CA certificate: {why}")]
    BadCa {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The token is unknown.
    #[error("the controller {address} does not accept the token of {token_source}: {why}")]
    Unauthenticated {
        /// The controller.
        address: String,
        /// Where the token came from.
        token_source: String,
        /// What it said.
        why: String,
    },
    /// The token is known, and may not do this.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A document or argument is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It may not start: policy, limits, halt.
    #[error("refused: {0}")]
    Refused(String),
    /// The two sides are of different ages.
    #[error("the controller {address} and this fracas {} do not fit together: {why}; use the same version on both sides", env!("CARGO_PKG_VERSION"))]
    Skew {
        /// The controller.
        address: String,
        /// What does not fit.
        why: String,
    },
    /// What it keeps is damaged or from elsewhere: trying again does not help.
    #[error("the controller {address} cannot read what it keeps: {why}")]
    Lost {
        /// The controller.
        address: String,
        /// What it said.
        why: String,
    },
    /// Anything else that the controller said.
    #[error("the controller {address} failed: {why}")]
    Failed {
        /// The controller.
        address: String,
        /// What it said.
        why: String,
    },
}

impl ClientError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Invalid(_) => exit::USAGE,
            Self::Refused(_) | Self::Forbidden(_) => exit::REFUSED,
            _ => exit::ERROR,
        }
    }

    /// Whether it may go away by itself: the network, a restart.
    pub fn passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Failed { .. })
    }
}

/// A document on its way to a controller.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Document text.
    pub source: String,
    /// Its file name, for messages.
    pub source_name: String,
    /// Texts of the files that it names, by the names it gives them.
    pub files: BTreeMap<String, String>,
    /// Parameters by name, as text.
    pub parameters: BTreeMap<String, String>,
    /// Seed; 0 lets the controller draw one.
    pub seed: u64,
    /// Environment it belongs to.
    pub environment: String,
}

/// What a run would do. Fields of a newer controller are left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanAnswer {
    /// Seed of the draw.
    pub seed: u64,
    /// Digest of intent, hex.
    pub intent: String,
    /// Digest of the plan, hex.
    pub plan: String,
    /// The document as the controller understood it.
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
    /// Remarks on the draw: hosts that match and were left out, and what that means for limits.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One line of a list of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Its id.
    pub run: RunId,
    /// Name of the experiment.
    pub name: String,
    /// `planned`, `gating`, `running`, `recovering`, `undoing`, `finished`.
    pub state: String,
    /// In kebab-case; empty while it runs.
    pub verdict: String,
    /// Of `fracas run`; meaningful when finished.
    pub exit_code: u8,
    /// The most important reason.
    pub reason: String,
    /// Wall time, nanoseconds since the epoch.
    pub started_wall_ns: i64,
    /// The same; 0 while it runs.
    pub ended_wall_ns: i64,
    /// Who started it.
    pub by: String,
    /// Where.
    pub environment: String,
    /// Number of its last event.
    pub head_seq: u64,
}

/// One host of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSummary {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// Whether its agent is connected.
    pub connected: bool,
    /// All labels, facts too.
    pub labels: BTreeMap<String, String>,
    /// As of the last contact.
    pub facts: Option<HostFacts>,
    /// Wall time, nanoseconds since the epoch.
    pub last_seen_wall_ns: i64,
    /// Runs with an active fault here.
    pub runs: Vec<RunId>,
    /// Why it gets no new fault; empty: it may.
    pub quarantined: String,
    /// An observer: it looks and never suffers.
    pub observer: bool,
    /// Runs of other environments do not draw it.
    pub environment: String,
    /// Why no new fault is drawn onto it, as a person said; empty: it may.
    pub cordoned: String,
    /// Why none of its certificates is accepted any more; empty: they are.
    pub revoked: String,
    /// Why it seems to be two agents with one identity; empty: it does not.
    pub duplicate: String,
    /// Where its agent calls from; empty while it is out of contact.
    pub address: String,
    /// When its certificate ends, seconds of Unix time; 0: unknown.
    pub certificate_until_s: i64,
    /// Little of its certificate's life is left.
    pub certificate_low: bool,
}

/// Whether everything is halted, and which runs that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HaltAnswer {
    /// In force.
    pub halted: bool,
    /// Runs that ended by it.
    pub runs: Vec<RunId>,
}

/// Puts the token on every call.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The way to a controller; it is taken by the first call.
fn channel(access: &Access) -> Result<Channel, ClientError> {
    let bad_ca = |why| ClientError::BadCa { file: access.ca_source.clone(), why };
    let dialler = Dialler::new(&access.address, &access.ca_source, &access.ca_pem).map_err(bad_ca)?;
    let endpoint = Endpoint::from_shared(format!("http://{}", access.address))
        .map_err(|_| ClientError::Unreachable(format!("{:?} is no address: write host:port", access.address)))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let dialler = dialler.clone();
        async move { dialler.dial().await.map(TokioIo::new) }
    })))
}

/// A connection to one controller; it reconnects by itself, calls in flight fail.
#[derive(Clone)]
pub struct Client {
    calls: OperatorClient<InterceptedService<Channel, Bearer>>,
    address: String,
    token_source: String,
}

/// What somebody tells of a moment of a run.
#[derive(Clone, Copy, Debug)]
pub struct ToldMark<'a> {
    /// Run id, unique prefix, or `last`.
    pub run: &'a str,
    /// What happened.
    pub mark: Mark,
    /// To which service; the whole run otherwise.
    pub service: Option<&'a str>,
    /// How long ago.
    pub ago: Ago,
    /// Who did it, if somebody else.
    pub did: Option<&'a str>,
    /// In a few words.
    pub note: &'a str,
    /// Such marks as were told before do not count.
    pub retract: bool,
}

impl Client {
    /// Makes ready; the connection is made by the first call and made anew when it is lost.
    pub fn new(access: &Access) -> Result<Self, ClientError> {
        let mut token = MetadataValue::try_from(format!("Bearer {}", access.token)).map_err(|_| {
            let why = "it holds characters that no token has".to_owned();
            let (address, token_source) = (access.address.clone(), access.token_source.clone());
            ClientError::Unauthenticated { address, token_source, why }
        })?;
        token.set_sensitive(true);
        let calls = OperatorClient::with_interceptor(channel(access)?, Bearer(token));
        let calls = calls.max_decoding_message_size(LARGEST_MESSAGE);
        Ok(Self { calls, address: access.address.clone(), token_source: access.token_source.clone() })
    }

    /// Address of the controller.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Draws targets and rehearses on every drawn host; changes nothing.
    pub async fn plan(&self, what: Submission) -> Result<PlanAnswer, ClientError> {
        let request = v1::PlanRequest {
            source: what.source,
            source_name: what.source_name,
            parameters: what.parameters.into_iter().collect(),
            seed: what.seed,
            environment: what.environment,
            files: what.files.into_iter().collect(),
        };
        let reply = self.calls.clone().plan(request).await.map_err(|e| self.error(&e))?.into_inner();
        self.decode("the plan", reply.plan_json.as_bytes())
    }

    /// Starts a run; the same key again returns the same run.
    pub async fn start_run(&self, what: Submission, key: &str) -> Result<RunId, ClientError> {
        let request = v1::StartRunRequest {
            source: what.source,
            source_name: what.source_name,
            parameters: what.parameters.into_iter().collect(),
            seed: what.seed,
            environment: what.environment,
            idempotency_key: key.to_owned(),
            files: what.files.into_iter().collect(),
        };
        let reply = self.calls.clone().start_run(request).await.map_err(|e| self.error(&e))?;
        Ok(RunId::new(reply.into_inner().run))
    }

    /// Asks one run, by id, unique prefix or `last`, to end: which it was, and its verdict if it has ended already.
    pub async fn stop_run(&self, run: &str, reason: &str) -> Result<(RunId, Option<String>), ClientError> {
        let request = v1::StopRunRequest { run: run.to_owned(), reason: reason.to_owned() };
        let reply = self.calls.clone().stop_run(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((RunId::new(reply.run), reply.ended.then_some(reply.verdict)))
    }

    /// Answers the question of an entry, or of a section of a game day: which run and entry it was.
    pub async fn decide(&self, run: &str, entry: &str, go: bool, note: &str) -> Result<(RunId, String), ClientError> {
        let request = v1::DecideRequest { run: run.to_owned(), entry: entry.to_owned(), go, note: note.to_owned() };
        let reply = self.calls.clone().decide(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((RunId::new(reply.run), reply.entry))
    }

    /// Tells when something happened in a run: which run it was, and the number of the record.
    pub async fn mark(&self, told: &ToldMark<'_>) -> Result<(RunId, u64), ClientError> {
        let request = v1::MarkRequest {
            run: told.run.to_owned(),
            mark: told.mark.word().to_owned(),
            service: told.service.unwrap_or_default().to_owned(),
            least_ago_ns: told.ago.least.ns(),
            most_ago_ns: told.ago.most.ns(),
            did: told.did.unwrap_or_default().to_owned(),
            note: told.note.to_owned(),
            retract: told.retract,
        };
        let reply = self.calls.clone().mark(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((RunId::new(reply.run), reply.seq))
    }

    /// Ends all runs and lets none start.
    pub async fn halt(&self, reason: &str) -> Result<HaltAnswer, ClientError> {
        let request = v1::HaltRequest { reason: reason.to_owned() };
        self.calls.clone().halt(request).await.map_err(|e| self.error(&e)).map(|r| halted(r.into_inner()))
    }

    /// Lets runs start again.
    pub async fn clear_halt(&self, reason: &str) -> Result<HaltAnswer, ClientError> {
        let request = v1::HaltRequest { reason: reason.to_owned() };
        self.calls.clone().clear_halt(request).await.map_err(|e| self.error(&e)).map(|r| halted(r.into_inner()))
    }

    /// Runs, newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunSummary>, ClientError> {
        let reply = self.calls.clone().list_runs(v1::ListRunsRequest { limit }).await.map_err(|e| self.error(&e))?;
        Ok(reply.into_inner().runs.into_iter().map(summary).collect())
    }

    /// One run by id, unique prefix or `last`.
    pub async fn run(&self, name: &str) -> Result<RunSummary, ClientError> {
        let request = v1::GetRunRequest { run: name.to_owned() };
        self.calls.clone().get_run(request).await.map_err(|e| self.error(&e)).map(|r| summary(r.into_inner()))
    }

    /// The report of a run as JSON text's value, and whether it is final.
    pub async fn report<T: DeserializeOwned>(&self, run: &RunId) -> Result<(T, bool), ClientError> {
        let request = v1::GetReportRequest { run: run.to_string() };
        let reply = self.calls.clone().get_report(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((self.decode("the report", reply.report_json.as_bytes())?, reply.r#final))
    }

    /// Hosts that match a label selector; all for an empty one.
    pub async fn hosts(&self, selector: &str) -> Result<Vec<HostSummary>, ClientError> {
        let request = v1::ListHostsRequest { selector: selector.to_owned() };
        let reply = self.calls.clone().list_hosts(request).await.map_err(|e| self.error(&e))?;
        Ok(reply.into_inner().hosts.into_iter().map(host).collect())
    }

    /// Sets and removes labels.
    pub async fn label_host(
        &self,
        name: &str,
        set: BTreeMap<String, String>,
        remove: Vec<String>,
    ) -> Result<HostSummary, ClientError> {
        let request = v1::LabelHostRequest { host: name.to_owned(), set: set.into_iter().collect(), remove };
        self.calls.clone().label_host(request).await.map_err(|e| self.error(&e)).map(|r| host(r.into_inner()))
    }

    /// Takes a host out of the fleet for good; its id and name.
    pub async fn forget_host(&self, name: &str, reason: &str) -> Result<(HostId, String), ClientError> {
        let request = v1::HostRequest { host: name.to_owned(), reason: reason.to_owned() };
        let reply = self.calls.clone().forget_host(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((HostId::new(reply.id), reply.name))
    }

    /// Ends a host's quarantine.
    pub async fn write_off_host(&self, name: &str, reason: &str) -> Result<HostSummary, ClientError> {
        let request = v1::HostRequest { host: name.to_owned(), reason: reason.to_owned() };
        self.calls.clone().write_off_host(request).await.map_err(|e| self.error(&e)).map(|r| host(r.into_inner()))
    }

    /// Refuses every certificate of a host from now on.
    pub async fn revoke_host(&self, name: &str, reason: &str) -> Result<HostSummary, ClientError> {
        let request = v1::HostRequest { host: name.to_owned(), reason: reason.to_owned() };
        self.calls.clone().revoke_host(request).await.map_err(|e| self.error(&e)).map(|r| host(r.into_inner()))
    }

    /// A host that seemed to be two is one again.
    pub async fn trust_host(&self, name: &str, reason: &str) -> Result<HostSummary, ClientError> {
        let request = v1::HostRequest { host: name.to_owned(), reason: reason.to_owned() };
        self.calls.clone().trust_host(request).await.map_err(|e| self.error(&e)).map(|r| host(r.into_inner()))
    }

    /// A host of another environment from now on.
    pub async fn move_host(&self, name: &str, environment: &str) -> Result<HostSummary, ClientError> {
        let request = v1::MoveHostRequest { host: name.to_owned(), environment: environment.to_owned() };
        self.calls.clone().move_host(request).await.map_err(|e| self.error(&e)).map(|r| host(r.into_inner()))
    }

    /// No new fault is drawn onto a host; with `drain` the runs that have it end, and are named.
    pub async fn cordon_host(
        &self,
        name: &str,
        reason: &str,
        drain: bool,
    ) -> Result<(HostSummary, Vec<RunId>), ClientError> {
        let request = v1::CordonHostRequest { host: name.to_owned(), reason: reason.to_owned(), drain };
        let reply = self.calls.clone().cordon_host(request).await.map_err(|e| self.error(&e))?.into_inner();
        let runs = reply.runs.into_iter().map(RunId::new).collect();
        Ok((host(reply.host.unwrap_or_default()), runs))
    }

    /// A host may be drawn again.
    pub async fn uncordon_host(&self, name: &str) -> Result<HostSummary, ClientError> {
        let request = v1::HostRequest { host: name.to_owned(), reason: String::new() };
        self.calls.clone().uncordon_host(request).await.map_err(|e| self.error(&e)).map(|r| host(r.into_inner()))
    }

    /// A one-time join token and when it expires, wall nanoseconds.
    pub async fn join_token(
        &self,
        ttl: Dur,
        labels: BTreeMap<String, String>,
        environment: &str,
    ) -> Result<(String, i64), ClientError> {
        let ttl_seconds = u32::try_from(ttl.ns() / 1_000_000_000).unwrap_or(u32::MAX);
        let (labels, environment) = (labels.into_iter().collect(), environment.to_owned());
        let request = v1::MakeJoinTokenRequest { ttl_seconds, labels, environment };
        let reply = self.calls.clone().make_join_token(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((reply.token, reply.expires_wall_ns))
    }

    /// What the agents of this controller know.
    pub async fn catalogue(&self) -> Result<Catalogue, ClientError> {
        let reply = self.calls.clone().get_catalogue(v1::GetCatalogueRequest {}).await.map_err(|e| self.error(&e))?;
        self.decode("the catalogue", reply.into_inner().catalogue_json.as_bytes())
    }

    fn decode<T: DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| ClientError::Skew {
            address: self.address.clone(),
            why: format!("{what} has another form than expected ({error})"),
        })
    }

    fn error(&self, status: &Status) -> ClientError {
        explained(status, &self.address, &self.token_source)
    }
}

/// What the other side said, or why it could not be asked.
fn explained(status: &Status, address: &str, token_source: &str) -> ClientError {
    if let Some(dialled) = dial_error(status) {
        return match dialled {
            DialError::Unreachable { .. } => ClientError::Unreachable(dialled.to_string()),
            DialError::Untrusted { .. } => ClientError::Untrusted(dialled.to_string()),
        };
    }
    let (address, why) = (address.to_owned(), status.message().to_owned());
    match status.code() {
        Code::Unauthenticated => ClientError::Unauthenticated { address, token_source: token_source.to_owned(), why },
        Code::PermissionDenied => ClientError::Forbidden(why),
        Code::AlreadyExists => ClientError::Invalid(why),
        Code::NotFound => ClientError::NotFound(why),
        Code::InvalidArgument => ClientError::Invalid(details(status, Diagnostic::render).unwrap_or(why)),
        Code::FailedPrecondition => ClientError::Refused(details(status, Refusal::to_string).unwrap_or(why)),
        Code::DataLoss => ClientError::Lost { address, why },
        Code::Unimplemented => ClientError::Skew { address, why: "it does not know this call".to_owned() },
        Code::Unavailable => ClientError::Unreachable(format!("the controller {address} is not available: {why}")),
        _ => ClientError::Failed { address, why },
    }
}

/// The list that travels beside an error, each element in words.
fn details<T: DeserializeOwned>(status: &Status, word: impl Fn(&T) -> String) -> Option<String> {
    let list: Vec<T> = serde_json::from_slice(status.details()).ok()?;
    (!list.is_empty()).then(|| list.iter().map(word).collect::<Vec<_>>().join("\n"))
}

/// Our own reason, wherever the transport wrapped it.
fn dial_error(status: &Status) -> Option<DialError> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(dialled) = error.downcast_ref::<DialError>() {
            return Some(dialled.clone());
        }
        source = error.source();
    }
    None
}

impl Source for Client {
    async fn open(
        &self,
        run: &RunId,
        after: u64,
    ) -> Result<BoxStream<'static, Result<Event, ClientError>>, ClientError> {
        let request = v1::WatchRunRequest { run: run.to_string(), after };
        let stream = self.calls.clone().watch_run(request).await.map_err(|e| self.error(&e))?.into_inner();
        let client = self.clone();
        Ok(stream
            .map(move |event| match event {
                Ok(event) => client.decode("an event", &event.stored),
                Err(status) => Err(client.error(&status)),
            })
            .boxed())
    }
}

fn halted(reply: v1::HaltReply) -> HaltAnswer {
    HaltAnswer { halted: reply.halted, runs: reply.runs.into_iter().map(RunId::new).collect() }
}

fn summary(run: v1::RunSummary) -> RunSummary {
    RunSummary {
        run: RunId::new(run.run),
        name: run.name,
        state: run.state,
        verdict: run.verdict,
        exit_code: u8::try_from(run.exit_code).unwrap_or(exit::ERROR),
        reason: run.reason,
        started_wall_ns: run.started_wall_ns,
        ended_wall_ns: run.ended_wall_ns,
        by: run.by,
        environment: run.environment,
        head_seq: run.head_seq,
    }
}

fn host(host: v1::Host) -> HostSummary {
    HostSummary {
        id: HostId::new(host.id),
        name: host.name,
        connected: host.connected,
        labels: host.labels.into_iter().collect(),
        // Facts of a newer agent that this build cannot read are shown as absent, not as a failure of the list.
        facts: serde_json::from_str(&host.facts_json).ok(),
        last_seen_wall_ns: host.last_seen_wall_ns,
        runs: host.runs.into_iter().map(RunId::new).collect(),
        quarantined: host.quarantined,
        observer: host.observer,
        environment: host.environment,
        cordoned: host.cordoned,
        revoked: host.revoked,
        duplicate: host.duplicate,
        address: host.address,
        certificate_until_s: host.certificate_until_s,
        certificate_low: host.certificate_low,
    }
}
