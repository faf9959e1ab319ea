//! `cargo xtask bench`: what the product costs and how exact it is, as tables with n, the limit or a peer beside them.
//!
//! Nothing here passes or fails: machines are noisy, so read ratios, and the figures of one run side by side.

mod appends;
mod delay;
mod idle;
mod load;
mod orders;
mod probes;
mod processes;
mod recovery;
mod ticks;

use std::{
    env, fs,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// A bench; whether it is to be quick.
type Bench<'a> = &'a dyn Fn(bool) -> anyhow::Result<()>;

const HELP: &str = "usage: cargo xtask bench [--quick] [--seed S] [--simulated] [--without-peer] [NAME...]
  orders    order committed by the controller -> fault in effect on one loopback agent, fsync beside it
  appends   append of one fact to a full history: alone, during a backup, during a prune; fsync beside it
  ticks     lateness of probe ticks at 10 ms
  probes    1,000 probes at 10 Hz on one watcher: processor time, memory, lateness, ticks missed
  processes start and exit of a process as a probe tells them, beside what its supervisor logged
  recovery  estimated outages against scripted ones whose truth is known: 10,000 in simulation, over 300 in real time,
            and Chaos Toolkit at the same ones, made by pip in target/chaostoolkit when absent; --simulated: without
            real time; --without-peer: without Chaos Toolkit; --seed: the draws of that seed again; about 7 minutes
  load      cpu-load at 20, 50 and 80 %: mean and worst second, stress-ng beside it
  idle      size of the stripped agent, memory and processor time of an idle one and its guard over 60 s
  delay     added delay at 1, 20 and 200 ms: error of the kernel-owned way, in namespaces (root)
All of them when none is named. --quick: fewer observations, for trying the bench itself.";

/// Everything, or what was named.
pub(crate) fn run(words: &[String]) -> anyhow::Result<()> {
    if words.iter().any(|w| w == "--help" || w == "-h") {
        return say(HELP);
    }
    if words.first().is_some_and(|w| w == probes::LISTENERS) {
        return probes::listen();
    }
    let quick = words.iter().any(|w| w == "--quick");
    if words.first().is_some_and(|w| w == probes::MEASURE) {
        return probes::measure(quick);
    }
    let seed = words.iter().position(|w| w == "--seed").map(|at| at + 1);
    let asked = recovery::Asked {
        simulated: words.iter().any(|w| w == "--simulated"),
        without_peer: words.iter().any(|w| w == "--without-peer"),
        seed: match seed {
            Some(at) => words.get(at).and_then(|w| w.parse().ok()).context("--seed needs a number")?,
            None => rand::random(),
        },
    };
    let named = |(at, word): (usize, &'_ String)| !word.starts_with("--") && Some(at) != seed;
    let names: Vec<&str> =
        words.iter().enumerate().filter(|pair| named(*pair)).map(|(_, word)| word.as_str()).collect();
    let recovery = |quick| recovery::run(quick, &asked);
    let all: [(&str, Bench<'_>); 9] = [
        ("orders", &orders::run),
        ("appends", &appends::run),
        ("ticks", &ticks::run),
        ("probes", &probes::run),
        ("processes", &processes::run),
        ("recovery", &recovery),
        ("load", &load::run),
        ("delay", &delay::run),
        ("idle", &idle::run),
    ];
    if let Some(strange) = names.iter().find(|n| all.iter().all(|(name, _)| name != *n)) {
        bail!("there is no bench {strange}\n{HELP}");
    }
    machine()?;
    for (name, bench) in all.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        bench(quick).with_context(|| format!("bench {name}"))?;
    }
    Ok(())
}

/// What everything was measured on.
fn machine() -> anyhow::Result<()> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m.to_owned()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let model = model.unwrap_or_else(|| "processor unknown".into());
    say(&format!("machine: {model}, {cores} cores, Linux {}, load average {load} at the start\n", kernel.trim()))
}

/// Writes a line.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// A table: a heading, columns, rows.
pub(crate) fn table(heading: &str, columns: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let width =
        |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([columns[i].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned()
    };
    say(heading)?;
    say(&format!("  {}", line(columns.to_vec())))?;
    for row in rows {
        say(&format!("  {}", line(row.iter().map(String::as_str).collect())))?;
    }
    say("")
}

/// Order statistics of a sample in nanoseconds, as milliseconds. p99 only where 299 observations support it.
pub(crate) struct Sample(Vec<i64>);

impl Sample {
    pub(crate) fn new(mut ns: Vec<i64>) -> Self {
        ns.sort_unstable();
        Self(ns)
    }

    pub(crate) fn n(&self) -> usize {
        self.0.len()
    }

    fn at(&self, share: f64) -> Option<f64> {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map(|ns| *ns as f64 / 1e6)
    }

    /// `n`, p50, p99 and max as cells.
    pub(crate) fn cells(&self) -> Vec<String> {
        let ms = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.3}"));
        let p99 = if self.n() >= 299 { ms(self.at(0.99)) } else { "- (n < 299)".into() };
        vec![self.n().to_string(), ms(self.at(0.5)), p99, ms(self.at(1.0))]
    }
}

/// Times of appending 4 KiB and syncing the data, as the journal and the history do.
pub(crate) fn fsyncs(dir: &Path, n: usize) -> anyhow::Result<Sample> {
    let mut file = fs::File::options().create(true).append(true).open(dir.join("fsync"))?;
    let block = [7_u8; 4096];
    let mut all = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        all.push(i64::try_from(begun.elapsed().as_nanos())?);
    }
    file.rewind()?;
    Ok(Sample::new(all))
}

/// Builds binaries and gives the directory they are in.
pub(crate) fn built(profile: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&root).args(["build", "--locked", "--quiet", "--profile", profile]);
    for package in packages {
        command.args(["--package", package]);
    }
    say(&format!("building {} with profile {profile} ...", packages.join(" and ")))?;
    if !command.status()?.success() {
        bail!("the build failed");
    }
    Ok(target().join(profile).canonicalize()?)
}

/// Where builds and what benches fetch go.
pub(crate) fn target() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    env::var_os("CARGO_TARGET_DIR").map_or_else(here, PathBuf::from)
}

/// A program that is asked to end, then killed, when this goes out of scope.
pub(crate) struct Background(pub(crate) Child);

impl Background {
    pub(crate) fn start(program: &Path, arguments: &[&str], log: &Path) -> anyhow::Result<Self> {
        let log = fs::File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A controller and an agent on loopback, and how to call them.
pub(crate) struct Pair {
    pub(crate) fracas: PathBuf,
    pub(crate) context: PathBuf,
    pub(crate) agent: Background,
    _controller: Background,
}

impl Pair {
    /// Starts both in `dir` and waits until the agent is in contact. `agent` is the agent's program.
    pub(crate) fn start(dir: &Path, fracas: &Path, agent: &Path) -> anyhow::Result<Self> {
        let data = dir.join("controller");
        let text = |path: &Path| path.display().to_string();
        let any = "127.0.0.1:0";
        let listen = ["--front-listen", any, "--fleet-listen", any, "--metrics-listen", "off"];
        let log = dir.join("controller.log");
        let mut arguments = vec!["controller", "--data-dir"];
        let data_text = text(&data);
        arguments.push(&data_text);
        arguments.extend(listen);
        let controller = Background::start(fracas, &arguments, &log)?;
        let ready = until("the controller is ready", || {
            fs::read_to_string(&log).ok()?.lines().find(|l| l.contains("controller ready")).map(str::to_owned)
        })?;
        let fleet = ready
            .split("fleet=")
            .nth(1)
            .and_then(|t| t.split(' ').next())
            .context("no fleet address in the log")?
            .to_owned();
        let context = data.join("admin.yaml");
        let token = Command::new(fracas)
            .args(["hosts", "join-token", "--label", "bench=true"])
            .env("FRACAS_CONTEXT", &context)
            .output()?;
        fs::write(dir.join("token"), &token.stdout)?;
        let (token, state) = (text(&dir.join("token")), text(&dir.join("agent")));
        let arguments = ["--controller", &fleet, "--join-token-file", &token, "--state-dir", &state, "--name", "bench"];
        let mut all: Vec<&str> = if agent == fracas { vec!["agent"] } else { Vec::new() };
        all.extend(arguments);
        let agent = Background::start(agent, &all, &dir.join("agent.log"))?;
        until("the agent is in contact", || {
            let log = fs::read_to_string(dir.join("agent.log")).ok()?;
            log.contains("in contact").then_some(())
        })?;
        Ok(Self { fracas: fracas.to_owned(), context, agent, _controller: controller })
    }
}

/// Waits for something, at most half a minute.
pub(crate) fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = there() {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("waited in vain until {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
