//! The arguments of `fracas-agent`, which are those of `fracas agent` too, and what they do.

mod check;
mod history;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use crate::{
    crash,
    enrol::Token,
    guard::Outcome,
    identity::Identity,
    install::{self, InstallArgs, UninstallArgs},
    journal::Look,
    lock::{self, Lock},
    logging::LogArgs,
    notify::Notify,
    rules::{Origin, Rules},
    run::Left,
    service::{self, Kind, Options, PolicySource, VERSION},
};

/// Where the host owner's rules are looked for unless told.
pub const POLICY: &str = "/etc/fracas/policy.yaml";

/// Exit code of what did not work.
const FAILED: u8 = 5;

const HELP: &str = "Example:
  fracas hosts join-token --label role=db > token          (where the operator is)
  fracas-agent --controller ctl.internal:7767 --join-token-file token

It dials out, enrols with the token at its first start, and applies what the controller asks for, within this host's \
own policy. Everything it applies ends by itself: after its time, when contact is lost for longer than the lease, and \
when this process dies. As an ordinary user it works too and says what it cannot do: fracas-agent check.

Exit codes: 0 everything undone, 2 wrong arguments, 5 failed, 6 something could not be undone,\nor nobody can say whether there is something (the journal is damaged).";

/// Arguments of the agent.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true)]
pub struct AgentArgs {
    /// Options of a running agent.
    #[command(flatten)]
    pub run: RunArgs,
    /// Something else than running.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
}

/// Options of a running agent.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Fleet address of a controller; several are tried in turn. Remembered from the enrolment
    #[arg(long, value_name = "HOST:PORT", env = "FRACAS_FLEET", value_delimiter = ',')]
    pub controller: Vec<String>,
    /// File with a join token, for the first start; the token itself may stand in FRACAS_JOIN_TOKEN
    #[arg(long, value_name = "FILE", env = "FRACAS_JOIN_TOKEN_FILE")]
    pub join_token_file: Option<PathBuf>,
    /// Name of this host for people [default: its host name]
    #[arg(long, env = "FRACAS_NAME")]
    pub name: Option<String>,
    /// The host owner's rules; without a file at the default place the built-in ones hold
    #[arg(long, value_name = "FILE", env = "FRACAS_POLICY")]
    pub policy: Option<PathBuf>,
    /// Where everything is kept.
    #[command(flatten)]
    pub state: StateArgs,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where an agent keeps everything.
#[derive(Clone, Debug, Default, Args)]
pub struct StateArgs {
    /// Directory of the agent's journal and certificate [default: /var/lib/fracas-agent, or below XDG_STATE_HOME]
    #[arg(long, value_name = "DIR", env = "FRACAS_AGENT_STATE")]
    pub state_dir: Option<PathBuf>,
}

/// What an agent's program does beside running.
#[derive(Clone, Debug, Subcommand)]
pub enum AgentCommand {
    /// Undo everything that is open on this host, whatever a controller wants; works offline
    #[command(
        after_help = "Example:\n  fracas-agent undo-all\n\nA running agent is to be stopped instead: it undoes everything as it ends."
    )]
    UndoAll(StateArgs),
    /// Show what is open on this host; works offline, also beside a running agent, and changes nothing
    #[command(
        after_help = "Example:\n  fracas-agent status\n\nExit codes: 0 nothing is open or an agent runs, 1 something is open and no agent runs, 5 the journal cannot be trusted."
    )]
    Status(StateArgs),
    /// Try what this host can do, and say what is missing and how to get it; works offline, changes nothing
    #[command(after_help = "Example:\n  fracas-agent check\n\nExit codes: 0 looked, 5 the journal cannot be trusted.")]
    Check(check::CheckArgs),
    /// Show which runs touched this host, what they did and how it ended; works offline, changes nothing
    #[command(
        after_help = "Example:\n  fracas-agent history --last 5\n\nThe last 10,000 faults are remembered, also across boots and after the controller is gone. Times are UTC.\n\nExit codes: 0 shown, 5 the journal cannot be trusted."
    )]
    History(history::HistoryArgs),
    /// Show the rules that hold on this host, and whether their file is valid; works offline
    #[command(
        after_help = "Example:\n  fracas-agent policy show --policy policy.yaml\n\nA running agent follows the file it was started with within a second of each change.\n\nExit codes: 0 these rules hold, 5 the file cannot be used, so nothing is allowed."
    )]
    Policy {
        /// `show`, which is also done without a word
        #[arg(value_name = "show", value_parser = ["show"], hide = true)]
        what: Option<String>,
        /// The rules' file
        #[arg(long, value_name = "FILE", env = "FRACAS_POLICY")]
        policy: Option<PathBuf>,
    },
    /// Install this program as a service that starts at boot: program, unit, directories, policy, settings
    #[command(after_help = install::INSTALL_HELP)]
    Install(InstallArgs),
    /// Remove the service again, from a host that is proven clean
    #[command(after_help = install::UNINSTALL_HELP)]
    Uninstall(UninstallArgs),
    /// Print the version
    #[command(after_help = "Example:\n  fracas-agent version")]
    Version,
}

impl StateArgs {
    /// The directory meant.
    pub fn dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| {
            let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
            let below = || absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
            match below() {
                Some(home) if !rustix::process::geteuid().is_root() => home.join("fracas-agent"),
                _ => "/var/lib/fracas-agent".into(),
            }
        })
    }
}

impl RunArgs {
    /// As options; the token is read from its file or from `FRACAS_JOIN_TOKEN`.
    fn options(self) -> anyhow::Result<Options> {
        let dir = self.state.dir();
        let text = match &self.join_token_file {
            // A token is used once; a service names its file for ever.
            Some(path) if !path.exists() && Identity::load(&dir).is_ok_and(|identity| identity.is_some()) => None,
            Some(path) => Some(
                fs::read_to_string(path)
                    .map_err(|e| anyhow::anyhow!("the join token cannot be read from {}: {e}", path.display()))?,
            ),
            None => std::env::var("FRACAS_JOIN_TOKEN").ok().filter(|t| !t.is_empty()),
        };
        Ok(Options {
            state_dir: dir,
            controllers: self.controller,
            token: text.map(|t| t.parse::<Token>()).transpose()?,
            name: self.name,
            policy: policy_source(self.policy),
            kind: Kind::Full,
        })
    }
}

fn policy_source(given: Option<PathBuf>) -> PolicySource {
    given.map_or_else(|| PolicySource::IfThere(POLICY.into()), PolicySource::File)
}

/// Does what the arguments say and gives the exit code. It makes its own runtime: an agent runs on one thread. `program` is
/// how it was called: `fracas-agent` or `fracas agent`.
pub fn main(args: AgentArgs, program: &str) -> u8 {
    let done = match args.command {
        None => run(args.run),
        Some(AgentCommand::UndoAll(state)) => undo_all(&state.dir()),
        Some(AgentCommand::Status(state)) => status(&state.dir()),
        Some(AgentCommand::Check(args)) => check::check(args),
        Some(AgentCommand::History(args)) => history::history(&args),
        Some(AgentCommand::Policy { policy, .. }) => {
            policy_shown(&Rules::read(policy_source(policy))).and_then(|(text, code)| say(&text).map(|()| code))
        }
        Some(AgentCommand::Install(args)) => install::install(&args, program),
        Some(AgentCommand::Uninstall(args)) => install::uninstall(&args, program),
        Some(AgentCommand::Version) => say(&format!("fracas-agent {VERSION}")).map(|()| 0),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "fracas-agent: {error:#}");
        FAILED
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn run(args: RunArgs) -> anyhow::Result<u8> {
    args.log.begin();
    crash::bugs_end_the_process();
    let options = args.options()?;
    let left = runtime()?.block_on(async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let asked = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            tracing::info!("asked to end: undoing everything first");
        };
        anyhow::Ok(Box::pin(service::serve_telling(options, Notify::from_environment(), asked)).await?)
    })?;
    Ok(match left {
        Left::Clean => 0,
        Left::Open(open) => {
            tracing::error!(open, "something could not be undone in time; the guard goes on with it");
            6
        }
    })
}

fn undo_all(dir: &Path) -> anyhow::Result<u8> {
    LogArgs::default().begin();
    if Lock::stays_held(dir, lock::AGENT) {
        anyhow::bail!("an agent is running on {}: stop it, and it undoes everything as it ends", dir.display());
    }
    match runtime()?.block_on(service::undo_all(dir))? {
        Outcome::Clean => say("clean: nothing of Fracas is on this host").map(|()| 0),
        Outcome::Unknown(trouble) => {
            let refusal = trouble.refusal();
            say(&format!("unknown: {}; what could be read of it is undone\n  {}", refusal.why, refusal.instead))
                .map(|()| 6)
        }
        Outcome::TakenOver => say("an agent was started meanwhile and undoes everything itself").map(|()| 0),
    }
}

fn status(dir: &Path) -> anyhow::Result<u8> {
    let running = Lock::is_held(dir, lock::AGENT);
    let look = Look::into_dir(dir);
    let mut text =
        format!("state    {}\nagent    {}\n", dir.display(), if running { "running" } else { "not running" });
    text += &journal_shown(&look, running);
    let open = &look.state.open;
    let known = if look.trouble.is_some() { " known" } else { "" };
    let many = if open.is_empty() { "nothing".to_owned() } else { open.len().to_string() };
    text += &format!("open     {many}{known}\n");
    for (key, item) in open {
        let undoing = item.undoing.map(|cause| format!(", undoing ({cause:?})")).unwrap_or_default();
        text += &format!("  {key}  {}: {}{undoing}\n", item.fault, item.plan.summary);
    }
    say(text.trim_end())?;
    Ok(code(&look).max(u8::from(!open.is_empty() && !running)))
}

/// How the journal is, and what to do when it is not well.
fn journal_shown(look: &Look, running: bool) -> String {
    match &look.trouble {
        Some(trouble) => {
            let refusal = trouble.refusal();
            format!("journal  {}\n         no order is taken; way out: {}\n", refusal.why, refusal.instead)
        }
        // While the agent runs it is most likely just writing.
        None if look.torn > 0 && !running => {
            format!("journal  its last record is unfinished ({} bytes); the next start cuts that off\n", look.torn)
        }
        None => "journal  whole\n".into(),
    }
}

/// A journal that cannot be trusted is a failure, whatever else there is to say.
fn code(look: &Look) -> u8 {
    if look.trouble.is_some() { FAILED } else { 0 }
}

/// The rules as a policy file, with where they come from as comments, so that the output can be used as one.
fn policy_shown(rules: &Rules) -> anyhow::Result<(String, u8)> {
    let comment = |text: String| text.lines().map(|line| format!("# {line}\n")).collect::<String>();
    let (origin, code) = match rules.origin() {
        Origin::Builtin(path) => (format!("there is no file {}: the built-in rules hold", path.display()), 0),
        Origin::File(path) => (format!("{} is valid and holds", path.display()), 0),
        Origin::Unusable(path, why) => {
            (format!("{}: {why}\nuntil that is mended nothing is allowed on this host", path.display()), FAILED)
        }
        Origin::Given => (String::new(), 0),
    };
    let value = serde_json::to_value(rules.policy())?;
    let lines: String =
        value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}: {value}\n")).collect();
    Ok((format!("{}apiVersion: fracas/v1\nkind: HostPolicy\n{}", comment(origin), lines.trim_end()), code))
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{FILE, Record, encode_frame};

    #[test]
    fn a_journal_that_cannot_be_trusted_is_never_called_clean() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let good = serde_json::to_vec(&Record::Taken { epoch: 1, revision: 1 }).unwrap();
        let good = encode_frame(1, &good);
        let mut damaged = [good.clone(), good.clone()].concat();
        damaged[10] ^= 1;
        for (bytes, told) in [(damaged, "damaged at byte 0"), (encode_frame(9, b"{}"), "version 9")] {
            fs::write(&file, &bytes).unwrap();
            assert_eq!(status(dir.path()).unwrap(), FAILED);
            let shown = journal_shown(&Look::into_dir(dir.path()), false);
            assert!(shown.contains(told) && shown.contains("way out: "), "{shown}");
            assert_eq!(fs::read(&file).unwrap(), bytes);
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(status(dir.path()).unwrap(), FAILED, "it cannot be read");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, &good[..good.len() - 1]).unwrap();
        assert_eq!(status(dir.path()).unwrap(), 0);
        assert!(journal_shown(&Look::into_dir(dir.path()), false).contains("unfinished"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "asking makes no files");
    }

    #[test]
    fn the_rules_shown_say_where_they_come_from_and_are_a_policy_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        let shown = || policy_shown(&Rules::read(PolicySource::IfThere(path.clone()))).unwrap();
        let (text, code) = shown();
        assert!(text.starts_with("# there is no file ") && text.contains("built-in") && code == 0, "{text}");
        fs::write(&path, &text).unwrap();
        assert!(text.contains("allowProbes: [\"*\"]") && shown().0.contains("is valid and holds"), "{}", shown().0);
        fs::write(&path, "kind: HostPolicy\n").unwrap();
        let (text, code) = shown();
        assert!(text.contains("nothing is allowed") && text.contains("allowFaults: []") && code == FAILED, "{text}");
    }
}
