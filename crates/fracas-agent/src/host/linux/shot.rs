//! Signals as one-shot steps, when their targets ended, and whether a signal was taken. Nothing here is undone.

use std::{collections::BTreeMap, time::Duration};

use fracas_model::{
    event::{Between, Measured, Proof},
    id::ItemKey,
    process::ProcessRef,
};
use serde_json::Value;

use super::{LinuxHost, held::until};
use crate::host::{
    Failure, Handle,
    processes::same,
    signal::{Exit, Taken, Target, taken},
};

/// How long one look waits for what usually takes less; looks are repeated, so none needs to wait for longer.
const LOOK: Duration = Duration::from_millis(20);

/// Items whose shots are remembered; they are wanted only until the item is closed, soon after firing.
const REMEMBERED: usize = 256;

/// What was sent, by item, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shots {
    fired: BTreeMap<ItemKey, Vec<Shot>>,
    order: Vec<ItemKey>,
}

/// One signal: when it was sent (boot time), and when the process ended.
#[derive(Clone, Debug)]
struct Shot {
    at_ns: i64,
    exit: Exit,
}

impl Shots {
    fn note(&mut self, key: &ItemKey, shot: Shot) {
        if !self.fired.contains_key(key) {
            self.order.push(key.clone());
        }
        self.fired.entry(key.clone()).or_default().push(shot);
        if self.order.len() > REMEMBERED {
            self.fired.remove(&self.order.remove(0));
        }
    }

    fn of(&self, key: &ItemKey) -> Vec<Shot> {
        self.fired.get(key).cloned().unwrap_or_default()
    }
}

impl LinuxHost {
    pub(super) fn shoot(&self, key: &ItemKey, process: &ProcessRef, signal: i32) -> Result<(Handle, Between), Failure> {
        let target = Target::pin(process)?;
        let from = self.clock.now();
        target.send(signal)?;
        let between = self.clock.since(from);
        let shot = Shot { at_ns: between.from.boot_ns, exit: target.watch() };
        self.shots.borrow_mut().note(key, shot);
        Ok((Value::Null, between))
    }

    /// Whether all have ended, and how long it took from the signal.
    pub(super) async fn gone(&self, key: &ItemKey, processes: &[ProcessRef]) -> (Proof, Vec<Measured>) {
        let shots = self.shots.borrow().of(key);
        let timed = || shots.iter().all(|s| s.exit.get().is_some());
        until(LOOK, || processes.iter().all(|p| same(p).is_none()) && timed()).await;
        let left = processes.iter().find_map(|p| Some((p, same(p)?)));
        let proof = left.map_or(Proof::Verified, |(process, stat)| Proof::Ineffective {
            why: format!(
                "{} (pid {}) still runs, in state {}{}",
                process.name,
                process.pid,
                stat.state,
                if stat.state == 'D' { ": it waits in the kernel for a device" } else { "" }
            ),
        });
        (proof, times(&shots))
    }

    /// Whether the processes took the signal, and how long they took to end if they did.
    pub(super) async fn delivered(
        &self,
        key: &ItemKey,
        processes: &[ProcessRef],
        signal: i32,
    ) -> (Proof, Vec<Measured>) {
        until(LOOK, || processes.iter().all(|p| taken(p, signal) != Taken::Pending)).await;
        let times = times(&self.shots.borrow().of(key));
        let mut proof = Proof::Verified;
        for process in processes {
            let name = format!("{} (pid {})", process.name, process.pid);
            match taken(process, signal) {
                Taken::Yes | Taken::Gone => {}
                Taken::Ignored => return (Proof::Ineffective { why: format!("{name} ignores this signal") }, times),
                Taken::Pending => proof = Proof::Unverified { why: format!("{name} blocks this signal for now") },
            }
        }
        (proof, times)
    }
}

fn times(shots: &[Shot]) -> Vec<Measured> {
    let mut took: Vec<i64> = shots.iter().filter_map(|s| Some(s.exit.get()? - s.at_ns)).collect();
    took.sort_unstable();
    let measured = took.last().map(|longest| Measured {
        what: "time to exit".into(),
        unit: "ms".into(),
        asked: None,
        got: *longest as f64 / 1e6,
        p99: None,
        n: took.len() as u64,
        by: "pidfd, the slowest of them".into(),
    });
    measured.into_iter().collect()
}
