//! The lab's own version 2 cgroup below the creator's: made and removed by the keeper, joined by the inits.
//! It sets no limits and enables no controllers, since that would change what lies above it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fracas_agent::host::trials::own_cgroup;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, mkdirat, openat},
};

/// What the names of lab cgroups begin with; the keeper's process number follows.
const PREFIX: &str = "fracas-lab-";
/// How long the kernel may take to let go of the last process.
const EMPTY: Duration = Duration::from_secs(5);
/// A cgroup of a keeper that is gone is left over when it is older than this; a younger one may be of a lab that starts
/// in another process namespace.
const STALE: Duration = Duration::from_mins(1);
/// Deepest cgroup that is looked into when removing. The kernel's own default is no limit.
const DEEPEST: usize = 32;

/// The cgroup of one lab.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes it, named after this process. The error says why there is none.
    pub(super) fn make() -> Result<Self, String> {
        let above = own_cgroup().ok_or("there is no version 2 cgroup hierarchy here")?;
        sweep(&above);
        let path = above.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).map_err(|e| format!("no cgroup can be made in {}: {e}", above.display()))?;
        let group = Self { path };
        // Its processes will have to be moved here, which needs more than being allowed to make it.
        match group
            .dir()
            .and_then(|dir| openat(&dir, "cgroup.procs", OFlags::WRONLY, Mode::empty()).map_err(Into::into))
        {
            Ok(_) => Ok(group),
            Err(e) => {
                let _ = group.remove();
                Err(format!("a cgroup can be made in {}, but not used: {e}", above.display()))
            }
        }
    }

    /// The directory, to be handed to the outer init.
    pub(super) fn dir(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.path)?.into())
    }

    /// Kills whatever is still in it and removes it with all below it.
    pub(super) fn remove(self) -> Result<(), String> {
        let until = Instant::now() + EMPTY;
        let failed = |e: io::Error| format!("cgroup {} cannot be removed: {e}", self.path.display());
        if populated(&self.path) {
            // Everybody in it was started by the lab. Not every kernel has the file (Linux 5.14).
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
        }
        loop {
            match remove_tree(&self.path, DEEPEST) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                    await_change(&self.path, Duration::from_millis(10)).map_err(failed)?;
                }
                other => return other.map_err(failed),
            }
        }
    }
}

/// Removes what keepers that were themselves killed have left, as far as it is empty and ours by name.
fn sweep(above: &Path) {
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(keeper) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > STALE));
        if old && !Path::new(&format!("/proc/{keeper}")).exists() && !populated(&entry.path()) {
            let _ = remove_tree(&entry.path(), DEEPEST);
        }
    }
}

fn populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

/// Waits until the kernel says that something changed, but not longer than this: one may have been missed.
fn await_change(group: &Path, limit: Duration) -> io::Result<()> {
    let events = File::open(group.join("cgroup.events"))?;
    let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)], Some(&limit))?;
    Ok(())
}

/// Children first. The files in a cgroup go with it.
fn remove_tree(group: &Path, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() && depth > 0 {
            remove_tree(&entry.path(), depth - 1)?;
        }
    }
    fs::remove_dir(group)
}

/// Makes a cgroup of this name in `dir`, if there is none, and moves this process into it.
pub(super) fn join(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match mkdirat(dir, name, Mode::from(0o755)) {
        Err(rustix::io::Errno::EXIST) => {}
        other => other?,
    }
    let group = openat(dir, name, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let procs = openat(&group, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // 0 is the writer itself, whatever its number in the namespace of whoever mounted this.
    File::from(procs).write_all(b"0")
}
