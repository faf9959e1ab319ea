//! How exactly the start and the exit of a process are known, beside what its supervisor logged and what ticks alone could
//! know.

use std::{
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use fracas_agent::{
    host::clock::{Clock, boot_ns},
    watch::{Watcher as _, thread::ThreadWatcher},
};
use fracas_model::{
    catalogue::Params,
    desired::ProbeItem,
    event::{Body, Look},
    policy::Policy,
    units::Dur,
};
use serde_json::json;

use super::{Sample, table};

const EVERY: Dur = Dur::from_ms(100);
/// A name of its own: the machine runs other things.
const NAME: &str = "fracas-supervised";

/// What the probe told of one kind of change, beside the supervisor's log.
#[derive(Default)]
struct Changes {
    /// From the supervisor's log to the first instant that is known to be after the change.
    off: Vec<i64>,
    width: Vec<i64>,
    /// Intervals that hold an instant at which the supervisor says it may have been.
    hold: usize,
}

impl Changes {
    /// `supervised`: when the supervisor asked for it and when it saw it done.
    fn add(&mut self, (before, after): (Option<Look>, Look), supervised: (i64, i64)) {
        let known_since = before.map_or(i64::MIN, |before| before.s);
        self.off.push(after.c - supervised.1);
        self.width.push(after.c - known_since.max(0));
        self.hold += usize::from(known_since <= supervised.1 && supervised.0 <= after.c);
    }
}

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let wanted = if quick { 20 } else { 300 };
    let dir = tempfile::tempdir()?;
    let program = dir.path().join(NAME);
    std::fs::copy("/bin/sleep", &program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let item = ProbeItem {
        run: "bench".into(),
        probe: "supervised".into(),
        kind: "process".into(),
        params: Params(json!({ "name": NAME, "count": 1 }).as_object().cloned().unwrap_or_default()),
        every: EVERY,
        at_rest: None,
        timeout: EVERY,
        stop: Vec::new(),
        until: Dur::from_secs(3600),
    };
    let (mut starts, mut exits) = (Changes::default(), Changes::default());
    runtime.block_on(async {
        let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of("bench".into()));
        watcher.set(std::slice::from_ref(&item));
        // Nothing runs at first.
        seen(&mut watcher, false).await?;
        while exits.off.len() < wanted {
            somewhere_between_ticks().await;
            let program = program.clone();
            let supervisor = thread::spawn(move || started(&program));
            let edge = seen(&mut watcher, true).await?;
            let (child, supervised) = supervisor.join().ok().context("the supervisor ended badly")??;
            starts.add(edge, supervised);
            somewhere_between_ticks().await;
            let supervisor = thread::spawn(move || ended(child));
            let edge = seen(&mut watcher, false).await?;
            let supervised = supervisor.join().ok().context("the supervisor ended badly")??;
            exits.add(edge, supervised);
        }
        watcher.close().await;
        anyhow::Ok(())
    })?;
    let row = |what: &str, values| [vec![what.to_owned()], Sample::new(values).cells()].concat();
    // The kernel's stamp may be before the supervisor's log, which it writes when it gets to run.
    let off = |changes: &Changes| changes.off.iter().map(|ns| ns.abs()).collect();
    let rows = [
        row("started, off the supervisor's log", off(&starts)),
        row("width of the interval of the start", starts.width),
        row("ended, off the supervisor's log", off(&exits)),
        row("width of the interval of the exit", exits.width),
    ];
    let holds = format!("{} of {wanted} intervals of a start and {} of an exit", starts.hold, exits.hold);
    table(
        &format!("processes (process probe every {EVERY}, milliseconds; {holds} hold what the log says)"),
        &["what", "n", "p50", "p99", "max"],
        &rows,
    )
}

async fn somewhere_between_ticks() {
    tokio::time::sleep(Duration::from_millis(100 + rand::random_range(0..100))).await;
}

/// Starts a child; when it was asked for, and when it was known to run its program.
fn started(program: &std::path::Path) -> std::io::Result<(Child, (i64, i64))> {
    let asked = boot_ns();
    let child = Command::new(program).arg("600").spawn()?;
    Ok((child, (asked, boot_ns())))
}

/// Ends its child; when it was asked to end, and when it was seen to have ended.
fn ended(mut child: Child) -> std::io::Result<(i64, i64)> {
    let asked = boot_ns();
    child.kill()?;
    child.wait()?;
    Ok((asked, boot_ns()))
}

/// Waits for an edge; the looks on both sides of it.
async fn seen(watcher: &mut ThreadWatcher, wanted: bool) -> anyhow::Result<(Option<Look>, Look)> {
    loop {
        let sight = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await?;
        match sight.body {
            Body::Edge { ok, before, after, .. } if ok == wanted => return Ok((before, after)),
            Body::ProbeRefused { refusal, .. } => anyhow::bail!("the probe was refused: {refusal}"),
            _ => {}
        }
    }
}
