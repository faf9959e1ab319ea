//! A directory of few small files that must survive crashes: append, sync, replace as a whole. It knows nothing of
//! what is written; what a missing sync costs is for its callers to know.

use std::{
    cell::Cell,
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;

use crate::{
    crash::{self, Task},
    host::Local,
};

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

/// How long the disk may take for one call. What is written as long as this is in doubt, what is undone is not: whoever
/// undoes goes on without the disk.
const LIMIT: Duration = Duration::from_secs(5);

/// The real one. All calls are made by one thread of its own, in order: a disk that hangs holds up that thread and nothing
/// else. A call that takes longer than five seconds counts as failed, and so does, at once, every call until that one has
/// come back: it may still be carried out, but never after a later one.
pub struct FileDisk {
    dir: PathBuf,
    calls: mpsc::Sender<Call>,
    limit: Duration,
    /// Calls that the thread has not finished.
    out: Arc<AtomicUsize>,
    /// One of those was given up.
    hangs: Cell<bool>,
}

type Call = Box<dyn FnOnce(&mut Files) + Send>;

/// The thread's side: open files by name.
struct Files {
    dir: PathBuf,
    open: BTreeMap<String, File>,
    /// Some room of the disk is kept aside.
    reserve: bool,
}

impl FileDisk {
    /// Uses `dir`, making it with mode 0700 when it is not there.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        Self::with_limit(dir.into(), LIMIT)
    }

    fn with_limit(dir: PathBuf, limit: Duration) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Self::start(dir, limit, false)
    }

    /// The same, with some room of the disk kept aside, which is given to what is written here when no other is left.
    pub fn with_reserve(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Self::start(dir, LIMIT, true)
    }

    fn start(dir: PathBuf, limit: Duration, reserve: bool) -> io::Result<Self> {
        let (calls, called) = mpsc::channel::<Call>();
        let out = Arc::new(AtomicUsize::new(0));
        let (mut files, done) = (Files { dir: dir.clone(), open: BTreeMap::new(), reserve }, out.clone());
        thread::Builder::new().name("disk".into()).spawn(move || {
            if files.reserve {
                files.keep_reserve();
            }
            while let Ok(call) = called.recv() {
                crash::within(Task::Disk);
                call(&mut files);
                done.fetch_sub(1, Ordering::SeqCst);
            }
        })?;
        Ok(Self { dir, calls, limit, out, hangs: Cell::new(false) })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Files) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.hangs.get() && self.out.load(Ordering::SeqCst) > 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the disk still hangs"));
        }
        self.hangs.set(false);
        let (answer, answered) = oneshot::channel();
        let call = move |files: &mut Files| {
            // Nobody waits any more for an answer that comes too late.
            let _ = answer.send(work(files));
        };
        self.out.fetch_add(1, Ordering::SeqCst);
        let gone = || io::Error::other("the thread that writes to the disk is gone");
        self.calls.send(Box::new(call)).map_err(|_| gone())?;
        if let Ok(answer) = tokio::time::timeout(self.limit, answered).await {
            return answer.map_err(|_| gone())?;
        }
        self.hangs.set(true);
        let told = format!("the disk did not answer within {:?}", self.limit);
        Err(io::Error::new(io::ErrorKind::TimedOut, told))
    }
}

impl Files {
    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let path = self.dir.join(name);
        Ok(match self.open.entry(name.to_owned()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(&path)?;
                // Without this a power cut may lose the name although the content was synced. A file that is there already
                // may have been made by an agent that died before it had done this.
                File::open(&self.dir)?.sync_all()?;
                place.insert(file)
            }
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        let len = file.metadata()?.len();
        match file.write_all(bytes) {
            Err(error) if self.gave_reserve(&error) => {
                tracing::warn!("the disk is full: the agent's reserve is used");
                let file = self.file(name)?;
                // Some of it may have been written.
                file.set_len(len)?;
                file.write_all(bytes)
            }
            done => done,
        }
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

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.dir.join(format!("{name}.new"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

impl Disk for FileDisk {
    fn read<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Vec<u8>>> {
        let name = name.to_owned();
        Box::pin(self.call(move |files| match fs::read(files.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }))
    }

    fn read_at<'a>(&'a self, name: &'a str, offset: u64, len: usize) -> Local<'a, io::Result<Vec<u8>>> {
        let name = name.to_owned();
        Box::pin(self.call(move |files| {
            let file = files.file(&name)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![0; len];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        }))
    }

    fn append<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        Box::pin(self.call(move |files| files.append(&name, &bytes)))
    }

    fn sync<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<()>> {
        let name = name.to_owned();
        Box::pin(self.call(move |files| files.file(&name)?.sync_data()))
    }

    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        Box::pin(self.call(move |files| {
            let mut done = files.replace(&name, &bytes);
            if done.as_ref().is_err_and(|error| files.gave_reserve(error)) {
                done = files.replace(&name, &bytes);
            } else if files.reserve && done.is_ok() {
                files.keep_reserve();
            }
            // The old descriptor means the old file now, or may: the next call opens the name again.
            files.open.remove(&name);
            done
        }))
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Local<'a, io::Result<()>> {
        let name = name.to_owned();
        Box::pin(self.call(move |files| {
            let file = files.file(&name)?;
            file.set_len(len)?;
            file.sync_data()
        }))
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

    /// A pipe takes 64 KiB and then hangs until somebody reads.
    #[tokio::test]
    async fn a_disk_that_hangs_holds_nobody_up_for_longer_than_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let disk = FileDisk::with_limit(dir.path().to_owned(), Duration::from_millis(50)).unwrap();
        disk.append("pipe", b"first").await.unwrap();
        let error = disk.append("pipe", &vec![7; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        let error = disk.append("other", b"lost").await.unwrap_err();
        assert!(error.to_string().contains("still hangs"), "{error}");
        let mut read = vec![0; 5 + (1 << 20)];
        File::open(&pipe).unwrap().read_exact(&mut read).unwrap();
        while disk.append("other", b"kept").await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(disk.read("other").await.unwrap(), b"kept", "what failed at once was never done");
    }
}
