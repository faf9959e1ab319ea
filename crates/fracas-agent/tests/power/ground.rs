//! The files that faults act on, and a description of everything that must be the same after a cut of power.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use libtest_mimic::Trial;
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr, statvfs};
use sha2::{Digest as _, Sha256};

/// Makes the files below a directory that is there: one with an unusual mode, old times, a second name, a link to it and
/// attributes; one of many blocks; one in a directory of its own; and one that no fault names.
pub(crate) fn make(home: &Path) {
    let write = |name: &str, content: String, mode: u32, modified: u64| {
        let path = home.join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        let old = SystemTime::UNIX_EPOCH + Duration::new(modified, 123_456_789);
        let times = fs::FileTimes::new().set_modified(old).set_accessed(old + Duration::from_hours(1));
        File::options().append(true).open(&path).expect("open").set_times(times).expect("times");
        path
    };
    fs::create_dir(home.join("sub")).expect("directory");
    write("bystander", "not concerned\n".into(), 0o644, 1_400_000_000);
    write("page", "one line of a long page\n".repeat(3_000), 0o640, 1_600_000_000);
    let conf = write("conf", "the original\n".into(), 0o604, 1_500_000_000);
    let list = write("sub/list", "a\nb\nc\n".into(), 0o600, 1_550_000_000);
    lsetxattr(&conf, "user.note", b"kept", XattrFlags::empty()).expect("attribute");
    if rustix::process::geteuid().is_root() {
        lsetxattr(&list, "trusted.note", b"kept too", XattrFlags::empty()).expect("attribute");
        for (path, user, group) in [(&conf, 33, 34), (&list, 0, 50)] {
            let about = fs::metadata(path).expect("there");
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("given away");
            fs::set_permissions(path, fs::Permissions::from_mode(about.mode())).expect("mode");
        }
    }
    fs::hard_link(&conf, home.join("second")).expect("a second name");
    symlink("conf", home.join("link")).expect("a link");
}

/// Everything below a directory that must come back, a line each. Not in it, for they cannot come back: the time of the
/// last change of what is known about a file (`ctime`), and the times of directories.
pub(crate) fn describe(home: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(home, &mut lines);
    lines.sort();
    lines
}

fn walk(path: &Path, lines: &mut Vec<String>) {
    let about = fs::symlink_metadata(path).expect("there");
    let mut line = format!(
        "{} inode={} mode={:o} owner={}:{}",
        path.display(),
        about.ino(),
        about.mode(),
        about.uid(),
        about.gid()
    );
    if about.is_dir() {
        lines.push(line);
        for entry in fs::read_dir(path).expect("directory") {
            walk(&entry.expect("entry").path(), lines);
        }
        return;
    }
    line += &format!(
        " names={} bytes={} modified={}.{:09}",
        about.nlink(),
        about.size(),
        about.mtime(),
        about.mtime_nsec()
    );
    // Looking at where a link leads leaves its trace.
    if !about.is_symlink() {
        line += &format!(" accessed={}.{:09}", about.atime(), about.atime_nsec());
    }
    line += &format!(" attributes=[{}] content={}", attributes(path), content(path, &about));
    lines.push(line);
}

fn content(path: &Path, about: &Metadata) -> String {
    if about.is_symlink() {
        return fs::read_link(path).expect("a link").display().to_string();
    }
    // Reading must leave no trace in the times.
    let quiet = OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(path);
    let mut bytes = Vec::new();
    quiet.and_then(|mut file| file.read_to_end(&mut bytes)).expect("read");
    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(path: &Path) -> String {
    let (mut names, mut value) = (vec![0_u8; 4096], vec![0_u8; 4096]);
    let length = llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut all: Vec<String> = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let length = lgetxattr(path, name.as_str(), &mut value[..]).expect("attribute");
        all.push(format!("{name}={}", String::from_utf8_lossy(&value[..length])));
    }
    all.sort();
    all.join(",")
}

/// What a file system has left, as a line: space and inodes.
pub(crate) fn room(of: &Path) -> String {
    let about = statvfs(of).expect("a file system");
    format!("{} free: {} blocks, {} inodes", of.display(), about.f_bfree, about.f_ffree)
}

/// That the eyes see: each planted residue must be told.
pub(crate) fn trials() -> Vec<Trial> {
    /// What is done, and to which file.
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 8] = [
        ("content", |home| {
            let about = fs::metadata(home.join("page")).expect("there");
            let times = fs::FileTimes::new().set_modified(about.modified().expect("time"));
            let times = times.set_accessed(about.accessed().expect("time"));
            let file = File::options().write(true).open(home.join("page")).expect("open");
            std::os::unix::fs::FileExt::write_all_at(&file, b"O", 0).expect("written");
            file.set_times(times).expect("times");
        }),
        ("mode", |home| fs::set_permissions(home.join("conf"), fs::Permissions::from_mode(0o600)).expect("mode")),
        ("time", |home| {
            let times = fs::FileTimes::new().set_modified(SystemTime::now());
            File::options().append(true).open(home.join("conf")).expect("open").set_times(times).expect("times");
        }),
        ("attribute", |home| {
            lsetxattr(home.join("conf"), "user.note", b"lost", XattrFlags::empty()).expect("attribute");
        }),
        ("name", |home| fs::write(home.join("sub/.fracas-0123456789abcdef"), "").expect("written")),
        ("second name", |home| fs::remove_file(home.join("second")).expect("removed")),
        ("link", |home| {
            fs::remove_file(home.join("link")).expect("removed");
            symlink("page", home.join("link")).expect("a link");
        }),
        ("copy", |home| {
            let path = home.join("sub/list");
            let (bytes, about) = (fs::read(&path).expect("read"), fs::metadata(&path).expect("there"));
            fs::write(path.with_extension("new"), bytes).expect("written");
            fs::set_permissions(path.with_extension("new"), about.permissions()).expect("mode");
            fs::rename(path.with_extension("new"), path).expect("renamed");
        }),
    ];
    let see = |(name, deed): (&'static str, Deed)| {
        Trial::test(format!("a_planted_residue_is_seen::{}", name.replace(' ', "_")), move || {
            let dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
            let home: PathBuf = dir.path().canonicalize()?;
            make(&home);
            let before = describe(&home);
            assert_eq!(before, describe(&home), "looking changes nothing");
            deed(&home);
            assert_ne!(before, describe(&home));
            Ok(())
        })
    };
    deeds.into_iter().map(see).collect()
}
