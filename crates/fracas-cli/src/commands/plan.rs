//! `fracas plan`: what a run would do, host by host, step by step, with every undo. Nothing is changed anywhere.

use fracas_model::{event::Rehearsal, id::HostId, ledger::place, run::OBSERVER};

use crate::{
    Session,
    args::PlanArgs,
    client::PlanAnswer,
    error::CliError,
    exit, source, steps,
    words::{self, count},
};

pub(crate) async fn plan(session: &Session<'_>, given: &PlanArgs) -> Result<u8, CliError> {
    let answer = session.client()?.plan(source::submission(&given.document)?).await?;
    let refused = refused(&answer);
    if session.output.json {
        session.output.json("fracas.plan/v1", &answer)?;
    } else {
        session.output.text(&page(&answer))?;
    }
    Ok(if refused { exit::REFUSED } else { exit::PASS })
}

/// Whether this plan could not be run.
pub(crate) fn refused(answer: &PlanAnswer) -> bool {
    !answer.refusals.is_empty() || answer.rehearsals.iter().any(|r| !r.refusals.is_empty())
}

/// The whole plan for people.
pub(crate) fn page(answer: &PlanAnswer) -> String {
    let mut page: String = answer.warnings.iter().map(|w| format!("{}\n\n", w.render())).collect();
    page += &format!("{}\n\ntargets (seed {})\n", answer.experiment.name, answer.seed);
    for (target, hosts) in answer.targets.iter().filter(|(target, _)| target.as_str() != OBSERVER) {
        let names: Vec<String> = hosts.iter().map(|host| name(answer, host)).collect();
        let names = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
        page += &format!("  {target}: {names}\n");
    }
    page.extend(answer.notes.iter().map(|note| format!("  note: {note}\n")));
    page += &timeline(answer);
    page += &changes(answer);
    page += &ledgers(answer);
    page += &refusals(answer);
    page + &format!("\nintent  sha256:{}\nplan    sha256:{}\n", answer.intent, answer.plan)
}

fn name(answer: &PlanAnswer, host: &HostId) -> String {
    answer.hosts.get(host).cloned().unwrap_or_else(|| host.to_string())
}

fn timeline(answer: &PlanAnswer) -> String {
    let experiment = &answer.experiment;
    let mut text = "\ntimeline\n".to_owned();
    if let Some(gate) = &experiment.steady_state {
        let probes: Vec<&str> = gate.probes.iter().map(fracas_model::id::ProbeId::as_str).collect();
        text += &format!("  first: {} ok for {}, within {}\n", probes.join(", "), gate.hold_for, gate.give_up_after);
    }
    let mut under = None;
    for entry in &experiment.timeline {
        let section = experiment.section_of(entry.id.as_str());
        if let Some(section) = section.filter(|section| under != Some(&section.id)) {
            text += &format!("  section {}: {} from {}\n", section.id, section.name, section.file);
        }
        under = section.map(|section| &section.id);
        text += &format!("  {}: {}, {}\n", entry.id, words::action(entry), words::trigger(&entry.trigger));
    }
    for rail in &experiment.abort_when {
        text += &format!("  aborts when {}\n", rail.text());
    }
    if !experiment.services.is_empty() {
        let recovery = &experiment.recovery;
        text += &format!("  last: services up for {}, within {}\n", recovery.stable_for, recovery.give_up_after);
    }
    text
}

fn changes(answer: &PlanAnswer) -> String {
    let mut text = "\nchanges\n".to_owned();
    for rehearsal in &answer.rehearsals {
        text += &format!("  {} on {}", rehearsal.item.entry, name(answer, &rehearsal.item.host));
        if answer.canaries.get(&rehearsal.item.entry).is_some_and(|canary| canary.contains(&rehearsal.item.host)) {
            text += " (canary)";
        }
        text += &match &rehearsal.plan {
            Some(plan) => format!(": {}\n", plan.summary),
            None => ": cannot be done, see below\n".to_owned(),
        };
        text += &of_host(rehearsal);
    }
    if answer.rehearsals.is_empty() {
        text += "  none\n";
    }
    text
}

/// What is written into services, and where; nothing without a ledger.
fn ledgers(answer: &PlanAnswer) -> String {
    let mut text = String::new();
    for (id, ledger) in &answer.experiment.ledgers {
        let target = ledger.from.clone().unwrap_or_else(|| OBSERVER.into());
        for host in answer.targets.get(&target).into_iter().flatten() {
            // A run has its id when it begins.
            let place = place(&"RUN".into(), id, host).replacen("fracas_run_", "fracas_RUN_", 1);
            let place = place.rsplit_once('_').map_or(place.as_str(), |(place, _)| place);
            text += &format!(
                "  {id} on {}: markers every {} by {}, into {place}_..., of its own; read back and removed once all is undone\n",
                name(answer, host),
                ledger.every,
                ledger.kind
            );
        }
    }
    if text.is_empty() { text } else { format!("\nledgers\n{text}") }
}

fn of_host(rehearsal: &Rehearsal) -> String {
    let steps = rehearsal.plan.iter().flat_map(|plan| &plan.steps);
    steps
        .map(|step| {
            let exempt = steps::exemptions(step).map(|e| format!("      {e}\n")).unwrap_or_default();
            format!("    - {}\n{exempt}      undo: {}\n", steps::does(step), steps::undo(step))
        })
        .collect()
}

/// Everything that stands in the way; empty when nothing does.
pub(crate) fn refusals(answer: &PlanAnswer) -> String {
    let mut lines: Vec<String> = answer.refusals.iter().map(ToString::to_string).collect();
    for rehearsal in &answer.rehearsals {
        let whose = format!("{} on {}", rehearsal.item.entry, name(answer, &rehearsal.item.host));
        for refusal in &rehearsal.refusals {
            let known = lines.iter().any(|line| line.contains(&refusal.why));
            if !known {
                lines.push(format!("{whose}: {refusal}"));
            }
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let heading = format!("\nrefused ({})\n", count(lines.len(), "reason"));
    lines.iter().fold(heading, |text, line| format!("{text}  {line}\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fracas_model::{
        event::Body,
        id::ItemKey,
        plan::{Check, Plan, Refusal, Step},
        process::ProcessRef,
    };

    use super::*;
    use crate::fixture;

    fn answer() -> PlanAnswer {
        let Body::Planned { document, targets, hosts, .. } = fixture::history().remove(0).body else { panic!() };
        let item = ItemKey { run: "r1".into(), entry: "kill".into(), occurrence: 0, host: "h1".into(), generation: 1 };
        let process = ProcessRef { pid: 7, start_ticks: 1, name: "postgres".into() };
        let steps = vec![Step::Signal { process, signal: 9, signal_name: "KILL".into() }];
        let (claims, check) = (Vec::new(), Check::Gone { processes: Vec::new() });
        let plan = Some(Plan { steps, claims, check, summary: "kill postgres".into() });
        PlanAnswer {
            seed: 7,
            intent: "aa".into(),
            plan: "bb".into(),
            experiment: serde_json::from_value(document).unwrap(),
            targets,
            hosts,
            canaries: BTreeMap::new(),
            rehearsals: vec![Rehearsal { item, plan, refusals: Vec::new(), digest: "cc".into() }],
            refusals: Vec::new(),
            warnings: Vec::new(),
            notes: vec!["target primary: left out db-2: its agent is not in contact".into()],
        }
    }

    #[test]
    fn a_plan_shows_hosts_changes_and_undo() {
        let answer = answer();
        assert!(!refused(&answer));
        assert_eq!(
            page(&answer),
            "shop-survives\n\ntargets (seed 7)\n  edge: edge-1\n  primary: db-1\n  note: target \
             primary: left out db-2: its agent is not in contact\n\ntimeline\n  \
             kill: crash on primary, at 0s\n  slow: lag on primary for 20s, after shop recovered\n  \
             last: services up for 5s, within 5m\n\nchanges\n  kill on db-1: kill postgres\n    \
             - send SIGKILL to postgres (pid 7)\n      undo: nothing to undo: it happens once\n\n\
             intent  sha256:aa\nplan    sha256:bb\n"
        );
    }

    #[test]
    fn a_refusal_is_shown_once_with_its_way_out() {
        let mut answer = answer();
        let refusal = Refusal::new("policy forbids crash", "ask the owner of db-1");
        answer.rehearsals[0].plan = None;
        answer.rehearsals[0].refusals = vec![refusal.clone()];
        answer.refusals = vec![Refusal::new(format!("kill on db-1: {}", refusal.why), refusal.instead)];
        answer.hosts = BTreeMap::new();
        assert!(refused(&answer));
        let page = page(&answer);
        assert!(page.contains("kill on h1: cannot be done, see below"), "{page}");
        assert!(page.contains("refused (1 reason)\n  kill on db-1: policy forbids crash; ask the owner of db-1\n"));
    }
}
