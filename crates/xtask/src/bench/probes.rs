//! What a thousand probes cost one agent, and how late their looks begin. The listeners they look at are another process, so
//! that only the watcher is measured.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use fracas_agent::{
    host::clock::Clock,
    watch::{Watcher as _, phase, thread::ThreadWatcher},
};
use fracas_model::{
    catalogue::Params,
    desired::ProbeItem,
    event::{Body, Readings},
    policy::Policy,
    units::Dur,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::{Sample, built, say, table};

/// The word that makes this program the listeners.
pub(super) const LISTENERS: &str = "--listeners";
/// The word that makes this program, optimised, measure.
pub(super) const MEASURE: &str = "--measure";
/// So many that no port of theirs runs out of far ends: each connection keeps one for a minute.
const PORTS: usize = 100;
const PROBES: usize = 1000;
const EVERY: Dur = Dur::from_ms(100);
/// `USER_HZ`, in which /proc counts processor time.
const TICKS_PER_SECOND: f64 = 100.0;
const HOST: &str = "bench";

/// Listens on many ports, names them, and closes every connection, until its input ends.
pub(super) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(|| {
        // Whoever started this holds the other end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::abort();
    });
    runtime.block_on(async {
        let mut accepting = tokio::task::JoinSet::new();
        for _ in 0..PORTS {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            say(&listener.local_addr()?.to_string())?;
            accepting.spawn(async move {
                loop {
                    // A failed accept concerns one connection.
                    drop(listener.accept().await);
                }
            });
        }
        while accepting.join_next().await.is_some() {}
        Ok(())
    })
}

/// The listeners, as a process of their own.
struct Listeners(Child);

impl Listeners {
    fn start() -> anyhow::Result<(Self, Vec<String>)> {
        let mut child = Command::new(env::current_exe()?)
            .args(["bench", LISTENERS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = child.stdout.take().context("the listeners have no output")?;
        let addresses: Vec<String> = BufReader::new(told).lines().take(PORTS).collect::<Result<_, _>>()?;
        anyhow::ensure!(addresses.len() == PORTS, "the listeners ended");
        Ok((Self(child), addresses))
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures what is shipped: an optimised watcher.
pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let program = built("release", &["xtask"])?.join("xtask");
    let word = if quick { "--quick" } else { "--full" };
    let status = Command::new(program).args(["bench", MEASURE, word]).status()?;
    anyhow::ensure!(status.success(), "the optimised bench ended with {status}");
    Ok(())
}

/// The measurement itself.
pub(super) fn measure(quick: bool) -> anyhow::Result<()> {
    let seconds = if quick { 5 } else { 30 };
    // Each probe has a timer, and each look a socket.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    let (_listeners, addresses) = Listeners::start()?;
    let items: Vec<ProbeItem> = (0..PROBES).map(|i| item(i, &addresses[i % PORTS])).collect();
    let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of(HOST.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let empty = resident()?;
    watcher.set(&items);
    let mut told = Told::default();
    // What starting costs is not what running costs: until each probe has told its first second.
    runtime.block_on(told.listen(&mut watcher, Duration::from_secs(3)))?;
    let (begun, process, memory) = (probe_thread()?, of_process()?, resident()?);
    let so_far = told.bytes;
    let clock = std::time::Instant::now();
    let mut seen = Told { starts: std::mem::take(&mut told.starts), ..Told::default() };
    runtime.block_on(seen.listen(&mut watcher, Duration::from_secs(seconds)))?;
    let wall = clock.elapsed().as_secs_f64();
    let share = |after: u64, before: u64| format!("{:.1} %", (after - before) as f64 / TICKS_PER_SECOND / wall * 100.0);
    let (thread, all) = (share(probe_thread()?, begun), share(of_process()?, process));
    let grown = resident()?.saturating_sub(memory).saturating_sub(seen.bytes);
    let (looks, failed) = (seen.looks, seen.failed);
    for sight in runtime.block_on(watcher.close()) {
        seen.take(sight)?;
    }
    let late = seen.lateness(&items)?;
    let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let rows = [
        ("looks told a second, of 10,000 due", format!("{:.0}", looks as f64 / wall)),
        ("failed looks", failed.to_string()),
        ("ticks missed (with those while closing)", seen.missed.to_string()),
        ("processor time of the probe thread", thread),
        ("processor time of the process, with the bench's own", all),
        ("memory for the probes, after 3 s", mib(memory.saturating_sub(empty).saturating_sub(so_far))),
        ("memory it grew by since, less what the bench keeps", mib(grown)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
    table(&format!("probes ({PROBES} tcp probes every 100 ms for {seconds} s)"), &["what", "measured"], &rows)?;
    let row = [vec!["look begun after its tick".to_owned()], late.cells()].concat();
    table("the same, lateness (milliseconds)", &["what", "n", "p50", "p99", "max"], &[row])
}

fn item(i: usize, address: &str) -> ProbeItem {
    ProbeItem {
        run: "bench".into(),
        probe: format!("p{i}").as_str().into(),
        kind: "tcp".into(),
        params: Params(json!({ "address": address }).as_object().cloned().unwrap_or_default()),
        every: EVERY,
        at_rest: None,
        timeout: EVERY,
        stop: Vec::new(),
        until: Dur::from_secs(600),
    }
}

/// What all probes told.
#[derive(Default)]
struct Told {
    /// When each probe began, boot time.
    starts: BTreeMap<String, i64>,
    blobs: Vec<(String, Vec<u8>)>,
    bytes: usize,
    looks: u64,
    failed: u64,
    missed: u64,
}

impl Told {
    async fn listen(&mut self, watcher: &mut ThreadWatcher, time: Duration) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + time;
        while let Ok(sight) = tokio::time::timeout_at(end, watcher.next()).await {
            self.take(sight)?;
        }
        Ok(())
    }

    fn take(&mut self, sight: fracas_agent::watch::Sight) -> anyhow::Result<()> {
        match sight.body {
            Body::ProbeStarted { probe, at } => {
                self.starts.insert(probe.as_str().to_owned(), at.boot_ns);
            }
            Body::ReadingsSealed { probe, ok, failed, .. } => {
                let blob = sight.blob.unwrap_or_default();
                self.bytes += blob.capacity();
                self.looks += u64::from(ok) + u64::from(failed);
                self.failed += u64::from(failed);
                self.blobs.push((probe.as_str().to_owned(), blob));
            }
            Body::Gap { missed, .. } => self.missed += missed,
            Body::ProbeRefused { refusal, .. } => anyhow::bail!("a probe was refused: {refusal}"),
            _ => {}
        }
        Ok(())
    }

    /// How long after its tick each look began.
    fn lateness(&self, items: &[ProbeItem]) -> anyhow::Result<Sample> {
        let ticks: BTreeMap<&str, i64> = items
            .iter()
            .filter_map(|i| {
                let probe = i.probe.as_str();
                Some((probe, self.starts.get(probe)? + phase(i, HOST, EVERY.ns())))
            })
            .collect();
        let mut late = Vec::new();
        for (probe, blob) in &self.blobs {
            let tick = ticks.get(probe.as_str()).context("a probe told readings before it began")?;
            late.extend(
                serde_json::from_slice::<Readings>(blob)?.unpack().iter().map(|r| (r.look.s - tick) % EVERY.ns()),
            );
        }
        Ok(Sample::new(late))
    }
}

/// User and system time of the watcher's thread, in clock ticks.
fn probe_thread() -> anyhow::Result<u64> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() == "probes" {
            return used(&fs::read_to_string(task.join("stat"))?);
        }
    }
    anyhow::bail!("no thread for probes")
}

fn of_process() -> anyhow::Result<u64> {
    used(&fs::read_to_string("/proc/self/stat")?)
}

fn used(stat: &str) -> anyhow::Result<u64> {
    let rest = stat.rsplit_once(") ").context("no name in stat")?.1;
    let field = |i: usize| rest.split(' ').nth(i).and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
    Ok(field(11) + field(12))
}

/// Resident memory in bytes.
fn resident() -> anyhow::Result<usize> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<usize>()? * 1024)
}
