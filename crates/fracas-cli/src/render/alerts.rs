//! Alerts in words: what alerting tools told, and what it has to do with the run. Every report form says it with these.

use fracas_model::{
    id::DetectionId,
    report::{AlertReport, Report, Standing},
    units::Dur,
};

use super::words::offset;

/// Most alerts that a report for people lists; all of them are in the JSON form.
const MOST: usize = 200;

/// One firing of an alert.
pub(super) struct Row {
    /// `CheckoutDown: checkout does not answer`.
    pub(super) name: String,
    /// Who told it, and its labels.
    pub(super) whose: String,
    /// When it fired, when the word came, when it ended.
    pub(super) when: String,
    /// What it has to do with the run.
    pub(super) standing: String,
    /// Whether somebody should look into it.
    pub(super) strange: bool,
}

/// Every alert, those first that tell of the run's own trouble.
pub(super) fn rows(report: &Report) -> Vec<Row> {
    let mut alerts: Vec<&AlertReport> = report.alerts.iter().collect();
    alerts.sort_by_key(|alert| match alert.standing {
        Standing::Detects => 0,
        Standing::Unexplained => 1,
        Standing::Undated => 2,
        Standing::PreExisting => 3,
    });
    alerts.into_iter().take(MOST).map(row).collect()
}

/// What is not listed.
pub(super) fn more(report: &Report) -> Option<String> {
    let more = report.alerts.len().checked_sub(MOST).filter(|more| *more > 0)?;
    Some(format!("{more} more are in the JSON form of this report"))
}

fn row(alert: &AlertReport) -> Row {
    let labels = alert.labels.iter().filter(|(name, _)| *name != "alertname");
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    let mut whose = format!("from {}", alert.source);
    if !labels.is_empty() {
        whose += &format!(", {}", labels.join(", "));
    }
    let late = Dur::from_ns(alert.came_ns.saturating_sub(alert.fired_ns));
    let mut when = format!(
        "fired at {}, the word came at {} ({} after)",
        offset(alert.fired_ns),
        offset(alert.came_ns),
        late.human()
    );
    when += &match alert.resolved_ns {
        Some(at) => format!(", resolved at {}", offset(at)),
        None => ", not resolved while the run went on".to_owned(),
    };
    let rules: Vec<&str> = alert.detections.iter().map(DetectionId::as_str).collect();
    let by = match rules.len() {
        0 => String::new(),
        1 => format!(" by the rule {}", rules[0]),
        _ => format!(" by the rules {}", rules.join(", ")),
    };
    let standing = match alert.standing {
        Standing::Detects => format!("detects{by}"),
        Standing::PreExisting if rules.is_empty() => "fired before any fault took effect".to_owned(),
        Standing::PreExisting => format!("fired before any fault took effect, so it proves no detection{by}"),
        Standing::Undated => {
            format!("fired at a time that nobody knows, its source's clock is ahead: it proves no detection{by}")
        }
        Standing::Unexplained => "no rule knows it: the fault reached farther, or there is a real trouble".to_owned(),
    };
    let says = if alert.summary.is_empty() { String::new() } else { format!(": {}", alert.summary) };
    Row {
        name: format!("{}{says}", alert.name),
        whose,
        when,
        standing,
        strange: alert.standing == Standing::Unexplained,
    }
}
