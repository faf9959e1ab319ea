//! Files that an installation writes and takes away again: whole or not at all, and never one that somebody else has
//! changed. What was written is remembered by its digest, in a list beside the agent's state.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::host::files::hex;

/// A file that is to be there.
#[derive(Debug)]
pub struct Wanted {
    /// Its path on the host.
    pub path: PathBuf,
    /// Its content.
    pub content: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was not there.
    Written,
    /// It was ours and another.
    Replaced,
    /// It was the same.
    Unchanged,
    /// Somebody else's changes are in it, so it was left alone.
    Kept,
}

/// The files of an installation below a root.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    list: PathBuf,
    written: BTreeMap<PathBuf, String>,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> String + use<> {
    let text = format!("{} cannot be {what}", path.display());
    move |error| format!("{text}: {error}")
}

impl Files {
    /// Below this root, with the list at this path of the host.
    pub fn open(root: &Path, list: &Path) -> Result<Self, String> {
        let mut files = Self { root: root.to_owned(), list: list.to_owned(), written: BTreeMap::new() };
        let place = files.place(list);
        let text = match fs::read_to_string(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(failed("read", &place))?,
        };
        let lines = text.lines().filter_map(|line| line.split_once("  "));
        files.written = lines.map(|(digest, path)| (path.into(), digest.to_owned())).collect();
        Ok(files)
    }

    /// Where a path of the host is below the root.
    pub fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether a file is there.
    pub fn there(&self, path: &Path) -> bool {
        fs::symlink_metadata(self.place(path)).is_ok()
    }

    /// Makes a directory with those above it; one that is there stays as it is. Whether it was made.
    pub fn directory(&self, path: &Path, mode: u32) -> Result<bool, String> {
        let place = self.place(path);
        if place.is_dir() {
            return Ok(false);
        }
        if let Some(above) = place.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(failed("made", above))?;
        }
        DirBuilder::new().mode(mode).create(&place).map_err(failed("made", &place))?;
        // Whatever the umask of who installs.
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).map_err(failed("made", &place))?;
        Ok(true)
    }

    /// Whether a file is as we wrote it; `None` when it is not there.
    pub fn ours(&self, path: &Path) -> Result<Option<bool>, String> {
        let place = self.place(path);
        match fs::read(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &place)(error)),
            Ok(content) => Ok(Some(self.written.get(path) == Some(&digest(&content)))),
        }
    }

    /// Writes a file unless somebody else has changed it, and remembers it.
    pub fn write(&mut self, wanted: &Wanted) -> Result<Became, String> {
        let place = self.place(&wanted.path);
        let asked = digest(&wanted.content);
        let became = match fs::read(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Became::Written,
            Err(error) => return Err(failed("read", &place)(error)),
            Ok(now) if now == wanted.content => Became::Unchanged,
            Ok(now) if self.written.get(&wanted.path) == Some(&digest(&now)) => Became::Replaced,
            Ok(_) => return Ok(Became::Kept),
        };
        if became == Became::Unchanged {
            fs::set_permissions(&place, fs::Permissions::from_mode(wanted.mode))
                .map_err(failed("given its mode", &place))?;
        } else {
            whole(&place, &wanted.content, wanted.mode)?;
        }
        if self.written.insert(wanted.path.clone(), asked.clone()).as_ref() != Some(&asked) {
            self.remember()?;
        }
        Ok(became)
    }

    /// Removes a file if it is as we wrote it, or `whatever` it is; `None` when there is none.
    pub fn remove(&mut self, path: &Path, whatever: bool) -> Result<Option<bool>, String> {
        let ours = self.ours(path)?;
        let Some(ours) = ours else { return Ok(None) };
        if !ours && !whatever {
            return Ok(Some(false));
        }
        let place = self.place(path);
        fs::remove_file(&place).map_err(failed("removed", &place))?;
        self.written.remove(path);
        self.remember()?;
        Ok(Some(true))
    }

    /// Removes a directory and all in it; whether it was there.
    pub fn remove_all(&self, path: &Path) -> Result<bool, String> {
        let place = self.place(path);
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(failed("removed", &place)),
        }
    }

    /// Removes a directory in which nothing is left; whether it was there and empty.
    pub fn remove_empty(&self, path: &Path) -> bool {
        fs::remove_dir(self.place(path)).is_ok()
    }

    fn remember(&self) -> Result<(), String> {
        let place = self.place(&self.list);
        if self.written.is_empty() {
            return match fs::remove_file(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(failed("removed", &place)),
            };
        }
        let lines = self.written.iter().map(|(path, digest)| format!("{digest}  {}\n", path.display()));
        whole(&place, lines.collect::<String>().as_bytes(), 0o600)
    }
}

fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Writes beside, syncs, renames: a program that runs keeps its file, and a crash leaves the old one or the new one.
fn whole(place: &Path, content: &[u8], mode: u32) -> Result<(), String> {
    let mut beside = place.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, place)?;
        place.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(failed("written", place))
}
