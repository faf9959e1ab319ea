//! The controller without its sockets and files: what the history says is restored, runs are taken up, services made.
//!
//! Who connects and how is [`crate::server`]'s business; a simulation gives its own connections.

use std::{future::Future, io, sync::Arc};

use fracas_model::{
    event::Body,
    id::{HostId, RunId},
};
use fracas_proto::v1::{fleet_server::FleetServer, operator_server::OperatorServer};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::Server,
};

use crate::{
    access::{Authenticated, Doorkeeper},
    agents::Agents,
    api::Api,
    enrol::{Gate, OBSERVER_LABEL},
    feeds::{self, FeedKey, Feeds, Links, Reached},
    fleet::Fleet,
    history::{History, HistoryError},
    listen::Conn,
    runs::Runs,
    schedules::Schedules,
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
    feeds: Feeds,
    audit: String,
    front_port: u16,
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
        for event in history.read(&audit, 0).await? {
            links.apply(&event);
            match event.body {
                Body::Halted { reason, .. } => halted = Some(reason),
                Body::HaltCleared { .. } => halted = None,
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
        let runs = Runs::new(history.clone(), fleet.clone(), audit.clone(), seed);
        let schedules = Schedules::new(history.clone(), runs.clone());
        let feeds = Feeds::new(history.clone(), schedules.clone(), audit.clone(), links);
        Ok(Self { history, fleet, runs, schedules, feeds, audit, front_port: 0 })
    }

    /// The same controller, which operators reach on this port: agents beside it never cut that off.
    #[must_use]
    pub fn reached_on(self, front_port: u16) -> Self {
        Self { front_port, ..self }
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

    /// The links for calendar programs.
    pub fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// Name of the audit stream.
    pub fn audit(&self) -> &str {
        &self.audit
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
        let agents = Agents::new(self.history.clone(), self.fleet.clone(), gate, self.front_port, closing);
        let service = FleetServer::new(agents).max_decoding_message_size(8 << 20);
        server().add_service(service).serve_with_incoming_shutdown(incoming, shutdown).await
    }

    /// Serves people and programs until `shutdown` resolves. Without a token only the health service answers, and the page
    /// of a signed link.
    pub async fn serve_front(
        &self,
        incoming: impl Stream<Item = io::Result<Conn>>,
        gate: Arc<dyn Gate>,
        doors: Arc<dyn Doorkeeper>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let (runs, schedules, feeds) = (self.runs.clone(), self.schedules.clone(), self.feeds.clone());
        let api = Api::new(runs, schedules, feeds, self.history.clone(), self.fleet.clone(), self.audit.clone(), gate);
        let authenticated = Authenticated(doors);
        let operator = OperatorServer::with_interceptor(api, authenticated.clone());
        let (health, healthy) = tonic_health::server::health_reporter();
        health.set_serving::<OperatorServer<Api>>().await;
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(fracas_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = InterceptedService::new(described().build_v1().expect(OURS), authenticated.clone());
        // Many clients, Python's among them, still ask by the older name.
        let older = InterceptedService::new(described().build_v1alpha().expect(OURS), authenticated);
        let services = Routes::new(operator).add_service(healthy).add_service(reflection).add_service(older);
        server()
            .accept_http1(true)
            .add_routes(feeds::serve(services, self.feeds.clone()))
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await
    }
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
}

/// A host as its stream tells it.
async fn restore(history: &History, fleet: &Fleet, stream: &str) -> Result<(), HistoryError> {
    let id = HostId::new(stream.trim_start_matches("host/"));
    for event in history.read(stream, 0).await? {
        if matches!(event.body, Body::HostForgotten { .. }) {
            fleet.drop_host(&id);
            return Ok(());
        }
        fleet.record(&id, |record| match event.body {
            Body::HostEnrolled { name, labels, .. } => {
                record.name = name;
                record.observer = labels.contains_key(OBSERVER_LABEL);
                record.labels = labels;
            }
            Body::HostLabelled { labels, .. } => record.labels = labels,
            Body::HostQuarantined { run, .. } => record.quarantined = Some(run),
            Body::HostReleased { .. } => record.quarantined = None,
            _ => {}
        });
    }
    Ok(())
}
