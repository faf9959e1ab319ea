//! A whole controller over a store in memory: what it tells, that the table says the same, and when it is ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
};

use fracas_model::{
    event::Body,
    facts::HostFacts,
    id::HostId,
    time::{ClockId, Stamp},
};
use fracas_proto::v1::{ListHostsRequest, WatchRunRequest, operator_client::OperatorClient};
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use tonic::{Code, Request, transport::Endpoint};

use super::*;
use crate::{
    access::Doorkeeper,
    clock::ManualClock,
    datadir::DataDir,
    enrol::NoGate,
    fleet::Offer,
    history::History,
    identity::Identity,
    listen::{Conn, Peer},
    schedules::Setting,
    store::memory::MemoryStore,
};

const TABLE: &str = include_str!("../../METRICS.md");
/// 2027-01-15, somewhere in the life of the certificates that are made.
const NOW_NS: i64 = 1_800_000_000_000_000_000;

/// Knows one token.
struct OneToken;

impl Doorkeeper for OneToken {
    fn is_admin(&self, token: &str) -> bool {
        token == "good"
    }
}

struct Rig {
    metrics: Metrics,
    controller: Controller,
    store: MemoryStore,
    parts: Parts,
    told: Option<Receiver<Arc<Event>>>,
    _folder: tempfile::TempDir,
}

fn stamp() -> Stamp {
    let clock = ClockId { host: "c".into(), boot: "b".into() };
    Stamp { clock, boot_ns: 0, wall_ns: NOW_NS, bound_ns: -1 }
}

impl Rig {
    /// A controller that has not come up.
    async fn starting() -> Self {
        let (store, folder) = (MemoryStore::new(), tempfile::tempdir().unwrap());
        let dir = DataDir::open(&folder.path().join("d")).unwrap();
        let identity = Arc::new(Identity::open(&dir, &[], NOW_NS).unwrap());
        let history = History::open(Arc::new(store.clone()), Arc::new(ManualClock::new(stamp()))).await.unwrap();
        let told = Some(history.listen());
        let controller = Controller::open(history, &"c".into(), 1).await.unwrap();
        let heads = controller.history().subscribe(controller.audit()).await.unwrap();
        let file = folder.path().join("history");
        std::fs::write(&file, [0; 1000]).unwrap();
        std::fs::write(folder.path().join("history-wal"), [0; 234]).unwrap();
        let audit = AuditMeters::default();
        audit.signed(NOW_NS, 1);
        let parts = Parts { controller: controller.clone(), identity, file: Some(file), audit, heads };
        let metrics = Metrics::new(NOW_NS);
        Self { metrics, controller, store, parts, told, _folder: folder }
    }

    /// One that has.
    async fn up() -> Self {
        let mut rig = Self::starting().await;
        let told = rig.told.take().unwrap();
        let counting = rig.metrics.attach(rig.parts.clone(), told, pending()).await;
        rig.metrics.up(vec![("upkeep", counting.abort_handle())]);
        rig
    }

    fn samples(&self) -> BTreeMap<String, f64> {
        let text = self.metrics.exposition(Format::Plain);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let split = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
        samples.map(|line| split(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }

    #[track_caller]
    fn says(&self, expected: &[(&str, f64)]) {
        let samples = self.samples();
        for (name, value) in expected {
            let got = samples.get(*name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
            assert!((got - value).abs() < 1e-6, "{name} is {got}, not {value}");
        }
    }

    /// Waits until a sample has this value: what is counted from facts comes a moment after them.
    async fn until(&self, name: &str, value: f64) {
        let there = async {
            while self.samples().get(name).is_none_or(|got| (got - value).abs() > 1e-6) {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, there).await.unwrap_or_else(|_| panic!("{name} is not {value}"));
    }

    async fn client(&self) -> OperatorClient<tonic::transport::Channel> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let incoming = futures_util::stream::iter([Ok(Conn::plain(theirs, Peer::default()))]);
        let incoming = incoming.chain(futures_util::stream::pending());
        let controller = self.controller.clone();
        tokio::spawn(async move {
            let never = pending();
            controller.serve_front(incoming, Arc::new(NoGate), Arc::new(OneToken), never).await.unwrap();
        });
        let mut ours = Some(ours);
        let endpoint = Endpoint::from_static("http://controller");
        let channel = endpoint.connect_with_connector(tower::service_fn(move |_| {
            let ours = ours.take();
            async move { ours.map(TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
        }));
        OperatorClient::new(channel.await.unwrap())
    }
}

fn with_token<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", "Bearer good".parse().unwrap());
    request
}

#[tokio::test]
async fn the_table_and_the_exposition_say_the_same() {
    let rig = Rig::up().await;
    let text = rig.metrics.exposition(Format::Plain);
    let mut told = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(told.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is told twice");
    }
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `fracas_"));
    let row = |row: &str| {
        let mut cells = row.split('|').map(str::trim);
        (format!("fracas_{}", cells.next().unwrap().trim_end_matches('`')), cells.next().unwrap().to_owned())
    };
    let written: Vec<(String, String)> = rows.map(row).collect();
    assert_eq!(written.len(), written.iter().collect::<BTreeSet<_>>().len(), "a row is there twice");
    assert_eq!(told, written.into_iter().collect());
    for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = help.split_once(' ').unwrap();
        assert!(help.ends_with('.') && !help.ends_with("..") && !help.contains(['\\', '"']), "{name}: {help}");
    }
}

#[tokio::test]
async fn the_words_of_labels_are_those_of_the_table() {
    let rig = Rig::up().await;
    let row = |name: &str| TABLE.lines().find(|line| line.starts_with(&format!("| `{name}`"))).map(str::to_owned);
    let mut looked_at = 0;
    for sample in rig.samples().keys() {
        let Some((name, labels)) = sample.trim_end_matches('}').split_once('{') else { continue };
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let row = row(name).or_else(|| row(bare)).unwrap_or_else(|| panic!("no row of {name}"));
        for label in labels.split(',') {
            let (label, word) = label.split_once('=').unwrap();
            let word = word.trim_matches('"');
            if matches!(label, "le" | "version" | "service" | "method" | "code" | "listener") {
                continue;
            }
            looked_at += 1;
            let words = row.split(&format!("`{label}`: ")).nth(1).unwrap_or_else(|| panic!("{label} is not in: {row}"));
            let words = words.split('|').next().unwrap();
            let known: Vec<&str> = words.split(", ").map(|word| word.split(' ').next().unwrap()).collect();
            assert!(known.contains(&word), "{label}={word} is not in: {row}");
        }
    }
    assert!(looked_at > 50);
}

#[tokio::test]
async fn what_is_so_is_read_when_asked() {
    let rig = Rig::up().await;
    let fleet = rig.controller.fleet();
    let connect = |host: &str| fleet.connect(&host.into(), HostFacts::default(), Offer::default(), stamp()).unwrap();
    let _sessions = [connect("a"), connect("b"), connect("watcher")];
    fleet.record(&"watcher".into(), |record| record.observer = true);
    fleet.record(&"c".into(), |record| record.quarantined = Some("r0".into()));
    fleet.record(&"d".into(), |record| record.trouble = "torn".into());
    rig.says(&[
        ("fracas_hosts{state=\"connected\"}", 2.0),
        ("fracas_hosts{state=\"away\"}", 2.0),
        ("fracas_hosts_withheld{reason=\"quarantined\"}", 1.0),
        ("fracas_hosts_withheld{reason=\"journal\"}", 1.0),
        ("fracas_observers{state=\"connected\"}", 1.0),
        ("fracas_observers{state=\"away\"}", 0.0),
        ("fracas_halted", 0.0),
        ("fracas_controller_epoch", 1.0),
        ("fracas_start_time_seconds", NOW_NS as f64 / 1e9),
        ("fracas_history_size_bytes", 1234.0),
        ("fracas_audit_signed_timestamp_seconds", NOW_NS as f64 / 1e9),
        ("fracas_audit_unsigned_records", 0.0),
        (concat!("fracas_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ]);
    let expiry =
        |which: &str| rig.samples()[&format!("fracas_certificate_expiry_timestamp_seconds{{certificate=\"{which}\"}}")];
    assert!((expiry("server") - (NOW_NS as f64 / 1e9 + 90.0 * 86400.0)).abs() < 86400.0, "{}", expiry("server"));
    assert!(expiry("authority") > expiry("server"));
    fleet.halt(Some("enough".into()));
    let body = Body::Halted { by: "admin".into(), reason: "enough".into(), at: stamp() };
    rig.controller.history().append(rig.controller.audit(), vec![body]).await.unwrap();
    rig.says(&[("fracas_halted", 1.0), ("fracas_audit_unsigned_records", 1.0)]);
    // The controller's start was heard too.
    rig.until("fracas_history_facts_total{stream=\"audit\"}", 2.0).await;
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let rig = Rig::up().await;
    let mut client = rig.client().await;
    client.list_hosts(with_token(ListHostsRequest::default())).await.unwrap();
    let refused = client.list_hosts(ListHostsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let wrong = ListHostsRequest { selector: "a b c".into() };
    assert_eq!(client.list_hosts(with_token(wrong)).await.unwrap_err().code(), Code::InvalidArgument);
    let unknown = WatchRunRequest { run: "none".into(), after: 0 };
    assert_eq!(client.watch_run(with_token(unknown)).await.unwrap_err().code(), Code::NotFound);
    let of = "service=\"fracas.v1.Operator\",method=\"ListHosts\"";
    for (code, calls) in [("OK", 1.0), ("UNAUTHENTICATED", 1.0), ("INVALID_ARGUMENT", 1.0)] {
        rig.until(&format!("fracas_grpc_calls_total{{{of},code=\"{code}\"}}"), calls).await;
    }
    rig.until(&format!("fracas_grpc_call_duration_seconds_count{{{of}}}"), 3.0).await;
    // A stream that nobody listens to any more.
    let asked = Body::StopRequested { by: "p".into(), reason: "any fact".into(), at: stamp() };
    let index = crate::store::RunIndex {
        run: "r1".into(),
        name: "n".into(),
        state: "running".into(),
        verdict: String::new(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns: 0,
        ended_wall_ns: None,
        by: "admin".into(),
        environment: "default".into(),
    };
    let extra = crate::history::Extra { index: Some(index), ..Default::default() };
    rig.controller.history().append_with("run/r1", vec![asked], extra).await.unwrap();
    let watch = WatchRunRequest { run: "r1".into(), after: 0 };
    let mut stream = client.watch_run(with_token(watch)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let watched = |code: &str| rig.controller.calls().of("/fracas.v1.Operator/WatchRun", code);
    assert_eq!((watched("OK"), watched("CANCELLED"), watched("NOT_FOUND")), (0, 0, 1), "it has not ended");
    drop(stream);
    let of = "service=\"fracas.v1.Operator\",method=\"WatchRun\"";
    rig.until(&format!("fracas_grpc_calls_total{{{of},code=\"CANCELLED\"}}"), 1.0).await;
    let samples = rig.samples();
    assert!(!samples.keys().any(|name| name.contains("duration") && name.contains("WatchRun")));
    assert!(!samples.keys().any(|name| name.contains("duration") && name.contains("Halt")), "what was not called");
}

#[tokio::test]
async fn it_is_ready_when_it_is_up_and_not_when_it_drains() {
    let mut rig = Rig::starting().await;
    assert!(rig.metrics.ailments().is_empty());
    assert!(rig.metrics.obstacles().await[0].starts_with("starting"));
    let told = rig.told.take().unwrap();
    let counting = rig.metrics.attach(rig.parts.clone(), told, pending()).await;
    assert!(rig.metrics.obstacles().await[0].starts_with("starting"), "it does not accept yet");
    rig.metrics.up(vec![("upkeep", counting.abort_handle())]);
    assert_eq!(rig.metrics.obstacles().await, Vec::<String>::new());
    let [front, ..] = rig.metrics.doors();
    front.stuck();
    assert!(rig.metrics.obstacles().await[0].contains("front listener"));
    front.accepted();
    assert_eq!(rig.metrics.obstacles().await, Vec::<String>::new());
    rig.controller.runs().close("the controller is shutting down");
    assert!(rig.metrics.obstacles().await[0].starts_with("draining"));
    assert!(rig.metrics.ailments().is_empty());
}

#[tokio::test]
async fn a_main_task_that_ended_is_told() {
    let mut rig = Rig::starting().await;
    let told = rig.told.take().unwrap();
    let counting = rig.metrics.attach(rig.parts.clone(), told, pending()).await;
    let dead = tokio::spawn(async {});
    let tasks = vec![("front listener", dead.abort_handle()), ("upkeep", counting.abort_handle())];
    rig.metrics.up(tasks);
    dead.await.unwrap();
    assert_eq!(rig.metrics.ailments(), ["a main task has ended: front listener"]);
    assert_eq!(rig.metrics.obstacles().await, rig.metrics.ailments());
}

#[tokio::test]
async fn it_is_ready_again_when_the_disk_has_room_though_nothing_happens() {
    let rig = Rig::up().await;
    let history = rig.controller.history();
    rig.store.set_full(true);
    let body = || Body::HostReleased { why: "it is clean".into(), at: stamp() };
    assert!(history.append("host/h", vec![body()]).await.is_err());
    let told = rig.metrics.obstacles().await;
    assert_eq!(told, ["the history cannot be written (full): free some space, it goes on by itself"]);
    assert!(rig.metrics.ailments().is_empty(), "no restart mends that");
    tokio::time::pause();
    tokio::time::advance(QUIET).await;
    assert_eq!(rig.metrics.obstacles().await, told, "it was tried, and there is no room");
    rig.store.set_full(false);
    assert_eq!(rig.metrics.obstacles().await, told, "whoever may write soon has the first word");
    tokio::time::advance(QUIET).await;
    assert_eq!(rig.metrics.obstacles().await, Vec::<String>::new());
    assert!(history.read("host/h", 0).await.unwrap().is_empty(), "no fact was made of it");
    // That somebody else was first is no failure.
    let extra = crate::history::Extra { expected: Some(7), ..Default::default() };
    assert!(history.append_with("host/h", vec![body()], extra).await.is_err());
    rig.says(&[("fracas_history_append_failures_total{class=\"full\"}", 1.0)]);
    let failures: f64 = rig.samples().iter().filter(|(name, _)| name.contains("failures")).map(|(_, v)| v).sum();
    assert!((failures - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn facts_that_were_missed_are_told() {
    let mut rig = Rig::starting().await;
    let released = || Body::HostReleased { why: String::new(), at: stamp() };
    // The audit's first fact and these; a listener may be 8192 behind.
    let many = vec![released(); 8192 + 9];
    rig.controller.history().append("host/h", many).await.unwrap();
    let told = rig.told.take().unwrap();
    let counting = rig.metrics.attach(rig.parts.clone(), told, pending()).await;
    rig.until("fracas_metrics_missed_facts_total", 10.0).await;
    rig.until("fracas_history_facts_total{stream=\"host\"}", 8192.0).await;
    assert!(!counting.is_finished());
}

#[tokio::test]
async fn nothing_that_has_a_name_is_told_and_many_things_are_told_quickly() {
    const SCHEDULES: usize = 1_000;
    const HOSTS: usize = 2_000;
    let rig = Rig::up().await;
    for n in 0..HOSTS {
        let host = HostId::from(format!("secret-{n}").as_str());
        rig.controller.fleet().record(&host, |record| {
            record.name = format!("secret-name-{n}");
            record.labels = [("role".to_owned(), "secret".to_owned())].into();
        });
    }
    let experiment = "apiVersion: fracas/v1\nkind: Experiment\nname: secret\ntimeline: [{ id: w, at: 0s, wait: 1s }]\n";
    for n in 0..SCHEDULES {
        let setting = Setting {
            calendars: std::collections::BTreeMap::new(),
            files: std::collections::BTreeMap::new(),
            source: format!(
                "apiVersion: fracas/v1\nkind: Schedule\nname: secret-{n}\nexperiment: x.yaml\n\
                 when: {{ at: 2190-01-01T00:00 }}\n"
            ),
            source_name: "s".into(),
            experiment: experiment.into(),
            experiment_name: "x".into(),
            environment: "secret".into(),
            by: "secret".into(),
        };
        rig.controller.schedules().set(setting).await.unwrap();
    }
    rig.until("fracas_history_facts_total{stream=\"schedule\"}", SCHEDULES as f64).await;
    rig.says(&[
        ("fracas_schedules{state=\"active\"}", SCHEDULES as f64),
        ("fracas_hosts{state=\"away\"}", HOSTS as f64),
    ]);
    for format in [Format::Plain, Format::OpenMetrics] {
        let begun = tokio::time::Instant::now();
        let text = rig.metrics.exposition(format);
        let took = begun.elapsed();
        assert!(!text.contains("secret"));
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        eprintln!(
            "{format:?} of {SCHEDULES} schedules and {HOSTS} hosts: {} bytes, {series} series, {took:?} (unoptimised)",
            text.len()
        );
        // What there is does not make it longer.
        assert!(text.len() < 64 << 10 && series < 1000, "{} bytes, {series} series", text.len());
    }
}
