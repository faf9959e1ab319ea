//! The agent as a process: locks, guard, recovery, enrolment, and then the work, in the one order that keeps the promise.
//!
//! ```text
//! lock the state directory -> guard -> undo what an earlier life left -> enrol if need be -> work -> undo -> leave
//! ```

use std::{
    convert::Infallible,
    fs,
    future::{Future, Ready, ready},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use fracas_model::{catalogue::Catalogue, facts::HostFacts};

use crate::{
    dial::{Contact, TcpDial},
    disk::{Disk, FileDisk},
    enrol::{EnrolError, Token, enrol},
    guard::{self, Guard, Outcome, take_journal, undo_everything},
    host::{Host, clock::Clock, linux::LinuxHost, worker::Spawner},
    identity::{Identity, IdentityError, draft_key, forget_draft_key},
    lock::{self, Lock, LockError},
    notify::Notify,
    outbox::Outbox,
    reconcile::{ALL, Fault, Reconciler, Setup},
    rules::Rules,
    run::{self, Agent, Left},
    session::{About, Held},
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
    serve_telling(options, Notify::nobody(), shutdown).await
}

/// The same for an agent that has a process to itself, and tells systemd how it is if that started it.
pub async fn serve_telling(
    options: Options,
    systemd: Notify,
    shutdown: impl Future<Output = ()>,
) -> Result<Left, ServiceError> {
    let dir = state_dir(&options.state_dir)?;
    // An agent that was just killed may not be quite gone, and then nobody but this one may be left to undo.
    let _agent = Lock::take_over(&dir, lock::AGENT)?;
    let spawner = Spawner::start();
    // Before the journal: from the moment this agent has it, somebody undoes whatever becomes of this agent.
    let guard = (options.kind == Kind::Full).then(|| Guard::start(&spawner, &dir));
    let journal = take_journal(&dir).await?;
    // Before the network, and whatever is wrong with the identity: what an earlier life left must not wait for anything.
    let found = Identity::load(&dir);
    let host = |identity: Option<&Identity>| {
        let id = identity.map_or_else(|| NOBODY.into(), |identity| identity.host.clone());
        LinuxHost::with_spawner(id, VERSION, spawner.clone()).owning(&own_paths(&dir, &options.policy))
    };
    let rules = Rules::read(options.policy.clone());
    rules.log();
    let faults: &'static [&'static dyn Fault] = if options.kind == Kind::Full { ALL } else { &[] };
    let disk = || FileDisk::new(&dir).map(Rc::new).map_err(state_error(&dir));
    let journal_disk = || FileDisk::with_reserve(&dir).map(Rc::new).map_err(state_error(&dir));
    let setup = |identity: Option<&Identity>| Setup {
        policy: rules.policy().clone(),
        facts: HostFacts::default(),
        faults,
        agent_version: VERSION.to_owned(),
        fleet: identity.map(Identity::fleet).unwrap_or_default(),
    };
    let known = found.as_ref().ok().and_then(Option::as_ref);
    let mut reconciler = Reconciler::open(host(known), journal_disk()?, setup(known)).await;
    reconciler.report_journal();
    reconciler.recover().await;
    // From here on the guard undoes what is still open, should this agent not start.
    let guard = guard.transpose().map_err(ServiceError::Guard)?;
    tokio::pin!(shutdown);
    // Ready without a controller: it does what it is there for also, and above all, when there is none.
    systemd.ready();
    let kept = found?.filter(|identity| !joins_again(identity, &options));
    let identity = if let Some(identity) = kept {
        if let Err(error) = identity.settle(&dir) {
            tracing::warn!(%error, "a renewal of the host's certificate is stored and not finished yet");
        }
        identity
    } else {
        systemd.status("waits for a controller to enrol at");
        let identity = tokio::select! {
            enrolled = join(&dir, &options) => enrolled?,
            never = go_on_undoing(&mut reconciler) => match never {},
            never = systemd.living() => match never {},
            () = &mut shutdown => return Ok(left_of(&reconciler)),
        };
        let anew = Reconciler::open(host(Some(&identity)), journal_disk()?, setup(Some(&identity)));
        reconciler = systemd.living_while(anew).await;
        systemd.living_while(reconciler.recover()).await;
        identity
    };
    let facts = match options.kind {
        // Each ability is tried, which may take seconds.
        Kind::Full => systemd.living_while(reconciler.host().facts()).await,
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
        about: About {
            version: VERSION.to_owned(),
            facts,
            catalogue: catalogue(faults),
            instance: uuid::Uuid::new_v4().to_string(),
        },
        held: Some(Held { identity, dir }),
        guard,
        systemd,
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
        probes: fracas_probes::ALL.iter().map(|p| fracas_probes::offered(*p)).collect(),
        ledgers: fracas_probes::ledger::ALL.iter().map(|l| l.info()).collect(),
    }
}

/// Undoes everything the journal of a state directory says is open, whoever left it; for `undo-all` without an agent.
pub async fn undo_all(state_dir: &Path) -> Result<Outcome, ServiceError> {
    let dir = state_dir_of(state_dir)?;
    undo_everything(&dir, None, maker(dir.clone())).await.map_err(state_error(&dir))
}

/// Tries again and again what could not be undone yet; never resolves.
async fn go_on_undoing<H: Host, D: Disk>(reconciler: &mut Reconciler<H, D>) -> Infallible {
    while let Some(wake) = reconciler.next_wake() {
        let pause = (wake - reconciler.host().now().boot_ns).max(1_000_000);
        tokio::time::sleep(Duration::from_nanos(pause.cast_unsigned())).await;
        reconciler.tick().await;
    }
    std::future::pending().await
}

fn left_of<H: Host, D: Disk>(reconciler: &Reconciler<H, D>) -> Left {
    match reconciler.open_items().len() {
        0 => Left::Clean,
        open => Left::Open(open),
    }
}

/// The guard's role: see [`crate::guard`].
pub(crate) fn guard_role(arguments: &[String]) -> i32 {
    let dir = arguments.first().map(PathBuf::from).unwrap_or_default();
    guard::serve(arguments, maker(dir))
}

/// Makes the host for as many attempts as are needed, under the id that is known by then.
fn maker(dir: PathBuf) -> impl Fn() -> Ready<LinuxHost> {
    let spawner = Spawner::start();
    move || {
        let id = Identity::load(&dir).ok().flatten().map_or_else(|| NOBODY.into(), |identity| identity.host);
        ready(LinuxHost::with_spawner(id, VERSION, spawner.clone()))
    }
}

/// What an agent would cut itself off by touching: its state, its rules, and its own program.
fn own_paths<'p>(dir: &'p Path, policy: &'p PolicySource) -> Vec<&'p Path> {
    let mut own = vec![dir, Path::new("/proc/self/exe")];
    if let PolicySource::IfThere(path) | PolicySource::File(path) = policy {
        own.push(path);
    }
    own
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

/// Whether a token was given to a host whose certificate is over, so that it can only join again.
fn joins_again(identity: &Identity, options: &Options) -> bool {
    let now_s = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let over = identity.validity().is_ok_and(|validity| validity.is_over(now_s));
    if over && options.token.is_some() {
        tracing::warn!(host = %identity.host, "the host's certificate is over: it joins again, as a new host");
    }
    over && options.token.is_some()
}

/// Enrols, trying again while the controller is not there; a refusal is final.
async fn join(dir: &Path, options: &Options) -> Result<Identity, ServiceError> {
    let token = options.token.as_ref().ok_or(ServiceError::NoToken)?;
    let addresses = controllers(dir, &options.controllers)?;
    let name = options.name.clone().unwrap_or_else(|| sysinfo::System::host_name().unwrap_or_else(|_| "host".into()));
    let key = draft_key(dir)?;
    let mut pause = ENROL_PAUSE.0;
    for address in addresses.iter().cycle() {
        match enrol(Arc::new(TcpDial), address, token, &key, &name).await {
            Ok(identity) => {
                identity.store(dir)?;
                forget_draft_key(dir)?;
                fs::write(dir.join(CONTROLLERS), addresses.join("\n")).map_err(state_error(dir))?;
                tracing::info!(host = %identity.host, name, "enrolled");
                return Ok(identity);
            }
            Err(error @ EnrolError::Unreachable { .. }) => {
                tracing::warn!(%error, "trying again in {} ms", pause.as_millis());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ENROL_PAUSE.1);
            }
            Err(error) => {
                forget_draft_key(dir)?;
                return Err(error.into());
            }
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
