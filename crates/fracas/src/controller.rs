//! `fracas controller`: flags, environment and file become settings; the controller runs until it is asked to end.

mod backup;
mod verify;

use std::{io::Write as _, net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};
use fracas_agent::{
    enrol::Token,
    host::clock,
    logging::LogArgs,
    notify::Notify,
    service::{Kind, Options, PolicySource},
};
use fracas_cli::{
    args::{Global, KeepCommand, PruneArgs},
    exit,
};
use fracas_controller::{
    config::{CERTIFICATE_LIVES, Config, Given, Listen, days, read_file},
    datadir,
    server::{self, Ended, Running},
};
use fracas_model::{policy::Policy, units::Dur};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    backup::{Backup, RestoreArgs},
    verify::VerifyArgs,
};
use crate::inside::{self, Inside};

const HELP: &str = "Example:
  fracas controller
  fracas controller --front-listen 10.0.0.5:7766 --fleet-listen 10.0.0.5:7767 --name fracas.internal
  fracas controller --config controller.yaml --check-config
  fracas controller --metrics-listen off
  fracas controller verify --data-dir /var/lib/fracas

The first start makes a certificate authority, an admin token and a context file in the data directory, by which \
`fracas` on this machine finds the controller. Hosts join with one-time tokens: fracas hosts join-token.

The configuration file may also say whom to tell what happens, below `notifications`: see `fracas notify`.

GET /metrics (for Prometheus), /healthz and /readyz at --metrics-listen are plain HTTP and ask for no token. Whoever \
reaches that address learns how many hosts, runs, faults and schedules there are, in which states, what is called and how \
fast, the version, and when certificates expire; never a name of a run, a host, a schedule or a person. Give it an address \
other than loopback only in a network where everybody may know that.

Precedence: a flag beats its environment variable, that beats the configuration file, that beats the default.
SIGTERM: no new runs, waits --drain for those that are active, stops and undoes the rest, ends. A second one ends at \
once; then agents undo by themselves when their leases run out, and the next start takes the runs up.";

/// Arguments of `controller`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct ControllerArgs {
    /// Do something else than run.
    #[command(subcommand)]
    command: Option<ControllerCommand>,
    /// Configuration file, YAML or JSON (kind: ControllerConfig)
    #[arg(long, value_name = "FILE", env = "FRACAS_CONFIG")]
    config: Option<PathBuf>,
    /// Print the settings that hold and end, without starting anything
    #[arg(long)]
    check_config: bool,
    /// Directory of everything the controller keeps [default: /var/lib/fracas, or below XDG_DATA_HOME]
    #[arg(long, value_name = "DIR", env = "FRACAS_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address for operators and programs [default: 127.0.0.1:7766]
    #[arg(long, value_name = "IP:PORT", env = "FRACAS_FRONT_LISTEN")]
    front_listen: Option<SocketAddr>,
    /// Address for agents [default: 127.0.0.1:7767]
    #[arg(long, value_name = "IP:PORT", env = "FRACAS_FLEET_LISTEN")]
    fleet_listen: Option<SocketAddr>,
    /// Address for metrics and health, or off [default: 127.0.0.1:7768]; needs no token, see below
    #[arg(long, value_name = "IP:PORT", env = "FRACAS_METRICS_LISTEN")]
    metrics_listen: Option<Listen>,
    /// Name or address under which clients reach this controller, for its certificate; may be repeated
    #[arg(long = "name", value_name = "NAME", env = "FRACAS_NAMES", value_delimiter = ',')]
    names: Vec<String>,
    /// Life of hosts' certificates, 20s to 3650d [default: 365d]; agents renew them when half of it is over
    #[arg(long, value_name = "DURATION", env = "FRACAS_HOST_CERTIFICATE_LIFE", value_parser = certificate_life)]
    host_certificate_life: Option<Dur>,
    /// The same in days, as older versions had it
    #[arg(long, value_name = "DAYS", env = "FRACAS_HOST_CERTIFICATE_DAYS", value_parser = clap::value_parser!(u32).range(1..=3650), hide = true)]
    host_certificate_days: Option<u32>,
    /// How long active runs may go on after SIGTERM [default: 30s]
    #[arg(long, value_name = "DURATION", env = "FRACAS_DRAIN")]
    drain: Option<Dur>,
    /// Run no observer beside it: then every probe needs `from`
    #[arg(long)]
    no_observer: bool,
    /// The log.
    #[command(flatten)]
    log: LogArgs,
}

/// What can be done with what a controller keeps.
#[derive(Clone, Debug, Subcommand)]
enum ControllerCommand {
    /// Prove the history in a data directory whole, offline; changes nothing in it
    #[command(after_help = verify::HELP)]
    Verify(VerifyArgs),
    /// Remove runs that ended long ago from the running controller for good; what stays can still be proved
    #[command(after_help = PRUNE_HELP)]
    Prune(PruneArgs),
    /// Make a copy of everything that makes a controller what it is, while it works
    #[command(after_help = backup::BACKUP_HELP)]
    Backup(Backup),
    /// Put a backup back into a new data directory
    #[command(after_help = backup::RESTORE_HELP)]
    Restore(RestoreArgs),
}

const PRUNE_HELP: &str = "Example:
  fracas controller prune --older-than 400d --dry-run
  fracas controller prune --older-than 400d --keep-last 20 --reason 'kept for as long as the contract says' --yes

Runs go whole, with their readings and reports, and facts of schedules that are as old, summed up. What is open, not \
sealed, among the newest, or explains a quarantine stays; so do hosts and the audit stream, which says what went, when, by \
whom and why, and keeps the head and the report's digest of each run. That is signed before anything goes.

By itself, once a day: retention: { runs: 400d, keepLast: 20 } in the configuration file.";

impl ControllerArgs {
    fn settled(&self) -> Result<Config, String> {
        let file = match &self.config {
            None => Given::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))?;
                read_file(&name, &text)?
            }
        };
        let flags = Given {
            data_dir: self.data_dir.clone(),
            front: self.front_listen,
            fleet: self.fleet_listen,
            metrics: self.metrics_listen,
            names: self.names.clone(),
            host_certificate_life: self.host_certificate_life.or(self.host_certificate_days.map(|n| days(n.into()))),
            drain: self.drain,
            observer: self.no_observer.then_some(false),
            notifications: Vec::new(),
            sign_in: None,
            retention: None,
        };
        let given = flags.over(file);
        let default = data_dir(given.data_dir.clone())?;
        Ok(given.settle(default))
    }
}

/// The directory that was given, else the usual one.
fn certificate_life(text: &str) -> Result<Dur, String> {
    let life: Dur = text.parse().map_err(|error| format!("{error}"))?;
    let (least, most) = CERTIFICATE_LIVES;
    if (least..=most).contains(&life) { Ok(life) } else { Err(format!("give a duration from {least} to {most}")) }
}

fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, String> {
    let root = rustix::process::geteuid().is_root();
    match given {
        Some(dir) => Ok(dir),
        None => datadir::default_path(root, &|name| std::env::var(name).ok()).map_err(|e| e.to_string()),
    }
}

/// Runs a controller, or does what is said instead, and gives the exit code; `running` hands on what one that runs is asked.
pub(crate) fn main(mut args: ControllerArgs, global: Global, running: &dyn Fn(Global, KeepCommand) -> u8) -> u8 {
    match args.command.take() {
        Some(ControllerCommand::Verify(args)) => return verify::main(&args, &global),
        Some(ControllerCommand::Prune(args)) => return running(global, KeepCommand::Prune(args)),
        Some(ControllerCommand::Backup(Backup { what, data_dir: Some(dir) })) => {
            return backup::backup(&what, dir, &global);
        }
        Some(ControllerCommand::Backup(Backup { what, data_dir: None })) => {
            return running(global, KeepCommand::Backup(what));
        }
        Some(ControllerCommand::Restore(args)) => return backup::main(&args, &global),
        None => {}
    }
    let config = match args.settled() {
        Ok(config) => config,
        Err(error) => {
            inside::fatal(&error);
            return exit::USAGE;
        }
    };
    if args.check_config {
        let _ = write!(std::io::stdout(), "{}", config.text());
        return exit::PASS;
    }
    args.log.begin();
    match inside::runtime() {
        Ok(runtime) => runtime.block_on(serve(&config)).unwrap_or_else(|error| inside::fatal(&format!("{error:#}"))),
        Err(error) => inside::fatal(&error),
    }
}

async fn serve(config: &Config) -> anyhow::Result<u8> {
    let systemd = Notify::from_environment();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let starting = server::start(config, clock::wall_bound_ns);
    let Some(started) = unless(asked(&mut term, &mut int), starting).await else {
        tracing::warn!("asked to end before it was ready: runs that were open stay so for the next start");
        return Ok(exit::ERROR);
    };
    let running = started?;
    let mut observer = if config.observer { Some(observer(&running, config).await?) } else { None };
    tracing::info!(
        front = %running.front,
        fleet = %running.fleet,
        metrics = %running.metrics.map_or(Listen::Off, Listen::At),
        context = %running.context.display(),
        resumed = running.resumed,
        "controller ready"
    );
    systemd.ready();
    systemd.status(&format!("operators at {}, agents at {}", running.front, running.fleet));
    loop {
        let gone = async {
            match &mut observer {
                Some(observer) => observer.left().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = asked(&mut term, &mut int) => break,
            never = systemd.living() => match never {},
            ended = gone => {
                // Runs go on; probes without `from` are refused until the next start.
                tracing::error!(why = ?ended.map(|e| e.map_err(|e| e.to_string())), "the observer ended");
                observer = None;
            }
        }
    }
    tracing::info!("asked to end: no new runs");
    systemd.stopping();
    let ended = tokio::select! {
        ended = running.drain(asked(&mut term, &mut int)) => ended,
        never = systemd.living() => match never {},
    };
    if let Some(observer) = observer {
        let _ = observer.leave().await;
    }
    Ok(match ended {
        Ended::Clean => exit::PASS,
        Ended::Open(open) => {
            tracing::warn!(
                open,
                "runs were left open: their faults end with their leases, the next start takes them up"
            );
            exit::UNDO_UNCONFIRMED
        }
    })
}

/// What a start gives, unless it is called off first: what it waits for may never come.
async fn unless<T>(called_off: impl Future<Output = ()>, start: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        started = start => Some(started),
        () = called_off => None,
    }
}

async fn asked(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// The controller's own observer, enrolled like any other host.
pub(crate) async fn observer(running: &Running, config: &Config) -> anyhow::Result<Inside> {
    let token = running.observer_token().await?;
    let options = Options {
        state_dir: config.data_dir.join("observer"),
        controllers: vec![running.fleet.to_string()],
        token: Some(token.parse::<Token>()?),
        name: Some("observer".into()),
        policy: PolicySource::Given(Box::new(Policy::builtin())),
        kind: Kind::Observer,
    };
    Ok(inside::start("observer", options)?)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn a_start_that_never_ends_can_be_called_off() {
        let runtime = inside::runtime().unwrap();
        assert_eq!(runtime.block_on(unless(ready(()), pending::<()>())), None);
        assert_eq!(runtime.block_on(unless(pending(), ready(7))), Some(7));
    }
}
