//! How exactly the exit of a process is known, beside what its supervisor logged and what ticks alone could know.

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
const NAME: &str = "fracas-exits";

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let wanted = if quick { 20 } else { 300 };
    let dir = tempfile::tempdir()?;
    let program = dir.path().join(NAME);
    std::fs::copy("/bin/sleep", &program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let item = ProbeItem {
        run: "bench".into(),
        probe: "exits".into(),
        kind: "process".into(),
        params: Params(json!({ "name": NAME, "count": 1 }).as_object().cloned().unwrap_or_default()),
        every: EVERY,
        at_rest: None,
        timeout: EVERY,
        stop: Vec::new(),
        until: Dur::from_secs(3600),
    };
    let (mut after, mut width, mut inside) = (Vec::new(), Vec::new(), 0);
    runtime.block_on(async {
        let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of("bench".into()));
        watcher.set(std::slice::from_ref(&item));
        while after.len() < wanted {
            let child = Command::new(&program).arg("600").spawn()?;
            seen(&mut watcher, true).await?;
            // Somewhere between two ticks.
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..100))).await;
            let supervisor = thread::spawn(move || supervise(child));
            let (before, look) = seen(&mut watcher, false).await?;
            let logged = supervisor.join().ok().context("the supervisor ended badly")??;
            after.push(look.c - logged);
            let last_up = before.map_or(look.s, |before| before.s);
            width.push(look.c - last_up);
            inside += usize::from(last_up <= logged && logged <= look.c.max(logged));
        }
        watcher.close().await;
        anyhow::Ok(())
    })?;
    // A look may be complete before the supervisor gets to run: then the exit was earlier than it logged.
    let off = Sample::new(after.iter().map(|ns| ns.abs()).collect());
    let rows = [
        [vec!["known to be down, from the supervisor's log".to_owned()], off.cells()].concat(),
        [vec!["width of the interval of the exit".to_owned()], Sample::new(width).cells()].concat(),
    ];
    table(
        &format!(
            "exits (process probe every {EVERY}, milliseconds; {inside} of {wanted} intervals hold the log's instant)"
        ),
        &["what", "n", "p50", "p99", "max"],
        &rows,
    )
}

/// Ends its child and logs when it saw that it had ended.
fn supervise(mut child: Child) -> std::io::Result<i64> {
    child.kill()?;
    child.wait()?;
    Ok(boot_ns())
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
