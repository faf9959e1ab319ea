//! What stands on each host of the crash trial for faults to hit, beside its processes: files of several kinds, a small
//! file system, units. And whether all of it is as it was, looked at quickly; the dump looks at more.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{XattrFlags, lsetxattr, statvfs};
use serde_json::json;

use crate::stage::{say, units::SERVICE};

/// Files in memory.
pub(super) const SITE: &str = "/run/site";
/// A file system of its own, in memory too: what the policy reserves by default (64 MiB), and half as much.
pub(super) const VOLUME: &str = "/run/volume";
/// In the text of a fault, stands for the host's directory on a disk of the machine.
pub(super) const DISK: &str = "DISK";
/// Names of files that stand in for others begin so.
const BESIDE: &str = ".fracas-";

/// An access list as the kernel stores it (`linux/posix_acl_xattr.h`, version 2): owner, one user, group, mask, others.
const ACCESS: &[u8] = &[
    2, 0, 0, 0, // version
    1, 0, 6, 0, 255, 255, 255, 255, // owner: rw
    2, 0, 4, 0, 57, 48, 0, 0, // user 12345: r
    4, 0, 4, 0, 255, 255, 255, 255, // group: r
    16, 0, 4, 0, 255, 255, 255, 255, // mask: r
    32, 0, 0, 0, 255, 255, 255, 255, // others: nothing
];

/// The part `ground`: makes all of it. What an ordinary user may not give to a file, or a file system not keep, is left out.
pub(crate) fn lay(disk: &str) {
    fs::create_dir_all(SITE).expect("a directory");
    fs::create_dir_all(VOLUME).expect("a directory");
    let disk = Path::new(disk);
    fs::create_dir_all(disk).expect("a directory");
    let mut given = BTreeMap::new();
    let mut keep = |name: &str, what: bool| {
        given.insert(name.to_owned(), what);
    };
    let site = |name: &str| Path::new(SITE).join(name);

    file(&site("plain.conf"), b"listen 80\n", 0o644, 1_000_000_000);
    file(&site("odd"), b"secret\n", 0o461, 12);
    keep("owner", chown(site("odd"), Some(12_345), Some(54_321)).is_ok());
    let note = vec![b'n'; 900];
    keep("attributes in memory", mark(&site("odd"), "user.note", &note) && mark(&site("odd"), "trusted.note", b"t"));
    file(&site("target"), b"by way of a link\n", 0o600, 1_500_000_000);
    symlink("target", site("link")).expect("a link");

    let whole: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    file(&disk.join("linked"), &whole, 0o640, 1_234_567_890);
    keep(
        "attributes on disk",
        mark(&disk.join("linked"), "user.origin", b"test") && { mark(&disk.join("linked"), "user.empty", b"") },
    );
    fs::hard_link(disk.join("linked"), disk.join("linked.too")).expect("a link");
    file(&disk.join("empty"), b"", 0o600, 1_700_000_000);
    keep("access list", mark(&disk.join("empty"), "system.posix_acl_access", ACCESS));
    say(&json!({ "given": given }));
}

/// A file with contents and times of its own; when it was read last is a while after it was written.
fn file(path: &Path, content: &[u8], mode: u32, written_s: u64) {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::new(s, 123_456_789);
    let times = fs::FileTimes::new().set_modified(at(written_s)).set_accessed(at(written_s + 100));
    File::options().write(true).open(path).expect("opened").set_times(times).expect("times");
}

fn mark(path: &Path, name: &str, value: &[u8]) -> bool {
    lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// What is looked at quickly, as it was once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ground {
    /// Number, size and last change of each file.
    files: BTreeMap<PathBuf, (u64, u64, i64)>,
    /// Free blocks of the volume.
    free: u64,
    /// Processes of units.
    services: usize,
}

impl Ground {
    /// As it is; of all processes, only the names are looked at.
    pub(super) fn seen<'a>(disk: &str, processes: impl Iterator<Item = &'a str>) -> Self {
        let mut files = BTreeMap::new();
        for entry in [SITE, disk].iter().flat_map(|place| fs::read_dir(place).expect("a directory")).flatten() {
            if let Ok(about) = fs::symlink_metadata(entry.path()) {
                files.insert(entry.path(), (about.ino(), about.len(), about.mtime()));
            }
        }
        let free = statvfs(VOLUME).expect("the volume").f_bfree;
        Self { files, free, services: processes.filter(|name| *name == SERVICE).count() }
    }

    /// Whether a file stands in for another.
    pub(super) fn replaced(&self) -> bool {
        let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BESIDE));
        self.files.keys().any(ours)
    }
}
