//! Small files that somebody else names: read with care, so that no path can hang whoever reads or fill its memory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use fracas_model::{plan::Refusal, policy::Policy};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

/// The whole of a regular file of at most `most` bytes. Anything else is an error: a pipe, a device, a longer file.
pub fn small(path: &str, most: usize) -> io::Result<Vec<u8>> {
    let (text, whole) = start(path, most)?;
    if whole { Ok(text) } else { Err(io::Error::other(format!("it is longer than {most} bytes"))) }
}

/// A regular file, opened.
pub fn open(path: &str) -> io::Result<File> {
    readable(&rustix::fs::open(path, PLACE, Mode::empty())?)
}

/// A place, not what is there: opening a device may start something, a pipe would wait for its writer, and a terminal would
/// become ours.
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The regular file at a place.
fn readable(place: &OwnedFd) -> io::Result<File> {
    if !FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode).is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let careful = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(careful).open(itself(place))
}

/// The kernel's own name of what a descriptor is of.
fn itself(place: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
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
/// link is followed: others than the host's owner may have made them. Of what lies outside nothing is told, not even whether
/// it is there.
pub(crate) fn allowed(path: &str, policy: &Policy) -> io::Result<File> {
    let outside = || io::Error::other("it lies outside of the folders that this host's policy names as readIn");
    // Through a link of /proc into another mount namespace a file could have any name.
    let place = match openat2(CWD, path, PLACE, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(place) => place,
        Err(Errno::LOOP) => return Err(outside()),
        Err(_) if std::fs::symlink_metadata(path).is_ok_and(|own| own.is_symlink()) => return Err(outside()),
        Err(error) => return Err(error.into()),
    };
    let real = std::fs::read_link(itself(&place))?;
    // A folder that the owner named may itself be a link.
    let named = |folder: &String| std::fs::canonicalize(folder).ok()?.to_str().map(str::to_owned);
    let read_in = policy.read_in.iter().filter_map(named).collect();
    let followed = Policy { read_in, ..policy.clone() };
    if !real.to_str().is_some_and(|real| followed.allows_reading(real)) {
        return Err(outside());
    }
    readable(&place)
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
    use rustix::fs::mknodat;

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
        // Whether there is something outside is not told either.
        std::os::unix::fs::symlink(path("none"), path("in/dangling")).unwrap();
        assert!(allowed(&path("in/dangling"), &policy).unwrap_err().to_string().contains("readIn"));
        // By way of /proc a file could have any name.
        let root = format!("/proc/{}/root{}", std::process::id(), path("in/own"));
        std::os::unix::fs::symlink(root, path("in/magic")).unwrap();
        assert!(allowed(&path("in/magic"), &policy).unwrap_err().to_string().contains("readIn"));
        // The owner may name a link.
        std::os::unix::fs::symlink(path("in"), path("logs")).unwrap();
        let policy = Policy { read_in: vec![path("logs")], ..policy };
        allowed(&path("logs/own"), &policy).unwrap();
        assert_eq!(allowed(&path("logs/none"), &policy).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
