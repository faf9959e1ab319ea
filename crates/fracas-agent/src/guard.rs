//! The guard: a second process that undoes from the journal when the agent dies. It never applies anything.
//!
//! It is this program in another role, started first thing by the agent and holding the read end of a pipe whose write
//! end only the agent has. End of file there means that the agent is gone. Unlike a worker it must outlive the agent,
//! so it takes back the parent-death signal that every worker is born with; until it has, it is not `ready`, and the
//! agent applies nothing before its guard is.

use std::{
    future::Future,
    io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    time::Duration,
};

use fracas_model::{facts::HostFacts, policy::Policy};
use serde_json::json;

use crate::{
    disk::FileDisk,
    host::{
        Host,
        worker::{
            Spawner, Worker,
            orders::{Order, Orders},
        },
    },
    lock::{self, Lock, LockError},
    reconcile::{Reconciler, Setup},
};

/// The guard's role in the table of roles.
pub const ROLE: &str = "guard";
/// How long the agent waits for a new guard to be ready.
const READY: Duration = Duration::from_secs(5);
/// How long the guard waits when another process has the journal.
const BUSY: Duration = Duration::from_millis(50);

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
        if let Err(failure) = ManuallyDrop::into_inner(self.process).end() {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left of what the journal says.
    Clean,
    /// Another agent has taken over the state directory and undoes itself.
    TakenOver,
}

/// Undoes everything the journal in `dir` says is open, trying until it is done or another agent takes over.
pub async fn undo_everything<H: Host, F: Future<Output = H>>(
    dir: &Path,
    host: impl FnOnce() -> F,
) -> io::Result<Outcome> {
    let journal_lock = loop {
        match Lock::take(dir, lock::JOURNAL) {
            Ok(lock) => break lock,
            Err(LockError::Held { .. }) if Lock::is_held(dir, lock::AGENT) => return Ok(Outcome::TakenOver),
            Err(LockError::Held { .. }) => tokio::time::sleep(BUSY).await,
            Err(LockError::Io { error, .. }) => return Err(error),
        }
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
    while let Some(wake) = reconciler.next_wake() {
        if Lock::is_held(dir, lock::AGENT) {
            // A new agent waits for this lock; it finds the journal as it is now and goes on.
            return Ok(Outcome::TakenOver);
        }
        let pause = (wake - reconciler.host().now().boot_ns).clamp(1_000_000, 1_000_000_000);
        tokio::time::sleep(Duration::from_nanos(pause.cast_unsigned())).await;
        reconciler.tick().await;
    }
    drop(journal_lock);
    Ok(Outcome::Clean)
}

/// The role `guard`; its argument is the state directory. `host` makes the machine's host once it is needed.
pub fn serve<H: Host, F: Future<Output = H>>(arguments: &[String], host: impl FnOnce() -> F) -> i32 {
    let [dir] = arguments else { return 2 };
    if outlive_the_agent().is_err() {
        return 1;
    }
    let Ok(mut orders) = Orders::open() else { return 1 };
    if orders.reply(&json!({ "ready": true })).is_err() {
        return 1;
    }
    while let Some(Order::Do(_)) = orders.next(None) {}
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return 1 };
    match runtime.block_on(undo_everything(Path::new(dir), host)) {
        Ok(_) => 0,
        Err(error) => {
            tracing::error!(%error, "the guard cannot undo");
            1
        }
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
