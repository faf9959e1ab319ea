//! A controller and an agent inside this process, for `run --local`: the same parts, on loopback, for one command.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use fracas_agent::{
    command::StateArgs,
    enrol::Token,
    host::clock,
    service::{self, Kind, Options, PolicySource},
};
use fracas_cli::{BoxFuture, Local, LocalController, context::Access};
use fracas_controller::{
    config::{Config, Given, Listen},
    server::{self, Running},
};

use crate::{
    controller::observer,
    inside::{self, Inside},
};

/// How long agent and observer may take to connect.
const CONNECTED: Duration = Duration::from_secs(20);
/// Life of the one token that is made, seconds.
const TOKEN_SECONDS: u32 = 60;

/// Starts everything in this process.
pub(crate) struct InProcess;

impl Local for InProcess {
    fn start(&self, labels: BTreeMap<String, String>) -> BoxFuture<'_, anyhow::Result<LocalController>> {
        Box::pin(start(labels))
    }
}

async fn start(labels: BTreeMap<String, String>) -> anyhow::Result<LocalController> {
    let dir = tempfile::Builder::new().prefix("fracas-local-").tempdir().context("no temporary directory")?;
    let any_port = || "127.0.0.1:0".parse().ok();
    let given = Given {
        data_dir: Some(dir.path().join("controller")),
        front: any_port(),
        fleet: any_port(),
        metrics: Some(Listen::Off),
        drain: Some(fracas_model::units::Dur::ZERO),
        ..Given::default()
    };
    let config: Config = given.settle(PathBuf::new());
    let running = server::start(&config, clock::wall_bound_ns).await?;
    let observer = observer(&running, &config).await?;
    let mut agent = agent(&running, labels).await?;
    tokio::select! {
        connected = tokio::time::timeout(CONNECTED, connected(&running)) => {
            connected.context("the agent inside this command did not connect")?;
        }
        left = agent.left() => {
            let why = left.and_then(Result::err).map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            anyhow::bail!("the agent inside this command did not start: {why}");
        }
    }
    let access = Access {
        address: running.front.to_string(),
        ca_pem: running.ca_pem.clone().into_bytes(),
        token: fs::read_to_string(config.data_dir.join("admin.token"))?,
        ca_source: "the local controller".into(),
        token_source: "the local controller".into(),
    };
    let stop = Box::new(move || -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = agent.leave().await;
            let _ = observer.leave().await;
            let _ = running.drain(std::future::pending()).await;
            drop(dir);
        })
    });
    Ok(LocalController { access, stop })
}

/// An agent whose journal outlives this command: should the machine lose power, the next one undoes. It stands beside
/// the state directory of an ordinary agent.
async fn agent(running: &Running, labels: BTreeMap<String, String>) -> anyhow::Result<Inside> {
    let of_agent = StateArgs { state_dir: std::env::var_os("FRACAS_AGENT_STATE").map(PathBuf::from) };
    let state_dir = of_agent.dir().with_file_name("fracas-local");
    fs::create_dir_all(&state_dir).with_context(|| format!("cannot make {}", state_dir.display()))?;
    let dir = state_dir.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(service::undo_all(&dir))?;
        anyhow::Ok(forget_enrolment(&dir)?)
    })
    .await??;
    let options = Options {
        state_dir,
        controllers: vec![running.fleet.to_string()],
        token: Some(running.join_token(TOKEN_SECONDS, labels).await?.parse::<Token>()?),
        name: None,
        policy: PolicySource::IfThere(fracas_agent::command::POLICY.into()),
        kind: Kind::Full,
    };
    Ok(inside::start("agent", options)?)
}

/// The controller that this host was enrolled at in an earlier command is gone; the journal stays.
fn forget_enrolment(dir: &Path) -> io::Result<()> {
    for file in fracas_agent::identity::FILES.iter().chain(&[fracas_agent::outbox::FILE]) {
        match fs::remove_file(dir.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Waits until an agent with faults and the observer are in contact.
async fn connected(running: &Running) {
    let fleet = running.controller.fleet();
    let mut changes = fleet.changes();
    let there = |observer| fleet.hosts().values().any(|host| host.connected && host.observer == observer);
    while !(there(true) && there(false)) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
