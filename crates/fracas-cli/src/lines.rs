//! One line of text per significant event, with a wording that scripts may rely on. It folds names and the start only.

use std::collections::BTreeMap;

use fracas_model::{
    event::{Body, Event},
    id::HostId,
    report::event_text,
    run::OBSERVER,
    time::Stamp,
    units::Dur,
};

use crate::times::{self, Zone};

/// What a line needs to know from earlier events: names of hosts, and when the timeline began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    hosts: BTreeMap<HostId, String>,
    zero_wall_ns: Option<i64>,
}

impl Names {
    /// Learns from an event; call it before wording the event.
    pub(crate) fn learn(&mut self, event: &Event) {
        match &event.body {
            Body::Planned { hosts, .. } => self.hosts.clone_from(hosts),
            Body::GatePassed { at } => self.zero_wall_ns = Some(at.wall_ns),
            _ => {}
        }
    }

    /// The name of a host, or its id where none is known.
    pub(crate) fn host(&self, id: &HostId) -> String {
        self.hosts.get(id).cloned().unwrap_or_else(|| id.to_string())
    }

    fn vantage(&self, event: &Event) -> String {
        event.origin.as_ref().map(|o| format!("{}: ", self.host(&o.host))).unwrap_or_default()
    }
}

/// The whole line: UTC, local time, distance from the start of the timeline, words. `None` for events without news.
pub(crate) fn line(event: &Event, names: &Names, zone: Zone) -> Option<String> {
    let words = wording(event, names)?;
    let wall_ns = happened(event).wall_ns;
    let distance = names.zero_wall_ns.map_or(String::new(), |zero| times::from_zero(Dur::from_ns(wall_ns - zero)));
    Some(format!("{} {distance:>10}  {words}", times::both(wall_ns, zone)))
}

/// When the thing itself happened, on the clock of whoever saw it.
pub(crate) fn happened(event: &Event) -> &Stamp {
    match &event.body {
        Body::Active { effective, .. } | Body::Spent { effective, .. } => &effective.to,
        Body::Undone { between, .. } => &between.to,
        Body::Planned { at, .. }
        | Body::GateStarted { at }
        | Body::GatePassed { at }
        | Body::EntryStarted { at, .. }
        | Body::RolloutWidened { at, .. }
        | Body::EntrySkipped { at, .. }
        | Body::EntryEnded { at, .. }
        | Body::EntryFailed { at, .. }
        | Body::Decided { at, .. }
        | Body::Marked { at, .. }
        | Body::MarkRetracted { at, .. }
        | Body::Signalled { at, .. }
        | Body::ServiceRecovered { at, .. }
        | Body::StopRequested { at, .. }
        | Body::Aborted { at, .. }
        | Body::RecoveryStarted { at }
        | Body::GaveUp { at, .. }
        | Body::UndoStarted { at }
        | Body::HostContact { at, .. }
        | Body::FoundClean { at, .. }
        | Body::Restored { at, .. }
        | Body::Resumed { at }
        | Body::Finished { at, .. }
        | Body::Refused { at, .. }
        | Body::Applying { at, .. }
        | Body::Checked { at, .. }
        | Body::Undoing { at, .. }
        | Body::UndoFailed { at, .. }
        | Body::Failed { at, .. }
        | Body::ProbeStarted { at, .. }
        | Body::PaceChanged { at, .. }
        | Body::ProbeRefused { at, .. }
        | Body::Edge { at, .. }
        | Body::StopConditionMet { at, .. }
        | Body::Gap { at, .. }
        | Body::LedgersClosed { at }
        | Body::LedgersReleased { at }
        | Body::LedgerOpened { at, .. }
        | Body::LedgerRefused { at, .. }
        | Body::LedgerRead { at, .. }
        | Body::LedgerTroubled { at, .. }
        | Body::LedgerDropped { at, .. } => at,
        _ => &event.received,
    }
}

/// What happened, in words. `None` for events that are only of use to programs.
pub(crate) fn wording(event: &Event, names: &Names) -> Option<String> {
    let words = || event_text(&event.body, &|host| names.host(host));
    Some(match &event.body {
        Body::ReadingsSealed { .. }
        | Body::ClockSeen { .. }
        | Body::ReportSealed { .. }
        | Body::MarkersWritten { .. } => return None,
        Body::Planned { .. } => planned(&event.body, names),
        Body::Finished { verdict, reasons, .. } => {
            let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
            format!("verdict: {}{reasons}", verdict.name())
        }
        // One probe may look from many hosts.
        Body::ProbeStarted { .. }
        | Body::PaceChanged { .. }
        | Body::ProbeRefused { .. }
        | Body::Edge { .. }
        | Body::StopConditionMet { .. }
        | Body::Gap { .. }
        | Body::LedgerOpened { .. }
        | Body::LedgerRefused { .. }
        | Body::LedgerRead { .. }
        | Body::LedgerTroubled { .. }
        | Body::LedgerDropped { .. } => {
            format!("{}{}", names.vantage(event), words())
        }
        _ => words(),
    })
}

fn planned(body: &Body, names: &Names) -> String {
    let Body::Planned { run, document, source_name, seed, targets, .. } = body else { return String::new() };
    let name = document.get("name").and_then(serde_json::Value::as_str).unwrap_or("?");
    let drawn = targets.iter().filter(|(target, _)| target.as_str() != OBSERVER).map(|(target, hosts)| {
        let hosts: Vec<String> = hosts.iter().map(|h| names.host(h)).collect();
        format!("{target} = {}", if hosts.is_empty() { "no host".to_owned() } else { hosts.join(", ") })
    });
    let drawn = drawn.collect::<Vec<_>>().join("; ");
    format!("run {run}: {name} from {source_name}, seed {seed}: {drawn}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_whole_run_in_lines() {
        let mut names = Names::default();
        let lines: Vec<String> = fixture::history()
            .iter()
            .filter_map(|event| {
                names.learn(event);
                line(event, &names, Zone::East(3600))
            })
            .collect();
        assert_eq!(lines, fixture::LINES);
    }
}
