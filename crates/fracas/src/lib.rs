//! The program an operator installs: composition root only. It hands parts to each other and decides nothing.
//!
//! It is a library so that a test program can play it too; its binary is two lines.

mod controller;
mod inside;
mod local;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum as _};
use fracas_agent::{
    command::AgentArgs,
    logging::{LogArgs, LogLevel},
};
use fracas_cli::{
    World,
    args::{ABOUT, Command as OperatorCommand, Global},
    context::Surroundings,
    exit,
};

use crate::controller::ControllerArgs;

/// Everything `fracas` can be asked.
#[derive(Debug, Parser)]
#[command(name = "fracas", version, about = ABOUT, after_help = exit::TABLE, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Operator(OperatorCommand),
    /// Run a controller: keeps the histories, drives the runs, tells agents what is desired
    Controller(ControllerArgs),
    /// Run an agent on this host, as `fracas-agent` does
    Agent(AgentArgs),
}

/// The whole program: a worker's role when this process was started for one, else what the command line says.
pub fn main() -> ExitCode {
    if let Some(code) = fracas_agent::reexec() {
        return fracas_agent::reexec::exit_code(code);
    }
    run(std::env::args_os())
}

/// What a command line says, the program's name first. The caller has looked for a role before.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Cli { global, command } = Cli::parse_from(arguments);
    ExitCode::from(match command {
        Command::Controller(args) => controller::main(args),
        Command::Agent(args) => fracas_agent::command::main(args),
        Command::Operator(command) => operator(global, command),
    })
}

fn operator(global: Global, command: OperatorCommand) -> u8 {
    let world = World {
        catalogue: fracas_agent::service::catalogue(fracas_faults::ALL),
        tree: Cli::command(),
        surroundings: Surroundings::from_environment(|name| std::env::var_os(name)),
        local: &local::InProcess,
    };
    // Parts inside this process (`run --local`) log only when asked to: the command's own output is for people.
    if let Some(level) = std::env::var("FRACAS_LOG_LEVEL").ok().and_then(|l| LogLevel::from_str(&l, true).ok()) {
        LogArgs { log_level: level, ..LogArgs::default() }.begin();
    }
    match inside::runtime() {
        Ok(runtime) => runtime.block_on(fracas_cli::main(global, command, world)),
        Err(error) => inside::fatal(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}
