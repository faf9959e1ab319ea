//! Chores of the workspace: `cargo xtask codegen`, `cargo xtask tidy`, `cargo xtask bench`. Product code never depends on this.

#![expect(clippy::print_stderr, reason = "a chore speaks to the person who started it")]

mod bench;
mod codegen;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    let words: Vec<String> = std::env::args().skip(2).collect();
    let word = std::env::args().nth(1).unwrap_or_default();
    let done = match word.as_str() {
        "codegen" => codegen::write(),
        "codegen-check" => codegen::check(),
        "tidy" => tidy::run(),
        "bench" => bench::run(&words),
        _ => {
            eprintln!("usage: cargo xtask bench [--help] | codegen | codegen-check | tidy");
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
