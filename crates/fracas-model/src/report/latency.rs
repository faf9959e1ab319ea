//! Latency before the first fault beside latency under fault, from raw readings. The verdict never looks here.

use std::collections::BTreeMap;

use super::{Latency, ProbeReport, story::Story};
use crate::{
    event::{Reading, Readings},
    id::ProbeId,
    stats,
};

/// Fills both columns of every probe whose readings are at hand.
pub(super) fn fill(story: &Story, blobs: &BTreeMap<String, Readings>, probes: &mut [ProbeReport]) {
    for ((id, clock), watch) in &story.watches {
        let sealed = watch.digests.iter().filter_map(|digest| blobs.get(digest));
        let readings: Vec<Reading> = sealed.flat_map(Readings::unpack).collect();
        if readings.is_empty() {
            continue;
        }
        let Some(probe) = probes.iter_mut().find(|p| p.probe == *id && p.host == clock.host && p.baseline.is_none())
        else {
            continue;
        };
        let windows = windows(story, id);
        let first = windows.iter().map(|w| w.0).min();
        let place = |ns| story.offset(clock, ns);
        // What counts as under fault: while a fault was active, and until the service was back.
        let mut hurt = windows;
        let outages = probe.episodes.iter().filter(|e| !e.pre_existing);
        hurt.extend(outages.map(|e| (e.start_lo_ns.unwrap_or(e.start_hi_ns), e.end_hi_ns.unwrap_or(i64::MAX))));
        let before = |r: &&Reading| first.is_none_or(|at| place(r.look.c) < at);
        let under = |r: &&Reading| hurt.iter().any(|(from, to)| place(r.look.s) >= *from && place(r.look.s) <= *to);
        probe.baseline = sum_up(readings.iter().filter(before));
        probe.under_fault = sum_up(readings.iter().filter(under));
    }
}

/// When faults that a probe looks at were active, as offsets.
fn windows(story: &Story, probe: &ProbeId) -> Vec<(i64, i64)> {
    let active = story.items_seen_by(probe).filter_map(|(_, item)| {
        let effective = item.effective.as_ref()?;
        let from = story.offset_of(&effective.to);
        let to = match &item.undone {
            Some((_, between, _)) => story.offset_of(&between.from),
            None if item.one_shot() => from,
            None => i64::MAX,
        };
        Some((from, to))
    });
    active.collect()
}

fn sum_up<'a>(readings: impl Iterator<Item = &'a Reading>) -> Option<Latency> {
    let (mut n, mut failed, mut took) = (0, 0, Vec::new());
    for reading in readings {
        n += 1;
        if reading.ok {
            took.push((reading.look.c - reading.look.s) as f64 / 1e6);
        } else {
            failed += 1;
        }
    }
    let s = stats::summary(took);
    (n > 0).then_some(Latency { n, failed, p50_ms: s.p50, p99_ms: s.p99 })
}
