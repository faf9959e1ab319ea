//! What only the netem plane must show: its steps leave state behind, so each is undone by its mark, from any state.

use std::time::Duration;

use fracas_agent::host::{
    Host as _, Reverted,
    linux::netem,
    netlink::{
        link::Links,
        traffic::{Act, Classifier, Hook, Insn, Traffic},
    },
    trials,
};
use fracas_model::plan::{Direction, Filter, Protocol, Step};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::{
    dump::Dump,
    measure::{echo, once, train},
    plane::{Kind, NetemPlane, block, delay, key, loss},
    run::Case,
    stage::{PEER, Stage, at},
};

const NETEM: &[Kind] = &[Kind::Netem];

pub(crate) const CASES: &[Case] = &[
    // It needs no netem, so it is tried wherever a fault of the network can be.
    Case::new("without_a_namespace_to_try_in_nothing_is_tried", &[Kind::Owner], not_apart),
    Case::new("any_prefix_is_undone_with_and_without_handles", NETEM, any_prefix),
    Case::new("the_last_one_out_takes_the_clsact_away", NETEM, last_one_out),
    Case::new("what_others_made_is_left", NETEM, others),
    Case::new("what_others_took_over_is_told", NETEM, took_over),
    Case::new("wrong_devices_are_refused", NETEM, wrong_devices),
    Case::new("an_ifb_that_is_still_fed_stays", NETEM, still_fed),
    Case::new("netem_loses_by_itself_too", NETEM, loses),
    Case::new("counts_are_those_of_the_kernel", NETEM, counts),
];

fn udp() -> Filter {
    Filter { ports: vec![(7001, 7001)], protocol: Some(Protocol::Udp), ..Filter::default() }
}

/// An agent that may change devices and not make a namespace would otherwise try among the host's own.
fn not_apart(_kind: Kind) {
    let before = Dump::take();
    let mut rights = capabilities(None).expect("capabilities");
    rights.effective.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, rights).expect("one right less");
    let (why, fix) = trials::netem::works().expect_err("a trial among the host's devices");
    assert!(why.contains("not tried") && fix.contains("CAP_SYS_ADMIN"), "{why}; {fix}");
    assert_eq!(before.differences(&Dump::take()), Vec::<String>::new());
}

/// Undoes a step of the item `id`, as applied or as not known to have been.
fn revert(plane: &NetemPlane, id: &str, step: &Step, handle: Option<&serde_json::Value>) -> Reverted {
    block(plane.host.revert(&key(id), 0, step, handle)).unwrap_or_else(|e| panic!("{step:?}: {e}"))
}

fn apply(plane: &NetemPlane, id: &str, step: &Step) -> serde_json::Value {
    block(plane.host.apply(&key(id), 0, step)).unwrap_or_else(|e| panic!("{step:?}: {e}")).0
}

/// Every number of applied steps, their outcome known or lost, undone twice: the host is as before.
fn any_prefix(_kind: Kind) {
    let stage = Stage::with_container();
    let mut plane = NetemPlane::open(&stage);
    let clean = Dump::take();
    for effect in [delay(5), loss(5.0)] {
        let steps = plane.steps(Direction::Egress, &udp(), &effect, 1000);
        for done in 0..=steps.len() {
            for known in [true, false] {
                let handles: Vec<_> = steps[..done].iter().map(|step| apply(&plane, "a", step)).collect();
                for round in [1, 2] {
                    for (index, step) in steps.iter().enumerate().rev() {
                        let handle = handles.get(index).filter(|_| known);
                        let reverted = revert(&plane, "a", step, handle);
                        let expected =
                            if index < done && round == 1 { Reverted::Undone } else { Reverted::NothingThere };
                        assert_eq!(reverted, expected, "{done} done, known: {known}, round {round}: {step:?}");
                    }
                }
                let left = clean.differences(&Dump::take());
                assert!(left.is_empty(), "{done} done, known: {known}: {left:#?}");
            }
        }
    }
}

fn last_one_out(_kind: Kind) {
    let stage = Stage::new();
    let mut plane = NetemPlane::open(&stage);
    let clean = Dump::take();
    let first = plane.steps(Direction::Egress, &udp(), &delay(5), 1000);
    let second = plane.steps(Direction::Ingress, &udp(), &loss(5.0), 1000);
    plane.apply("a", first);
    plane.apply("b", second);
    // In the order of applying: ifb, netem, clsact, redirect.
    let ended = plane.remove("a");
    assert_eq!(ended, [Reverted::Undone, Reverted::Undone, Reverted::NothingThere, Reverted::Undone]);
    assert_eq!(plane.remove("b"), [Reverted::Undone, Reverted::Undone]);
    let left = clean.differences(&Dump::take());
    assert!(left.is_empty(), "{left:#?}");
}

/// A filter that is not ours: matches nothing.
fn foreign(index: u32) -> Classifier {
    let program = vec![Insn { code: 6, jt: 0, jf: 0, k: 0 }];
    Classifier { index, hook: Hook::Egress, priority: 7, handle: 1, program, act: Act::Count, cookie: [9; 16] }
}

fn others(_kind: Kind) {
    let stage = Stage::new();
    let mut plane = NetemPlane::open(&stage);
    let (mut links, mut traffic) = (Links::open().expect("netlink"), Traffic::open().expect("netlink"));
    let eth0 = links.index("eth0").expect("the device");
    // A clsact that somebody else made, without our mark, is used and left.
    add_plain_clsact(eth0);
    let clean = Dump::take();
    let steps = plane.steps(Direction::Egress, &udp(), &delay(5), 1000);
    plane.apply("a", steps);
    let ended = plane.remove("a");
    assert_eq!(ended, [Reverted::Undone, Reverted::Undone, Reverted::NothingThere, Reverted::Undone]);
    assert!(clean.differences(&Dump::take()).is_empty());
    traffic.delete_clsact(eth0).expect("gone");

    // A clsact of ours that others have come to use is left and told.
    let steps = plane.steps(Direction::Egress, &udp(), &delay(5), 1000);
    plane.apply("b", steps);
    traffic.add_filter(&foreign(eth0)).expect("a filter");
    let ended = plane.remove("b");
    assert!(matches!(&ended[2], Reverted::Superseded(what) if what.contains("eth0")), "{ended:?}");
    assert_eq!((&ended[0], &ended[1], &ended[3]), (&Reverted::Undone, &Reverted::Undone, &Reverted::Undone));
    let left = traffic.filters(eth0, Hook::Egress).expect("filters");
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].priority, left[0].cookie.as_slice()), (7, &[9; 16][..]));
    traffic.delete_clsact(eth0).expect("gone");

    // An ifb of the same name that is not ours, or is another item's, is left.
    links.add_ifb("frc77", "somebody's").expect("a device");
    let step = Step::MakeIfb { name: "frc77".into() };
    assert!(block(plane.host.apply(&key("c"), 0, &step)).is_err(), "a name taken twice");
    assert_eq!(revert(&plane, "c", &step, None), Reverted::NothingThere);
    assert!(links.find("frc77").expect("netlink").is_some());
    links.delete("frc77").expect("gone");
    // One of ours that died between being made and being named is removed.
    links.add_ifb("frc77", "").expect("a device");
    assert_eq!(revert(&plane, "c", &step, None), Reverted::Undone);
    assert!(links.find("frc77").expect("netlink").is_none());
}

/// As `tc qdisc add dev eth0 clsact` does it.
fn add_plain_clsact(index: u32) {
    use fracas_agent::host::netlink::{
        Protocol, Socket,
        message::{CREATE, EXCL, Message},
    };
    let mut fixed = [0; 20];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&0xffff_0000_u32.to_ne_bytes());
    fixed[12..16].copy_from_slice(&0xffff_fff1_u32.to_ne_bytes());
    let mut m = Message::new(36, CREATE | EXCL, &fixed);
    m.put_text(1, "clsact");
    Socket::open(Protocol::Route).and_then(|mut s| s.ask(m)).expect("a clsact");
}

fn took_over(_kind: Kind) {
    let stage = Stage::new();
    let plane = NetemPlane::open(&stage);
    let (mut links, mut traffic) = (Links::open().expect("netlink"), Traffic::open().expect("netlink"));
    let eth0 = links.index("eth0").expect("the device");
    let (make, clsact) = (Step::MakeIfb { name: "frc1".into() }, Step::MakeClsact { device: "eth0".into() });
    let netem = Step::MakeNetem { device: "frc1".into(), effect: delay(5), limit_packets: 1000 };
    let (device, to, filter) = ("eth0".into(), "frc1".into(), udp());
    let redirect = Step::Redirect { device, to, direction: Direction::Egress, filter, priority: 7 };
    let handles = [&make, &netem, &clsact, &redirect].map(|step| apply(&plane, "a", step));

    // Our filter is replaced by another's under the same priority and handle.
    traffic.delete_filter(eth0, Hook::Egress, 7, 1).expect("gone");
    traffic.add_filter(&foreign(eth0)).expect("a filter");
    let ended = revert(&plane, "a", &redirect, Some(&handles[3]));
    assert!(matches!(&ended, Reverted::Superseded(what) if what.contains('7')), "{ended:?}");
    traffic.delete_filter(eth0, Hook::Egress, 7, 1).expect("gone");

    // The device is renamed: it is still ours and goes, with its netem.
    let ifb = links.index("frc1").expect("our ifb");
    links.set_up(ifb, false).expect("down");
    links.rename(ifb, "moved").expect("renamed");
    assert_eq!(revert(&plane, "a", &clsact, Some(&handles[2])), Reverted::Undone);
    assert_eq!(revert(&plane, "a", &netem, Some(&handles[1])), Reverted::Undone);
    // Somebody gives it another alias: it is not touched any more.
    links.set_alias(ifb, "mine now").expect("an alias");
    let ended = revert(&plane, "a", &make, Some(&handles[0]));
    assert!(matches!(&ended, Reverted::Superseded(what) if what.contains("moved")), "{ended:?}");
    assert!(links.find("moved").expect("netlink").is_some());
}

fn wrong_devices(_kind: Kind) {
    let stage = Stage::new();
    let plane = NetemPlane::open(&stage);
    let clean = Dump::take();
    let refused = |step: &Step| block(plane.host.apply(&key("a"), 0, step)).expect_err("refused").0;
    let netem = Step::MakeNetem { device: "eth0".into(), effect: delay(5), limit_packets: 10 };
    assert!(refused(&netem).contains("not an ifb of ours"));
    let missing = Step::MakeClsact { device: "eth9".into() };
    assert!(refused(&missing).contains("eth9"));
    let redirect = |device: &str, to: &str| Step::Redirect {
        device: device.into(),
        to: to.into(),
        direction: Direction::Egress,
        filter: udp(),
        priority: 5,
    };
    assert!(refused(&redirect("lo", "frc1")).contains("loopback"));
    assert!(refused(&redirect("eth0", "frc1")).contains("clsact"));
    let clsact = Step::MakeClsact { device: "eth0".into() };
    apply(&plane, "a", &clsact);
    assert!(refused(&redirect("eth0", "frc1")).contains("frc1"));
    let bad = Filter { remotes: vec!["10.0.0.0/99".into()], ..Filter::default() };
    let lose = Step::Lose {
        device: "eth0".into(),
        direction: Direction::Egress,
        filter: bad,
        percent: fracas_model::units::Percent(5.0),
        priority: 5,
    };
    assert!(refused(&lose).contains("10.0.0.0/99"));
    let jitter = crate::plane::jittered(5000, 3000);
    apply(&plane, "a", &Step::MakeIfb { name: "frc1".into() });
    let netem = Step::MakeNetem { device: "frc1".into(), effect: jitter, limit_packets: 10 };
    assert!(refused(&netem).contains("2.147 s"), "netem would cut the jitter silently");
    assert_eq!(revert(&plane, "a", &clsact, None), Reverted::Undone);
    assert_eq!(revert(&plane, "a", &Step::MakeIfb { name: "frc1".into() }, None), Reverted::Undone);
    assert!(clean.differences(&Dump::take()).is_empty());
}

/// Without its device a redirect would drop all it catches, so the device goes after it.
fn still_fed(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = NetemPlane::open(&stage);
    let steps = plane.steps(Direction::Egress, &udp(), &delay(5), 1000);
    plane.apply("a", steps.clone());
    let failure = block(plane.host.revert(&key("a"), 0, &steps[0], None)).expect_err("it is fed");
    assert!(failure.0.contains("eth0 still sends packets to frc0"), "{failure}");
    assert!(once(at(PEER[0], 7001), Duration::from_secs(1)).is_some(), "the fault became a black hole");
    plane.remove("a");
}

/// netem's own loss, for a filter on which nothing is delayed.
fn loses(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = NetemPlane::open(&stage);
    let mut steps = plane.steps(Direction::Egress, &udp(), &delay(5), 1000);
    steps[1] = Step::MakeNetem { device: "frc0".into(), effect: loss(25.0), limit_packets: 1000 };
    plane.apply("a", steps);
    let under = train(at(PEER[0], 7001), 2000, Duration::from_micros(300), Duration::from_secs(1));
    let counts = netem::suffered(&key("a")).expect("counts");
    plane.remove("a");
    let lost = 100.0 * under.lost();
    assert!((20.0..30.0).contains(&lost) && under.errors == 0, "{lost} % lost, {} errors", under.errors);
    assert_eq!((counts.matched, counts.dropped), (2000, 2000 - under.trips.len() as u64), "{counts:?}");
}

fn counts(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = NetemPlane::open(&stage);
    let steps = plane.steps(Direction::Egress, &udp(), &delay(400), 1000);
    plane.apply("a", steps);
    let to = at(PEER[0], 7001);
    let trip = std::thread::spawn(move || train(to, 50, Duration::from_micros(100), Duration::from_secs(2)));
    crate::stage::wait_for("all to be held", || netem::suffered(&key("a")).expect("counts").held == 50);
    assert_eq!(trip.join().expect("it does not panic").trips.len(), 50);
    let counts = netem::suffered(&key("a")).expect("counts");
    let expected = netem::Suffered { matched: 50, released: 50, ..netem::Suffered::default() };
    assert_eq!(counts, expected);
    assert_eq!(netem::suffered(&key("b")).expect("counts"), netem::Suffered::default(), "another item's");
    // Nothing but what was redirected goes through our ifb: not even its own neighbour discovery.
    plane.remove("a");
}
