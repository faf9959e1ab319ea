//! The fleet: whose word counts, who may have a host, and what reaches whom.

use fracas_model::{catalogue::Params, time::ClockId};

use super::*;

fn now() -> Stamp {
    Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: 0 }
}

fn fault(run: &str, host: &str) -> FaultItem {
    let key = ItemKey { run: run.into(), entry: "e".into(), occurrence: 0, host: host.into(), generation: 1 };
    FaultItem {
        key,
        mode: Mode::Apply,
        experiment: String::new(),
        fault: "f".into(),
        params: Params::default(),
        duration: None,
        plan_digest: None,
    }
}

fn wish(run: &str, host: &str) -> BTreeMap<HostId, Wish> {
    [(host.into(), Wish { faults: vec![fault(run, host)], ..Wish::default() })].into()
}

#[test]
fn a_host_gets_the_union_of_all_runs_with_the_shortest_lease() {
    let fleet = Fleet::new(7);
    let host = HostId::from("h");
    let session = fleet.connect(&host, HostFacts::default(), Offer::default(), now()).unwrap();
    fleet.wish(&"r1".into(), Dur::from_secs(15), wish("r1", "h"));
    fleet.wish(&"r2".into(), Dur::from_secs(5), wish("r2", "h"));
    let desired = session.desired.borrow().clone();
    assert_eq!((desired.epoch, desired.faults.len(), desired.lease), (7, 2, Dur::from_secs(5)));
    fleet.forget(&"r1".into());
    assert_eq!(session.desired.borrow().faults.len(), 1);
}

#[test]
fn who_took_part_may_be_late_for_a_while() {
    let fleet = Fleet::new(1);
    let (host, run) = ("h".into(), RunId::from("r"));
    let takes_part = |host: &HostId| fleet.takes_part(host, &run);
    assert!(!takes_part(&host));
    fleet.wish(&run, IDLE_LEASE, wish("r", "h"));
    fleet.forget(&run);
    assert!(takes_part(&host) && !takes_part(&"g".into()));
    for n in 0..OVER {
        let other = RunId::from(format!("r{n}").as_str());
        fleet.join(&other, IDLE_LEASE, &["h".into()]);
        fleet.forget(&other);
    }
    assert!(!takes_part(&host));
}

#[test]
fn revisions_rise_and_repeats_do_not_wake_a_host() {
    let fleet = Fleet::new(1);
    let mut session = fleet.connect(&"h".into(), HostFacts::default(), Offer::default(), now()).unwrap();
    fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
    let first = session.desired.borrow_and_update().revision;
    fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
    fleet.wish(&"other".into(), IDLE_LEASE, wish("other", "g"));
    assert!(!session.desired.has_changed().unwrap());
    fleet.forget(&"r".into());
    assert!(session.desired.borrow_and_update().revision > first);
}

#[test]
fn a_halt_takes_every_fault_away_until_it_is_cleared() {
    let fleet = Fleet::new(1);
    let session = fleet.connect(&"h".into(), HostFacts::default(), Offer::default(), now()).unwrap();
    fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
    fleet.halt(Some("enough".into()));
    assert!(session.desired.borrow().faults.is_empty());
    fleet.forget(&"r".into());
    fleet.halt(None);
    assert!(session.desired.borrow().faults.is_empty(), "what the runs gave up does not come back");
}

#[test]
fn a_host_is_settled_once_it_has_taken_what_is_desired_of_it_now() {
    let fleet = Fleet::new(1);
    let host = HostId::from("h");
    assert_eq!(fleet.contact(&host), Contact::default());
    let session = fleet.connect(&host, HostFacts::default(), Offer::default(), now()).unwrap();
    let revision = || session.desired.borrow().revision;
    let first = revision();
    fleet.taken(&host, 1, first);
    assert_eq!(fleet.contact(&host), Contact { connected: true, settled: true });
    fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
    fleet.taken(&host, 1, first);
    fleet.taken(&host, 0, revision());
    assert!(!fleet.contact(&host).settled, "an older word, and a word to an older controller");
    fleet.taken(&host, 1, revision());
    fleet.wish(&"other".into(), IDLE_LEASE, wish("other", "g"));
    assert!(fleet.contact(&host).settled, "what is asked of others is no matter");
}

#[test]
fn an_old_session_cannot_close_a_new_one() {
    let fleet = Fleet::new(1);
    let host = HostId::from("h");
    let old = fleet.connect(&host, HostFacts::default(), Offer::default(), now()).unwrap();
    let new = fleet.connect(&host, HostFacts::default(), Offer::default(), now()).unwrap();
    fleet.disconnect(&host, old.number);
    assert!(fleet.hosts()[&host].connected);
    fleet.disconnect(&host, new.number);
    assert!(!fleet.hosts()[&host].connected);
}

#[test]
fn a_host_answers_a_rehearsal_only_for_itself() {
    let fleet = Fleet::new(1);
    let mut answers = fleet.rehearse(&"r".into(), vec![fault("r", "h")]);
    let answer = Rehearsal { item: fault("r", "h").key, plan: None, refusals: vec![], digest: String::new() };
    fleet.rehearsed(&"g".into(), answer.clone());
    assert!(answers.try_recv().is_err());
    fleet.rehearsed(&"h".into(), answer.clone());
    assert_eq!(answers.try_recv().unwrap(), answer);
}

fn offer(version: &str, digest: u8, summary: &str) -> Offer {
    let probe = fracas_model::catalogue::ProbeInfo {
        name: "http".into(),
        summary: summary.into(),
        help: String::new(),
        params: vec![],
        reading: vec![],
        example: String::new(),
    };
    let catalogue = Arc::new(Catalogue { probes: vec![probe], ..Catalogue::default() });
    Offer { key: (fracas_model::catalogue::AgentVersion::read(version), [digest; 32]), catalogue }
}

#[test]
fn the_catalogue_follows_the_newest_agents_of_known_hosts() {
    let fleet = Fleet::new(1);
    let told = || fleet.catalogue().probes.first().map(|p| p.summary.clone()).unwrap_or_default();
    let connect = |host: &str, offer| fleet.connect(&host.into(), HostFacts::default(), offer, now()).unwrap();
    let _a = connect("a", offer("1.0.0", 1, "old"));
    let b = connect("b", offer("1.1.0", 2, "new"));
    assert_eq!(told(), "new");
    // One that says otherwise stands alone against two.
    let _c = connect("c", offer("1.1.0", 9, "forged"));
    let _d = connect("d", offer("1.1.0", 2, "new"));
    assert_eq!(told(), "new");
    // It was upgraded: what it said before is gone.
    let _c = connect("c", offer("1.2.0", 3, "newest"));
    assert_eq!((told().as_str(), fleet.lock().offers.len()), ("newest", 3));
    fleet.disconnect(&"c".into(), 5);
    fleet.forget_host(&"c".into()).unwrap();
    fleet.drop_host(&"c".into());
    assert_eq!((told().as_str(), fleet.lock().offers.len()), ("new", 2));
    drop(b);
}

#[test]
fn a_host_is_forgotten_only_when_nothing_can_be_on_it() {
    let fleet = Fleet::new(1);
    let host = HostId::from("h");
    let connected = || fleet.connect(&host, HostFacts::default(), Offer::default(), now());
    let session = connected().unwrap();
    fleet.record(&host, |record| record.name = "db-1".into());
    assert_eq!(fleet.forget_host(&host), Err(HostError::Connected("db-1".into())));
    fleet.disconnect(&host, session.number);
    fleet.record(&host, |record| record.quarantined = Some("r0".into()));
    assert!(matches!(fleet.forget_host(&host), Err(HostError::Quarantined { .. })));
    fleet.record(&host, |record| record.quarantined = None);
    fleet.claim(&"r1".into(), [host.clone()].into()).unwrap();
    assert_eq!(fleet.forget_host(&host), Err(HostError::Busy { name: "db-1".into(), run: "r1".into() }));
    fleet.forget(&"r1".into());
    fleet.join(&"r2".into(), IDLE_LEASE, std::slice::from_ref(&host));
    assert!(matches!(fleet.forget_host(&host), Err(HostError::Busy { .. })));
    fleet.forget(&"r2".into());
    fleet.forget_host(&host).unwrap();
    assert_eq!(connected().unwrap_err(), HostError::Forgotten(host.clone()), "not while it is being written down");
    fleet.drop_host(&host);
    assert!(connected().is_err() && fleet.hosts().is_empty());
}

#[test]
fn a_host_is_one_runs_at_a_time() {
    let fleet = Fleet::new(1);
    let hosts = |names: &[&str]| names.iter().map(|name| HostId::from(*name)).collect::<BTreeSet<_>>();
    fleet.claim(&"r1".into(), hosts(&["a", "b"])).unwrap();
    let refused = fleet.claim(&"r2".into(), hosts(&["b", "c"]));
    assert_eq!(refused, Err(NotAdmitted::Claimed(Claimed { host: "b".into(), run: "r1".into() })));
    assert_eq!(fleet.claim(&"r3".into(), hosts(&["c"])), Ok(()), "all or none");
    fleet.forget(&"r3".into());
    fleet.claim(&"r1".into(), hosts(&["a", "b"])).unwrap();
    fleet.release(&"r1".into());
    fleet.claim(&"r2".into(), hosts(&["b", "c"])).unwrap();
}

#[test]
fn a_raised_epoch_is_pushed_to_everybody() {
    let fleet = Fleet::new(5);
    let mut session = fleet.connect(&"h".into(), HostFacts::default(), Offer::default(), now()).unwrap();
    session.desired.borrow_and_update();
    fleet.raise_epoch(4);
    assert!(!session.desired.has_changed().unwrap());
    fleet.raise_epoch(10);
    assert_eq!(session.desired.borrow_and_update().epoch, 10);
}

#[test]
fn guard_rails_hold_over_all_runs_and_a_run_taken_up_keeps_what_it_had() {
    let hosts = |ids: &[&str]| ids.iter().map(|id| HostId::from(*id)).collect::<BTreeSet<HostId>>();
    let fleet = Fleet::new(1);
    for host in ["a", "b", "c"] {
        fleet.connect(&host.into(), HostFacts::default(), Offer::default(), now()).unwrap();
    }
    let text = "apiVersion: fracas/v1\nkind: GuardRails\nlimits: [{ name: all, maxHosts: 1, minHealthy: 2 }]";
    fleet.set_rails(fracas_model::guard::read_guard_rails("g", text).unwrap().0);
    fleet.claim(&"r1".into(), hosts(&["a"])).unwrap();
    assert!(matches!(fleet.claim(&"r2".into(), hosts(&["b"])), Err(NotAdmitted::GuardRails(why)) if why.len() == 2));
    assert_eq!(fleet.broken(&"r1".into()), None);
    fleet.reclaim(&"r2".into(), hosts(&["b"])).unwrap();
    assert!(fleet.broken(&"r1".into()).unwrap().contains("guard-rail all: 1 of 3"));
    fleet.forget(&"r2".into());
    assert_eq!(fleet.broken(&"r1".into()), None);
}

fn caller(instance: &str) -> Caller {
    Caller { instance: instance.into(), address: format!("{instance}:1") }
}

#[test]
fn whoever_takes_over_from_an_agent_that_may_live_is_asked_for_nothing_at_first() {
    let fleet = Fleet::new(1);
    let host = HostId::from("h");
    let connect = |instance: &str| {
        let facts = HostFacts::default();
        fleet.connect_as(&host, caller(instance), facts, Offer::default(), now())
    };
    let faults = |connection: &Connection| connection.desired.borrow().faults.len();
    let wishes = [(host.clone(), Wish { faults: vec![fault("r", "h")], ..Wish::default() })];
    fleet.wish(&"r".into(), IDLE_LEASE, wishes.into());
    let first = connect("a").unwrap();
    assert_eq!((faults(&first), first.probation), (1, false));
    assert_eq!(fleet.lives(&host, first.number), None);
    // A copy, or a restart of which the connection knows nothing yet.
    let second = connect("b").unwrap();
    assert_eq!((faults(&second), second.probation), (0, true));
    let revision = second.desired.borrow().revision;
    fleet.taken(&host, 1, revision);
    assert!(!fleet.contact(&host).settled, "what it took is not what is wished");
    fleet.end_probation(&host, first.number);
    assert_eq!(faults(&second), 0, "that was the other session");
    fleet.end_probation(&host, second.number);
    assert_eq!(faults(&second), 1);
    assert_eq!(fleet.lives(&host, second.number), None);
    // Who was there before is asked at once, and that it lives proves that there are two.
    let back = connect("a").unwrap();
    assert_eq!((faults(&back), back.probation), (1, false));
    let why = fleet.lives(&host, back.number).unwrap();
    assert_eq!(why, "two agents use its certificate, one at a:1 and one at b:1");
    assert_eq!(faults(&back), 0, "withdrawn");
    assert_eq!(fleet.lives(&host, back.number), None, "said once");
    assert!(matches!(connect("b").unwrap_err(), HostError::Duplicate { .. }), "one of them is served, and told");
    let again = connect("a").unwrap();
    assert_eq!(faults(&again), 0);
    fleet.claim(&"r".into(), [host.clone()].into()).unwrap();
    assert!(fleet.broken(&"r".into()).unwrap().contains("seems to be two"));
    fleet.trust(&host);
    assert_eq!((faults(&again), fleet.broken(&"r".into())), (1, None));
}

#[test]
fn a_revoked_host_is_gone() {
    let fleet = Fleet::new(1);
    let host = HostId::from("h");
    let connect = || fleet.connect(&host, HostFacts::default(), Offer::default(), now());
    let session = connect().unwrap();
    fleet.revoke(&host, "by admin, stolen");
    assert!(session.desired.has_changed().is_err(), "its session is told at once");
    assert!(matches!(connect().unwrap_err(), HostError::Revoked { .. }));
    assert!(fleet.admitted(&host).unwrap_err().to_string().contains("by admin, stolen"));
    let views = fleet.views(&"r".into());
    assert!(!views[0].connected && views[0].quarantined.as_deref() == Some("revoked, by admin, stolen"));
    fleet.forget_host(&host).unwrap();
}
