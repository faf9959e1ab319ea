//! Ledgers in words: what was lost of what was written, against the objective. Every report form says it with these.

use fracas_model::report::{Judgement, LedgerReport, Report, ServiceReport, data_lost};

use super::words::{judgement_name, judgement_why, offset};
use crate::words::count;

/// How a service stands against its recovery point objective, in one line; `None` where it has neither that nor a ledger.
pub(super) fn recovery_point(service: &ServiceReport) -> Option<String> {
    let point = service.recovery_point.as_ref()?;
    Some(match (&point.judgement, service.rpo, point.achieved) {
        (Judgement::NoObjective, _, Some(achieved)) => {
            format!("{}; no objective", data_lost(achieved, point.lost, point.acknowledged))
        }
        (Judgement::NoObjective, _, None) => "not measured; no objective".to_owned(),
        // The other judgements tell the objective themselves.
        (judgement @ Judgement::NotMeasured { .. }, Some(rpo), _) => {
            format!("objective {rpo}: {}: {}", judgement_name(judgement), judgement_why(judgement))
        }
        (judgement, _, _) => format!("{}: {}", judgement_name(judgement), judgement_why(judgement)),
    })
}

/// One ledger of one host.
pub(super) struct Row {
    /// `orders-data from edge-1`.
    pub(super) name: String,
    /// Kind, period and place.
    pub(super) how: String,
    /// What was lost, or why nobody can tell.
    pub(super) result: String,
    /// Markers by what became of them.
    pub(super) counts: String,
    /// Spans of lost markers, where they lie.
    pub(super) spans: Vec<String>,
    /// What was left behind.
    pub(super) left: Option<String>,
}

/// Every ledger.
pub(super) fn rows(report: &Report) -> Vec<Row> {
    report.ledgers.iter().map(|ledger| row(report, ledger)).collect()
}

fn row(report: &Report, ledger: &LedgerReport) -> Row {
    let place = format!(", in {}", ledger.place);
    let account = ledger.account.as_ref();
    let lost = account.and_then(|one| Some(data_lost(one.achieved?, one.lost, one.acknowledged)));
    let unknown = || ledger.not_measured.clone().unwrap_or_else(|| "nobody can tell".to_owned());
    let counts = account.map_or_else(String::new, |one| {
        let mut told = vec![
            format!("{} sent", count(usize::try_from(one.written).unwrap_or(usize::MAX), "marker")),
            format!("{} acknowledged", one.acknowledged),
            format!("{} failed", one.failed),
            format!("{} unknown ({} of them there)", one.unknown, one.unknown_found),
        ];
        let rare = [
            (one.resurrected, "resurrected (failed, and there)"),
            (one.duplicated, "duplicated (there more than once)"),
            (one.unlogged, "not in the log (their writer died)"),
            (one.untold, "given a number and in no log"),
        ];
        told.extend(rare.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        told.join(", ")
    });
    let spans = account.map(|one| one.spans.iter().zip(&ledger.lost_at)).into_iter().flatten();
    Row {
        name: format!("{} from {}", ledger.ledger, report.host_name(&ledger.host)),
        how: format!(
            "{}, for {}, every {}, timeout {}{place}",
            ledger.kind, ledger.service, ledger.every, ledger.timeout
        ),
        result: lost.unwrap_or_else(unknown),
        counts,
        spans: spans
            .map(|(span, (from, to))| {
                let data = data_lost(span.data, span.count, span.count);
                let length = data.split_once(": ").map_or("", |(_, length)| length);
                format!(
                    "markers {} to {}, {} lost, acknowledged from {} until {}: {length}",
                    span.first,
                    span.last,
                    span.count,
                    offset(*from),
                    offset(*to)
                )
            })
            .collect(),
        left: ledger.left.as_ref().map(|why| format!("{} was not removed ({why}): remove it by hand", ledger.place)),
    }
}
