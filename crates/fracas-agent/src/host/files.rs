//! Looking at a file that somebody else named: where it really is, what it is, and what tells it from others. Nothing is
//! changed, not even the time of the last access where that can be helped.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use fracas_model::{
    facts::{FileKind, FileMark, FileSeen, Space, VolumeSeen},
    id::BootId,
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, fstatfs, openat, statvfs, statx},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

/// How full the file system of a directory is.
pub fn space(directory: &str) -> io::Result<Space> {
    let about = statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Ok(Space {
        total_bytes: bytes(about.f_blocks),
        free_bytes: bytes(about.f_bfree),
        left_bytes: bytes(about.f_bavail),
    })
}

/// The file system of a directory; `None` when there is no such directory. Whether a file without a name can be made
/// there is tried: it is never to be seen, and gone at once.
pub fn volume(path: &str) -> io::Result<Option<VolumeSeen>> {
    let real = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let about = fs::metadata(&real)?;
    if !about.is_dir() {
        return Ok(None);
    }
    let directory = real.to_str().ok_or_else(|| io::Error::other("its path is not UTF-8"))?.to_owned();
    let device = format!("{}:{}", rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
    let unnamed = unnamed(&directory).err().map(|error| error.to_string());
    let space = space(&directory)?;
    Ok(Some(VolumeSeen { directory, device, space, unnamed }))
}

/// A file without a name, which ends with its last descriptor.
pub(crate) fn unnamed(directory: &str) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `linux/magic.h`: file systems that a reboot empties.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// What stands at an absolute path; `None` when nothing does. A regular file of at most `most` bytes is read for its
/// digest.
pub fn look(path: &str, most: u64, boot: &BootId) -> io::Result<Option<FileSeen>> {
    match seen(Path::new(path), most, boot) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn seen(path: &Path, most: u64, boot: &BootId) -> io::Result<FileSeen> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("it is the root directory"));
    };
    let directory = fs::canonicalize(directory)?;
    let mut real = directory.join(name);
    if fs::symlink_metadata(&real)?.is_symlink() {
        real = fs::canonicalize(&real)?;
    }
    let leaves = !real.starts_with(&directory);
    let text = real.to_str().ok_or_else(|| io::Error::other("its path is not UTF-8"))?.to_owned();
    let about = fs::symlink_metadata(&real)?;
    let kind = match about.file_type() {
        kind if kind.is_file() => FileKind::Regular,
        kind if kind.is_dir() => FileKind::Directory,
        _ => FileKind::Special,
    };
    let home = open(real.parent().unwrap_or(Path::new("/")), OFlags::PATH | OFlags::DIRECTORY)?;
    let small = kind == FileKind::Regular && about.len() <= most;
    let mark = FileMark {
        inode: about.ino(),
        size_bytes: about.len(),
        sha256: if small { digest(&mut quietly(&real)?, most)?.unwrap_or_default() } else { String::new() },
        directory_inode: rustix::fs::fstat(&home)?.st_ino,
        in_memory: IN_MEMORY.contains(&fstatfs(&home)?.f_type),
        boot: boot.clone(),
    };
    let (mounted, mode) = (mount_point(&real)?, about.mode() & 0o7777);
    Ok(FileSeen { path: text, leaves, kind, mounted, uid: about.uid(), mode, mark })
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens for reading without waiting for a pipe's writer, without following a link, and without a trace in the times
/// where that is allowed: only to the owner and to root.
fn quietly(path: &Path) -> io::Result<File> {
    let careful = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = open(path, careful | OFlags::NOATIME).or_else(|_| open(path, careful));
    opened.map(File::from)
}

/// The same below a directory that is held.
pub(crate) fn quietly_at(directory: &OwnedFd, name: &str) -> rustix::io::Result<File> {
    let careful = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |flags| openat(directory, name, flags, Mode::empty());
    match open(careful | OFlags::NOATIME) {
        Err(Errno::PERM) => open(careful),
        other => other,
    }
    .map(File::from)
}

/// SHA-256 of what is left to read, hexadecimal; `None` when that is more than `most` bytes.
pub(crate) fn digest(file: &mut File, most: u64) -> io::Result<Option<String>> {
    let (mut hash, mut left) = (Sha256::new(), most);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let Some(rest) = left.checked_sub(n as u64) else { return Ok(None) };
        left = rest;
        hash.update(&chunk[..n]);
    }
    Ok(Some(hex(&hash.finalize())))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether something is mounted right there. Kernels before 5.8 do not say; renaming is refused there then.
fn mount_point(path: &Path) -> io::Result<bool> {
    let about = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    Ok(about.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        && about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_at_a_path_is_told_with_where_it_really_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
        let look = |name: &str| look(&path(name), 5, &BootId::from("b")).unwrap();
        fs::write(path("file"), "abc").unwrap();
        fs::create_dir(path("sub")).unwrap();
        fs::write(path("sub/large"), "abcdef").unwrap();
        for (link, to) in [("inside", "file"), ("out", "/etc/passwd"), ("nowhere", "none"), ("way", "sub")] {
            std::os::unix::fs::symlink(to, path(link)).unwrap();
        }
        let file = look("file").unwrap();
        assert_eq!((file.kind, file.leaves, file.mounted), (FileKind::Regular, false, false));
        assert_eq!(file.mark.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let inside = look("inside").unwrap();
        assert_eq!((inside.path, inside.leaves, inside.mark), (path("file"), false, file.mark));
        assert!(look("out").unwrap().leaves);
        let large = look("way/large").unwrap();
        assert_eq!((large.path, large.mark.sha256.as_str()), (path("sub/large"), ""));
        assert_eq!(look("sub").unwrap().kind, FileKind::Directory);
        assert_eq!((look("none"), look("nowhere"), look("none/file")), (None, None, None));
        assert_eq!(super::look("/dev/null", 5, &BootId::from("b")).unwrap().unwrap().kind, FileKind::Special);
        assert!(super::look("/", 5, &BootId::from("b")).is_err());
    }
}
