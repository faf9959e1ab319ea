//! Instants, each on a named clock, and the only ways to subtract them.
//!
//! A difference on one clock is exact; across clocks it goes through a [`ClockMap`] and is an [`Interval`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::{BootId, HostId},
    units::Dur,
};

/// Which clock a stamp was read from: `CLOCK_BOOTTIME` of one boot of one host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClockId {
    /// The host.
    pub host: HostId,
    /// The boot: boot time starts at zero each time.
    pub boot: BootId,
}

/// An instant as one host saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// The clock `boot_ns` counts on.
    pub clock: ClockId,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: i64,
    /// Nanoseconds since the Unix epoch, for people and for correlation only.
    pub wall_ns: i64,
    /// How far the wall clock may be off, as the kernel knows it; -1 when it is unsynchronised.
    pub bound_ns: i64,
}

/// Two stamps of different clocks were subtracted without a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stamps of two clocks ({0} and {1}) cannot be subtracted without a clock map")]
pub struct ClockMismatch(String, String);

impl Stamp {
    /// `self - earlier` on one clock.
    pub fn since(&self, earlier: &Self) -> Result<Dur, ClockMismatch> {
        if self.clock == earlier.clock {
            Ok(Dur::from_ns(self.boot_ns.saturating_sub(earlier.boot_ns)))
        } else {
            Err(ClockMismatch(self.clock.to_string(), earlier.clock.to_string()))
        }
    }

    /// The same clock, `by` later; the wall time moves along.
    #[must_use]
    pub fn later(&self, by: Dur) -> Self {
        Self {
            boot_ns: self.boot_ns.saturating_add(by.ns()),
            wall_ns: self.wall_ns.saturating_add(by.ns()),
            ..self.clone()
        }
    }
}

impl fmt::Display for ClockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.host, self.boot)
    }
}

/// A length of time known only within bounds, `lo <= truth <= hi`; `hi` is absent when nothing bounds it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The shortest length the observations allow.
    pub lo: Dur,
    /// The longest; `None` for an outage whose end was not seen.
    pub hi: Option<Dur>,
}

impl Interval {
    /// Both bounds known.
    pub fn new(lo: Dur, hi: Dur) -> Self {
        debug_assert!(lo <= hi, "interval turned round: {lo} > {hi}");
        Self { lo, hi: Some(hi) }
    }

    /// At least `lo`.
    pub fn at_least(lo: Dur) -> Self {
        Self { lo, hi: None }
    }

    /// `hi - lo`, when closed.
    pub fn width(&self) -> Option<Dur> {
        self.hi.map(|hi| hi - self.lo)
    }

    /// Whether `value` lies inside, bounds included.
    pub fn contains(&self, value: Dur) -> bool {
        self.lo <= value && self.hi.is_none_or(|hi| value <= hi)
    }

    /// The middle of a closed interval, for charts only: never judge by it.
    pub fn point(&self) -> Option<Dur> {
        self.hi.map(|hi| Dur::from_ns(self.lo.ns() / 2 + hi.ns() / 2))
    }
}

impl fmt::Display for Interval {
    /// Rounded outwards: what is printed contains what is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hi {
            Some(hi) => write!(f, "{} to {}", self.lo.human_down(), hi.human_up()),
            None => write!(f, "at least {}", self.lo.human_down()),
        }
    }
}

/// How one clock reads against another: `to = from + offset`, `lo <= offset <= hi` at instant `at` of `from`.
///
/// Found from a request and its answer: the far clock was read between the near clock's send and receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockMap {
    /// The clock that is translated.
    pub from: ClockId,
    /// The clock it is translated to.
    pub to: ClockId,
    /// When this was known, on `from`, nanoseconds of boot time.
    pub at_ns: i64,
    /// Smallest possible offset, nanoseconds.
    pub lo_ns: i64,
    /// Largest possible offset, nanoseconds.
    pub hi_ns: i64,
}

/// Two disciplined clocks may drift apart by twice the kernel's largest frequency correction, 500 ppm each.
pub const DRIFT_PPM: i64 = 1000;

impl ClockMap {
    /// Where `stamp` (of `from`) lies on `to`: nanoseconds of boot time, earliest and latest. What no clock can show stays
    /// at the end of what can be told.
    pub fn translate(&self, stamp: &Stamp) -> Option<(i64, i64)> {
        if stamp.clock != self.from {
            return None;
        }
        let drift = stamp.boot_ns.saturating_sub(self.at_ns).saturating_abs() / 1_000_000 * DRIFT_PPM;
        let (lo, hi) = (stamp.boot_ns.saturating_add(self.lo_ns), stamp.boot_ns.saturating_add(self.hi_ns));
        Some((lo.saturating_sub(drift), hi.saturating_add(drift)))
    }

    /// The map the other way round.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
            at_ns: self.at_ns.saturating_add(i64::midpoint(self.lo_ns, self.hi_ns)),
            lo_ns: self.hi_ns.saturating_neg(),
            hi_ns: self.lo_ns.saturating_neg(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(host: &str, boot_ns: i64) -> Stamp {
        let clock = ClockId { host: host.into(), boot: "b".into() };
        Stamp { clock, boot_ns, wall_ns: 0, bound_ns: 0 }
    }

    #[test]
    fn instants_that_no_clock_shows_are_translated_too() {
        let (from, to) = (stamp("a", 0).clock, stamp("b", 0).clock);
        for ns in [i64::MIN, -1, 0, i64::MAX] {
            let map = ClockMap { from: from.clone(), to: to.clone(), at_ns: ns, lo_ns: ns, hi_ns: ns };
            for at in [i64::MIN, -1, 0, i64::MAX] {
                let (lo, hi) = map.translate(&stamp("a", at)).unwrap();
                assert!(lo <= hi, "{ns} {at}");
                assert!(map.inverse().translate(&stamp("b", at)).is_some());
            }
        }
    }

    #[test]
    fn one_clock_subtracts_and_two_do_not() {
        assert_eq!(stamp("a", 5).since(&stamp("a", 2)), Ok(Dur::from_ns(3)));
        assert!(stamp("a", 5).since(&stamp("b", 2)).is_err());
    }

    #[test]
    fn a_map_widens_with_distance_and_turns_round() {
        let (a, b) = (stamp("a", 10_000_000_000), stamp("b", 0).clock);
        let map = ClockMap { from: a.clock.clone(), to: b, at_ns: 10_000_000_000, lo_ns: 100, hi_ns: 300 };
        assert_eq!(map.translate(&a), Some((10_000_000_100, 10_000_000_300)));
        let (lo, hi) = map.translate(&a.later(Dur::from_secs(10))).unwrap();
        assert_eq!(hi - lo, 200 + 2 * 10_000_000);
        let back = map.inverse();
        assert_eq!((back.lo_ns, back.hi_ns), (-300, -100));
    }
}
