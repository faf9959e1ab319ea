//! Instants and the times between them as rows of plain text, for every form of a report. It draws no tables.

use fracas_model::{
    id::HostId,
    report::{Instant, Metric, Report, Timing},
};

use super::words::offset;

/// One instant.
pub(super) struct InstantRow {
    pub id: String,
    pub name: String,
    pub when: String,
    pub clock: String,
    pub how: String,
}

/// One length.
pub(super) struct MetricRow {
    pub name: String,
    /// The interval, or why there is none.
    pub length: String,
    pub definition: String,
    pub clocks: String,
    /// Empty where there is nothing to say.
    pub caveat: String,
    pub known: bool,
}

/// Those of which anything is known.
pub(super) fn shown(report: &Report) -> Vec<&Timing> {
    report.timings.iter().filter(|timing| !timing.instants.is_empty()).collect()
}

/// What a table is of.
pub(super) fn title(timing: &Timing) -> String {
    timing.service.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string)
}

/// Instants of one service.
pub(super) fn instants(report: &Report, timing: &Timing) -> Vec<InstantRow> {
    let row = |one: &Instant| InstantRow {
        id: one.id.clone(),
        name: one.name.clone(),
        when: span(one),
        clock: clock(report, &one.clock),
        how: one.how.clone(),
    };
    timing.instants.iter().map(row).collect()
}

/// Times between them.
pub(super) fn metrics(report: &Report, timing: &Timing) -> Vec<MetricRow> {
    let row = |one: &Metric| MetricRow {
        name: one.name.clone(),
        length: match one.length {
            Some(length) => length.to_string(),
            None => one.missing.clone().unwrap_or_else(|| "not known".to_owned()),
        },
        definition: one.definition.clone(),
        clocks: one.clocks.iter().map(|host| clock(report, host)).collect::<Vec<_>>().join(", "),
        caveat: one.caveat.clone().unwrap_or_default(),
        known: one.length.is_some(),
    };
    timing.metrics.iter().map(row).collect()
}

/// A drawn host by its name; no other clock but the controller's is ever read.
fn clock(report: &Report, host: &HostId) -> String {
    report.hosts.get(host).map_or_else(|| "the controller".to_owned(), Clone::clone)
}

fn span(one: &Instant) -> String {
    match (one.lo_ns, one.hi_ns) {
        (Some(lo), Some(hi)) if offset(lo) == offset(hi) => offset(lo),
        (Some(lo), Some(hi)) => format!("{} to {}", offset(lo), offset(hi)),
        (Some(lo), None) => format!("not before {}", offset(lo)),
        (None, Some(hi)) => format!("by {}", offset(hi)),
        (None, None) => "not known".to_owned(),
    }
}
