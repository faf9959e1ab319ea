//! How near a load comes to what was asked, beside stress-ng on the same core, both seen by the scheduler's own count.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fracas_agent::host::{Host as _, linux::LinuxHost};
use fracas_model::{
    id::ItemKey,
    plan::{Burn, BurnMode, Step},
    units::Percent,
};

use super::{say, table};

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let seconds = if quick { 3 } else { 20 };
    let peer = Command::new("stress-ng").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !peer {
        say("stress-ng is not installed (Debian: stress-ng): no peer beside it")?;
    }
    let mut rows = Vec::new();
    for percent in [20.0, 50.0, 80.0] {
        rows.push(row("cpu-load", percent, &ours(percent, seconds)?));
        if peer {
            rows.push(row("stress-ng", percent, &theirs(percent, seconds)?));
        }
    }
    let columns = ["who", "asked %", "mean %", "error of the mean", "worst second's error", "n (seconds)"];
    table("load (one core, seen in /proc/PID/task/*/schedstat)", &columns, &rows)
}

fn row(who: &str, asked: f64, seconds: &[f64]) -> Vec<String> {
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
    let worst = seconds.iter().map(|s| (s - asked).abs()).fold(0.0, f64::max);
    let cell = |value: f64| format!("{value:.2}");
    vec![who.into(), cell(asked), cell(mean), cell((mean - asked).abs()), cell(worst), seconds.len().to_string()]
}

fn ours(percent: f64, seconds: usize) -> anyhow::Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = LinuxHost::start("bench".into(), "0");
    let key = ItemKey { run: "bench".into(), entry: "load".into(), occurrence: 0, host: "bench".into(), generation: 1 };
    let step = Step::Burn(Burn { percent: Percent(percent), mode: BurnMode::Added, cores: vec![0] });
    let (handle, _) = runtime.block_on(host.apply(&key, 0, &step))?;
    let pid = handle["worker"]["pid"].as_i64().context("no worker")?;
    let seen = watch(i32::try_from(pid)?, seconds);
    runtime.block_on(host.revert(&key, 0, &step, Some(&handle)))?;
    seen
}

fn theirs(percent: f64, seconds: usize) -> anyhow::Result<Vec<f64>> {
    let mut child = Command::new("stress-ng")
        .args(["--cpu", "1", "--taskset", "0", "--cpu-load"])
        .arg(format!("{percent:.0}"))
        .arg("--timeout")
        .arg(format!("{}s", seconds + 10))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The parent only waits; its one child burns.
    let worker = super::until("stress-ng has begun", || {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse::<i32>().ok()
    })?;
    let seen = watch(worker, seconds);
    if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    child.wait()?;
    seen
}

/// Percent of one core in each second, by the run time of all threads; the first second is left out.
fn watch(pid: i32, seconds: usize) -> anyhow::Result<Vec<f64>> {
    thread::sleep(Duration::from_secs(1));
    let mut all = Vec::new();
    let (mut then, mut before) = (Instant::now(), run_ns(pid)?);
    for _ in 0..seconds {
        thread::sleep(Duration::from_secs(1).saturating_sub(then.elapsed()));
        let (now, used) = (Instant::now(), run_ns(pid)?);
        all.push(100.0 * (used - before) as f64 / (now - then).as_nanos() as f64);
        (then, before) = (now, used);
    }
    Ok(all)
}

fn run_ns(pid: i32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
