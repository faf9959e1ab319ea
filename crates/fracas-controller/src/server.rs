//! The controller as a process: data directory, store, identity, sockets; start, drain and end in the right order.
//!
//! ```text
//! lock the data directory -> bind, tell that it starts -> open the store -> restore -> resume runs -> accept
//! asked to end: no new runs -> wait for runs -> stop the rest and wait for their undo -> close
//! ```

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use fracas_model::id::HostId;
use rustix::time::{ClockId as KernelClock, clock_gettime};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    clock::SystemClock,
    config::{Config, Listen},
    controller::Controller,
    datadir::{Access, DataDir, DataDirError},
    enrol::{Enrolment, Gate, OBSERVER_LABEL},
    feeds::FeedKey,
    history::{History, HistoryError},
    identity::{Identity, IdentityError, write_context},
    keep::{BackupError, COPY, Keeper, Rules, forget},
    listen::{Limits, ListenError, accept, accept_hosts, bind, fleet_tls, front_tls},
    metrics::{AuditMeters, Metrics, Parts, serve},
    people::{Directory, DirectoryError},
    store::{StoreError, sqlite::SqliteStore},
    verify,
};

/// The history's file in the data directory.
pub const STORE_FILE: &str = "history.sqlite";
/// Holds the controller's own id.
pub(crate) const ID_FILE: &str = "controller.id";
/// Strangers of one address: scripts that call in parallel, and hosts behind one router that come back at once.
const PER_ADDRESS: usize = 64;
/// How long a connection may be open before its first call with a good token, or an enrolment may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections of the fleet listener: ten thousand agents and some strangers that enrol.
const FLEET_LIMITS: Limits = Limits { known: 20_000, strangers: 256, per_address: PER_ADDRESS, patience: PATIENCE };
/// Connections of the front listener: people and programs, which are strangers until their first call.
const FRONT_LIMITS: Limits = Limits { known: 1024, strangers: 1024, per_address: PER_ADDRESS, patience: PATIENCE };
/// How long stopped runs may take to undo everything before the controller leaves all the same.
const UNDO: Duration = Duration::from_mins(1);
/// How long the last notices may take; what is not sent then is owed by the next start.
const TELLING: Duration = Duration::from_secs(5);
/// How long open streams may take to end.
const CLOSING: Duration = Duration::from_secs(2);
/// The audit head is signed at most this often.
const VOUCH_PACE: Duration = Duration::from_secs(1);
/// How often the server's certificate is looked at.
const RENEWAL: Duration = Duration::from_hours(1);
/// Life of the observer's join token, seconds.
const OBSERVER_TOKEN_SECONDS: u32 = 600;

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Keys and certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Names of people.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What an earlier backup left.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The machine's clock.
    #[error("the clock cannot be read: {0}")]
    Clock(std::io::Error),
}

/// How a controller ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was left open.
    Clean,
    /// So many runs had not ended; their faults end with their leases, and the next start takes them up.
    Open(usize),
}

/// A controller that accepts connections.
pub struct Running {
    /// Its parts.
    pub controller: Controller,
    /// Address of the front listener, with the port it really got.
    pub front: SocketAddr,
    /// Address of the fleet listener.
    pub fleet: SocketAddr,
    /// Address of the listener for metrics and health, if there is one.
    pub metrics: Option<SocketAddr>,
    /// The context file by which the command line on this machine finds it.
    pub context: PathBuf,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    /// How many runs were taken up.
    pub resumed: usize,
    gate: Arc<dyn Gate>,
    drain: Duration,
    closing: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    _dir: Arc<DataDir>,
}

/// Starts a controller. `bound_ns` says how far the machine's wall clock may be off, -1 when nothing is known.
/// Call it within a multi-threaded runtime.
pub async fn start(config: &Config, bound_ns: fn() -> i64) -> Result<Running, StartError> {
    let dir = Arc::new(DataDir::open(&config.data_dir)?);
    let front = bind(config.front, "operators", "--front-listen").await?;
    let fleet = bind(config.fleet, "agents", "--fleet-listen").await?;
    let address = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let (front_address, fleet_address) = (address(&front, config.front), address(&fleet, config.fleet));
    let closing = watch::Sender::new(false);
    let metrics = Metrics::new(wall_ns());
    let told = tell(config.metrics, &metrics, until(&closing)).await?;

    let id = controller_id(&dir)?;
    let store = Arc::new(SqliteStore::open(&dir.join(STORE_FILE))?);
    let identity = Arc::new(Identity::open(&dir, &config.names, wall_ns())?);
    let clock = Arc::new(SystemClock::new(id.clone(), bound_ns).map_err(StartError::Clock)?);
    let history = History::open(store, clock).await?;
    // From the first fact on.
    let heard = told.is_some().then(|| history.listen());
    let controller = Controller::open(history, &id, rand::random()).await?;
    let directory = Directory::open(Arc::clone(&dir))?;
    let controller = controller.reached_on(front_address.port()).named_in(directory);
    let controller = controller.telling(config.notifications.clone()).signed_in_by(config.sign_in.clone());
    let controller = controller.signing_feeds(FeedKey::open(&dir)?, config.names.clone());
    forget(&dir.join(COPY))?;
    let keeper = Arc::new(Keeper::new(controller.clone(), Arc::clone(&identity), Arc::clone(&dir)));
    let controller = controller.kept_by(Arc::clone(&keeper));
    let gate: Arc<dyn Gate> = Arc::new(Enrolment::new(
        controller.history().clone(),
        controller.fleet().clone(),
        controller.audit().to_owned(),
        Arc::clone(&identity),
        config.host_certificate_life,
    ));
    let context = write_context(&dir, front_address)?;
    let resumed = controller.resume().await?;

    let [front_door, fleet_door, _] = metrics.doors().map(Clone::clone);
    let incoming_front = accept(front, front_tls(&identity)?, FRONT_LIMITS, front_door);
    let hosts = controller.fleet().clone();
    let admitted = move |host: &HostId| hosts.admitted(host).is_ok();
    let incoming_fleet = accept_hosts(fleet, fleet_tls(&identity)?, FLEET_LIMITS, fleet_door, admitted);
    let serve_front = {
        let (controller, gate, doors, closed) =
            (controller.clone(), Arc::clone(&gate), Arc::clone(&identity), until(&closing));
        tokio::spawn(async move { ended("front", controller.serve_front(incoming_front, gate, doors, closed).await) })
    };
    let serve_fleet = {
        let (controller, gate, closed) = (controller.clone(), Arc::clone(&gate), until(&closing));
        tokio::spawn(async move { ended("fleet", controller.serve_fleet(incoming_fleet, gate, closed).await) })
    };
    let audit = AuditMeters::default();
    let upkeep = {
        let (controller, identity, dir) = (controller.clone(), Arc::clone(&identity), Arc::clone(&dir));
        tokio::spawn(upkeep(controller, identity, dir, audit.clone(), until(&closing)))
    };
    let keeping = tokio::spawn(keeping(keeper, config.retention, until(&closing)));
    let mut tasks = vec![serve_front, serve_fleet, upkeep, keeping];
    if let Some(heard) = heard {
        let (controller, identity) = (controller.clone(), Arc::clone(&identity));
        let heads = controller.history().subscribe(controller.audit()).await?;
        let parts = Parts { controller, identity, file: Some(dir.join(STORE_FILE)), audit, heads };
        let counting = metrics.attach(parts, heard, until(&closing)).await;
        // The product does without its count, so that is none of these.
        let main = ["front listener", "fleet listener", "upkeep"].into_iter().zip(&tasks);
        metrics.up(main.map(|(name, task)| (name, task.abort_handle())).collect());
        tasks.push(counting);
    }
    let metrics = told.map(|(address, task)| {
        tasks.push(task);
        address
    });
    Ok(Running {
        controller,
        front: front_address,
        fleet: fleet_address,
        metrics,
        context,
        ca_pem: identity.ca_pem().to_owned(),
        resumed,
        gate,
        drain: config.drain.std(),
        closing,
        tasks,
        _dir: dir,
    })
}

impl Running {
    /// A join token for this controller's own observer.
    pub async fn observer_token(&self) -> Result<String, HistoryError> {
        let labels = [(OBSERVER_LABEL.to_owned(), "true".to_owned())].into();
        Ok(self.gate.make(OBSERVER_TOKEN_SECONDS, labels, "controller").await?.text)
    }

    /// A join token for a host with these labels, made by whoever runs this process.
    pub async fn join_token(
        &self,
        ttl_seconds: u32,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<String, HistoryError> {
        Ok(self.gate.make(ttl_seconds, labels, "admin").await?.text)
    }

    /// Waits for runs to end, stops those that do not, and closes. `hurry` resolving cuts every wait short.
    pub async fn drain(mut self, hurry: impl Future<Output = ()>) -> Ended {
        let runs = self.controller.runs().clone();
        runs.close("the controller is shutting down");
        runs.settle_starts().await;
        let active = runs.active().len();
        if active > 0 {
            tracing::info!(active, wait = ?self.drain, "waiting for runs to end; a second signal ends at once");
        }
        let orderly = async {
            if tokio::time::timeout(self.drain, runs.idle()).await.is_err() {
                self.controller.stop_all("the controller is shutting down").await;
                let _ = tokio::time::timeout(UNDO, runs.idle()).await;
            }
            let _ = tokio::time::timeout(TELLING, self.controller.notices().settled()).await;
        };
        tokio::select! {
            () = orderly => {}
            () = hurry => {}
        }
        self.controller.notices().end();
        self.closing.send_replace(true);
        for task in self.tasks.drain(..) {
            let stop = task.abort_handle();
            if tokio::time::timeout(CLOSING, task).await.is_err() {
                stop.abort();
            }
        }
        match runs.active().len() {
            0 => Ended::Clean,
            open => Ended::Open(open),
        }
    }
}

/// Tells how the controller stands, from before it can do anything; where, and the task that does.
async fn tell(
    at: Listen,
    metrics: &Metrics,
    closed: impl Future<Output = ()> + Send + 'static,
) -> Result<Option<(SocketAddr, JoinHandle<()>)>, ListenError> {
    let Listen::At(asked) = at else { return Ok(None) };
    let listener = bind(asked, "metrics", "--metrics-listen").await?;
    let address = listener.local_addr().unwrap_or(asked);
    Ok(Some((address, tokio::spawn(serve::serve(listener, metrics.clone(), closed)))))
}

fn until(closing: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let mut closing = closing.subscribe();
    async move {
        let _ = closing.wait_for(|closed| *closed).await;
    }
}

fn ended(what: &str, result: Result<(), tonic::transport::Error>) {
    if let Err(error) = result {
        tracing::error!(listener = what, %error, "the listener ended");
    }
}

/// Signs the audit head whenever it has moved, and renews the server's certificate in time.
async fn upkeep(
    controller: Controller,
    identity: Arc<Identity>,
    dir: Arc<DataDir>,
    meters: AuditMeters,
    closed: impl Future<Output = ()>,
) {
    let work = async {
        let Ok(mut heads) = controller.history().subscribe(controller.audit()).await else { return };
        let mut renewal = tokio::time::interval(RENEWAL);
        heads.mark_changed();
        loop {
            tokio::select! {
                moved = heads.changed() => {
                    if moved.is_err() {
                        return;
                    }
                    match verify::vouch(controller.history(), &identity, &dir, controller.audit()).await {
                        Ok(head) => meters.signed(head.wall_ns, head.seq),
                        Err(error) => tracing::error!(%error, "the audit head could not be signed"),
                    }
                    tokio::time::sleep(VOUCH_PACE).await;
                }
                _ = renewal.tick() => match identity.renew(&dir, wall_ns()) {
                    Ok(true) => tracing::info!("the server's certificate was renewed"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the server's certificate could not be renewed"),
                },
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = closed => {}
    }
}

/// Wipes what was pruned, and prunes by itself what the configuration says is old.
async fn keeping(keeper: Arc<Keeper>, rules: Option<Rules>, closed: impl Future<Output = ()>) {
    let tidy = async {
        match rules {
            Some(rules) => keeper.keep_tidy(rules).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = keeper.keep_wiping() => {}
        () = tidy => {}
        () = closed => {}
    }
}

fn controller_id(dir: &DataDir) -> Result<HostId, DataDirError> {
    if let Some(bytes) = dir.read(ID_FILE, Access::Public)? {
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(id) = text.trim().parse::<uuid::Uuid>() {
            return Ok(HostId::new(id.to_string()));
        }
    }
    let id = uuid::Uuid::new_v4().to_string();
    dir.write(ID_FILE, id.as_bytes(), Access::Public)?;
    Ok(HostId::new(id))
}

fn wall_ns() -> i64 {
    let time = clock_gettime(KernelClock::Realtime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
