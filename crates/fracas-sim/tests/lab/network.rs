//! The lab's network: all reach all over both address families, links are cut and restored, the creator calls in.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Instant,
};

use fracas_sim::{
    lab::{Family, LinkState, Program},
    need::Need,
};
use libtest_mimic::Trial;

use crate::{
    stage::{PORT, Place, lab, wait_for},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("all_reach_all", &[Need::Lab], all_reach_all),
        trial("a_foreign_ping_agrees", &[Need::Lab, Need::Program("ping")], a_foreign_ping_agrees),
        trial("links_are_cut_and_restored", &[Need::Lab], links_are_cut_and_restored),
        trial("a_cut_is_silent_and_a_pulled_plug_is_not", &[Need::Lab], a_cut_is_silent_and_a_pulled_plug_is_not),
        trial("the_creator_calls_in", &[Need::Lab], the_creator_calls_in),
    ]
}

fn all_reach_all() {
    let (lab, hosts) = lab(&["a", "b", "c"]);
    let _echoes: Vec<_> = hosts.iter().map(|host| host.ready(&["echo"])).collect();
    let _echo = lab.ready(&["echo"]);
    for from in &hosts {
        let to = hosts.iter().flat_map(|to| [to.v4(), to.v6()]).chain(<[IpAddr; 2]>::from(lab.addresses()));
        for address in to {
            for kind in ["udp", "tcp"] {
                assert!(from.reaches(kind, address), "{} to {address} by {kind}", from.name());
            }
        }
    }
    assert!(lab.reaches("udp", hosts[2].v4()) && lab.reaches("tcp", hosts[2].v6()));
    let nobody: IpAddr = "10.77.0.99".parse().expect("address");
    assert!(!hosts[0].reaches("udp", nobody), "where nobody is, nobody answers");
}

fn a_foreign_ping_agrees() {
    let (_lab, hosts) = lab(&["a", "b"]);
    for target in [hosts[1].v4(), hosts[1].v6()] {
        hosts[0].read(Program::new("ping").args(["-c", "1", "-W", "10", &target.to_string()]));
    }
}

fn links_are_cut_and_restored() {
    let (lab, hosts) = lab(&["a", "b", "c"]);
    let _echoes: Vec<_> = hosts.iter().map(|host| host.ready(&["echo"])).collect();
    let [a, b, c] = hosts.as_slice() else { panic!("three hosts") };
    // Every change from every state, itself included.
    let (up, cut, unplugged) = (LinkState::Up, LinkState::Cut, LinkState::Unplugged);
    for state in [cut, cut, up, unplugged, unplugged, up, cut, unplugged, cut, up, up] {
        b.set_link(state).expect("set");
        if state == LinkState::Up {
            wait_for("IPv4, inwards", || a.reaches("udp", b.v4()));
            wait_for("IPv6, outwards", || b.reaches("udp", a.v6()));
        } else {
            assert!(!a.reaches("udp", b.v4()), "{state:?}, IPv4, inwards");
            assert!(!b.reaches("udp", a.v6()), "{state:?}, IPv6, outwards");
        }
        assert!(a.reaches("tcp", c.v4()), "{state:?}: the others are not touched");
    }
    // Two cut hosts do not meet each other, and a host that joins heals nothing.
    for host in [a, b] {
        host.set_link(LinkState::Cut).expect("set");
    }
    let d = lab.add_host("d").expect("host");
    assert!(!a.reaches("udp", b.v4()) && !d.reaches("udp", b.v4()) && d.reaches("udp", c.v4()));
    for host in [a, b] {
        host.set_link(LinkState::Up).expect("set");
    }
    wait_for("all is well", || a.reaches("tcp", b.v4()) && b.reaches("tcp", a.v6()));
}

fn a_cut_is_silent_and_a_pulled_plug_is_not() {
    let (_lab, hosts) = lab(&["a"]);
    let carrier = || hosts[0].read(Program::new("cat").arg("/sys/class/net/eth0/carrier"));
    assert_eq!(carrier(), "1\n");
    hosts[0].set_link(LinkState::Cut).expect("set");
    assert_eq!(carrier(), "1\n");
    hosts[0].set_link(LinkState::Unplugged).expect("set");
    assert_eq!(carrier(), "0\n");
    hosts[0].set_link(LinkState::Up).expect("set");
    assert_eq!(carrier(), "1\n");
}

fn the_creator_calls_in() {
    let (lab, hosts) = lab(&["a", "b"]);
    let _echo = hosts[0].ready(&["echo"]);
    let targets = [(Family::V4, hosts[0].v4()), (Family::V6, hosts[0].v6())];
    for (family, address) in targets {
        for from in [lab.tcp_socket(family), hosts[1].tcp_socket(family)] {
            let socket = from.expect("socket");
            rustix::net::connect(&socket, &SocketAddr::new(address, PORT)).expect("connected");
            let mut stream = TcpStream::from(socket);
            let mut answer = [0; 5];
            stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer)).expect("answered");
            assert_eq!(&answer, b"hello");
        }
    }
    let socket = std::net::UdpSocket::from(lab.udp_socket(Family::V4).expect("socket"));
    socket.connect((hosts[0].v4(), PORT)).expect("connected");
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        socket.send(b"hello").and_then(|_| socket.recv(&mut [0; 5])).expect("answered");
        times.push(begun.elapsed());
    }
    times.sort();
    eprintln!("UDP round trip from outside to a host: n = 300, p50 {:?}, p99 {:?}", times[150], times[297]);
}
