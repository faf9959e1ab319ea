//! A supervisor as an init system has one: starts a service, and when its main process ends, clears away the rest of its
//! group, waits a moment and starts it again.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde_json::json;

use super::{boot_ns, say};

/// More deaths than that are no service any more.
const MOST: usize = 50;

/// The part `supervise`.
pub(super) fn supervise(pause_ms: u64, program: &str, arguments: &[&str]) {
    for _ in 0..MOST {
        let mut child =
            Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn().expect("started");
        say(&json!({ "began": boot_ns(), "pid": child.id() }));
        let status = child.wait().expect("waited");
        say(&json!({ "ended": boot_ns(), "status": status.to_string() }));
        let group = Pid::from_raw(child.id().cast_signed()).expect("pid");
        // Its number belongs to the group as long as anybody is in it.
        while test_kill_process_group(group).is_ok() {
            let _ = kill_process_group(group, Signal::KILL);
            thread::sleep(Duration::from_millis(1));
        }
        say(&json!({ "cleared": boot_ns() }));
        thread::sleep(Duration::from_millis(pause_ms));
    }
}
