//! The fleet as guard-rails and draws see it, and what the guard-rails say of it. The rules themselves are the model's.

use std::{collections::BTreeSet, sync::Arc};

use fracas_model::{
    guard::{self, GuardRails},
    id::{HostId, RunId},
    plan::Refusal,
    target::HostView,
};

use super::{Fleet, State};

impl Fleet {
    /// From now on these guard-rails hold.
    pub fn set_rails(&self, rails: GuardRails) {
        self.lock().rails = Arc::new(rails);
        // Runs look whether they may go on.
        self.changed.send_replace(());
    }

    /// The guard-rails.
    pub fn rails(&self) -> Arc<GuardRails> {
        Arc::clone(&self.lock().rails)
    }

    /// Every host, for a run: what that one has itself is not taken.
    pub fn views(&self, run: &RunId) -> Vec<HostView> {
        self.lock().views(run)
    }

    /// Why guard-rails do not allow a run these hosts now, if so.
    pub fn admits(&self, run: &RunId, wants: &BTreeSet<HostId>) -> Vec<Refusal> {
        self.lock().admit(run, wants)
    }

    /// Why a run that has its hosts must not go on, if so: guard-rails, or a host that is not what it was.
    pub fn broken(&self, run: &RunId) -> Option<String> {
        let state = self.lock();
        if let Some(why) = state.duplicated(run) {
            return Some(why);
        }
        if !state.rails.limits.iter().any(|limit| limit.min_healthy.is_some()) {
            return None;
        }
        let has = state.claims.get(run)?;
        guard::broken(&state.rails, &state.views(run), has)
    }
}

impl State {
    /// Which host that a run has for a fault seems to be two, and why.
    fn duplicated(&self, run: &RunId) -> Option<String> {
        self.claims.get(run)?.iter().find_map(|host| {
            let record = self.hosts.get(host)?;
            record.duplicate.as_ref().map(|why| format!("host {} seems to be two: {why}", record.name))
        })
    }

    pub(super) fn admit(&self, run: &RunId, wants: &BTreeSet<HostId>) -> Vec<Refusal> {
        if self.rails.limits.is_empty() || wants.is_empty() {
            return Vec::new();
        }
        guard::admit(&self.rails, &self.views(run), wants)
    }

    fn views(&self, run: &RunId) -> Vec<HostView> {
        let taken = |host: &HostId| {
            let others = self.claims.iter().filter(|(other, _)| *other != run);
            others.filter(|(_, hosts)| hosts.contains(host)).map(|(other, _)| other.clone()).next()
        };
        let view = |(id, record): (&HostId, &super::HostRecord)| HostView {
            id: id.clone(),
            name: record.name.clone(),
            labels: record.all_labels(),
            environment: record.environment().to_owned(),
            connected: record.connected,
            quarantined: record.distrust(),
            cordoned: record.cordoned.clone(),
            taken: taken(id),
            observer: record.observer,
        };
        self.hosts.iter().map(view).collect()
    }
}
