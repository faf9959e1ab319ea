//! Removing what is old, so that what stays can still be proved: said, signed, and only then done.
//!
//! Before anything of a run goes, its whole chain is walked once more: a prune never removes the traces of a forgery.
//! It is done in portions, each whole by itself; a crash between two of them leaves the rest for the next prune.

use std::collections::{BTreeMap, BTreeSet};

use fracas_model::{
    chain::{Head, digest_from_hex, hex},
    event::{Body, Event, Gone},
    evidence::Walk,
    id::RunId,
};

use super::{
    Keeper,
    choose::{self, Known, Rules, Stays},
};
use crate::{
    driver::stream_of,
    history::HistoryError,
    schedules,
    store::{Cut, Listed, StoreError},
    verify::VouchError,
};

/// Runs that one fact tells of, so that it stays small.
const TOGETHER: usize = 256;
/// Records read at once.
const PAGE: usize = 1000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What goes.
    pub rules: Rules,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Runs.
    pub runs: Vec<RunId>,
    /// Schedules whose beginning went.
    pub schedules: Vec<String>,
    /// Records of both.
    pub records: u64,
    /// How many runs stay, and why.
    pub stay: BTreeMap<Stays, u64>,
}

/// Why something was not pruned; what went before that is gone.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Another one is at it.
    #[error("another prune or backup is under way: wait for its end")]
    Busy,
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The signature that must come first.
    #[error("nothing is removed before that is signed, and it could not be: {0}")]
    Vouch(#[from] VouchError),
}

impl From<StoreError> for PruneError {
    fn from(error: StoreError) -> Self {
        Self::History(error.into())
    }
}

/// A run that goes.
struct Going {
    run: RunId,
    head: Head,
    report: Option<String>,
}

impl Keeper {
    /// Removes what is old, or only says what that would be.
    pub async fn prune(&self, asked: &Asked) -> Result<Pruned, PruneError> {
        let Ok(_turn) = self.turn.try_lock() else { return Err(PruneError::Busy) };
        let history = self.controller.history();
        let now_ns = history.now().wall_ns;
        let known = self.known().await?;
        let (mut pruned, mut going) = (Pruned::default(), Vec::new());
        for (run, choice) in known.iter().zip(choose::choose(&known, asked.rules, now_ns)) {
            match choice {
                Ok(_) if asked.dry_run => {
                    pruned.records += run.head.seq;
                    pruned.runs.push(run.run.clone());
                }
                Ok(head) => going.push((run.run.clone(), head)),
                Err(why) => *pruned.stay.entry(why).or_default() += 1,
            }
        }
        let before_ns = choose::before(asked.rules, now_ns);
        for portion in going.chunks(TOGETHER) {
            self.remove(portion, asked, before_ns, &mut pruned).await?;
        }
        for name in self.controller.schedules().names() {
            self.shorten(&name, asked, before_ns, &mut pruned).await?;
        }
        Ok(pruned)
    }

    /// Every run of the index, newest first.
    async fn known(&self) -> Result<Vec<Known>, PruneError> {
        let store = self.controller.history().store();
        let closed = self.closed().await?;
        let listed = store.listed("run/").await?;
        let heads: BTreeMap<String, Head> =
            listed.into_iter().map(|Listed { stream, head, .. }| (stream, head)).collect();
        let active: BTreeSet<RunId> = self.controller.runs().active().into_iter().collect();
        let hosts = self.controller.fleet().hosts();
        let quarantines: BTreeSet<&RunId> = hosts.values().filter_map(|host| host.quarantined.as_ref()).collect();
        let rows = store.runs(usize::MAX).await?;
        let known = rows.into_iter().filter_map(|(row, _)| {
            let stream = stream_of(&row.run);
            Some(Known {
                head: *heads.get(&stream)?,
                open: row.state != "finished" || active.contains(&row.run),
                closed: closed.get(&stream).copied(),
                quarantine: quarantines.contains(&row.run),
                run: row.run,
            })
        });
        Ok(known.collect())
    }

    /// Last heads of streams, as the audit stream has them, with the wall time.
    async fn closed(&self) -> Result<BTreeMap<String, (Head, i64)>, PruneError> {
        let (history, audit) = (self.controller.history(), self.controller.audit());
        let (mut closed, mut after) = (BTreeMap::new(), 0);
        loop {
            let page = history.read_stored(audit, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(closed) };
            after = last.seq;
            let events = page.iter().filter_map(|record| serde_json::from_slice::<Event>(&record.stored).ok());
            for event in events {
                if let Body::StreamClosed { stream, seq, hash, at } = event.body {
                    let head = digest_from_hex(&hash).map(|hash| Head { seq, hash });
                    closed.extend(head.map(|head| (stream, (head, at.wall_ns))));
                }
            }
        }
    }

    /// Removes some runs: those among them that are whole.
    async fn remove(
        &self,
        runs: &[(RunId, Head)],
        asked: &Asked,
        before_ns: i64,
        pruned: &mut Pruned,
    ) -> Result<(), PruneError> {
        let mut going = Vec::new();
        for (run, head) in runs {
            match self.walked(run, *head).await? {
                Some(report) => going.push(Going { run: run.clone(), head: *head, report }),
                None => {
                    tracing::error!(%run, "it is not what it was when it was closed, and is not pruned");
                    *pruned.stay.entry(Stays::Changed).or_default() += 1;
                }
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        let gone = going.iter().map(|one| Gone {
            stream: stream_of(&one.run),
            seq: one.head.seq,
            hash: hex(&one.head.hash),
            report: one.report.clone(),
        });
        let history = self.controller.history();
        let (gone, at) = (gone.collect(), history.now());
        let (by, reason) = (asked.by.clone(), asked.reason.clone());
        let fact = Body::Pruned { gone, before_wall_ns: before_ns, by, reason, at };
        history.append(self.controller.audit(), vec![fact]).await?;
        self.vouch().await?;
        history.cut(going.iter().map(|one| Cut { stream: stream_of(&one.run), upto: one.head }).collect()).await?;
        self.cut.notify_one();
        pruned.records += going.iter().map(|one| one.head.seq).sum::<u64>();
        pruned.runs.extend(going.into_iter().map(|one| one.run));
        Ok(())
    }

    /// The digest of a run's report, if its chain is whole up to this head.
    async fn walked(&self, run: &RunId, head: Head) -> Result<Option<Option<String>>, PruneError> {
        let stream = stream_of(run);
        let (mut walk, mut report) = (Walk::new(&stream, Head::genesis(&stream)), None);
        loop {
            let page = self.controller.history().read_stored(&stream, walk.last().seq, PAGE).await?;
            for record in &page {
                report = walk.take(record).filter(|beside| beside.report).map(|beside| beside.digest);
            }
            if page.len() < PAGE || walk.broken().is_some() {
                return Ok((walk.broken().is_none() && walk.last() == head).then_some(report));
            }
        }
    }

    /// Removes the beginning of a schedule's history, once it is summed up.
    async fn shorten(&self, name: &str, asked: &Asked, before_ns: i64, pruned: &mut Pruned) -> Result<(), PruneError> {
        let (history, schedules) = (self.controller.history(), self.controller.schedules());
        let records = schedules.summable(name, before_ns).await?;
        if records == 0 {
            return Ok(());
        }
        if !asked.dry_run {
            let (by, reason, at) = (asked.by.clone(), asked.reason.clone(), history.now());
            let fact = move |gone| Body::Pruned { gone: vec![gone], before_wall_ns: before_ns, by, reason, at };
            let Some(cut) = schedules.sum_up(name, self.controller.audit(), before_ns, fact).await? else {
                return Ok(());
            };
            debug_assert_eq!(cut.stream, schedules::stream_of(name));
            self.vouch().await?;
            history.cut(vec![cut]).await?;
            self.cut.notify_one();
        }
        pruned.records += records;
        pruned.schedules.push(name.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
