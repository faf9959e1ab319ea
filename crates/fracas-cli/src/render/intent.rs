//! What was asked of a run, in words: conditions, rules, probes, triggers. It says nothing of what came of it.

use fracas_model::{
    experiment::{Experiment, Pick},
    id::{ProbeId, TargetId},
    report::{EntryReport, Report},
};

use crate::words::count;

/// What was asked of the run beside its timeline, as term and text.
pub(super) fn conditions(asked: &Experiment) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(gate) = &asked.steady_state {
        let probes: Vec<&str> = gate.probes.iter().map(ProbeId::as_str).collect();
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
        lines.push(("Stop condition", format!("abort when {}", rail.text())));
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
pub(super) fn rule(report: &Report, target: &TargetId) -> String {
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
pub(super) fn looks_at(report: &Report, probe: &ProbeId) -> String {
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
