//! A store in memory, for simulations and tests; it outlives a simulated crash of its controller when it is shared.
//!
//! The same promises as the real store except one: it forgets everything with the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use fracas_model::id::{HostId, RunId};

use super::{
    Answer, Commit, Cut, Head, Listed, OUTBOXES_PER_HOST, PREFIX_ROWS, Portion, RunIndex, Store, StoreError, Stored,
};
use crate::chain::Digest;

/// A store in memory. Clones share their contents.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    epoch: u64,
    streams: BTreeMap<String, Kept>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Per host in the order they were first heard of.
    cursors: BTreeMap<HostId, Vec<(String, u64)>>,
    runs: BTreeMap<RunId, RunIndex>,
    /// Runs in the order of their insertion.
    order: Vec<RunId>,
    idempotency: BTreeMap<String, RunId>,
    /// So many more commits fit; `None`: as many as come.
    room: Option<u64>,
}

/// A stream.
#[derive(Debug)]
struct Kept {
    base: Head,
    records: Vec<Stored>,
    /// Digests of their blobs, by their numbers.
    blobs: BTreeMap<u64, Digest>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every following commit fail as on a full disk, or succeed again.
    pub fn set_full(&self, full: bool) {
        self.set_room(full.then_some(0));
    }

    /// Lets so many more commits fit before the disk is full; `None`: as many as come.
    pub fn set_room(&self, commits: Option<u64>) {
        self.lock().room = commits;
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("no holder panics")
    }

    fn answer<T: Send + 'static>(value: Result<T, StoreError>) -> Answer<'static, T> {
        Box::pin(std::future::ready(value))
    }
}

impl Contents {
    fn head(&self, stream: &str) -> Head {
        let last = self.streams.get(stream).and_then(|kept| kept.records.last());
        last.map_or_else(|| Head::genesis(stream), |record| Head { seq: record.seq, hash: record.hash })
    }

    fn cursor(&self, host: &HostId, outbox: &str) -> u64 {
        let known = self.cursors.get(host).and_then(|known| known.iter().find(|(name, _)| name == outbox));
        known.map_or(0, |(_, seq)| *seq)
    }

    fn with_seq(&self, row: &RunIndex) -> (RunIndex, u64) {
        (row.clone(), self.head(&format!("run/{}", row.run)).seq)
    }

    fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        if self.room == Some(0) {
            return Err(StoreError::Full { path: PathBuf::from("(memory)") });
        }
        if commit.epoch < self.epoch {
            return Err(StoreError::Fenced { ours: commit.epoch, owner: self.epoch });
        }
        for batch in &commit.batches {
            let actual = self.head(&batch.stream).seq;
            if actual != batch.expected_seq {
                return Err(StoreError::Conflict { what: batch.stream.clone(), expected: batch.expected_seq, actual });
            }
        }
        if let Some(cursor) = &commit.cursor {
            let actual = self.cursor(&cursor.host, &cursor.outbox);
            if actual != cursor.expected {
                let what = format!("cursor {}/{}", cursor.host, cursor.outbox);
                return Err(StoreError::Conflict { what, expected: cursor.expected, actual });
            }
        }
        match &commit.idempotency {
            Some((key, _)) if self.idempotency.contains_key(key) => {
                Err(StoreError::KeyTaken { key: key.clone(), run: self.idempotency[key].clone() })
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, commit: Commit) {
        self.room = self.room.map(|room| room.saturating_sub(1));
        self.epoch = self.epoch.max(commit.epoch);
        for batch in commit.batches {
            if batch.events.is_empty() {
                continue;
            }
            let base = Head::genesis(&batch.stream);
            let new = || Kept { base, records: Vec::new(), blobs: BTreeMap::new() };
            let kept = self.streams.entry(batch.stream).or_insert_with(new);
            for event in batch.events {
                let seq = kept.records.last().map_or(0, |last| last.seq) + 1;
                kept.records.push(Stored { seq, stored: event.stored, hash: event.hash });
                if let Some((digest, bytes)) = event.blob {
                    self.blobs.entry(digest).or_insert(bytes);
                    kept.blobs.insert(seq, digest);
                }
            }
        }
        if let Some(cursor) = commit.cursor {
            let known = self.cursors.entry(cursor.host).or_default();
            match known.iter_mut().find(|(name, _)| *name == cursor.outbox) {
                Some((_, seq)) => *seq = cursor.seq,
                None => known.push((cursor.outbox, cursor.seq)),
            }
            known.drain(..known.len().saturating_sub(OUTBOXES_PER_HOST));
        }
        if let Some(row) = commit.index {
            if !self.runs.contains_key(&row.run) {
                self.order.push(row.run.clone());
            }
            self.runs.insert(row.run.clone(), row);
        }
        self.idempotency.extend(commit.idempotency);
    }

    fn cut(&mut self, cuts: &[Cut]) -> Result<(), StoreError> {
        for Cut { stream, upto } in cuts {
            let Some(kept) = self.streams.get(stream).filter(|kept| kept.base.seq < upto.seq) else { continue };
            let found = kept.records.iter().find(|record| record.seq == upto.seq);
            if found.is_none_or(|record| record.hash != upto.hash) {
                let actual = self.head(stream).seq;
                return Err(StoreError::Conflict { what: stream.clone(), expected: upto.seq, actual });
            }
        }
        for Cut { stream, upto } in cuts {
            let Some(kept) = self.streams.get_mut(stream).filter(|kept| kept.base.seq < upto.seq) else { continue };
            kept.records.retain(|record| record.seq > upto.seq);
            kept.blobs.retain(|seq, _| *seq > upto.seq);
            kept.base = *upto;
            if kept.records.is_empty() {
                self.streams.remove(stream);
                if let Some(run) = stream.strip_prefix("run/").map(RunId::from) {
                    self.runs.remove(&run);
                    self.order.retain(|known| *known != run);
                }
            }
        }
        Ok(())
    }

    /// All at once: nobody waits for memory.
    fn wipe(&mut self) {
        let used: BTreeSet<Digest> = self.streams.values().flat_map(|kept| kept.blobs.values().copied()).collect();
        self.blobs.retain(|digest, _| used.contains(digest));
    }
}

impl Store for MemoryStore {
    fn commit(&self, commit: Commit) -> Answer<'_, ()> {
        let mut contents = self.lock();
        Self::answer(contents.check(&commit).map(|()| contents.write(commit)))
    }

    fn read<'a>(&'a self, stream: &'a str, after: u64, limit: usize) -> Answer<'a, Vec<Stored>> {
        let contents = self.lock();
        let records = contents.streams.get(stream).map_or(&[][..], |kept| kept.records.as_slice());
        Self::answer(Ok(records.iter().filter(|record| record.seq > after).take(limit).cloned().collect()))
    }

    fn head<'a>(&'a self, stream: &'a str) -> Answer<'a, Head> {
        Self::answer(Ok(self.lock().head(stream)))
    }

    fn streams<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<String>> {
        Self::answer(Ok(self.lock().streams.keys().filter(|name| name.starts_with(prefix)).cloned().collect()))
    }

    fn listed<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>> {
        let contents = self.lock();
        let matching = contents.streams.iter().filter(|(name, _)| name.starts_with(prefix));
        let listed =
            matching.map(|(name, kept)| Listed { stream: name.clone(), base: kept.base, head: contents.head(name) });
        Self::answer(Ok(listed.collect()))
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        Self::answer(Ok(self.lock().blobs.get(&digest).cloned()))
    }

    fn blobs(&self, digests: Vec<Digest>) -> Answer<'_, Vec<Option<Vec<u8>>>> {
        let contents = self.lock();
        Self::answer(Ok(digests.iter().map(|digest| contents.blobs.get(digest).cloned()).collect()))
    }

    fn cursor<'a>(&'a self, host: &'a HostId, outbox: &'a str) -> Answer<'a, u64> {
        Self::answer(Ok(self.lock().cursor(host, outbox)))
    }

    fn runs(&self, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>> {
        let contents = self.lock();
        let rows = contents.order.iter().rev().take(limit).map(|run| contents.with_seq(&contents.runs[run]));
        Self::answer(Ok(rows.collect()))
    }

    fn runs_in(&self, environments: Vec<String>, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>> {
        let contents = self.lock();
        let rows = contents.order.iter().rev().map(|run| &contents.runs[run]);
        let rows = rows.filter(|row| environments.contains(&row.environment)).take(limit);
        Self::answer(Ok(rows.map(|row| contents.with_seq(row)).collect()))
    }

    fn run_prefix<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<(RunIndex, u64)>> {
        let contents = self.lock();
        let rows = contents.runs.values().filter(|row| row.run.as_str().starts_with(prefix)).take(PREFIX_ROWS);
        Self::answer(Ok(rows.map(|row| contents.with_seq(row)).collect()))
    }

    fn idempotency<'a>(&'a self, key: &'a str) -> Answer<'a, Option<RunId>> {
        Self::answer(Ok(self.lock().idempotency.get(key).cloned()))
    }

    fn raise_epoch(&self, ours: u64, above: u64) -> Answer<'_, u64> {
        let mut contents = self.lock();
        let commit = Commit { epoch: ours, ..Commit::default() };
        Self::answer(contents.check(&commit).map(|()| {
            contents.epoch = contents.epoch.max(above) + 1;
            contents.epoch
        }))
    }

    fn cut(&self, epoch: u64, cuts: Vec<Cut>) -> Answer<'_, ()> {
        let mut contents = self.lock();
        let checked = contents.check(&Commit { epoch, ..Commit::default() });
        let cut = checked.and_then(|()| contents.cut(&cuts));
        if cut.is_ok() {
            contents.room = contents.room.map(|room| room.saturating_sub(1));
        }
        Self::answer(cut)
    }

    fn wipe(&self, _: Portion) -> Answer<'_, bool> {
        self.lock().wipe();
        Self::answer(Ok(false))
    }

    fn copy_to<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        let detail = "a history in memory has no file to copy".to_owned();
        Self::answer(Err(StoreError::Failed { path: path.to_owned(), detail }))
    }

    fn next_epoch(&self) -> Answer<'_, u64> {
        let mut contents = self.lock();
        if contents.room == Some(0) {
            return Self::answer(Err(StoreError::Full { path: PathBuf::from("(memory)") }));
        }
        contents.epoch += 1;
        Self::answer(Ok(contents.epoch))
    }
}
