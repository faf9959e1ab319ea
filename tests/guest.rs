//! This program as the first of a virtual machine, for the trials that need a kernel which this machine has not: mounts,
//! modules, the trials it was told to run, power off. `cargo xtask crash-trial --vm` makes such a machine.

use std::{
    ffi::CString,
    fs::{self, File},
    path::Path,
    process::Command,
};

use rustix::{
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    system::{RebootCommand, finit_module, reboot},
};

/// A variable that only programs in such a machine have.
pub(crate) const VARIABLE: &str = "FRACAS_GUEST";

/// Where file systems go, and of which kind.
const MOUNTS: [(&str, &str); 6] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
];

/// Never returns: powers the machine off. A panic here is a kernel panic, which ends the machine as well.
pub(crate) fn run() -> ! {
    for (kind, at) in MOUNTS {
        mount(kind, at, kind, MountFlags::empty(), None).unwrap_or_else(|e| panic!("cannot mount {at}: {e}"));
    }
    for name in fs::read_to_string("/modules/order").expect("a list of modules").lines() {
        let file = File::open(Path::new("/modules").join(name)).expect("the module");
        finit_module(&file, &CString::default(), 0).unwrap_or_else(|e| panic!("cannot load {name}: {e}"));
    }
    let environment = fs::read_to_string("/modules/environment").expect("the environment");
    let mut trials = Command::new("/proc/self/exe");
    trials.args(std::env::args().skip(1)).env_clear().envs(environment.lines().filter_map(|line| line.split_once('=')));
    trials.env(VARIABLE, "1");
    let mut child = trials.spawn().expect("the trials start");
    let code = loop {
        // Orphans of what was killed end here too.
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
    eprintln!("fracas-vm: exit {code}");
    let off = reboot(RebootCommand::PowerOff);
    panic!("the machine does not power off: {off:?}");
}
