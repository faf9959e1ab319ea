//! The probes that run, on the present thread: started, prolonged and stopped to match what is wanted.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use fracas_model::{
    desired::{LedgerItem, ProbeItem},
    event::Body,
    id::{LedgerId, ProbeId, RunId},
    plan::Refusal,
    policy::Policy,
    units::Dur,
};
use fracas_probes::{
    Lookout, Probe,
    ledger::{Book, Ledger, Place},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_local},
};

use super::{
    Sight, Watcher,
    ledger::{self, Kept, Order},
    pace::Pace,
    tend::{Asked, Tended},
};
use crate::host::Local;

/// Longest time that a probe runs on without being asked for again, whatever it was told: nobody may read it any more.
pub const LONGEST: Dur = Dur::from_secs(86_400);

/// Ticks probes as local tasks: every call must be made inside a `LocalSet`. It is what the real watcher runs on its
/// thread, and, with a simulated pace, a whole watcher for the simulated world.
pub struct Roster<P> {
    table: &'static [&'static dyn Probe],
    policy: Policy,
    pace: P,
    running: BTreeMap<(RunId, ProbeId), Running>,
    ledgers: &'static [&'static dyn Ledger],
    keeping: BTreeMap<(RunId, LedgerId), Keeping>,
    stopping: Vec<JoinHandle<()>>,
    out: mpsc::UnboundedSender<Sight>,
    sights: mpsc::UnboundedReceiver<Sight>,
}

struct Running {
    item: ProbeItem,
    /// `None` when it was refused: it is not tried again until it is asked for differently.
    life: Option<(watch::Sender<Asked>, JoinHandle<()>)>,
    /// The host gave no timer: not tried again either.
    failed: Rc<Cell<bool>>,
}

/// A ledger that is kept, or was: it is not begun again while it is wanted. It ends when its sender is dropped.
struct Keeping {
    item: LedgerItem,
    order: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl<P: Pace> Roster<P> {
    /// Knows these kinds of probes and keeps to this policy.
    pub fn new(table: &'static [&'static dyn Probe], policy: Policy, pace: P) -> Self {
        let (out, sights) = mpsc::unbounded_channel();
        Self {
            table,
            policy,
            pace,
            running: BTreeMap::new(),
            ledgers: fracas_probes::ledger::ALL,
            keeping: BTreeMap::new(),
            stopping: Vec::new(),
            out,
            sights,
        }
    }

    /// Knows these kinds of ledgers instead.
    #[must_use]
    pub fn with_ledgers(mut self, ledgers: &'static [&'static dyn Ledger]) -> Self {
        self.ledgers = ledgers;
        self
    }

    fn book(&self, item: &LedgerItem) -> Result<Rc<dyn Book>, Refusal> {
        let known = self.ledgers.iter().find(|l| l.info().name == item.kind).ok_or_else(|| {
            Refusal::new(format!("this agent has no ledger {}", item.kind), "upgrade the agent, or use another ledger")
        })?;
        if !self.policy.allows_ledger(&item.kind) {
            return Err(Refusal::new(
                format!("this host's policy does not allow ledgers of the kind {}", item.kind),
                "ask the owner of the host to add it to allowLedgers, or write from elsewhere",
            ));
        }
        let place = Place { name: item.place.clone(), token: item.token.clone() };
        fracas_probes::ledger::ready(*known, &item.params, &self.policy, place).map(Rc::from)
    }

    fn begin(&self, item: &LedgerItem, order: Order) -> Keeping {
        let (order, orders) = watch::channel(order);
        let (pace, out) = (self.pace.clone(), self.out.clone());
        let task = match self.book(item) {
            Ok(book) => {
                let kept = Kept { item: item.clone(), book, pace, out, order: orders };
                spawn_local(kept.run())
            }
            Err(refusal) => {
                let _ = out.send(ledger::refused(item, refusal, &pace));
                spawn_local(std::future::ready(()))
            }
        };
        Keeping { item: item.clone(), order, task }
    }

    fn ready(&self, item: &ProbeItem) -> Result<Box<dyn Lookout>, Refusal> {
        let known = self.table.iter().find(|p| p.info().name == item.kind).ok_or_else(|| {
            Refusal::new(format!("this agent has no probe {}", item.kind), "upgrade the agent, or use another probe")
        })?;
        if !self.policy.allows_probe(&item.kind) {
            return Err(Refusal::new(
                format!("this host's policy does not allow probes of the kind {}", item.kind),
                "ask the owner of the host to add it to allowProbes, or look from elsewhere",
            ));
        }
        fracas_probes::ready(*known, &item.params, &self.policy)
    }

    fn start(&self, item: &ProbeItem) -> Running {
        let failed = Rc::new(Cell::new(false));
        let life = match self.ready(item) {
            Ok(lookout) => {
                let (ask, asked) = watch::channel(self.asked(item));
                let (pace, out) = (self.pace.clone(), self.out.clone());
                let tended = Tended { item: item.clone(), lookout, pace: pace.clone(), out: out.clone(), asked };
                let (item, failed) = (item.clone(), failed.clone());
                let task = spawn_local(async move {
                    if let Err(refusal) = tended.run().await {
                        failed.set(true);
                        let _ = out.send(refused(&item, refusal, &pace));
                    }
                });
                Some((ask, task))
            }
            Err(refusal) => {
                let _ = self.out.send(refused(item, refusal, &self.pace));
                None
            }
        };
        Running { item: item.clone(), life, failed }
    }

    fn asked(&self, item: &ProbeItem) -> Asked {
        let until_ns = self.pace.boot_ns().saturating_add(item.until.ns().clamp(0, LONGEST.ns()));
        // A day is seldom enough, and keeps sums of instants within bounds.
        Asked { until_ns, at_rest: item.at_rest.map(|at_rest| at_rest.min(LONGEST)) }
    }

    fn stop(&mut self, key: &(RunId, ProbeId)) {
        if let Some(Running { life: Some((ask, task)), .. }) = self.running.remove(key) {
            drop(ask);
            self.stopping.push(task);
        }
    }

    /// Waits until every probe that was stopped has told its last readings.
    pub async fn settle(&mut self) {
        for task in self.stopping.drain(..) {
            // A probe that panicked has nothing more to tell.
            let _ = task.await;
        }
    }

    /// What was told and not taken yet.
    pub fn told(&mut self) -> Vec<Sight> {
        std::iter::from_fn(|| self.sights.try_recv().ok()).collect()
    }
}

/// The fact that a probe cannot run.
pub(super) fn refused(item: &ProbeItem, refusal: Refusal, pace: &impl Pace) -> Sight {
    let body = Body::ProbeRefused { probe: item.probe.clone(), refusal, at: pace.now() };
    Sight { stream: format!("run/{}", item.run), body, blob: None }
}

impl<P: Pace> Watcher for Roster<P> {
    fn set(&mut self, wanted: &[ProbeItem]) {
        // How long it may run, and whether it may rest, is not part of what it is.
        let same = |Running { item, .. }: &Running| {
            wanted.iter().any(|w| ProbeItem { until: item.until, at_rest: item.at_rest, ..w.clone() } == *item)
        };
        let ended = |(_, task): &(_, JoinHandle<()>)| task.is_finished();
        let over = |running: &Running| !running.failed.get() && running.life.as_ref().is_some_and(ended);
        let gone: Vec<_> =
            self.running.iter().filter(|(_, r)| !same(r) || over(r)).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.stop(key);
        }
        self.stopping.retain(|task| !task.is_finished());
        for item in wanted {
            let key = (item.run.clone(), item.probe.clone());
            let asked = self.asked(item);
            if let Some(running) = self.running.get_mut(&key) {
                running.item.at_rest = item.at_rest;
                if let Some((ask, _)) = &running.life {
                    ask.send_replace(asked);
                }
            } else {
                let started = self.start(item);
                self.running.insert(key, started);
            }
        }
    }

    fn keep(&mut self, wanted: &[LedgerItem]) {
        let gone: Vec<_> = {
            let named = |key: &(RunId, LedgerId)| wanted.iter().any(|w| w.run == key.0 && w.ledger == key.1);
            self.keeping.keys().filter(|key| !named(key)).cloned().collect()
        };
        for key in &gone {
            if let Some(Keeping { order, task, .. }) = self.keeping.remove(key) {
                drop(order);
                self.stopping.push(task);
            }
        }
        for item in wanted {
            let until_ns = self.pace.boot_ns().saturating_add(item.until.ns().clamp(0, LONGEST.ns()));
            let order = Order { work: item.work, until_ns };
            let key = (item.run.clone(), item.ledger.clone());
            if let Some(keeping) = self.keeping.get(&key) {
                keeping.order.send_replace(order);
            } else {
                let begun = self.begin(item, order);
                self.keeping.insert(key, begun);
            }
        }
    }

    fn allow(&mut self, policy: &Policy) {
        self.policy = policy.clone();
        // A wanted probe that was refused is asked about again; one that runs goes on unless it is not allowed any more.
        let changed = |r: &&Running| r.life.is_none() || self.ready(&r.item).is_err();
        let again: Vec<ProbeItem> = self.running.values().filter(changed).map(|r| r.item.clone()).collect();
        for item in again {
            let key = (item.run.clone(), item.probe.clone());
            self.stop(&key);
            let started = self.start(&item);
            self.running.insert(key, started);
        }
        let forbidden = |keeping: &&Keeping| !keeping.task.is_finished() && self.book(&keeping.item).is_err();
        let forbidden: Vec<LedgerItem> = self.keeping.values().filter(forbidden).map(|k| k.item.clone()).collect();
        for item in forbidden {
            // Tells why not, and ends.
            let begun = self.begin(&item, Order { work: item.work, until_ns: 0 });
            let former = self.keeping.insert((item.run.clone(), item.ledger.clone()), begun);
            self.stopping.extend(former.map(|former| former.task));
        }
    }

    fn next(&mut self) -> Local<'_, Sight> {
        Box::pin(async {
            match self.sights.recv().await {
                Some(sight) => sight,
                // Never: a sender is kept here.
                None => std::future::pending().await,
            }
        })
    }

    fn close(&mut self) -> Local<'_, Vec<Sight>> {
        Box::pin(async {
            self.set(&[]);
            self.keep(&[]);
            self.settle().await;
            self.told()
        })
    }
}
