//! `fracas demo`: a controller, three agents and a small shop on three lab hosts, two experiments on it, and nothing
//! left behind. It plays by the rules of everybody else: the same programs, documents, tokens and commands.
//!
//! ```text
//! this process    the command line: `run` and `report`, live on a terminal          demo.rs
//!  │ door         a port on loopback that leads into the lab                        demo/door.rs
//!  ▼
//! lab             the controller; three hosts, each with its agent                  demo/ground.rs, demo/cast.rs
//!                 the shop: front on edge-1, primary on db-1, replica on db-2       demo/shop.rs
//! ```

mod cast;
mod door;
mod folder;
mod ground;
mod interrupts;
mod kept;
mod roles;
mod runs;
mod shop;
mod told;

use std::{path::PathBuf, time::Instant};

use clap::Args;
use fracas_cli::{World, args::Global, client::Client, context::Access, exit};

pub(crate) use self::roles::role;
use self::{
    cast::Cast,
    door::Door,
    folder::{BUSY, Folder, KILL, SLOW, Written},
    ground::{Addresses, Ground, HOSTS},
    interrupts::Interrupts,
    told::Told,
};
use crate::inside;

const HELP: &str = "Example:
  fracas demo
  fracas demo --to /tmp/try --keep
  fracas demo | cat

What happens:
  1. A lab: three hosts, db-1, db-2 and edge-1, as namespaces of this machine, which does not notice them. Root has it \
     at once, other users where the kernel lets them have user namespaces. Where there can be none, all of it runs on \
     this machine's loopback, and what is then left out is said.
  2. A controller beside the hosts, and on each host an agent that joins it with a one-time token.
  3. A shop on the hosts: edge-1 takes orders and asks the primary on db-1, which copies each to the replica on db-2. \
     A supervisor starts the primary again a second after it died.
  4. Two experiments, by `fracas run` as in everyday use: the primary is killed; its network becomes slow. Their \
     documents are written to the folder, with comments. Change them and run the demo again: it takes them as they are.
  5. The verdicts, and a report of each as one HTML file in the folder. Nothing that is there is overwritten.

Everything ends with this command, also when it is killed. The first Ctrl-C stops the experiment, shows the undo and \
ends the demo; the second leaves at once.

With --keep the lab stays up until Ctrl-C, and what to type in another terminal is printed: hosts, experiments of your \
own, and the shop's address.

Exit code: 0 when both verdicts are pass, else that of the first run that is not (see fracas --help); 130 after Ctrl-C \
before a run or after the second.";

/// What the demo is without on loopback.
const LEFT_OUT: [&str; 3] = [
    "hosts of their own: all three agents see this machine and the same processes",
    "trouble in the network, which never touches loopback: the second experiment burns a processor instead",
    "a machine that does not notice: the programs and their ports are in plain sight until the end",
];

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DemoArgs {
    /// Folder of the documents and reports; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "fracas-demo")]
    to: PathBuf,
    /// Keep the lab up after the experiments, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Do without namespaces, on this machine's loopback, even where there could be a lab
    #[arg(long)]
    loopback: bool,
}

/// Runs the demo and gives the exit code. `world` gives a command what `main` gives it, and the controller to call.
pub(crate) fn main(args: &DemoArgs, global: &Global, world: &dyn Fn(Option<Access>) -> World<'static>) -> u8 {
    let told = Told::new(global, &world(None).surroundings);
    let runtime = match inside::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return inside::fatal(&error),
    };
    let program = std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "fracas".into());
    let demo = Demo { args, global, world, told, program };
    runtime.block_on(demo.play()).unwrap_or_else(|error| {
        told.broken();
        inside::fatal(&format!("{error:#}"))
    })
}

/// What all of the demo needs.
struct Demo<'a> {
    args: &'a DemoArgs,
    global: &'a Global,
    world: &'a dyn Fn(Option<Access>) -> World<'static>,
    told: Told,
    /// How this program is called, for command lines to be typed.
    program: String,
}

/// What the experiments need, once everything is up.
struct Stage {
    access: Access,
    client: Client,
    /// Values for the documents' parameters.
    set: Vec<(String, String)>,
    /// The way into the lab; none where there is no lab.
    _door: Option<Door>,
}

impl Demo<'_> {
    async fn play(&self) -> anyhow::Result<u8> {
        let (told, begun) = (self.told, Instant::now());
        let mut interrupts = Interrupts::watch()?;
        let folder = Folder::open(&self.args.to)?;
        told.line("Three hosts, a shop on them, two experiments. It takes half a minute, and only a folder stays.");
        told.heading("The stage");
        let (ground, at) = self.ground()?;
        let played = self.on(&ground, at, &folder, &mut interrupts).await;
        if played.is_err() {
            told.broken();
        }
        let ending = Instant::now();
        ground.end()?;
        let code = played?;
        told.done(
            "end",
            &format!(
                "lab, controller, agents and shop are gone ({} ms); the whole demo took {} s",
                ending.elapsed().as_millis(),
                begun.elapsed().as_secs()
            ),
        );
        Ok(code)
    }

    /// Everything between the beginning and the end of the ground.
    async fn on(
        &self,
        ground: &Ground,
        at: Addresses,
        folder: &Folder,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<u8> {
        let documents = match ground {
            Ground::Lab(..) => [KILL, SLOW],
            Ground::Bare(_) => [KILL, BUSY],
        };
        let documents: Vec<Written> = documents.iter().map(|d| folder.document(*d)).collect::<Result<_, _>>()?;
        let mut cast = Cast::new(ground, at);
        let stage = tokio::select! {
            biased;
            () = interrupts.next() => None,
            stage = self.set_up(ground, at, &mut cast) => Some(stage?),
        };
        let Some(stage) = stage else {
            self.told.broken();
            self.told.line("Stopped before the experiments.");
            return Ok(exit::LEFT);
        };
        self.told.done("documents", &documents.iter().map(Written::said).collect::<Vec<_>>().join("\n"));
        let code = self.experiments(&stage, &cast, folder, &documents, interrupts).await?;
        if interrupts.count() == 0 {
            if self.args.keep {
                self.keep(&stage, ground, &cast, at, &documents, interrupts).await?;
            } else {
                let again = format!("{} demo --keep", self.program);
                self.told.line(&format!(
                    "\nNext: change the documents and run it again; or have the lab for yourself: {again}"
                ));
            }
        }
        Ok(code)
    }

    /// A lab, or where there can be none the loopback, with a word on what is left out.
    fn ground(&self) -> anyhow::Result<(Ground, Addresses)> {
        let told = self.told;
        told.begun("hosts", "starting three");
        let why = if self.args.loopback {
            "--loopback".to_owned()
        } else {
            match Ground::lab() {
                Ok((ground, at)) => {
                    told.done("hosts", &ground.said());
                    return Ok((ground, at));
                }
                Err(error) => error.to_string(),
            }
        };
        let (ground, at) = Ground::bare()?;
        told.done(
            "hosts",
            &format!(
                "none of their own: everything is on this machine's loopback\nwhy: {why}\nleft out:\n  {}",
                LEFT_OUT.join("\n  ")
            ),
        );
        Ok((ground, at))
    }

    async fn set_up(&self, ground: &Ground, at: Addresses, cast: &mut Cast<'_>) -> anyhow::Result<Stage> {
        let told = self.told;
        told.begun("controller", "making its authority, its keys and its history");
        let mut access = cast.controller().await?;
        let door = match ground {
            Ground::Lab(lab, _) => Some(Door::open(lab.outside(), at.front).await?),
            Ground::Bare(_) => None,
        };
        if let Some(door) = &door {
            access.address = door.at.to_string();
        }
        told.done("controller", &format!("{} for operators, {} for agents, with mutual TLS", at.front, at.fleet));
        let client = Client::new(&access)?;
        told.begun("agents", "joining");
        cast.agents(&client).await?;
        told.done("agents", &format!("{} joined with one-time tokens", HOSTS.join(", ")));
        told.begun("shop", "opening");
        let set = ground.parameters(at);
        let name = set.iter().find(|(name, _)| name == "primary").map_or("shop-primary", |(_, value)| value);
        cast.shop(name).await?;
        told.done(
            "shop",
            "customers -> front on edge-1 -> primary on db-1 -> replica on db-2\n\
             a supervisor starts the primary again one second after it died",
        );
        Ok(Stage { access, client, set, _door: door })
    }
}
