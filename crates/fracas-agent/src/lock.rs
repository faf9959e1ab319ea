//! Who may touch the state directory: advisory locks that the kernel lifts when their holder dies. No lock is ever
//! stale, so none is ever broken.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Held by an agent for its whole life.
pub const AGENT: &str = "agent.lock";
/// Held by whoever has the journal open: agent, guard or undo-all.
pub const JOURNAL: &str = "journal.lock";

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
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(LockError::Held { path, holder: holder.trim().to_owned() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        // The number is for people only; a full disk must not keep anybody from undoing.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }

    /// Whether somebody has the lock now. Makes and writes nothing, and needs only to read the file.
    pub fn is_held(dir: &Path, name: &str) -> bool {
        let Ok(file) = File::open(dir.join(name)) else { return false };
        // Shared, so that two who ask do not take each other for the holder; let go with the descriptor.
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
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
        drop(first);
        assert!(Lock::take(dir.path(), AGENT).is_ok());
    }
}
