//! Workers seen from the agent: forked by one permanent thread, spoken to over pipes, ended by closing a pipe.
//! What a worker does lives in the role that it runs; see [`crate::reexec`] for the table and [`orders`] for its side.
//!
//! The traps, each found by trying:
//! - A parent-death signal follows the *thread* that forked, not the process: a child of a tokio blocking thread is
//!   killed when the pool retires that thread. So one thread that never ends forks everything.
//! - The guarantee is the lifeline, the worker's standard input: it reaches end-of-file when the agent is gone,
//!   whatever killed it. A write end leaked into any sibling means no end-of-file at all, so every descriptor is
//!   close-on-exec from birth, and the child closes all but 0, 1 and 2 besides.
//! - A deadline goes over as *remaining time*: absolute boot times differ between time namespaces.
//! - `SIGKILL` does nothing to a task in a frozen version 1 cgroup; ending a worker is therefore bounded and may fail.

#![expect(unsafe_code, reason = "pre_exec runs between fork and exec")]

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::{Value, json};

use super::Failure;
use crate::crash::{self, Task};

pub mod orders;

pub use orders::{rest, settle};

/// How long a worker may take to end by itself once its lifeline is closed, before it is killed.
pub const GRACE: Duration = Duration::from_millis(500);

/// Key of an order's number, which its reply repeats.
pub const SEQ: &str = "seq";

/// Process numbers of the workers that live, shared between the spawner and its workers.
type Roster = Arc<Mutex<BTreeSet<i32>>>;

/// A wish for a worker: the role, its arguments, and where the answer goes.
type Wish = (String, Vec<String>, mpsc::SyncSender<io::Result<Child>>);

/// Forks all workers, on one thread that lives as long as the program.
#[derive(Clone, Debug)]
pub struct Spawner {
    wishes: mpsc::Sender<Wish>,
    roster: Roster,
}

/// One worker process. Dropping it closes the lifeline and kills it.
#[derive(Debug)]
pub struct Worker {
    role: String,
    child: Child,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    read: Vec<u8>,
    /// Number of the last order that is answered.
    asked: u64,
    roster: Roster,
}

impl Spawner {
    /// Starts the forking thread; workers run this program.
    ///
    /// `/proc/self/exe` stays right when the file was replaced by an upgrade, where its path would not.
    pub fn start() -> Self {
        Self::with_program("/proc/self/exe".into())
    }

    /// The same with another program, which must call [`crate::reexec()`] first in its `main`.
    pub fn with_program(program: PathBuf) -> Self {
        let (wishes, wanted) = mpsc::channel::<Wish>();
        let forks = move || {
            while let Ok((role, arguments, answer)) = wanted.recv() {
                crash::within(Task::Spawner);
                let _ = answer.send(fork(&program, &role, &arguments));
            }
            // The last spawner is gone, but its workers may live: ending now would kill them.
            loop {
                thread::park();
            }
        };
        let started = thread::Builder::new().name("spawner".into()).spawn(forks);
        if let Err(error) = started {
            tracing::error!(%error, "no thread for starting workers");
        }
        Self { wishes, roster: Roster::default() }
    }

    /// Starts a worker in this role. Takes about a millisecond.
    pub fn spawn(&self, role: &str) -> io::Result<Worker> {
        self.spawn_with(role, &[])
    }

    /// Starts a worker in this role with arguments.
    pub fn spawn_with(&self, role: &str, arguments: &[String]) -> io::Result<Worker> {
        let gone = || io::Error::other("the thread that starts workers is gone");
        let (answer, answered) = mpsc::sync_channel(1);
        self.wishes.send((role.to_owned(), arguments.to_vec(), answer)).map_err(|_| gone())?;
        let mut child = answered.recv().map_err(|_| gone())??;
        // The number cannot be reused yet: nobody but us can reap the child.
        let pid = Pid::from_raw(child.id().cast_signed());
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let (Some(pidfd), Some(stdin), Some(stdout)) = (pidfd, child.stdin.take(), child.stdout.take()) else {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other("no handle on the new worker; the kernel must be 5.3 or later"));
        };
        // A worker that does not read must not hold up the agent.
        rustix::io::ioctl_fionbio(&stdin, true)?;
        let worker = Worker {
            role: role.to_owned(),
            child,
            pidfd,
            stdin: Some(stdin),
            stdout,
            read: Vec::new(),
            asked: 0,
            roster: self.roster.clone(),
        };
        lock(&self.roster).insert(worker.pid());
        Ok(worker)
    }

    /// Process numbers of the workers that live.
    pub fn pids(&self) -> Vec<i32> {
        lock(&self.roster).iter().copied().collect()
    }
}

impl Worker {
    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Readable when the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        !readable(self.pidfd.as_fd(), Duration::ZERO)
    }

    /// How it ended, in words, once it is no longer [`alive`](Self::alive).
    pub fn fate(&mut self) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                lock(&self.roster).remove(&self.pid());
                match status.code() {
                    Some(super::seize::TARGET_GONE) if self.role == "seize" => "the process itself has ended".into(),
                    _ => format!("{} worker {} ended: {status}", self.role, self.pid()),
                }
            }
            Ok(None) => format!("{} worker {} runs", self.role, self.pid()),
            Err(error) => format!("{} worker {} ended: {error}", self.role, self.pid()),
        }
    }

    /// Sends an order without awaiting a reply.
    pub fn send(&mut self, order: &Value) -> Result<(), Failure> {
        let line = format!("{order}\n");
        let sent = match &mut self.stdin {
            Some(stdin) => stdin.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|e| self.failure(&format!("takes no orders: {e}")))
    }

    /// Sends an order and waits for its reply, which bears the order's number; replies to others are discarded. A reply with
    /// a key `error` is a failure with that text. A worker that does not reply in time is killed: what it may have done
    /// in spite of that goes with it, where a later order could meet a worker that does not do as it says.
    pub fn call(&mut self, order: &Value, timeout: Duration) -> Result<Value, Failure> {
        self.asked += 1;
        let mut numbered = order.clone();
        numbered[SEQ] = self.asked.into();
        let replied = self.send(&numbered).and_then(|()| self.answer(timeout));
        let mut reply = replied.inspect_err(|_| {
            // It is reaped by whoever ends or drops it.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        })?;
        if let Some(fields) = reply.as_object_mut() {
            fields.remove(SEQ);
        }
        match reply.get("error").and_then(Value::as_str) {
            Some(error) => Err(Failure(error.to_owned())),
            None => Ok(reply),
        }
    }

    fn answer(&mut self, timeout: Duration) -> Result<Value, Failure> {
        let until = Instant::now() + timeout;
        loop {
            let reply = self.reply(until.saturating_duration_since(Instant::now()))?;
            match reply.get(SEQ).and_then(Value::as_u64) {
                Some(seq) if seq == self.asked => return Ok(reply),
                // Last words, which answer nothing.
                None if reply.get("error").is_some() => return Ok(reply),
                _ => {}
            }
        }
    }

    /// Tells it to end by itself after this much time from now, replacing what it was told before.
    pub fn deadline(&mut self, remaining: Duration) -> Result<(), Failure> {
        let ns = u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX);
        self.send(&json!({ "deadlineNs": ns }))
    }

    /// Waits for the next line it writes.
    pub fn reply(&mut self, timeout: Duration) -> Result<Value, Failure> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|e| self.failure(&format!("replied nonsense: {e}")));
            }
            if !readable(self.stdout.as_fd(), until.saturating_duration_since(Instant::now())) {
                return Err(self.failure(&format!("did not reply within {} ms", timeout.as_millis())));
            }
            let mut chunk = [0; 4096];
            match rustix::io::read(&self.stdout, &mut chunk) {
                Ok(0) => return Err(self.failure("ended")),
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(self.failure(&format!("cannot be read: {e}"))),
            }
        }
    }

    /// Closes the lifeline, waits [`GRACE`], then kills. `Ok` once the process is gone and reaped.
    pub fn end(mut self) -> Result<(), Failure> {
        self.stdin = None;
        if !readable(self.pidfd.as_fd(), GRACE) {
            tracing::warn!(role = self.role, pid = self.pid(), "worker ignores its lifeline, killing it");
        }
        self.reap()
    }

    /// Kills it at once. `Ok` once the process is gone and reaped.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.reap()
    }

    fn reap(&mut self) -> Result<(), Failure> {
        self.stdin = None;
        // Killing what has just ended changes nothing: it is not reaped yet, so the number is still its own.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if !readable(self.pidfd.as_fd(), GRACE) {
            return Err(self.failure("does not die: is it in a frozen version 1 cgroup?"));
        }
        let reaped = self.child.try_wait();
        lock(&self.roster).remove(&self.pid());
        reaped.map(|_| ()).map_err(|e| self.failure(&format!("cannot be reaped: {e}")))
    }

    fn failure(&self, what: &str) -> Failure {
        Failure(format!("{} worker {} {what}", self.role, self.pid()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // `end` and `kill` have emptied the roster; who was merely dropped must not linger as a zombie.
        if lock(&self.roster).contains(&self.pid())
            && let Err(error) = self.reap()
        {
            tracing::warn!(%error, "dropped worker");
        }
    }
}

fn lock(roster: &Roster) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
    roster.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a descriptor is readable or hung up; false when the time is over.
pub fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Forks and executes one worker. Runs on the spawner's thread, which the parent-death signal follows.
fn fork(program: &PathBuf, role: &str, arguments: &[String]) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let mut command = Command::new(program);
    command.arg(crate::reexec::MARK).arg(role).args(arguments);
    // Standard error goes where the agent's goes. A working directory would pin a mount, and a Ctrl-C meant for the
    // agent must not cut short an orderly undo: hence `/` and an own process group.
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env_clear()
        .envs(crash::inherited())
        .current_dir("/")
        .process_group(0);
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The agent died between fork and here; nobody would send that signal any more.
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: a plain system call on numbers; descriptors are only marked, std's own stay usable until exec.
        // It fails on kernels before 5.11, where close-on-exec at birth, which every descriptor here has, must do.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: the closure makes system calls only: no allocation, no lock, nothing another thread may hold.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
