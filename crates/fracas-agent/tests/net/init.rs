//! The first program of the virtual machine: mounts, modules, one run of the trials, power off. Nothing else runs there.

use std::process::Command;

use crate::{start, trials};

/// Never returns: powers the machine off. A panic here is a kernel panic, which ends the machine as well.
pub(crate) fn run() -> ! {
    start::found();
    let mut program = Command::new("/proc/self/exe");
    program.args(std::env::args().skip(1)).env_clear();
    program.env("FRACAS_PLANES", "owner,netem").env("FRACAS_REQUIRE", "all").env("FRACAS_VM", "1");
    println!("fracas-vm: exit {}", trials::run(program));
    start::off()
}
