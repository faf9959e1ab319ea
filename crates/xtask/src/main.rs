//! Chores of the workspace: `cargo xtask codegen`, `cargo xtask tidy`, `cargo xtask vm`. Product code never depends on this.

#![expect(clippy::print_stderr, reason = "a chore speaks to the person who started it")]

mod codegen;
mod tidy;
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let done = match word.as_str() {
        "codegen" => codegen::write(),
        "codegen-check" => codegen::check(),
        "tidy" => tidy::run(),
        "vm" => vm::run(&arguments),
        _ => {
            eprintln!("usage: cargo xtask codegen | codegen-check | tidy | vm [TEST FILTERS AND OPTIONS]");
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
