//! What the first program of a virtual machine does first and last: mounts and modules, and switching it off.

use std::{
    ffi::CString,
    fs::{self, File},
};

use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
};

/// Mounts what programs expect and loads the modules that came along. A panic here is a kernel panic, which ends the
/// machine.
pub(crate) fn found() {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp"), ("tmpfs", "/run")]
    {
        mount(kind, at, kind, MountFlags::empty(), None).unwrap_or_else(|e| panic!("cannot mount {at}: {e}"));
    }
    for name in fs::read_to_string("/modules/order").expect("a list of modules").lines() {
        let file = File::open(format!("/modules/{name}")).expect("the module");
        finit_module(&file, &CString::default(), 0).unwrap_or_else(|e| panic!("cannot load {name}: {e}"));
    }
}

/// Powers the machine off.
pub(crate) fn off() -> ! {
    rustix::fs::sync();
    let off = reboot(RebootCommand::PowerOff);
    panic!("the machine does not power off: {off:?}");
}
