//! Counters and histograms that modules hold and count with where something happens. They decide nothing, and a label is
//! only ever one of a few words that are known when the program is built.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        histogram::Histogram,
    },
};
use tokio::time::Instant;

use crate::{history::HistoryError, store::StoreError};

/// Upper bounds of the time an append takes, seconds: a sync of the disk takes from half a millisecond to seconds.
const APPEND: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A counter for each of a few words. All are told from the start, so that the first of something is an increase and not
/// a series that comes out of nowhere. Clones are one.
#[derive(Clone, Debug)]
pub struct Counts {
    label: &'static str,
    words: &'static [&'static str],
    values: Arc<[AtomicU64]>,
}

impl Counts {
    /// None of anything yet.
    pub fn new(label: &'static str, words: &'static [&'static str]) -> Self {
        Self { label, words, values: words.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// So many more of a word, which must be one of the words.
    pub fn add(&self, word: &str, many: u64) {
        let place = self.words.iter().position(|known| *known == word);
        debug_assert!(place.is_some(), "{word} is none of {:?}", self.words);
        if let Some(place) = place {
            self.values[place].fetch_add(many, Relaxed);
        }
    }

    /// One more of a word.
    pub fn one(&self, word: &str) {
        self.add(word, 1);
    }

    /// Every word and how many of it there were.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.words.iter().zip(&*self.values).map(|(word, value)| (*word, value.load(Relaxed)))
    }

    /// How many of a word there were.
    pub fn of(&self, word: &str) -> u64 {
        self.all().find(|(known, _)| *known == word).map_or(0, |(_, value)| value)
    }
}

impl EncodeMetric for Counts {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        for (word, value) in self.all() {
            let labels = [(self.label, word)];
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// What a history counts. Clones are one.
#[derive(Clone, Debug)]
pub struct HistoryMeters {
    /// From the call to the commit, of appends that were made.
    pub(super) took: Histogram,
    pub(super) failures: Counts,
    pub(super) reports: Counter,
    pub(super) facts: Counter,
    pub(super) dropped: Counts,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

/// Why the store did not take the last write that reached it, in a word, and when that was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) class: &'static str,
    pub(super) since: Instant,
}

/// Classes of failure, see [`failure`].
const FAILURES: &[&str] = &["full", "failed", "damaged", "unreadable", "fenced", "closed"];

/// Which class of failure this is; `None` for an answer (somebody else was first, the stream is closed), which is none.
fn failure(error: &HistoryError) -> Option<&'static str> {
    match error {
        HistoryError::Store(error) => match error {
            StoreError::Conflict { .. } | StoreError::KeyTaken { .. } => None,
            StoreError::Full { .. } => Some("full"),
            StoreError::Failed { .. } => Some("failed"),
            StoreError::Damaged { .. } | StoreError::Newer { .. } | StoreError::Foreign { .. } => Some("damaged"),
            StoreError::Fenced { .. } => Some("fenced"),
            StoreError::Closed => Some("closed"),
        },
        HistoryError::Unreadable { .. } | HistoryError::Unsummed { .. } => Some("unreadable"),
        HistoryError::Closed { .. } | HistoryError::BadReport { .. } => None,
    }
}

impl Default for HistoryMeters {
    fn default() -> Self {
        Self {
            took: Histogram::new(APPEND),
            failures: Counts::new("class", FAILURES),
            reports: Counter::default(),
            facts: Counter::default(),
            dropped: Counts::new("reason", &["late", "late_fault", "refused"]),
            trouble: Arc::default(),
        }
    }
}

impl HistoryMeters {
    /// An append ended so, after this long.
    pub fn appended<T>(&self, result: &Result<T, HistoryError>, took: Duration) {
        match result {
            Ok(_) => self.took.observe(took.as_secs_f64()),
            Err(error) => failure(error).into_iter().for_each(|class| self.failures.one(class)),
        }
        self.wrote(result);
    }

    /// Whether the store took a write.
    pub fn wrote<T>(&self, result: &Result<T, HistoryError>) {
        let trouble = match result.as_ref().map_err(failure) {
            Ok(_) => None,
            // One stream that cannot be read says nothing of the others.
            Err(None | Some("unreadable")) => return,
            Err(Some(class)) => Some(Trouble { class, since: Instant::now() }),
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// A report was taken with so many facts.
    pub fn ingested(&self, taken: usize) {
        self.reports.inc();
        self.facts.inc_by(taken as u64);
    }

    /// A fact of a report was dropped for good: against the rules, or too late, and then about a fault or not.
    pub fn dropped(&self, about_fault: Option<bool>) {
        self.dropped.one(match about_fault {
            Some(true) => "late_fault",
            Some(false) => "late",
            None => "refused",
        });
    }

    #[cfg(test)]
    pub(crate) fn dropped_facts(&self) -> Vec<(&'static str, u64)> {
        self.dropped.all().collect()
    }

    /// Why the store did not take the last write; `None` when it did.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection was not kept: the process or machine could not accept it; too many strangers of one address; the
/// listener is full; its handshake failed, or took too long; a stranger that did not prove who it is in time.
pub(super) const NOT_KEPT: &[&str] = &["not_accepted", "address", "full", "handshake", "slow_handshake", "stranger"];

/// The connections of one listener. Clones are one.
#[derive(Clone, Debug)]
pub struct DoorMeters(Arc<Door>);

#[derive(Debug)]
struct Door {
    accepted: AtomicU64,
    open: AtomicI64,
    not_kept: Counts,
    stuck: AtomicBool,
}

/// An open connection; dropping it closes it for the count.
#[derive(Debug)]
pub struct Open(DoorMeters);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Relaxed);
    }
}

impl Default for DoorMeters {
    fn default() -> Self {
        let not_kept = Counts::new("reason", NOT_KEPT);
        Self(Arc::new(Door { accepted: AtomicU64::new(0), open: AtomicI64::new(0), not_kept, stuck: false.into() }))
    }
}

impl DoorMeters {
    /// The kernel gave a connection.
    pub fn accepted(&self) {
        self.0.accepted.fetch_add(1, Relaxed);
        self.0.stuck.store(false, Relaxed);
    }

    /// The kernel could not give one.
    pub fn stuck(&self) {
        self.0.stuck.store(true, Relaxed);
        self.not_kept("not_accepted");
    }

    /// A connection was not kept, see [`NOT_KEPT`].
    pub fn not_kept(&self, why: &str) {
        self.0.not_kept.one(why);
    }

    /// A connection is kept as long as this is.
    pub fn open(&self) -> Open {
        self.0.open.fetch_add(1, Relaxed);
        Open(self.clone())
    }

    /// Whether the last try to accept a connection failed. The kernel keeps that connection, so it is tried again at once.
    pub fn is_stuck(&self) -> bool {
        self.0.stuck.load(Relaxed)
    }

    /// How many are open now, and how many the kernel ever gave.
    pub(crate) fn counted(&self) -> (i64, u64) {
        (self.0.open.load(Relaxed), self.0.accepted.load(Relaxed))
    }

    /// How many were not kept, by reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.not_kept.all()
    }
}

/// Why a session of an agent ended: the agent left; nothing was heard of it; a newer session of the host, or another
/// controller, took over; the controller ends; the history could not be written; the agent broke the rules; the
/// host's certificate was over; the host was revoked; the connection broke.
const SESSION_ENDS: &[&str] =
    &["left", "silent", "superseded", "shutdown", "history", "rules", "certificate", "revoked", "broken"];

/// What sessions of agents count. Clones are one.
#[derive(Clone, Debug)]
pub struct SessionMeters {
    /// Sessions that began.
    pub opened: Counter,
    /// Sessions that ended.
    pub closed: Counts,
    /// Leases granted.
    pub leases: Counter,
}

impl Default for SessionMeters {
    fn default() -> Self {
        Self { opened: Counter::default(), closed: Counts::new("reason", SESSION_ENDS), leases: Counter::default() }
    }
}

/// Why a run was not accepted: its document is wrong; everything is halted; something else stands in its way.
pub const REFUSALS: &[&str] = &["document", "halted", "refused"];

/// The signed head of the audit stream. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct AuditMeters(Arc<(AtomicI64, AtomicU64)>);

impl AuditMeters {
    /// The head with this number was signed at this wall time, nanoseconds since the Unix epoch.
    pub fn signed(&self, wall_ns: i64, seq: u64) {
        self.0.0.store(wall_ns, Relaxed);
        self.0.1.store(seq, Relaxed);
    }

    /// When a head was last signed, 0 for never, and its number.
    pub(super) fn last(&self) -> (i64, u64) {
        (self.0.0.load(Relaxed), self.0.1.load(Relaxed))
    }
}
