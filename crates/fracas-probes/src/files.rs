//! Small files that somebody else names: read with care, so that no path can hang whoever reads or fill its memory.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::fs::OFlags;

/// The whole of a regular file of at most `most` bytes. Anything else is an error: a pipe, a device, a longer file.
pub fn small(path: &str, most: usize) -> io::Result<Vec<u8>> {
    let (text, whole) = start(path, most)?;
    if whole { Ok(text) } else { Err(io::Error::other(format!("it is longer than {most} bytes"))) }
}

/// The first `most` bytes of a regular file, and whether that is all of it.
pub fn start(path: &str, most: usize) -> io::Result<(Vec<u8>, bool)> {
    // Opening a pipe would wait for its writer, and a terminal would become ours.
    let careful = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(careful).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut text)?;
    let whole = text.len() <= most;
    text.truncate(most);
    Ok((text, whole))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("file"), "12345").unwrap();
        assert_eq!(small(&path("file"), 5).unwrap(), b"12345");
        assert!(small(&path("file"), 4).unwrap_err().to_string().contains("longer than 4 bytes"));
        assert_eq!(start(&path("file"), 4).unwrap(), (b"1234".to_vec(), false));
        // Nobody writes into this pipe: opening it the usual way would wait for ever.
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for other in [path("pipe"), "/dev/zero".into(), path("")] {
            assert!(small(&other, 5).unwrap_err().to_string().contains("not a regular file"), "{other}");
        }
        assert!(small(&path("none"), 5).is_err());
    }
}
