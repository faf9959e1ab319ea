//! Where histories live: append-only streams with their blobs, host cursors and the index of runs, all or nothing.
//!
//! A store keeps bytes and their order. It does not know what an event means, computes no hash and reads no clock.

pub mod memory;
pub mod sqlite;

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

use fracas_model::id::{HostId, RunId};

use crate::chain::Digest;
pub use crate::chain::{Head, Stored};

/// One record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The bytes the chain covers.
    pub stored: Vec<u8>,
    /// Chain hash after this record.
    pub hash: Digest,
    /// Bytes kept beside the chain, under their SHA-256.
    pub blob: Option<(Digest, Vec<u8>)>,
}

/// Records for one stream, which must stand at `expected_seq` (0: it does not exist yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The stream.
    pub stream: String,
    /// Number of its last record.
    pub expected_seq: u64,
    /// What to append, in order.
    pub events: Vec<NewEvent>,
}

/// How far a host's outbox has been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The host.
    pub host: HostId,
    /// One life of its outbox.
    pub outbox: String,
    /// Where the store must stand (0: this outbox was never heard of).
    pub expected: u64,
    /// Everything up to and including this has been taken.
    pub seq: u64,
}

/// A store remembers this many outboxes per host; a host has one, and a new one only when its state was lost.
pub const OUTBOXES_PER_HOST: usize = 8;

/// What a list of runs shows without folding their histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIndex {
    /// The run.
    pub run: RunId,
    /// Name of its document.
    pub name: String,
    /// State in the words of the run machine.
    pub state: String,
    /// Verdict, empty while it runs.
    pub verdict: String,
    /// Exit code of `fracas run`.
    pub exit_code: u8,
    /// Most important reason, for people.
    pub reason: String,
    /// Wall time of `Planned`, nanoseconds since the Unix epoch.
    pub started_wall_ns: i64,
    /// Wall time of `Finished`.
    pub ended_wall_ns: Option<i64>,
    /// Who asked.
    pub by: String,
    /// Where it runs.
    pub environment: String,
}

/// One transaction: everything in it happens, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Epoch of the controller that writes; a lower one than the store has seen is refused.
    pub epoch: u64,
    /// Records, at most one batch for each stream.
    pub batches: Vec<Batch>,
    /// Moves a host's cursor.
    pub cursor: Option<Cursor>,
    /// Row of the run index, inserted or replaced.
    pub index: Option<RunIndex>,
    /// Claims an idempotency key for a run.
    pub idempotency: Option<(String, RunId)>,
}

/// One stream that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub stream: String,
    /// What its first kept record follows: the genesis, or the last record that was cut off.
    pub base: Head,
    /// Its end.
    pub head: Head,
}

/// Records to remove: those of a stream up to and including this one, which must have this hash. Where it is the last one,
/// all of the stream goes, with its row in the run index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The stream.
    pub stream: String,
    /// The last record that goes.
    pub upto: Head,
}

/// How much of what was cut off may be wiped in one transaction, so that whoever appends waits for little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Records.
    pub records: usize,
    /// Bytes of records and blobs; one record is always taken.
    pub bytes: usize,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else appended first. Read on, then decide anew.
    #[error("{what} stands at {actual}, not at {expected}: read on and try again")]
    Conflict {
        /// The stream, or `cursor HOST/OUTBOX`.
        what: String,
        /// What the writer thought.
        expected: u64,
        /// What the store has.
        actual: u64,
    },
    /// A newer controller has taken over.
    #[error("controller epoch {ours} is over, the history is owned by epoch {owner}: stop this controller")]
    Fenced {
        /// The writer's epoch.
        ours: u64,
        /// The highest epoch seen.
        owner: u64,
    },
    /// The idempotency key already stands for a run.
    #[error("idempotency key `{key}` already started run {run}")]
    KeyTaken {
        /// The key.
        key: String,
        /// The run it started.
        run: RunId,
    },
    /// No room. Nothing was written.
    #[error("history {path} cannot grow, the disk is full: free some space, the controller goes on by itself")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("history {path} is damaged ({detail}): stop the controller and restore a backup of the data directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A later version of Fracas wrote it.
    #[error(
        "history {path} has schema version {found}, this controller knows versions up to {known}: start the newer \
         controller again, or restore a backup of the data directory from before the upgrade"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Newest version this build knows.
        known: i64,
    },
    /// Not a history at all.
    #[error(
        "{path} is not a history of Fracas ({detail}): restore a backup if it was one, else move it away or choose \
         another --data-dir"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// The machine said no.
    #[error("history {path} cannot be used: {detail}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the machine said.
        detail: String,
    },
    /// The store was shut down.
    #[error("history is closed: the controller is shutting down")]
    Closed,
}

/// The answer of a store, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// An append-only store of streams. Answers may be awaited on any executor; nothing blocks the caller's thread.
pub trait Store: Send + Sync {
    /// Writes all of `commit` or nothing, durably: the answer comes after the commit has reached the disk.
    /// When the answer is dropped before it came, only reading tells whether the commit happened.
    fn commit(&self, commit: Commit) -> Answer<'_, ()>;

    /// Records with a greater number than `after`, at most `limit`, in order.
    fn read<'a>(&'a self, stream: &'a str, after: u64, limit: usize) -> Answer<'a, Vec<Stored>>;

    /// The end of a stream.
    fn head<'a>(&'a self, stream: &'a str) -> Answer<'a, Head>;

    /// Names of the streams that begin with `prefix`, in byte order.
    fn streams<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<String>>;

    /// The streams that begin with `prefix`, in byte order of their names.
    fn listed<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>>;

    /// Bytes kept under their SHA-256.
    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>>;

    /// Bytes of those digests that are kept, in the order asked; missing ones are `None`.
    fn blobs(&self, digests: Vec<Digest>) -> Answer<'_, Vec<Option<Vec<u8>>>>;

    /// How far a host's outbox has been taken; 0 when it was never heard of.
    fn cursor<'a>(&'a self, host: &'a HostId, outbox: &'a str) -> Answer<'a, u64>;

    /// The run index, the row that was inserted last first whatever the clock said, at most `limit`, with the number of the last record of each run's stream.
    fn runs(&self, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>>;

    /// The same of these environments alone.
    fn runs_in(&self, environments: Vec<String>, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>>;

    /// Rows of the runs whose id begins with `prefix`, oldest first, at most 16.
    fn run_prefix<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<(RunIndex, u64)>>;

    /// The run that an idempotency key started.
    fn idempotency<'a>(&'a self, key: &'a str) -> Answer<'a, Option<RunId>>;

    /// Takes the store over: raises the epoch by one and returns it. Appends of lower epochs are refused from now on.
    fn next_epoch(&self) -> Answer<'_, u64>;

    /// Raises the epoch above `above` and returns it, if `ours` is its present owner; else [`StoreError::Fenced`].
    fn raise_epoch(&self, ours: u64, above: u64) -> Answer<'_, u64>;

    /// Cuts records off, all cuts or none: from then on they are not there for any reader. What is gone already is passed
    /// over. [`StoreError::Conflict`] when a stream has another record there than the cut says.
    fn cut(&self, epoch: u64, cuts: Vec<Cut>) -> Answer<'_, ()>;

    /// Wipes some of what was cut off, with the blobs that nothing else refers to; says whether more is left. Can be
    /// interrupted and repeated at any time.
    fn wipe(&self, portion: Portion) -> Answer<'_, bool>;

    /// Writes all that is there at one instant into a new file, a history of the same kind; appends go on meanwhile.
    fn copy_to<'a>(&'a self, path: &'a Path) -> Answer<'a, ()>;
}

/// Most rows [`Store::run_prefix`] gives: enough to say which ids an ambiguous prefix could mean.
pub const PREFIX_ROWS: usize = 16;

#[cfg(test)]
mod conformance;
