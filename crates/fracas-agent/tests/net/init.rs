//! The first program of the virtual machine: mounts, modules, one run of the trials, power off. Nothing else runs there.

use std::{
    ffi::CString,
    fs::{self, File},
    process::Command,
};

use rustix::{
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    system::{RebootCommand, finit_module, reboot},
};

/// Never returns: powers the machine off. A panic here is a kernel panic, which ends the machine as well.
pub(crate) fn run() -> ! {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp"), ("tmpfs", "/run")]
    {
        mount(kind, at, kind, MountFlags::empty(), None).unwrap_or_else(|e| panic!("cannot mount {at}: {e}"));
    }
    for name in fs::read_to_string("/modules/order").expect("a list of modules").lines() {
        let file = File::open(format!("/modules/{name}")).expect("the module");
        finit_module(&file, &CString::default(), 0).unwrap_or_else(|e| panic!("cannot load {name}: {e}"));
    }
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
    rustix::fs::sync();
    let off = reboot(RebootCommand::PowerOff);
    panic!("the machine does not power off: {off:?}");
}
