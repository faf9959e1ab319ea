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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    thread::spawn(move || on_small_disk(&path)).join().unwrap();
}

fn on_small_disk(path: &Path) {
    // SAFETY: this thread keeps nothing that depends on the namespaces it leaves.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(c"size=3m")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (kept, plain) = (FileDisk::with_reserve(path).unwrap(), FileDisk::new(path).unwrap());
        kept.append("journal", b"before ").await.unwrap();
        let filled = fs::write(path.join("filler"), vec![7; 4 << 20]).unwrap_err();
        assert_eq!(filled.kind(), io::ErrorKind::StorageFull);
        let record = vec![b'x'; 8192];
        assert_eq!(plain.append("other", &record).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        kept.append("journal", &record).await.unwrap();
        assert_eq!(kept.read("journal").await.unwrap(), [b"before ".as_slice(), &record].concat());
        kept.append("journal", &record).await.unwrap();
        // With room again, the next rewriting sets it aside again.
        fs::remove_file(path.join("filler")).unwrap();
        kept.replace("journal", &record).await.unwrap();
        assert_eq!(fs::metadata(path.join("reserve")).unwrap().len(), 1 << 20);
    });
}
