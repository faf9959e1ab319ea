//! What several targets need: the real catalogue, hosts, clocks, a controller in memory, and a runtime whose time passes
//! only while nobody works.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use fracas_agent::service;
use fracas_controller::{
    clock::ManualClock, controller::Controller, datadir::DataDir, enrol::Enrolment, fleet::Offer, history::History,
    identity::Identity, store::memory::MemoryStore,
};
use fracas_model::{
    catalogue::{AgentVersion, Catalogue},
    document::{ReadExperiment, read_experiment},
    event::Body,
    id::HostId,
    time::{ClockId, Stamp},
};
use fracas_sim::fixture;

/// A moment that documents may name, late in 2026.
pub(crate) const NOW_NS: i64 = 1_796_000_000_000_000_000;
/// The hosts there are.
pub(crate) const HOSTS: [&str; 2] = ["3f2c4c1e-55d4-4b53-9f30-5e1c63b4b0aa", "8a1c4c1e-55d4-4b53-9f30-5e1c63b4b0bb"];

/// Longest answer, or file, that the product may make of a fuzzer's input, bytes.
pub(crate) const LONGEST: usize = 16 << 20;

/// Documents that the product ships.
pub(crate) const EXAMPLES: &[&str] = &[
    include_str!("../../../crates/fracas-model/src/document/starter.yaml"),
    include_str!("../../../crates/fracas/src/demo/busy-host.yaml"),
    include_str!("../../../crates/fracas/src/demo/kill-primary.yaml"),
    include_str!("../../../crates/fracas/src/demo/slow-network.yaml"),
];

/// A small experiment on both hosts.
pub(crate) const SMALL: &str = "
apiVersion: fracas/v1
kind: Experiment
name: small
services: { web: { rto: 5s } }
targets: { box: { select: \"role=box\" } }
probes:
  up: { service: web, process: { name: web }, from: box, every: 100ms, everyAtRest: 400ms, timeout: 1s }
steadyState: { probes: [up], holdFor: 1s }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: web } }, target: box, for: 2s }
  - { id: kill, after: { recovered: web }, fault: { process-kill: { name: web, signal: KILL } }, target: box }
abortWhen:
  - { probe: up, failingFor: 2m }
recovery: { stableFor: 500ms, giveUpAfter: 10s }
limits: { maxTargets: 10, maxPercent: 100 }
";

/// What documents may name.
pub(crate) fn catalogue() -> &'static Catalogue {
    static ALL: OnceLock<Catalogue> = OnceLock::new();
    ALL.get_or_init(|| service::catalogue(fracas_faults::ALL))
}

/// [`SMALL`], read.
pub(crate) fn small() -> &'static ReadExperiment {
    static READ: OnceLock<ReadExperiment> = OnceLock::new();
    READ.get_or_init(|| read_experiment("small", SMALL, &BTreeMap::new(), catalogue()).expect("a good document"))
}

/// An instant on the clock of a host.
pub(crate) fn stamp(host: &str, boot_ns: i64) -> Stamp {
    let clock = ClockId { host: host.into(), boot: "b".into() };
    Stamp { clock, boot_ns, wall_ns: NOW_NS.saturating_add(boot_ns), bound_ns: 1_000_000 }
}

/// Runs something in a runtime of its own, which ends with it; a minute of its time is the most it may take.
pub(crate) fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let minute = Duration::from_secs(3600);
        tokio::time::timeout(minute, what).await.expect("an hour of silence: it waits for nothing")
    })
}

/// A real authority, made once for all inputs.
pub(crate) fn identity() -> &'static Arc<Identity> {
    static MADE: OnceLock<Arc<Identity>> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::open(&folder.path().join("d")).expect("a data directory");
        Arc::new(Identity::open(&dir, &[], NOW_NS).expect("an authority"))
    })
}

/// A history in memory.
pub(crate) async fn history(store: MemoryStore) -> History {
    let clock = Arc::new(ManualClock::new(stamp("c", 1_000_000_000)));
    History::open(Arc::new(store), clock).await.expect("a history in memory")
}

/// A controller over a history in memory, with both hosts enrolled and in contact.
pub(crate) async fn controller(store: MemoryStore) -> Controller {
    let history = history(store).await;
    for host in HOSTS {
        let enrolled = Body::HostEnrolled {
            host: host.into(),
            name: host[..4].to_owned(),
            labels: [("role".to_owned(), "box".to_owned())].into(),
            serial: "00".to_owned(),
            at: stamp("c", 0),
        };
        if history.read(&format!("host/{host}"), 0).await.is_ok_and(|events| events.is_empty()) {
            history.append(&format!("host/{host}"), vec![enrolled]).await.expect("appended");
        }
    }
    let controller = Controller::open(history, &HostId::from("c"), 7).await.expect("a controller");
    for host in HOSTS {
        connect(&controller, host);
    }
    controller
}

/// A host says what it can do.
pub(crate) fn connect(controller: &Controller, host: &str) {
    let offer = Offer { key: (AgentVersion::read("0.1.0"), [0; 32]), catalogue: Arc::new(catalogue().clone()) };
    // A host that the input had forgotten is refused; so be it.
    let _ = controller.fleet().connect(&host.into(), fixture::host_facts(), offer, stamp("c", 0));
}

/// The gate to its fleet.
pub(crate) fn gate(controller: &Controller) -> Arc<Enrolment> {
    Arc::new(Enrolment::new(
        controller.history().clone(),
        controller.fleet().clone(),
        controller.audit().to_owned(),
        identity().clone(),
        fracas_model::units::Dur::from_secs(30 * 86_400),
    ))
}

/// Splits an input into parts, each after two bytes with its length; what is left over is the last one.
pub(crate) fn parts(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let [low, high, rest @ ..] = data {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (part, next) = rest.split_at(length);
        parts.push(part);
        data = next;
    }
    parts
}

/// The opposite of [`parts`].
pub(crate) fn joined<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let part = |part: &'a [u8]| [&u16::try_from(part.len()).expect("a small part").to_le_bytes()[..], part].concat();
    parts.into_iter().flat_map(part).collect()
}
