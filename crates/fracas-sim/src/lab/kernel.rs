//! The few system calls of the lab that have no safe wrapper. No policy here.

#![expect(unsafe_code, reason = "signal masks, signalfd, close_range, mount_setattr and unshare have no safe wrapper")]

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command},
};

use rustix::thread::UnshareFlags;

/// Moves this single-threaded process (for process numbers: its children) into new namespaces.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    // SAFETY: the one danger of this call is that threads lose sight of each other's descriptors; that flag is not used.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Closes every descriptor from 3 on that this program was started with.
///
/// To be called before anything was opened, in a process just started.
pub(super) fn close_inherited() {
    // SAFETY: a plain system call on numbers. Nothing in this process owns a descriptor above 2 yet. It fails before
    // Linux 5.9; then whatever the creator left without close-on-exec stays open until the lab ends.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Blocks these signals for the calling thread.
pub(super) fn block(signals: &[i32]) -> io::Result<()> {
    mask(signals).map(|_| ())
}

/// Blocks `SIGCHLD` and returns a descriptor that is readable when one is pending.
pub(super) fn child_signals() -> io::Result<OwnedFd> {
    let set = mask(&[libc::SIGCHLD])?;
    // SAFETY: the set is initialised and outlives the call.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn mask(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given; the others read or change an initialised one.
    let (set, code) = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set: libc::sigset_t = set.assume_init();
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        (set, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))
    };
    if code == 0 { Ok(set) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Starts a program with no signal blocked and those not ignored that shells let their background ignore: what this process
/// or whoever started it blocks or ignores is their own affair, and would be inherited. It is killed when this process is gone, which is a help where no namespace ends with it.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    let clear = || {
        let mut none = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set that sigprocmask reads.
        let code = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
        };
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: the default action runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only: no allocation, no lock. The process has one thread besides.
    unsafe { command.pre_exec(clear) };
    command.spawn()
}

/// How far down a mount is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// This mount alone.
    Mount,
    /// This mount and all below it.
    Tree,
}

/// Makes mounts read-only (or writable again) in this mount namespace; the file systems themselves do not notice.
/// Needs Linux 5.12.
pub(super) fn set_read_only(path: &Path, read_only: bool, depth: Depth) -> io::Result<()> {
    /// `struct mount_attr`, linux/mount.h.
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    /// `MOUNT_ATTR_RDONLY`.
    const READ_ONLY: u64 = 1;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (set, clear) = if read_only { (READ_ONLY, 0) } else { (0, READ_ONLY) };
    let change = MountAttr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = if depth == Depth::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with a nul byte, and the structure has the size given.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const change,
            size_of::<MountAttr>(),
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
