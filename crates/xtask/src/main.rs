//! Chores of the workspace: `cargo xtask codegen`, `cargo xtask tidy`. Product code never depends on this.

#![expect(clippy::print_stderr, reason = "a chore speaks to the person who started it")]

mod codegen;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let done = match word.as_str() {
        "codegen" => codegen::write(),
        "codegen-check" => codegen::check(),
        "tidy" => tidy::run(),
        _ => {
            eprintln!("usage: cargo xtask codegen | codegen-check | tidy");
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
