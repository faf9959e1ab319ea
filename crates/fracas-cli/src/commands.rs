//! One file per command, and the one place that maps arguments to them.

mod approval;
mod audit;
mod completions;
mod decide;
mod explain;
mod guard_rails;
mod halt;
mod hosts;
mod keep;
mod login;
mod mark;
mod new;
mod notify;
mod people;
mod plan;
mod report;
mod run;
mod runs;
mod schedule;
mod schema;
mod series;
mod services;
mod show;
mod stop;
mod trend;
mod validate;
mod version;
mod watch;

use crate::{
    Session,
    args::{Command, KeepCommand},
    error::CliError,
};

/// Does it; the exit code on success.
pub(crate) async fn execute(session: &Session<'_>, command: Command) -> Result<u8, CliError> {
    match command {
        Command::Validate(given) => validate::validate(session, &given),
        Command::New(given) => new::new(session, &given),
        Command::Run(given) => run::run(session, &given).await,
        Command::Report(given) => report::report(session, &given).await,
        Command::Plan(given) => plan::plan(session, &given).await,
        Command::Watch(given) => watch::watch(session, &given).await,
        Command::Runs(given) => runs::runs(session, &given).await,
        Command::Trend(given) => trend::trend(session, &given).await,
        Command::Services(given) => services::services(session, &given).await,
        Command::Show(given) => show::show(session, &given).await,
        Command::Decide(given) => decide::decide(session, &given).await,
        Command::Mark(given) => mark::mark(session, &given).await,
        Command::Stop(given) => stop::stop(session, &given).await,
        Command::Halt(given) => halt::halt(session, given).await,
        Command::Hosts(given) => hosts::hosts(session, given).await,
        Command::Approval { command } => approval::approval(session, command).await,
        Command::GuardRails { command } => guard_rails::guard_rails(session, command).await,
        Command::Login(given) => login::login(session, &given).await,
        Command::Logout { name } => login::logout(session, name.as_deref()),
        Command::Context { command } => login::context(session, command),
        Command::Whoami => people::whoami(session).await,
        Command::People { command } => people::people(session, command).await,
        Command::Schedule { command } => schedule::schedule(session, command).await,
        Command::Notify { command } => notify::notify(session, command).await,
        Command::Audit { command } => audit::audit(session, command).await,
        Command::Faults(given) => explain::faults(session, &given),
        Command::Probes(given) => explain::probes(session, &given),
        Command::Ledgers(given) => explain::ledgers(session, &given),
        Command::Completions(given) => completions::completions(session, &given),
        Command::Version => version::version(session),
        Command::Schema(given) => schema::schema(session, &given),
    }
}

/// The same for what belongs to a controller's own keeper.
pub(crate) async fn keep(session: &Session<'_>, command: KeepCommand) -> Result<u8, CliError> {
    match command {
        KeepCommand::Prune(given) => keep::prune(session, given).await,
        KeepCommand::Backup(given) => keep::backup(session, &given).await,
    }
}
