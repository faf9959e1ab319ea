//! Model values in the words of the command line: triggers, actions, counts. Events and verdicts in words are the model's.

use fracas_model::{
    experiment::{Action, AfterWhat, Entry, Pick, Rollout, Trigger},
    id::{ProbeId, ServiceId},
    units::Dur,
};

/// When an entry starts: `at 10s`, `5s after kill ended`.
pub(crate) fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::At(offset) => format!("at {offset}"),
        Trigger::After { what, delay } => {
            let what = match what {
                AfterWhat::Started(entry) => format!("{entry} started"),
                AfterWhat::Effective(entry) => format!("{entry} is effective"),
                AfterWhat::Ended(entry) => format!("{entry} ended"),
                AfterWhat::Recovered(service) => format!("{service} recovered"),
                // An entry that a game day adds, or the end of all that came before it.
                AfterWhat::Over(entries) => match entries.as_slice() {
                    [one] => format!("{one} is over"),
                    _ => "all before it are over".to_owned(),
                },
            };
            if *delay == Dur::ZERO { format!("after {what}") } else { format!("{delay} after {what}") }
        }
    }
}

/// What an entry does: `net-delay on primary for 1m`, `wait 10s`.
pub(crate) fn action(entry: &Entry) -> String {
    match &entry.action {
        Action::Wait { duration } => format!("wait {duration}"),
        Action::Check { probes, hold_for, .. } => {
            let probes: Vec<&str> = probes.iter().map(ProbeId::as_str).collect();
            format!("check that {} is ok for {hold_for}", probes.join(", "))
        }
        Action::Approval { question, .. } => format!("go or no-go: {question}"),
        Action::Recovery { services } if services.is_empty() => "end of the section".to_owned(),
        Action::Recovery { services } => {
            let services: Vec<&str> = services.iter().map(ServiceId::as_str).collect();
            format!("wait until {} has recovered", services.join(", "))
        }
        Action::Fault { fault, target, duration, rollout, .. } => {
            let lasting = duration.map(|d| format!(" for {d}")).unwrap_or_default();
            let first = rollout.as_ref().map(canary).unwrap_or_default();
            format!("{fault} on {target}{lasting}{first}")
        }
    }
}

/// `, on 1 host first until shop is ok for 10s`.
fn canary(rollout: &Rollout) -> String {
    let few = match &rollout.canary {
        Pick { percent: Some(percent), .. } => format!("{percent} of the hosts"),
        Pick { count: host_count, .. } => count(host_count.unwrap_or(1) as usize, "host"),
    };
    let probes: Vec<&str> = rollout.probes.iter().map(ProbeId::as_str).collect();
    let ok = if probes.is_empty() { "it has held".to_owned() } else { format!("{} is ok", probes.join(", ")) };
    format!(", on {few} first until {ok} for {}", rollout.hold_for)
}

/// `1 run`, `2 runs`.
pub(crate) fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_read_like_the_document() {
        let after = Trigger::After { what: AfterWhat::Recovered("shop".into()), delay: Dur::from_secs(5) };
        assert_eq!(trigger(&after), "5s after shop recovered");
        assert_eq!(trigger(&Trigger::At(Dur::ZERO)), "at 0s");
    }
}
