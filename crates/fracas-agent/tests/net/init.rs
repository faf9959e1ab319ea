//! The first program of the virtual machine: mounts, modules, one run of the trials, power off. Nothing else runs there.

use std::process::Command;

use rustix::process::{WaitOptions, wait};

use crate::start;

/// Never returns: powers the machine off. A panic here is a kernel panic, which ends the machine as well.
pub(crate) fn run() -> ! {
    start::found();
    let mut trials = Command::new("/proc/self/exe");
    trials.args(std::env::args().skip(1)).env_clear();
    trials.env("FRACAS_PLANES", "owner,netem").env("FRACAS_REQUIRE", "all").env("FRACAS_VM", "1");
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
    println!("fracas-vm: exit {code}");
    start::off()
}
