//! What the journal says, record by record. Each is self-contained; what they mean together is `state`'s.

use fracas_model::{
    event::{Between, Body, UndoCause},
    id::{BootId, ItemKey},
    plan::Plan,
    time::Stamp,
    units::Dur,
};
use serde::{Deserialize, Serialize};

use crate::host::Handle;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "record", rename_all_fields = "camelCase")]
pub enum Record {
    /// An agent or guard opened the journal.
    Opened {
        /// The boot it did so in.
        boot: BootId,
        /// Its version.
        agent_version: String,
        /// Which fleet the host belongs to: digest of its authority's certificate; empty when the opener does not care.
        #[serde(default)]
        fleet: String,
    },
    /// Everything needed to undo the item without any other source. Synced before its first step.
    Planned {
        /// The item.
        key: ItemKey,
        /// The fault's name.
        fault: String,
        /// What will be done.
        plan: Plan,
        /// How long it may last once applied; `None` for spent faults.
        duration: Option<Dur>,
        /// Its small number on this host.
        slot: u16,
        /// The boot it belongs to.
        boot: BootId,
        /// Boot time by which it should be over, had it been applied at once.
        deadline_ns: i64,
        /// The experiment's name.
        #[serde(default)]
        experiment: String,
        /// When this was written.
        #[serde(default)]
        at: Option<Stamp>,
    },
    /// A held or reversible step is about to be applied. Synced before reversible ones.
    Intent {
        /// The item.
        key: ItemKey,
        /// Index in the plan.
        step: usize,
    },
    /// A held or reversible step was applied.
    Done {
        /// The item.
        key: ItemKey,
        /// Index in the plan.
        step: usize,
        /// What undo needs.
        handle: Handle,
    },
    /// A spent step is about to fire. Synced before it does; after this it never fires again.
    AboutToFire {
        /// The item.
        key: ItemKey,
        /// Index in the plan.
        step: usize,
        /// When.
        at: Stamp,
    },
    /// A spent step fired.
    Fired {
        /// The item.
        key: ItemKey,
        /// Index in the plan.
        step: usize,
        /// When.
        effective: Between,
    },
    /// Undo began; an agent that finds this goes on with the same cause.
    Undoing {
        /// The item.
        key: ItemKey,
        /// Why.
        cause: UndoCause,
    },
    /// A step was undone, and that was read back.
    Reverted {
        /// The item.
        key: ItemKey,
        /// Index in the plan.
        step: usize,
    },
    /// The item has ended on this host and will never be applied again.
    Closed {
        /// The item.
        key: ItemKey,
        /// How.
        ended: Ended,
        /// The facts that tell of it, told again after a crash until a [`Record::Reported`] follows.
        tell: Vec<Body>,
        /// What a person may want to read of it later.
        #[serde(default)]
        past: Option<Past>,
    },
    /// The facts of an item's end are in the outbox.
    Reported {
        /// The item.
        key: ItemKey,
    },
    /// A desired state was taken; no lower one may follow.
    Taken {
        /// Its epoch.
        epoch: u64,
        /// Its revision.
        revision: u64,
    },
}

/// An item that has ended, in words and times for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// The experiment's name.
    pub experiment: String,
    /// The fault's name.
    pub fault: String,
    /// What it did, or why it was refused.
    pub what: String,
    /// When its plan was written; `None` when it came to no plan.
    pub from: Option<Stamp>,
    /// When it ended.
    pub to: Stamp,
}

/// How an item ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// It was undone.
    Undone(UndoCause),
    /// It fired, or may have.
    Spent,
    /// It was refused; nothing was changed.
    Refused,
}
