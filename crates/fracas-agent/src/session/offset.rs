//! How the controller's clock reads against this host's, bounded by each renewal and its grant. Pure.

use fracas_model::time::{ClockId, ClockMap, DRIFT_PPM};

/// The best that is known.
#[derive(Clone, Debug, Default)]
pub struct Offset {
    map: Option<ClockMap>,
}

/// One exchange, nanoseconds of boot time on the clock of whoever read them.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// This host sent.
    pub sent: i64,
    /// The controller received, and answered.
    pub far_received: i64,
    /// The controller's answer left.
    pub far_sent: i64,
    /// This host received.
    pub received: i64,
}

impl Offset {
    /// Takes an exchange between clocks `near` and `far`; gives what is known now.
    ///
    /// The request arrived after it was sent, so the offset is at most `far_received - sent`; the answer left before it
    /// arrived, so it is at least `far_sent - received`. Earlier bounds still hold, widened by the drift since.
    pub fn see(&mut self, near: &ClockId, far: &ClockId, exchange: Exchange) -> Option<&ClockMap> {
        let (lo, hi) = (exchange.far_sent - exchange.received, exchange.far_received - exchange.sent);
        if lo > hi || exchange.sent > exchange.received {
            // No two clocks that run forward give this: an echo that was not ours, or a clock that was set.
            return None;
        }
        let fresh = ClockMap { from: near.clone(), to: far.clone(), at_ns: exchange.received, lo_ns: lo, hi_ns: hi };
        let known = self.map.take().filter(|m| m.from == *near && m.to == *far).map(|m| at(&m, exchange.received));
        let both = known.map(|m| ClockMap { lo_ns: m.lo_ns.max(lo), hi_ns: m.hi_ns.min(hi), ..fresh.clone() });
        // Bounds that do not meet mean that one clock jumped: only the fresh ones count.
        Some(self.map.insert(both.filter(|m| m.lo_ns <= m.hi_ns).unwrap_or(fresh)))
    }
}

/// The same map, as it is known at another instant of the near clock.
pub fn at(map: &ClockMap, at_ns: i64) -> ClockMap {
    let drift = (at_ns - map.at_ns).abs() / 1_000_000 * DRIFT_PPM;
    ClockMap { at_ns, lo_ns: map.lo_ns - drift, hi_ns: map.hi_ns + drift, ..map.clone() }
}

/// Whether `map` says noticeably more than `told`, as that is known now: a third less doubt.
pub fn narrower(map: &ClockMap, told: &ClockMap) -> bool {
    let told = at(told, map.at_ns);
    map.to != told.to || (map.hi_ns - map.lo_ns) * 3 < (told.hi_ns - told.lo_ns) * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn clocks() -> (ClockId, ClockId) {
        let clock = |name: &str| ClockId { host: name.into(), boot: "b".into() };
        (clock("near"), clock("far"))
    }

    /// An exchange with these one-way times, the far clock being `offset` ahead.
    fn exchange(sent: i64, there: i64, back: i64, offset: i64) -> Exchange {
        let far_received = sent + there + offset;
        Exchange { sent, far_received, far_sent: far_received, received: sent + there + back }
    }

    #[test]
    fn bounds_hold_the_truth_and_only_narrow() {
        let (near, far) = clocks();
        let mut offset = Offset::default();
        let truth = 7_000 * MS;
        let wide = offset.see(&near, &far, exchange(0, 30 * MS, MS, truth)).unwrap().clone();
        assert!(wide.lo_ns <= truth && truth <= wide.hi_ns && wide.hi_ns - wide.lo_ns == 31 * MS);
        let narrow = offset.see(&near, &far, exchange(100 * MS, MS, 30 * MS, truth)).unwrap().clone();
        assert!(narrow.lo_ns <= truth && truth <= narrow.hi_ns);
        assert!(narrow.hi_ns - narrow.lo_ns < 3 * MS, "{narrow:?}");
        assert!(narrower(&narrow, &wide) && !narrower(&wide, &narrow));
    }

    #[test]
    fn old_bounds_widen_and_a_jump_starts_anew() {
        let (near, far) = clocks();
        let mut offset = Offset::default();
        offset.see(&near, &far, exchange(0, MS, MS, 0));
        let later = offset.see(&near, &far, exchange(60_000 * MS, 50 * MS, 50 * MS, 0)).unwrap().clone();
        // A minute of drift at 1000 ppm is 60 ms each way: the fresh bounds are better.
        assert_eq!(later.hi_ns - later.lo_ns, 100 * MS);
        let jumped = offset.see(&near, &far, exchange(60_200 * MS, MS, MS, 9_000 * MS)).unwrap();
        assert!(jumped.lo_ns <= 9_000 * MS && 9_000 * MS <= jumped.hi_ns);
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        let (near, far) = clocks();
        let mut offset = Offset::default();
        let turned = Exchange { sent: 10, far_received: 0, far_sent: 50, received: 20 };
        assert!(offset.see(&near, &far, turned).is_none());
    }
}
