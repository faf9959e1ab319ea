//! How long faults may live without contact. It counts on the host's own boot time, from the stamp that a grant echoes.

use std::{cell::Cell, rc::Rc};

use fracas_model::units::Dur;

/// A shared lease. Clones are the same lease, so that a session can grant while a tick waits for the host.
#[derive(Clone, Debug, Default)]
pub struct Lease(Rc<Terms>);

#[derive(Debug)]
struct Terms {
    /// Stamp that the newest grant echoes; far in the past when there was none.
    echo_ns: Cell<i64>,
    /// How long that grant is good for.
    granted: Cell<Dur>,
    /// The longest that the faults desired now may live without contact.
    asked: Cell<Option<Dur>>,
}

impl Default for Terms {
    /// Never granted.
    fn default() -> Self {
        Self { echo_ns: Cell::new(i64::MIN), granted: Cell::default(), asked: Cell::default() }
    }
}

impl Lease {
    /// Faults may live until the stamp this host sent (`echo_ns`, boot time) plus `lease`. An echo from the future
    /// was never sent by this boot of this host and grants nothing; neither does a grant that was overtaken.
    pub fn grant(&self, now_ns: i64, echo_ns: i64, lease: Dur) {
        if (0..=now_ns).contains(&echo_ns) && echo_ns >= self.0.echo_ns.get() {
            self.0.echo_ns.set(echo_ns);
            self.0.granted.set(lease);
        }
    }

    /// Faults that are desired now live no longer than this without contact, also on a grant from before, which may have
    /// been longer since nothing was active then. `None`: nothing is desired.
    pub fn ask(&self, lease: Option<Dur>) {
        self.0.asked.set(lease);
    }

    /// Whether it runs at this boot time.
    pub fn runs(&self, now_ns: i64) -> bool {
        now_ns < self.until_ns()
    }

    /// Its end, boot time; far in the past when never granted.
    pub fn until_ns(&self) -> i64 {
        let granted = self.0.granted.get();
        let length = self.0.asked.get().map_or(granted, |asked| asked.min(granted));
        self.0.echo_ns.get().saturating_add(length.ns())
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

    #[test]
    fn what_was_granted_while_nothing_was_active_does_not_prolong_a_short_lease() {
        let lease = Lease::default();
        lease.grant(1_000, 1_000, Dur::from_ns(15_000));
        lease.ask(Some(Dur::from_ns(3_000)));
        assert_eq!(lease.until_ns(), 4_000);
        lease.grant(2_000, 2_000, Dur::from_ns(3_000));
        assert_eq!(lease.until_ns(), 5_000);
        lease.ask(Some(Dur::from_ns(60_000)));
        assert_eq!(lease.until_ns(), 5_000, "only a grant makes it longer");
        lease.grant(3_000, 3_000, Dur::from_ns(60_000));
        assert_eq!(lease.until_ns(), 63_000);
        lease.ask(None);
        assert_eq!(lease.until_ns(), 63_000);
    }
}
