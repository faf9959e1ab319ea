//! Walking one stream: each record follows from the one before it, or the walk ends there and says why.
//!
//! It reads of a record only what other streams and blobs are proved by. A kind of fact that a later version wrote is as
//! good as any.

use serde::Deserialize;

use crate::{
    chain::{Digest, Head, Stored, digest_from_hex, link, sha256},
    event::Gone,
};

/// The records of a stream, taken in their order.
#[derive(Clone, Debug)]
pub struct Walk {
    stream: String,
    base: Head,
    /// Of the records after the base.
    hashes: Vec<Digest>,
    broken: Option<(u64, String)>,
    blobs: Vec<(u64, String)>,
    /// With the number of the record that says so.
    pub(super) closed: Vec<(u64, Closed)>,
    pub(super) prunes: Vec<(u64, Prune)>,
    pub(super) gaps: Vec<(u64, Gap)>,
    pub(super) restores: Vec<(u64, Restore)>,
}

/// The last head of a stream that has ended.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub stream: String,
    pub head: Head,
}

/// Who removed something.
#[derive(Clone, Debug)]
pub(super) struct Prune {
    pub by: String,
    pub reason: String,
    pub at_wall_ns: i64,
}

/// What was removed: the stream up to this head.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub stream: String,
    pub head: Head,
}

/// From here on it goes on from an older copy.
#[derive(Clone, Debug)]
pub(super) struct Restore {
    pub at_wall_ns: i64,
}

/// Bytes that are kept beside a record, under their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Number of the record.
    pub seq: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub digest: String,
    /// A report, else readings.
    pub report: bool,
}

/// What a walk reads of a record.
#[derive(Deserialize)]
struct Envelope {
    stream: String,
    seq: u64,
    body: Told,
}

#[derive(Deserialize)]
struct Wall {
    #[serde(rename = "wallNs")]
    wall_ns: i64,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Told {
    ReadingsSealed {
        digest: String,
    },
    ReportSealed {
        digest: String,
    },
    StreamClosed {
        stream: String,
        seq: u64,
        hash: String,
    },
    Pruned {
        gone: Vec<Gone>,
        by: String,
        reason: String,
        at: Wall,
    },
    Restored {
        at: Wall,
    },
    #[serde(other)]
    Other,
}

impl Walk {
    /// A walk that begins after `base`: the genesis, or the last record that was pruned.
    pub fn new(stream: &str, base: Head) -> Self {
        Self {
            stream: stream.to_owned(),
            base,
            hashes: Vec::new(),
            broken: None,
            blobs: Vec::new(),
            closed: Vec::new(),
            prunes: Vec::new(),
            gaps: Vec::new(),
            restores: Vec::new(),
        }
    }

    /// The stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Where it began.
    pub fn base(&self) -> Head {
        self.base
    }

    /// The last record that followed from those before it.
    pub fn last(&self) -> Head {
        let hash = self.hashes.last().copied().unwrap_or(self.base.hash);
        Head { seq: self.base.seq.saturating_add(self.hashes.len() as u64), hash }
    }

    /// The first record that did not, and why.
    pub fn broken(&self) -> Option<&(u64, String)> {
        self.broken.as_ref()
    }

    /// Hash of a record that was walked.
    pub fn hash(&self, seq: u64) -> Option<Digest> {
        let index = seq.checked_sub(self.base.seq)?.checked_sub(1)?;
        self.hashes.get(usize::try_from(index).ok()?).copied()
    }

    /// Takes the next record; says which bytes must be kept beside it, for [`Walk::beside`]. After a broken one all others
    /// are passed over.
    pub fn take(&mut self, record: &Stored) -> Option<Beside> {
        if self.broken.is_some() {
            return None;
        }
        let seq = self.last().seq.saturating_add(1);
        match self.check(seq, record) {
            Ok(told) => {
                self.hashes.push(record.hash);
                self.note(seq, told)
            }
            Err(why) => {
                self.broken = Some((seq, why));
                None
            }
        }
    }

    fn check(&self, seq: u64, record: &Stored) -> Result<Told, String> {
        if record.seq != seq {
            return Err(format!("it is missing: the next one is {}", record.seq));
        }
        if link(&self.last().hash, &record.stored) != record.hash {
            return Err("its bytes do not have its hash".to_owned());
        }
        let said: Envelope = serde_json::from_slice(&record.stored).map_err(|e| format!("it is not an event: {e}"))?;
        if said.stream != self.stream || said.seq != seq {
            return Err(format!("it says it is record {} of {}", said.seq, said.stream));
        }
        Ok(said.body)
    }

    fn note(&mut self, seq: u64, told: Told) -> Option<Beside> {
        match told {
            Told::ReadingsSealed { digest } => return Some(Beside { seq, digest, report: false }),
            Told::ReportSealed { digest } => return Some(Beside { seq, digest, report: true }),
            Told::StreamClosed { stream, seq: last, hash } => {
                let head = digest_from_hex(&hash).map(|hash| Head { seq: last, hash });
                self.closed.extend(head.map(|head| (seq, Closed { stream, head })));
            }
            Told::Pruned { gone, by, reason, at } => {
                let head = |gone: &Gone| Some(Head { seq: gone.seq, hash: digest_from_hex(&gone.hash)? });
                let gaps = gone.into_iter().filter_map(|gone| Some(Gap { head: head(&gone)?, stream: gone.stream }));
                self.gaps.extend(gaps.map(|gap| (seq, gap)));
                self.prunes.push((seq, Prune { by, reason, at_wall_ns: at.wall_ns }));
            }
            Told::Restored { at } => self.restores.push((seq, Restore { at_wall_ns: at.wall_ns })),
            Told::Other => {}
        }
        None
    }

    /// Holds bytes against the digest that the record names; `None`: there are none.
    pub fn beside(&mut self, beside: &Beside, bytes: Option<&[u8]>) {
        let what = if beside.report { "report" } else { "readings" };
        let (is, are) = if beside.report { ("is", "was") } else { ("are", "were") };
        let wrong = match (digest_from_hex(&beside.digest), bytes) {
            (None, _) => "its digest is malformed".to_owned(),
            (Some(_), None) => format!("its {what} {is} missing"),
            (Some(digest), Some(bytes)) if sha256(bytes) != digest => format!("its {what} {are} changed"),
            (Some(_), Some(_)) => return,
        };
        self.blobs.push((beside.seq, wrong));
    }

    /// Bytes that were not as they should be: number of the record, and how.
    pub fn blobs(&self) -> &[(u64, String)] {
        &self.blobs
    }
}
