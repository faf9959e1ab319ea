//! Latency before the first fault beside latency under fault, from raw readings. The verdict never looks here.

use std::collections::BTreeMap;

use super::{Degraded, Latency, ProbeReport, ServiceReport, Share, story::Story};
use crate::{
    estimate::{Track, between},
    event::{Reading, Readings},
    id::ProbeId,
    stats,
    time::Interval,
    units::Dur,
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

/// Fills in how many looks failed while services were out, where all their raw readings are at hand: one that is down in part
/// answers now and then.
pub(super) fn failing(
    story: &Story,
    blobs: &BTreeMap<String, Readings>,
    probes: &[ProbeReport],
    services: &mut [ServiceReport],
) {
    let Some(experiment) = &story.experiment else { return };
    for report in services {
        let mine = probes.iter().filter(|probe| probe.service.as_ref() == Some(&report.service));
        let outages = mine.flat_map(|probe| &probe.episodes).filter(|episode| !episode.pre_existing);
        let span = outages.map(|e| (e.start_hi_ns, e.end_lo_ns)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let Some((first, last)) = span else { continue };
        let mut share = Some(Share { looks: 0, failed: 0 });
        for ((id, clock), watch) in &story.watches {
            if experiment.probes.get(id).is_none_or(|probe| probe.service.as_ref() != Some(&report.service)) {
                continue;
            }
            for digest in &watch.digests {
                let Some((share, packed)) = share.as_mut().zip(blobs.get(digest)) else {
                    share = None;
                    break;
                };
                let place = |ns| story.offset(clock, ns);
                let within = |r: &Reading| place(r.look.c) >= first && place(r.look.s) <= last;
                for reading in packed.unpack().into_iter().filter(within) {
                    share.looks += 1;
                    share.failed += u64::from(!reading.ok);
                }
            }
        }
        report.failing = share.filter(|share| share.failed > 0);
    }
}

/// Fills in how long services were up but slow, where their raw readings are at hand. Only looks that succeeded say anything
/// of that: a failed one shows a service down, whatever it took.
pub(super) fn degraded(story: &Story, blobs: &BTreeMap<String, Readings>, services: &mut [ServiceReport]) {
    let Some(experiment) = &story.experiment else { return };
    for report in services {
        let Some(limit) = experiment.services.get(&report.service).and_then(|service| service.slow_above) else {
            continue;
        };
        let mine = story.watches.iter().filter_map(|((id, clock), watch)| {
            experiment.probes.get(id).filter(|probe| probe.service.as_ref() == Some(&report.service))?;
            let first = windows(story, id).iter().map(|window| window.0).min().unwrap_or(i64::MIN);
            let readings = watch.digests.iter().filter_map(|digest| blobs.get(digest)).flat_map(Readings::unpack);
            let mut readings: Vec<Reading> = readings.collect();
            readings.sort_by_key(|reading| reading.look.c);
            let from = readings.partition_point(|reading| story.offset(clock, reading.look.c) < first);
            slow_of(&readings, from, limit)
        });
        report.degraded = mine.max_by_key(|one| (one.in_all.hi.map_or(i64::MAX, Dur::ns), one.in_all.lo, one.looks));
    }
}

/// Slow spans among looks in order of completion, from one of them on. While looks fail it is down, not slow: a span ends
/// there, or begins.
fn slow_of(readings: &[Reading], from: usize, limit: Dur) -> Option<Degraded> {
    let counted = &readings[from..];
    let slow = |reading: &Reading| reading.look.c.saturating_sub(reading.look.s) > limit.ns();
    let mut spans = Vec::new();
    let mut at = from;
    for stretch in counted.chunk_by(|a, b| a.ok == b.ok) {
        // What was seen last before the stretch and first after it bounds what began or ended with it.
        let (before, after) = (at.checked_sub(1).map(|last| &readings[last]), readings.get(at + stretch.len()));
        at += stretch.len();
        if !stretch[0].ok {
            continue;
        }
        let timed: Vec<Reading> =
            stretch.iter().map(|reading| Reading { ok: !slow(reading), ..reading.clone() }).collect();
        let changes = Track::of_readings(&timed).changes();
        for (index, change) in changes.iter().enumerate().filter(|(_, change)| !change.ok) {
            let next = changes.get(index + 1);
            let start_lo = change.lo.or(before.map(|before| before.look.s)).unwrap_or(change.look.s);
            let last_slow = || timed.iter().filter(|reading| !reading.ok).map(|reading| reading.look.s).max();
            let end_lo = next.map_or_else(|| last_slow().unwrap_or(change.look.s), |next| next.lo.unwrap_or(next.hi));
            let end_hi = next.map(|next| next.hi).or(after.map(|after| after.look.c));
            spans.push(between(Some(start_lo), change.hi, end_lo, end_hi));
        }
    }
    let add = |sum: Dur, more: Dur| Dur::from_ns(sum.ns().saturating_add(more.ns()));
    let answered = counted.iter().filter(|reading| reading.ok);
    (answered.clone().count() > 0).then(|| Degraded {
        slow_above: limit,
        spans: spans.len() as u32,
        longest: spans.iter().copied().max_by_key(|length| (length.hi.map_or(i64::MAX, Dur::ns), length.lo)),
        in_all: Interval {
            lo: spans.iter().fold(Dur::ZERO, |sum, span| add(sum, span.lo)),
            hi: spans.iter().try_fold(Dur::ZERO, |sum, span| Some(add(sum, span.hi?))),
        },
        looks: answered.clone().count() as u64,
        slow: answered.filter(|reading| slow(reading)).count() as u64,
    })
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
            took.push(reading.look.c.saturating_sub(reading.look.s) as f64 / 1e6);
        } else {
            failed += 1;
        }
    }
    let s = stats::summary(took);
    (n > 0).then_some(Latency { n, failed, p50_ms: s.p50, p99_ms: s.p99 })
}
