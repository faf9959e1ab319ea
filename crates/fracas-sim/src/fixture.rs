//! Things that tests need again and again: a host's facts, keys, items, and faults whose plans are given.

use std::collections::BTreeMap;

use fracas_agent::reconcile::Fault;
use fracas_model::{
    catalogue::{Capability, FaultInfo, Nature, Params},
    check::check,
    desired::{Desired, FaultItem, Mode},
    diagnostic::Findings,
    facts::{Ability, Device, Facts, FileKind, FileMark, FileSeen, HostFacts, Question, Space, UnitSeen, VolumeSeen},
    id::{EntryId, HostId, ItemKey, RunId},
    plan::{
        Burn, BurnMode, Check, Claim, Direction, Effect, Fill, FillGoal, Filter, Impair, Kind, Plan, Refusal, Replace,
        Step,
    },
    process::{Process, ProcessRef},
    shape::Shape,
    tree::parse,
    units::{Dur, Percent, Size},
};
use serde_json::Value;

/// A host that can do everything.
pub fn host_facts() -> HostFacts {
    let works = || Ability { works: true, why: String::new(), fix: String::new() };
    HostFacts {
        hostname: "sim".into(),
        os: "Debian GNU/Linux 12".into(),
        kernel: "6.1.0".into(),
        arch: "x86_64".into(),
        cpus: 4,
        cores: (0..4).collect(),
        memory_bytes: 4 << 30,
        agent_version: "0.0.0".into(),
        uid: 0,
        abilities: Capability::ALL.into_iter().map(|c| (c, works())).collect::<BTreeMap<_, _>>(),
    }
}

/// Everything a planner could ask for: devices, a few processes, `postgres` with a child and a port among them.
pub fn answer(base: Facts) -> Facts {
    let process = |pid: i32, parent: i32, name: &str, port: Option<u16>| Process {
        id: process_ref(pid, name),
        parent,
        exe: Some(name.into()),
        argv0: Some(name.into()),
        uid: 1000,
        kernel: false,
        ports: port.into_iter().collect(),
        unit: Some(format!("{name}.service")),
    };
    let device =
        |name: &str, index| Device { name: name.into(), index, loopback: name == "lo", up: true, stacked: false };
    Facts {
        processes: vec![
            process(1, 0, "systemd", None),
            process(100, 1, "postgres", Some(5432)),
            process(101, 100, "postgres", None),
            process(200, 1, "nginx", Some(80)),
            process(300, 1, "redis-server", Some(6379)),
        ],
        pid_in_file: Some(100),
        devices: vec![device("lo", 1), device("eth0", 2)],
        file: Some(FileSeen {
            path: "/etc/nginx/nginx.conf".into(),
            leaves: false,
            kind: FileKind::Regular,
            mounted: false,
            uid: 0,
            mode: 0o644,
            mark: FileMark { size_bytes: 612, ..FileMark::any() },
        }),
        volume: Some(VolumeSeen {
            directory: "/var/lib/postgresql".into(),
            device: "8:1".into(),
            space: Space { total_bytes: 100 << 30, free_bytes: 60 << 30, left_bytes: 55 << 30 },
            unnamed: None,
        }),
        unit: Some(Ok(UnitSeen {
            name: "nginx.service".into(),
            load: "loaded".into(),
            active: "active".into(),
            stoppable: true,
            dependents: vec![],
            ours: false,
        })),
        own_pids: vec![50],
        ..base
    }
}

/// A process that is there.
pub fn process_ref(pid: i32, name: &str) -> ProcessRef {
    ProcessRef { pid, start_ticks: 1000, name: name.into() }
}

/// The item of this entry, first attempt.
pub fn key(entry: &str) -> ItemKey {
    ItemKey {
        run: RunId::from("run1"),
        entry: EntryId::from(entry),
        occurrence: 0,
        host: HostId::from("sim"),
        generation: 1,
    }
}

/// An item to be applied for ten seconds by the fault of this name.
pub fn item(entry: &str, fault: &str) -> FaultItem {
    FaultItem {
        key: key(entry),
        mode: Mode::Apply,
        experiment: "fixture".into(),
        fault: fault.into(),
        params: Params::default(),
        duration: Some(Dur::from_secs(10)),
        plan_digest: None,
    }
}

/// A desired state of the first epoch.
pub fn desired(revision: u64, faults: Vec<FaultItem>) -> Desired {
    Desired { epoch: 1, revision, lease: Dur::from_secs(15), faults, ..Desired::default() }
}

/// The parameters of a fault's own example, checked as a document's would be.
pub fn example(info: &FaultInfo) -> Params {
    let whole = info.example.trim();
    let inner = whole.strip_prefix('{').and_then(|e| e.strip_suffix('}')).unwrap_or_default().trim();
    let text = inner.strip_prefix(&format!("{}:", info.name)).unwrap_or_default();
    let mut findings = Findings::new("example", text);
    let node = parse(text, &mut findings).expect("an example is YAML");
    let checked = check(&node, &Shape::Object(info.params.clone()), &mut findings);
    match (checked, findings.finish()) {
        (Some(Value::Object(map)), Ok(_)) => Params(map),
        other => panic!("the example of {} does not fit its parameters: {other:?}", info.name),
    }
}

/// A fault that always has the same plan.
#[derive(Clone, Debug)]
pub struct FakeFault {
    name: String,
    plan: Plan,
}

impl FakeFault {
    /// A fault of this name and plan.
    pub fn new(name: &str, plan: Plan) -> Self {
        Self { name: name.into(), plan }
    }
}

impl Fault for FakeFault {
    fn info(&self) -> FaultInfo {
        let spent = self.plan.steps.iter().all(|s| s.kind() == Kind::Spent);
        FaultInfo {
            name: self.name.clone(),
            summary: "For tests.".into(),
            help: String::new(),
            params: Vec::new(),
            nature: if spent { Nature::Spent } else { Nature::Lasting },
            needs: Vec::new(),
            example: "{}".into(),
        }
    }

    fn asks(&self, _params: &Params) -> Vec<Question> {
        Vec::new()
    }

    fn plan(&self, _params: &Params, _facts: &Facts) -> Result<Plan, Refusal> {
        Ok(self.plan.clone())
    }
}

/// A table of faults, for as long as the program runs.
pub fn table(faults: Vec<FakeFault>) -> &'static [&'static dyn Fault] {
    let table: Vec<&'static dyn Fault> = faults.into_iter().map(|f| &*Box::leak(Box::new(f)) as &dyn Fault).collect();
    table.leak()
}

/// A plan of these steps that claims nothing.
pub fn plan(steps: Vec<Step>) -> Plan {
    Plan { steps, claims: Vec::new(), check: Check::Gone { processes: Vec::new() }, summary: "a test".into() }
}

/// The same, claiming a process.
pub fn claiming(pid: i32, steps: Vec<Step>) -> Plan {
    Plan { claims: vec![Claim::Process(pid)], ..plan(steps) }
}

/// One step of every kind, in an order in which they can all be applied. `n` tells several lists apart.
pub fn every_step(n: u16) -> Vec<Step> {
    let pid = 100 + i32::from(n);
    let device = || "eth0".to_owned();
    let ifb = || format!("frc{n}");
    let effect = Effect::Delay { delay: Dur::from_ms(100), jitter: Dur::ZERO };
    let (direction, filter) = (Direction::Egress, Filter::default());
    vec![
        Step::Burn(Burn { percent: Percent(50.0), mode: BurnMode::Added, cores: vec![0] }),
        Step::Suspend { process: process_ref(pid, "postgres") },
        Step::MakeIfb { name: ifb() },
        Step::MakeNetem { device: ifb(), effect: effect.clone(), limit_packets: 1000 },
        Step::MakeClsact { device: device() },
        Step::Redirect { device: device(), to: ifb(), direction, filter: filter.clone(), priority: 100 + n },
        Step::Lose { device: device(), direction, filter: filter.clone(), percent: Percent(10.0), priority: 50 + n },
        Step::Impair(Impair { direction, filter, effect, device: None }),
        Step::Seize { process: process_ref(pid + 1000, "nginx") },
        Step::Replace(Replace { path: format!("/srv/{n}"), content: "broken".into(), was: FileMark::any() }),
        Step::Fill(Fill { directory: format!("/srv/{n}"), goal: FillGoal::Size(Size(1 << 20)), reserve: Size(0) }),
        Step::StopUnit { unit: format!("web{n}.service") },
    ]
}

/// The step of the spent kind.
pub fn shot(pid: i32) -> Step {
    Step::Signal { process: process_ref(pid, "postgres"), signal: 9, signal_name: "KILL".into() }
}
