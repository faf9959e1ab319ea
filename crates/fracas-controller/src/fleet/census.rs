//! How many hosts there are of each kind, and how many faults are desired: numbers for whoever watches the controller.

use fracas_model::desired::{FaultItem, Mode};

use super::Fleet;

/// The fleet in numbers. The controller's own observers are counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Hosts in contact.
    pub connected: usize,
    /// Hosts out of contact.
    pub away: usize,
    /// Hosts on which a run was left unconfirmed.
    pub quarantined: usize,
    /// Hosts whose journal is in trouble, so that nobody can say that they are clean.
    pub in_trouble: usize,
    /// Hosts that a person has cordoned.
    pub cordoned: usize,
    /// Hosts whose certificates are revoked.
    pub revoked: usize,
    /// Hosts that seem to be two.
    pub duplicate: usize,
    /// When the first certificate of a host that is not revoked ends, as far as it was seen; seconds of Unix time.
    pub first_end_s: Option<i64>,
    /// Observers in contact.
    pub observers: usize,
    /// Observers out of contact.
    pub observers_away: usize,
    /// Faults that hosts should suffer now; none under a halt.
    pub desired: usize,
    /// Whether everything is halted.
    pub halted: bool,
}

impl Fleet {
    /// Counts, without keeping anybody waiting for long.
    pub fn census(&self) -> Census {
        let state = self.lock();
        let mut census = Census { halted: state.halted.is_some(), ..Census::default() };
        for record in state.hosts.values() {
            let place = match (record.observer, record.connected) {
                (false, true) => &mut census.connected,
                (false, false) => &mut census.away,
                (true, true) => &mut census.observers,
                (true, false) => &mut census.observers_away,
            };
            *place += 1;
            census.quarantined += usize::from(record.quarantined.is_some());
            census.cordoned += usize::from(record.cordoned.is_some());
            census.revoked += usize::from(record.revoked.is_some());
            census.duplicate += usize::from(record.duplicate.is_some());
            let ends = record.certificate.filter(|_| record.revoked.is_none()).map(|validity| validity.until_s);
            census.first_end_s = census.first_end_s.into_iter().chain(ends).min();
            census.in_trouble += usize::from(!record.trouble.is_empty());
        }
        if !census.halted {
            let wishes = state.wishes.values().flat_map(|(_, wishes)| wishes.values());
            let applied = |fault: &&FaultItem| fault.mode == Mode::Apply;
            census.desired = wishes.flat_map(|wish| &wish.faults).filter(applied).count();
        }
        census
    }
}
