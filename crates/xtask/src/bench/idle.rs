//! What an agent costs while nothing happens: bytes on disk and in memory, and processor time.

use std::{fs, thread, time::Duration};

use anyhow::Context as _;

use super::{Pair, built, table};

/// `USER_HZ`, in which /proc/PID/stat counts.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let seconds = if quick { 5 } else { 60 };
    let (fracas, agent) = (built("release", &["fracas"])?, built("dist", &["fracas-agent"])?.join("fracas-agent"));
    let dir = tempfile::tempdir()?;
    let pair = Pair::start(dir.path(), &fracas.join("fracas"), &agent)?;
    let pid = pair.agent.pid();
    let guard = super::until("the guard runs", || children(pid).into_iter().next())?;
    // What starting cost is not what being idle costs.
    thread::sleep(Duration::from_secs(5));
    let before = (ticks(pid)?, ticks(guard)?);
    thread::sleep(Duration::from_secs(seconds));
    let used =
        |before: u64, pid: i32| anyhow::Ok((ticks(pid)? - before) as f64 / TICKS_PER_SECOND / seconds as f64 * 100.0);
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let size = fs::metadata(&agent)?.len();
    let (of_agent, of_guard) = (pss(pid)?, pss(guard)?);
    let cpu = (used(before.0, pid)?, used(before.1, guard)?);
    let rows = [
        vec!["stripped binary (profile dist)".to_owned(), mib(size), "10 MiB".to_owned()],
        vec!["PSS of agent and guard".into(), mib(of_agent + of_guard), "10 MiB".into()],
        vec!["  agent".into(), mib(of_agent), String::new()],
        vec!["  guard".into(), mib(of_guard), String::new()],
        vec![format!("processor time over {seconds} s, both"), format!("{:.3} %", cpu.0 + cpu.1), "0.1 %".into()],
        vec!["  agent".into(), format!("{:.3} %", cpu.0), String::new()],
        vec!["  guard".into(), format!("{:.3} %", cpu.1), String::new()],
    ];
    table("idle (one agent in contact with its controller, no run)", &["what", "measured", "aim"], &rows)
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks
        .flat_map(|task| of(task).split_ascii_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn pss(pid: i32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).context("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// User and system time in clock ticks.
fn ticks(pid: i32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(") ").context("no name in stat")?.1;
    let field = |i: usize| rest.split(' ').nth(i).and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
    Ok(field(11) + field(12))
}
