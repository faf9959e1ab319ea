//! A whole fleet in simulated time: the real controller and real agents, over real gRPC, on a network, hosts and disks
//! that are simulated. A seed decides latencies and troubles; the same seed gives the same history, byte for byte.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::{Future, pending},
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fracas_agent::{
    dial::{Contact, Dial, Dialled, Line},
    notify::Notify,
    outbox::Outbox,
    reconcile::{ALL, Reconciler, Setup},
    rules::{PolicySource, Rules},
    run::{self, Agent},
    service,
    session::About,
    watch::{
        pace::{Alarm, Pace},
        roster::Roster,
    },
};
use fracas_controller::{
    clock::Clock,
    controller::Controller,
    enrol::{Gate, Later, MadeToken},
    history::{History, HistoryError},
    listen::{Conn, Peer},
    runs::Request,
    store::{Store, Stored, memory::MemoryStore},
    verify,
};
use fracas_model::{
    catalogue::{Catalogue, Params, ProbeInfo},
    event::{Body, Event},
    id::HostId,
    plan::Refusal,
    policy::Policy,
    run::Answer,
    time::{ClockId, Stamp},
    tolerance::Values,
};
use fracas_probes::{LookFuture, Lookout, Probe, Seen, ledger::Ledger};
use fracas_proto::v1::{EnrolReply, EnrolRequest};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tonic::Status;

use crate::{
    crash::Crash,
    fake_disk::FakeDisk,
    fake_host::{FakeHost, Shots, World as HostWorld},
    fixture,
};

mod database;

pub use self::database::Data;
use self::database::Database;

/// Where agents find the controller.
const CONTROLLER: &str = "controller";
const PORT: u16 = 7767;
/// The hosts: where faults are, and where it is looked from.
pub const HOSTS: [&str; 2] = ["db", "edge"];
/// One step of simulated time.
const TICK: Duration = Duration::from_millis(2);
/// Simulated time begins here, nanoseconds since the Unix epoch.
const EPOCH_NS: i64 = 1_795_000_000_000_000_000;
/// How long the service is down after its process was killed.
const RESTART_NS: i64 = 1_500_000_000;
/// Longest time a world may take.
const LIMIT: Duration = Duration::from_mins(4);

/// Something that goes wrong in a world, at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A host and the controller lose each other's packets for a while.
    Partition {
        /// The host.
        host: &'static str,
        /// How long.
        lasts: Duration,
    },
    /// An agent is killed and started again.
    KillAgent {
        /// Its host.
        host: &'static str,
        /// How long it is away.
        away: Duration,
        /// The power is cut with it: of what was not synced so many bytes are there afterwards.
        power_cut: Option<usize>,
    },
    /// The controller is killed and started again.
    KillController {
        /// How long it is away.
        away: Duration,
    },
    /// The controller's disk is full for a while.
    FullDisk {
        /// How long.
        lasts: Duration,
    },
}

/// What came out of a world.
#[derive(Debug)]
pub struct Outcome {
    /// Everything stored, by stream.
    pub streams: BTreeMap<String, Vec<Stored>>,
    /// The run's history.
    pub events: Vec<Event>,
    /// Exit code of the run.
    pub exit_code: u8,
    /// Its first reason.
    pub reason: String,
    /// Signals sent on each host.
    pub shots: BTreeMap<&'static str, Shots>,
    /// What is different on each host from how it was found; empty texts when nothing is.
    pub residues: BTreeMap<&'static str, String>,
    /// What is wrong with the stored histories.
    pub broken: Vec<String>,
    /// What the simulated database knows of its data.
    pub data: Data,
    /// When all was over.
    pub took: Duration,
}

/// The troubles that a seed decides: none for every fourth, else up to four in the first fifteen seconds.
pub fn troubles(seed: u64) -> Vec<(Duration, Trouble)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = if seed.is_multiple_of(4) { 0 } else { random.random_range(1..=4) };
    let mut all: Vec<(Duration, Trouble)> = (0..count)
        .map(|_| {
            let at = Duration::from_millis(random.random_range(200..15_000));
            let host = HOSTS[random.random_range(0..HOSTS.len())];
            let span = Duration::from_millis(random.random_range(50..12_000));
            let trouble = match random.random_range(0..8) {
                0..=2 => Trouble::Partition { host, lasts: span },
                3 => Trouble::KillAgent { host, away: span / 2, power_cut: None },
                4 => Trouble::KillAgent { host, away: span / 2, power_cut: Some(random.random_range(0..80)) },
                5..=6 => Trouble::KillController { away: span / 2 },
                _ => Trouble::FullDisk { lasts: span / 4 },
            };
            (at, trouble)
        })
        .collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// The experiment of every world: a kill, a delay after the recovery, a pause.
pub const DOCUMENT: &str = "apiVersion: fracas/v1
kind: Experiment
name: simulated
services: { web: { rto: 10s } }
targets:
  db: { select: role=db }
  edge: { select: role=edge }
probes:
  web-up: { service: web, from: edge, every: 100ms, simulated: {} }
steadyState: { probes: [web-up], holdFor: 2s, giveUpAfter: 30s }
timeline:
  - { id: kill, at: 0s, target: db, fault: { process-kill: { name: postgres } } }
  - { id: slow, after: { recovered: web }, target: db, for: 4s, fault: { net-delay: { delay: 100ms } } }
  - { id: pause, after: { ended: slow }, target: db, for: 2s, required: false, onInterrupt: reapply, fault: { process-pause: { name: nginx } } }
recovery: { stableFor: 1s, giveUpAfter: 15s }
lease: 5s
";

/// The experiment twice, and between them a question that somebody answers as soon as it is asked.
pub const DAY: &str = "apiVersion: fracas/v1
kind: GameDay
name: simulated-day
sections:
  - { id: first, experiment: simulated.yaml }
  - { id: second, experiment: simulated.yaml, waitBefore: 1s, approval: { question: Once more?, deadline: 60s } }
";

/// A kill, then a delay that begins on one of two hosts, under stop conditions that only troubles meet.
pub const ROLLOUT: &str = "apiVersion: fracas/v1
kind: Experiment
name: simulated-rollout
services: { web: { rto: 10s } }
targets:
  db: { select: role=db }
  both: { select: \"role in (db, edge)\" }
  edge: { select: role=edge }
probes:
  web-up: { service: web, from: edge, every: 100ms, simulated: {} }
steadyState: { probes: [web-up], holdFor: 2s, giveUpAfter: 30s }
timeline:
  - { id: kill, at: 0s, target: db, fault: { process-kill: { name: postgres } } }
  - id: slow
    after: { recovered: web }
    target: both
    for: 9s
    fault: { net-delay: { delay: 100ms } }
    rollout: { probes: [web-up], holdFor: 1s, giveUpAfter: 20s }
recovery: { stableFor: 1s, giveUpAfter: 15s }
abortWhen:
  - { probe: web-up, errorBudget: { allow: 50%, within: 10s } }
  - { vantage: edge, lostFor: 3s }
lease: 5s
";

/// A kill that takes what was written last, with a ledger that tells.
pub const LEDGER: &str = "apiVersion: fracas/v1
kind: Experiment
name: simulated-loss
services: { web: { rto: 10s, rpo: 2s } }
targets:
  db: { select: role=db }
  edge: { select: role=edge }
probes:
  web-up: { service: web, from: edge, every: 100ms, simulated: {} }
ledgers:
  data: { service: web, from: edge, every: 50ms, timeout: 500ms, simulated: {} }
steadyState: { probes: [web-up], holdFor: 2s, giveUpAfter: 30s }
timeline:
  - { id: kill, at: 2s, target: db, fault: { process-kill: { name: postgres } } }
  - { id: slow, after: { recovered: web }, target: db, for: 2s, fault: { net-delay: { delay: 100ms } } }
recovery: { stableFor: 1s, giveUpAfter: 15s }
lease: 5s
";

/// A kill and a delay, each after a quiet time in which the probe looks at its rate at rest.
pub const REST: &str = "apiVersion: fracas/v1
kind: Experiment
name: simulated-rest
services: { web: { rto: 10s } }
targets:
  db: { select: role=db }
  edge: { select: role=edge }
probes:
  web-up: { service: web, from: edge, every: 100ms, everyAtRest: 1s, timeout: 100ms, simulated: {} }
steadyState: { probes: [web-up], holdFor: 8s, giveUpAfter: 30s }
timeline:
  - { id: quiet, at: 0s, wait: 10s }
  - { id: kill, after: { ended: quiet }, target: db, fault: { process-kill: { name: postgres } } }
  - { id: slow, after: { ended: kill, delay: 15s }, target: db, for: 4s, fault: { net-delay: { delay: 100ms } } }
  - { id: late, after: { ended: slow }, wait: 12s }
recovery: { stableFor: 1s, giveUpAfter: 15s }
abortWhen:
  - { probe: web-up, failingFor: 20s, onLoss: continue }
lease: 5s
";

/// Runs a world to its end: the run is over and every host is as it was found, or time is up.
///
/// # Panics
/// When the simulation itself breaks.
pub fn play(seed: u64, troubles: &[(Duration, Trouble)]) -> Outcome {
    play_source(seed, troubles, DOCUMENT)
}

/// The same with the game day.
///
/// # Panics
/// When the simulation itself breaks.
pub fn play_day(seed: u64, troubles: &[(Duration, Trouble)]) -> Outcome {
    play_source(seed, troubles, DAY)
}

/// The same with [`ROLLOUT`].
///
/// # Panics
/// When the simulation itself breaks.
pub fn play_rollout(seed: u64, troubles: &[(Duration, Trouble)]) -> Outcome {
    play_source(seed, troubles, ROLLOUT)
}

/// The same with [`LEDGER`].
///
/// # Panics
/// When the simulation itself breaks.
pub fn play_ledger(seed: u64, troubles: &[(Duration, Trouble)]) -> Outcome {
    play_source(seed, troubles, LEDGER)
}

/// The same with [`REST`].
///
/// # Panics
/// When the simulation itself breaks.
pub fn play_rest(seed: u64, troubles: &[(Duration, Trouble)]) -> Outcome {
    play_source(seed, troubles, REST)
}

fn play_source(seed: u64, troubles: &[(Duration, Trouble)], source: &'static str) -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    align_task_numbers();
    let world = World::new(seed, source);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(LIMIT + Duration::from_mins(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(40))
        .build();
    world.populate(&mut sim);
    world.unroll(&mut sim, troubles);
    let took = sim.elapsed();
    drop(sim);
    world.outcome(took)
}

/// One world at a time, see [`align_task_numbers`].
static ALONE: Mutex<()> = Mutex::new(());

/// tokio numbers the tasks of a process, whatever runtime they are of, and the number modulo a small power of two decides in
/// which order the tasks of a host that crashes are dropped, and so which peer hears of it first. Each world begins at a
/// multiple of 64.
fn align_task_numbers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let number = || runtime.spawn(async {}).id().to_string().parse::<u64>().expect("a number");
    // The next one follows.
    assert!((0..1000).any(|_| number() % 64 == 63), "no other runtime of this process makes tasks all the time");
}

/// What outlives crashes: disks, hosts, the store.
struct World {
    seed: u64,
    source: &'static str,
    store: MemoryStore,
    up: Arc<AtomicBool>,
    probes: &'static [&'static dyn Probe],
    database: Database,
    ledgers: &'static [&'static dyn Ledger],
    hosts: BTreeMap<&'static str, Machine>,
    lives: Rc<Cell<u64>>,
}

#[derive(Clone)]
struct Machine {
    host: FakeHost,
    disk: FakeDisk,
    found: HostWorld,
}

/// Simulated time since the start, nanoseconds.
fn elapsed_ns() -> i64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_nanos() as i64)
}

/// Boot time of a host: every machine was started at another moment.
fn boot_ns(name: &str) -> i64 {
    let age: i64 = name.bytes().map(i64::from).sum();
    age * 1_000_000_000 + elapsed_ns()
}

impl World {
    fn new(seed: u64, source: &'static str) -> Self {
        let up = Arc::new(AtomicBool::new(true));
        let probe: &'static dyn Probe = Box::leak(Box::new(Simulated(Arc::clone(&up))));
        let database = Database::new(Arc::clone(&up));
        let ledger: &'static dyn Ledger = Box::leak(Box::new(database.clone()));
        let machine = |name: &'static str| {
            let crash = Crash::default();
            let host = FakeHost::new(name, crash.clone());
            host.follow(move || boot_ns(name));
            let found = host.world();
            (name, Machine { host, disk: FakeDisk::new(crash), found })
        };
        Self {
            seed,
            source,
            store: MemoryStore::new(),
            up,
            probes: vec![probe].leak(),
            database,
            ledgers: vec![ledger].leak(),
            hosts: HOSTS.into_iter().map(machine).collect(),
            lives: Rc::default(),
        }
    }

    fn populate(&self, sim: &mut turmoil::Sim<'_>) {
        let (store, seed, source, lives) = (self.store.clone(), self.seed, self.source, Rc::clone(&self.lives));
        sim.host(CONTROLLER, move || {
            lives.set(lives.get() + 1);
            control(store.clone(), seed.wrapping_add(lives.get()), source)
        });
        for (name, machine) in &self.hosts {
            let (machine, looks, lives) = (machine.clone(), (self.probes, self.ledgers), Rc::clone(&self.lives));
            sim.host(*name, move || {
                lives.set(lives.get() + 1);
                serve(machine.clone(), looks, lives.get())
            });
        }
    }

    fn unroll(&self, sim: &mut turmoil::Sim<'_>, troubles: &[(Duration, Trouble)]) {
        let mut agenda: Vec<(Duration, Deed)> =
            troubles.iter().map(|(at, trouble)| (*at, Deed::Begin(trouble.clone()))).collect();
        let mut away: BTreeSet<&'static str> = BTreeSet::new();
        while sim.elapsed() < LIMIT {
            let now = sim.elapsed();
            let (due, later): (Vec<_>, Vec<_>) = agenda.into_iter().partition(|(at, _)| *at <= now);
            agenda = later;
            for (_, deed) in due {
                self.act(sim, deed, &mut agenda, &mut away);
            }
            let up = self.service_is_up(now);
            if self.up.swap(up, Ordering::Relaxed) && !up {
                // Another share of the last second each time.
                let loses = (self.seed.wrapping_mul(7_919) % 1000) as i64 * 1_000_000;
                self.database.kill(now.as_nanos() as i64, loses);
            }
            sim.step().expect("the simulated programs do not fail");
            let quiet = agenda.is_empty() && away.is_empty();
            if quiet && now.as_millis().is_multiple_of(100) && self.settled() {
                return;
            }
        }
    }

    /// Down for a while after its process was killed. What else is done on its host does not bother it.
    fn service_is_up(&self, now: Duration) -> bool {
        let db = &self.hosts["db"].host;
        let age: i64 = "db".bytes().map(i64::from).sum::<i64>() * 1_000_000_000;
        db.last_shot_ns().is_none_or(|at| age + now.as_nanos() as i64 - at >= RESTART_NS)
    }

    fn settled(&self) -> bool {
        let clean = self.hosts.values().all(|machine| machine.host.world() == machine.found);
        clean && self.run_events().last().is_some_and(|e| matches!(e.body, Body::ReportSealed { .. }))
    }

    fn run_events(&self) -> Vec<Event> {
        let streams = now(self.store.streams("run/"));
        let Some(stream) = streams.first() else { return Vec::new() };
        let stored = now(self.store.read(stream, 0, usize::MAX));
        stored.iter().filter_map(|record| serde_json::from_slice(&record.stored).ok()).collect()
    }

    fn act(
        &self,
        sim: &mut turmoil::Sim<'_>,
        deed: Deed,
        agenda: &mut Vec<(Duration, Deed)>,
        away: &mut BTreeSet<&'static str>,
    ) {
        let now = sim.elapsed();
        match deed {
            Deed::Begin(Trouble::Partition { host, lasts }) => {
                sim.partition(host, CONTROLLER);
                agenda.push((now + lasts, Deed::Repair(host)));
            }
            Deed::Begin(Trouble::KillAgent { host, away: time, power_cut }) => {
                if !away.insert(host) {
                    return;
                }
                sim.crash(host);
                let machine = &self.hosts[host];
                match power_cut {
                    Some(torn) => {
                        machine.disk.cut_power(torn);
                        machine.host.reboot();
                    }
                    None => machine.host.kill_agent(),
                }
                agenda.push((now + time, Deed::Start(host)));
            }
            Deed::Begin(Trouble::KillController { away: time }) => {
                if away.insert(CONTROLLER) {
                    sim.crash(CONTROLLER);
                    agenda.push((now + time, Deed::Start(CONTROLLER)));
                }
            }
            Deed::Begin(Trouble::FullDisk { lasts }) => {
                self.store.set_full(true);
                agenda.push((now + lasts, Deed::MakeRoom));
            }
            Deed::Repair(host) => sim.repair(host, CONTROLLER),
            Deed::Start(who) => {
                away.remove(who);
                sim.bounce(who);
            }
            Deed::MakeRoom => self.store.set_full(false),
        }
    }

    fn outcome(&self, took: Duration) -> Outcome {
        let names = now(self.store.streams(""));
        let mut streams = BTreeMap::new();
        let mut broken = Vec::new();
        for name in names {
            let found = now(verify::verify_stream(&self.store, &name));
            broken.extend(found.broken.map(|(seq, why)| format!("{name} {seq}: {why}")));
            broken.extend(found.blobs.into_iter().map(|(seq, why)| format!("{name} {seq}: {why}")));
            streams.insert(name.clone(), now(self.store.read(&name, 0, usize::MAX)));
        }
        let events = self.run_events();
        let (exit_code, reason) = events
            .iter()
            .find_map(|event| match &event.body {
                Body::Finished { exit_code, reasons, .. } => {
                    Some((*exit_code, reasons.first().cloned().unwrap_or_default()))
                }
                _ => None,
            })
            .unwrap_or((u8::MAX, "the run did not end".into()));
        let residue = |machine: &Machine| {
            let (then, now) = (&machine.found.present, machine.host.world().present);
            let differences: Vec<String> = then.symmetric_difference(&now).cloned().collect();
            differences.join(", ")
        };
        Outcome {
            streams,
            events,
            exit_code,
            reason,
            shots: self.hosts.iter().map(|(name, machine)| (*name, machine.host.shots())).collect(),
            residues: self.hosts.iter().map(|(name, machine)| (*name, residue(machine))).collect(),
            broken,
            data: self.database.data(),
            took,
        }
    }
}

/// What is to be done to the world, now or later.
enum Deed {
    Begin(Trouble),
    Repair(&'static str),
    Start(&'static str),
    MakeRoom,
}

/// Answers of the store in memory are there at once.
fn now<T, E: std::fmt::Debug>(answer: impl Future<Output = Result<T, E>>) -> T {
    let answer = futures_util::FutureExt::now_or_never(answer);
    answer.expect("a store in memory does not wait").expect("it can be read")
}

type Ended = Result<(), Box<dyn std::error::Error>>;

/// One life of the controller.
async fn control(store: MemoryStore, seed: u64, source: &'static str) -> Ended {
    let clock = Arc::new(SimClock(ClockId { host: CONTROLLER.into(), boot: "boot-1".into() }));
    // A full disk keeps it from starting; it is tried until there is room, as a service manager would.
    let (history, controller) = loop {
        let opened = async {
            let history =
                History::open(Arc::new(store.clone()), Arc::<SimClock>::clone(&clock) as Arc<dyn Clock>).await?;
            enrol_all(&history).await?;
            let controller = Controller::open(history.clone(), &CONTROLLER.into(), seed).await?;
            Ok::<_, HistoryError>((history, controller))
        };
        match opened.await {
            Ok(both) => break both,
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    };
    let _ = &history;
    controller.resume().await?;
    let listener = turmoil::net::TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    let incoming = futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, from)| {
            let host = turmoil::reverse_lookup(from.ip()).map(HostId::new);
            Conn::plain(stream, Peer { host, address: Some(from), ..Peer::default() })
        });
        Some((accepted, listener))
    });
    let starting = start_once(controller.clone(), source);
    tokio::select! {
        biased;
        served = controller.serve_fleet(Box::pin(incoming), Arc::new(NoGate), pending()) => served?,
        () = starting => {}
    }
    Ok(())
}

async fn enrol_all(history: &History) -> Result<(), HistoryError> {
    for name in HOSTS {
        let stream = format!("host/{name}");
        if history.read_stored(&stream, 0, 1).await?.is_empty() {
            let labels = [("role".to_owned(), name.to_owned())].into();
            let at = history.now();
            let body = Body::HostEnrolled { host: name.into(), name: name.into(), labels, serial: String::new(), at };
            history.append(&stream, vec![body]).await?;
        }
    }
    Ok(())
}

/// Starts the one run of a world as soon as it can be; the key makes it one over all lives. Then answers its question.
async fn start_once(controller: Controller, source: &'static str) {
    let request = Request {
        source: source.into(),
        files: [("simulated.yaml".to_owned(), DOCUMENT.to_owned())].into(),
        source_name: "simulated.yaml".into(),
        seed: 7,
        environment: "default".into(),
        by: "admin".into(),
        idempotency_key: "the one".into(),
        ..Request::default()
    };
    loop {
        let hosts = controller.fleet().hosts();
        if hosts.values().filter(|h| h.connected).count() == HOSTS.len()
            && let Ok(run) = controller.runs().start(&request).await
        {
            let answer = Answer { go: true, by: "bert".into(), note: String::new() };
            while controller.runs().answer(&run, "second", answer.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return pending().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Kinds of probes and of ledgers.
type Looks = (&'static [&'static dyn Probe], &'static [&'static dyn Ledger]);

/// One life of an agent.
async fn serve(machine: Machine, (probes, ledgers): Looks, life: u64) -> Ended {
    let facts = fixture::host_facts();
    let setup = Setup {
        policy: Policy::builtin(),
        facts: facts.clone(),
        faults: ALL,
        agent_version: "0.0.0".into(),
        fleet: "simulated".into(),
    };
    let mut reconciler = Reconciler::open(machine.host.clone(), machine.disk.clone(), setup).await;
    reconciler.recover().await;
    let host = machine.host.clone();
    let now: Rc<dyn Fn() -> Stamp> = Rc::new(move || fracas_agent::host::Host::now(&host));
    let outbox = Outbox::open(machine.disk.clone(), &now().clock.boot, format!("outbox-{life}")).await;
    let infos = probes.iter().map(|probe| probe.info()).collect();
    let books = ledgers.iter().map(|ledger| ledger.info()).collect();
    let catalogue = Catalogue { probes: infos, ledgers: books, ..service::catalogue(ALL) };
    let agent = Agent {
        reconciler,
        outbox,
        watcher: Roster::new(probes, Policy::builtin(), SimPace(Rc::clone(&now))).with_ledgers(ledgers),
        rules: Rules::read(PolicySource::Given(Box::new(Policy::builtin()))),
        contact: Contact { dial: Arc::new(SimDial), tls: None, addresses: vec![format!("{CONTROLLER}:{PORT}")] },
        about: About { version: "0.0.0".into(), facts, catalogue, instance: format!("life-{life}") },
        held: None,
        guard: None,
        systemd: Notify::nobody(),
        now,
        seed: life,
    };
    Box::pin(run::run(agent, pending())).await;
    Ok(())
}

struct SimDial;

impl Dial for SimDial {
    fn dial(&self, address: &str) -> Dialled {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            let addresses = stream.peer_addr().into_iter().collect();
            Ok(Line { io: Box::new(stream), addresses, beside: None })
        })
    }
}

#[derive(Debug)]
struct SimClock(ClockId);

impl Clock for SimClock {
    fn now(&self) -> Stamp {
        let boot_ns = boot_ns(CONTROLLER);
        Stamp { clock: self.0.clone(), boot_ns, wall_ns: EPOCH_NS + elapsed_ns(), bound_ns: 1_000_000 }
    }
}

/// Nobody joins a simulated fleet.
struct NoGate;

impl Gate for NoGate {
    fn make<'a>(
        &'a self,
        _ttl_seconds: u32,
        _labels: BTreeMap<String, String>,
        _by: &'a str,
    ) -> Later<'a, Result<MadeToken, HistoryError>> {
        Box::pin(async { Ok(MadeToken { text: String::new(), expires_wall_ns: 0 }) })
    }

    fn enrol(&self, _request: EnrolRequest) -> Later<'_, Result<EnrolReply, Status>> {
        Box::pin(async { Err(Status::permission_denied("nobody joins a simulated fleet")) })
    }
}

#[derive(Clone)]
struct SimPace(Rc<dyn Fn() -> Stamp>);

struct SimAlarm {
    now: Rc<dyn Fn() -> Stamp>,
    at_ns: RefCell<Option<i64>>,
}

impl Pace for SimPace {
    type Alarm = SimAlarm;

    fn boot_ns(&self) -> i64 {
        (self.0)().boot_ns
    }

    fn now(&self) -> Stamp {
        (self.0)()
    }

    fn alarm(&self) -> io::Result<SimAlarm> {
        Ok(SimAlarm { now: Rc::clone(&self.0), at_ns: RefCell::default() })
    }
}

impl Alarm for SimAlarm {
    fn arm(&mut self, at_ns: i64) -> io::Result<()> {
        self.at_ns.replace(Some(at_ns));
        Ok(())
    }

    async fn rang(&mut self) -> io::Result<()> {
        let Some(at_ns) = *self.at_ns.borrow() else { return pending().await };
        let left = at_ns.saturating_sub((self.now)().boot_ns).max(0);
        tokio::time::sleep(Duration::from_nanos(left.unsigned_abs())).await;
        self.at_ns.replace(None);
        Ok(())
    }
}

/// A probe that sees whether the simulated service is up.
struct Simulated(Arc<AtomicBool>);

impl Probe for Simulated {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "simulated".into(),
            summary: "Looks at the simulated service.".into(),
            help: String::new(),
            params: Vec::new(),
            reading: Vec::new(),
            example: "{ simulated: {} }".into(),
        }
    }

    fn ready(&self, _params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        Ok(Box::new(Glance(Arc::clone(&self.0))))
    }
}

struct Glance(Arc<AtomicBool>);

impl Lookout for Glance {
    fn look(&self) -> LookFuture {
        let up = Arc::clone(&self.0);
        let look: Pin<Box<dyn Future<Output = Seen>>> = Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            if up.load(Ordering::Relaxed) { Ok(Values::new()) } else { Err("down".into()) }
        });
        look
    }
}
