//! How full a disk is that a worker fills: asked of the file system, as `df` would, and of the blocks of the worker's file.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use fracas_model::{
    event::{Between, Measured, Proof},
    facts::Space,
    id::ItemKey,
    plan::{Fill, FillGoal},
};
use serde_json::json;

use super::{LinuxHost, aside};
use crate::host::{Failure, Handle, files::space};

/// Unit of `st_blocks`, whatever the block size.
const BLOCK: u64 = 512;
/// A file system keeps books of its own on what is held: this much of a goal may be missing.
const SLACK_BYTES: u64 = 4 << 20;
const SLACK_POINTS: f64 = 0.5;

/// All fills, by item.
#[derive(Debug, Default)]
pub(super) struct Fills(BTreeMap<ItemKey, Filling>);

/// What a worker set out to hold, and where its file is to be seen.
#[derive(Clone, Debug)]
struct Filling {
    bytes: u64,
    file: String,
}

impl Fills {
    pub(super) fn remove(&mut self, key: &ItemKey) {
        self.0.remove(key);
    }
}

impl LinuxHost {
    pub(super) async fn fill_disk(
        &self,
        key: &ItemKey,
        index: usize,
        fill: &Fill,
    ) -> Result<(Handle, Between), Failure> {
        let begun = self.begin(key, "fill", json!({ "fill": fill })).await?;
        let number = |name: &str| begun.reply[name].as_u64();
        let (Some(bytes), Some(fd)) = (number("bytes"), number("fd")) else {
            return Err(Failure("the fill worker replied nonsense".into()));
        };
        let file = format!("/proc/{}/fd/{fd}", begun.worker.pid());
        self.fills.borrow_mut().0.insert(key.clone(), Filling { bytes, file });
        Ok(self.keep(key, index, begun))
    }

    /// Whether the disk is as full as was asked.
    pub(super) async fn disk_use(&self, key: &ItemKey, fill: &Fill) -> (Proof, Vec<Measured>) {
        let filling = self.fills.borrow().0.get(key).cloned();
        let Some(filling) = filling else {
            return (Proof::Unverified { why: "the worker was started by an earlier agent".into() }, vec![]);
        };
        let directory = fill.directory.clone();
        let looked = aside(move || {
            let held = fs::metadata(&filling.file).map(|about| about.blocks() * BLOCK);
            (space(&directory), held, filling.bytes)
        });
        match looked.await {
            Ok((Ok(space), Ok(held), bytes)) => judge(fill, &space, held, bytes),
            Ok((Err(error), ..)) => {
                (Proof::Unverified { why: format!("the disk cannot be looked at: {error}") }, vec![])
            }
            Ok((_, Err(_), _)) => {
                (Proof::Ineffective { why: "the worker that holds the space is gone".into() }, vec![])
            }
            Err(failure) => (Proof::Unverified { why: failure.0 }, vec![]),
        }
    }
}

fn judge(fill: &Fill, space: &Space, held: u64, bytes: u64) -> (Proof, Vec<Measured>) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let measured = |what: &str, unit: &str, asked: Option<f64>, got: f64, by: &str| Measured {
        what: what.into(),
        unit: unit.into(),
        asked,
        got,
        p99: None,
        n: 1,
        by: by.into(),
    };
    let (used, left) = (space.used_percent(), space.left_bytes);
    let (mut asked_used, mut asked_left, mut asked_held) = (None, None, None);
    let reached = match fill.goal {
        FillGoal::Used(percent) => {
            asked_used = Some(percent.0);
            used >= percent.0 - SLACK_POINTS
        }
        FillGoal::Left(size) => {
            asked_left = Some(mib(size.0));
            left <= size.0 + SLACK_BYTES
        }
        FillGoal::Size(size) => {
            asked_held = Some(mib(size.0));
            held + SLACK_BYTES >= size.0
        }
    };
    let all = vec![
        measured("disk used", "%", asked_used, used, "statfs"),
        measured("space left", "MiB", asked_left, mib(left), "statfs"),
        measured("space held", "MiB", asked_held, mib(held), "blocks of the worker's file"),
    ];
    let proof = if reached {
        Proof::Verified
    } else if held + SLACK_BYTES < bytes && left > fill.reserve.0 + SLACK_BYTES {
        Proof::Unverified { why: format!("{:.0} of {:.0} MiB are filled so far", mib(held), mib(bytes)) }
    } else {
        Proof::Ineffective {
            why: format!(
                "{used:.1} % are used and {:.0} MiB left: others freed space, or ate into the reserve",
                mib(left)
            ),
        }
    };
    (proof, all)
}
