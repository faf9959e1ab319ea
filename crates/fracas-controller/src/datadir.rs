//! The controller's data directory: private, owned by one controller at a time, files written whole or not at all.
//!
//! It knows files, not what is in them.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner only (0600).
    Private,
    /// Everybody (0644), for certificates and public keys.
    Public,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another controller holds it.
    #[error(
        "data directory {path} is in use by {holder}: stop that controller, or choose another directory with --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// `process PID`, or `another process`.
        holder: String,
    },
    /// Others could change or read what only the controller may.
    #[error("{path} has mode {mode:04o}, {danger}: chmod {remedy} {path}")]
    Exposed {
        /// The directory or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What others can do.
        danger: &'static str,
        /// The mode that ends it.
        remedy: &'static str,
    },
    /// No place by default.
    #[error("no data directory: neither --data-dir nor XDG_DATA_HOME nor HOME is set")]
    Homeless,
    /// The machine said no.
    #[error("cannot {what} {path}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
}

/// An open, locked data directory. The lock goes with this value, or with the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

/// Where a controller keeps its data unless told: `/var/lib/fracas` for root, else below the user's data directory.
pub fn default_path(root: bool, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, DataDirError> {
    if root {
        return Ok("/var/lib/fracas".into());
    }
    // The XDG specification says that a relative path there is to be ignored.
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(data.ok_or(DataDirError::Homeless)?.join("fracas"))
}

impl DataDir {
    /// Opens the directory, making it (mode 0700) when it is not there, and locks it for this process.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create directory", path))?;
        let mode = fs::metadata(path).map_err(failed("read", path))?.permissions().mode() & 0o7777;
        // Only told, never changed: the path may have been a slip, and the directory somebody else's.
        if mode & 0o022 != 0 {
            let (path, danger) = (path.to_owned(), "so others could replace the controller's keys");
            return Err(DataDirError::Exposed { path, mode, danger, remedy: "go-w" });
        }
        let file = path.join("lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&file).map_err(failed("open", &file))?;
        let held = hold(path, &file, lock)?;
        let note = |mut lock: &File| {
            lock.set_len(0)?;
            writeln!(lock, "{}", std::process::id())
        };
        note(&held.lock).map_err(failed("write", &file))?;
        Ok(held)
    }

    /// Opens a directory that is there to read it: nothing is made, changed or noted, and no controller may begin to
    /// work in it meanwhile. A copy without its lock file is held by nobody.
    pub fn look(path: &Path) -> Result<Self, DataDirError> {
        let file = path.join("lock");
        let lock = match File::open(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), lock: File::open(path).map_err(failed("open", path))? });
            }
            opened => opened.map_err(failed("open", &file))?,
        };
        hold(path, &file, lock)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file whole or not at all, durably.
    pub fn write(&self, name: &str, bytes: &[u8], access: Access) -> Result<(), DataDirError> {
        let (path, draft) = (self.join(name), self.join(&format!("{name}.new")));
        let mode = if access == Access::Private { 0o600 } else { 0o644 };
        let write = || {
            // A draft that was left behind may have another mode.
            match fs::remove_file(&draft) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = File::options().write(true).create_new(true).mode(mode).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }

    /// Adds a line to a file that only its owner may read, durably. What a full disk or a crash left of a line is cut
    /// off before: half a line is none, and would spoil the one behind it.
    pub fn append_line(&self, name: &str, line: &str) -> Result<(), DataDirError> {
        let path = self.join(name);
        let append = || {
            let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(&path)?;
            let whole = whole_lines(&mut file)?;
            if whole < file.metadata()?.len() {
                file.set_len(whole)?;
            }
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_all()
        };
        append().map_err(failed("write", &path))
    }

    /// Begins a new file, which may be in a directory below.
    pub fn create(&self, name: &str, access: Access) -> io::Result<File> {
        let path = self.join(name);
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mode = if access == Access::Private { 0o600 } else { 0o644 };
        File::options().write(true).create_new(true).mode(mode).open(path)
    }

    /// The bytes of a file; `None` when it is not there.
    ///
    /// # Errors
    /// [`DataDirError::Exposed`] when the file should be private and others can read it.
    pub fn read(&self, name: &str, access: Access) -> Result<Option<Vec<u8>>, DataDirError> {
        self.read_end(name, access, usize::MAX)
    }

    /// The last bytes of a file, at most so many; otherwise as [`read`](Self::read).
    pub fn read_end(&self, name: &str, access: Access, most: usize) -> Result<Option<Vec<u8>>, DataDirError> {
        let path = self.join(name);
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed("open", &path))?,
        };
        let mode = file.metadata().map_err(failed("read", &path))?.permissions().mode() & 0o7777;
        if access == Access::Private && mode & 0o077 != 0 {
            return Err(DataDirError::Exposed { path, mode, danger: "so others can read a secret", remedy: "600" });
        }
        let length = file.metadata().map_err(failed("read", &path))?.len();
        let before = length.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX));
        file.seek(SeekFrom::Start(before)).map_err(failed("read", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read", &path))?;
        Ok(Some(bytes))
    }
}

/// Locks a directory by its lock file.
fn hold(path: &Path, file: &Path, mut lock: File) -> Result<DataDir, DataDirError> {
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DataDir { path: path.to_owned(), lock }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let known = lock.read_to_string(&mut pid).is_ok() && pid.trim().parse::<u32>().is_ok();
            let holder = if known { format!("process {}", pid.trim()) } else { "another process".to_owned() };
            Err(DataDirError::InUse { path: path.to_owned(), holder })
        }
        Err(e) => Err(failed("lock", file)(e.into())),
    }
}

/// Length of a file up to and with its last line end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let (mut end, mut block) = (file.metadata()?.len(), [0; 4096]);
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Failed { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn is_made_private_and_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let second = DataDir::open(&path).unwrap_err().to_string();
        assert!(second.contains(&format!("in use by process {}", std::process::id())), "{second}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn files_are_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("d")).unwrap();
        fs::write(dir.join("k.new"), "left behind").unwrap();
        dir.write("k", b"one", Access::Private).unwrap();
        dir.write("k", b"two", Access::Private).unwrap();
        assert_eq!(dir.read("k", Access::Private).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(mode(&dir.join("k")), 0o600);
        dir.write("p", b"x", Access::Public).unwrap();
        assert!(matches!(dir.read("p", Access::Private), Err(DataDirError::Exposed { .. })));
        assert_eq!(dir.read("none", Access::Private).unwrap(), None);
        dir.append_line("l", "1").unwrap();
        dir.append_line("l", "2").unwrap();
        assert_eq!(dir.read("l", Access::Private).unwrap().as_deref(), Some(&b"1\n2\n"[..]));
    }

    #[test]
    fn half_a_line_is_cut_off_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("d")).unwrap();
        for (left, then) in [("1\n2", "1\n3\n"), ("no line at all", "3\n"), ("", "3\n")] {
            dir.write("l", left.as_bytes(), Access::Private).unwrap();
            dir.append_line("l", "3").unwrap();
            assert_eq!(dir.read("l", Access::Private).unwrap().as_deref(), Some(then.as_bytes()), "{left}");
        }
        let long = format!("1\n{}", "x".repeat(10_000));
        dir.write("l", long.as_bytes(), Access::Private).unwrap();
        dir.append_line("l", "2").unwrap();
        assert_eq!(dir.read("l", Access::Private).unwrap().as_deref(), Some(&b"1\n2\n"[..]));
    }

    #[test]
    fn a_directory_others_can_write_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("has mode 1777"), "{refused}");
        assert_eq!((mode(folder.path()), fs::read_dir(folder.path()).unwrap().count()), (0o1777, 0));
    }

    #[test]
    fn the_default_place_follows_the_user() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let place = |root, pairs| default_path(root, &env(pairs)).map(|path| path.display().to_string()).ok();
        assert_eq!(place(true, &[]).as_deref(), Some("/var/lib/fracas"));
        assert_eq!(place(false, &[("HOME", "/h")]).as_deref(), Some("/h/.local/share/fracas"));
        assert_eq!(place(false, &[("HOME", "/h"), ("XDG_DATA_HOME", "/x")]).as_deref(), Some("/x/fracas"));
        assert_eq!(place(false, &[("HOME", "/h"), ("XDG_DATA_HOME", "x")]).as_deref(), Some("/h/.local/share/fracas"));
        assert_eq!(place(false, &[]), None);
    }
}
