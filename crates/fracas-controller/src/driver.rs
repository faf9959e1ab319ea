//! The driver: one task per run. It folds the history, asks the model what happens next, appends that, and wishes.
//!
//! It decides nothing itself, and nothing is wished before the decision behind it is durable. When the history
//! cannot be written or read the wish is withdrawn at once: undoing needs no history, hurting does.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fracas_model::{
    event::{Body, Event, Readings, VerdictWord},
    id::{HostId, RunId},
    report,
    run::{NotARun, Phase, Run},
    target::suffering,
    time::Stamp,
    units::Dur,
};
use tokio::sync::watch;

use crate::{
    chain,
    fleet::{Fleet, Wish},
    history::{Extra, Fact, History, HistoryError},
    store::{RunIndex, StoreError},
};

/// Longest sleep between two looks at a run; everything that matters wakes it earlier.
const LONGEST_NAP: Duration = Duration::from_secs(10);
/// Shortest: an instant that has passed must not make a run spin.
const SHORTEST_NAP: Duration = Duration::from_millis(1);
/// Pause before the next try when the history cannot be used.
const RETRY: Duration = Duration::from_secs(1);

/// The stream of a run.
pub fn stream_of(run: &RunId) -> String {
    format!("run/{run}")
}

/// The stream of a host.
pub fn stream_of_host(host: &HostId) -> String {
    format!("host/{host}")
}

/// Why a run is not driven any further.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Its history does not start like a run.
    #[error(transparent)]
    NotARun(#[from] NotARun),
    /// Its history cannot be read or written.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl DriveError {
    /// Whether waiting cannot help: another controller owns the history, or what is stored makes no sense.
    fn is_final(&self) -> bool {
        match self {
            Self::NotARun(_) => true,
            Self::History(HistoryError::Store(error)) => {
                matches!(error, StoreError::Fenced { .. } | StoreError::Closed | StoreError::Newer { .. })
            }
            Self::History(error) => matches!(error, HistoryError::Unreadable { .. } | HistoryError::Unsummed { .. }),
        }
    }
}

/// Drives one run to its end. Safe to start anew at any instant: everything it knows is in the history.
#[derive(Debug)]
pub struct Driver {
    run: RunId,
    stream: String,
    audit: String,
    history: History,
    fleet: Fleet,
    settled: watch::Sender<bool>,
    /// It has been said that this controller took over.
    resumed: AtomicBool,
}

impl Driver {
    /// A driver for a run whose `Planned` is in the history. `audit` is the controller's audit stream.
    pub fn new(run: RunId, audit: String, history: History, fleet: Fleet) -> Self {
        Self {
            stream: stream_of(&run),
            run,
            audit,
            history,
            fleet,
            settled: watch::Sender::new(false),
            resumed: AtomicBool::new(false),
        }
    }

    /// Becomes true once the run's wishes are known to the fleet, or the run has ended. Until every driver of a starting
    /// controller has settled, hosts must not be told what is desired: it would be less than what was.
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// Runs until the report is sealed. While the history cannot be used nothing is wished, and it is tried again.
    pub async fn drive(self) -> Result<(), DriveError> {
        loop {
            match self.attempt().await {
                Err(error) if !error.is_final() => {
                    self.spare();
                    // A start does not wait for a history that cannot be used: what is desired without it is nothing.
                    self.settled.send_replace(true);
                    tracing::error!(run = %self.run, %error, "nothing is desired until the history can be used again");
                    tokio::time::sleep(RETRY).await;
                }
                ended => {
                    self.fleet.forget(&self.run);
                    return ended;
                }
            }
        }
    }

    async fn attempt(&self) -> Result<(), DriveError> {
        let mut changes = self.fleet.changes();
        let mut heads = self.history.subscribe(&self.stream).await?;
        let mut events = self.history.read(&self.stream, 0).await?;
        let mut run = Run::fold(&events)?;
        // Before anything else: what its hosts report must find them taking part.
        self.fleet.join(&self.run, run.experiment.lease, &run.hosts());
        if let Err(claimed) = self.fleet.reclaim(&self.run, suffering(&run.experiment, &run.targets)) {
            tracing::warn!(run = %self.run, host = %claimed.host, other = %claimed.run, "two runs have one host");
        }
        self.resume(&run).await?;
        loop {
            heads.borrow_and_update();
            for event in self.history.read(&self.stream, run.seq).await? {
                run.apply(&event);
                events.push(event);
            }
            if matches!(run.phase, Phase::Finished) {
                if self.close(&run, &events).await? {
                    return Ok(());
                }
                continue;
            }
            let now = self.history.now();
            let decision = run.decide(&now);
            let mut next = decision.append;
            if decision.finish {
                next.push(self.finished(&events));
            }
            if next.is_empty() {
                self.fleet.wish(&self.run, run.experiment.lease, wishes(&run, &now));
                self.settled.send_replace(true);
                changes.borrow_and_update();
                let heard = self.heard(&run);
                if !heard.is_empty() {
                    self.append(&run, heard).await?;
                    continue;
                }
                let until = |ns: i64| Dur::from_ns((ns - now.boot_ns).max(0)).std().clamp(SHORTEST_NAP, LONGEST_NAP);
                let nap = decision.wake_ns.map_or(LONGEST_NAP, until);
                tokio::select! {
                    biased;
                    _ = heads.changed() => {}
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(nap) => {}
                }
            } else {
                self.append(&run, next).await?;
            }
        }
    }

    /// Says that this controller took over, and which hosts are out of contact as it does.
    async fn resume(&self, run: &Run) -> Result<(), DriveError> {
        if matches!(run.phase, Phase::Finished) {
            return Ok(());
        }
        let first = !self.resumed.load(Ordering::Relaxed);
        let mut facts = Vec::new();
        if first && run.seq > 1 {
            facts.push(Body::Resumed { at: self.history.now() });
        }
        facts.extend(self.contacts(run));
        if !facts.is_empty() {
            self.history.append(&self.stream, facts).await?;
        }
        self.resumed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Hosts of the run whose contact is not as the history has it.
    fn contacts(&self, run: &Run) -> Vec<Body> {
        let at = self.history.now();
        let hosts = run.hosts().into_iter().map(|host| (self.fleet.contact(&host).connected, host));
        let other = hosts.filter(|(connected, host)| *connected == run.lost_contact.contains_key(host));
        other.map(|(connected, host)| Body::HostContact { host, connected, at: at.clone() }).collect()
    }

    /// What the fleet knows and the history does not: contacts, guard-rails that do not hold any more, and items that their
    /// hosts took back untouched. To be asked only after what the run wishes now is wished.
    fn heard(&self, run: &Run) -> Vec<Body> {
        let mut facts = self.contacts(run);
        let hurts = matches!(run.phase, Phase::Planned | Phase::Gating { .. } | Phase::Running);
        if hurts && run.broken.is_none() {
            let broken = self.fleet.broken(&self.run);
            facts.extend(broken.map(|why| Body::GuardRailBroken { why, at: self.history.now() }));
        }
        if matches!(run.phase, Phase::Undoing { .. }) {
            let at = self.history.now();
            if run.restored.is_some() {
                // Their hosts may have told another history how they ended, and only say that nothing is there.
                let untold = run.untold().into_iter().filter(|key| self.fleet.is_clean(&key.host, &at));
                facts.extend(untold.map(|item| Body::FoundClean { item: item.clone(), at: at.clone() }));
            } else {
                let silent = run.silent().into_iter().filter(|key| self.fleet.contact(&key.host).settled);
                facts.extend(silent.map(|item| Body::Withdrawn { item: item.clone(), at: at.clone() }));
            }
        }
        facts
    }

    /// Appends decisions if nothing came in between; else the loop folds on and decides anew.
    async fn append(&self, run: &Run, bodies: Vec<Body>) -> Result<(), DriveError> {
        let index = self.index(run, &bodies).await?;
        let extra = Extra { expected: Some(run.seq), index, ..Extra::default() };
        match self.history.append_with(&self.stream, bodies, extra).await {
            Ok(_) | Err(HistoryError::Store(StoreError::Conflict { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Wishes nothing of the run's hosts, which still take part: what they report belongs to its history.
    fn spare(&self) {
        self.fleet.spare(&self.run);
    }

    /// The run's new row in the index, when its state changes. It counts as finished only once its report is sealed.
    async fn index(&self, run: &Run, bodies: &[Body]) -> Result<Option<RunIndex>, HistoryError> {
        let mut after = run.clone();
        let mut ending = None;
        for body in bodies {
            let event = Event {
                stream: self.stream.clone(),
                seq: after.seq + 1,
                received: self.history.now(),
                origin: None,
                body: body.clone(),
            };
            after.apply(&event);
            if let Body::Finished { verdict, exit_code, reasons, at } = body {
                ending = Some((verdict_word(verdict), *exit_code, reasons.first().cloned().unwrap_or_default(), at));
            }
        }
        if after.state_word() == run.state_word() {
            return Ok(None);
        }
        let Some(known) = self.row().await? else { return Ok(None) };
        Ok(Some(match ending {
            Some((verdict, exit_code, reason, at)) => {
                RunIndex { verdict, exit_code, reason, ended_wall_ns: Some(at.wall_ns), ..known }
            }
            None => RunIndex { state: after.state_word().to_owned(), ..known },
        }))
    }

    async fn row(&self) -> Result<Option<RunIndex>, HistoryError> {
        let rows = self.history.store().run_prefix(self.run.as_str()).await?;
        Ok(rows.into_iter().map(|(row, _)| row).find(|row| row.run == self.run))
    }

    /// The verdict as a pure function of what is in the history now.
    fn finished(&self, events: &[Event]) -> Body {
        let verdict = report::build(events, &BTreeMap::new()).verdict;
        Body::Finished {
            verdict: verdict.word,
            exit_code: verdict.exit_code,
            reasons: verdict.reasons,
            at: self.history.now(),
        }
    }

    /// After the verdict: quarantines hosts that were left open and seals the report, of which the bytes are kept. False
    /// when something else was told meanwhile.
    async fn close(&self, run: &Run, events: &[Event]) -> Result<bool, DriveError> {
        let mut open: Vec<HostId> = run.unconfirmed().into_iter().map(|key| key.host.clone()).collect();
        open.sort();
        open.dedup();
        for host in open {
            if self.fleet.hosts().get(&host).is_some_and(|record| record.quarantined.is_none()) {
                let body = Body::HostQuarantined { run: self.run.clone(), at: self.history.now() };
                self.history.append(&stream_of_host(&host), vec![body]).await?;
                self.fleet.record(&host, |record| record.quarantined = Some(self.run.clone()));
            }
        }
        // Before anybody hears of the end: whoever waited for it may have the hosts.
        self.fleet.release(&self.run);
        if events.iter().any(|e| matches!(e.body, Body::ReportSealed { .. })) {
            return Ok(true);
        }
        let blobs = blobs(&self.history, events).await?;
        let report = report::build(events, &blobs);
        let bytes = serde_json::to_vec(&report).expect("a report has only text keys and finite numbers");
        let body = Body::ReportSealed {
            model: env!("CARGO_PKG_VERSION").to_owned(),
            digest: chain::hex(&chain::sha256(&bytes)),
        };
        let sealed = Fact { body, origin: None, blob: Some(bytes) };
        let index = self.row().await?.map(|row| RunIndex { state: run.state_word().to_owned(), ..row });
        // What came in since is not in the report: then it is made anew.
        match self.history.seal(&self.stream, &self.audit, run.seq, sealed, index).await {
            Ok(_) => Ok(true),
            Err(HistoryError::Store(StoreError::Conflict { .. })) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Every blob of readings that these events name and the store has.
pub async fn blobs(history: &History, events: &[Event]) -> Result<BTreeMap<String, Readings>, HistoryError> {
    let mut blobs = BTreeMap::new();
    for event in events {
        if let Body::ReadingsSealed { digest, .. } = &event.body
            && let Some(bytes) = history.blob(digest).await?
            && let Ok(readings) = serde_json::from_slice(&bytes)
        {
            blobs.insert(digest.clone(), readings);
        }
    }
    Ok(blobs)
}

fn wishes(run: &Run, now: &Stamp) -> BTreeMap<HostId, Wish> {
    let resting = run.resting(now);
    run.hosts()
        .into_iter()
        .map(|host| {
            let wish = Wish {
                faults: run.desired_faults(&host),
                probes: run.desired_probes(&host, &resting),
                ledgers: run.desired_ledgers(&host),
            };
            (host, wish)
        })
        .collect()
}

/// The verdict as lists show it: kebab-case.
fn verdict_word(verdict: &VerdictWord) -> String {
    match verdict {
        VerdictWord::Pass => "pass",
        VerdictWord::Fail => "fail",
        VerdictWord::Inconclusive => "inconclusive",
        VerdictWord::Aborted => "aborted",
        VerdictWord::Error => "error",
        VerdictWord::UndoUnconfirmed => "undo-unconfirmed",
        VerdictWord::Refused => "refused",
    }
    .to_owned()
}
