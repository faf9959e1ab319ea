//! The key that signs links (HMAC-SHA256): made at the first start, a private file of the data directory, never shown.

use ring::hmac;

use super::link::Link;
use crate::{
    chain::{hex, sha256, unhex},
    datadir::{Access, DataDir},
    identity::{IdentityError, random},
};

const FILE: &str = "feed.key";
const BYTES: usize = 32;
/// Longest query that is looked at, in bytes.
pub(super) const LONGEST_QUERY: usize = 2048;
/// What is signed begins with this, so that it is taken for nothing else.
const PURPOSE: &str = "fracas feed 1\n";

/// A key, with its public id.
pub struct FeedKey {
    key: hmac::Key,
    id: String,
}

impl std::fmt::Debug for FeedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FeedKey {
    /// The key in `dir`, made when it is not there.
    pub fn open(dir: &DataDir) -> Result<Self, IdentityError> {
        if let Some(kept) = dir.read(FILE, Access::Private)? {
            let bytes = std::str::from_utf8(&kept).ok().and_then(|text| unhex(text.trim()));
            let bytes: Option<[u8; BYTES]> = bytes.and_then(|bytes| bytes.try_into().ok());
            let unusable = || IdentityError::Unusable {
                path: dir.join(FILE),
                detail: "it is not a key of 32 bytes in hexadecimal".into(),
                remedy: "restore it from a backup, or remove it: then every link must be made anew",
            };
            return Ok(Self::of(&bytes.ok_or_else(unusable)?));
        }
        let bytes = random::<BYTES>();
        dir.write(FILE, hex(&bytes).as_bytes(), Access::Private)?;
        Ok(Self::of(&bytes))
    }

    /// A key of which nothing is kept: its links end with the process.
    pub fn passing() -> Self {
        Self::of(&random())
    }

    fn of(bytes: &[u8; BYTES]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), id: hex(&sha256(bytes)[..4]) }
    }

    /// Its public id, which links name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole query of a link.
    pub(super) fn query(&self, link: &Link) -> String {
        let text = link.text();
        let tag = hmac::sign(&self.key, format!("{PURPOSE}{text}").as_bytes());
        format!("{text}&signature={}", hex(tag.as_ref()))
    }

    /// The link that a query claims to be, and whether this key signed it. The comparison takes the same time for every
    /// signature; a query that is none is compared too.
    pub(super) fn check(&self, query: &str) -> (Link, bool) {
        let read = if query.len() > LONGEST_QUERY { None } else { Link::read(query) };
        let readable = read.is_some();
        let (link, signature) = read.unwrap_or_default();
        let tag = unhex(&signature).unwrap_or_default();
        let signed = hmac::verify(&self.key, format!("{PURPOSE}{}", link.text()).as_bytes(), &tag).is_ok();
        (link, readable & signed)
    }
}
