//! The program an operator installs: composition root only. It hands parts to each other and decides nothing.
//!
//! It is a library so that a test program can play it too; its binary is two lines.

mod controller;
mod demo;
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
    args::{ABOUT, Command as OperatorCommand, Global, KeepCommand},
    context::{Access, Surroundings},
    exit,
};

use crate::{controller::ControllerArgs, demo::DemoArgs};

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
    /// See it all work in half a minute: three hosts, a shop, two experiments; leaves only a folder with reports
    Demo(DemoArgs),
    /// Run a controller: keeps the histories, drives the runs, tells agents what is desired
    Controller(ControllerArgs),
    /// Run an agent on this host, as `fracas-agent` does
    Agent(AgentArgs),
}

/// The whole program: a part that it plays when it started itself again, else what the command line says.
pub fn main() -> ExitCode {
    match role() {
        Some(code) => fracas_agent::reexec::exit_code(code),
        None => run(std::env::args_os()),
    }
}

/// Plays the part this process was started for and gives its exit code; each part looks at the first argument only.
pub fn role() -> Option<i32> {
    fracas_sim::lab::role().or_else(fracas_agent::reexec).or_else(demo::role)
}

/// What a command line says, the program's name first. The caller has looked for a [`role`] before.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Cli { global, command } = Cli::parse_from(arguments);
    ExitCode::from(match command {
        Command::Demo(args) => demo::main(&args, &global, &world),
        Command::Controller(args) => controller::main(args, global, &kept),
        Command::Agent(args) => fracas_agent::command::main(args, "fracas agent"),
        Command::Operator(command) => operator(global, command),
    })
}

/// What an operator's command gets beside its arguments.
fn world(access: Option<Access>) -> World<'static> {
    World {
        catalogue: fracas_agent::service::catalogue(fracas_faults::ALL),
        tree: Cli::command(),
        surroundings: Surroundings::from_environment(|name| std::env::var_os(name)),
        local: &local::InProcess,
        access,
    }
}

/// What a controller that runs is asked about all that it keeps.
fn kept(global: Global, command: KeepCommand) -> u8 {
    match inside::runtime() {
        Ok(runtime) => runtime.block_on(fracas_cli::keep(global, command, world(None))),
        Err(error) => inside::fatal(&error),
    }
}

fn operator(global: Global, command: OperatorCommand) -> u8 {
    let world = world(None);
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

    #[test]
    fn examples_of_the_commands_that_are_only_here_parse() {
        let tree = Cli::command();
        let controller = tree.find_subcommand("controller").unwrap();
        let commands = controller.get_subcommands().chain([controller, tree.find_subcommand("demo").unwrap()]);
        for command in commands {
            let help = command.get_after_help().unwrap().to_string();
            let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  fracas ")).collect();
            assert!(examples.len() >= 2, "{}: {examples:?}", command.get_name());
            for example in examples {
                let line = example.split(" | ").next().unwrap_or_default();
                // What is quoted is one word.
                let parts = line.split('\'').enumerate();
                let words =
                    parts.flat_map(|(n, part)| if n % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
                Cli::try_parse_from(["fracas"].into_iter().chain(words)).unwrap_or_else(|e| panic!("{example}: {e}"));
            }
        }
    }
}
