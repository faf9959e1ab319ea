//! A controller with a data directory and a past, for tests: closed runs, an open one, a schedule, signed heads.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use fracas_model::{
    chain::{hex, sha256},
    event::{Body, Look, VerdictWord},
    id::{HostId, RunId},
    schedule::{Due, Fact as ScheduleFact, Skip, read_schedule},
    time::{ClockId, Stamp},
    units::Dur,
};

use super::{Asked, Keeper, Rules};
use crate::{
    clock::ManualClock,
    controller::Controller,
    datadir::{Access, DataDir},
    history::{Extra, Fact, History},
    identity::Identity,
    server::{ID_FILE, STORE_FILE},
    store::{Answer, Commit, Cut, Head, Listed, Portion, RunIndex, Store, StoreError, Stored, sqlite::SqliteStore},
    verify::{self, Verification},
};

/// Id of the controller.
pub(super) const ID: &str = "c";
/// Its audit stream.
pub(super) const AUDIT: &str = "audit/c";
/// A day.
pub(super) const DAY: Dur = Dur::from_secs(86_400);

/// A store on disk that breaks after so many more writes, as when the process is killed there; below zero: never.
pub(super) struct Brittle {
    inner: SqliteStore,
    left: Arc<AtomicI64>,
}

impl Brittle {
    fn write<'a, T: Send + 'static>(&self, answer: Answer<'a, T>) -> Answer<'a, T> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Box::pin(std::future::ready(Err(StoreError::Full { path: PathBuf::from("(broken)") })));
        }
        if left > 0 {
            self.left.fetch_sub(1, Ordering::SeqCst);
        }
        answer
    }
}

impl Store for Brittle {
    fn commit(&self, commit: Commit) -> Answer<'_, ()> {
        self.write(self.inner.commit(commit))
    }

    fn cut(&self, epoch: u64, cuts: Vec<Cut>) -> Answer<'_, ()> {
        self.write(self.inner.cut(epoch, cuts))
    }

    fn wipe(&self, portion: Portion) -> Answer<'_, bool> {
        self.write(self.inner.wipe(portion))
    }

    fn next_epoch(&self) -> Answer<'_, u64> {
        self.write(self.inner.next_epoch())
    }

    fn raise_epoch(&self, ours: u64, above: u64) -> Answer<'_, u64> {
        self.write(self.inner.raise_epoch(ours, above))
    }

    fn read<'a>(&'a self, stream: &'a str, after: u64, limit: usize) -> Answer<'a, Vec<Stored>> {
        self.inner.read(stream, after, limit)
    }

    fn head<'a>(&'a self, stream: &'a str) -> Answer<'a, Head> {
        self.inner.head(stream)
    }

    fn streams<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<String>> {
        self.inner.streams(prefix)
    }

    fn listed<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>> {
        self.inner.listed(prefix)
    }

    fn blob(&self, digest: crate::chain::Digest) -> Answer<'_, Option<Vec<u8>>> {
        self.inner.blob(digest)
    }

    fn blobs(&self, digests: Vec<crate::chain::Digest>) -> Answer<'_, Vec<Option<Vec<u8>>>> {
        self.inner.blobs(digests)
    }

    fn cursor<'a>(&'a self, host: &'a HostId, outbox: &'a str) -> Answer<'a, u64> {
        self.inner.cursor(host, outbox)
    }

    fn runs(&self, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>> {
        self.inner.runs(limit)
    }

    fn runs_in(&self, environments: Vec<String>, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>> {
        self.inner.runs_in(environments, limit)
    }

    fn run_prefix<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<(RunIndex, u64)>> {
        self.inner.run_prefix(prefix)
    }

    fn idempotency<'a>(&'a self, key: &'a str) -> Answer<'a, Option<RunId>> {
        self.inner.idempotency(key)
    }

    fn copy_to<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        self.inner.copy_to(path)
    }
}

/// See the module.
pub(super) struct House {
    pub(super) keeper: Keeper,
    pub(super) controller: Controller,
    pub(super) dir: Arc<DataDir>,
    pub(super) clock: Arc<ManualClock>,
    /// Writes until the store breaks.
    pub(super) left: Arc<AtomicI64>,
}

pub(super) fn stamp() -> Stamp {
    let clock = ClockId { host: ID.into(), boot: "b".into() };
    Stamp { clock, boot_ns: 1, wall_ns: 1_795_000_000_000_000_000, bound_ns: -1 }
}

impl House {
    /// The controller of a data directory, which is made when it is not there, `since` after the first one began.
    pub(super) async fn open(path: &Path, since: Dur) -> Self {
        let dir = Arc::new(DataDir::open(path).unwrap());
        dir.write(ID_FILE, ID.as_bytes(), Access::Public).unwrap();
        let left = Arc::new(AtomicI64::new(-1));
        let inner = SqliteStore::open(&dir.join(STORE_FILE)).unwrap();
        let identity = Arc::new(Identity::open(&dir, &[], stamp().wall_ns).unwrap());
        let clock = Arc::new(ManualClock::new(stamp().later(since)));
        let store = Arc::new(Brittle { inner, left: Arc::clone(&left) });
        let history = History::open(store, Arc::<ManualClock>::clone(&clock)).await.unwrap();
        let controller = Controller::open(history, &ID.into(), 1).await.unwrap();
        // Only the schedules are taken up: the runs here are none that could be driven.
        controller.schedules().resume().await.unwrap();
        let keeper = Keeper::new(controller.clone(), identity, Arc::clone(&dir));
        keeper.vouch().await.unwrap();
        Self { keeper, controller, dir, clock, left }
    }

    pub(super) fn history(&self) -> &History {
        self.controller.history()
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.history().store()
    }

    /// A run that is not over.
    pub(super) async fn run(&self, run: &str) {
        let index = RunIndex {
            run: run.into(),
            name: "n".into(),
            state: "running".into(),
            verdict: String::new(),
            exit_code: 0,
            reason: String::new(),
            started_wall_ns: self.history().now().wall_ns,
            ended_wall_ns: None,
            by: "admin".into(),
            environment: "default".into(),
        };
        let key = Some((format!("key of {run}"), RunId::from(run)));
        let extra = Extra { index: Some(index), idempotency: key, ..Extra::default() };
        let begun = Body::GateStarted { at: self.history().now() };
        self.history().append_with(&format!("run/{run}"), vec![begun], extra).await.unwrap();
        let readings = format!("readings of {run}").into_bytes();
        let look = Look { s: 0, c: 1 };
        let digest = hex(&sha256(&readings));
        let at = self.history().now();
        let body = Body::ReadingsSealed { probe: "p".into(), digest, between: look, ok: 1, failed: 0, at };
        let fact = Fact { body, origin: None, blob: Some(readings) };
        self.history().append(&format!("run/{run}"), vec![fact]).await.unwrap();
    }

    /// A run that has ended, with a sealed report.
    pub(super) async fn ended(&self, run: &str) {
        self.run(run).await;
        let stream = format!("run/{run}");
        let at = self.history().now();
        let finished = Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![], at };
        self.history().append(&stream, vec![finished]).await.unwrap();
        let report = format!("{{\"report of\":\"{run}\"}}").into_bytes();
        let body = Body::ReportSealed { model: "1".into(), digest: hex(&sha256(&report)) };
        let sealed = Fact { body, origin: None, blob: Some(report) };
        let rows = self.store().run_prefix(run).await.unwrap();
        let row = rows.into_iter().map(|(row, _)| row).find(|row| row.run.as_str() == run).unwrap();
        let index = RunIndex { state: "finished".into(), verdict: "pass".into(), ..row };
        self.history().seal(&stream, AUDIT, 3, sealed, Some(index)).await.unwrap();
    }

    /// A schedule with so many facts beside the one that made it; paused, so that its task lets it be.
    pub(super) async fn schedule(&self, facts: u32) {
        let source =
            "apiVersion: fracas/v1\nkind: Schedule\nname: s\nexperiment: e.yaml\nwhen: { at: 2190-01-01T00:00 }\n";
        let schedule = Box::new(read_schedule("s.yaml", source).unwrap().schedule);
        let (experiment, environment, by) = ("the experiment".into(), "default".into(), "p".into());
        let set = ScheduleFact::Set {
            schedule,
            source: source.into(),
            experiment,
            calendars: std::collections::BTreeMap::new(),
            files: std::collections::BTreeMap::new(),
            environment,
            by,
        };
        let paused = ScheduleFact::Paused { reason: "for good".into(), by: "p".into() };
        let skipped = |n| {
            let due = Due { nominal_ns: n, at_ns: n };
            ScheduleFact::Skipped { from: due, to: due, count: 1, reason: Skip::Missed }
        };
        let facts = [set, paused].into_iter().chain((0..facts).map(|n| skipped(i64::from(n))));
        for fact in facts {
            let body = Body::Schedule { fact, at: self.history().now() };
            self.history().append("schedule/s", vec![body]).await.unwrap();
        }
        self.controller.schedules().resume().await.unwrap();
    }

    /// Half a past: two old closed runs and a young one, an old open one, a schedule; `n` more old runs.
    pub(super) async fn lived(path: &Path, n: usize) -> Self {
        let house = Self::open(path, Dur::ZERO).await;
        house.schedule(80).await;
        house.ended("old1").await;
        house.ended("old2").await;
        house.run("open").await;
        for run in 0..n {
            house.ended(&format!("more{run}")).await;
        }
        house.clock.advance(Dur::from_secs(500 * 86_400));
        house.ended("young").await;
        house.keeper.vouch().await.unwrap();
        house
    }

    /// What is asked of a prune in these tests.
    pub(super) fn asked(keep_last: u64) -> Asked {
        let rules = Rules { older_than: Dur::from_secs(400 * 86_400), keep_last };
        Asked { rules, by: "admin".into(), reason: "they are old".into(), dry_run: false }
    }

    pub(super) async fn verify(&self) -> Verification {
        let heads = verify::kept_heads(&self.dir).unwrap();
        verify::verify(&**self.store(), heads, self.keeper.public_key()).await.unwrap()
    }

    /// Wipes all there is to wipe.
    pub(super) async fn wipe(&self) -> Result<(), StoreError> {
        while self.store().wipe(Portion { records: 30, bytes: 1 << 20 }).await? {}
        Ok(())
    }

    /// Ids in the run index, newest first.
    pub(super) async fn runs(&self) -> Vec<String> {
        self.store().runs(usize::MAX).await.unwrap().into_iter().map(|(row, _)| row.run.to_string()).collect()
    }
}
