//! A process with a number of one's choice: whoever had it is gone.

#![expect(unsafe_code, reason = "nobody wraps clone3 with a chosen number")]

use std::{os::unix::process::CommandExt as _, process::Command};

use rustix::process::{WaitOptions, wait};
use serde_json::json;

use super::{MARK, say};

/// `struct clone_args` of `linux/sched.h`, up to `set_tid_size`.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// The part `reborn`: starts the part `rest` under this name as process `pid`, which must be free, and waits for its end.
pub(super) fn reborn(pid: i32, name: &str) {
    let wanted = [pid];
    let arguments = CloneArguments {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: (&raw const wanted) as u64,
        set_tid_size: 1,
        ..CloneArguments::default()
    };
    let size = size_of::<CloneArguments>();
    // SAFETY: as fork(2): no flag is set, this process has one thread, and both structures outlive the call.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if child == 0 {
        let error = Command::new("/proc/self/exe").args([MARK, "rest", name]).exec();
        panic!("{error}");
    }
    assert_eq!(child, i64::from(pid), "{}", std::io::Error::last_os_error());
    say(&json!({ "reborn": child }));
    let _ = wait(WaitOptions::empty());
}
