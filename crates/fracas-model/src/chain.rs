//! The hash chain of a stream: each record's hash covers its predecessor's hash and its own stored bytes.
//!
//! Pure arithmetic over bytes; it stores nothing and signs nothing.

use ring::digest;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// One record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// From 1, without gaps.
    pub seq: u64,
    /// The bytes the chain covers.
    pub stored: Vec<u8>,
    /// Chain hash after this record.
    pub hash: Digest,
}

/// A place in a stream, normally its end; number 0 with the genesis hash before the first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the record.
    pub seq: u64,
    /// Its chain hash.
    pub hash: Digest,
}

impl Head {
    /// The head of a stream that has no record.
    pub fn genesis(stream: &str) -> Self {
        Self { seq: 0, hash: genesis(stream) }
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    finish(&digest::digest(&digest::SHA256, bytes))
}

/// What the first record of a stream is chained to: SHA-256 of the stream's name, so that a whole chain cannot be
/// passed off as another stream's.
pub fn genesis(stream: &str) -> Digest {
    sha256(stream.as_bytes())
}

/// The hash of a record: SHA-256 of the previous hash followed by the stored bytes.
pub fn link(previous: &Digest, stored: &[u8]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous);
    context.update(stored);
    finish(&context.finish())
}

fn finish(digest: &digest::Digest) -> Digest {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// Bytes of a hexadecimal text of either case; `None` when it is anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// A digest from its 64 hexadecimal digits.
pub fn digest_from_hex(text: &str) -> Option<Digest> {
    unhex(text)?.try_into().ok()
}

/// Whether two texts are equal, in a time that depends on their lengths only.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_the_published_vectors() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(link(&sha256(b"abc"), b"x"), sha256(&[&sha256(b"abc")[..], b"x"].concat()));
    }

    #[test]
    fn hex_turns_round() {
        let digest = genesis("run/1");
        assert_eq!(digest_from_hex(&hex(&digest)), Some(digest));
        assert_eq!(unhex("AbFF"), Some(vec![0xab, 0xff]));
        for bad in ["a", "zz", "a\u{e9}"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
        assert!(same(b"ab", b"ab") && !same(b"ab", b"ac") && !same(b"ab", b"abc"));
    }
}
