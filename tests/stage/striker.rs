//! Kills a process at an instant that hurts: after the first write of a commit to its database's log, before whatever
//! follows it.

use std::{
    fs,
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Timespec, inotify},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::json;

use super::{boot_ns, say};

/// A log that nobody writes to for so long belongs to a process with nothing to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part `strike`: waits for `after_ms`, then for the next write to the log, then for `delay_us`, and kills.
///
/// Says whether there was a write, how long after it the blow fell, and whether it left a transaction half written.
pub(super) fn strike(log: &str, pid: i32, after_ms: u64, delay_us: u64) {
    let victim = pidfd_open(Pid::from_raw(pid).expect("pid"), PidfdFlags::empty()).expect("process");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
    inotify::add_watch(&watch, log, inotify::WatchFlags::MODIFY).expect("watched");
    say(&json!({ "ready": true }));
    thread::sleep(Duration::from_millis(after_ms));
    drain(&watch);
    let wrote = readable(&watch, PATIENCE);
    let begun = Instant::now();
    // A sleep would overshoot by more than a commit takes.
    while begun.elapsed() < Duration::from_micros(delay_us) {
        std::hint::spin_loop();
    }
    let (at, after) = (boot_ns(), begun.elapsed());
    // It may have ended by itself.
    let struck = pidfd_send_signal(&victim, Signal::KILL).is_ok();
    assert!(readable(&victim, Duration::from_secs(30)), "SIGKILL ends it");
    say(&json!({
        "struck": struck,
        "bootNs": at,
        "wrote": wrote,
        "afterUs": u64::try_from(after.as_micros()).expect("a moment"),
        "torn": torn(Path::new(log)),
    }));
}

fn readable(fd: &impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).expect("in range");
    loop {
        match poll(&mut [PollFd::new(&fd.as_fd(), PollFlags::IN)], Some(&limit)) {
            Ok(count) => return count > 0,
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

fn drain(watch: &impl AsFd) {
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    while events.next().is_ok() {}
}

/// Whether SQLite's write-ahead log ends in the middle of a transaction.
///
/// Format: <https://www.sqlite.org/fileformat2.html#walformat>. A frame that ends a transaction says the size of the
/// database in its second number, others say 0; the salts tell frames of this log from those it overwrites.
fn torn(log: &Path) -> bool {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let bytes = fs::read(log).unwrap_or_default();
    let number = |at: usize| bytes.get(at..at + 4).map(|four| u32::from_be_bytes(four.try_into().expect("four")));
    let Some(page) = number(8) else { return false };
    let mut open = false;
    let mut at = HEADER;
    while number(at + 8).is_some() && (number(at + 8), number(at + 12)) == (number(16), number(20)) {
        open = number(at + 4) == Some(0) || bytes.len() < at + FRAME + page as usize;
        at += FRAME + page as usize;
    }
    open
}
