//! The real host: dispatches steps, inverses and checks to what performs them. It holds the workers; it decides nothing.
//!
//! Everything runs on the agent's one thread. What may take longer than some milliseconds (awaiting a worker, scanning
//! /proc) goes to a blocking thread and comes back; no borrow is held meanwhile. What changes the host there is a call of
//! an item (see `calls`), which its undo waits for.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use fracas_model::{
    event::{Between, Measured, Proof},
    facts::{Facts, HostFacts, Question},
    id::{HostId, ItemKey},
    plan::{Check, Step},
    process::ProcessSelector,
    time::Stamp,
    units::Dur,
};

use super::{
    Failure, Handle, Host, Local, Reverted, clock::Clock, facts, files, processes, systemd::Systemd, worker::Spawner,
};
use crate::crash::{self, Task};

mod calls;
mod fill;
mod held;
mod load;
mod net;
pub mod netem;
mod pause;
mod replace;
mod shot;
mod unit;

/// The machine this program runs on.
pub struct LinuxHost {
    clock: Clock,
    version: String,
    spawner: Spawner,
    own_paths: Vec<String>,
    calls: RefCell<calls::Calls>,
    held: RefCell<held::Workers>,
    loads: RefCell<load::Loads>,
    fills: RefCell<fill::Fills>,
    systemd: Systemd,
    /// Units that this life of the agent has started again: being active is then our doing.
    restarted: RefCell<BTreeSet<(ItemKey, usize)>>,
    shots: RefCell<shot::Shots>,
    net: RefCell<net::Net>,
    /// Steps that were refused before anything was done, which looks like our doing from outside: processes and
    /// units that somebody else had stopped.
    untouched: RefCell<BTreeSet<(ItemKey, usize)>>,
}

impl LinuxHost {
    /// The host under its enrolled id, with the agent's version for its facts.
    pub fn start(id: HostId, version: &str) -> Self {
        Self::with_spawner(id, version, Spawner::start())
    }

    /// The same with workers from this spawner.
    pub fn with_spawner(id: HostId, version: &str, spawner: Spawner) -> Self {
        Self {
            clock: Clock::of(id),
            version: version.to_owned(),
            spawner,
            own_paths: Vec::new(),
            calls: RefCell::default(),
            held: RefCell::default(),
            loads: RefCell::default(),
            fills: RefCell::default(),
            systemd: Systemd::default(),
            restarted: RefCell::default(),
            shots: RefCell::default(),
            net: RefCell::default(),
            untouched: RefCell::default(),
        }
    }

    /// The same, with files and directories of the agent that no fault may touch.
    #[must_use]
    pub fn owning(mut self, paths: &[&Path]) -> Self {
        let resolved = paths.iter().filter_map(|path| path.canonicalize().ok()?.to_str().map(str::to_owned));
        self.own_paths.extend(resolved);
        self
    }

    /// The same, with a systemd that answers at another socket.
    #[must_use]
    pub fn speaking_to(mut self, systemd: Systemd) -> Self {
        self.systemd = systemd;
        self
    }

    /// What starts workers here, for those the agent itself needs.
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// What can be said of this host without trying anything: an observer's facts.
    pub fn described(&self) -> HostFacts {
        facts::describe(&self.version)
    }

    async fn fill(&self, mut base: Facts, questions: &[Question]) -> Result<Facts, Failure> {
        base.own_pids.push(std::process::id().cast_signed());
        base.own_pids.extend(self.spawner.pids());
        base.own_paths.clone_from(&self.own_paths);
        for question in questions {
            match question {
                Question::Processes(selector) => {
                    let wanted = selector.clone();
                    let read = aside(move || {
                        let pid = match &wanted {
                            ProcessSelector::PidFile(path) => processes::pid_in_file(path),
                            _ => None,
                        };
                        (processes::table(&wanted), pid)
                    });
                    let (table, pid) = read.await?;
                    base.processes = table.map_err(|e| Failure(format!("/proc cannot be read: {e}")))?;
                    base.pid_in_file = pid;
                }
                Question::Devices => base.devices = facts::devices(),
                Question::File(path) => {
                    let (wanted, most, boot) = (path.clone(), base.policy.max_file_size.0, self.now().clock.boot);
                    let seen = aside(move || files::look(&wanted, most, &boot)).await?;
                    base.file = seen.map_err(|e| Failure(format!("{path} cannot be looked at: {e}")))?;
                }
                Question::Unit(name) => base.unit = Some(self.unit_seen(name).await?),
                Question::Volume(path) => {
                    let wanted = path.clone();
                    let seen = aside(move || files::volume(&wanted)).await?;
                    base.volume = seen.map_err(|e| Failure(format!("{path} cannot be looked at: {e}")))?;
                }
            }
        }
        Ok(base)
    }
}

/// Does work on a blocking thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let work = || {
        crash::within(Task::Aside);
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure(format!("a thread of the agent broke: {e}")))
}

impl Host for LinuxHost {
    fn now(&self) -> Stamp {
        self.clock.now()
    }

    fn facts(&self) -> Local<'_, HostFacts> {
        Box::pin(async {
            let (spawner, version) = (self.spawner.clone(), self.version.clone());
            aside(move || facts::gather(&spawner, &version)).await.unwrap_or_default()
        })
    }

    fn answer<'a>(&'a self, base: Facts, questions: &'a [Question]) -> Local<'a, Result<Facts, Failure>> {
        Box::pin(self.fill(base, questions))
    }

    fn deadline(&self, key: &ItemKey, left: Dur) {
        self.held.borrow_mut().deadline(key, left);
        self.net.borrow_mut().deadline(key, left);
    }

    fn apply<'a>(
        &'a self,
        key: &'a ItemKey,
        index: usize,
        step: &'a Step,
    ) -> Local<'a, Result<(Handle, Between), Failure>> {
        Box::pin(async move {
            match step {
                Step::Burn(burn) => self.burn(key, index, burn).await,
                Step::Fill(fill) => self.fill_disk(key, index, fill).await,
                Step::Seize { process } => self.seize(key, index, process).await,
                Step::Suspend { process } => self.suspend(key, index, process).await,
                Step::Signal { process, signal, .. } => self.shoot(key, process, *signal),
                Step::Impair(impair) => self.impair(key, index, impair).await,
                Step::Replace(replace) => self.replace(key, index, replace).await,
                Step::StopUnit { unit } => self.stop_unit(key, index, unit).await,
                Step::Redirect { filter, .. } => {
                    self.remember_round_trip(key, filter).await;
                    self.shape(key, step).await
                }
                Step::MakeIfb { .. } | Step::MakeNetem { .. } | Step::MakeClsact { .. } | Step::Lose { .. } => {
                    self.shape(key, step).await
                }
            }
        })
    }

    fn revert<'a>(
        &'a self,
        key: &'a ItemKey,
        index: usize,
        step: &'a Step,
        handle: Option<&'a Handle>,
    ) -> Local<'a, Result<Reverted, Failure>> {
        Box::pin(async move {
            self.settled(key).await?;
            match step {
                Step::Burn(_) => {
                    self.loads.borrow_mut().remove(key);
                    self.release(key, index, handle).await
                }
                Step::Fill(_) => {
                    self.fills.borrow_mut().remove(key);
                    self.release(key, index, handle).await
                }
                Step::Seize { process } => {
                    let released = self.release(key, index, handle).await?;
                    pause::let_go(process).await.map(|()| released)
                }
                Step::Suspend { .. } | Step::StopUnit { .. }
                    if self.untouched.borrow().contains(&(key.clone(), index)) =>
                {
                    Ok(Reverted::NothingThere)
                }
                Step::Suspend { process } => pause::resume(process, handle).await,
                Step::Impair(_) => self.mend(key, index, handle).await,
                Step::StopUnit { unit } => self.start_unit(key, index, unit, handle).await,
                Step::Replace(replace) => self.put_back(key, index, replace, handle).await,
                Step::MakeIfb { .. }
                | Step::MakeNetem { .. }
                | Step::MakeClsact { .. }
                | Step::Redirect { .. }
                | Step::Lose { .. } => {
                    self.net.borrow_mut().forget_round_trip(key);
                    self.unshape(key, step, handle).await
                }
                Step::Signal { .. } => Ok(Reverted::NothingThere),
            }
        })
    }

    fn check<'a>(&'a self, key: &'a ItemKey, check: &'a Check) -> Local<'a, (Proof, Vec<Measured>)> {
        Box::pin(async move {
            match check {
                Check::CpuUse { .. } => self.loads.borrow_mut().check(key),
                Check::Stopped { processes } => {
                    let workers = self.held.borrow().pids(key);
                    pause::check(processes, &workers)
                }
                Check::Gone { processes } => self.gone(key, processes).await,
                Check::Delivered { processes, signal } => self.delivered(key, processes, *signal).await,
                Check::UnitStopped { unit } => self.unit_stopped(unit).await,
                Check::DiskUse(fill) => self.disk_use(key, fill).await,
                Check::Content { path, content } => replace::check(path, content).await,
                Check::Packets { filter, effect, .. } => self.packets(key, filter, effect).await,
            }
        })
    }

    fn lost(&self) -> Local<'_, Vec<(ItemKey, String)>> {
        Box::pin(async {
            let mut lost = self.held.borrow_mut().lost();
            lost.extend(self.net.borrow_mut().lost());
            lost
        })
    }
}
