//! The two planes behind one face: put a fault in, take it out, ask what it did.

use std::{collections::BTreeMap, future::Future, time::Duration};

use fracas_agent::host::{
    Handle, Host as _, Reverted,
    linux::{LinuxHost, netem},
    net::worker::{Ask, Stats},
    trials,
    worker::{Spawner, Worker},
};
use fracas_model::{
    id::ItemKey,
    plan::{Direction, Effect, Filter, Impair, Step},
    units::{Dur, Percent},
};
use serde_json::json;

use crate::{run::skip, stage::Stage};

/// Which plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rules in a table owned by the network worker.
    Owner,
    /// netem on an ifb of ours.
    Netem,
}

/// For trials of both.
pub(crate) const BOTH: &[Kind] = &Kind::ALL;

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Owner, Self::Netem];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Netem => "netem",
        }
    }
}

/// What a fault did, in the words of both planes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) matched: u64,
    pub(crate) lost: u64,
    pub(crate) held: u64,
    /// Went through at once for want of room.
    pub(crate) passed: u64,
    /// Dropped for want of room.
    pub(crate) unasked: u64,
}

/// A plane in use.
pub(crate) enum Plane {
    Owner(Box<OwnerPlane>),
    Netem(Box<NetemPlane>),
}

/// The network worker.
pub(crate) struct OwnerPlane {
    pub(crate) worker: Worker,
    /// Keeps the thread that started the worker.
    _spawner: Spawner,
}

/// A host, and the steps of each fault with what applying them left.
pub(crate) struct NetemPlane {
    pub(crate) host: LinuxHost,
    devices: Vec<String>,
    faults: BTreeMap<String, Vec<(Step, Handle)>>,
    slot: u16,
}

/// How long the worker may take to answer; an emulated machine is slow.
const ANSWER: Duration = Duration::from_secs(10);
/// Room for packets where a trial does not say.
const ROOM: u32 = 100_000;

pub(crate) fn delay(ms: i64) -> Effect {
    jittered(ms, 0)
}

pub(crate) fn jittered(ms: i64, jitter: i64) -> Effect {
    Effect::Delay { delay: Dur::from_ms(ms), jitter: Dur::from_ms(jitter) }
}

pub(crate) fn loss(percent: f64) -> Effect {
    Effect::Loss { percent: Percent(percent) }
}

pub(crate) fn key(id: &str) -> ItemKey {
    ItemKey { run: "r".into(), entry: id.into(), occurrence: 0, host: "h".into(), generation: 1 }
}

/// Runs on a runtime of one thread, as the agent does.
pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

impl OwnerPlane {
    pub(crate) fn open() -> Self {
        Self::with(&[])
    }

    /// A worker with these arguments.
    pub(crate) fn with(arguments: &[String]) -> Self {
        let spawner = Spawner::start();
        let worker = spawner.spawn_with("net", arguments).expect("the network worker starts");
        Self { worker, _spawner: spawner }
    }

    pub(crate) fn ask(&mut self, ask: &Ask) -> Result<serde_json::Value, String> {
        let order = serde_json::to_value(ask).expect("an order");
        self.worker.call(&order, ANSWER).map_err(|e| e.0)
    }

    pub(crate) fn stats(&mut self, id: &str) -> Stats {
        let stats = self.ask(&Ask::Stats { id: id.into() }).expect("statistics");
        serde_json::from_value(stats).expect("statistics")
    }
}

impl NetemPlane {
    pub(crate) fn open(stage: &Stage) -> Self {
        if let Err((why, fix)) = trials::netem::works() {
            skip(&format!("{why}; {fix}"));
        }
        let host = LinuxHost::start("h".into(), "0.0.0");
        Self { host, devices: stage.devices.clone(), faults: BTreeMap::new(), slot: 0 }
    }

    /// The steps of a fault as a planner gives them.
    pub(crate) fn steps(&mut self, direction: Direction, filter: &Filter, effect: &Effect, room: u32) -> Vec<Step> {
        let slot = self.slot;
        self.slot += 1;
        let ifb = format!("frc{slot}");
        let mut steps = Vec::new();
        if matches!(effect, Effect::Delay { .. }) {
            steps.push(Step::MakeIfb { name: ifb.clone() });
            steps.push(Step::MakeNetem { device: ifb.clone(), effect: effect.clone(), limit_packets: room });
        }
        for device in &self.devices {
            let (device, to, filter) = (device.clone(), ifb.clone(), filter.clone());
            steps.push(Step::MakeClsact { device: device.clone() });
            steps.push(match effect {
                Effect::Delay { .. } => Step::Redirect { device, to, direction, filter, priority: 200 + slot },
                Effect::Loss { percent } => {
                    Step::Lose { device, direction, filter, percent: *percent, priority: 100 + slot }
                }
            });
        }
        steps
    }

    pub(crate) fn apply(&mut self, id: &str, steps: Vec<Step>) {
        let mut done = Vec::new();
        for (index, step) in steps.into_iter().enumerate() {
            let (handle, _) =
                block(self.host.apply(&key(id), index, &step)).unwrap_or_else(|e| panic!("{step:?}: {e}"));
            done.push((step, handle));
        }
        self.faults.insert(id.into(), done);
    }

    /// Undoes a fault; how each step ended, in the order of applying.
    pub(crate) fn remove(&mut self, id: &str) -> Vec<Reverted> {
        let done = self.faults.remove(id).expect("the fault is there");
        let mut ended: Vec<Reverted> = done
            .iter()
            .enumerate()
            .rev()
            .map(|(index, (step, handle))| {
                let reverted = block(self.host.revert(&key(id), index, step, Some(handle)));
                reverted.unwrap_or_else(|e| panic!("undo of {step:?}: {e}"))
            })
            .collect();
        ended.reverse();
        ended
    }
}

impl Plane {
    pub(crate) fn open(kind: Kind, stage: &Stage) -> Self {
        match kind {
            Kind::Owner => Self::Owner(Box::new(OwnerPlane::open())),
            Kind::Netem => Self::Netem(Box::new(NetemPlane::open(stage))),
        }
    }

    pub(crate) fn add(&mut self, id: &str, direction: Direction, filter: &Filter, effect: &Effect) {
        match self {
            Self::Owner(plane) => {
                let impair = Impair { direction, filter: filter.clone(), effect: effect.clone(), device: None };
                let reply = plane.ask(&Ask::Add { id: id.into(), impair }).expect("the fault is added");
                assert_eq!(reply["ok"], json!(true), "{reply}");
            }
            Self::Netem(plane) => {
                let steps = plane.steps(direction, filter, effect, ROOM);
                plane.apply(id, steps);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &str) {
        match self {
            Self::Owner(plane) => {
                plane.ask(&Ask::Remove { id: id.into() }).expect("the fault is removed");
            }
            Self::Netem(plane) => {
                let ended = plane.remove(id);
                let superseded = ended.iter().find(|r| matches!(r, Reverted::Superseded(_)));
                assert_eq!(superseded, None);
            }
        }
    }

    pub(crate) fn figures(&mut self, id: &str) -> Figures {
        match self {
            Self::Owner(plane) => {
                let s = plane.stats(id);
                Figures { matched: s.matched, lost: s.lost, held: s.held, passed: s.passed, unasked: s.unasked }
            }
            Self::Netem(_) => {
                let s = netem::suffered(&key(id)).expect("the kernel's counts");
                Figures { matched: s.matched, lost: s.lost, held: s.held, passed: 0, unasked: s.dropped }
            }
        }
    }

    /// Takes all out in order; nothing may be left.
    pub(crate) fn close(mut self) {
        match &mut self {
            Self::Owner(plane) => {
                plane.ask(&Ask::Quit).expect("the worker quits");
                crate::stage::wait_for("the worker to end", || !plane.worker.alive());
            }
            Self::Netem(plane) => {
                for id in plane.faults.keys().cloned().collect::<Vec<_>>() {
                    plane.remove(&id);
                }
            }
        }
    }
}
