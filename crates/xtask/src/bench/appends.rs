//! What a prune or a backup costs those who append meanwhile: each append ends with its sync, as the product's do.
//!
//! It works on a history of its own, full of runs that are over, through the product's own keeper.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use fracas_controller::{
    chain::{hex, sha256},
    clock::SystemClock,
    controller::Controller,
    datadir::DataDir,
    history::{Extra, Fact, History},
    identity::Identity,
    keep::{Asked, Keeper, Rules},
    server::STORE_FILE,
    store::{RunIndex, sqlite::SqliteStore},
};
use fracas_model::{
    event::{Body, Look, VerdictWord},
    units::Dur,
};

use super::{Sample, fsyncs, say, table};

/// Bytes of readings of each run that is over, and its other facts.
const READINGS: usize = 64 << 10;
const FACTS: usize = 40;
/// Fewest appends of each row: a p99 needs 299.
const FEWEST: usize = 1000;

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (runs, fewest) = if quick { (100, 300) } else { (2000, FEWEST) };
    runtime.block_on(measure(runs, fewest))
}

async fn measure(runs: usize, fewest: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir())?;
    let dir = Arc::new(DataDir::open(&folder.path().join("data"))?);
    let clock = Arc::new(SystemClock::new("bench".into(), || -1)?);
    let store = Arc::new(SqliteStore::open(&dir.join(STORE_FILE))?);
    let history = History::open(store, clock).await?;
    let identity = Arc::new(Identity::open(&dir, &[], history.now().wall_ns)?);
    let controller = Controller::open(history.clone(), &"bench".into(), 1).await?;
    let keeper = Arc::new(Keeper::new(controller.clone(), identity, Arc::clone(&dir)));
    keeper.vouch().await?;
    say(&format!("filling a history with {runs} runs ..."))?;
    for number in 0..runs {
        over(&history, controller.audit(), number).await?;
    }
    let size = || std::fs::metadata(dir.join(STORE_FILE)).map_or(0, |file| file.len() >> 20);
    let full = size();

    let alone = appends(&history, fewest, async { Ok(()) }).await?;
    let spool = folder.path().join("backup.tar");
    let (copying, copied) = (Arc::clone(&keeper), spool.clone());
    let backup = appends(&history, fewest, async move { back_up(&copying, &copied, 2).await }).await?;
    let (wiping, pruning) = (Arc::clone(&keeper), Arc::clone(&keeper));
    let wiper = tokio::spawn(async move { wiping.keep_wiping().await });
    let prune = appends(&history, fewest, async move {
        let rules = Rules { older_than: Dur::ZERO, keep_last: 0 };
        let asked = Asked { rules, by: "bench".into(), reason: "bench".into(), dry_run: false };
        let pruned = pruning.prune(&asked).await?;
        anyhow::ensure!(
            pruned.runs.len() == runs,
            "{} of {runs} runs were pruned: {:?}",
            pruned.runs.len(),
            pruned.stay
        );
        Ok(())
    })
    .await?;
    wiper.abort();

    let profile = if cfg!(debug_assertions) { "unoptimised build" } else { "release build" };
    let rows: Vec<Vec<String>> = [
        ("append, alone", alone),
        ("append, during a backup", backup),
        ("append, during a prune and the wiping after it", prune),
        ("fsync of 4 KiB in the same directory", fsyncs(folder.path(), fewest)?),
    ]
    .into_iter()
    .map(|(what, sample)| [vec![what.to_owned()], sample.cells()].concat())
    .collect();
    let heading = format!("appends (history of {runs} runs, {full} MiB, {profile}, milliseconds)");
    table(&heading, &["what", "n", "p50", "p99", "max"], &rows)
}

/// A run that is over, with its readings and its report.
async fn over(history: &History, audit: &str, number: usize) -> anyhow::Result<()> {
    let (run, at) = (format!("b{number:07}"), history.now());
    let index = RunIndex {
        run: run.as_str().into(),
        name: "bench".into(),
        state: "finished".into(),
        verdict: "pass".into(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns: at.wall_ns,
        ended_wall_ns: Some(at.wall_ns),
        by: "bench".into(),
        environment: "default".into(),
    };
    let (stream, extra) = (format!("run/{run}"), Extra { index: Some(index.clone()), ..Extra::default() });
    // Every run has other bytes, so that none shares its blob.
    let readings: Vec<u8> = (0..READINGS / 32).flat_map(|n| sha256(format!("{number}/{n}").as_bytes())).collect();
    let (digest, look) = (hex(&sha256(&readings)), Look { s: 0, c: 1 });
    let body = Body::ReadingsSealed { probe: "p".into(), digest, between: look, ok: 1, failed: 0, at: at.clone() };
    let mut facts: Vec<Fact> = (0..FACTS).map(|_| Fact::from(Body::GateStarted { at: at.clone() })).collect();
    facts.push(Fact { body, origin: None, blob: Some(readings) });
    facts.push(Fact::from(Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![], at }));
    let last = facts.len() as u64;
    history.append_with(&stream, facts, extra).await?;
    let report = format!("{{\"report of\":\"{run}\"}}").into_bytes();
    let body = Body::ReportSealed { model: "1".into(), digest: hex(&sha256(&report)) };
    let sealed = Fact { body, origin: None, blob: Some(report) };
    history.seal(&stream, audit, last, sealed, Some(index)).await?;
    Ok(())
}

async fn back_up(keeper: &Keeper, to: &Path, times: usize) -> anyhow::Result<()> {
    for _ in 0..times {
        let ready = keeper.backup("bench", true).await?;
        let file = std::fs::File::create(to)?;
        tokio::task::spawn_blocking(move || ready.write(file)).await??;
    }
    Ok(())
}

/// Times of appends of one fact, one after the other, until `meanwhile` is over and there are enough.
async fn appends(
    history: &History,
    fewest: usize,
    meanwhile: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<Sample> {
    let ended = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&ended);
    let work = tokio::spawn(async move {
        let result = meanwhile.await;
        done.store(true, Ordering::Relaxed);
        result
    });
    let mut all = Vec::new();
    while all.len() < fewest || !ended.load(Ordering::Relaxed) {
        let fact = Body::GateStarted { at: history.now() };
        let begun = Instant::now();
        history.append("run/appends", vec![fact]).await?;
        all.push(i64::try_from(begun.elapsed().as_nanos())?);
    }
    work.await.context("a bug in the bench")??;
    Ok(Sample::new(all))
}
