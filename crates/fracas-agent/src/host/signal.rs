//! Signals to one certain process: its number is pinned by a pidfd and its start time compared before anything is sent.
//! Nothing here waits for longer than a read of /proc.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use fracas_model::process::ProcessRef;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Failure, clock, processes, worker::readable};
use crate::crash::{self, Task};

/// How long an exit is waited for by the watcher; later ones are seen, but not timed.
const WATCH: Duration = Duration::from_mins(10);

/// Where a watcher leaves the boot time of the exit.
pub type Exit = Arc<OnceLock<i64>>;

/// A process that cannot be mistaken for another.
#[derive(Debug)]
pub struct Target {
    who: ProcessRef,
    pidfd: OwnedFd,
}

impl Target {
    /// Pins the process. The descriptor comes first, the comparison second: the other way round, the number could pass
    /// to another process in between.
    pub fn pin(who: &ProcessRef) -> Result<Self, Failure> {
        let gone = || Failure(format!("{} (pid {}) is gone", who.name, who.pid));
        let pid = Pid::from_raw(who.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| match e {
            rustix::io::Errno::SRCH => gone(),
            other => Failure(format!("{} (pid {}) cannot be opened: {other}", who.name, who.pid)),
        })?;
        match processes::same(who) {
            Some(_) => Ok(Self { who: who.clone(), pidfd }),
            None => Err(gone()),
        }
    }

    /// Sends a signal.
    pub fn send(&self, signal: i32) -> Result<(), Failure> {
        let name = || format!("{} (pid {})", self.who.name, self.who.pid);
        let number = Signal::from_named_raw(signal).ok_or_else(|| Failure(format!("signal {signal} is unknown")))?;
        pidfd_send_signal(&self.pidfd, number).map_err(|e| match e {
            rustix::io::Errno::PERM => {
                Failure(format!("{} may not be signalled: run the agent as root or give it CAP_KILL", name()))
            }
            rustix::io::Errno::SRCH => Failure(format!("{} is gone", name())),
            other => Failure(format!("{} cannot be signalled: {other}", name())),
        })
    }

    /// Notes when the process ends, on a thread of its own, so that the stamp does not wait for anybody.
    pub fn watch(self) -> Exit {
        let exit = Exit::default();
        let note = exit.clone();
        let watch = move || {
            crash::within(Task::Exit);
            if readable(self.pidfd.as_fd(), WATCH) {
                let _ = note.set(clock::boot_ns());
            }
        };
        if let Err(error) = thread::Builder::new().name("exit".into()).stack_size(64 * 1024).spawn(watch) {
            tracing::warn!(%error, "no thread to time an exit");
        }
        exit
    }
}

/// What a process does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is no longer pending.
    Yes,
    /// It waits: the process blocks it or has not run since.
    Pending,
    /// It is discarded by the process.
    Ignored,
    /// The process has ended.
    Gone,
}

/// Where a signal sent to the process is now.
pub fn taken(who: &ProcessRef, signal: i32) -> Taken {
    if processes::same(who).is_none() {
        return Taken::Gone;
    }
    let Ok(status) = fs::read(format!("/proc/{}/status", who.pid)) else { return Taken::Gone };
    let status = String::from_utf8_lossy(&status);
    let mask = |key: &str| status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix(key)?.trim(), 16).ok());
    let holds = |key: &str| mask(key).is_some_and(|m| m >> (signal - 1) & 1 == 1);
    if holds("SigIgn:") {
        Taken::Ignored
    } else if holds("ShdPnd:") {
        Taken::Pending
    } else {
        Taken::Yes
    }
}
