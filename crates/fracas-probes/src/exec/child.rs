//! The child process of one look: started with nothing but its arguments, killed with its whole group, always reaped.

#![expect(unsafe_code, reason = "limits are set between fork and exec")]

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process, kill_process_group,
        pidfd_open, set_parent_process_death_signal, setpriority_process, setrlimit,
    },
    thread::{clear_ambient_capability_set, set_no_new_privs},
};
use tokio::io::Interest;

use super::keeper;
use crate::{brief, watched};

/// Limits of the child, set between fork and exec: from outside they would need a capability that containers lack.
const LIMITS: [(Resource, u64); 5] = [
    (Resource::Cpu, 10),
    (Resource::As, 4 << 30),
    (Resource::Nofile, 256),
    (Resource::Fsize, 16 << 20),
    (Resource::Core, 0),
];

/// How much output a probe keeps, in bytes; the rest is read and dropped, so that the program does not block on it.
pub(crate) const LONGEST_OUTPUT: usize = 64 * 1024;

/// What a pipe holds at most, in bytes (pipe(7)).
const PIPE: usize = 64 * 1024;

/// Read at once, in bytes.
const PIECE: usize = 8192;

/// How long a keeper may take to kill what came of its program; it takes milliseconds.
const CLEARING: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Absolute path.
    pub(crate) program: String,
    /// Its arguments, without the program.
    pub(crate) arguments: Vec<String>,
    /// User and group to become.
    pub(crate) user: Option<(u32, u32)>,
    /// How much of its output is wanted, in bytes.
    pub(crate) keep: usize,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: Vec<u8>,
}

/// A started program with its keeper, which leads their process group, is the child that is waited for, and ends as the
/// program did, when nothing is left of it. Dropping it ends all of that and reaps the keeper.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
    group: Pid,
    pidfd: OwnedFd,
    stdout: Option<OwnedFd>,
    keep: usize,
}

impl Order {
    /// Forks, drops privilege, limits. Blocks for about a millisecond.
    pub(crate) fn start(&self) -> Result<Running, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(if self.keep > 0 { Stdio::piped() } else { Stdio::null() });
        let (parent, user) = (getpid(), self.user);
        // SAFETY: the closure makes system calls only, on constants and one number: no allocation, no lock.
        unsafe {
            command.pre_exec(move || {
                endangered();
                if let Some((uid, gid)) = user {
                    change_user(uid, gid)?;
                }
                confine(parent)?;
                for (resource, most) in LIMITS {
                    // A limit that is lower already stays: raising it needs a privilege the program must not have.
                    let most = getrlimit(resource).maximum.map_or(most, |old| old.min(most));
                    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
                }
                // Last: from here on there are two processes, and this is the program's.
                keeper::part()
            });
        }
        let mut child = command.spawn().map_err(|e| brief(format_args!("{} does not start: {e}", self.program)))?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let group = Pid::from_child(&child);
        // From here on every way out goes through `Running`, which kills and reaps.
        let pidfd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                end(child, group);
                return Err(brief(format_args!("no pidfd for {}: {e}", self.program)));
            }
        };
        Ok(Running { child: Some(child), group, pidfd, stdout, keep: self.keep })
    }
}

/// The kernel may choose this process when memory is short, as any other, if it would spare the agent: that is no measure
/// for a program of others. While it still is the agent's user: afterwards the file belongs to root. Runs between fork and exec.
fn endangered() {
    // SAFETY: system calls on a constant path and on the descriptor that came of it.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        let mut first = 0_u8;
        if libc::read(file, (&raw mut first).cast(), 1) == 1 && first == b'-' {
            let _ = libc::pwrite(file, b"0".as_ptr().cast(), 1, 0);
        }
        libc::close(file);
    }
}

/// Changes user and group for good, and drops root's other groups. Runs between fork and exec.
fn change_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: system calls on numbers; this process has one thread, so that no other stays what it was.
    let failed =
        unsafe { libc::setgroups(0, std::ptr::null()) != 0 || libc::setgid(gid) != 0 || libc::setuid(uid) != 0 };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the program must not have or be: the agent's abilities and descriptors, or alive when the agent is not. Runs
/// between fork and exec, as the user the program runs as: changing the user clears the signal of the parent's death.
fn confine(parent: Pid) -> io::Result<()> {
    // The signal follows the thread that forked; the threads of the probes' runtime stay as long as it does.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    set_no_new_privs(true)?;
    // An agent that must come before its own load is no measure for a program of others.
    let _ = setpriority_process(None, 0);
    // Kernels before 4.3 have no ambient set, and then nothing to clear.
    let _ = clear_ambient_capability_set();
    // Not closed yet: the standard library tells its parent of a failed exec through one of them. A kernel before 5.11
    // does not know the call; everything of ours is closed at exec anyway.
    // SAFETY: closes descriptors at exec only, of a process that does nothing else until then.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

impl Running {
    /// Number of the program's process.
    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.group.as_raw_pid()
    }

    /// Waits for the end; reads its output meanwhile.
    pub(crate) async fn ended(mut self) -> Result<Ended, String> {
        let broke = |e: io::Error| brief(format_args!("the look broke off: {e}"));
        let exit = watched(self.pidfd.try_clone().map_err(broke)?, Interest::READABLE).map_err(broke)?;
        let (mut read, keep) = (Vec::new(), self.keep);
        if let Some(stdout) = self.stdout.take() {
            rustix::io::ioctl_fionbio(&stdout, true).map_err(|e| broke(e.into()))?;
            let output = watched(stdout, Interest::READABLE).map_err(broke)?;
            loop {
                tokio::select! {
                    biased;
                    // A grandchild may hold the output open, or write for ever: it goes first. What the program wrote
                    // before its end is all in the pipe.
                    ready = exit.readable() => {
                        let _still_ready = ready.map_err(broke)?;
                        let _ = kill_process_group(self.group, Signal::KILL);
                        for _ in 0..PIPE / PIECE {
                            if !matches!(drain(output.get_ref(), &mut read, self.keep), Ok(true)) {
                                break;
                            }
                        }
                        break;
                    }
                    ready = output.readable() => {
                        let mut ready = ready.map_err(broke)?;
                        if let Ok(more) = ready.try_io(|fd| drain(fd.get_ref(), &mut read, keep)) && !more.map_err(broke)? {
                            break;
                        }
                    }
                }
            }
        }
        let _ready = exit.readable().await.map_err(broke)?;
        // The leader is a zombie now, so the group's number is still ours: kill what it left behind, then reap.
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = match self.child.take() {
            Some(mut child) => child.wait().map_err(broke)?,
            None => return Err("the program was already reaped".into()),
        };
        Ok(Ended { code: status.code(), signal: status.signal(), stdout: read })
    }
}

/// One read of up to [`PIECE`]; false at the end.
fn drain(stdout: &OwnedFd, read: &mut Vec<u8>, keep: usize) -> io::Result<bool> {
    let mut piece = [0; PIECE];
    let got = rustix::io::read(stdout, &mut piece)?;
    let room = keep.saturating_sub(read.len());
    read.extend_from_slice(&piece[..got.min(room)]);
    Ok(got > 0)
}

/// Asks the leader, which is the program's keeper, to kill everything that came of the program. One that does not end in
/// time is killed with its group. Reaped by a thread of its own.
fn end(mut child: Child, group: Pid) {
    let _ = kill_process(group, Signal::TERM);
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    std::thread::spawn(move || {
        let limit = Instant::now() + CLEARING;
        while Instant::now() < limit {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Not reaped yet, so the group's number is still ours.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    });
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child, self.group);
        }
    }
}
