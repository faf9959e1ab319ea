//! The agent as a process: locks, recovery, enrolment, guard, and then the work, in the one order that keeps the promise.
//!
//! ```text
//! lock the state directory -> undo what an earlier life left -> enrol if need be -> guard -> work -> undo -> leave
//! ```

use std::{
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use fracas_model::{catalogue::Catalogue, facts::HostFacts, id::HostId, policy::Policy};

use crate::{
    dial::{Contact, TcpDial},
    disk::{Disk as _, FileDisk},
    enrol::{EnrolError, Token, enrol},
    guard::{self, Guard, Outcome, take_journal, undo_everything},
    host::{Host as _, clock::Clock, linux::LinuxHost},
    identity::{Identity, IdentityError},
    lock::{self, Lock, LockError},
    outbox::Outbox,
    reconcile::{ALL, Fault, Reconciler, Setup},
    rules::Rules,
    run::{self, Agent, Left},
    session::About,
    watch::thread::ThreadWatcher,
};

pub use crate::rules::PolicySource;

/// Version of this agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where the addresses given at enrolment are kept for later starts.
const CONTROLLERS: &str = "controllers";
/// Stands for the host in stamps made before it is enrolled; no controller ever sees them.
const NOBODY: &str = "not-enrolled";
/// First and longest pause between attempts to enrol at a controller that is not there yet.
const ENROL_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Which kind of agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Applies faults and looks.
    Full,
    /// Only looks: it knows no fault and needs no guard.
    Observer,
}

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything the agent keeps.
    pub state_dir: PathBuf,
    /// Controllers, `host:port` of their fleet listeners; those of the enrolment when empty.
    pub controllers: Vec<String>,
    /// Needed at the first start.
    pub token: Option<Token>,
    /// Name of the host for people; its host name when absent.
    pub name: Option<String>,
    /// The host owner's rules.
    pub policy: PolicySource,
    /// Which kind.
    pub kind: Kind,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another agent has the state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state directory.
    #[error("state directory {path} cannot be used: {error}; choose another with --state-dir or FRACAS_AGENT_STATE")]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The host's key and certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Enrolment.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// No token at the first start.
    #[error(
        "this host is not enrolled: make a token with `fracas hosts join-token` and give it with --join-token-file FILE \
         or FRACAS_JOIN_TOKEN"
    )]
    NoToken,
    /// Nobody to talk to.
    #[error("no controller is known: give its fleet address with --controller HOST:PORT")]
    NoController,
    /// The guard.
    #[error("the guard, which undoes when this agent dies, cannot be started ({0}); nothing is done without it")]
    Guard(io::Error),
}

/// Runs an agent until `shutdown` resolves and everything is undone.
///
/// Needs a single-threaded runtime with I/O and time, and [`crate::reexec()`] called first in `main`.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> Result<Left, ServiceError> {
    let dir = state_dir(&options.state_dir)?;
    let _agent = Lock::take(&dir, lock::AGENT)?;
    let journal = take_journal(&dir).await?;
    let found = Identity::load(&dir)?;
    tokio::pin!(shutdown);
    let identity = if let Some(identity) = found {
        identity
    } else {
        // Before the network: what an earlier life left behind must not wait for a controller.
        undo_as(&dir, NOBODY.into()).await.map_err(state_error(&dir))?;
        tokio::select! {
            enrolled = join(&dir, &options) => enrolled?,
            () = &mut shutdown => return Ok(Left::Clean),
        }
    };
    let host = LinuxHost::start(identity.host.clone(), VERSION);
    let rules = Rules::read(options.policy);
    rules.log();
    let faults: &'static [&'static dyn Fault] = if options.kind == Kind::Full { ALL } else { &[] };
    let disk = || FileDisk::new(&dir).map(Rc::new).map_err(state_error(&dir));
    let setup = Setup {
        policy: rules.policy().clone(),
        facts: HostFacts::default(),
        faults,
        agent_version: VERSION.to_owned(),
        fleet: identity.fleet(),
    };
    let journal_disk = FileDisk::with_reserve(&dir).map_err(state_error(&dir))?;
    let mut reconciler = Reconciler::open(host, Rc::new(journal_disk), setup).await;
    reconciler.recover().await;
    let guard = match options.kind {
        Kind::Full => Some(Guard::start(reconciler.host().spawner(), &dir).map_err(ServiceError::Guard)?),
        Kind::Observer => None,
    };
    let facts = match options.kind {
        Kind::Full => reconciler.host().facts().await,
        Kind::Observer => reconciler.host().described(),
    };
    reconciler.set_facts(facts.clone());
    let clock = Clock::of(identity.host.clone());
    let outbox = Outbox::open(disk()?, &clock.now().clock.boot, uuid::Uuid::new_v4().to_string()).await;
    let addresses = controllers(&dir, &options.controllers)?;
    tracing::info!(host = %identity.host, controllers = ?addresses, state = %dir.display(), "agent ready");
    let agent = Agent {
        reconciler,
        outbox,
        watcher: ThreadWatcher::new(fracas_probes::ALL, rules.policy().clone(), clock.clone()),
        rules,
        contact: Contact { dial: Arc::new(TcpDial), tls: Some(identity.client_config()?), addresses },
        about: About { version: VERSION.to_owned(), facts, catalogue: catalogue(faults) },
        guard,
        now: Rc::new(move || clock.now()),
        seed: rand::random(),
    };
    let left = Box::pin(run::run(agent, shutdown)).await;
    drop(journal);
    Ok(left)
}

/// Everything documents may name on a host with these faults.
pub fn catalogue(faults: &[&dyn Fault]) -> Catalogue {
    Catalogue {
        faults: faults.iter().map(|f| f.info()).collect(),
        probes: fracas_probes::ALL.iter().map(|p| p.info()).collect(),
    }
}

/// Undoes everything the journal of a state directory says is open, whoever left it; for `undo-all` without an agent.
pub async fn undo_all(state_dir: &Path) -> Result<Outcome, ServiceError> {
    let dir = state_dir_of(state_dir)?;
    let id = Identity::load(&dir).ok().flatten().map_or_else(|| NOBODY.into(), |identity| identity.host);
    guard_undo(&dir, id).await.map_err(state_error(&dir))
}

async fn guard_undo(dir: &Path, id: HostId) -> io::Result<Outcome> {
    undo_everything(dir, || async move { LinuxHost::start(id, VERSION) }).await
}

/// With the journal's lock already held by the caller.
async fn undo_as(dir: &Path, id: HostId) -> io::Result<()> {
    let setup = Setup {
        policy: Policy::nothing(),
        facts: HostFacts::default(),
        faults: &[],
        agent_version: VERSION.to_owned(),
        fleet: String::new(),
    };
    let disk = FileDisk::new(dir)?;
    if disk.read(crate::journal::FILE).await?.is_empty() {
        return Ok(());
    }
    let mut reconciler = Reconciler::open(LinuxHost::start(id, VERSION), disk, setup).await;
    reconciler.recover().await;
    Ok(())
}

/// The guard's role: see [`crate::guard`].
pub(crate) fn guard_role(arguments: &[String]) -> i32 {
    let dir = arguments.first().map(PathBuf::from).unwrap_or_default();
    let id = Identity::load(&dir).ok().flatten().map_or_else(|| NOBODY.into(), |identity| identity.host);
    guard::serve(arguments, || async move { LinuxHost::start(id, VERSION) })
}

fn state_dir(path: &Path) -> Result<PathBuf, ServiceError> {
    // `FileDisk` makes it with the right mode.
    FileDisk::new(path).map_err(state_error(path))?;
    state_dir_of(path)
}

fn state_dir_of(path: &Path) -> Result<PathBuf, ServiceError> {
    // Absolute, because the guard outlives our working directory.
    fs::canonicalize(path).map_err(state_error(path))
}

fn state_error(path: &Path) -> impl Fn(io::Error) -> ServiceError + use<> {
    let path = path.to_owned();
    move |error| ServiceError::State { path: path.clone(), error }
}

/// Enrols, trying again while the controller is not there; a refusal is final.
async fn join(dir: &Path, options: &Options) -> Result<Identity, ServiceError> {
    let token = options.token.as_ref().ok_or(ServiceError::NoToken)?;
    let addresses = controllers(dir, &options.controllers)?;
    let name = options.name.clone().unwrap_or_else(|| sysinfo::System::host_name().unwrap_or_else(|_| "host".into()));
    let mut pause = ENROL_PAUSE.0;
    for address in addresses.iter().cycle() {
        match enrol(Arc::new(TcpDial), address, token, &name).await {
            Ok(identity) => {
                identity.store(dir)?;
                fs::write(dir.join(CONTROLLERS), addresses.join("\n")).map_err(state_error(dir))?;
                tracing::info!(host = %identity.host, name, "enrolled");
                return Ok(identity);
            }
            Err(error @ EnrolError::Unreachable { .. }) => {
                tracing::warn!(%error, "trying again in {} ms", pause.as_millis());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ENROL_PAUSE.1);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ServiceError::NoController)
}

fn controllers(dir: &Path, given: &[String]) -> Result<Vec<String>, ServiceError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let kept = fs::read_to_string(dir.join(CONTROLLERS)).unwrap_or_default();
    let kept: Vec<String> = kept.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    if kept.is_empty() { Err(ServiceError::NoController) } else { Ok(kept) }
}
