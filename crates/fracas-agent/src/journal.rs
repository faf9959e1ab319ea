//! The agent's memory of what it did to the host: written before the deed, read after a crash. It decides nothing.
//!
//! An append-only file of checked records. A torn tail is cut off and reported. Damage in the middle, or records of a
//! newer version, leave the file untouched and readable parts known: what they say is open will be undone, but no new
//! order is taken until a person has moved the file away. A journal that cannot be written refuses orders in the same
//! way for as long as that lasts; undo goes on in memory.

mod frame;
mod record;
mod state;

use std::{fs, io, path::Path};

use fracas_model::plan::Refusal;

pub(crate) use self::frame::{End, at as frame_at, encode as encode_frame, scan as scan_frames};
pub use self::{
    record::{Ended, Past, Record},
    state::{CLOSED_KEPT, JournalState, OpenItem, Progress, is_spent},
};
use crate::disk::Disk;

/// The journal's file in the state directory.
pub const FILE: &str = "journal";
/// The form of record this version writes; higher ones are not understood.
const VERSION: u8 = 1;
/// A journal longer than this is rewritten when nothing is open.
const COMPACT_BYTES: u64 = 1 << 20;

/// Why the journal takes no orders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// A broken record with whole ones behind it.
    #[error("the journal is damaged at byte {0}")]
    Damaged(usize),
    /// Written by a newer agent.
    #[error("the journal has a record of version {0}, and this agent knows {VERSION}")]
    Newer(u8),
    /// It could not be read.
    #[error("the journal cannot be read: {0}")]
    Unreadable(String),
    /// It cannot be written at the moment.
    #[error("the journal cannot be written: {0}")]
    Unwritable(String),
}

/// The open journal.
pub struct Journal<D> {
    disk: D,
    state: JournalState,
    /// Bytes in the file.
    size: u64,
    /// Bytes after the last rewriting.
    compacted: u64,
    /// Bytes of a torn tail that was cut off at opening.
    torn: u64,
    /// Damage found at opening: the file is never written again.
    spoiled: Option<Trouble>,
    /// The last write failed: the file's end is unknown, so the next one begins by rewriting it whole.
    unsure: Option<String>,
}

/// What a journal says, for whoever does not own it: nothing is locked, cut, made or written.
#[derive(Default)]
pub struct Look {
    /// What the readable part says.
    pub state: JournalState,
    /// What is wrong with it; then [`Look::state`] may not be the whole truth.
    pub trouble: Option<Trouble>,
    /// Bytes of an unfinished record at the end: a crash cut it short, or its owner is just writing it.
    pub torn: u64,
}

impl Trouble {
    /// Whether there may be something on the host that the journal does not tell: then nobody can say that it is clean.
    pub fn hides(&self) -> bool {
        !matches!(self, Self::Unwritable(_))
    }

    /// As the answer to an order.
    pub fn refusal(&self) -> Refusal {
        let instead = match self {
            Self::Unwritable(_) => "make room or make the agent's state directory writable, then ask again",
            Self::Unreadable(_) => {
                "make the file `journal` in the agent's state directory readable for whoever asks (the agent runs as \
                 root or as its own user), then restart the agent"
            }
            _ => "check that the host is clean, move the file `journal` out of the agent's state directory, restart it",
        };
        Refusal::new(self.to_string(), instead)
    }
}

impl<D: Disk> Journal<D> {
    /// Reads the journal. Never fails: [`Journal::trouble`] says what is wrong.
    pub async fn open(disk: D) -> Self {
        let mut journal =
            Self { disk, state: JournalState::default(), size: 0, compacted: 0, torn: 0, spoiled: None, unsure: None };
        match journal.disk.read(FILE).await {
            Ok(bytes) => journal.load(&bytes).await,
            Err(e) => journal.spoiled = Some(Trouble::Unreadable(e.to_string())),
        }
        journal
    }

    async fn load(&mut self, bytes: &[u8]) {
        let Look { state, trouble, torn } = Look::at(bytes);
        (self.state, self.spoiled, self.torn) = (state, trouble, torn);
        self.size = bytes.len() as u64 - torn;
        if torn > 0
            && let Err(e) = self.disk.truncate(FILE, self.size).await
        {
            self.unsure = Some(e.to_string());
        }
    }

    /// What it says.
    pub fn state(&self) -> &JournalState {
        &self.state
    }

    /// Why it takes no orders, if so. `Unwritable` may pass: the next write tries again.
    pub fn trouble(&self) -> Option<Trouble> {
        self.spoiled.clone().or_else(|| self.unsure.clone().map(Trouble::Unwritable))
    }

    /// How many bytes of an unfinished record were cut off when it was opened.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Writes records that must be there *before* a deed; they count only if this succeeds.
    pub async fn write(&mut self, records: &[Record], sync: bool) -> Result<(), Trouble> {
        self.store(records, sync).await?;
        for record in records {
            self.state.fold(record);
        }
        Ok(())
    }

    /// Writes records of what *has* happened; they count even if the file does not take them, for undo must go on.
    pub async fn note(&mut self, records: &[Record], sync: bool) {
        let stored = self.store(records, sync).await;
        for record in records {
            self.state.fold(record);
        }
        if let Err(trouble) = stored {
            tracing::warn!(%trouble, "a record of what was done was not kept");
        }
    }

    async fn store(&mut self, records: &[Record], sync: bool) -> Result<(), Trouble> {
        if let Some(trouble) = &self.spoiled {
            return Err(trouble.clone());
        }
        if self.unsure.is_some() {
            self.rewrite().await?;
        }
        let bytes: Vec<u8> = records.iter().flat_map(encode).collect();
        let mut done = self.disk.append(FILE, &bytes).await;
        if done.is_ok() && sync {
            done = self.disk.sync(FILE).await;
        }
        match done {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(e) => Err(self.failed(&e)),
        }
    }

    fn failed(&mut self, error: &io::Error) -> Trouble {
        self.unsure = Some(error.to_string());
        Trouble::Unwritable(error.to_string())
    }

    /// Replaces the file by the shortest one with the same meaning.
    async fn rewrite(&mut self) -> Result<(), Trouble> {
        let bytes: Vec<u8> = self.state.records().iter().flat_map(encode).collect();
        match self.disk.replace(FILE, &bytes).await {
            Ok(()) => {
                self.size = bytes.len() as u64;
                self.compacted = self.size;
                self.unsure = None;
                Ok(())
            }
            Err(e) => Err(self.failed(&e)),
        }
    }

    /// Rewrites a long journal while nothing is open.
    pub async fn tidy(&mut self) {
        let long = self.size > COMPACT_BYTES.max(2 * self.compacted);
        if long && self.state.open.is_empty() && self.spoiled.is_none() {
            // A failure is remembered and tried again before the next record.
            let _ = self.rewrite().await;
        }
    }
}

impl Look {
    /// Looks at the journal in a state directory, which need not exist, while its owner may be writing.
    pub fn into_dir(dir: &Path) -> Self {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => Self::at(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(e) => Self { trouble: Some(Trouble::Unreadable(e.to_string())), ..Self::default() },
        }
    }

    fn at(bytes: &[u8]) -> Self {
        let (frames, end) = scan_frames(bytes);
        let mut look = Self::default();
        for frame in frames {
            if frame.version > VERSION {
                look.trouble = Some(Trouble::Newer(frame.version));
            } else if let Ok(record) = serde_json::from_slice(frame.payload) {
                look.state.fold(&record);
            } else {
                look.trouble.get_or_insert(Trouble::Damaged(frame.offset));
            }
        }
        match end {
            End::Damaged(at) => look.trouble = Some(look.trouble.take().unwrap_or(Trouble::Damaged(at))),
            End::Torn(at) if look.trouble.is_none() => look.torn = (bytes.len() - at) as u64,
            End::Clean | End::Torn(_) => {}
        }
        look
    }
}

fn encode(record: &Record) -> Vec<u8> {
    // A record is made of strings, numbers and JSON values only: it cannot fail to serialise.
    encode_frame(VERSION, &serde_json::to_vec(record).unwrap_or_default())
}

#[cfg(test)]
mod tests;
