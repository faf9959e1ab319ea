//! Cuts of power: what a machine finds on its disks when it boots again after the power was cut in the middle of faults.
//!
//! As the first program of a virtual machine (`cargo xtask power-trial`) it keeps two disks, undoes what it finds on them
//! as the agent does at its start, tells what is there, and applies and undoes faults until somebody pulls the plug. It
//! judges nothing: whoever reads the serial line compares. As an ordinary test it only tries its own eyes.

#![expect(clippy::print_stdout, reason = "the serial line is how it tells")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

#[path = "power/ground.rs"]
mod ground;
#[path = "power/init.rs"]
mod init;
#[path = "power/items.rs"]
mod items;
#[path = "power/player.rs"]
mod player;
#[path = "guest/start.rs"]
mod start;
#[path = "power/words.rs"]
mod words;

fn main() -> ExitCode {
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    if std::process::id() == 1 {
        init::run();
    }
    if let Some(code) = init::play() {
        return code;
    }
    let trials: Vec<Trial> = ground::trials();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
