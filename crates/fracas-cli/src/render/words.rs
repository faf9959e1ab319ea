//! The words and numbers all renderers share, and what makes foreign text safe to print. No layout.

use std::collections::BTreeSet;

use fracas_model::{
    event::{Proof, VerdictWord},
    experiment::{Experiment, Pick, RtoFrom},
    report::{
        EntryReport, Episode, EventLine, ItemReport, ItemStep, Judgement, Latency, Report, ServiceReport, cause_text,
    },
    time::Interval,
    units::Dur,
};

use crate::{times, words::count};

/// One sentence on what the verdict means.
pub(super) fn verdict_meaning(word: &VerdictWord) -> &'static str {
    match word {
        VerdictWord::Pass => {
            "Every objective was met, every required fault was proven to work, and every undo was confirmed."
        }
        VerdictWord::Fail => "At least one service missed its objective.",
        VerdictWord::Inconclusive => "Nothing failed, but something could not be settled or proven.",
        VerdictWord::Aborted => "The run was ended before its timeline was through.",
        VerdictWord::Error => "A fault or the tool itself failed. This says nothing about the services.",
        VerdictWord::UndoUnconfirmed => "A host has not confirmed that it is clean. See to it before anything else.",
        VerdictWord::Refused => "The run was refused before anything was changed.",
    }
}

/// A judgement's word.
pub(super) fn judgement_name(judgement: &Judgement) -> &'static str {
    match judgement {
        Judgement::Met { .. } => "met",
        Judgement::Missed { .. } => "missed",
        Judgement::Inconclusive { .. } => "inconclusive",
        Judgement::NotMeasured { .. } => "not measured",
        Judgement::NoObjective => "no objective",
    }
}

/// A judgement's reason.
pub(super) fn judgement_why(judgement: &Judgement) -> &str {
    match judgement {
        Judgement::Met { why }
        | Judgement::Missed { why }
        | Judgement::Inconclusive { why, .. }
        | Judgement::NotMeasured { why } => why,
        Judgement::NoObjective => "the document sets no objective for it",
    }
}

/// From where an objective counts.
pub(super) fn rto_from(from: RtoFrom) -> &'static str {
    match from {
        RtoFrom::Impact => "from first impact",
        RtoFrom::Fault => "from the fault taking effect",
    }
}

/// One of the three intervals of a service.
pub(super) struct Length {
    pub(super) name: &'static str,
    /// What it is, in half a sentence.
    pub(super) meaning: &'static str,
    pub(super) value: Option<Interval>,
    /// What stands where there is none.
    pub(super) absent: &'static str,
    /// The objective is counted this way.
    pub(super) judged: bool,
}

impl Length {
    /// The interval, or why there is none.
    pub(super) fn shown(&self) -> String {
        self.value.map_or_else(|| self.absent.to_owned(), |i| i.to_string())
    }
}

/// The three intervals, in the order they are always given.
pub(super) fn three(service: &ServiceReport) -> [Length; 3] {
    let length = |name, meaning, value, counted| Length {
        name,
        meaning,
        value,
        absent: absent(service, name),
        judged: service.rto.is_some() && counted == Some(service.rto_from),
    };
    [
        length("Outage", "first impact to recovery, on one vantage's clock", service.outage, Some(RtoFrom::Impact)),
        length(
            "Recovery from fault",
            "fault taking effect to recovery, plus the bounds of both clocks",
            service.recovery_from_fault,
            Some(RtoFrom::Fault),
        ),
        length("Residual", "fault lifted to recovery, where it was lifted first", service.residual, None),
    ]
}

/// What stands where an interval is absent.
fn absent(service: &ServiceReport, name: &str) -> &'static str {
    match name {
        "Outage" if matches!(service.judgement, Judgement::NotMeasured { .. }) => "not measured",
        "Outage" => "none seen",
        _ if service.outage.is_none() => "no outage",
        "Residual" if service.recovered_before_revert == Some(true) => "recovered before the fault was lifted",
        "Residual" => "nothing was lifted before it recovered",
        _ => "not measured: no clock map",
    }
}

/// Whether the service healed itself.
pub(super) fn before_revert(service: &ServiceReport) -> &'static str {
    match service.recovered_before_revert {
        Some(true) => "yes",
        Some(false) => "no: the fault was lifted first",
        None if service.outage.is_none() => "no outage",
        None => "nothing to lift, or cannot be told",
    }
}

/// A length, or a dash.
pub(super) fn interval(value: Option<Interval>) -> String {
    value.map_or_else(|| "-".into(), |i| i.to_string())
}

/// An instant as an offset from the gate, in the form of all other outputs: `+12.345s`, `+1h05m12.000s`.
pub fn offset(ns: i64) -> String {
    times::from_zero(Dur::from_ns(ns))
}

/// A wall time in UTC: `2026-11-24 00:13:05 UTC`.
pub fn wall_utc(wall_ns: i64) -> String {
    times::utc_second(wall_ns)
}

/// An offset as time of day in UTC, to the millisecond: `02:45:11.020`.
pub(super) fn clock_utc(report: &Report, at_ns: i64) -> String {
    times::utc(report.times.origin_wall_ns.saturating_add(at_ns)).get(11..23).unwrap_or_default().to_owned()
}

/// A number with at most three decimals.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What became of an item's effect.
pub(super) fn proof(item: &ItemReport) -> String {
    match &item.proof {
        Some(Proof::Verified) => "verified".into(),
        Some(Proof::Ineffective { why }) => format!("ineffective: {why}"),
        Some(Proof::Unverified { why }) => format!("unverified: {why}"),
        None => item.trouble.first().cloned().unwrap_or_else(|| "not verified".into()),
    }
}

/// A step of an item's life.
pub(super) fn step(step: ItemStep) -> &'static str {
    match step {
        ItemStep::Refused => "refused",
        ItemStep::Applying => "applying",
        ItemStep::Active => "active",
        ItemStep::Verified => "verified",
        ItemStep::Ineffective => "ineffective",
        ItemStep::Unverified => "unverified",
        ItemStep::Spent => "fired",
        ItemStep::Failed => "failed",
        ItemStep::Undoing => "undoing",
        ItemStep::UndoFailed => "undo failed",
        ItemStep::Undone => "undone",
    }
}

/// How an item ended.
pub(super) fn undo(item: &ItemReport) -> String {
    if item.unconfirmed {
        return "UNCONFIRMED: the host has not said that it is clean".into();
    }
    match (item.undone_ns, item.cause) {
        (Some(at), cause) => {
            let why = cause.map(|c| format!(", {}", cause_text(c))).unwrap_or_default();
            let took = item.undo_took.map(|d| format!(", undo and read-back took {}", d.human())).unwrap_or_default();
            format!("undone at {}{why}{took}", offset(at))
        }
        (None, _) if item.one_shot => "one-shot: nothing to undo".into(),
        (None, _) => "nothing was changed".into(),
    }
}

/// An entry's fault and how it was asked for.
pub(super) fn asked(entry: &EntryReport) -> String {
    let mut text = entry.action.clone();
    if !entry.params.is_empty() {
        text.push_str(&format!(" ({})", entry.params));
    }
    if let Some(duration) = entry.duration {
        text.push_str(&format!(" for {duration}"));
    }
    text
}

/// What was asked of the run beside its timeline, as term and text.
pub(super) fn conditions(asked: &Experiment) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(gate) = &asked.steady_state {
        let probes: Vec<&str> = gate.probes.iter().map(fracas_model::id::ProbeId::as_str).collect();
        lines.push((
            "Steady state",
            format!("{} ok for {}, within {}", probes.join(", "), gate.hold_for, gate.give_up_after),
        ));
    }
    let recovery = &asked.recovery;
    lines.push((
        "Recovery",
        format!("up for {} without a failure; waited for {} at most", recovery.stable_for, recovery.give_up_after),
    ));
    for rail in &asked.abort_when {
        lines.push(("Guard-rail", format!("abort when {} was failing for {}", rail.probe, rail.failing_for)));
    }
    let limits = &asked.limits;
    let most = [
        limits.max_targets.map(|n| count(n as usize, "host")),
        limits.max_percent.map(|share| format!("{share} of the hosts that match")),
    ];
    let most: Vec<String> = most.into_iter().flatten().collect();
    if !most.is_empty() {
        lines.push(("Limit", format!("at most {} under fault at once", most.join(" and "))));
    }
    lines.push(("Lease", format!("a host without contact for {} ends its faults by itself", asked.lease)));
    lines
}

/// The rule that drew a target's hosts.
pub(super) fn rule(report: &Report, target: &fracas_model::id::TargetId) -> String {
    let rule = report.experiment.as_ref().and_then(|e| e.targets.get(target));
    let Some(rule) = rule else { return "given by the controller".into() };
    let pick = match &rule.pick {
        Some(Pick { count: Some(n), .. }) => format!(", {n} of them"),
        Some(Pick { percent: Some(share), .. }) => format!(", {share} of them"),
        _ => String::new(),
    };
    format!("{}{pick}", rule.select)
}

/// What a probe was asked to look at: `http: status 200, url http://shop/health`.
pub(super) fn looks_at(report: &Report, probe: &fracas_model::id::ProbeId) -> String {
    let probe = report.experiment.as_ref().and_then(|e| e.probes.get(probe));
    let Some(probe) = probe else { return String::new() };
    let params = probe.params.0.iter().map(|(name, value)| match value {
        serde_json::Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    });
    format!("{}: {}", probe.kind, params.collect::<Vec<_>>().join(", "))
}

/// When an entry was asked to start.
pub(super) fn trigger(report: &Report, entry: &EntryReport) -> String {
    let asked = report.experiment.as_ref().and_then(|e| e.timeline.iter().find(|x| x.id == entry.entry));
    asked.map(|x| crate::words::trigger(&x.trigger)).unwrap_or_default()
}

/// The events a report lists one by one: all but the routine ones on which no number rests, and `limit` at most, then
/// with those in the middle left out. The second number says how many of the run's events are not listed.
pub(super) fn listed(report: &Report, limit: usize) -> (Vec<&EventLine>, usize) {
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

/// A share in percent.
pub(super) fn failed_share(latency: &Latency) -> String {
    let share = latency.failed as f64 * 100.0 / latency.n.max(1) as f64;
    if latency.failed == 0 {
        "0 %".into()
    } else if share < 0.1 {
        "< 0.1 %".into()
    } else {
        format!("{share:.1} %")
    }
}

/// A percentile, or why there is none.
pub(super) fn percentile(value: Option<f64>, needs: u64) -> String {
    value.map_or_else(|| format!("n too small (needs {needs})"), |ms| format!("{} ms", number(ms)))
}

/// Instants of an episode in one line.
pub(super) fn episode_line(episode: &Episode) -> String {
    let start = match episode.start_lo_ns {
        Some(lo) => format!("between {} and {}", offset(lo), offset(episode.start_hi_ns)),
        None => format!("before {}", offset(episode.start_hi_ns)),
    };
    let end = match episode.end_hi_ns {
        Some(hi) => format!("between {} and {}", offset(episode.end_lo_ns), offset(hi)),
        None => format!("after {}, not seen", offset(episode.end_lo_ns)),
    };
    format!("impact {start}; recovery {end}")
}

/// What every such report leaves open; a reader must not be left to guess.
pub(super) fn not_shown(report: &Report) -> Vec<String> {
    let mut lines = vec![
        "Recovery points (lost or duplicated data) are not measured.".to_owned(),
        "How people detected, decided and acted is not measured.".to_owned(),
        "What was seen holds for the named vantages and probes: users elsewhere may have fared otherwise.".to_owned(),
        "One run is one sample: a pass does not bound the chance of a failure next time.".to_owned(),
        "Dips shorter than the time between two looks may have been missed.".to_owned(),
        "This supports evidence for a recovery objective; it is no statement of compliance.".to_owned(),
    ];
    if report.probes.iter().all(|p| p.baseline.is_none() && p.under_fault.is_none()) {
        lines.push("Latency statistics are absent: raw readings were not at hand.".to_owned());
    }
    if !report.times.finished {
        lines.push("The run had not ended when this was made: everything here may still change.".to_owned());
    }
    lines
}

/// Terms as this report uses them.
pub(super) fn definitions(report: &Report) -> Vec<(&'static str, String)> {
    let stable = report.stable_for.map_or_else(|| "the stable window".into(), |d| format!("{d}"));
    vec![
        (
            "Interval",
            "Every length is given as the shortest and the longest time the observations allow. A successful look \
            proves the service up at some instant between its sending and its completion, a failed one down."
                .into(),
        ),
        (
            "Outage",
            "First impact to recovery, on the clock of one vantage. A known fault instant only raises the earliest \
            possible impact."
                .into(),
        ),
        (
            "Recovery from fault",
            "The fault taking effect to recovery. When fault and vantage are on different hosts, the \
            bounds of both clocks are added."
                .into(),
        ),
        ("Residual", "The fault being lifted to recovery, when the fault was lifted first.".into()),
        (
            "Recovery",
            format!(
                "Declared when the service was up for {stable} without a failure; stamped at the first success of \
            that window, so waiting adds nothing to the number."
            ),
        ),
        (
            "Judgement",
            "Met only if the longest possible time is within the objective, missed only if the shortest possible is \
            beyond it, else inconclusive. Not measured when the tool lifted the fault before the service was back."
                .into(),
        ),
        ("Blip", "A return that did not last for the stable window; it belongs to the outage around it.".into()),
        ("Verified", "The fault's effect was seen from outside its mechanism, or by counters of real traffic.".into()),
        ("Undone", "Said only after the host's state was read back and nothing of the fault was left.".into()),
        (
            "n",
            "How many looks a number rests on. A median needs 5, a 99th percentile 299; with fewer none is printed."
                .into(),
        ),
    ]
}

/// Foreign text made safe for any output: control characters and direction overrides become visible escapes.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let overrides = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}');
        let breaks = matches!(c, '\n' | '\t' | '\u{2028}' | '\u{2029}');
        if breaks {
            safe.push(' ');
        } else if c.is_control() || overrides {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe_from_foreign_text() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb c\\u{202e}d");
        assert_eq!((number(200.0), number(201.3), number(0.0)), ("200".into(), "201.3".into(), "0".into()));
    }
}
