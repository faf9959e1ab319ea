//! The small program for hosts: `fracas-agent`. Everything is in the library.

use std::process::ExitCode;

use clap::Parser;
use fracas_agent::command::AgentArgs;

/// Applies faults on this host, watches, and undoes everything
#[derive(Debug, Parser)]
#[command(name = "fracas-agent", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    agent: AgentArgs,
}

fn main() -> ExitCode {
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    ExitCode::from(fracas_agent::command::main(Cli::parse().agent, "fracas-agent"))
}
