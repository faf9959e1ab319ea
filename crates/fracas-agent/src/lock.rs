//! Who may touch the state directory: advisory locks that the kernel lifts when their holder dies. No lock is ever
//! stale, so none is ever broken.
//!
//! They are locks of an open file description (`F_OFD_SETLK` of `fcntl`), because of those the kernel says whether one is
//! held without taking it: whoever only looks is never mistaken for a holder.

#![expect(unsafe_code, reason = "locks of open file descriptions have no safe wrapper")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Held by an agent for its whole life.
pub const AGENT: &str = "agent.lock";
/// Held by whoever has the journal open: agent, guard or undo-all.
pub const JOURNAL: &str = "journal.lock";

/// How long a process that was killed may take to be gone: the kernel lets go its locks only then, and whoever takes its
/// place may be there before.
const DYING: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A held lock. The descriptor is close-on-exec, so no child keeps it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("{path} is held by process {holder}; one agent per state directory: end that one or use another directory")]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// What the holder wrote into it: its process number.
        holder: String,
    },
    /// The file could not be opened or locked.
    #[error("{path} cannot be locked: {error}")]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock `name` in `dir`, or says who has it. Never waits.
    pub fn take(dir: &Path, name: &str) -> Result<Self, LockError> {
        let path = dir.join(name);
        let failed = |error: io::Error| LockError::Io { path: path.clone(), error };
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Self::unwritable(dir, name),
            opened => opened.map_err(failed)?,
        };
        match whole(&file, libc::F_OFD_SETLK) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(LockError::Held { path, holder: holder.trim().to_owned() });
            }
            Err(error) => return Err(failed(error)),
        }
        // The number is for people only; a full disk must not keep anybody from undoing.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }

    /// Stands for the lock on a file system that has become read-only: what is still open must be undone there too, and
    /// whoever held the lock before holds it still. Two that undo at the same time do no harm; nothing can be applied.
    fn unwritable(dir: &Path, name: &str) -> Result<Self, LockError> {
        let path = dir.join(name);
        if Self::is_held(dir, name) {
            let holder = Self::holder(dir, name).map(|pid| pid.to_string()).unwrap_or_default();
            return Err(LockError::Held { path, holder });
        }
        // The directory serves where the file was never made.
        let file = File::open(&path).or_else(|_| File::open(dir));
        file.map(|file| Self { _file: file }).map_err(|error| LockError::Io { path, error })
    }

    /// The same for who may follow a process that was killed a moment ago: refused only if the holder is there to stay.
    /// Blocks for two seconds at most.
    pub fn take_over(dir: &Path, name: &str) -> Result<Self, LockError> {
        let until = Instant::now() + DYING;
        loop {
            match Self::take(dir, name) {
                Err(LockError::Held { .. }) if Instant::now() < until => thread::sleep(LOOK),
                other => return other,
            }
        }
    }

    /// Whether somebody has the lock who is there to stay. Only looks; blocks for two seconds at most.
    pub fn stays_held(dir: &Path, name: &str) -> bool {
        let until = Instant::now() + DYING;
        while Self::is_held(dir, name) {
            if Instant::now() >= until {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }

    /// Whether somebody has the lock now. Only looks: nobody who tries to take it meanwhile is kept from it.
    pub fn is_held(dir: &Path, name: &str) -> bool {
        let held = |file: File| whole(&file, libc::F_OFD_GETLK);
        File::open(dir.join(name)).and_then(held).is_ok_and(|found| i32::from(found.l_type) != libc::F_UNLCK)
    }

    /// The process number that the holder wrote when it took the lock, if somebody has it and that could be written.
    pub fn holder(dir: &Path, name: &str) -> Option<i32> {
        let held = || Self::is_held(dir, name);
        held().then(|| fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()).flatten().filter(|_| held())
    }
}

/// Takes or asks for an exclusive lock on all of a file.
fn whole(file: &File, command: libc::c_int) -> io::Result<libc::flock> {
    // SAFETY: a struct of numbers, for which zero is a value: the file from its first byte to its end, no process.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open for the call, and the kernel writes no more than the struct.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), AGENT).unwrap();
        let error = Lock::take(dir.path(), AGENT).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(Lock::is_held(dir.path(), AGENT) && !Lock::is_held(dir.path(), JOURNAL));
        assert_eq!(Lock::holder(dir.path(), AGENT), Some(std::process::id().cast_signed()));
        drop(first);
        assert_eq!(Lock::holder(dir.path(), AGENT), None);
        assert!(Lock::take(dir.path(), AGENT).is_ok());
    }

    #[test]
    fn who_is_about_to_let_go_is_waited_for_and_who_stays_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dying = Lock::take(dir.path(), AGENT).unwrap();
        let lets_go = thread::spawn(move || {
            thread::sleep(5 * LOOK);
            drop(dying);
        });
        assert!(!Lock::stays_held(dir.path(), AGENT));
        lets_go.join().unwrap();
        let dying = Lock::take(dir.path(), AGENT).unwrap();
        let lets_go = thread::spawn(move || {
            thread::sleep(5 * LOOK);
            drop(dying);
        });
        let _stays = Lock::take_over(dir.path(), AGENT).unwrap();
        lets_go.join().unwrap();
        assert!(matches!(Lock::take_over(dir.path(), AGENT), Err(LockError::Held { .. })));
        assert!(Lock::stays_held(dir.path(), AGENT));
    }

    #[test]
    fn looking_at_a_lock_takes_it_from_nobody() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path(), AGENT).unwrap());
        let (path, stop) = (dir.path().to_owned(), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    Lock::is_held(&path, AGENT);
                }
            });
            let refused = (0..2_000).filter(|_| Lock::take(&path, AGENT).is_err()).count();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }
}
