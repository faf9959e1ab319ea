//! Undo: what is held is let go, what did not fit is told, nothing is left.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::netlink::{
    Protocol as Subsystem, Socket,
    link::Links,
    nft::Batch,
    queue::{Copy, Queue},
    traffic::{Act, Classifier, Hook, Insn, Traffic},
};
use fracas_model::plan::{Direction, Filter, Protocol};

use crate::{
    dump::Dump,
    measure::{echo, once, roomy, tcp_echo, train},
    plane::{BOTH, Kind, Plane, delay, loss},
    run::{Case, figure, skip},
    stage::{HOST, PEER, Stage, at, wait_for},
};

pub(crate) const CASES: &[Case] = &[
    Case::new("undo_lets_go_what_is_held", BOTH, lets_go),
    Case::new("what_does_not_fit_is_told", BOTH, overflow),
    Case::new("nothing_is_left", BOTH, nothing_left),
    Case::new("every_kind_of_residue_is_caught", &[Kind::Owner], residue),
];

/// The owner plane lets go at once, netem when the time is up; nothing is lost either way.
fn lets_go(kind: Kind) {
    const N: usize = 200;
    let stage = Stage::new();
    for port in [7001, 7002] {
        echo(&stage.peer, port);
    }
    let mut plane = Plane::open(kind, &stage);
    // netem is waited for.
    let long = if kind == Kind::Owner { 1500 } else { 800 };
    let udp = Filter { ports: vec![(7001, 7001)], protocol: Some(Protocol::Udp), ..Filter::default() };
    for direction in [Direction::Egress, Direction::Ingress] {
        for address in PEER {
            plane.add("slow", direction, &udp, &delay(long));
            let to = at(address, 7001);
            let sent = thread::spawn(move || train(to, N, Duration::from_micros(100), Duration::from_secs(6)));
            wait_for("all to be held", || plane.figures("slow").held == N as u64);
            let begun = Instant::now();
            plane.remove("slow");
            let took = begun.elapsed();
            let came = sent.join().expect("it does not panic");
            assert_eq!((came.trips.len(), came.errors), (N, 0), "{direction:?} {address}: held packets are lost");
            match kind {
                // Far earlier than they were due.
                Kind::Owner => assert!(came.quantile(1.0) < Duration::from_millis(1400), "{:?}", came.quantile(1.0)),
                Kind::Netem => {
                    assert!(took >= Duration::from_millis(200), "undone {took:?} after, while some were held");
                }
            }
            assert!(once(to, Duration::from_secs(1)).expect("an answer") < Duration::from_millis(500));
        }
    }
    // TCP on its way out: copies are let go as well.
    let tcp = Filter { protocol: Some(Protocol::Tcp), ..udp };
    plane.add("slow", Direction::Egress, &tcp, &delay(1000));
    let running = thread::spawn(|| tcp_echo(at(PEER[0], 7001), 100_000, Duration::from_secs(8)));
    wait_for("some to be held", || plane.figures("slow").held > 0);
    plane.remove("slow");
    running.join().expect("it does not panic").expect("TCP goes on after the undo");
    plane.close();
}

/// More than there is room for: the fault says so. On the owner plane what does not fit passes, netem drops it.
fn overflow(kind: Kind) {
    const SENT: u64 = 20_000;
    let stage = Stage::new();
    let mut plane = Plane::open(kind, &stage);
    let sink = UdpSocket::bind(at(HOST[0], 7001)).expect("a port");
    sink.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
    if !roomy(&sink) {
        skip("a receive buffer for all that is sent is not granted here");
    }
    let filter = Filter { ports: vec![(7001, 7001)], ..Filter::default() };
    let blast = |stage: &Stage| {
        stage.peer.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
            socket.connect(at(HOST[0], 7001)).expect("an address");
            for _ in 0..SENT {
                socket.send(b"0123456789").expect("sent");
            }
        });
    };
    match &mut plane {
        Plane::Owner(_) => {
            // For 20 ms the worker makes room for 8192; while it stands still nothing leaves.
            plane.add("slow", Direction::Ingress, &filter, &delay(20));
            let Plane::Owner(owner) = &plane else { unreachable!() };
            let pid = rustix::process::Pid::from_raw(owner.worker.pid()).expect("a worker");
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
            blast(&stage);
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("goes on");
        }
        Plane::Netem(netem) => {
            let steps = netem.steps(Direction::Ingress, &filter, &delay(1500), 1000);
            netem.apply("slow", steps);
            blast(&stage);
        }
    }
    wait_for("what is held to be let go", || plane.figures("slow").held == 0);
    let mut came = 0;
    while sink.recv(&mut [0; 64]).is_ok() {
        came += 1;
    }
    let figures = plane.figures("slow");
    figure(&format!(
        "overflow {:5}: {SENT} sent, {came} came, {} passed undelayed, {} dropped for want of room",
        kind.word(),
        figures.passed,
        figures.unasked
    ));
    assert_eq!(figures.matched, SENT, "{figures:?}");
    let told = if kind == Kind::Owner { figures.passed } else { figures.unasked };
    assert!(told >= SENT / 2, "too little is told: {figures:?}");
    // What is told is what happened: not one packet is lost without being counted.
    assert_eq!(came + figures.unasked, SENT, "{figures:?}");
    plane.close();
}

/// All kinds of faults together, with traffic; then the host is as it was.
fn nothing_left(kind: Kind) {
    let stage = Stage::with_container();
    echo(&stage.peer, 7001);
    // The first fault may load what the kernel then keeps.
    let mut plane = Plane::open(kind, &stage);
    plane.add("first", Direction::Egress, &Filter::default(), &delay(1));
    plane.close();
    let before = Dump::take();
    for orderly in [true, false] {
        let mut plane = Plane::open(kind, &stage);
        for direction in [Direction::Egress, Direction::Ingress] {
            let of = |port| Filter { ports: vec![(port, port)], ..Filter::default() };
            plane.add(&format!("slow {direction:?}"), direction, &of(7001), &delay(30));
            plane.add(&format!("lossy {direction:?}"), direction, &of(7001), &loss(20.0));
            plane.add(&format!("other {direction:?}"), direction, &of(7002), &delay(10));
        }
        assert!(!before.differences(&Dump::take()).is_empty(), "the faults cannot be seen");
        train(at(PEER[0], 7001), 100, Duration::from_micros(500), Duration::from_millis(200));
        if orderly {
            for direction in [Direction::Egress, Direction::Ingress] {
                plane.remove(&format!("slow {direction:?}"));
                plane.remove(&format!("other {direction:?}"));
            }
        }
        plane.close();
        let left = before.differences(&Dump::take());
        assert!(left.is_empty(), "left behind (orderly: {orderly}): {left:#?}");
    }
}

/// A residue planted in each section of the comparison is seen there.
fn residue(_kind: Kind) {
    let _stage = Stage::new();
    let clean = Dump::take();
    let caught = |section: &str| {
        let seen = clean.differences(&Dump::take());
        assert!(seen.iter().any(|s| s.starts_with(section)), "{section}: {seen:?}");
    };
    let (mut links, mut traffic) = (Links::open().expect("netlink"), Traffic::open().expect("netlink"));
    let eth0 = links.index("eth0").expect("the device");

    traffic.add_clsact(eth0).expect("a qdisc");
    caught("qdiscs");
    let program = vec![Insn { code: 6, jt: 0, jf: 0, k: 0 }];
    let target = links.add_ifb("left", "").expect("a device");
    let (index, hook, act) = (eth0, Hook::Ingress, Act::Redirect(target));
    let filter = Classifier { index, hook, priority: 1, handle: 1, program, act, cookie: [0; 16] };
    traffic.add_filter(&filter).expect("a filter");
    caught("filters");
    caught("links");
    traffic.delete_clsact(eth0).expect("gone");
    links.delete("left").expect("gone");

    let mut socket = Socket::open(Subsystem::Netfilter).expect("netlink");
    let mut batch = Batch::default();
    batch.new_table("left");
    batch.commit(&mut socket).expect("a table");
    caught("nftables");
    drop(socket);
    let queue = Queue::bind(41_000, Copy::Meta, 10).expect("a queue");
    if fs::read("/proc/self/net/netfilter/nfnetlink_queue").is_err() {
        skip("all residues were caught but bound queues, which only root may list");
    }
    caught("queues");
    drop(queue);
    wait_for("all residues to be gone", || clean.differences(&Dump::take()).is_empty());
}
