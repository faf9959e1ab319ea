//! Agent and controller as services of a real systemd: installed, ill-treated, removed. In a virtual machine only:
//! `cargo xtask vm systemd`. It trusts nothing that the product says of itself: effects are seen by other programs.
//!
//! One program plays all parts of the guest: the first one, which mounts the disk and hands over to systemd; the service
//! that runs the trials, one after the other, since each goes on where the one before ended; and their victims.

#![expect(clippy::print_stdout, reason = "the serial line is all that the guest's owner sees")]

use std::process::ExitCode;

#[path = "systemd/deaths.rs"]
mod deaths;
#[path = "systemd/faults.rs"]
mod faults;
#[path = "systemd/first.rs"]
mod first;
#[path = "systemd/guest.rs"]
mod guest;
#[path = "systemd/look.rs"]
mod look;
#[path = "systemd/setup.rs"]
mod setup;
#[path = "systemd/victim.rs"]
mod victim;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        first::run();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("victim") => victim::serve(&words[1..]),
        Some(other) => {
            println!("this is no program to be started by hand ({other}): cargo xtask vm systemd");
            ExitCode::FAILURE
        }
        None => guest::run(&[setup::TRIALS, faults::TRIALS, deaths::TRIALS, setup::LAST].concat()),
    }
}
