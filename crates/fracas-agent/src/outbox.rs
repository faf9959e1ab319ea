//! Facts on their way up: numbered, kept until the controller has committed them. It decides nothing about them, except
//! what to give up when there is no room: raw readings first, then edges and gaps, which one gap stands for from then on,
//! and comparisons of clocks but the last. Facts about items are never given up; there are as many as orders were taken.
//!
//! How lasting: everything survives the death of the agent (page cache). Facts about items are synced too, since the
//! journal counts them as told; facts about probes are not, so a power cut may lose the last of them. Numbers are only
//! meaningful within one life of the file, named by [`Outbox::id`]: a new boot, or a damaged file, begins a new life
//! and numbers what is left anew. So each fact arrives at least once, and exactly once while the file lives.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use fracas_model::{
    event::{Body, Look},
    id::{BootId, ProbeId},
    time::Stamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    disk::Disk,
    journal::{End, encode_frame, frame_at, scan_frames},
};

/// The outbox's file in the state directory.
pub const FILE: &str = "outbox";
/// How much may wait, in bytes.
pub const LIMIT_BYTES: u64 = 64 << 20;
/// How much may wait in memory because the disk does not take it.
const MEMORY_BYTES: u64 = 8 << 20;
/// A file longer than this is replaced once everything in it was acknowledged.
const COMPACT_BYTES: u64 = 256 << 10;
const VERSION: u8 = 1;
/// No outbox lives long enough to give out such a number.
const HIGHEST: u64 = 1 << 62;

/// One fact that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its number, from 1, rising; numbers of readings that were given up are missing.
    pub seq: u64,
    /// The stream it belongs to.
    pub stream: String,
    /// The fact as JSON.
    pub body: Vec<u8>,
    /// The blob of a `ReadingsSealed`; else empty.
    pub blob: Vec<u8>,
}

/// See the module.
pub struct Outbox<D> {
    disk: D,
    id: String,
    boot: BootId,
    next: u64,
    waiting: VecDeque<Slot>,
    /// Bytes of everything that waits.
    bytes: u64,
    /// Bytes of what waits in memory.
    in_memory: u64,
    /// Bytes of what could be given up.
    spare: u64,
    /// Bytes of the file.
    size: u64,
    limit: u64,
    /// The file's end is unknown after a failed write: it is rewritten before the next one.
    unsure: bool,
}

struct Slot {
    seq: u64,
    place: Place,
    worth: Worth,
}

/// What must go first when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// Raw readings.
    Readings,
    /// Edges, gaps, comparisons of clocks.
    Sight,
    /// What happened to items: it stays.
    Deed,
}

enum Place {
    File { offset: u64, len: usize },
    Memory(Vec<u8>),
}

/// What is told of looks that had to be given up.
struct GivenUp {
    stream: String,
    probe: ProbeId,
    between: Look,
    count: u64,
    at: Stamp,
}

/// First line of a record; the blob follows it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Head {
    Life { id: String, boot: BootId, next: u64 },
    Fact { seq: u64, stream: String, body: Box<Body> },
    Acked { seq: u64 },
}

impl<D: Disk> Outbox<D> {
    /// Opens the outbox, with what an earlier life of the agent left in it. Never fails: what the disk does not take
    /// is kept in memory.
    /// `fresh` names the file's life should a new one begin: it must never have been used before.
    pub async fn open(disk: D, boot: &BootId, fresh: String) -> Self {
        Self::with_limit(disk, boot, fresh, LIMIT_BYTES).await
    }

    /// The same with another limit.
    pub async fn with_limit(disk: D, boot: &BootId, fresh: String, limit: u64) -> Self {
        let bytes = disk.read(FILE).await.unwrap_or_default();
        let mut outbox = Self {
            disk,
            id: fresh,
            boot: boot.clone(),
            next: 1,
            waiting: VecDeque::new(),
            bytes: 0,
            in_memory: 0,
            spare: 0,
            size: bytes.len() as u64,
            limit,
            unsure: false,
        };
        if !outbox.load(&bytes) {
            outbox.new_life(&bytes).await;
        }
        outbox
    }

    /// Takes in what the file holds; whether its life goes on.
    fn load(&mut self, bytes: &[u8]) -> bool {
        let (frames, end) = scan_frames(bytes);
        let (mut life, mut last, mut in_order) = (None, 0, true);
        for frame in frames {
            match decode(frame.payload) {
                Some((Head::Life { id, boot, next }, _)) => {
                    self.next = next.max(1);
                    life = Some((id, boot));
                }
                Some((Head::Fact { seq, body, .. }, _)) => {
                    let place = Place::File { offset: frame.offset as u64, len: frame.size };
                    self.push(Slot { seq, place, worth: worth(&body) });
                    in_order &= last < seq;
                    last = seq;
                    self.next = self.next.max(seq.saturating_add(1));
                }
                Some((Head::Acked { seq }, _)) => self.forget(seq),
                None => {}
            }
        }
        match life {
            // A controller takes only numbers that rise, and no higher ones.
            Some((id, born)) if born == self.boot && end == End::Clean && in_order && self.next < HIGHEST => {
                self.id = id;
                true
            }
            _ => false,
        }
    }

    async fn new_life(&mut self, old: &[u8]) {
        let left = std::mem::take(&mut self.waiting);
        (self.next, self.bytes, self.spare) = (1, 0, 0);
        for slot in left {
            let Place::File { offset, .. } = slot.place else { continue };
            let Some((Head::Fact { stream, body, .. }, blob)) =
                frame_at(old, offset as usize).and_then(|f| decode(f.payload))
            else {
                continue;
            };
            let frame = encode(&Head::Fact { seq: self.next, stream, body }, blob);
            self.push(Slot { seq: self.next, place: Place::Memory(frame), worth: slot.worth });
            self.next += 1;
        }
        self.unsure = true;
        if let Err(error) = self.rewrite().await {
            tracing::warn!(%error, "the outbox cannot be written; facts wait in memory");
        }
    }

    fn push(&mut self, slot: Slot) {
        self.account(&slot, true);
        self.waiting.push_back(slot);
    }

    fn account(&mut self, slot: &Slot, added: bool) {
        let len = slot.len();
        let in_memory = if matches!(slot.place, Place::Memory(_)) { len } else { 0 };
        let change = |total: &mut u64, by: u64| *total = if added { *total + by } else { total.saturating_sub(by) };
        change(&mut self.bytes, len);
        change(&mut self.in_memory, in_memory);
        change(&mut self.spare, if slot.worth == Worth::Deed { 0 } else { len });
    }

    /// The name of this life of the file.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The last number given out; 0 when none was.
    pub fn last_seq(&self) -> u64 {
        self.next - 1
    }

    /// Adds a fact and gives it its number. Never fails: see [`Outbox::open`].
    pub async fn append(&mut self, stream: &str, body: &Body, blob: &[u8]) -> u64 {
        let seq = self.add(stream, body, blob).await;
        // Little that could be given up is left alone, or every fact would be counted again for its sake.
        let full = self.bytes > self.limit || self.in_memory > MEMORY_BYTES;
        if full && self.spare > self.limit / 20 {
            self.make_room().await;
        }
        seq
    }

    async fn add(&mut self, stream: &str, body: &Body, blob: &[u8]) -> u64 {
        let seq = self.next;
        self.next += 1;
        let frame = encode(&Head::Fact { seq, stream: stream.to_owned(), body: Box::new(body.clone()) }, blob);
        let place = self.store(frame, body.item().is_some()).await;
        self.push(Slot { seq, place, worth: worth(body) });
        seq
    }

    async fn store(&mut self, frame: Vec<u8>, sync: bool) -> Place {
        if self.unsure && self.rewrite().await.is_err() {
            return Place::Memory(frame);
        }
        let mut done = self.disk.append(FILE, &frame).await;
        if done.is_ok() && sync {
            done = self.disk.sync(FILE).await;
        }
        match done {
            Ok(()) => {
                let place = Place::File { offset: self.size, len: frame.len() };
                self.size += frame.len() as u64;
                place
            }
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be written; facts wait in memory");
                self.unsure = true;
                Place::Memory(frame)
            }
        }
    }

    /// Up to `max_bytes` of what waits beyond number `after`, oldest first; at least one if any waits.
    pub async fn pending(&self, after: u64, max_bytes: usize) -> io::Result<Vec<Waiting>> {
        let first = self.waiting.partition_point(|slot| slot.seq <= after);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for slot in self.waiting.range(first..) {
            let len = match &slot.place {
                Place::File { len, .. } => *len,
                Place::Memory(frame) => frame.len(),
            };
            if !found.is_empty() && bytes + len > max_bytes {
                break;
            }
            bytes += len;
            found.push(self.fetch(slot).await?);
        }
        Ok(found)
    }

    async fn fetch(&self, slot: &Slot) -> io::Result<Waiting> {
        let frame = self.frame(slot).await?;
        let broken = || io::Error::other(format!("fact {} in the outbox is damaged", slot.seq));
        let whole = frame_at(&frame, 0).ok_or_else(broken)?;
        let Some((Head::Fact { seq, stream, body }, blob)) = decode(whole.payload) else { return Err(broken()) };
        Ok(Waiting { seq, stream, body: serde_json::to_vec(&body)?, blob: blob.to_vec() })
    }

    async fn frame(&self, slot: &Slot) -> io::Result<Vec<u8>> {
        match &slot.place {
            Place::File { offset, len } => self.disk.read_at(FILE, *offset, *len).await,
            Place::Memory(frame) => Ok(frame.clone()),
        }
    }

    /// The controller has committed everything up to `seq` of the life `id`; other lives are over.
    pub async fn ack(&mut self, id: &str, seq: u64) {
        if id != self.id || self.waiting.front().is_none_or(|slot| slot.seq > seq) {
            return;
        }
        self.forget(seq);
        let gave_back = (self.waiting.is_empty() && self.size > COMPACT_BYTES) || self.size > 2 * self.limit;
        if self.unsure || gave_back {
            let _ = self.rewrite().await;
        } else {
            // Not synced: it only saves repeating after a restart.
            self.store(encode(&Head::Acked { seq }, &[]), false).await;
        }
    }

    fn forget(&mut self, seq: u64) {
        while self.waiting.front().is_some_and(|slot| slot.seq <= seq) {
            if let Some(slot) = self.waiting.pop_front() {
                self.account(&slot, false);
            }
        }
    }

    /// Gives up the oldest of what is worth least until a tenth is free again, and tells of the gap it leaves.
    async fn make_room(&mut self) {
        let mut lost: Vec<GivenUp> = Vec::new();
        for worth in [Worth::Readings, Worth::Sight] {
            self.give_up(worth, &mut lost).await;
        }
        for GivenUp { stream, probe, between, count, at } in lost {
            let why = "what was seen was given up: the controller was away and the outbox is full".into();
            self.add(&stream, &Body::Gap { probe, missed: count.max(1), between, why, at }, &[]).await;
        }
        if self.size > 2 * self.limit {
            let _ = self.rewrite().await;
        }
    }

    async fn give_up(&mut self, worth: Worth, lost: &mut Vec<GivenUp>) {
        let (goal, memory_goal) = (self.limit / 10 * 9, MEMORY_BYTES / 10 * 9);
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        // Of each stream's comparisons of clocks the last one stays.
        let mut clocks: BTreeMap<String, Slot> = BTreeMap::new();
        for slot in std::mem::take(&mut self.waiting) {
            let over_memory = self.in_memory > memory_goal && matches!(slot.place, Place::Memory(_));
            if slot.worth != worth || !(self.bytes > goal || over_memory) {
                kept.push_back(slot);
                continue;
            }
            self.account(&slot, false);
            let Ok(frame) = self.frame(&slot).await else { continue };
            let Some((Head::Fact { stream, body, .. }, _)) = frame_at(&frame, 0).and_then(|f| decode(f.payload)) else {
                continue;
            };
            if matches!(*body, Body::ClockSeen { .. }) {
                self.account(&slot, true);
                if let Some(older) = clocks.insert(stream, slot) {
                    self.account(&older, false);
                }
                continue;
            }
            let Some(given_up) = given_up(stream, &body) else { continue };
            match lost.iter_mut().find(|l| l.probe == given_up.probe && l.stream == given_up.stream) {
                Some(gap) => gap.widen(&given_up),
                None => lost.push(given_up),
            }
        }
        for slot in clocks.into_values() {
            let place = kept.partition_point(|k: &Slot| k.seq < slot.seq);
            kept.insert(place, slot);
        }
        self.waiting = kept;
    }

    /// Replaces the file by one with only what waits.
    async fn rewrite(&mut self) -> io::Result<()> {
        let mut file = encode(&Head::Life { id: self.id.clone(), boot: self.boot.clone(), next: self.next }, &[]);
        let mut places = Vec::with_capacity(self.waiting.len());
        for slot in &self.waiting {
            let frame = self.frame(slot).await?;
            places.push(Place::File { offset: file.len() as u64, len: frame.len() });
            file.extend(frame);
        }
        self.disk.replace(FILE, &file).await?;
        for (slot, place) in self.waiting.iter_mut().zip(places) {
            slot.place = place;
        }
        self.size = file.len() as u64;
        self.in_memory = 0;
        self.unsure = false;
        Ok(())
    }
}

impl Slot {
    fn len(&self) -> u64 {
        match &self.place {
            Place::File { len, .. } => *len as u64,
            Place::Memory(frame) => frame.len() as u64,
        }
    }
}

impl GivenUp {
    fn widen(&mut self, other: &Self) {
        self.between.s = self.between.s.min(other.between.s);
        self.between.c = self.between.c.max(other.between.c);
        self.count = self.count.saturating_add(other.count);
        self.at = other.at.clone();
    }
}

fn worth(body: &Body) -> Worth {
    match body {
        Body::ReadingsSealed { .. } => Worth::Readings,
        Body::Edge { .. } | Body::Gap { .. } | Body::ClockSeen { .. } => Worth::Sight,
        _ => Worth::Deed,
    }
}

/// What would be told if these looks had to be given up; `None` for what is no look.
fn given_up(stream: String, body: &Body) -> Option<GivenUp> {
    let (probe, between, count, at) = match body {
        Body::ReadingsSealed { probe, between, ok, failed, at, .. } => {
            (probe, *between, u64::from(*ok) + u64::from(*failed), at)
        }
        Body::Gap { probe, missed, between, at, .. } => (probe, *between, *missed, at),
        // Its two looks are in the readings too, which were given up before, and counted there.
        Body::Edge { probe, before, after, at, .. } => {
            let from = before.map_or(after.s, |before| before.s.min(after.s));
            (probe, Look { s: from, c: after.c }, 0, at)
        }
        _ => return None,
    };
    Some(GivenUp { stream, probe: probe.clone(), between, count, at: at.clone() })
}

fn encode(head: &Head, blob: &[u8]) -> Vec<u8> {
    // A head is made of strings, numbers and JSON values only: it cannot fail to serialise.
    let head = serde_json::to_vec(head).unwrap_or_default();
    encode_frame(VERSION, &[&(head.len() as u32).to_le_bytes()[..], &head, blob].concat())
}

fn decode(payload: &[u8]) -> Option<(Head, &[u8])> {
    let len = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?) as usize;
    let head = serde_json::from_slice(payload.get(4..4 + len)?).ok()?;
    Some((head, &payload[4 + len..]))
}

#[cfg(test)]
mod tests;
