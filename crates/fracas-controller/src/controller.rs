//! The controller without its sockets and files: what the history says is restored, runs are taken up, services made.
//!
//! Who connects and how is [`crate::server`]'s business; a simulation gives its own connections.

use std::{future::Future, io, sync::Arc};

use fracas_model::{
    event::Body,
    id::{HostId, RunId},
};
use fracas_proto::v1::{fleet_server::FleetServer, operator_server::OperatorServer, sign_in_server::SignInServer};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::Server,
};

use crate::{
    access::{Authenticated, Doorkeeper},
    agents::Agents,
    api::{Api, Entrance, Parts},
    approvals::Approvals,
    audit::Audit,
    enrol::{Gate, OBSERVER_LABEL},
    feeds::{self, FeedKey, Feeds, Links, Reached},
    fleet::Fleet,
    history::{History, HistoryError},
    keep::Keeper,
    listen::Conn,
    metrics::{Calls, SessionMeters},
    notify::{Channel, Notices},
    pages,
    people::{Directory, People},
    runs::Runs,
    schedules::Schedules,
    signals::{self, Signals},
    signin::{self, SignIn},
};

/// Streams and requests at once on one connection.
const STREAMS: u32 = 256;
/// Why describing our services cannot fail.
const OURS: &str = "the descriptors were made from our own proto files";
/// How often an idle connection is tried by an HTTP/2 ping, and how long the answer may take.
const PING: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_secs(15), std::time::Duration::from_secs(10));

/// A controller over one history.
#[derive(Clone, Debug)]
pub struct Controller {
    history: History,
    fleet: Fleet,
    runs: Runs,
    schedules: Schedules,
    people: People,
    approvals: Approvals,
    feeds: Feeds,
    notices: Notices,
    sign_in: SignIn,
    id: HostId,
    audit: Audit,
    front_port: u16,
    sessions: SessionMeters,
    calls: Calls,
    keeper: Option<Arc<Keeper>>,
}

impl Controller {
    /// Restores hosts and the halt from the history. Call [`resume`](Self::resume) before any host is served.
    /// `seed` decides run ids, and seeds of runs where none is given.
    pub async fn open(history: History, id: &HostId, seed: u64) -> Result<Self, HistoryError> {
        let (audit, fleet) = (format!("audit/{id}"), Fleet::new(history.epoch()));
        let started = Body::ControllerStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: history.epoch(),
            at: history.now(),
        };
        history.append(&audit, vec![started]).await?;
        let (mut halted, mut links) = (None, Links::default());
        let events = history.read(&audit, 0).await?;
        for event in &events {
            links.apply(event);
            match &event.body {
                Body::Halted { reason, .. } => halted = Some(reason.clone()),
                Body::HaltCleared { .. } => halted = None,
                Body::GuardRailsSet { rails, .. } => fleet.set_rails(rails.clone()),
                _ => {}
            }
        }
        if halted.is_some() {
            tracing::warn!(reason = halted, "everything is halted since before this start");
            fleet.halt(halted);
        }
        for stream in history.store().streams("host/").await? {
            restore(&history, &fleet, &stream).await?;
        }
        let approvals = Approvals::new(history.clone());
        approvals.resume().await?;
        let runs = Runs::new(history.clone(), fleet.clone(), audit.clone(), seed).approved_by(approvals.clone());
        let people = People::new(history.clone(), &audit, Directory::default(), &events);
        let schedules = Schedules::new(history.clone(), runs.clone()).answering_to(people.clone());
        let feeds = Feeds::new(history.clone(), schedules.clone(), audit.clone(), links);
        let feeds = feeds.answering_to(people.clone());
        let notices = Notices::begin(&history, id, Vec::new());
        let audit = Audit::new(history.clone(), &audit);
        let sign_in = SignIn::new(None, people.clone(), history.clone());
        let (sessions, calls) = (SessionMeters::default(), Calls::default());
        Ok(Self {
            history,
            fleet,
            runs,
            schedules,
            people,
            approvals,
            feeds,
            notices,
            sign_in,
            id: id.clone(),
            audit,
            front_port: 0,
            sessions,
            calls,
            keeper: None,
        })
    }

    /// The same controller, whose people's names are kept in this directory.
    #[must_use]
    pub fn named_in(self, directory: Directory) -> Self {
        let people = self.people.named_in(directory);
        let sign_in = SignIn::new(None, people.clone(), self.history.clone());
        Self { people, sign_in, ..self }
    }

    /// The same controller, where people sign in by this identity provider. After [`named_in`](Self::named_in).
    #[must_use]
    pub fn signed_in_by(self, provider: Option<signin::Settings>) -> Self {
        let sign_in = SignIn::new(provider, self.people.clone(), self.history.clone());
        Self { sign_in, ..self }
    }

    /// The same controller, which operators reach on this port: agents beside it never cut that off.
    #[must_use]
    pub fn reached_on(self, front_port: u16) -> Self {
        Self { front_port, ..self }
    }

    /// The same controller, which tells these channels what happens. Say it before [`resume`](Self::resume).
    #[must_use]
    pub fn telling(self, channels: Vec<Channel>) -> Self {
        Self { notices: Notices::begin(&self.history, &self.id, channels), ..self }
    }

    /// The same controller, whose history this one keeps.
    #[must_use]
    pub fn kept_by(self, keeper: Arc<Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// The same controller, whose links for calendar programs are signed by this key; `names` are those under which clients
    /// reach it.
    #[must_use]
    pub fn signing_feeds(self, key: FeedKey, names: Vec<String>) -> Self {
        let reached = Reached { names, port: self.front_port };
        Self { feeds: self.feeds.signed_by(key, reached), ..self }
    }

    /// Takes up the runs that have not ended, and the schedules; returns how many runs, once their wishes are known.
    pub async fn resume(&self) -> Result<usize, HistoryError> {
        let runs = self.runs.resume().await?;
        let schedules = self.schedules.resume().await?;
        if schedules > 0 {
            tracing::info!(schedules, "schedules are kept");
        }
        Ok(runs)
    }

    /// The history.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The fleet.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The runs.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The schedules.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// The people who may call.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The channels that are told what happens.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// What the sessions of its agents count.
    pub fn sessions(&self) -> &SessionMeters {
        &self.sessions
    }

    /// Its calls, on both listeners.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// The links for calendar programs.
    pub fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// Name of the audit stream.
    pub fn audit(&self) -> &str {
        self.audit.stream()
    }

    /// Ends every run that is active, in the name of the controller.
    pub async fn stop_all(&self, reason: &str) {
        for run in self.runs.active() {
            self.stop(&run, reason).await;
        }
    }

    async fn stop(&self, run: &RunId, reason: &str) {
        if let Err(error) = self.runs.stop(run, "controller", reason).await {
            tracing::error!(%run, %error, "the run could not be asked to end; its faults end with their leases");
        }
    }

    /// Serves agents until `shutdown` resolves; then their sessions end at once, since nothing waits for them any more.
    pub async fn serve_fleet(
        &self,
        incoming: impl Stream<Item = io::Result<Conn>>,
        gate: Arc<dyn Gate>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let (close, closing) = watch::channel(false);
        let shutdown = async move {
            shutdown.await;
            close.send_replace(true);
        };
        let (history, fleet, meters) = (self.history.clone(), self.fleet.clone(), self.sessions.clone());
        let agents = Agents::new(history, fleet, gate, self.front_port, closing, meters);
        let service = FleetServer::new(agents).max_decoding_message_size(8 << 20);
        let mut server = server().layer(self.calls.clone());
        server.add_service(service).serve_with_incoming_shutdown(incoming, shutdown).await
    }

    /// Serves people and programs until `shutdown` resolves. Without a token only the health service, the sign-in and the
    /// page of a signed link answer.
    pub async fn serve_front(
        &self,
        incoming: impl Stream<Item = io::Result<Conn>>,
        gate: Arc<dyn Gate>,
        doors: Arc<dyn Doorkeeper>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let api = Api::new(Parts {
            runs: self.runs.clone(),
            schedules: self.schedules.clone(),
            notices: self.notices.clone(),
            feeds: self.feeds.clone(),
            history: self.history.clone(),
            fleet: self.fleet.clone(),
            audit: self.audit.clone(),
            people: self.people.clone(),
            approvals: self.approvals.clone(),
            gate,
            keeper: self.keeper.clone(),
        });
        let authenticated = Authenticated { doors, people: self.people.clone(), audit: self.audit.clone() };
        let operator = OperatorServer::with_interceptor(api, authenticated.clone());
        let entrance = SignInServer::new(Entrance::new(self.sign_in.clone(), self.audit.clone()));
        let (health, healthy) = tonic_health::server::health_reporter();
        health.set_serving::<OperatorServer<Api>>().await;
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(fracas_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = InterceptedService::new(described().build_v1().expect(OURS), authenticated.clone());
        // Many clients, Python's among them, still ask by the older name.
        let older = InterceptedService::new(described().build_v1alpha().expect(OURS), authenticated.clone());
        let signals = Signals::new(self.runs.clone(), self.history.clone(), authenticated);
        let (closing, mut closed) = watch::channel(false);
        let shutdown = async move {
            shutdown.await;
            closing.send_replace(true);
        };
        let services = Routes::new(operator).add_service(entrance).add_service(healthy);
        let services = services.add_service(reflection).add_service(older);
        let serving = server()
            .accept_http1(true)
            .layer(self.calls.clone())
            .add_routes(pages::serve(
                services,
                vec![(feeds::PATH, feeds::calendar(self.feeds.clone())), (signals::PATH, signals::door(signals))],
            ))
            .serve_with_incoming_shutdown(incoming, shutdown);
        let telling = self.audit.keep_telling(async move {
            // An error means that nobody serves any more.
            let _ = closed.wait_for(|closed| *closed).await;
        });
        let (served, ()) = tokio::join!(serving, telling);
        served
    }
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
}

/// Why a host is revoked, as it and everybody else is told.
pub(crate) fn revocation(by: &str, reason: &str) -> String {
    format!("by {by}, {reason}")
}

/// A host as its stream tells it.
async fn restore(history: &History, fleet: &Fleet, stream: &str) -> Result<(), HistoryError> {
    let id = HostId::new(stream.trim_start_matches("host/"));
    for event in history.read(stream, 0).await? {
        if matches!(event.body, Body::HostForgotten { .. }) {
            fleet.drop_host(&id);
            return Ok(());
        }
        let now_s = event.received.wall_ns.div_euclid(1_000_000_000);
        match &event.body {
            Body::HostEnrolled { serial, .. } | Body::HostCertified { serial, .. } if !serial.is_empty() => {
                fleet.certificate_signed(&id, serial, None, now_s);
            }
            Body::HostRenewed { serial, until_s, .. } => fleet.certificate_signed(&id, serial, Some(*until_s), now_s),
            Body::HostCertificateUsed { serial, .. } => fleet.certificate_used(&id, serial),
            _ => {}
        }
        fleet.record(&id, |record| match event.body {
            Body::HostEnrolled { name, labels, .. } => {
                record.name = name;
                record.observer = labels.contains_key(OBSERVER_LABEL);
                record.labels = labels;
            }
            Body::HostLabelled { labels, .. } => record.labels = labels,
            Body::HostCordoned { reason, .. } => record.cordoned = Some(reason),
            Body::HostUncordoned { .. } => record.cordoned = None,
            Body::HostQuarantined { run, .. } => record.quarantined = Some(run),
            Body::HostReleased { .. } => record.quarantined = None,
            Body::HostCertificateLow { serial, .. } => record.certificate_low = serial,
            Body::HostRevoked { by, reason, .. } => record.revoked = Some(revocation(&by, &reason)),
            Body::HostDuplicated { why, .. } => record.duplicate = Some(why),
            Body::HostTrusted { .. } => record.duplicate = None,
            _ => {}
        });
    }
    Ok(())
}
