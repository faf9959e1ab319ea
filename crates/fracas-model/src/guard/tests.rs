//! Guard-rails: what they admit, over whole fleets, and what their documents may get wrong.

use proptest::prelude::*;

use super::*;
use crate::document::{read_experiment, tests::catalogue};

fn host(id: &str, role: &str) -> HostView {
    HostView {
        id: id.into(),
        name: id.to_owned(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        environment: "default".into(),
        connected: true,
        quarantined: None,
        cordoned: None,
        taken: None,
        observer: false,
    }
}

fn fleet() -> Vec<HostView> {
    (0..10).map(|i| host(&format!("h{i}"), if i < 4 { "db" } else { "web" })).collect()
}

fn rails(limits: &str) -> GuardRails {
    let text = format!("apiVersion: fracas/v1\nkind: GuardRails\nlimits: {limits}\n");
    read_guard_rails("g.yaml", &text).unwrap().0
}

fn wants(ids: &[&str]) -> BTreeSet<HostId> {
    ids.iter().map(|id| (*id).into()).collect()
}

fn told(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn limits_count_over_all_runs() {
    let rails = rails("[{ name: fleet, maxPercent: 20% }, { name: dbs, select: role=db, maxHosts: 1 }]");
    let mut hosts = fleet();
    assert!(admit(&rails, &hosts, &wants(&["h0", "h9"])).is_empty());
    let refused = told(&admit(&rails, &hosts, &wants(&["h0", "h1"])));
    assert!(refused.contains("guard-rail dbs: 2 of 4 (hosts with role=db) would be under fault"), "{refused}");
    hosts[0].taken = Some("r1".into());
    assert!(admit(&rails, &hosts, &wants(&["h8"])).is_empty());
    let refused = told(&admit(&rails, &hosts, &wants(&["h8", "h9"])));
    assert!(refused.contains("guard-rail fleet: 3 of 10 (all hosts) would be under fault at once"), "{refused}");
    assert!(refused.contains("20% may be: 2"), "{refused}");
}

#[test]
fn the_ones_left_are_those_in_contact_and_untouched() {
    let rails = rails("[{ name: dbs, select: role=db, minHealthy: 2 }]");
    let mut hosts = fleet();
    assert!(admit(&rails, &hosts, &wants(&["h0", "h1"])).is_empty());
    hosts[2].connected = false;
    let refused = told(&admit(&rails, &hosts, &wants(&["h0", "h1"])));
    assert!(
        refused.contains("1 of 4 (hosts with role=db) would be left in health")
            && refused.contains("h2 (not in contact)"),
        "{refused}"
    );
    // The same while a run goes on; who is in another group is not concerned.
    hosts[0].taken = Some("r".into());
    assert_eq!(broken(&rails, &hosts, &wants(&["h0"])), None);
    hosts[3].quarantined = Some("left open".into());
    assert!(broken(&rails, &hosts, &wants(&["h0"])).unwrap().contains("1 of 4"));
    assert_eq!(broken(&rails, &hosts, &wants(&["h9"])), None);
    assert!(admit(&rails, &hosts, &wants(&["h9"])).is_empty());
}

#[test]
fn environments_are_counted_apart() {
    let rails = rails("[{ name: prod, environments: [prod], maxHosts: 0 }]");
    let mut hosts = fleet();
    assert!(admit(&rails, &hosts, &wants(&["h0"])).is_empty());
    hosts[0].environment = "prod".into();
    assert!(told(&admit(&rails, &hosts, &wants(&["h0"]))).contains("all hosts in prod"));
}

#[test]
fn rules_ask_for_approval_by_place_fault_number_and_length() {
    let text = "apiVersion: fracas/v1\nkind: Experiment\nname: x\ntargets: { db: { select: role=db } }\n\
                timeline: [{ id: k, at: 0s, target: db, fault: { process-kill: { name: a } } }]\n";
    let experiment = read_experiment("t", text, &BTreeMap::new(), &catalogue()).unwrap().experiment;
    let drawn: BTreeMap<TargetId, Vec<HostId>> = [("db".into(), vec!["h0".into(), "h1".into()])].into();
    let asks = |rule: &str| {
        let text = format!("apiVersion: fracas/v1\nkind: GuardRails\napprovals: [{{ name: a, {rule} }}]\n");
        let rails = read_guard_rails("g.yaml", &text).unwrap().0;
        ["default", "prod"].map(|place| !rails.asking(&experiment, place, &drawn).is_empty())
    };
    assert_eq!(asks("count: 2"), [true, true]);
    assert_eq!(asks("environments: [prod]"), [false, true]);
    assert_eq!(asks("faults: [process-kill]"), [true, true]);
    assert_eq!(asks("faults: ['process-*']"), [true, true]);
    assert_eq!(asks("faults: ['net-*', cpu-load]"), [false, false]);
    assert_eq!(asks("moreHostsThan: 1"), [true, true]);
    assert_eq!(asks("moreHostsThan: 2"), [false, false]);
    assert_eq!(asks("longerThan: 1s"), [false, false], "it does not last");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let text = "apiVersion: fracas/v1\nkind: GuardRails\nlimits:\n  - { name: a, maxHosts: 1 }\n  - { name: a }\n  \
                - { name: b, maxPercnt: 3%, environments: ['../x'] }\n";
    let wrong = read_guard_rails("g.yaml", text).unwrap_err();
    let told = wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n");
    for words in ["a second one is called `a`", "bounds nothing", "did you mean `maxPercent`?", "environment \"../x\""]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(is_guard_rails(text) && !is_guard_rails("kind: Schedule"));
}

use crate::diagnostic::Diagnostic;

proptest! {
    /// What was admitted one after the other never exceeds a limit, whoever was lost in between.
    #[test]
    fn whatever_is_admitted_stays_within_every_limit(
        most in 0_u32..6, least in 0_u32..8, percent in 0_u32..100,
        steps in prop::collection::vec((0_usize..10, 0_usize..10, any::<bool>()), 1..20),
    ) {
        let rails = rails(&format!("[{{ name: f, maxHosts: {most}, minHealthy: {least}, maxPercent: {percent}% }}]"));
        let mut hosts = fleet();
        for (n, (a, b, lost)) in steps.into_iter().enumerate() {
            if lost {
                hosts[a].connected = false;
                continue;
            }
            let wanted = wants(&[&format!("h{a}"), &format!("h{b}")]);
            if admit(&rails, &hosts, &wanted).is_empty() {
                for host in hosts.iter_mut().filter(|host| wanted.contains(&host.id)) {
                    host.taken = Some(format!("r{n}").as_str().into());
                }
                let under = hosts.iter().filter(|host| host.taken.is_some()).count();
                let healthy = hosts.iter().filter(|host| host.connected && host.taken.is_none()).count();
                prop_assert!(under <= most as usize && healthy >= least as usize);
                prop_assert!(under * 100 <= percent as usize * 10);
            }
        }
    }
}
