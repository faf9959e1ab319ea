//! How long faults may live without contact. It counts on the host's own boot time, from the stamp that a grant echoes.

use std::{cell::Cell, rc::Rc};

use fracas_model::units::Dur;

/// A shared end of the lease. Clones are the same lease, so that a session can grant while a tick waits for the host.
#[derive(Clone, Debug)]
pub struct Lease(Rc<Cell<i64>>);

impl Default for Lease {
    /// Never granted.
    fn default() -> Self {
        Self(Rc::new(Cell::new(i64::MIN)))
    }
}

impl Lease {
    /// Faults may live until the stamp this host sent (`echo_ns`, boot time) plus `lease`. An echo from the future
    /// was never sent by this boot of this host and grants nothing. A grant that was overtaken shortens nothing.
    pub fn grant(&self, now_ns: i64, echo_ns: i64, lease: Dur) {
        if (0..=now_ns).contains(&echo_ns) {
            self.0.set(self.0.get().max(echo_ns.saturating_add(lease.ns())));
        }
    }

    /// Whether it runs at this boot time.
    pub fn runs(&self, now_ns: i64) -> bool {
        now_ns < self.0.get()
    }

    /// Its end, boot time; far in the past when never granted.
    pub fn until_ns(&self) -> i64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_from_the_echo_and_not_from_arrival() {
        let lease = Lease::default();
        assert!(!lease.runs(0));
        lease.grant(1_000, 400, Dur::from_ns(1_000));
        assert!(lease.runs(1_399) && !lease.runs(1_400));
        lease.grant(1_100, 300, Dur::from_ns(1_000));
        assert_eq!(lease.until_ns(), 1_400, "an older echo shortens nothing");
        lease.grant(1_100, 1_101, Dur::from_ns(1_000));
        assert_eq!(lease.until_ns(), 1_400, "an echo of the future grants nothing");
    }
}
