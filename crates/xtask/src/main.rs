//! Chores of the workspace: `cargo xtask codegen`, `tidy`, `bench`, trials and `vm`. Product code never depends on this.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a chore speaks to the person who started it")]

mod bench;
mod codegen;
mod crash_trial;
mod fuzz;
mod power_trial;
mod tidy;
mod trial;
mod upgrade_trial;
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = fuzz::compile() {
        return code;
    }
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let word = if words.is_empty() { String::new() } else { words.remove(0) };
    let done = match word.as_str() {
        "codegen" => codegen::write(),
        "codegen-check" => codegen::check(),
        "controller-trial" | "halt-trial" | "loss-trial" | "schedule-trial" => trial::run(&word, &words),
        "crash-trial" => match crash_trial::run(&words) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        "power-trial" => match power_trial::run(&words) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        "tidy" => tidy::run(),
        "bench" => bench::run(&words),
        "upgrade-trial" => upgrade_trial::run(&words),
        "fuzz" => fuzz::run(&words),
        "vm" => vm::run(&words),
        _ => {
            eprintln!(
                "usage: cargo xtask bench [--help] | codegen | codegen-check | controller-trial [--help] | crash-trial [--help] | fuzz [--help] | halt-trial [--help] | loss-trial [--help] | power-trial [--help] | schedule-trial [--help] | tidy | upgrade-trial [--help] | vm [--labs] [TEST FILTERS AND OPTIONS] | vm systemd [FAULT FILTERS]"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {word}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
