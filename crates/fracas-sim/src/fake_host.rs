//! A host in memory: every kind of step has an effect that can be seen in its world and compared. It keeps the rules
//! that a kernel would (no filter without its device), so that wrong orders show.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    rc::Rc,
};

use fracas_agent::host::{Failure, Handle, Host, Local, Reverted};
use fracas_model::{
    event::{Between, Measured, Proof},
    facts::{Facts, HostFacts, Question},
    id::{BootId, HostId, ItemKey},
    plan::{Check, Kind, Step},
    time::{ClockId, Stamp},
    units::Dur,
};
use serde_json::json;

use crate::{crash::Crash, fixture};

/// A host; clones are the same host. It outlives crashes of its agent: give it to the next life.
#[derive(Clone, Debug)]
pub struct FakeHost(Rc<Inner>);

/// Where a host's boot time comes from.
#[derive(Clone)]
struct Time(Rc<dyn Fn() -> i64>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

#[derive(Debug)]
struct Inner {
    id: HostId,
    crash: Crash,
    boot: RefCell<BootId>,
    boots: Cell<u32>,
    now_ns: Cell<i64>,
    clock: RefCell<Option<Time>>,
    world: RefCell<World>,
    shots: RefCell<Shots>,
    last_shot_ns: Cell<Option<i64>>,
    /// Held effects and who holds them, so that they go with the agent.
    held: RefCell<BTreeMap<String, ItemKey>>,
    script: RefCell<VecDeque<(On, Trouble)>>,
    lost: RefCell<Vec<(ItemKey, String)>>,
    proof: RefCell<Proof>,
    deadlines: RefCell<BTreeMap<ItemKey, i64>>,
    applies: Cell<u64>,
    reverts: Cell<u64>,
}

/// What can be seen of a host. Two worlds are equal if nobody could tell them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Everything there is, by a text that says it all.
    pub present: BTreeSet<String>,
}

/// Which call trouble waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Applying the step of this index.
    Apply(usize),
    /// Reverting the step of this index.
    Revert(usize),
}

/// What goes wrong, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails before anything changed.
    Before(String),
    /// It fails although it had its effect.
    After(String),
    /// It never answers, and has its effect only by half: it is there, but nobody knows.
    Hang,
    /// It takes so long on the host's clock, then succeeds.
    Slow(Dur),
    /// It lets so much of everybody's time pass, then succeeds (applying only).
    Wait(Dur),
    /// Somebody else changed what the step made (reverting only).
    Superseded(String),
}

/// What a spent step did, kept beside the world because it cannot be undone.
pub type Shots = Vec<(ItemKey, usize)>;

impl FakeHost {
    /// A freshly booted host with a name, a device and a few processes; its operations count on `crash`.
    pub fn new(name: &str, crash: Crash) -> Self {
        let id = HostId::from(name);
        let world = World { present: ["device eth0".to_owned(), "device lo".to_owned()].into() };
        Self(Rc::new(Inner {
            id,
            crash,
            boot: RefCell::new(BootId::from("boot-1")),
            boots: Cell::new(1),
            now_ns: Cell::new(1_000_000_000),
            clock: RefCell::default(),
            world: RefCell::new(world),
            shots: RefCell::default(),
            last_shot_ns: Cell::new(None),
            held: RefCell::default(),
            script: RefCell::default(),
            lost: RefCell::default(),
            proof: RefCell::new(Proof::Verified),
            deadlines: RefCell::default(),
            applies: Cell::new(0),
            reverts: Cell::new(0),
        }))
    }

    /// What can be seen now.
    pub fn world(&self) -> World {
        self.0.world.borrow().clone()
    }

    /// Signals that were sent, ever.
    pub fn shots(&self) -> Shots {
        self.0.shots.borrow().clone()
    }

    /// From now on boot time is what `time` says, not what [`FakeHost::advance`] made it.
    pub fn follow(&self, time: impl Fn() -> i64 + 'static) {
        *self.0.clock.borrow_mut() = Some(Time(Rc::new(time)));
    }

    /// Boot time of the last signal that was sent.
    pub fn last_shot_ns(&self) -> Option<i64> {
        self.0.last_shot_ns.get()
    }

    /// Time passes.
    pub fn advance(&self, by: Dur) {
        self.0.now_ns.set(self.0.now_ns.get() + by.ns());
    }

    /// The agent died: its workers and what they held are gone; everything else stays.
    pub fn kill_agent(&self) {
        let held = std::mem::take(&mut *self.0.held.borrow_mut());
        self.0.world.borrow_mut().present.retain(|thing| !held.contains_key(thing));
        self.0.lost.borrow_mut().clear();
    }

    /// The machine was booted. Runtime state stays on purpose: that is harsher than any real boot, and what a step
    /// leaves on a disk would stay.
    pub fn reboot(&self) {
        self.kill_agent();
        self.0.boots.set(self.0.boots.get() + 1);
        *self.0.boot.borrow_mut() = BootId::new(format!("boot-{}", self.0.boots.get()));
        self.0.now_ns.set(500_000_000);
    }

    /// The worker of an item died: what it held is gone, and the host will tell.
    pub fn lose(&self, key: &ItemKey, why: &str) {
        let mut held = self.0.held.borrow_mut();
        self.0.world.borrow_mut().present.retain(|thing| held.get(thing) != Some(key));
        held.retain(|_, holder| holder != key);
        self.0.lost.borrow_mut().push((key.clone(), why.to_owned()));
    }

    /// Adds trouble for the next matching call.
    pub fn script(&self, on: On, trouble: Trouble) {
        self.0.script.borrow_mut().push_back((on, trouble));
    }

    /// What looks give from now on.
    pub fn set_proof(&self, proof: Proof) {
        *self.0.proof.borrow_mut() = proof;
    }

    /// When (boot time) the workers of an item would end by themselves, as last told.
    pub fn deadline_ns(&self, key: &ItemKey) -> Option<i64> {
        self.0.deadlines.borrow().get(key).copied()
    }

    /// How many steps were applied.
    pub fn applies(&self) -> u64 {
        self.0.applies.get()
    }

    /// How many times a step was reverted.
    pub fn reverts(&self) -> u64 {
        self.0.reverts.get()
    }

    fn trouble(&self, on: On) -> Option<Trouble> {
        let mut script = self.0.script.borrow_mut();
        let at = script.iter().position(|(o, _)| *o == on)?;
        script.remove(at).map(|(_, trouble)| trouble)
    }

    fn take_effect(&self, key: &ItemKey, index: usize, step: &Step) -> Result<Handle, Failure> {
        if step.kind() == Kind::Spent {
            self.0.shots.borrow_mut().push((key.clone(), index));
            self.0.last_shot_ns.set(Some(self.now().boot_ns));
            return Ok(Handle::Null);
        }
        let mut world = self.0.world.borrow_mut();
        for needed in needs(step) {
            if !world.present.contains(&needed) {
                return Err(Failure(format!("{} needs {needed}", thing(key, index, step))));
            }
        }
        let thing = thing(key, index, step);
        let made = world.present.insert(thing.clone());
        if step.kind() == Kind::Held {
            self.0.held.borrow_mut().insert(thing.clone(), key.clone());
        }
        // Who found it there already must leave it there.
        if !made && !matches!(step, Step::MakeClsact { .. }) {
            return Err(Failure(format!("{thing} is there already")));
        }
        if made && matches!(step, Step::MakeClsact { .. }) {
            world.present.insert(format!("{thing} of ours"));
        }
        Ok(json!({ "thing": thing }))
    }

    fn take_away(&self, key: &ItemKey, index: usize, step: &Step) -> Reverted {
        let thing = thing(key, index, step);
        let mut world = self.0.world.borrow_mut();
        if matches!(step, Step::MakeClsact { .. }) {
            let used = world.present.iter().any(|t| t.contains(&format!(" on {thing} ")));
            if used || !world.present.remove(&format!("{thing} of ours")) {
                return Reverted::NothingThere;
            }
        }
        self.0.held.borrow_mut().remove(&thing);
        if let Step::MakeIfb { name } = step {
            // A device takes its qdisc along.
            world.present.retain(|t| !t.ends_with(&format!("on device {name}")));
        }
        if world.present.remove(&thing) { Reverted::Undone } else { Reverted::NothingThere }
    }
}

/// What a step makes, as a text that tells it from everything else.
fn thing(key: &ItemKey, index: usize, step: &Step) -> String {
    match step {
        Step::MakeIfb { name } => format!("device {name}"),
        Step::MakeNetem { device, effect, .. } => format!("netem {effect:?} on device {device}"),
        Step::MakeClsact { device } => format!("clsact {device}"),
        Step::Redirect { device, to, direction, priority, .. } => {
            format!("redirect {direction:?} {priority} on clsact {device} to {to}")
        }
        Step::Lose { device, direction, priority, .. } => {
            format!("loss {direction:?} {priority} on clsact {device} by chance")
        }
        Step::Suspend { process } => format!("stopped {}", process.pid),
        Step::StopUnit { unit } => format!("no unit {unit}"),
        Step::Replace(replace) => format!("replaced {}", replace.path),
        Step::Seize { process } => format!("seized {}", process.pid),
        other => format!("{other:?} of {key} step {index}"),
    }
}

/// What must be there before a step can be applied.
fn needs(step: &Step) -> Vec<String> {
    match step {
        Step::MakeNetem { device, .. } | Step::MakeClsact { device } => vec![format!("device {device}")],
        Step::Redirect { device, to, .. } => vec![format!("clsact {device}"), format!("device {to}")],
        Step::Lose { device, .. } => vec![format!("clsact {device}")],
        _ => Vec::new(),
    }
}

impl Host for FakeHost {
    fn now(&self) -> Stamp {
        let clock = ClockId { host: self.0.id.clone(), boot: self.0.boot.borrow().clone() };
        let boot_ns = self.0.clock.borrow().as_ref().map_or_else(|| self.0.now_ns.get(), |time| (time.0)());
        Stamp { clock, boot_ns, wall_ns: 1_795_000_000_000_000_000 + boot_ns, bound_ns: 1_000_000 }
    }

    fn facts(&self) -> Local<'_, HostFacts> {
        Box::pin(async { fixture::host_facts() })
    }

    fn answer<'a>(&'a self, base: Facts, _questions: &'a [Question]) -> Local<'a, Result<Facts, Failure>> {
        Box::pin(async { Ok(fixture::answer(base)) })
    }

    fn deadline(&self, key: &ItemKey, left: Dur) {
        self.0.deadlines.borrow_mut().insert(key.clone(), self.now().boot_ns + left.ns());
    }

    fn apply<'a>(
        &'a self,
        key: &'a ItemKey,
        index: usize,
        step: &'a Step,
    ) -> Local<'a, Result<(Handle, Between), Failure>> {
        Box::pin(async move {
            self.0.crash.boundary().await;
            self.0.applies.set(self.0.applies.get() + 1);
            let trouble = self.trouble(On::Apply(index));
            if let Some(Trouble::Before(why)) = trouble {
                return Err(Failure(why));
            }
            let from = self.now();
            if let Some(Trouble::Slow(by)) = trouble {
                self.advance(by);
            }
            if let Some(Trouble::Wait(by)) = trouble {
                tokio::time::sleep(by.std()).await;
            }
            let handle = self.take_effect(key, index, step)?;
            self.0.crash.boundary().await;
            match trouble {
                Some(Trouble::After(why)) => Err(Failure(why)),
                Some(Trouble::Hang) => pending().await,
                _ => Ok((handle, Between { from, to: self.now() })),
            }
        })
    }

    fn revert<'a>(
        &'a self,
        key: &'a ItemKey,
        index: usize,
        step: &'a Step,
        _handle: Option<&'a Handle>,
    ) -> Local<'a, Result<Reverted, Failure>> {
        Box::pin(async move {
            assert_ne!(step.kind(), Kind::Spent, "a spent step cannot be reverted");
            self.0.crash.boundary().await;
            self.0.reverts.set(self.0.reverts.get() + 1);
            let trouble = self.trouble(On::Revert(index));
            match trouble {
                Some(Trouble::Before(why)) => return Err(Failure(why)),
                Some(Trouble::Hang) => pending().await,
                Some(Trouble::Superseded(what)) => return Ok(Reverted::Superseded(what)),
                Some(Trouble::Slow(by)) => self.advance(by),
                Some(Trouble::After(_) | Trouble::Wait(_)) | None => {}
            }
            let reverted = self.take_away(key, index, step);
            self.0.crash.boundary().await;
            match trouble {
                Some(Trouble::After(why)) => Err(Failure(why)),
                _ => Ok(reverted),
            }
        })
    }

    fn check<'a>(&'a self, _key: &'a ItemKey, _check: &'a Check) -> Local<'a, (Proof, Vec<Measured>)> {
        Box::pin(async { (self.0.proof.borrow().clone(), Vec::new()) })
    }

    fn lost(&self) -> Local<'_, Vec<(ItemKey, String)>> {
        Box::pin(async { std::mem::take(&mut *self.0.lost.borrow_mut()) })
    }
}
