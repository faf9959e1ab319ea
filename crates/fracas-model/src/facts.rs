//! What a planner may know of a host: facts that seldom change, and answers to what the fault asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::Capability,
    id::BootId,
    policy::Policy,
    process::{Process, ProcessSelector},
};

/// What a fault must know before it can plan; the host looks it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// The process table, with what this selector needs (ports, units, the pid file).
    Processes(ProcessSelector),
    /// Network devices.
    Devices,
    /// The file of this path, with its digest if it is not larger than the policy lets a fault replace.
    File(String),
    /// The file system of the directory of this path.
    Volume(String),
    /// The systemd unit of this name.
    Unit(String),
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitSeen {
    /// Its own name, of which the asked one may be an alias.
    pub name: String,
    /// `loaded`, `not-found`, `masked` ...
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating` ...
    pub active: String,
    /// It may be stopped by hand.
    pub stoppable: bool,
    /// Units that run and would be stopped along with it.
    pub dependents: Vec<String>,
    /// The agent runs in it.
    pub ours: bool,
}

/// A file system, by one of its directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSeen {
    /// The directory, without any symbolic link.
    pub directory: String,
    /// Number of its device, `8:1`.
    pub device: String,
    /// How full it is.
    pub space: Space,
    /// Why no file without a name can be made there, if so: it was tried.
    pub unnamed: Option<String>,
}

/// How full a file system is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// Not used by anybody.
    pub free_bytes: u64,
    /// Of that, what programs without privilege may use.
    pub left_bytes: u64,
}

impl Space {
    /// What is used.
    pub fn used(&self) -> u64 {
        self.total_bytes.saturating_sub(self.free_bytes)
    }

    /// All that programs without privilege may share: used and left.
    pub fn offered(&self) -> u64 {
        self.used() + self.left_bytes
    }

    /// What is used of what is offered, percent, as `df` has it.
    pub fn used_percent(&self) -> f64 {
        100.0 * self.used() as f64 / self.offered().max(1) as f64
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSeen {
    /// Absolute path without any symbolic link.
    pub path: String,
    /// The asked path is a symbolic link that leads out of its directory.
    pub leaves: bool,
    /// What it is.
    pub kind: FileKind,
    /// Something is mounted there: a container's `/etc/hosts`, for example.
    pub mounted: bool,
    /// Its owner.
    pub uid: u32,
    /// Permission bits, with those of set-user-id and the like.
    pub mode: u32,
    /// What tells it from any other file.
    pub mark: FileMark,
}

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileKind {
    /// With content.
    Regular,
    /// A directory.
    Directory,
    /// A pipe, socket or device.
    Special,
}

/// What tells a file from any other, also after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileMark {
    /// Its number in its file system.
    pub inode: u64,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of its content, hexadecimal; empty when it was not read.
    pub sha256: String,
    /// The number of its directory.
    pub directory_inode: u64,
    /// It lies in memory and is gone after a reboot.
    pub in_memory: bool,
    /// The boot during which all this was so.
    pub boot: BootId,
}

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Name, as in `ip link`.
    pub name: String,
    /// Number in its network namespace.
    pub index: u32,
    /// The loopback device.
    pub loopback: bool,
    /// Administratively up.
    pub up: bool,
    /// What passes it passes another device of this host too: a port of a bridge or bond, a VLAN on top of a device.
    #[serde(default)]
    pub stacked: bool,
}

/// Whether an ability is there; if not, why, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ability {
    /// It works: it was tried.
    pub works: bool,
    /// What the trial said, when it failed.
    pub why: String,
    /// What the operator could do about it.
    pub fix: String,
}

/// A host as its agent sees it. Labels under `fact/` are made from this.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// Host name.
    pub hostname: String,
    /// Operating system, such as `Debian GNU/Linux 12`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture.
    pub arch: String,
    /// Logical processors the agent may use.
    pub cpus: u32,
    /// Their numbers, ascending; a container may be given 2 and 3 only.
    #[serde(default)]
    pub cores: Vec<u32>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The agent's version.
    pub agent_version: String,
    /// The agent's user number.
    pub uid: u32,
    /// What was tried, and how it went.
    pub abilities: BTreeMap<Capability, Ability>,
}

/// Everything a planner gets beside its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The host.
    pub host: HostFacts,
    /// The local policy.
    pub policy: Policy,
    /// The process table, if asked for.
    pub processes: Vec<Process>,
    /// Number read from the pid file, if asked for.
    pub pid_in_file: Option<i32>,
    /// Network devices, if asked for.
    pub devices: Vec<Device>,
    /// What stands at the path, if asked for; `None` when there is nothing.
    pub file: Option<FileSeen>,
    /// The file system, if asked for; `None` when there is no such directory.
    pub volume: Option<VolumeSeen>,
    /// The systemd unit, if asked for, or why systemd does not answer.
    pub unit: Option<Result<UnitSeen, String>>,
    /// The agent's own files and directories, which no fault touches.
    pub own_paths: Vec<String>,
    /// The agent's own processes: agent, guard, workers.
    pub own_pids: Vec<i32>,
    /// The controller's addresses (`ip:port`), which network faults must let pass.
    pub controllers: Vec<String>,
    /// Ports of a controller that runs on this host: those of its fleet and of its operators. Other hosts reach it
    /// through them, so network faults must let them pass although the agent itself does not need them.
    pub near_ports: Vec<u16>,
    /// A small number no other active item of this host has, for names and handles.
    pub slot: u16,
}

impl FileMark {
    /// Stands for whatever file was there.
    pub fn any() -> Self {
        let (sha256, boot) = (String::new(), BootId::from(""));
        Self { inode: 0, size_bytes: 0, sha256, directory_inode: 0, in_memory: false, boot }
    }
}

impl HostFacts {
    /// Whether an ability works here.
    pub fn can(&self, capability: Capability) -> bool {
        self.abilities.get(&capability).is_some_and(|a| a.works)
    }
}
