//! The outer init: process 1 of the lab. It makes the lab's namespaces and network, starts hosts, and runs programs
//! beside them (the controller, say). Its end is the end of everything in the lab.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::{
    process::{Pid, Signal, getpid, kill_process, set_parent_process_death_signal},
    thread::{
        CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space, remove_capability_from_bounding_set,
    },
};

use super::{
    LabError, Limit,
    cables::{self, Board},
    cgroup,
    channel::Replied,
    inside::Layout,
    keeper::Footing,
    kernel, limits, mounts,
    roles::{self, MARK},
    serve::{Duties, Server},
    wire::{self, Answer, Ask, Begin, Word},
};

/// What no process of a lab may do, even as root: change what belongs to the machine.
const FORBIDDEN: &[CapabilitySet] =
    &[CapabilitySet::SYS_MODULE, CapabilitySet::SYS_TIME, CapabilitySet::SYS_RAWIO, CapabilitySet::MKNOD];

/// Runs the role: the control socket is standard input, the cgroup's directory, if any, standard output.
pub(super) fn role(arguments: &[String]) -> i32 {
    let [footing] = arguments else { return 2 };
    // Somebody tries it by hand, outside of any namespace.
    if getpid() != Pid::INIT {
        return 2;
    }
    // A help: what counts is the end of the control socket.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let (Ok(footing), Ok(socket)) = (serde_json::from_str(footing), roles::take(rustix::stdio::stdin())) else {
        return 2;
    };
    match Outside::found(&socket, footing) {
        Ok((mut outside, limits)) => match Server::new(socket, outside.user_namespace) {
            Ok(server) => server.run(limits, &mut outside),
            Err(_) => 1,
        },
        Err(error) => {
            let _ = wire::send(socket.as_fd(), &Word::Refused(error), &[]);
            1
        }
    }
}

/// What the outer init knows of its lab.
#[derive(Debug)]
struct Outside {
    user_namespace: bool,
    cgroup: Option<OwnedFd>,
    share: Vec<PathBuf>,
    board: Board,
    /// `/proc/self/ns/pid`, to come back to.
    processes: File,
    hosts: BTreeMap<String, LabHost>,
}

/// A host, running or ended.
#[derive(Debug)]
struct LabHost {
    number: u8,
    starts: u32,
    pid: Option<i32>,
    /// Who asked to end it.
    ending: Option<u64>,
}

impl Outside {
    fn found(socket: &OwnedFd, footing: Footing) -> Result<(Self, Vec<Limit>), LabError> {
        let failed = |what: &'static str| move |e: io::Error| LabError::failed(format!("{what}: {e}"));
        let begin = wire::receive::<Begin>(socket).map_err(failed("no orders"))?;
        let Some((Begin { share }, _)) = begin else { return Err(LabError::Gone) };
        let mut limits = limits::of_any_lab();
        let cgroup = match footing.no_cgroup {
            None => {
                let dir = roles::take(rustix::stdio::stdout()).map_err(failed("no cgroup"))?;
                cgroup::join(dir.as_fd(), "outer").map_err(failed("the cgroup cannot be joined"))?;
                Some(dir)
            }
            Some(why) => {
                let fix = "run as root, or in a unit with Delegate=yes, on a host with the unified cgroup hierarchy";
                limits.push(Limit::new("own cgroups", why, fix));
                None
            }
        };
        let user_namespace = footing.user_namespace;
        if user_namespace {
            limits.extend(limits::of_user_namespace());
        }
        kernel::unshare(namespaces(cgroup.is_some())).map_err(|e| limits::forbidden(&e))?;
        rustix::system::sethostname(b"lab").map_err(|e| failed("no host name")(e.into()))?;
        let ground = mounts::Ground { user_namespace, cgroup: cgroup.is_some(), share: &share };
        limits.extend(mounts::outer(ground)?);
        let (board, missing) = Board::lay()?;
        limits.extend(missing);
        let processes = File::open("/proc/self/ns/pid").map_err(failed("no process namespace"))?;
        for capability in FORBIDDEN {
            // What is not there cannot be dropped.
            let _ = remove_capability_from_bounding_set(*capability);
        }
        let outside = Self { user_namespace, cgroup, share, board, processes, hosts: BTreeMap::new() };
        outside.write_hosts().map_err(failed("no list of hosts"))?;
        Ok((outside, limits))
    }

    fn host(&mut self, name: &str) -> Result<&mut LabHost, LabError> {
        self.hosts.get_mut(name).ok_or_else(|| LabError::failed(format!("there is no host {name}")))
    }

    /// Starts a host of this name, new or ended before. It is set up when its own init says so.
    fn add_host(&mut self, name: &str) -> Replied {
        check_name(name)?;
        let failed = |e: io::Error| LabError::failed(format!("host {name} cannot be started: {e}"));
        let free = (cables::FIRST..=cables::LAST).nth(self.hosts.len());
        let (number, starts) = match self.hosts.get(name) {
            Some(host) if host.pid.is_some() => {
                return Err(LabError::failed(format!("there is a host {name} already")));
            }
            Some(host) => (host.number, host.starts + 1),
            None => (free.ok_or_else(|| LabError::failed("the lab has no addresses left"))?, 0),
        };
        let data = format!("{}/{name}", mounts::STORE);
        // Once: what a host writes there is kept when it starts again.
        if !self.hosts.contains_key(name) {
            mounts::disk(&data)?;
        }
        let cable = cable(number, starts);
        let (user_namespace, share, own_cgroup) = (self.user_namespace, self.share.clone(), self.cgroup.is_some());
        let data = data.into();
        let layout = Layout { name: name.into(), number, cable, data, share, user_namespace, cgroup: own_cgroup };
        let (ours, theirs) = wire::pair().map_err(failed)?;
        let pid = self.start_host(&layout, theirs).map_err(failed)?;
        self.hosts.insert(name.into(), LabHost { number, starts, pid: Some(pid), ending: None });
        self.write_hosts().map_err(failed)?;
        Ok((Answer::Host { v4: cables::v4(number), v6: cables::v6(number) }, vec![ours]))
    }

    /// Starts a host's init in a process namespace of its own.
    fn start_host(&self, layout: &Layout, socket: OwnedFd) -> io::Result<i32> {
        let stdout = match &self.cgroup {
            Some(dir) => Stdio::from(dir.try_clone()?),
            None => Stdio::null(),
        };
        let mut command = Command::new("/proc/self/exe");
        command.args([MARK, "host", &serde_json::to_string(layout)?]).stdin(socket).stdout(stdout);
        kernel::unshare(UnshareFlags::NEWPID)?;
        let child = kernel::spawn(&mut command);
        // The next child is to be here again.
        move_into_link_name_space(self.processes.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
        Ok(child?.id().cast_signed())
    }

    fn end_host(&mut self, ticket: u64, name: &str) -> Result<(), LabError> {
        let host = self.host(name)?;
        let Some(pid) = host.pid.and_then(Pid::from_raw) else {
            return Err(LabError::failed(format!("host {name} has ended")));
        };
        host.ending = Some(ticket);
        // It is not reaped, so the number is its own.
        kill_process(pid, Signal::KILL).map_err(|e| LabError::failed(format!("host {name} cannot be ended: {e}")))
    }

    /// Rewrites the list that all see as /etc/hosts; the file itself stays, since it is what they have mounted.
    fn write_hosts(&self) -> io::Result<()> {
        let entry = |(address, name): (IpAddr, &str)| format!("{address} {name}\n");
        let hosts = self.hosts.iter().map(|(name, host)| (name.as_str(), host.number)).chain([("lab", cables::LAB)]);
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        text.extend(hosts.flat_map(|(name, n)| [(cables::v4(n), name), (cables::v6(n), name)]).map(entry));
        let mut file = fs::OpenOptions::new().write(true).open(mounts::HOSTS)?;
        file.write_all(text.as_bytes())?;
        let length = file.stream_position()?;
        file.set_len(length)
    }
}

impl Duties for Outside {
    fn asked(&mut self, ticket: u64, ask: Ask) -> Option<Replied> {
        let done = |result: Result<(), LabError>| result.map(|()| (Answer::Done, Vec::new()));
        match ask {
            Ask::AddHost { name } => Some(self.add_host(&name)),
            Ask::EndHost { name } => self.end_host(ticket, &name).err().map(Err),
            Ask::SetLink { name, state } => {
                let set = self.host(&name).map(|host| cable(host.number, host.starts));
                Some(done(set.and_then(|cable| self.board.set(&cable, state))))
            }
            Ask::Spawn(_) | Ask::Signal { .. } | Ask::Socket { .. } => None,
        }
    }

    fn reaped(&mut self, pid: i32) -> Option<(u64, Replied)> {
        let host = self.hosts.values_mut().find(|host| host.pid == Some(pid))?;
        host.pid = None;
        let cable = cable(host.number, host.starts);
        let ticket = host.ending.take();
        let removed = self.board.remove(&cable);
        ticket.map(|ticket| (ticket, removed.map(|()| (Answer::Done, Vec::new()))))
    }
}

/// The namespaces of the outer init and of a host's, besides that of processes.
pub(super) fn namespaces(cgroup: bool) -> UnshareFlags {
    let all = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    if cgroup { all | UnshareFlags::NEWCGROUP } else { all }
}

/// A host's device in the outer network namespace: a new name with each start, since the old one may linger.
fn cable(number: u8, starts: u32) -> String {
    format!("h{number}-{starts}")
}

fn check_name(name: &str) -> Result<(), LabError> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label =
        (1..=63).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with('-') && !name.ends_with('-');
    if label && !["lab", "localhost"].contains(&name) {
        return Ok(());
    }
    Err(LabError::Refused {
        what: format!("{name:?} cannot be a host's name"),
        why: "it becomes a name on the lab's network, where lab and localhost are taken".into(),
        fix: "use lower-case letters, digits and inner hyphens, at most 63".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_are_labels() {
        for good in ["a", "db-1", "0", &"x".repeat(63)] {
            check_name(good).expect(good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "..", "lab", "localhost", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
