//! Which events a report lists, and what stands beside each. It words none of them: that is the model's.

use std::collections::BTreeSet;

use fracas_model::{
    report::{EventLine, Report},
    units::Dur,
};

/// The events a report lists one by one: all but the routine ones on which no number rests, and `limit` at most, then
/// with those in the middle left out. The second number says how many of the run's events are not listed.
pub(super) fn events(report: &Report, limit: usize) -> (Vec<&EventLine>, usize) {
    let mut rested: BTreeSet<u64> = report.services.iter().flat_map(|s| s.events.iter().copied()).collect();
    rested.extend(report.probes.iter().flat_map(|p| &p.episodes).flat_map(|e| e.events.iter().copied()));
    rested.extend(report.entries.iter().flat_map(|e| &e.items).flat_map(|i| i.moments.iter().map(|m| m.seq)));
    let mut lines: Vec<&EventLine> =
        report.events.iter().filter(|line| !line.routine || rested.contains(&line.seq)).collect();
    if lines.len() > limit {
        let tail = lines.split_off(lines.len() - limit / 2);
        lines.truncate(limit - limit / 2);
        lines.extend(tail);
    }
    let left_out = report.events.len() - lines.len();
    (lines, left_out)
}

/// The host an event was seen from, where its text does not say so.
pub(super) fn where_seen<'a>(report: &'a Report, line: &'a EventLine) -> Option<&'a str> {
    line.host.as_ref().map(|host| report.host_name(host)).filter(|name| !line.text.contains(name))
}

/// How much later than it happened the controller knew of an event, from a second on: news of a host out of reach.
pub(super) fn known_later(report: &Report, line: &EventLine) -> Option<String> {
    let late = line.wall_ns.saturating_sub(report.times.origin_wall_ns).saturating_sub(line.at_ns);
    (late >= 1_000_000_000).then(|| Dur::from_ns(late).human())
}

/// Some sequence numbers of many: all of up to nine, else the first six and the last three, with a gap in between.
pub(super) fn few(seqs: &[u64]) -> (&[u64], &[u64]) {
    if seqs.len() <= 9 { (seqs, &[]) } else { (&seqs[..6], &seqs[seqs.len() - 3..]) }
}
