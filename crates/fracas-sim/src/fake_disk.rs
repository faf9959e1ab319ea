//! A disk in memory that forgets what was not synced when the power is cut, and that can be full or refuse to be read.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
};

use fracas_agent::{disk::Disk, host::Local};

use crate::crash::Crash;

/// A disk; clones are the same disk. It outlives crashes: give it to the next life of the agent.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: RefCell<BTreeMap<String, File>>,
    crash: Crash,
    room: Cell<Option<usize>>,
    failing_syncs: Cell<bool>,
    syncs: Cell<u64>,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What a power cut leaves.
    safe: Vec<u8>,
    /// What the process sees.
    seen: Vec<u8>,
}

impl FakeDisk {
    /// An empty disk whose operations count on `crash`.
    pub fn new(crash: Crash) -> Self {
        Self(Rc::new(Inner { crash, ..Inner::default() }))
    }

    /// The power is cut: what was not synced is gone, except for its first `torn` bytes, per file.
    pub fn cut_power(&self, torn: usize) {
        for file in self.0.files.borrow_mut().values_mut() {
            let survives = file.seen.starts_with(&file.safe).then(|| file.safe.len() + torn);
            match survives {
                Some(len) => file.seen.truncate(len),
                None => file.seen.clone_from(&file.safe),
            }
            file.safe.clone_from(&file.seen);
        }
    }

    /// How many more bytes fit; `None` lifts the limit. A write that does not fit leaves a part of it.
    pub fn set_room(&self, room: Option<usize>) {
        self.0.room.set(room);
    }

    /// Whether syncs fail.
    pub fn set_failing_syncs(&self, failing: bool) {
        self.0.failing_syncs.set(failing);
    }

    /// How many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.0.syncs.get()
    }

    /// The file as the process sees it.
    pub fn content(&self, name: &str) -> Vec<u8> {
        self.0.files.borrow().get(name).map(|f| f.seen.clone()).unwrap_or_default()
    }

    /// Puts a whole, synced file there.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let file = File { safe: bytes.to_vec(), seen: bytes.to_vec() };
        self.0.files.borrow_mut().insert(name.to_owned(), file);
    }

    /// As many of the bytes as fit, and whether all did.
    fn fit<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], io::Result<()>) {
        match self.0.room.get() {
            Some(room) if room < bytes.len() => {
                self.0.room.set(Some(0));
                (&bytes[..room], Err(io::ErrorKind::StorageFull.into()))
            }
            Some(room) => {
                self.0.room.set(Some(room - bytes.len()));
                (bytes, Ok(()))
            }
            None => (bytes, Ok(())),
        }
    }
}

impl Disk for FakeDisk {
    fn read<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Vec<u8>>> {
        Box::pin(async move { Ok(self.content(name)) })
    }

    fn read_at<'a>(&'a self, name: &'a str, offset: u64, len: usize) -> Local<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let (content, offset) = (self.content(name), offset as usize);
            let found = content.get(offset..offset + len).map(<[u8]>::to_vec);
            found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }

    fn append<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            self.0.crash.boundary().await;
            let (fits, done) = self.fit(bytes);
            self.0.files.borrow_mut().entry(name.to_owned()).or_default().seen.extend_from_slice(fits);
            self.0.crash.boundary().await;
            done
        })
    }

    fn sync<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            if self.0.failing_syncs.get() {
                return Err(io::Error::other("input/output error"));
            }
            {
                let mut files = self.0.files.borrow_mut();
                let file = files.entry(name.to_owned()).or_default();
                file.safe.clone_from(&file.seen);
            }
            self.0.syncs.set(self.0.syncs.get() + 1);
            self.0.crash.boundary().await;
            Ok(())
        })
    }

    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            self.0.crash.boundary().await;
            if self.0.failing_syncs.get() {
                return Err(io::Error::other("input/output error"));
            }
            // A part that does not fit stays in the temporary file, which nobody reads.
            self.fit(bytes).1?;
            self.put(name, bytes);
            self.0.crash.boundary().await;
            Ok(())
        })
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            if let Some(file) = self.0.files.borrow_mut().get_mut(name) {
                file.seen.truncate(len as usize);
                file.safe.clone_from(&file.seen);
            }
            self.0.crash.boundary().await;
            Ok(())
        })
    }
}
