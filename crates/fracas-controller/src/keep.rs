//! Keeping the record: signs heads, removes what is old once that is signed, hands out copies of everything.
//!
//! What may go is decided in [`choose`](self::choose::choose); what is written is the store's business.
//!
//! ```text
//! prune:   say it in the audit stream -> sign that -> cut off -> wipe, a little at a time
//! backup:  say it in the audit stream -> copy the store -> sign what is in the copy -> one archive
//! ```

pub mod archive;
mod backup;
mod choose;
#[cfg(test)]
mod house;
mod prune;
pub mod restore;

use std::{sync::Arc, time::Duration};

use fracas_model::{time::Stamp, units::Dur};
use tokio::sync::{Mutex as AsyncMutex, Notify};

pub(crate) use self::backup::{COPY, forget};
pub use self::{
    backup::{BackupError, Ready, offline},
    choose::{Rules, Stays},
    prune::{Asked, PruneError, Pruned},
};
use crate::{
    controller::Controller,
    datadir::{Access, DataDir, DataDirError},
    identity::Identity,
    store::Portion,
    verify::{self, HEADS_FILE, SignedHead, VouchError},
};

/// What is wiped in one transaction: some milliseconds of work for the disk.
const PORTION: Portion = Portion { records: 64, bytes: 256 << 10 };
/// Between two of them the disk belongs to those who append.
const BREATH: Duration = Duration::from_millis(2);
/// Pause before the next try when the store cannot be written.
const RETRY: Duration = Duration::from_secs(10);
/// A clock that was wrong at boot is right by then.
const FIRST_LOOK: Duration = Duration::from_hours(1);
/// So often it is looked what may go.
const EVERY: Duration = Duration::from_hours(24);
/// Who removes what the configuration says is old.
const BY_ITSELF: &str = "retention";
/// Most bytes of a line in the file of signed heads, with room to spare.
const LINE: usize = 1024;

/// What a controller keeps on its disk, and who may sign for it.
pub struct Keeper {
    controller: Controller,
    identity: Arc<Identity>,
    dir: Arc<DataDir>,
    /// Held by whoever prunes or makes a backup.
    turn: AsyncMutex<()>,
    /// Something was cut off.
    cut: Notify,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Of a controller whose data are in `dir`.
    pub fn new(controller: Controller, identity: Arc<Identity>, dir: Arc<DataDir>) -> Self {
        let cut = Notify::new();
        // What an earlier life did not get to.
        cut.notify_one();
        Self { controller, identity, dir, turn: AsyncMutex::default(), cut }
    }

    /// Signs the present head of the audit stream and keeps that.
    pub async fn vouch(&self) -> Result<SignedHead, VouchError> {
        verify::vouch(self.controller.history(), &self.identity, &self.dir, self.controller.audit()).await
    }

    /// The public key of [`vouch`](Self::vouch).
    pub fn public_key(&self) -> &[u8] {
        self.identity.audit_public()
    }

    /// The heads signed last, newest last, at most `limit`.
    pub fn heads(&self, limit: usize) -> Result<Vec<SignedHead>, DataDirError> {
        let end = self.dir.read_end(HEADS_FILE, Access::Private, limit.saturating_mul(LINE))?.unwrap_or_default();
        let lines = String::from_utf8_lossy(&end);
        // The first line may be half, since it was begun in the middle, and the last one after a crash.
        let heads: Vec<SignedHead> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(heads[heads.len().saturating_sub(limit)..].to_vec())
    }

    /// Wipes what was cut off, for ever.
    pub async fn keep_wiping(&self) {
        loop {
            self.cut.notified().await;
            loop {
                match self.controller.history().store().wipe(PORTION).await {
                    Ok(true) => tokio::time::sleep(BREATH).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, "what was pruned is not there any more, and still takes its room");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// Removes by itself what these rules say, for ever.
    pub async fn keep_tidy(&self, rules: Rules) {
        let born = self.controller.history().now();
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_LOOK, EVERY);
        loop {
            ticks.tick().await;
            if !believable(&born, &self.controller.history().now()) {
                tracing::error!("the clock was set by more than a day: nothing is pruned until the next start");
                continue;
            }
            match self.prune(&by_itself(rules)).await {
                Ok(pruned) if pruned.runs.is_empty() && pruned.schedules.is_empty() => {}
                Ok(pruned) => {
                    tracing::info!(runs = pruned.runs.len(), records = pruned.records, "what was old is gone")
                }
                Err(error) => tracing::error!(%error, "what is old could not be removed; it is tried again tomorrow"),
            }
        }
    }
}

fn by_itself(rules: Rules) -> Asked {
    let reason = format!("older than {}, by the controller's configuration", rules.older_than);
    Asked { rules, by: BY_ITSELF.to_owned(), reason, dry_run: false }
}

/// Whether a wall clock went on since `born` as time did, give or take a day: else it says nothing of how old things are.
fn believable(born: &Stamp, now: &Stamp) -> bool {
    const DAY: Dur = Dur::from_secs(86_400);
    let wall = now.wall_ns.saturating_sub(born.wall_ns);
    now.since(born).is_ok_and(|real| wall.abs_diff(real.ns()) <= DAY.ns().unsigned_abs())
}
