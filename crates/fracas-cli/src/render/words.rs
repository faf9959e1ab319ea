//! The words and numbers all renderers share, and what makes foreign text safe to print. No layout.

use fracas_model::{
    diagnostic::turns,
    event::{Proof, VerdictWord},
    experiment::RtoFrom,
    report::{
        EntryReport, Episode, ItemReport, ItemStep, Judgement, Latency, Report, ServiceReport, Share, cause_text,
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

/// What a service promises beside its recovery time; `None`: nothing.
pub(super) fn promises(service: &ServiceReport) -> Option<String> {
    let told = [
        service.mtpd.map(|mtpd| format!("maximum tolerable period of disruption {mtpd}")),
        service.prove_every.map(|every| format!("to be proven every {every}")),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// One of the three intervals of a service.
pub(super) struct Length {
    pub(super) name: &'static str,
    /// What it is, in half a sentence.
    pub(super) meaning: &'static str,
    pub(super) value: Option<Interval>,
    /// What stands where there is none.
    pub(super) absent: &'static str,
    /// The objective was judged by this one.
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
    let judged =
        matches!(service.judgement, Judgement::Met { .. } | Judgement::Missed { .. } | Judgement::Inconclusive { .. });
    let length = |name, meaning, value, counted| Length {
        name,
        meaning,
        value,
        absent: absent(service, name),
        judged: judged && counted == Some(service.rto_from),
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

/// How many vantages saw it down at one time: `2 of 3 vantages; all of them for 1.20 s to 1.50 s`.
pub(super) fn together(service: &ServiceReport) -> Option<String> {
    let seen = service.together.filter(|seen| seen.possible > 0)?;
    let most = if seen.certain == seen.possible {
        seen.certain.to_string()
    } else {
        format!("at least {}, at most {}", seen.certain, seen.possible)
    };
    let all =
        if seen.possible == seen.vantages { format!("; all of them for {}", seen.all_down) } else { String::new() };
    Some(format!("{most} of {} vantages{all}; one or more for {}", seen.vantages, seen.any_down))
}

/// How much of it failed, where some did not: `36 of 120 looks from its first failure to its last (30.0 %)`.
pub(super) fn failing(service: &ServiceReport) -> Option<String> {
    let Share { looks, failed } = service.failing.filter(|share| share.failed < share.looks)?;
    let percent = failed as f64 / looks as f64 * 100.0;
    Some(format!("{failed} of {looks} looks from its first failure to its last ({percent:.1} %)"))
}

/// How long it was up but slow: `12.0 s to 12.3 s in 2 spans, 240 of 900 answers slower than 200ms`.
pub(super) fn degraded(service: &ServiceReport) -> Option<String> {
    let slow = service.degraded?;
    let answers = format!("{} of {} answers slower than {}", slow.slow, slow.looks, slow.slow_above);
    if slow.spans == 0 {
        return Some(format!("never: {answers}"));
    }
    Some(format!("{} in {}, {answers}", slow.in_all, count(slow.spans as usize, "span")))
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
    if !entry.canary.is_empty() {
        let few = count(entry.canary.len(), "host");
        let then = entry
            .widened_ns
            .map_or_else(|| "and never on the others".to_owned(), |at| format!("on the others from {}", offset(at)));
        text.push_str(&format!(", on {few} first, {then}"));
    }
    text
}

/// How often a probe looks.
pub(super) fn pace(every: Dur, at_rest: Option<Dur>) -> String {
    format!("every {every}{}", at_rest.map_or_else(String::new, |at_rest| format!(" ({at_rest} at rest)")))
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

/// Foreign text made safe for any output: control characters and direction overrides become visible escapes.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let breaks = matches!(c, '\n' | '\t' | '\u{2028}' | '\u{2029}');
        if breaks {
            safe.push(' ');
        } else if c.is_control() || turns(c) {
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
