//! How a host is known: by which of its certificates, until when, and whether it is one host. Pure; keys and signatures are
//! made elsewhere.
//!
//! A certificate's life is judged by the clock of the controller, which signs and checks: an agent is told how much is left
//! and counts that down on its own boot time, so that its wall clock may be wrong or jump.

mod instances;
mod renewal;
mod serials;

use serde::{Deserialize, Serialize};

pub use self::{
    instances::{Instances, Twins},
    renewal::Renewal,
    serials::{NotNow, Serials, Shown},
};
use crate::units::Dur;

/// Certificates begin this long before they are signed, for hosts whose clocks are slow; but never longer before than they
/// last.
const SLOW_CLOCKS_S: i64 = 3600;

/// From when until when a certificate holds, seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validity {
    /// It does not hold before.
    pub from_s: i64,
    /// It does not hold after.
    pub until_s: i64,
}

impl Validity {
    /// Of a certificate signed at `now_s` to live for `life`, by an authority that ends at `ends_s`.
    pub fn signed_at(now_s: i64, life: Dur, ends_s: i64) -> Self {
        let life_s = (life.ns() / 1_000_000_000).max(1);
        Self { from_s: now_s - life_s.min(SLOW_CLOCKS_S), until_s: (now_s + life_s).min(ends_s) }
    }

    /// How long it was to live when it was signed: without what it begins early.
    pub fn life(self) -> Dur {
        let whole = self.until_s.saturating_sub(self.from_s).max(0);
        let life_s = if whole >= 2 * SLOW_CLOCKS_S { whole - SLOW_CLOCKS_S } else { whole / 2 };
        seconds(life_s)
    }

    /// How much is left of its life, not below zero.
    pub fn left(self, now_s: i64) -> Dur {
        seconds(self.until_s.saturating_sub(now_s).max(0))
    }

    /// Whether it is over.
    pub fn is_over(self, now_s: i64) -> bool {
        now_s > self.until_s
    }

    /// Whether so little is left that somebody should see why it was not renewed.
    pub fn is_low(self, now_s: i64) -> bool {
        is_low(self.left(now_s), self.life())
    }
}

/// Certificates can be for ever, durations cannot.
fn seconds(s: i64) -> Dur {
    Dur::from_secs(s.min(i64::MAX / 1_000_000_000))
}

/// Less than a quarter of its life is left: it should have been renewed when half was left, and was not for long.
fn is_low(left: Dur, life: Dur) -> bool {
    left.ns() < life.ns() / 4
}

/// The shortest pause between two requests of one host for a certificate: a fiftieth of its life, a second to a minute.
fn shortest_pause(life: Dur) -> Dur {
    Dur::from_ns(life.ns() / 50).clamp(Dur::from_secs(1), Dur::from_secs(60))
}

#[cfg(test)]
mod tests;
