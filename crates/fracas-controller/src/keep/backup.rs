//! A copy of everything that makes a controller what it is, while it works, or where it does not run.
//!
//! Nothing is written into the data directory but the copy of the store, which has no name any more before it is read.

use std::{
    fs::File,
    io::{self, Cursor, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use fracas_model::{chain::hex, event::Body};

use super::{
    Keeper,
    archive::{self, FILES, FORMAT, Known, Manifest, Packed},
};
use crate::{
    datadir::{DataDir, DataDirError},
    history::HistoryError,
    identity::{AuditKey, IdentityError},
    server::{ID_FILE, STORE_FILE},
    store::{Store, StoreError, sqlite::SqliteStore},
    verify::{self, HEADS_FILE, SignedHead},
};

/// Signed heads that go along: each of them vouches for all that came before.
const HEADS: usize = 10_000;
/// The copy of the store, until it is open.
pub(crate) const COPY: &str = "history.copy";
/// What must stay free on the disk beside a copy, bytes: the controller goes on writing.
const SPARE: u64 = 64 << 20;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another one is at it.
    #[error("another prune or backup is under way: wait for its end")]
    Busy,
    /// The copy would leave too little room.
    #[error(
        "a copy of the history takes {needed} bytes beside {dir} while the backup is made, {free} are free there and \
         {SPARE} must stay: free some space"
    )]
    Room {
        /// The data directory.
        dir: PathBuf,
        /// What the copy takes.
        needed: u64,
        /// What is there.
        free: u64,
    },
    /// No history to copy.
    #[error("{0} is no data directory of a controller: there is no history in it")]
    Nothing(PathBuf),
    /// A file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The heads.
    #[error(transparent)]
    Heads(#[from] verify::KeptHeadsError),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::History(error.into())
    }
}

/// A backup that only has to be written down.
#[derive(Debug)]
pub struct Ready {
    manifest: Manifest,
    files: Vec<Packed>,
}

impl Ready {
    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Writes it; blocks as long as that takes.
    pub fn write(self, to: impl Write) -> io::Result<()> {
        archive::write(to, self.manifest, self.files)
    }
}

impl Keeper {
    /// A backup of this controller as it is now, of which `by` has the whole when it is written.
    pub async fn backup(&self, by: &str, with_keys: bool) -> Result<Ready, BackupError> {
        let Ok(_turn) = self.turn.try_lock() else { return Err(BackupError::Busy) };
        let history = self.controller.history();
        room(&self.dir)?;
        let handed = Body::BackedUp { by: by.to_owned(), with_keys, at: history.now() };
        history.append(self.controller.audit(), vec![handed]).await?;
        // Before the copy is made: a head must not know more than the copy.
        let heads = self.heads(HEADS)?;
        let spool = self.dir.join(COPY);
        forget(&spool)?;
        let made_wall_ns = history.now().wall_ns;
        let copied = history.store().copy_to(&spool).await;
        let epoch = history.epoch();
        let key = AuditKey::open(&self.dir)?;
        let about = About { dir: Arc::clone(&self.dir), spool, heads, key, with_keys, made_wall_ns, epoch };
        match copied {
            Ok(()) => about.packed().await,
            Err(error) => {
                forget(&about.spool)?;
                Err(error.into())
            }
        }
    }
}

/// A backup of a data directory that no controller holds, which changes nothing in it. `spool` is a place for a copy of the
/// history, which is gone when this returns; `made_wall_ns` is the wall time.
pub async fn offline(path: &Path, spool: &Path, with_keys: bool, made_wall_ns: i64) -> Result<Ready, BackupError> {
    let dir = Arc::new(DataDir::look(path)?);
    if !dir.join(STORE_FILE).exists() {
        return Err(BackupError::Nothing(path.to_owned()));
    }
    let heads = verify::kept_heads(&dir)?;
    let heads = heads[heads.len().saturating_sub(HEADS)..].to_vec();
    let store = SqliteStore::open_to_read(&dir.join(STORE_FILE))?;
    store.copy_to(spool).await?;
    let epoch = store.epoch().await?;
    drop(store);
    let key = AuditKey::open(&dir)?;
    About { dir, spool: spool.to_owned(), heads, key, with_keys, made_wall_ns, epoch }.packed().await
}

/// Whether there is room for a copy of the history beside it.
fn room(dir: &DataDir) -> Result<(), BackupError> {
    let size = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |file| file.len());
    let needed = size(STORE_FILE) + size(&format!("{STORE_FILE}-wal"));
    let failed = |e: rustix::io::Errno| BackupError::Read { path: dir.path().to_owned(), source: e.into() };
    let disk = rustix::fs::statvfs(dir.path()).map_err(failed)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed.saturating_add(SPARE) {
        return Err(BackupError::Room { dir: dir.path().to_owned(), needed, free });
    }
    Ok(())
}

/// Removes what an earlier backup left, if it did.
pub(crate) fn forget(spool: &Path) -> Result<(), BackupError> {
    match std::fs::remove_file(spool) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::Read { path: spool.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// What a backup is made of.
struct About {
    dir: Arc<DataDir>,
    spool: PathBuf,
    heads: Vec<SignedHead>,
    key: Option<AuditKey>,
    with_keys: bool,
    made_wall_ns: i64,
    epoch: u64,
}

impl About {
    async fn packed(self) -> Result<Ready, BackupError> {
        let packed = self.pack().await;
        // What is open needs no name, and what is not is of no use.
        forget(&self.spool)?;
        packed
    }

    async fn pack(&self) -> Result<Ready, BackupError> {
        let id = self.dir.read(ID_FILE, crate::datadir::Access::Public)?.unwrap_or_default();
        let audit = format!("audit/{}", String::from_utf8_lossy(&id).trim());
        let copy = SqliteStore::open_to_read(&self.spool)?;
        let head = copy.head(&audit).await?;
        drop(copy);
        let own = self.key.as_ref().map(|key| verify::sign(key, &audit, head, self.made_wall_ns));
        let heads: String = self.heads.iter().chain(&own).map(|head| verify::line(head) + "\n").collect();
        let (dir, spool, with_keys) = (Arc::clone(&self.dir), self.spool.clone(), self.with_keys);
        let files = tokio::task::spawn_blocking(move || {
            let wanted = FILES.iter().filter(|known| with_keys || !known.key);
            wanted.filter_map(|known| file(&dir, &spool, &heads, known).transpose()).collect::<Result<Vec<_>, _>>()
        });
        let files = files.await.map_err(|_| HistoryError::from(StoreError::Closed))??;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            made_wall_ns: self.made_wall_ns,
            epoch: self.epoch,
            audit,
            audit_seq: head.seq,
            audit_hash: hex(&head.hash),
            with_keys,
            files: files.iter().map(|file| file.member().clone()).collect(),
        };
        Ok(Ready { manifest, files })
    }
}

/// One file; `None` when the directory has none of that name.
fn file(dir: &DataDir, spool: &Path, heads: &str, known: &Known) -> Result<Option<Packed>, BackupError> {
    let path = dir.join(known.name);
    let failed = |source| BackupError::Read { path: path.clone(), source };
    let from: Box<dyn archive::Source> = match known.name {
        STORE_FILE => Box::new(File::open(spool).map_err(failed)?),
        HEADS_FILE => Box::new(Cursor::new(heads.to_owned().into_bytes())),
        name => match dir.read(name, known.access)? {
            Some(bytes) => Box::new(Cursor::new(bytes)),
            None => return Ok(None),
        },
    };
    Packed::new(known.name, from).map(Some).map_err(failed)
}
