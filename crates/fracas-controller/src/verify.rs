//! Proving a history whole: walks every chain, compares blobs, and holds all against heads signed outside the store.
//!
//! It only reads. What no signature reaches is named: for those records nothing but the database itself vouches.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use fracas_model::event::{Body, Event};
use serde::{Deserialize, Serialize};

use crate::{
    chain::{Digest, digest_from_hex, genesis, hex, link, sha256, unhex},
    datadir::{Access, DataDir, DataDirError},
    history::{History, HistoryError},
    identity::{AUDIT_KEY_FILE, Identity, verify_head},
    server::STORE_FILE,
    store::{Head, Store, StoreError, Stored, sqlite::SqliteStore},
};

/// File of signed heads in the data directory, one JSON text a line. Copies elsewhere are worth more than this one.
pub const HEADS_FILE: &str = "heads.jsonl";

/// Records fetched from the store at once.
const PAGE: usize = 1000;

/// The head of a stream at some time, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedHead {
    /// The stream, normally an `audit/CONTROLLER`.
    pub stream: String,
    /// Number of its last record.
    pub seq: u64,
    /// Hash of that record, hexadecimal.
    pub hash: String,
    /// When it was signed, wall time, nanoseconds since the Unix epoch.
    pub wall_ns: i64,
    /// Ed25519 signature over [`SignedHead::text`], hexadecimal.
    pub signature: String,
}

impl SignedHead {
    /// Signs a head.
    pub fn sign(identity: &Identity, stream: &str, head: Head, wall_ns: i64) -> Self {
        let mut signed =
            Self { stream: stream.to_owned(), seq: head.seq, hash: hex(&head.hash), wall_ns, signature: String::new() };
        signed.signature = hex(&identity.sign_head(signed.text().as_bytes()));
        signed
    }

    /// What is signed: a line for each field, so that no two heads have the same text.
    pub fn text(&self) -> String {
        format!("fracas head 1\n{}\n{}\n{}\n{}\n", self.stream, self.seq, self.hash, self.wall_ns)
    }

    /// Whether the holder of the Ed25519 key `public` signed this.
    pub fn holds(&self, public: &[u8]) -> bool {
        unhex(&self.signature).is_some_and(|signature| verify_head(public, self.text().as_bytes(), &signature))
    }
}

/// Signs the present head of the stream `audit` and keeps it in [`HEADS_FILE`].
pub async fn vouch(
    history: &History,
    identity: &Identity,
    dir: &DataDir,
    audit: &str,
) -> Result<SignedHead, VouchError> {
    let head = history.store().head(audit).await.map_err(HistoryError::from)?;
    let signed = SignedHead::sign(identity, audit, head, history.now().wall_ns);
    dir.append_line(HEADS_FILE, &serde_json::to_string(&signed).expect("a signed head is JSON"))?;
    Ok(signed)
}

/// Why a head could not be signed and kept.
#[derive(Debug, thiserror::Error)]
pub enum VouchError {
    /// The history could not be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The file could not be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// The signed heads of a data directory. The last line may be half, from a crash; any other broken line is an error.
pub fn kept_heads(dir: &DataDir) -> Result<Vec<SignedHead>, KeptHeadsError> {
    let bytes = dir.read(HEADS_FILE, Access::Private)?.unwrap_or_default();
    read_heads(&dir.join(HEADS_FILE), &bytes)
}

/// The signed heads in the text of a file; `path` is for the error.
pub fn read_heads(path: &Path, bytes: &[u8]) -> Result<Vec<SignedHead>, KeptHeadsError> {
    let text = String::from_utf8_lossy(bytes);
    let mut heads = Vec::new();
    for (line, text) in (1..).zip(text.split_inclusive('\n')) {
        match serde_json::from_str(text) {
            Ok(head) => heads.push(head),
            Err(_) if !text.ends_with('\n') => {}
            Err(source) => return Err(KeptHeadsError::Line { path: path.to_owned(), line, source }),
        }
    }
    Ok(heads)
}

/// Why the file of signed heads cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptHeadsError {
    /// It could not be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A line is not a signed head.
    #[error("line {line} of {path} is not a signed head ({source}): use a copy of the file")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What was found in one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFinding {
    /// The stream.
    pub stream: String,
    /// Records whose chain is whole.
    pub records: u64,
    /// Records up to this number are covered by a signature, directly or through the audit stream. For those after
    /// it only the database vouches.
    pub vouched: u64,
    /// The first record that is wrong, and how; nothing is said about those that follow.
    pub broken: Option<(u64, String)>,
    /// Readings and reports whose bytes are missing or changed: number of the record, and which of the two.
    pub blobs: Vec<(u64, String)>,
}

/// What was found in a whole store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Each stream, in the order of their names.
    pub streams: Vec<StreamFinding>,
    /// Findings that belong to no stream: signatures that do not hold, streams that are gone.
    pub general: Vec<String>,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn whole(&self) -> bool {
        self.general.is_empty() && self.streams.iter().all(|found| found.broken.is_none() && found.blobs.is_empty())
    }

    /// Records whose chain is whole.
    pub fn records(&self) -> u64 {
        self.streams.iter().map(|found| found.records).sum()
    }
}

/// What was found in a data directory.
#[derive(Clone, Debug)]
pub struct DirVerification {
    /// What was found in its history.
    pub found: Verification,
    /// How many signed heads it was held against.
    pub signed: usize,
    /// When the last of them was signed, wall time, nanoseconds since the Unix epoch.
    pub last_signed_wall_ns: Option<i64>,
}

/// Why a data directory could not be verified. A history that is damaged is a finding instead.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file of signed heads.
    #[error(transparent)]
    Heads(#[from] KeptHeadsError),
    /// The key that signed them.
    #[error("{path} is not the public key of an audit (64 hexadecimal digits): use a copy of audit.pub")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The history.
    #[error(transparent)]
    Store(StoreError),
}

/// Verifies the history of a data directory that no controller holds, and changes nothing in it. `heads` are further
/// signed heads, from copies kept elsewhere; `key` is the key that signed all of them, the directory's own when absent.
pub async fn verify_dir(
    path: &Path,
    heads: Vec<SignedHead>,
    key: Option<Vec<u8>>,
) -> Result<DirVerification, VerifyError> {
    let dir = DataDir::look(path)?;
    let mut signed = kept_heads(&dir)?;
    signed.extend(heads);
    let public = match key {
        Some(key) => key,
        None => match dir.read(AUDIT_KEY_FILE, Access::Public)? {
            Some(text) => public_key(&dir.join(AUDIT_KEY_FILE), &text)?,
            // Without it nothing could have been signed; any head then does not hold.
            None => Vec::new(),
        },
    };
    let found = match SqliteStore::open_to_read(&dir.join(STORE_FILE)) {
        Ok(store) => verify(&store, &signed, &public).await,
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error @ (StoreError::Damaged { .. } | StoreError::Foreign { .. })) => {
            Verification { general: vec![error.to_string()], ..Verification::default() }
        }
        Err(error) => return Err(VerifyError::Store(error)),
    };
    let last_signed_wall_ns = signed.iter().map(|head| head.wall_ns).max();
    Ok(DirVerification { found, signed: signed.len(), last_signed_wall_ns })
}

/// The public key in the text of an `audit.pub`; `path` is for the error.
pub fn public_key(path: &Path, text: &[u8]) -> Result<Vec<u8>, VerifyError> {
    let key = std::str::from_utf8(text).ok().and_then(|text| unhex(text.trim())).filter(|key| key.len() == 32);
    key.ok_or_else(|| VerifyError::Key { path: path.to_owned() })
}

/// A hash that a record must have.
#[derive(Clone, Copy)]
struct Claim {
    hash: Digest,
    /// Who says so.
    who: &'static str,
    /// Whether a signature outside the store stands behind it.
    signed: bool,
}

/// Claims about a stream, by the number of the record.
type Claims = BTreeMap<u64, Claim>;

/// Verifies every stream of a store. `signed` are heads kept outside it, `public` is the key that signed them.
pub async fn verify(store: &dyn Store, signed: &[SignedHead], public: &[u8]) -> Result<Verification, StoreError> {
    let mut verification = Verification::default();
    let mut claims = BTreeMap::<String, Claims>::new();
    for head in signed {
        match digest_from_hex(&head.hash) {
            Some(hash) if head.holds(public) => {
                claims
                    .entry(head.stream.clone())
                    .or_default()
                    .insert(head.seq, Claim { hash, who: "a signed head", signed: true });
            }
            _ => verification.general.push(format!("signature of head {} of {} does not hold", head.seq, head.stream)),
        }
    }
    let names: BTreeSet<String> = store.streams("").await?.into_iter().collect();
    // Audit streams first: the heads of closed streams are in them.
    let (audits, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.starts_with("audit/"));
    let mut closed = BTreeMap::new();
    for stream in audits {
        let (finding, heads) = walk(store, stream, claims.get(stream)).await?;
        for (name, (seq, hash, at)) in heads {
            let claim = Claim { hash, who: "the audit stream", signed: at <= finding.vouched };
            claims.entry(name.clone()).or_default().entry(seq).or_insert(claim);
            closed.insert(name, seq);
        }
        verification.streams.push(finding);
    }
    for stream in others {
        let (mut finding, _) = walk(store, stream, claims.get(stream)).await?;
        let grown = closed.get(stream).filter(|last| finding.records > **last && finding.broken.is_none());
        if let Some(last) = grown {
            finding.broken = Some((last + 1, "it was appended after the stream was closed".to_owned()));
        }
        verification.streams.push(finding);
    }
    let gone = claims.iter().filter(|(name, claims)| !names.contains(*name) && claims.keys().any(|seq| *seq > 0));
    verification.general.extend(gone.map(|(name, _)| format!("stream {name} is gone")));
    verification.streams.sort_by(|a, b| a.stream.cmp(&b.stream));
    Ok(verification)
}

/// Verifies one stream by its chain alone.
pub async fn verify_stream(store: &dyn Store, stream: &str) -> Result<StreamFinding, StoreError> {
    Ok(walk(store, stream, None).await?.0)
}

/// Heads of closed streams found on the way: number, hash, and number of the record that says so.
type ClosedHeads = BTreeMap<String, (u64, Digest, u64)>;

async fn walk(
    store: &dyn Store,
    stream: &str,
    claims: Option<&Claims>,
) -> Result<(StreamFinding, ClosedHeads), StoreError> {
    let none = Claims::new();
    let claims = claims.unwrap_or(&none);
    let stream = stream.to_owned();
    let mut found = StreamFinding { stream, records: 0, vouched: 0, broken: None, blobs: Vec::new() };
    let (mut heads, mut hash) = (ClosedHeads::new(), genesis(&found.stream));
    loop {
        let page = store.read(&found.stream, found.records, PAGE).await?;
        let full = page.len() == PAGE;
        for record in page {
            let seq = found.records + 1;
            let event = match check(&found.stream, seq, &hash, &record, claims) {
                Ok(event) => event,
                Err(why) => {
                    found.broken = Some((seq, why));
                    return Ok((found, heads));
                }
            };
            (found.records, hash) = (seq, record.hash);
            if claims.get(&seq).is_some_and(|claim| claim.signed) {
                found.vouched = seq;
            }
            match event.body {
                Body::ReadingsSealed { digest, .. } => {
                    if let Some(why) = check_blob(store, READINGS, &digest).await? {
                        found.blobs.push((seq, why));
                    }
                }
                Body::ReportSealed { digest, .. } => {
                    if let Some(why) = check_blob(store, REPORT, &digest).await? {
                        found.blobs.push((seq, why));
                    }
                }
                Body::StreamClosed { stream, seq: last, hash, .. } => {
                    heads.extend(digest_from_hex(&hash).map(|hash| (stream, (last, hash, seq))));
                }
                _ => {}
            }
        }
        if !full {
            break;
        }
    }
    // The table of streams keeps each head once more; and a signature may know of records that are no longer there.
    let head = store.head(&found.stream).await?;
    let last = claims.last_key_value().filter(|(seq, _)| **seq > found.records);
    if let Some((seq, Claim { who, .. })) = last {
        found.broken = Some((found.records + 1, format!("it is missing: {who} knows {seq} records")));
    } else if head != (Head { seq: found.records, hash }) {
        found.broken = Some((found.records + 1, format!("it is missing: the head says {} records", head.seq)));
    }
    Ok((found, heads))
}

fn check(stream: &str, seq: u64, previous: &Digest, record: &Stored, claims: &Claims) -> Result<Event, String> {
    if record.seq != seq {
        return Err(format!("it is missing: the next one is {}", record.seq));
    }
    if link(previous, &record.stored) != record.hash {
        return Err("its bytes do not have its hash".to_owned());
    }
    if let Some(Claim { who, .. }) = claims.get(&seq).filter(|claim| claim.hash != record.hash) {
        return Err(format!("it is not the record that {who} knows"));
    }
    let event: Event = serde_json::from_slice(&record.stored).map_err(|e| format!("it is not an event: {e}"))?;
    if event.stream != stream || event.seq != seq {
        return Err(format!("it says it is record {} of {}", event.seq, event.stream));
    }
    Ok(event)
}

/// What is said of bytes that are missing, and of such that were changed.
type Wrong = [&'static str; 2];
const READINGS: Wrong = ["its readings are missing", "its readings were changed"];
const REPORT: Wrong = ["its report is missing", "its report was changed"];

async fn check_blob(store: &dyn Store, [missing, changed]: Wrong, digest: &str) -> Result<Option<String>, StoreError> {
    let Some(digest) = digest_from_hex(digest) else { return Ok(Some("its digest is malformed".to_owned())) };
    Ok(match store.blob(digest).await? {
        None => Some(missing.to_owned()),
        Some(bytes) if sha256(&bytes) != digest => Some(changed.to_owned()),
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests;
