//! A file of secrets on its way to its name: private, never over another one, whole or not there. And what is said of a backup.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::error::CliError;

/// What is said of a backup with keys, however it is made.
const KEYS: &str = "It holds every key of the controller: whoever has it can be this controller, to every host \
                               and to you. Keep it as you would keep those, encrypted, away from here.";
const NO_KEYS: &str = "It holds no keys: it can be looked at and verified, and no controller can go on from it alone.";

/// What is to be said when a backup is there.
pub fn told(to: &Path, without_keys: bool) -> String {
    format!("backup written to {}. {}", to.display(), if without_keys { NO_KEYS } else { KEYS })
}

/// A file that only its owner may read, and that has its name once it is whole.
#[derive(Debug)]
pub struct Draft {
    to: PathBuf,
    path: PathBuf,
    /// Where to write.
    pub file: File,
}

impl Draft {
    /// Begins it; what is there already is never overwritten.
    pub fn new(to: &Path) -> Result<Self, CliError> {
        if to.exists() {
            return Err(CliError::usage(format!("{} is there already: name a new file", to.display())));
        }
        let mut path = OsString::from(to);
        path.push(".partial");
        let path = PathBuf::from(path);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|e| CliError::file("make", &path, &e))?;
        Ok(Self { to: to.to_owned(), path, file })
    }

    /// That it could not be written.
    pub fn failed(&self, error: &io::Error) -> CliError {
        CliError::file("write", &self.path, error)
    }

    /// Gives it its name, durably, if all was written; else removes it.
    pub fn settle(self, written: Result<(), CliError>) -> Result<(), CliError> {
        let settled = written.and_then(|()| {
            let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let settle = || {
                self.file.sync_all()?;
                // Never over a file that has come since.
                fs::hard_link(&self.path, &self.to)?;
                fs::remove_file(&self.path)?;
                File::open(parent)?.sync_all()
            };
            settle().map_err(|e| self.failed(&e))
        });
        if settled.is_err() {
            // What cannot be removed keeps its name, which says what it is.
            let _ = fs::remove_file(&self.path);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::exit;

    #[test]
    fn half_a_file_is_none_and_a_whole_one_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("b.tar");
        let draft = Draft::new(&to).unwrap();
        (&draft.file).write_all(b"half").unwrap();
        assert!(!to.exists());
        let full = draft.failed(&io::ErrorKind::StorageFull.into());
        assert!(draft.settle(Err(full)).unwrap_err().text.contains("b.tar.partial"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let draft = Draft::new(&to).unwrap();
        (&draft.file).write_all(b"whole").unwrap();
        draft.settle(Ok(())).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"whole");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Draft::new(&to).err().unwrap().exit, exit::USAGE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
