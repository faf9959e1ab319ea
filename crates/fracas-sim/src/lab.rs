//! The namespace lab: hosts on one machine that are processes in namespaces of their own, joined by a bridge in the
//! lab's own outer namespaces. It serves the demo, the tests, and whoever wants a safe place to try; it never touches
//! the machine's own network, processes, devices or files.
//!
//! ```text
//! creator (this process)
//! └─ keeper          outside: waits for the end, removes the lab's cgroup      lab/keeper.rs
//!    └─ outer init   user?, pid, net, mnt, uts, ipc, cgroup; bridge lab0       lab/outside.rs
//!       │            10.77.0.1, fd77::1, known as "lab"; programs by Lab::spawn
//!       ├─ host init db-1   pid, net, mnt, uts, ipc, cgroup; eth0 10.77.0.11   lab/inside.rs
//!       │  └─ programs by Host::spawn
//!       └─ host init db-2   ...
//! ```
//!
//! The inits are this program started again, so `main` must call [`role`] first. All of the lab ends when the creator's
//! end of the control socket closes, whatever closed it: [`Lab::stop`], dropping the lab, or `SIGKILL`. What the kernel
//! clears away with the last process of a namespace needs no clearing away; the rest (a cgroup directory) is the
//! keeper's.
//!
//! In the lab the machine's files are read-only, except for what is [shared](Options::share). /proc, /sys, /dev, /run,
//! /tmp and /dev/shm are the host's own; [`DATA`] is its data directory, which outlives the host within its lab. This
//! guards the machine against accidents, not against malice: root in a lab of root is still root.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize};

mod bare;
mod cables;
mod cgroup;
mod channel;
mod inside;
mod keeper;
mod kernel;
mod limits;
mod mounts;
mod outside;
mod program;
mod roles;
mod serve;
mod wire;

pub use bare::Bare;
use channel::Channel;
pub use limits::Limit;
pub use program::{End, Output, Program, Running, Stream};
pub use roles::role;
use wire::{Answer, Ask, Begin};

/// Where a host, and the outer part of the lab, keeps what is to outlive its processes; in memory.
pub const DATA: &str = mounts::DATA;

/// Why something in a lab did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LabError {
    /// It cannot be had here.
    #[error("{what}: {why}; {fix}")]
    Refused {
        /// What.
        what: String,
        /// Why.
        why: String,
        /// What to do instead.
        fix: String,
    },
    /// The world said no.
    #[error("{0}")]
    Failed(String),
    /// The lab, or the host, has ended.
    #[error("the lab has ended")]
    Gone,
}

impl LabError {
    fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }
}

/// How a host is linked to the lab's bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// As it should be.
    Up,
    /// Everything sent, either way, is lost silently: a break somewhere in the network.
    Cut,
    /// The host sees that its cable has no carrier.
    Unplugged,
}

/// What a lab is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    share: Vec<PathBuf>,
}

impl Options {
    /// A directory of the machine, by absolute path, that stays visible and writable in the lab, even below /run and
    /// /tmp.
    #[must_use]
    pub fn share(mut self, directory: impl Into<PathBuf>) -> Self {
        self.share.push(directory.into());
        self
    }
}

/// A lab, which ends when this is dropped.
#[derive(Debug)]
pub struct Lab {
    channel: Arc<Channel>,
    keeper: Option<Child>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
    limits: Vec<Limit>,
    hosts: Mutex<BTreeMap<String, Host>>,
}

/// A host of a lab. Copies stand for the same host.
#[derive(Clone, Debug)]
pub struct Host {
    name: Arc<str>,
    v4: IpAddr,
    v6: IpAddr,
    own: Arc<Channel>,
    lab: Arc<Channel>,
}

/// The outer part of a lab, beside the hosts. Copies stand for the same, and do not keep the lab from ending.
#[derive(Clone, Debug)]
pub struct Outside(Arc<Channel>);

impl Outside {
    /// A TCP socket in the outer network namespace, for the creator to connect or bind: it can so talk to the lab from
    /// outside.
    pub fn tcp_socket(&self, family: Family) -> Result<OwnedFd, LabError> {
        socket(&self.0, family, false)
    }
}

impl Lab {
    /// Starts a lab without hosts. Blocks for some ten milliseconds.
    ///
    /// Refused where the kernel, or the container around, does not permit namespaces; says what would help.
    pub fn start(options: Options) -> Result<Self, LabError> {
        let failed = |e: io::Error| LabError::failed(format!("the lab cannot be started: {e}"));
        if let Some(path) = options.share.iter().find(|path| !path.is_absolute()) {
            return Err(LabError::failed(format!("{} cannot be shared: not an absolute path", path.display())));
        }
        let (ours, theirs) = wire::pair().map_err(failed)?;
        // It waits in the socket until the outer init is there to read it.
        wire::send(ours.as_fd(), &Begin { share: options.share }, &[]).map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.args([roles::MARK, "keeper"]).stdin(theirs).stdout(Stdio::null());
        // A working directory would pin a mount, and a Ctrl-C meant for the creator must not end the keeper first.
        command.current_dir("/").process_group(0);
        let mut keeper = command.spawn().map_err(failed)?;
        // It holds the keeper's end, which must not stay open here.
        drop(command);
        match Channel::open(ours) {
            Ok((channel, limits, listener)) => Ok(Self {
                channel: Arc::new(channel),
                keeper: Some(keeper),
                listeners: Mutex::new(vec![listener]),
                limits,
                hosts: Mutex::default(),
            }),
            Err(error) => {
                // Our end is closed by now, so it ends.
                let _ = keeper.wait();
                Err(error)
            }
        }
    }

    /// What real hosts have and those of this lab do not, and why.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Process number of the keeper, the only process of the lab in the creator's own process namespace that is not in
    /// the lab.
    pub fn keeper(&self) -> u32 {
        self.keeper.as_ref().map_or(0, Child::id)
    }

    /// The address of the outer part of the lab, where [`Lab::spawn`] runs programs: IPv4 and IPv6. Hosts know it as
    /// `lab`.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        (cables::v4(cables::LAB), cables::v6(cables::LAB))
    }

    /// Starts a host, or starts one again that has ended. Blocks for some ten milliseconds, until its network works.
    ///
    /// The name becomes its host name and its name on the lab's network; lower-case letters, digits and hyphens.
    pub fn add_host(&self, name: &str) -> Result<Host, LabError> {
        Ok(self.add_hosts(&[name])?.remove(0))
    }

    /// Starts several hosts at once, which is quicker than one after another.
    pub fn add_hosts(&self, names: &[&str]) -> Result<Vec<Host>, LabError> {
        let mut starting = Vec::new();
        for name in names {
            let answer = self.channel.ask(Ask::AddHost { name: (*name).to_owned() })?;
            let (Answer::Host { v4, v6 }, Some(socket)) = (answer.0, answer.1.into_iter().next()) else {
                return Err(LabError::failed("the lab gave an answer to another question"));
            };
            starting.push((*name, v4, v6, socket));
        }
        let mut hosts = Vec::new();
        for (name, v4, v6, socket) in starting {
            let (own, _, listener) = Channel::open(socket)?;
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
            let host = Host { name: name.into(), v4, v6, own: Arc::new(own), lab: self.channel.clone() };
            self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), host.clone());
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// A host added before, as it was last started.
    pub fn host(&self, name: &str) -> Option<Host> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Starts a program in the outer part of the lab, beside the hosts.
    pub fn spawn(&self, program: Program) -> Result<Running, LabError> {
        program.spawn(&self.channel)
    }

    /// The outer part, to be handed to whoever talks to the lab from outside.
    pub fn outside(&self) -> Outside {
        Outside(self.channel.clone())
    }

    /// A TCP socket in the outer network namespace: see [`Outside::tcp_socket`].
    pub fn tcp_socket(&self, family: Family) -> Result<OwnedFd, LabError> {
        self.outside().tcp_socket(family)
    }

    /// A UDP socket in the outer network namespace.
    pub fn udp_socket(&self, family: Family) -> Result<OwnedFd, LabError> {
        socket(&self.channel, family, true)
    }

    /// Ends the lab and everything in it. When it returns, nothing is left; an error names what is.
    pub fn stop(mut self) -> Result<(), LabError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LabError> {
        self.channel.close();
        let mut ended = Ok(());
        if let Some(mut keeper) = self.keeper.take() {
            let status = keeper.wait().map_err(|e| LabError::failed(format!("the lab's keeper: {e}")));
            let incomplete = |status| format!("the lab's keeper could not clear away everything: {status}");
            ended = status.and_then(
                |status| {
                    if status.success() { Ok(()) } else { Err(LabError::failed(incomplete(status))) }
                },
            );
        }
        if ended.is_ok() {
            // Each ends with its init, and all inits have ended.
            for listener in std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner)) {
                let _ = listener.join();
            }
        }
        ended
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The keeper has said on standard error what is left.
        let _ = self.end();
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Host {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> IpAddr {
        self.v4
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> IpAddr {
        self.v6
    }

    /// Starts a program on it.
    pub fn spawn(&self, program: Program) -> Result<Running, LabError> {
        program.spawn(&self.own)
    }

    /// A TCP socket in its network namespace, for the creator to connect or bind.
    pub fn tcp_socket(&self, family: Family) -> Result<OwnedFd, LabError> {
        socket(&self.own, family, false)
    }

    /// A UDP socket in its network namespace.
    pub fn udp_socket(&self, family: Family) -> Result<OwnedFd, LabError> {
        socket(&self.own, family, true)
    }

    /// Changes how it is linked to the others. In effect when this returns; but hosts that looked for each other in vain
    /// meanwhile may take another second to look again, as on any network.
    pub fn set_link(&self, state: LinkState) -> Result<(), LabError> {
        self.lab.ask(Ask::SetLink { name: self.name.to_string(), state }).map(|_| ())
    }

    /// Kills all that runs on it, as if its power was cut. Its data directory stays: add it again to start it.
    pub fn power_off(&self) -> Result<(), LabError> {
        self.lab.ask(Ask::EndHost { name: self.name.to_string() }).map(|_| ())
    }
}

fn socket(channel: &Channel, family: Family, datagram: bool) -> Result<OwnedFd, LabError> {
    let (_, fds) = channel.ask(Ask::Socket { v6: family == Family::V6, datagram })?;
    fds.into_iter().next().ok_or_else(|| LabError::failed("the lab gave no socket"))
}
