//! The keeper of one program: a process between the agent and the program, to which everything falls that the program
//! leaves behind, however far it ran away. It kills all of that, then ends as the program did. It looks at nothing else.
//!
//! ```text
//! agent -> keeper (a subreaper) -> program -> what it starts; orphans come back to the keeper, not to init
//! ```
//!
//! It runs in a process that was forked from a program of many threads and never executes another: system calls only,
//! no allocation, no lock.

#![expect(unsafe_code, reason = "a process that may only make system calls")]

use std::io;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Room for the numbers of its children; more are read in the next turn.
const PIECE: usize = 4096;

/// Makes the calling process, just forked, the keeper, and returns in another one that is to become the program.
/// Where the kernel cannot close descriptors in one call there is no keeper: it would hold what it must not.
///
/// # Safety
///
/// The caller is the only thread of its process, and between fork and exec.
pub(super) unsafe fn part() -> io::Result<()> {
    // SAFETY: asks only; as the caller promises nothing else runs.
    unsafe {
        if libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) != 0 {
            return Ok(());
        }
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Before there is anybody to send them: the agent's own handlers, which are inherited, must not get them.
        let (mut waited, mut none): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigemptyset(&raw mut waited);
        libc::sigaddset(&raw mut waited, libc::SIGCHLD);
        libc::sigaddset(&raw mut waited, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const waited, std::ptr::null_mut());
        // An agent that dies asks it to clear up; one that gives up does the same.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
            }
            program => keep(program, &waited),
        }
    }
}

/// Waits for the program's end, or for the signal to give up.
unsafe fn keep(program: libc::pid_t, waited: &libc::sigset_t) -> ! {
    // SAFETY: system calls on local values; every descriptor is closed because none is used any more, the standard
    // library's pipe for a failed exec among them, which the program still has.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        let mut ended = None;
        while ended.is_none() {
            ended = reap(program);
            if ended.is_none() && libc::sigwaitinfo(waited, std::ptr::null_mut()) == libc::SIGTERM {
                break;
            }
        }
        clear();
        match ended {
            Some(status) if libc::WIFEXITED(status) => libc::_exit(libc::WEXITSTATUS(status)),
            Some(status) if libc::WIFSIGNALED(status) => end_by(libc::WTERMSIG(status)),
            _ => end_by(libc::SIGKILL),
        }
    }
}

/// Reaps whoever has ended; the program's status if it is among them.
unsafe fn reap(program: libc::pid_t) -> Option<i32> {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: writes the status only.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            pid if pid == program => ended = Some(status),
            pid if pid > 0 => {}
            _ => return ended,
        }
    }
}

/// Kills and reaps children until none is left: what a killed one leaves becomes a child too.
unsafe fn clear() {
    let mut status = 0;
    loop {
        // SAFETY: sends to its own children, which keep their numbers until they are reaped here.
        unsafe {
            kill_children();
            if libc::waitpid(-1, &raw mut status, 0) == -1 && *libc::__errno_location() == libc::ECHILD {
                return;
            }
        }
    }
}

unsafe fn kill_children() {
    // SAFETY: reads into a local buffer.
    unsafe {
        let file = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let mut piece = [0_u8; PIECE];
        let got = libc::read(file, piece.as_mut_ptr().cast(), PIECE);
        libc::close(file);
        let mut pid = 0;
        for byte in piece.iter().take(usize::try_from(got).unwrap_or(0)) {
            if byte.is_ascii_digit() {
                pid = pid * 10 + i32::from(byte - b'0');
            } else if pid > 1 {
                // A number that was cut at the piece's end has no space behind it and waits for the next turn.
                libc::kill(pid, libc::SIGKILL);
                pid = 0;
            }
        }
    }
}

/// Ends by this signal, as the program did.
unsafe fn end_by(signal: i32) -> ! {
    // SAFETY: concerns this process only, which has nothing left to do.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::signal(signal, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
        libc::_exit(128 + signal)
    }
}
