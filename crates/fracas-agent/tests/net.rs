//! What network faults promise, written once and tried on both planes: rules of the network worker, and netem.
//!
//! Each trial is this program started again, in a network namespace of its own with others beside it, so the machine's
//! network is never touched and a killed trial leaves nothing. As the first program of a virtual machine it sets up the
//! little it needs and runs the list there: `cargo xtask vm`.
//!
//! `FRACAS_PLANES=owner,netem` says which planes are tried; `owner` alone by default, and both in the virtual machine.

#![expect(clippy::print_stdout, reason = "a trial tells its parent what it measured")]

use std::process::ExitCode;

#[path = "net/delay.rs"]
mod delay;
#[path = "net/dump.rs"]
mod dump;
#[path = "net/filter.rs"]
mod filter;
#[path = "net/init.rs"]
mod init;
#[path = "net/loss.rs"]
mod loss;
#[path = "net/measure.rs"]
mod measure;
#[path = "net/netem.rs"]
mod netem;
#[path = "net/owner.rs"]
mod owner;
#[path = "net/plane.rs"]
mod plane;
#[path = "net/run.rs"]
mod run;
#[path = "net/stage.rs"]
mod stage;
#[path = "guest/start.rs"]
mod start;
#[path = "guest/trials.rs"]
mod trials;
#[path = "net/undo.rs"]
mod undo;

fn main() -> ExitCode {
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    if std::process::id() == 1 {
        init::run();
    }
    let cases = [delay::CASES, loss::CASES, filter::CASES, undo::CASES, owner::CASES, netem::CASES].concat();
    run::run(&cases)
}
