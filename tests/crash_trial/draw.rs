//! A trial as it is drawn from its seed: which faults, who dies, and when.

use std::fmt::Write as _;

use fracas_agent::crash::{BOUNDARIES, Boundary};
use fracas_model::units::Dur;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Who dies, or what else ends the contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kill {
    Agent,
    Guard,
    Worker,
    AgentAndGuard,
    All,
    Controller,
    Cut,
    Lease,
}

/// With what weight each of them is drawn: those that wait for a lease take longest.
const KILLS: &[(Kill, u32)] = &[
    (Kill::Agent, 34),
    (Kill::Guard, 7),
    (Kill::Worker, 14),
    (Kill::AgentAndGuard, 18),
    (Kill::All, 12),
    (Kill::Controller, 6),
    (Kill::Cut, 6),
    (Kill::Lease, 7),
];

/// A fault as documents have it.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    text: &'static str,
    /// It makes packet rules.
    net: bool,
    /// It has to be undone.
    lasting: bool,
    /// A worker holds it; of a pause, where it may trace.
    held: bool,
    /// What it has for itself alone: of those that name the same, one trial has one.
    claim: &'static str,
    /// How often it is drawn.
    weight: u32,
}

/// Of most of them.
const LASTING: Case = Case { name: "", text: "", net: false, lasting: true, held: false, claim: "", weight: 2 };

/// Which of the two hosts has an agent that may trace nobody.
const PLAIN: usize = 1;

/// The faults that every namespace lab can have. All that share no claim hold at the same time. What they hit is made by
/// [`ground`](super::ground).
const CASES: &[Case] = &[
    Case { name: "cpu-load", text: "cpu-load: { percent: 10%, cores: 1 }", held: true, weight: 8, ..LASTING },
    Case { name: "process-kill", text: "process-kill: { name: victim }", lasting: false, weight: 8, ..LASTING },
    Case { name: PAUSE, text: "process-pause: { name: crew-a }", claim: "a", weight: 3, ..LASTING },
    Case { name: PAUSE, text: "process-pause: { name: crew-b }", claim: "b", weight: 3, ..LASTING },
    Case { name: "net-delay in", text: "net-delay: { delay: 30ms, ports: [7007], protocol: udp }", ..NET },
    Case {
        name: "net-delay out",
        text: "net-delay: { delay: 20ms, jitter: 5ms, ports: [7007], direction: egress }",
        ..NET
    },
    Case { name: "net-loss in", text: "net-loss: { percent: 30%, ports: ['7000-7010'] }", ..NET },
    Case {
        name: "net-loss out",
        text: "net-loss: { percent: 100%, ports: [7007], protocol: udp, direction: egress }",
        ..NET
    },
    Case {
        name: "file-replace plain",
        text: "file-replace: { path: /run/site/plain.conf, content: \"broken {\" }",
        ..FILE
    },
    Case {
        name: "file-replace owner, mode, xattrs",
        text: "file-replace: { path: /run/site/odd, content: \"\" }",
        ..FILE
    },
    Case { name: "file-replace by a link", text: "file-replace: { path: /run/site/link, content: \"other\" }", ..FILE },
    Case {
        name: "file-replace on disk, hard link, xattrs",
        text: "file-replace: { path: DISK/linked, content: \"one line instead of 400 kB\" }",
        ..FILE
    },
    Case {
        name: "file-replace on disk, empty, access list",
        text: "file-replace: { path: DISK/empty, content: \"not empty\" }",
        ..FILE
    },
    Case { name: "disk-fill used", text: "disk-fill: { path: /run/volume, used: 30% }", claim: "volume", ..FILL },
    Case { name: "disk-fill size", text: "disk-fill: { path: /run/volume, size: 8MiB }", claim: "volume", ..FILL },
    Case { name: "disk-fill left", text: "disk-fill: { path: /run/volume, left: 70MiB }", claim: "volume", ..FILL },
    Case { name: "disk-fill size, on disk", text: "disk-fill: { path: DISK, size: 5MiB }", ..FILL },
    Case { name: "service-stop", text: "service-stop: { unit: web.service }", weight: 5, ..LASTING },
    Case { name: "service-stop slow", text: "service-stop: { unit: app.service }", weight: 5, ..LASTING },
];

const PAUSE: &str = "process-pause";
const NET: Case = Case { net: true, held: true, weight: 3, ..LASTING };
const FILE: Case = Case { weight: 3, ..LASTING };
const FILL: Case = Case { held: true, ..LASTING };

/// What is asked for instead of all that can be drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrow {
    /// This death in every trial.
    pub(super) kill: Option<Kill>,
    /// Only faults whose name begins like this.
    pub(super) faults: String,
}

impl Narrow {
    /// From `FRACAS_CRASH_KILL` and `FRACAS_CRASH_FAULTS`.
    pub(super) fn asked() -> Self {
        Self {
            kill: std::env::var("FRACAS_CRASH_KILL").ok().map(|name| Kill::named(&name)),
            faults: std::env::var("FRACAS_CRASH_FAULTS").unwrap_or_default(),
        }
    }

    fn cases(&self) -> Vec<usize> {
        let all: Vec<usize> = (0..CASES.len()).filter(|n| CASES[*n].name.starts_with(&self.faults)).collect();
        assert!(all.iter().any(|n| CASES[*n].lasting), "no fault to be undone begins with {:?}", self.faults);
        all
    }
}

/// These cases in an order that is drawn by their weights, without those whose claim another before them has.
fn ordered(mut left: Vec<usize>, random: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    while !left.is_empty() {
        let mut draw = random.random_range(0..left.iter().map(|case| CASES[*case].weight).sum());
        let n = left.iter().position(|case| {
            let weight = CASES[*case].weight;
            let here = draw < weight;
            draw = draw.saturating_sub(weight);
            here
        });
        let case = left.remove(n.expect("one of them"));
        let claim = CASES[case].claim;
        if claim.is_empty() || order.iter().all(|other| CASES[*other].claim != claim) {
            order.push(case);
        }
    }
    order
}

/// A fault of a trial.
#[derive(Clone, Debug)]
struct Part {
    case: usize,
    at_ms: u64,
    for_ms: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) host: usize,
    pub(super) kill: Kill,
    /// The experiment on the host that is struck.
    parts: Vec<Part>,
    /// Another one, on the other host, at the same time: a host is lent to one run only.
    beside: Option<Part>,
    /// The boundary, how many times it is passed, and whether it is the guard's.
    boundary: Option<(usize, u64, bool)>,
    /// The next start of the agent dies too, at this boundary of its undoing.
    again: Option<usize>,
    /// Otherwise, how long after the first journal record.
    after_us: u64,
    pick: u64,
}

impl Plan {
    /// The trial of this seed.
    pub(super) fn draw(seed: u64, narrow: &Narrow) -> Self {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let drawn = kill(random);
        let kill = narrow.kill.unwrap_or(drawn);
        // Every other trial and some more, since a few do not count; the boundaries in turn.
        let chosen = seed.is_multiple_of(2) || seed.is_multiple_of(25);
        let boundary = (cfg!(debug_assertions) && chosen).then(|| (seed / 2) as usize % BOUNDARIES.len());
        let place = boundary.map(|n| BOUNDARIES[n].0);
        let undoing = place.is_some_and(|place| place >= Boundary::BeforeUndoRecord);
        // Before the first step there is nothing on the host: so it is the boundary of another fault than the first.
        let early = place.is_some_and(|place| place <= Boundary::AfterStepRecord);
        // The death of a worker ends one fault; of one alone it can be seen when.
        let drawn = if kill == Kill::Worker && !early { 1 } else { random.random_range(1 + usize::from(early)..=4) };
        let offered = narrow.cases();
        let mut cases = ordered(offered.clone(), random);
        let many = drawn.min(cases.len());
        let early = early && many > 1;
        // Whatever is to be undone needs a fault that lasts, and whoever dies with its worker one that has a worker.
        let fits = |case: &usize| CASES[*case].lasting && (kill != Kill::Worker || CASES[*case].held);
        let first = cases.iter().position(fits).or_else(|| cases.iter().position(|case| CASES[*case].lasting));
        cases.swap(0, first.expect("one that lasts"));
        let host = if random.random_bool(0.55) { PLAIN } else { 1 - PLAIN };
        // Both ways of a pause, one on each host, are to be seen often; half of all trials are to have a step that stays
        // until it is undone.
        if random.random_bool(0.5) && (kill != Kill::Worker || host != PLAIN) {
            let pause = cases.iter().position(|case| CASES[*case].name == PAUSE);
            cases.swap(0, pause.unwrap_or(0));
        }
        cases.truncate(many);
        let mut parts: Vec<Part> = cases
            .into_iter()
            .enumerate()
            .map(|(n, case)| Part {
                case,
                at_ms: if n == 0 { 0 } else { random.random_range(0..250) },
                for_ms: if kill.elsewhere() && !undoing {
                    20_000
                } else if undoing {
                    random.random_range(250..500)
                } else {
                    random.random_range(1_000..3_000)
                },
            })
            .collect();
        let lasting = parts.iter().filter(|part| CASES[part.case].lasting).count() as u64;
        let guarded = boundary
            .is_some_and(|n| (Boundary::BeforeUndoRecord..=Boundary::AfterCloseRecord).contains(&BOUNDARIES[n].0))
            && kill == Kill::AgentAndGuard
            && random.random_bool(0.7);
        let nth = if early { random.random_range(2..=many as u64) } else { random.random_range(1..=lasting.min(3)) };
        if guarded {
            // The guard has to find them.
            for part in &mut parts {
                part.for_ms = 3_000;
            }
        }
        let undo = Boundary::BeforeUndoRecord as usize..=Boundary::AfterCloseRecord as usize;
        let nobody_left = matches!(kill, Kill::AgentAndGuard | Kill::All);
        let again = (nobody_left && boundary.is_none() && random.random_bool(0.3)).then(|| random.random_range(undo));
        let beside = random.random_bool(0.3).then(|| Part {
            case: offered[random.random_range(0..offered.len())],
            at_ms: 0,
            for_ms: random.random_range(300..3_000),
        });
        Self {
            seed,
            host,
            kill,
            parts,
            beside,
            boundary: boundary.map(|n| (n, nth, guarded)),
            again,
            after_us: if guarded { random.random_range(200_000..600_000) } else { random.random_range(0..800_000) },
            pick: random.random_range(0..100),
        }
    }

    /// What the hand is told.
    pub(super) fn order(&self, agent: i32) -> Value {
        let switch = self.boundary.map_or_else(String::new, |(n, nth, guarded)| {
            let who = if guarded { "guard" } else { "agent" };
            let deed = if guarded || self.kill == Kill::Agent { "kill" } else { "stop" };
            format!("{}:{nth}:{who}:{deed}:{}", BOUNDARIES[n].1, self.seed)
        });
        let guarded = self.boundary.is_some_and(|(_, _, guarded)| guarded);
        let kill: &[&str] = match self.kill {
            _ if guarded => &["agent"],
            Kill::Agent => &["agent"],
            Kill::Guard => &["guard"],
            Kill::Worker => &["worker"],
            Kill::AgentAndGuard => &["agent", "guard"],
            Kill::All => &["agent", "guard", "workers"],
            Kill::Controller | Kill::Cut | Kill::Lease => &[],
        };
        json!({
            "again": self.again.map(|n| format!("{}:1:agent:kill:{}", BOUNDARIES[n].1, self.seed)),
            "seed": self.seed, "agent": agent, "switch": switch, "afterUs": self.after_us, "kill": kill, "pick": self.pick,
            "packets": self.parts.iter().any(|part| CASES[part.case].net), "wait": self.kill.elsewhere(),
            "watch": self.watched(),
        })
    }

    /// Whether the time until the host is clean means something: a new guard does not end a fault, and of several workers
    /// the others go on.
    pub(super) fn watched(&self) -> bool {
        self.kill != Kill::Guard && (self.kill != Kill::Worker || self.parts.len() == 1)
    }

    /// Whether the next start is killed too, if it gets so far.
    pub(super) fn dies_again(&self) -> bool {
        self.again.is_some()
    }

    /// The boundary's number and name.
    pub(super) fn boundary(&self) -> Option<(usize, &'static str)> {
        self.boundary.map(|(n, _, _)| (n + 1, BOUNDARIES[n].1))
    }

    pub(super) fn faults(&self) -> Vec<&'static str> {
        self.parts.iter().map(|part| CASES[part.case].name).collect()
    }

    /// Whether there is something on the other host too.
    pub(super) fn beside(&self) -> bool {
        self.beside.is_some()
    }

    /// One or two experiments, each with its host; the first is on the host that is struck.
    pub(super) fn experiments(&self, hosts: [&'static str; 2], lease: Dur) -> Vec<(&'static str, String)> {
        let mine = (hosts[self.host], self.parts.iter().collect::<Vec<_>>());
        let other = self.beside.as_ref().map(|part| (hosts[1 - self.host], vec![part]));
        let of = |(host, parts): (&'static str, Vec<&Part>)| (host, self.document(host, &parts, lease));
        [Some(mine), other].into_iter().flatten().map(of).collect()
    }

    fn document(&self, host: &str, parts: &[&Part], lease: Dur) -> String {
        let mut timeline = String::new();
        for (n, part) in parts.iter().enumerate() {
            let Case { text, lasting, .. } = CASES[part.case];
            let length = if lasting { format!(", for: {}ms", part.for_ms) } else { String::new() };
            let at = part.at_ms;
            let entry = format!("id: f{n}, at: {at}ms, fault: {{ {text} }}, target: host{length}, required: false");
            writeln!(timeline, "  - {{ {entry} }}").expect("text");
        }
        format!(
            "apiVersion: fracas/v1\nkind: Experiment\nname: crash-{}-{host}\n\
             targets: {{ host: {{ select: \"role={host}\" }} }}\ntimeline:\n{timeline}\
             recovery: {{ stableFor: 100ms, giveUpAfter: 1s }}\nlease: {lease}\n",
            self.seed
        )
    }
}

impl Kill {
    /// By its name, as `FRACAS_CRASH_KILL` has it.
    pub(super) fn named(name: &str) -> Self {
        let of = |kill: &Self| format!("{kill:?}").to_lowercase() == name;
        let found = KILLS.iter().map(|(kill, _)| *kill).find(of);
        found.unwrap_or_else(|| panic!("FRACAS_CRASH_KILL is {name:?}, none of {KILLS:?} in small letters"))
    }

    /// Whether it is done elsewhere than on the host.
    pub(super) fn elsewhere(self) -> bool {
        matches!(self, Self::Controller | Self::Cut | Self::Lease)
    }

    /// What it came to: there may have been no worker, or a guard with nothing to do.
    pub(super) fn done(self, killed: &[String]) -> &'static str {
        let has = |name: &str| killed.iter().any(|k| k == name);
        let worker = killed.iter().any(|k| k.starts_with("fracas-"));
        match (has("agent"), has("guard"), worker) {
            (true, true, true) => "agent+guard+workers",
            (true, true, false) => "agent+guard",
            (true, false, _) => "agent",
            (false, true, _) => "guard",
            (false, false, true) => "worker",
            (false, false, false) => match self {
                Self::Controller => "controller",
                Self::Cut => "network cut",
                Self::Lease => "lease expiry",
                _ => "nobody",
            },
        }
    }
}

fn kill(random: &mut impl Rng) -> Kill {
    let mut draw = random.random_range(0..KILLS.iter().map(|(_, weight)| weight).sum());
    for (kill, weight) in KILLS {
        if draw < *weight {
            return *kill;
        }
        draw -= weight;
    }
    Kill::Agent
}
