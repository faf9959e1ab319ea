//! Which of a host's certificates still counts: the one it used last, and any that was signed later. Once a later one was
//! used, nobody honest has the earlier ones any more.

use std::fmt;

use super::{Validity, shortest_pause};
use crate::units::Dur;

/// A certificate is not renewed while more than this share of its life is left: three quarters.
const EARLIEST: (i64, i64) = (3, 4);

/// The certificates of one host in the order in which they were signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serials {
    pub(super) known: Vec<Known>,
    /// How many of `known` were signed up to the one used last.
    used: usize,
    /// When the last one was signed, on the controller's boot time; unknown after its restart.
    signed_ns: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    serial: String,
    /// Unknown for those of older histories.
    until_s: Option<i64>,
}

/// What a certificate that somebody shows is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The one that was used last, or the first ever.
    Current,
    /// One that was signed later than the one used last, whose serial is this.
    Newer(String),
    /// An earlier one.
    Superseded,
}

/// Why a certificate is not renewed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Most of its life is left.
    Early(Dur),
    /// The last one was signed just before.
    Soon(Dur),
}

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Early(left) => {
                write!(f, "the certificate is good for {} yet: it is renewed at half its life", left.human_down())
            }
            Self::Soon(pause) => {
                write!(f, "one was signed for this host less than {} ago: ask later", pause.human_up())
            }
        }
    }
}

impl Serials {
    /// A certificate was signed for the host. Those that are over by then are forgotten: no handshake succeeds with them.
    pub fn signed(&mut self, serial: &str, until_s: Option<i64>, now_s: i64) {
        if self.known.iter().any(|known| known.serial == serial) {
            return;
        }
        self.known.push(Known { serial: serial.to_owned(), until_s });
        let used = self.used;
        let mut at = 0;
        self.known.retain(|known| {
            at += 1;
            // The one used last stays, whatever its age: it tells what is earlier.
            let over = at < used && known.until_s.is_some_and(|until| until < now_s);
            self.used -= usize::from(over);
            !over
        });
    }

    /// What a certificate is. One that is in no history was signed in a later life than this one, which then is a copy that
    /// was restored.
    pub fn look(&self, serial: &str) -> Shown {
        let last = || self.used.checked_sub(1).map(|at| self.known[at].serial.clone());
        match self.known.iter().position(|known| known.serial == serial) {
            Some(at) if at + 1 < self.used => Shown::Superseded,
            Some(at) if at + 1 == self.used => Shown::Current,
            Some(0) => Shown::Current,
            Some(at) => Shown::Newer(last().unwrap_or_else(|| self.known[at - 1].serial.clone())),
            None => last()
                .or_else(|| self.known.last().map(|known| known.serial.clone()))
                .map_or(Shown::Current, Shown::Newer),
        }
    }

    /// A certificate is used: from now on earlier ones are superseded.
    pub fn used(&mut self, serial: &str) {
        let at = self.known.iter().position(|known| known.serial == serial).unwrap_or_else(|| {
            self.known.push(Known { serial: serial.to_owned(), until_s: None });
            self.known.len() - 1
        });
        self.used = self.used.max(at + 1);
    }

    /// Whether a certificate of this validity may be renewed now; if so, that counts as signing one. `boot_ns` is the
    /// controller's boot time.
    pub fn may_renew(&mut self, validity: Validity, now_s: i64, boot_ns: i64) -> Result<(), NotNow> {
        let (left, life) = (validity.left(now_s), validity.life());
        if left.ns() / EARLIEST.1 > life.ns() / EARLIEST.1 / EARLIEST.1 * EARLIEST.0 {
            return Err(NotNow::Early(left));
        }
        // Half of what agents wait at least, whose clocks are not quite ours.
        let pause = Dur::from_ns(shortest_pause(life).ns() / 2);
        if self.signed_ns.is_some_and(|at| boot_ns.saturating_sub(at) < pause.ns()) {
            return Err(NotNow::Soon(pause));
        }
        self.signed_ns = Some(boot_ns);
        Ok(())
    }
}
