//! How records lie in a file: length, checksum, version, payload. It does not know what a payload means.
//!
//! `u32` length of version and payload, `u32` CRC-32 of version and payload (both little endian), `u8` version,
//! payload. A record carries all that is needed to check it, so that a file can be read past a damaged place.

/// Bytes before the version.
const HEAD: usize = 8;
/// The longest version and payload; a longer length is damage.
const MAX_LEN: usize = 16 << 20;

/// Bytes that are summed in vain, in all, before a damaged file is given up: in one that is full of what looks like lengths
/// each byte could cost as much as the file is long, and an undo waits for it.
const PATIENCE: usize = 256 << 20;

/// One whole record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Where it begins.
    pub(crate) offset: usize,
    /// Its size in the file.
    pub(crate) size: usize,
    /// Which form the payload has.
    pub(crate) version: u8,
    /// The payload.
    pub(crate) payload: &'a [u8],
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a whole record.
    Clean,
    /// With an unfinished one that begins here: a write that a crash cut short.
    Torn(usize),
    /// There are whole records behind a broken one that begins here: not a crash, but damage.
    Damaged(usize),
}

/// A record's bytes.
pub(crate) fn encode(version: u8, payload: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[version]);
    crc.update(payload);
    let mut bytes = Vec::with_capacity(HEAD + 1 + payload.len());
    bytes.extend_from_slice(&((payload.len() + 1) as u32).to_le_bytes());
    bytes.extend_from_slice(&crc.finalize().to_le_bytes());
    bytes.push(version);
    bytes.extend_from_slice(payload);
    bytes
}

/// The whole record that begins at `offset`, if one does.
pub(crate) fn at(bytes: &[u8], offset: usize) -> Option<Frame<'_>> {
    let (crc, body) = claimed(bytes, offset)?;
    let frame = || Frame { offset, size: HEAD + body.len(), version: body[0], payload: &body[1..] };
    (crc32fast::hash(body) == crc).then(frame)
}

/// What would be a record at `offset` by its length: the checksum it must have, and its version and payload.
fn claimed(bytes: &[u8], offset: usize) -> Option<(u32, &[u8])> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (len, crc) = (word(offset)? as usize, word(offset + 4)?);
    if !(2..=MAX_LEN).contains(&len) {
        return None;
    }
    Some((crc, bytes.get(offset + HEAD..offset + HEAD + len)?))
}

/// All whole records, those behind a damaged place too, and how the file ends.
pub(crate) fn scan(bytes: &[u8]) -> (Vec<Frame<'_>>, End) {
    let (mut frames, mut offset, mut broken, mut patience) = (Vec::new(), 0, None, PATIENCE);
    while offset < bytes.len() && patience > 0 {
        if let Some(frame) = at(bytes, offset) {
            offset += frame.size;
            frames.push(frame);
        } else {
            patience = patience.saturating_sub(claimed(bytes, offset).map_or(0, |(_, body)| body.len()));
            broken.get_or_insert((offset, frames.len()));
            offset += 1;
        }
    }
    let end = match broken {
        None => End::Clean,
        // What is behind it was not looked at, so nobody can call it a write that was cut short.
        Some((at, _)) if patience == 0 => End::Damaged(at),
        Some((at, before)) if before == frames.len() => End::Torn(at),
        Some((at, _)) => End::Damaged(at),
    };
    (frames, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<u8> {
        [encode(1, b"one"), encode(1, b"two"), encode(2, b"three")].concat()
    }

    #[test]
    fn every_cut_is_a_torn_tail_and_keeps_what_is_whole() {
        let whole = three();
        for cut in 0..=whole.len() {
            let (frames, end) = scan(&whole[..cut]);
            let expected = [12, 24, 38].iter().filter(|e| **e <= cut).count();
            assert_eq!(frames.len(), expected, "cut at {cut}");
            let at_edge = [0, 12, 24, 38].contains(&cut);
            assert_eq!(end, if at_edge { End::Clean } else { End::Torn([0, 12, 24][expected]) }, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_before_whole_records_is_damage() {
        for byte in 0..24 {
            let mut bytes = three();
            bytes[byte] ^= 0x10;
            let (frames, end) = scan(&bytes);
            assert_eq!(end, End::Damaged(if byte < 12 { 0 } else { 12 }), "byte {byte}");
            assert_eq!(frames.last().map(|f| f.version), Some(2));
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail() {
        let mut bytes = three();
        bytes.extend([0; 4096]);
        assert_eq!(scan(&bytes).1, End::Torn(38));
    }

    #[test]
    fn a_file_full_of_lengths_is_given_up_in_time_and_called_damaged() {
        // Each fourth byte begins what could be a record of half the file.
        let mut bytes = encode(1, b"one");
        let half = 1_u32 << 20;
        bytes.extend(half.to_le_bytes().repeat((half / 2) as usize));
        let begun = std::time::Instant::now();
        let (frames, end) = scan(&bytes);
        assert_eq!((frames.len(), end), (1, End::Damaged(12)));
        // Without an end to it these are 256 GiB to sum.
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
