//! The one way into and out of a history: stamps, serialises, chains and appends facts, and wakes whoever waits.
//!
//! It keeps order and proof; it does not decide anything and does not know what a run is.
//!
//! ```text
//! append  ->  lock the stream  ->  stamp, number, chain  ->  commit  ->  tell watchers  ->  unlock
//! ```

mod vet;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use fracas_model::{
    event::{Body, Event, Origin},
    id::{HostId, RunId},
    time::Stamp,
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, RwLock, broadcast, watch},
    task::JoinError,
    time::Instant,
};

pub use self::vet::{MAX_BLOB_BYTES, MAX_BODY_BYTES, MAX_REPORT_EVENTS, Reported};
use crate::{
    chain::{self, Digest},
    clock::Clock,
    metrics::HistoryMeters,
    store::{Batch, Commit, Cursor, Cut, Head, NewEvent, RunIndex, Store, StoreError, Stored},
};

/// A fact to append.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// What happened.
    pub body: Body,
    /// Where a host's fact came from.
    pub origin: Option<Origin>,
    /// Bytes of a `ReadingsSealed` or `ReportSealed`.
    pub blob: Option<Vec<u8>>,
}

impl From<Body> for Fact {
    fn from(body: Body) -> Self {
        Self { body, origin: None, blob: None }
    }
}

/// What goes into the same transaction as the facts.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Append only if the stream stands exactly here (0: it does not exist yet); else [`StoreError::Conflict`].
    pub expected: Option<u64>,
    /// New row of the run index.
    pub index: Option<RunIndex>,
    /// Claims a key for a run; [`StoreError::KeyTaken`] when it is taken.
    pub idempotency: Option<(String, RunId)>,
}

/// What became of a host's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// Everything of this outbox up to here is committed or dropped for good: acknowledge it.
    pub acked: u64,
    /// Facts appended now.
    pub taken: usize,
    /// Facts that will never be appended, and why.
    pub dropped: Vec<(u64, String)>,
}

/// Why a history did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The report of this stream is sealed: nothing may follow.
    #[error("history of {stream} is closed, its report is sealed")]
    Closed {
        /// The stream.
        stream: String,
    },
    /// A stored record is not an event of this version.
    #[error("record {seq} of {stream} cannot be read ({source}): run `fracas controller verify`")]
    Unreadable {
        /// The stream.
        stream: String,
        /// The record.
        seq: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The beginning of a stream was pruned, and what it said together is not there.
    #[error("the beginning of {stream} is gone and no summary of it is kept: run `fracas controller verify`")]
    Unsummed {
        /// The stream.
        stream: String,
    },
    /// A host broke the rules of reporting; end its session.
    #[error("report of host {host} is malformed: {why}")]
    BadReport {
        /// The host.
        host: HostId,
        /// Which rule.
        why: String,
    },
}

/// Histories in a store, owned by one controller. Clones are one and the same.
#[derive(Clone)]
pub struct History(Arc<Shared>);

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    epoch: AtomicU64,
    /// Whoever writes holds it together with others, whoever raises the epoch alone.
    turn: RwLock<()>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    hosts: Mutex<BTreeMap<HostId, Arc<AsyncMutex<()>>>>,
    told: broadcast::Sender<Arc<Event>>,
    meters: HistoryMeters,
}

/// What is known of a stream in this process.
#[derive(Default)]
struct Slot {
    /// Its end; `None` when it must be read from the store. Whoever holds the lock is the only writer.
    end: Arc<AsyncMutex<Option<End>>>,
    /// Number of the last record, for watchers.
    seq: watch::Sender<u64>,
}

#[derive(Clone, Copy)]
struct End {
    head: Head,
    closed: bool,
}

/// Idle streams are forgotten when more than this many are known; they are read again when needed.
const SLOTS: usize = 4096;

/// Records fetched from the store at once.
const PAGE: usize = 1000;

/// Name of the mark of [`History::try_write`], as an outbox that the controller itself would have.
const MARK: &str = "tried";

/// Facts that a listener of [`History::listen`] may be behind before it misses some.
const BACKLOG: usize = 8192;

/// What is to be written in one transaction.
struct Write {
    facts: BTreeMap<String, Vec<Fact>>,
    /// Where streams must stand; the others may stand anywhere.
    expected: BTreeMap<String, u64>,
    extra: Extra,
    cursor: Option<Cursor>,
    /// Stray facts (for a stream that does not exist or is closed) are dropped rather than refused.
    drop_strays: bool,
    /// A stream whose new head goes into another one.
    close: Option<(String, String)>,
}

impl History {
    /// Takes the store over with a new epoch: whoever owned it before can append no more.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, HistoryError> {
        let epoch = store.next_epoch().await?;
        let (slots, hosts) = (Mutex::default(), Mutex::default());
        let (epoch, turn) = (AtomicU64::new(epoch), RwLock::default());
        let (told, meters) = (broadcast::Sender::new(BACKLOG), HistoryMeters::default());
        Ok(Self(Arc::new(Shared { store, clock, epoch, turn, slots, hosts, told, meters })))
    }

    /// The epoch of this controller.
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::SeqCst)
    }

    /// Raises the epoch above `above`, durably, unless it is higher already; returns it. Only for its owner: a
    /// controller that was superseded is refused with [`StoreError::Fenced`].
    pub async fn raise_epoch(&self, above: u64) -> Result<u64, HistoryError> {
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            // A commit under way with the former epoch would be fenced out.
            let _alone = shared.turn.write().await;
            let ours = shared.epoch.load(Ordering::SeqCst);
            if ours > above {
                return Ok(ours);
            }
            let raised = shared.store.raise_epoch(ours, above).await?;
            shared.epoch.store(raised, Ordering::SeqCst);
            Ok(raised)
        });
        finished(task.await)
    }

    /// Now, on the clock that stamps what is received.
    pub fn now(&self) -> Stamp {
        self.0.clock.now()
    }

    /// The store beneath, for questions that need no events: blobs, the run index, idempotency keys.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// What this history counts.
    pub fn meters(&self) -> &HistoryMeters {
        &self.0.meters
    }

    /// Writes a mark that nobody reads: whether the store takes writes again, for those who cannot wait for a fact.
    pub async fn try_write(&self) -> Result<(), HistoryError> {
        let (shared, host) = (Arc::clone(&self.0), self.now().clock.host);
        finished(tokio::spawn(async move { shared.try_write(host).await }).await)
    }

    /// Appends facts to a stream, in order, and returns them as events once they are durable. An append that has
    /// begun is finished even if the caller goes away.
    pub async fn append<F: Into<Fact>>(&self, stream: &str, facts: Vec<F>) -> Result<Vec<Event>, HistoryError> {
        self.append_with(stream, facts, Extra::default()).await
    }

    /// As [`append`](Self::append), with conditions and index rows in the same transaction.
    pub async fn append_with<F: Into<Fact>>(
        &self,
        stream: &str,
        facts: Vec<F>,
        extra: Extra,
    ) -> Result<Vec<Event>, HistoryError> {
        let facts = BTreeMap::from([(stream.to_owned(), facts.into_iter().map(Into::into).collect())]);
        let expected = extra.expected.map(|seq| (stream.to_owned(), seq)).into_iter().collect();
        self.start(Write { facts, expected, extra, cursor: None, drop_strays: false, close: None }, None).await
    }

    /// Appends to several streams in one transaction, if those in `expected` stand where it says (0: they do not exist
    /// yet); else [`StoreError::Conflict`]. What `extra` expects of one stream is not asked.
    pub async fn append_together(
        &self,
        facts: BTreeMap<String, Vec<Body>>,
        expected: BTreeMap<String, u64>,
        extra: Extra,
    ) -> Result<Vec<Event>, HistoryError> {
        let facts = facts.into_iter().map(|(stream, facts)| (stream, facts.into_iter().map(Fact::from).collect()));
        let facts = facts.collect();
        self.start(Write { facts, expected, extra, cursor: None, drop_strays: false, close: None }, None).await
    }

    /// Appends the last fact of `stream`, its `ReportSealed` with the report, and its final head to the stream `audit`,
    /// in one transaction, if `stream` stands at `expected`; else [`StoreError::Conflict`].
    pub async fn seal(
        &self,
        stream: &str,
        audit: &str,
        expected: u64,
        sealed: Fact,
        index: Option<RunIndex>,
    ) -> Result<Vec<Event>, HistoryError> {
        let facts = BTreeMap::from([(stream.to_owned(), vec![sealed]), (audit.to_owned(), Vec::new())]);
        let close = Some((stream.to_owned(), audit.to_owned()));
        let extra = Extra { index, ..Extra::default() };
        let expected = BTreeMap::from([(stream.to_owned(), expected)]);
        self.start(Write { facts, expected, extra, cursor: None, drop_strays: false, close }, None).await
    }

    /// Cuts records off for good. Whoever calls has said so in the audit stream, and that is signed.
    pub async fn cut(&self, cuts: Vec<Cut>) -> Result<(), HistoryError> {
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let _turn = shared.turn.read().await;
            Ok(shared.store.cut(shared.epoch.load(Ordering::SeqCst), cuts).await?)
        });
        finished(task.await)
    }

    /// Takes a host's report: skips what was taken before, appends what the host may say, drops the rest for good,
    /// and moves the host's cursor in the same transaction. `takes_part` says whether the host may write a `run/ID`.
    ///
    /// # Errors
    /// [`HistoryError::BadReport`] when the report as a whole breaks the rules; a single bad fact is only dropped.
    pub async fn ingest(
        &self,
        host: &HostId,
        outbox: &str,
        reported: Vec<Reported>,
        takes_part: &(dyn Fn(&str) -> bool + Send + Sync),
    ) -> Result<Ingested, HistoryError> {
        vet::report(outbox, &reported).map_err(|why| HistoryError::BadReport { host: host.clone(), why })?;
        let lock = Arc::clone(self.0.hosts.lock().expect("no holder panics").entry(host.clone()).or_default());
        let guard = lock.lock_owned().await;
        let expected = self.0.store.cursor(host, outbox).await?;
        let Some(seq) = reported.last().map(|last| last.seq).filter(|seq| *seq > expected) else {
            return Ok(Ingested { acked: expected, taken: 0, dropped: Vec::new() });
        };
        let (mut facts, mut dropped) = (BTreeMap::<String, Vec<Fact>>::new(), Vec::new());
        let controller = self.now().clock.host;
        for one in reported.into_iter().filter(|one| one.seq > expected) {
            let (number, stream) = (one.seq, one.stream.clone());
            match vet::fact(host, &controller, outbox, one, takes_part) {
                Ok(fact) => facts.entry(stream).or_default().push(fact),
                Err(why) => dropped.push((number, why)),
            }
        }
        let offered: BTreeMap<u64, bool> =
            facts.values().flatten().filter_map(|f| Some((f.origin.as_ref()?.seq, f.body.item().is_none()))).collect();
        let cursor = Some(Cursor { host: host.clone(), outbox: outbox.to_owned(), expected, seq });
        let (expected, extra) = (BTreeMap::new(), Extra::default());
        let write = Write { facts, expected, extra, cursor, drop_strays: true, close: None };
        let events = self.start(write, Some(guard)).await?;
        let taken: Vec<u64> = events.iter().filter_map(|e| e.origin.as_ref().map(|o| o.seq)).collect();
        let strays = offered.keys().filter(|seq| !taken.contains(seq));
        dropped.extend(strays.map(|seq| (*seq, "its stream does not exist or is closed".to_owned())));
        dropped.sort();
        self.0.meters.ingested(events.len());
        for (number, why) in &dropped {
            self.0.meters.dropped(offered.get(number).map(|faultless| !faultless));
            // Probes look on until their host has heard that the run is over: what they bring then is late, not lost.
            if offered.get(number) == Some(&true) {
                tracing::debug!(%host, outbox, seq = number, %why, "fact came after the end");
            } else {
                tracing::warn!(%host, outbox, seq = number, %why, "fact dropped");
            }
        }
        Ok(Ingested { acked: seq, taken: events.len(), dropped })
    }

    /// Runs a write in a task of its own, so that it ends in a known state whatever becomes of the caller.
    async fn start(&self, write: Write, guard: Option<OwnedMutexGuard<()>>) -> Result<Vec<Event>, HistoryError> {
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let result = shared.write(write).await;
            shared.meters.appended(&result, begun.elapsed());
            drop(guard);
            result
        });
        finished(task.await)
    }

    /// Tells the number of the last record now and whenever it grows. Level-triggered: wait, then read what is new.
    pub async fn subscribe(&self, stream: &str) -> Result<watch::Receiver<u64>, HistoryError> {
        let slot = self.0.slot(stream);
        // Subscribed before the lock is let go, so that the slot cannot be forgotten in between.
        let receiver = slot.seq.subscribe();
        self.0.end(&slot, stream).await?;
        Ok(receiver)
    }

    /// Every fact of every stream from now on, each once it is durable; those of one stream in their order. Nobody waits
    /// for a listener: one that is too slow is told how many it missed, and reads them if it needs them.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.told.subscribe()
    }

    /// All events of a stream after number `after`, in order.
    pub async fn read(&self, stream: &str, after: u64) -> Result<Vec<Event>, HistoryError> {
        let (mut events, mut after) = (Vec::new(), after);
        loop {
            let page = self.read_part(stream, after, PAGE).await?;
            let full = page.len() == PAGE;
            after = page.last().map_or(after, |event| event.seq);
            events.extend(page);
            if !full {
                return Ok(events);
            }
        }
    }

    /// At most `limit` events of a stream after number `after`, in order.
    pub async fn read_part(&self, stream: &str, after: u64, limit: usize) -> Result<Vec<Event>, HistoryError> {
        self.read_stored(stream, after, limit).await?.iter().map(|record| parse(stream, record)).collect()
    }

    /// Records as they are kept, for those who check the chain themselves.
    pub async fn read_stored(&self, stream: &str, after: u64, limit: usize) -> Result<Vec<Stored>, HistoryError> {
        Ok(self.0.store.read(stream, after, limit).await?)
    }

    /// Bytes kept under a hexadecimal digest; `None` when there are none.
    pub async fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>, HistoryError> {
        match chain::digest_from_hex(digest) {
            Some(digest) => Ok(self.0.store.blob(digest).await?),
            None => Ok(None),
        }
    }
}

/// What a task of our own gave.
fn finished<T>(joined: Result<Result<T, HistoryError>, JoinError>) -> Result<T, HistoryError> {
    match joined {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(StoreError::Closed.into()),
    }
}

fn parse(stream: &str, record: &Stored) -> Result<Event, HistoryError> {
    serde_json::from_slice(&record.stored).map_err(|source| HistoryError::Unreadable {
        stream: stream.to_owned(),
        seq: record.seq,
        source,
    })
}

impl Shared {
    fn slot(&self, stream: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().expect("no holder panics");
        if slots.len() >= SLOTS && !slots.contains_key(stream) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.seq.receiver_count() > 0);
        }
        Arc::clone(slots.entry(stream.to_owned()).or_default())
    }

    /// Locks a stream and makes sure its end is known.
    async fn end(&self, slot: &Slot, stream: &str) -> Result<(OwnedMutexGuard<Option<End>>, End), HistoryError> {
        let mut guard = Arc::clone(&slot.end).lock_owned().await;
        if let Some(end) = *guard {
            return Ok((guard, end));
        }
        let head = self.store.head(stream).await?;
        let last = self.store.read(stream, head.seq.saturating_sub(1), 1).await?;
        let closed = match last.last() {
            Some(record) => matches!(parse(stream, record)?.body, Body::ReportSealed { .. }),
            None => false,
        };
        slot.seq.send_replace(head.seq);
        let end = End { head, closed };
        *guard = Some(end);
        Ok((guard, end))
    }

    async fn try_write(&self, host: HostId) -> Result<(), HistoryError> {
        let move_mark = async {
            let expected = self.store.cursor(&host, MARK).await?;
            let cursor = Some(Cursor { host, outbox: MARK.to_owned(), expected, seq: expected + 1 });
            let _turn = self.turn.read().await;
            let epoch = self.epoch.load(Ordering::SeqCst);
            Ok(self.store.commit(Commit { epoch, cursor, ..Commit::default() }).await?)
        };
        let moved = move_mark.await;
        self.meters.wrote(&moved);
        moved
    }

    async fn write(&self, write: Write) -> Result<Vec<Event>, HistoryError> {
        let Write { mut facts, expected, extra, cursor, drop_strays, close } = write;
        let mut locked = BTreeMap::new();
        // In the order of their names, so that two writers of the same streams never wait for each other.
        for stream in facts.keys().cloned().collect::<Vec<_>>() {
            let slot = self.slot(&stream);
            let (guard, end) = self.end(&slot, &stream).await?;
            let stray = end.closed || end.head.seq == 0;
            if drop_strays && stray {
                facts.remove(&stream);
                continue;
            }
            if end.closed {
                return Err(HistoryError::Closed { stream });
            }
            if let Some(expected) = expected.get(&stream).filter(|expected| **expected != end.head.seq) {
                return Err(StoreError::Conflict { what: stream, expected: *expected, actual: end.head.seq }.into());
            }
            locked.insert(stream, (slot, guard, end));
        }
        let received = self.clock.now();
        let (mut events, mut batches) = (Vec::new(), Vec::new());
        let mut chain = |stream: &str, facts: Vec<Fact>, end: &mut End| {
            let expected_seq = end.head.seq;
            let records = facts.into_iter().map(|fact| record(stream, fact, &received, end, &mut events)).collect();
            batches.push(Batch { stream: stream.to_owned(), expected_seq, events: records });
        };
        for (stream, (_, _, end)) in &mut locked {
            if close.as_ref().is_none_or(|(_, audit)| audit != stream) {
                chain(stream, facts.remove(stream).unwrap_or_default(), end);
            }
        }
        if let Some((stream, audit)) = &close {
            let Head { seq, hash } = locked[stream].2.head;
            let at = received.clone();
            let closed = Body::StreamClosed { stream: stream.clone(), seq, hash: chain::hex(&hash), at };
            let (_, _, end) = locked.get_mut(audit).expect("both streams are locked");
            chain(audit, vec![closed.into()], end);
        }
        // Unknown until the commit has succeeded; a failure leaves it to be read again.
        for (_, guard, _) in locked.values_mut() {
            **guard = None;
        }
        let Extra { index, idempotency, .. } = extra;
        let turn = self.turn.read().await;
        let epoch = self.epoch.load(Ordering::SeqCst);
        self.store.commit(Commit { epoch, batches, cursor, index, idempotency }).await?;
        drop(turn);
        // While the streams are locked, so that their facts are told in their order.
        if self.told.receiver_count() > 0 {
            for event in &events {
                // The last listener may just have left.
                let _ = self.told.send(Arc::new(event.clone()));
            }
        }
        for (slot, mut guard, end) in locked.into_values() {
            *guard = Some(end);
            slot.seq.send_if_modified(|seq| std::mem::replace(seq, end.head.seq) != end.head.seq);
        }
        Ok(events)
    }
}

/// Numbers, serialises and chains one fact; `end` and `events` move along.
fn record(stream: &str, fact: Fact, received: &Stamp, end: &mut End, events: &mut Vec<Event>) -> NewEvent {
    let seq = end.head.seq + 1;
    let Fact { body, origin, blob } = fact;
    let event = Event { stream: stream.to_owned(), seq, received: received.clone(), origin, body };
    let stored = serde_json::to_vec(&event).expect("events have only text keys and finite numbers");
    let hash = chain::link(&end.head.hash, &stored);
    end.head = Head { seq, hash };
    end.closed |= matches!(event.body, Body::ReportSealed { .. });
    events.push(event);
    NewEvent { stored, hash, blob: blob.map(|bytes| (chain::sha256(&bytes) as Digest, bytes)) }
}

#[cfg(test)]
mod tests;
