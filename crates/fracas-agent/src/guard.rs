//! The guard: a second process that undoes from the journal when the agent dies. It never applies anything.
//!
//! It is this program in another role, started first thing by the agent, before anything is undone or applied. It has the
//! read end of a pipe whose write end only the agent has, and a pidfd of the agent. The end of the pipe only says that
//! the agent is about to be gone: the kernel closes its files one by one, so its locks may still be held then. The pidfd
//! says that all of it is gone, and only after that the locks are looked at. Unlike a worker the guard must outlive the
//! agent, so it takes back the parent-death signal that every worker is born with; until it has, it is not `ready`, and
//! the agent applies nothing before its guard is.
//!
//! An agent that lives and does not run (stopped, or its state disk hangs) keeps its pipe open. So it tells its guard how
//! long all is well, and again in time; when that has passed twice over, the guard kills it and undoes. What stops agent
//! and guard together, as a frozen cgroup of both, is beyond that: then they go on together.
//!
//! Who has taken the agent's place has a guard of its own before it has the journal. So this one leaves, with something
//! still open, only when one process holds both locks.

#![expect(unsafe_code, reason = "ignoring a signal has no safe wrapper")]

use std::{
    future::Future,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fracas_model::{facts::HostFacts, policy::Policy};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::{
    disk::FileDisk,
    host::{
        Host,
        worker::{
            Spawner, Worker,
            orders::{DEADLINE, Order, Orders},
            readable,
        },
    },
    journal::Trouble,
    lock::{self, Lock, LockError},
    reconcile::{Reconciler, Setup},
};

/// The guard's role in the table of roles.
pub const ROLE: &str = "guard";
/// How long the agent waits for a new guard to be ready.
const READY: Duration = Duration::from_secs(5);
/// How long the guard waits when another process has the journal.
const BUSY: Duration = Duration::from_millis(50);
/// How long a new agent may take to have the journal once it was left to it; then the guard goes on itself.
const HANDOVER: Duration = Duration::from_secs(5);
/// How much longer an agent has that did not say in time that all is well: a machine that slept wakes up with both late.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed agent may take to be gone. One that hangs in the kernel stays longer and does nothing any more.
const DYING: Duration = Duration::from_secs(2);
/// Key of the order to end, which only an agent gives that has nothing open.
const END: &str = "end";

/// The agent's hold on its guard.
///
/// Dropping it leaves the guard alone: if the agent unwinds from a bug, the guard must live to undo.
pub struct Guard {
    spawner: Spawner,
    dir: PathBuf,
    process: ManuallyDrop<Worker>,
}

impl Guard {
    /// Starts a guard for the state directory `dir` (absolute) and waits until it is ready.
    pub fn start(spawner: &Spawner, dir: &Path) -> io::Result<Self> {
        let process = ManuallyDrop::new(spawn(spawner, dir)?);
        Ok(Self { spawner: spawner.clone(), dir: dir.to_owned(), process })
    }

    /// Its process number, which no fault may touch.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Says that all is well for so long from now: unless it is said again by then, the guard kills this process and undoes.
    pub fn assure(&mut self, well: Duration) {
        if let Err(failure) = self.process.deadline(well) {
            tracing::warn!(%failure, "the guard takes no word");
        }
    }

    /// Starts a new one if it died; whether that was so. Call it every second or so; after an error, apply nothing.
    pub fn ensure(&mut self) -> io::Result<bool> {
        if self.process.alive() {
            return Ok(false);
        }
        let fresh = ManuallyDrop::new(spawn(&self.spawner, &self.dir)?);
        let dead = std::mem::replace(&mut self.process, fresh);
        // It is dead: this only reaps it.
        let _ = ManuallyDrop::into_inner(dead).kill();
        Ok(true)
    }

    /// Ends it, when the agent ends in good order with nothing open.
    pub fn end(self) {
        let mut process = ManuallyDrop::into_inner(self.process);
        if let Err(failure) = process.send(&json!({ END: true })).and_then(|()| process.end()) {
            tracing::warn!(%failure, "the guard did not end");
        }
    }
}

fn spawn(spawner: &Spawner, dir: &Path) -> io::Result<Worker> {
    let mut worker = spawner.spawn_with(ROLE, &[dir.display().to_string()])?;
    match worker.reply(READY) {
        Ok(_) => Ok(worker),
        Err(failure) => Err(io::Error::other(failure.0)),
    }
}

/// Takes the journal's lock; waits, telling why once, while a guard or undo-all of an earlier agent still has it.
pub async fn take_journal(dir: &Path) -> Result<Lock, LockError> {
    let mut told = false;
    loop {
        match Lock::take(dir, lock::JOURNAL) {
            Err(LockError::Held { holder, .. }) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(holder, "waiting for another process that undoes from the journal");
                }
                tokio::time::sleep(BUSY).await;
            }
            other => return other,
        }
    }
}

/// How the guard's work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left of what the journal says.
    Clean,
    /// Nothing is left of what could be read of the journal, but this is wrong with it: nobody can say what else there is.
    Unknown(Trouble),
    /// Another agent has taken over the state directory and undoes itself.
    TakenOver,
}

/// The agent that a guard guards.
#[derive(Debug)]
pub struct Guarded {
    pid: i32,
    pidfd: OwnedFd,
}

impl Guarded {
    /// The process that started this one. Call it while its death would still be this process's own.
    fn parent() -> io::Result<Self> {
        let pid = getppid().ok_or_else(|| io::Error::other("the agent is in another process namespace"))?;
        Ok(Self { pid: Pid::as_raw(Some(pid)), pidfd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Whether all of it is gone, its locks too.
    fn gone(&self, within: Duration) -> bool {
        readable(self.pidfd.as_fd(), within)
    }

    /// Whether it has this lock, although it should be gone.
    fn holds(&self, dir: &Path, name: &str) -> bool {
        !self.gone(Duration::ZERO) && Lock::holder(dir, name) == Some(self.pid)
    }
}

/// Undoes everything the journal in `dir` says is open, trying until it is done or another agent has taken over. A guard
/// says whose place it takes: what that one still holds is nobody's any more.
pub async fn undo_everything<H: Host, F: Future<Output = H>>(
    dir: &Path,
    after: Option<&Guarded>,
    host: impl Fn() -> F,
) -> io::Result<Outcome> {
    loop {
        let journal_lock = match Lock::take(dir, lock::JOURNAL) {
            Ok(lock) => Some(lock),
            Err(LockError::Held { .. }) if after.is_some_and(|agent| agent.holds(dir, lock::JOURNAL)) => None,
            Err(LockError::Held { .. }) if taken_over(dir) => return Ok(Outcome::TakenOver),
            Err(LockError::Held { .. }) => {
                tokio::time::sleep(BUSY).await;
                continue;
            }
            // A disk that takes no writes must not keep a guard from undoing.
            Err(LockError::Io { .. }) if after.is_some() => None,
            Err(LockError::Io { error, .. }) => return Err(error),
        };
        let setup = Setup {
            policy: Policy::nothing(),
            facts: HostFacts::default(),
            faults: &[],
            agent_version: concat!(env!("CARGO_PKG_VERSION"), " guard").into(),
            fleet: String::new(),
        };
        let mut reconciler = Reconciler::open(host().await, FileDisk::new(dir)?, setup).await;
        reconciler.recover().await;
        let awaited = || Lock::is_held(dir, lock::AGENT) && !after.is_some_and(|agent| agent.holds(dir, lock::AGENT));
        while let Some(wake) = reconciler.next_wake()
            && !awaited()
        {
            let pause = (wake - reconciler.host().now().boot_ns).clamp(1_000_000, 1_000_000_000);
            tokio::time::sleep(Duration::from_nanos(pause.cast_unsigned())).await;
            reconciler.tick().await;
        }
        if reconciler.open_items().is_empty() {
            let hidden = reconciler.trouble().filter(Trouble::hides);
            return Ok(hidden.map_or(Outcome::Clean, Outcome::Unknown));
        }
        // A new agent waits for the journal; it finds it as it is now and goes on. Should it die first, this one does.
        drop(reconciler);
        drop(journal_lock);
        let until = Instant::now() + HANDOVER;
        while Lock::is_held(dir, lock::AGENT) && !Lock::is_held(dir, lock::JOURNAL) && Instant::now() < until {
            tokio::time::sleep(BUSY).await;
        }
    }
}

/// Whether an agent is at work here: one process with both locks.
fn taken_over(dir: &Path) -> bool {
    let agent = Lock::holder(dir, lock::AGENT);
    agent.is_some() && agent == Lock::holder(dir, lock::JOURNAL)
}

/// The role `guard`; its argument is the state directory. `host` makes the machine's host once it is needed.
pub fn serve<H: Host, F: Future<Output = H>>(arguments: &[String], host: impl Fn() -> F) -> i32 {
    let [dir] = arguments else { return 2 };
    ignore_requests_to_end();
    let Ok(agent) = Guarded::parent() else { return 1 };
    if outlive_the_agent().is_err() {
        return 1;
    }
    let Ok(mut orders) = Orders::open() else { return 1 };
    if orders.reply(&json!({ "ready": true })).is_err() {
        return 1;
    }
    match listen(&mut orders) {
        Heard::End => return 0,
        // Not the end of the pipe, which comes before its locks go.
        Heard::Silence => while !agent.gone(Duration::from_hours(1)) {},
        Heard::Nothing => {
            tracing::error!(agent = agent.pid, "the agent does not run: killing it and undoing in its place");
            let _ = pidfd_send_signal(&agent.pidfd, Signal::KILL);
            agent.gone(DYING);
        }
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return 1 };
    match runtime.block_on(undo_everything(Path::new(dir), Some(&agent), host)) {
        Ok(Outcome::Unknown(trouble)) => {
            tracing::error!(%trouble, "undone as far as the journal can be read");
            6
        }
        Ok(_) => 0,
        Err(error) => {
            tracing::error!(%error, "the guard cannot undo");
            1
        }
    }
}

/// How listening to the agent ended.
enum Heard {
    /// It ends in good order.
    End,
    /// Its end of the pipe is closed.
    Silence,
    /// It did not say in time that all is well.
    Nothing,
}

fn listen(orders: &mut Orders) -> Heard {
    let mut late = None;
    loop {
        match orders.next(None) {
            Some(Order::Do(order)) if order.get(END).and_then(Value::as_bool) == Some(true) => return Heard::End,
            Some(Order::Do(_)) | None => {}
            Some(Order::End(DEADLINE)) if late == Some(orders.renewals()) => return Heard::Nothing,
            Some(Order::End(DEADLINE)) => {
                late = Some(orders.renewals());
                orders.set_deadline(GRACE.as_nanos() as u64);
            }
            Some(Order::End(_)) => return Heard::Silence,
        }
    }
}

/// A guard ends by itself. Whoever ends a whole service or terminal means the agent, and must not hit its undo.
fn ignore_requests_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: no handler runs; from here on the kernel discards these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Takes back what makes a worker die with the agent, or early when memory is short.
fn outlive_the_agent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(None)?;
    // Lowering below 0 needs a privilege that the agent usually has; 0 does not.
    if std::fs::write("/proc/self/oom_score_adj", "-900").is_err() {
        let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    }
    Ok(())
}
