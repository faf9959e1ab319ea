//! The arguments of `fracas`, as data. The help teaches: every command ends with an example that a test parses.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use fracas_model::{
    id::RunId,
    mark::Mark,
    trend::{self, Baseline},
    units::Dur,
};

use crate::exit;

/// The operator's commands alone; the `fracas` binary flattens [`Command`] into a larger tree.
#[derive(Debug, Parser)]
#[command(name = "fracas", version, about = ABOUT, after_help = exit::TABLE, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One line about the program.
pub const ABOUT: &str = "Starts trouble on purpose, measures the recovery, undoes everything.";

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Global {
    /// Where: the name of a context (`fracas login`), or a file with the controller's address, CA and token file
    #[arg(long, global = true, value_name = "NAME|FILE", env = "FRACAS_CONTEXT")]
    pub context: Option<PathBuf>,
    /// Address of the controller's front listener
    #[arg(long, global = true, value_name = "HOST:PORT", env = "FRACAS_CONTROLLER")]
    pub controller: Option<String>,
    /// Certificate of the controller's CA, PEM
    #[arg(long, global = true, value_name = "FILE", env = "FRACAS_CA")]
    pub ca: Option<PathBuf>,
    /// File with the access token; the token itself may stand in FRACAS_TOKEN
    #[arg(long, global = true, value_name = "FILE", env = "FRACAS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Form of the output
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: OutputForm,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
    /// Print results only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people.
    #[default]
    Text,
    /// For programs; every object names its schema.
    Json,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check documents, offline: syntax, types, units, references. Prints every error of every file
    #[command(after_help = "Example:\n  fracas validate kill-db.yaml slow-net.yaml --set delay=200ms")]
    Validate(ValidateArgs),
    /// Print the JSON Schema of documents or of what `--output json` prints
    #[command(after_help = "Example:\n  fracas schema --kind experiment\n  fracas schema --kind event")]
    Schema(SchemaArgs),
    /// Write a starter document to change to your needs
    #[command(
        after_help = "Example:\n  fracas new kill-db.yaml\n  fracas new --kind game-day day.yaml\n  fracas new > kill-db.yaml"
    )]
    New(NewArgs),
    /// Show what a run would do: drawn hosts, timeline, every change to every host and its undo. Changes nothing
    #[command(after_help = "Example:\n  fracas plan kill-db.yaml --seed 42\n\nExit code 7: some host refuses.")]
    Plan(PlanArgs),
    /// Run an experiment or a game day, watch it live, end with its verdict. Ctrl-C stops it and undoes everything
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Watch a run until its end, from any terminal; ends with the run's exit code
    #[command(
        after_help = "Example:\n  fracas watch last\n  fracas watch 1nf3k8 --after 120 --output json\n\nCtrl-C leaves; the run goes on (see `fracas stop`)."
    )]
    Watch(WatchArgs),
    /// List runs, newest first
    #[command(after_help = "Example:\n  fracas runs --limit 10\n  fracas runs --output json")]
    Runs(RunsArgs),
    /// See how recovery went over many runs: every run, median, percentiles, and whether the newest is slower
    #[command(after_help = TREND_HELP)]
    Trend(TrendArgs),
    /// List services with their objectives: last proof, what was achieved, days since, what is overdue
    #[command(after_help = SERVICES_HELP)]
    Services(ServicesArgs),
    /// Show one run: state, entries, faults on each host and its whole history
    #[command(after_help = "Example:\n  fracas show last\n  fracas show 1nf3k8 --output json")]
    Show(RunName),
    /// End one run: everything is undone
    #[command(
        after_help = "Example:\n  fracas stop last --reason 'customers call'\n\nA run that had already ended is left as it is; that is said, with exit code 0."
    )]
    Stop(StopArgs),
    /// Answer the question of a run: go, or no-go. Somebody else than whoever started it must
    #[command(
        after_help = "Example:\n  fracas decide last failover go --note 'on-call is ready'\n  fracas decide 1nf3k8 ask no-go --note 'the replica lags'\n\nENTRY is the timeline entry that asks, or the section of a game day. `fracas show RUN` says what is asked, who may answer and until when."
    )]
    Decide(DecideArgs),
    /// Tell when something happened in a run: detected, acknowledged, mitigated ...
    #[command(
        after_help = "Example:\n  fracas mark last detected --note 'page from checkout-latency'\n  fracas mark last acknowledged --by anna\n  fracas mark 1nf3k8 mitigated --service checkout --ago 2m --give-or-take 20s\n  fracas mark last detected --retract --note 'that was another alarm'\n\nMarks, in the order in which they come:\n  alerted       an alert fired\n  notified      a responder was notified\n  detected      the trouble was noticed\n  acknowledged  a responder took it on\n  declared      an incident was declared\n  mitigated     the impact was stopped\n  verified      data were checked and the backlog was worked off\n  resolved      the alert was resolved\n\nOf several marks of one kind the earliest counts. The report makes times to detect, acknowledge, mitigate and so on of them, as intervals, and says whose word they are. Whoever may see the run may mark it, until it is over; nothing is judged by a mark."
    )]
    Mark(MarkArgs),
    /// End all runs and let none start until cleared
    #[command(
        after_help = "Example:\n  fracas halt --reason 'real incident'\n  fracas halt clear --reason 'incident closed'"
    )]
    Halt(HaltArgs),
    /// List hosts; set their labels; make tokens for new ones; let old ones go
    #[command(
        after_help = "Example:\n  fracas hosts --selector role=db,tier=primary\n  fracas hosts label db-1 role=db tier-\n  fracas hosts join-token --ttl 30m --label role=db\n  fracas hosts drain db-1 --reason 'disk to be changed'\n  fracas hosts forget db-0 --reason 'scrapped'"
    )]
    Hosts(HostsArgs),
    /// Let experiments run by themselves: by cron pattern, at a time, at equal distances, or at random moments
    #[command(
        after_help = "Example:\n  fracas schedule next nightly.yaml --count 10\n  fracas schedule set nightly.yaml\n  fracas schedule list\n  fracas schedule show nightly\n  fracas schedule pause nightly --reason 'release week'\n  fracas schedule feed > link\n\nEvery due time ends as a run or as a recorded skip with its reason."
    )]
    Schedule {
        /// What to do with them.
        #[command(subcommand)]
        command: ScheduleCommand,
    },
    /// Bound what all runs together may do to the fleet, and say which runs need approval
    #[command(
        after_help = "Example:\n  fracas guard-rails set guard-rails.yaml\n  fracas guard-rails show\n\nA document of limits and rules; `fracas schema --kind guard-rails` has every key:\n\n    apiVersion: fracas/v1\n    kind: GuardRails\n    limits:\n      - { name: fleet, maxPercent: 20%, minHealthy: 3 }\n      - { name: databases, select: role=db, maxHosts: 1 }\n    approvals:\n      - { name: production, environments: [prod], faults: [net-*, process-kill] }"
    )]
    GuardRails {
        /// What to do.
        #[command(subcommand)]
        command: GuardRailsCommand,
    },
    /// Have runs approved by others, or approve theirs
    #[command(
        after_help = "Example:\n  fracas approval ask kill-db.yaml --environment prod\n  fracas approval ask nightly.yaml --environment prod --max-hosts 2\n  fracas approval list\n  fracas approval show a-1b2c3d4e\n  fracas approval approve a-1b2c3d4e --note 'reviewed with the database team'\n\nGuard-rails say which runs need it. An approval is for exactly what was shown: other hosts, other steps or another document void it, and it expires. Then the run is started as usual."
    )]
    Approval {
        /// What to do.
        #[command(subcommand)]
        command: ApprovalCommand,
    },
    /// Sign in to a controller, by its identity provider or with an access token, and let commands mean that controller
    #[command(
        after_help = "Example:\n  fracas login --controller fracas.internal:7766 --ca ca.pem\n  fracas login --controller 10.0.0.5:7766 --ca ca.pem --token-file token --name staging\n\nWithout a token it asks the controller's identity provider for a code, which you type into a browser; where the \
                      controller knows no provider, a token is asked for. --token-file - reads one line of standard input. The token is \
                      tried, and then kept in a file that only you can read."
    )]
    Login(LoginArgs),
    /// Forget a context with its token; without a name the one that commands mean
    #[command(after_help = "Example:\n  fracas logout\n  fracas logout staging")]
    Logout {
        /// Which
        name: Option<String>,
    },
    /// List the controllers you have signed in to; choose which one commands mean
    #[command(after_help = "Example:\n  fracas context list\n  fracas context use staging")]
    Context {
        /// What to do with them.
        #[command(subcommand)]
        command: ContextCommand,
    },
    /// Show who you are to the controller, and what you may
    #[command(after_help = "Example:\n  fracas whoami\n  fracas whoami --output json")]
    Whoami,
    /// Decide who may do what: people, their roles in environments, their access tokens
    #[command(
        after_help = "Example:\n  fracas people add anna --name 'Anna Berg' --role operator@staging --role viewer@prod\n  fracas people token make anna --ttl 90d > token\n  fracas people grant anna approver@prod\n  fracas people list\n\nRoles: viewer sees; designer sees and designs; runner sees and starts what others designed; operator designs and starts; approver sees and approves; signaller, for alerting tools, tells of alerts and sees nothing; admin may everything. Whoever is signed in may stop and halt."
    )]
    People {
        /// What to do.
        #[command(subcommand)]
        command: PeopleCommand,
    },
    /// See whom the controller tells what happens, and try a channel out
    #[command(after_help = "Example:\n  fracas notify list\n  fracas notify test ops-chat\n\nChannels stand in the \
                            controller's configuration file, below `notifications`.")]
    Notify {
        /// What to do with them.
        #[command(subcommand)]
        command: NotifyCommand,
    },
    /// Look at the audit stream, and prove that nothing was changed
    #[command(
        after_help = "Example:\n  fracas audit list --since 7d --refused\n  fracas audit heads --to vault/heads.jsonl --key-to vault/audit.pub\n  fracas audit verify --heads vault/heads.jsonl --key vault/audit.pub\n  fracas audit export --to evidence\n\nWhat was signed and is kept elsewhere proves more than the controller's own word."
    )]
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// List the faults, or explain one: parameters, defaults, needs, an example document
    #[command(after_help = "Example:\n  fracas faults\n  fracas faults net-delay")]
    Faults(NameArgs),
    /// List the probes, or explain one
    #[command(after_help = "Example:\n  fracas probes\n  fracas probes http")]
    Probes(NameArgs),
    /// List the ledgers that tell lost data, or explain one
    #[command(after_help = "Example:\n  fracas ledgers\n  fracas ledgers postgres")]
    Ledgers(NameArgs),
    /// Print or write the report of a run
    #[command(after_help = "Example:\n  fracas report last\n  fracas report 1nf3k8 --format html --to report.html")]
    Report(ReportArgs),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  fracas completions bash > /etc/bash_completion.d/fracas")]
    Completions(CompletionsArgs),
    /// Print the version
    #[command(after_help = "Example:\n  fracas version --output json")]
    Version,
}

const RUN_HELP: &str = "Example:
  fracas run kill-db.yaml
  fracas run slow-net.yaml --set delay=200ms --seed 42 --report slow-net.html
  fracas run kill-db.yaml --detach --yes
  fracas run hog.yaml --local --label role=db
  fracas run kill-db.yaml --repeat 10 --yes

With --repeat the runs follow each other, each with its own gate and its own seed; the first one that does not pass ends
the series, and the exit code is that of the worst. What they show together is printed at the end, as by `fracas trend`.

The first Ctrl-C stops the run and shows the undo; the second leaves it to the controller and exits with 130.
On a terminal it shows what will be hit and asks, unless --yes is given.

Exit codes:
  0 pass   1 fail   2 document refused   3 inconclusive   4 aborted   5 error
  6 undo unconfirmed   7 refused before the start   130 left by the second Ctrl-C";

const TREND_HELP: &str = "Example:
  fracas trend kill-db
  fracas trend kill-db --fail-on slower
  fracas trend --service checkout --environment prod --last 50 --to checkout.svg --to checkout.md
  fracas trend kill-db --newest 5 --baseline last:30 --output json
  fracas trend kill-db --baseline 1nf3k8..1nf9zz --fail-on slower

A length is known within bounds, and a run that ended before its service was back counts as longer than it was seen: no run
is dropped. Only runs of one intent (document, parameters, target rules) are compared; earlier ones are told apart.
The newest run is slower when so long a recovery among the runs before it would be chance in at most --alpha of cases; 19
runs before it are enough for the usual 0.05. Where several services are compared they share --alpha (Holm's correction) and
need more runs: 39 for two, 59 for three, with a --baseline as long, or a larger --newest.
If one of the newest finished runs had no effect, or its report cannot be read, the runs before it do not stand in for it.

Exit codes with --fail-on slower:
  0 not slower   1 slower   3 cannot tell: too few runs, one cut short that matters, or a newest run that shows nothing";

const SERVICES_HELP: &str = "Example:
  fracas services
  fracas services --environment prod --fail-on unproven
  fracas services --output json

Objectives stand in documents:

    services:
      checkout: { rto: 30s, mtpd: 4h, proveEvery: 90d }

A service is proven by a run that met the objective of today; it is overdue when that is longer ago than `proveEvery`.

Exit codes with --fail-on unproven:
  0 every objective is proven   1 some is missed, overdue, or was never proven
  3 no run has looked at a service, or the report of one cannot be read";

/// Values for a document's parameters.
#[derive(Clone, Debug, Default, Args)]
pub struct ParameterArgs {
    /// Sets a parameter of the document; beats --values
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// File that maps parameter names to values, YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub values: Option<PathBuf>,
}

/// A document and what fixes its meaning.
#[derive(Clone, Debug, Args)]
pub struct DocumentArgs {
    /// The document; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its parameters.
    #[command(flatten)]
    pub parameters: ParameterArgs,
    /// Seed of every random choice; the same seed draws the same hosts. 0: a new one
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub seed: u64,
    /// Environment the run belongs to
    #[arg(long, env = "FRACAS_ENVIRONMENT", default_value = "default")]
    pub environment: String,
}

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Documents; `-` reads standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Their parameters.
    #[command(flatten)]
    pub parameters: ParameterArgs,
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(long, value_enum, default_value_t)]
    pub kind: SchemaKind,
}

/// What a schema describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// Experiment documents.
    #[default]
    Experiment,
    /// Game day documents.
    GameDay,
    /// Schedule documents.
    Schedule,
    /// Guard-rails.
    GuardRails,
    /// One line of `run --output json`.
    Event,
    /// The last line of `run --output json`.
    Result,
    /// The last line of `run --repeat --output json`.
    Series,
    /// Reports.
    Report,
    /// `trend --output json`.
    Trend,
    /// `services --output json`.
    Services,
}

/// Arguments of `new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Of which kind
    #[arg(long, value_enum, default_value_t)]
    pub kind: NewKind,
    /// File to make; it must not exist. Without it the document goes to standard output
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What a starter document is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NewKind {
    /// One experiment.
    #[default]
    Experiment,
    /// A game day of several.
    GameDay,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub document: DocumentArgs,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub document: DocumentArgs,
    /// Run on this machine alone: starts a controller and an agent that end with the command
    #[arg(long, conflicts_with = "detach")]
    pub local: bool,
    /// With --local: a label of this machine, for the document's selectors; `local=true` is always there
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, requires = "local")]
    pub label: Vec<(String, String)>,
    /// Start it and return at once
    #[arg(long, conflicts_with = "report")]
    pub detach: bool,
    /// Write the report to this file at the end; .json and .md choose those forms, anything else is HTML
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Do not ask before starting
    #[arg(long, short)]
    pub yes: bool,
    /// Run it so many times, one after another; with --report each run has a file of its own: NAME.1.html, NAME.2.html
    #[arg(long, value_name = "N", conflicts_with = "detach", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: Option<u32>,
    /// With --repeat: go on after a run that did not pass
    #[arg(long, requires = "repeat")]
    pub keep_going: bool,
}

/// Arguments of `trend`.
#[derive(Debug, Args)]
pub struct TrendArgs {
    /// Name of an experiment or game day, as its document says
    #[arg(value_name = "EXPERIMENT", required_unless_present = "service")]
    pub experiment: Option<String>,
    /// This service only; without EXPERIMENT in the runs of all experiments
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Environment of the runs
    #[arg(long, env = "FRACAS_ENVIRONMENT", default_value = "default")]
    pub environment: String,
    /// Look at this many runs, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub last: u32,
    /// Compare this many of the newest runs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub newest: u32,
    /// Compare with: so many runs before them, one run, or those from one to another
    #[arg(long, value_name = "last:N|RUN|RUN..RUN", default_value = "last:20", value_parser = baseline)]
    pub baseline: Baseline,
    /// How often a false alarm may be raised, by all services of one comparison together
    #[arg(long, value_name = "P", default_value_t = trend::ALPHA, value_parser = alpha)]
    pub alpha: f64,
    /// Exit with 1 when slower, and with 3 when that cannot be told
    #[arg(long, value_enum, value_name = "WHAT")]
    pub fail_on: Option<TrendFailure>,
    /// Mix runs of different documents, parameters and target rules
    #[arg(long)]
    pub all_intents: bool,
    /// Write it to this file too, as its ending says: .svg, .png, .html, .md, .json, .txt; may be repeated
    #[arg(long, value_name = "FILE")]
    pub to: Vec<PathBuf>,
}

/// What makes `trend` fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrendFailure {
    /// The newest runs are slower than the baseline.
    Slower,
}

/// Arguments of `services`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    /// Environment of the runs
    #[arg(long, env = "FRACAS_ENVIRONMENT", default_value = "default")]
    pub environment: String,
    /// Exit with 1 when an objective is missed, overdue, or was never proven, and with 3 when that cannot be told
    #[arg(long, value_enum, value_name = "WHAT")]
    pub fail_on: Option<ServicesFailure>,
}

/// What makes `services` fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServicesFailure {
    /// An objective is missed, overdue, or was never proven.
    Unproven,
}

/// `last:20`, `RUN` or `RUN..RUN`.
fn baseline(text: &str) -> Result<Baseline, String> {
    if let Some(count) = text.strip_prefix("last:") {
        let why = "`last:` needs a number from 1 to 1000, such as last:20";
        return count.parse().ok().filter(|n| (1..=1000).contains(n)).map(Baseline::Last).ok_or_else(|| why.into());
    }
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    if first.is_empty() || last.is_empty() {
        return Err("write last:20, a run, or two runs as RUN..RUN".into());
    }
    Ok(Baseline::Between(RunId::new(first), RunId::new(last)))
}

fn alpha(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share.filter(|p| (0.000_1..=0.5).contains(p)).ok_or_else(|| "write a share from 0.0001 to 0.5, such as 0.05".into())
}

/// Which run.
#[derive(Debug, Args)]
pub struct RunName {
    /// Run id, a unique prefix of one, or `last`
    pub run: String,
}

/// Arguments of `decide`.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// Which run.
    #[command(flatten)]
    pub run: RunName,
    /// The entry that asks, or the section of a game day
    pub entry: String,
    /// The answer
    #[arg(value_enum)]
    pub answer: GoNoGo,
    /// For the history and the report
    #[arg(long, default_value = "", hide_default_value = true)]
    pub note: String,
}

/// Arguments of `mark`.
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// Which run.
    #[command(flatten)]
    pub run: RunName,
    /// What happened
    #[arg(value_parser = PossibleValuesParser::new(Mark::ALL.map(Mark::word)).try_map(|word| word.parse::<Mark>()))]
    pub mark: Mark,
    /// To which service of the run; the whole run otherwise
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Who did it, if somebody else: a person whom the controller knows (needs the right to start runs)
    #[arg(long = "by", value_name = "PERSON")]
    pub did: Option<String>,
    /// How long before now it happened
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    pub ago: Dur,
    /// How exactly that is known
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    pub give_or_take: Dur,
    /// For the history and the report
    #[arg(long, default_value = "", hide_default_value = true)]
    pub note: String,
    /// Take back what was told: earlier marks of this kind, of this service or of the whole run, do not count
    #[arg(long, conflicts_with_all = ["ago", "give_or_take", "did"])]
    pub retract: bool,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoNoGo {
    /// Go on.
    Go,
    /// Do not.
    NoGo,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Which run.
    #[command(flatten)]
    pub run: RunName,
    /// Events with a greater sequence number only (text lines and JSON)
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub after: u64,
}

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// At most this many
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which run.
    #[command(flatten)]
    pub run: RunName,
    /// Why, for the history
    #[arg(long, default_value = "stopped by hand")]
    pub reason: String,
}

/// Arguments of `halt`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct HaltArgs {
    /// Lift the halt instead.
    #[command(subcommand)]
    pub command: Option<HaltCommand>,
    /// Why, for the history
    #[arg(long, required = true)]
    pub reason: Option<String>,
}

/// What else can be done about a halt.
#[derive(Debug, Subcommand)]
pub enum HaltCommand {
    /// Let runs start again
    #[command(after_help = "Example:\n  fracas halt clear --reason 'incident closed'")]
    Clear {
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
}

/// Arguments of `hosts`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HostsArgs {
    /// Change something instead of listing.
    #[command(subcommand)]
    pub command: Option<HostsCommand>,
    /// Only hosts with these labels, in Kubernetes syntax
    #[arg(long, short = 'l', value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub selector: String,
}

/// What can be done to hosts.
#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// Set (`name=value`) and remove (`name-`) labels of a host
    #[command(after_help = "Example:\n  fracas hosts label db-1 role=db tier=primary old-")]
    Label {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Changes
        #[arg(value_name = "NAME=VALUE|NAME-", required = true, value_parser = label_change)]
        changes: Vec<LabelChange>,
    },
    /// Take a host out of the fleet for good: its certificate is not accepted any more. Stop its agent first
    #[command(after_help = "Example:\n  fracas hosts forget db-0 --reason 'scrapped'\n\nExit code 7: it is in \
                            contact, quarantined, or takes part in a run.")]
    Forget {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// Accept no certificate of a host any more, now and for ever, as when it was stolen: its session ends at once, its
    /// faults with their lease, its runs as when it is lost. With a new join token it comes back as a new host
    #[command(
        after_help = "Example:\n  fracas hosts revoke db-0 --reason 'disk image leaked'\n\nExit code 7: it is revoked \
                            already. It stays in the list until fracas hosts forget. A history restored from an older backup \
                            does not know of it: revoke again."
    )]
    Revoke {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Why, for the history and for whoever shows its certificate
        #[arg(long)]
        reason: String,
    },
    /// Say that a host that seemed to be two, with one identity, is one again: you have stopped the copy
    #[command(
        after_help = "Example:\n  fracas hosts trust db-0 --reason 'the clone is switched off'\n\nExit code 7: it does not \
                            seem to be two. If the key itself may be known to others: fracas hosts revoke."
    )]
    Trust {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// End the quarantine of a host that cannot say itself that it is clean: you have seen to it
    #[command(after_help = "Example:\n  fracas hosts write-off db-0 --reason 'reinstalled'\n\nExit code 7: it is not \
                            quarantined.")]
    WriteOff {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// Make a token with which one new host may join, and print what to type there
    #[command(after_help = "Example:\n  fracas hosts join-token --ttl 30m --label role=db --label tier=primary")]
    JoinToken {
        /// How long it may be used
        #[arg(long, default_value = "30m", value_name = "DURATION")]
        ttl: Dur,
        /// Labels the host gets
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = assignment)]
        labels: Vec<(String, String)>,
        /// Environment the host belongs to: runs of others do not draw it
        #[arg(long, env = "FRACAS_ENVIRONMENT", default_value = "default")]
        environment: String,
    },
    /// Let a host belong to another environment; refused while a run has it
    #[command(after_help = "Example:\n  fracas hosts move db-1 --to prod")]
    Move {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Which environment
        #[arg(long, value_name = "ENVIRONMENT")]
        to: String,
    },
    /// Draw no new fault onto a host; runs that have it go on
    #[command(after_help = "Example:\n  fracas hosts cordon db-1 --reason 'release'")]
    Cordon {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// Cordon a host and end the runs that have it: everything is undone
    #[command(after_help = "Example:\n  fracas hosts drain db-1 --reason 'disk to be changed'")]
    Drain {
        /// Host name, id, or a unique prefix of an id
        host: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// End a cordon
    #[command(after_help = "Example:\n  fracas hosts uncordon db-1")]
    Uncordon {
        /// Host name, id, or a unique prefix of an id
        host: String,
    },
}

/// What can be done about approvals.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// Ask for approval of a run; of a schedule's file: of every run of it
    #[command(
        after_help = "Example:\n  fracas approval ask kill-db.yaml --environment prod\n  fracas approval ask nightly.yaml --max-hosts 2"
    )]
    Ask(AskArgs),
    /// List what was asked for, newest first
    #[command(after_help = "Example:\n  fracas approval list --output json")]
    List,
    /// Show one with everything that an approver agrees to
    #[command(after_help = "Example:\n  fracas approval show a-1b2c3d4e")]
    Show {
        /// Its id, or a unique start of it
        id: String,
    },
    /// Agree to it, after it was shown
    #[command(
        after_help = "Example:\n  fracas approval approve a-1b2c3d4e --note 'window agreed with operations' --yes"
    )]
    Approve {
        /// Its id, or a unique start of it
        id: String,
        /// For the history
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
        /// Do not show it and ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Do not agree: that is the end of it, also when others have agreed
    #[command(after_help = "Example:\n  fracas approval reject a-1b2c3d4e --reason 'not before the migration'")]
    Reject {
        /// Its id, or a unique start of it
        id: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// Take back what you asked for
    #[command(after_help = "Example:\n  fracas approval withdraw a-1b2c3d4e")]
    Withdraw {
        /// Its id, or a unique start of it
        id: String,
    },
}

/// Arguments of `approval ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// What is to be approved.
    #[command(flatten)]
    pub document: DocumentArgs,
    /// For every run of the document until the approval expires, rather than for one on the hosts that are drawn now
    #[arg(long)]
    pub every_run: bool,
    /// For every run: at most so many hosts under fault in each [default: as many as are drawn now]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub max_hosts: u32,
}

/// What can be done about guard-rails.
#[derive(Debug, Subcommand)]
pub enum GuardRailsCommand {
    /// Print the document that holds
    #[command(after_help = "Example:\n  fracas guard-rails show > guard-rails.yaml")]
    Show,
    /// Let this document hold from now on, in place of the one before
    #[command(after_help = "Example:\n  fracas guard-rails set guard-rails.yaml")]
    Set {
        /// The document; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Arguments of `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Name of the context [default: the controller's host]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List them; the one that commands mean is marked
    #[command(after_help = "Example:\n  fracas context list")]
    List,
    /// From now on commands mean this one
    #[command(after_help = "Example:\n  fracas context use staging")]
    Use {
        /// Which
        name: String,
    },
}

/// What can be decided about people.
#[derive(Debug, Subcommand)]
pub enum PeopleCommand {
    /// List everybody with their roles
    #[command(after_help = "Example:\n  fracas people list --output json")]
    List,
    /// Make somebody known
    #[command(
        after_help = "Example:\n  fracas people add anna --name 'Anna Berg' --email anna@example.org --role operator@staging\n\nNames and addresses are kept outside the history, where they can be erased; the history has a pseudonym."
    )]
    Add {
        /// How they are called here: lower-case letters, digits, `.`, `-`, `_`
        handle: String,
        /// Full name
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// Address, for notifications
        #[arg(long, default_value = "", hide_default_value = true)]
        email: String,
        /// A role; may be repeated. `ROLE` alone: in the environment `default`; `ROLE@*`: in every one
        #[arg(long = "role", value_name = "ROLE[@ENVIRONMENT]")]
        roles: Vec<String>,
    },
    /// Give a role
    #[command(after_help = "Example:\n  fracas people grant anna approver@prod")]
    Grant {
        /// Handle or pseudonym
        person: String,
        /// Which
        #[arg(value_name = "ROLE[@ENVIRONMENT]")]
        role: String,
    },
    /// Take a role away
    #[command(after_help = "Example:\n  fracas people revoke anna approver@prod")]
    Revoke {
        /// Handle or pseudonym
        person: String,
        /// Which
        #[arg(value_name = "ROLE[@ENVIRONMENT]")]
        role: String,
    },
    /// End everything somebody may do: all tokens are good for nothing at once
    #[command(after_help = "Example:\n  fracas people remove anna --reason 'left the company' --erase")]
    Remove {
        /// Handle or pseudonym
        person: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
        /// Forget name and address too; the pseudonym stays in the history
        #[arg(long)]
        erase: bool,
    },
    /// Make, list and revoke access tokens
    #[command(after_help = "Example:\n  fracas people token make anna --ttl 30d > token\n  fracas people token list")]
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
}

/// What can be done with access tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one for somebody and print it, this once
    #[command(after_help = "Example:\n  fracas people token make anna --ttl 30d --note laptop > token")]
    Make {
        /// Handle or pseudonym
        person: String,
        /// How long it is good
        #[arg(long, default_value = "90d", value_name = "DURATION")]
        ttl: Dur,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
    },
    /// List your own; those of everybody for an admin of all environments
    #[command(after_help = "Example:\n  fracas people token list")]
    List,
    /// End one at once
    #[command(after_help = "Example:\n  fracas people token revoke 5f0c9a1b22334455 --reason 'laptop lost'")]
    Revoke {
        /// Its public part
        id: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
}

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Make a schedule, or change the one of its name
    #[command(
        after_help = "Example:\n  fracas schedule set nightly.yaml\n\nThe experiment and the calendars that the \
                            schedule names are read from beside it and sent along: when one of them has changed, set it \
                            again. `fracas schema --kind schedule` has every key."
    )]
    Set(ScheduleFile),
    /// List them: when, next time, state, what became of the last time
    #[command(after_help = "Example:\n  fracas schedule list\n  fracas schedule list --output json")]
    List,
    /// Show one: next times, what waits, what became of the latest ones
    #[command(after_help = "Example:\n  fracas schedule show nightly --limit 100")]
    Show {
        /// Its name
        name: String,
        /// So many facts of its history, the latest
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Print the next times of a schedule's file, offline: what would be skipped by its calendar is marked
    #[command(
        after_help = "Example:\n  fracas schedule next nightly.yaml --count 20\n  fracas schedule next nightly.yaml \
                            --from 2027-03-28T00:00:00Z"
    )]
    Next {
        /// The schedule; the experiment and calendars it names must stand beside it
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How many
        #[arg(long, default_value_t = 10)]
        count: usize,
        /// After this instant instead of now
        #[arg(long, value_name = "TIME", value_parser = instant)]
        from: Option<i64>,
    },
    /// Skip its times from now on; each skip is recorded
    #[command(after_help = "Example:\n  fracas schedule pause nightly --reason 'release week'")]
    Pause {
        /// Its name
        name: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
    /// End its pause
    #[command(after_help = "Example:\n  fracas schedule resume nightly")]
    Resume {
        /// Its name
        name: String,
    },
    /// Make a link by which calendar programs show what is due, list such links, or revoke one
    #[command(
        after_help = "Example:\n  fracas schedule feed --environment prod --ttl 30d\n  fracas schedule feed --name nightly\n  \
                            fracas schedule feed --list\n  fracas schedule feed --revoke 3f2a90c1d4e5b687 --reason 'left \
                            the team'\n\nWhoever has the link can read it, without a token. It shows times, what is run \
                            and why it is not; no parameters, and not the moments that chance draws."
    )]
    Feed(FeedArgs),
    /// End it for good; its history stays
    #[command(after_help = "Example:\n  fracas schedule remove nightly --reason 'replaced by weekly'")]
    Remove {
        /// Its name
        name: String,
        /// Why, for the history
        #[arg(long)]
        reason: String,
    },
}

/// What can be done with channels.
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// List them: what each is told, what became of the last notice, what waits, since when it fails
    #[command(after_help = "Example:\n  fracas notify list\n  fracas notify list --output json")]
    List,
    /// Send a notice to one of them, once and at once; PagerDuty gets an incident that is resolved right away
    #[command(after_help = "Example:\n  fracas notify test ops-chat\n\nExit code 5: its receiver did not take it; \
                            the text says why.")]
    Test {
        /// Its name
        name: String,
    },
}

/// Arguments of `schedule set`.
#[derive(Debug, Args)]
pub struct ScheduleFile {
    /// The schedule; the experiment and calendars it names must stand beside it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Environment its runs belong to
    #[arg(long, env = "FRACAS_ENVIRONMENT", default_value = "default")]
    pub environment: String,
}

/// What can be done with the audit stream.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Fetch every record and prove here, not there, that none was changed, removed or added behind the chain
    #[command(after_help = VERIFY_HELP)]
    Verify(AuditVerifyArgs),
    /// Print who did what: every call that changes something, refused ones too
    #[command(
        after_help = "Example:\n  fracas audit list --since 24h\n  fracas audit list --since 2027-03-01T00:00:00Z --by admin --method Halt\n  fracas audit list --refused --output json"
    )]
    List(AuditListArgs),
    /// Print the newest signed heads, or add them to a file: keep that away from the controller
    #[command(
        after_help = "Example:\n  fracas audit heads\n  fracas audit heads --limit 100 --to vault/heads.jsonl --key-to vault/audit.pub\n\nEach vouches for every record before it, so one now and then is enough."
    )]
    Heads(AuditHeadsArgs),
    /// Write evidence that can be checked without Fracas, with sha256sum, openssl and a small Python program
    #[command(
        after_help = "Example:\n  fracas audit export --to evidence\n  fracas audit export --to evidence.tar --since 2027-01-01T00:00:00Z\n\nIts README.txt says how to check it. It holds no keys, but all that the documents of runs say."
    )]
    Export(AuditExportArgs),
}

const VERIFY_HELP: &str = "Example:
  fracas audit verify --heads vault/heads.jsonl --key vault/audit.pub
  fracas audit verify --chains-only --output json

Without --key the key is the controller's own word, and whoever could change its history could have changed that too; \
without --heads so are the heads.

Exit codes: 0 whole, 1 broken, 3 whole, but signed heads know of more (a restored copy), 5 it could not be verified.";

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// Signed heads that were kept elsewhere, one JSON text a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub heads: Vec<PathBuf>,
    /// The public key that signed them, kept elsewhere [default: what the controller says]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Do not fetch readings and reports: much quicker, and nothing is said of them
    #[arg(long)]
    pub chains_only: bool,
}

/// Arguments of `audit list`.
#[derive(Debug, Args)]
pub struct AuditListArgs {
    /// From this instant on, or from so long ago
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// What this person or program did
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
    /// Calls of this method, such as StartRun
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,
    /// What was refused
    #[arg(long)]
    pub refused: bool,
}

/// Arguments of `audit heads`.
#[derive(Debug, Args)]
pub struct AuditHeadsArgs {
    /// So many, the newest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Add those that it does not have to this file
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Write the public key to this file; one that is there already must be the same
    #[arg(long, value_name = "FILE")]
    pub key_to: Option<PathBuf>,
}

/// Arguments of `audit export`.
#[derive(Debug, Args)]
pub struct AuditExportArgs {
    /// A directory to make, or a file that ends in .tar
    #[arg(long, value_name = "DIR|FILE")]
    pub to: PathBuf,
    /// Leave out what has had no record from this instant on, or from so long ago; the audit stream is always whole
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
}

/// A point in time: an instant, or so long before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nanoseconds since the Unix epoch.
    Instant(i64),
    /// Before now.
    Ago(Dur),
}

impl Since {
    /// As an instant, nanoseconds since the Unix epoch.
    pub fn wall_ns(self, now_ns: i64) -> i64 {
        match self {
            Self::Instant(ns) => ns,
            Self::Ago(length) => now_ns.saturating_sub(length.ns()),
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    match (text.parse::<Dur>(), instant(text)) {
        (Ok(length), _) => Ok(Since::Ago(length)),
        (_, Ok(ns)) => Ok(Since::Instant(ns)),
        _ => Err("write it as 2027-03-28T00:00:00Z, or as a length such as 24h or 7d".to_owned()),
    }
}

/// What stands under `fracas controller` and needs one that runs.
#[derive(Debug)]
pub enum KeepCommand {
    /// Removes what is old.
    Prune(PruneArgs),
    /// Makes a copy of everything.
    Backup(BackupArgs),
}

/// Arguments of `controller prune`.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Runs that ended longer ago than this go for good, and facts of schedules that are as old
    #[arg(long, value_name = "DURATION")]
    pub older_than: Dur,
    /// So many runs stay, the newest, however old they are
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: u64,
    /// Say what would go, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the history
    #[arg(long, required_unless_present = "dry_run")]
    pub reason: Option<String>,
    /// Do not ask before
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `controller backup`, where it runs.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// The file to make, a tar archive that only you may read
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Leave out every key and token: good for looking at, not for going on with
    #[arg(long)]
    pub without_keys: bool,
}

/// Arguments of `schedule feed`.
#[derive(Debug, Args)]
pub struct FeedArgs {
    /// Environment whose schedules it shows [default: that of --name, else default]
    #[arg(long, env = "FRACAS_ENVIRONMENT")]
    pub environment: Option<String>,
    /// Only this schedule
    #[arg(long, value_name = "SCHEDULE")]
    pub name: Option<String>,
    /// How long the link is good, at most ten years
    #[arg(long, default_value = "365d", value_name = "DURATION")]
    pub ttl: Dur,
    /// List the links that were made and have not expired
    #[arg(long, conflicts_with_all = ["name", "revoke", "ttl"])]
    pub list: bool,
    /// Let this link open nothing any more
    #[arg(long, value_name = "ID", requires = "reason", conflicts_with_all = ["name", "ttl"])]
    pub revoke: Option<String>,
    /// With --revoke: why, for the history
    #[arg(long, requires = "revoke")]
    pub reason: Option<String>,
}

/// One change of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelChange {
    /// Give it this value.
    Set(String, String),
    /// Take it away.
    Remove(String),
}

/// Arguments of `faults` and `probes`.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Explain this one
    pub name: Option<String>,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Which run.
    #[command(flatten)]
    pub run: RunName,
    /// Form of the report; without it --to's ending decides
    #[arg(long, value_enum)]
    pub format: Option<ReportForm>,
    /// Write it to this file
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For a terminal.
    Text,
    /// The report as data.
    Json,
    /// One self-contained page.
    Html,
    /// For tickets, wikis and the summary of a CI job.
    Markdown,
    /// For the test reports of CI systems.
    Junit,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

fn instant(text: &str) -> Result<i64, String> {
    let at = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| "write it as 2027-03-28T00:00:00Z".to_owned())?;
    at.timestamp_nanos_opt().ok_or_else(|| "that is too far away".to_owned())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn label_change(text: &str) -> Result<LabelChange, String> {
    if let Ok((name, value)) = assignment(text) {
        return Ok(LabelChange::Set(name, value));
    }
    match text.strip_suffix('-') {
        Some(name) if !name.is_empty() => Ok(LabelChange::Remove(name.to_owned())),
        _ => Err("write NAME=VALUE to set a label or NAME- to remove it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Splits like a shell: single quotes keep spaces; a redirection ends the command.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap_or_default();
        let line = line.split(" || ").next().unwrap_or_default();
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    fn check(command: &clap::Command, path: &str, checked: &mut usize) {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{path} has no example")).to_string();
        let examples: Vec<&str> = help.lines().filter_map(|l| l.strip_prefix("  fracas ")).collect();
        assert!(!examples.is_empty(), "{path} has no example");
        for example in examples {
            let line = format!("fracas {example}");
            assert!(line.starts_with(path.split(' ').take(2).collect::<Vec<_>>().join(" ").as_str()), "{path}: {line}");
            Cli::try_parse_from(words(&line)).unwrap_or_else(|e| panic!("{line}: {e}"));
            *checked += 1;
        }
        for child in command.get_subcommands() {
            check(child, &format!("{path} {}", child.get_name()), checked);
        }
    }

    #[test]
    fn the_tree_is_sound_and_every_commands_help_has_an_example_that_parses() {
        Cli::command().debug_assert();
        let mut checked = 0;
        for command in Cli::command().get_subcommands() {
            check(command, &format!("fracas {}", command.get_name()), &mut checked);
        }
        assert!(checked >= 16, "{checked}");
    }

    #[test]
    fn the_commands_of_the_example_pipelines_parse() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/ci");
        for name in ["github-actions.yml", "gitlab-ci.yml"] {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            let commands =
                text.lines().map(|line| line.trim_start_matches([' ', '#'])).filter(|l| l.starts_with("fracas "));
            let mut told = Vec::new();
            for line in commands {
                let cli = Cli::try_parse_from(words(line)).unwrap_or_else(|e| panic!("{name}: {line}: {e}"));
                told.push(match cli.command {
                    Command::Trend(given) => (given.fail_on, given.newest),
                    Command::Run(given) => (None, given.repeat.unwrap_or(0)),
                    _ => continue,
                });
            }
            assert_eq!(told, [(None, 5), (Some(TrendFailure::Slower), 5)], "{name}");
        }
    }

    #[test]
    fn baselines_are_windows_or_runs() {
        assert_eq!(baseline("last:20"), Ok(Baseline::Last(20)));
        assert_eq!(baseline("1nf3"), Ok(Baseline::Between("1nf3".into(), "1nf3".into())));
        assert_eq!(baseline("a..b"), Ok(Baseline::Between("a".into(), "b".into())));
        for wrong in ["last:", "last:0", "last:x", "last:5000", "..b", "a..", ""] {
            assert!(baseline(wrong).is_err(), "{wrong}");
        }
        assert!(Cli::try_parse_from(["fracas", "trend"]).is_err());
        assert!(Cli::try_parse_from(["fracas", "trend", "a", "--alpha", "0"]).is_err());
        assert!(Cli::try_parse_from(["fracas", "run", "a.yaml", "--keep-going"]).is_err());
        assert!(Cli::try_parse_from(["fracas", "run", "a.yaml", "--repeat", "0"]).is_err());
    }

    #[test]
    fn labels_are_set_and_removed() {
        let cli = Cli::try_parse_from(["fracas", "hosts", "label", "db-1", "a=b=c", "old-"]).unwrap();
        let Command::Hosts(HostsArgs { command: Some(HostsCommand::Label { changes, .. }), .. }) = cli.command else {
            panic!("not label")
        };
        assert_eq!(changes, [LabelChange::Set("a".into(), "b=c".into()), LabelChange::Remove("old".into())]);
        assert!(Cli::try_parse_from(["fracas", "hosts", "label", "db-1", "novalue"]).is_err());
    }

    #[test]
    fn a_halt_needs_a_reason_and_its_clearing_too() {
        assert!(Cli::try_parse_from(["fracas", "halt"]).is_err());
        assert!(Cli::try_parse_from(["fracas", "halt", "clear"]).is_err());
        assert!(Cli::try_parse_from(["fracas", "run", "a.yaml", "--local", "--detach"]).is_err());
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = Cli::try_parse_from(["fracas", "runs", "--output", "json", "--controller", "c:1"]).unwrap();
        assert_eq!((cli.global.output, cli.global.controller.as_deref()), (OutputForm::Json, Some("c:1")));
    }
}
