//! The workspace's end-to-end tests: the whole product in namespace labs, used from outside, against services that nobody
//! here wrote. The program is its own `fracas`, lab inits and onlookers; it touches nothing of the machine.

#![expect(clippy::print_stderr, reason = "measured figures are worth reading in a test's output")]
#![expect(clippy::exit, reason = "parts are programs of a few lines")]

mod alerted;
mod attacks;
mod branch;
mod bugs;
mod clock;
mod controller_trial;
mod crash_trial;
mod delay;
mod demo;
mod failover;
mod feed;
mod fill;
mod foreign;
mod gameday;
mod gone;
mod guard;
mod guest;
mod halt_trial;
mod history;
mod identity;
mod join;
mod journal;
mod keep;
mod kill;
mod ledger;
mod line;
mod lives;
mod load;
mod loss;
mod marks;
mod metrics;
mod misfortunes;
mod nobody;
mod notify;
mod offline;
mod pause;
mod people;
mod refused;
mod replace;
mod residue;
mod rig;
mod schedule;
mod secured;
mod services;
mod signin;
mod stage;
mod stops;
mod terminal;
mod trend;
mod trouble;
mod truth;
mod untouched;
mod upgrade;
mod verdicts;

use std::process::ExitCode;

use fracas_sim::need::{self, Need, Verdict};
use libtest_mimic::{Arguments, Completion, Trial};

/// Trials at the same time unless told: most of the time a trial waits, so more than one for each core is no burden.
const THREADS: usize = 3;

fn main() -> ExitCode {
    if let Some(code) = fracas::role() {
        return fracas_agent::reexec::exit_code(code);
    }
    if let Some(code) = stage::play() {
        return code;
    }
    if std::process::id() == 1 {
        guest::run();
    }
    // The longest first, so that the others run beside it.
    let trials = [
        nobody::trials(),
        controller_trial::trials(),
        crash_trial::trials(),
        demo::trials(),
        failover::trials(),
        ledger::trials(),
        secured::trials(),
        alerted::trials(),
        bugs::trials(),
        branch::trials(),
        halt_trial::trials(),
        gone::trials(),
        attacks::trials(),
        keep::trials(),
        kill::trials(),
        pause::trials(),
        delay::trials(),
        loss::trials(),
        marks::trials(),
        load::trials(),
        replace::trials(),
        fill::trials(),
        residue::trials(),
        untouched::trials(),
        misfortunes::trials(),
        refused::trials(),
        trend::trials(),
        trouble::trials(),
        join::trials(),
        identity::trials(),
        journal::trials(),
        clock::trials(),
        lives::trials(),
        line::trials(),
        terminal::trials(),
        verdicts::trials(),
        foreign::trials(),
        feed::trials(),
        offline::trials(),
        schedule::trials(),
        people::trials(),
        signin::trials(),
        stops::trials(),
        guard::trials(),
        metrics::trials(),
        notify::trials(),
        gameday::trials(),
        upgrade::trials(),
    ];
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
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
