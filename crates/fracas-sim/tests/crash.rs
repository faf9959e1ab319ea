//! The crash property: whatever was being done when the agent died, and whatever the disk forgot, the next life leaves
//! the host as it was found, fires nothing twice, applies nothing again, and tells how each item ended.

use std::{cell::RefCell, rc::Rc};

use fracas_agent::{
    disk::Disk as _,
    host::Host as _,
    journal,
    reconcile::{ALL, Fault, Reconciler, Setup},
};
use fracas_model::{
    catalogue::Nature,
    desired::FaultItem,
    event::Body,
    plan::{Kind, Plan, Step},
    policy::Policy,
    units::Dur,
};
use fracas_sim::{
    crash::Crash,
    fake_disk::FakeDisk,
    fake_host::{FakeHost, On, Trouble},
    fixture::{self, FakeFault, desired, every_step, item, key, plan, shot},
};
use proptest::prelude::*;

type Agent = Reconciler<FakeHost, FakeDisk>;

/// How the agent dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// SIGKILL: what it held is gone, what it wrote is there.
    Killed,
    /// The power is cut: a few bytes of what was not synced may be there.
    PowerCut { torn: usize },
}

const DEATHS: [Death; 4] =
    [Death::Killed, Death::PowerCut { torn: 0 }, Death::PowerCut { torn: 5 }, Death::PowerCut { torn: 60 }];

/// Where the steps are in [`every_step`] that need each other.
const NETEM: [usize; 5] = [2, 3, 4, 5, 6];

/// A host, its disk, and all that was ever told of it.
struct Lab {
    crash: Crash,
    host: FakeHost,
    disk: FakeDisk,
    told: Rc<RefCell<Vec<Body>>>,
    faults: &'static [&'static dyn Fault],
    items: Vec<FaultItem>,
}

impl Lab {
    fn new(faults: &'static [&'static dyn Fault], items: Vec<FaultItem>) -> Self {
        let crash = Crash::default();
        let (host, disk) = (FakeHost::new("sim", crash.clone()), FakeDisk::new(crash.clone()));
        Self { crash, host, disk, told: Rc::default(), faults, items }
    }

    async fn start(&self) -> Agent {
        let setup = Setup {
            policy: Policy::builtin(),
            facts: fixture::host_facts(),
            faults: self.faults,
            agent_version: "0.0.0".into(),
            fleet: "f".into(),
        };
        let mut agent = Reconciler::open(self.host.clone(), self.disk.clone(), setup).await;
        agent.recover().await;
        self.drain(&mut agent).await;
        agent
    }

    async fn drain(&self, agent: &mut Agent) {
        let events = agent.drain_events();
        // Dying here loses what was drained.
        self.crash.boundary().await;
        self.told.borrow_mut().extend(events.into_iter().map(|(_, body)| body));
    }

    async fn tick(&self, agent: &mut Agent) {
        agent.tick().await;
        self.drain(agent).await;
    }

    fn grant(&self, agent: &Agent) {
        let now = self.host.now().boot_ns;
        agent.lease().grant(now, now, Dur::from_secs(15));
    }

    /// The controller's next word.
    async fn ask(&self, agent: &mut Agent, items: Vec<FaultItem>) {
        agent.take(desired(agent.taken().1 + 1, items)).await.expect("taken");
    }

    /// A whole life: apply, look, expire or be called off, undo, forget.
    async fn life(&self) {
        let mut agent = self.start().await;
        self.grant(&agent);
        self.ask(&mut agent, self.items.clone()).await;
        self.tick(&mut agent).await;
        self.host.advance(Dur::from_secs(1));
        self.tick(&mut agent).await;
        self.host.advance(Dur::from_secs(9));
        self.tick(&mut agent).await;
        self.finish(&mut agent).await;
    }

    /// Calls everything off and goes on until nothing is open.
    async fn finish(&self, agent: &mut Agent) {
        self.ask(agent, Vec::new()).await;
        for _ in 0..50 {
            self.tick(agent).await;
            if agent.open_items().is_empty() {
                // Once more, for what was told to be noted.
                return self.tick(agent).await;
            }
            self.host.advance(Dur::from_secs(1));
        }
        panic!("something is still open: {:?}", self.host.world());
    }

    fn die(&self, death: Death) {
        match death {
            Death::Killed => self.host.kill_agent(),
            Death::PowerCut { torn } => {
                self.disk.cut_power(torn);
                self.host.reboot();
            }
        }
        self.crash.arm(None);
    }

    /// The last life: it must clean up before anything else, and must not do again what was begun.
    async fn afterlife(&self) -> Result<(), String> {
        let first = Lab::new(self.faults, Vec::new()).host.world();
        let begun = self.host.applies();
        let mut agent = self.start().await;
        for _ in 0..20 {
            if agent.open_items().is_empty() {
                break;
            }
            self.host.advance(Dur::from_secs(5));
            self.tick(&mut agent).await;
        }
        check(self.host.world() == first, || format!("left behind: {:?}", self.host.world()))?;
        // A retained order of the controller must not bring back what has ended.
        if begun > 0 && self.items.len() == 1 {
            let ended = agent.state().ended(&self.items[0].key);
            check(ended.is_some(), || "the item was begun and is not closed".into())?;
            self.grant(&agent);
            self.ask(&mut agent, self.items.clone()).await;
            self.tick(&mut agent).await;
            check(self.host.applies() == begun, || "a closed item was applied again".into())?;
            check(self.told_the_end(), || format!("its end was not told: {:?}", self.told.borrow()))?;
        }
        self.finish(&mut agent).await;
        check(self.host.world() == first, || format!("left behind at last: {:?}", self.host.world()))?;
        let mut shots = self.host.shots();
        let fired = shots.len();
        shots.sort();
        shots.dedup();
        check(shots.len() == fired, || "something was fired twice".into())
    }

    fn told_the_end(&self) -> bool {
        self.told.borrow().iter().any(|b| matches!(b, Body::Undone { .. } | Body::Spent { .. }))
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(work)
}

/// Plans over all kinds of steps, alone and together.
fn plans() -> Vec<(String, Plan)> {
    let steps = every_step(0);
    let mut plans: Vec<(String, Plan)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if !NETEM.contains(&index) {
            plans.push((format!("only step {index}"), plan(vec![step.clone()])));
        }
    }
    plans.push(("netem".into(), plan(NETEM.map(|i| steps[i].clone()).to_vec())));
    plans.push(("every step".into(), plan(steps.clone())));
    plans.push(("one shot".into(), plan(vec![shot(100)])));
    plans.push(("three shots".into(), plan(vec![shot(100), shot(101), shot(200)])));
    plans
}

/// Every plan with the item that asks for it.
fn cases() -> Vec<(String, &'static [&'static dyn Fault], FaultItem)> {
    plans()
        .into_iter()
        .map(|(name, plan)| {
            let mut item = item("entry", "fake");
            if plan.steps.iter().all(|s| s.kind() == Kind::Spent) {
                item.duration = None;
            }
            (name, fixture::table(vec![FakeFault::new("fake", plan)]), item)
        })
        .collect()
}

/// How many boundaries a whole life has.
fn boundaries(lab: &Lab) -> u64 {
    lab.crash.arm(None);
    run(lab.life());
    lab.crash.passed()
}

#[test]
fn an_undisturbed_life_leaves_nothing() {
    for (name, faults, item) in cases() {
        let lab = Lab::new(faults, vec![item]);
        let first = lab.host.world();
        let count = boundaries(&lab);
        assert!(count > 10, "{name}: {count}");
        assert_eq!(lab.host.world(), first, "{name}");
        assert!(lab.host.applies() > 0 && lab.told_the_end(), "{name}: {:?}", lab.told.borrow());
    }
}

#[test]
fn a_crash_at_any_of_more_than_a_thousand_boundaries_is_undone() {
    let mut tried = 0;
    for (name, faults, item) in cases() {
        let count = boundaries(&Lab::new(faults, vec![item.clone()]));
        for fatal in 0..count {
            for death in DEATHS {
                let lab = Lab::new(faults, vec![item.clone()]);
                lab.crash.arm(Some(fatal));
                let died = run(lab.crash.run(lab.life()));
                assert!(died.is_err(), "{name}: boundary {fatal} was not reached");
                lab.die(death);
                run(lab.afterlife()).unwrap_or_else(|e| panic!("{name}, boundary {fatal}, {death:?}: {e}"));
                tried += 1;
            }
        }
    }
    println!("{tried} crashes tried");
    assert!(tried > 1000, "only {tried} crashes were tried");
}

/// Each fault of the table with the parameters of its own example, on a host that has all it asks for: a fault that is
/// added is tried from that day on.
#[test]
fn a_crash_at_any_boundary_of_every_fault_of_the_table_is_undone() {
    for fault in ALL {
        let info = fault.info();
        let mut item = item("entry", &info.name);
        item.params = fixture::example(&info);
        if info.nature == Nature::Spent {
            item.duration = None;
        }
        let count = boundaries(&Lab::new(ALL, vec![item.clone()]));
        for fatal in 0..count {
            for death in DEATHS {
                let lab = Lab::new(ALL, vec![item.clone()]);
                lab.crash.arm(Some(fatal));
                assert!(run(lab.crash.run(lab.life())).is_err(), "{}: boundary {fatal}", info.name);
                lab.die(death);
                run(lab.afterlife()).unwrap_or_else(|e| panic!("{}, boundary {fatal}, {death:?}: {e}", info.name));
            }
        }
        let lab = Lab::new(ALL, vec![item]);
        run(lab.life());
        assert!(lab.host.applies() > 0, "{} did nothing: {:?}", info.name, lab.told.borrow());
    }
}

#[test]
fn a_second_crash_at_any_boundary_of_the_undo_is_undone_too() {
    let faults = fixture::table(vec![FakeFault::new("fake", plan(every_step(0)))]);
    let item = item("entry", "fake");
    let count = boundaries(&Lab::new(faults, vec![item.clone()]));
    let mut tried = 0;
    for fatal in 0..count {
        for death in [Death::Killed, Death::PowerCut { torn: 7 }] {
            for second in 0.. {
                let lab = Lab::new(faults, vec![item.clone()]);
                lab.crash.arm(Some(fatal));
                assert!(run(lab.crash.run(lab.life())).is_err());
                lab.die(death);
                lab.crash.arm(Some(second));
                let died = run(lab.crash.run(lab.start())).is_err();
                lab.die(death);
                run(lab.afterlife()).unwrap_or_else(|e| panic!("boundaries {fatal} and {second}, {death:?}: {e}"));
                tried += 1;
                if !died {
                    break;
                }
            }
        }
    }
    println!("{tried} pairs of crashes tried");
    assert!(tried > 1000, "only {tried} pairs of crashes were tried");
}

#[test]
fn undoing_twice_from_the_same_journal_changes_nothing_more() {
    for (name, faults, item) in cases() {
        let lab = Lab::new(faults, vec![item]);
        let first = lab.host.world();
        run(async {
            let mut agent = lab.start().await;
            lab.grant(&agent);
            agent.take(desired(1, lab.items.clone())).await.unwrap();
            agent.tick().await;
        });
        let kept = lab.disk.content(journal::FILE);
        lab.host.kill_agent();
        for _ in 0..2 {
            lab.disk.put(journal::FILE, &kept);
            run(lab.start());
            assert_eq!(lab.host.world(), first, "{name}");
        }
    }
}

#[test]
fn a_journal_cut_at_any_byte_still_undoes() {
    // Only bytes that were never synced can be missing, so the cut begins where the last sync before the death was;
    // here every step was synced by its successor, and the tail is what the last step left.
    let faults = fixture::table(vec![FakeFault::new("fake", plan(every_step(0)))]);
    let lab = Lab::new(faults, vec![item("entry", "fake")]);
    let first = lab.host.world();
    run(async {
        let mut agent = lab.start().await;
        lab.grant(&agent);
        agent.take(desired(1, lab.items.clone())).await.unwrap();
        agent.tick().await;
    });
    let (whole, suffered) = (lab.disk.content(journal::FILE), lab.host.world());
    lab.host.kill_agent();
    assert_ne!(suffered, first);
    run(async {
        let safe = {
            lab.disk.cut_power(0);
            lab.disk.read(journal::FILE).await.unwrap().len()
        };
        assert!(safe < whole.len());
        for cut in safe..whole.len() {
            let again = Lab::new(faults, lab.items.clone());
            let mut agent = again.start().await;
            again.grant(&agent);
            agent.take(desired(1, again.items.clone())).await.unwrap();
            agent.tick().await;
            drop(agent);
            again.disk.put(journal::FILE, &whole[..cut]);
            again.host.reboot();
            again.start().await;
            assert_eq!(again.host.world(), first, "cut at {cut}");
        }
    });
}

fn trouble() -> impl Strategy<Value = (On, Trouble)> {
    let on = prop_oneof![(0..10_usize).prop_map(On::Apply), (0..10_usize).prop_map(On::Revert)];
    let what = prop_oneof![
        Just(Trouble::Before("no".into())),
        Just(Trouble::After("no".into())),
        Just(Trouble::Hang),
        (1..40_i64).prop_map(|s| Trouble::Slow(Dur::from_secs(s))),
    ];
    (on, what)
}

/// Any selection of steps that a planner could have made: dependent steps come together.
fn selection() -> impl Strategy<Value = Vec<Step>> {
    let some = prop::collection::vec(any::<bool>(), every_step(0).len());
    (some, any::<bool>(), any::<bool>()).prop_map(|(alone, netem, shoots)| {
        let steps = every_step(0);
        let by_itself = |i: &usize| !NETEM.contains(i);
        let mut chosen: Vec<Step> =
            (0..steps.len()).filter(by_itself).filter(|i| alone[*i]).map(|i| steps[i].clone()).collect();
        if netem {
            chosen.extend(NETEM.map(|i| steps[i].clone()));
        }
        if shoots || chosen.is_empty() {
            chosen.push(shot(100));
        }
        chosen
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random plans, random failures of the host, several deaths at random places.
    #[test]
    fn random_trouble_and_random_deaths_leave_nothing(
        steps in selection(),
        troubles in prop::collection::vec(trouble(), 0..6),
        deaths in prop::collection::vec((0..60_u64, prop::option::of(0..80_usize)), 1..4),
    ) {
        let mut item = item("entry", "fake");
        if steps.iter().all(|s| s.kind() == Kind::Spent) {
            item.duration = None;
        }
        let lab = Lab::new(fixture::table(vec![FakeFault::new("fake", plan(steps))]), vec![item]);
        for (on, trouble) in troubles {
            lab.host.script(on, trouble);
        }
        for (fatal, power) in deaths {
            lab.crash.arm(Some(fatal));
            let _ = run(lab.crash.run(lab.life()));
            lab.die(power.map_or(Death::Killed, |torn| Death::PowerCut { torn }));
        }
        if let Err(why) = run(lab.afterlife()) {
            return Err(TestCaseError::fail(why));
        }
    }
}

#[test]
fn two_items_at_once_are_both_undone() {
    let faults =
        fixture::table(vec![FakeFault::new("one", plan(every_step(0))), FakeFault::new("two", plan(every_step(1)))]);
    let items = vec![item("a", "one"), item("b", "two")];
    let count = boundaries(&Lab::new(faults, items.clone()));
    for fatal in 0..count {
        for death in [Death::Killed, Death::PowerCut { torn: 3 }] {
            let lab = Lab::new(faults, items.clone());
            lab.crash.arm(Some(fatal));
            assert!(run(lab.crash.run(lab.life())).is_err());
            lab.die(death);
            run(lab.afterlife()).unwrap_or_else(|e| panic!("boundary {fatal}, {death:?}: {e}"));
        }
    }
    assert!(count > 100, "{count}");
    let _ = key("a");
}
