//! Proving a history whole: chains as they were walked, held against heads that were signed outside the store. Pure: who
//! has the records hands them in, and nothing here asks for any.
//!
//! What no signature reaches is named: for those records nothing but the database itself vouches. What was pruned is told
//! apart from what is gone, and a head that is newer than a restored copy from one that the history contradicts.
//!
//! ```text
//! audit streams first  ->  the others, each judged as it is walked  ->  audit streams again, where they grow  ->  finish
//! ```

mod heads;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use self::{
    heads::{BadLine, PUBLIC_KEY_BYTES, SignedHead, public_key, read_heads},
    walk::{Beside, Walk},
};
use crate::chain::{Digest, Head};

/// Where the keeper of a stream says that it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The end.
    pub head: Head,
    /// It was asked before the walk, and the stream may have grown since.
    pub growing: bool,
}

/// What was found in one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamFinding {
    /// The stream.
    pub stream: String,
    /// Records up to this number are gone by a prune.
    pub pruned: u64,
    /// Number of the last record whose chain is whole.
    pub records: u64,
    /// Records up to this number are covered by a signature, directly or through the audit stream. For those after
    /// it only the database vouches.
    pub vouched: u64,
    /// The first record that is wrong, and how; nothing is said about those that follow.
    pub broken: Option<(u64, String)>,
    /// Readings and reports whose bytes are missing or changed: number of the record, and which of the two.
    pub blobs: Vec<(u64, String)>,
}

/// Records that somebody removed, and said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// The streams that are gone, or whose beginning is.
    pub streams: Vec<String>,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, wall time, nanoseconds since the Unix epoch.
    pub at_wall_ns: i64,
    /// Whether a signature covers that, and so the heads of what is gone.
    pub vouched: bool,
}

/// A signed head of records that the history lost, because it was restored from an older copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewerHead {
    /// The stream.
    pub stream: String,
    /// Number of the record.
    pub seq: u64,
    /// When it was signed, wall time, nanoseconds since the Unix epoch.
    pub signed_wall_ns: i64,
    /// The copy's last record of the stream.
    pub copy: u64,
    /// When the copy was put back, wall time.
    pub restored_wall_ns: i64,
}

/// What was found in a whole history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Each stream that is there, in the order of their names.
    pub streams: Vec<StreamFinding>,
    /// Findings that belong to no stream: signatures that do not hold, streams that are gone.
    pub general: Vec<String>,
    /// What is gone by prunes, in their order.
    pub pruned: Vec<Pruned>,
    /// Signed heads that the history cannot have, since it is a restored copy.
    pub newer: Vec<NewerHead>,
    /// How many signed heads it was held against.
    pub signed: usize,
    /// When the last of them was signed, wall time, nanoseconds since the Unix epoch.
    pub last_signed_wall_ns: Option<i64>,
}

impl Verification {
    /// Whether nothing is wrong with what is there.
    pub fn whole(&self) -> bool {
        self.general.is_empty() && self.streams.iter().all(|found| found.broken.is_none() && found.blobs.is_empty())
    }

    /// Whether all that signed heads know of is there, or was pruned.
    pub fn complete(&self) -> bool {
        self.newer.is_empty()
    }

    /// Records whose chain is whole.
    pub fn records(&self) -> u64 {
        self.streams.iter().map(|found| found.records.saturating_sub(found.pruned)).sum()
    }

    /// Streams with records that no signature covers.
    pub fn unvouched(&self) -> impl Iterator<Item = &StreamFinding> {
        self.streams.iter().filter(|found| found.vouched.max(found.pruned) < found.records)
    }
}

/// Takes in walks of streams, and says in the end what was found.
#[derive(Debug, Default)]
pub struct Verifier {
    heads: Vec<SignedHead>,
    general: Vec<String>,
    audits: BTreeMap<String, (Walk, Option<Ends>)>,
    /// Last heads of streams as the audit streams had them when they came.
    closed: BTreeMap<String, Close>,
    others: Vec<Judged>,
}

/// Where an audit stream has the last head of another one.
#[derive(Clone, Debug)]
struct Close {
    head: Head,
    audit: String,
    at: u64,
}

/// A stream that is no audit, held against what was known when it was walked.
#[derive(Debug)]
struct Judged {
    finding: StreamFinding,
    base: Head,
    closed: Option<Close>,
}

/// What all audit streams say of the others, by the name of those.
struct Sayings<'v> {
    closed: BTreeMap<&'v str, Head>,
    gaps: BTreeMap<&'v str, Vec<Said<'v>>>,
    /// How far signatures reach in each audit stream.
    vouched: BTreeMap<&'v str, u64>,
    /// Audit streams of which there is a signed head.
    signed: BTreeSet<&'v str>,
    /// Streams that are gone, or whose beginning is, by the record that says so.
    gone: BTreeMap<(&'v str, u64), Vec<String>>,
}

/// A prune of one stream.
#[derive(Clone, Copy, Debug)]
struct Said<'v> {
    head: Head,
    audit: &'v str,
    at: u64,
}

impl Verifier {
    /// Holds a history against these heads; `public` is the key that signed them.
    pub fn new(heads: Vec<SignedHead>, public: &[u8]) -> Self {
        let mut verifier = Self::default();
        verifier.hold_against(heads, public);
        verifier
    }

    /// Holds it against further heads, also where that was walked already.
    pub fn hold_against(&mut self, heads: Vec<SignedHead>, public: &[u8]) {
        for head in heads {
            if self.heads.contains(&head) {
                continue;
            }
            if head.digest().is_some() && head.holds(public) {
                self.heads.push(head);
            } else {
                let why = format!("signature of head {} of {} does not hold", head.seq, head.stream);
                self.general.extend((!self.general.contains(&why)).then_some(why));
            }
        }
    }

    /// Takes the walk of an audit stream: the heads of the others are in it, so it comes first. One of the same stream
    /// takes the place of the former.
    pub fn audit(&mut self, walk: Walk, ends: Option<Ends>) {
        for (at, closed) in &walk.closed {
            let close = Close { head: closed.head, audit: walk.stream().to_owned(), at: *at };
            self.closed.insert(closed.stream.clone(), close);
        }
        self.audits.insert(walk.stream().to_owned(), (walk, ends));
    }

    /// The walks of audit streams, to walk on where the stream has grown.
    pub fn audits(&mut self) -> impl Iterator<Item = &mut Walk> {
        self.audits.values_mut().map(|(walk, _)| walk)
    }

    /// Takes the walk of another stream.
    pub fn other(&mut self, walk: Walk, ends: Option<Ends>) {
        let closed = self.closed.get(walk.stream()).cloned();
        let mut wrong: Vec<(u64, String)> = Vec::new();
        if let Some(Close { head, .. }) = &closed {
            wrong.extend(differs(&walk, *head, "the audit stream"));
            let grown = walk.last().seq > head.seq;
            wrong.extend(grown.then(|| (head.seq + 1, "it was appended after the stream was closed".to_owned())));
        }
        let (vouched, heads) = self.against_heads(&walk);
        wrong.extend(heads.into_iter().map(|head| unexplained(&walk, head)));
        wrong.extend(ends.and_then(|ends| short(&walk, ends)));
        let finding = finding(&walk, vouched, wrong);
        self.others.push(Judged { finding, base: walk.base(), closed });
    }

    /// What was found; `names` are all streams that are there.
    pub fn finish(mut self, names: &BTreeSet<String>) -> Verification {
        let mut found = Verification {
            general: std::mem::take(&mut self.general),
            signed: self.heads.len(),
            last_signed_wall_ns: self.heads.iter().map(|head| head.wall_ns).max(),
            ..Verification::default()
        };
        let others = std::mem::take(&mut self.others);
        let mut said = self.sayings();
        for (name, (walk, ends)) in &self.audits {
            let mut one = self.judge_audit(walk, *ends, &mut found.newer);
            if walk.base().seq > 0 {
                let why = format!("records 1 to {} are gone: an audit stream is never pruned", walk.base().seq);
                one.broken = Some((1, why));
            }
            said.vouched.insert(name, one.vouched);
            found.streams.push(one);
        }
        for Judged { mut finding, base, closed } in others {
            if let Some(Close { audit, at, .. }) = closed
                && finding.broken.is_none()
                && said.covers(&audit, at)
            {
                finding.vouched = finding.records;
            }
            let pruned = if base.seq > 0 { said.beginning(&finding.stream, base) } else { Ok(()) };
            if let Err(why) = pruned {
                finding.broken = Some((1, format!("records 1 to {} are {why}", base.seq)));
            }
            found.streams.push(finding);
        }
        let heads = self.heads.iter().filter(|head| head.seq > 0).map(|head| head.stream.as_str());
        let known: BTreeSet<&str> = heads.chain(said.closed.keys().copied()).chain(said.gaps.keys().copied()).collect();
        for name in known.into_iter().filter(|name| !names.contains(*name)) {
            found.general.extend(said.whole(name).err().map(|why| format!("stream {name} is {why}")));
        }
        found.pruned = self.pruned(&said);
        found.streams.sort_by(|a, b| a.stream.cmp(&b.stream));
        found
    }

    fn sayings(&self) -> Sayings<'_> {
        let mut said = Sayings {
            closed: BTreeMap::new(),
            gaps: BTreeMap::new(),
            vouched: BTreeMap::new(),
            signed: self.heads.iter().map(|head| head.stream.as_str()).collect(),
            gone: BTreeMap::new(),
        };
        for (audit, (walk, _)) in &self.audits {
            said.closed.extend(walk.closed.iter().map(|(_, closed)| (closed.stream.as_str(), closed.head)));
            for (at, gap) in &walk.gaps {
                let one = Said { head: gap.head, audit, at: *at };
                said.gaps.entry(gap.stream.as_str()).or_default().push(one);
            }
        }
        said
    }

    fn pruned(&self, said: &Sayings<'_>) -> Vec<Pruned> {
        let mut all = Vec::new();
        for (audit, (walk, _)) in &self.audits {
            for (at, walk::Prune { by, reason, at_wall_ns }) in &walk.prunes {
                let Some(streams) = said.gone.get(&(audit.as_str(), *at)) else { continue };
                all.push(Pruned {
                    streams: streams.clone(),
                    by: by.clone(),
                    reason: reason.clone(),
                    at_wall_ns: *at_wall_ns,
                    vouched: said.covers(audit, *at),
                });
            }
        }
        all
    }

    fn judge_audit(&self, walk: &Walk, ends: Option<Ends>, newer: &mut Vec<NewerHead>) -> StreamFinding {
        let (vouched, heads) = self.against_heads(walk);
        let mut wrong = Vec::new();
        for head in heads {
            // Records of a restored copy follow those of the backup; a head on what had been there instead was signed
            // before. One that was signed later is of a controller that should not be.
            let by_restore = walk
                .restores
                .iter()
                .find(|(at, restore)| *at <= vouched && *at <= head.seq && head.wall_ns <= restore.at_wall_ns);
            match by_restore {
                Some((at, restore)) => newer.push(NewerHead {
                    stream: head.stream.clone(),
                    seq: head.seq,
                    signed_wall_ns: head.wall_ns,
                    copy: at - 1,
                    restored_wall_ns: restore.at_wall_ns,
                }),
                None => wrong.push(unexplained(walk, head)),
            }
        }
        wrong.extend(ends.and_then(|ends| short(walk, ends)));
        finding(walk, vouched, wrong)
    }

    /// How far signatures reach in a walk, and the heads that it does not have.
    fn against_heads(&self, walk: &Walk) -> (u64, Vec<&SignedHead>) {
        let own = self.heads.iter().filter(|head| head.stream == walk.stream() && head.seq > walk.base().seq);
        let (kept, other): (Vec<_>, Vec<_>) = own.partition(|head| walk.hash(head.seq) == head.digest());
        (kept.iter().map(|head| head.seq).max().unwrap_or(0), other)
    }
}

impl<'v> Sayings<'v> {
    fn covers(&self, audit: &str, at: u64) -> bool {
        self.vouched.get(audit).is_some_and(|vouched| at <= *vouched)
    }

    /// Notes that a stream is gone up to a head, if a prune says so that counts.
    fn beginning(&mut self, stream: &str, upto: Head) -> Result<(), &'static str> {
        let gaps = self.gaps.get(stream).map_or(&[][..], Vec::as_slice);
        let one = gaps.iter().rev().find(|said| said.head == upto).copied();
        self.note(stream, one)
    }

    /// The same of a whole stream. A prune of another head than that of its close removed something else.
    fn whole(&mut self, stream: &str) -> Result<(), &'static str> {
        let gaps = self.gaps.get(stream).map_or(&[][..], Vec::as_slice);
        let close = self.closed.get(stream);
        let one = gaps.iter().rev().find(|said| close.is_none_or(|close| *close == said.head)).copied();
        self.note(stream, one)
    }

    fn note(&mut self, stream: &str, said: Option<Said<'v>>) -> Result<(), &'static str> {
        let Some(Said { audit, at, .. }) = said else { return Err("gone") };
        // Without any signed head of an audit stream nothing in it can be covered, and nothing is held against it.
        if self.signed.contains(audit) && !self.covers(audit, at) {
            return Err("gone by a prune that no signed head covers");
        }
        self.gone.entry((audit, at)).or_default().push(stream.to_owned());
        Ok(())
    }
}

/// The finding of a walk with the first of what is wrong.
fn finding(walk: &Walk, vouched: u64, wrong: Vec<(u64, String)>) -> StreamFinding {
    let broken = walk.broken().cloned().into_iter().chain(wrong).min_by_key(|(seq, _)| *seq);
    let records = broken.as_ref().map_or(walk.last().seq, |(seq, _)| walk.last().seq.min(seq - 1));
    let (stream, pruned, blobs) = (walk.stream().to_owned(), walk.base().seq, walk.blobs().to_vec());
    StreamFinding { stream, pruned, records, vouched: vouched.min(records), broken, blobs }
}

/// A head that a walk does not have although somebody knows it.
fn differs(walk: &Walk, head: Head, who: &str) -> Option<(u64, String)> {
    match walk.hash(head.seq) {
        Some(hash) if hash == head.hash => None,
        Some(_) => Some((head.seq, format!("it is not the record that {who} knows"))),
        None if head.seq == walk.base().seq => None,
        None if head.seq > walk.last().seq => {
            Some((walk.last().seq.saturating_add(1), format!("it is missing: {who} knows {} records", head.seq)))
        }
        None => None,
    }
}

fn unexplained(walk: &Walk, head: &SignedHead) -> (u64, String) {
    let known = Head { seq: head.seq, hash: head.digest().unwrap_or_default() };
    let (seq, why) = differs(walk, known, "a signed head").unwrap_or((head.seq, "it is not there".to_owned()));
    let newer = head.seq > walk.last().seq && walk.broken().is_none();
    (seq, if newer { format!("{why}; it may be newer than this copy, if this is one") } else { why })
}

/// The keeper's own word on the end of the stream.
fn short(walk: &Walk, ends: Ends) -> Option<(u64, String)> {
    let (last, head) = (walk.last(), ends.head);
    let kept = if ends.growing { last.seq >= head.seq && is(walk, head) } else { last == head };
    (!kept).then(|| {
        (last.seq.min(head.seq).saturating_add(1), format!("it is missing: the head says {} records", head.seq))
    })
}

fn is(walk: &Walk, head: Head) -> bool {
    let base = walk.base();
    let hash: Option<Digest> = if head.seq == base.seq { Some(base.hash) } else { walk.hash(head.seq) };
    hash == Some(head.hash)
}

#[cfg(test)]
mod tests;
