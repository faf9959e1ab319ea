//! What only the owner plane promises: its rules live exactly as long as its worker.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use fracas_agent::host::net::worker::Ask;
use fracas_model::plan::{Direction, Filter, Impair, Protocol};

use crate::{
    dump::Dump,
    measure::{client, echo, once},
    plane::{Kind, OwnerPlane, delay, loss},
    run::{Case, emulated, figure},
    stage::{HOST, PEER, Stage, at, wait_for},
};

const OWNER: &[Kind] = &[Kind::Owner];

pub(crate) const CASES: &[Case] = &[
    Case::new("a_killed_worker_takes_its_rules_along", OWNER, killed),
    Case::new("a_worker_at_its_deadline_takes_its_rules_along", OWNER, deadline),
    Case::new("a_fault_at_its_deadline_ends_alone", OWNER, own_deadline),
    Case::new("a_connection_survives_a_kill", OWNER, connection_survives),
    Case::new("orders_that_cannot_be_obeyed_are_refused", OWNER, refused),
    Case::new("one_device_of_several", OWNER, one_device),
    Case::new("held_packets_take_no_more_memory_than_they_may", OWNER, bounded),
];

fn udp() -> Filter {
    Filter { ports: vec![(7001, 7001)], protocol: Some(Protocol::Udp), ..Filter::default() }
}

fn add(id: &str, direction: Direction, filter: Filter, effect: fracas_model::plan::Effect) -> Ask {
    Ask::Add { id: id.into(), impair: Impair { direction, filter, effect, device: None } }
}

/// From SIGKILL to the first packet that passes, for rules that lose everything one way.
fn killed(_kind: Kind) {
    let n = if emulated() { 5 } else { 30 };
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let clean = Dump::take();
    for direction in [Direction::Egress, Direction::Ingress] {
        let mut took = Vec::new();
        for round in 0..n {
            let mut plane = OwnerPlane::open();
            plane.ask(&add("gone", direction, udp(), loss(100.0))).expect("added");
            let to = at(PEER[0], 7001);
            assert_eq!(once(to, Duration::from_millis(30)), None, "{round}: something passes");
            let socket = client(to);
            let pid = rustix::process::Pid::from_raw(plane.worker.pid()).expect("a worker");
            let begun = Instant::now();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
            loop {
                socket.send(b"hello").expect("sent");
                if readable(&socket, Duration::from_micros(200)) {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(5), "the rules outlive their worker");
            }
            took.push(begun.elapsed());
            drop(plane);
        }
        took.sort();
        figure(&format!(
            "SIGKILL of the worker to the first packet {:7}: p50 {:.2} ms, longest {:.2} ms, n = {n}",
            format!("{direction:?}").to_lowercase(),
            took[n / 2].as_secs_f64() * 1e3,
            took[n - 1].as_secs_f64() * 1e3
        ));
        // One stall of the machine makes the longest; half of them it does not make.
        let median = if emulated() { 1000 } else { 50 };
        assert!(took[n / 2] < Duration::from_millis(median) && took[n - 1] < Duration::from_secs(3), "{took:?}");
    }
    let left = clean.differences(&Dump::take());
    assert!(left.is_empty(), "{left:#?}");
}

/// Waits for something to read.
fn readable(socket: &std::net::UdpSocket, longest: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let longest = Timespec { tv_sec: 0, tv_nsec: longest.subsec_nanos().into() };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&longest)).expect("poll") > 0
}

fn deadline(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = OwnerPlane::open();
    let clean = Dump::take();
    plane.ask(&add("gone", Direction::Egress, udp(), loss(100.0))).expect("added");
    plane.ask(&add("slow", Direction::Ingress, udp(), delay(10))).expect("added");
    assert_eq!(once(at(PEER[0], 7001), Duration::from_millis(50)), None);
    plane.worker.deadline(Duration::from_hours(1)).expect("told");
    plane.stats("gone");
    let begun = Instant::now();
    plane.worker.deadline(Duration::from_millis(100)).expect("told");
    wait_for("the deadline", || !plane.worker.alive());
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert!(once(at(PEER[0], 7001), Duration::from_secs(1)).is_some(), "lossy after the worker's end");
    let left = clean.differences(&Dump::take());
    assert!(left.is_empty(), "{left:#?}");
}

/// An agent that hangs tells nobody to end: each fault ends at its own time, and the others stay.
fn own_deadline(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    echo(&stage.peer, 7002);
    let other = Filter { ports: vec![(7002, 7002)], ..udp() };
    let mut plane = OwnerPlane::open();
    plane.ask(&add("short", Direction::Egress, udp(), loss(100.0))).expect("added");
    plane.ask(&add("long", Direction::Egress, other, loss(100.0))).expect("added");
    let lost = |port| once(at(PEER[0], port), Duration::from_millis(50)).is_none();
    assert!(lost(7001) && lost(7002));
    for (id, left) in [("long", Duration::from_hours(1)), ("short", Duration::from_millis(100))] {
        let until = Ask::Until { id: id.into(), left_ns: left.as_nanos() as u64 };
        plane.worker.send(&serde_json::to_value(until).expect("an order")).expect("told");
    }
    wait_for("the short one's end", || !lost(7001));
    assert!(lost(7002), "the other one stays");
    assert!(plane.ask(&Ask::Stats { id: "short".into() }).is_err(), "it is gone");
    plane.ask(&Ask::Remove { id: "short".into() }).expect("what is not there is gone");
    plane.ask(&Ask::Remove { id: "long".into() }).expect("removed");
    assert!(!lost(7002));
}

/// What the worker holds is lost with it, and TCP sends it again.
fn connection_survives(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    for address in PEER {
        for direction in [Direction::Egress, Direction::Ingress] {
            let mut plane = OwnerPlane::open();
            let mut stream = TcpStream::connect(at(address, 7001)).expect("a connection");
            stream.set_nodelay(true).expect("an option");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
            let filter = Filter { protocol: Some(Protocol::Tcp), ..udp() };
            plane.ask(&add("slow", direction, filter, delay(5000))).expect("added");
            stream.write_all(b"held").expect("written");
            wait_for("it to be held", || plane.stats("slow").held > 0);
            let begun = Instant::now();
            plane.worker.kill().expect("killed");
            let mut back = [0; 4];
            stream.read_exact(&mut back).expect("the connection goes on");
            assert_eq!(&back, b"held");
            assert!(begun.elapsed() < Duration::from_secs(4), "{address} {direction:?}: {:?}", begun.elapsed());
        }
    }
}

fn refused(_kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = OwnerPlane::open();
    plane.ask(&Ask::Remove { id: "none".into() }).expect("what is not there is gone");
    assert!(plane.ask(&Ask::Stats { id: "none".into() }).is_err());
    let bad = Filter { remotes: vec!["10.0.0.0/99".into()], ..Filter::default() };
    let why = plane.ask(&add("bad", Direction::Egress, bad, delay(10))).expect_err("no network");
    assert!(why.contains("10.0.0.0/99"), "{why}");
    assert!(plane.ask(&Ask::Stats { id: "bad".into() }).is_err(), "a refused fault is there");
    plane.ask(&add("slow", Direction::Egress, udp(), delay(10))).expect("added");
    let why = plane.ask(&add("slow", Direction::Egress, udp(), delay(20))).expect_err("twice the same name");
    assert!(why.contains("slow"), "{why}");
    let took = once(at(PEER[0], 7001), Duration::from_secs(1)).expect("an answer");
    assert!(took >= Duration::from_millis(10), "{took:?}");
    let queues = Dump::take().0["queues"].len();
    assert!(queues <= 2, "queues of refused faults are left: {queues}");
    plane.ask(&Ask::Quit).expect("quits");
    wait_for("the worker to end", || !plane.worker.alive());
}

fn one_device(_kind: Kind) {
    let stage = Stage::with_container();
    echo(&stage.peer, 7001);
    let container = stage.container.as_ref().expect("a container");
    echo(container, 7001);
    let mut plane = OwnerPlane::open();
    for direction in [Direction::Egress, Direction::Ingress] {
        let impair = Impair { direction, filter: udp(), effect: delay(300), device: Some("ct0".into()) };
        plane.ask(&Ask::Add { id: "slow".into(), impair }).expect("added");
        let trip = |address| once(at(address, 7001), Duration::from_secs(2)).expect("an answer");
        assert!(trip(crate::stage::CONTAINER[0]) >= Duration::from_millis(300), "{direction:?}");
        assert!(trip(PEER[0]) < Duration::from_millis(150), "{direction:?}: another device suffers");
        plane.ask(&Ask::Remove { id: "slow".into() }).expect("removed");
    }
}

/// A flood into a long delay: what would take more memory than may be taken passes at once and is told, whatever the size of
/// the packets, and nothing is lost.
fn bounded(_kind: Kind) {
    const MOST: u64 = 100_000;
    let stage = Stage::new();
    for size in [64_usize, 700, 1400] {
        let mut plane = OwnerPlane::with(&[MOST.to_string()]);
        plane.ask(&add("slow", Direction::Ingress, udp(), delay(600))).expect("added");
        let sink = std::net::UdpSocket::bind(at(HOST[0], 7001)).expect("a port");
        let sent: u64 = 120;
        stage.peer.run(move || {
            let socket = client(at(HOST[0], 7001));
            for _ in 0..sent {
                socket.send(&vec![7; size]).expect("sent");
            }
        });
        let stats = plane.stats("slow");
        // What the kernel needs for each beside its bytes, and the headers, make it fewer.
        let fit = MOST / (size as u64 + 28 + 768);
        assert_eq!(stats.matched, sent, "{size}: {stats:?}");
        assert!(stats.held <= fit && stats.held + 2 >= fit.min(sent), "{size}: {fit} fit, {stats:?}");
        assert_eq!(stats.passed, sent - stats.held, "{size}: {stats:?}");
        sink.set_read_timeout(Some(Duration::from_secs(3))).expect("a limit");
        let mut buffer = vec![0; size + 1];
        let came = (0..sent).take_while(|_| sink.recv(&mut buffer).is_ok_and(|n| n == size)).count();
        assert_eq!(came as u64, sent, "{size}: some are lost");
        // Room is there again.
        assert_eq!(plane.stats("slow").held, 0);
        plane.ask(&Ask::Remove { id: "slow".into() }).expect("removed");
    }
}
