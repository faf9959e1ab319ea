//! Which instant of one clock is which of another: exact bounds for numbers, a best guess for drawing.

use std::collections::BTreeMap;

use super::{ClockLine, story::Story};
use crate::{
    event::{Between, Event},
    id::HostId,
    time::{ClockId, ClockMap, Stamp},
    units::Dur,
};

/// What the history tells of clocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Clocks {
    /// The controller's, as of the first event.
    controller: Option<ClockId>,
    /// Maps to the controller's clock.
    maps: BTreeMap<ClockId, Vec<ClockMap>>,
    /// Smallest difference of receipt and stamp: an upper bound of the offset, good enough to draw by.
    guess: BTreeMap<ClockId, i64>,
    /// Largest wall clock bound by host; -1 wins, it means unsynchronised.
    wall: BTreeMap<HostId, i64>,
}

impl Clocks {
    pub(super) fn see_map(&mut self, map: &ClockMap) {
        self.maps.entry(map.from.clone()).or_default().push(map.clone());
    }

    pub(super) fn see(&mut self, event: &Event, at: Option<&Stamp>) {
        let controller = self.controller.get_or_insert_with(|| event.received.clock.clone()).clone();
        let Some(at) = at else { return };
        let worst = self.wall.entry(at.clock.host.clone()).or_insert(at.bound_ns);
        *worst = if *worst < 0 || at.bound_ns < 0 { -1 } else { (*worst).max(at.bound_ns) };
        // A controller that was booted anew counts differently: then only wall time links the two.
        let received = if event.received.clock == controller { event.received.boot_ns } else { return };
        let offset = received.saturating_sub(at.boot_ns);
        self.guess.entry(at.clock.clone()).and_modify(|known| *known = (*known).min(offset)).or_insert(offset);
    }

    /// The controller's clock.
    pub(super) fn controller(&self) -> Option<&ClockId> {
        self.controller.as_ref()
    }

    /// Maps of a clock to the controller's, which counts anew after a reboot: maps to that count are of no use here.
    fn maps_of<'a>(&'a self, clock: &ClockId) -> impl Iterator<Item = &'a ClockMap> + Clone + use<'a> {
        let known = self.maps.get(clock).into_iter().flatten();
        known.filter(|map| self.controller.as_ref() == Some(&map.to))
    }

    /// Where an instant of `clock` lies on `target`, both bounds; exact on one clock, `None` without maps.
    pub(super) fn to(&self, stamp: &Stamp, target: &ClockId) -> Option<(i64, i64)> {
        if stamp.clock == *target {
            return Some((stamp.boot_ns, stamp.boot_ns));
        }
        let controller = self.controller.as_ref()?;
        let (lo, hi) = if stamp.clock == *controller {
            (stamp.boot_ns, stamp.boot_ns)
        } else {
            tightest(self.maps_of(&stamp.clock).filter_map(|map| map.translate(stamp)))?
        };
        if target == controller {
            return Some((lo, hi));
        }
        let back: Vec<ClockMap> = self.maps_of(target).map(ClockMap::inverse).collect();
        let on = |boot_ns| {
            let stamp = Stamp { clock: controller.clone(), boot_ns, wall_ns: 0, bound_ns: 0 };
            tightest(back.iter().filter_map(|map| map.translate(&stamp)))
        };
        Some((on(lo)?.0, on(hi)?.1))
    }

    /// Where a change that happened between two stamps lies on `target`.
    pub(super) fn span(&self, between: &Between, target: &ClockId) -> Option<(i64, i64)> {
        Some((self.to(&between.from, target)?.0, self.to(&between.to, target)?.1))
    }

    /// Controller boot time of an instant, for drawing only.
    pub(super) fn place(&self, clock: &ClockId, boot_ns: i64) -> i64 {
        let stamp = Stamp { clock: clock.clone(), boot_ns, wall_ns: 0, bound_ns: 0 };
        if let Some((lo, hi)) = self.controller.as_ref().and_then(|c| self.to(&stamp, c)) {
            return i64::midpoint(lo, hi);
        }
        boot_ns.saturating_add(self.guess.get(clock).copied().unwrap_or_default())
    }

    pub(super) fn lines(&self, story: &Story) -> Vec<ClockLine> {
        let mut hosts: Vec<&HostId> = self.wall.keys().filter(|h| story.head.hosts.contains_key(*h)).collect();
        hosts.extend(story.head.hosts.keys().filter(|h| !self.wall.contains_key(*h)));
        let line = |host: &HostId| {
            let maps: Vec<&ClockMap> = self.maps.iter().filter(|(c, _)| c.host == *host).flat_map(|(_, m)| m).collect();
            ClockLine {
                host: host.clone(),
                map_width: maps.iter().map(|m| m.hi_ns.saturating_sub(m.lo_ns)).min().map(Dur::from_ns),
                maps: maps.len() as u64,
                wall_bound: self.wall.get(host).filter(|b| **b >= 0).map(|b| Dur::from_ns(*b)),
            }
        };
        hosts.into_iter().map(line).collect()
    }
}

/// Each bound is true by itself, so all together hold: the intersection. Should they contradict each other (a clock was
/// tampered with), all of them are covered instead.
fn tightest(bounds: impl Iterator<Item = (i64, i64)> + Clone) -> Option<(i64, i64)> {
    let lo = bounds.clone().map(|b| b.0).max()?;
    let hi = bounds.clone().map(|b| b.1).min()?;
    if lo <= hi { Some((lo, hi)) } else { Some((bounds.clone().map(|b| b.0).min()?, bounds.map(|b| b.1).max()?)) }
}
