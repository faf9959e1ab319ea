//! The two digests of a run: what is meant (intent) and what will be done (plan), free of what changes by itself.
//!
//! `intent` is over the canonical document with its parameters applied; `plan` adds the seed, the drawn hosts and each
//! host's plan with numbers that only one moment knows (process, device, slot) left out. SHA-256, hexadecimal.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    event::Rehearsal,
    facts::FileMark,
    id::{EntryId, HostId, TargetId},
    plan::{Check, Claim, Filter, Plan, Step},
    process::ProcessRef,
};

/// Digest of intent. `canonical` is the JSON of the typed experiment, whose keys serde_json keeps sorted.
pub fn intent(canonical: &Value) -> String {
    hex(canonical)
}

/// Digest of a whole plan: equal for equal intent, seed, hosts and host plans, whatever the run is called.
pub fn plan(
    intent: &str,
    seed: u64,
    targets: &BTreeMap<TargetId, Vec<HostId>>,
    canaries: &BTreeMap<EntryId, Vec<HostId>>,
    rehearsals: &[Rehearsal],
) -> String {
    let mut plans: Vec<(&str, u32, &str, &str)> = rehearsals
        .iter()
        .map(|r| (r.item.entry.as_str(), r.item.occurrence, r.item.host.as_str(), r.digest.as_str()))
        .collect();
    plans.sort_unstable();
    let mut whole = json!({ "intent": intent, "seed": seed, "targets": targets, "plans": plans });
    if !canaries.is_empty() {
        whole["canaries"] = json!(canaries);
    }
    hex(&whole)
}

/// Digest of one host's plan. Volatile numbers do not count; names, filters, magnitudes and how many of each do.
pub fn of_plan(plan: &Plan) -> String {
    let mut lasting = plan.clone();
    for step in &mut lasting.steps {
        steady_step(step);
    }
    for claim in &mut lasting.claims {
        match claim {
            Claim::Process(pid) => *pid = 0,
            Claim::Network { filter, .. } => steady_filter(filter),
            Claim::Space(device) => device.clear(),
            Claim::Core(_) | Claim::File(_) | Claim::Unit(_) => {}
        }
    }
    match &mut lasting.check {
        Check::Gone { processes } | Check::Delivered { processes, .. } | Check::Stopped { processes } => {
            processes.iter_mut().for_each(steady_process);
        }
        Check::Packets { filter, .. } => steady_filter(filter),
        Check::CpuUse { .. } | Check::Content { .. } | Check::DiskUse(_) | Check::UnitStopped { .. } => {}
    }
    hex(&serde_json::to_value(&lasting).unwrap_or_default())
}

/// SHA-256 of a text, hexadecimal.
pub fn of_text(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn steady_step(step: &mut Step) {
    // Devices, handles and priorities of ours are made from the slot that was free at the moment.
    const OURS: &str = "ours";
    match step {
        Step::Seize { process } | Step::Suspend { process } | Step::Signal { process, .. } => steady_process(process),
        Step::MakeIfb { name } => OURS.clone_into(name),
        Step::MakeNetem { device, .. } => OURS.clone_into(device),
        Step::Redirect { to, priority, filter, .. } => {
            OURS.clone_into(to);
            *priority = 0;
            steady_filter(filter);
        }
        Step::Lose { priority, filter, .. } => {
            *priority = 0;
            steady_filter(filter);
        }
        Step::Impair(impair) => steady_filter(&mut impair.filter),
        // Which file it was and what it held is put back, whatever it was; that it is replaced, and by what, counts.
        Step::Replace(replace) => replace.was = FileMark::any(),
        Step::Burn(_) | Step::Fill(_) | Step::MakeClsact { .. } | Step::StopUnit { .. } => {}
    }
}

/// Far ends that pass with a port are the controller's addresses, which come and go with its connections.
fn steady_filter(filter: &mut Filter) {
    filter.pass_remotes.retain(|(_, port)| *port == 0);
}

fn steady_process(process: &mut ProcessRef) {
    (process.pid, process.start_ticks) = (0, 0);
}

fn hex(value: &Value) -> String {
    of_text(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ItemKey;

    fn kill(pid: i32, name: &str) -> Plan {
        let process = ProcessRef { pid, start_ticks: pid as u64 * 7, name: name.into() };
        Plan {
            steps: vec![Step::Signal { process: process.clone(), signal: 9, signal_name: "KILL".into() }],
            claims: vec![Claim::Process(pid)],
            check: Check::Gone { processes: vec![process] },
            summary: format!("kill {name}"),
        }
    }

    #[test]
    fn only_what_lasts_counts() {
        assert_eq!(of_plan(&kill(10, "db")), of_plan(&kill(11, "db")));
        assert_ne!(of_plan(&kill(10, "db")), of_plan(&kill(10, "web")));
        let mut two = kill(10, "db");
        two.steps.push(two.steps[0].clone());
        assert_ne!(of_plan(&kill(10, "db")), of_plan(&two), "how many processes are hit counts");
    }

    #[test]
    fn the_plan_depends_on_hosts_and_seed_but_not_on_the_run() {
        let rehearsal = |run: &str, host: &str| Rehearsal {
            item: ItemKey { run: run.into(), entry: "e".into(), occurrence: 0, host: host.into(), generation: 1 },
            plan: None,
            refusals: vec![],
            digest: "d".into(),
        };
        let targets = BTreeMap::from([(TargetId::from("t"), vec![HostId::from("h")])]);
        let none = BTreeMap::new();
        let of = |seed, run, host| plan("i", seed, &targets, &none, &[rehearsal(run, host)]);
        assert_eq!(of(1, "r1", "h"), of(1, "r2", "h"));
        assert_ne!(of(1, "r1", "h"), of(2, "r1", "h"));
        assert_ne!(of(1, "r1", "h"), of(1, "r1", "g"));
        assert_eq!(of(1, "r1", "h").len(), 64);
        let canaries = BTreeMap::from([(EntryId::from("e"), vec![HostId::from("h")])]);
        assert_ne!(of(1, "r1", "h"), plan("i", 1, &targets, &canaries, &[rehearsal("r1", "h")]));
    }
}
