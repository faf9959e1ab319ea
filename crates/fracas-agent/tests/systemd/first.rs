//! The first program of the guest: modules, the disk, and then systemd in its place. It does nothing else.

use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, mount, mount_move},
    process::{chdir, chroot},
    system::finit_module,
};

/// Becomes systemd. A panic here is a kernel panic, which ends the machine.
pub(crate) fn run() -> ! {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount(kind, at, kind, MountFlags::empty(), None).unwrap_or_else(|e| panic!("cannot mount {at}: {e}"));
    }
    for name in fs::read_to_string("/modules/order").expect("a list of modules").lines() {
        let file = File::open(format!("/modules/{name}")).expect("the module");
        finit_module(&file, &CString::default(), 0).unwrap_or_else(|e| panic!("cannot load {name}: {e}"));
    }
    mount("/dev/vda", "/root", "ext4", MountFlags::empty(), None).expect("the disk");
    for at in ["dev", "proc", "sys"] {
        mount_move(format!("/{at}"), format!("/root/{at}")).unwrap_or_else(|e| panic!("cannot move /{at}: {e}"));
    }
    chdir("/root").expect("the disk");
    mount_move(".", "/").expect("the disk as the root");
    chroot(".").expect("the disk as the root");
    // Open as a descriptor that systemd finds where it looks for its own.
    let console = open("/dev/console", OFlags::RDWR, Mode::empty());
    let error = Command::new("/sbin/init").env_clear().exec();
    panic!("systemd does not start: {error} ({console:?})");
}
