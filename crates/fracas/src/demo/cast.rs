//! Who plays in the demo: a controller, three agents that join it with tokens, and the shop; each a process of its own,
//! started as an operator would start it. They come up in this order and end with the ground.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt as _, time::Duration};

use anyhow::{Context as _, bail};
use fracas_cli::{client::Client, context::Access};
use fracas_model::{access::DEFAULT_ENVIRONMENT, units::Dur};
use fracas_sim::lab::{End, Program, Running, Stream};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    ground::{Addresses, Ground, HOSTS, Place},
    roles::MARK,
};

/// How long each step may take; it takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Life of a join token.
const TOKEN: Dur = Dur::from_secs(60);
/// Between two looks at the fleet.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines of a log that are shown when its program ended.
const TAIL: usize = 8;
/// Labels of the hosts, in the order of [`HOSTS`].
const LABELS: [&[(&str, &str)]; 3] =
    [&[("role", "db"), ("tier", "primary")], &[("role", "db"), ("tier", "replica")], &[("role", "edge")]];

/// A program that is not to end before the demo does.
#[derive(Debug)]
struct Member {
    name: String,
    running: Running,
    /// What it wrote to standard error, in memory.
    log: File,
}

impl Member {
    fn start(ground: &Ground, place: Place, name: &str, program: Program) -> anyhow::Result<Self> {
        let log = File::from(memfd_create(c"log", MemfdFlags::CLOEXEC)?);
        let program = bare_environment(program).stderr(Stream::File(log.try_clone()?.into()));
        let running = ground.spawn(place, program).with_context(|| format!("{name} does not start"))?;
        Ok(Self { name: name.to_owned(), running, log })
    }

    /// Waits until it ends, and tells how, with its last words.
    async fn ended(&self) -> String {
        let end = match self.running.ended().await {
            Ok(End::Code(code)) => format!("with code {code}"),
            Ok(End::Signal(signal)) => format!("by signal {signal}"),
            Err(error) => format!("as {error}"),
        };
        let log = read(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail: String = lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| format!("\n  {line}")).collect();
        format!("{} ended {end}{tail}", self.name)
    }
}

/// From the beginning; the position belongs to the program that writes.
fn read(log: &File) -> io::Result<String> {
    let mut text = vec![0; usize::try_from(log.metadata()?.len()).unwrap_or(0)];
    log.read_exact_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Nothing that the person has set for controllers and agents of their own may reach those of the demo.
fn bare_environment(program: Program) -> Program {
    program.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin")
}

/// Everybody who has come up so far.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    ground: &'a Ground,
    at: Addresses,
    members: Vec<Member>,
}

impl<'a> Cast<'a> {
    /// Nobody yet.
    pub(super) fn new(ground: &'a Ground, at: Addresses) -> Self {
        Self { ground, at, members: Vec::new() }
    }

    fn start(&mut self, place: Place, name: &str, program: Program) -> anyhow::Result<()> {
        self.members.push(Member::start(self.ground, place, name, program)?);
        Ok(())
    }

    /// Starts the controller and waits until it serves; how to call it at its own address.
    pub(super) async fn controller(&mut self) -> anyhow::Result<Access> {
        let directory = self.ground.directory("controller");
        let (front, fleet) = (self.at.front.to_string(), self.at.fleet.to_string());
        let program = Program::this().args(["controller", "--data-dir", &directory]);
        let program = program.args(["--front-listen", &front, "--fleet-listen", &fleet, "--metrics-listen", "off"]);
        let program = program.args(["--drain", "0s"]);
        self.start(Place::Outside, "the controller", program)?;
        let words = ["access".to_owned(), directory, PATIENCE.as_secs().to_string()];
        let said = self.play(Place::Outside, &words).await?;
        let (token, ca_pem) = said.split_once('\n').context("the controller has no token")?;
        let source = "the demo's controller".to_owned();
        Ok(Access {
            address: front,
            ca_pem: ca_pem.as_bytes().to_vec(),
            token: token.to_owned(),
            ca_source: source.clone(),
            token_source: source,
        })
    }

    /// Lets the hosts join, each with a token of its own, and waits until all are in contact.
    pub(super) async fn agents(&mut self, client: &Client) -> anyhow::Result<()> {
        let fleet = self.at.fleet.to_string();
        for (n, (name, labels)) in HOSTS.into_iter().zip(LABELS).enumerate() {
            let labels: BTreeMap<String, String> =
                labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let (token, _) =
                self.unless_ended(async { Ok(client.join_token(TOKEN, labels, DEFAULT_ENVIRONMENT).await?) }).await?;
            let directory = self.ground.directory(name);
            let program = Program::this().args(["agent", "--controller", &fleet, "--name", name]);
            let program = program.args(["--state-dir", &directory]).env("FRACAS_JOIN_TOKEN", token);
            self.start(Place::Host(n), &format!("the agent of {name}"), program)?;
        }
        let all = async {
            loop {
                let hosts = client.hosts("").await?;
                // The controller's own observer is one more.
                if hosts.iter().filter(|host| host.connected).count() > HOSTS.len() {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        self.unless_ended(all).await.context("the agents did not all join")
    }

    /// Opens the shop and waits until it takes an order. The primary's process gets this name.
    pub(super) async fn shop(&mut self, primary_name: &str) -> anyhow::Result<()> {
        let [primary, replica, shop] = [self.at.primary, self.at.replica, self.at.shop].map(|a| a.to_string());
        let part = |words: &[&str]| Program::this().arg(MARK).args(words.iter().copied());
        self.start(Place::Host(1), "the replica", part(&["replica", &replica]))?;
        let supervise = part(&["supervise", primary_name, &primary, &replica]);
        self.start(Place::Host(0), "the primary's supervisor", supervise)?;
        self.start(Place::Host(2), "the shop's front", part(&["front", &shop, &primary, &replica]))?;
        let words = ["ask".to_owned(), shop, "/order".to_owned(), PATIENCE.as_secs().to_string()];
        self.play(Place::Host(2), &words).await.map(drop).context("the shop does not open")
    }

    /// Waits until somebody ends who should not.
    pub(super) async fn ended(&self) -> String {
        let all = self.members.iter().map(|member| Box::pin(member.ended()));
        futures_util::future::select_all(all).await.0
    }

    /// Plays a part to its end; what it printed.
    async fn play(&self, place: Place, words: &[String]) -> anyhow::Result<String> {
        let program = bare_environment(Program::this().arg(MARK).args(words.iter().cloned()));
        let running = self.ground.spawn(place, program.stdout(Stream::Pipe).stderr(Stream::Pipe))?;
        // The thread ends with the part, and the part with the ground.
        let output = tokio::task::spawn_blocking(move || running.output());
        let output = self.unless_ended(async { Ok::<_, anyhow::Error>(output.await??) }).await?;
        if !output.end.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Does it, unless somebody ends meanwhile or it takes too long.
    async fn unless_ended<T>(&self, doing: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            done = tokio::time::timeout(PATIENCE, doing) => {
                done.with_context(|| format!("nothing came of it within {} s", PATIENCE.as_secs()))?
            }
            why = self.ended() => bail!("{why}"),
        }
    }
}
