//! What a host should be suffering and watching now: the whole set, never a command.

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::Params,
    id::{ItemKey, LedgerId, ProbeId, RunId},
    stop::StopWhen,
    units::Dur,
};

/// The union over all runs, for one host. An agent refuses a lower (epoch, revision) than the last it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Rises each time a controller starts on its database.
    pub epoch: u64,
    /// Rises with each change within an epoch.
    pub revision: u64,
    /// How long the faults may live without contact, counted from the agent's own stamp in a grant.
    pub lease: Dur,
    /// Faults that should be active, or be rehearsed.
    pub faults: Vec<FaultItem>,
    /// Probes that should run.
    pub probes: Vec<ProbeItem>,
    /// Ledgers that should be kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ledgers: Vec<LedgerItem>,
}

/// What is to be done about a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LedgerWork {
    /// Write markers.
    Write,
    /// Write no more, and read back what is there.
    Read,
    /// What was read is kept: remove the place with all that is in it.
    Drop,
}

/// One ledger of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerItem {
    /// The run that asks.
    pub run: RunId,
    /// The ledger in its document.
    pub ledger: LedgerId,
    /// Name in the catalogue.
    pub kind: String,
    /// Checked parameters.
    pub params: Params,
    /// From the sending of one marker to the next.
    pub every: Dur,
    /// When a marker counts as unknown.
    pub timeout: Dur,
    /// Where: [`crate::ledger::place`].
    pub place: String,
    /// Whose it is: [`crate::ledger::token`].
    pub token: String,
    /// The history says that the place was made: it is not made again, whatever has become of it.
    pub made: bool,
    /// What now.
    pub work: LedgerWork,
    /// The longest it goes on without being asked for again.
    pub until: Dur,
}

/// Whether to do it or only to say what would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Answer with a plan or refusals; change nothing.
    Rehearse,
    /// Do it.
    Apply,
}

/// One fault on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultItem {
    /// Identity.
    pub key: ItemKey,
    /// Rehearse or apply.
    pub mode: Mode,
    /// The experiment's name, for people who read the host's own history.
    #[serde(default)]
    pub experiment: String,
    /// Name in the catalogue.
    pub fault: String,
    /// Checked parameters.
    pub params: Params,
    /// How long it may last on the host from the moment it is applied; `None` for spent faults.
    pub duration: Option<Dur>,
    /// The digest of the plan that was rehearsed; the agent refuses another plan.
    pub plan_digest: Option<String>,
}

/// One probe from one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeItem {
    /// The run that asks.
    pub run: RunId,
    /// The probe in its document.
    pub probe: ProbeId,
    /// Name in the catalogue.
    pub kind: String,
    /// Checked parameters.
    pub params: Params,
    /// From start to start.
    pub every: Dur,
    /// Nothing is at stake for now: so much from start to start will do. It is the same probe with or without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_rest: Option<Dur>,
    /// When a look that has not ended counts as failed.
    pub timeout: Dur,
    /// The run depends on these: the first look by which one is met is told at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<StopWhen>,
    /// The longest it runs without being asked for again: it ends with its run even if nobody says so.
    pub until: Dur,
}
