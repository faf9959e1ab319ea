//! What the trials share: victims, a host on its own small runtime, waiting without guessing.

#![expect(unsafe_code, reason = "victims in states that no safe call brings about")]

use std::{
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::{linux::LinuxHost, processes::Stat, worker::Spawner};
use fracas_model::{id::ItemKey, process::ProcessRef};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The parts this program can play beside running trials.
pub(crate) fn play() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("victim") => victim(words[2].parse().expect("threads")),
        Some("headless") => headless(),
        Some("waiting") => waiting(),
        Some("agent") => agent(),
        Some("guarded") => crate::guard::guarded(&words[2..]),
        Some("spin") => loop {
            std::hint::black_box(());
        },
        _ => None,
    }
}

/// Threads that each write a byte every millisecond, until told to stop by the end of standard input.
fn victim(threads: usize) -> ! {
    for _ in 0..threads {
        thread::spawn(|| {
            loop {
                let sent = std::io::stdout().lock().write_all(b".").and_then(|()| std::io::stdout().lock().flush());
                if sent.is_err() {
                    std::process::exit(0);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0)
}

/// A victim whose first thread has ended while others live.
fn headless() -> ! {
    thread::spawn(|| victim(2));
    // SAFETY: ends this thread and nothing else; nobody waits for what it had.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// A victim that waits in the kernel, in state D, until its standard input ends: its child has that, and it waits for the
/// child as `vfork` does. Then it writes.
fn waiting() -> ! {
    // SAFETY: a copy of this process of one thread, which only reads and leaves.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: a buffer of one byte; `_exit` runs nothing of the copied program.
        unsafe {
            libc::read(0, [0_u8; 1].as_mut_ptr().cast(), 1);
            libc::_exit(0);
        }
    }
    assert!(child > 0, "a child");
    loop {
        std::io::stdout().write_all(b".").and_then(|()| std::io::stdout().flush()).expect("told");
        thread::sleep(Duration::from_millis(1));
    }
}

/// An agent that holds two workers and can only be killed.
fn agent() -> ! {
    let spawner = Spawner::start();
    let workers = [spawner.spawn("rest").expect("worker"), spawner.spawn("rest").expect("worker")];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {}", workers[0].pid(), workers[1].pid()).expect("told");
    out.flush().expect("told");
    loop {
        thread::park();
    }
}

/// A process that is killed when the trial is over.
pub(crate) struct Victim(pub(crate) Child);

impl Victim {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("victim"))
    }

    /// With this many threads, each of which has been heard of.
    pub(crate) fn threads(count: usize) -> Self {
        let mut victim = Self::start(&["victim", &count.to_string()]);
        let pid = victim.pid();
        wait_for("all threads", || Stat::of(pid).is_some() && tasks(pid).len() == count + 1);
        assert!(victim.heard(Duration::from_secs(5)), "the victim writes");
        victim
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    pub(crate) fn who(&self) -> ProcessRef {
        let stat = Stat::of(self.pid()).expect("victim lives");
        ProcessRef { pid: self.pid(), start_ticks: stat.start_ticks, name: stat.name }
    }

    /// Whether it writes something within this time.
    pub(crate) fn heard(&mut self, within: Duration) -> bool {
        let out = self.0.stdout.as_mut().expect("piped");
        let left = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
        if poll(&mut [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN)], Some(&left)).expect("poll") == 0 {
            return false;
        }
        out.read(&mut [0; 65_536]).expect("read") > 0
    }

    /// Reads what was written so far.
    pub(crate) fn drain(&mut self) {
        while self.heard(Duration::ZERO) {}
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn tasks(pid: i32) -> Vec<i32> {
    fracas_agent::host::processes::threads(pid)
}

/// Looks every half millisecond; panics after ten seconds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        thread::sleep(Duration::from_micros(500));
    }
    begun.elapsed()
}

/// Whether a process number is in use by something that has not ended.
pub(crate) fn lives(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|s| !s.dead())
}

pub(crate) fn host() -> LinuxHost {
    LinuxHost::start("h".into(), "0.0.0")
}

pub(crate) fn key(entry: &str) -> ItemKey {
    ItemKey { run: "r".into(), entry: entry.into(), occurrence: 0, host: "h".into(), generation: 1 }
}

/// Runs on a runtime of one thread, as the agent does.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}
