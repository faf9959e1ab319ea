//! A directory of few small files that must survive crashes: append, sync, replace as a whole. It knows nothing of
//! what is written; what a missing sync costs is for its callers to know.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::host::Local;

/// Room kept aside for a disk that others fill: some thousand records of a journal.
const RESERVE_BYTES: u64 = 1 << 20;
/// Its file in the directory.
const RESERVE: &str = "reserve";

/// Where journal and outbox live. Files are named by a plain name, without directories.
///
/// What `append` wrote survives the death of the process at once, and a power cut only after `sync`.
/// After a failed call the file may hold any prefix of what was asked.
pub trait Disk {
    /// The whole file; nothing when it does not exist.
    fn read<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Vec<u8>>>;
    /// `len` bytes from `offset`; an error when there are fewer.
    fn read_at<'a>(&'a self, name: &'a str, offset: u64, len: usize) -> Local<'a, io::Result<Vec<u8>>>;
    /// Adds at the end, creating the file when needed.
    fn append<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>>;
    /// Returns when all that was appended would survive a power cut.
    fn sync<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<()>>;
    /// The file becomes `bytes` as a whole or stays as it was; synced on return.
    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>>;
    /// Cuts the file to `len` bytes; synced on return.
    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Local<'a, io::Result<()>>;
}

impl<D: Disk + ?Sized> Disk for Rc<D> {
    fn read<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Vec<u8>>> {
        (**self).read(name)
    }
    fn read_at<'a>(&'a self, name: &'a str, offset: u64, len: usize) -> Local<'a, io::Result<Vec<u8>>> {
        (**self).read_at(name, offset, len)
    }
    fn append<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        (**self).append(name, bytes)
    }
    fn sync<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<()>> {
        (**self).sync(name)
    }
    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        (**self).replace(name, bytes)
    }
    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Local<'a, io::Result<()>> {
        (**self).truncate(name, len)
    }
}

/// The real one. Appends and reads run on the calling thread (page cache, microseconds); syncs, which may take
/// tens of milliseconds, run on tokio's blocking threads, so that nothing else of the agent waits for them.
pub struct FileDisk {
    dir: PathBuf,
    open: RefCell<BTreeMap<String, Rc<File>>>,
    reserve: bool,
}

impl FileDisk {
    /// Uses `dir`, making it with mode 0700 when it is not there.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir, open: RefCell::default(), reserve: false })
    }

    /// The same, with some room of the disk kept aside, which is given to what is written here when no other is left.
    pub fn with_reserve(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let disk = Self { reserve: true, ..Self::new(dir)? };
        disk.keep_reserve();
        Ok(disk)
    }

    /// Allocates the reserve if it is not there; without room, or on a file system that cannot, there is none.
    fn keep_reserve(&self) {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.dir.join(RESERVE));
        if let Ok(file) = file
            && fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_err()
        {
            // Half of it would only take the room away.
            let _ = file.set_len(0);
        }
    }

    /// Whether `error` says that the disk is full and the reserve gave some room.
    fn gave_reserve(&self, error: &io::Error) -> bool {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let given = || {
            let file = OpenOptions::new().write(true).open(self.dir.join(RESERVE))?;
            let some = file.metadata()?.len() > 0;
            file.set_len(0).map(|()| some)
        };
        self.reserve && full && given().unwrap_or(false)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self, name: &str) -> io::Result<Rc<File>> {
        if let Some(file) = self.open.borrow().get(name) {
            return Ok(Rc::clone(file));
        }
        let path = self.dir.join(name);
        let fresh = !path.try_exists()?;
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(&path)?;
        if fresh {
            // Without this a power cut may lose the name although the content was synced.
            File::open(&self.dir)?.sync_all()?;
        }
        let file = Rc::new(file);
        self.open.borrow_mut().insert(name.to_owned(), Rc::clone(&file));
        Ok(file)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Disk for FileDisk {
    fn read<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            match fs::read(self.dir.join(name)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                other => other,
            }
        })
    }

    fn read_at<'a>(&'a self, name: &'a str, offset: u64, len: usize) -> Local<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let file = self.file(name)?;
            let mut file = &*file;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![0; len];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        })
    }

    fn append<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let file = self.file(name)?;
            let len = file.metadata()?.len();
            match (&*file).write_all(bytes) {
                Err(error) if self.gave_reserve(&error) => {
                    tracing::warn!("the disk is full: the agent's reserve is used");
                    // Some of it may have been written.
                    file.set_len(len)?;
                    (&*file).write_all(bytes)
                }
                done => done,
            }
        })
    }

    fn sync<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let file = self.file(name)?.try_clone()?;
            blocking(move || file.sync_data()).await
        })
    }

    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let (path, fresh, dir) = (self.dir.join(name), self.dir.join(format!("{name}.new")), self.dir.clone());
            let bytes: std::sync::Arc<[u8]> = bytes.into();
            let put = move || {
                let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&fresh, &path)?;
                File::open(&dir)?.sync_all()
            };
            let mut done = blocking(put.clone()).await;
            if done.as_ref().is_err_and(|error| self.gave_reserve(error)) {
                done = blocking(put).await;
            } else if self.reserve && done.is_ok() {
                self.keep_reserve();
            }
            // The old descriptor means the old file now, or may: the next call opens the name again.
            self.open.borrow_mut().remove(name);
            done
        })
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let file = self.file(name)?.try_clone()?;
            blocking(move || {
                file.set_len(len)?;
                file.sync_data()
            })
            .await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_appended_cut_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path().join("state")).unwrap();
        assert!(disk.read("a").await.unwrap().is_empty());
        disk.append("a", b"hello ").await.unwrap();
        disk.append("a", b"world").await.unwrap();
        disk.sync("a").await.unwrap();
        assert_eq!(disk.read_at("a", 6, 5).await.unwrap(), b"world");
        assert!(disk.read_at("a", 8, 5).await.is_err());
        disk.truncate("a", 5).await.unwrap();
        disk.append("a", b"!").await.unwrap();
        assert_eq!(disk.read("a").await.unwrap(), b"hello!");
        disk.replace("a", b"new").await.unwrap();
        disk.append("a", b"er").await.unwrap();
        assert_eq!(disk.read("a").await.unwrap(), b"newer");
    }
}
