//! The command line: parse, call, print. It never decides what a run does, and knows faults and probes only as data.
//!
//! The composition root hands over the catalogue, the whole argument tree and a way to start a local controller.

pub mod args;
mod attend;
pub mod client;
mod commands;
pub mod context;
pub mod contexts;
pub mod draft;
pub mod error;
pub mod exit;
mod face;
#[cfg(test)]
mod fixture;
mod flat;
mod follow;
mod lines;
mod live;
mod output;
pub mod render;
mod schema;
mod source;
mod steps;
mod table;
pub mod times;
pub mod verification;
mod words;

use std::{collections::BTreeMap, future::Future, io::Write as _, pin::Pin};

use fracas_model::{catalogue::Catalogue, diagnostic::harmless};

use crate::{
    args::{Command, Global, KeepCommand},
    client::Client,
    context::{Access, Surroundings},
    error::CliError,
    output::Output,
};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the composition root gives to the commands.
pub struct World<'a> {
    /// Every fault and probe this build knows; serves the commands that work offline.
    pub catalogue: Catalogue,
    /// The binary's whole argument tree, for completions.
    pub tree: clap::Command,
    /// What of the process's environment matters.
    pub surroundings: Surroundings,
    /// How `run --local` gets its controller.
    pub local: &'a dyn Local,
    /// The controller to call, where the composition root knows it; else options, environment and files say.
    pub access: Option<Access>,
}

/// Starts a controller and an agent inside this process, for `run --local`.
pub trait Local: Send + Sync {
    /// Starts both, the agent's host having these labels, and returns when it is connected.
    fn start(&self, labels: BTreeMap<String, String>) -> BoxFuture<'_, anyhow::Result<LocalController>>;
}

/// A controller inside this process.
pub struct LocalController {
    /// How to call it.
    pub access: Access,
    /// Ends agent and controller in this order; everything is undone when it returns.
    pub stop: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
}

/// Everything a command gets beside its own arguments.
pub(crate) struct Session<'a> {
    pub(crate) world: World<'a>,
    pub(crate) global: Global,
    pub(crate) output: Output,
}

impl<'a> Session<'a> {
    fn new(global: Global, world: World<'a>) -> Self {
        let output = Output::new(&global, &world.surroundings);
        Self { world, global, output }
    }

    /// How to call the configured controller.
    pub(crate) fn access(&self) -> Result<Access, CliError> {
        match &self.world.access {
            Some(given) => Ok(given.clone()),
            None => Ok(context::find(&self.global, &self.world.surroundings)?),
        }
    }

    /// The configured controller.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::new(&self.access()?)?)
    }

    /// Columns for tables and texts.
    #[expect(clippy::unused_self, reason = "the width belongs to the session's output")]
    pub(crate) fn width(&self) -> usize {
        Output::size().0
    }
}

/// Does what `command` says and returns the process's exit code. Errors are printed to standard error.
pub async fn main(global: Global, command: Command, world: World<'_>) -> u8 {
    let session = Session::new(global, world);
    let done = commands::execute(&session, command).await;
    ended(done, session.output)
}

/// The same for commands that stand under `fracas controller`, since they are about all that it keeps.
pub async fn keep(global: Global, command: KeepCommand, world: World<'_>) -> u8 {
    let session = Session::new(global, world);
    let done = commands::keep(&session, command).await;
    ended(done, session.output)
}

fn ended(done: Result<u8, CliError>, output: Output) -> u8 {
    match done {
        Ok(code) => code,
        Err(error) => {
            if !error.text.is_empty() {
                let _ = writeln!(std::io::stderr().lock(), "{}", said(&error, output));
            }
            error.exit
        }
    }
}

fn said(error: &CliError, output: Output) -> String {
    if output.json {
        return output::tagged("fracas.error/v1", &serde_json::json!({ "exitCode": error.exit, "text": error.text }))
            .to_string();
    }
    let (red, plain) = if output.colour { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    format!("{red}fracas:{plain} {}", harmless(&error.text))
}
