//! Which certificates of a host count, as its history tells, and whether one agent uses them. Both are decided by the model.

use fracas_model::{
    id::HostId,
    identity::{NotNow, Shown, Validity},
};

use super::{Fleet, HostError, HostRecord, State};

/// Who opens a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Random name of the agent's process; empty: an older agent.
    pub instance: String,
    /// Where it calls from.
    pub address: String,
}

impl State {
    /// Whether whoever opens a session is to be asked for no fault yet: another agent of the host had one until now, and if
    /// that lives it will be back in a moment.
    ///
    /// # Errors
    /// Why it gets no session.
    pub(super) fn takes_over(&self, host: &HostId, caller: &Caller) -> Result<bool, HostError> {
        let record = self.hosts.get(host);
        if let Some(why) = record.and_then(|record| record.revoked.clone()) {
            return Err(HostError::Revoked { host: host.clone(), why });
        }
        let other = self.sessions.get(host).is_some_and(|session| session.caller.instance != caller.instance);
        if let (true, Some(why)) = (other, record.and_then(|record| record.duplicate.clone())) {
            return Err(HostError::Duplicate { host: host.clone(), why });
        }
        let known = self.instances.get(host).is_some_and(|instances| instances.knows(&caller.instance));
        Ok(other && !known && !caller.instance.is_empty())
    }
}

impl Fleet {
    /// A host that may be served.
    ///
    /// # Errors
    /// Why it may not: it was never enrolled here, or it was taken out of the fleet.
    pub fn admitted(&self, host: &HostId) -> Result<HostRecord, HostError> {
        let state = self.lock();
        if state.forgotten.contains(host) {
            return Err(HostError::Forgotten(host.clone()));
        }
        let record = state.hosts.get(host).cloned().ok_or_else(|| HostError::Unknown(host.clone()))?;
        match record.revoked {
            Some(why) => Err(HostError::Revoked { host: host.clone(), why }),
            None => Ok(record),
        }
    }

    /// From now on no certificate of a host is accepted: its session ends, as if it had been lost.
    pub fn revoke(&self, host: &HostId, why: &str) {
        let mut state = self.lock();
        if let Some(record) = state.hosts.get_mut(host) {
            record.revoked = Some(why.to_owned());
            record.connected = false;
            record.address.clear();
        }
        state.sessions.remove(host);
        drop(state);
        self.changed.send_replace(());
    }

    /// The agent of a session has answered what it was told in it; what that proves, if it proves that there are two. From
    /// then on nothing is desired of the host.
    pub fn lives(&self, host: &HostId, number: u64) -> Option<String> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(host).filter(|session| session.number == number && !session.lives)?;
        session.lives = true;
        let caller = session.caller.clone();
        let twins = state.instances.entry(host.clone()).or_default().lives(&caller.instance, &caller.address)?;
        drop(state);
        self.duplicate(host, &twins.to_string())
    }

    /// A host seems to be two: nothing is desired of it any more. What was seen, if that is news.
    pub fn duplicate(&self, host: &HostId, why: &str) -> Option<String> {
        let mut state = self.lock();
        let record = state.hosts.get_mut(host).filter(|record| record.duplicate.is_none())?;
        record.duplicate = Some(why.to_owned());
        state.push();
        drop(state);
        self.changed.send_replace(());
        Some(why.to_owned())
    }

    /// A host is one again.
    pub fn trust(&self, host: &HostId) {
        let mut state = self.lock();
        if let Some(record) = state.hosts.get_mut(host) {
            record.duplicate = None;
        }
        state.instances.remove(host);
        state.push();
        drop(state);
        self.changed.send_replace(());
    }

    /// Nobody else was heard of the host for long enough: whoever has the session is asked for faults too.
    pub fn end_probation(&self, host: &HostId, number: u64) {
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(host).filter(|session| session.number == number) else { return };
        session.probation = false;
        state.push();
        drop(state);
        self.changed.send_replace(());
    }

    /// A certificate was signed for a host; `until_s` is when it ends, if that is known.
    pub fn certificate_signed(&self, host: &HostId, serial: &str, until_s: Option<i64>, now_s: i64) {
        self.lock().serials.entry(host.clone()).or_default().signed(serial, until_s, now_s);
    }

    /// A host uses a certificate: earlier ones do not count any more.
    pub fn certificate_used(&self, host: &HostId, serial: &str) {
        self.lock().serials.entry(host.clone()).or_default().used(serial);
    }

    /// What a certificate of a host is.
    pub fn certificate_shown(&self, host: &HostId, serial: &str) -> Shown {
        self.lock().serials.get(host).map_or(Shown::Current, |serials| serials.look(serial))
    }

    /// Whether a certificate of a host may be renewed now; if so, that counts as signing one.
    ///
    /// # Errors
    /// Why it may not.
    pub fn certificate_may_renew(
        &self,
        host: &HostId,
        validity: Validity,
        now_s: i64,
        boot_ns: i64,
    ) -> Result<(), NotNow> {
        self.lock().serials.entry(host.clone()).or_default().may_renew(validity, now_s, boot_ns)
    }
}
