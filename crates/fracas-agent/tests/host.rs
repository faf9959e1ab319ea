//! The real host tried on processes this program starts itself: workers, loads, pauses, signals.
//! The program is its own worker and its own victim, so nothing else on the machine is touched.

#![expect(clippy::print_stderr, reason = "measured figures are worth reading in a test's output")]
#![expect(clippy::exit, clippy::large_stack_arrays, reason = "victims are programs of a few lines")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

#[path = "host/burn.rs"]
mod burn;
#[path = "host/dated.rs"]
mod dated;
#[path = "host/fill.rs"]
mod fill;
#[path = "host/full.rs"]
mod full;
#[path = "host/guard.rs"]
mod guard;
#[path = "host/pause.rs"]
mod pause;
#[path = "host/replace.rs"]
mod replace;
#[path = "host/shot.rs"]
mod shot;
#[path = "host/stage.rs"]
mod stage;
#[path = "host/unit.rs"]
mod unit;
#[path = "host/workers.rs"]
mod workers;

fn main() -> ExitCode {
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    if let Some(code) = stage::play() {
        return code;
    }
    let trials = [
        full::trials(),
        workers::trials(),
        burn::trials(),
        pause::trials(),
        replace::trials(),
        fill::trials(),
        unit::trials(),
        shot::trials(),
        guard::trials(),
        dated::trials(),
    ];
    // One after another: loads on one core would take each other's time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// A trial that fails by panicking.
fn trial(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}
