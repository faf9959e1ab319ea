//! A disk that others filled: the journal goes on in its reserve. The disk is a small one in memory, in a mount
//! namespace of a thread of its own.

#![expect(unsafe_code, reason = "a thread gets a mount namespace of its own")]

use std::{fs, io, path::Path, thread};

use fracas_agent::disk::{Disk as _, FileDisk};
use libtest_mimic::Trial;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};

pub(crate) fn trials() -> Vec<Trial> {
    let root = rustix::process::geteuid().is_root();
    vec![super::trial("full::the_journal_goes_on_when_the_disk_is_full", goes_on).with_ignored_flag(!root)]
}

fn goes_on() {
    let dir = tempfile::tempdir().expect("it goes");
    let path = dir.path().to_owned();
    thread::spawn(move || on_small_disk(&path)).join().expect("it goes");
}

fn on_small_disk(path: &Path) {
    // SAFETY: this thread keeps nothing that depends on the namespaces it leaves.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("it goes");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("it goes");
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(c"size=3m")).expect("it goes");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it goes");
    runtime.block_on(async {
        let (kept, plain) = (FileDisk::with_reserve(path).expect("it goes"), FileDisk::new(path).expect("it goes"));
        kept.append("journal", b"before ").await.expect("it goes");
        let filled = fs::write(path.join("filler"), vec![7; 4 << 20]).expect_err("no room");
        assert_eq!(filled.kind(), io::ErrorKind::StorageFull);
        let record = vec![b'x'; 8192];
        assert_eq!(plain.append("other", &record).await.expect_err("no room").kind(), io::ErrorKind::StorageFull);
        kept.append("journal", &record).await.expect("it goes");
        assert_eq!(kept.read("journal").await.expect("it goes"), [b"before ".as_slice(), &record].concat());
        kept.append("journal", &record).await.expect("it goes");
        // With room again, the next rewriting sets it aside again.
        fs::remove_file(path.join("filler")).expect("it goes");
        kept.replace("journal", &record).await.expect("it goes");
        assert_eq!(fs::metadata(path.join("reserve")).expect("it goes").len(), 1 << 20);
    });
}
