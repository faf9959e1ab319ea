//! Events in words, for the appendix and for live views of a history.

use std::collections::BTreeMap;

use super::{
    EventLine, ledgers,
    story::{Story, stamp_of},
};
use crate::{
    event::{Body, Event, Look, Measured, Proof, UndoCause},
    id::{HostId, ProbeId},
    run::Answer,
    signal::Signal,
    time::ClockId,
    units::Dur,
};

/// Every event as one line.
pub(super) fn lines(story: &Story, events: &[Event]) -> Vec<EventLine> {
    let mut last: BTreeMap<(&ProbeId, &ClockId), (bool, Look)> = BTreeMap::new();
    events
        .iter()
        .map(|event| {
            let again = match &event.body {
                Body::Edge { probe, ok, after, at, .. } => {
                    last.insert((probe, &at.clock), (*ok, *after)) == Some((*ok, *after))
                }
                _ => false,
            };
            let name = |host: &HostId| story.head.hosts.get(host).map_or(host.to_string(), Clone::clone);
            let at_ns = match stamp_of(&event.body) {
                Some(at) if at.clock != event.received.clock => story.offset_of(at),
                Some(at) => story.since_origin(at),
                None => story.since_origin(&event.received),
            };
            let host = event.origin.as_ref().map(|o| o.host.clone());
            EventLine {
                seq: event.seq,
                wall_ns: event.received.wall_ns,
                at_ns,
                kind: kind(&event.body),
                text: if again { known_better(&event.body) } else { text(&event.body, &name) },
                host: host.or_else(|| event.body.item().map(|item| item.host.clone())),
                routine: again
                    || ledgers::routine(event)
                    || matches!(event.body, Body::ReadingsSealed { .. } | Body::ClockSeen { .. }),
            }
        })
        .collect()
}

/// A change that was told once more, with another look before it.
fn known_better(body: &Body) -> String {
    match body {
        Body::Edge { probe, ok, .. } => {
            format!("{probe}: when it came to be {} is known more closely", if *ok { "ok" } else { "failing" })
        }
        _ => String::new(),
    }
}

/// The event's name as it is stored.
fn kind(body: &Body) -> String {
    let value = serde_json::to_value(body).unwrap_or_default();
    value.get("kind").and_then(|k| k.as_str()).unwrap_or("unknown").to_owned()
}

/// `alertmanager: CheckoutDown is firing (checkout does not answer), and 2 more`.
fn signalled(source: &str, signals: &[Signal], left_out: u64) -> String {
    let Some(first) = signals.first() else { return format!("{source} told of {left_out} alerts that are left out") };
    let says = if first.summary.is_empty() { String::new() } else { format!(" ({})", first.summary) };
    let more = if signals.len() > 1 { format!(", and {} more", signals.len() - 1) } else { String::new() };
    format!("{source}: {} is {}{says}{more}", first.name(), first.state)
}

/// One event in words; `name` gives names of hosts.
pub fn text(body: &Body, name: &dyn Fn(&HostId) -> String) -> String {
    match body {
        Body::Planned { by, targets, .. } => {
            format!("accepted from {by}, {} hosts drawn", targets.values().map(Vec::len).sum::<usize>())
        }
        Body::GateStarted { .. } => "waiting for steady state".into(),
        Body::GatePassed { .. } => "steady state held: the clock of the timeline starts".into(),
        Body::EntryStarted { entry, generation: 1, .. } => format!("{entry} started"),
        Body::EntryStarted { entry, generation, .. } => format!("{entry} asked for anew, attempt {generation}"),
        Body::RolloutWidened { entry, .. } => format!("{entry}: its canary held, it goes to the other hosts"),
        Body::EntrySkipped { entry, why, .. } => format!("{entry} skipped: {why}"),
        Body::EntryEnded { entry, .. } => format!("{entry} ended"),
        Body::EntryFailed { entry, why, .. } => format!("{entry}: {why}; what was to come after it is skipped"),
        Body::Decided { entry, go, by, note, .. } => {
            let answer = Answer { go: *go, by: by.clone(), note: note.clone() };
            format!("{entry}: {}", answer.text())
        }
        Body::Marked { mark, service, by, did, note, .. } => {
            let whose = did.as_ref().map_or_else(|| by.clone(), |did| format!("{did}, says {by}"));
            let of = service.as_ref().map(|service| format!("{service} ")).unwrap_or_default();
            format!("{of}{mark} by {whose}{}{note}", if note.is_empty() { "" } else { ": " })
        }
        Body::Signalled { source, signals, left_out, .. } => signalled(source, signals, *left_out),
        Body::MarkRetracted { mark, service, by, note, .. } => {
            let of = service.as_ref().map(|service| format!("{service} ")).unwrap_or_default();
            let why = if note.is_empty() { String::new() } else { format!(": {note}") };
            format!("{of}{mark} taken back by {by}{why}")
        }
        Body::ServiceRecovered { service, .. } => format!("{service} recovered: up for the whole stable window"),
        Body::StopRequested { by, reason, .. } => format!("stop asked by {by}: {reason}"),
        Body::Aborted { cause, .. } => format!("aborted: {cause}"),
        Body::RecoveryStarted { .. } => "timeline through: waiting for services to be stable".into(),
        Body::GaveUp { services, .. } => {
            let names: Vec<&str> = services.iter().map(crate::id::ServiceId::as_str).collect();
            format!("gave up waiting for {}", names.join(", "))
        }
        Body::UndoStarted { .. } => "nothing is desired any more: waiting for hosts to confirm".into(),
        Body::HostContact { host, connected: true, .. } => format!("contact with {} again", name(host)),
        Body::HostContact { host, .. } => format!("contact with {} lost", name(host)),
        Body::ClockSeen { map } => {
            format!(
                "clock of {} known within {}",
                name(&map.from.host),
                Dur::from_ns(map.hi_ns.saturating_sub(map.lo_ns)).human()
            )
        }
        Body::Restored { .. } => "the history was restored from a backup: what happened since that is not in it".into(),
        Body::Resumed { .. } => "a restarted controller took the run over".into(),
        Body::Finished { verdict, reasons, .. } => {
            format!("finished: {}{}", verdict.name(), reasons.first().map(|r| format!(" ({r})")).unwrap_or_default())
        }
        Body::ReportSealed { digest, .. } => format!("report kept, SHA-256 {digest}"),
        Body::ProbeStarted { probe, .. } => format!("{probe} began to look"),
        Body::PaceChanged { probe, every, .. } => format!("{probe} looks every {every} from now on"),
        Body::ProbeRefused { probe, refusal, .. } => format!("{probe} cannot look: {refusal}"),
        Body::Edge { probe, ok: true, .. } => format!("{probe} ok"),
        Body::Edge { probe, why, .. } if why.is_empty() => format!("{probe} failing"),
        Body::Edge { probe, why, .. } => format!("{probe} failing: {why}"),
        Body::StopConditionMet { probe, why, .. } => format!("stop condition: {probe} {why}"),
        Body::Gap { probe, missed, why, .. } => format!("{probe} missed {missed} ticks: {why}"),
        Body::ReadingsSealed { probe, ok, failed, .. } => format!("{probe}: {ok} ok, {failed} failed"),
        _ => ledgers::text(body).unwrap_or_else(|| item_text(body, name)),
    }
}

fn item_text(body: &Body, name: &dyn Fn(&HostId) -> String) -> String {
    let Some(item) = body.item() else { return String::from("an event of another stream") };
    let what = format!("{} on {}", item.entry, name(&item.host));
    match body {
        Body::Withdrawn { .. } => format!("{what} was taken back before the host began"),
        Body::Unanswered { .. } => format!("{what}: the host never said what became of it"),
        Body::FoundClean { .. } => format!("{what} is not there any more, says the host; how it ended is not known"),
        Body::Refused { refusal, .. } => format!("{what} refused: {refusal}"),
        Body::Applying { plan, .. } => format!("{what} applying: {}", plan.summary),
        Body::Active { .. } => format!("{what} active"),
        Body::Checked { proof, measured, .. } => {
            let proof = match proof {
                Proof::Verified => "verified".to_owned(),
                Proof::Ineffective { why } => format!("ineffective: {why}"),
                Proof::Unverified { why } => format!("unverified: {why}"),
            };
            let numbers: Vec<String> = measured.iter().map(asked_and_measured).collect();
            format!("{what} {proof}{}{}", if numbers.is_empty() { "" } else { "; " }, numbers.join("; "))
        }
        Body::Spent { certain: true, .. } => format!("{what} fired"),
        Body::Spent { .. } => format!("{what} may have fired: the agent died in the act"),
        Body::Undoing { cause, .. } => format!("{what} undoing: {}", cause_text(*cause)),
        Body::Undone { cause, .. } => format!("{what} undone and read back ({})", cause_text(*cause)),
        Body::UndoFailed { failures, .. } => format!("{what} could not be undone yet: {}", failures.join("; ")),
        Body::Failed { failure, .. } => format!("{what} failed: {failure}"),
        _ => what,
    }
}

/// `added delay: asked 200 ms, measured 201.3 ms p50, n = 50`.
pub fn asked_and_measured(m: &Measured) -> String {
    let number = |x: f64| {
        let text = format!("{x:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let asked = m.asked.map(|a| format!("asked {} {}, ", number(a), m.unit)).unwrap_or_default();
    let p99 = m.p99.map(|p| format!(", p99 {} {}", number(p), m.unit)).unwrap_or_default();
    format!("{}: {asked}measured {} {}{p99}, n = {}, by {}", m.what, number(m.got), m.unit, m.n, m.by)
}

/// Why a fault ended, in words.
pub fn cause_text(cause: UndoCause) -> &'static str {
    match cause {
        UndoCause::Expired => "its duration ended",
        UndoCause::NotDesired => "the controller no longer asked for it",
        UndoCause::LeaseLost => "contact with the controller was lost",
        UndoCause::AgentRestart => "the agent was restarted",
        UndoCause::Reboot => "the host was booted",
        UndoCause::Local => "a person on the host undid it",
        UndoCause::ApplyFailed => "it could not be applied completely",
        UndoCause::Policy => "the host's policy no longer allowed it",
    }
}
