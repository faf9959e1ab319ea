//! Signed heads: what a controller vouches for, in a form that can be kept anywhere and checked without it.
//!
//! It checks signatures and makes none: no key is ever here.

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::chain::{Digest, digest_from_hex, unhex};

/// An Ed25519 public key, RFC 8032.
pub const PUBLIC_KEY_BYTES: usize = 32;

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
    /// What is signed: a line for each field, so that no two heads have the same text.
    pub fn text(&self) -> String {
        format!("fracas head 1\n{}\n{}\n{}\n{}\n", self.stream, self.seq, self.hash, self.wall_ns)
    }

    /// Whether the holder of the Ed25519 key `public` signed this.
    pub fn holds(&self, public: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public);
        unhex(&self.signature).is_some_and(|signature| key.verify(self.text().as_bytes(), &signature).is_ok())
    }

    /// The hash; `None` when it is not one.
    pub fn digest(&self) -> Option<Digest> {
        digest_from_hex(&self.hash)
    }
}

/// A line that is not a signed head.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not a signed head ({source})")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub source: serde_json::Error,
}

/// The signed heads in the text of a file, one JSON text a line. The last line may be half, from a crash; any other broken
/// line is an error.
pub fn read_heads(bytes: &[u8]) -> Result<Vec<SignedHead>, BadLine> {
    let text = String::from_utf8_lossy(bytes);
    let mut heads = Vec::new();
    for (line, text) in (1..).zip(text.split_inclusive('\n')) {
        match serde_json::from_str(text) {
            Ok(head) => heads.push(head),
            Err(_) if !text.ends_with('\n') => {}
            Err(source) => return Err(BadLine { line, source }),
        }
    }
    Ok(heads)
}

/// The public key in the text of an `audit.pub`: 64 hexadecimal digits.
pub fn public_key(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    unhex(text.trim()).filter(|key| key.len() == PUBLIC_KEY_BYTES)
}
