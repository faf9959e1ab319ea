//! Held steps: one worker each, kept by item and step, ended by closing its lifeline.
//! After a restart of the agent there is no worker to end; then its death is awaited, not assumed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fracas_model::{event::Between, id::ItemKey, plan::Burn, process::ProcessRef, units::Dur};
use serde_json::{Value, json};

use super::{LinuxHost, calls::Go, load::Load};
use crate::{
    crash::{self, Boundary},
    host::{
        Failure, Handle, Reverted, clock,
        processes::{Stat, same},
        worker::Worker,
    },
};

/// How long a worker may take to report that it has begun: seizing waits a second for threads, a loaded machine longer.
const BEGIN: Duration = Duration::from_secs(4);

/// How long the worker of an earlier life of the agent may take to be gone. Its lifeline ended with that agent.
const VANISH: Duration = Duration::from_secs(2);

/// Workers by what they hold, and how long each item may last.
#[derive(Debug, Default)]
pub(super) struct Workers {
    held: BTreeMap<(ItemKey, usize), Held>,
    deadlines: BTreeMap<ItemKey, i64>,
}

#[derive(Debug)]
struct Held {
    worker: Worker,
    reported: bool,
}

impl Workers {
    /// Hands the time that is left to the item's workers, those of now and those to come.
    pub(super) fn deadline(&mut self, key: &ItemKey, left: Dur) {
        self.deadlines.insert(key.clone(), clock::boot_ns().saturating_add(left.ns()));
        for held in self.of(key) {
            if let Err(error) = held.worker.deadline(left.std()) {
                tracing::warn!(%error, item = %key, "deadline");
            }
        }
    }

    fn left(&self, key: &ItemKey) -> Option<Duration> {
        let left = self.deadlines.get(key)?.saturating_sub(clock::boot_ns());
        Some(Duration::from_nanos(left.max(1).unsigned_abs()))
    }

    fn of(&mut self, key: &ItemKey) -> impl Iterator<Item = &mut Held> {
        self.held.iter_mut().filter(move |((k, _), _)| k == key).map(|(_, held)| held)
    }

    /// Process numbers of an item's workers.
    pub(super) fn pids(&self, key: &ItemKey) -> Vec<i32> {
        self.held.iter().filter(|((k, _), _)| k == key).map(|(_, held)| held.worker.pid()).collect()
    }

    fn take(&mut self, key: &ItemKey, index: usize) -> Option<Worker> {
        let held = self.held.remove(&(key.clone(), index))?;
        if !self.held.keys().any(|(k, _)| k == key) {
            self.deadlines.remove(key);
        }
        Some(held.worker)
    }

    /// Workers that ended by themselves; each is told once and stays until its step is reverted.
    pub(super) fn lost(&mut self) -> Vec<(ItemKey, String)> {
        let ended = self.held.iter_mut().filter(|(_, held)| !held.reported && !held.worker.alive());
        let tell = |((key, _), held): (&(ItemKey, usize), &mut Held)| {
            held.reported = true;
            (key.clone(), held.worker.fate())
        };
        ended.map(tell).collect()
    }
}

/// What a worker that has begun left behind.
pub(super) struct Begun {
    pub(super) worker: Worker,
    pub(super) reply: Value,
    between: Between,
}

impl LinuxHost {
    pub(super) async fn burn(&self, key: &ItemKey, index: usize, burn: &Burn) -> Result<(Handle, Between), Failure> {
        let begun = self.begin(key, "burn", json!({ "burn": burn })).await?;
        let threads: Vec<(u32, i32)> = serde_json::from_value(begun.reply["threads"].clone())
            .map_err(|e| Failure(format!("the burn worker replied nonsense: {e}")))?;
        self.loads.borrow_mut().insert(key, Load::begin(burn, begun.worker.pid(), threads));
        Ok(self.keep(key, index, begun))
    }

    pub(super) async fn seize(
        &self,
        key: &ItemKey,
        index: usize,
        process: &ProcessRef,
    ) -> Result<(Handle, Between), Failure> {
        let begun = self.begin(key, "seize", json!({ "seize": process })).await?;
        Ok(self.keep(key, index, begun))
    }

    /// Starts a worker and gives it its order. Should this future be dropped, the worker dies with its result.
    pub(super) async fn begin(&self, key: &ItemKey, role: &'static str, order: Value) -> Result<Begun, Failure> {
        let (spawner, clock, left) = (self.spawner.clone(), self.clock.clone(), self.held.borrow().left(key));
        let work = move |go: &Arc<Go>| {
            let mut worker =
                spawner.spawn(role).map_err(|e| Failure(format!("the {role} worker cannot be started: {e}")))?;
            crash::at(Boundary::AmidStep);
            go.on()?;
            if let Some(left) = left {
                worker.deadline(left)?;
            }
            let from = clock.now();
            let reply = worker.call(&order, BEGIN)?;
            Ok(Begun { worker, reply, between: clock.since(from) })
        };
        self.act(key, work).await
    }

    pub(super) fn keep(&self, key: &ItemKey, index: usize, begun: Begun) -> (Handle, Between) {
        let pid = begun.worker.pid();
        let ticks = Stat::of(pid).map_or(0, |s| s.start_ticks);
        let held = Held { worker: begun.worker, reported: false };
        self.held.borrow_mut().held.insert((key.clone(), index), held);
        (json!({ "worker": { "pid": pid, "startTicks": ticks } }), begun.between)
    }

    /// Ends the worker of a step, or waits until the one of an earlier life is gone.
    pub(super) async fn release(
        &self,
        key: &ItemKey,
        index: usize,
        handle: Option<&Handle>,
    ) -> Result<Reverted, Failure> {
        let worker = self.held.borrow_mut().take(key, index);
        if let Some(worker) = worker {
            self.act(key, move |_| worker.end()).await?;
            crash::at(Boundary::BeforeReadBack);
            return Ok(Reverted::Undone);
        }
        let Some(old) = handle.and_then(|h| h.get("worker")) else { return Ok(Reverted::NothingThere) };
        let old = ProcessRef {
            pid: old["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            start_ticks: old["startTicks"].as_u64().unwrap_or(0),
            name: "worker".into(),
        };
        if until(VANISH, || same(&old).is_none()).await {
            Ok(Reverted::Undone)
        } else {
            Err(Failure(format!("worker {} of an earlier agent still lives: end it with kill -9 {0}", old.pid)))
        }
    }
}

/// Waits until something holds, looking every 2 ms; false when it did not within the time.
pub(super) async fn until(longest: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = tokio::time::Instant::now() + longest;
    loop {
        if holds() {
            return true;
        }
        if tokio::time::Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
