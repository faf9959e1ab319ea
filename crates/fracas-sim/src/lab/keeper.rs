//! The keeper: the one process of a lab outside its namespaces. It starts the outer init, outlives a killed creator by
//! some milliseconds, and clears away what the kernel does not: the lab's cgroup. It never enters the lab.
//!
//! ```text
//! creator ──control socket──► outer init (pid 1 of the lab) ──► host init (pid 1 of a host) ──► programs
//!    └──► keeper ──waits for: init ended, creator closed its end, creator ended──► kill init, rmdir, exit
//! ```

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use super::{
    LabError,
    cgroup::Group,
    kernel, limits,
    roles::{self, MARK},
    wire::{self, Word},
};

/// How long the processes of a lab may take to die once killed.
const DIE: Duration = Duration::from_secs(10);

/// What the outer init stands on; its argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Footing {
    /// The lab is an ordinary user's.
    pub(super) user_namespace: bool,
    /// Why there is no cgroup; if there is one, its directory is standard output.
    pub(super) no_cgroup: Option<String>,
}

/// Runs the role: the control socket is standard input. Returns 0 when nothing is left of the lab.
pub(super) fn role(_arguments: &[String]) -> i32 {
    kernel::close_inherited();
    // The end of the control socket is the one way to end: a hang-up or an interrupt meant for the creator must not
    // keep anybody from clearing away.
    let _ = kernel::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE]);
    let creator = getppid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Ok(control) = roles::take(rustix::stdio::stdin()) else { return 1 };
    let group = Group::make();
    let kept = keep(&control, creator.as_ref(), &group);
    if let Err(error) = kept {
        let _ = wire::send(control.as_fd(), &Word::Refused(error), &[]);
    }
    match group.map(Group::remove) {
        Ok(Err(error)) => {
            complain(&error);
            1
        }
        _ => 0,
    }
}

fn keep(control: &OwnedFd, creator: Option<&OwnedFd>, group: &Result<Group, String>) -> Result<(), LabError> {
    let user_namespace = separate()?;
    let failed = |e: io::Error| LabError::failed(format!("the lab's init cannot be started: {e}"));
    let (no_cgroup, stdout) = match group {
        Ok(group) => (None, Stdio::from(group.dir().map_err(failed)?)),
        Err(why) => (Some(why.clone()), Stdio::null()),
    };
    let footing = serde_json::to_string(&Footing { user_namespace, no_cgroup }).map_err(|e| failed(e.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command.args([MARK, "init", &footing]).stdin(control.try_clone().map_err(failed)?).stdout(stdout);
    let mut init = kernel::spawn(&mut command).map_err(failed)?;
    // Nobody but us reaps it, so the number is still its own.
    let pid = Pid::from_raw(init.id().cast_signed()).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => {
            await_end(pidfd.as_fd(), control.as_fd(), creator.map(OwnedFd::as_fd));
            // Killing the first process of a process namespace kills all others, and it ends after them.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            if !fracas_agent::host::worker::readable(pidfd.as_fd(), DIE) {
                complain("the lab's processes do not die: is one in a frozen version 1 cgroup, or in a system call?");
            }
            let _ = init.try_wait();
            Ok(())
        }
        Err(error) => {
            let _ = init.kill();
            let _ = init.wait();
            Err(failed(error.into()))
        }
    }
}

/// Makes a process namespace for the children of this process, in a user namespace if it takes one. Returns whether
/// it took one.
fn separate() -> Result<bool, LabError> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        match kernel::unshare(UnshareFlags::NEWPID) {
            Ok(()) => return Ok(false),
            // Root of a container without CAP_SYS_ADMIN is an ordinary user in this.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(limits::forbidden(&e)),
        }
    }
    let mapped = || {
        kernel::unshare(UnshareFlags::NEWUSER)?;
        map(0, 0, uid.as_raw(), gid.as_raw())?;
        kernel::unshare(UnshareFlags::NEWPID)
    };
    mapped().map(|()| true).map_err(|e| limits::forbidden(&e))
}

/// Gives this process, alone in its new user namespace, the numbers it has inside.
pub(super) fn map(uid: u32, gid: u32, outer_uid: u32, outer_gid: u32) -> io::Result<()> {
    // An ordinary user may map groups only after giving up changing them. Kernels before 3.19 have no such file.
    match fs::write("/proc/self/setgroups", "deny") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1"))
}

/// Blocks until the init has ended, the creator has closed its end of the control socket, or the creator is gone.
fn await_end(init: BorrowedFd<'_>, control: BorrowedFd<'_>, creator: Option<BorrowedFd<'_>>) {
    loop {
        // What is sent over the control socket is for the init: only its end counts here.
        let mut fds =
            vec![PollFd::from_borrowed_fd(init, PollFlags::IN), PollFd::from_borrowed_fd(control, PollFlags::RDHUP)];
        fds.extend(creator.map(|creator| PollFd::from_borrowed_fd(creator, PollFlags::IN)));
        match poll(&mut fds, None::<&Timespec>) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Says what is left, on the standard error shared with the creator.
#[expect(clippy::print_stderr, reason = "the creator may be gone, there is nobody else to tell")]
fn complain(what: &str) {
    eprintln!("lab: {what}");
}
