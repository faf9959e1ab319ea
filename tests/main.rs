//! The workspace's end-to-end tests: the whole product in namespace labs, used from outside, against services that nobody
//! here wrote. The program is its own `fracas`, lab inits and onlookers; it touches nothing of the machine.

#![expect(clippy::print_stderr, reason = "measured figures are worth reading in a test's output")]
#![expect(clippy::exit, reason = "parts are programs of a few lines")]

mod clock;
mod delay;
mod foreign;
mod gone;
mod history;
mod join;
mod kill;
mod line;
mod lives;
mod load;
mod loss;
mod nobody;
mod offline;
mod pause;
mod refused;
mod residue;
mod rig;
mod services;
mod stage;
mod trouble;
mod truth;
mod verdicts;

use std::process::ExitCode;

use fracas_sim::need::{self, Need, Verdict};
use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    if let Some(code) = fracas_sim::lab::role() {
        return fracas_agent::reexec::exit_code(code);
    }
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    if let Some(code) = stage::play() {
        return code;
    }
    let trials = [
        kill::trials(),
        pause::trials(),
        delay::trials(),
        loss::trials(),
        load::trials(),
        residue::trials(),
        refused::trials(),
        trouble::trials(),
        gone::trials(),
        join::trials(),
        clock::trials(),
        lives::trials(),
        line::trials(),
        offline::trials(),
        foreign::trials(),
        verdicts::trials(),
        nobody::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}

/// A trial that fails by panicking, and is skipped where a need is not met.
fn trial(name: &str, needs: &'static [Need], run: fn()) -> Trial {
    Trial::ignorable_test(name, move || match need::check(needs) {
        Verdict::Go => {
            run();
            Ok(Completion::Completed)
        }
        Verdict::Skip(why) => Ok(Completion::ignored_with(why)),
        Verdict::Fail(why) => Err(why.into()),
    })
}
