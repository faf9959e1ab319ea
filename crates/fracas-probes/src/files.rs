//! Small files that somebody else names: read with care, so that no path can hang whoever reads or fill its memory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use fracas_model::{plan::Refusal, policy::Policy};
use rustix::fs::OFlags;

/// The whole of a regular file of at most `most` bytes. Anything else is an error: a pipe, a device, a longer file.
pub fn small(path: &str, most: usize) -> io::Result<Vec<u8>> {
    let (text, whole) = start(path, most)?;
    if whole { Ok(text) } else { Err(io::Error::other(format!("it is longer than {most} bytes"))) }
}

/// A regular file, opened.
pub fn open(path: &str) -> io::Result<File> {
    // Opening a pipe would wait for its writer, and a terminal would become ours.
    let careful = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(careful).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Whether probes may look into what the document names; where it really lies is seen when it is opened.
///
/// # Errors
/// The host's policy does not name a folder that it lies in.
pub(crate) fn named(kind: &str, path: &str, policy: &Policy) -> Result<(), Refusal> {
    if policy.allows_reading(path) {
        return Ok(());
    }
    let why = format!("{kind}: this host's policy does not allow that {path} is looked into");
    Err(Refusal::new(why, "ask the owner of the host to add its folder to readIn"))
}

/// A regular file that the host's policy lets probes look into, opened. What counts is where it lies when every symbolic
/// link is followed: others than the host's owner may have made them.
pub(crate) fn allowed(path: &str, policy: &Policy) -> io::Result<File> {
    let file = open(path)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if real.to_str().is_some_and(|real| policy.allows_reading(real)) {
        Ok(file)
    } else {
        Err(io::Error::other("it lies outside of the folders that this host's policy names as readIn"))
    }
}

/// The first `most` bytes of a regular file, and whether that is all of it.
pub fn start(path: &str, most: usize) -> io::Result<(Vec<u8>, bool)> {
    let file = open(path)?;
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
        let policy = Policy { read_in: vec![path("in")], ..Policy::builtin() };
        std::fs::create_dir(path("in")).unwrap();
        std::fs::write(path("in/own"), "1").unwrap();
        std::os::unix::fs::symlink(path("file"), path("in/link")).unwrap();
        allowed(&path("in/own"), &policy).unwrap();
        for other in [path("in/link"), path("file"), path("in/../file")] {
            assert!(allowed(&other, &policy).unwrap_err().to_string().contains("readIn"), "{other}");
        }
    }
}
