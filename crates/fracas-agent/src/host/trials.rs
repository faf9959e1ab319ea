//! What this host can do, found by doing it to ourselves: versions, names and permissions on paper prove nothing.
//! Every trial leaves the host as it was.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use fracas_model::{catalogue::Capability, facts::Ability, process::ProcessRef};
use rustix::process::{Pid, test_kill_process};
use serde_json::json;

use super::{
    netlink::{
        Protocol, Socket,
        nft::{self, Batch, QueueForm, Rule},
    },
    processes::{Stat, status_field},
    systemd::Systemd,
    worker::Spawner,
};

pub mod netem;

/// `CAP_SYS_PTRACE` of `linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;

/// A trial's outcome: the failure and the way out.
pub type Tried = Result<(), (String, String)>;

/// Tries everything, in well under a second.
pub fn all(spawner: &Spawner) -> BTreeMap<Capability, Ability> {
    let tried = [
        (Capability::SignalAny, signal_any()),
        (Capability::Ptrace, ptrace(spawner)),
        (Capability::Netem, netem::works()),
        (Capability::Cgroup, cgroup()),
        (Capability::Cpu, Ok(())),
        (Capability::PortOwner, port_owner()),
        (Capability::NftOwner, nft_owner()),
        (Capability::Nfqueue, nfqueue()),
        (Capability::RawSocket, raw_socket()),
        (Capability::Systemd, systemd()),
    ];
    tried.into_iter().map(|(capability, tried)| (capability, ability(tried))).collect()
}

fn ability(tried: Tried) -> Ability {
    match tried {
        Ok(()) => Ability { works: true, why: String::new(), fix: String::new() },
        Err((why, fix)) => Ability { works: false, why, fix },
    }
}

fn no(why: impl Into<String>, fix: impl Into<String>) -> Tried {
    Err((why.into(), fix.into()))
}

/// A process of another user to try on; init where there is no other.
fn stranger() -> i32 {
    let me = rustix::process::geteuid().as_raw().to_string();
    let other = |pid: &i32| {
        let uid = status_field(&format!("/proc/{pid}/status"), "Uid");
        uid.is_some_and(|u| u.split_ascii_whitespace().next() != Some(me.as_str()))
    };
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut numbers = numbers.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    numbers.find(other).unwrap_or(1)
}

fn signal_any() -> Tried {
    let Some(pid) = Pid::from_raw(stranger()) else { return Ok(()) };
    match test_kill_process(pid) {
        Err(rustix::io::Errno::PERM) => {
            no("signals reach only the agent user's own processes", "run the agent as root or give it CAP_KILL")
        }
        _ => Ok(()),
    }
}

/// Seizes one of our own workers with another, and looks whether others' would do too.
fn ptrace(spawner: &Spawner) -> Tried {
    let fix = |what: &str| match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) if scope.trim() == "3" => {
            "kernel.yama.ptrace_scope is 3: it forbids ptrace until the next boot".into()
        }
        Ok(scope) if scope.trim() != "0" => {
            format!("{what} (kernel.yama.ptrace_scope is {}: CAP_SYS_PTRACE is needed)", scope.trim())
        }
        _ => what.to_owned(),
    };
    let capability = "run the agent as root or give it CAP_SYS_PTRACE";
    let trial = || {
        let start = |role| spawner.spawn(role).map_err(|e| e.to_string());
        let (resting, mut seizing) = (start("rest")?, start("seize")?);
        let stat = Stat::of(resting.pid()).ok_or("the worker to be seized is gone")?;
        let who = ProcessRef { pid: resting.pid(), start_ticks: stat.start_ticks, name: stat.name };
        let seized = seizing.call(&json!({ "seize": who }), Duration::from_secs(2));
        let ended = seizing.end().and_then(|()| resting.end());
        seized.and(ended.map(|()| json!(null))).map_err(|f| f.to_string())
    };
    if let Err(why) = trial() {
        return no(why, fix(capability));
    }
    let effective = status_field("/proc/self/status", "CapEff").and_then(|m| u64::from_str_radix(&m, 16).ok());
    if effective.is_some_and(|mask| mask >> CAP_SYS_PTRACE & 1 == 0) {
        return no("only the agent user's own processes can be seized", fix(capability));
    }
    Ok(())
}

/// Whether systemd answers. Stopping a unit cannot be tried without harm; it lets root do it, and others by a rule only.
fn systemd() -> Tried {
    match Systemd::default().talk() {
        Err(why) => no(why, "on a host that systemd runs, see that its bus answers: /run/dbus/system_bus_socket"),
        Ok(_) if !rustix::process::geteuid().is_root() => {
            no("systemd lets only root stop units", "run the agent as root, or stop the service's processes instead")
        }
        Ok(_) => Ok(()),
    }
}

/// Makes a version 2 cgroup below our own and removes it.
fn cgroup() -> Tried {
    let fix = "start the agent with Delegate=yes in its unit, on a host with the unified cgroup hierarchy";
    let Some(own) = own_cgroup() else { return no("there is no version 2 cgroup hierarchy here", fix) };
    let trial = own.join(format!("fracas-trial-{}", std::process::id()));
    match fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)) {
        Ok(()) => Ok(()),
        Err(e) => no(format!("no cgroup can be made in {}: {e}", own.display()), fix),
    }
}

/// The directory of this process's own version 2 cgroup, wherever that hierarchy is mounted.
pub fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // After the separator: type, source, options. Before it, field 4 is the root, field 5 the mount point.
    let unified = mounts.lines().find(|l| l.contains(" - cgroup2 "))?;
    let mut words = unified.split(' ').skip(3);
    let (root, point) = (words.next()?, words.next()?);
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    let below = path.strip_prefix(root).unwrap_or(path);
    Some(PathBuf::from(point).join(below.trim_start_matches('/')))
}

const NET_ADMIN: &str = "run the agent as root or give it CAP_NET_ADMIN, on a kernel with nf_tables (5.13 or later)";

/// Makes a table that the kernel ties to our socket, looks at it, and lets it go with the socket. It has no base chain,
/// so no packet ever sees it and no other program's queue is disturbed.
fn with_table(trial: impl FnOnce(&mut Socket, &str) -> Result<(), String>) -> Result<(), String> {
    let table = format!("fracas_trial_{}", std::process::id());
    let mut socket = Socket::open(Protocol::Netfilter).map_err(|e| e.to_string())?;
    let mut batch = Batch::default();
    batch.new_table(&table).chain(&table, "trial");
    batch.commit(&mut socket).map_err(|e| format!("no nftables table can be made: {e}"))?;
    match nft::table_flags(&mut socket, &table) {
        Ok(Some(nft::OWNER)) => {}
        other => return Err(format!("a table with an owner came out as {other:?}")),
    }
    trial(&mut socket, &table)
}

fn nft_owner() -> Tried {
    with_table(|_, _| Ok(())).map_err(|why| (why, NET_ADMIN.into()))
}

/// A rule that sends packets to a queue, in either form the kernel may know.
fn nfqueue() -> Tried {
    let trial = |socket: &mut Socket, table: &str| {
        let mut why = String::new();
        for form in [QueueForm::Native, QueueForm::Target] {
            let mut batch = Batch::default();
            batch.rule(table, "trial", &Rule::new().queue(form, u16::MAX, true));
            match batch.commit(socket) {
                Ok(_) => return Ok(()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(format!("packets cannot be sent to a queue: {why}"))
    };
    let fix = "use a kernel with nft_queue or xt_NFQUEUE (modprobe nft_queue), or one with sch_netem";
    with_table(trial).map_err(|why| (why, fix.into()))
}

fn raw_socket() -> Tried {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
    match socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)) {
        Ok(_) => Ok(()),
        Err(e) => no(
            format!("no raw socket can be opened: {e}; delayed TCP that leaves is held, which also slows it down"),
            "run the agent as root or give it CAP_NET_RAW",
        ),
    }
}

fn port_owner() -> Tried {
    match fs::read_dir(format!("/proc/{}/fd", stranger())) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => no(
            "descriptors of other users' processes cannot be seen, so a port cannot be traced to its process",
            "run the agent as root or give it CAP_SYS_PTRACE; or choose by name, pid file or unit",
        ),
        _ => Ok(()),
    }
}
