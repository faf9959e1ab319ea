//! What the records of a journal mean together: which items are open, which are closed. A pure fold, no files.

use std::collections::{BTreeMap, VecDeque};

use fracas_model::{
    event::{Between, Body, UndoCause},
    id::{BootId, ItemKey},
    plan::{Kind, Plan},
    time::Stamp,
    units::Dur,
};

use super::record::{Ended, Past, Record};
use crate::host::Handle;

/// How many closed items are remembered. A controller that asks again for one that fell out has had ten thousand
/// newer ones ended here, and its revision would be far behind.
pub const CLOSED_KEPT: usize = 10_000;

/// The fold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JournalState {
    /// Boot and version of the last opening.
    pub opened: Option<(BootId, String)>,
    /// Digest of the authority that the host belongs to, once that was said.
    pub fleet: String,
    /// Last (epoch, revision) taken, of this fleet.
    pub taken: (u64, u64),
    /// Items that were planned and have not ended.
    pub open: BTreeMap<ItemKey, OpenItem>,
    closed: BTreeMap<ItemKey, ClosedItem>,
    order: VecDeque<ItemKey>,
}

/// An item that was planned and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenItem {
    /// The fault's name.
    pub fault: String,
    /// What was, or will be, done.
    pub plan: Plan,
    /// How long it may last.
    pub duration: Option<Dur>,
    /// Its small number.
    pub slot: u16,
    /// The boot it belongs to.
    pub boot: BootId,
    /// As in [`Record::Planned`].
    pub deadline_ns: i64,
    /// The experiment's name.
    pub experiment: String,
    /// When it was planned.
    pub at: Option<Stamp>,
    /// How far each step of the plan got.
    pub steps: Vec<Progress>,
    /// Set once its undo began.
    pub undoing: Option<UndoCause>,
}

/// How far a step got.
///
/// ```text
/// held, reversible: Untouched -> Intended -> Done -> Reverted   (Intended -> Reverted when applying failed)
/// spent:            Untouched -> AboutToFire -> Fired
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Nothing was done.
    Untouched,
    /// It may have been applied, wholly or partly.
    Intended,
    /// It was applied.
    Done(Handle),
    /// It may have fired.
    AboutToFire(Stamp),
    /// It fired.
    Fired(Between),
    /// It was undone.
    Reverted,
}

#[derive(Clone, Debug, PartialEq)]
struct ClosedItem {
    ended: Ended,
    tell: Vec<Body>,
    past: Option<Past>,
}

impl OpenItem {
    /// Whether all of the plan's steps are spent ones, so that nothing lasts and nothing is undone.
    pub fn is_spent(&self) -> bool {
        is_spent(&self.plan)
    }
}

/// Whether all steps of a plan are spent ones.
pub fn is_spent(plan: &Plan) -> bool {
    plan.steps.iter().all(|s| s.kind() == Kind::Spent)
}

impl JournalState {
    /// Takes one more record in. Records about items that are not open change nothing.
    pub fn fold(&mut self, record: &Record) {
        match record {
            Record::Opened { boot, agent_version, fleet } => {
                self.opened = Some((boot.clone(), agent_version.clone()));
                if !fleet.is_empty() && *fleet != self.fleet {
                    // Another fleet counts its desired states anew.
                    self.fleet.clone_from(fleet);
                    self.taken = (0, 0);
                }
            }
            Record::Planned { key, fault, plan, duration, slot, boot, deadline_ns, experiment, at } => {
                let item = OpenItem {
                    fault: fault.clone(),
                    steps: vec![Progress::Untouched; plan.steps.len()],
                    plan: plan.clone(),
                    duration: *duration,
                    slot: *slot,
                    boot: boot.clone(),
                    deadline_ns: *deadline_ns,
                    experiment: experiment.clone(),
                    at: at.clone(),
                    undoing: None,
                };
                self.open.insert(key.clone(), item);
            }
            Record::Intent { key, step } => self.step(key, *step, Progress::Intended),
            Record::Done { key, step, handle } => self.step(key, *step, Progress::Done(handle.clone())),
            Record::AboutToFire { key, step, at } => self.step(key, *step, Progress::AboutToFire(at.clone())),
            Record::Fired { key, step, effective } => self.step(key, *step, Progress::Fired(effective.clone())),
            Record::Reverted { key, step } => self.step(key, *step, Progress::Reverted),
            Record::Undoing { key, cause } => {
                if let Some(item) = self.open.get_mut(key) {
                    item.undoing = Some(*cause);
                }
            }
            Record::Closed { key, ended, tell, past } => {
                self.close(key, ClosedItem { ended: *ended, tell: tell.clone(), past: past.clone() });
            }
            Record::Reported { key } => {
                if let Some(item) = self.closed.get_mut(key) {
                    item.tell.clear();
                }
            }
            Record::Taken { epoch, revision } => self.taken = self.taken.max((*epoch, *revision)),
        }
    }

    fn step(&mut self, key: &ItemKey, step: usize, progress: Progress) {
        if let Some(slot) = self.open.get_mut(key).and_then(|item| item.steps.get_mut(step)) {
            *slot = progress;
        }
    }

    fn close(&mut self, key: &ItemKey, item: ClosedItem) {
        self.open.remove(key);
        if self.closed.insert(key.clone(), item).is_none() {
            self.order.push_back(key.clone());
        }
        if self.order.len() > CLOSED_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.closed.remove(&oldest);
        }
    }

    /// Whether and how this item ended here.
    pub fn ended(&self, key: &ItemKey) -> Option<Ended> {
        self.closed.get(key).map(|c| c.ended)
    }

    /// Items that ended here, the oldest first, as far as they are remembered.
    pub fn past(&self) -> impl Iterator<Item = (&ItemKey, Ended, Option<&Past>)> {
        self.order.iter().filter_map(|key| {
            let item = self.closed.get(key)?;
            Some((key, item.ended, item.past.as_ref()))
        })
    }

    /// Ends whose facts may not have reached the outbox, oldest first.
    pub fn untold(&self) -> impl Iterator<Item = (&ItemKey, &[Body])> {
        self.order.iter().filter_map(|key| {
            let tell = &self.closed.get(key)?.tell;
            (!tell.is_empty()).then_some((key, tell.as_slice()))
        })
    }

    /// The smallest small number that no open item has; `None` when 65,536 are open.
    pub fn free_slot(&self) -> Option<u16> {
        (0..=u16::MAX).find(|slot| self.open.values().all(|item| item.slot != *slot))
    }

    /// The shortest list of records with the same meaning.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some((boot, agent_version)) = &self.opened {
            records.push(Record::Opened {
                boot: boot.clone(),
                agent_version: agent_version.clone(),
                fleet: self.fleet.clone(),
            });
        }
        if self.taken != (0, 0) {
            records.push(Record::Taken { epoch: self.taken.0, revision: self.taken.1 });
        }
        for (key, item) in self.order.iter().filter_map(|key| Some((key, self.closed.get(key)?))) {
            let ClosedItem { ended, tell, past } = item.clone();
            records.push(Record::Closed { key: key.clone(), ended, tell, past });
        }
        for (key, item) in &self.open {
            records.push(Record::Planned {
                key: key.clone(),
                fault: item.fault.clone(),
                plan: item.plan.clone(),
                duration: item.duration,
                slot: item.slot,
                boot: item.boot.clone(),
                deadline_ns: item.deadline_ns,
                experiment: item.experiment.clone(),
                at: item.at.clone(),
            });
            records.extend(item.steps.iter().enumerate().filter_map(|(step, progress)| {
                let key = key.clone();
                Some(match progress {
                    Progress::Untouched => return None,
                    Progress::Intended => Record::Intent { key, step },
                    Progress::Done(handle) => Record::Done { key, step, handle: handle.clone() },
                    Progress::AboutToFire(at) => Record::AboutToFire { key, step, at: at.clone() },
                    Progress::Fired(effective) => Record::Fired { key, step, effective: effective.clone() },
                    Progress::Reverted => Record::Reverted { key, step },
                })
            }));
            if let Some(cause) = item.undoing {
                records.push(Record::Undoing { key: key.clone(), cause });
            }
        }
        records
    }
}
