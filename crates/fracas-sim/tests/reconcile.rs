//! What the reconciler does and refuses, one sentence per test, on a host and disk in memory.

use fracas_agent::{
    host::Host as _,
    journal,
    reconcile::{Fault, Newer, Reconciler, Setup},
};
use fracas_model::{
    desired::{Desired, FaultItem, Mode},
    event::{Body, Proof, UndoCause},
    id::{HostId, ItemKey},
    plan::Refusal,
    policy::Policy,
    units::Dur,
};
use fracas_sim::{
    crash::Crash,
    fake_disk::FakeDisk,
    fake_host::{FakeHost, On, Trouble, World},
    fixture::{self, FakeFault, claiming, desired, every_step, item, key, plan, shot},
};

struct Lab {
    host: FakeHost,
    disk: FakeDisk,
    agent: Reconciler<FakeHost, FakeDisk>,
    clean: World,
}

fn faults() -> &'static [&'static dyn Fault] {
    fixture::table(vec![
        FakeFault::new("lasting", claiming(100, every_step(0))),
        FakeFault::new("other", claiming(200, every_step(1))),
        FakeFault::new("rival", claiming(100, every_step(2))),
        FakeFault::new("spent", plan(vec![shot(100), shot(101)])),
        FakeFault::new("nothing", plan(Vec::new())),
    ])
}

async fn open(host: &FakeHost, disk: &FakeDisk, policy: Policy) -> Reconciler<FakeHost, FakeDisk> {
    let setup = Setup {
        policy,
        facts: fixture::host_facts(),
        faults: faults(),
        agent_version: "0.0.0".into(),
        fleet: "f".into(),
    };
    Reconciler::open(host.clone(), disk.clone(), setup).await
}

impl Lab {
    async fn with_policy(policy: Policy) -> Self {
        let host = FakeHost::new("sim", Crash::default());
        let disk = FakeDisk::default();
        let mut agent = open(&host, &disk, policy).await;
        agent.recover().await;
        let clean = host.world();
        let lab = Self { host, disk, agent, clean };
        lab.grant(15);
        lab
    }

    async fn new() -> Self {
        Self::with_policy(Policy::builtin()).await
    }

    fn grant(&self, seconds: i64) {
        let now = self.host.now().boot_ns;
        self.agent.lease().grant(now, now, Dur::from_secs(seconds));
    }

    async fn ask(&mut self, revision: u64, items: Vec<FaultItem>) -> Vec<Body> {
        self.agent.take(desired(revision, items)).await.expect("taken");
        self.tick().await
    }

    async fn tick(&mut self) -> Vec<Body> {
        self.agent.tick().await;
        self.drain()
    }

    fn drain(&mut self) -> Vec<Body> {
        let events = self.agent.drain_events();
        assert!(events.iter().all(|(stream, body)| stream == "run/run1" && body.item().is_some()));
        events.into_iter().map(|(_, body)| body).collect()
    }

    async fn restart(&mut self) -> Vec<Body> {
        self.host.kill_agent();
        self.agent = open(&self.host, &self.disk, Policy::builtin()).await;
        self.agent.recover().await;
        self.drain()
    }

    fn is_clean(&self) -> bool {
        self.host.world() == self.clean
    }
}

/// The kinds of facts, and for ends the cause.
fn words(events: &[Body]) -> Vec<String> {
    let word = |body: &Body| match body {
        Body::Refused { refusal, .. } => format!("refused: {}", refusal.why),
        Body::Applying { .. } => "applying".into(),
        Body::Active { .. } => "active".into(),
        Body::Checked { proof: Proof::Verified, .. } => "verified".into(),
        Body::Checked { .. } => "not verified".into(),
        Body::Spent { certain, .. } => if *certain { "spent" } else { "perhaps spent" }.into(),
        Body::Undoing { cause, .. } => format!("undoing {cause:?}"),
        Body::Undone { cause, superseded, .. } => format!("undone {cause:?}{}", superseded.join(",")),
        Body::UndoFailed { failures, .. } => format!("undo failed: {}", failures.join("; ")),
        Body::Failed { failure, .. } => format!("failed: {failure}"),
        other => format!("{other:?}"),
    };
    events.iter().map(word).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_applied_verified_and_undone_when_its_duration_ends() {
    let mut lab = Lab::new().await;
    let events = lab.ask(1, vec![item("a", "lasting")]).await;
    assert_eq!(words(&events), ["applying", "active", "verified"]);
    assert!(!lab.is_clean());
    assert_eq!(lab.agent.open_items(), [key("a")]);
    lab.host.advance(Dur::from_ms(9_999));
    assert!(lab.tick().await.is_empty());
    assert_eq!(lab.agent.next_wake(), Some(lab.host.now().boot_ns + 1_000_000));
    lab.host.advance(Dur::from_ms(1));
    let events = lab.tick().await;
    assert_eq!(words(&events), ["verified", "undoing Expired", "undone Expired"]);
    assert!(lab.is_clean() && lab.agent.open_items().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_desired_is_undone() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting"), item("b", "other")]).await;
    let events = lab.ask(2, vec![item("b", "other")]).await;
    assert_eq!(words(&events), ["verified", "undoing NotDesired", "undone NotDesired"]);
    assert_eq!(lab.agent.open_items(), [key("b")]);
    lab.ask(3, Vec::new()).await;
    assert!(lab.is_clean());
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_nothing_is_applied_and_what_is_active_is_undone() {
    let mut lab = Lab::new().await;
    lab.grant(5);
    lab.host.advance(Dur::from_secs(15));
    assert!(lab.ask(1, vec![item("a", "lasting")]).await.is_empty());
    lab.grant(5);
    assert_eq!(words(&lab.tick().await), ["applying", "active", "verified"]);
    assert!(lab.agent.needs_lease());
    lab.host.advance(Dur::from_secs(5));
    assert_eq!(words(&lab.tick().await), ["verified", "undoing LeaseLost", "undone LeaseLost"]);
    assert!(lab.is_clean());
    lab.grant(5);
    assert!(lab.tick().await.is_empty(), "closed is closed");
    assert!(lab.is_clean());
}

/// While the first step of the first of three items takes a second, this is heard; gives what was told.
async fn heard_meanwhile(lab: &mut Lab, hear: impl FnOnce(&Newer)) -> Vec<String> {
    lab.host.script(On::Apply(0), Trouble::Wait(Dur::from_secs(2)));
    let items = vec![item("a", "lasting"), item("b", "other"), item("c", "spent")];
    lab.agent.take(desired(1, items)).await.expect("taken");
    let newer = lab.agent.newer();
    let other = async {
        tokio::time::sleep(Dur::from_secs(1).std()).await;
        hear(&newer);
    };
    tokio::join!(lab.agent.tick(), other);
    words(&lab.drain())
}

#[tokio::test(start_paused = true)]
async fn what_is_called_off_while_it_is_applied_goes_no_step_further() {
    let mut lab = Lab::new().await;
    let told = heard_meanwhile(&mut lab, |newer| newer.hear(&desired(2, Vec::new()))).await;
    assert_eq!(told, ["applying", "undoing NotDesired", "undone NotDesired"]);
    assert!(lab.is_clean() && lab.host.applies() == 1, "{} steps", lab.host.applies());

    let mut lab = Lab::new().await;
    let told = heard_meanwhile(&mut lab, Newer::leave).await;
    assert_eq!(told, ["applying", "undoing AgentRestart", "undone AgentRestart"]);
    assert!(lab.is_clean() && lab.host.applies() == 1, "{} steps", lab.host.applies());
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_state_still_wants_is_applied_whole_and_the_rest_waits_for_it() {
    let mut lab = Lab::new().await;
    let newer = vec![item("a", "lasting"), item("c", "other")];
    let told = heard_meanwhile(&mut lab, |heard| heard.hear(&desired(2, newer.clone()))).await;
    assert_eq!(told, ["applying", "active", "verified"]);
    assert_eq!(lab.agent.open_items(), [key("a")]);
    assert_eq!(words(&lab.ask(2, newer).await), ["applying", "active", "verified"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_guard_what_is_new_is_refused_with_the_reason() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.agent.bar(Some(Refusal::new("there is no guard", "start it")));
    let both = vec![item("a", "lasting"), item("b", "other")];
    let rehearsal = FaultItem { mode: Mode::Rehearse, ..item("c", "spent") };
    let events = lab.ask(2, [both.clone(), vec![rehearsal]].concat()).await;
    assert_eq!(words(&events), ["refused: there is no guard"]);
    assert_eq!(lab.agent.open_items(), [key("a")], "what was there before stays");
    assert!(lab.agent.drain_rehearsals()[0].refusals.iter().any(|r| r.why == "there is no guard"));
    lab.agent.bar(None);
    let third = vec![item("a", "lasting"), item("b", "other"), item("c", "spent")];
    assert_eq!(words(&lab.ask(3, third).await), ["applying", "spent", "verified"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_item_stays_closed_over_restarts_and_a_higher_generation_is_new() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.ask(2, Vec::new()).await;
    assert!(lab.ask(3, vec![item("a", "lasting")]).await.is_empty());
    lab.restart().await;
    lab.grant(15);
    assert!(lab.ask(3, vec![item("a", "lasting")]).await.is_empty());
    let mut again = item("a", "lasting");
    again.key.generation = 2;
    assert_eq!(words(&lab.ask(4, vec![again]).await), ["applying", "active", "verified"]);
}

#[tokio::test(start_paused = true)]
async fn a_lower_revision_is_refused_also_after_a_restart() {
    let mut lab = Lab::new().await;
    lab.ask(7, Vec::new()).await;
    let error = lab.agent.take(desired(6, Vec::new())).await.unwrap_err();
    assert_eq!((error.offered, error.taken), ((1, 6), (1, 7)));
    lab.restart().await;
    assert!(lab.agent.take(desired(6, Vec::new())).await.is_err());
    assert!(lab.agent.take(desired(7, Vec::new())).await.is_ok(), "the same again is no harm");
    let mut newer = desired(1, Vec::new());
    newer.epoch = 2;
    assert!(lab.agent.take(newer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_clash_of_claims_names_the_holder() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    let events = lab.ask(2, vec![item("a", "lasting"), item("b", "rival")]).await;
    assert_eq!(words(&events), ["refused: process 100 of this host is held by run1/a#0.1 (lasting)"]);
    assert!(lab.tick().await.is_empty(), "a refusal is told once");
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_or_the_document_forbids_is_refused() {
    let policy = Policy {
        allow_faults: vec!["lasting".into(), "nothing".into()],
        max_duration: Dur::from_secs(9),
        ..Policy::builtin()
    };
    let mut lab = Lab::with_policy(policy).await;
    let with = |entry: &str, fault: &str, duration: Option<i64>| FaultItem {
        duration: duration.map(Dur::from_secs),
        ..item(entry, fault)
    };
    let events = lab
        .ask(
            1,
            vec![
                with("a", "other", Some(5)),
                with("b", "lasting", Some(10)),
                with("c", "lasting", None),
                with("d", "lasting", Some(0)),
                with("e", "unheard-of", Some(5)),
            ],
        )
        .await;
    assert_eq!(
        words(&events),
        [
            "refused: this host's policy does not allow other",
            "refused: lasting for 10s is longer than the 9s this host's policy allows",
            "refused: lasting lasts and was given no duration",
            "refused: lasting was given the duration 0s",
            "refused: fault unheard-of is not known to this agent",
        ]
    );
    assert!(lab.is_clean() && lab.host.applies() == 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_allows_no_more_is_undone_and_not_applied_again() {
    let shorter = Policy { max_duration: Dur::from_secs(3), ..Policy::builtin() };
    for (policy, after_s) in [(Policy::nothing(), 0), (shorter, 3)] {
        let mut lab = Lab::new().await;
        lab.ask(1, vec![item("a", "lasting")]).await;
        lab.agent.set_policy(policy);
        lab.host.advance(Dur::from_secs(after_s));
        assert_eq!(words(&lab.tick().await), ["verified", "undoing Policy", "undone Policy"]);
        assert!(lab.is_clean());
        lab.agent.set_policy(Policy::builtin());
        assert!(lab.tick().await.is_empty(), "closed is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parameter_that_the_agent_does_not_know_is_refused_by_name() {
    let mut lab = Lab::new().await;
    let mut newer = item("a", "lasting");
    newer.params.0.insert("severity".into(), 3.into());
    let events = lab.ask(1, vec![newer]).await;
    assert_eq!(
        words(&events),
        ["refused: lasting has no parameter `severity` here: this agent is older than the document"]
    );
    assert!(lab.is_clean() && lab.host.applies() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_plan_other_than_the_rehearsed_one_is_refused() {
    let mut lab = Lab::new().await;
    let rehearsal = FaultItem { mode: Mode::Rehearse, ..item("a", "lasting") };
    assert!(lab.ask(1, vec![rehearsal]).await.is_empty(), "a rehearsal is not history");
    let answers = lab.agent.drain_rehearsals();
    assert!(lab.is_clean() && lab.host.applies() == 0);
    assert_eq!((answers.len(), answers[0].refusals.len()), (1, 0));
    assert!(answers[0].plan.is_some());
    let drifted = FaultItem { plan_digest: Some("0".repeat(64)), ..item("b", "lasting") };
    let rehearsed = FaultItem { plan_digest: Some(answers[0].digest.clone()), ..item("a", "lasting") };
    let events = lab.ask(2, vec![drifted, rehearsed]).await;
    assert_eq!(
        words(&events),
        ["refused: plan drifted: lasting is no longer what was rehearsed (a test)", "applying", "active", "verified"]
    );
    let rehearsal = FaultItem { mode: Mode::Rehearse, ..item("c", "rival") };
    lab.ask(3, vec![item("a", "lasting"), rehearsal]).await;
    let answers = lab.agent.drain_rehearsals();
    assert!(answers[0].refusals[0].why.contains("held by run1/a#0.1"), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_spent_fault_fires_once_and_tells_its_outcome() {
    let mut lab = Lab::new().await;
    let spent = FaultItem { duration: None, ..item("a", "spent") };
    lab.host.set_proof(Proof::Ineffective { why: "still there".into() });
    assert_eq!(words(&lab.ask(1, vec![spent.clone()]).await), ["applying", "spent"]);
    lab.host.advance(Dur::from_ms(100));
    assert!(lab.tick().await.is_empty(), "an effect may take a while to show");
    lab.host.set_proof(Proof::Verified);
    lab.host.advance(Dur::from_ms(100));
    assert_eq!(words(&lab.tick().await), ["verified"]);
    assert!(lab.agent.open_items().is_empty());
    lab.restart().await;
    lab.grant(15);
    assert!(lab.ask(1, vec![spent]).await.is_empty());
    assert_eq!(lab.host.shots(), [(key("a"), 0), (key("a"), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_state_change_of_the_effect_is_told_once() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.host.set_proof(Proof::Unverified { why: "no matching traffic".into() });
    let mut told = Vec::new();
    for _ in 0..5 {
        lab.host.advance(Dur::from_secs(1));
        told.extend(words(&lab.tick().await));
    }
    assert_eq!(told, ["not verified"]);
}

#[tokio::test(start_paused = true)]
async fn when_a_step_fails_what_was_done_before_is_undone() {
    for index in 0..9 {
        for trouble in [Trouble::Before("no".into()), Trouble::After("no".into()), Trouble::Hang] {
            let mut lab = Lab::new().await;
            lab.host.script(On::Apply(index), trouble.clone());
            let events = words(&lab.ask(1, vec![item("a", "lasting")]).await);
            assert_eq!(events.last().unwrap(), "undone ApplyFailed", "{index} {trouble:?} {events:?}");
            assert!(events.iter().any(|e| e.starts_with("failed: ")), "{events:?}");
            assert!(lab.is_clean(), "{index} {trouble:?}: {:?}", lab.host.world());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_attempts_all_steps_and_is_tried_again_until_done() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    for _ in 0..3 {
        lab.host.script(On::Revert(1), Trouble::Before("busy".into()));
        lab.host.script(On::Revert(2), Trouble::Before("busy too".into()));
    }
    let before = lab.host.reverts();
    let events = words(&lab.ask(2, Vec::new()).await);
    assert_eq!(events[1..], ["undoing NotDesired", "undo failed: step 3: busy too; step 2: busy"]);
    assert_eq!(lab.host.reverts() - before, every_step(0).len() as u64, "all steps are attempted");
    let mut pauses = Vec::new();
    let mut events = Vec::new();
    while events.is_empty() {
        let pause = lab.agent.next_wake().unwrap() - lab.host.now().boot_ns;
        pauses.push(pause / 1_000_000);
        lab.host.advance(Dur::from_ns(pause));
        events = words(&lab.tick().await);
    }
    assert_eq!(events, ["undone NotDesired"], "the same failure is told once");
    assert_eq!(pauses, [250, 500, 1000]);
    assert!(lab.is_clean());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_is_left_alone_and_told() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.host.script(On::Revert(1), Trouble::Superseded(" (process 100 was continued)".into()));
    let events = words(&lab.ask(2, Vec::new()).await);
    assert_eq!(events.last().unwrap(), "undone NotDesired (process 100 was continued)");
}

#[tokio::test(start_paused = true)]
async fn a_slow_step_does_not_keep_an_expired_item_alive() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.grant(60);
    lab.host.script(On::Apply(3), Trouble::Slow(Dur::from_secs(11)));
    let events = lab.ask(2, vec![item("a", "lasting"), item("b", "other")]).await;
    let end_of_a = events.iter().position(|b| matches!(b, Body::Undone { item, .. } if *item == key("a"))).unwrap();
    let start_of_b = events.iter().position(|b| matches!(b, Body::Active { item, .. } if *item == key("b"))).unwrap();
    assert!(end_of_a < start_of_b, "{:?}", words(&events));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_while_steps_are_applied_ends_the_item() {
    let mut lab = Lab::new().await;
    lab.host.script(On::Apply(3), Trouble::Slow(Dur::from_secs(16)));
    let events = words(&lab.ask(1, vec![item("a", "lasting")]).await);
    assert_eq!(events, ["applying", "undoing LeaseLost", "undone LeaseLost"]);
    assert!(lab.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_dead_worker_fails_its_item_and_the_rest_is_undone() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.host.lose(&key("a"), "the burn worker was killed by signal 9");
    let events = words(&lab.tick().await);
    assert_eq!(events, ["failed: the burn worker was killed by signal 9", "undoing ApplyFailed", "undone ApplyFailed"]);
    assert!(lab.is_clean());
}

#[tokio::test(start_paused = true)]
async fn workers_are_told_when_to_end_by_themselves() {
    let mut lab = Lab::new().await;
    let lasting = || vec![FaultItem { duration: Some(Dur::from_secs(60)), ..item("a", "lasting") }];
    lab.ask(1, lasting()).await;
    let now = lab.host.now().boot_ns;
    assert_eq!(lab.host.deadline_ns(&key("a")), Some(now + Dur::from_secs(15 + 5).ns()), "lease and slack");
    lab.host.advance(Dur::from_secs(5));
    lab.grant(15);
    lab.tick().await;
    assert_eq!(lab.host.deadline_ns(&key("a")), Some(now + Dur::from_secs(5 + 15 + 5).ns()), "renewed");
    lab.grant(120);
    lab.tick().await;
    let asked = Some(now + Dur::from_secs(5 + 15 + 5).ns());
    assert_eq!(lab.host.deadline_ns(&key("a")), asked, "no longer than what is desired may live");
    lab.agent.take(Desired { lease: Dur::from_secs(120), ..desired(2, lasting()) }).await.expect("taken");
    lab.tick().await;
    assert_eq!(lab.host.deadline_ns(&key("a")), Some(now + Dur::from_secs(60 + 5).ns()), "the duration is shorter");
}

#[tokio::test(start_paused = true)]
async fn undo_all_ends_everything_whatever_is_desired() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting"), item("b", "other")]).await;
    lab.agent.undo_all(UndoCause::Local).await;
    let events = words(&lab.drain());
    assert_eq!(events.iter().filter(|e| *e == "undone Local").count(), 2);
    assert!(lab.is_clean() && lab.tick().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_undoes_before_anything_else_and_says_why() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    assert_eq!(words(&lab.restart().await), ["undoing AgentRestart", "undone AgentRestart"]);
    assert!(lab.is_clean());
    lab.grant(15);
    lab.ask(2, vec![item("b", "lasting")]).await;
    lab.host.reboot();
    assert_eq!(words(&lab.restart().await), ["undoing Reboot", "undone Reboot"], "a was noted as told by then");
    assert!(lab.is_clean());
}

#[tokio::test(start_paused = true)]
async fn slots_are_the_smallest_that_are_free() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting"), item("b", "other")]).await;
    let slot = |lab: &Lab, entry: &str| lab.agent.state().open[&key(entry)].slot;
    assert_eq!((slot(&lab, "a"), slot(&lab, "b")), (0, 1));
    lab.ask(2, vec![item("b", "other")]).await;
    lab.ask(3, vec![item("b", "other"), item("c", "lasting")]).await;
    assert_eq!(slot(&lab, "c"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_orders_but_not_undo_and_passes_when_there_is_room() {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    lab.disk.set_room(Some(40));
    let events = words(&lab.ask(2, vec![item("b", "other")]).await);
    assert_eq!(events[..3], ["verified", "undoing NotDesired", "undone NotDesired"]);
    assert!(events[3].starts_with("refused: the journal cannot be written"), "{events:?}");
    assert!(lab.is_clean());
    lab.disk.set_room(None);
    let mut again = item("b", "other");
    again.key.generation = 2;
    assert_eq!(words(&lab.ask(3, vec![again]).await), ["applying", "active", "verified"]);
    // All that was kept in memory meanwhile is on the disk now.
    assert_eq!(words(&lab.restart().await), ["undoing AgentRestart", "undone AgentRestart"]);
    assert!(lab.is_clean());
    assert!(lab.agent.state().ended(&key("a")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_fills_up_at_any_byte_leaves_nothing_behind() {
    for room in 0..6000 {
        let mut lab = Lab::new().await;
        lab.disk.set_room(Some(room));
        let events = words(&lab.ask(1, vec![item("a", "lasting")]).await);
        if events.last().unwrap() != "verified" {
            assert!(lab.is_clean(), "room for {room} bytes: {events:?}");
        }
        lab.restart().await;
        assert!(lab.is_clean(), "room for {room} bytes, after a restart");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_counts_as_a_write_that_failed() {
    let mut lab = Lab::new().await;
    lab.disk.set_failing_syncs(true);
    let events = words(&lab.ask(1, vec![item("a", "lasting")]).await);
    assert!(events[0].starts_with("refused: the journal cannot be written"), "{events:?}");
    assert!(lab.is_clean() && lab.host.applies() == 0);
}

async fn with_journal(change: impl FnOnce(&mut Vec<u8>)) -> (Lab, Vec<u8>) {
    let mut lab = Lab::new().await;
    lab.ask(1, vec![item("a", "lasting")]).await;
    let mut bytes = lab.disk.content(journal::FILE);
    change(&mut bytes);
    lab.disk.put(journal::FILE, &bytes);
    lab.restart().await;
    lab.grant(15);
    (lab, bytes)
}

#[tokio::test(start_paused = true)]
async fn a_torn_tail_is_cut_off_and_everything_goes_on() {
    let (mut lab, _) = with_journal(|bytes| bytes.truncate(bytes.len() - 3)).await;
    assert!(lab.is_clean() && lab.agent.trouble().is_none());
    assert_eq!(words(&lab.ask(2, vec![item("b", "lasting")]).await), ["applying", "active", "verified"]);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_kept_what_it_says_is_undone_and_orders_are_refused() {
    // The damage hits the record of taking the order, before that of the plan.
    let (mut lab, bytes) = with_journal(|bytes| bytes[70] ^= 0xff).await;
    assert!(lab.is_clean(), "{:?}", lab.host.world());
    let events = words(&lab.ask(2, vec![item("b", "lasting")]).await);
    assert!(events[0].starts_with("refused: the journal is damaged at byte"), "{events:?}");
    assert_eq!(lab.disk.content(journal::FILE), bytes, "nothing was written to it");
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_a_newer_agent_is_kept_and_orders_are_refused() {
    let newer = |bytes: &mut Vec<u8>| {
        let body = b"\x02{\"record\":\"somethingNew\"}";
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(crc32(body).to_le_bytes());
        bytes.extend(body);
    };
    let (mut lab, bytes) = with_journal(newer).await;
    assert!(lab.is_clean());
    let events = words(&lab.ask(2, vec![item("b", "lasting")]).await);
    assert!(events[0].contains("has a record of version 2, and this agent knows 1"), "{events:?}");
    assert_eq!(lab.disk.content(journal::FILE), bytes);
}

/// CRC-32 as in IEEE 802.3, bit by bit: an independent witness of the journal's form.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[tokio::test(start_paused = true)]
async fn a_long_journal_is_rewritten_when_nothing_is_open() {
    let mut lab = Lab::new().await;
    let mut longest = 0;
    for occurrence in 0..400 {
        let key = ItemKey { occurrence, host: HostId::from("sim"), ..key("a") };
        lab.grant(15);
        lab.ask(u64::from(occurrence) * 2 + 1, vec![FaultItem { key: key.clone(), ..item("a", "lasting") }]).await;
        lab.ask(u64::from(occurrence) * 2 + 2, Vec::new()).await;
        longest = longest.max(lab.disk.content(journal::FILE).len());
        assert!(lab.agent.state().ended(&key).is_some());
    }
    assert!(longest < 1_100_000 + 5000, "{longest}");
    assert!(lab.disk.content(journal::FILE).len() < longest);
    lab.restart().await;
    assert!(lab.agent.state().ended(&key("a")).is_some(), "rewriting forgets no end");
    assert_eq!(lab.agent.taken(), (1, 800));
}

#[tokio::test(start_paused = true)]
async fn a_planner_that_refuses_or_has_nothing_to_do_changes_nothing() {
    let mut lab = Lab::new().await;
    let spent = FaultItem { duration: None, ..item("a", "nothing") };
    let events = words(&lab.ask(1, vec![spent]).await);
    assert_eq!(events, ["refused: fault nothing has nothing to do on this host"]);
    let _: Option<Refusal> = None;
}

#[tokio::test(start_paused = true)]
async fn another_fleet_counts_its_desired_states_anew() {
    let (host, disk) = (FakeHost::new("h1", Crash::default()), FakeDisk::default());
    let mut agent = open(&host, &disk, Policy::builtin()).await;
    agent.take(desired(9, Vec::new())).await.expect("taken");
    drop(agent);
    let setup = Setup {
        policy: Policy::builtin(),
        facts: fixture::host_facts(),
        faults: faults(),
        agent_version: "0.0.0".into(),
        fleet: "another".into(),
    };
    let mut moved = Reconciler::open(host.clone(), disk.clone(), setup).await;
    moved.recover().await;
    assert_eq!(moved.taken(), (0, 0));
    moved.take(desired(1, Vec::new())).await.expect("taken");
}
