//! The trials as the one program that the first of a virtual machine starts: it waits for them and for what they orphan.

use std::process::Command;

use rustix::process::{WaitOptions, wait};

/// Runs them to their end; their exit code. A panic here is a kernel panic, which ends the machine.
pub(crate) fn run(mut trials: Command) -> i32 {
    let mut child = trials.spawn().expect("the trials start");
    let code = loop {
        // Orphans of killed trials end here too.
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child.id().cast_signed() => {
                break status.exit_status().unwrap_or(101);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait: {error}"),
        }
    };
    // It is reaped already; this only says so.
    let _ = child.wait();
    code
}
