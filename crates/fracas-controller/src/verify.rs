//! Proving a history whole where it lies: reads every stream and blob of a store, and lets the evidence be judged.
//!
//! It only reads, and what whole means is [`fracas_model::evidence`]'s business.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

pub use fracas_model::evidence::{SignedHead, StreamFinding, Verification};
use fracas_model::{
    chain::{Head, digest_from_hex, hex},
    evidence::{self, BadLine, Beside, Ends, Verifier, Walk},
};

use crate::{
    datadir::{Access, DataDir, DataDirError},
    history::{History, HistoryError},
    identity::{AUDIT_KEY_FILE, AuditKey, Identity},
    server::STORE_FILE,
    store::{Listed, Store, StoreError, sqlite::SqliteStore},
};

/// File of signed heads in the data directory, one JSON text a line. Copies elsewhere are worth more than this one.
pub const HEADS_FILE: &str = "heads.jsonl";

/// Records fetched from the store at once.
const PAGE: usize = 1000;

/// Signs a head; `wall_ns` is the wall time, nanoseconds since the Unix epoch.
pub fn sign(key: &AuditKey, stream: &str, head: Head, wall_ns: i64) -> SignedHead {
    let (stream, hash) = (stream.to_owned(), hex(&head.hash));
    let mut signed = SignedHead { stream, seq: head.seq, hash, wall_ns, signature: String::new() };
    signed.signature = hex(&key.sign(signed.text().as_bytes()));
    signed
}

/// Signs the present head of the stream `audit` and keeps it in [`HEADS_FILE`].
pub async fn vouch(
    history: &History,
    identity: &Identity,
    dir: &DataDir,
    audit: &str,
) -> Result<SignedHead, VouchError> {
    let head = history.store().head(audit).await.map_err(HistoryError::from)?;
    let signed = sign(identity.audit(), audit, head, history.now().wall_ns);
    dir.append_line(HEADS_FILE, &line(&signed))?;
    Ok(signed)
}

/// A signed head as a line of a file.
pub fn line(signed: &SignedHead) -> String {
    serde_json::to_string(signed).expect("a signed head is JSON")
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
    evidence::read_heads(bytes).map_err(|source| KeptHeadsError::Line { path: path.to_owned(), source })
}

/// Why the file of signed heads cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptHeadsError {
    /// It could not be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A line is not a signed head.
    #[error("{path}: {source}: use a copy of the file")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which, and what is wrong.
        source: BadLine,
    },
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
) -> Result<Verification, VerifyError> {
    verify_opened(&DataDir::look(path)?, heads, key).await
}

/// The same of a directory that is held already.
pub(crate) async fn verify_opened(
    dir: &DataDir,
    heads: Vec<SignedHead>,
    key: Option<Vec<u8>>,
) -> Result<Verification, VerifyError> {
    let mut signed = kept_heads(dir)?;
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
        Ok(store) => verify(&store, signed, &public).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => Ok(found),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Foreign { .. })) => {
            Ok(Verification { general: vec![error.to_string()], ..Verification::default() })
        }
        Err(error) => Err(VerifyError::Store(error)),
    }
}

/// The public key in the text of an `audit.pub`; `path` is for the error.
pub fn public_key(path: &Path, text: &[u8]) -> Result<Vec<u8>, VerifyError> {
    evidence::public_key(text).ok_or_else(|| VerifyError::Key { path: path.to_owned() })
}

/// Verifies every stream of a store. `signed` are heads kept outside it, `public` is the key that signed them.
pub async fn verify(store: &dyn Store, signed: Vec<SignedHead>, public: &[u8]) -> Result<Verification, StoreError> {
    let mut verifier = Verifier::new(signed, public);
    let streams = store.listed("").await?;
    let names: BTreeSet<String> = streams.iter().map(|listed| listed.stream.clone()).collect();
    let (audits, others): (Vec<_>, Vec<_>) = streams.into_iter().partition(|one| one.stream.starts_with("audit/"));
    for listed in &audits {
        verifier.audit(walked(store, listed).await?, Some(Ends { head: listed.head, growing: false }));
    }
    for listed in &others {
        verifier.other(walked(store, listed).await?, Some(Ends { head: listed.head, growing: false }));
    }
    Ok(verifier.finish(&names))
}

/// Verifies one stream by its chain alone.
pub async fn verify_stream(store: &dyn Store, stream: &str) -> Result<StreamFinding, StoreError> {
    let mut verifier = Verifier::default();
    for listed in store.listed(stream).await?.iter().filter(|listed| listed.stream == stream) {
        verifier.other(walked(store, listed).await?, Some(Ends { head: listed.head, growing: false }));
    }
    let found = verifier.finish(&BTreeSet::from([stream.to_owned()])).streams.pop();
    let (pruned, records, vouched) = (0, 0, 0);
    let none =
        || StreamFinding { stream: stream.to_owned(), pruned, records, vouched, broken: None, blobs: Vec::new() };
    Ok(found.unwrap_or_else(none))
}

/// Walks a stream, and looks at what is kept beside it.
async fn walked(store: &dyn Store, listed: &Listed) -> Result<Walk, StoreError> {
    let mut walk = Walk::new(&listed.stream, listed.base);
    loop {
        let page = store.read(&listed.stream, walk.last().seq, PAGE).await?;
        let full = page.len() == PAGE;
        let beside: Vec<Beside> = page.iter().filter_map(|record| walk.take(record)).collect();
        for one in &beside {
            let bytes = match digest_from_hex(&one.digest) {
                Some(digest) => store.blob(digest).await?,
                None => None,
            };
            walk.beside(one, bytes.as_deref());
        }
        if !full || walk.broken().is_some() {
            return Ok(walk);
        }
    }
}

#[cfg(test)]
mod tests;
