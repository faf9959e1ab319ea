//! The prose every report carries: its terms, and what it leaves open.

use fracas_model::report::{Report, Timing};

/// What every such report leaves open; a reader must not be left to guess.
pub(super) fn not_shown(report: &Report) -> Vec<String> {
    let mut lines = vec![
        if report.ledgers.iter().any(|ledger| ledger.account.is_some()) {
            "What ledgers wrote stands for all that was written on the same path: of other data nothing is known."
                .to_owned()
        } else {
            "Recovery points (lost or duplicated data) are not measured.".to_owned()
        },
        "What was seen holds for the named vantages and probes: users elsewhere may have fared otherwise.".to_owned(),
        "One run is one sample: a pass does not bound the chance of a failure next time.".to_owned(),
        "Dips shorter than the time between two looks may have been missed.".to_owned(),
        "This supports evidence for a recovery objective; it is no statement of compliance.".to_owned(),
    ];
    let told = |timing: &Timing| timing.metrics.iter().any(|metric| metric.id == "ttd" && metric.length.is_some());
    lines.push(if report.timings.iter().any(told) && !report.alerts.is_empty() {
        "What alerting tools and people told of detection and response is their word; nothing here checks it."
            .to_owned()
    } else if report.timings.iter().any(told) {
        "What people told of detection and response is their word; nothing here checks it.".to_owned()
    } else {
        "How people detected, decided and acted is not measured: nobody marked it.".to_owned()
    });
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
    let ledgers = (!report.ledgers.is_empty()).then(|| {
        (
            "Recovery point",
            "How much time of acknowledged writes is lost. Numbered markers are written through the service's own client \
            path and read back after all was undone; those that were acknowledged and are not there are lost. At least: the \
            longest time from the acknowledgement of a lost one to the sending of another, through which the service was not \
            seen away. At most: from the sending of the last that survived before them to the completion of the next one \
            after them that tells anything. With none lost, at most what markers this far \
            apart cannot show: never nothing. Markers of which nobody knows whether they were written count as neither."
                .to_owned(),
        )
    });
    let mut terms = definitions_of_times(&stable);
    terms.extend(ledgers);
    terms
}

fn definitions_of_times(stable: &str) -> Vec<(&'static str, String)> {
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
