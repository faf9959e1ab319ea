//! The files a lab sees: the machine's, read-only, and its own /proc, /sys, /dev, /run and /tmp, which die with the
//! mount namespace. Everything here happens in a private mount namespace made before; the caller sees to that.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change},
};

use super::{
    LabError, Limit,
    kernel::{Depth, set_read_only},
};

/// Where a host's, and the outer, data directory is.
pub(super) const DATA: &str = "/run/data";
/// Outer: names and addresses of all hosts, also seen as /etc/hosts.
pub(super) const HOSTS: &str = "/run/lab/hosts";
/// Outer: the data directories of the hosts, by name.
pub(super) const STORE: &str = "/run/lab/data";
/// Options of the file systems in memory: enough for a database, not enough to exhaust a machine.
const ROOM: &str = "mode=0755,size=1g";
const ROOM_FOR_ALL: &str = "mode=1777,size=1g";
/// What programs expect in /dev and cannot harm anything with.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const SAFEST: MountFlags = SAFE.union(MountFlags::NOEXEC);

/// What differs between labs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground<'a> {
    /// The lab is an ordinary user's.
    pub(super) user_namespace: bool,
    /// There is a cgroup, and this process is in a cgroup namespace of its own.
    pub(super) cgroup: bool,
    /// Directories of the machine that stay visible and writable.
    pub(super) share: &'a [PathBuf],
}

/// Furnishes the outer mount namespace. Returns what could not be had.
pub(super) fn outer(ground: Ground<'_>) -> Result<Vec<Limit>, LabError> {
    let mut limits = Vec::new();
    let root = Path::new("/");
    mount_change(root, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(no("/ as its own"))?;
    let shares = pin_all(ground.share)?;
    if let Err(error) = set_read_only(root, true, Depth::Tree) {
        let why = format!("the machine's files cannot be made read-only: {error}");
        limits.push(Limit::new("protection of the machine's files", why, "use Linux 5.12 or later"));
    }
    proc(ground)?;
    limits.extend(sys(ground)?);
    devices()?;
    rooms()?;
    open_shares(&shares)?;
    fs::create_dir_all(STORE).map_err(|e| LabError::failed(format!("no {STORE}: {e}")))?;
    disk(DATA)?;
    fs::write(HOSTS, "").map_err(|e| LabError::failed(format!("no {HOSTS}: {e}")))?;
    if let Err(error) = mount_bind(HOSTS, "/etc/hosts") {
        let why = format!("/etc/hosts cannot be replaced: {error}");
        limits.push(Limit::new("hosts by name", why, "make a file /etc/hosts on the machine, or use addresses"));
    }
    Ok(limits)
}

/// Makes a data directory with a file system of its own, so that a full one is one host's trouble.
pub(super) fn disk(at: &str) -> Result<(), LabError> {
    fs::create_dir_all(at).map_err(|e| LabError::failed(format!("no {at}: {e}")))?;
    tmpfs(at, ROOM)
}

/// Furnishes a host's mount namespace, a copy of the outer one. `data` is the host's directory in the outer one.
pub(super) fn host(ground: Ground<'_>, data: &Path) -> Result<(), LabError> {
    let (shares, data) = (pin_all(ground.share)?, pin(data)?);
    proc(ground)?;
    sys(ground)?;
    tmpfs("/dev/shm", ROOM_FOR_ALL)?;
    rooms()?;
    open_shares(&shares)?;
    fs::create_dir_all(DATA).map_err(|e| LabError::failed(format!("no {DATA}: {e}")))?;
    mount_bind(seen(&data), DATA).map_err(no(DATA))
}

fn no(what: &str) -> impl Fn(rustix::io::Errno) -> LabError {
    move |error| LabError::failed(format!("{what} cannot be mounted: {error}"))
}

/// Holds a file so that it can still be bound when something else is mounted over it.
fn pin(path: &Path) -> Result<OwnedFd, LabError> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LabError::failed(format!("{} cannot be opened: {e}", path.display())))
}

fn pin_all(paths: &[PathBuf]) -> Result<Vec<(OwnedFd, &PathBuf)>, LabError> {
    paths.iter().map(|path| Ok((pin(path)?, path))).collect()
}

/// The name under which a held file can be bound.
fn seen(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The processes of this process namespace.
fn proc(ground: Ground<'_>) -> Result<(), LabError> {
    mount("proc", "/proc", "proc", SAFEST, None).map_err(|error| match error {
        // The kernel shows processes to an ordinary user's namespace only where all of /proc was seen before.
        rustix::io::Errno::PERM => LabError::Refused {
            what: "the lab cannot have its own /proc".into(),
            why: "parts of /proc are hidden here, as in most containers".into(),
            fix: "run as root, or start the container with --privileged or --security-opt systempaths=unconfined"
                .into(),
        },
        error => no("/proc")(error),
    })?;
    if !ground.user_namespace {
        protect().map_err(|e| LabError::failed(format!("/proc/sys cannot be protected: {e}")))?;
    }
    Ok(())
}

/// Root keeps away from the machine's settings, and may change those of its own network. In a user namespace the kernel
/// sees to it.
fn protect() -> io::Result<()> {
    for path in ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"] {
        if Path::new(path).exists() {
            mount_bind(path, path)?;
            set_read_only(Path::new(path), true, Depth::Mount)?;
        }
    }
    let own = "/proc/sys/net";
    mount_bind(own, own)?;
    set_read_only(Path::new(own), false, Depth::Mount)?;
    match mount_bind("/dev/null", "/proc/sysrq-trigger") {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The devices of this network namespace, read-only, and this cgroup namespace.
fn sys(ground: Ground<'_>) -> Result<Vec<Limit>, LabError> {
    let mut limits = Vec::new();
    if !ground.user_namespace {
        // Else the machine's cgroups would still be listed, at places where they are not. In a user namespace they
        // cannot be taken away, only covered.
        let _ = rustix::mount::unmount("/sys", UnmountFlags::DETACH);
    }
    if let Err(error) = mount("sysfs", "/sys", "sysfs", SAFEST | MountFlags::RDONLY, None) {
        if !ground.user_namespace {
            return Err(no("/sys")(error));
        }
        let why = format!("/sys shows the machine's network devices, its own cannot be mounted: {error}");
        limits.push(Limit::new("an own /sys", why, "run as root, or outside a container"));
    }
    let mounted = ground.cgroup.then(|| mount("cgroup2", "/sys/fs/cgroup", "cgroup2", SAFEST, None));
    if let Some(Err(error)) = mounted {
        limits.push(Limit::new("cgroups", format!("/sys/fs/cgroup cannot be mounted: {error}"), "run as root"));
    }
    Ok(limits)
}

/// A /dev with nothing of the machine in it.
fn devices() -> Result<(), LabError> {
    let path = |name: &str| PathBuf::from("/dev").join(name);
    let held: Vec<_> = DEVICES.iter().filter_map(|name| Some((*name, pin(&path(name)).ok()?))).collect();
    // Programs are not started from here, but devices must work.
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "/dev", "tmpfs", flags, Some(c"mode=0755,size=64k")).map_err(no("/dev"))?;
    let fill = || -> io::Result<()> {
        for (name, fd) in &held {
            fs::write(path(name), "")?;
            mount_bind(seen(fd), path(name))?;
        }
        for (name, stream) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            symlink(format!("/proc/self/fd{stream}"), path(name))?;
        }
        fs::create_dir(path("shm"))
    };
    fill().map_err(|e| LabError::failed(format!("/dev cannot be filled: {e}")))?;
    // Hosts share it: nobody leaves anything there for another. Writing to devices is not writing to this mount.
    set_read_only(&path(""), true, Depth::Mount)
        .or_else(|e| if e.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(e) })
        .map_err(|e| LabError::failed(format!("/dev cannot be protected: {e}")))?;
    tmpfs("/dev/shm", ROOM_FOR_ALL)
}

fn rooms() -> Result<(), LabError> {
    tmpfs("/run", ROOM)?;
    tmpfs("/tmp", ROOM_FOR_ALL)
}

fn tmpfs(at: &str, options: &str) -> Result<(), LabError> {
    let options = std::ffi::CString::new(options).map_err(|e| LabError::failed(e.to_string()))?;
    mount("tmpfs", at, "tmpfs", SAFE, Some(options.as_c_str())).map_err(no(at))
}

/// Brings what is shared back into view, writable.
fn open_shares(shares: &[(OwnedFd, &PathBuf)]) -> Result<(), LabError> {
    for (fd, path) in shares {
        let open = || -> io::Result<()> {
            fs::create_dir_all(path)?;
            mount_bind_recursive(seen(fd), path.as_path())?;
            set_read_only(path, false, Depth::Tree)
        };
        open().map_err(|e| LabError::failed(format!("{} cannot be shared with the lab: {e}", path.display())))?;
    }
    Ok(())
}
