//! Putting a backup back into a new data directory: proved first, whole or not at all.
//!
//! It never touches a directory that holds anything. What was restored says so in its history, so that heads signed after
//! the backup are not taken for traces of tampering, and runs that were open are ended by the next start.
//!
//! ```text
//! archive -> every digest -> a directory beside -> every chain and signature -> record the restore -> sync -> rename
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use fracas_model::{event::Body, id::HostId};

use super::archive::{self, ArchiveError, Manifest};
use crate::{
    clock::Clock,
    datadir::{Access, DataDir, DataDirError},
    driver::stream_of,
    history::{History, HistoryError},
    identity::{AuditKey, IdentityError},
    server::{ID_FILE, STORE_FILE},
    store::{Store, StoreError, sqlite::SqliteStore},
    verify::{self, HEADS_FILE, SignedHead, Verification, VerifyError},
};

/// The clock of a controller, by its id.
pub type ClockOf<'c> = dyn Fn(HostId) -> io::Result<Arc<dyn Clock>> + 'c;

/// What was put back.
#[derive(Debug)]
pub struct Restored {
    /// What the archive said of itself.
    pub manifest: Manifest,
    /// What was found in its history, before anything was added.
    pub found: Verification,
    /// Runs that were open when the backup was made: the next start ends them.
    pub open: usize,
}

/// Why nothing was put back. The directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something.
    #[error("{0} is not empty: restore into a new directory")]
    Occupied(PathBuf),
    /// It is not a place for a directory.
    #[error("{0} cannot be a data directory: name one in a directory that is there")]
    Place(PathBuf),
    /// The archive.
    #[error("{path} cannot be restored: {source}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// Its history is not whole.
    #[error("the history in {path} is not whole ({}): use another copy of it", .found.join("; "))]
    Broken {
        /// The archive.
        path: PathBuf,
        /// What was found.
        found: Vec<String>,
    },
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
    /// The new directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The history in it.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The history in it.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The key in it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl RestoreError {
    /// Whether the archive is what is wrong.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Archive { source, .. } => !matches!(source, ArchiveError::Write { .. } | ArchiveError::Newer(_)),
            Self::Broken { .. } => true,
            _ => false,
        }
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::History(error.into())
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Failed { what, path, source }
}

/// Puts the archive `from`, which is at `path`, into the new data directory `to`. `heads` are further signed heads from
/// copies kept elsewhere, `key` is the key that signed them, the archive's own when absent; `clock` gives the clock of the
/// controller that it is of.
pub async fn restore(
    path: &Path,
    from: impl Read,
    to: &Path,
    heads: Vec<SignedHead>,
    key: Option<Vec<u8>>,
    clock: &ClockOf<'_>,
) -> Result<Restored, RestoreError> {
    vacant(to)?;
    let beside = beside(to)?;
    let staging = stage(&beside)?;
    let restored = fill(path, from, &staging, heads, key, clock).await;
    let moved = match restored {
        Ok(restored) => settle(&staging, to).map(|()| restored),
        Err(error) => Err(error),
    };
    if moved.is_err() {
        // What cannot be removed is overwritten by the next try.
        let _ = fs::remove_dir_all(&beside);
    }
    moved
}

/// Whether nothing would be lost there.
fn vacant(to: &Path) -> Result<(), RestoreError> {
    match fs::read_dir(to) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(RestoreError::Occupied(to.to_owned())),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("read", to)(e)),
    }
}

/// Where it is made ready: in the same directory, so that it can be renamed.
fn beside(to: &Path) -> Result<PathBuf, RestoreError> {
    let to = std::path::absolute(to).map_err(failed("find", to))?;
    let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else { return Err(RestoreError::Place(to)) };
    if !parent.is_dir() {
        return Err(RestoreError::Place(to));
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".restoring");
    Ok(parent.join(hidden))
}

/// An empty directory of that name, held by this process; what a try that was cut off left there is removed.
fn stage(beside: &Path) -> Result<DataDir, RestoreError> {
    if beside.exists() {
        // Another one may be at it.
        drop(DataDir::open(beside)?);
        fs::remove_dir_all(beside).map_err(failed("remove", beside))?;
    }
    Ok(DataDir::open(beside)?)
}

async fn fill(
    path: &Path,
    from: impl Read,
    staging: &DataDir,
    heads: Vec<SignedHead>,
    key: Option<Vec<u8>>,
    clock: &ClockOf<'_>,
) -> Result<Restored, RestoreError> {
    let manifest = archive::read(from, |_, known| staging.create(known.name, known.access));
    let manifest = manifest.map_err(|source| RestoreError::Archive { path: path.to_owned(), source })?;
    let found = verify::verify_opened(staging, heads, key).await?;
    if !found.whole() {
        let streams = found.streams.iter();
        let wrong = streams.flat_map(|one| {
            one.broken.iter().chain(&one.blobs).map(|(seq, why)| format!("{} record {seq}: {why}", one.stream))
        });
        let found = found.general.iter().cloned().chain(wrong).take(5).collect();
        return Err(RestoreError::Broken { path: path.to_owned(), found });
    }
    let open = note(staging, &manifest, clock).await?;
    Ok(Restored { manifest, found, open })
}

/// Writes into the history what it is, and signs that. Returns how many runs are open.
async fn note(staging: &DataDir, manifest: &Manifest, clock: &ClockOf<'_>) -> Result<usize, RestoreError> {
    let id = staging.read(ID_FILE, Access::Public)?.unwrap_or_default();
    let id = HostId::new(String::from_utf8_lossy(&id).trim());
    let store = Arc::new(SqliteStore::open(&staging.join(STORE_FILE))?);
    let clock = clock(id.clone()).map_err(failed("read the clock for", staging.path()))?;
    let history = History::open(Arc::<SqliteStore>::clone(&store), clock).await?;
    let rows = store.runs(usize::MAX).await?;
    let open: Vec<String> = rows
        .iter()
        .filter(|(row, seq)| row.state != "finished" && *seq > 0)
        .map(|(row, _)| stream_of(&row.run))
        .collect();
    let restored = || vec![Body::Restored { made_wall_ns: manifest.made_wall_ns, at: history.now() }];
    let audit = format!("audit/{id}");
    let facts = open.iter().cloned().chain([audit.clone()]).map(|stream| (stream, restored())).collect();
    history.append_together(facts, BTreeMap::new()).await?;
    if let Some(key) = AuditKey::open(staging)? {
        let signed = verify::sign(&key, &audit, store.head(&audit).await?, history.now().wall_ns);
        staging.append_line(HEADS_FILE, &verify::line(&signed))?;
    }
    Ok(open.len())
}

/// Makes it last, and gives it its name.
fn settle(staging: &DataDir, to: &Path) -> Result<(), RestoreError> {
    sync(staging.path())?;
    fs::rename(staging.path(), to).map_err(failed("rename to", to))?;
    let to = std::path::absolute(to).map_err(failed("find", to))?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed("sync", parent))
}

/// Syncs every file of a directory and of those in it, and the directories.
fn sync(folder: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        if path.is_dir() {
            sync(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed("sync", &path))?;
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests;
