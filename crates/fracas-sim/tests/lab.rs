//! The namespace lab tried for real: its hosts, their network and programs, and what is left when it ends.
//! The program is its own lab init, its own host programs and its own creator to be killed; it touches nothing else.

#![expect(clippy::print_stderr, reason = "measured figures are worth reading in a test's output")]
#![expect(clippy::exit, reason = "parts are programs of a few lines")]

use std::process::ExitCode;

use fracas_sim::need::{self, Need, Verdict};
use libtest_mimic::{Arguments, Completion, Trial};

#[path = "lab/bare.rs"]
mod bare;
#[path = "lab/ends.rs"]
mod ends;
#[path = "lab/hosts.rs"]
mod hosts;
#[path = "lab/network.rs"]
mod network;
#[path = "lab/programs.rs"]
mod programs;
#[path = "lab/stage.rs"]
mod stage;
#[path = "lab/traces.rs"]
mod traces;
#[path = "lab/user.rs"]
mod user;

fn main() -> ExitCode {
    if let Some(code) = fracas_sim::lab::role() {
        return fracas_agent::reexec::exit_code(code);
    }
    if let Some(code) = stage::play() {
        return code;
    }
    let trials =
        [hosts::trials(), network::trials(), programs::trials(), ends::trials(), bare::trials(), user::trials()];
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
