//! Processes that stand still: SIGSTOP with its inverse, the end of a seizure, and whether all threads are stopped.
//! A process that is gone needs no undo; one that somebody else had stopped is left alone.

use std::time::Duration;

use fracas_model::{
    event::{Between, Measured, Proof},
    id::ItemKey,
    process::ProcessRef,
};
use serde_json::json;

use super::{LinuxHost, held::until};
use crate::{
    crash::{self, Boundary},
    host::{
        Failure, Handle, Reverted,
        processes::{Stat, same, status_field, threads},
        signal::Target,
    },
};

/// How long stopping and resuming may take: 4 ms for 200 threads where it was measured.
const SETTLE: Duration = Duration::from_millis(500);

/// How long a seized process may stay traced after the worker's death: 1.5 ms for 200 threads where it was measured.
const LET_GO: Duration = Duration::from_secs(2);

/// `comm` of the workers that seize.
const TRACER: &str = "fracas-seize";

impl LinuxHost {
    pub(super) async fn suspend(
        &self,
        key: &ItemKey,
        index: usize,
        process: &ProcessRef,
    ) -> Result<(Handle, Between), Failure> {
        let target = Target::pin(process)?;
        if states(process.pid).iter().any(|s| matches!(s, 'T' | 't')) {
            self.untouched.borrow_mut().insert((key.clone(), index));
            let name = format!("{} (pid {})", process.name, process.pid);
            return Err(Failure(format!("{name} is stopped already, by somebody else: resume it first")));
        }
        let from = self.clock.now();
        target.send(libc::SIGSTOP)?;
        crash::at(Boundary::AmidStep);
        if until(SETTLE, || states(process.pid).iter().all(|s| still(*s))).await {
            return Ok((json!({ "stopped": true }), self.clock.since(from)));
        }
        target.send(libc::SIGCONT)?;
        Err(Failure(format!("{} (pid {}) did not stop", process.name, process.pid)))
    }
}

/// States of all threads that live.
fn states(pid: i32) -> Vec<char> {
    let stats = threads(pid).into_iter().filter_map(|tid| Stat::of_thread(pid, tid));
    stats.filter(|s| !s.dead()).map(|s| s.state).collect()
}

/// A thread in this state runs nothing of its program; one that waits in the kernel (`D`) stops when it comes back.
fn still(state: char) -> bool {
    matches!(state, 'T' | 't' | 'D')
}

/// Whether a thread is stopped, or a stop waits to be taken. A thread that waits in the kernel (`D`) may be about to stop
/// with nothing of it to be seen here.
fn stopping(pid: i32) -> bool {
    let pending = |tid: i32| {
        let mask = |key| status_field(&format!("/proc/{pid}/task/{tid}/status"), key);
        ["SigPnd", "ShdPnd"]
            .into_iter()
            .filter_map(mask)
            .any(|m| u64::from_str_radix(&m, 16).is_ok_and(|m| m >> (libc::SIGSTOP - 1) & 1 == 1))
    };
    states(pid).contains(&'T') || threads(pid).into_iter().any(pending)
}

/// SIGCONT, if it is still the same process; sent whatever the process looks like, because it also takes back a stop that
/// nothing shows yet. Then all threads are read back.
pub(super) async fn resume(process: &ProcessRef, handle: Option<&Handle>) -> Result<Reverted, Failure> {
    let name = format!("{} (pid {})", process.name, process.pid);
    let ours = handle.is_some_and(|h| h.get("stopped").is_some());
    let target = match Target::pin(process) {
        Ok(target) => target,
        Err(_) if same(process).is_none() => return Ok(Reverted::NothingThere),
        Err(failure) => return Err(failure),
    };
    let before = states(process.pid);
    let runs = !stopping(process.pid) && !before.iter().any(|s| still(*s));
    target.send(libc::SIGCONT)?;
    crash::at(Boundary::BeforeReadBack);
    if !until(SETTLE, || same(process).is_none() || !stopping(process.pid)).await {
        return Err(Failure(format!("{name} is stopped again after SIGCONT: somebody else stops it")));
    }
    Ok(match tracer(process.pid) {
        Some(by) if by != 0 && states(process.pid).contains(&'t') => {
            Reverted::Superseded(format!("{name} is now held by tracer {by}"))
        }
        _ if !runs => Reverted::Undone,
        _ if ours => Reverted::Superseded(format!("{name} was resumed by somebody else")),
        _ => Reverted::NothingThere,
    })
}

/// The tracer of a thread or process; 0 for none.
fn tracer(pid: i32) -> Option<i32> {
    status_field(&format!("/proc/{pid}/status"), "TracerPid")?.parse().ok()
}

/// Waits until no seizing worker holds the process any more.
pub(super) async fn let_go(process: &ProcessRef) -> Result<(), Failure> {
    let held = |tid: &i32| {
        let tracer = tracer(*tid).filter(|t| *t != 0);
        tracer.and_then(Stat::of).is_some_and(|s| s.name == TRACER && !s.dead())
    };
    let free = || same(process).is_none() || !threads(process.pid).iter().any(held);
    if until(LET_GO, free).await {
        return Ok(());
    }
    Err(Failure(format!("{} (pid {}) is still held by a {TRACER} process: end that", process.name, process.pid)))
}

/// Whether every thread stands still: seized by one of `workers` where there are any, else stopped.
pub(super) fn check(processes: &[ProcessRef], workers: &[i32]) -> (Proof, Vec<Measured>) {
    let (mut all, mut stopped, mut why) = (0_u64, 0_u64, None);
    for process in processes {
        let name = format!("{} (pid {})", process.name, process.pid);
        if same(process).is_none() {
            why.get_or_insert(format!("{name} is gone"));
            continue;
        }
        for tid in threads(process.pid) {
            let Some(stat) = Stat::of_thread(process.pid, tid).filter(|s| !s.dead()) else { continue };
            all += 1;
            let held = workers.is_empty() || tracer(tid).is_some_and(|t| workers.contains(&t));
            if held && still(stat.state) {
                stopped += 1;
            } else {
                why.get_or_insert(format!("thread {tid} of {name} is in state {}", stat.state));
            }
        }
    }
    let measured = Measured {
        what: "threads stopped".into(),
        unit: "threads".into(),
        asked: Some(all as f64),
        got: stopped as f64,
        p99: None,
        n: 1,
        by: "state and tracer in /proc/PID/task".into(),
    };
    (why.map_or(Proof::Verified, |why| Proof::Ineffective { why }), vec![measured])
}
