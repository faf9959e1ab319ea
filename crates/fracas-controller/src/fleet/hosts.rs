//! What hosts bring into the fleet, the union of their catalogues, and how a host leaves it for good. It records nothing:
//! whoever calls has the history say so.

use std::{collections::BTreeMap, sync::Arc};

use fracas_model::{
    catalogue::{AgentVersion, Catalogue},
    id::{HostId, RunId},
};

use super::Fleet;
use crate::chain::Digest;

/// Which offer: agents of one version that know the same share one. The later in order is the more trusted.
pub type OfferKey = (AgentVersion, Digest);

/// What an agent says that it knows.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// Its version, and SHA-256 of the text it sent.
    pub key: OfferKey,
    /// What it knows.
    pub catalogue: Arc<Catalogue>,
}

/// Why a host cannot be forgotten, or cannot connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It was taken out of the fleet.
    #[error("host {0} was forgotten here: if it is to come back, enrol it anew with a new token")]
    Forgotten(HostId),
    /// None of its certificates is accepted any more.
    #[error(
        "host {host} is revoked: {why}; if it is to come back, remove key.pem, cert.pem, ca.pem and host_id from the agent's \
         state directory and enrol it anew with a new token"
    )]
    Revoked {
        /// The host.
        host: HostId,
        /// As a person said.
        why: String,
    },
    /// Another agent of the same identity is in contact.
    #[error(
        "host {host} seems to be two, so only one agent of it is served: {why}; stop the copy, then say so with `fracas hosts trust`"
    )]
    Duplicate {
        /// The host.
        host: HostId,
        /// What was seen.
        why: String,
    },
    /// It is none of ours.
    #[error("host {0} was never enrolled here: enrol it anew")]
    Unknown(HostId),
    /// Its agent still runs.
    #[error("host {0} is in contact: stop its agent first")]
    Connected(String),
    /// A run may still have something on it.
    #[error("host {name} takes part in run {run}: wait for its end, or stop it with `fracas stop {run}`")]
    Busy {
        /// Its name.
        name: String,
        /// The run.
        run: RunId,
    },
    /// A run was left unconfirmed on it.
    #[error(
        "host {name} is quarantined, run {run} was left unconfirmed on it: see that it is clean, then say so with \
         `fracas hosts write-off`"
    )]
    Quarantined {
        /// Its name.
        name: String,
        /// The run.
        run: RunId,
    },
}

impl Fleet {
    /// Everything documents may name, as far as the agents of known hosts have told. Where they differ the newest
    /// version counts, among those of one version what most hosts say.
    pub fn catalogue(&self) -> Catalogue {
        let mut known: BTreeMap<OfferKey, (usize, Arc<Catalogue>)> = BTreeMap::new();
        {
            let state = self.lock();
            for key in state.hosts.values().filter_map(|record| record.offer) {
                let Some(catalogue) = state.offers.get(&key) else { continue };
                known.entry(key).or_insert_with(|| (0, Arc::clone(catalogue))).0 += 1;
            }
        }
        let mut offers: Vec<_> = known.into_iter().map(|((v, digest), (hosts, c))| (v, hosts, digest, c)).collect();
        offers.sort_by_key(|(version, hosts, digest, _)| std::cmp::Reverse((*version, *hosts, *digest)));
        Catalogue::united(offers.iter().map(|(.., catalogue)| &**catalogue))
    }

    /// From now on a host cannot connect; [`keep_host`](Self::keep_host) takes that back.
    ///
    /// # Errors
    /// When it is in contact, or something of ours may be on it.
    pub fn forget_host(&self, host: &HostId) -> Result<(), HostError> {
        let mut state = self.lock();
        let Some(record) = state.hosts.get(host) else { return Err(HostError::Forgotten(host.clone())) };
        let name = record.name.clone();
        if record.connected {
            return Err(HostError::Connected(name));
        }
        if let Some(run) = record.quarantined.clone() {
            return Err(HostError::Quarantined { name, run });
        }
        let busy = state.wishes.iter().find(|(_, (_, wishes))| wishes.contains_key(host)).map(|(run, _)| run);
        let busy = busy.or_else(|| state.claims.iter().find(|(_, hosts)| hosts.contains(host)).map(|(run, _)| run));
        if let Some(run) = busy.cloned() {
            return Err(HostError::Busy { name, run });
        }
        state.forgotten.insert(host.clone());
        Ok(())
    }

    /// Forgetting it did not succeed.
    pub fn keep_host(&self, host: &HostId) {
        self.lock().forgotten.remove(host);
    }

    /// The host is no more: its history says so.
    pub fn drop_host(&self, host: &HostId) {
        let mut state = self.lock();
        state.forgotten.insert(host.clone());
        state.hosts.remove(host);
        state.serials.remove(host);
        state.instances.remove(host);
        state.prune_offers();
    }

    /// Whether a host was taken out of the fleet, or is about to be.
    pub fn is_forgotten(&self, host: &HostId) -> bool {
        self.lock().forgotten.contains(host)
    }
}
