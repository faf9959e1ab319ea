//! When an agent asks for its next certificate: at half the life of the present one, and then again and again, slower and
//! slower.
//!
//! ```text
//! unknown --told by a controller--> waits --half is over--> due --failed--> waits for another try
//!                                     ^                                            |
//!                                     +-------------- told anew, of the next one --+
//! ```
//!
//! All instants are the agent's boot time, nanoseconds.

use super::{is_low, shortest_pause};
use crate::units::Dur;

/// When what is left has fallen to this share of the life, the earliest hosts ask; the last ones [`SPREAD`] later.
const AT: f64 = 0.5;
/// Hosts that joined together do not ask together.
const SPREAD: f64 = 0.1;
/// Longest pause between attempts.
const PAUSE_MOST: Dur = Dur::from_secs(3600);
/// How often it is said that little is left.
const WARN_EVERY: Dur = Dur::from_secs(3600);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renewal {
    /// What the controller said last of the certificate in use.
    known: Option<Known>,
    failed: u32,
    not_before_ns: i64,
    warned_ns: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    life: Dur,
    ends_ns: i64,
    due_ns: i64,
}

impl Renewal {
    /// A controller says how much is left of the certificate in use, and how long it lives; a life of nothing when it does
    /// not know, as older ones. `drawn`, 0 to 1, spreads hosts.
    pub fn told(&mut self, left: Dur, life: Dur, now_ns: i64, drawn: f64) {
        if life.ns() <= 0 {
            self.known = None;
            return;
        }
        // Nothing on the wire makes an instant that is none.
        let (life, left) = (life.min(MOST), left.min(MOST));
        let ends_ns = now_ns.saturating_add(left.ns());
        let share = AT - SPREAD * drawn.clamp(0.0, 1.0);
        let due_ns = ends_ns.saturating_sub((life.ns() as f64 * share) as i64);
        self.known = Some(Known { life, ends_ns, due_ns });
    }

    /// When the next attempt is due; `None` while no controller has said anything.
    pub fn due_ns(&self) -> Option<i64> {
        self.known.map(|known| known.due_ns.max(self.not_before_ns))
    }

    /// An attempt did not succeed.
    pub fn failed(&mut self, now_ns: i64, drawn: f64) {
        let life = self.known.map_or(PAUSE_MOST, |known| known.life);
        let base = shortest_pause(life);
        let most = Dur::from_ns(life.ns() / 10).clamp(base, PAUSE_MOST);
        let pause = Dur::from_ns(base.ns().saturating_mul(1 << self.failed.min(16))).min(most);
        self.failed = self.failed.saturating_add(1);
        self.not_before_ns = now_ns.saturating_add((pause.ns() as f64 * (1.0 + 0.5 * drawn.clamp(0.0, 1.0))) as i64);
    }

    /// There is a new certificate, and nothing is known of it until a controller sees it.
    pub fn done(&mut self, now_ns: i64) {
        let life = self.known.take().map_or(PAUSE_MOST, |known| known.life);
        *self = Self { not_before_ns: now_ns.saturating_add(shortest_pause(life).ns()), ..Self::default() };
    }

    /// How much is left, if that is little and was not said for a while.
    pub fn warning(&mut self, now_ns: i64) -> Option<Dur> {
        let Known { life, ends_ns, .. } = self.known?;
        let left = Dur::from_ns(ends_ns.saturating_sub(now_ns).max(0));
        let every = Dur::from_ns(life.ns() / 20).min(WARN_EVERY);
        let said = self.warned_ns.is_some_and(|at| now_ns.saturating_sub(at) < every.ns());
        if !is_low(left, life) || said {
            return None;
        }
        self.warned_ns = Some(now_ns);
        Some(left)
    }
}

/// A hundred years: no life is longer.
const MOST: Dur = Dur::from_secs(36_525 * 86_400);
