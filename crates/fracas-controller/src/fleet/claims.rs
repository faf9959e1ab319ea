//! Which run has which host for its faults: one at a time. What claims on one host may stand together is the agent's
//! business.

use std::collections::{BTreeMap, BTreeSet};

use fracas_model::{
    id::{HostId, RunId},
    plan::Refusal,
};

use super::Fleet;

/// A host that a run wants for a fault is another run's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The host.
    pub host: HostId,
    /// The run that has it.
    pub run: RunId,
}

/// The hosts that runs have for faults, from their plan to their end.
pub(super) type Claims = BTreeMap<RunId, BTreeSet<HostId>>;

/// Whether `run` may have `hosts` beside the claims of others; the first host that another has stands in the way.
pub fn admit(claims: &Claims, run: &RunId, hosts: &BTreeSet<HostId>) -> Result<(), Claimed> {
    for (other, theirs) in claims.iter().filter(|(other, _)| *other != run) {
        if let Some(host) = theirs.intersection(hosts).next() {
            return Err(Claimed { host: host.clone(), run: other.clone() });
        }
    }
    Ok(())
}

/// Why a run does not get its hosts.
#[derive(Clone, Debug, PartialEq)]
pub enum NotAdmitted {
    /// Another run has one.
    Claimed(Claimed),
    /// Guard-rails of the fleet.
    GuardRails(Vec<Refusal>),
}

impl Fleet {
    /// Gives a run these hosts for its faults until it is [forgotten](Self::forget), if guard-rails allow; all or none.
    pub fn claim(&self, run: &RunId, hosts: BTreeSet<HostId>) -> Result<(), NotAdmitted> {
        let mut state = self.lock();
        admit(&state.claims, run, &hosts).map_err(NotAdmitted::Claimed)?;
        let refusals = state.admit(run, &hosts);
        if !refusals.is_empty() {
            return Err(NotAdmitted::GuardRails(refusals));
        }
        state.claims.insert(run.clone(), hosts);
        Ok(())
    }

    /// Gives a run that is taken up the hosts that it had, whatever guard-rails say by now.
    pub fn reclaim(&self, run: &RunId, hosts: BTreeSet<HostId>) -> Result<(), Claimed> {
        let mut state = self.lock();
        admit(&state.claims, run, &hosts)?;
        state.claims.insert(run.clone(), hosts);
        Ok(())
    }

    /// A run has no claim to any host any more.
    pub fn release(&self, run: &RunId) {
        self.lock().claims.remove(run);
    }
}
