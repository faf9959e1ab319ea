//! What is on a host that a fault could have changed, read by the test itself: every file in some directories with all
//! that belongs to it, every process, and how far the clock of the wall stands from the clock since boot. It leaves no
//! trace, not even in the times of access.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, XattrFlags, lgetxattr, llistxattr, lsetxattr, openat},
    time::{ClockId, clock_gettime},
};
use serde_json::json;

use super::{look, say};

/// Most bytes of the names of all attributes, and of one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const ATTRIBUTES_BYTES: usize = 65_536;
/// Tries at reading both clocks at the same instant.
const READS: usize = 20;

/// The part `inventory`: everything below these directories, each on its own file system, but for what begins with `-` and
/// the rest of a word.
pub(super) fn inventory(words: &[&str]) {
    let (but, roots): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    let but: Vec<&Path> = but.iter().map(|word| Path::new(&word[1..])).collect();
    let mut lines = Vec::new();
    for root in roots {
        // A directory that is not there has nothing in it.
        if let Ok(about) = fs::symlink_metadata(root) {
            walk(Path::new(root), about.dev(), &but, &mut lines);
        }
    }
    lines.sort();
    say(&json!({ "processes": look::all(), "files": lines, "clockNs": clock_ns() }));
}

fn walk(path: &Path, device: u64, but: &[&Path], lines: &mut Vec<String>) {
    if but.iter().any(|but| path.as_os_str().as_bytes().starts_with(but.as_os_str().as_bytes())) {
        return;
    }
    // It may have gone while others were read.
    let Ok(about) = fs::symlink_metadata(path) else { return };
    lines.push(line(path, &about));
    if about.is_dir() && about.dev() == device {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), device, but, lines);
        }
    }
}

/// All of a file that can be asked for. Not the time of its last change of status, which nobody can set; and of a
/// directory neither times nor size, which are whatever came and went in it.
fn line(path: &Path, about: &fs::Metadata) -> String {
    let kind = about.file_type();
    let mut line = format!("{} {:o} {}:{}", path.display(), about.mode(), about.uid(), about.gid());
    if kind.is_symlink() {
        line.push_str(&format!(" -> {}", fs::read_link(path).unwrap_or_default().display()));
    }
    if kind.is_file() {
        let times = [(about.atime(), about.atime_nsec()), (about.mtime(), about.mtime_nsec())];
        let [read, written] = times.map(|(s, ns)| format!("{s}.{ns:09}"));
        line.push_str(&format!(
            " inode {} links {} size {} read {read} written {written} content {}",
            about.ino(),
            about.nlink(),
            about.len(),
            digest(path)
        ));
    }
    for (name, value) in attributes(path) {
        line.push_str(&format!(" {name}={value}"));
    }
    line
}

/// FNV-1a, 128 bits of it: enough to tell two files apart that nobody made alike on purpose.
fn digest(path: &Path) -> String {
    let quietly = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |flags| openat(CWD, path, flags, Mode::empty());
    let Ok(file) = open(quietly | OFlags::NOATIME).or_else(|_| open(quietly)) else { return "unreadable".into() };
    let mut bytes = Vec::new();
    if File::from(file).read_to_end(&mut bytes).is_err() {
        return "unreadable".into();
    }
    let start: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let hash = bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b));
    format!("{hash:032x}")
}

/// Extended attributes, access lists among them.
fn attributes(path: &Path) -> Vec<(String, String)> {
    let mut names = vec![0_u8; ATTRIBUTES_BYTES];
    let Ok(length) = llistxattr(path, &mut names[..]) else { return Vec::new() };
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; ATTRIBUTES_BYTES];
        let length = lgetxattr(path, name, &mut value[..]).unwrap_or_default();
        let value: String = value[..length].iter().map(|byte| format!("{byte:02x}")).collect();
        all.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    all.sort();
    all
}

/// Time of day less time since boot; the narrowest of some tries.
fn clock_ns() -> i64 {
    let now = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    let tries = (0..READS).map(|_| {
        let (before, wall, after) = (now(ClockId::Boottime), now(ClockId::Realtime), now(ClockId::Boottime));
        (after - before, wall - before - (after - before) / 2)
    });
    tries.min().expect("some tries").1
}

/// The part `mark`: gives a file an extended attribute, where its file system has them.
pub(super) fn mark(path: &str, name: &str, value: &str) {
    let set = lsetxattr(path, name, value.as_bytes(), XattrFlags::empty());
    say(&json!({ "marked": set.is_ok(), "error": set.err().map(|e| e.to_string()) }));
}
