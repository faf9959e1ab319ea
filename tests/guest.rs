//! This program as the first of a virtual machine, for the trials that need a kernel which this machine has not: mounts,
//! modules, the trials it was told to run, power off. `cargo xtask crash-trial --vm` makes such a machine.

use std::{fs, process::Command};

use rustix::mount::{MountFlags, mount};

#[path = "../crates/fracas-agent/tests/guest/start.rs"]
mod start;
#[path = "../crates/fracas-agent/tests/guest/trials.rs"]
mod trials;

/// A variable that only programs in such a machine have.
pub(crate) const VARIABLE: &str = "FRACAS_GUEST";

/// Never returns: powers the machine off. A panic here is a kernel panic, which ends the machine as well.
pub(crate) fn run() -> ! {
    start::found();
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None).expect("control groups");
    let environment = fs::read_to_string("/modules/environment").expect("the environment");
    let mut program = Command::new("/proc/self/exe");
    program
        .args(std::env::args().skip(1))
        .env_clear()
        .envs(environment.lines().filter_map(|line| line.split_once('=')));
    program.env(VARIABLE, "1");
    eprintln!("fracas-vm: exit {}", trials::run(program));
    start::off()
}
